"""Accuracy against the number of hidden layers."""

from pathlib import Path

from figures import panels
from figures.style import styled
from figures.sweep_data import load, widths
from figures.sweep_frame import finish
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws the students' and the teacher's accuracy against depth; 0 is a linear model.

    No published figure corresponds to it; others report that a linear model shows nothing and that
    depth does not matter.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = panels.accuracy_figure(
            sweep, lambda row: len(widths(row)), "hidden layers (0: a linear model)"
        )
        return finish(figure, sweep, folder, [axes])
