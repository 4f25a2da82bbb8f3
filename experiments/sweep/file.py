"""Sweep files: TOML with a base, a grid, a list, measurements, and sizes.

    title = "Number of auxiliary logits"     # of the figure
    figure = "ed2b"                          # a preset's figure; by default one that suits any
    measure = ["agreement"]                  # beside accuracy and loss
    runs = 10

    [base]                                   # settings of all points
    loss = "kl"
    [grid]                                   # every combination ...
    aux = [2, 3, 10]
    [[list]]                                 # ... for every entry
    label = "cross-model"
    start = "independent"
    [list.grid]                              # and of this entry's own
    student_learning_rate = [1e-3, 3e-3]
    [baseline]                               # what differences are relative to
    label = "student"
    [size.smoke]                             # what --size smoke changes
    runs = 2
    [size.smoke.base]
    images = 256

An entry's settings go before the base's, a grid's before both; a size's tables before the file's.
A setting of the base that has no effect at a point (one of cloning, where nothing is cloned) is
left out there; one that has no effect at any point is refused.
"""

import re
import tomllib
from dataclasses import dataclass, field
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Literal

from sublab.errors import InputError
from sublab.records import cell
from toymlp.accounts import followable
from toymlp.measures import FOLLOWED, MEASURES
from toymlp.rules import ContradictionError, check, idle, matters
from toymlp.settings import DEFAULTS, Setting, checked_value, from_dict

SizeName = Literal["smoke", "cpu", "paper"]
_TOP = {
    "title": str, "figure": str, "measure": list, "runs": int, "base": dict, "grid": dict,
    "list": list, "baseline": dict, "size": dict,
}  # fmt: skip
_OF_A_SIZE = {"runs": int, "base": dict, "grid": dict, "measure": list}
_WORDS = {str: "a text", list: "a list", int: "a whole number", dict: "a table"}
LABEL = "label"


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
        label: of its entry of the list; None where there is no list.
        coordinates: what it has on each axis.
        setting: all of it.
    """

    label: str | None
    coordinates: dict[str, Any]
    setting: Setting


@dataclass(frozen=True)
class Sweep:
    """What a file says, checked.

    Attributes:
        name: of the file or the preset.
        title: for people.
        figure: name of a preset's figure; "" draws the one that suits any sweep.
        runs: how many runs, unless the command says otherwise.
        measure: names of measurements.
        axes: the settings that differ between points, and `label` first where there is a list.
        crossed: the axes that every entry of the list has, those of the grid.
        points: all of them.
        baseline: the coordinates that a point's differences are relative to.
    """

    name: str
    title: str
    figure: str
    runs: int
    measure: tuple[str, ...]
    axes: tuple[str, ...]
    crossed: tuple[str, ...]
    points: tuple[Point, ...]
    baseline: dict[str, Any] = field(default_factory=dict)

    def baseline_of(self, point: Point) -> Point | None:
        """The baseline with the same place in the grid; None if there is none."""
        wanted = {name: point.coordinates[name] for name in self.crossed} | self.baseline
        for other in self.points:
            if all(other.coordinates.get(name) == value for name, value in wanted.items()):
                return other
        return None


def presets() -> tuple[str, ...]:
    """The names of the presets."""
    folder = resources.files("experiments.sweep") / "presets"
    return tuple(
        sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))
    )


def read_preset(name: str, size: SizeName) -> Sweep:
    """A preset at a size.

    Raises:
        InputError: there is none of that name.
    """
    if name not in presets():
        raise InputError(f"unknown preset {name!r}; known are {', '.join(presets())}")
    return parse(preset_text(name), f"preset {name}", name, size)


def preset_text(name: str) -> str:
    """The sweep file of a preset, to start one's own from."""
    return (resources.files("experiments.sweep") / "presets" / f"{name}.toml").read_text("utf-8")


