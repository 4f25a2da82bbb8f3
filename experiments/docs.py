"""The documents: pages whose numbers and tables are written from results and from the types.

A page has two kinds of marks, which no reader of the page sees. What stands between them is written
anew, from the tables that `sublab results export` makes:

    <!--= ed2b label=student model.aux=50 -->.917 [.908, .927]<!---->      a value
    <!-- data: ed2b -->  ...  <!-- end -->                                 a table of results
    <!-- generated: presets -->  ...  <!-- end -->                         a table from the types

`gpu/h200` is a measurement of `benchmarks/gpu.py`, named by its part and precision: `gpu/h200
seconds part=ed2b`; the accuracies in it have a `label`. `bench/peers` is one of
`benchmarks/peers.py`, named alike, and so are the others of `bench/`.

A value is named by the experiment, the metric (`accuracy` unless it is said), and the place on the
axes, `KEY=VALUE` with quotation marks where there are blanks; `index=0` is the place in a metric
that is a list. `forecast less accuracy` is how far the mean of one metric is above that of another.
Behind a colon stands how it is written, `mean [low, high]` unless it is said, where
these words stand for numbers:

    n mean low high             of one row
    difference                  mean paired difference to the baseline; difference_low, _high
    paired                      difference [difference_low, difference_high]
    sign                        "above", "below" or "not told from": the difference and 0
    means                       the means of all rows that fit, one after the other
    least most                  the lowest and the highest mean of all rows that fit
    published half_width        what others found there; without a place, along a whole axis
    verdict agreeing            whether ours is theirs: of one row, of all with a name
    runs seed size title date revision processor jax minutes    of the whole experiment

`<!-- generated: measured ed2b -->` is the section of a preset on the page of results: its piece of
prose, `docs/measured/ed2b.md`, in which `{{ ... }}` is a value without marks, its figure and its
table; or one line, where the preset has not been measured.
"""

import csv
import io
import json
import math
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Any

from sublab import records, settings
from sublab.errors import InputError

_VALUE = re.compile(r"<!--=(?P<what>.*?)-->.*?<!---->", re.DOTALL)
_PIECE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_BLOCK = re.compile(
    r"<!-- (?P<kind>data|generated): (?P<name>[^>]*?) -->\n.*?<!-- end -->", re.DOTALL
)
_DEFAULT = "mean [low, high]"
_SHORT = {"paired": "difference [difference_low, difference_high]"}
_SIGNED = ("difference", "difference_low", "difference_high")
_OF_ROW = ("mean", "low", "high")
# What a table of models says of two of them (`llm_cross_model`).
_OF_MODELS = ("leaning", "kl_words", "kl_numbers")
# What stands where there is no number.
NONE = "\N{EN DASH}"
_NOT_YET = "not measured on this engine yet"
_WORD = re.compile(r"[a-z_]+")
# Words of a form that are themselves.
_PLAIN = ("to", "nats")
# From here on a number is written without an exponent, its thousands apart.
_LARGE = 1_000
# Measurements of an accelerator, and of a CPU, lie in folders of their own.
_BENCHMARKS = ("gpu/", "bench/")
# Metrics that a table of a sweep leaves out; they are in the CSV.
_LEFT_OUT = ("accuracy", "start_accuracy", "clone_loss")


@dataclass(frozen=True)
class ResultTable:
    """A table of results, as `sublab results export` wrote it.

    Attributes:
        name: name of the experiment, such as that of a preset.
        about: what it is of.
        rows: texts by column.
    """

    name: str
    about: dict[str, Any]
    rows: list[dict[str, str]]


