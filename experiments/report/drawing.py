"""The figures of the page: drawn from exported tables with the project's parts, as inline SVG.

`figures/` draws from records, single runs among them; a table has means and intervals alone, so
that a page of tables and one of their records show the same. Colours become variables of the page's
style, so that a figure is as readable on a dark page; text stays text.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.llm.summary import ALL
from experiments.report.claims import ClaimSection, is_of
from experiments.report.evidence import Evidence
from experiments.report.verdicts import METRIC_NAMES, interval_text, of_models, place_of
from figures import llm, panels
from figures.panels import Estimate
from figures.style import BLACK, BLUE, GREY, ORANGE, VERMILION, styled
from sublab.statistics import LEVEL, proportion_interval

ACCURACY, TEACHER = "accuracy", "teacher_accuracy"
_WIDTH = 7.4
# Of a language model: what is drawn of each condition.
_ASKED = {
    "p_word": llm.Mark("P(word), exact", BLUE, "o", ""),
    "containing": llm.Mark("sampled answers with the word", VERMILION, "s", ""),
}
# Colours that are variables of the page; black is that of its text.
_VARIABLES = {
    "#000000": "currentColor",
    "#ffffff": "var(--card)",
    "#0072b2": "var(--blue)",
    "#e69f00": "var(--orange)",
    "#56b4e9": "var(--sky)",
    "#009e73": "var(--green)",
    "#d55e00": "var(--vermilion)",
    "#cccccc": "var(--grey)",
    "#dddddd": "var(--rule)",
    "#666666": "var(--muted)",
}


@dataclass(frozen=True)
class SectionFigure:
    """A figure of the page.

    Attributes:
        svg: the drawing, an `<svg>` element without a name of its own.
        width: its natural width, in CSS pixels.
        caption: what is seen.
        alt: the numbers in it, in words.
    """

    svg: str
    width: int
    caption: str
    alt: str


def drawn(section: ClaimSection, evidence: Evidence) -> SectionFigure:
    """The figure of a section from its table.

    Args:
        section: the claim; its `draw` names the kind of figure.
        evidence: the table of its experiment.
    """
    with styled():
        figure = plt.figure()

        def alone(width: float, height: float) -> Axes:
            figure.set_size_inches(width, height)
            return figure.add_subplot()

        caption, numbers = FIGURES[section.draw](section, evidence, alone)
        _legend(figure, 2 if section.draw == "theorem" else 4)
        svg = inline(figure, section.id)
        width = round(figure.get_figwidth() * 96)
    over = "instances" if evidence.name == "verify" else "runs"
    caption += f" Whiskers are {100 * LEVEL:g} % intervals over {over}."
    return SectionFigure(svg, width, caption, f"{caption} {'; '.join(numbers)}.")


# Gives the axes to draw on, and is told how wide and high they would best be, in inches.
Canvas = Callable[[float, float], Axes]
# What is seen, and the numbers in it.
Drawn = tuple[str, list[str]]


def _conditions(section: ClaimSection, evidence: Evidence, canvas: Canvas) -> Drawn:
    """A bar for every published value that has a name, with that value beside it."""
    rows = [row for row in evidence.about["published"] if row["name"] and row["ours"]]
    axes = canvas(_WIDTH, 3.3)
    names = [row["name"] for row in rows]
    estimates = [estimate_of(row["ours"]) for row in rows]
    where = panels.bars(axes, names, {"": estimates}, [panels.look(0)] * len(rows))
    numbers = []
    for place, (row, estimate) in enumerate(zip(rows, estimates, strict=True)):
        text = f"{row['name']} {_text(estimate)}"
        if row["equal"]:
            label = "the paper"
            x = where["", place] + 0.08
            panels.diamond(axes, x, row["mean"], row["half_width"], label)
            text += f", paper {interval_text(row['mean'], None, None)}"
        numbers.append(text)
    _accuracy_axis(axes)
    return "Mean test accuracy in the six conditions, beside the paper's.", numbers


def _lines(section: ClaimSection, evidence: Evidence, canvas: Canvas) -> Drawn:
    """Accuracy against an axis, a line for every label."""
    axes = canvas(_WIDTH, 3.7)
    curves = _by_label(evidence, ACCURACY)
    numbers: list[str] = []
    teacher = _by_label(evidence, TEACHER)[next(iter(curves))]
    panels.band(
        axes, [float(row[section.x]) for row in teacher], list(map(estimate_of, teacher)), "teacher"
    )
    numbers.append(f"teacher {_text(estimate_of(teacher[0]))}")
    shifts = {}
    for place, (label, rows) in enumerate(curves.items()):
        x = [float(row[section.x]) for row in rows]
        shifts[label] = panels.beside(place, len(curves))
        estimates = list(map(estimate_of, rows))
        panels.line(axes, x, estimates, panels.look(place), label, shifts[label])
        said = (f"{at:g}: {_text(e)}" for at, e in zip(x, estimates, strict=True))
        numbers.append(f"{label}, at {', '.join(said)}")
    for row in section.rows:
        for entry in evidence.about["published"]:
            if row.value is None or not entry["equal"] or not is_of(row, entry):
                continue
            text = f"paper {interval_text(row.value.mean, None, None)}"
            if row.level:
                panels.level(axes, row.value.mean, "the paper")
                numbers.append(text)
            else:
                at, half = float(row.at[section.x]), row.value.half_width
                shift = shifts[row.at["label"]]
                panels.diamond(axes, at, row.value.mean, half, "the paper", shift)
                numbers.append(f"{text} at {at:g}")
    title = evidence.about["axis_titles"].get(section.x, section.x)
    places = (float(row[section.x]) for rows in curves.values() for row in rows)
    panels.numbers_axis(axes, places, title)
    axes.margins(x=0.05)
    _accuracy_axis(axes)
    return f"Mean test accuracy against {title.replace(':', '')}.", numbers


def _bars(section: ClaimSection, evidence: Evidence, canvas: Canvas) -> Drawn:
    """Accuracy of every label, in groups where an axis tells bars apart."""
    by_label = _by_label(evidence, ACCURACY)
    for label in section.choose:
        at = place_of(section, evidence, {"label": label})
        chosen = evidence.row(ACCURACY, at)
        if label in by_label and chosen is not None:
            by_label[label] = [chosen]
    groups = list(by_label)
    values = dict.fromkeys(
        row.get(section.series, "") for rows in by_label.values() for row in rows
    )
    series: dict[str, list[Estimate | None]] = {}
    absent, numbers = set(), []
    for value in values:
        name = section.series_names.get(value, value)
        series[name] = []
        for place, (label, rows) in enumerate(by_label.items()):
            row = next((one for one in rows if one.get(section.series, "") == value), None)
            series[name].append(None if row is None else estimate_of(row))
            if row is None:
                absent.add((name, place))
            else:
                numbers.append(f"{label}{f', {name}' if name else ''} {_text(estimate_of(row))}")
    looks = {name: panels.look(place) for place, name in enumerate(series)}
    axes = canvas(max(_WIDTH, 0.8 * len(groups)), 3.5)
    panels.bars(axes, groups, series, looks, absent)
    _accuracy_axis(axes)
    caption = "Mean test accuracy of every variation."
    for label, metric in section.choose.items():
        at = place_of(section, evidence, {"label": label})
        rate = ", ".join(
            f"{evidence.about['axis_titles'].get(axis, axis)} {value}"
            for axis, value in at.items()
            if axis != "label"
        )
        least = evidence.about["metric_titles"].get(metric, metric)
        caption += f" {label} at the least {least}: {rate}."
    return caption, numbers


def _theorem(section: ClaimSection, evidence: Evidence, canvas: Canvas) -> Drawn:
    """The share of instances in which a statement holds: the theorem, its controls, adapters."""
    shown: list[tuple[str, Any, llm.Mark]] = []
    of_theorem = llm.Mark("claimed of every instance", BLUE, "o", "")
    of_control = llm.Mark("a condition is missed", VERMILION, "s", "")
    of_rank = llm.Mark("LoRA adapters that share no start", ORANGE, "^", "")
    stated = {row.name for row in section.rows}
    for row in evidence.rows:
        name, n = row["name"], row["instances"]
        if row["kind"] == "claim" and name in stated and row["above"] == "true" and n:
            kept = n - row["violations"]
            shown.append((row["statement"], (kept / n, *proportion_interval(kept, n)), of_theorem))
        if row["kind"] in ("control", "rank") and row["median"] is not None:
            mark = of_control if row["kind"] == "control" else of_rank
            text = row["statement"]
            text += f", rank {name}" if row["kind"] == "rank" else ""
            shown.append((text, (row["median"], row["low"], row["high"]), mark))
    axes = canvas(_WIDTH + 0.6, 1.2 + 0.27 * len(shown))
    labelled = set()
    for place, (_, estimate, mark) in enumerate(shown):
        once = replace(mark, label="" if mark.label in labelled else mark.label)
        labelled.add(mark.label)
        llm.draw_estimates(axes, [place], [estimate], once, across=True)
    _rows_axis(axes, [text for text, *_ in shown])
    axes.axvline(0.5, color=BLACK, linewidth=0.9, linestyle=":", label="a coin")
    axes.set_xlabel("share of instances in which the statement holds")
    numbers = [f"{text}: {interval_text(*estimate)}" for text, estimate, _ in shown]
    return "Share of random instances in which each statement holds.", numbers


def _of_models(section: ClaimSection, evidence: Evidence, canvas: Canvas) -> Drawn:
    """P(word) and the sampled rate of every condition, asked without a prefix."""
    conditions = list(dict.fromkeys(row["condition"] for row in evidence.rows))
    pairs = [(name, ALL) for name in conditions]
    if section.traits:
        pairs = [(of, t) for t in evidence.about["traits"] for of in ("student", "own numbers")]
    axes = canvas(_WIDTH, 1.2 + 0.3 * len(pairs))
    numbers, names = [], []
    for place, (condition, trait) in enumerate(pairs):
        name = condition if trait == ALL else f"{trait}, {condition}"
        names.append(name)
        for offset, (metric, mark) in zip((-0.16, 0.16), _ASKED.items(), strict=True):
            row = of_models(evidence, metric, condition, trait=trait)
            if row is None:
                continue
            ends = [np.nan if row[key] is None else row[key] for key in ("mean", "low", "high")]
            once = replace(mark, label="" if place else mark.label)
            estimate = (ends[0], ends[1], ends[2])
            llm.draw_estimates(axes, [place + offset], [estimate], once, across=True)
            text = interval_text(row["mean"], row["low"], row["high"])
            numbers.append(f"{name}, {METRIC_NAMES[metric]} {text}")
    if chance := evidence.about.get("chance"):
        axes.axvline(chance, color=BLACK, linewidth=0.9, linestyle=":", label="chance")
        numbers.append(f"chance {interval_text(chance, None, None)}")
    _rows_axis(axes, names)
    axes.set_xlabel("rate")
    return "Rate of the word in every condition.", numbers


FIGURES: Mapping[str, Callable[[ClaimSection, Evidence, Canvas], Drawn]] = {
    "conditions": _conditions,
    "lines": _lines,
    "bars": _bars,
    "theorem": _theorem,
    "conditions of a language model": _of_models,
}


def _by_label(evidence: Evidence, metric: str) -> dict[str, list[Mapping[str, Any]]]:
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in evidence.where(metric, {}):
        if row["mean"] is not None:
            curves.setdefault(row["label"], []).append(row)
    return curves


def estimate_of(row: Mapping[str, Any]) -> Estimate:
    """A row's mean, without the runs, which a table does not have."""
    return Estimate(row["mean"], row["low"], row["high"], {})


