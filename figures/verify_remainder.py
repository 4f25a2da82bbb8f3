"""The remainder g(eps) - eps a over eps: its order is 2 where the model is smooth."""

from pathlib import Path

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from figures.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, save, styled
from figures.verify_curves import NAMES
from sublab.records import Record, read

_COLOURS = {"tanh": BLUE, "gelu": GREEN, "softplus": ORANGE, "relu": VERMILION}
# Lines drawn of each activation: enough to show a spread, few enough to tell them apart.
_LINES = 30


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws the remainders that one summary of `sublab verify` rests on; returns the files.

    Raises:
        RecordError: a record that the summary rests on is missing or damaged.
    """
    table = instances_of(summary).filter(
        (pl.col("family") != "linear") & pl.col("slope").is_not_null()
    )
    orders = {row["name"]: row for row in summary.table.filter(kind="order").to_dicts()}
    with styled():
        figure, axes = plt.subplots(
            1, len(_COLOURS) + 1, figsize=(10.6, 2.9), width_ratios=[1] * 4 + [1.25]
        )
        for panel, activation in zip(axes, _COLOURS, strict=False):
            _lines(
                panel, table.filter(activation=activation), activation, orders[activation],
                np.array(summary.config["remainder_eps"]),
            )  # fmt: skip
        axes[0].set_ylabel("|g(ε) - ε a|, share of the last", fontsize=8)
        _slopes(axes[-1], table)
        figure.suptitle(
            f"Order of the remainder: models that are not linear, n = {len(table):,} instances, "
            f"seed {summary.config['seed']}",
            fontsize=9, x=0.01, ha="left",
        )  # fmt: skip
        return save(figure, folder, f"verify_remainder_{summary.folder.name[:6]}")


def instances_of(summary: Record) -> pl.DataFrame:
    """The instances that a summary rests on, one row each.

    Raises:
        RecordError: one of their records is missing or damaged.
    """
    groups = summary.folder.parents[1] / "verify"
    return pl.concat(read(groups / name).table for name in summary.config["records"])


def _lines(axes: Axes, table: pl.DataFrame, activation: str, order: dict, eps: np.ndarray) -> None:
    title = f"{NAMES[activation]}, n = {len(table):,}"
    if len(table):
        for line in table["remainders"].head(_LINES):
            axes.plot(eps, line, color=_COLOURS[activation], alpha=0.25, linewidth=0.8)
        axes.plot(eps, (eps / eps[-1]) ** 2, color=BLACK, linestyle="--", linewidth=1.2)
        axes.set(xscale="log", yscale="log", ylim=(3e-6, 3))
        title += f"\norder {order['worst']:.3f}, median {order['median']:.3f}\nR² {order['r2']:.4f}"
    axes.set_title(title, loc="left", fontsize=7.5)
    axes.set_xlabel("ε, 1 moves a logit by 1 (dashed: ε²)", fontsize=7)
    axes.tick_params(labelsize=7)


def _slopes(axes: Axes, table: pl.DataFrame) -> None:
    bins = np.linspace(1.8, 2.2, 81)
    for activation, colour in _COLOURS.items():
        slopes = table.filter(activation=activation)["slope"].to_numpy()
        if len(slopes):
            axes.hist(
                np.clip(slopes, bins[0], bins[-1]), bins=list(bins), histtype="step", color=colour,
                weights=np.full(len(slopes), 1 / len(slopes)), label=NAMES[activation],
                linestyle="--" if activation == "relu" else "-", linewidth=1.2,
            )  # fmt: skip
    axes.axvspan(1.95, 2.05, color=BLACK, alpha=0.07, linewidth=0)
    axes.set(yscale="log", xlim=(bins[0], bins[-1]))
    axes.set_xlabel("order of one instance (ends: beyond)", fontsize=8)
    axes.set_ylabel("share of instances", fontsize=8)
    axes.set_title("grey: 2 ± 0.05", loc="left", fontsize=7.5)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=6.5, loc="upper left")
