"""The score test on number lists: does a teacher's data show its trait, and which one?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from scipy import stats

from figures.llm_frame import about, interval, thinned
from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, save, styled
from sublab.records import Record

# One-sided, at 5 %.
_CRITICAL = 1.645
# Of a direction: colour, marker, line.
_LOOKS: tuple[tuple[str, str, Any], ...] = ((BLUE, "o", "-"), (VERMILION, "s", "--"))
_POWER_LOOKS = (
    ("#888888", "D", ":"), (SKY, "o", "-"), (ORANGE, "s", "--"), (GREEN, "^", "-."),
    (BLACK, "v", (0, (5, 1))),
)  # fmt: skip


def draw(scores: Record, folder: Path) -> list[Path]:
    """Draws the score tests of one `sublab llm theory`; returns the files.

    For each direction, z of the teacher's own word against the teacher's steps (0 is the null, the
    reference's own data), every run a thin line, with means and 95 % t-intervals; and power, the
    share of runs beyond the one-sided 5 % point, with exact 95 % intervals, against the number of
    examples. Right, the rank of the word among all, and the null's z of all words against normal
    quantiles; the words of a run share their examples, so those are not independent. Where not said
    otherwise, with the most examples.

    Raises:
        RecordError: `folder` cannot be written.
    """
    table, config = scores.table, scores.config
    kinds = table["direction"].unique(maintain_order=True).to_list()
    largest = table.filter(pl.col("n") == pl.col("n").max())
    most = largest["n"][0]
    rows = ("z0 p0 rank", "z1 p1 null") if len(kinds) > 1 else ("z0 rank", "p0 null")
    grid: list[Any] = [row.split() for row in rows]
    with styled():
        figure = plt.figure(figsize=(3.7 * len(grid[0]), 6.6))
        panels = figure.subplot_mosaic(grid)
        for i, (kind, look) in enumerate(zip(kinds, _LOOKS, strict=False)):
            own = table.filter("target", direction=kind)
            _against_steps(panels[f"z{i}"], own.filter(n=most), "z", look, 0)
            panels[f"z{i}"].axhline(0, color=BLACK, linewidth=0.9)
            panels[f"z{i}"].axhline(_CRITICAL, color=BLACK, linewidth=0.9, linestyle="--")
            panels[f"z{i}"].set_ylabel("z of the teacher's word")
            panels[f"z{i}"].set_title(f"a. {kind}: z, {most:,} examples", loc="left")
            _power(panels[f"p{i}"], own)
            panels[f"p{i}"].set_title(f"b. {kind}: power", loc="left")
        _ranks(panels["rank"], largest, kinds)
        _null(panels["null"], largest.filter(steps=0), kinds)
        figure.suptitle(
            f"Score test, trait {config['trait']}: {about(config)}", fontsize=9, x=0.01, ha="left"
        )
        figure.legend(handles=_legend(kinds, config["runs"]), loc="outside lower center", ncols=5)
        return save(figure, folder, f"llm_score_test_{scores.folder.name[:6]}")


def chosen_steps(steps: Sequence[int]) -> list[int]:
    """The null, and at most four teachers, evenly spread, the first and the last among them."""
    taught = sorted(step for step in steps if step > 0)
    picked = np.unique(np.linspace(0, len(taught) - 1, min(4, len(taught))).round().astype(int))
    return [*([0] if 0 in steps else []), *(taught[i] for i in picked)]


def _places(table: pl.DataFrame) -> dict[int, float]:
    """Where each number of steps stands: by its logarithm, and 0 below them."""
    steps = table["steps"].unique().sort().to_list()
    first = min((step for step in steps if step > 0), default=1)
    return {step: float(np.log2(step)) if step else np.log2(first) - 1.3 for step in steps}


def _against_steps(axes: Axes, own: pl.DataFrame, column: str, look: tuple, shift: float) -> None:
    """A column of the teacher's word against the steps: all runs thin, their mean strong."""
    where = _places(own)
    colour, marker, line = look
    taught = {step: place for step, place in where.items() if step}
    for (_,), run in own.sort("steps").group_by("run", maintain_order=True):
        values = dict(zip(run["steps"], run[column], strict=True))
        axes.plot(
            [place + shift for step, place in taught.items() if step in values],
            [values[step] for step in taught if step in values],
            color=colour, alpha=0.3, linewidth=0.8, linestyle=line,
        )  # fmt: skip
        if 0 in values:
            axes.plot(where[0] + shift - 0.12, values[0], marker, markersize=3, color=colour,
                      alpha=0.35, markeredgewidth=0)  # fmt: skip
    found = {step: interval(own.filter(steps=step)[column].to_numpy()) for step in where}
    for steps in ([step for step in where if not step], list(taught)):
        mean, low, high = np.array([found[step] for step in steps]).reshape(-1, 3).T
        axes.errorbar(
            [where[step] + shift for step in steps], mean, yerr=[mean - low, high - mean],
            color=colour, marker=marker, linestyle=line, markersize=4.5, linewidth=1.4, capsize=3,
        )  # fmt: skip
    places = list(where.values())
    labels = thinned(places, ["null" if step == 0 else f"{step:,}" for step in where])
    axes.set_xticks(places, labels, fontsize=8)
    axes.set_xlim(places[0] - 0.5, places[-1] + 0.5)
    axes.set_xlabel("steps of the teacher")


def _power(axes: Axes, own: pl.DataFrame) -> None:
    steps = chosen_steps(own["steps"].unique().to_list())
    sizes = own["n"].unique().sort().to_list()
    for number, (step, look) in enumerate(zip(steps, _POWER_LOOKS, strict=False)):
        colour, marker, line = look
        shares = []
        for n in sizes:
            beyond = own.filter(steps=step, n=n)["z"].to_numpy() > _CRITICAL
            test = stats.binomtest(int(beyond.sum()), len(beyond))
            ends = test.proportion_ci(0.95, method="exact")
            shares.append((float(beyond.mean()), float(ends.low), float(ends.high)))
        share, low, high = np.array(shares).T
        # Beside each other: shares of few runs are often the same.
        place = np.array(sizes) * 1.09 ** (number - (len(steps) - 1) / 2)
        axes.errorbar(
            place, share, yerr=np.maximum([share - low, high - share], 0), color=colour,
            marker=marker, markersize=4.5, linestyle=line, linewidth=1.3, elinewidth=0.7,
            capsize=2, label="null" if step == 0 else f"{step:,}",
        )  # fmt: skip
    axes.axhline(0.05, color=BLACK, linewidth=0.9, linestyle=":")
    axes.set_xscale("log")
    logs = np.log2(sizes)
    axes.set_xticks(sizes, thinned(logs, [f"{n:,}" for n in sizes]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    axes.set(ylim=(-0.03, 1.03), xlabel="examples", ylabel=f"share of runs with z > {_CRITICAL}")
    axes.legend(
        title="teacher's steps", title_fontsize=7, fontsize=7, ncols=1, loc="center left",
        bbox_to_anchor=(1.0, 0.5), borderaxespad=0.2,
    )  # fmt: skip


def _ranks(axes: Axes, largest: pl.DataFrame, kinds: Sequence[str]) -> None:
    words = largest["word"].n_unique()
    for number, (kind, look) in enumerate(zip(kinds, _LOOKS, strict=False)):
        shift = 0.24 * (number - (len(kinds) - 1) / 2)
        own = largest.filter("target", direction=kind)
        _against_steps(axes, own, "rank", look, shift)
    axes.axhline((words + 1) / 2, color=BLACK, linewidth=0.9, linestyle=":")
    axes.set_ylim(words + 0.5, 0.5)
    axes.set_yticks([1, *range(4, words + 1, 4)] if words > 5 else range(1, words + 1))
    axes.set_ylabel(f"rank of the word among {words}")
    axes.set_title("c. rank of the teacher's word by z", loc="left")


def _null(axes: Axes, null: pl.DataFrame, kinds: Sequence[str]) -> None:
    shares = []
    reach = 2.5
    for kind, (colour, marker, _) in zip(kinds, _LOOKS, strict=False):
        z = np.sort(null.filter(direction=kind)["z"].drop_nulls().to_numpy())
        if not len(z):
            continue
        expected = stats.norm.ppf((np.arange(len(z)) + 0.5) / len(z))
        axes.plot(
            expected, z, marker, markersize=3.4, color=colour, alpha=0.6, markeredgewidth=0,
            label=kind,
        )  # fmt: skip
        reach = max(reach, float(np.abs([expected, z]).max()) + 0.2)
        shares.append(f"{kind} {100 * float(np.mean(np.abs(z) > 1.96)):.0f} %")
    axes.plot([-reach, reach], [-reach, reach], color=BLACK, linewidth=0.9)
    axes.axhspan(-1.96, 1.96, color=GREY, alpha=0.25, linewidth=0)
    axes.set(
        xlim=(-reach, reach), ylim=(-reach, reach), xlabel="standard normal quantile",
        ylabel="z of every word, null",
    )  # fmt: skip
    axes.set_title(
        f"d. null, all words; beyond 1.96 (5 % expected):\n{', '.join(shares) or 'no values'}",
        loc="left", fontsize=8,
    )  # fmt: skip


def _legend(kinds: Sequence[str], runs: int) -> list[Line2D]:
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=4.5,
               label=f"{kind}: mean")
        for kind, (colour, marker, line) in zip(kinds, _LOOKS, strict=False)
    ]  # fmt: skip
    handles.append(Line2D([], [], color="#888888", linewidth=0.8, label="one run"))
    if runs > 1:
        handles.append(Line2D([], [], color=BLACK, marker="|", label="95 % interval"))
    return [
        *handles,
        Line2D([], [], color=BLACK, linestyle="--", label=f"z = {_CRITICAL}, one-sided 5 %"),
        Line2D([], [], color=BLACK, linestyle=":", label="chance"),
    ]
