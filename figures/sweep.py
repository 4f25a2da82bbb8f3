"""The figure of a sweep: the panels that its file asks for, or those that suit any sweep."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import panels
from figures.panels import Estimate, Look
from figures.spec import ACCURACY, LABEL, axis_named, metrics_upward, runs_in_words
from figures.style import BLACK, save, styled
from sublab.records import Record, read

TEACHER = "teacher_accuracy"
# Metrics that guessing has a known value of; their panels have one scale, from 0.
_ACCURACIES = (
    ACCURACY,
    TEACHER,
    "start_accuracy",
    "forecast",
    "forecast_at_rest",
    "label_forecast",
    "label_forecast_at_rest",
    "linear_forecast",
    "linear_teacher",
)
# Axes that have a symbol, for the names of lines and bars.
_SYMBOLS = {"model.aux": "m"}
_READ: dict[str, tuple[str, Callable[[Sequence[int]], int]]] = {
    "width": ("width of the hidden layers", lambda widths: widths[0] if widths else 0),
    "depth": ("hidden layers (0: a linear model)", len),
}
# Inches: a panel beside others and alone, the least and the most of a panel of bars, heights.
_BESIDE, _ALONE = 3.4, 5.4
_BARS = (2.2, 8.6)
_HEIGHTS = {"difference": 2.0, "images": 1.5}
_HEIGHT, _FRAME = 3.0, 1.2
_PICTURES = {
    "data": "Teacher learns: training images, with labels",
    "inputs": "Students see: inputs of distillation, with the teacher's logits",
}

Panel = dict[str, Any]


@dataclass(frozen=True)
class SweepPoint:
    """A point of a sweep, as its summary has it.

    Attributes:
        number: its place among the points.
        label: of its entry of the list; "" where there is no list.
        coordinates: by axis, what it has there; None where that axis has no effect.
        classes: number of classes of its data set.
        dataset_title: that data set's name.
        runs: how many runs it was to have.
    """

    number: int
    label: str
    coordinates: Mapping[str, Any]
    classes: int
    dataset_title: str
    runs: int


@dataclass(frozen=True)
class SweepRecords:
    """What the records of a sweep say.

    Attributes:
        config: of the summary.
        points: all points, in the order of the file.
        estimates: by metric and number of a point; of a metric that is a list, the last of it.
        lists: by metric and number of a point, all of a metric that is a list.
        differences: by metric and number of a point, the mean paired difference to the baseline.
        expected: by metric and number of a point, the expectation where it is known exactly.
        failures: metric and number of points where some run's value is not finite.
        samples: rows of the record of examples; none where there is no such record.
        stem: name of the figure's files.
    """

    config: Mapping[str, Any]
    points: Sequence[SweepPoint]
    estimates: Mapping[tuple[str, int], Estimate]
    lists: Mapping[tuple[str, int], Sequence[Estimate]]
    differences: Mapping[tuple[str, int], Estimate]
    expected: Mapping[tuple[str, int], float]
    failures: frozenset[tuple[str, int]]
    samples: Sequence[Mapping[str, Any]]
    stem: str

    @property
    def axes(self) -> list[str]:
        """Settings that vary."""
        return [axis for axis in self.config["axes"] if axis != LABEL]

    def title_of(self, metric: str) -> str:
        """What a metric is called; of a metric that is a list, the last of it."""
        title = self.config["metric_titles"].get(metric, metric)
        listed = any(name == metric for name, _ in self.lists)
        return f"{title}, the last" if listed else title

    def axis_title(self, axis: str) -> str:
        """What an axis is called."""
        return self.config["axis_titles"].get(axis, axis)


def draw(summary: Record, folder: Path) -> list[Path]:
    """Draws a sweep from the record of its summary into `folder`; returns the files.

    Where the summary has no panels, accuracy is drawn against the first number that varies, or as
    bars where none does.

    Raises:
        RecordError: the record of the runs or of the examples is missing or damaged, or `folder`
            cannot be written.
    """
    sweep = load(summary)
    described = sweep.config["panels"] or panels_for_any(sweep)
    looks: dict[str, Look] = {}
    with styled():
        figure, drawn = _laid_out(described, sweep)
        for axes, panel in zip(drawn, described, strict=True):
            _DRAW[panel["kind"]](axes, panel, sweep, looks)
        _frame(figure, drawn, described, sweep, looks)
        return save(figure, folder, sweep.stem)


def load(summary: Record) -> SweepRecords:
    """What the records of a sweep say, from that of its summary.

    Raises:
        RecordError: another of its records is missing or damaged.
    """
    config, results = summary.config, summary.folder.parents[1]
    runs = read(results / "sweep_runs" / config["runs_record"]).table
    samples: list[dict[str, Any]] = []
    if config["samples_record"]:
        samples = read(results / "samples" / config["samples_record"]).table.to_dicts()
    points = [
        SweepPoint(
            number,
            point["label"] or "",
            point["coordinates"],
            point["classes"],
            point["dataset_title"],
            # A summary of before points could have fewer runs than the sweep says nothing of them.
            point.get("runs", config["runs"]),
        )
        for number, point in enumerate(config["points"])
    ]
    estimates: dict[tuple[str, int], Estimate] = {}
    lists: dict[tuple[str, int], list[Estimate]] = {}
    differences: dict[tuple[str, int], Estimate] = {}
    values, failures = _by_run(runs, points)
    # Places of a list in their order.
    for row in summary.table.sort("index", nulls_last=False).iter_rows(named=True):
        key = (row["metric"], row["point"])
        mean = nan if row["mean"] is None else row["mean"]
        estimate = Estimate(mean, row["low"], row["high"], values.get(key, {}))
        if row["index"] is not None:
            lists.setdefault(key, []).append(estimate)
        if not isfinite(mean):
            estimates.pop(key, None)
            continue
        estimates[key] = estimate
        if row["difference"] is not None:
            to = values.get((row["metric"], row["baseline"]), {})
            differences[key] = Estimate(
                row["difference"],
                row["difference_low"],
                row["difference_high"],
                {run: v - to[run] for run, v in values.get(key, {}).items() if run in to},
            )
    for row in summary.table.drop_nulls("baseline").iter_rows(named=True):
        # The baseline itself differs from nothing: a bar without height or interval.
        differences.setdefault((row["metric"], row["baseline"]), Estimate(0.0, None, None, {}))
    name = re.sub(r"[^\w.-]+", "-", config["name"])
    head = name if name == "fig10b" else f"sweep_{name}"
    stem = f"{head}_{config['size']}_n{config['runs']}_{summary.folder.name[:6]}"
    return SweepRecords(
        config,
        points,
        estimates,
        lists,
        differences,
        _expected(summary.table),
        frozenset(failures),
        samples,
        stem,
    )


def _expected(table: pl.DataFrame) -> dict[tuple[str, int], float]:
    """By metric and point; nothing where the summary is of a version that does not say it."""
    if "expected" not in table.columns:
        return {}
    known = table.drop_nulls("expected").select("metric", "point", "expected")
    return {(metric, point): value for metric, point, value in known.iter_rows()}


def _by_run(
    runs: pl.DataFrame, points: Sequence[SweepPoint]
) -> tuple[dict[tuple[str, int], dict[int, float]], set[tuple[str, int]]]:
    """By metric and point, the finite values by run; and where some run has none.

    A metric that is null in all runs of a point means nothing there, and is no failure.
    """
    values: dict[tuple[str, int], dict[int, float]] = {}
    failures: set[tuple[str, int]] = set()
    for row in runs.sort("point", "run").iter_rows(named=True):
        for metric, value in row.items():
            if metric in ("point", "run") or isinstance(value, str | bool):
                continue
            last = (value[-1] if value else None) if isinstance(value, list) else value
            if last is None:
                continue
            if isfinite(last):
                values.setdefault((metric, row["point"]), {})[row["run"]] = last
            else:
                failures.add((metric, row["point"]))
    short = {key for key, by_run in values.items() if len(by_run) < points[key[1]].runs}
    return values, failures | short


def panels_for_any(sweep: SweepRecords) -> list[Panel]:
    """Panels that suit any sweep.

    Labels with a number that varies are lines against the first of these, in a panel for each such
    number; all others are bars.
    """
    plain: list[str] = []
    against: dict[str, list[str]] = {}
    for label in dict.fromkeys(point.label for point in sweep.points):
        points = [point for point in sweep.points if point.label == label]
        numbers = [
            axis
            for axis in _varied(points, sweep.axes)
            if all(_is_number(point.coordinates.get(axis)) for point in points)
        ]
        if numbers:
            against.setdefault(numbers[0], []).append(label)
        else:
            plain.append(label)
    described: list[Panel] = [{"kind": "bars", "labels": plain}] if plain else []
    return described + [
        {"kind": "line", "x": axis, "labels": labels} for axis, labels in against.items()
    ]


def _bars(axes: Axes, panel: Panel, sweep: SweepRecords, looks: dict[str, Look]) -> None:
    metric = panel.get("y", ACCURACY)
    groups, series = _grid(panel, sweep)
    points = {name: list(row.values()) for name, row in series.items()}
    where = panels.bars(
        axes,
        groups,
        {
            name: [sweep.estimates.get((metric, p.number)) if p else None for p in row]
            for name, row in points.items()
        },
        _looks(looks, series),
        {
            (name, j)
            for name, row in points.items()
            for j, p in enumerate(row)
            if p is None and len(series) > 1
        },
    )
    width = panels.bar_width(len(series))
    places = {p.number: x for (name, j), x in where.items() if (p := points[name][j]) is not None}
    if also := panel.get("also"):
        for number, x in places.items():
            if (also, number) in sweep.estimates:
                axes.plot(
                    x + 0.37 * width,
                    sweep.estimates[also, number].mean,
                    "s",
                    markersize=5,
                    markerfacecolor="white",
                    markeredgecolor=BLACK,
                    label=f"{sweep.title_of(also)}, mean",
                )
    if metric in _ACCURACIES:
        columns = [[p for row in points.values() if (p := row[j])] for j in range(len(groups))]
        known = [(float(j), column[0].classes) for j, column in enumerate(columns) if column]
        if known:
            panels.chance(axes, *zip(*known, strict=True), joined=False)
    _expectations(axes, sweep, metric, places)
    _published(axes, sweep, {metric}, {n: x + 0.08 * width for n, x in places.items()}, {})
    axes.set_ylabel(sweep.title_of(metric))


def _difference(axes: Axes, panel: Panel, sweep: SweepRecords, looks: dict[str, Look]) -> None:
    metric = panel.get("y", ACCURACY)
    groups, series = _grid(panel, sweep)
    estimates = {
        name: [sweep.differences.get((metric, p.number)) if p else None for p in row.values()]
        for name, row in series.items()
    }
    panels.bars(axes, groups, estimates, _looks(looks, series))
    axes.axhline(0, color=BLACK, linewidth=0.8)
    text = "Paired difference\nto the baseline"
    axes.set_ylabel(text if metric == ACCURACY else f"{text}:\n{sweep.title_of(metric)}")


def _line(axes: Axes, panel: Panel, sweep: SweepRecords, looks: dict[str, Look]) -> None:
    metrics = metrics_upward(panel)
    x = axis_named(panel["x"], sweep.axes)
    points = _with_labels(panel, sweep)
    places, words = _places(points, x, panel)
    points = [point for point in points if point.number in places]
    curves = _lines(points, sweep, x, panel)
    drawn = {
        _line_name(name, metric, panel, sweep, len(curves)): (metric, curve)
        for name, curve in curves.items()
        for metric in metrics
    }
    _looks(looks, drawn)
    if panel.get("teacher") and curves:
        first = [p for p in next(iter(curves.values())) if (TEACHER, p.number) in sweep.estimates]
        if first:
            panels.band(
                axes,
                [places[p.number] for p in first],
                [sweep.estimates[TEACHER, p.number] for p in first],
                "teacher",
            )
    chosen = _chosen(sweep)
    shifts = {}
    for place, (name, (metric, curve)) in enumerate(drawn.items()):
        shift = panels.beside(place, len(drawn))
        if metric == metrics[0]:
            shifts |= dict.fromkeys((point.number for point in curve), shift)
        there = [p for p in curve if (metric, p.number) in sweep.estimates]
        panels.line(
            axes,
            [places[p.number] for p in there],
            [sweep.estimates[metric, p.number] for p in there],
            looks[name],
            name,
            shift,
        )
        for point in there:
            if point.number in chosen:
                axes.plot(
                    places[point.number],
                    sweep.estimates[metric, point.number].mean,
                    "o",
                    markersize=11,
                    markerfacecolor="none",
                    markeredgecolor=BLACK,
                    label=f"lowest {sweep.title_of(chosen[point.number])}",
                )
        for point in curve:
            if (metric, point.number) in sweep.failures:
                axes.plot(
                    places[point.number],
                    0.96,
                    "x",
                    color=BLACK,
                    transform=axes.get_xaxis_transform(),
                    label="not finite in some run",
                )
    title = _READ[panel["read"]][0] if "read" in panel else sweep.axis_title(x or panel["x"])
    if words:
        axes.set_xlabel(title)
        axes.set_xticks(range(len(words)), words, fontsize=8)
    else:
        panels.numbers_axis(axes, places.values(), title)
    if metrics[0] in _ACCURACIES and points:
        where = [places[point.number] for point in points]
        panels.chance(axes, where, [point.classes for point in points], joined=True)
    _expectations(axes, sweep, metrics[0], {p.number: places[p.number] for p in points})
    published = {metrics[0], TEACHER} if panel.get("teacher") else {metrics[0]}
    _published(axes, sweep, published, places, shifts)
    # What is shifted to the side of the first and the last place stays inside.
    aside = max(map(abs, shifts.values()), default=0.0) + panels.ROOM
    axes.margins(x=max(0.05, aside / (72 * panels.inches(axes))))
    _upward(axes, panel, sweep, [p.number for p in points])


def _line_name(name: str, metric: str, panel: Panel, sweep: SweepRecords, curves: int) -> str:
    """What the legend calls a line, of several metrics or one, on a panel of so many curves."""
    if not isinstance(panel.get("y"), list):
        return name
    text = panel.get("names", {}).get(metric) or sweep.title_of(metric)
    return text if curves == 1 else f"{name}: {text}"


def _cloud(axes: Axes, panel: Panel, sweep: SweepRecords, looks: dict[str, Look]) -> None:
    x, y = panel["x"], panel.get("y", ACCURACY)
    points = _with_labels(panel, sweep)
    series = axis_named(panel.get("series", LABEL), [LABEL, *sweep.axes]) or LABEL
    clouds: dict[str, list[SweepPoint]] = {}
    for point in points:
        name = _series_name(point, series, panel, sweep) or "student"
        clouds.setdefault(name, []).append(point)
    _looks(looks, clouds)
    for name, cloud in clouds.items():
        pairs = [
            (sweep.estimates[x, p.number], sweep.estimates[y, p.number])
            for p in cloud
            if (x, p.number) in sweep.estimates and (y, p.number) in sweep.estimates
        ]
        panels.cloud(axes, pairs, looks[name], name)
    numbers = [point.number for point in points]
    right, up = (_values(sweep, (metric,), numbers) for metric in (x, y))
    if panel.get("diagonal") and right and up:
        reach = [min(right + up), max(right + up)]
        axes.plot(reach, reach, color=BLACK, linewidth=0.8, linestyle="-.", label="equal")
    axes.set_xlabel(sweep.title_of(x))
    if "x" in panel.get("log", ""):
        panels.spread_axis(axes, _values(sweep, (x,), numbers))
    if y in _ACCURACIES and len({point.classes for point in points}) == 1:
        panels.chance(axes, [], [points[0].classes], joined=False)
    _published(axes, sweep, {y}, {}, {})
    _upward(axes, panel, sweep, numbers)


def _steps(axes: Axes, panel: Panel, sweep: SweepRecords, looks: dict[str, Look]) -> None:
    metric = panel["y"]
    curves = _lines(_with_labels(panel, sweep), sweep, None, panel)
    _looks(looks, curves)
    for name, points in curves.items():
        for point in points:
            panels.steps(axes, sweep.lists.get((metric, point.number), ()), looks[name], name)
    axes.axhline(0, color=BLACK, linewidth=0.6)
    _published(axes, sweep, {metric}, {}, {})
    axes.set(xlabel="training step", ylabel=sweep.config["metric_titles"].get(metric, metric))


def _conditions(axes: Axes, panel: Panel, sweep: SweepRecords, looks: dict[str, Look]) -> None:
    rows = [row for row in sweep.config["published"] if row["name"] and row["point"] is not None]
    if not rows:
        return
    estimates = [sweep.estimates.get((row["metric"], row["point"])) for row in rows]
    names = []
    for row, estimate in zip(rows, estimates, strict=True):
        ours = f"\n{estimate.mean:.4f}" if estimate else ""
        theirs = f"\npublished {row['mean']:.4f}" if row["equal"] else ""
        names.append(f"{row['name']}{ours}{theirs}")
    where = panels.bars(
        axes, names, {"": estimates}, [panels.look(number) for number in range(len(rows))]
    )
    for number, row in enumerate(rows):
        if row["equal"]:
            x = where["", number] + 0.08
            panels.diamond(axes, x, row["mean"], row["half_width"], row["label"])
    known = [
        (float(number), sweep.expected[row["metric"], row["point"]])
        for number, row in enumerate(rows)
        if (row["metric"], row["point"]) in sweep.expected
    ]
    panels.expectations(axes, [x for x, _ in known], [value for _, value in known])
    classes = [sweep.points[row["point"]].classes for row in rows]
    panels.chance(axes, [float(number) for number in range(len(rows))], classes, joined=False)
    axes.set_ylabel(sweep.title_of(ACCURACY))


def _images(axes: Axes, panel: Panel, sweep: SweepRecords, looks: dict[str, Look]) -> None:
    rows = [
        (
            text,
            [
                np.reshape(sample["pixels"], (sample["side"], sample["side"]))
                for sample in sweep.samples
                if sample["kind"] == kind
            ],
        )
        for kind, text in _PICTURES.items()
    ]
    rows = [(text, images) for text, images in rows if images]
    if rows:
        panels.pictures(axes, rows)


_DRAW: dict[str, Callable[[Axes, Panel, SweepRecords, dict[str, Look]], None]] = {
    "line": _line,
    "bars": _bars,
    "difference": _difference,
    "cloud": _cloud,
    "steps": _steps,
    "conditions": _conditions,
    "images": _images,
}


def _grid(
    panel: Panel, sweep: SweepRecords
) -> tuple[list[str], dict[str, dict[str, SweepPoint | None]]]:
    """Names of the groups of bars; and by series and group a point, or None where there is none.

    A group is whatever a point has on the axes other than that of the series.
    """
    axis = axis_named(panel.get("series", ""), [LABEL, *sweep.axes])
    chosen, choose = _chosen(sweep), panel.get("choose", {})
    points = _with_labels(panel, sweep)
    names = _names(points, sweep, axis)
    groups: dict[str, None] = {}
    series: dict[str, dict[str, SweepPoint | None]] = {}
    for point in points:
        group = names[point.number] or sweep.config["name"]
        if point.label in choose and point.number not in chosen:
            # Its label keeps its place among the groups even if no point of it was chosen.
            if any(p.label == point.label and p.number in chosen for p in points):
                continue
            group = point.label
            row = series.setdefault(_series_name(point, axis, panel, sweep), {})
            row.setdefault(group, None)
        else:
            row = series.setdefault(_series_name(point, axis, panel, sweep), {})
            while row.get(group) is not None:
                group = f"{group}, {point.number}"
            row[group] = point
        groups[group] = None
    return list(groups), {
        name: {group: row.get(group) for group in groups} for name, row in series.items()
    }


def _chosen(sweep: SweepRecords) -> dict[int, str]:
    """Numbers of the points that some panel's `choose` takes, and the metric that decides it.

    Of a label's points it is the one with the lowest mean; one with a run that has no finite value
    is not to be taken.
    """
    chosen = {}
    for panel in sweep.config["panels"]:
        for label, metric in panel.get("choose", {}).items():
            means = {
                point.number: sweep.estimates[metric, point.number].mean
                for point in sweep.points
                if point.label == label and (metric, point.number) in sweep.estimates
                if len(sweep.estimates[metric, point.number].runs) == point.runs
            }
            if means:
                chosen[min(means, key=lambda number: means[number])] = metric
    return chosen


def _with_labels(panel: Panel, sweep: SweepRecords) -> list[SweepPoint]:
    labels = panel.get("labels")
    return [point for point in sweep.points if labels is None or point.label in labels]


def _lines(
    points: Sequence[SweepPoint], sweep: SweepRecords, x: str | None, panel: Panel
) -> dict[str, list[SweepPoint]]:
    """The points of each line, by its name: a line has all that differ on the axis x alone.

    Where the panel has one text for several labels, it has the points of all of these.
    """
    names = _names(points, sweep, x, panel.get("names", {}))
    lines: dict[str, list[SweepPoint]] = {}
    for point in points:
        lines.setdefault(names[point.number] or "student", []).append(point)
    return lines


def _names(
    points: Sequence[SweepPoint],
    sweep: SweepRecords,
    without: str | None,
    texts: Mapping[str, str] | None = None,
) -> dict[int, str]:
    """By number, a name of each point: its label, and what varies among the points of that label.

    What the axis `without` says is left out. Labels that have one of `texts` have it for a name.
    """
    names = {}
    for label in dict.fromkeys(point.label for point in points):
        same = [point for point in points if point.label == label]
        varied = [axis for axis in _varied(same, sweep.axes) if axis != without]
        head = [(texts or {}).get(label, label)] if label and without != LABEL else []
        for point in same:
            names[point.number] = ", ".join(
                [*head, *filter(None, (_text(point, axis, sweep.axes) for axis in varied))]
            )
    return names


def _series_name(point: SweepPoint, axis: str | None, panel: Panel, sweep: SweepRecords) -> str:
    if axis is None:
        return ""
    value = point.label if axis == LABEL else point.coordinates.get(axis)
    key = "none" if value is None else _plain(value)
    return panel.get("names", {}).get(key) or (
        point.label if axis == LABEL else _text(point, axis, sweep.axes)
    )


def _text(point: SweepPoint, axis: str, axes: Sequence[str]) -> str:
    """What a point has on an axis, as part of a name; "" where it has nothing."""
    value = point.coordinates.get(axis)
    if value is None:
        return ""
    if axis == "dataset":
        return point.dataset_title
    if isinstance(value, str):
        return value.replace("_", " ")
    if axis in _SYMBOLS:
        return f"{_SYMBOLS[axis]} = {_plain(value)}"
    return f"{_short(axis, axes)} {_plain(value)}"


def _short(axis: str, axes: Sequence[str]) -> str:
    """As many of an axis's last words as tell it from the others."""
    parts = axis.removesuffix(".kind").split(".")
    others = [other.removesuffix(".kind") for other in axes if other != axis]
    for length in range(1, len(parts)):
        end = ".".join(parts[-length:])
        if not any(other == end or other.endswith(f".{end}") for other in others):
            return end.replace(".", " ").replace("_", " ")
    return " ".join(parts).replace("_", " ")


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "none"
    if _is_number(value):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:,}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _varied(points: Sequence[SweepPoint], axes: Iterable[str]) -> list[str]:
    """Axes on which the points differ."""
    return [
        axis
        for axis in axes
        if len({_plain(p.coordinates[axis]) for p in points if p.coordinates.get(axis) is not None})
        > 1
    ]


