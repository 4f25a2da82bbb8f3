"""The page: what each claim's row, section and table says, and the file that says it."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import polars as pl

from experiments.docs import NONE, number
from experiments.llm.summary import ALL, MARGIN
from experiments.report.claims import ClaimSection, Statement
from experiments.report.drawing import SectionFigure, drawn
from experiments.report.evidence import Evidence
from experiments.report.verdicts import (
    EXCEEDED,
    METRIC_NAMES,
    UNTESTABLE,
    WORDS,
    Finding,
    MeanWithEnds,
    Word,
    interval_text,
    judged,
    of_models,
    place_of,
)
from sublab.console import duration
from sublab.errors import InputError
from sublab.statistics import ENOUGH, LEVEL, VERDICT_LEVEL

_DIFFERENCES = ("difference", "difference_low", "difference_high")
_ENDS = ("mean", "low", "high")
# What columns of tables are called; of others the name is it.
_TITLES = {
    "label": "condition",
    "low": "95 % from",
    "high": "to",
    "difference_low": "95 % from",
    "difference_high": "to",
    "control": "against",
    "r2": "R²",
}
# Columns of the theorem's table that are shares or counts and not measured in units of their own.
_VERIFY_COLUMNS = (
    *("kind", "name", "statement", "instances", "violations"),
    *("bound", "worst", "median", "low", "high", "holds"),
)
_TESTED = ("p_word", "containing")
_FIRM = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class ReportRow:
    """A row of the first table.

    Attributes:
        statement: what the paper says.
        finding: what came of it.
        paper: what the paper found, in words.
        paper_share: the same where it is a share, with the ends of its interval.
    """

    statement: Statement
    finding: Finding
    paper: str
    paper_share: MeanWithEnds | None


@dataclass(frozen=True)
class TableColumn:
    """A column: its name in the CSV, its heading, and whether it has numbers."""

    name: str
    title: str
    numeric: bool


@dataclass(frozen=True)
class TableCell:
    """A cell: what is read, and what the CSV and the sorting have."""

    shown: str
    value: str


@dataclass(frozen=True)
class DataTable:
    """A table of data, which can be sorted and downloaded."""

    caption: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[TableCell, ...], ...]


@dataclass(frozen=True)
class SectionPart:
    """A section of the page.

    Attributes:
        section: the claim.
        rows: its statements.
        cost: how long the records took, in words; "" where there are none.
        seconds: the same in seconds; None where it is not known.
        control: what the control gave, in words.
        figure: its figure; None without records.
        table: its data; None without records.
        provenance: terms and what is said of each.
    """

    section: ClaimSection
    rows: tuple[ReportRow, ...]
    cost: str = ""
    seconds: float | None = None
    control: str = ""
    figure: SectionFigure | None = None
    table: DataTable | None = None
    provenance: tuple[tuple[str, str], ...] = ()


def parts_of(
    sections: Sequence[ClaimSection], evidence: Mapping[str, Evidence]
) -> list[SectionPart]:
    """The sections of the page.

    Args:
        sections: the claims.
        evidence: what is known of each experiment.

    Raises:
        InputError: a table lacks what a figure or a verdict needs.
    """
    return [_part(section, _evidence_for(section, evidence)) for section in sections]


def _evidence_for(section: ClaimSection, evidence: Mapping[str, Evidence]) -> Evidence | None:
    found = evidence.get(section.experiment)
    if found is not None and len(found.about.get("traits", ())) < section.traits:
        return None
    return found


def _cost(section: ClaimSection, seconds: float | None) -> str:
    if seconds is None:
        return "time not recorded"
    # Stages of a language model that were there already are in nobody's time.
    last = " when it was last started" if section.experiment.startswith("llm_") else ""
    return f"took {duration(seconds)}{last}"


def _part(section: ClaimSection, evidence: Evidence | None) -> SectionPart:
    if section.untestable:
        statement = Statement(section.title, "", section.source, section.paper)
        finding = Finding(UNTESTABLE, section.untestable)
        return SectionPart(section, (ReportRow(statement, finding, section.paper, None),))
    try:
        findings = judged(section, evidence)
        rows = tuple(map(_row, section.rows, findings))
        if evidence is None:
            return SectionPart(section, rows)
        seconds = evidence.about["wall_seconds"]
        return SectionPart(
            section,
            rows,
            cost=_cost(section, seconds),
            seconds=seconds,
            control=_control(section, evidence),
            figure=drawn(section, evidence),
            table=_table(section, evidence),
            provenance=_provenance(evidence),
        )
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        name = evidence.name if evidence is not None else section.experiment
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{name}: damaged table ({reason}); export it again") from error


def _row(statement: Statement, finding: Finding) -> ReportRow:
    value = statement.value
    if value is None:
        return ReportRow(statement, finding, statement.paper, None)
    text = number(repr(value.mean), True, digits=4)
    half = value.half_width
    if half is None:
        return ReportRow(
            statement,
            finding,
            f"{number(repr(value.mean), True)}, read off",
            MeanWithEnds(value.mean, None, None),
        )
    text += f" ± {number(repr(half), True, digits=4)}"
    ends = MeanWithEnds(value.mean, value.mean - half, value.mean + half)
    return ReportRow(statement, finding, f"{text} (n = {value.n})", ends)


def _control(section: ClaimSection, evidence: Evidence) -> str:
    """What a section's control gave, in words; "" where the table does not have it."""
    control = section.control
    if control is None:
        return ""
    if control.name:
        row = next((r for r in evidence.rows if r["name"] == control.name), None)
        if row is None or row["median"] is None:
            return ""
        share = interval_text(row["median"], row["low"], row["high"])
        return f"Holds in {share} of {row['instances']:,} instances"
    if "condition" in control.at:
        row = of_models(evidence, control.metric, control.at["condition"])
    else:
        row = evidence.row(control.metric, place_of(section, evidence, control.at))
    if row is None:
        return ""
    named = METRIC_NAMES.get(control.metric, "Accuracy")
    text = interval_text(*(row[key] for key in _ENDS))
    return f"{named} {text}, n = {row['n']}"


