"""The tables of a sweep: one row a model, and means with intervals, paired with a baseline."""

from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from experiments.sweep.file import LABEL, Point, Sweep
from sublab.statistics import mean_interval
from toymlp.measures import columns_of

_INTERVALS = ("mean", "std", "low", "high", "difference", "difference_low", "difference_high")


def runs_table(sweep: Sweep, tables: list[pl.DataFrame]) -> pl.DataFrame:
    """One row per point and run.

    Args:
        sweep: what was run.
        tables: of each point, one row a run.
    """
    return pl.concat(
        [
            table.select(
                pl.lit(number).cast(pl.Int64).alias("setting"),
                *(_axis(sweep, name, point) for name in _axes(sweep)),
                pl.all(),
            )
            for number, (point, table) in enumerate(zip(sweep.points, tables, strict=True))
        ],
        how="vertical_relaxed",
    )


def summary_table(sweep: Sweep, tables: list[pl.DataFrame]) -> pl.DataFrame:
    """One row per point, metric, and place in a metric that is a list.

    Means are over runs whose value is finite, with 95 % t-intervals; differences are paired: of
    each run with the same run of the point's baseline.
    """
    rows: list[dict[str, Any]] = []
    numbers = {id(point): number for number, point in enumerate(sweep.points)}
    for number, (point, table) in enumerate(zip(sweep.points, tables, strict=True)):
        other = sweep.baseline_of(point) if sweep.baseline else None
        against = None if other is None or other is point else numbers[id(other)]
        head = {"setting": number} | {
            name: point.label if name == LABEL else point.coordinates[name] for name in _axes(sweep)
        }
        for metric in columns_of(sweep.measure):
            theirs = None if against is None else tables[against][metric]
            for index, mine, its in _parts(table[metric], theirs):
                row = _row(mine, its)
                if row is not None:
                    rows.append(
                        head | {"metric": metric, "index": index, "baseline": against} | row
                    )
    schema = {"setting": pl.Int64, "index": pl.Int64, "baseline": pl.Int64, "n": pl.Int64}
    schema |= {name: _type(sweep, name) for name in _axes(sweep)}
    return pl.DataFrame(
        rows,
        schema_overrides=schema | dict.fromkeys(_INTERVALS, pl.Float64),
        infer_schema_length=None,
    )


def _row(mine: np.ndarray, its: np.ndarray | None) -> dict[str, Any] | None:
    finite = mine[np.isfinite(mine)]
    if not len(finite):
        return None
    row = asdict(mean_interval(finite))
    low = high = difference = None
    if its is not None:
        apart = (mine - its)[np.isfinite(mine) & np.isfinite(its)]
        if len(apart):
            paired = mean_interval(apart)
            difference, low, high = paired.mean, paired.low, paired.high
    return row | {"difference": difference, "difference_low": low, "difference_high": high}


def _parts(mine: pl.Series, its: pl.Series | None):
    """A metric's values over runs; of a list, place by place."""
    if mine.dtype != pl.List:
        yield None, _numbers(mine), None if its is None else _numbers(its)
        return
    length = max((len(value) for value in mine if value is not None), default=0)
    same = its is not None and {len(v) for v in its if v is not None} == {length}
    for index in range(length):
        theirs = _numbers(its.list.get(index)) if same and its is not None else None
        yield index, _numbers(mine.list.get(index, null_on_oob=True)), theirs


def _numbers(series: pl.Series) -> np.ndarray:
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _axes(sweep: Sweep) -> tuple[str, ...]:
    return (LABEL, *(name for name in sweep.axes if name != LABEL))


def _axis(sweep: Sweep, name: str, point: Point) -> pl.Expr:
    value = point.label if name == LABEL else point.coordinates[name]
    return pl.lit(value, dtype=_type(sweep, name)).alias(name)


def _type(sweep: Sweep, name: str) -> Any:
    if name == LABEL:
        return pl.String
    kinds = {type(point.coordinates[name]) for point in sweep.points} - {type(None)}
    if kinds == {bool}:
        return pl.Boolean
    if kinds == {int}:
        return pl.Int64
    return pl.Float64 if kinds <= {int, float} else pl.String
