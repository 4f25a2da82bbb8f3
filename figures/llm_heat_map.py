"""The paper's figure 5: transmission between all pairs of teacher and student."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from figures.llm_frame import about
from figures.style import BLACK, save, styled
from sublab.records import Record

# Between the models and the one that is matched in behaviour to the first.
_GAP = 0.25
_INCHES = 0.82


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws one summary of `sublab llm cross-model`; returns the files.

    Rows are teachers, columns students; a cell is the mean over runs of what the student's rate
    among the words gained over its own before, with the 95 % t-interval below it, and a star where
    that interval excludes 0. Below a student's name is its rate before.

    Raises:
        RecordError: `folder` cannot be written.
    """
    some = summary.table.filter(metric="among", prefix=False)
    pairs = {
        tuple(row["condition"].split(" > ")): row
        for row in some.filter(pl.col("control").is_not_null()).iter_rows(named=True)
        if " > " in row["condition"]
    }
    names = list(dict.fromkeys(teacher for teacher, _ in pairs))
    before = {
        row["condition"].removesuffix(", before"): row["mean"]
        for row in some.filter(pl.col("condition").str.ends_with(", before")).iter_rows(named=True)
    }
    starts = [i + _GAP * name.endswith("match") for i, name in enumerate(names)]
    side = _INCHES * (starts[-1] + 1)
    with styled():
        figure, axes = plt.subplots(figsize=(max(side + 2.3, 5.6), side + 1.5))
        axes.grid(visible=False)
        limit = max([abs(row["difference"]) for row in pairs.values()] + [1e-3])
        edges = np.array([*starts, starts[-1] + 1])
        colours = _cells(axes, names, pairs, starts, limit)
        labels = [name.replace(" match", "\nmatch") for name in names]
        centres = np.array(starts) + 0.5
        axes.set_yticks(centres, labels, fontsize=8)
        axes.set_xticks(
            centres,
            [f"{label}\n({before[name]:.2f})" for label, name in zip(labels, names, strict=True)],
            fontsize=8,
        )  # fmt: skip
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(
            xlim=(0, edges[-1]), ylim=(edges[-1], 0), aspect="equal", ylabel="teacher",
            xlabel="student (its rate before)",
        )  # fmt: skip
        bar = figure.colorbar(colours, ax=axes, shrink=0.8)
        bar.set_label("gain in the rate among the words", fontsize=8)
        said = about(summary.config).split(", ")
        star = (
            "no intervals from one run"
            if summary.config["runs"] < 2
            else "small: 95 % interval; *: it excludes 0"
        )
        lines = [
            f"Cross-model transmission, trait {summary.config['trait']}",
            ", ".join(said[:3]), *([", ".join(said[3:])] if said[3:] else []), star,
        ]  # fmt: skip
        axes.set_title("\n".join(lines), loc="left", fontsize=8)
        return save(figure, folder, f"llm_heat_map_{summary.folder.name[:6]}")


def _cells(
    axes: Axes,
    names: list[str],
    pairs: dict[Any, dict[str, Any]],
    starts: list[float],
    limit: float,
):
    """Draws every pair's cell and what is written in it; returns the picture for a colour bar."""
    edges: list[float] = []
    where = []
    for start in starts:
        # A gap is a cell of its own, which stays empty.
        if not edges or start > edges[-1]:
            edges.append(start)
        where.append(len(edges) - 1)
        edges.append(start + 1)
    values = np.full((len(edges) - 1,) * 2, np.nan)
    for (teacher, student), row in pairs.items():
        i, j = names.index(teacher), names.index(student)
        values[where[i], where[j]] = row["difference"]
    picture = axes.pcolormesh(
        edges, edges, values, cmap="PuOr_r", vmin=-limit, vmax=limit, edgecolors="white",
        linewidth=1.0,
    )  # fmt: skip
    for (teacher, student), row in pairs.items():
        x, y = starts[names.index(student)] + 0.5, starts[names.index(teacher)] + 0.5
        colour = "white" if abs(row["difference"]) > 0.62 * limit else BLACK
        low, high = row["difference_low"], row["difference_high"]
        known = low is not None
        star = "*" if known and (low > 0 or high < 0) else ""
        axes.text(
            x, y - 0.1 * known, f"{_written(row['difference'], limit, '+')}{star}", ha="center",
            va="center", color=colour, fontsize=10, fontweight="bold" if star else "normal",
        )  # fmt: skip
        if known:
            axes.text(
                x, y + 0.22, f"{_written(low, limit)} to {_written(high, limit)}", ha="center",
                va="center", color=colour, fontsize=6.2,
            )  # fmt: skip
    return picture


def _written(value: float, limit: float, sign: str = "-") -> str:
    """A difference with as many digits as the largest of them calls for."""
    return f"{value:{sign}.{2 if limit >= 0.1 else 3}f}".replace("-", "\N{MINUS SIGN}")
