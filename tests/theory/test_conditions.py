"""Claims about the conditions of a loss: every loss of the family has them, others are named."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from theory.conditions import (
    ConditionError,
    conditions,
    mixed_hessian_product,
    require_conditions,
    require_conditions_near,
    within_reach,
)
from theory.losses import (
    bernoulli_potential,
    matching,
    poisson_potential,
    softmax_potential,
    squared_potential,
)

OUTPUTS = 4
points = arrays(np.float64, (6, OUTPUTS), elements=st.floats(-4, 4))
SUBSET = jnp.array([True, False, True, True])
ONES = np.ones((OUTPUTS, 1))


def off(*outputs: int) -> np.ndarray:
    return np.eye(OUTPUTS)[:, list(outputs)]


# Loss, and a basis of the null space that THEORY's table gives it.
FAMILY = {
    "squared error": (squared_potential(jnp.ones(OUTPUTS)), off()),
    "weighted squared error": (squared_potential(jnp.array([1.0, 0.0, 0.5, 0.0])), off(1, 3)),
    "softmax": (softmax_potential(jnp.ones(OUTPUTS, bool)), ONES),
    "softmax, temperature": (softmax_potential(jnp.ones(OUTPUTS, bool), 3.0), ONES),
    "softmax of a subset": (
        softmax_potential(SUBSET),
        np.hstack([off(1), np.asarray(SUBSET, float)[:, None]]),
    ),
    "Bernoulli": (bernoulli_potential, off()),
    "Poisson": (poisson_potential, off()),
    "a user's own": (lambda z: jnp.sum(jnp.cosh(z)), off()),
}
LOSSES = {name: matching(potential) for name, (potential, _) in FAMILY.items()}


def loss_of(number):
    """The loss of that number in FAMILY; one program serves all of them."""
    branches = [potential for potential, _ in FAMILY.values()]
    return matching(lambda z: jax.lax.switch(number, branches, z))


@jax.jit
def misses(number, z, y):
    return conditions(loss_of(number), z, y)


@jax.jit
def matrix_and_gradient(number, z, y):
    """M at y, and dL/dz at (z, y)."""
    loss = loss_of(number)
    product = jax.vmap(lambda v: mixed_hessian_product(loss, y, y, v))
    return product(jnp.eye(OUTPUTS)).T, jax.grad(loss)(z, y)


@pytest.mark.parametrize("name", FAMILY)
@given(z=points, y=points)
def test_every_loss_of_the_family_meets_every_condition(name, z, y):
    for miss in jax.tree.leaves(misses(list(FAMILY).index(name), z, y)):
        assert miss <= 1e-8


@pytest.mark.parametrize("name", FAMILY)
@given(z=arrays(np.float64, OUTPUTS, elements=st.floats(-4, 4)), y=points)
def test_null_space_is_the_one_of_the_table_and_no_larger(name, z, y):
    number = list(FAMILY).index(name)
    matrix, gradient = (np.asarray(part) for part in matrix_and_gradient(number, z, y[0]))
    null = FAMILY[name][1]
    np.testing.assert_allclose(matrix @ null, 0, atol=1e-12)
    assert np.linalg.matrix_rank(matrix, tol=1e-9) == OUTPUTS - null.shape[1]
    np.testing.assert_allclose(null.T @ gradient, 0, atol=1e-10)


def test_the_mixed_hessian_of_a_matching_loss_is_the_potentials_hessian():
    y, v = jnp.array([0.3, -1.0, 2.0, 0.1]), jnp.array([1.0, 2.0, -1.0, 0.5])

    @jax.jit
    def both(number):
        potential = partial(jax.lax.switch, number, [potential for potential, _ in FAMILY.values()])
        product = mixed_hessian_product(loss_of(number), y + 0.5, y, v)
        return product, jax.hessian(potential)(y) @ v

    for number in range(len(FAMILY)):
        np.testing.assert_allclose(*both(number), rtol=1e-12, atol=1e-12)


# One mutant for each condition.
BROKEN = {
    "stationary": lambda z, y: 0.5 * jnp.sum(jnp.square(z - jnp.roll(y, 1))),
    "minimum": matching(lambda z: -jnp.sum(jnp.square(z))),
    "null_constant": matching(lambda z: jnp.sum(jnp.square(jnp.maximum(z, 0)))),
    "null_orthogonal": lambda z, y: 0.5 * (z[0] - y[0]) ** 2 + jnp.sum((z - y)[1:] ** 4),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_loss_that_misses_a_condition_is_refused_by_its_name(name):
    z, y = np.random.default_rng(1).normal(size=(2, 40, OUTPUTS))
    with pytest.raises(ConditionError, match=rf"loss: .*\({name}: "):
        require_conditions(BROKEN[name], z, y)


def test_a_mixed_hessian_that_is_not_symmetric_or_not_positive_is_seen():
    rng = np.random.default_rng(2)
    z, y = jnp.asarray(rng.normal(size=(2, 10, OUTPUTS)))
    tilt = jnp.asarray(np.triu(np.ones((OUTPUTS, OUTPUTS))))
    # Not losses, but functions with exactly this mixed Hessian.
    assert conditions(lambda z, y: -z @ tilt @ y, z, y).symmetric > 0.1
    assert conditions(lambda z, y: -z @ (tilt + tilt.T) @ y, z, y).symmetric < 1e-12
    wrong = jnp.diag(jnp.array([1.0, 1.0, -0.5, 1.0]))
    assert conditions(lambda z, y: -z @ wrong @ y, z, y).positive > 0.1
    assert conditions(lambda z, y: -z @ jnp.abs(wrong) @ y, z, y).positive < 1e-12


def test_a_loss_that_is_not_a_number_is_refused():
    z = np.ones((3, OUTPUTS))
    with pytest.raises(ConditionError, match="stationary: nan"):
        require_conditions(lambda z, y: jnp.sum(jnp.sqrt(-jnp.abs(z - y) - 1)), z, z)


def test_conditions_are_checked_in_float64_where_float32_is_the_default():
    with jax.enable_x64(False):
        z, y = (np.random.default_rng(i).normal(size=(30, OUTPUTS)) for i in range(2))
        require_conditions(LOSSES["softmax"], z, y)


def test_a_confident_models_logits_do_not_make_a_good_loss_look_bad():
    rng = np.random.default_rng(3)
    z, y = 60 * rng.normal(size=(2, 30, OUTPUTS))
    with pytest.raises(ConditionError):
        require_conditions(LOSSES["softmax"], z, y)
    require_conditions(
        LOSSES["softmax"], within_reach(jnp.asarray(z)), within_reach(jnp.asarray(y))
    )


def written_out(z, y):
    """The cross-entropy, which is the matching loss of a softmax but for what y alone says."""
    return -jnp.vdot(jax.nn.softmax(y), jax.nn.log_softmax(z))


def test_a_loss_may_have_any_value_at_its_minimum():
    z, y = np.random.default_rng(4).normal(size=(2, 20, OUTPUTS))
    require_conditions(lambda z, y: written_out(z, y) - 100, z, y)
    with pytest.raises(ConditionError, match="minimum"):
        require_conditions(lambda z, y: BROKEN["minimum"](z, y) + 100, z, y)


def unusual(z, y):
    """A loss that misses every condition but that M is symmetric."""
    return jnp.sum((z - 1.1 * y) ** 2 * jnp.array([1.0, -0.5, 0.2, 0.0])) - z[3] * y[3] ** 3


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_the_scale_of_a_loss_changes_nothing(factor):
    z, y = jnp.asarray(np.random.default_rng(5).normal(size=(2, 20, OUTPUTS)))
    found = conditions(unusual, z, y)
    assert min(found.stationary, found.minimum, found.positive) > 1e-3
    scaled = conditions(lambda z, y: factor * unusual(z, y), z, y)
    for name in ("stationary", "minimum", "symmetric", "positive", "null_orthogonal"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(found, name), rtol=1e-9)


def test_the_unit_of_logits_changes_nothing():
    """A quadratic loss has no scale of its own: a minimum missed by a share is so in any unit."""
    tilt = jnp.asarray(np.triu(np.ones((OUTPUTS, OUTPUTS))) - 0.9 * np.eye(OUTPUTS))
    # The largest loss is much below |M| times the square of the largest logit.
    y = jnp.asarray(np.random.default_rng(6).normal(size=(20, OUTPUTS)))
    z = y + 0.1 * jnp.asarray(np.random.default_rng(7).normal(size=(20, OUTPUTS)))

    def loss(z, y):
        return (z - y) @ tilt @ (z - y)

    found = conditions(loss, z, y)
    assert found.minimum > 1e-6
    np.testing.assert_allclose(conditions(loss, 1e3 * z, 1e3 * y).minimum, found.minimum)


@pytest.mark.parametrize("apart", [0.0, 1e-9])
def test_pairs_that_hardly_differ_make_no_good_loss_look_bad(apart):
    """Their gradients and losses are rounding, and no measure of what these may be."""
    y = np.random.default_rng(8).normal(size=(20, OUTPUTS))
    for loss in (written_out, LOSSES["softmax"], LOSSES["Poisson"]):
        require_conditions(loss, y + apart * np.arange(OUTPUTS), y)


def test_a_null_space_that_turns_is_refused():
    """Of A(z) = |z| it is the line of z: of one dimension everywhere, and nowhere the same."""
    z, y = np.random.default_rng(9).normal(size=(2, 20, OUTPUTS))
    with pytest.raises(ConditionError, match="null_constant: 1"):
        require_conditions(matching(jnp.linalg.norm), z, y)


def test_a_false_declaration_is_found_out():
    z, y = np.random.default_rng(10).normal(size=(2, 20, OUTPUTS))
    everything = softmax_potential(np.ones(OUTPUTS, bool))
    require_conditions(matching(everything.value, everything.off_null_space), z, y)
    # That there is none, that it is larger than it is, and that it is another one.
    for off_null_space in (
        lambda vector: vector,
        lambda vector: jnp.where(jnp.arange(OUTPUTS) > 1, vector - jnp.mean(vector[2:]), 0),
        lambda vector: vector.at[0].set(0),
    ):
        with pytest.raises(ConditionError, match="null_constant"):
            require_conditions(matching(everything.value, off_null_space), z, y)


def test_only_rows_beyond_reach_are_shrunk_and_each_by_itself():
    logits = jnp.array([[0.5, -1.0], [60.0, -30.0], [0.0, 0.0]])
    np.testing.assert_allclose(within_reach(logits), [[0.5, -1.0], [6.0, -3.0], [0.0, 0.0]])


@pytest.mark.parametrize(
    "potential",
    [lambda z: jnp.sum(jnp.minimum(z - 0.5, 0) ** 4), lambda z: jnp.sum(z**4)],
    ids=["flat on one side", "flat at 0"],
)
def test_a_potential_is_looked_at_where_the_model_is_not(potential):
    z, y = -1 - np.random.default_rng(11).uniform(size=(2, 20, OUTPUTS))
    require_conditions(matching(potential), z, y)
    with pytest.raises(ConditionError, match="null_constant"):
        require_conditions_near(matching(potential), jnp.asarray(z), jnp.asarray(y))