def _places(
    points: Sequence[SweepPoint], axis: str | None, panel: Panel
) -> tuple[dict[int, float], list[str]]:
    """Where points stand on x, by their number; and the words that stand there, if not numbers."""
    zero = panel.get("zero", ())
    values: dict[int, Any] = {p.number: p.coordinates.get(axis or "") for p in points}
    if axis == "classes":
        # The number of classes that are kept; as a setting, 0 keeps all of them.
        values = {point.number: point.classes for point in points}
    if "read" in panel:
        reading = _READ[panel["read"]][1]
        values = {n: reading(v) if isinstance(v, list) else v for n, v in values.items()}
    values |= {p.number: 0 for p in points if p.label in zero and values[p.number] is None}
    values = {number: value for number, value in values.items() if value is not None}
    if all(_is_number(value) for value in values.values()):
        return {number: float(value) for number, value in values.items()}, []
    words = list(dict.fromkeys(map(_plain, values.values())))
    return {number: float(words.index(_plain(value))) for number, value in values.items()}, words


def _values(sweep: SweepRecords, metrics: Iterable[str], points: Iterable[int]) -> list[float]:
    """Values of metrics, of all runs of some points."""
    points = list(points)
    return [
        value
        for metric in metrics
        for number in points
        if (metric, number) in sweep.estimates
        for value in sweep.estimates[metric, number].runs.values()
    ]


