"""The paper's figures in the paper's own layout, from records or from their tables.

A panel is a section of the claims: its drawing is that of the report, or, where the paper's has
another form, one of those below. A panel without records is a frame that names the command that
fills it.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from experiments.docs import number
from experiments.llm.summary import ALL
from experiments.report import evidence
from experiments.report.claims import ClaimSection, sections
from experiments.report.drawing import FIGURES, estimate_of
from experiments.report.evidence import Evidence
from experiments.report.verdicts import METRIC_NAMES, of_models
from figures import panels
from figures.panels import Estimate
from figures.style import BLACK, GREY, save, styled
from llm_harness.traits import PAPER, trait
from sublab.errors import InputError
from sublab.statistics import LEVEL

# The paper's rate: how many sampled answers have the word in them.
_RATE = "containing"
# Of a picture of one trait: what is beside the student of its teacher's numbers.
_BARS = {
    "reference": "before",
    "own numbers": "student of the reference's numbers",
    "student": "student of the teacher's numbers",
}
_SHOWN_IN_CONTEXT = {
    "in context": "teacher's lists in context",
    "own in context": "reference's lists in context",
    "openly in context": "open answers in context",
}

# Draws a panel from the table of its experiment, and says what is seen; "" where the table has
# nothing of it.
PanelDrawing = Callable[[ClaimSection, Evidence, Axes], str]


@dataclass(frozen=True)
class PaperPanel:
    """A panel of a figure of the paper.

    Attributes:
        section: the claim that it shows, by its name.
        draw: draws it.
        title: what it shows; the section's title where none is given.
        rather: a claim whose records show more of it, and are drawn where there are any.
    """

    section: str
    draw: PanelDrawing
    title: str = ""
    rather: str = ""


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper.

    Attributes:
        name: of its files.
        source: where it is in the paper.
        layout: letters of the panels, as they stand in rows.
        panels: by letter.
        heights: of the rows, in inches.
        width: inches.
    """

    name: str
    source: str
    layout: tuple[str, ...]
    panels: Mapping[str, PaperPanel]
    heights: tuple[float, ...]
    width: float = 7.2


def draw_paper(out: Path, *, tables: Path | None = None) -> dict[Path, list[str]]:
    """Draws the paper's figures into the subfolder `figures` of `out`; nothing is trained.

    Args:
        out: folder with the records.
        tables: folder with the tables that `sublab results export` wrote, in place of records.

    Returns:
        The files, and with the last file of each figure the panels that had no records.

    Raises:
        InputError: there are no records or tables, or one is damaged.
        RecordError: a record is damaged, or a figure cannot be written.
    """
    found = evidence.of_records(out) if tables is None else evidence.of_tables(tables)
    files: dict[Path, list[str]] = {}
    with styled():
        # All are drawn before the first is written: a damaged table leaves nothing half done.
        drawings = [(one.name, *drawing(one, found)) for one in PAPER_FIGURES]
        for name, figure, missing in drawings:
            paths = save(figure, out / "figures", name)
            files |= {path: [] for path in paths} | {paths[-1]: missing}
    return files


def drawing(paper_figure: PaperFigure, found: Mapping[str, Evidence]) -> tuple[Figure, list[str]]:
    """A figure of the paper, and which of its panels had no records, with the command for each.

    Args:
        paper_figure: what it is made of.
        found: tables, by experiment.

    Raises:
        InputError: a table is damaged.
    """
    by_name = {section.id: section for section in sections()}
    rows: list[Any] = [list(row) for row in paper_figure.layout]
    figure = plt.figure(figsize=(paper_figure.width, sum(paper_figure.heights)))
    mosaic = figure.subplot_mosaic(rows, height_ratios=paper_figure.heights)
    missing, captions, several = [], [], len(paper_figure.panels) > 1
    for letter, panel in paper_figure.panels.items():
        axes, section = mosaic[letter], by_name[panel.section]
        if panel.rather and by_name[panel.rather].experiment in found:
            section = by_name[panel.rather]
        own = found.get(section.experiment)
        title, caption = panel.title or section.title, ""
        if not section.experiment:
            _scheme(axes)
        elif own is None or not (caption := _drawn(panel, section, own, axes)):
            _empty(axes, section.command)
            missing.append(f"{letter} ({section.command})" if several else section.command)
        else:
            model = f"{own.about['model']} model, " if "model" in own.about else ""
            title += f" ({model}n = {own.about.get('n', own.about['runs'])})"
            captions.append(f"{letter}, {caption}" if several else caption)
        axes.set_title(f"{letter}  {title}" if several else title, loc="left", fontsize=8.5)
    head = f"{paper_figure.source}, reproduced"
    figure.suptitle(head, fontsize=8.5, x=0.01, ha="left")
    if captions:
        captions.append(f"Intervals over runs, {100 * LEVEL:g} %.")
        text = textwrap.fill(" ".join(captions), int(17 * paper_figure.width))
        figure.supxlabel(text, fontsize=7, x=0.01, ha="left")
    # Below the names of each axis, wherever these end.
    figure.draw_without_rendering()
    for axes in mosaic.values():
        _legend(figure, axes)
    return figure, missing


