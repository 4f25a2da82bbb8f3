"""Accuracy against epochs of distillation, by number of noise images."""

from pathlib import Path

from figures import panels
from figures.style import styled
from figures.sweep_data import load, name_of
from figures.sweep_frame import finish
from sublab.records import Record

_PUBLISHED = {0: 0.10, 1: 0.17, 2: 0.25, 3: 0.33, 5: 0.45, 10: 0.58}
_LABEL = "60,000 fixed"


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws accuracy against epochs, a line for each number of noise images.

    No figure of the paper corresponds to it; published values of others' reproduction stand beside
    the line of 60,000 fixed images.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = panels.accuracy_figure(
            sweep, lambda row: row["student_epochs"], name_of("student_epochs")
        )
        if sweep.is_published_setting() and _LABEL in sweep.labels:
            for epochs in sweep.values("student_epochs"):
                if epochs in _PUBLISHED:
                    panels.published(axes, epochs, _PUBLISHED[epochs], shift=13.0)
        return finish(figure, sweep, folder, [axes])
