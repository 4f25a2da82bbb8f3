"""Records of sweeps with made-up values, in the form in which the sweep command writes them.

The sweep files are read by a few lines of this module's own: a figure rests on records alone.
"""

import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from figures.spec import with_names
from sublab import records

FOLDER = Path(__file__).parents[2] / "experiments" / "sweep" / "presets"
PRESETS = sorted(p.stem for p in FOLDER.glob("*.toml") if not p.name.endswith(".inc.toml"))
STEPS = 30
TITLES = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "kmnist": "KMNIST",
    "emnist_balanced": "EMNIST Balanced",
    "digits": "scikit-learn digits (8 x 8, not MNIST)",
}
AXIS_TITLES = {"model.aux": "auxiliary logits m", "student.inputs.count": "inputs an epoch"}
_ALWAYS = ("accuracy", "teacher_accuracy", "start_accuracy", "final_loss", "clone_loss", "clone_kl")
_COLUMNS = {
    "distance": ("distance", "start_distance", "start_feature_cosine"),
    "account": ("trait_change", "first_order", "remainder"),
    "coverage": ("first_coverage", "coverage"),
    "theory": ("coefficient", "rho"),
    "forecast": (
        "forecast",
        "forecast_at_rest",
        "label_forecast",
        "label_forecast_at_rest",
        "linear_forecast",
        "linear_teacher",
        "student_residual",
        "forecast_iterations",
        "nonlinearity",
        "passed",
        "passed_at_rest",
        "forecast_cosine",
    ),
}
# Range of a metric's values, and whether it is even in their logarithm.
_RANGES = {
    "final_loss": (1e-4, 1e-1, True),
    "clone_loss": (1e-6, 1e-2, True),
    "clone_kl": (1e-6, 1e-2, True),
    "start_distance": (5.0, 25.0, False),
    "trait_change": (-1.5, 0.1, False),
    "first_order": (-1.5, 0.1, False),
    "alignment": (-0.01, 0.03, False),
}
_LENGTHS = {"alignment": STEPS, "start_feature_cosine": 2}
_DEFAULTS = {"model.aux": 3, "student.learning_rate": 3e-4, "interventions.liminal.weight": 0.0}
# Of settings that belong to one kind: that kind.
_BELONGS = {
    "start.clone.schedule.horizon": ("start.clone.schedule", "cosine"),
    "start.clone": ("start", "matched"),
}

Truth = Callable[[str, "SketchedPoint", np.random.Generator], tuple[float, float]]


@dataclass(frozen=True)
class SketchedPoint:
    """A point of a sweep file: its label, what it has on the axes, and all that the file sets."""

    label: str | None
    coordinates: dict[str, Any]
    settings: dict[str, Any]

    @property
    def dataset(self) -> str:
        return self.settings.get("dataset", "mnist")

    @property
    def classes(self) -> int:
        return self.settings.get("classes") or (47 if self.dataset == "emnist_balanced" else 10)


@dataclass(frozen=True)
class SketchedSweep:
    """What a sweep file says, at one size."""

    name: str
    size: str
    content: dict[str, Any]
    runs: int
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    points: tuple[SketchedPoint, ...]

    @property
    def labels(self) -> list[str]:
        return [entry["label"] for entry in self.content.get("list", [])]

    @property
    def panels(self) -> list[dict[str, Any]]:
        figure = self.content.get("figure", {})
        return with_names(figure.get("panels", []), figure.get("names", {}))


def flat(table: Mapping[str, Any], front: str = "") -> dict[str, Any]:
    """Dotted keys of nested tables; `start.kind` is `start`."""
    keys: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            keys |= flat(value, f"{front}{name}.")
        else:
            keys[f"{front}{name}".removesuffix(".kind")] = value
    return keys


def preset(name: str, size: str = "cpu") -> SketchedSweep:
    """A preset at a size."""
    return sketched((FOLDER / f"{name}.toml").read_text(), name, size, preset=True)


