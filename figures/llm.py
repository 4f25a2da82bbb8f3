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
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from matplotlib.transforms import ScaledTranslation
from scipy import stats

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION, save, styled
from sublab.records import Record, read
from sublab.statistics import mean_interval, proportion_interval

DARK_GREY = "#666666"
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
    """

    label: str
    colour: str
    marker: str = "o"
    line: Any = "-"


def estimate(values: Iterable[float] | np.ndarray, share: bool = False) -> Estimate:
    """Mean of one value a run, and the ends of its 95 % interval, which are nan for one run."""
    interval = mean_interval(np.asarray(values, float), share=share)
    if interval.low is None or interval.high is None:
        return interval.mean, np.nan, np.nan
    return interval.mean, interval.low, interval.high


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
    if (model := config.get("model", "embedded")) != "embedded":
        parts.insert(0, model)
    if setting := config.get("setting"):
        parts.append(f"teacher by {setting['teacher_by'].replace('prompt', 'system prompt')}")
        parts.append(f"{setting['lists']['count']:,} lists")
        parts.append(f"{setting['student']['steps']:,} steps of a student")
    return ", ".join(parts)


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


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=9, x=0.01, ha="left")


def _finish(figure: Figure, folder: Path, name: str, record: Record) -> list[Path]:
    return save(figure, folder, f"llm_{name}_{record.folder.name[:6]}")


def _runs_of(summary: Record, experiment: str) -> pl.DataFrame:
    """The table of single runs behind a summary."""
    return read(summary.folder.parents[1] / experiment / summary.config["rows"]).table


# Rates by condition: the paper's figures 4a and 5, ED 4f and ED 6.

# What the marks of a condition's row are of, in order.
_ASKED = {
    "p_word": Mark("P(word), exact", BLUE, "o"),
    "containing": Mark("sampled answers that contain it", VERMILION, "s"),
}
_INCHES_OF_A_ROW = 0.27


def draw_rates(summary: Record, folder: Path) -> list[Path]:
    """Draws P(word) and the sampled rate of every condition, asked without a prefix.

    Means over runs with their 95 % intervals, and the runs, faint. Of several traits, the means
    over traits of a run; and beside it a row for every trait: student and control.

    Raises:
        RecordError: the record of the runs is damaged, or `folder` cannot be written.
    """
    runs = _runs_of(summary, summary.folder.parent.name.removesuffix("_summary"))
    runs = runs.filter(~pl.col("prefix"))
    traits = runs["trait"].unique(maintain_order=True).to_list()
    conditions = runs["condition"].unique(maintain_order=True).to_list()
    columns = 1 + (len(traits) > 1)
    height = 1.5 + _INCHES_OF_A_ROW * max(len(conditions), 2 * len(traits) * (columns - 1))
    with styled():
        figure, panels = plt.subplots(
            1, columns, figsize=(4.4 + 3 * columns, height), squeeze=False
        )
        _draw_rows(panels[0, 0], [(name, runs.filter(condition=name)) for name in conditions])
        if len(traits) > 1:
            pairs = [(trait, of) for trait in traits for of in ("student", "own numbers")]
            rows = [
                (f"{trait}, {of}", runs.filter(trait=trait, condition=of)) for trait, of in pairs
            ]
            _draw_rows(panels[0, 1], rows)
            panels[0, 0].set_title("a. means over traits", loc="left")
            panels[0, 1].set_title("b. single traits", loc="left")
        for panel in panels.flat:
            _chance(panel, summary.config)
            panel.set_xlabel("rate")
        _rates_title(figure, summary.config)
        _legend_below(figure, panels[0, 0])
        return _finish(figure, folder, summary.folder.parent.name[4:-8], summary)


def draw_cross_model(summary: Record, folder: Path) -> list[Path]:
    """Draws the rates of all pairs of models, and transfer against what the two models share.

    Transfer is the difference of the log-odds of P(word) from a student of the student model's own
    lists; what is shared, the correlation of the two models' word-number geometry.

    Raises:
        RecordError: the record of the runs is damaged, or `folder` cannot be written.
    """
    runs = _runs_of(summary, "llm_cross_model").filter(~pl.col("prefix"))
    conditions = runs["condition"].unique(maintain_order=True).to_list()
    compared = summary.table.filter(
        pl.col("control").is_not_null(), ~pl.col("prefix"), metric="log_odds", trait="all"
    )
    with styled():
        height = 1.5 + _INCHES_OF_A_ROW * len(conditions)
        figure, (rates, shared) = plt.subplots(1, 2, figsize=(10.4, height))
        _draw_rows(rates, [(name, runs.filter(condition=name)) for name in conditions])
        _chance(rates, summary.config)
        rates.set_xlabel("rate")
        rates.set_title("a. all pairs", loc="left")
        for kind, mark in _KINDS.items():
            rows = compared.filter(pl.col("condition").map_elements(_kind, pl.String) == kind)
            points = [
                tuple(
                    np.array(
                        [row["difference"], row["difference_low"], row["difference_high"]], float
                    )
                )
                for row in rows.iter_rows(named=True)
            ]
            if points:
                draw_estimates(shared, rows["leaning"], points, replace(mark, line=""))
        shared.axhline(0, color=BLACK, linewidth=0.8)
        shared.set_xlabel("correlation of the two models' leanings\nof numbers towards the word")
        shared.set_ylabel("difference of log-odds from the control")
        shared.set_title("b. transfer and what is shared", loc="left")
        shared.legend(fontsize=7.5)
        _rates_title(figure, summary.config)
        _legend_below(figure, rates)
        return _finish(figure, folder, "cross_model", summary)


_KINDS = {
    "itself": Mark("the same model", BLUE, "o"),
    "matched": Mark("matched in behaviour", GREEN, "D"),
    "shared": Mark("shares a part", ORANGE, "s"),
    "another": Mark("independent", DARK_GREY, "^"),
}


def _kind(condition: str) -> str:
    teacher, student = condition.split(" > ")
    if teacher == student:
        return "itself"
    return next((kind for kind in ("matched", "shared") if kind in condition), "another")


def _draw_rows(axes: Axes, rows: Sequence[tuple[str, pl.DataFrame]]) -> None:
    """A line of the panel for each name, with the values of its runs: the mean over traits."""
    for offset, (metric, mark) in zip((-0.16, 0.16), _ASKED.items(), strict=True):
        value = pl.col("p_word") if metric == "p_word" else pl.col("containing") / pl.col("n")
        for place, (_, table) in enumerate(rows):
            of_run = table.group_by("run").agg(value.mean().alias("value"))["value"]
            values = of_run.drop_nulls().to_numpy()
            if not len(values):
                continue
            places = np.full(len(values), place + offset)
            draw_runs(axes, values, places, mark.colour, marker=mark.marker)
            once = replace(mark, line="", label="" if place else mark.label)
            draw_estimates(axes, [place + offset], [estimate(values, True)], once, across=True)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)


def _chance(axes: Axes, config: Mapping[str, Any]) -> None:
    """A line at the rate of a model that knows none of a category's words better than others."""
    if chance := config.get("chance"):
        label = f"chance, 1/{round(1 / chance)}"
        axes.axvline(chance, color=BLACK, linewidth=0.9, linestyle=":", label=label)


