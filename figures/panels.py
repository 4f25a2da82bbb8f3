"""What figures are made of: bars, lines, clouds, steps, pictures; chance and published values."""

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, VERMILION

# A space at which no line breaks.
FIRM = "\N{NO-BREAK SPACE}"
# More groups of bars than this have their names upright below them.
MANY_GROUPS = 12
# Share of a group's place that its bars take.
_GROUP = 0.8
# Points between a mean and the dots of its runs on the left, or a published value on the right.
_DOTS, _DIAMOND = -3.5, 7.0
# Points that a mean's marker, and the dots of its runs beside it, take to each side of it.
ROOM = 10.0


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


@dataclass(frozen=True)
class Estimate:
    """A mean over runs.

    Attributes:
        mean: the mean of the runs whose value is finite.
        low, high: ends of its 95 % interval; None for a single run.
        runs: the values by run, those that are not finite left out.
    """

    mean: float
    low: float | None
    high: float | None
    runs: Mapping[int, float]


def line(
    axes: Axes,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    style: Look,
    label: str,
    shift: float = 0.0,
) -> None:
    """Means against `x`, joined, with their intervals, and every run as a faint dot beside them.

    Args:
        axes: the panel.
        x: places, in any order.
        estimates: a mean for each place.
        style: colour, marker and line.
        label: text in the legend.
        shift: points by which everything stands to the right of `x`.
    """
    if not estimates:
        return
    order = np.argsort(x, kind="stable")
    x, estimates = [x[i] for i in order], [estimates[i] for i in order]
    dots = axes.plot(
        np.repeat(x, [len(estimate.runs) for estimate in estimates]),
        [value for estimate in estimates for value in estimate.runs.values()],
        "o",
        markersize=2.6,
        color=style.colour,
        alpha=0.3,
        markeredgewidth=0,
    )
    intervals = _intervals(axes, x, estimates, style.colour)
    means = axes.plot(
        x,
        [estimate.mean for estimate in estimates],
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        markersize=4.5,
        linewidth=1.4,
        label=label,
    )
    _move(axes, dots, shift + _DOTS)
    _move(axes, [*intervals, *means], shift)


def beside(number: int, of: int) -> float:
    """Points by which to shift one of several lines, so that they do not hide each other."""
    return min(5.0, 25.0 / of) * (number - (of - 1) / 2)


def band(axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], label: str) -> None:
    """Means against `x` as a thin line, with their intervals as a grey band."""
    order = np.argsort(x, kind="stable")
    x, estimates = [x[i] for i in order], [estimates[i] for i in order]
    axes.plot(
        x,
        [estimate.mean for estimate in estimates],
        color=BLACK,
        linewidth=0.9,
        marker="_",
        label=label,
    )
    ends = [
        (place, estimate.low, estimate.high)
        for place, estimate in zip(x, estimates, strict=True)
        if estimate.low is not None
    ]
    if ends:
        places, low, high = zip(*ends, strict=True)
        axes.fill_between(places, low, high, color=GREY, linewidth=0)


def bars(
    axes: Axes,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Estimate | None]],
    looks: Mapping[str, Look] | Sequence[Look],
    absent: Collection[tuple[str, int]] = (),
) -> dict[tuple[str, int], float]:
    """Bars with intervals and runs, beside each other in a group, one of every series.

    Args:
        axes: the panel.
        groups: names below the groups.
        series: by name (the text in the legend; "" has none), a mean for every group, or None
            where there is no value.
        looks: by name of a series; or, of a single series, one for every group.
        absent: series and number of the group where there was never to be a bar.

    Returns:
        Where each bar stands, by series and number of the group.
    """
    width = bar_width(len(series))
    where = {}
    for i, (name, estimates) in enumerate(series.items()):
        for j, estimate in enumerate(estimates):
            style = looks[name] if isinstance(looks, Mapping) else looks[j]
            x = where[name, j] = j + (i - (len(series) - 1) / 2) * width
            if (name, j) in absent:
                continue
            if estimate is None:
                axes.text(
                    x,
                    0.01,
                    "no value",
                    rotation=90,
                    ha="center",
                    va="bottom",
                    fontsize=6.5,
                    transform=axes.get_xaxis_transform(),
                )
                continue
            axes.bar(
                x,
                estimate.mean,
                width=0.85 * width,
                color=style.colour,
                alpha=0.75,
                hatch=style.hatch,
                edgecolor=BLACK,
                linewidth=0.8,
                label=name or "_nolegend_",
            )
            runs = list(estimate.runs.values())
            # Spread evenly, so that the dots of a bar do not hide each other or the interval.
            spread = np.linspace(-0.36, -0.08, len(runs)) if len(runs) > 1 else np.zeros(len(runs))
            axes.plot(
                x + width * spread,
                runs,
                "o",
                markersize=2.6,
                color=BLACK,
                alpha=0.35,
                markeredgewidth=0,
            )
            _intervals(axes, [x + 0.08 * width], [estimate], BLACK)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.tick_params(axis="x", length=0)
    turned = len(groups) > MANY_GROUPS
    room = 99 if turned else max(5, int(inches(axes) / len(groups) / 0.062))
    # A number stays with what it is a number of; a line break in a name stays.
    names = [
        "\n".join(
            wrapped([re.sub(r" (?==|\d)|(?<==) ", FIRM, part)], room, " ")
            for part in name.split("\n")
        )
        for name in groups
    ]
    axes.set_xticks(range(len(groups)), names, fontsize=7.5, rotation=90 if turned else 0)
    return where


