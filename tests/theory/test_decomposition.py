"""Claims about the parts of a and g: each sums to the whole, and is what its name says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import decomposition
from theory.alignment import coefficient, inner_product
from theory.bilinear import bilinear_coefficient, gram, other_start
from theory.interval import interval_certificate
from theory.losses import matching, softmax_potential, squared_potential
from theory.passes import step
from theory.score import fisher_information, scores, scores_along

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


@pytest.mark.parametrize(
    ("loss", "chunk"),
    [
        (SOFTMAX, None),
        (SQUARED, 4),
        pytest.param(SOFTMAX, 4, marks=pytest.mark.slow),
        pytest.param(SQUARED, None, marks=pytest.mark.slow),
    ],
)
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


# --- of every function that takes means over rows, here and in the modules beside ---------------

PARAMS, WAY = draw(4), draw(5)
TEACHER = step(PARAMS, WAY, 0.3)
WAYS = jax.tree.map(lambda one, other: jnp.stack([one, other]), WAY, PARAMS)
FLAT = np.linspace(-1.0, 1.0, 5 * EXAMPLES).reshape(EXAMPLES, 5) ** 3


def partly(p, x):
    """The network, with no number for inputs from 5 on."""
    return jnp.where(x[:, :1] > 5, jnp.nan, 1) * network(p, x)


def scored(function, way, inputs, **keywords):
    return function(partly, PARAMS, way, inputs, np.arange(len(inputs)) % OUTPUTS, **keywords)


MODEL = (partly, SOFTMAX, PARAMS)
TOTALS = {
    "gram": partial(gram, *MODEL, WAYS),
    "bilinear_coefficient": partial(bilinear_coefficient, *MODEL, WAY),
    "other_start": partial(other_start, *MODEL, TEACHER, WAY),
    "coefficient_by_layer": partial(decomposition.coefficient_by_layer, *MODEL, WAY),
    "coefficient_by_logit": partial(decomposition.coefficient_by_logit, *MODEL, WAY),
    "inner_product_by_logit": partial(decomposition.inner_product_by_logit, *MODEL, WAY, TEACHER),
    "interval_certificate": partial(interval_certificate, *MODEL, WAY, largest=1.0, points=4),
}
BY_EXAMPLE = {
    "coefficient_by_example": partial(decomposition.coefficient_by_example, *MODEL, WAY),
    "inner_product_by_example": partial(
        decomposition.inner_product_by_example, *MODEL, WAY, TEACHER
    ),
    "scores": partial(scored, scores, WAY),
    "scores_along": partial(scored, scores_along, WAYS),
    "fisher_information": partial(fisher_information, partly, PARAMS, WAY),
}


def assert_same(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOTALS | BY_EXAMPLE)
def test_rows_of_weight_0_may_have_logits_that_are_no_numbers(name):
    function = (TOTALS | BY_EXAMPLE)[name]
    kept = function(FLAT)
    extended = np.concatenate([FLAT, np.full((1, 5), 6.0)])
    found = function(extended, weights=np.append(np.ones(EXAMPLES), 0.0))
    if name in BY_EXAMPLE:
        assert not found[..., -1].any()
        found = found[..., :-1]
    assert_same(found, kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOTALS | BY_EXAMPLE)
def test_inputs_and_weights_spread_over_devices_by_their_type_change_nothing(name):
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("examples",))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("examples"))
    inputs, weights = (jax.device_put(each, where) for each in (FLAT, np.full(EXAMPLES, 0.5)))
    function = (TOTALS | BY_EXAMPLE)[name]
    expected = function(FLAT, weights=np.full(EXAMPLES, 0.5))
    with jax.set_mesh(mesh):
        for chunk in (None, 2):
            assert_same(function(inputs, weights=weights, chunk=chunk), expected)
        # Weights that are none are not spread.
        jax.block_until_ready(function(inputs))


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