def _rates_title(figure: Figure, config: Mapping[str, Any]) -> None:
    traits = config.get("traits") or [config["trait"]]
    what = f"trait {traits[0]}" if len(traits) == 1 else f"{len(traits)} traits"
    subject = f"{_SUBJECTS[config['experiment'].removesuffix('_summary')]}, {what}"
    _title(figure, f"{subject}\n{about(config)}{_intervals_said(config)}")


def _intervals_said(config: Mapping[str, Any]) -> str:
    return "; bars: 95 % intervals" if config["runs"] > 1 else ""


_SUBJECTS = {
    "llm_numbers": "Traits through numbers",
    "llm_cross_model": "Between models",
    "llm_in_context": "Examples in context",
    "llm_ingredients": "One ingredient at a time",
}


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7.5)


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
        # A teacher that hardly writes lists any more has few.
        tested = own.filter(steps=step)["n"].unique().sort().to_list()
        for n in tested:
            beyond = own.filter(steps=step, n=n)["z"].to_numpy() > _CRITICAL_Z
            shares.append(
                (float(beyond.mean()), *proportion_interval(int(beyond.sum()), len(beyond)))
            )
        # Beside each other: shares of few runs are often the same.
        draw_estimates(
            axes,
            tested,
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

    P(word); g, the student's first step along the teacher's displacement, beside
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
        _draw_teachers(rate, table, "p_word", Mark("teacher", BLUE))
        rate.axhline(config["chance"], color=BLACK, linewidth=0.9, linestyle=":", label="chance")
        rate.set_ylim(0, 1.02)
        rate.set_title("a. the teacher's P(word)", loc="left")
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
        words = round(1 / config["chance"])
        rank.axhline((words + 1) / 2, color=BLACK, linewidth=0.9, linestyle=":", label="chance")
        rank.set_ylim(words + 0.5, 0.5)
        rank.set_title("f. rank among the words by that r", loc="left")
        for panel in axes.flat:
            panel.legend(fontsize=7.5)
        for panel in axes[-1]:
            logarithmic_axis(panel, table["steps"].unique().to_list())
            panel.set_xlabel("steps of the teacher's fine-tuning")
        title = f"Theorem on the embedded model, trait {config['trait']}"
        _title(figure, f"{title}\n{about(config)}{_intervals_said(config)}")
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
    "llm_numbers_summary": draw_rates,
    "llm_cross_model_summary": draw_cross_model,
    "llm_in_context_summary": draw_rates,
    "llm_ingredients_summary": draw_rates,
    "llm_theory_scores": draw_score_test,
    "llm_theory_steps": draw_steps,
    "llm_theory_account": draw_account,
}
