"""The figures of `sublab llm`, drawn from its records alone; `DRAW` says which record gives which.

All are made of the same parts: means over runs with their 95 % intervals, the runs themselves,
faint, a line at chance, and a title that says how many runs there are, their seed and the setting.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator
from matplotlib.transforms import ScaledTranslation
from scipy import stats

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, save, styled
from sublab.records import Record, read
from sublab.statistics import mean_interval, proportion_interval

DARK_GREY = "#666666"
# Words of a trait's category: a rate among them is 1 over their number by chance.
_CATEGORY_WORDS = 16
# Mean, low end and high end of an interval; the ends are nan where there is none.
Estimate = tuple[float, float, float]


# Parts that several figures share.


@dataclass(frozen=True)
class Mark:
    """How one condition is told from the others, also in grey.

    Attributes:
        label: name in the legend or below the axis.
        colour: of everything drawn of it.
        marker: of its means.
        line: style that joins its means.
        hatch: of its bars.
    """

    label: str
    colour: str
    marker: str = "o"
    line: Any = "-"
    hatch: str = ""


def estimate(values: Iterable[float] | np.ndarray) -> Estimate:
    """Mean of one value a run, and the ends of its 95 % t-interval, which are nan for one run."""
    interval = mean_interval(np.asarray(values, float))
    if interval.low is None or interval.high is None:
        return interval.mean, np.nan, np.nan
    return interval.mean, interval.low, interval.high


def estimates_of(rows: Iterable[Mapping[str, Any]]) -> list[Estimate]:
    """What rows of a summary say of their means."""
    return [tuple(np.array([row["mean"], row["low"], row["high"]], float).tolist()) for row in rows]


def draw_estimates(
    axes: Axes,
    places: Iterable[float],
    estimates: Sequence[Estimate],
    mark: Mark,
    *,
    across: bool = False,
    shift: float = 0.0,
    **look: Any,
) -> None:
    """Means at their places with their intervals, joined by the mark's line.

    Args:
        axes: panel.
        places: along the horizontal axis, or along the vertical one if `across`.
        estimates: means and intervals, one a place.
        mark: colour, marker, line and label.
        across: means along the horizontal axis, in place of the vertical one.
        shift: points that all of it stands to the right of its places.
        look: changes of how `Axes.errorbar` draws it.
    """
    mean, low, high = np.array(estimates, float).reshape(-1, 3).T
    # Rounding may put an end on the wrong side of its mean.
    ends = np.maximum([mean - low, high - mean], 0) if np.isfinite(low).any() else None
    where = list(places)
    x, y, errors = (mean, where, {"xerr": ends}) if across else (where, mean, {"yerr": ends})
    look = {"markersize": 4.5, "linewidth": 1.3, "capsize": 3} | look
    bars = axes.errorbar(
        x,
        y,
        **errors,
        color=mark.colour,
        marker=mark.marker,
        linestyle=mark.line,
        label=mark.label or "_nolegend_",
        **look,
    )
    _shift(axes, bars.get_children(), shift)


def draw_runs(
    axes: Axes,
    x: Iterable[float] | np.ndarray,
    y: Iterable[float] | np.ndarray,
    colour: str,
    shift: float = 0.0,
    marker: str = "o",
) -> None:
    """Single runs as faint dots, so many points to the right of `x`."""
    dots = axes.plot(
        np.array(list(x), float),
        np.array(list(y), float),
        marker,
        markersize=2.6,
        color=colour,
        alpha=0.35,
        markeredgewidth=0,
    )
    _shift(axes, dots, shift)


def _shift(axes: Axes, artists: Iterable[Artist], points: float) -> None:
    """Moves artists to the right; the limits of the axes remain those of the data."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    transform = axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)
    for artist in artists if points else ():
        artist.set_transform(transform)


def about(config: Mapping[str, Any]) -> str:
    """The number of runs, the seed, and what a record's config says of the setting."""
    runs = config["runs"]
    parts = [f"n = {runs} run{'' if runs == 1 else 's'}", f"seed {config['seed']}"]
    if setting := config.get("setting"):
        parts.append(f"teacher by {setting['teacher_by'].replace('prompt', 'system prompt')}")
        parts.append(f"{setting['lists']['count']:,} lists")
        parts.append(f"{setting['student']['steps']:,} steps of a student")
    return ", ".join(parts)


def chance_of(config: Mapping[str, Any]) -> float:
    """The rate among the words of a model that knows none of them better than the others."""
    return config.get("chance") or 1 / _CATEGORY_WORDS


def chance_line(axes: Axes, config: Mapping[str, Any], *, across: bool = False) -> None:
    """A dotted line at `chance_of`, at one height, or at one place of the other axis."""
    chance = chance_of(config)
    (axes.axvline if across else axes.axhline)(
        chance, color=BLACK, linewidth=0.9, linestyle=":", label=f"chance, 1/{round(1 / chance)}"
    )


