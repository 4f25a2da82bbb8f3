"""Accuracy of students that share only heads with their teacher."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.style import BLACK, styled
from figures.sweep_data import load
from figures.sweep_frame import finish
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws a bar for each start, and the accuracy of a linear probe of the last hidden layer.

    No figure of the paper corresponds to it; Brockers et al., arXiv 2605.23645, report that
    compatible heads suffice and that a redrawn class head gives chance.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    with styled():
        figure, axes = plt.subplots(figsize=(7.8, 4.0))
        where = panels.bars(axes, sweep.labels, sweep.ungrouped())
        for row in sweep.rows("probe"):
            axes.plot(
                where["", row["label"]] + 0.3, row["mean"], "s", markersize=5,
                markerfacecolor="white", markeredgecolor=BLACK,
                label="linear probe of the last hidden layer, mean",
            )  # fmt: skip
        panels.chance(axes, sweep, sweep.rows())
        return finish(figure, sweep, folder, [axes])