def sketched(
    text: str, name: str = "mine", size: str = "cpu", *, preset: bool = False
) -> SketchedSweep:
    """The sweep of a file's text."""
    content = tomllib.loads(text)
    changes = content.get("size", {}).get(size, {})
    base = flat(content.get("base", {}))
    if preset and size == "smoke":
        base |= flat(tomllib.loads((FOLDER / "smoke.inc.toml").read_text()))
    base |= flat(changes.get("base", {}))
    grid = flat(content.get("grid", {})) | flat(changes.get("grid", {}))
    crossed = []
    for entry in content.get("list", [{}]):
        own = flat({k: v for k, v in entry.items() if k not in ("label", "runs", "grid")})
        varied = grid | flat(entry.get("grid", {}))
        crossed += [
            (entry.get("label"), base | own | dict(zip(varied, values, strict=True)), varied)
            for values in product(*varied.values())
        ]
    axes = tuple(dict.fromkeys(axis for *_, varied in crossed for axis in varied))
    points = []
    for label, wanted, _ in crossed:
        gone = tuple(f for f, (kind, value) in _BELONGS.items() if wanted.get(kind) != value)
        settings = {k: v for k, v in wanted.items() if not k.startswith(gone)}
        coordinates = {axis: settings.get(axis, _DEFAULTS.get(axis)) for axis in axes}
        points.append(SketchedPoint(label, coordinates, settings))
    measure = changes.get("measure", content.get("measure", []))
    metrics = (*_ALWAYS, *(c for name in measure for c in _COLUMNS.get(name, (name,))))
    runs = changes.get("runs", content.get("runs", 5))
    labelled = ("label",) if "list" in content else ()
    return SketchedSweep(name, size, content, runs, labelled + axes, metrics, tuple(points))


def made_up(metric: str, point: SketchedPoint, rng: np.random.Generator) -> tuple[float, float]:
    """A mean of a metric at a point, and how much its runs vary."""
    low, high, logarithmic = _RANGES.get(metric, (0.12, 0.88, False))
    place = rng.uniform()
    if logarithmic:
        mean = low * (high / low) ** place
        return mean, 0.1 * mean
    return low + (high - low) * place, 0.02 * (high - low)


def written(
    out: Path,
    sweep: SketchedSweep,
    *,
    runs: int | None = None,
    truth: Truth = made_up,
    missing: Collection[str] = (),
    values: Mapping[str, Sequence[Any]] | None = None,
    samples: bool = True,
    **changes: Any,
) -> records.Record:
    """Writes the records of a sweep and gives that of its summary.

    Args:
        out: the results folder.
        sweep: what was swept.
        runs: how many runs, in place of the sweep's own number.
        truth: what gives a mean of a metric at a point, and how much its runs vary.
        missing: metrics that are null everywhere.
        values: values by metric, a row a point and run, in place of made-up ones.
        samples: whether there is a record of examples.
        changes: what is different in the summary's config.
    """
    runs, rng = runs or sweep.runs, np.random.default_rng(0)
    rows = [{"point": n, "run": r} for n in range(len(sweep.points)) for r in range(runs)]
    columns: dict[str, list[Any]] = {}
    for metric in sweep.metrics:
        column: list[Any] = []
        for point in sweep.points:
            mean, std = truth(metric, point, rng)
            length = _LENGTHS.get(metric)
            drawn = mean + std * rng.normal(size=(runs, length or 1))
            none = metric in missing or (
                metric.startswith("clone_") and point.settings.get("start") != "matched"
            )
            for row in drawn.tolist():
                column.append(None if none else row if length else row[0])
        columns[metric] = list(values[metric]) if values else column
    table = pl.DataFrame(rows).with_columns(
        *(pl.Series(metric, column) for metric, column in columns.items())
    )
    wide = records.write(out, "sweep_runs", {"name": sweep.name, "runs": runs}, table, {})
    examples = None
    if samples:
        rows = [
            {"kind": kind, "label": 0, "side": 8, "pixels": rng.uniform(-1, 1, 64).tolist()}
            for kind in ("data", "inputs")
            for _ in range(10)
        ]
        examples = records.write(out, "samples", {"name": sweep.name}, pl.DataFrame(rows), {})
    datasets = {point.dataset for point in sweep.points}
    config = {
        "name": sweep.name,
        "title": sweep.content.get("title", sweep.name),
        "size": sweep.size,
        "seed": 0,
        "runs": runs,
        "axes": list(sweep.axes),
        "axis_titles": {axis: AXIS_TITLES.get(axis, axis) for axis in sweep.axes},
        "metric_titles": {metric: metric.replace("_", " ") for metric in sweep.metrics}
        | {"accuracy": "Test accuracy (class logits)"},
        "measure": [],
        "baseline": sweep.content.get("baseline", {}),
        "dataset_title": TITLES[datasets.pop()] if len(datasets) == 1 else None,
        "shared": [f"{k} {v}" for k, v in _shared(sweep).items() if k != "dataset"],
        "points": [
            {
                "label": point.label,
                "coordinates": point.coordinates,
                "classes": point.classes,
                "dataset_title": TITLES[point.dataset],
            }
            for point in sweep.points
        ],
        "panels": sweep.panels,
        "published": [_published(entry, sweep) for entry in sweep.content.get("published", [])],
        "runs_record": wide.folder.name,
        "samples_record": examples.folder.name if examples else None,
    } | changes
    return records.write(out, "sweep_summary", config, _summary(sweep, columns, runs), {})