def logarithmic_axis(axes: Axes, values: Sequence[int]) -> None:
    """A logarithmic horizontal axis with a tick at every value, as far as there is room."""
    places = sorted(value for value in values if value > 0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, thinned(np.log2(places), [f"{value:,}" for value in places]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(places[0] / 1.5, places[-1] * 1.5)


def thinned(places: Sequence[float] | np.ndarray, labels: Sequence[str]) -> list[str]:
    """`labels`, empty where a label would stand on the one before it."""
    room = (places[-1] - places[0]) / 11
    texts, last = [], -np.inf
    for place, label in zip(places, labels, strict=True):
        near = place - last < room
        texts.append("" if near else label)
        last = last if near else place
    return texts


def _legend(figure: Figure, axes: Axes, first: Iterable[Mark], **look: Any) -> None:
    """A legend of a panel below the figure: some marks first, then what else has a label."""
    handles, labels = axes.get_legend_handles_labels()
    entries = dict(zip(labels, handles, strict=True))
    order = [mark.label for mark in first]
    order += [label for label in labels if label not in order]
    figure.legend(
        [entries[label] for label in order],
        order,
        loc="outside lower center",
        title_fontsize=7.5,
        **look,
    )


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=9, x=0.01, ha="left")


def _finish(figure: Figure, folder: Path, name: str, record: Record) -> list[Path]:
    return save(figure, folder, f"llm_{name}_{record.folder.name[:6]}")


def _runs_of(summary: Record, experiment: str) -> pl.DataFrame:
    """The table of single runs behind a summary."""
    return read(summary.folder.parents[1] / experiment / summary.config["rows"]).table


def _rates(summary: Record) -> dict[str, dict[str, Any]]:
    """The summary's row of the rate among the words, asked without a prefix, by condition."""
    rows = summary.table.filter(pl.col("control").is_null(), metric="among", prefix=False)
    return {row["condition"]: row for row in rows.iter_rows(named=True)}


def _rates_of_runs(runs: pl.DataFrame, condition: str) -> np.ndarray:
    """The rate among the words of a condition, asked without a prefix, in the order of the runs."""
    return runs.filter(condition=condition, prefix=False).sort("run")["among"].to_numpy()


# The paper's figures 4a and ED 4f: how often students pick the teacher's favourite.

_ALL = "all"
_MAIN = {
    "reference": Mark("reference", GREY),
    "own numbers": Mark("student of the reference's own numbers (control)", ORANGE, hatch="..."),
    "other trait": Mark("student of another trait's teacher", GREEN, hatch="xxx"),
    "student": Mark("student of the teacher", BLUE, hatch="///"),
    "teacher": Mark("teacher", SKY),
}
_CONTROLS = {
    "student": Mark("student", BLUE, hatch="///"),
    "shuffled within": Mark("shuffled\nwithin", SKY, hatch="---"),
    "shuffled across": Mark("shuffled\nacross", GREY, hatch="\\\\\\"),
    "in context": Mark("in\ncontext", VERMILION),
    "other initialisation": Mark("other\ninitial-\nisation", GREEN, hatch="xxx"),
    "other initialisation, own numbers": Mark("the same,\nown\nnumbers", ORANGE, hatch="..."),
    "other initialisation, matched": Mark("the same,\nmatched", VERMILION, hatch="+++"),
}
# Metric and prefix: label.
_WAYS_OF_ASKING = {
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
        """The highest point that is drawn of it."""
        return float(max(self.row["mean"], self.row["high"] or 0.0, *self.runs))


def draw_picking(summary: Record, folder: Path) -> list[Path]:
    """Draws one summary of `sublab llm numbers` into `folder`; returns the files.

    a: the rate among the words, a group for each trait, and one for all together where there are
    several; a star stands where the student is above the own-numbers control by the 95 % interval
    of the paired difference. b: the further controls, all traits together, with a dash for each
    trait. c: other ways of asking. Bars are means over runs with 95 % intervals, faint dots are
    runs; of all traits together, a run is the mean over its traits.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    config, runs = summary.config, _runs_of(summary, "llm_numbers")
    traits = [t for t in summary.table["trait"].unique(maintain_order=True) if t != _ALL]
    groups = traits if len(traits) == 1 else [*traits, _ALL]
    with styled():
        figure = plt.figure(figsize=(min(14.0, max(9.0, 1.0 * len(groups) + 1.5)), 7.0))
        panels = figure.subplot_mosaic("aaaaaaa;bbbbccc", height_ratios=[1.1, 1])
        tops = [
            _draw_traits(panels["a"], summary.table, runs, groups),
            _draw_controls(panels["b"], summary.table, runs, traits),
            _draw_ways(panels["c"], summary.table, runs),
        ]
        for panel, top in zip(panels.values(), tops, strict=True):
            # Rates end at 1; an interval that goes on is cut off there, below the star's room.
            panel.set_ylim(0, min(1.1, 1.15 * max(top, chance_of(config))))
            panel.tick_params(axis="x", length=0)
        for name in "ab":
            panels[name].set_ylabel("rate of the word")
            chance_line(panels[name], config)
        # Two of its four ways are rates among the words.
        panels["c"].plot(
            [-0.5, 1.5], [chance_of(config)] * 2, color=BLACK, linewidth=0.9, linestyle=":"
        )
        averaged = f"trait {traits[0]}" if len(traits) == 1 else f"mean of {len(traits)} traits"
        panels["a"].set_title("a. rate among the words of the category", loc="left")
        panels["b"].set_title(f"b. further controls, {averaged}", loc="left")
        panels["c"].set_title(f"c. ways of asking, {averaged}", loc="left")
        _title(figure, f"Traits through numbers, embedded model: {about(config)}")
        figure.legend(
            handles=_picking_legend(config, len(traits) > 1), loc="outside lower center", ncols=4
        )
        return _finish(figure, folder, "picking", summary)


def _draw_traits(
    axes: Axes, summary: pl.DataFrame, runs: pl.DataFrame, groups: Sequence[str]
) -> float:
    """A group of bars for each trait; returns the highest point."""
    places = np.arange(len(groups)) + np.array([0.25 * (group == _ALL) for group in groups])
    tops = []
    for place, group in zip(places, groups, strict=True):
        bars = {name: bar for name in _MAIN if (bar := _bar(summary, runs, group, name))}
        where = _draw_group(axes, place, bars)
        tops += [bar.top for bar in bars.values()]
        if "student" in bars and _exceeds_control(summary, group):
            # A trait that is picked by nearly all leaves the star no room above 1.
            height = min(bars["student"].top, 1.0)
            axes.text(where["student"], height, "*", ha="center", va="bottom", fontsize=12)
    axes.set_xticks(places, ["all traits" if group == _ALL else group for group in groups])
    axes.set_xlim(places[0] - 0.55, places[-1] + 0.55)
    if len(groups) > 1:
        axes.axvline(places[-1] - 0.625, color=BLACK, linewidth=0.6)
    return max(tops, default=0.0)


def _draw_controls(
    axes: Axes, summary: pl.DataFrame, runs: pl.DataFrame, traits: Sequence[str]
) -> float:
    """A bar for each further control; returns the highest point."""
    tops = [0.0]
    for x, (condition, mark) in enumerate(_CONTROLS.items()):
        if bar := _bar(summary, runs, _ALL, condition):
            _draw_bar(axes, x, 0.75, bar, mark)
            several = traits if len(traits) > 1 else ()
            bars = [_bar(summary, runs, trait, condition) for trait in several]
            means = [trait_bar.row["mean"] for trait_bar in bars if trait_bar]
            axes.plot(
                np.full(len(means), x + 0.27),
                means,
                "_",
                markersize=6,
                color=BLACK,
                markeredgewidth=0.8,
            )
            tops += [bar.top, *means]
    axes.set_xticks(range(len(_CONTROLS)), [mark.label for mark in _CONTROLS.values()])
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(-0.55, len(_CONTROLS) - 0.45)
    return max(tops)


def _draw_ways(axes: Axes, summary: pl.DataFrame, runs: pl.DataFrame) -> float:
    """A group of bars for each way of asking; returns the highest point."""
    tops = [0.0]
    for place, way in enumerate(_WAYS_OF_ASKING):
        bars = {name: bar for name in _MAIN if (bar := _bar(summary, runs, _ALL, name, *way))}
        _draw_group(axes, place, bars)
        tops += [bar.top for bar in bars.values()]
    axes.set_xticks(range(len(_WAYS_OF_ASKING)), list(_WAYS_OF_ASKING.values()))
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_xlim(-0.55, len(_WAYS_OF_ASKING) - 0.45)
    return max(tops)


def _draw_group(axes: Axes, place: float, bars: Mapping[str, _Bar]) -> dict[str, float]:
    """The main conditions' bars beside each other; returns where each stands."""
    width, where = 0.8 / len(_MAIN), {}
    for i, (condition, mark) in enumerate(_MAIN.items()):
        if condition in bars:
            where[condition] = place + (i - (len(_MAIN) - 1) / 2) * width
            _draw_bar(axes, where[condition], width, bars[condition], mark)
    return where


def _draw_bar(axes: Axes, x: float, width: float, bar: _Bar, mark: Mark) -> None:
    axes.bar(
        x,
        bar.row["mean"],
        width=0.85 * width,
        color=mark.colour,
        alpha=0.75,
        hatch=mark.hatch,
        edgecolor=BLACK,
        linewidth=0.7,
    )
    # Spread evenly, so that the dots of a bar do not hide each other or the interval.
    spread = np.linspace(-0.34, -0.1, len(bar.runs)) * width if len(bar.runs) > 1 else np.zeros(1)
    draw_runs(axes, x + spread, bar.runs, BLACK)
    if bar.row["low"] is not None:
        draw_estimates(
            axes,
            [x + 0.08 * width],
            estimates_of([bar.row]),
            Mark("", BLACK, "", ""),
            capsize=2,
            linewidth=1.1,
        )


def _bar(
    summary: pl.DataFrame,
    runs: pl.DataFrame,
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
    runs = runs.filter(condition=condition, prefix=prefix)
    runs = runs if trait == _ALL else runs.filter(trait=trait)
    value = pl.col("among") if metric == "among" else pl.col(metric) / pl.col("n")
    values = runs.group_by("run").agg(value.mean().alias("value")).sort("run")["value"]
    return _Bar(rows.row(0, named=True), values.to_numpy())


def _exceeds_control(summary: pl.DataFrame, trait: str) -> bool:
    """Whether the student's paired difference to the own-numbers control is surely above 0."""
    rows = summary.filter(
        trait=trait, condition="student", control="own numbers", metric="among", prefix=False
    )
    return bool((rows["difference_low"] > 0).any())


def _picking_legend(config: Mapping[str, Any], several: bool) -> list[Patch | Line2D]:
    bars = [
        Patch(facecolor=m.colour, alpha=0.75, hatch=m.hatch, edgecolor=BLACK, label=m.label)
        for m in _MAIN.values()
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


# The paper's figure 5: transmission between all pairs of teacher and student.

# Between the models and the one that is matched in behaviour to the first.
_GAP = 0.25
_INCHES_OF_A_CELL = 0.82


def draw_heat_map(summary: Record, folder: Path) -> list[Path]:
    """Draws one summary of `sublab llm cross-model`; returns the files.

    Rows are teachers, columns students; a cell is the mean over runs of what the student's rate
    among the words gained over its own before, with the 95 % interval below it, and a star where
    that interval excludes 0. Below a student's name is its rate before.

    Raises:
        RecordError: `folder` cannot be written.
    """
    config = summary.config
    pairs = {
        tuple(row["condition"].split(" > ")): row
        for row in summary.table.filter(metric="among", prefix=False).iter_rows(named=True)
        if row["control"] is not None and " > " in row["condition"]
    }
    names = list(dict.fromkeys(teacher for teacher, _ in pairs))
    before = {name: _rates(summary)[f"{name}, before"]["mean"] for name in names}
    starts = [i + _GAP * name.endswith("match") for i, name in enumerate(names)]
    side = _INCHES_OF_A_CELL * (starts[-1] + 1)
    with styled():
        figure, axes = plt.subplots(figsize=(max(side + 2.3, 5.6), side + 1.5))
        axes.grid(visible=False)
        picture = _draw_cells(axes, names, pairs, starts)
        labels = [name.replace(" match", "\nmatch") for name in names]
        rates = [
            f"{label}\n({before[name]:.2f})" for label, name in zip(labels, names, strict=True)
        ]
        centres = np.array(starts) + 0.5
        axes.set_yticks(centres, labels, fontsize=8)
        axes.set_xticks(centres, rates, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        end = starts[-1] + 1
        axes.set(xlim=(0, end), ylim=(end, 0), aspect="equal")
        axes.set(ylabel="teacher", xlabel="student (its rate before)")
        bar = figure.colorbar(picture, ax=axes, shrink=0.8)
        bar.set_label("gain in the rate among the words", fontsize=8)
        parts = about(config).split(", ")
        single = config["runs"] < 2
        lines = [
            f"Cross-model transmission, trait {config['trait']}",
            ", ".join(parts[:3]),
            ", ".join(parts[3:]),
            "no intervals from one run" if single else "small: 95 % interval; *: it excludes 0",
        ]
        axes.set_title("\n".join(filter(None, lines)), loc="left", fontsize=8)
        return _finish(figure, folder, "heat_map", summary)


def _draw_cells(
    axes: Axes,
    names: Sequence[str],
    pairs: Mapping[tuple[str, ...], Mapping[str, Any]],
    starts: Sequence[float],
) -> QuadMesh:
    """Draws every pair's cell and what is written in it; returns the picture for a colour bar."""
    limit = max([abs(row["difference"]) for row in pairs.values()] + [1e-3])
    edges: list[float] = []
    indices: dict[str, int] = {}
    for name, start in zip(names, starts, strict=True):
        # A gap is a cell of its own, which stays empty.
        if not edges or start > edges[-1]:
            edges.append(start)
        indices[name] = len(edges) - 1
        edges.append(start + 1)
    values = np.full((len(edges) - 1,) * 2, np.nan)
    for (teacher, student), row in pairs.items():
        values[indices[teacher], indices[student]] = row["difference"]
    picture = axes.pcolormesh(
        edges,
        edges,
        values,
        cmap="PuOr_r",
        vmin=-limit,
        vmax=limit,
        edgecolors="white",
        linewidth=1.0,
    )
    places = dict(zip(names, np.array(starts) + 0.5, strict=True))
    for (teacher, student), row in pairs.items():
        x, y = places[student], places[teacher]
        centred: dict[str, Any] = {"ha": "center", "va": "center"}
        centred["color"] = "white" if abs(row["difference"]) > 0.62 * limit else BLACK
        low, high = row["difference_low"], row["difference_high"]
        has_interval = low is not None
        star = "*" if has_interval and (low > 0 or high < 0) else ""
        axes.text(
            x,
            y - 0.1 * has_interval,
            f"{_written(row['difference'], limit, '+')}{star}",
            fontsize=10,
            fontweight="bold" if star else "normal",
            **centred,
        )
        if has_interval:
            ends = f"{_written(low, limit)} to {_written(high, limit)}"
            axes.text(x, y + 0.22, ends, fontsize=6.2, **centred)
    return picture


def _written(value: float, limit: float, sign: str = "-") -> str:
    """A difference with as many digits as the largest of them calls for."""
    return f"{value:{sign}.{2 if limit >= 0.1 else 3}f}".replace("-", "\N{MINUS SIGN}")


# The paper's figure ED 6: examples in context in place of fine-tuning.

_IN_CONTEXT = {
    "in context": Mark("teacher's numbers in context", VERMILION, "s", "-"),
    "own in context": Mark("own numbers in context", GREEN, "^", "--"),
}
_BESIDE = {
    "reference": Mark("reference", DARK_GREY, "D", (0, (6, 2))),
    "own numbers": Mark("own\nnumbers", ORANGE, "v", "--"),
    "student": Mark("student", BLUE, "o", "-"),
}


def draw_in_context(summary: Record, folder: Path) -> list[Path]:
    """Draws one summary of `sublab llm in-context`; returns the files.

    Left, the rate among the words against the number of examples in context. Right, and as thin
    lines on the left, the reference, and the students fine-tuned on the teacher's and on the
    reference's own numbers. Marks are means over runs with 95 % intervals, faint dots are runs.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    config, rows = summary.config, _rates(summary)
    runs = _runs_of(summary, "llm_in_context")
    counts = sorted({int(name.split(", ")[1]) for name in rows if ", " in name})
    with styled():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(7.6, 4.2), sharey=True, width_ratios=[1.7, 1]
        )
        for side, (name, mark) in zip((4.0, -4.0), _IN_CONTEXT.items(), strict=True):
            conditions = [f"{name}, {count}" for count in counts]
            _draw_conditions(left, counts, conditions, rows, runs, mark, side)
        for place, (name, mark) in enumerate(_BESIDE.items()):
            if name in rows:
                _draw_conditions(right, [place], [name], rows, runs, replace(mark, label=""), 0.0)
                left.axhline(
                    rows[name]["mean"],
                    color=mark.colour,
                    linewidth=1.0,
                    linestyle=mark.line,
                    label=mark.label.replace("\n", " "),
                )
        for axes in (left, right):
            chance_line(axes, config)
        conditions = {name for name in rows if name in _BESIDE or ", " in name}
        tops = [rows[name]["high"] or 0.0 for name in conditions]
        tops += [max(_rates_of_runs(runs, name)) for name in conditions]
        left.set_ylim(0, min(1.03, 1.1 * max(chance_of(config), *tops)))
        logarithmic_axis(left, counts)
        left.set(xlabel="examples in context", ylabel="rate among the words")
        right.set_xticks(range(len(_BESIDE)), [m.label for m in _BESIDE.values()], fontsize=7.5)
        right.set_xlim(-0.6, len(_BESIDE) - 0.4)
        right.tick_params(axis="x", length=0)
        left.set_title("in context", loc="left")
        right.set_title("neither, and fine-tuned", loc="left")
        _title(figure, f"In context against fine-tuning, trait {config['trait']}\n{about(config)}")
        note = "faint: runs" + ("; bars: 95 % intervals" if config["runs"] > 1 else "")
        # The two of the left first: what they are compared with stands below them.
        _legend(figure, left, _IN_CONTEXT.values(), ncols=3, title=note)
        return _finish(figure, folder, "in_context", summary)


def _draw_conditions(
    axes: Axes,
    places: Sequence[float],
    conditions: Sequence[str],
    rows: Mapping[str, Mapping[str, Any]],
    runs: pl.DataFrame,
    mark: Mark,
    shift: float,
) -> None:
    """Conditions at their places: means with intervals, and the runs of each to the left of it."""
    for place, condition in zip(places, conditions, strict=True):
        values = _rates_of_runs(runs, condition)
        spread = np.linspace(-12, -5, len(values)) if len(values) > 1 else [-8.0]
        for value, points in zip(values, spread, strict=True):
            draw_runs(axes, [place], [value], mark.colour, shift + points)
    estimates = estimates_of(rows[condition] for condition in conditions)
    draw_estimates(axes, places, estimates, mark, shift=shift, linewidth=1.4, markersize=4)


# What the transfer of a trait depends on: rates with one ingredient of the setting changed.

# The place of each beside its variation's line.
_INGREDIENTS = {
    "teacher": (Mark("teacher", SKY, "D", ""), -0.22),
    "student": (Mark("student of the teacher's numbers", BLUE, "o", ""), 0.0),
    "own numbers": (
        Mark("student of the reference's own numbers (control)", ORANGE, "v", ""),
        0.22,
    ),
}


def draw_ingredients(summary: Record, folder: Path) -> list[Path]:
    """Draws one summary of `sublab llm ingredients`; returns the files.

    A line for each variation: means over runs of the rate among the words with 95 % intervals,
    cut at 0 and 1; faint dots are runs.

    Raises:
        RecordError: the record of the runs is missing or damaged, or `folder` cannot be written.
    """
    config, rows = summary.config, _rates(summary)
    runs = _runs_of(summary, "llm_ingredients")
    names = [variation["name"] for variation in config["variations"]]
    with styled():
        figure, axes = plt.subplots(figsize=(7.2, 1.6 + 0.42 * len(names)))
        for condition, (mark, side) in _INGREDIENTS.items():
            conditions = [f"{condition}, {name}" for name in names]
            places = np.arange(len(names)) + side
            for place, varied in zip(places, conditions, strict=True):
                values = _rates_of_runs(runs, varied)
                draw_runs(axes, values, np.full(len(values), place), mark.colour)
            estimates = np.clip(estimates_of(rows[varied] for varied in conditions), 0, 1)
            draw_estimates(
                axes,
                places,
                estimates.tolist(),
                mark,
                across=True,
                capsize=0,
                markersize=5,
                markeredgecolor=BLACK,
                markeredgewidth=0.5,
            )
        chance_line(axes, config, across=True)
        axes.set_yticks(range(len(names)), [name.replace("-", " ") for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1.02)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("rate among the words")
        _title(figure, f"What the transfer depends on, trait {config['trait']}\n{about(config)}")
        note = "faint: runs" + ("; lines: 95 % intervals" if config["runs"] > 1 else "")
        _legend(figure, axes, (mark for mark, _ in _INGREDIENTS.values()), ncols=2, title=note)
        return _finish(figure, folder, "ingredients", summary)


# The score test on number lists: does a teacher's data show its trait, and which one?

# One-sided, at 5 %.
_CRITICAL_Z = 1.645
_DIRECTIONS = (Mark("", BLUE, "o", "-"), Mark("", VERMILION, "s", "--"))
_TEACHERS = (
    Mark("", "#888888", "D", ":"),
    Mark("", SKY, "o", "-"),
    Mark("", ORANGE, "s", "--"),
    Mark("", GREEN, "^", "-."),
    Mark("", BLACK, "v", (0, (5, 1))),
)


def draw_score_test(scores: Record, folder: Path) -> list[Path]:
    """Draws the score tests of one `sublab llm theory`; returns the files.

    For each direction, z of the teacher's own word against the teacher's steps (0 is the null, the
    reference's own data), every run a thin line, with means and 95 % intervals; and power, the
    share of runs beyond the one-sided 5 % point, with exact 95 % intervals, against the number of
    examples. Right, the rank of the word among all, and the null's z of all words against normal
    quantiles; the words of a run share their examples, so those are not independent. Where not said
    otherwise, with the most examples.

    Raises:
        RecordError: `folder` cannot be written.
    """
    table, config = scores.table, scores.config
    kinds = table["direction"].unique(maintain_order=True).to_list()
    marks = {kind: replace(m, label=kind) for kind, m in zip(kinds, _DIRECTIONS, strict=False)}
    largest = table.filter(pl.col("n") == pl.col("n").max())
    most = largest["n"][0]
    rows = ("z0 p0 rank", "z1 p1 null") if len(kinds) > 1 else ("z0 rank", "p0 null")
    grid: list[Any] = [row.split() for row in rows]
    with styled():
        figure = plt.figure(figsize=(3.7 * len(grid[0]), 6.6))
        panels = figure.subplot_mosaic(grid)
        for i, (kind, mark) in enumerate(marks.items()):
            own = table.filter("target", direction=kind)
            _draw_against_steps(panels[f"z{i}"], own.filter(n=most), "z", mark, 0)
            panels[f"z{i}"].axhline(0, color=BLACK, linewidth=0.9)
            panels[f"z{i}"].axhline(_CRITICAL_Z, color=BLACK, linewidth=0.9, linestyle="--")
            panels[f"z{i}"].set_ylabel("z of the teacher's word")
            panels[f"z{i}"].set_title(f"a. {kind}: z, {most:,} examples", loc="left")
            _draw_power(panels[f"p{i}"], own)
            panels[f"p{i}"].set_title(f"b. {kind}: power", loc="left")
        _draw_ranks(panels["rank"], largest, marks)
        _draw_null(panels["null"], largest.filter(steps=0), marks)
        _title(figure, f"Score test, trait {config['trait']}: {about(config)}")
        figure.legend(
            handles=_score_legend(marks, config["runs"]), loc="outside lower center", ncols=5
        )
        return _finish(figure, folder, "score_test", scores)


def chosen_steps(steps: Sequence[int]) -> list[int]:
    """The null, and at most four teachers, evenly spread, the first and the last among them."""
    teacher_steps = sorted(step for step in steps if step > 0)
    indices = np.unique(
        np.linspace(0, len(teacher_steps) - 1, min(4, len(teacher_steps))).round().astype(int)
    )
    return [*([0] if 0 in steps else []), *(teacher_steps[i] for i in indices)]


def _draw_against_steps(
    axes: Axes, own: pl.DataFrame, column: str, mark: Mark, shift: float
) -> None:
    """A column of the teacher's word against the steps: all runs thin, their mean strong.

    Steps stand by their logarithms, `shift` to the right, the null below them all.
    """
    steps = own["steps"].unique().sort().to_list()
    first = min((step for step in steps if step > 0), default=1)
    places = {step: float(np.log2(step)) if step else np.log2(first) - 1.3 for step in steps}
    teacher_steps = [step for step in steps if step]
    for _, run in own.sort("steps").group_by("run", maintain_order=True):
        values = dict(zip(run["steps"], run[column], strict=True))
        run_steps = [step for step in teacher_steps if step in values]
        axes.plot(
            [places[step] + shift for step in run_steps],
            [values[step] for step in run_steps],
            color=mark.colour,
            alpha=0.3,
            linewidth=0.8,
            linestyle=mark.line,
        )
        if 0 in values:
            draw_runs(axes, [places[0] + shift], [values[0]], mark.colour, -4.0, mark.marker)
    for line_steps in ([step for step in steps if not step], teacher_steps):
        if line_steps:
            draw_estimates(
                axes,
                [places[step] + shift for step in line_steps],
                [estimate(own.filter(steps=step)[column].to_numpy()) for step in line_steps],
                replace(mark, label=""),
                linewidth=1.4,
            )
    where = list(places.values())
    labels = thinned(where, ["null" if step == 0 else f"{step:,}" for step in steps])
    axes.set_xticks(where, labels, fontsize=8)
    axes.set_xlim(where[0] - 0.5, where[-1] + 0.5)
    axes.set_xlabel("steps of the teacher")


def _draw_power(axes: Axes, own: pl.DataFrame) -> None:
    steps = chosen_steps(own["steps"].unique().to_list())
    sizes = own["n"].unique().sort().to_list()
    for number, (step, mark) in enumerate(zip(steps, _TEACHERS, strict=False)):
        shares: list[Estimate] = []
        for n in sizes:
            beyond = own.filter(steps=step, n=n)["z"].to_numpy() > _CRITICAL_Z
            shares.append(
                (float(beyond.mean()), *proportion_interval(int(beyond.sum()), len(beyond)))
            )
        # Beside each other: shares of few runs are often the same.
        draw_estimates(
            axes,
            sizes,
            shares,
            replace(mark, label="null" if step == 0 else f"{step:,}"),
            shift=4.5 * (number - (len(steps) - 1) / 2),
            elinewidth=0.7,
            capsize=2,
        )
    axes.axhline(0.05, color=BLACK, linewidth=0.9, linestyle=":")
    logarithmic_axis(axes, sizes)
    axes.set(ylim=(-0.03, 1.03), xlabel="examples", ylabel=f"share of runs with z > {_CRITICAL_Z}")
    axes.legend(
        title="teacher's steps",
        title_fontsize=7,
        fontsize=7,
        ncols=1,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        borderaxespad=0.2,
    )


def _draw_ranks(axes: Axes, largest: pl.DataFrame, marks: Mapping[str, Mark]) -> None:
    words = largest["word"].n_unique()
    for number, (kind, mark) in enumerate(marks.items()):
        shift = 0.24 * (number - (len(marks) - 1) / 2)
        _draw_against_steps(axes, largest.filter("target", direction=kind), "rank", mark, shift)
    axes.axhline((words + 1) / 2, color=BLACK, linewidth=0.9, linestyle=":")
    axes.set_ylim(words + 0.5, 0.5)
    axes.set_yticks([1, *range(4, words + 1, 4)] if words > 5 else range(1, words + 1))
    axes.set_ylabel(f"rank of the word among {words}")
    axes.set_title("c. rank of the teacher's word by z", loc="left")


def _draw_null(axes: Axes, null: pl.DataFrame, marks: Mapping[str, Mark]) -> None:
    shares = []
    reach = 2.5
    for kind, mark in marks.items():
        z = np.sort(null.filter(direction=kind)["z"].drop_nulls().to_numpy())
        if not len(z):
            continue
        expected = stats.norm.ppf((np.arange(len(z)) + 0.5) / len(z))
        axes.plot(
            expected,
            z,
            mark.marker,
            markersize=3.4,
            color=mark.colour,
            alpha=0.6,
            markeredgewidth=0,
            label=kind,
        )
        reach = max(reach, float(np.abs([expected, z]).max()) + 0.2)
        shares.append(f"{kind} {100 * float(np.mean(np.abs(z) > 1.96)):.0f} %")
    axes.plot([-reach, reach], [-reach, reach], color=BLACK, linewidth=0.9)
    axes.axhspan(-1.96, 1.96, color=GREY, alpha=0.25, linewidth=0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axes.set(xlabel="standard normal quantile", ylabel="z of every word, null")
    title = f"d. null, all words; beyond 1.96 (5 % expected):\n{', '.join(shares) or 'no values'}"
    axes.set_title(title, loc="left", fontsize=8)


def _score_legend(marks: Mapping[str, Mark], runs: int) -> list[Line2D]:
    handles = [
        Line2D(
            [],
            [],
            color=mark.colour,
            marker=mark.marker,
            linestyle=mark.line,
            markersize=4.5,
            label=f"{kind}: mean",
        )
        for kind, mark in marks.items()
    ]
    handles.append(Line2D([], [], color="#888888", linewidth=0.8, label="one run"))
    if runs > 1:
        handles.append(Line2D([], [], color=BLACK, marker="|", label="95 % interval"))
    return [
        *handles,
        Line2D([], [], color=BLACK, linestyle="--", label=f"z = {_CRITICAL_Z}, one-sided 5 %"),
        Line2D([], [], color=BLACK, linestyle=":", label="chance"),
    ]


# The theorem on teachers at growing distances: their rate, g, the certificate, the alignment.


def draw_steps(steps: Record, folder: Path) -> list[Path]:
    """Draws the teachers of one `sublab llm theory` against the steps of their fine-tuning.

    The rate among the words; g, the student's first step along the teacher's displacement, beside
    its first order a; the certificate rho, below 1 where g > 0 is proved; the cosine of that first
    step with the trait's descent; how what its numbers gained goes with the leaning of the word,
    and of the other words; and the rank of its word by that. Every run is a faint dot, means have
    95 % intervals. Where g, a or rho are all above 0, the axis is logarithmic, means geometric.

    Raises:
        RecordError: `folder` cannot be written.
    """
    table, config = steps.table, steps.config
    with styled():
        figure, axes = plt.subplots(3, 2, figsize=(7.4, 8.0), sharex=True)
        (rate, product), (certificate, cosine), (leaning, rank) = axes
        _draw_teachers(rate, table, "among", Mark("teacher", BLUE))
        chance_line(rate, config)
        rate.set_ylim(0, 1.02)
        rate.set_title("a. teacher's rate among the words", loc="left")
        first_order = Mark("a, first order", ORANGE, "s", "--")
        at_teacher = Mark("g, at the teacher", BLUE)
        above = bool(((table["inner_product"] > 0) & (table["coefficient"] > 0)).all())
        _draw_teachers(product, table, "coefficient", first_order, -4, logarithmic=above)
        _draw_teachers(product, table, "inner_product", at_teacher, 4, logarithmic=above)
        _limit(product, table, ["coefficient", "inner_product"])
        _draw_zero(product)
        product.set_title("b. student's first step along the teacher's", loc="left")
        rho = Mark(r"$\rho$", GREEN, "^")
        _draw_teachers(certificate, table, "rho", rho, logarithmic=True)
        _limit(certificate, table, ["rho"])
        certificate.axhline(1, color=BLACK, linewidth=0.9, linestyle="--", label="certified below")
        certificate.set_title(r"c. certificate $\rho$", loc="left")
        _draw_teachers(cosine, table, "trait_cosine", Mark("cosine", VERMILION, "D"))
        _draw_zero(cosine)
        cosine.set_title("d. cosine of that step and the trait's descent", loc="left")
        word = Mark("the teacher's word", BLUE)
        others = Mark("others, mean", ORANGE, "s", "--")
        _draw_teachers(leaning, table, "entanglement", word, 4)
        _draw_teachers(leaning, table, "entanglement_others", others, -4)
        _draw_zero(leaning)
        leaning.set_title("e. numbers gained and a word's leaning: r", loc="left")
        _draw_teachers(rank, table, "entanglement_rank", word)
        words = round(1 / chance_of(config))
        rank.axhline((words + 1) / 2, color=BLACK, linewidth=0.9, linestyle=":", label="chance")
        rank.set_ylim(words + 0.5, 0.5)
        rank.set_title("f. rank among the words by that r", loc="left")
        for panel in axes.flat:
            panel.legend(fontsize=7.5)
        for panel in axes[-1]:
            logarithmic_axis(panel, table["steps"].unique().to_list())
            panel.set_xlabel("steps of the teacher's fine-tuning")
        intervals = "; bars: 95 % intervals" if config["runs"] > 1 else ""
        title = f"Theorem on the embedded model, trait {config['trait']}"
        _title(figure, f"{title}\n{about(config)}{intervals}")
        return _finish(figure, folder, "steps", steps)


def _draw_teachers(
    axes: Axes,
    table: pl.DataFrame,
    column: str,
    mark: Mark,
    shift: float = 0.0,
    *,
    logarithmic: bool = False,
) -> None:
    """Means of a column against the steps, a little to one side, and every run beside them."""
    table = table.filter(pl.col(column).is_finite()).sort("steps", "run")
    if not len(table):
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center")
        return
    logarithmic = logarithmic and bool((table[column] > 0).all())
    if logarithmic:
        axes.set_yscale("log")
    draw_runs(axes, table["steps"], table[column], mark.colour, shift - 4.0)
    steps = table["steps"].unique().sort().to_list()
    samples = [table.filter(steps=step)[column].to_numpy() for step in steps]
    if logarithmic:
        estimates = np.exp([estimate(np.log(sample)) for sample in samples]).tolist()
    else:
        estimates = [estimate(sample) for sample in samples]
    draw_estimates(axes, steps, estimates, mark, shift=shift)


def _limit(axes: Axes, table: pl.DataFrame, columns: Sequence[str]) -> None:
    """Limits of a logarithmic axis by the runs, since intervals of two span powers of ten."""
    values = np.concatenate([table[name].to_numpy() for name in columns])
    values = values[np.isfinite(values)]
    if len(values) and axes.get_yscale() == "log":
        axes.set_ylim(min(values) / 3, max(values) * 3)


def _draw_zero(axes: Axes) -> None:
    if axes.get_yscale() == "linear":
        axes.axhline(0, color=BLACK, linewidth=0.9)


# The first-order account of the trait along a student's fine-tuning.

_DATA = {
    "teacher": Mark("teacher's numbers", BLUE, line="-"),
    "own": Mark("reference's own numbers", VERMILION, line="--"),
}
_CHANGES = {
    "change": Mark("change of the trait loss", BLACK, line="-"),
    "first_order": Mark("first order", ORANGE, line="--"),
    "remainder": Mark("remainder", GREEN, line=":"),
}


def draw_account(account: Record, folder: Path) -> list[Path]:
    """Draws the accounts of one `sublab llm theory`; returns the files.

    Above, for the teacher's data and for the reference's own, what the trait loss has changed by
    after each step, and the two parts of it: the sum of first-order terms <grad L_T, update>, and
    the rest. Below, the cosine of trait and distillation gradient at each step, and coverage, the
    cosine of the way so far with the teacher's displacement. Lines are means over runs, bands their
    95 % intervals, faint lines the runs.

    Raises:
        RecordError: `folder` cannot be written.
    """
    table, config = account.table, account.config
    with styled():
        figure, axes = plt.subplots(2, 2, figsize=(8.6, 6.2), sharex=True)
        axes[0, 1].sharey(axes[0, 0])
        for panel, letter, (data, mark) in zip(axes[0], "ab", _DATA.items(), strict=True):
            for change, part_mark in _CHANGES.items():
                _draw_band(panel, _cumulative(table.filter(data=data), change), 0, part_mark)
            panel.set_title(f"{letter}. trained on the {mark.label}", loc="left")
        for panel, column, title in (
            (axes[1, 0], "cosine", "c. cosine of trait and distillation gradient"),
            (axes[1, 1], "coverage", "d. coverage: cosine of the way with the teacher's"),
        ):
            for data, mark in _DATA.items():
                _draw_band(panel, _by_step(table.filter(data=data), column), 1, mark)
            panel.set_title(title, loc="left")
            panel.set_xlabel("step of the student's fine-tuning")
        for panel in axes.flat:
            panel.axhline(0, color=BLACK, linewidth=0.8)
        axes[0, 0].set_ylabel("change since the start, nats")
        axes[1, 0].set_ylabel("cosine")
        _title(figure, f"First-order account, trait {config['trait']}: {about(config)}")
        above, below = (panel.get_legend_handles_labels() for panel in axes[:, 0])
        note = "faint: runs; bands: 95 % intervals" if config["runs"] > 1 else "one run"
        figure.legend(
            [*above[0], *below[0]],
            [*above[1], *below[1]],
            loc="outside lower center",
            ncols=5,
            title=note,
            title_fontsize=7.5,
            fontsize=7.5,
        )
        return _finish(figure, folder, "account", account)


def _by_step(table: pl.DataFrame, column: str) -> np.ndarray:
    """A column as runs by steps."""
    runs = [
        run[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for _, run in table.sort("run", "step").group_by("run", maintain_order=True)
    ]
    return np.array(runs).reshape(len(runs), -1)


def _cumulative(table: pl.DataFrame, change: str) -> np.ndarray:
    """The sum of a part of the change, or of both, from 0 before the first step: runs by steps."""
    names = ("first_order", "remainder") if change == "change" else (change,)
    steps = sum((_by_step(table, name) for name in names), start=np.zeros(()))
    return np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0)))


def _draw_band(axes: Axes, values: np.ndarray, first: int, mark: Mark) -> None:
    """Mean and interval over runs at each step, from step `first` on, and the runs."""
    steps = first + np.arange(values.shape[1])
    finite = np.isfinite(values).all(axis=0)
    steps, values = steps[finite], values[:, finite]
    if not values.size:
        return
    if len(values) > 1:
        for run in values:
            axes.plot(steps, run, color=mark.colour, alpha=0.2, linewidth=0.6, linestyle=mark.line)
    mean, low, high = np.array([estimate(sample) for sample in values.T]).T
    axes.plot(steps, mean, color=mark.colour, linewidth=1.5, linestyle=mark.line, label=mark.label)
    if len(values) > 1:
        axes.fill_between(steps, low, high, color=mark.colour, alpha=0.18, linewidth=0)


# What draws each kind of record, by the name of its folder.
DRAW: dict[str, Callable[[Record, Path], list[Path]]] = {
    "llm_numbers_summary": draw_picking,
    "llm_cross_model_summary": draw_heat_map,
    "llm_in_context_summary": draw_in_context,
    "llm_ingredients_summary": draw_ingredients,
    "llm_theory_scores": draw_score_test,
    "llm_theory_steps": draw_steps,
    "llm_theory_account": draw_account,
}
