"""The preprint's figure 10b: test accuracy in the six conditions, from a summary's records."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, save, styled
from sublab.records import Record, read

# Condition: (label, colour, hatch).
_BARS = {
    "reference": ("reference\n(untrained)", GREY, ""),
    "teacher": ("teacher\n(true labels)", ORANGE, ""),
    "student_aux": ("student,\nauxiliary logits", BLUE, "///"),
    "student_all": ("student,\nall logits", SKY, "///"),
    "cross_model_aux": ("cross-model,\nauxiliary logits", VERMILION, "..."),
    "cross_model_all": ("cross-model,\nall logits", GREEN, "xxx"),
}
DATASET_TITLES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "emnist_balanced": "EMNIST Balanced",
    "digits": "scikit-learn digits (8 x 8, not MNIST)",
}


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws one summary of `sublab mnist` into `folder`; returns the files.

    Bars are means over runs, with 95 % t-intervals; every run is a faint dot; where the setting
    is the paper's, its mean and interval stand beside each bar.

    Raises:
        RecordError: a record that the summary rests on is missing or damaged.
    """
    config = summary.config
    groups = summary.folder.parents[1] / "mnist"
    table = pl.concat(read(groups / name).table for name in config["records"])
    with styled():
        figure, axes = plt.subplots(figsize=(6.6, 4.3))
        for position, row in enumerate(summary.table.iter_rows(named=True)):
            _bar(axes, position, row, table.filter(condition=row["condition"])["accuracy"])
        classes = 47 if config["dataset"] == "emnist_balanced" else 10
        axes.axhline(1 / classes, color=BLACK, linewidth=0.8, linestyle=":")
        axes.text(5.62, 1 / classes, "chance", va="center", fontsize=7)
        labels = [_label(row) for row in summary.table.iter_rows(named=True)]
        axes.set_xticks(range(len(labels)), labels, fontsize=8, linespacing=1.3)
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(-0.6, 5.6), ylim=(0, 1), ylabel="Test accuracy (class logits)")
        axes.set_title(_title(config), loc="left")
        figure.legend(handles=_legend(summary), loc="outside lower center", ncols=3)
        loss = "" if config["loss"] == "kl" else f"_{config['loss']}"
        name = f"fig10b_{config['dataset']}_m{config['aux']}{loss}_n{config['runs']}"
        return save(figure, folder, f"{name}_{summary.folder.name[:6]}")


def _bar(axes: Axes, position: int, row: dict, runs: pl.Series) -> None:
    _, colour, hatch = _BARS[row["condition"]]
    axes.bar(
        position, row["mean"], width=0.62, color=colour, alpha=0.75, hatch=hatch, edgecolor=BLACK,
        linewidth=0.8,
    )  # fmt: skip
    # Spread evenly, in the order of the runs, so that the dots of a bar do not hide each other.
    spread = np.linspace(-0.25, 0.1, len(runs)) if len(runs) > 1 else np.zeros(1)
    axes.plot(
        position + spread, runs, "o", markersize=2.6, color=BLACK, alpha=0.35, markeredgewidth=0
    )
    if row["low"] is not None:
        axes.errorbar(
            position, row["mean"], yerr=row["high"] - row["mean"], color=BLACK, capsize=4, lw=1.4
        )
    if row["paper_mean"] is not None:
        axes.errorbar(
            position + 0.21, row["paper_mean"], yerr=row["paper_half_width"], fmt="D",
            markersize=4.5, markerfacecolor="white", markeredgecolor=BLACK, color=BLACK, lw=1,
        )  # fmt: skip


def _label(row: dict) -> str:
    name, _, _ = _BARS[row["condition"]]
    paper = "" if row["paper_mean"] is None else f"\npaper {row['paper_mean']:.3f}"
    return f"{name}\n{row['mean']:.3f}{paper}"


def _title(config: dict) -> str:
    epochs = f"{config['teacher_epochs']} + {config['student_epochs']} epochs"
    loss = {"kl": "KL", "squared_error": "squared error"}[config["loss"]]
    return (
        f"{DATASET_TITLES[config['dataset']]}, n = {config['runs']} runs\n"
        f"m = {config['aux']} auxiliary logits, {loss}, {epochs}, "
        f"{config['noise_images']:,} noise images, Adam {config['learning_rate']:g}"
    )


def _legend(summary: Record) -> list[Line2D]:
    dot = {"marker": "o", "linestyle": "", "color": BLACK, "alpha": 0.35, "markeredgewidth": 0}
    handles = [Line2D([], [], markersize=3.5, label="one run", **dot)]
    if summary.table["low"].null_count() == 0:
        handles.append(Line2D([], [], color=BLACK, marker="_", label="95 % interval of the mean"))
    if summary.table["paper_mean"].null_count() == 0:
        handles.append(
            Line2D([], [], marker="D", color=BLACK, markerfacecolor="white", markersize=4.5,
                   linestyle="", label="paper (n = 100)")
        )  # fmt: skip
    return handles
