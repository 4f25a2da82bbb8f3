"""The tables of a sweep: one row a student, and means with intervals, paired with a baseline.

What figures and tables need to know of settings (titles, phrases, chance, which published values
stand beside equal settings) is decided here, where the settings are known, and recorded.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import polars as pl

from experiments.sweep.file import LABEL, Point, PublishedValue, Sweep
from experiments.sweep.store import SweepStore, column_type
from sublab import settings
from sublab.statistics import Published, compare, mean_interval, summarise
from toymlp.checks import canonical, expected_accuracy, notes
from toymlp.data import size_of
from toymlp.measures import columns_of
from toymlp.settings import Setting
from toymlp.sources import source_of


def runs_table(sweep: Sweep, runs: int, store: SweepStore) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is recorded of a sweep's points.

    Args:
        sweep: its points and measurements.
        runs: number of runs.
        store: records.

    Returns:
        One row per point and run, with a column a metric; and the same, one row a value, with
        columns point, metric, index (place in a list, else null), run, value.
    """
    columns = columns_of(sweep.measure)
    rows = [
        {"point": number, "run": run} | {name: row[name] for name in columns}
        for number, point in enumerate(sweep.points)
        for run in range(point.runs(runs))
        if (row := store.row((point.setting, run))) is not None
    ]
    types = {"point": pl.Int64, "run": pl.Int64}
    types |= {name: column_type(about) for name, about in columns.items()}
    table = pl.DataFrame(rows, schema=types)
    parts = []
    for name, about in columns.items():
        values = table.select(
            "point", pl.lit(name).alias("metric"), "run", pl.col(name).alias("value")
        )
        if about.many:
            places = pl.int_ranges(pl.col("value").list.len()).alias("index")
            values = values.with_columns(places).explode("value", "index")
        else:
            values = values.with_columns(pl.lit(None, pl.Int64).alias("index"))
        parts.append(
            values.select(
                "point",
                "metric",
                pl.col("index").cast(pl.Int64),
                "run",
                pl.col("value").cast(pl.Float64),
            )
        )
    return table, pl.concat(parts)


def summary_table(sweep: Sweep, long: pl.DataFrame) -> pl.DataFrame:
    """One row per point, metric, and place in a metric that is a list.

    Means are over runs whose value is finite, with 95 % intervals; differences are paired: of each
    run with the same run of the point's baseline. `expected` is the exact expectation of accuracy
    where it is known before anything is trained.

    Args:
        sweep: its points.
        long: the second table of `runs_table`.
    """
    numbers = {id(point): number for number, point in enumerate(sweep.points)}
    baseline: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for number, point in enumerate(sweep.points) if sweep.baseline else ():
        other = sweep.baseline_of(point)
        if other is not None and other is not point:
            baseline[number,] = (numbers[id(other)],)
    columns = columns_of(sweep.measure)
    shares = {name for name, about in columns.items() if about.share}
    summary = summarise(long, by=["point"], shares=shares, baseline=baseline)
    against = pl.DataFrame(
        {
            "point": [point for (point,) in baseline],
            "baseline": [other for (other,) in baseline.values()],
        },
        schema={"point": pl.Int64, "baseline": pl.Int64},
    )
    expected = pl.DataFrame(
        {
            "point": range(len(sweep.points)),
            "metric": "accuracy",
            "expected": [expected_accuracy(point.setting) for point in sweep.points],
        },
        schema={"point": pl.Int64, "metric": pl.String, "expected": pl.Float64},
    )
    summary = summary.join(against, on="point", how="left", maintain_order="left")
    return summary.join(expected, on=["point", "metric"], how="left", maintain_order="left")


def notes_of(sweep: Sweep) -> list[str]:
    """What is known of a sweep's points before anything is trained, in lines.

    Args:
        sweep: its points.
    """
    noted: dict[str, list[Point]] = {}
    for point in sweep.points:
        for note in notes(point.setting):
            noted.setdefault(note, []).append(point)
    lines = []
    for note, points in noted.items():
        labels = dict.fromkeys(point.label for point in points)
        alike = [point for point in sweep.points if point.label in labels]
        whole = None not in labels and len(alike) == len(points)
        where = (
            ", ".join(f'"{label}"' for label in labels)
            if whole
            else f"at {len(points)} of {len(sweep.points)} points"
        )
        lines.append(f"note: {where}: {note}")
    return lines


def summary_config(
    sweep: Sweep, images: Callable[[Setting], int], runs: int, seed: int
) -> dict[str, Any]:
    """What the figure and the table of a sweep need to know, as JSON has it.

    Args:
        sweep: with canonical settings.
        images: training images of a setting's data set, of the classes that are kept.
        runs: number of runs.
        seed: base seed.
    """
    columns = columns_of(sweep.measure)
    datasets = list(dict.fromkeys(point.setting.dataset for point in sweep.points))
    return {
        "name": sweep.name,
        "title": sweep.title,
        "size": sweep.size,
        "seed": seed,
        "runs": runs,
        "axes": list(sweep.axes),
        "axis_titles": {
            name: _whose(name, settings.title_of(Setting, name))
            for name in sweep.axes
            if name != LABEL
        },
        "metric_titles": {
            name: about.title or name.replace("_", " ") for name, about in columns.items()
        },
        "measure": list(sweep.measure),
        "baseline": sweep.baseline,
        "dataset_title": source_of(datasets[0]).title if len(datasets) == 1 else None,
        "shared": shared_phrases(sweep, images),
        "points": [_point(point, runs) for point in sweep.points],
        "panels": list(sweep.panels),
    }


