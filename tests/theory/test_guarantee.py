"""Claims about Theorem 1 and the safe step, beside mutants that the checks catch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from experiments.verify import instances
from experiments.verify.evaluate import unit_of_eps
from tests.theory.draws import MLP, key, seeds, smooth_kinds, some
from theory.alignment import student_direction, teacher_direction
from theory.conditions import ConditionError
from theory.guarantee import safe_step, theorem_1, trait_change
from theory.losses import matching, softmax_potential, squared_potential
from theory.passes import inner, norm, step

ALPHA = 0.7


@jax.jit
def measured(seed, kinds):
    """Changes of the trait loss after a student's step, of the library's and of mutants'."""
    instance = instances.draw(MLP, key(seed), kinds)
    apply, loss = instances.model(MLP, instance), instances.loss(instance)
    trait = instances.trait_loss(apply, instance)
    start, inputs = instance.params, instance.inputs
    way = teacher_direction(trait, start)
    eps = unit_of_eps(apply, instance, way) * jnp.array([1e-3, 0.3])
    change = trait_change(apply, loss, trait, start, eps, jnp.full(1, ALPHA), inputs)
    # Teachers after the step in question, after the opposite of a small one, and after none.
    sizes = jnp.stack([eps[1], -eps[0], jnp.zeros(())])
    students = jax.lax.map(
        lambda size: student_direction(apply, loss, start, step(start, way, size), inputs), sizes
    )
    after = jax.lax.map(lambda way: trait(step(start, way, ALPHA)) - trait(start), students)
    student = jax.tree.map(lambda leaf: leaf[0], students)
    g = inner(student, way)
    far = 2.0 / norm(student)
    alphas = far * jnp.linspace(0.02, 1.0, 50)
    safe = safe_step(trait, start, student, g, alphas)
    changes = jax.lax.map(lambda a: trait(step(start, student, a)) - trait(start), alphas)
    return {
        "theorem": change[0, 0],
        "teacher flipped": after[1],
        "teacher detached": after[2],
        "alphas": alphas,
        "changes": changes,
        "g": g,
        "safe": safe.alpha,
        "bound": -alphas * g + 0.5 * safe.curvature * alphas**2,
        "value": jnp.abs(trait(start)),
        "mutants": {
            "curvature dropped": -alphas * g,
            "curvature at the start only": -alphas * g + 0.5 * alphas**2 * safe.curvature[0] * 0.1,
        },
    }


def below(found, bound) -> bool:
    """The trait loss stays under its bound at every alpha."""
    return bool(np.all(found["changes"] <= bound + 1e-12 * found["value"]))


@given(seed=seeds, kinds=smooth_kinds)
def test_theorem_1_the_trait_loss_falls(seed, kinds):
    assert measured(seed, kinds)["theorem"] < 0


@pytest.mark.parametrize("mutant", ["teacher flipped", "teacher detached"])
def test_theorem_1_catches(mutant):
    # A detached teacher teaches rounding.
    found = [measured(*draw) for draw in some(10) if draw[1].trait != 3]
    assert not any(each[mutant] < -1e-13 * each["value"] for each in found)
    assert all(each["theorem"] < -1e-13 * each["value"] for each in found)


@given(seed=seeds, kinds=smooth_kinds)
def test_the_trait_loss_stays_below_its_bound_and_falls_up_to_the_safe_step(seed, kinds):
    found = measured(seed, kinds)
    assert below(found, found["bound"])
    inside = np.asarray(found["alphas"] < found["safe"])
    assert np.all(np.asarray(found["changes"])[inside] < 0)
    assert (found["safe"] > 0) == (found["g"] > 0)


@pytest.mark.parametrize("mutant", ["curvature dropped", "curvature at the start only"])
def test_the_bound_catches(mutant):
    found = [measured(*draw) for draw in some(10) if draw[1].trait != 3]
    assert all(below(each, each["bound"]) for each in found)
    assert not any(below(each, each["mutants"][mutant]) for each in found)


def quadratic(p):
    return 0.5 * jnp.sum(p["w"] ** 2)


def test_the_safe_step_of_a_quadratic_is_the_exact_one():
    params, student = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([-1.0, 0.0])}
    safe = safe_step(quadratic, params, student, 3.0, np.linspace(0.5, 20, 40))
    np.testing.assert_allclose(safe.alpha, 6.0, rtol=1e-12)
    np.testing.assert_allclose(safe.curvature, 1.0, rtol=1e-12)
    # No guarantee for a step uphill; none beyond what was looked at.
    assert safe_step(quadratic, params, {"w": jnp.array([1.0, 0])}, -3.0, np.ones(1)).alpha == 0
    assert safe_step(quadratic, params, student, 3.0, np.array([0.1, 2.0])).alpha == 2.0


