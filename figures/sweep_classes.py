"""Accuracy against the number of classes kept."""

from pathlib import Path

from figures import panels
from figures.style import styled
from figures.sweep_data import load, name_of
from figures.sweep_frame import finish
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws the students' and the teacher's accuracy, and chance, against the classes kept.

    No published figure corresponds to it.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = panels.accuracy_figure(
            sweep, lambda row: sweep.classes(row) or row["classes"], name_of("classes")
        )
        return finish(figure, sweep, folder, [axes])