def shared_phrases(sweep: Sweep, images: Callable[[Setting], int]) -> list[str]:
    """In words, every setting that all points share and that is not the preprint's.

    What follows from the rest (the batch of a data set's size, a default of a kind that was
    chosen) is not said, nor are the data set and the axes: a figure says those elsewhere.

    Args:
        sweep: with canonical settings.
        images: training images of a setting's data set, of the classes that are kept.
    """
    tables = [settings.flatten(point.setting) for point in sweep.points]
    there = images(sweep.points[0].setting)
    phrases = []
    for name, value in tables[0].items():
        everywhere = all(name in table and table[name] == value for table in tables)
        if name in (*sweep.axes, "dataset") or not everywhere:
            continue
        rest = {
            key: said
            for key, said in tables[0].items()
            if key != name and not key.startswith(f"{name}.")
        }
        unsaid = canonical(settings.build(Setting, rest), there)
        if settings.flatten(unsaid).get(name) != value:
            phrases.append(_phrase(name, value))
    for name, value in sweep.changes.items():
        # What the command line set and not every point has.
        if name not in sweep.axes and not all(name in table for table in tables):
            phrases.append(f"{_phrase(name, value)}, where it applies")
    return phrases


def _phrase(name: str, value: Any) -> str:
    """A setting in words."""
    return _whose(name, settings.in_words(Setting, name, value))


def _whose(name: str, words: str) -> str:
    """Words on a setting; of the teacher's training and of cloning they say whose it is."""
    for owner, whose in (("teacher.", "teacher"), ("start.clone.", "cloning")):
        if name.startswith(owner) and not words.startswith(owner):
            return f"{whose}: {words}"
    return words


def published_rows(
    sweep: Sweep, images: Callable[[Setting], int], table: pl.DataFrame
) -> list[dict[str, Any]]:
    """What others found, beside ours where the settings are equal.

    A published value is beside a point whose setting is that of the published experiment, with the
    coordinates that it names; then it gets a verdict, if runs and interval were published and we
    have ten runs.

    Args:
        sweep: with canonical settings.
        images: training images of a setting's data set, of the classes that are kept.
        table: the first table of `runs_table`.
    """
    rows = []
    for value in sweep.published:
        points = sweep.points_at(value)
        differences = {
            number: _differences(sweep.points[number], value, images) for number in points
        }
        equals = [number for number, keys in differences.items() if not keys]
        differs = [] if equals else sorted({key for keys in differences.values() for key in keys})
        # A level, which has no place, stands where some point has the published setting.
        beside = (equals or points) if value.at else []
        point = beside[0] if len(beside) == 1 else None
        row: dict[str, Any] = asdict(value) | {
            "point": point,
            "equal": bool(equals) and value.mean is not None,
            "differs": differs,
            "ours": None,
            "difference": None,
            "allowed": None,
            "agrees": None,
        }
        if point is not None and value.metric in table.columns:
            sample = table.filter(point=point)[value.metric].drop_nulls().to_numpy()
            if len(sample):
                about = columns_of(sweep.measure)[value.metric]
                row["ours"] = asdict(mean_interval(sample, about.share))
            if row["equal"] and value.half_width is not None and value.n is not None:
                assert value.mean is not None
                verdict = compare(sample, Published(value.mean, value.half_width, value.n))
                row |= asdict(verdict) if verdict else {}
        rows.append(row)
    return rows


def _differences(
    point: Point, value: PublishedValue, images: Callable[[Setting], int]
) -> list[str]:
    """The keys in which a point is not the published experiment.

    An axis that the published value names is as it says; of a level all are as the point has them.
    """
    axes = {
        name: at
        for name, at in point.coordinates.items()
        if name != LABEL and at is not None and name not in value.setting
        if name in value.at or not value.at
    }
    wanted = value.setting | axes
    there = settings.applicable(Setting, wanted)
    if elsewhere := value.setting.keys() - there:
        return sorted(elsewhere)
    expected = settings.build(Setting, {name: wanted[name] for name in there})
    if expected.dataset != point.setting.dataset:
        return ["dataset"]
    expected = canonical(expected, images(point.setting))
    ours = settings.differences(point.setting, expected)
    return sorted(ours.keys() | settings.differences(expected, point.setting).keys())


def _point(point: Point, runs: int) -> dict[str, Any]:
    setting = point.setting
    return {
        "runs": point.runs(runs),
        "label": point.label,
        "coordinates": point.coordinates,
        "classes": setting.classes or size_of(setting.dataset).classes,
        "dataset_title": source_of(setting.dataset).title,
    }