def _provenance(evidence: Evidence) -> tuple[tuple[str, str], ...]:
    """Where a table's records come from: terms and texts."""
    about = evidence.about
    seconds, digest = about["wall_seconds"], about["data_sha256"]
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items() if v)
    runs = {"instances": "random instances", "n": "runs", "runs": "runs"}
    counted = next(key for key in runs if about.get(key) is not None)
    said = [
        ("Experiment", f"{evidence.name}, {about['size']} size" if "size" in about else None),
        (runs[counted].capitalize(), _many(about[counted])),
        ("Seed", f"{about['seed']}"),
        ("Data", about.get("dataset_title")),
        ("SHA-256 of the data", digest or None),
        ("Device", f"{about['device']}, {about['processor']}"),
        ("Wall time", None if seconds is None else f"{seconds:,.0f} s"),
        ("Finished", about["date"]),
        ("Revision", about["revision"] or "not recorded"),
        ("Record", about["record"]),
        ("Versions", versions),
    ]
    return tuple((term, text) for term, text in said if text)


def _many(count: int | str) -> str:
    return f"{count:,}" if isinstance(count, int) else count


# Tables of data.


def _table(section: ClaimSection, evidence: Evidence) -> DataTable:
    """The rows that a section rests on, each cell as the table has it and as it reads."""
    if section.experiment == "verify":
        columns, places = _VERIFY_COLUMNS, range(len(evidence.rows))
        caption = "Every claim, order, control and rank of the verification"
    elif section.experiment.startswith("llm_"):
        columns = ("trait",) if section.traits else ()
        columns += ("condition", "metric", "n", *_ENDS, "control", *_DIFFERENCES)
        places = [i for i, row in enumerate(evidence.rows) if _of_models(row, section)]
        caption = "Means over runs, asked without a prefix, and paired differences"
    else:
        metrics = dict.fromkeys(
            metric
            for row in section.rows
            for metric in (row.metric, *([row.other_metric] if row.other else []))
        ) | dict.fromkeys(section.choose.values())
        shown = [(i, r) for i, r in enumerate(evidence.rows) if r["metric"] in metrics]
        places = [i for i, row in shown if not row["index"]]
        columns = (*evidence.about["axes"], *(("metric",) if len(metrics) > 1 else ()))
        columns += ("n", *_ENDS)
        if any(evidence.rows[i]["difference"] is not None for i in places):
            columns += _DIFFERENCES
        caption = "Means over runs" + (
            " and paired differences to the baseline" if "difference" in columns else ""
        )
    rows = tuple(tuple(_cell(evidence, place, column) for column in columns) for place in places)
    titles = tuple(_column(evidence, name) for name in columns)
    # The number of rows says that there are more than the frame shows.
    count = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    return DataTable(f"{section.title}. {caption}, {evidence.name}; {count}", titles, rows)