def _looks(looks: dict[str, Look], names: Iterable[str]) -> dict[str, Look]:
    """A look for each name; a name has the same one in all panels of a figure."""
    for name in names:
        looks.setdefault(name, panels.look(len(looks)))
    return looks


def _published(
    axes: Axes,
    sweep: SweepRecords,
    metrics: set[str],
    places: Mapping[int, float],
    shifts: Mapping[int, float],
) -> None:
    """Published values of a panel's metrics, where the setting is the published one.

    Args:
        axes: the panel.
        sweep: the records.
        metrics: the panel's metrics.
        places: x of each point that is drawn, by its number.
        shifts: points by which its mean stands to the right of x.
    """
    for row in sweep.config["published"]:
        if not row["equal"] or row["metric"] not in metrics:
            continue
        number = row["point"]
        if number is None:
            panels.level(axes, row["mean"], row["label"])
        elif number in places:
            shift = 0.0 if row["metric"] == TEACHER else shifts.get(number, 0.0)
            panels.diamond(
                axes, places[number], row["mean"], row["half_width"], row["label"], shift
            )


def _expectations(
    axes: Axes, sweep: SweepRecords, metric: str, places: Mapping[int, float]
) -> None:
    """A stroke at each point of a panel whose metric has an exactly known expectation.

    Args:
        axes: the panel.
        sweep: the records.
        metric: the panel's metric.
        places: x of each point that is drawn, by its number.
    """
    known = [
        (x, sweep.expected[metric, n]) for n, x in places.items() if (metric, n) in sweep.expected
    ]
    panels.expectations(axes, [x for x, _ in known], [value for _, value in known])


