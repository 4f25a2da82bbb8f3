"""Claims about the losses."""

import jax
import jax.numpy as jnp
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