def read_table(folder: Path, name: str) -> ResultTable | None:
    """The exported table of an experiment; None where there is none.

    Raises:
        InputError: one of its two files is missing or is no such file.
    """
    if name.startswith(_BENCHMARKS):
        return _read_benchmark(folder / f"{name}.json", name)
    paths = [folder / f"{name}.{ending}" for ending in ("csv", "json")]
    if not any(path.exists() for path in paths):
        return None
    try:
        rows = list(csv.DictReader(io.StringIO(paths[0].read_text("utf-8"))))
        return ResultTable(name, json.loads(paths[1].read_text("utf-8")), rows)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / name}: cannot be read ({error}); export it again") from None


def _read_benchmark(path: Path, name: str) -> ResultTable | None:
    """What a program in `benchmarks/` wrote, a row a number; None where there is none.

    Raises:
        InputError: the file is no such file.
    """
    from toymlp.train import PRECISIONS

    if not path.exists():
        return None
    try:
        parts = json.loads(path.read_text("utf-8"))
        made = parts.pop("made_by")
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({error}); measure it again") from None
    rows: list[dict[str, str]] = []

    def walk(figures: Mapping[str, Any], place: dict[str, str], path: tuple[str, ...]) -> None:
        place = place | {"precision": figures.get("precision", place["precision"])}
        for key, value in figures.items():
            if isinstance(value, dict) and "runs" in value:
                numbers = {word: str(value[word]) for word in ("n", *_OF_ROW)}
                rows.append(place | numbers | {"metric": path[-1], "label": key})
            elif isinstance(value, dict) and key in PRECISIONS:
                walk(value, place | {"precision": key}, path)
            elif isinstance(value, dict):
                walk(value, place, (*path, key))
            elif isinstance(value, float | int) and not isinstance(value, bool):
                rows.append(place | {"metric": "/".join((*path, key)), "mean": str(value)})

    for part, figures in parts.items():
        if isinstance(figures, dict):
            walk(figures, {"part": part, "precision": ""}, ())
    about = {
        "title": made["device"]["kind"],
        "processor": made["device"]["processor"],
        "revision": made["git"],
        "date": made["finished"].split("T")[0],
        "versions": made["versions"],
        "size": parts["size"],
        "shares": ["accuracy"],
    }
    return ResultTable(name, about, rows)


def write(page: Path, data: Path) -> bool:
    """Writes a page in its place; returns whether that changed it.

    Args:
        page: Markdown page.
        data: folder with the exported tables; pieces of prose lie in `measured` beside it.

    Raises:
        InputError: the page cannot be read or written, or a mark of it is wrong.
    """
    try:
        before = page.read_text("utf-8")
        after = filled(before, data)
        if after != before:
            page.write_text(after, "utf-8")
    except OSError as error:
        raise InputError(f"{page}: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{page}: {error}") from None
    return after != before


def filled(text: str, data: Path) -> str:
    """A page with everything between its marks as it should be.

    Args:
        text: the page.
        data: as for `write`.

    Raises:
        InputError: a mark names what there is not.
    """

    def of_value(mark: re.Match[str]) -> str:
        return f"<!--={mark['what']}-->{value(mark['what'], data) or NONE}<!---->"

    def of_block(mark: re.Match[str]) -> str:
        kind, name = mark["kind"], mark["name"]
        content = _data_block(name, data) if kind == "data" else _generated(name, data)
        return f"<!-- {kind}: {name} -->\n{content}\n<!-- end -->"

    return _BLOCK.sub(of_block, _VALUE.sub(of_value, text))


# Values.


def value(what: str, data: Path) -> str | None:
    """The text of a value; None where its experiment has no table.

    Args:
        what: name of the value, as the module says.
        data: folder with the exported tables.

    Raises:
        InputError: the experiment's table has no such row.
    """
    place, _, form = what.partition(" : ")
    name, *words = shlex.split(place)
    table = read_table(data, name)
    if table is None:
        return None
    at = dict(word.split("=", 1) for word in words if "=" in word)
    metrics = [word for word in words if "=" not in word] or ["accuracy"]
    form = form.strip() or _DEFAULT
    rows = _NamedRows(table, metrics, at, what.strip())
    return _WORD.sub(lambda word: rows.word(word[0]), _SHORT.get(form, form))


