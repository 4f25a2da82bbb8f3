"""Sweep files: TOML with settings, a grid, a list, measurements, a figure, and sizes.

    title = "Number of auxiliary logits"     # of the figure
    measure = ["agreement"]                  # beside accuracy and loss
    runs = 10
    keep = "models"                          # students' parameters, for later measurements

    [base]                                   # settings of all points
    student.loss = "kl"
    [grid]                                   # every combination ...
    model.aux = [2, 3, 10]
    [[list]]                                 # ... for every entry
    label = "cross-model"
    start = "independent"
    runs = 4                                 # of this entry, where the sweep has more
    [list.grid]                              # and of this entry's own
    student.learning_rate = [1e-3, 3e-3]
    [baseline]                               # what differences are relative to
    label = "student"
    [figure]                                 # what is drawn (figures/spec.py)
    panels = [{ kind = "line", x = "model.aux" }]
    names = { cross-model = "another start" } # texts for what it calls by name, in all panels
    [[published]]                            # what others found, beside equal settings alone
    at = { label = "student", "model.aux" = 3 }
    mean = 0.5284
    [size.smoke]                             # what --size smoke changes
    runs = 2
    [size.smoke.base]
    student.inputs.count = 256

An entry's settings go before the base's, a grid's before both, `--set` before all; a size's tables
before the file's. A setting of the base that belongs to another kind than a point has (one of
cloning, where nothing is cloned) is left out there; one that has no effect at any point is refused.
"""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from figures.spec import check_panels, metrics_upward, with_names
from sublab import settings
from sublab.errors import InputError
from sublab.settings import SettingError
from toymlp.checks import check
from toymlp.measures import MEASURES, columns_of, followable
from toymlp.settings import Setting

