"""Claims about keys and shuffles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sublab import randomness

KEY = jax.random.key(3)


@pytest.mark.parametrize("size", [1, 2, 3, 1437, 60_000, 65_536, 65_537, 112_800])
def test_shuffle_is_a_permutation(size):
    order = np.asarray(randomness.shuffle(KEY, size))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_every_order_of_four_is_equally_likely():
    draws = 24_000
    orders = jax.vmap(lambda key: randomness.shuffle(key, 4))(jax.random.split(KEY, draws))
    _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("size", [60_000, 112_800])
def test_place_after_a_shuffle_does_not_depend_on_place_before(size):
    order = np.asarray(randomness.shuffle(KEY, size))
    correlation = np.corrcoef(order, np.arange(size))[0, 1]
    assert abs(correlation) < 4 / size**0.5
    # Neighbours before are not neighbours after: where one digit alone would betray itself.
    assert np.mean(np.diff(order) == 1) < 4 / size**0.5


def test_a_sort_by_one_sixteen_bit_digit_would_fail_the_test_above():
    digit = np.random.default_rng(0).integers(0, 2**16, 60_000)
    order = np.argsort(np.where(digit < 2**10, 0, digit), kind="stable")
    assert np.mean(np.diff(order) > 0) > 0.5
    assert np.mean(np.diff(np.asarray(randomness.shuffle(KEY, 60_000))) > 0) == pytest.approx(
        0.5, abs=0.02
    )


@pytest.mark.parametrize("size", [0, 2**24 + 1])
def test_shuffle_refuses_a_size_out_of_range(size):
    with pytest.raises(ValueError, match="size must be from 1"):
        randomness.shuffle(KEY, size)


def test_keys_differ_by_seed_purpose_and_run_and_by_nothing_else():
    runs = jnp.arange(5)
    bits = [
        jax.random.key_data(randomness.run_keys(seed, purpose, runs))
        for seed in (0, 1)
        for purpose in ("reference", "student order")
    ]
    assert len(np.unique(np.concatenate(bits), axis=0)) == 20
    alone = randomness.run_keys(1, "reference", jnp.array([3]))
    np.testing.assert_array_equal(jax.random.key_data(alone)[0], bits[2][3])


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_the_key_of_a_seed_is_the_named_generators(seed):
    ours, named = randomness.seed_key(seed), jax.random.key(seed, impl="threefry2x32")
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(named))
    traced = jax.jit(randomness.seed_key)(jnp.uint32(seed))
    np.testing.assert_array_equal(jax.random.key_data(ours), jax.random.key_data(traced))


def test_the_callers_generator_and_types_change_no_key_and_no_shuffle():
    def draws() -> list[np.ndarray]:
        keys = randomness.run_keys(2**32 - 1, "reference", jnp.arange(3))
        order = randomness.shuffle(randomness.purpose_key(5, "order"), 1000)
        return [np.asarray(jax.random.key_data(keys)), np.asarray(order)]

    ours = draws()
    with jax.default_prng_impl("rbg"), jax.enable_x64(True):
        theirs = draws()
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