def test_what_is_not_a_number_guarantees_nothing():
    params, student = {"w": jnp.ones(1)}, {"w": -jnp.ones(1)}
    alphas = np.array([0.5, 1.5, 4.0])

    def broken_beyond_1(p):
        return jnp.where(p["w"][0] < 0, jnp.nan, 1.0) * p["w"][0] ** 2

    reach = jax.jit(lambda g: safe_step(broken_beyond_1, params, student, g, alphas).alpha)
    assert reach(2.0) == 0.5
    assert reach(jnp.nan) == 0
    assert reach(jnp.inf) == 0
    with pytest.raises(ValueError, match="trait_loss: its curvature along the step is NaN"):
        safe_step(broken_beyond_1, params, student, 2.0, alphas)


def apply(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"] + p["b"]


def problem():
    keys = jax.random.split(jax.random.key(3), 4)
    params = {
        "w": jax.random.normal(keys[0], (5, 8)),
        "v": jax.random.normal(keys[1], (8, 4)),
        "b": jnp.zeros(4),
    }
    inputs, others = (jax.random.normal(k, (20, 5)) for k in keys[2:])

    def trait(p):
        return -jnp.mean(jax.nn.log_softmax(apply(p, others))[:, 0])

    return params, inputs, trait


AUX = matching(softmax_potential(jnp.array([False, False, True, True])))
EPS = np.geomspace(1e-4, 0.1, 4)


def test_theorem_1_tells_its_branches_apart():
    params, inputs, trait = problem()
    falls = theorem_1(apply, AUX, trait, params, EPS, 1.0, inputs, chunk=7)
    assert (falls.blind, falls.holds, falls.eps_falls) == (False, True, pytest.approx(0.1))
    assert np.all(np.asarray(falls.change) < 0)
    # A trait in the biases of the logits that the loss leaves out, and one along all-ones.
    for vector in (jnp.array([1.0, -2.0, 0, 0]), jnp.array([0, 0, 1.0, 1.0])):
        unseen = theorem_1(apply, AUX, lambda p, v=vector: v @ p["b"], params, EPS, 1.0, inputs)
        assert (unseen.blind, unseen.holds) == (True, True)
        assert np.all(np.abs(unseen.inner_product) < 1e-12)
    # The mutant: a bias that the loss does see.
    seen = theorem_1(apply, AUX, lambda p: p["b"][2], params, EPS, 1.0, inputs)
    assert not seen.blind


@pytest.mark.parametrize(
    ("loss", "condition"),
    [
        (lambda z, y: 0.5 * jnp.sum((z - jnp.roll(y, 1)) ** 2), "stationary"),
        (matching(lambda z: jnp.sum(jnp.sin(3 * z))), "minimum"),
        (matching(lambda z: jnp.sum(jnp.maximum(z, 0) ** 2)), "null_constant"),
    ],
    ids=["rotated", "non-convex", "hinge"],
)
def test_theorem_1_refuses_a_loss_that_misses_a_condition(loss, condition):
    params, inputs, trait = problem()
    with pytest.raises(ConditionError, match=rf"loss: .*\({condition}"):
        theorem_1(apply, loss, trait, params, EPS, 1.0, inputs)


def test_theorem_1_takes_a_confident_models_logits():
    params, inputs, trait = problem()
    sure = params | {"v": 40 * params["v"]}
    assert theorem_1(apply, AUX, trait, sure, 1e-3 * EPS[1:], 1e-3, inputs).holds


def test_the_grid_of_changes_is_each_change():
    params, inputs, trait = problem()
    loss = matching(squared_potential(jnp.ones(4)))
    eps, alpha = np.array([0.1, 1.0]), np.array([0.5, 2.0, 5.0])
    grid = trait_change(apply, loss, trait, params, eps, alpha, inputs)
    way = teacher_direction(trait, params)
    for i, e in enumerate(eps):
        student = student_direction(apply, loss, params, step(params, way, e), inputs)
        for j, a in enumerate(alpha):
            np.testing.assert_allclose(
                grid[i, j], trait(step(params, student, a)) - trait(params), rtol=1e-9
            )


def test_bad_arguments_are_refused_by_name():
    params, inputs, trait = problem()
    call = partial(theorem_1, apply, AUX, trait, params)
    for arguments, message in (
        ((EPS, 0.0, inputs), "alpha: must be finite and above 0, got 0"),
        ((EPS[::-1], 1.0, inputs), "eps: must ascend"),
        ((np.array([-1.0, 1.0]), 1.0, inputs), "eps: must be finite and above 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            call(*arguments)
    with pytest.raises(ValueError, match="alphas: must ascend"):
        safe_step(trait, params, params, 1.0, np.array([1.0, 0.5]))
    with pytest.raises(ValueError, match="student: must have the tree structure"):
        safe_step(trait, params, {"w": params["w"]}, 1.0, np.array([0.5]))