def _of_models(row: Mapping[str, Any], section: ClaimSection) -> bool:
    wanted = EXCEEDED if row["control"] else _TESTED
    several = row["trait"] != ALL if section.traits else row["trait"] == ALL
    return several and row["prefix"] == "false" and row["metric"] in wanted


def _column(evidence: Evidence, name: str) -> TableColumn:
    axes = evidence.about.get("axis_titles", {})
    title = axes.get(name) or _TITLES.get(name, name)
    numbers = [row[name] for row in evidence.texts if row[name] != ""]
    return TableColumn(name, title, bool(numbers) and all(map(_is_number, numbers)))


def _cell(evidence: Evidence, place: int, column: str) -> TableCell:
    value, text = evidence.rows[place][column], evidence.texts[place][column]
    if text == "":
        return TableCell("", text)
    if column == "metric":
        titles = evidence.about.get("metric_titles", METRIC_NAMES)
        return TableCell(titles.get(text, text), text)
    if isinstance(value, int):
        return TableCell(f"{value:,}", text)
    if isinstance(value, float):
        metric = evidence.rows[place].get("metric", "")
        share = evidence.is_share(metric)
        return TableCell(number(text, share, column in _DIFFERENCES), text)
    return TableCell(text, text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# The whole.


def table_of(parts: Sequence[SectionPart]) -> pl.DataFrame:
    """The first table of the page, a row a statement."""
    rows = [
        {
            "section": part.section.id,
            "statement": row.statement.text,
            "source": row.statement.source,
            "n": row.finding.n,
            "ours": row.finding.ours,
            **_ends(row.finding.share),
            "paper": row.paper,
            "verdict": row.finding.word,
            "why": row.finding.why,
            "command": part.section.command,
            "seconds": part.seconds,
        }
        for part in parts
        for row in part.rows
    ]
    floats = dict.fromkeys((*_ENDS, "seconds"), pl.Float64)
    return pl.DataFrame(rows, schema_overrides=floats | {"n": pl.Int64}, infer_schema_length=None)


def _ends(share: MeanWithEnds | None) -> dict[str, float | None]:
    if share is None:
        return dict.fromkeys(_ENDS)
    return {"mean": share.mean, "low": share.low, "high": share.high}


def firm(text: str) -> str:
    """A text as it is set: what belongs together on one line, a minus where one is meant.

    Example:
        >>> firm("99 %")
        '99\\xa0%'
    """
    text = text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")
    text = re.sub(r"(?<![\w.])-(?=[\d.])", "\N{MINUS SIGN}", text)
    text = re.sub(r"\[[^\]]*\]", lambda ends: ends[0].replace(" ", _FIRM), text)
    return re.sub(r" (?=%|=)|(?<=±) |(?<=<) |(?<= =) |(?<=\bp) ", _FIRM, text)


def rendered(parts: Sequence[SectionPart]) -> str:
    """The page as one HTML document.

    Raises:
        InputError: jinja2 is not there.
    """
    try:
        from jinja2 import DictLoader, Environment, StrictUndefined
    except ImportError:
        raise InputError(
            "sublab report needs jinja2: pip install 'subliminal-lab[report]'"
        ) from None
    folder = resources.files("experiments.report")
    style, script, text = (
        (folder / name).read_text("utf-8") for name in ("page.css", "page.js", "page.html.jinja")
    )
    environment = Environment(
        loader=DictLoader({"page": text, "style": style, "script": script}),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["firm"] = firm
    words: Counter[Word] = Counter(row.finding.word for part in parts for row in part.rows)
    groups: dict[str, list[SectionPart]] = {}
    for part in parts:
        groups.setdefault(part.section.group, []).append(part)
    dates = [text for part in parts for term, text in part.provenance if term == "Finished"]
    return environment.get_template("page").render(
        groups=groups,
        words={word: words[word] for word in WORDS if words[word]},
        first=min(dates, default=""),
        last=max(dates, default=""),
        enough=ENOUGH,
        level=f"{100 * LEVEL:g}",
        verdict_level=f"{100 * VERDICT_LEVEL:g}",
        margin=f"{MARGIN:.2f}",
        factor=f"{math.exp(MARGIN):g}",
        dash=NONE,
    )
