"""Extended Data Fig. 2b: accuracy against the number of auxiliary logits."""

from pathlib import Path

from figures import panels
from figures.style import styled
from figures.sweep_data import load, name_of
from figures.sweep_frame import finish
from sublab.records import Record

# Figure 10 of the preprint, m = 3, n = 100: mean and half width of its 95 % interval.
_PUBLISHED = {"student": (0.5284, 0.0221), "cross-model": (0.1061, 0.0104), "": (0.9434, 0.0004)}


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws accuracy against m: student, cross-model, student on images, and the teacher's band.

    Extended Data Fig. 2b, whose numbers are not published; at m = 3 the preprint's figure 10 has
    some, which stand beside ours.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = panels.accuracy_figure(sweep, lambda row: row["aux"], name_of("aux"))
        if sweep.is_published_setting() and 3 in sweep.values("aux"):
            for mean, half_width in _PUBLISHED.values():
                panels.published(axes, 3, mean, half_width, "published (preprint, n = 100)")
        return finish(figure, sweep, folder, [axes])
