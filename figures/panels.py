"""Panels that the figures of sweeps share: lines, bars and clouds, chance, published values."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION
from figures.sweep_data import Row, Sweep, name_of
from figures.sweep_frame import FIRM, inches, numbers_axis, spread_axis, wrapped


@dataclass(frozen=True)
class Look:
    """How one of several lines, bars or clouds is told from the others, also in grey."""

    colour: str
    marker: str
    line: Any
    hatch: str


LOOKS = (
    Look(BLUE, "o", "-", "///"),
    Look(VERMILION, "s", "--", "..."),
    Look(GREEN, "^", "-.", "xxx"),
    Look(ORANGE, "v", ":", ""),
    Look(SKY, "P", (0, (5, 1)), "\\\\\\"),
    Look("#666666", "X", (0, (1, 1)), "++"),
)


def look(number: int) -> Look:
    """One of `LOOKS`, or, beyond them, a colour with the marker and the line of others."""
    again, i = divmod(number, len(LOOKS))
    other = LOOKS[(i + again) % len(LOOKS)]
    return Look(LOOKS[i].colour, other.marker, other.line, other.hatch)


def line(
    axes: Axes,
    rows: Sequence[Row],
    x: Iterable[float],
    style: Look,
    label: str,
    shift: float = 0.0,
) -> None:
    """Means against `x`, joined, with their intervals, and every run as a faint dot beside them.

    All of it stands `shift` points to the right of `x`.
    """
    x = np.array(list(x), float)
    order = np.argsort(x, kind="stable")
    x, rows = x[order], [rows[i] for i in order]
    if not rows:
        return
    dots = axes.plot(
        np.repeat(x, [len(row["runs"]) for row in rows]),
        [value for row in rows for value in row["runs"].values()],
        "o", markersize=2.6, color=style.colour, alpha=0.3, markeredgewidth=0,
    )  # fmt: skip
    intervals = _intervals(axes, x, rows, style.colour)
    means = axes.plot(
        x, [row["mean"] for row in rows], color=style.colour, marker=style.marker,
        linestyle=style.line, markersize=4.5, linewidth=1.4, label=label,
    )  # fmt: skip
    _move(axes, dots, shift - 3.5)
    _move(axes, [*intervals, *means], shift)


def bars(
    axes: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Row | None]]
) -> dict[tuple[str, str], float]:
    """Bars with intervals and runs: beside each other in a group, one of every series.

    Args:
        axes: where.
        groups: names below the groups.
        series: by name, a row for every group, or None where there is no value.

    Returns:
        Where each bar stands, by series and group.
    """
    width = 0.8 / len(series)
    where = {}
    for i, (name, rows) in enumerate(series.items()):
        style = look(i)
        for j, (group, row) in enumerate(zip(groups, rows, strict=True)):
            x = where[name, group] = j + (i - (len(series) - 1) / 2) * width
            if row is None:
                axes.text(x, 0.01, "no value", rotation=90, ha="center", va="bottom", fontsize=6.5,
                          transform=axes.get_xaxis_transform())  # fmt: skip
                continue
            axes.bar(
                x, row["mean"], width=0.85 * width, color=style.colour, alpha=0.75,
                hatch=style.hatch, edgecolor=BLACK, linewidth=0.8, label=name or "_nolegend_",
            )  # fmt: skip
            runs = list(row["runs"].values())
            # Spread evenly, so that the dots of a bar do not hide each other or the interval.
            spread = np.linspace(-0.36, -0.08, len(runs)) * width if len(runs) > 1 else [0.0]
            axes.plot(
                x + np.array(spread[: len(runs)]), runs, "o", markersize=2.6, color=BLACK,
                alpha=0.35, markeredgewidth=0,
            )  # fmt: skip
            _intervals(axes, [x + 0.08 * width], [row], BLACK)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.tick_params(axis="x", length=0)
    turned = len(groups) > 12
    room = 99 if turned else max(5, int(inches(axes) / len(groups) / 0.062))
    # A number stays with what it is a number of.
    names = [wrapped([re.sub(r" (?==|\d)|(?<==) ", FIRM, name)], room, " ") for name in groups]
    axes.set_xticks(range(len(groups)), names, fontsize=7.5, rotation=90 if turned else 0)
    return where


def cloud(axes: Axes, x: Sequence[Row], y: Sequence[Row], style: Look, label: str) -> None:
    """One metric against another: every run faint, the means of every setting strong."""
    against = {row["setting"]: row for row in y}
    both = [(row, against[row["setting"]]) for row in x if row["setting"] in against]
    dots = [(a["runs"][r], b["runs"][r]) for a, b in both for r in a["runs"] if r in b["runs"]]
    if not both:
        return
    axes.plot(
        *np.array(dots).reshape(-1, 2).T, style.marker, markersize=3, color=style.colour, alpha=0.3,
        markeredgewidth=0,
    )  # fmt: skip
    axes.plot(
        [a["mean"] for a, _ in both], [b["mean"] for _, b in both], style.marker, markersize=6,
        color=style.colour, markeredgecolor=BLACK, markeredgewidth=0.6, label=label,
    )  # fmt: skip


def clouds(axes: Axes, sweep: Sweep, x: str, y: str = "accuracy", *, spread: bool = False) -> None:
    """A cloud for each label; `spread` makes x logarithmic where its values span much."""
    for number, label in enumerate(sweep.labels):
        cloud(axes, sweep.rows(x, label=label), sweep.rows(y, label=label), look(number), label)
    axes.set_xlabel(name_of(x))
    if spread:
        spread_axis(axes, [v for row in sweep.rows(x) for v in row["runs"].values()])


def beside(number: int, of: int) -> float:
    """How far, in points, to shift one of several lines, so that they do not hide each other."""
    return min(5.0, 25.0 / of) * (number - (of - 1) / 2)


def lines(
    axes: Axes, sweep: Sweep, x: Callable[[Row], float], name: str, metric: str = "accuracy"
) -> None:
    """A line for each label, against x of a row."""
    for number, label in enumerate(sweep.labels):
        rows = sweep.rows(metric, label=label)
        shift = beside(number, len(sweep.labels))
        line(axes, rows, map(x, rows), look(number), label or "student", shift)
    numbers_axis(axes, map(x, sweep.rows(metric)), name)


def accuracy_figure(sweep: Sweep, x: Callable[[Row], float], name: str) -> tuple[Figure, Axes]:
    """One panel: accuracy against x of a row, a line for each label, with teachers and chance."""
    figure, axes = plt.subplots(figsize=(5.6, 4.2))
    teacher(axes, sweep, x)
    lines(axes, sweep, x, name)
    chance(axes, sweep, sweep.rows(), x)
    return figure, axes


def teacher(axes: Axes, sweep: Sweep, x: Callable[[Row], float]) -> None:
    """The teachers' mean accuracy and its interval, as a band; of the first label's points."""
    rows = sorted(sweep.rows("teacher_accuracy", label=sweep.labels[0]), key=x)
    if not rows:
        return
    axes.plot(
        [x(row) for row in rows], [row["mean"] for row in rows], color=BLACK, linewidth=0.9,
        marker="_", label="teacher",
    )  # fmt: skip
    some = [row for row in rows if row["low"] is not None]
    low, high = ([row[end] for row in some] for end in ("low", "high"))
    axes.fill_between([x(row) for row in some], low, high, color=GREY, linewidth=0)


def chance(
    axes: Axes, sweep: Sweep, rows: Sequence[Row], x: Callable[[Row], float] | None = None
) -> None:
    """A line at the accuracy of guessing: straight, or along x where that differs."""
    by_x = {x(row) if x else 0.0: sweep.classes(row) for row in rows}
    style = {"color": BLACK, "linewidth": 0.9, "linestyle": ":", "label": "chance"}
    known = {sweep.classes(row) for row in rows}
    if len(known) == 1 and (number := known.pop()):
        axes.axhline(1 / number, **style)
    elif x and all(by_x.values()):
        places = sorted(by_x)
        axes.plot(places, [1 / (by_x[place] or 1) for place in places], **style)


def published(
    axes: Axes,
    x: float,
    y: float,
    half_width: float | None = None,
    label: str = "published",
    shift: float = 7.0,
) -> None:
    """A published value as a hollow diamond, `shift` points to the right of `x`."""
    mark = axes.errorbar(
        x, y, yerr=half_width, fmt="D", markersize=4.5, markerfacecolor="white",
        markeredgecolor=BLACK, color=BLACK, linewidth=1, label=label, zorder=4,
    )  # fmt: skip
    _move(axes, mark.get_children(), shift)


def published_level(axes: Axes, y: float, label: str) -> None:
    """A published value that holds along a whole axis."""
    axes.axhline(y, color=BLACK, linewidth=0.9, linestyle=(0, (6, 3)), label=label)


def _intervals(
    axes: Axes, x: Sequence[float] | np.ndarray, rows: Sequence[Row], colour: str
) -> list[Artist]:
    some = [(place, row) for place, row in zip(x, rows, strict=True) if row["low"] is not None]
    drawn: list[Artist] = []
    for place, row in some:
        ends = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        drawn += axes.errorbar(
            place, row["mean"], yerr=np.maximum(ends, 0), fmt="none", color=colour, capsize=3,
            linewidth=1.3,
        ).get_children()  # fmt: skip
    return drawn


def _move(axes: Axes, artists: Iterable[Artist], points: float) -> None:
    """Moves what is drawn so many points to the right; the limits are those of the data."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    for artist in artists:
        artist.set_transform(
            axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)
        )
