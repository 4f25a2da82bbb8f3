"""Claims about the parts of a and g: each sums to the whole, and is what its name says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import decomposition
from theory.alignment import coefficient, inner_product
from theory.losses import matching, softmax_potential, squared_potential
from theory.passes import step

OUTPUTS, EXAMPLES, POSITIONS = 4, 6, 3
SOFTMAX = matching(softmax_potential(jnp.ones(OUTPUTS, bool)))
SQUARED = matching(squared_potential(jnp.array([1.0, 2.0, 0.0, 0.5])))


def network(p, x):
    hidden = jnp.tanh(x @ p["first"]["kernel"] + p["first"]["bias"])
    return hidden @ p["second"]["kernel"] + p["second"]["bias"]


def draw(seed):
    keys = iter(jax.random.split(jax.random.key(seed), 5))
    normal = lambda *shape: jax.random.normal(next(keys), shape) / 2  # noqa: E731
    return {
        "first": {"kernel": normal(5, 7), "bias": normal(7)},
        "second": {"kernel": normal(7, OUTPUTS), "bias": normal(OUTPUTS)},
    }


@pytest.fixture
def problem():
    params, way = draw(0), draw(1)
    inputs = jax.random.normal(jax.random.key(2), (EXAMPLES, POSITIONS, 5))
    weights = jax.random.uniform(jax.random.key(3), (EXAMPLES, POSITIONS)).at[1].set(0.0)
    return params, way, step(params, way, 0.7), inputs, weights


@pytest.mark.parametrize("loss", [SOFTMAX, SQUARED])
@pytest.mark.parametrize("chunk", [None, 4])
def test_the_parts_sum_to_the_whole(problem, loss, chunk):
    params, way, teacher, inputs, weights = problem
    keywords = {"weights": weights, "chunk": chunk}
    a = float(coefficient(network, loss, params, way, inputs, **keywords))
    g = float(inner_product(network, loss, params, way, teacher, inputs, **keywords))
    parts = {
        name: getattr(decomposition, name)
        for name in dir(decomposition)
        if name.startswith(("coefficient_by", "inner_product_by"))
    }
    assert len(parts) == 6
    for name, function in parts.items():
        if name.startswith("coefficient"):
            found, whole = function(network, loss, params, way, inputs, **keywords), a
        else:
            found, whole = function(network, loss, params, way, teacher, inputs, **keywords), g
        total = sum(float(jnp.sum(leaf)) for leaf in jax.tree.leaves(found))
        assert total == pytest.approx(whole, rel=1e-10), name


def test_by_layer_each_part_is_that_of_the_layers_own_direction(problem):
    params, way, teacher, inputs, weights = problem
    # Under a trace too, where the leaves' values are unknown.
    by_pairs = jax.jit(partial(decomposition.coefficient_by_layer, network, SOFTMAX))
    found = by_pairs(params, way, inputs)
    by_layer = decomposition.inner_product_by_layer(
        network, SOFTMAX, params, way, teacher, inputs, weights=weights
    )
    assert found.layers == tuple(by_layer) == ("['first']", "['second']")
    zero = jax.tree.map(jnp.zeros_like, way)
    for number, name in enumerate(("first", "second")):
        alone = zero | {name: way[name]}
        a = coefficient(network, SOFTMAX, params, alone, inputs)
        np.testing.assert_allclose(found.matrix[number, number], a, rtol=1e-10)
        g = inner_product(network, SOFTMAX, params, alone, teacher, inputs, weights=weights)
        np.testing.assert_allclose(by_layer[f"['{name}']"], g, rtol=1e-10)
    np.testing.assert_allclose(found.matrix, found.matrix.T, rtol=1e-12)


def test_by_example_each_part_is_that_of_the_row_alone_times_its_weight(problem):
    params, way, teacher, inputs, weights = problem
    a = decomposition.coefficient_by_example(network, SOFTMAX, params, way, inputs, weights=weights)
    g = decomposition.inner_product_by_example(
        network, SOFTMAX, params, way, teacher, inputs, weights=weights
    )
    assert a.shape == g.shape == (EXAMPLES, POSITIONS)
    assert (a >= 0).all()
    assert not a[1].any()
    alone, share = inputs[3:4, 2:3], weights[3, 2] / jnp.sum(weights)
    np.testing.assert_allclose(
        a[3, 2], share * coefficient(network, SOFTMAX, params, way, alone), rtol=1e-10
    )
    np.testing.assert_allclose(
        g[3, 2], share * inner_product(network, SOFTMAX, params, way, teacher, alone), rtol=1e-10
    )


def test_by_logit_a_loss_of_separate_logits_gives_each_its_own_part(problem):
    params, way, teacher, inputs, _ = problem
    a = decomposition.coefficient_by_logit(network, SQUARED, params, way, inputs)
    g = decomposition.inner_product_by_logit(network, SQUARED, params, way, teacher, inputs)
    assert a[2] == g[2] == 0
    only = matching(squared_potential(jnp.array([0.0, 2.0, 0.0, 0.0])))
    np.testing.assert_allclose(a[1], coefficient(network, only, params, way, inputs), rtol=1e-10)
    expected = inner_product(network, only, params, way, teacher, inputs)
    np.testing.assert_allclose(g[1], expected, rtol=1e-10)


def test_bad_arguments_are_refused_by_name(problem):
    params, way, teacher, inputs, _ = problem
    args = (network, SOFTMAX, params)
    for name in ("layer", "example", "logit"):
        a, g = (
            partial(getattr(decomposition, f"{what}_by_{name}"), *args)
            for what in ("coefficient", "inner_product")
        )
        with pytest.raises(ValueError, match="direction: must have the tree structure of params"):
            a(way["first"], inputs)
        with pytest.raises(ValueError, match="direction: must have the tree structure of params"):
            g(way["first"], teacher, inputs)
        with pytest.raises(ValueError, match="teacher: must have the tree structure of params"):
            g(way, teacher["first"], inputs)
        with pytest.raises(ValueError, match="weights: needs one number a row"):
            a(way, inputs, weights=np.ones(2))
