"""Accuracy by which layers of the student's start are drawn anew."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.style import styled
from figures.sweep_data import load
from figures.sweep_frame import finish
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws a group of bars for each set of layers drawn anew, one of every m.

    No published figure corresponds to it.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = plt.subplots(figsize=(7.6, 4.0))
        series = {f"m = {aux}": rows for aux, rows in sweep.grouped("aux").items()}
        panels.bars(axes, sweep.labels, series)
        axes.set_xlabel("drawn anew in the student's start")
        panels.chance(axes, sweep, sweep.rows())
        return finish(figure, sweep, folder, [axes])
