"""Means over runs of the language-model experiments, with paired differences to the controls."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from llm_harness.pipeline import CONTROLS
from sublab.statistics import mean_interval

# What a student must exceed, run by run, before a trait counts as transmitted.
RIVALS = (
    "reference",
    "own numbers",
    "other trait",
    "shuffled across",
    "shuffled within",
    "in context",
)
ALL = "all"
# The variation of `sublab llm ingredients` that changes nothing.
UNCHANGED = "unchanged"
METRICS = ("among", "plain", "worded")
_FLOATS = ("std", "low", "high", "difference", "difference_low", "difference_high")


def numbers(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every trait (and all together), way of asking, metric, condition and control."""
    controls = {name: [control] if control else [] for name, control in CONTROLS.items()}
    return _summary(table, [ALL, *_traits(table)], controls | {"student": RIVALS})


def numbers_hold(summary: pl.DataFrame) -> bool:
    """Whether the student exceeds every control, and another initialisation does not its own.

    By the rate among the words, without a prefix, over all traits together: 95 % intervals of the
    paired differences.
    """

    def surely_above(condition: str) -> np.ndarray:
        rows = summary.filter(
            pl.col("control").is_not_null(),
            trait=ALL,
            condition=condition,
            metric="among",
            prefix=False,
        )
        return rows["difference_low"].fill_null(-1.0).to_numpy() > 0

    student = surely_above("student")
    other = surely_above("other initialisation")
    return bool(len(student) == len(RIVALS) and student.all() and not other.any())


def transmitted(summary: pl.DataFrame) -> list[str]:
    """The traits of which the student exceeds its own-numbers control, by the 95 % interval."""
    rows = summary.filter(
        pl.col("trait") != ALL,
        pl.col("difference_low") > 0,
        condition="student",
        control="own numbers",
        metric="among",
        prefix=False,
    )
    return rows["trait"].to_list()


def cross_model(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every pair of models: the student against itself before."""
    controls = {
        condition: [f"{condition.split(' > ')[1]}, before"] if " > " in condition else []
        for condition in _conditions(table)
    }
    return _summary(table, _traits(table), controls)


def in_context(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every condition: examples of the teacher against the reference's own."""
    controls = {}
    for condition in _conditions(table):
        control = {"student": "own numbers", "teacher": "reference"}.get(condition)
        if condition.startswith("in context"):
            control = f"own {condition}"
        controls[condition] = [control] if control else []
    return _summary(table, _traits(table), controls)


def varied(condition: str, variation: str) -> str:
    """The name of a condition under a variation of the setting."""
    return f"{condition}, {variation}"


def ingredients(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every variation and condition.

    Students against the student of the reference's own numbers under the same variation, and
    against the student of the unchanged setting.
    """
    controls = {}
    for name in _conditions(table):
        condition, variation = name.split(", ")
        controls[name] = {
            "teacher": [varied("reference", variation)],
            "student": [varied("own numbers", variation)],
        }.get(condition, [])
        if condition == "student" and variation != UNCHANGED:
            controls[name].append(varied(condition, UNCHANGED))
    return _summary(table, _traits(table), controls)


def values_of_runs(table: pl.DataFrame) -> pl.DataFrame:
    """One value a run, in the order of the runs.

    Args:
        table: rows of an experiment, with counts of answers.

    Returns:
        A long table with the columns `trait`, `condition`, `prefix`, `metric`, `run` and `value`;
        a trait's values are shares, and those of `ALL` are the means over the traits of a run.
    """
    keys = ["trait", "condition", "prefix", "run"]
    shares = table.select(*keys, "among", *(pl.col(name) / pl.col("n") for name in METRICS[1:]))
    long = shares.unpivot(METRICS, index=keys, variable_name="metric", value_name="value")
    both = pl.concat([long.with_columns(trait=pl.lit(ALL)), long])
    return both.group_by(*keys, "metric").agg(pl.col("value").mean()).sort("run")


def _summary(
    table: pl.DataFrame, traits: Sequence[str], controls: Mapping[str, Sequence[str]]
) -> pl.DataFrame:
    """A row for every trait, condition, way of asking and metric, and one more for each control.

    Args:
        table: rows of an experiment.
        traits: names of traits, in the order of the summary; `ALL` for all together.
        controls: of each condition, the conditions that it is compared with, run by run.
    """
    names = ("trait", "condition", "prefix", "metric")
    samples = {
        key: part["value"].to_numpy() for key, part in values_of_runs(table).group_by(*names)
    }
    rows = []
    for trait in traits:
        for condition, against in controls.items():
            for prefix in (False, True):
                for metric in METRICS:
                    sample = samples[trait, condition, prefix, metric]
                    key = dict(zip(names, (trait, condition, prefix, metric), strict=True))
                    rows.append(key | {"control": None} | _statistics(sample))
                    for control in against:
                        baseline = samples[trait, control, prefix, metric]
                        rows.append(key | {"control": control} | _statistics(sample, baseline))
    return pl.DataFrame(
        rows,
        schema_overrides=dict.fromkeys(_FLOATS, pl.Float64) | {"control": pl.String},
        infer_schema_length=None,
    )


def _statistics(sample: np.ndarray, baseline: np.ndarray | None = None) -> dict[str, Any]:
    """Mean and interval over runs, and those of the paired difference to a baseline's runs.

    The one place where runs become means and intervals.
    """
    statistics = asdict(mean_interval(sample))
    if baseline is None:
        return statistics
    difference = mean_interval(sample - baseline)
    return statistics | {
        "difference": difference.mean,
        "difference_low": difference.low,
        "difference_high": difference.high,
    }


def _traits(table: pl.DataFrame) -> list[str]:
    return table["trait"].unique(maintain_order=True).to_list()


def _conditions(table: pl.DataFrame) -> list[str]:
    return table["condition"].unique(maintain_order=True).to_list()
