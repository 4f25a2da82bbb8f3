"""Claims about the verification: what it evaluates holds, and it would see what does not."""

from collections.abc import Iterator
from functools import partial

import jax
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


# The ten instances of a block, as `sublab verify` evaluates them.
evaluated = jax.jit(jax.vmap(partial(verify.evaluate, MLP), in_axes=(0, None)))


def block(seed: int, kinds: Kinds) -> dict[str, np.ndarray]:
    found = evaluated(jax.random.split(key(seed), instances.BLOCK), kinds)
    return {name: np.asarray(values) for name, values in found.items()}


@settings(max_examples=60)
@given(seed=seeds, kinds=all_kinds)
def test_every_claim_holds_on_every_instance(seed, kinds):
    found = block(seed, kinds)
    relu, blind = int(kinds.activation) == 3, int(kinds.trait) == TRAITS.index("blind")
    for name, claim in CLAIMS.items():
        known = found[name][~np.isnan(found[name])]
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


def test_the_numbers_tell_a_broken_claim():
    assert list(Claim("", 0.0, above=True).holds(np.array([-1e-9, 0.0, 1e-9]))) == [0, 0, 1]
    assert list(Claim("", 3.0).holds(np.array([2.9, 3.0, 3.1, np.inf]))) == [1, 1, 0, 0]


def mutated(monkeypatch, name, wrong):
    """What an evaluation of fixed instances gives when one function of the theory is wrong."""
    monkeypatch.setattr(verify, name, wrong)
    kinds = Kinds(*(jax.numpy.int32(i) for i in (1, LOSSES.index("softmax"), 0, 0)))
    program = jax.vmap(partial(verify.evaluate, MLP), in_axes=(0, None))
    return {
        k: np.asarray(v) for k, v in jax.jit(program)(jax.random.split(key(0), 4), kinds).items()
    }


def test_a_flipped_student_is_seen_by_every_claim_about_its_sign(monkeypatch):
    right = verify.student_direction

    def flipped(*arguments, **keywords):
        return jax.tree.map(lambda leaf: -leaf, right(*arguments, **keywords))

    found = mutated(monkeypatch, "student_direction", flipped)
    for name in ("identity", "lemma_1", "theorem_1", "certificate"):
        assert not CLAIMS[name].holds(found[name]).any(), name


def test_families_cover_depths_widths_and_kinds():
    assert {family.kind for family in FAMILIES} == {"mlp", "cnn", "attention"}
    assert any(family.linear for family in FAMILIES)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert set(CONTROLS) >= {"independent", "rotated", "non_convex"}


def test_perceptrons_have_one_or_two_layers_of_many_widths_and_nothing_else_is_read():
    drawn = jax.jit(jax.vmap(lambda k: instances.draw(MLP, k, Kinds(*(jax.numpy.int32(0),) * 4))))(
        jax.random.split(key(0), 300)
    )
    assert 0.4 < drawn.shallow.mean() < 0.6
    widths = {tuple(int(w.sum()) for w in pair) for pair in zip(*drawn.units, strict=True)}
    assert len(widths) > 100
    assert {first for first, _ in widths} == set(range(4, 25))
    assert {second for _, second in widths} == set(range(4, 17))
    one = jax.tree.map(lambda leaf: leaf[0], drawn)
    apply = instances.model(MLP, one)
    noise = jax.tree.map(lambda leaf: jax.numpy.where(leaf == 0, 1.0, 0.0), one.params)
    moved = jax.tree.map(jax.numpy.add, one.params, noise)
    np.testing.assert_array_equal(apply(moved, one.inputs), apply(one.params, one.inputs))
    assert any(leaf.any() for leaf in jax.tree.leaves(noise))


def test_float32_is_refused():
    with jax.enable_x64(False), pytest.raises(ValueError, match="works in float64"):
        verify.evaluate(MLP, jax.random.key(0), Kinds(*(jax.numpy.int32(0),) * 4))
