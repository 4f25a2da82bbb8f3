"""The paper's claims: what `claims.toml` says of each, and the numbers that presets publish."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any

from experiments.sweep import file


@dataclass(frozen=True)
class PaperValue:
    """A mean that the paper gives.

    Attributes:
        mean: the mean.
        half_width: half width of its 95 % interval; None where none was published.
        n: runs that it is over; None where that was not published.
    """

    mean: float
    half_width: float | None
    n: int | None


@dataclass(frozen=True)
class Statement:
    """One statement that records can bear out or not: a row of the page's first table.

    Attributes:
        text: the statement.
        rule: name of the rule that judges it, one of `verdicts.RULES`.
        source: where the paper says it.
        paper: what the paper found, in words; "" where `value` has it.
        value: what the paper found, where it is a mean.
        name: of a published value, or of a claim of `sublab verify`.
        metric: what is compared.
        at: place in the table.
        other: place that it is compared with.
        other_metric: what is compared there.
        level: whether the published value holds along a whole axis.
        level_value: accuracy that a mean is compared with.
        margin: half width of the interval in which a difference counts as none.
        family: statements of one section and family are corrected together for their number.
        condition: of a language model, which model is compared.
        controls: conditions that it is compared with.
    """

    text: str
    rule: str
    source: str = ""
    paper: str = ""
    value: PaperValue | None = None
    name: str = ""
    metric: str = "accuracy"
    at: Mapping[str, Any] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)
    other_metric: str = "accuracy"
    level: bool = False
    level_value: float = 0.0
    margin: float = 0.0
    family: str = ""
    condition: str = "student"
    controls: tuple[str, ...] = ()


@dataclass(frozen=True)
class ControlText:
    """What a claim is compared with.

    Attributes:
        text: what it is.
        at: its place in the table.
        metric: what is said of it.
        name: of a control of `sublab verify`.
    """

    text: str
    at: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    name: str = ""


@dataclass(frozen=True)
class ClaimSection:
    """A claim of the paper, with the experiment that is to show it.

    Attributes:
        id: name of the section in links.
        group: what it is about.
        title: heading.
        claim: the claim, in a sentence.
        source: where the paper makes it.
        rows: statements that make it up.
        experiment: name of its exported table; "" where it cannot be tested here.
        command: what fills the table with runs enough for a verdict.
        untestable: why it cannot be tested here; "" where it can.
        paper: what the paper found, where there are no statements.
        control: what it is compared with.
        draw: kind of its figure, one of `drawing.FIGURES`.
        x: axis of the table that runs to the right.
        series: axis of the table that tells bars apart.
        series_names: texts for its values.
        choose: metric by which, of the points of a label, the one with the lowest mean is taken.
        traits: least number of traits that a table must have to be of this claim.
    """

    id: str
    group: str
    title: str
    claim: str
    source: str
    rows: tuple[Statement, ...] = ()
    experiment: str = ""
    command: str = ""
    untestable: str = ""
    paper: str = ""
    control: ControlText | None = None
    draw: str = ""
    x: str = ""
    series: str = ""
    series_names: Mapping[str, str] = field(default_factory=dict)
    choose: Mapping[str, str] = field(default_factory=dict)
    traits: int = 0


@cache
def sections() -> tuple[ClaimSection, ...]:
    """All claims, in the order of the page."""
    text = (resources.files("experiments.report") / "claims.toml").read_text("utf-8")
    return tuple(_section(entry) for entry in tomllib.loads(text)["section"])


def experiments() -> tuple[str, ...]:
    """Names of the exported tables that some claim rests on, each once."""
    return tuple(dict.fromkeys(one.experiment for one in sections() if one.experiment))


def _section(entry: Mapping[str, Any]) -> ClaimSection:
    known = {item.name for item in fields(ClaimSection)}
    control = entry.get("control")
    rows = tuple(_statement(row, entry) for row in entry.get("row", ()))
    plain = {key: value for key, value in entry.items() if key in known and key != "control"}
    return ClaimSection(
        **plain, rows=rows, control=ControlText(**control) if control is not None else None
    )


def _statement(row: Mapping[str, Any], entry: Mapping[str, Any]) -> Statement:
    row = {"source": entry["source"]} | dict(row)
    row["controls"] = tuple(row.get("controls", ()))
    statement = Statement(**row)
    if statement.rule != "published":
        return statement
    published = _published(entry["experiment"], statement)
    value = PaperValue(published["mean"], published.get("half_width"), published.get("n"))
    return Statement(**row | {"value": value, "metric": published.get("metric", "accuracy")})


def _published(preset: str, statement: Statement) -> dict[str, Any]:
    """The entry of a preset with the statement's published value.

    Raises:
        ValueError: it has none or several.
    """
    entries = tomllib.loads(file.preset_text(preset))["published"]
    fitting = [entry for entry in entries if is_of(statement, entry)]
    if len(fitting) != 1:
        raise ValueError(f"preset {preset}: {len(fitting)} published values are {statement.text!r}")
    return fitting[0]


def is_of(statement: Statement, published: Mapping[str, Any]) -> bool:
    """Whether a published value, of a preset or of an exported table, is that of a statement."""
    if statement.name:
        return published.get("name") == statement.name
    if published.get("name") is not None or published.get("metric", "accuracy") != statement.metric:
        return False
    at = published.get("at") or {}
    return not at if statement.level else at == statement.at