class _NamedRows:
    """The rows that a value is of, and the words in which it is said."""

    def __init__(
        self, table: ResultTable, metrics: Sequence[str], at: Mapping[str, str], what: str
    ):
        self.table, self.what = table, what
        self.at = dict(at)
        self.metric, self.signed = metrics[0], metrics[1:2] == ["less"]
        self.rows = self._at(self.metric)
        if self.signed:
            pairs = zip(self.rows, self._at(metrics[2]), strict=True)
            self.rows = [
                {"mean": repr(float(one["mean"]) - float(other["mean"]))} for one, other in pairs
            ]

    def _at(self, metric: str) -> list[dict[str, str]]:
        return [
            row
            for row in self.table.rows
            if row.get("metric") == metric and all(_same(row.get(k), v) for k, v in self.at.items())
        ]

    def word(self, word: str) -> str:
        """What a word stands for."""
        if word in _PLAIN:
            return word
        if word not in _WORDS:
            raise InputError(f"{self.what!r}: {word!r} stands for nothing")
        return _WORDS[word](self, word)

    def of_row(self, word: str) -> str:
        """A number of the one row."""
        return self._number(self._row()[word], signed=word in _SIGNED)

    def count(self, word: str) -> str:
        """The number of runs of the one row."""
        return self._row()[word]

    def sign(self, word: str) -> str:
        """On which side of 0 the interval of the difference lies."""
        del word
        low, high = (float(self._row()[key] or "nan") for key in _SIGNED[1:])
        return "above" if low > 0 else "below" if high < 0 else "not told from"

    def means(self, word: str) -> str:
        """The means of all rows."""
        del word
        return ", ".join(self._number(row["mean"], self.signed) for row in self._rows())

    def extreme(self, word: str) -> str:
        """The lowest or the highest mean."""
        choose = min if word == "least" else max
        return self._number(choose((row["mean"] for row in self._rows()), key=float), self.signed)

    def published(self, word: str) -> str:
        """What others found."""
        key = "mean" if word == "published" else word
        return ", ".join(self._number(str(row[key])) for row in self._published())

    def verdict(self, word: str) -> str:
        """Whether ours is theirs."""
        del word
        return ", ".join(map(_verdict, self._published()))

    def about(self, word: str) -> str:
        """What the whole experiment is of."""
        about = self.table.about
        if word == "agreeing":
            return _agreeing(about.get("published", []))
        if word == "minutes":
            return f"{about['wall_seconds'] / 60:.0f}"
        if word == "jax":
            return about["versions"][word]
        return str(about[word])[: 7 if word == "revision" else None]

    def _row(self) -> Mapping[str, str]:
        if len(self.rows) != 1:
            raise InputError(f"{self.what!r}: {len(self.rows)} rows are so, and not one")
        return self.rows[0]

    def _rows(self) -> list[dict[str, str]]:
        if not self.rows:
            raise InputError(f"{self.what!r}: no row is so")
        return self.rows

    def _published(self) -> list[dict[str, Any]]:
        def fits(row: Mapping[str, Any]) -> bool:
            if not self.at:
                return row["level"]
            there = row["at"] or {}
            return all(k in there and _same(_cell(there[k]), v) for k, v in self.at.items())

        rows = [
            row for row in self.table.about.get("published", []) if row["metric"] == self.metric
        ]
        fitting = [row for row in rows if fits(row)]
        if not fitting:
            raise InputError(f"{self.what!r}: no published value is so")
        return fitting

    def _number(self, text: str, signed: bool = False) -> str:
        return number(text, self.metric in self.table.about.get("shares", ()), signed)