def _shared(sweep: SketchedSweep) -> dict[str, Any]:
    """What all points share that is not at its default."""
    first = sweep.points[0].settings
    return {
        key: value
        for key, value in first.items()
        if all(p.settings.get(key, _DEFAULTS.get(key)) == value for p in sweep.points)
        if key not in _DEFAULTS or _DEFAULTS[key] != value
    }


def _published(entry: dict[str, Any], sweep: SketchedSweep) -> dict[str, Any]:
    at, setting = entry.get("at"), flat(entry.get("setting", {}))
    if at is None:
        number, equal = None, _shared(sweep) == setting
    else:
        places = [{"label": point.label} | point.coordinates for point in sweep.points]
        number = next((n for n, place in enumerate(places) if place | at == place), 0)
        ours, theirs = (
            {k: v for k, v in values.items() if k not in at and _DEFAULTS.get(k) != v}
            for values in (sweep.points[number].settings, setting)
        )
        equal = places[number] | at == places[number] and ours == theirs
    return {
        "name": entry.get("name"),
        "metric": entry.get("metric", "accuracy"),
        "point": number,
        "label": entry.get("label", "published"),
        "mean": entry["mean"],
        "half_width": entry.get("half_width"),
        "n": entry.get("n"),
        "equal": equal,
    }


def _baseline(sweep: SketchedSweep, point: SketchedPoint) -> int | None:
    """The number of the point that a point's differences are to."""
    baseline = sweep.content.get("baseline", {})
    label = baseline.get("label", point.label)
    crossed = flat(sweep.content.get("grid", {}))
    wanted = {axis: point.coordinates[axis] for axis in crossed}
    wanted |= {k: v for k, v in flat(baseline).items() if k != "label"}
    for number, other in enumerate(sweep.points):
        if baseline and other.label == label and other.coordinates | wanted == other.coordinates:
            return None if other is point else number
    return None


def _summary(sweep: SketchedSweep, columns: dict[str, list[Any]], runs: int) -> pl.DataFrame:
    rows = []
    for number, point in enumerate(sweep.points):
        against = _baseline(sweep, point)
        for metric, column in columns.items():
            ours = column[number * runs : (number + 1) * runs]
            theirs = None if against is None else column[against * runs : (against + 1) * runs]
            length = max((len(v) for v in ours if isinstance(v, list)), default=None)
            for index in [None] if length is None else range(length):
                value = _mean(_finite(ours, index))
                if value["n"] == 0:
                    continue
                apart = _mean(
                    [
                        a - b
                        for a, b in zip(ours, theirs or [], strict=False)
                        if index is None and None not in (a, b) and np.isfinite([a, b]).all()
                    ]
                )
                rows.append(
                    {"point": number, "metric": metric, "index": index, "baseline": against}
                    | value
                    | {
                        "difference": apart["mean"],
                        "difference_low": apart["low"],
                        "difference_high": apart["high"],
                    }
                )
    floats = ("mean", "std", "low", "high", "difference", "difference_low", "difference_high")
    types: dict[str, Any] = dict.fromkeys(floats, pl.Float64)
    types |= {"index": pl.Int64, "baseline": pl.Int64}
    return pl.DataFrame(rows, schema_overrides=types, infer_schema_length=None)


def _finite(values: Sequence[Any], index: int | None) -> list[float]:
    picked = [v if index is None or v is None else v[index] for v in values]
    return [v for v in picked if v is not None and np.isfinite(v)]


def _mean(values: list[float]) -> dict[str, Any]:
    """A mean with an interval of two standard errors to each side."""
    n = len(values)
    mean = float(np.mean(values)) if n else None
    if n < 2 or mean is None:
        return {"n": n, "mean": mean, "std": None, "low": None, "high": None}
    std = float(np.std(values, ddof=1))
    half = 2 * std / n**0.5
    return {"n": n, "mean": mean, "std": std, "low": mean - half, "high": mean + half}
