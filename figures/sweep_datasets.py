"""Accuracy on other data sets in the format of MNIST."""

from pathlib import Path

from matplotlib import pyplot as plt

from figures import panels
from figures.mnist_bars import DATASET_TITLES
from figures.style import BLACK, styled
from figures.sweep_data import load
from figures.sweep_frame import finish
from sublab.records import Record


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws a group of bars for each data set, one of every label, each with its own chance.

    No published figure corresponds to it.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    sweep = load(summary)
    names = sweep.values("dataset")
    by_dataset = {name: sweep.rows(dataset=name) for name in names}
    with styled():
        figure, axes = plt.subplots(figsize=(7.6, 4.0))
        series = {
            label: [
                next((row for row in by_dataset[name] if row["label"] == label), None)
                for name in names
            ]
            for label in sweep.labels
        }
        panels.bars(axes, [DATASET_TITLES[name] for name in names], series)
        for place, name in enumerate(names):
            guess = 1 / (sweep.classes({"dataset": name}) or 1)
            axes.plot(
                [place - 0.48, place + 0.48], [guess] * 2, color=BLACK, linewidth=0.9,
                linestyle=":", label="chance",
            )  # fmt: skip
        return finish(figure, sweep, folder, [axes])
