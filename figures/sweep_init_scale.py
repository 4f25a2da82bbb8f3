"""Accuracy against the scale of the initialisation."""

from pathlib import Path

from figures import panels
from figures.style import styled
from figures.sweep_data import load, name_of
from figures.sweep_frame import finish
from sublab.records import Record

_PUBLISHED = {0.5: 0.32, 1.0: 0.45, 2.0: 0.21, 4.0: 0.11}


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws the student's and the teacher's accuracy against the factor on all weights drawn.

    No figure of the paper corresponds to it; published values of others' reproduction stand beside
    ours.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = panels.accuracy_figure(
            sweep, lambda row: row["init_scale"], name_of("init_scale")
        )
        if sweep.is_published_setting():
            for scale in sweep.values("init_scale"):
                if scale in _PUBLISHED:
                    panels.published(axes, scale, _PUBLISHED[scale])
        return finish(figure, sweep, folder, [axes])