def bar_width(series: int) -> float:
    """Width of the place of one bar, in units of the places of groups, of so many series."""
    return _GROUP / series


def cloud(axes: Axes, pairs: Sequence[tuple[Estimate, Estimate]], style: Look, label: str) -> None:
    """One metric against another: every run faint, the means of every point strong.

    Args:
        axes: the panel.
        pairs: of every point, the metric to the right and the metric upward.
        style: colour and marker.
        label: text in the legend.
    """
    if not pairs:
        return
    dots = [(a.runs[run], b.runs[run]) for a, b in pairs for run in a.runs if run in b.runs]
    axes.plot(
        *np.array(dots).reshape(-1, 2).T,
        style.marker,
        markersize=3,
        color=style.colour,
        alpha=0.3,
        markeredgewidth=0,
    )
    axes.plot(
        [a.mean for a, _ in pairs],
        [b.mean for _, b in pairs],
        style.marker,
        markersize=6,
        color=style.colour,
        markeredgecolor=BLACK,
        markeredgewidth=0.6,
        label=label,
    )


def steps(axes: Axes, estimates: Sequence[Estimate], style: Look, label: str) -> None:
    """A mean at every step of training, from the first, with its interval as a band."""
    if not estimates:
        return
    step = np.arange(1, len(estimates) + 1)
    axes.plot(
        step,
        [estimate.mean for estimate in estimates],
        color=style.colour,
        linestyle=style.line,
        linewidth=0.9,
    )
    # For the legend: the line of this panel, and the marker that other panels have.
    axes.plot([], [], color=style.colour, linestyle=style.line, marker=style.marker, label=label)
    ends = [(estimate.low, estimate.high) for estimate in estimates if estimate.low is not None]
    if len(ends) == len(estimates):
        low, high = zip(*ends, strict=True)
        axes.fill_between(step, low, high, color=style.colour, alpha=0.25, linewidth=0)


