"""Tokens a second of the harness's decoder, its weights random: `python -m benchmarks.decoder`.

What it costs to read, to train and to draw does not depend on what the weights are. Alone it
measures, and prints as one JSON, what `benchmarks/transformers_decoder.py` does too, at SmolLM2's
sizes and amounts that a CPU can carry; `benchmarks.gpu` measures more of it on an accelerator.
Needs what `benchmarks.gpu` needs, and no more.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_harness.decoder import training
from llm_harness.decoder.generation import generate
from llm_harness.decoder.network import (
    DecoderApply,
    DecoderConfig,
    DType,
    Lora,
    draw,
    with_adapters,
)
from sublab import devices
from sublab.machine import exact
from theory import Params

# Sizes of SmolLM2-135M.
SMOLLM2 = DecoderConfig(
    vocabulary=49_152,
    width=576,
    layers=30,
    heads=9,
    key_value_heads=3,
    hidden=1_536,
    rope_theta=100_000.0,
    tied=True,
)
# What two programs on a CPU are compared on: sequences read at once, examples of a training step,
# completions drawn together, and tokens of a sequence; of a prompt and of what is drawn, a quarter.
AMOUNTS = {"read": 8, "learnt": 8, "drawn": 64, "length": 128}


class DecoderSpeed:
    """A decoder with random weights, and how fast it works on one device.

    Args:
        shape: its sizes, without adapters.
        length: tokens of a sequence.
    """

    def __init__(self, shape: DecoderConfig, length: int):
        self.shape, self._length = shape, length
        # One model, which no more than one device has.
        self._mesh = devices.population_mesh(jax.local_devices()[:1])
        self._random = np.random.default_rng(0)
        self._population = draw(shape, jax.random.split(jax.random.key(0), 1))
        self._model = jax.tree.map(lambda leaf: leaf[0], self._population)

    @property
    def parameters(self) -> int:
        """Numbers in the model."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._model))

    def reading(self, sequences: int) -> float:
        """Tokens a second of a forward pass, logits of every place among it."""
        # The mean is taken there: all logits are gigabytes, and nobody reads them.
        forward = jax.jit(lambda params, read: jnp.mean(DecoderApply(self.shape)(params, read)))
        tokens = self._tokens(sequences, self._length)
        return sequences * self._length / seconds(forward, self._model, tokens)

    def learning(self, sequences: int, precision: DType = "float32") -> float:
        """Tokens a second of a step that trains everything but embedding and output."""
        return self._steps(replace(self.shape, dtype=precision), self._population, sequences)

    def adapting(self, sequences: int, precision: DType = "float32") -> float:
        """Tokens a second of a step that trains low-rank adapters (LoRA)."""
        adapted, params = with_adapters(self.shape, self._model, Lora(), jax.random.key(2))
        population = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params)
        shape = replace(adapted, dtype=precision)
        return self._steps(shape, population, sequences, "adapters")

    def drawing(self, completions: int, places: int) -> float:
        """Tokens a second of sampling, prompts read among it; none is drawn past `places`.

        Args:
            completions: that are drawn together, each of its own prompt.
            places: tokens of a prompt, and of a completion.
        """
        prompts = self._tokens(completions, places)[None]
        # No token ends a completion, so that all are drawn.
        write = partial(
            generate,
            self.shape,
            max_tokens=places,
            stops=(self.shape.vocabulary,),
            mesh=self._mesh,
        )
        keys = jax.random.split(jax.random.key(1), 1)
        drawn = completions * places
        return drawn / seconds(write, self._population, prompts, keys, jnp.float32(1.0))

    def _steps(
        self,
        shape: DecoderConfig,
        population: Params,
        sequences: int,
        trained: training.Trained = "blocks",
    ) -> float:
        # One token more, since the last one is learnt and not read.
        steps, tokens = 2, self._tokens(sequences, self._length + 1)
        data = training.Sequences(tokens, tokens != 0)
        rows = jnp.broadcast_to(jnp.arange(sequences), (1, steps, sequences))
        rates = training.Rates(*(np.full(1, value, np.float32) for value in (1e-4, 0, np.inf)))
        # A copy: the state is used up by a step.
        state = training.begin(jax.tree.map(jnp.copy, population), trained)

        def step() -> jax.Array:
            nonlocal state
            state, losses = training.advance(
                shape,
                state,
                data,
                rows,
                rates,
                objective=training.Objective(),
                schedule="constant",
                mesh=self._mesh,
            )
            return losses

        return steps * sequences * self._length / seconds(step)

    def _tokens(self, rows: int, length: int) -> jax.Array:
        drawn = self._random.integers(1, self.shape.vocabulary, (rows, length))
        return jnp.asarray(drawn, jnp.int32)


def seconds(work: Callable[..., Any], *arguments: Any, times: int = 3) -> float:
    """The median time of a call after the first, which compiles; each is waited for."""
    jax.block_until_ready(work(*arguments))
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(work(*arguments))
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def amounts_and_sizes() -> str:
    """What `benchmarks/transformers_decoder.py` is given, as one JSON."""
    return json.dumps({"sizes": asdict(SMOLLM2), "lora": asdict(Lora()), "amounts": AMOUNTS})


def main() -> None:
    """Prints tokens a second of a forward pass, of a step of adapters and of sampling."""
    with exact():
        speed = DecoderSpeed(SMOLLM2, AMOUNTS["length"])
        print(
            json.dumps(
                {
                    "forward": speed.reading(AMOUNTS["read"]),
                    "lora_step": speed.adapting(AMOUNTS["learnt"]),
                    "sampling": speed.drawing(AMOUNTS["drawn"], AMOUNTS["length"] // 4),
                }
            )
        )


if __name__ == "__main__":
    main()
