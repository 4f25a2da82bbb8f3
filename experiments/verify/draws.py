"""What `sublab verify` draws: an instance's key and kinds, from the seed and its number alone."""

import zlib

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from experiments.verify.evaluate import BLOCK
from experiments.verify.families import ACTIVATIONS, Family
from experiments.verify.instances import DATA, LOSSES, TRAITS, Kinds
from sublab.randomness import run_keys

CHOICES = {"activation": tuple(ACTIVATIONS), "loss": LOSSES, "trait": TRAITS, "data": DATA}


def draw_kinds(seed: int, family: Family, first: int, blocks: int) -> dict[str, np.ndarray]:
    """The kinds of `blocks` blocks from block `first` on, as indices; any block alike alone."""
    rows = [
        np.random.default_rng([seed, zlib.crc32(family.name.encode()), block]).integers(
            [len(names) for names in CHOICES.values()]
        )
        for block in range(first, first + blocks)
    ]
    return dict(zip(CHOICES, np.array(rows, np.int32).T, strict=True))


def draw_keys(seed: int, family: Family, numbers: Int[Array, " n"]) -> Key[Array, " n"]:
    """One key for the instance of each number."""
    return run_keys(seed, f"verify {family.name}", numbers)


def draw_one(seed: int, family: Family, number: int) -> tuple[Key[Array, ""], Kinds]:
    """Key and kinds of one instance."""
    kinds = draw_kinds(seed, family, number // BLOCK, 1)
    key = draw_keys(seed, family, jnp.array([number]))[0]
    return key, Kinds(**{name: jnp.int32(index[0]) for name, index in kinds.items()})