def _upward(axes: Axes, panel: Panel, sweep: SweepRecords, points: Sequence[int]) -> None:
    """Name and scale of a panel's y axis."""
    metrics = metrics_upward(panel)
    share = len(metrics) > 1 and all(metric in _ACCURACIES for metric in metrics)
    axes.set_ylabel("Test accuracy" if share else sweep.title_of(metrics[0]))
    if "y" in panel.get("log", ""):
        means = [
            sweep.estimates[metric, n].mean
            for metric in metrics
            for n in points
            if (metric, n) in sweep.estimates
        ]
        panels.spread_axis(axes, means, "y")


def _laid_out(described: Sequence[Panel], sweep: SweepRecords) -> tuple[Figure, list[Axes]]:
    """A figure, and for each panel its place in it."""
    columns: list[list[Panel]] = []
    for panel in described:
        if panel.get("stack") and columns:
            columns[-1].append(panel)
        else:
            columns.append([panel])
    widths = [max(_inches(p, sweep, len(columns)) for p in column) for column in columns]
    heights = [[_HEIGHTS.get(panel["kind"], _HEIGHT) for panel in column] for column in columns]
    height = _FRAME + max(map(sum, heights))
    if any(_turned(panel, sweep) for panel in described):
        height += 2.0
    figure = plt.figure(figsize=(max(5.0, sum(widths) + 0.4), height))
    outer = figure.add_gridspec(1, len(columns), width_ratios=widths)
    drawn = []
    for number, column in enumerate(columns):
        if len(column) == 1:
            # In the outer grid itself, where panels side by side are in line.
            drawn.append(figure.add_subplot(outer[number]))
        else:
            inner = outer[number].subgridspec(len(column), 1, height_ratios=heights[number])
            drawn += [figure.add_subplot(inner[row]) for row in range(len(column))]
    return figure, drawn


