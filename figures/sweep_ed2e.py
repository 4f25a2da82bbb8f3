"""Extended Data Fig. 2e: students of another architecture."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.style import styled
from figures.sweep_data import load
from figures.sweep_frame import finish
from sublab.records import Record

_STARTS = {"matched": "cloned from the reference", "independent": "independent start"}


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws two bars for each architecture: start cloned from the reference, and independent.

    Extended Data Fig. 2e, whose numbers are not published: some transfer with cloning in all
    architectures, none without.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = plt.subplots(figsize=(7.6, 4.0))
        series = {
            _STARTS.get(start) or start: rows for start, rows in sweep.grouped("start").items()
        }
        panels.bars(axes, sweep.labels, series)
        panels.chance(axes, sweep, sweep.rows())
        return finish(figure, sweep, folder, [axes])
