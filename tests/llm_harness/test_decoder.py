"""Claims about the transformer: what it sees, and that its cache changes nothing."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from llm_harness.corpus import TOKENIZER
from llm_harness.tiny_decoder import DecoderArchitecture, Params, TinyApply, draw, merged

# Float32, through a few matrix products.
assert_close = partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)
TWO_LAYERS = DecoderArchitecture(TOKENIZER.size, width=16, layers=2, heads=2)


@pytest.fixture(scope="module")
def params() -> Params:
    drawn = draw(TWO_LAYERS, jax.random.key(0)[None])
    return jax.tree.map(lambda leaf: leaf[0], drawn)


@pytest.fixture(scope="module")
def full(params: Params) -> Callable[[Array], np.ndarray]:
    """Logits at all places."""
    compiled = jax.jit(TinyApply(TWO_LAYERS))
    return lambda tokens: np.asarray(compiled(params, tokens))


@pytest.fixture(scope="module")
def tokens() -> Array:
    return jnp.asarray(np.random.default_rng(0).integers(1, TOKENIZER.size, (3, 9)), jnp.int32)


@pytest.mark.parametrize("place", [1, 5, 8])
def test_a_token_changes_no_logits_before_it_and_all_from_it_on(full, tokens, place):
    other = tokens.at[:, place].set(tokens[:, place] % (TOKENIZER.size - 1) + 1)
    before, after = np.asarray(full(tokens)), np.asarray(full(other))
    np.testing.assert_array_equal(before[:, :place], after[:, :place])
    assert (np.abs(before - after)[:, place:].max(axis=-1) > 1e-4).all()


@pytest.mark.parametrize("room", [1, 4])
def test_padding_on_the_left_changes_nothing(full, tokens, room):
    padded = jnp.pad(tokens, [(0, 0), (room, 0)])
    assert_close(full(padded)[:, room:], full(tokens))
    # What is not padding does change it.
    shifted = jnp.pad(tokens, [(0, 0), (room, 0)], constant_values=7)
    assert np.abs(full(shifted)[:, room:] - full(tokens)).max() > 1e-2


def test_padding_on_the_right_and_on_every_side_at_once_changes_nothing(full, tokens):
    padded = jnp.pad(tokens, [(0, 0), (3, 2)])
    assert_close(full(padded)[:, 3:-2], full(tokens))
    assert np.isfinite(full(padded)).all()


def test_order_matters_though_no_place_is_embedded(full, tokens):
    # The first layer's attention is blind to it; the mask of the second is not.
    swapped = tokens[:, jnp.array([1, 0, *range(2, 9)])]
    assert np.abs(full(tokens)[:, -1] - full(swapped)[:, -1]).max() > 1e-4


def test_a_cached_step_equals_the_full_pass(params, full, tokens):
    padded = jnp.pad(tokens, [(0, 0), (4, 0)])
    given, width = 8, padded.shape[1]
    decoder = merged(TWO_LAYERS, params)
    _, kept = jax.jit(decoder.stream)(padded[:, :given])
    kept = [jnp.pad(part, [(0, 0), (0, width - given), (0, 0), (0, 0), (0, 0)]) for part in kept]
    step, expected = jax.jit(decoder.step), full(padded)
    for place in range(given, width):
        seen = (jnp.arange(width) <= place) & (padded != 0)
        logits, kept = step(padded[:, place], jnp.int32(place), seen, kept)
        assert_close(logits, expected[:, place])


def test_logits_from_a_place_on_are_those_of_all_places_cut(params, full, tokens):
    cut = jax.jit(TinyApply(TWO_LAYERS, 6))(params, tokens)
    assert_close(cut, full(tokens)[:, 6:])
    assert TinyApply(TWO_LAYERS, 6) == TinyApply(TWO_LAYERS, 6) != TinyApply(TWO_LAYERS, 5)


def test_a_draw_depends_on_its_key_alone():
    keys = jax.random.split(jax.random.key(3), 3)
    three, one = draw(TWO_LAYERS, keys), draw(TWO_LAYERS, keys[1:2])
    for many, alone in zip(jax.tree.leaves(three), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(many[1], alone[0], rtol=1e-6)
    assert np.abs(three["output"]["kernel"][0] - three["output"]["kernel"][1]).max() > 0.01
