"""Accuracy against the width of the hidden layers."""

from pathlib import Path

from figures import panels
from figures.style import styled
from figures.sweep_data import load, widths
from figures.sweep_frame import finish
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws the students' and the teacher's accuracy against the width of the first hidden layer.

    No published figure corresponds to it; others report that width lowers transfer.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = panels.accuracy_figure(
            sweep, lambda row: (widths(row) or [0])[0], "width of the hidden layers"
        )
        return finish(figure, sweep, folder, [axes])
