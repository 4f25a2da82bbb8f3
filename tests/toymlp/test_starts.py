"""Claims about where students start."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from toymlp.networks import Plan, split_parts
from toymlp.settings import Knobs
from toymlp.starts import independent, references, starts, with_shared

PLAN = Plan("mlp", 64, (16, 16), 10, 5, "relu", True)
RUNS = (0, 1)
KNOBS = Knobs(aux=5)


def flat(params):
    """All parameters that are drawn: the biases are 0."""
    kernels = [part["kernel"] for part in split_parts(params).values()]
    return np.concatenate([np.ravel(kernel) for kernel in kernels])


def of(start, *, plan=PLAN, runs=RUNS, seed=0, generation=1, **knobs):
    return starts(plan, replace(KNOBS, start=start, **knobs), runs, seed, generation=generation)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def reference():
    return references(PLAN, RUNS, 1.0, 0)


@pytest.fixture(scope="module")
def other():
    return independent(PLAN, RUNS, 1.0, 0)


def correlation(one, other):
    return np.corrcoef(flat(one), flat(other))[0, 1]


def test_the_reference_is_the_teachers_start_for_every_generation(reference):
    for generation in (1, 2):
        assert_same(of("reference", generation=generation), reference)
    # The teacher's has one auxiliary logit, but the same everything else.
    of_teacher = references(replace(PLAN, aux=1), RUNS, 1.0, 0)
    for mine, its in zip(reference, of_teacher, strict=True):
        for name in PLAN.parts[:-1]:
            assert_same(split_parts(mine)[name], split_parts(its)[name])


def test_references_differ_by_run_and_seed_and_a_run_has_its_own_beside_any_others(reference):
    assert_same(references(PLAN, (1, 0), 1.0, 0), reference[::-1])
    assert_same(references(PLAN, (7, 1), 1.0, 0)[1], reference[1])
    bound = 4 / len(flat(reference[0])) ** 0.5
    assert abs(correlation(reference[0], reference[1])) < bound
    assert abs(correlation(reference[0], references(PLAN, RUNS, 1.0, 1)[0])) < bound


def test_the_scale_is_a_factor_on_what_is_drawn(reference):
    for start in ("reference", "independent", "interpolated"):
        ones, threes = (of(start, init_scale=scale)[1] for scale in (1.0, 3.0))
        np.testing.assert_allclose(flat(threes), 3 * flat(ones), rtol=1e-5, atol=1e-6)
    assert np.any(flat(of("reference")[1]) != 0)


def test_an_independent_start_is_uncorrelated_with_the_reference(reference, other):
    found = of("independent")
    assert_same(found, other)
    bound = 4 / len(flat(other[0])) ** 0.5
    for mine, its in zip(found, reference, strict=True):
        assert abs(correlation(mine, its)) < bound
        assert np.all(flat(mine) != flat(its))
        assert flat(mine).std() == pytest.approx(flat(its).std(), rel=0.15)


def test_independent_draws_are_a_runs_and_a_generations_own(other):
    bound = 4 / len(flat(other[0])) ** 0.5
    second = of("independent", generation=2)
    assert_same(second, independent(PLAN, RUNS, 1.0, 0, generation=2))
    assert abs(correlation(second[0], other[0])) < bound
    assert abs(correlation(other[1], other[0])) < bound
    assert abs(correlation(of("independent", seed=1)[0], other[0])) < bound
    assert_same(of("independent", runs=(1, 8))[0], other[1])


def test_all_settings_of_a_run_use_the_same_independent_draw(other):
    """Whatever the learning rate or the start that it goes into."""
    assert_same(of("independent", student_learning_rate=1.0, logits="all"), other)
    assert_same(of("interpolated", interpolation=1.0), other)
    assert_same(of("layerwise", redrawn=PLAN.parts), other)


def test_weight_0_of_an_interpolation_is_the_reference_and_1_the_independent_draw(reference, other):
    assert_same(of("interpolated", interpolation=0.0), reference)
    assert_same(of("interpolated", interpolation=1.0), other)
    for found, mine, its in zip(
        of("interpolated", interpolation=0.25), reference, other, strict=True
    ):
        by_hand = 0.75 * flat(mine) + 0.25 * flat(its)
        np.testing.assert_allclose(flat(found), by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [0.1, 2.0])
def test_a_perturbation_is_normal_in_standard_deviations_of_each_array(reference, size):
    found = of("perturbed", perturbation=size)
    for mine, its in zip(found, reference, strict=True):
        for name in PLAN.parts:
            ours, theirs = split_parts(mine)[name], split_parts(its)[name]
            noise = (ours["kernel"] - theirs["kernel"]) / theirs["kernel"].std()
            assert noise.std() == pytest.approx(size, rel=4 / (2 * noise.size) ** 0.5)
            assert abs(np.corrcoef(noise.ravel(), theirs["kernel"].ravel())[0, 1]) < (
                4 / noise.size**0.5
            )
            # Biases are all 0, and have no standard deviation.
            np.testing.assert_array_equal(ours["bias"], 0)


def test_no_perturbation_is_the_reference_and_a_larger_one_the_same_noise_more_of_it(reference):
    assert_same(of("perturbed", perturbation=0.0), reference)
    small, large = (of("perturbed", perturbation=size) for size in (0.1, 0.2))
    for a, b, mine in zip(small, large, reference, strict=True):
        np.testing.assert_allclose(
            flat(b) - flat(mine), 2 * (flat(a) - flat(mine)), rtol=1e-3, atol=1e-6
        )
    noise = [flat(some) - flat(mine) for some, mine in zip(small, reference, strict=True)]
    assert abs(np.corrcoef(noise[:2])[0, 1]) < 4 / len(noise[0]) ** 0.5
    again = flat(of("perturbed", generation=2)[0]) - flat(reference[0])
    assert abs(np.corrcoef(noise[0], again)[0, 1]) < 4 / len(again) ** 0.5
    assert_same(of("perturbed", runs=(1, 4))[0], small[1])


@pytest.mark.parametrize("redrawn", [("hidden_1",), ("hidden_2", "aux_head"), PLAN.parts])
def test_a_layerwise_start_redraws_the_named_parts_and_no_other(reference, other, redrawn):
    for found, mine, its in zip(of("layerwise", redrawn=redrawn), reference, other, strict=True):
        for name, part in split_parts(found).items():
            assert_same(part, split_parts(its if name in redrawn else mine)[name])
            assert np.any(part["kernel"] != split_parts(mine)[name]["kernel"]) == (name in redrawn)


@pytest.mark.parametrize("shared", [("hidden_1",), ("class_head", "aux_head")])
def test_shared_parts_of_an_independent_start_are_the_references_and_no_other(
    reference, other, shared
):
    for found, mine, its in zip(of("independent", shared=shared), reference, other, strict=True):
        for name, part in split_parts(found).items():
            assert_same(part, split_parts(mine if name in shared else its)[name])


def test_a_student_of_another_depth_shares_the_very_parts_of_its_teachers_reference(reference):
    shallow = replace(PLAN, hidden=(16,))
    shared = ("hidden_1", "aux_head")
    for found, mine in zip(of("independent", plan=shallow, shared=shared), reference, strict=True):
        parts = split_parts(found)
        assert tuple(parts) == shallow.parts
        for name in shared:
            assert_same(parts[name], split_parts(mine)[name])
        assert np.all(parts["class_head"]["kernel"] != mine["class_head"]["kernel"])


def test_nothing_shared_leaves_the_models_as_they_are(other):
    assert with_shared(other, PLAN, set(), RUNS, 1.0, 0) is other


def test_a_matched_start_is_what_cloning_made_of_it(other):
    knobs = replace(KNOBS, start="matched", aux=2)
    found = starts(PLAN, knobs, RUNS, 0, cloned=other)
    for mine, its in zip(found, other, strict=True):
        np.testing.assert_array_equal(mine["hidden"][0]["kernel"], its["hidden"][0]["kernel"])
        np.testing.assert_array_equal(
            mine["aux_head"]["kernel"][:, :2], its["aux_head"]["kernel"][:, :2]
        )
        np.testing.assert_array_equal(mine["aux_head"]["kernel"][:, 2:], 0)


EVERY = [
    ("reference", {}),
    ("independent", {}),
    ("independent", {"shared": ("aux_head",)}),
    ("interpolated", {}),
    ("perturbed", {}),
    ("layerwise", {"redrawn": ("aux_head",)}),
]


@pytest.mark.parametrize(("start", "knobs"), EVERY)
def test_auxiliary_logits_beyond_the_models_own_are_cut_out(start, knobs):
    for found in of(start, aux=3, **knobs):
        head = found["aux_head"]
        assert np.all(head["kernel"][:, :3] != 0)
        np.testing.assert_array_equal(head["kernel"][:, 3:], 0)
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize(("start", "knobs"), EVERY)
def test_a_start_does_not_depend_on_how_many_auxiliary_logits_others_have(start, knobs):
    """Models of one population have room for the most that any of them has."""
    alone = of(start, plan=replace(PLAN, aux=3), aux=3, **knobs)
    beside = of(start, plan=PLAN, aux=3, **knobs)
    for mine, wide in zip(alone, beside, strict=True):
        cut = {name: leaf[..., :3] for name, leaf in wide["aux_head"].items()}
        assert_same(mine, wide | {"aux_head": cut})
