"""What `sublab verify` evaluates: suites of random instances, each one program, with its claims.

The architectures of `experiments.verify.families` are one suite each, about one small step; the
others are about what lies beyond it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments.verify import beyond, evaluate, near_start, readout
from experiments.verify.claims import CLAIMS, CONTROLS, Claim, Control
from experiments.verify.families import FAMILIES, Family
from experiments.verify.instances import BLOCK


@dataclass(frozen=True)
class Suite:
    """Random instances of one kind.

    Attributes:
        name: its name in records.
        evaluate: the numbers of one instance: evaluate(key), or evaluate(key, kinds) of a family.
        share: how many instances there are, of so many of one step and so many that are trained.
        block: instances that are evaluated together; it divides the size of a record.
        weight: how long its program takes to compile, roughly, among the others.
        family: the architecture, of a suite that is one.
    """

    name: str
    evaluate: Callable[..., dict[str, Any]]
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
            partial(_of_family, place),
            BLOCK,
            20 + 2 * place,
            family,
        )
        for place, family in enumerate(FAMILIES)
    ),
    Suite("readout", readout.evaluate, lambda _, trained: trained, 50, 8),
    Suite("beyond", beyond.evaluate, lambda instances, _: -(-instances // 10), 50, 16),
    Suite("every_step", near_start.every_step, lambda _, trained: trained, 50, 18),
    Suite("to_rest", near_start.to_rest, lambda _, trained: trained, 50, 19),
)

# Every statement about a number of an instance, and every setting in which one must fail.
ALL_CLAIMS: dict[str, Claim] = (
    CLAIMS | readout.CLAIMS | near_start.EVERY_STEP | near_start.TO_REST | beyond.CLAIMS
)
ALL_CONTROLS: dict[str, Control] = CONTROLS | readout.CONTROLS | near_start.CONTROLS