_WORDS: dict[str, Callable[[_NamedRows, str], str]] = {
    **dict.fromkeys((*_OF_ROW, *_SIGNED, *_OF_MODELS), _NamedRows.of_row),
    "n": _NamedRows.count,
    "sign": _NamedRows.sign,
    "means": _NamedRows.means,
    **dict.fromkeys(("least", "most"), _NamedRows.extreme),
    **dict.fromkeys(("published", "half_width"), _NamedRows.published),
    "verdict": _NamedRows.verdict,
    **dict.fromkeys(
        [
            "runs",
            "instances",
            "seed",
            "size",
            "title",
            "date",
            "revision",
            "processor",
            "device",
            "jax",
            "minutes",
            "agreeing",
        ],
        _NamedRows.about,
    ),
}


def number(text: str, share: bool, signed: bool = False, digits: int = 3) -> str:
    """A number of a table as prose has it: without a nought before the point.

    Args:
        text: number, or "" for none.
        share: whether it is a share, or a difference of shares, written with `digits` decimals;
            of others `digits` figures are written, from 1,000 on without an exponent.
        signed: whether a plus is written.
        digits: how many.
    """
    if text == "":
        return NONE
    sign = "+" if signed else ""
    rounded = float(f"{float(text):.{digits}g}")
    if _LARGE <= abs(rounded) < math.inf:
        return format(int(rounded), f"{sign},")
    if share and math.isfinite(rounded):
        # Of the six figures that tables have, so that .9065 is one text wherever it comes from.
        decimal = Decimal(f"{float(text):.6g}")
        shown = format(decimal.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP), f"{sign}f")
    else:
        shown = format(float(text), f"{sign}.{digits}g")
    return re.sub(r"^([+-]?)0\.", r"\1.", shown)


def _same(ours: str | None, theirs: str) -> bool:
    """Whether two texts are one value: 3e-4 and 0.0003 are."""
    if ours is None:
        return False
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return ours == theirs


def _cell(value: Any) -> str:
    """A coordinate as the table has it."""
    value = records.cell(value)
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["agrees"] is not None:
        return "agrees" if row["agrees"] else "DIFFERS"
    if not row["equal"]:
        return "other setting"
    return "n too small" if row["half_width"] is not None else "no interval published"


def _agreeing(published: list[dict[str, Any]]) -> str:
    """How many of the named published values agree, in words."""
    named = [row for row in published if row["name"] is not None]
    given = [row["agrees"] for row in named if row["agrees"] is not None]
    if not given:
        return "none of them has a verdict"
    if all(given):
        return f"all {len(given)} agree"
    return f"{sum(given)} of {len(given)} agree"


# Tables of results.


def _data_block(what: str, data: Path) -> str:
    """The table that a block of data holds.

    Raises:
        InputError: there is no such view of an experiment.
    """
    name, _, view = what.partition(" ")
    table = read_table(data, name)
    if view and view not in _VIEWS:
        raise InputError(f"data: {what}: views are {', '.join(_VIEWS)}")
    if table is None:
        return f"`{name}`: {_NOT_YET}."
    return _VIEWS[view or "points"](table)


def _points(table: ResultTable) -> str:
    """A row a point: accuracy, its paired difference, and the means of other metrics."""
    about, rows = table.about, table.rows
    axes = about["axes"]
    single = [row for row in rows if not row["index"]]
    others = [
        metric
        for metric in dict.fromkeys(row["metric"] for row in single)
        if metric not in _LEFT_OUT
    ]
    by_point: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
    for row in single:
        by_point.setdefault(tuple(row[axis] for axis in axes), {})[row["metric"]] = row
    compared = any(row["difference"] for row in single if row["metric"] == "accuracy")
    heads = [*(about["axis_titles"].get(axis, axis) for axis in axes), "n", "accuracy"]
    heads += ["difference"] if compared else []
    heads += [metric.replace("_", " ") for metric in others]
    lines = [_line(heads), _rule(heads)]
    for place, metrics in by_point.items():
        accuracy = metrics["accuracy"]
        cells = [*place, accuracy["n"], _interval(accuracy, ("mean", "low", "high"), False)]
        if compared:
            shown = _interval(accuracy, _SIGNED, True) if accuracy["difference"] else ""
            cells.append(shown)
        for metric in others:
            mean = metrics[metric]["mean"] if metric in metrics else ""
            cells.append(number(mean, metric in about["shares"]))
        lines.append(_line(cells))
    return "\n".join(lines)


