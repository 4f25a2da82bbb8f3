"""What the figures of the language models share: titles, intervals, chance, the axis of steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from scipy import stats

from figures.style import BLACK
from sublab.records import Record, read

# Of the trait's category: a rate among so many words is 1 over it by chance.
_WORDS = 16


def by_condition(summary: Record, experiment: str) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The runs behind a summary, and its means of the rate among the words, by condition.

    Raises:
        RecordError: the record of the runs is missing or damaged.
    """
    runs = read(summary.folder.parents[1] / experiment / summary.config["rows"]).table
    means = summary.table.filter(pl.col("control").is_null(), metric="among", prefix=False)
    return runs.filter(prefix=False), {row["condition"]: row for row in means.to_dicts()}


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Mean and ends of the 95 % t-interval of one value a run; without ends (nan) for one run."""
    values = np.asarray(values, float)
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, np.nan, np.nan
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5)
    return mean, mean - half, mean + half


def about(config: dict[str, Any]) -> str:
    """The number of runs, the seed, and what of the setting is known."""
    runs = config["runs"]
    said = [f"n = {runs} run{'' if runs == 1 else 's'}", f"seed {config['seed']}"]
    if setting := config.get("setting"):
        said.append(f"teacher by {setting['teacher_by'].replace('prompt', 'system prompt')}")
        said.append(f"{setting['lists']['count']:,} lists")
        said.append(f"{setting['student']['steps']:,} steps of a student")
    return ", ".join(said)


def chance_of(config: dict[str, Any]) -> float:
    """The rate among the words of a model that knows none of them better than the others."""
    return config.get("chance") or 1 / _WORDS


def chance_line(axes: Axes, config: dict[str, Any]) -> None:
    """A dotted line at `chance_of`."""
    chance = chance_of(config)
    axes.axhline(
        chance, color=BLACK, linewidth=0.9, linestyle=":", label=f"chance, 1/{round(1 / chance)}"
    )


def steps_axis(axes: Axes, steps: Sequence[int]) -> None:
    """A logarithmic x axis with a tick at every number of steps, as far as there is room."""
    places = sorted(step for step in steps if step > 0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, thinned(np.log2(places), [f"{step:,}" for step in places]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(places[0] / 1.5, places[-1] * 1.5)


def thinned(places: Sequence[float] | np.ndarray, labels: Sequence[str]) -> list[str]:
    """`labels`, empty where one would stand on the one before it."""
    room = (places[-1] - places[0]) / 11
    kept, last = [], -np.inf
    for place, label in zip(places, labels, strict=True):
        near = place - last < room
        kept.append("" if near else label)
        last = last if near else place
    return kept