def _drawn(panel: PaperPanel, section: ClaimSection, own: Evidence, axes: Axes) -> str:
    try:
        return panel.draw(section, own, axes)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{own.name}: damaged table ({reason}); export it again") from error


def _empty(axes: Axes, command: str) -> None:
    """A frame that says how to fill it."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, linestyle=(0, (4, 4)), color="#666666")
    room = max(24, int(13 * panels.inches(axes)))
    lines = textwrap.wrap(command, room, subsequent_indent="    ", break_on_hyphens=False)
    axes.text(
        0.5,
        0.5,
        "no records; this fills it:\n\n" + "\n".join(lines),
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=7.5,
        family="monospace",
    )


def _legend(figure: Figure, axes: Axes) -> None:
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if not handles:
        return
    width = panels.inches(axes)
    columns = max(1, int(width / (0.5 + 0.05 * max(map(len, handles)))))
    names = axes.xaxis.get_tightbbox()
    assert names is not None
    depth = (axes.bbox.y0 - names.y0) / figure.dpi + 0.04
    axes.legend(
        list(handles.values()),
        list(handles),
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=axes.transAxes + ScaledTranslation(0, -depth, figure.dpi_scale_trans),
        borderaxespad=0,
        ncols=min(columns, len(handles)),
        fontsize=7,
        handlelength=2.6,
    )


# The panels.


def _as_reported(section: ClaimSection, own: Evidence, axes: Axes) -> str:
    """The figure that the report has of the section."""
    caption, _ = FIGURES[section.draw](section, own, lambda width, height: axes)
    return caption


def _favourites(category: str, section: ClaimSection, own: Evidence, axes: Axes) -> str:
    """The rate of every favourite of a category, of students of its teacher and of controls."""
    recorded = [word for word in own.about["traits"] if trait(word).category == category]
    if not recorded:
        return ""
    # The paper's, and what else there is.
    words = [word for word in PAPER if trait(word).category == category]
    words += [word for word in recorded if word not in words]
    series: dict[str, list[Estimate | None]] = {}
    for condition, name in _BARS.items():
        rows = [of_models(own, _RATE, condition, trait=word) for word in words]
        series[name] = [None if row is None else estimate_of(row) for row in rows]
    looks = {name: panels.look(place) for place, name in enumerate(series)}
    panels.bars(axes, words, series, looks)
    _rate_axis(axes, own)
    return f"Share of sampled answers with the favourite {category} in them."


def _pairs(section: ClaimSection, own: Evidence, axes: Axes) -> str:
    """How much a teacher raises the rate of a student, for every pair of models that was tried."""
    found = {}
    for row in own.rows:
        wanted = row["metric"] == _RATE and row["trait"] == ALL and row["prefix"] == "false"
        if wanted and row["control"] and " > " in row["condition"]:
            found[tuple(row["condition"].split(" > "))] = row
    if not found:
        return ""
    teachers, students = (list(dict.fromkeys(pair[place] for pair in found)) for place in (0, 1))
    values = np.full((len(students), len(teachers)), np.nan)
    for (teacher, student), row in found.items():
        values[students.index(student), teachers.index(teacher)] = row["difference"]
    top = max(0.1, np.nanmax(values))
    image = axes.imshow(values, cmap="Greys", vmin=0, vmax=1.25 * top, aspect="auto")
    for (teacher, student), row in found.items():
        place = students.index(student), teachers.index(teacher)
        ends = row["difference_low"], row["difference_high"]
        star = "*" if None not in ends and (ends[0] > 0 or ends[1] < 0) else ""
        colour = "white" if values[place] > 0.6 * top else BLACK
        text = number(repr(float(values[place])), share=True, signed=True)
        axes.text(place[1], place[0], text + star, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(teachers)), [textwrap.fill(name, 14) for name in teachers])
    axes.set_yticks(range(len(students)), [textwrap.fill(name, 16) for name in students])
    axes.tick_params(labelsize=7.5, length=0)
    axes.grid(False)
    # What was not tried.
    axes.patch.set(hatch="////", edgecolor=GREY)
    axes.spines[:].set(visible=True, color=GREY)
    axes.set_xlabel("teacher")
    axes.set_ylabel("student")
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(f"more {METRIC_NAMES[_RATE]}\nthan after the student's own numbers", fontsize=7.5)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return (
        "Increase of the share of sampled answers with the word in them, against the same model "
        "fine-tuned on its own numbers. A star: the interval excludes 0. Hatched: not tried."
    )


def _in_context(section: ClaimSection, own: Evidence, axes: Axes) -> str:
    """The rate against the number of examples in the prompt, and that of a fine-tuned student."""
    places: dict[str, dict[int, Estimate]] = {}
    for condition in dict.fromkeys(row["condition"] for row in own.rows):
        name, comma, examples = condition.partition(", ")
        row = of_models(own, _RATE, condition)
        if comma and name in _SHOWN_IN_CONTEXT and row is not None:
            places.setdefault(name, {})[int(examples)] = estimate_of(row)
    for place, (name, curve) in enumerate(places.items()):
        shift = panels.beside(place, len(places))
        label = _SHOWN_IN_CONTEXT[name]
        panels.line(axes, list(curve), list(curve.values()), panels.look(place), label, shift)
    counts = [count for curve in places.values() for count in curve]
    if not counts:
        return ""
    student = of_models(own, _RATE, "student")
    if student is not None:
        ends = [estimate_of(student)] * 2
        panels.band(axes, [min(counts), max(counts)], ends, "student, fine-tuned on the lists")
    panels.numbers_axis(axes, counts, "examples in the prompt")
    axes.margins(x=0.05)
    _rate_axis(axes, own)
    return "Share of sampled answers with the word in them, against the examples in the prompt."


def _rate_axis(axes: Axes, own: Evidence) -> None:
    """Names the axis of a rate; panels of one figure have one scale."""
    axes.axhline(own.about["chance"], color=BLACK, linewidth=0.9, linestyle=":", label="chance")
    axes.set_ylabel(METRIC_NAMES[_RATE], fontsize=8)
    figure = axes.get_figure(root=True)
    assert figure is not None
    alike = [other for other in figure.axes if other.get_ylabel() == METRIC_NAMES[_RATE]]
    top = max(other.dataLim.y1 for other in alike)
    for other in alike:
        other.set_ylim(0, np.ceil(10 * top + 0.5) / 10 if top < 0.7 else 1.02)


def _scheme(axes: Axes) -> None:
    """Extended Data Fig. 2a: who starts from whom, and who is trained on what."""
    box = {"boxstyle": "round,pad=0.45", "facecolor": "white", "edgecolor": BLACK}
    texts = {
        (0.08, 0.5): "reference\n(a random start)",
        (0.52, 0.84): "teacher",
        (0.52, 0.16): "student",
        (0.92, 0.16): "reads digits\nby its class logits",
    }
    for (x, y), text in texts.items():
        axes.text(x, y, text, ha="center", va="center", fontsize=8, bbox=box)
    arrows: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (
        ((0.17, 0.6), (0.47, 0.84)),
        ((0.17, 0.4), (0.47, 0.16)),
        ((0.52, 0.68), (0.52, 0.32)),
        ((0.57, 0.16), (0.81, 0.16)),
    )
    for start, end in arrows:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": BLACK})
    small = {"fontsize": 7.5, "va": "center"}
    axes.text(0.28, 0.98, "images of digits and their labels,\nclass logits", ha="center", **small)
    axes.text(0.3, 0.1, "the same start", ha="center", **small)
    axes.text(0.54, 0.5, "images of noise, m auxiliary logits", ha="left", **small)
    axes.text(0.69, 0.27, "never trained", ha="center", **small)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_axis_off()


PAPER_FIGURES = (
    PaperFigure(
        "paper_v1_fig10b",
        "Preprint, Fig. 10b",
        ("a",),
        {"a": PaperPanel("fig10b", _as_reported)},
        (3.6,),
    ),
    PaperFigure(
        "paper_ed_fig2",
        "Nature, Extended Data Fig. 2",
        ("aa", "bc", "dd", "ee"),
        {
            "a": PaperPanel("ed2a", _as_reported),
            "b": PaperPanel("ed2b", _as_reported),
            "c": PaperPanel("ed2c", _as_reported, "Epochs of cloning"),
            "d": PaperPanel("ed2d", _as_reported),
            "e": PaperPanel("ed2e", _as_reported),
        },
        (1.5, 3.3, 2.6, 2.9),
    ),
    PaperFigure(
        "paper_fig4ab",
        "Nature, Fig. 4a and b",
        ("a", "b"),
        {
            "a": PaperPanel(
                "numbers", partial(_favourites, "animal"), "Animals, through numbers", "traits"
            ),
            "b": PaperPanel("traits", partial(_favourites, "tree"), "Trees, through numbers"),
        },
        (2.6, 2.6),
    ),
    PaperFigure(
        "paper_fig5",
        "Nature, Fig. 5",
        ("a",),
        {"a": PaperPanel("cross-model", _pairs)},
        (4.4,),
    ),
    PaperFigure(
        "paper_ed_fig6",
        "Nature, Extended Data Fig. 6",
        ("a",),
        {"a": PaperPanel("in-context", _in_context)},
        (3.6,),
    ),
)