def _interval(row: Mapping[str, str], keys: tuple[str, ...], signed: bool) -> str:
    mean, low, high = (number(row[key], True, signed) for key in keys)
    return mean if row[keys[1]] == "" else f"{mean} [{low}, {high}]"


def _published_table(table: ResultTable) -> str:
    """A row a published value that has a name, beside ours."""
    named = [row for row in table.about["published"] if row["name"] is not None]
    sizes = {row["n"] for row in named}
    theirs = f"paper (n = {sizes.pop()})" if len(sizes) == 1 else "published"
    heads = ["condition", f"ours (n = {table.about['runs']})", theirs, "verdict"]
    lines = [_line(heads), _rule(heads)]
    for row in named:
        ours = row["ours"] or dict.fromkeys(_OF_ROW)
        texts = {key: "" if ours[key] is None else repr(ours[key]) for key in _OF_ROW}
        mean, low, high = (number(texts[key], True, digits=4) for key in _OF_ROW)
        paper = number(str(row["mean"]), True, digits=4)
        if row["half_width"] is not None:
            paper += f" ± {number(str(row['half_width']), True, digits=4)}"
        shown = f"{mean} [{low}, {high}]" if texts["low"] else mean
        lines.append(_line([row["name"], shown, paper, _verdict(row)]))
    return "\n".join(lines)


