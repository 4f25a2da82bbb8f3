"""Claims about the theorem of many steps, and what it is not about."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from theory.losses import matching, softmax_potential, squared_potential
from theory.many_steps import many_steps
from theory.trajectory import Account, Approach, follow

STEPS, PARAMS, OUTPUTS = 60, 12, 3
SOFTMAX = matching(softmax_potential(jnp.ones(OUTPUTS, bool), 0.7))
SQUARED = matching(squared_potential(jnp.array([1.0, 0.5, 0.0])))


def linear(theta, inputs):
    return inputs @ theta


@pytest.fixture(name="problem")
def make_problem():
    """Inputs, which are the Jacobian, ill-conditioned; and L_T = <slope, u> + 1/2 <u, B u>."""
    random = np.random.default_rng(4)
    inputs = random.normal(size=(STEPS, 5, OUTPUTS, PARAMS)) * np.logspace(0, -1.5, PARAMS)
    slope = random.normal(size=PARAMS) ** 3
    basis = np.linalg.qr(random.normal(size=(PARAMS, PARAMS)))[0]
    # Not convex; its absolute curvature is at most 1.
    bends = np.logspace(0, -3, PARAMS) * np.where(np.arange(PARAMS) % 3 == 1, -1, 1)
    return jnp.asarray(inputs), jnp.asarray(slope), jnp.asarray(basis), jnp.asarray(bends)


def trait_of(problem):
    _, slope, basis, bends = problem

    def trait(u):
        return slope @ u + 0.5 * jnp.sum(bends * (basis.T @ u) ** 2)

    return trait


class Descent(NamedTuple):
    """Gradient descent at a rate of its own for each step."""

    init: Callable
    update: Callable


@partial(jax.jit, static_argnames=("optimiser", "model"))
def run(optimiser, problem, teacher, rates, model=linear):
    """Softmax and squared error take turns, on batches of five."""
    inputs = problem[0]

    def distillation(theta, batch):
        x, number = batch
        z, y = model(theta, x), model(teacher, x)
        losses = [jnp.mean(jax.vmap(loss)(z, y)) for loss in (SOFTMAX, SQUARED)]
        return jnp.where(number % 2 == 0, *losses)

    def update(gradient, count, _):
        return -rates[count] * gradient, count + 1

    descent = Descent(lambda _: jnp.int32(0), update)
    start = jnp.zeros(PARAMS)
    return follow(
        trait_of(problem),
        distillation,
        optimiser or descent,
        start,
        (inputs, jnp.arange(STEPS)),
        teacher=teacher,
    )[1]


def largest_rates(inputs):
    """2 / L_k: a temperature of 0.7 and weights of at most 1 bend a loss by no more than 1."""
    grams = np.einsum("kxop,kxoq->kpq", inputs, inputs) / inputs.shape[1]
    return jnp.asarray(2 / np.linalg.eigvalsh(grams)[:, -1])


EPS = 0.7


def test_every_step_of_a_one_step_teachers_student_lowers_the_trait(problem):
    inputs, slope, _, _ = problem
    rates = largest_rates(inputs)
    account = run(None, problem, -EPS * slope, rates)
    found = many_steps(account, rates=rates, eps=EPS, smoothness=1.0)
    assert found.nearer
    assert found.trait_falls
    assert found.adds_up
    assert found.gap is not None
    assert found.excess is not None
    assert found.gap < 1e-14
    assert found.receding < 0
    assert found.margin > 0
    assert found.excess < 0
    assert account.always_toward_teacher
    assert (account.trait_loss[1:] < account.trait_loss[0]).all()
    # By hand.
    approach = account.approach
    assert approach is not None
    margins = approach.moved_along - 0.5 * approach.moved_square
    np.testing.assert_allclose(found.margin, jnp.min(margins[1:]) / (EPS**2 * slope @ slope))
    bound = account.trait_loss[0] - 0.5 * (1 / EPS - 1) * approach.moved_square
    assert (account.trait_loss <= bound + 1e-14).all()
    excess = jnp.max((account.trait_loss - bound)[1:]) * EPS / (EPS**2 * slope @ slope)
    np.testing.assert_allclose(found.excess, excess, rtol=1e-9)


def test_what_is_said_of_an_account_is_as_written_out():
    """Of a student that comes nearer and goes away again, with a teacher 2 away."""
    steps = jnp.ones(2)
    account = Account(
        trait_loss=jnp.array([1.0, 1.5, 0.75]),
        inner_product=steps,
        cosine=steps,
        layer_inner_product={},
        layer_cosine={},
        first_order=steps,
        remainder=steps,
        second_order=steps,
        gradient_square=jnp.array([2.0, 4.0]),
        coverage=steps,
        approach=Approach(
            inner_product=jnp.array([3.0, 1.0]),
            distance=jnp.array([2.0, 1.0, 1.5]),
            moved_square=jnp.array([0.0, 1.0, 2.0]),
            moved_along=jnp.array([0.0, 1.0, 2.0]),
        ),
    )
    found = many_steps(account, rates=jnp.array([0.5, 1.0]), eps=0.5, smoothness=1.0)
    assert (found.receding, found.margin) == (0.5 / 2, 0.5 / 4)
    # Above the start by 0.5 and -0.25, and the bound is 1/2 (1 / 0.5 - 1) |u|^2 below the start.
    assert found.excess == (0.5 + 0.5) / (4 / 0.5)
    # 1 against 0.5 + (1.5 - 0.25), and 2 against 1 + 1.25 + (1 - 2).
    assert found.gap == 0.75 / (1 + 0.5 + 1.75)


def test_too_large_a_rate_leads_away_from_the_teacher(problem):
    rates = 3 * largest_rates(problem[0])
    found = many_steps(run(None, problem, -EPS * problem[1], rates), rates=rates)
    assert not found.nearer
    assert found.receding > 0.01
    # The identity is true all the same.
    assert found.adds_up
    assert found.excess is None
    assert found.trait_falls is None


def test_a_teacher_of_many_steps_or_of_signs_and_a_student_with_adam_break_what_is_claimed(problem):
    inputs, slope, basis, bends = problem
    rates = largest_rates(inputs)
    # 400 steps of descent on the convex part of L_T.
    size = np.abs(bends)
    far = basis @ ((1 - (1 - 0.9 * size) ** 400) / size * (basis.T @ slope))
    convex = (inputs, slope, basis, jnp.abs(bends))
    rises = {}
    for name, teacher, case, optimiser in (
        ("long", -far, convex, None),
        ("signs", -5 * jnp.sign(slope), problem, None),
        ("adam", -EPS * slope, problem, optax.adam(0.3)),
    ):
        account = run(optimiser, case, teacher, rates)
        found = many_steps(account, eps=EPS, smoothness=1.0)
        rises[name] = found.trait_falls
        # (a) is about any displacement, and about descent alone.
        assert found.nearer == (name != "adam")
        assert many_steps(account, rates=rates).adds_up == (name != "adam")
    assert not any(rises.values()), rises


def test_the_identity_is_that_of_any_model(problem):
    rates = 0.3 * largest_rates(problem[0])

    def bent(theta, inputs):
        return 2 * jnp.sin(3 * inputs @ theta)

    account = run(None, problem, -EPS * problem[1], rates, bent)
    found = many_steps(account, rates=rates)
    assert found.gap is not None
    assert found.gap < 1e-13
    # Another rate in one step, and it does not add up.
    assert not many_steps(account, rates=rates.at[7].mul(1.001)).adds_up
    # The certificate is about nearly linear models.
    assert not account.always_toward_teacher


def test_runs_of_a_batch_are_judged_one_by_one(problem):
    inputs, slope, _, _ = problem
    rates = jnp.stack([largest_rates(inputs), 3 * largest_rates(inputs)])
    accounts = jax.vmap(lambda rates: run(None, problem, -EPS * slope, rates))(rates)
    found = many_steps(accounts, rates=rates, eps=EPS, smoothness=1.0)
    np.testing.assert_array_equal(found.nearer, [True, False])
    np.testing.assert_array_equal(found.adds_up, [True, True])
    traced = jax.jit(lambda eps: many_steps(accounts, eps=eps, smoothness=1.0))(EPS)
    assert traced.excess is not None
    assert found.excess is not None
    np.testing.assert_allclose(traced.excess, found.excess)


def test_bad_arguments_are_refused_by_name(problem):
    inputs, slope, _, _ = problem
    rates = largest_rates(inputs)
    account = run(None, problem, -EPS * slope, rates)
    with pytest.raises(ValueError, match="account: knows no teacher"):
        many_steps(replace(account, approach=None))
    for name, keywords in {
        "eps, smoothness": {"eps": 0.1},
        "eps: must be finite and above 0": {"eps": 0.0, "smoothness": 1.0},
        "eps: must be finite and above 0, in": {
            "eps": jnp.array([0.1, -0.1]),
            "smoothness": jnp.array([1.0, -1.0]),
        },
        "smoothness": {"eps": 0.5, "smoothness": 2.0},
        r"rates: needs one a step, shape .*, has shape \[2\]": {"rates": [0.1, 0.1]},
        "rates: needs one a step": {"rates": rates[1:]},
    }.items():
        with pytest.raises(ValueError, match=f"^{name}"):
            many_steps(account, **keywords)


def test_rates_may_be_a_list(problem):
    inputs, slope, _, _ = problem
    rates = largest_rates(inputs)
    account = run(None, problem, -EPS * slope, rates)
    found = many_steps(account, rates=rates.tolist())
    assert found.adds_up
    assert found.gap == many_steps(account, rates=rates).gap
