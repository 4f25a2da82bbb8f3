"""What `sublab verify` evaluates: suites of random instances, each one program, with its claims.

The architectures of `experiments.verify.families` are one suite each, about one small step; the
others are about what lies beyond it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from experiments.verify import beyond, evaluate, near_start, readout
from experiments.verify.claims import CLAIMS, CONTROLS, Claim, Control
from experiments.verify.families import FAMILIES, Family
from experiments.verify.instances import BLOCK


@dataclass(frozen=True, eq=False)
class Suite:
    """Random instances of one kind.

    Attributes:
        name: its name in records.
        evaluate: the numbers of one instance: evaluate(key), or evaluate(key, kinds) of a family.
        claims: the statements about its numbers.
        controls: the statements about its numbers that must fail.
        share: how many instances there are, of so many of one step and so many that are trained.
        block: instances that are evaluated together; it divides the size of a record.
        weight: how long its program takes to compile, roughly, among the others.
        family: the architecture, of a suite that is one.
    """

    name: str
    evaluate: Callable[..., dict[str, Any]]
    claims: dict[str, Claim]
    controls: dict[str, Control]
    share: Callable[[int, int], int]
    block: int
    weight: int
    family: Family | None = None


def _of_family(place: int, instances: int, _: int) -> int:
    """An even share."""
    whole, left = divmod(instances, len(FAMILIES))
    return whole + (place < left)


SUITES = (
    *(
        Suite(
            family.name,
            partial(evaluate.evaluate, family),
            CLAIMS,
            CONTROLS,
            partial(_of_family, place),
            BLOCK,
            20 + 2 * place,
            family,
        )
        for place, family in enumerate(FAMILIES)
    ),
    Suite(
        "readout",
        readout.evaluate,
        readout.CLAIMS,
        readout.CONTROLS,
        lambda _, trained: trained,
        50,
        8,
    ),
    Suite(
        "every_step",
        near_start.every_step,
        near_start.EVERY_STEP,
        near_start.CONTROLS,
        lambda _, trained: trained,
        50,
        18,
    ),
    Suite(
        "to_rest",
        near_start.to_rest,
        near_start.TO_REST,
        {},
        lambda _, trained: trained,
        50,
        19,
    ),
    Suite(
        "beyond",
        beyond.evaluate,
        beyond.CLAIMS,
        {},
        lambda instances, _: -(-instances // 10),
        50,
        16,
    ),
)

# Every statement about a number of an instance, and every setting in which one must fail.
ALL_CLAIMS = {name: claim for suite in SUITES for name, claim in suite.claims.items()}
ALL_CONTROLS = {name: control for suite in SUITES for name, control in suite.controls.items()}


def instances_of(name: str, table: pl.DataFrame) -> pl.DataFrame:
    """The rows of the instances that a claim is about; with `about="some"`, of its whole suite.

    Args:
        name: the claim's.
        table: a row for each instance of every suite.
    """
    claim = ALL_CLAIMS[name]
    rows = table.filter(
        pl.col("family").is_in([suite.name for suite in SUITES if name in suite.claims])
    )
    if claim.smooth:
        rows = rows.filter((pl.col("activation") != "relu") | (pl.col("family") == "linear"))
    match claim.about:
        case "seen":
            return rows.filter(pl.col("blind").is_null())
        case "blind":
            return rows.filter(pl.col("blind").is_not_null())
        case "linear":
            return rows.filter(pl.col("family") == "linear")
        case _:
            return rows