def pictures(
    axes: Axes, rows: Sequence[tuple[str, Sequence[Float[np.ndarray, "side side"]]]]
) -> None:
    """Rows of grey pictures, all of one size, each row below its text.

    Args:
        axes: the panel.
        rows: of each, the text and the pictures, with pixels from -1, black, to 1, white.
    """
    side = len(rows[0][1][0])
    # In pixels of the pictures: what is left between them, and above a row for its text.
    gap, head = max(1, side // 8), max(3, side // 2)
    columns = max(len(images) for _, images in rows)
    height = head + side
    canvas = np.ones((height * len(rows), columns * (side + gap) - gap))
    for i, (text, images) in enumerate(rows):
        top = i * height + head
        for j, image in enumerate(images):
            canvas[top : top + side, j * (side + gap) : j * (side + gap) + side] = image
        axes.text(0, top - gap, text, fontsize=8, va="bottom")
    axes.imshow(canvas, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def level(axes: Axes, y: float, label: str) -> None:
    """A published value that holds along the whole panel, as a line."""
    axes.axhline(y, color=BLACK, linewidth=0.9, linestyle=(0, (6, 3)), label=label)


def diamond(
    axes: Axes,
    x: float,
    y: float,
    half_width: float | None = None,
    label: str = "published",
    shift: float = 0.0,
) -> None:
    """A published value as a hollow diamond, to the right of a mean that stands at `x`.

    Args:
        axes: the panel.
        x: place of the mean that it is to be compared with.
        y: the published value.
        half_width: of its interval, if that is published.
        label: text in the legend.
        shift: points by which that mean stands to the right of `x`.
    """
    mark = axes.errorbar(
        x,
        y,
        yerr=half_width,
        fmt="D",
        markersize=4.5,
        markerfacecolor="white",
        markeredgecolor=BLACK,
        color=BLACK,
        linewidth=1,
        label=label,
        zorder=4,
    )
    _move(axes, mark.get_children(), shift + _DIAMOND)


def chance(axes: Axes, x: Sequence[float], classes: Sequence[int], *, joined: bool) -> None:
    """A dotted line at the accuracy of guessing, across the panel where it is one.

    Args:
        axes: the panel.
        x: places of what is drawn.
        classes: number of classes there.
        joined: whether different accuracies of guessing are joined along x; otherwise each is a
            stroke at its place.
    """
    style: dict[str, Any] = {
        "color": BLACK,
        "linewidth": 0.9,
        "linestyle": ":",
        "label": "chance",
    }
    if len(set(classes)) == 1:
        axes.axhline(1 / classes[0], **style)
    elif joined:
        by_place = dict(sorted(zip(x, classes, strict=True)))
        axes.plot(list(by_place), [1 / number for number in by_place.values()], **style)
    else:
        for place, number in zip(x, classes, strict=True):
            axes.plot([place - 0.48, place + 0.48], [1 / number] * 2, **style)


def expectations(axes: Axes, x: Sequence[float], values: Sequence[float]) -> None:
    """A short stroke at each exactly known expectation.

    Args:
        axes: the panel.
        x: places of what is drawn.
        values: the expectation there.
    """
    if x:
        axes.plot(
            x,
            values,
            "_",
            color=BLACK,
            markersize=15,
            markeredgewidth=1.5,
            label="exact expectation (nothing reaches the class logits)",
        )


def numbers_axis(axes: Axes, values: Iterable[float], label: str) -> None:
    """An x axis with a tick at every one of `values`, logarithmic where they span much."""
    axes.set_xlabel(label)
    ticks = sorted(set(values))
    if not ticks:
        return
    spread_axis(axes, ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    at = axes.xaxis.get_transform().transform(np.array(ticks, float))
    places = (at - at[0]) / (at[-1] - at[0] or 1.0) * 1.1 * inches(axes)
    texts, end = [], -np.inf
    for tick, place in zip(ticks, places, strict=True):
        half = 0.032 * len(f"{tick:g}")
        free = place - half > end + 0.06
        end = place + half if free else end
        texts.append(f"{tick:g}" if free else "")
    axes.set_xticks(ticks, texts, fontsize=8)


def spread_axis(axes: Axes, values: Iterable[float], which: str = "x") -> None:
    """Makes an axis logarithmic if `values` span a factor of 8, and linear around 0 if 0 is one."""
    values = list(values)
    sizes = sorted({abs(value) for value in values} - {0})
    if len(sizes) < 2 or sizes[-1] < 8 * sizes[0]:
        return
    setter, axis = (axes.set_xscale, axes.xaxis) if which == "x" else (axes.set_yscale, axes.yaxis)
    if min(values) <= 0:
        setter("symlog", linthresh=max(sizes[0], 1e-8 * sizes[-1]))
        return
    setter("log")
    axis.set_minor_formatter(NullFormatter())
    if sizes[-1] < 100 * sizes[0]:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")


def wrapped(parts: Iterable[str], room: int, firm: str = FIRM) -> str:
    """Parts with commas between them, in lines of so many characters.

    Lines break where there is no `firm` space: by default between the parts alone.
    """
    text = ", ".join(part.replace(" ", firm) for part in parts)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(FIRM, " ")


def inches(axes: Axes) -> float:
    """About how wide a panel will be."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure.get_figwidth() * axes.get_position().width


def _intervals(
    axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], colour: str
) -> list[Artist]:
    drawn: list[Artist] = []
    for place, estimate in zip(x, estimates, strict=True):
        if estimate.low is None or estimate.high is None:
            continue
        ends = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
        drawn += axes.errorbar(
            place,
            estimate.mean,
            yerr=np.maximum(ends, 0),
            fmt="none",
            color=colour,
            capsize=3,
            linewidth=1.3,
        ).get_children()
    return drawn


def _move(axes: Axes, artists: Iterable[Artist], points: float) -> None:
    """Moves what is drawn so many points to the right; the limits are those of the data."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    for artist in artists:
        artist.set_transform(
            axes.transData + ScaledTranslation(points / 72, 0, figure.dpi_scale_trans)
        )
