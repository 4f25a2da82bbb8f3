"""Claims about the algebra of pytrees and about passes in chunks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import passes
from theory.alignment import (
    coefficient,
    inner_product,
    inner_product_reverse,
    student_direction,
    unit_of_eps,
)
from theory.certificate import curve
from theory.checks import operations
from theory.losses import matching, squared_potential

FIRST = {"a": jnp.array([[1.0, 2.0], [0.5, -1.0]]), "b": jnp.array([3.0])}
SECOND = {"a": jnp.array([[-1.0, 0.25], [4.0, 2.0]]), "b": jnp.array([0.5])}


def row(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def test_the_algebra_of_trees_is_that_of_their_numbers_in_a_row():
    one, other = row(FIRST), row(SECOND)
    np.testing.assert_allclose(passes.inner(FIRST, SECOND), one @ other)
    np.testing.assert_allclose(passes.norm(FIRST), np.linalg.norm(one))
    np.testing.assert_allclose(
        passes.cosine(FIRST, SECOND), one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    )
    np.testing.assert_allclose(row(passes.step(FIRST, SECOND, 0.3)), one + 0.3 * other)


def test_a_step_keeps_the_precision_of_the_parameters():
    params = {"a": jnp.ones(2, jnp.float32)}
    assert passes.step(params, params, jnp.float64(0.1))["a"].dtype == jnp.float32


def test_a_row_of_weight_0_may_be_no_number():
    weights = jnp.array([2.0, 0, 1])
    terms = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf], [3.0, -1.0]])
    np.testing.assert_array_equal(passes.weighed(weights, terms), [5.0, 3.0])
    np.testing.assert_array_equal(passes.weighed(weights, terms[:, 0]), 5.0)
    # What counts is not hidden.
    assert np.isnan(passes.weighed(jnp.ones(3), terms[:, 0]))


def shifted(params, inputs):
    """Logits that are no number where an input is below 0; how parameters move them always is."""
    return jnp.tanh(inputs @ params["w"]) + jnp.log(inputs[:, :1])


@pytest.mark.parametrize("chunk", [None, 2])
def test_what_has_no_weight_is_never_seen(chunk):
    params, way = {"w": jnp.full((2, 3), 0.5)}, {"w": jnp.arange(6.0).reshape(2, 3) / 9}
    teacher = passes.step(params, way, 0.3)
    inputs = jnp.array([[1.0, 2.0], [-1.0, -1.0], [0.5, 0.25], [-3.0, 0.0]])
    weights, loss = np.array([1.0, 0, 2, 0]), matching(squared_potential(jnp.ones(3)))
    seen = np.array([0, 2, 2])
    for mean in (
        partial(inner_product, shifted, loss, params, way, teacher),
        partial(inner_product_reverse, shifted, loss, params, way, teacher),
        partial(coefficient, shifted, loss, params, way),
        partial(unit_of_eps, shifted, params, way),
        lambda x, **rest: curve(shifted, loss, params, way, np.array([0.3]), x, **rest).rho,
    ):
        found = mean(inputs, weights=weights, chunk=chunk)
        np.testing.assert_allclose(found, mean(inputs[seen]), rtol=1e-10)


def apply(params, inputs):
    # Activations far wider than the model's inputs, outputs and parameters.
    wide = jnp.tile(inputs, 50)
    return jnp.tanh(wide + params["shift"])[:, :3] * params["scale"]


def largest_array(program) -> int:
    """Elements of the largest array that a program computes, however deep inside."""
    outputs = [variable for equation in operations(program) for variable in equation.outvars]
    return max(getattr(variable.aval, "size", 0) for variable in outputs)


@pytest.mark.parametrize("function", [inner_product, student_direction, coefficient])
def test_a_chunk_bounds_the_memory_of_activations(function):
    examples, features, chunk = 64, 8, 3
    params = {"shift": jnp.zeros(()), "scale": jnp.ones(3)}
    arguments = {inner_product: 3, student_direction: 2, coefficient: 2}[function] * (params,)
    loss = matching(squared_potential(jnp.ones(3)))

    def largest(chunk):
        program = partial(function, apply, loss, chunk=chunk)
        return largest_array(
            jax.make_jaxpr(program)(*arguments, jnp.ones((examples, features))).jaxpr
        )

    assert largest(None) == examples * features * 50
    assert largest(chunk) == chunk * features * 50
