"""What the instances of `sublab verify` add up to: claims, order of the remainder, controls."""

from typing import Any

import numpy as np
import polars as pl

from experiments.verify.beyond import RANKS
from experiments.verify.claims import ORDER, ORDER_TOLERANCE, ORDERS, WRONG_LOSSES, Control
from experiments.verify.evaluate import SMALL
from experiments.verify.families import FAMILIES, OUTPUTS
from experiments.verify.suites import ALL_CLAIMS, ALL_CONTROLS, instances_of
from sublab.machine import exact
from sublab.statistics import proportion_interval
from theory.conditions import ConditionError, require_conditions
from theory.losses import Loss

# Below so many instances an order, or a control that has not failed, has no verdict.
_FEW = 30
_FLOATS = ("bound", "worst", "median", "low", "high", "share_near", "r2")


def summarise(table: pl.DataFrame) -> pl.DataFrame:
    """One row per claim, per activation's order, per control, and per rank of LoRA's adapters.

    Columns: kind (claim, order, control, rank), name, statement, instances; for a claim violations,
    bound, above, worst; for an order worst (the pooled slope, that of all instances with an
    intercept each), median, low and high (first and 99th percentile), share_near (within
    ORDER_TOLERANCE of 2), r2 (pooled); for a control violations (instances in which its statement
    fails), bound (the share in which it may hold), median (the share in which it does), low and
    high (its 95 % interval), and named, the condition that the check finds its loss to miss; for a
    rank median (the share of instances in which adapters drawn apart align), low and high (its
    95 % interval), bound (1/2, which the interval must lie above); holds, null where there is none.
    """
    rows = [_claim(name, table) for name in ALL_CLAIMS]
    nonlinear = table.filter(
        pl.col("family").is_in([family.name for family in FAMILIES if not family.linear])
    )
    rows += [_order(name, nonlinear.filter(activation=name)) for name in ORDERS]
    rows += [_control(name, table) for name in ALL_CONTROLS]
    rows += [_rank(rank, table) for rank in RANKS]
    return pl.DataFrame(
        rows,
        schema_overrides=dict.fromkeys(_FLOATS, pl.Float64)
        | {"violations": pl.Int64, "above": pl.Boolean, "holds": pl.Boolean, "named": pl.String},
    )


_EMPTY = {
    "kind": None,
    "name": None,
    "statement": None,
    "instances": 0,
    "violations": None,
    "holds": None,
    "above": None,
    "named": None,
} | dict.fromkeys(_FLOATS)


def _claim(name: str, table: pl.DataFrame) -> dict[str, Any]:
    claim = ALL_CLAIMS[name]
    about = instances_of(name, table)
    values = about[name].drop_nulls().to_numpy()
    # A number that did not come out, of an instance that the claim is about, speaks against it.
    missing = 0 if claim.about == "some" else len(about) - len(values)
    row = _EMPTY | {
        "kind": "claim",
        "name": name,
        "statement": claim.statement,
        "instances": len(values) + missing,
        "bound": claim.bound,
        "above": claim.above,
    }
    if not len(about):
        return row
    violations = int(np.sum(~claim.holds(values))) + missing
    row |= {"violations": violations, "holds": violations == 0}
    if len(values):
        row["worst"] = float(values.min() if claim.above else values.max())
    return row


def _order(activation: str, table: pl.DataFrame) -> dict[str, Any]:
    fits = table.select("slope", "r2").drop_nulls()
    row = _EMPTY | {
        "kind": "order",
        "name": activation,
        "statement": ORDERS[activation],
        "instances": len(fits),
    }
    if not len(fits):
        return row
    slope, r2 = fits["slope"].to_numpy(), fits["r2"].to_numpy()
    # All fits share their eps, so that sums of squares follow from slope and R^2.
    spread = float(np.sum((np.log(SMALL) - np.log(SMALL).mean()) ** 2))
    total = slope**2 * spread / np.maximum(r2, 1e-12)
    pooled, median = float(slope.mean()), float(np.median(slope))
    near = np.abs(slope - ORDER) <= ORDER_TOLERANCE
    # The pooled fit has one slope for all: it misses by what each fit does, and by each slope's
    # distance from it.
    residual = np.sum((1 - r2) * total) + spread * np.sum((slope - pooled) ** 2)
    holds = abs(pooled - ORDER) <= ORDER_TOLERANCE and abs(median - ORDER) <= ORDER_TOLERANCE
    return row | {
        "worst": pooled,
        "median": median,
        "low": float(np.quantile(slope, 0.01)),
        "high": float(np.quantile(slope, 0.99)),
        "share_near": float(near.mean()),
        "r2": float(1 - residual / np.sum(total)),
        "holds": None if activation == "relu" or len(fits) < _FEW else holds,
    }


def _control(name: str, table: pl.DataFrame) -> dict[str, Any]:
    control = ALL_CONTROLS[name]
    values = table[name].drop_nulls().to_numpy()
    condition = _missed_condition(WRONG_LOSSES[name]) if name in WRONG_LOSSES else None
    row = _EMPTY | {
        "kind": "control",
        "name": name,
        "statement": control.statement,
        "instances": len(values),
        "bound": control.most,
    }
    if not len(values):
        return row
    kept = int(control.holds(values).sum())
    low, high = proportion_interval(kept, len(values))
    return row | {
        "violations": len(values) - kept,
        "median": kept / len(values),
        "low": low,
        "high": high,
        "named": condition,
        "holds": _has_failed(control, kept, len(values), high) if condition != "none" else False,
    }


def _has_failed(control: Control, kept: int, instances: int, high: float) -> bool | None:
    """Whether a control's statement holds as seldom as it must; None where that is open."""
    if high < control.most:
        return True
    return None if instances < _FEW or kept / instances < control.most else False


def _rank(rank: int, table: pl.DataFrame) -> dict[str, Any]:
    values = table[f"lora_{rank}"].drop_nulls().to_numpy()
    row = _EMPTY | {
        "kind": "rank",
        "name": str(rank),
        "statement": "LoRA: a > 0 with inner factors drawn apart",
        "instances": len(values),
        "bound": 0.5,
    }
    if not len(values):
        return row
    kept = int((values > 0).sum())
    low, high = proportion_interval(kept, len(values))
    share = {"median": kept / len(values), "low": low, "high": high}
    return row | share | {"holds": low > 0.5 if len(values) >= _FEW else None}


@exact()
def _missed_condition(loss: Loss) -> str:
    """The condition that the check names for a loss, at standard normal logits; or `none`."""
    z, y = np.random.default_rng(0).normal(size=(2, 64, OUTPUTS))
    try:
        require_conditions(loss, z, y)
    except ConditionError as error:
        return str(error).rsplit("(", 1)[1].split(":")[0]
    return "none"
