"""Claims about the verification: what it evaluates holds, and it would see what does not."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from experiments.verify import evaluate as verify
from experiments.verify import instances
from experiments.verify.claims import CLAIMS, CONTROLS, Claim
from experiments.verify.families import FAMILIES
from experiments.verify.instances import LOSSES, TRAITS, Kinds
from tests.theory.draws import MLP, all_kinds, key, seeds


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def evaluate_block(keys: jax.Array, kinds: Kinds, sign: float | jax.Array) -> dict[str, jax.Array]:
    """The instances of a block, one after the other: a smaller program than of all at once.

    Args:
        keys: the instances' keys.
        kinds: the kinds that they share.
        sign: 1; -1 is the mutant, whose student steps the other way.
    """
    right = verify.student_direction

    def signed(*arguments, **keywords):
        return jax.tree.map(lambda leaf: sign * leaf, right(*arguments, **keywords))

    # One program for both; it takes longer to compile than to run.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "student_direction", signed)
        return jax.lax.map(lambda key: verify.evaluate(MLP, key, kinds), keys)


evaluated = jax.jit(evaluate_block)
# As `sublab verify` evaluates them.
evaluated_at_once = jax.jit(jax.vmap(partial(verify.evaluate, MLP), in_axes=(0, None)))


def block_keys(seed: int) -> jax.Array:
    return jax.random.split(key(seed), instances.BLOCK)


def check_every_claim(numbers: dict[str, np.ndarray], kinds: Kinds) -> None:
    relu, blind = int(kinds.activation) == 3, int(kinds.trait) == TRAITS.index("blind")
    for name, claim in CLAIMS.items():
        known = numbers[name][~np.isnan(numbers[name])]
        assert claim.holds(known).all(), (name, known)
        # A claim is not about an instance only for a reason.
        if name == "linear":
            assert len(known) == 0
        elif name == "blind":
            assert len(known) == (instances.BLOCK if blind else 0)
        elif name in ("theorem_1", "certificate"):
            assert blind == (len(known) == 0)
        elif not claim.smooth:
            assert len(known) == instances.BLOCK
        elif name == "account":
            assert len(known) == (0 if relu else instances.BLOCK)


@pytest.mark.slow
@settings(max_examples=12)
@given(seed=seeds, kinds=all_kinds)
def test_every_claim_holds_on_every_instance(seed, kinds):
    check_every_claim(jax.device_get(evaluated(block_keys(seed), kinds, 1.0)), kinds)


@pytest.mark.slow
@settings(max_examples=100)
@given(seed=seeds, kinds=all_kinds)
def test_every_claim_holds_on_a_thousand_instances(seed, kinds):
    check_every_claim(jax.device_get(evaluated_at_once(block_keys(seed), kinds)), kinds)


def test_the_numbers_tell_a_broken_claim():
    assert list(Claim("", 0.0, above=True).holds(np.array([-1e-9, 0.0, 1e-9]))) == [0, 0, 1]
    assert list(Claim("", 3.0).holds(np.array([2.9, 3.0, 3.1, np.inf]))) == [1, 1, 0, 0]


def test_a_flipped_student_is_seen_by_every_claim_about_its_sign():
    kinds = Kinds(*(jnp.int32(i) for i in (1, LOSSES.index("softmax"), 0, 0)))
    right, flipped = (jax.device_get(evaluated(block_keys(0), kinds, sign)) for sign in (1.0, -1.0))
    for name in ("identity", "lemma_1", "theorem_1", "certificate"):
        assert CLAIMS[name].holds(right[name]).all(), name
        assert not CLAIMS[name].holds(flipped[name]).any(), name


def test_families_cover_depths_widths_and_kinds():
    assert {family.kind for family in FAMILIES} == {"mlp", "cnn", "attention"}
    assert any(family.linear for family in FAMILIES)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert set(CONTROLS) >= {"independent", "rotated", "non_convex"}


def test_perceptrons_have_one_or_two_layers_of_many_widths_and_nothing_else_is_read():
    drawn = jax.jit(jax.vmap(lambda k: instances.draw(MLP, k, Kinds(*(jnp.int32(0),) * 4))))(
        jax.random.split(key(0), 300)
    )
    assert 0.4 < drawn.shallow.mean() < 0.6
    widths = {
        tuple(int(w.sum()) for w in pair)
        for pair in zip(*map(np.asarray, drawn.units), strict=True)
    }
    assert len(widths) > 100
    assert {first for first, _ in widths} == set(range(4, 25))
    assert {second for _, second in widths} == set(range(4, 17))
    first = jax.tree.map(lambda leaf: leaf[0], drawn)
    apply = jax.jit(instances.model(MLP, first))
    noise = jax.tree.map(lambda leaf: np.where(leaf == 0, 1.0, 0.0), first.params)
    disturbed = jax.tree.map(np.add, first.params, noise)
    np.testing.assert_array_equal(apply(disturbed, first.inputs), apply(first.params, first.inputs))
    assert any(leaf.any() for leaf in jax.tree.leaves(noise))


def test_float32_is_refused():
    with jax.enable_x64(False), pytest.raises(ValueError, match="works in float64"):
        verify.evaluate(MLP, jax.random.key(0), Kinds(*(jnp.int32(0),) * 4))
