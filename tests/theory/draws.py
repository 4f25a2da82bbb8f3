"""Random instances for the tests of the theory."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from experiments.verify import families, instances
from experiments.verify.families import FAMILIES
from experiments.verify.instances import Kinds


def kinds_of(activation: int, loss: int, trait: int, data: int) -> Kinds:
    return Kinds(*(jnp.int32(index) for index in (activation, loss, trait, data)))


SIZES = (
    len(families.ACTIVATIONS),
    len(instances.LOSSES),
    len(instances.TRAITS),
    len(instances.DATA),
)
all_kinds = st.builds(kinds_of, *(st.integers(0, size - 1) for size in SIZES))
# A smooth activation, and a trait that the student's loss sees.
smooth_kinds = st.builds(
    kinds_of, st.integers(0, 2), st.integers(0, 7), st.integers(0, 2), st.integers(0, 4)
)
seeds = st.integers(0, 2**31 - 1)
(LINEAR, MLP) = (FAMILIES[0], FAMILIES[1])


def key(seed: int) -> jax.Array:
    return jax.random.key(jnp.uint32(seed))


def some(count: int, trait: int | None = None) -> list[tuple[int, Kinds]]:
    """Fixed draws, on which a mutant must be caught at least once."""
    rng = np.random.default_rng(0)
    rows = rng.integers((3, *SIZES[1:]), size=(count, 4))
    if trait is not None:
        rows[:, 2] = trait
    return [(seed, kinds_of(*row)) for seed, row in enumerate(rows)]
