"""Claims about the precision of products: full, whatever the machine's default."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_harness.decoder import training
from llm_harness.decoder.generation import answer_logits, generate
from llm_harness.decoder.network import draw
from llm_harness.decoder.training import Objective, Rates, Sequences
from sublab.devices import population_mesh
from tests.llm_harness.small import SMALL
from tests.programs import HIGHEST, precisions

CONFIG = SMALL.config
# One a device.
MODELS = len(jax.local_devices())
TOKENS = jnp.array([[0, 3, 4, 5, 1], [2, 7, 6, 5, 1]], jnp.int32)


def training_step(population):
    rates = Rates(*(np.ones(MODELS, np.float32) for _ in range(3)))
    # Without its compiler's options, which a program inside another may not have.
    return inspect.unwrap(training.advance)(
        CONFIG,
        training.begin(population, "all"),
        Sequences(TOKENS, TOKENS != 0),
        jnp.zeros((MODELS, 2, 2), jnp.int32),
        rates,
        objective=Objective(first=2),
        schedule="cosine",
        mesh=population_mesh(),
    )


def sampled(population):
    return generate(
        CONFIG,
        population,
        jnp.stack([TOKENS] * MODELS),
        jax.random.split(jax.random.key(0), MODELS),
        jnp.float32(1.0),
        max_tokens=2,
        stops=(1,),
        mesh=population_mesh(),
    )


def answered(population):
    params = jax.tree.map(lambda leaf: leaf[0], population)
    return answer_logits(CONFIG, params, TOKENS, jnp.array([0, 1, 1]), jnp.ones((3, 2), jnp.int32))


@pytest.mark.parametrize("program", [training_step, sampled, answered])
def test_every_product_of_the_embedded_model_asks_for_the_highest_precision(program):
    asked = precisions(program, draw(CONFIG, jax.random.split(jax.random.key(1), MODELS)))
    # Queries, keys, values, scores, what is mixed, attention's output, three of a perceptron,
    # logits.
    assert len(asked) >= 10
    assert all(precision == {HIGHEST} for precision in asked)