def read_file(path: Path, size: SizeName) -> Sweep:
    """The sweep in a file.

    Raises:
        InputError: it cannot be read, or says what cannot be; with the line.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text in UTF-8") from None
    return parse(text, str(path), path.stem, size)


def parse(text: str, where: str, name: str, size: SizeName) -> Sweep:
    """The sweep that `text` says.

    Raises:
        InputError: with where, the line, and what would be right.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: is not TOML: {error}") from None
    return _Reader(text, where, name, size).read(content)


class _Reader:
    def __init__(self, text: str, where: str, name: str, size: SizeName):
        self.lines = _lines_of(text)
        self.where, self.name, self.size = where, name, size
        # Settings of the base that matter at some point.
        self.useful: set[str] = set()

    def read(self, content: dict[str, Any]) -> Sweep:
        self._check_keys(content, _TOP, "")
        for size, part in content.get("size", {}).items():
            if size not in ("smoke", "cpu", "paper"):
                raise self._error(
                    f"unknown size {size!r}; known are smoke, cpu, paper", "size", size
                )
            self._check_keys(part, _OF_A_SIZE, f"size.{size}")
        mine = content.get("size", {}).get(self.size, {})
        base = content.get("base", {}) | mine.get("base", {})
        grid = content.get("grid", {}) | mine.get("grid", {})
        for table in ("base", f"size.{self.size}.base"):
            self._check_values(mine.get("base", {}) if "size" in table else content.get("base", {}),
                               table)  # fmt: skip
        self._check_grid(grid, "grid")
        entries = content.get("list", [{}])
        if not entries:
            raise self._error("an empty list has no point; leave it out", "", "list")
        points = [
            point
            for number, entry in enumerate(entries)
            for point in self._points(base, grid, entry, number, "list" in content)
        ]
        for name in base.keys() - self.useful:
            raise self._error(
                f"{name} = {base[name]!r} has no effect at any point of this sweep",
                *self._set_at((name,), ""),
            )
        axes = tuple(dict.fromkeys(name for point in points for name in point.coordinates))
        points = tuple(
            Point(p.label, {name: _coordinate(p, name) for name in axes}, p.setting) for p in points
        )
        seen: dict[tuple[str | None, Setting], Point] = {}
        for point in points:
            if (point.label, point.setting) in seen:
                raise InputError(f"{self.where}: the point {point.coordinates} is there twice")
            seen[point.label, point.setting] = point
        runs = mine.get("runs", content.get("runs", 5))
        if runs < 1:
            raise self._error(f"runs must be at least 1, got {runs}", "", "runs")
        if content.get("figure", "") not in ("", *presets()):
            raise self._error(
                f"unknown figure {content['figure']!r}; known are {', '.join(presets())}", "",
                "figure",
            )  # fmt: skip
        sweep = Sweep(
            self.name, content.get("title", self.name), content.get("figure", ""), runs,
            self._measure(mine.get("measure", content.get("measure", [])), points), axes,
            tuple(grid), points, content.get("baseline", {}),
        )  # fmt: skip
        self._check_baseline(sweep)
        return sweep

    def _points(self, base, grid, entry, number, listed):
        table = f"list[{number}]"
        if not isinstance(entry, dict):
            raise self._error("list must be a list of tables, [[list]]", "", "list")
        own = {name: value for name, value in entry.items() if name not in (LABEL, "grid")}
        label = entry.get(LABEL)
        if listed and not (isinstance(label, str) and label):
            raise self._error("every [[list]] needs a label, a text", table, LABEL)
        self._check_values(own, table)
        inner = entry.get("grid", {})
        self._check_grid(inner, f"{table}.grid")
        axes = grid | inner
        for values in product(*axes.values()):
            crossed = dict(zip(axes, values, strict=True))
            chosen = base | own | crossed
            try:
                useless = idle(from_dict(chosen)).keys() & base.keys() - own.keys() - crossed.keys()
                chosen = {name: value for name, value in chosen.items() if name not in useless}
                self.useful |= base.keys() - useless
                setting = from_dict(chosen)
                check(setting)
            except ContradictionError as error:
                raise self._error(str(error), *self._set_at(error.names, table)) from None
            coordinates = ({LABEL: label} if listed else {}) | {
                name: cell(checked_value(name, value)) for name, value in crossed.items()
            }
            yield Point(label, coordinates, setting)

    def _measure(self, names, points) -> tuple[str, ...]:
        for name in names:
            if name not in MEASURES:
                raise self._error(
                    f"unknown measurement {name!r}; known are {', '.join(MEASURES)}", "", "measure"
                )
            for point in points if name in FOLLOWED else ():
                if reason := followable(point.setting):
                    raise self._error(
                        f"{name} follows training step by step, which it cannot with {reason}", "",
                        "measure",
                    )  # fmt: skip
        # In one order, so that sweeps that measure the same share their records.
        return tuple(name for name in MEASURES if name in names)

    def _check_baseline(self, sweep: Sweep) -> None:
        for name, value in sweep.baseline.items():
            there = {point.coordinates.get(name) for point in sweep.points}
            if name not in sweep.axes or cell(value) not in there:
                raise self._error(
                    f"no point of this sweep has {name} = {value!r}, so it cannot be a baseline",
                    "baseline", name,
                )  # fmt: skip

    def _check_keys(self, table: dict[str, Any], known: dict[str, type], path: str) -> None:
        for key, value in table.items():
            if key not in known:
                hint = "; settings go below [base]" if key in DEFAULTS and not path else ""
                raise self._error(
                    f"unknown key {key!r}; known are {', '.join(known)}{hint}", path, key
                )
            if not isinstance(value, known[key]) or isinstance(value, bool):
                raise self._error(f"{key} must be {_WORDS[known[key]]}, not {value!r}", path, key)

    def _check_values(self, values: dict[str, Any], table: str) -> None:
        for name, value in values.items():
            try:
                checked_value(name, value)
            except InputError as error:
                raise self._error(str(error), table, name) from None

    def _check_grid(self, grid: Any, table: str) -> None:
        if not isinstance(grid, dict):
            raise self._error("grid must be a table of lists", table, "grid")
        for name, values in grid.items():
            if not isinstance(values, list) or not values:
                raise self._error(
                    f"{name} = {values!r}: a grid has a list of one value or more", table, name
                )
            for value in values:
                self._check_values({name: value}, table)
            if len({cell(checked_value(name, value)) for value in values}) < len(values):
                raise self._error(f"{name}: a value is there twice", table, name)

    def _set_at(self, names: tuple[str, ...], entry: str) -> tuple[str, str]:
        """Where one of `names` is set: the nearest table in which it is."""
        tables = (
            f"{entry}.grid", entry, f"size.{self.size}.grid", "grid", f"size.{self.size}.base",
            "base",
        )  # fmt: skip
        for name in names:
            for table in tables:
                if (table, name) in self.lines:
                    return table, name
        return "", ""

    def _error(self, message: str, table: str, key: str) -> InputError:
        line = self.lines.get((table, key))
        if line is None and table == "grid":
            line = self.lines.get((f"size.{self.size}.grid", key))
        at = f"{self.where}, line {line}" if line else self.where
        return InputError(f"{at}: {message}")


def _coordinate(point: Point, name: str) -> Any:
    """What a point has on an axis that its entry may lack; None where that matters nothing."""
    if name in point.coordinates or name == LABEL:
        return point.coordinates.get(name)
    if not matters(point.setting, name):
        return None
    return cell(getattr(point.setting.shape, name, getattr(point.setting.knobs, name, None)))


def _lines_of(text: str) -> dict[tuple[str, str], int]:
    """The line of every key, by the table that it is in; entries of a list are counted from 0."""
    found: dict[tuple[str, str], int] = {}
    table, entries = "", -1
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\[\s*list\s*\]\]", line):
            entries += 1
            table = f"list[{entries}]"
            found.setdefault(("", "list"), number)
        elif match := re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line):
            table = ".".join(part.strip().strip("\"'") for part in match[1].split("."))
            if table == "list.grid":
                table = f"list[{entries}].grid"
            found[tuple(table.rpartition(".")[::2])] = number  # pyright: ignore[reportArgumentType]
        elif match := re.match(r"""\s*["']?([\w-]+)["']?\s*=""", line):
            found[table, match[1]] = number
    return found