SizeName = Literal["smoke", "cpu", "paper"]
SIZES: tuple[SizeName, ...] = get_args(SizeName)
LABEL, RUNS = "label", "runs"
KEEP = ("models", "nothing")
_TOP = {
    "title": str,
    "measure": list,
    "runs": int,
    "keep": str,
    "base": dict,
    "grid": dict,
    "list": list,
    "baseline": dict,
    "figure": dict,
    "published": list,
    "size": dict,
}
_OF_A_SIZE = {"runs": int, "base": dict, "grid": dict, "measure": list}
_OF_A_FIGURE = {"panels": list, "names": dict}
_OF_PUBLISHED = {
    "name": str,
    "metric": str,
    "at": dict,
    "mean": (int, float),
    "half_width": (int, float),
    "n": int,
    "label": str,
    "setting": dict,
}
_WORDS = {
    str: "a text",
    list: "a list",
    int: "a whole number",
    dict: "a table",
    (int, float): "a number",
}
# Files written before settings were nested: what begins the new key.
_OLD_PREFIXES = {"student_": "student.", "teacher_": "teacher.", "clone_": "start.clone."}
_OLD_KEYS = {
    **dict.fromkeys(("hidden", "activation", "biases", "aux", "init_scale"), "model."),
    **dict.fromkeys(("loss", "logits", "logit_noise", "inputs"), "student."),
    "images": "student.inputs.count",
    "fresh": "student.inputs.fresh",
    "alpha": "student.inputs.alpha",
    "blur": "student.inputs.width",
    "subspace": "student.inputs.dimension",
    "temperature": "student.loss.temperature",
    "student_network": "student_model.network",
    "student_hidden": "student_model.hidden",
    "student_activation": "student_model.activation",
    "student_biases": "student_model.biases",
    "student_weight_decay": "student.optimiser.weight_decay",
    "teacher_weight_decay": "teacher.optimiser.weight_decay",
    "clone_images": "start.clone.inputs.count",
    "clone_fresh": "start.clone.inputs.fresh",
    "clone_horizon": "start.clone.schedule.horizon",
    "interpolation": "start.weight",
    "perturbation": "start.size",
    "shared": "start.shared",
    "redrawn": "start.shared (with start = independent: the parts that are NOT drawn anew)",
    "frozen": "student.frozen",
    "interventions.frozen": "student.frozen",
    "project_trait": "interventions.project_trait",
    "liminal_weight": "interventions.liminal.weight",
    "liminal_epochs": "interventions.liminal.epochs",
    "generations": "chain.generations",
}


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
        label: label of its entry of the list; None where there is no list.
        coordinates: what it has on each axis, lists as lists; None where an axis does not exist.
        setting: all of it.
        most_runs: the number of runs that its entry is content with; None where it has no limit.
    """

    label: str | None
    coordinates: dict[str, Any]
    setting: Setting
    most_runs: int | None = None

    def runs(self, runs: int) -> int:
        """How many runs it has in a sweep of so many."""
        return runs if self.most_runs is None else min(runs, self.most_runs)


@dataclass(frozen=True)
class PublishedValue:
    """A published mean, and the experiment that it is of.

    Attributes:
        name: what a table calls it; None where it is for the figure alone.
        metric: column that it is the mean of.
        at: coordinates of the point that it stands beside; {} for a level along the whole axis.
        mean: the mean.
        half_width: half width of its 95 % t-interval; None where none was published.
        n: runs that it is over; None where that was not published.
        label: text of the legend.
        setting: by dotted key, where the published experiment differs from the preprint's.
    """

    name: str | None
    metric: str
    at: dict[str, Any]
    mean: float | None
    half_width: float | None
    n: int | None
    label: str
    setting: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """What a file says at a size, checked.

    Attributes:
        name: name of the file or the preset.
        title: title for people.
        size: the size.
        runs: how many runs, unless the command says otherwise.
        measure: names of measurements.
        axes: the keys in which points differ, and `label` first where there is a list.
        crossed: the axes that every entry of the list has, those of the grid.
        points: all points.
        baseline: coordinates of the points that differences are relative to.
        panels: what the figure has; () for the one that suits any sweep.
        published: what others found.
        keep: whether students' parameters are kept; None leaves it to their number.
        changes: by dotted key, what the command line said.
    """

    name: str
    title: str
    size: SizeName
    runs: int
    measure: tuple[str, ...]
    axes: tuple[str, ...]
    crossed: tuple[str, ...]
    points: tuple[Point, ...]
    baseline: dict[str, Any] = field(default_factory=dict)
    panels: tuple[dict[str, Any], ...] = ()
    published: tuple[PublishedValue, ...] = ()
    keep: bool | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    def points_at(self, published: PublishedValue) -> list[int]:
        """The numbers of the points that a published value stands beside."""
        return [
            number
            for number, point in enumerate(self.points)
            if all(point.coordinates.get(name) == at for name, at in published.at.items())
        ]

    def baseline_of(self, point: Point) -> Point | None:
        """The baseline with the same place in the grid; None if there is none.

        Where the baseline names no label, that is the point's own: another start of the same
        architecture, and not of the first one in the list.
        """
        wanted = {name: point.coordinates[name] for name in self.crossed} | self.baseline
        if LABEL not in self.baseline and point.label is not None:
            wanted[LABEL] = point.label
        for other in self.points:
            if all(other.coordinates.get(name) == value for name, value in wanted.items()):
                return other
        return None


def presets() -> tuple[str, ...]:
    """The names of the presets."""
    names = (path.name for path in _preset_folder().iterdir())
    return tuple(
        sorted(
            name.removesuffix(".toml")
            for name in names
            if name.endswith(".toml") and not name.endswith(".inc.toml")
        )
    )


def read_preset(name: str, size: SizeName, changes: Sequence[str] = ()) -> Sweep:
    """A preset at a size; `changes` as those of `parse`.

    Raises:
        InputError: there is none of that name.
    """
    if name not in presets():
        raise InputError(f"unknown preset {name!r}; known are {', '.join(presets())}")
    return parse(preset_text(name), f"preset {name}", name, size, changes, smoke_base())


def preset_text(name: str) -> str:
    """The sweep file of a preset, to start one's own from."""
    return (_preset_folder() / f"{name}.toml").read_text("utf-8")


def smoke_base() -> dict[str, Any]:
    """By dotted key, what every preset has at smoke size, before its own."""
    return _dotted(tomllib.loads((_preset_folder() / "smoke.inc.toml").read_text("utf-8")))


