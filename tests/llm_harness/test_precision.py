"""Claims about the precision of products: full, whatever the machine's default."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from llm_harness import sampling, training
from llm_harness.tiny_decoder import DecoderArchitecture, draw, merged
from sublab.devices import population_mesh
from tests.programs import HIGHEST, precisions

SMALL = DecoderArchitecture(vocabulary=40, width=8, layers=1)
# One a device.
MODELS = len(jax.local_devices())
TOKENS = jnp.array([[0, 3, 4, 5, 1], [2, 7, 6, 5, 1]], jnp.int32)


def training_step(population):
    state, rates = training.begin(population, freeze_vocabulary=False), jnp.ones(MODELS)
    # Without its compiler's options, which a program inside another may not have.
    return inspect.unwrap(training.advance)(
        SMALL,
        state,
        TOKENS,
        jnp.zeros((MODELS, 2, 2), jnp.int32),
        training.TinyRates(rates, rates),
        first=2,
        mesh=population_mesh(),
    )


def sampled(cached, population):
    keys = jax.random.split(jax.random.key(0), MODELS)
    return sampling.sample(
        SMALL,
        population,
        jnp.stack([TOKENS] * MODELS),
        keys,
        jnp.float32(1.0),
        length=2,
        end=1,
        mesh=population_mesh(),
        cached=cached,
    )


def answered(population):
    model = merged(SMALL, jax.tree.map(lambda leaf: leaf[0], population))
    return model.answers(TOKENS, jnp.array([0, 1, 1]), jnp.ones((3, 2), jnp.int32))


@pytest.mark.parametrize(
    "program",
    [training_step, partial(sampled, True), partial(sampled, False), answered],
    ids=["training", "sampling", "sampling without a cache", "answers"],
)
def test_every_product_of_the_embedded_model_asks_for_the_highest_precision(program):
    asked = precisions(program, draw(SMALL, jax.random.split(jax.random.key(1), MODELS)))
    # Queries, scores, values, attention's output, two layers of a perceptron, logits.
    assert len(asked) >= 7
    assert all(precision == {HIGHEST} for precision in asked)