def _text(estimate: Estimate) -> str:
    return interval_text(estimate.mean, estimate.low, estimate.high)


def _accuracy_axis(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("test accuracy")
    panels.chance(axes, [], [10], joined=False)


def _rows_axis(axes: Axes, names: Sequence[str]) -> None:
    """A line of the panel for each name, and shares to the right."""
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="y", color=GREY, linewidth=0.4)
    axes.tick_params(axis="y", length=0)


def _legend(figure: Figure, columns: int) -> None:
    (axes,) = figure.axes
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)


def inline(figure: Figure, name: str) -> str:
    """A figure as an `<svg>` element that may stand in a page, and closes it.

    Its names begin with `name`, so that those of two figures do not meet; nothing in it says when,
    by what program or where it was made; its style says nothing of the rest of the page.

    Args:
        figure: the drawing.
        name: name of the section that it stands in.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    plt.close(figure)
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].rstrip()
    for part in (r"<metadata>.*?</metadata>\s*", r"<style[^>]*>.*?</style>\s*", r"<!--.*?-->\s*"):
        svg = re.sub(part, "", svg, flags=re.DOTALL)
    svg = svg.replace("<defs>\n </defs>\n", "")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'\bxlink:href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = re.sub(r"#[0-9a-fA-F]{6}\b", lambda c: _VARIABLES.get(c[0].lower(), c[0]), svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 var(--sans)", svg)
    (box,) = re.findall(r'viewBox="[^"]+"', svg)
    head = f'<svg {box} role="img" aria-labelledby="{name}-alt">'
    return re.sub(r"<svg[^>]*>", head, svg, count=1)