def read_file(path: Path, size: SizeName, changes: Sequence[str] = ()) -> Sweep:
    """The sweep in a file; `changes` as those of `parse`.

    Raises:
        InputError: it cannot be read, or says what cannot be; with the line.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text in UTF-8") from None
    return parse(text, str(path), path.stem, size, changes)


def parse(
    text: str,
    where: str,
    name: str,
    size: SizeName,
    changes: Sequence[str] = (),
    smoke: Mapping[str, Any] | None = None,
) -> Sweep:
    """The sweep that `text` says; all of its sizes are checked.

    Args:
        text: TOML.
        where: what messages call it.
        name: name of the sweep.
        size: size to read it at.
        changes: `key=value`, each in place of whatever the file says.
        smoke: settings of all points at smoke size, which the file's own replace.

    Raises:
        InputError: with where, the line, and what would be right.
    """
    try:
        content = tomllib.loads(text)
    except ValueError as error:
        hint = ""
        if "overwrite" in str(error).lower():
            hint = (
                "; a key that names a kind and has others below it is written with .kind, such as "
                'student.inputs.kind = "mixture"'
            )
        raise InputError(f"{where}: is not TOML: {error}{hint}") from None
    changed = changed_settings(changes)
    sweeps: dict[SizeName, Sweep] = {}
    readers: dict[SizeName, _Reader] = {}
    for other in SIZES:
        # What the command line says is of the size that was chosen.
        of_size = changed if other == size else {}
        readers[other] = _Reader(text, where, name, other, of_size, smoke or {})
        sweeps[other] = readers[other].read(content)
    if not changed:
        readers[size].check_published(list(sweeps.values()))
    return sweeps[size]


def changed_settings(changes: Sequence[str]) -> dict[str, Any]:
    """What `--set key=value` says: by dotted key, the value, as TOML has it or as a bare word.

    Raises:
        InputError: no `=`, an unknown key, a value that the key does not allow.
    """
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        key = key.strip().removesuffix(f".{settings.KIND}")
        if not equals or not key:
            raise InputError(
                f"--set {change}: write key=value, such as --set student.learning_rate=1e-3"
            )
        try:
            table = tomllib.loads(f"value = {value}")
            # More than one line is no value.
            parsed = table["value"] if "\n" not in value else value
        except ValueError:
            parsed = value.strip()
        try:
            values[key] = settings.checked(Setting, key, parsed)
        except SettingError as error:
            raise InputError(f"--set {change}: {_with_new_key(key, str(error))}") from None
    return values


class _Reader:
    """One file at one size, with the lines of its keys for messages."""

    def __init__(
        self,
        text: str,
        where: str,
        name: str,
        size: SizeName,
        changes: Mapping[str, Any],
        smoke: Mapping[str, Any],
    ):
        self.lines = _lines_of(text)
        self.where, self.name, self.changes = where, name, dict(changes)
        self.size: SizeName = size
        self.smoke = dict(smoke) if size == "smoke" else {}
        # Settings of the base and of the command line that exist at some point.
        self.useful: set[str] = set()

    def read(self, content: dict[str, Any]) -> Sweep:
        self._check_keys(content, _TOP, "")
        sizes = content.get("size", {})
        for size, table in sizes.items():
            if size not in SIZES:
                self._refuse(f"unknown size {size!r}; known are {', '.join(SIZES)}", "size", size)
            if not isinstance(table, dict):
                self._refuse(f"{size} must be a table, [size.{size}]", "size", size)
            self._check_keys(table, _OF_A_SIZE, f"size.{size}")
        of_size = sizes.get(self.size, {})
        base = self._settings(content.get("base", {}), "base")
        base |= self.smoke
        base |= self._settings(of_size.get("base", {}), f"size.{self.size}.base")
        grid = self._grid(content.get("grid", {}), "grid")
        grid |= self._grid(of_size.get("grid", {}), f"size.{self.size}.grid")
        points = list(self._all_points(base, grid, content))
        for name in (base.keys() | self.changes.keys()) - self.useful - self.smoke.keys():
            if (
                name not in self.changes
                and settings.known(Setting)[name].kinds.keys() & self.changes.keys()
            ):
                # It is of a kind that the command line has replaced.
                continue
            value = self.changes.get(name, base.get(name))
            kinds = settings.known(Setting)[name].kinds.items()
            of = "".join(f"; it is for {union} = {' or '.join(names)}" for union, names in kinds)
            self._refuse(
                f"{name} = {value!r} has no effect at any point of this sweep{of}",
                *self._set_at((name,), ""),
            )
        runs = of_size.get("runs", content.get("runs", 5))
        if runs < 1:
            table = f"size.{self.size}" if "runs" in of_size else ""
            self._refuse(f"runs must be at least 1, got {runs}", table, "runs")
        keep = content.get("keep")
        if keep is not None and keep not in KEEP:
            self._refuse(f"keep = {keep!r}: it must be one of {', '.join(KEEP)}", "", "keep")
        axes = tuple(dict.fromkeys(name for point in points for name in point.coordinates))
        points = tuple(
            replace(p, coordinates={name: _coordinate(p, name) for name in axes}) for p in points
        )
        measure = self._measure(of_size.get("measure", content.get("measure", [])), points)
        sweep = Sweep(
            name=self.name,
            title=content.get("title", self.name),
            size=self.size,
            runs=runs,
            measure=measure,
            axes=axes,
            crossed=tuple(name for name in grid if name in axes),
            points=points,
            baseline=self._baseline(content.get("baseline", {}), axes, points),
            panels=self._panels(content.get("figure", {}), axes, measure, points),
            published=self._published(content.get("published", []), axes, measure),
            keep=None if keep is None else keep == "models",
            changes=dict(self.changes),
        )
        return sweep

    def _all_points(
        self, base: dict[str, Any], grid: dict[str, list], content: dict[str, Any]
    ) -> Iterator[Point]:
        entries = content.get("list", [{}])
        if not entries:
            self._refuse("an empty list has no point; leave it out", "", "list")
        labels: set[str | None] = set()
        seen: set[tuple[str | None, Setting]] = set()
        for number, entry in enumerate(entries):
            table = f"list[{number}]"
            if not isinstance(entry, dict):
                self._refuse("list must be a list of tables, [[list]]", "", "list")
            label = entry.get(LABEL)
            if "list" in content and not (isinstance(label, str) and label):
                self._refuse("every [[list]] needs a label, a text", table, LABEL)
            if label in labels:
                self._refuse(
                    f"the label {label!r} is there twice; labels tell entries apart", table, LABEL
                )
            labels.add(label)
            runs = entry.get(RUNS)
            if RUNS in entry and (type(runs) is not int or runs < 1):
                self._refuse(
                    f"runs must be a whole number of at least 1, got {runs!r}", table, RUNS
                )
            for point in self._points(base, grid, entry, table, label):
                if (label, point.setting) in seen:
                    raise InputError(f"{self.where}: the point {point.coordinates} is there twice")
                seen.add((label, point.setting))
                yield replace(point, most_runs=runs)

    def _points(
        self,
        base: dict[str, Any],
        grid: dict[str, list],
        entry: dict[str, Any],
        table: str,
        label: str | None,
    ) -> Iterator[Point]:
        own = self._settings(
            {name: value for name, value in entry.items() if name not in (LABEL, RUNS, "grid")},
            table,
        )
        axes = grid | self._grid(entry.get("grid", {}), f"{table}.grid")
        # What the command line sets is no axis any more.
        axes = {name: values for name, values in axes.items() if name not in self.changes}
        outer = base | self.changes
        for values in product(*axes.values()):
            crossed = dict(zip(axes, values, strict=True))
            chosen = outer | own | crossed | self.changes
            try:
                there = settings.applicable(Setting, chosen)
                elsewhere = chosen.keys() - there - own.keys() - crossed.keys()
                chosen = {name: v for name, v in chosen.items() if name not in elsewhere}
                self.useful |= (outer.keys() | self.changes.keys()) - elsewhere
                setting = settings.build(Setting, chosen)
                check(setting)
            except SettingError as error:
                self._refuse(str(error), *self._set_at(error.keys, table))
            coordinates = {} if label is None else {LABEL: label}
            yield Point(label, coordinates | {n: _plain(v) for n, v in crossed.items()}, setting)

    def _settings(self, table: dict[str, Any], path: str) -> dict[str, Any]:
        """The settings of a table by dotted key, each of an allowed value."""
        values: dict[str, Any] = {}
        for key, value in _dotted(table).items():
            name = key.removesuffix(f".{settings.KIND}")
            try:
                values[name] = settings.checked(Setting, name, value)
            except SettingError as error:
                self._refuse(_with_new_key(name, str(error)), path, key)
        return values

    def _grid(self, table: Any, path: str) -> dict[str, list]:
        if not isinstance(table, dict):
            self._refuse("grid must be a table of lists", path.removesuffix(".grid"), "grid")
        grid: dict[str, list] = {}
        for key, values in _dotted(table).items():
            if not isinstance(values, list) or not values:
                self._refuse(
                    f"{key} = {values!r}: a grid has a list of one value or more", path, key
                )
            if any(isinstance(value, dict) for value in values):
                self._refuse(
                    f"{key}: a value of a grid is a number, a text or a list, not a table; write "
                    f"{key}.{settings.KIND} = [...] or an entry of the list for each",
                    path,
                    key,
                )
            checked = [next(iter(self._settings({key: value}, path).values())) for value in values]
            if len(set(checked)) < len(checked):
                self._refuse(f"{key}: a value is there twice", path, key)
            grid[key.removesuffix(f".{settings.KIND}")] = checked
        return grid

    def _measure(self, names: list[Any], points: Sequence[Point]) -> tuple[str, ...]:
        for name in names:
            if not isinstance(name, str) or name not in MEASURES:
                self._refuse(
                    f"unknown measurement {name!r}; known are {', '.join(MEASURES)}", "", "measure"
                )
            for point in points if MEASURES[name].follows else ():
                if reason := followable(point.setting):
                    self._refuse(
                        f"{name} follows training step by step, which it cannot with {reason}",
                        "",
                        "measure",
                    )
        return tuple(name for name in MEASURES if name in names)

    def _baseline(
        self, table: dict[str, Any], axes: Sequence[str], points: Sequence[Point]
    ) -> dict[str, Any]:
        baseline = {n: v for n, v in _dotted(table).items() if n not in self.changes}
        for name, value in baseline.items():
            there = [point.coordinates.get(name) for point in points]
            if name not in axes or value not in there:
                self._refuse(
                    f"no point of this sweep has {name} = {value!r}, so it cannot be a baseline",
                    "baseline",
                    name,
                )
        return baseline

    def _panels(
        self,
        table: dict[str, Any],
        axes: Sequence[str],
        measure: Sequence[str],
        points: Sequence[Point],
    ) -> tuple[dict[str, Any], ...]:
        self._check_keys(table, _OF_A_FIGURE, "figure")
        panels = table.get("panels")
        if panels is None:
            return ()
        panels = with_names(panels, table.get("names", {}))
        drawn = [*axes, *(name for name in self.changes if name not in axes)]
        labels = list(dict.fromkeys(point.label or "" for point in points))
        try:
            check_panels(panels, drawn, list(columns_of(list(MEASURES))), labels)
        except InputError as error:
            self._refuse(str(error), "figure", "panels")
        # A panel of what this size does not measure, or of an axis that `--set` took away, is not
        # drawn at all.
        there = {*axes, *columns_of(measure)}
        named = [{p.get("x"), *metrics_upward(p), p.get("also")} - {None} for p in panels]
        whole = all(names <= there for names in named)
        return tuple(panels) if whole else ()

    def _published(
        self, entries: list[Any], axes: Sequence[str], measure: Sequence[str]
    ) -> tuple[PublishedValue, ...]:
        published = []
        for number, entry in enumerate(entries):
            table = f"published[{number}]"
            if not isinstance(entry, dict):
                self._refuse("published must be a list of tables, [[published]]", "", "published")
            self._check_keys(entry, _OF_PUBLISHED, table)
            metric = entry.get("metric", "accuracy")
            if metric not in columns_of(list(MEASURES)):
                self._refuse(f"unknown metric {metric!r}", table, "metric")
            if "mean" not in entry and "name" not in entry:
                self._refuse("a published value needs its mean", table, "mean")
            for key, least in (("mean", -math.inf), ("half_width", 0.0), ("n", 1)):
                number_of = entry.get(key)
                if number_of is not None and not least < number_of < math.inf:
                    self._refuse(
                        f"{key} = {number_of} is no number that a mean can have", table, key
                    )
            at = _dotted(entry.get("at", {}))
            places = {name: value for name, value in at.items() if name != LABEL}
            for name in at:
                if name not in axes and name not in self.changes:
                    self._refuse(
                        f"at: {name} is no axis of this sweep; its axes are {', '.join(axes)}",
                        table,
                        "at",
                    )
            places = self._settings(places, f"{table}.at")
            # What the command line sets is no axis, but the published experiment still had it.
            had = {name: value for name, value in places.items() if name in self.changes}
            published.append(
                PublishedValue(
                    name=entry.get("name"),
                    metric=metric,
                    at={name: value for name, value in at.items() if name in axes},
                    mean=entry.get("mean"),
                    half_width=entry.get("half_width"),
                    n=entry.get("n"),
                    label=entry.get("label", "published"),
                    setting=had | self._settings(entry.get("setting", {}), f"{table}.setting"),
                )
            )
        return tuple(published)

    def check_published(self, sweeps: Sequence[Sweep]) -> None:
        """Refuses a published value whose coordinates no point has, at any size."""
        for number in range(len(sweeps[0].published)):
            if not any(sweep.points_at(sweep.published[number]) for sweep in sweeps):
                at = sweeps[0].published[number].at
                self._refuse(f"no point of this sweep is at {at}", f"published[{number}]", "at")

    def _check_keys(self, table: dict[str, Any], known: Mapping[str, Any], path: str) -> None:
        for key, value in table.items():
            if key not in known:
                hint = ""
                if not path and (key in _OLD_KEYS or key in settings.known(Setting)):
                    hint = "; settings go below [base]"
                self._refuse(f"unknown key {key!r}; known are {', '.join(known)}{hint}", path, key)
            kind = known[key]
            if not isinstance(value, kind) or isinstance(value, bool):
                self._refuse(f"{key} must be {_WORDS[kind]}, not {value!r}", path, key)

    def _set_at(self, names: Sequence[str], entry: str) -> tuple[str, str]:
        """Where one of `names` is set: the nearest table in which it is."""
        tables = (
            f"{entry}.grid",
            entry,
            f"size.{self.size}.grid",
            "grid",
            f"size.{self.size}.base",
            "base",
        )
        for name in names:
            for table in tables:
                if _line(self.lines, table, name) is not None:
                    return table, name
        return "", ""

    def _refuse(self, message: str, table: str, key: str) -> NoReturn:
        line = _line(self.lines, table, key) or self.lines.get(table)
        if line is None and table == "" and key == "measure":
            line = _line(self.lines, f"size.{self.size}", key)
        at = f"{self.where}, line {line}" if line else self.where
        raise InputError(f"{at}: {message}") from None


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table as one of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _with_new_key(name: str, message: str) -> str:
    """A message about an unknown key; of one that older files have, it says the new one."""
    if name in settings.known(Setting):
        return message
    new = _OLD_KEYS.get(name)
    if new is None:
        for old, now in _OLD_PREFIXES.items():
            if name.startswith(old):
                new = now
    if new is None:
        return message
    if new.endswith("."):
        new += name.split("_", 1)[1] if any(map(name.startswith, _OLD_PREFIXES)) else name
    if new.split()[0] not in settings.known(Setting):
        return message
    return f"{name} is called {new} now"


def _coordinate(point: Point, name: str) -> Any:
    """What a point has on an axis that its entry may lack; None where it does not exist there."""
    if name in point.coordinates or name == LABEL:
        return point.coordinates.get(name)
    return settings.flatten(point.setting).get(name)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _line(lines: Mapping[str, int], table: str, key: str) -> int | None:
    """The line of a key, or of the inline table that holds it."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        path = ".".join((*([table] if table else []), *parts[:end]))
        for spelling in (path, f"{path}.{settings.KIND}"):
            if spelling in lines:
                return lines[spelling]
    return None


def _lines_of(text: str) -> dict[str, int]:
    """The line of every key and table by its whole path; entries of lists are counted from 0."""
    lines: dict[str, int] = {}
    table, entries = "", {"list": -1, "published": -1}
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\[\s*(list|published)\s*\]\]", line):
            entries[match[1]] += 1
            table = f"{match[1]}[{entries[match[1]]}]"
            lines.setdefault(match[1], number)
            lines[table] = number
        elif match := re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line):
            table = _bare(match[1])
            first, _, rest = table.partition(".")
            if first in entries and rest:
                table = f"{first}[{entries[first]}].{rest}"
            lines[table] = number
        elif match := re.match(r"""\s*([\w."'\s-]+?)\s*=""", line):
            lines[f"{table}.{_bare(match[1])}" if table else _bare(match[1])] = number
    return lines


def _bare(path: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in path.split("."))


def _preset_folder() -> Any:
    return resources.files("experiments.sweep") / "presets"
