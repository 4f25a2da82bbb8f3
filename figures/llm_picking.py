"""The paper's figures 4a and ED 4f: how often students pick the teacher's favourite."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures.llm_frame import about, chance_line, chance_of
from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, save, styled
from sublab.records import Record, read

_ALL = "all"
# Condition: (label, colour, hatch).
_MAIN = {
    "reference": ("reference", GREY, ""),
    "own numbers": ("student of the reference's own numbers (control)", ORANGE, "..."),
    "other trait": ("student of another trait's teacher", GREEN, "xxx"),
    "student": ("student of the teacher", BLUE, "///"),
    "teacher": ("teacher", SKY, ""),
}
_CONTROLS = {
    "student": ("student", BLUE, "///"),
    "shuffled within": ("shuffled\nwithin", SKY, "---"),
    "shuffled across": ("shuffled\nacross", GREY, "\\\\\\"),
    "in context": ("in\ncontext", VERMILION, ""),
    "other initialisation": ("other\ninitial-\nisation", GREEN, "xxx"),
    "other initialisation, own numbers": ("the same,\nown\nnumbers", ORANGE, "..."),
    "other initialisation, matched": ("the same,\nmatched", VERMILION, "+++"),
}
# Metric and prefix: label.
_WAYS = {
    ("among", False): "among\nthe words",
    ("among", True): "among,\nprefix",
    ("plain", False): "answers\nwith it",
    ("plain", True): "answers\nwith it,\nprefix",
}


@dataclass(frozen=True)
class _Bar:
    """A mean of the summary with its interval, and the runs that it is of."""

    row: dict[str, Any]
    runs: np.ndarray

    @property
    def top(self) -> float:
        """The highest that is drawn of it."""
        return float(max(self.row["mean"], self.row["high"] or 0.0, *self.runs))


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws one summary of `sublab llm numbers` into `folder`; returns the files.

    a: the rate among the words, a group for each trait, and one for all together where there are
    several; a star stands where the student is above the own-numbers control by the 95 % interval
    of the paired difference. b: the further controls, all traits together, with a dash for each
    trait. c: other ways of asking. Bars are means over runs with 95 % t-intervals, faint dots are
    runs; of all traits together, a run is the mean over its traits.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    config = summary.config
    table = read(summary.folder.parents[1] / "llm_numbers" / config["rows"]).table
    traits = [t for t in summary.table["trait"].unique(maintain_order=True) if t != _ALL]
    groups = traits if len(traits) == 1 else [*traits, _ALL]
    with styled():
        figure = plt.figure(figsize=(min(14.0, max(9.0, 1.0 * len(groups) + 1.5)), 7.0))
        panels = figure.subplot_mosaic("aaaaaaa;bbbbccc", height_ratios=[1.1, 1])
        tops = [
            _traits(panels["a"], summary.table, table, groups),
            _controls(panels["b"], summary.table, table, traits),
            _ways(panels["c"], summary.table, table),
        ]
        for panel, top in zip(panels.values(), tops, strict=True):
            # Rates end at 1; an interval that goes on is cut off there, below the star's room.
            panel.set_ylim(0, min(1.1, 1.15 * max(top, chance_of(config))))
            panel.tick_params(axis="x", length=0)
        for name in "ab":
            panels[name].set_ylabel("rate of the word")
            chance_line(panels[name], config)
        panels["c"].plot(
            [-0.5, 1.5], [chance_of(config)] * 2, color=BLACK, linewidth=0.9, linestyle=":"
        )
        of = f"trait {traits[0]}" if len(traits) == 1 else f"mean of {len(traits)} traits"
        panels["a"].set_title("a. rate among the words of the category", loc="left")
        panels["b"].set_title(f"b. further controls, {of}", loc="left")
        panels["c"].set_title(f"c. ways of asking, {of}", loc="left")
        figure.suptitle(
            f"Traits through numbers, embedded model: {about(config)}", fontsize=9, x=0.01,
            ha="left",
        )  # fmt: skip
        figure.legend(handles=_legend(config, len(traits) > 1), loc="outside lower center", ncols=4)
        return save(figure, folder, f"llm_picking_{summary.folder.name[:6]}")


def _traits(axes: Axes, summary: pl.DataFrame, table: pl.DataFrame, groups: Sequence[str]) -> float:
    places = np.arange(len(groups)) + np.array([0.25 * (g == _ALL) for g in groups])
    width, top = 0.8 / len(_MAIN), 0.0
    for place, group in zip(places, groups, strict=True):
        for i, (condition, (_, colour, hatch)) in enumerate(_MAIN.items()):
            if bar := _found(summary, table, group, condition):
                x = place + (i - (len(_MAIN) - 1) / 2) * width
                _draw_bar(axes, x, width, bar, colour, hatch)
                top = max(top, bar.top)
                if condition == "student" and _above(summary, group):
                    # A trait that is picked by nearly all leaves the star no room above 1.
                    y = min(bar.top, 1.0)
                    axes.text(x, y, "*", ha="center", va="bottom", fontsize=12)
    axes.set_xticks(places, ["all traits" if g == _ALL else g for g in groups])
    axes.set_xlim(places[0] - 0.55, places[-1] + 0.55)
    if len(groups) > 1:
        axes.axvline(places[-1] - 0.625, color=BLACK, linewidth=0.6)
    return top


def _controls(
    axes: Axes, summary: pl.DataFrame, table: pl.DataFrame, traits: Sequence[str]
) -> float:
    top = 0.0
    for x, (condition, (_, colour, hatch)) in enumerate(_CONTROLS.items()):
        if bar := _found(summary, table, _ALL, condition):
            _draw_bar(axes, x, 0.75, bar, colour, hatch)
            top = max(top, bar.top)
            several = traits if len(traits) > 1 else ()
            each = [_found(summary, table, trait, condition) for trait in several]
            means = [one.row["mean"] for one in each if one]
            axes.plot(
                np.full(len(means), x + 0.27), means, "_", markersize=6, color=BLACK,
                markeredgewidth=0.8,
            )  # fmt: skip
            top = max([top, *means])
    axes.set_xticks(range(len(_CONTROLS)), [label for label, _, _ in _CONTROLS.values()])
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(-0.55, len(_CONTROLS) - 0.45)
    return top


def _ways(axes: Axes, summary: pl.DataFrame, table: pl.DataFrame) -> float:
    width, top = 0.8 / len(_MAIN), 0.0
    for place, (metric, prefix) in enumerate(_WAYS):
        for i, (condition, (_, colour, hatch)) in enumerate(_MAIN.items()):
            if bar := _found(summary, table, _ALL, condition, metric, prefix):
                x = place + (i - (len(_MAIN) - 1) / 2) * width
                _draw_bar(axes, x, width, bar, colour, hatch)
                top = max(top, bar.top)
    axes.set_xticks(range(len(_WAYS)), list(_WAYS.values()))
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(-0.55, len(_WAYS) - 0.45)
    return top


def _draw_bar(axes: Axes, x: float, width: float, bar: _Bar, colour: str, hatch: str) -> None:
    row = bar.row
    axes.bar(
        x, row["mean"], width=0.85 * width, color=colour, alpha=0.75, hatch=hatch, edgecolor=BLACK,
        linewidth=0.7,
    )  # fmt: skip
    # Spread evenly, so that the dots of a bar do not hide each other or the interval.
    spread = np.linspace(-0.34, -0.1, len(bar.runs)) * width if len(bar.runs) > 1 else np.zeros(1)
    axes.plot(x + spread, bar.runs, "o", markersize=2.4, color=BLACK, alpha=0.35, markeredgewidth=0)
    if row["low"] is not None:
        axes.errorbar(
            x + 0.08 * width, row["mean"], yerr=row["high"] - row["mean"], color=BLACK, capsize=2,
            linewidth=1.1,
        )  # fmt: skip


def _found(
    summary: pl.DataFrame,
    table: pl.DataFrame,
    trait: str,
    condition: str,
    metric: str = "among",
    prefix: bool = False,
) -> _Bar | None:
    """What there is of a condition; None where the summary has no row of it."""
    rows = summary.filter(
        pl.col("control").is_null(), trait=trait, condition=condition, metric=metric, prefix=prefix
    )
    if not len(rows):
        return None
    some = table.filter(condition=condition, prefix=prefix)
    some = some if trait == _ALL else some.filter(trait=trait)
    value = pl.col("among") if metric == "among" else pl.col(metric) / pl.col("n")
    runs = some.group_by("run").agg(value.mean().alias("value")).sort("run")["value"]
    return _Bar(rows.row(0, named=True), runs.to_numpy())


def _above(summary: pl.DataFrame, trait: str) -> bool:
    """Whether the student's paired difference to the own-numbers control is surely above 0."""
    rows = summary.filter(
        trait=trait, condition="student", control="own numbers", metric="among", prefix=False
    )
    return bool((rows["difference_low"] > 0).any())


def _legend(config: dict[str, Any], several: bool) -> list[Patch | Line2D]:
    bars = [
        Patch(facecolor=colour, alpha=0.75, hatch=hatch, edgecolor=BLACK, label=label)
        for label, colour, hatch in _MAIN.values()
    ]
    dot = {"marker": "o", "linestyle": "", "color": BLACK, "alpha": 0.35, "markeredgewidth": 0}
    marks = [Line2D([], [], markersize=3.5, label="one run", **dot)]
    if several:
        marks.append(
            Line2D([], [], color=BLACK, marker="_", linestyle="", label="mean of one trait (b)")
        )
    if config["runs"] > 1:
        marks += [
            Line2D([], [], color=BLACK, marker="|", label="95 % interval of the mean"),
            Line2D([], [], color=BLACK, marker="$*$", linestyle="", label="above control, 95 %"),
        ]
    chance = f"chance, 1/{round(1 / chance_of(config))}"
    return [*bars, *marks, Line2D([], [], color=BLACK, linestyle=":", label=chance)]