def _claims(table: ResultTable) -> str:
    lines = [
        "| claim | statement | instances | violations | bound | worst |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        if row["kind"] == "claim":
            side = ">" if row["above"] == "true" else "≤"
            worst = f"{float(row['worst']):.3g}" if row["worst"] else NONE
            statement = _in_a_cell(row["statement"])
            cells = [f"`{row['name']}`", statement, _many(row["instances"])]
            cells += [_many(row["violations"] or "0"), f"{side} {float(row['bound']):g}", worst]
            lines.append(_line(cells))
    return "\n".join(lines)


def _orders(table: ResultTable) -> str:
    lines = [
        "| order of the remainder | instances | all fits, one slope | median | 1 % to 99 % | "
        "within 0.05 | R² |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        if row["kind"] == "order" and row["worst"]:
            numbers = {key: float(row[key]) for key in ("worst", "median", "low", "high")}
            statement = row["statement"].removeprefix("remainder's order, ")
            cells = [statement, _many(row["instances"]), f"{numbers['worst']:.4f}"]
            cells += [f"{numbers['median']:.4f}", f"{numbers['low']:.3f} to {numbers['high']:.3f}"]
            cells += [f"{100 * float(row['share_near']):.1f} %", f"{float(row['r2']):.5f}"]
            lines.append(_line(cells))
    return "\n".join(lines)


def _controls(table: ResultTable) -> str:
    lines = [
        "| must fail | statement | instances | holds in | 95 % interval | condition missed |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        if row["kind"] == "control" and row["median"]:
            median, low, high = (float(row[key]) for key in ("median", "low", "high"))
            statement = _in_a_cell(row["statement"])
            cells = [f"`{row['name']}`", statement, _many(row["instances"]), f"{median:.3f}"]
            cells += [f"{low:.3f} to {high:.3f}", row["named"] or "-"]
            lines.append(_line(cells))
    return "\n".join(lines)


def _ranks(table: ResultTable) -> str:
    lines = ["| rank | instances | aligned in | 95 % interval |", "|---|---|---|---|"]
    for row in table.rows:
        if row["kind"] == "rank" and row["median"]:
            median, low, high = (float(row[key]) for key in ("median", "low", "high"))
            cells = [row["name"], _many(row["instances"]), f"{median:.3f}"]
            lines.append(_line([*cells, f"{low:.3f} to {high:.3f}"]))
    return "\n".join(lines)


def _conditions(table: ResultTable) -> str:
    """A row a condition of a language-model experiment, asked without a prefix, traits together."""
    heads = ["condition", "P(word)", "in sampled answers", "P(any word)", "P(word) among them"]
    heads += ["passed the filter", "lists", "log-odds against own numbers"]
    lines = [_line(heads), _rule(heads)]
    rows = [row for row in table.rows if row["trait"] == "all" and row["prefix"] == "false"]
    for condition in dict.fromkeys(row["condition"] for row in rows):
        its = [row for row in rows if row["condition"] == condition]
        means = {row["metric"]: row for row in its if not row["control"]}
        cells = [condition]
        for metric in ("p_word", "containing", "p_any", "among", "pass_rate", "examples"):
            row = means.get(metric)
            if row is not None and metric in ("p_word", "containing"):
                cells.append(_interval(row, ("mean", "low", "high"), False))
            else:
                cells.append(number(row["mean"] if row else "", metric != "examples"))
        against = [
            row for row in its if row["metric"] == "log_odds" and "own numbers" in row["control"]
        ]
        cells.append(_interval(against[0], _SIGNED, True) if against else NONE)
        lines.append(_line(cells))
    return "\n".join(lines)


def _in_a_cell(text: str) -> str:
    """Text for a Markdown table, which takes a bar for its own and <a> for a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def _many(text: str) -> str:
    return f"{int(text):,}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(heads: list[str]) -> str:
    return "|---" * len(heads) + "|"


_VIEWS: dict[str, Callable[[ResultTable], str]] = {
    "points": _points,
    "published": _published_table,
    "claims": _claims,
    "orders": _orders,
    "controls": _controls,
    "ranks": _ranks,
    "conditions": _conditions,
}


# What is written from the types.


def _generated(name: str, data: Path) -> str:
    first, _, preset = name.partition(" ")
    if first == "measured":
        return _measured(data, preset)
    if name not in _GENERATED:
        raise InputError(f"generated: {name}: there are {', '.join(_GENERATED)}, measured PRESET")
    return _GENERATED[name]()


def _settings() -> str:
    """A row a dotted key; of trainings the student's, the others in a sentence of the page."""
    from toymlp.settings import Setting

    rows = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    keys = settings.known(Setting)
    for name, key in keys.items():
        # Of a setting that may be left out as a whole, the keys below say everything.
        whole = key.default is None and any(other.startswith(f"{name}.") for other in keys)
        if whole or name.startswith(("teacher.", "start.clone.")):
            continue
        meaning = key.help.replace("||", "‖")
        if key.kinds:
            union, kinds = list(key.kinds.items())[-1]
            if len(kinds) < len(_kinds_of(keys[union])):
                meaning += f" (where `{union}` is {', '.join(kinds)})"
        mark = " ●" if key.metadata.get("mark") == "static" or key.is_kind else ""
        rows.append(
            f"| `{name}`{mark} | {_toml(key.default)} | {settings.allowed(key)} | {meaning} |"
        )
    return "\n".join(rows)


def _defaults() -> str:
    """A row a key of a training whose default is not that of the student."""
    from toymlp.settings import Setting

    keys = settings.known(Setting)
    rows = ["| setting | `student` | `teacher` | `start.clone` |", "|---|---|---|---|"]
    for name, key in keys.items():
        if not name.startswith("student."):
            continue
        rest = name.removeprefix("student.")
        others = [keys.get(f"{owner}.{rest}") for owner in ("teacher", "start.clone")]
        shown = [_toml(other.default) if other else NONE for other in others]
        if any(text != _toml(key.default) for text in shown):
            rows.append(_line([f"`{rest}`", _toml(key.default), *shown]))
    return "\n".join(rows)


def _kinds_of(key: settings.Key) -> list[str]:
    return settings.allowed(key).removeprefix("one of ").split(", ")


def _measurements() -> str:
    from toymlp.measures import ALWAYS, MEASURES

    rows = ["| measurement | column | what it is |", "|---|---|---|"]
    named = [("always", ALWAYS)]
    named += [(f"`{name}`", dict(about.columns)) for name, about in MEASURES.items()]
    for name, columns in named:
        for column, about in columns.items():
            rows.append(_line([name, f"`{column}`", about.help.replace("||", "‖")]))
    return "\n".join(rows)


@cache
def _presets() -> str:
    from experiments.sweep import file

    rows = [
        "| preset | what it varies | points | runs at smoke, cpu, paper size |",
        "|---|---|---|---|",
    ]
    for name in file.presets():
        content = tomllib.loads(file.preset_text(name))
        runs = [content["size"][size]["runs"] for size in file.SIZES]
        points = len(file.read_preset(name, "cpu").points)
        about = " ".join(_comment(file.preset_text(name)))
        rows.append(_line([f"`{name}`", about, str(points), ", ".join(map(str, runs))]))
    return "\n".join(rows)


def _comment(text: str) -> list[str]:
    """The comment at the top of a file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return lines


def _panels() -> str:
    from figures import spec

    assert spec.__doc__ is not None
    return f"```text\n{spec.__doc__[spec.__doc__.index('Every panel has') :].rstrip()}\n```"


def _measured(data: Path, name: str) -> str:
    """The section of a preset; one line where it has not been measured."""
    from experiments.sweep import file

    if name not in file.presets():
        raise InputError(f"generated: measured {name}: there is no such preset")
    table = read_table(data, name)
    if table is None:
        return f"`{name}`: {_NOT_YET}."
    return _section(table, data.parent / "measured" / f"{name}.md", data)


def _section(table: ResultTable, piece: Path, data: Path) -> str:
    about, name = table.about, table.name
    parts = [f"### {about['title']}", _of_what(table)]
    if piece.exists():
        text = piece.read_text("utf-8").strip()
        parts.append(_PIECE.sub(lambda mark: value(mark[1].strip(), data) or NONE, text))
    if any(row["name"] is not None for row in about["published"]):
        parts.append(_published_table(table))
    stems = (f"sweep_{name}", name)
    for stem in stems:
        if (data.parent / "figures" / f"{stem}.png").exists():
            parts.append(f"![{about['title']}](figures/{stem}.png)")
    parts += [
        "<details><summary>All points</summary>",
        _points(table),
        f"Every metric: [data/{name}.csv](data/{name}.csv).",
        "</details>",
    ]
    return "\n\n".join(parts)


def _of_what(table: ResultTable) -> str:
    """The line below a heading: preset, runs, size, what all points share, where and when."""
    about = table.about
    runs = about.get("n", about["runs"])
    parts = [f"`{table.name}`, n = {runs}, {about['size']} size, seed {about['seed']}"]
    if about["dataset_title"]:
        parts[0] += f", {about['dataset_title']}"
    if about["shared"]:
        parts.append(f"All points: {'; '.join(about['shared'])}")
    if about["baseline"]:
        to = ", ".join(f"{key} = {_toml(value)}" for key, value in about["baseline"].items())
        parts.append(f"Differences are paired, to {to}")
    revision, _, changed = str(about["revision"] or "unknown").partition("+")
    parts.append(
        f"{about['processor']}, JAX {about['versions']['jax']}, {about['date']}, "
        f"revision {revision[:7]}{' with changes' if changed else ''}"
    )
    return f"{'. '.join(parts)}."


def _toml(value: object) -> str:
    if value is None:
        return "left out"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


_GENERATED: dict[str, Callable[[], str]] = {
    "settings": _settings,
    "defaults": _defaults,
    "measurements": _measurements,
    "presets": _presets,
    "panels": _panels,
}
