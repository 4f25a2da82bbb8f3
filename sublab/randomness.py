"""Random keys by purpose, and shuffles.

A draw depends on (seed, purpose, run) alone, so a run's result cannot depend on which other
runs share its population, on the number of devices, or on how the runs were grouped. The generator
is named here, so that nothing in the environment (JAX_DEFAULT_PRNG_IMPL, JAX_RANDOM_SEED_OFFSET)
changes a draw.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Integer, Key

from sublab.errors import InputError

# The generator of every key in the project.
IMPLEMENTATION = "threefry2x32"


def check_seed(seed: int) -> None:
    """Refuses a seed that a key cannot be made of.

    Raises:
        InputError: says what the range is.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to 2**32 - 1, got {seed}")


def seed_key(seed: int | np.integer | Integer[Array, ""]) -> Key[Array, ""]:
    """The key of a seed from 0 to 2**32 - 1, which may be traced.

    It is `jax.random.key(seed, impl=IMPLEMENTATION)`, without the offset that
    JAX_RANDOM_SEED_OFFSET adds to every seed there.
    """
    words = jnp.stack([jnp.uint32(0), jnp.asarray(seed, jnp.uint32)])
    return jax.random.wrap_key_data(words, impl=IMPLEMENTATION)


def purpose_key(seed: int, purpose: str) -> Key[Array, ""]:
    """The key for everything that is drawn for `purpose` under `seed`."""
    return jax.random.fold_in(seed_key(seed), purpose_of(purpose))


def purpose_of(name: str) -> int:
    """The number of 32 bits that stands for a purpose in `fold_in`."""
    # CRC-32 because Python's own hash of a string differs between processes.
    return zlib.crc32(name.encode())


def run_keys(seed: int, purpose: str, runs: Integer[Array, " runs"]) -> Key[Array, " runs"]:
    """One key per run for `purpose`: fold_in(purpose_key(seed, purpose), run)."""
    key = purpose_key(seed, purpose)
    return jax.vmap(lambda run: jax.random.fold_in(key, run))(runs)


def shuffle(key: Key[Array, ""], size: int) -> Int[Array, " size"]:
    """A uniformly random order of 0 .. size-1, as int32.

    The order that sorts `size` random words of about 32 bits, found by a radix sort with two
    digits. Each digit shares a 32-bit word with the index it moves, so that XLA sorts plain
    integers: on a CPU that is five times faster than `jax.random.permutation`, whose sort carries
    a payload and would take 7 % of the time of an epoch of the paper's MLP.

    Args:
        key: typed key.
        size: number of things to put in order, from 1 to 2**24.

    Raises:
        ValueError: `size` out of range.
    """
    if not 1 <= size <= 2**24:
        raise ValueError(f"size must be from 1 to 2**24, got {size}")
    index_bits = max(1, (size - 1).bit_length())
    digit_bits = 32 - index_bits
    passes = -(-32 // digit_bits) if digit_bits < 16 else 2
    position = jnp.arange(size, dtype=jnp.uint32)
    order = position
    for digit_key in jax.random.split(key, passes):
        digit = jax.random.bits(digit_key, (size,), dtype=jnp.uint32) >> index_bits << index_bits
        order = order[jnp.sort(digit | position) & ((1 << index_bits) - 1)]
    return order.astype(jnp.int32)
