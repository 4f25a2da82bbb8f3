"""Examples for the figures of `sublab verify`: whole curves, and a grid of steps.

Which instances are shown is a rule, not a choice: of each architecture, the first in the table
that has a smooth activation and a cross-entropy for its trait, and whose g changes sign within the
range looked at; where there is none, the first that is not blind.
"""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
from jaxtyping import Array, Float, Key

from experiments.verify import evaluate as verify
from experiments.verify import instances
from experiments.verify.families import FAMILIES
from experiments.verify.instances import Kinds, draw_one
from sublab import records
from sublab.console import say
from sublab.machine import exact, provenance
from theory.alignment import student_direction, teacher_direction, unit_of_eps
from theory.guarantee import safe_step, trait_change
from theory.passes import inner, step

CURVES, GRID = "verify_curves", "verify_grid"
_VERSION = 1
# Architectures shown; a linear model is aligned throughout.
_SHOWN = ("mlp", "cnn", "attention")
# Steps in the units of `experiments.verify.evaluate`: of the grid, and for a step's curvature.
_STEPS = np.geomspace(0.03, 30.0, 33)
_LOOKED_AT = np.geomspace(0.01, 30.0, 129)

# What is said of an instance that is shown.
_SAID = ("family", "instance", "activation", "loss", "trait")


def choose(table: pl.DataFrame) -> dict[str, int]:
    """The number of the instance to show of each architecture.

    Args:
        table: a row for each instance, as `experiments.verify.run` records them.
    """
    chosen = {}
    for name in _SHOWN:
        rows = table.filter((pl.col("family") == name) & pl.col("horizon").is_not_null())
        good = rows.filter((pl.col("activation") != "relu") & (pl.col("trait") == "cross_entropy"))
        turning = good.filter(pl.col("horizon").is_finite())
        for candidates in (turning, good, rows):
            if len(candidates):
                chosen[name] = candidates["instance"][0]
                break
    return chosen


def record(out: Path, seed: int, table: pl.DataFrame) -> list[records.Record]:
    """The records of the curves of the chosen instances, and of a grid of steps of one of them.

    None where every instance is blind, which few instances may be.

    Args:
        out: the folder of records.
        seed: the base seed of the instances.
        table: a row for each instance.
    """
    chosen = choose(table)
    if not chosen:
        return []
    name = next(iter(chosen))
    rows = {
        family: table.filter(family=family, instance=number).row(0, named=True)
        for family, number in chosen.items()
    }

    def curves() -> tuple[pl.DataFrame, dict[str, Any]]:
        return pl.concat(map(curve_of, rows.values())), provenance(wall_seconds=0.0)

    def grid() -> tuple[pl.DataFrame, dict[str, Any]]:
        start = time.monotonic()
        with exact(x64=True):
            steps = _grid(seed, rows[name])
        return steps, provenance(wall_seconds=time.monotonic() - start)

    config = {"version": _VERSION, "seed": seed}
    shown = config | {"experiment": CURVES, "instances": chosen}
    stepped = config | {"experiment": GRID, "family": name, "instance": chosen[name]}
    return [
        records.find_or_make(out, CURVES, shown, curves, say),
        records.find_or_make(out, GRID, stepped, grid, say),
    ]


def curve_of(row: dict[str, Any]) -> pl.DataFrame:
    """g / a and rho of one instance, a row of the table, and where they end.

    They are at the eps of `experiments.verify.evaluate.WIDE`.

    `eps_star` is where g crosses 0, and `eps_certified` where rho crosses 1, both by a straight
    line over log eps between the two neighbours; infinity where they do not.
    """
    g, rho = (np.array(row[column], float) for column in ("inner_products", "rhos"))
    return pl.DataFrame(
        {name: row[name] for name in _SAID}
        | {
            "eps": verify.WIDE,
            "inner_product": g,
            "rho": rho,
            "eps_star": _crossing(g),
            "eps_certified": _crossing(1 - rho),
        }
    )


def _crossing(value: Float[np.ndarray, " eps"]) -> float:
    """The eps of WIDE at which a curve goes below 0, by a straight line over log eps."""
    below = np.flatnonzero(~(value > 0))
    if not len(below):
        return float("inf")
    if below[0] == 0:
        return 0.0
    before, after = value[below[0] - 1], value[below[0]]
    part = before / (before - after) if np.isfinite(after) else 0.0
    ends = np.log(verify.WIDE[below[0] - 1 : below[0] + 1])
    return float(np.exp(ends[0] + part * (ends[1] - ends[0])))


def _grid(seed: int, row: dict[str, Any]) -> pl.DataFrame:
    """What a student's step does to one instance's trait loss, for each pair of step sizes."""
    (family,) = (family for family in FAMILIES if family.name == row["family"])
    key, kinds = draw_one(seed, family, row["instance"])

    @jax.jit
    def evaluate(key: Key[Array, ""], kinds: Kinds) -> tuple[Float[Array, "..."], ...]:
        instance = instances.draw(family, key, kinds)
        apply, loss = instances.model(family, instance), instances.loss(instance)
        trait = instances.trait_loss(apply, instance)
        start, inputs = instance.params, instance.inputs
        direction = teacher_direction(trait, start)
        unit = unit_of_eps(apply, start, direction, inputs)
        way = student_direction(apply, loss, start, step(start, direction, unit), inputs)
        # One unit of alpha moves a logit as far as one unit of eps did, at eps = 1.
        alpha_unit = unit_of_eps(apply, start, way, inputs)

        def reach(eps: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
            way = student_direction(apply, loss, start, step(start, direction, eps), inputs)
            g = inner(way, direction)
            return safe_step(trait, start, way, alpha_unit * _LOOKED_AT).alpha, g

        safe, g = jax.lax.map(reach, unit * _STEPS)
        change = trait_change(apply, loss, trait, start, unit * _STEPS, alpha_unit * _STEPS, inputs)
        return trait(start), change, safe / alpha_unit, g

    value, change, safe, g = (np.asarray(part) for part in evaluate(key, kinds))
    return pl.DataFrame(
        {name: row[name] for name in _SAID}
        | {
            "trait_loss": float(value),
            "eps": np.repeat(_STEPS, len(_STEPS)),
            "alpha": np.tile(_STEPS, len(_STEPS)),
            "change": change.ravel(),
            "safe_alpha": np.repeat(safe, len(_STEPS)),
            "inner_product": np.repeat(g, len(_STEPS)),
        }
    )
