"""What is around the panels of a sweep's figure: title, legend, scales and their ticks."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from figures.style import BLACK, save
from figures.sweep_data import Sweep, heading

ACCURACY = "Test accuracy (class logits)"
# A space at which no line breaks.
FIRM = "\N{NO-BREAK SPACE}"
# Where labels in the legend begin that are no series of the sweep's own.
_LATER = ("teacher", "chance", "equal", "published")


def finish(figure: Figure, sweep: Sweep, folder: Path, accuracy: Sequence[Axes] = ()) -> list[Path]:
    """Gives a figure its title and its one legend, and saves it.

    Args:
        figure: with everything drawn.
        sweep: what it is of.
        folder: where to.
        accuracy: panels with accuracies upward, which get one scale from 0.
    """
    width = figure.get_figwidth()
    top = max((axes.dataLim.y1 for axes in accuracy), default=1.0)
    for axes in accuracy:
        axes.set_ylim(0, np.ceil(10 * top + 0.5) / 10 if 0 < top < 0.7 else 1.02)
        if axes is accuracy[0] or not axes.get_shared_y_axes().joined(axes, accuracy[0]):
            axes.set_ylabel(ACCURACY)
    for axes in figure.axes:
        # Lines across the panel (of chance, say) leave the limits of the data in x as they are.
        if not np.isfinite(axes.dataLim.intervalx).all():
            axes.text(
                0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center",
                fontsize=8,
            )  # fmt: skip
            axes.tick_params(labelbottom=False, labelleft=False)
    figure.suptitle(
        "\n".join(wrapped(parts, int(15 * width)) for parts in heading(sweep.config)),
        fontsize=9, x=0.01, ha="left",
    )  # fmt: skip
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    # First what is compared, then what it is compared with.
    found = dict(sorted(found.items(), key=lambda item: item[0].startswith(_LATER)))
    found["one run"] = Line2D(
        [], [], marker="o", linestyle="", color=BLACK, alpha=0.35, markersize=3.5, markeredgewidth=0
    )
    if sweep.config["runs"] > 1:
        found["95 % interval of the mean"] = Line2D(
            [], [], color=BLACK, marker="|", linestyle="", markersize=9, markeredgewidth=1.4
        )
    columns = max(1, int(width / (0.7 + 0.062 * max(map(len, found)))))
    # A long legend takes no height from the panels.
    long = max(0, -(-len(found) // columns) - 4)
    figure.set_figheight(figure.get_figheight() + 0.19 * long)
    figure.legend(
        list(found.values()), list(found), loc="outside lower center",
        ncols=min(columns, len(found)), handlelength=2.8,
    )  # fmt: skip
    return save(figure, folder, sweep.stem)


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
    """Makes an axis logarithmic if `values` span much, and linear around 0 if there is a 0."""
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
