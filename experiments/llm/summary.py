"""Means over runs of the language-model experiments, with paired differences to the controls."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from llm_harness.pipeline import CONTROLS
from sublab.statistics import mean_interval

# What a student must exceed, run by run, before a trait counts as transmitted.
RIVALS = (
    "reference", "own numbers", "other trait", "shuffled across", "shuffled within", "in context",
)  # fmt: skip
ALL = "all"
# The variation of `sublab llm ingredients` that changes nothing.
UNCHANGED = "unchanged"
_FLOATS = ("std", "low", "high", "difference", "difference_low", "difference_high")


def numbers(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every trait (and all together), way of asking, metric, condition and control."""
    found = []
    for trait in _traits(table):
        for condition in CONTROLS:
            against = RIVALS if condition == "student" else (CONTROLS[condition],)
            found += _rows(table, trait, condition, against)
    return _frame(found)


def numbers_hold(summary: pl.DataFrame) -> bool:
    """Whether the student exceeds every control, and another initialisation does not its own.

    By the rate among the words, without a prefix, over all traits together: 95 % intervals of the
    paired differences.
    """
    some = summary.filter(
        (pl.col("trait") == ALL) & (pl.col("metric") == "among") & ~pl.col("prefix")
    )
    student = some.filter((pl.col("condition") == "student") & pl.col("control").is_not_null())
    other = some.filter(
        (pl.col("condition") == "other initialisation") & pl.col("control").is_not_null()
    )
    above = student["difference_low"].fill_null(-1.0).to_numpy() > 0
    beyond = other["difference_low"].fill_null(-1.0).to_numpy() > 0
    return bool(len(above) == len(RIVALS) and above.all() and not beyond.any())


def transmitted(summary: pl.DataFrame) -> list[str]:
    """The traits of which the student exceeds its own-numbers control, by the 95 % interval."""
    some = summary.filter(
        (pl.col("metric") == "among") & ~pl.col("prefix") & (pl.col("condition") == "student")
        & (pl.col("control") == "own numbers") & (pl.col("trait") != ALL)
        & (pl.col("difference_low") > 0)
    )  # fmt: skip
    return some["trait"].to_list()


def cross_model(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every pair of models: the student against itself before."""
    (trait,) = table["trait"].unique().to_list()
    found = []
    for condition in table["condition"].unique(maintain_order=True):
        before = f"{condition.split(' > ')[1]}, before" if " > " in condition else None
        found += _rows(table, trait, condition, (before,))
    return _frame(found)


def in_context(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every condition: examples of the teacher against the reference's own."""
    (trait,) = table["trait"].unique().to_list()
    found = []
    for condition in table["condition"].unique(maintain_order=True):
        control = {"student": "own numbers", "teacher": "reference"}.get(condition)
        if condition.startswith("in context"):
            control = f"own {condition}"
        found += _rows(table, trait, condition, (control,))
    return _frame(found)


def varied(condition: str, variation: str) -> str:
    """The name of a condition under a variation of the setting."""
    return f"{condition}, {variation}"


def ingredients(table: pl.DataFrame) -> pl.DataFrame:
    """A row for every variation and condition.

    Students against the student of the reference's own numbers under the same variation, and
    against the student of the unchanged setting.
    """
    (trait,) = table["trait"].unique().to_list()
    found = []
    for name in table["condition"].unique(maintain_order=True):
        condition, variation = name.split(", ")
        controls = {
            "teacher": [varied("reference", variation)],
            "student": [varied("own numbers", variation)],
        }.get(condition, [])
        if condition == "student" and variation != UNCHANGED:
            controls.append(varied(condition, UNCHANGED))
        found += _rows(table, trait, name, controls)
    return _frame(found)


def _traits(table: pl.DataFrame) -> list[str]:
    """All together first."""
    traits = table["trait"].unique(maintain_order=True).to_list()
    return [ALL, *traits]


def _rows(
    table: pl.DataFrame, trait: str, condition: str, against: Sequence[str | None]
) -> list[dict[str, Any]]:
    found = []
    for prefix in (False, True):
        for metric in ("among", "plain", "worded"):
            mine = _by_run(table, trait, condition, prefix, metric)
            for control in dict.fromkeys([None, *against]):
                row = {
                    "trait": trait, "condition": condition, "prefix": prefix, "metric": metric,
                    "control": control,
                } | asdict(mean_interval(mine))  # fmt: skip
                if control is not None:
                    its = _by_run(table, trait, control, prefix, metric)
                    apart = mean_interval(mine - its)
                    row |= {
                        "difference": apart.mean,
                        "difference_low": apart.low,
                        "difference_high": apart.high,
                    }
                found.append(row)
    return found


def _by_run(
    table: pl.DataFrame, trait: str, condition: str, prefix: bool, metric: str
) -> np.ndarray:
    """One value a run: of all traits together, the mean over them."""
    some = table.filter((pl.col("condition") == condition) & (pl.col("prefix") == prefix))
    if trait != ALL:
        some = some.filter(pl.col("trait") == trait)
    value = pl.col("among") if metric == "among" else pl.col(metric) / pl.col("n")
    by_run = some.group_by("run").agg(value.mean().alias("value")).sort("run")
    return by_run["value"].to_numpy()


def _frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema_overrides=dict.fromkeys(_FLOATS, pl.Float64) | {"control": pl.String},
        infer_schema_length=None,
    )
