"""Claims about the models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from toymlp import models

PAPER = models.Architecture(inputs=784)


def test_the_papers_model_has_269_322_parameters():
    _, params = models.functional(models.MLP(PAPER, nnx.Rngs(0)))
    expected = 784 * 256 + 256 + 256 * 256 + 256 + 256 * 13 + 13
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected


def test_weights_are_normal_with_variance_one_over_fan_in_and_biases_zero():
    _, params = models.functional(models.MLP(PAPER, nnx.Rngs(1)))
    leaves = jax.tree.leaves(params)
    weights = [np.asarray(leaf) for leaf in leaves if leaf.ndim == 2]
    assert [w.shape for w in weights] == [(784, 256), (256, 256), (256, 13)]
    for weight in weights:
        standardised = weight.ravel() * weight.shape[0] ** 0.5
        assert stats.kstest(standardised, "norm").pvalue > 1e-3
    for bias in (leaf for leaf in leaves if leaf.ndim == 1):
        np.testing.assert_array_equal(bias, 0)


def test_apply_is_the_module_and_a_plain_matrix_formula():
    module = models.MLP(PAPER, nnx.Rngs(2))
    apply, params = models.functional(module)
    images = jax.random.normal(jax.random.key(0), (4, 784))
    by_hand = images
    for index, layer in enumerate(params["layers"].values()):
        by_hand = by_hand @ layer["kernel"][...] + layer["bias"][...]
        by_hand = jnp.maximum(by_hand, 0) if index < 2 else by_hand
    np.testing.assert_allclose(apply(params, images), by_hand, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(apply(params, images), module(images))


def test_apply_of_two_modules_of_one_architecture_is_equal_and_of_two_is_not():
    one, other = (models.functional(models.MLP(PAPER, nnx.Rngs(s)))[0] for s in (0, 1))
    wider = models.functional(models.MLP(models.Architecture(784, (512,)), nnx.Rngs(0)))[0]
    assert one == other
    assert hash(one) == hash(other)
    assert one != wider


def test_functional_takes_any_module_and_refuses_one_with_other_state():
    apply, params = models.functional(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    assert apply(params, jnp.ones((5, 3))).shape == (5, 2)
    with pytest.raises(ValueError, match="holds state"):
        models.functional(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))


def test_a_population_member_is_the_model_its_key_draws_alone():
    keys = jax.random.split(jax.random.key(5), 3)
    apply, population = models.initialise(PAPER, keys)
    _, alone = models.initialise(PAPER, keys[1:2])
    assert apply == models.functional(models.MLP(PAPER, nnx.Rngs(0)))[0]
    for many, one in zip(jax.tree.leaves(population), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(many[1], one[0])


def test_class_and_auxiliary_logits_partition_the_outputs():
    architecture = models.Architecture(64, classes=4, aux=2)
    classes, aux = architecture.class_logits(), architecture.aux_logits()
    np.testing.assert_array_equal(classes, [True] * 4 + [False] * 2)
    np.testing.assert_array_equal(classes ^ aux, architecture.all_logits())