def _inches(panel: Panel, sweep: SweepRecords, columns: int) -> float:
    if "inches" in panel:
        return panel["inches"]
    if panel["kind"] in ("bars", "difference"):
        groups, series = _grid(panel, sweep)
        low, high = _BARS
        return min(high, max(low, 0.8 * len(groups), 0.45 * len(groups) * len(series)) + 0.6)
    if panel["kind"] in ("conditions", "images"):
        return 6.4
    return _ALONE if columns == 1 else _BESIDE


def _turned(panel: Panel, sweep: SweepRecords) -> bool:
    bars = panel["kind"] in ("bars", "difference")
    return bars and len(_grid(panel, sweep)[0]) > panels.MANY_GROUPS


def _frame(
    figure: Figure,
    drawn: Sequence[Axes],
    described: Sequence[Panel],
    sweep: SweepRecords,
    looks: Mapping[str, Look],
) -> None:
    """Gives a figure one scale for its accuracies, its title, and its one legend."""
    shares = [
        axes
        for axes, panel in zip(drawn, described, strict=True)
        if panel["kind"] in ("line", "bars", "cloud", "conditions")
        and all(metric in _ACCURACIES for metric in metrics_upward(panel))
    ]
    top = max((axes.dataLim.y1 for axes in shares), default=1.0)
    for axes in shares:
        axes.set_ylim(0, np.ceil(10 * top + 0.5) / 10 if 0 < top < 0.7 else 1.02)
    for number, (axes, panel) in enumerate(zip(drawn, described, strict=True)):
        below = described[number + 1] if number + 1 < len(drawn) else {}
        if "title" in panel:
            axes.set_title(panel["title"], fontsize=9)
        if below.get("stack") and below["kind"] == "difference":
            axes.tick_params(labelbottom=False)
        if number and axes in shares and drawn[number - 1] in shares and not panel.get("stack"):
            axes.set_ylabel("")
        # Lines across the panel (of chance, say) leave the limits of the data in x as they are.
        if not np.isfinite(axes.dataLim.intervalx).all():
            axes.text(
                0.5,
                0.5,
                "no values",
                transform=axes.transAxes,
                ha="center",
                va="center",
                fontsize=8,
            )
            axes.tick_params(labelbottom=False, labelleft=False)
    width = figure.get_figwidth()
    figure.suptitle(
        "\n".join(panels.wrapped(parts, int(15 * width)) for parts in heading(sweep.config)),
        fontsize=9,
        x=0.01,
        ha="left",
    )
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    # First what is compared, then what it is compared with.
    handles = dict(sorted(handles.items(), key=lambda item: item[0] not in looks))
    if {panel["kind"] for panel in described} - {"images", "steps"}:
        handles["one run"] = Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            color=BLACK,
            alpha=0.35,
            markersize=3.5,
            markeredgewidth=0,
        )
    if sweep.config["runs"] > 1:
        handles["95 % interval of the mean"] = Line2D(
            [], [], color=BLACK, marker="|", linestyle="", markersize=9, markeredgewidth=1.4
        )
    columns = _legend_columns(list(map(len, handles)), width)
    # A long legend takes no height from the panels.
    long = max(0, -(-len(handles) // columns) - 4)
    figure.set_figheight(figure.get_figheight() + 0.19 * long)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=columns,
        handlelength=2.8,
    )


def _legend_columns(lengths: Sequence[int], width: float) -> int:
    """The most columns that a legend may have: each is as wide as the longest text in it.

    Args:
        lengths: characters of each text; they go down the columns, as Matplotlib puts them.
        width: inches of the figure.
    """
    for columns in range(len(lengths), 1, -1):
        # The first columns are longer by one where the texts do not go up evenly.
        whole, longer = divmod(len(lengths), columns)
        starts = [place * whole + min(place, longer) for place in range(columns + 1)]
        longest = [max(lengths[a:b]) for a, b in pairwise(starts)]
        if sum(0.7 + 0.062 * length for length in longest) <= width:
            return columns
    return 1


def heading(config: Mapping[str, Any]) -> list[list[str]]:
    """The title, the data set and n; then every setting that all points share, in words."""
    size = ", smoke size" if config["size"] == "smoke" else ""
    data = f": {config['dataset_title']}" if config["dataset_title"] else ""
    runs = runs_in_words(config)
    head = [f"{config['title']}{data}", f"n = {runs} run{'' if runs == '1' else 's'}{size}"]
    return [head, *([list(config["shared"])] if config["shared"] else [])]


# What draws each kind of record.
DRAW = {"sweep_summary": draw}
