"""Claims about the losses."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from theory import losses

OUTPUTS = 5
logits = arrays(np.float32, OUTPUTS, elements=st.floats(-6, 6, width=32))
subsets = arrays(bool, OUTPUTS).filter(lambda subset: subset.sum() >= 2)
LOSSES = [losses.kl_divergence, losses.squared_error]
# Value and gradient in the student's logits, compiled once.
_compiled = {loss: jax.jit(jax.value_and_grad(loss)) for loss in LOSSES}
_class_loss = jax.jit(losses.class_cross_entropy)


def value_and_gradient(loss, z, y, subset):
    value, gradient = _compiled[loss](z, y, subset)
    return np.asarray(value), np.asarray(gradient)


@pytest.mark.parametrize("loss", LOSSES)
@given(z=logits, y=logits, subset=subsets)
def test_loss_is_never_negative(loss, z, y, subset):
    assert value_and_gradient(loss, z, y, subset)[0] >= -1e-4


@pytest.mark.parametrize("loss", LOSSES)
@given(y=logits, subset=subsets)
def test_loss_is_zero_and_stationary_at_the_teacher(loss, y, subset):
    value, gradient = value_and_gradient(loss, y, y, subset)
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@given(z=logits, y=logits, subset=subsets)
def test_logits_outside_the_subset_have_no_influence_and_no_gradient(loss, z, y, subset):
    assert not np.any(value_and_gradient(loss, z, y, subset)[1][~subset])
    high, low = (
        value_and_gradient(loss, np.where(subset, z, np.float32(other)), y, subset)[0]
        for other in (3.0, -3.0)
    )
    np.testing.assert_array_equal(high, low)


@given(z=logits, y=logits, subset=subsets)
def test_kl_divergence_is_the_sum_of_p_log_p_over_q(z, y, subset):
    p, q = (np.exp(v[subset].astype(np.float64)) for v in (y, z))
    p, q = p / p.sum(), q / q.sum()
    np.testing.assert_allclose(
        value_and_gradient(losses.kl_divergence, z, y, subset)[0],
        np.sum(p * np.log(p / q)),
        rtol=1e-3,
        atol=1e-5,
    )


def test_kl_divergence_is_teacher_to_student_not_the_reverse():
    z, y, subset = jnp.array([0.0, 0.0]), jnp.array([3.0, 0.0]), jnp.array([True, True])
    forward = losses.kl_divergence(z, y, subset)
    assert abs(forward - losses.kl_divergence(y, z, subset)) > 0.1


def test_kl_divergence_has_a_temperature_and_a_subset():
    z, y = np.array([0.3, -1.0, 2.0]), np.array([1.0, 0.5, -0.5])
    p, q = softmax(y[:2] / TAU), softmax(z[:2] / TAU)
    found = losses.kl_divergence(jnp.asarray(z), jnp.asarray(y), np.array([True, True, False]), TAU)
    np.testing.assert_allclose(found, TAU**2 * kl(p, q), rtol=1e-12)


def test_kl_divergence_over_one_logit_is_constant():
    one = jnp.array([False, True])
    gradient = jax.grad(losses.kl_divergence)(jnp.array([1.0, 2.0]), jnp.array([0.0, -3.0]), one)
    np.testing.assert_array_equal(gradient, 0)


def test_squared_error_is_half_the_sum_of_squares():
    z, y = jnp.array([1.0, 5.0, 0.0]), jnp.array([0.0, 1.0, 7.0])
    np.testing.assert_allclose(
        losses.squared_error(z, y, jnp.array([True, True, False])), 0.5 * (1 + 16), rtol=1e-6
    )


@given(z=logits, label=st.integers(0, 2))
def test_class_cross_entropy_is_minus_log_softmax_of_the_class_logits(z, label):
    expected = np.logaddexp.reduce(z[:3].astype(np.float64)) - z[label]
    value = _class_loss(z, np.int32(label), np.arange(OUTPUTS) < 3)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


LOGITS, TEACHER = np.array([0.3, -1.0, 2.0, 0.1]), np.array([1.0, 0.5, -0.5, 0.0])
TAU = 2.5


def softmax(z):
    return np.exp(z) / np.exp(z).sum()


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def kl(p, q):
    return np.sum(p * np.log(p / q))


# Each potential: the value of its matching loss at (LOGITS, TEACHER), and its gradient in the
# student's logits, in closed form.
CLOSED = {
    "softmax": (
        losses.softmax_potential(np.ones(4, bool)),
        kl(softmax(TEACHER), softmax(LOGITS)),
        softmax(LOGITS) - softmax(TEACHER),
    ),
    "softmax with a temperature": (
        losses.softmax_potential(np.ones(4, bool), TAU),
        TAU**2 * kl(softmax(TEACHER / TAU), softmax(LOGITS / TAU)),
        TAU * (softmax(LOGITS / TAU) - softmax(TEACHER / TAU)),
    ),
    "softmax of a subset": (
        losses.softmax_potential(np.array([True, False, True, True])),
        kl(softmax(TEACHER[[0, 2, 3]]), softmax(LOGITS[[0, 2, 3]])),
        np.insert(softmax(LOGITS[[0, 2, 3]]) - softmax(TEACHER[[0, 2, 3]]), 1, 0.0),
    ),
    "weighted squared error": (
        losses.squared_potential(np.array([1.0, 2.0, 0.0, 0.5])),
        0.5 * np.sum([1.0, 2.0, 0.0, 0.5] * (LOGITS - TEACHER) ** 2),
        [1.0, 2.0, 0.0, 0.5] * (LOGITS - TEACHER),
    ),
    "Bernoulli": (
        losses.bernoulli_potential,
        kl(sigmoid(TEACHER), sigmoid(LOGITS)) + kl(sigmoid(-TEACHER), sigmoid(-LOGITS)),
        sigmoid(LOGITS) - sigmoid(TEACHER),
    ),
    "Poisson": (
        losses.poisson_potential,
        np.sum(np.exp(TEACHER) * (TEACHER - LOGITS) - np.exp(TEACHER) + np.exp(LOGITS)),
        np.exp(LOGITS) - np.exp(TEACHER),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_each_loss_is_its_closed_form(name):
    potential, value, gradient = CLOSED[name]
    loss = losses.matching(potential)
    found, slope = jax.value_and_grad(loss)(jnp.asarray(LOGITS), jnp.asarray(TEACHER))
    np.testing.assert_allclose(found, value, rtol=1e-12)
    np.testing.assert_allclose(slope, gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", CLOSED)
def test_each_potential_declares_the_null_space_that_its_hessian_has(name):
    potential = CLOSED[name][0]
    seen = np.asarray(jax.vmap(potential.off_null_space)(jnp.eye(4)))
    np.testing.assert_allclose(seen @ seen, seen, atol=1e-12)
    np.testing.assert_allclose(seen, seen.T, atol=1e-12)
    hessian = np.asarray(jax.hessian(potential)(jnp.asarray(LOGITS)))
    np.testing.assert_allclose(hessian @ (np.eye(4) - seen), 0, atol=1e-12)
    # No larger: on the rest it is positive.
    assert np.linalg.eigvalsh(hessian + np.eye(4) - seen).min() > 1e-3


def test_a_potential_of_ones_own_may_declare_its_null_space():
    def value(z):
        return jnp.sum(jnp.cosh(z))

    assert losses.off_null_space(losses.matching(value)) is None
    declared = losses.off_null_space(losses.matching(value, lambda vector: vector))
    assert declared is not None
    np.testing.assert_array_equal(declared(jnp.ones(2)), jnp.ones(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.squared_potential(np.array([1.0, -1.0])), "weights: must be finite and 0"),
        (lambda: losses.squared_potential(np.zeros(3)), "weights: no output takes part"),
        (lambda: losses.squared_potential(np.ones((3, 1))), r"weights: needs one number an output"),
        (lambda: losses.squared_potential(np.array([np.nan])), "weights: must be finite"),
        (lambda: losses.squared_potential(np.array([1.0, np.inf])), "weights: must be finite"),
        (lambda: losses.softmax_potential(np.zeros(3, bool)), "subset: no output takes part"),
        (
            lambda: losses.softmax_potential(np.ones((1, 3), bool)),
            "subset: needs one number an out",
        ),
        (
            lambda: losses.softmax_potential(np.array([0, 1])),
            "subset: must say of each output whether it takes part, is int",
        ),
        (
            lambda: losses.softmax_potential(np.ones(3, bool), 0.0),
            "temperature: must be finite and above 0, got 0",
        ),
        (
            lambda: losses.softmax_potential(np.ones(3, bool), -1.0),
            "temperature: must be finite and above 0, got -1",
        ),
        (
            lambda: losses.squared_potential(np.ones(3))(jnp.ones(4)),
            r"weights: is for 3 outputs, and the logits have shape \[4\]",
        ),
        (
            lambda: losses.softmax_potential(np.ones(1, bool))(jnp.ones(4)),
            "subset: is for 1 outputs",
        ),
    ],
)
def test_what_gives_no_potential_is_refused_by_name(make, message):
    # A user's run has no type checker that would refuse first, in words of its own.
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=message):
            make()
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_logit_outside_the_subset_may_be_infinite(loss):
    subset = np.array([True, True, False])
    z, y = jnp.array([1.0, 2.0, -jnp.inf]), jnp.array([0.0, 1.5, -jnp.inf])
    value, slope = jax.value_and_grad(loss)(z, y, subset)
    short, expected = jax.value_and_grad(loss)(z[:2], y[:2], subset[:2])
    np.testing.assert_allclose(value, short)
    np.testing.assert_allclose(slope, [*expected, 0])
