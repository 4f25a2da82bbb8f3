"""A population of the paper's models, ready to be trained epoch by epoch and measured."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.arithmetic import product_operations
from sublab import devices
from sublab.randomness import run_keys
from toymlp import population
from toymlp.models import Architecture, initialise
from toymlp.protocol import noise_images

ARCHITECTURE = Architecture(inputs=784)


class Training:
    """A population that can be trained epoch by epoch."""

    def __init__(self, loss: population.LossName, size: int, mesh: Mesh, examples: int, batch: int):
        runs = jnp.arange(size)
        self.loss: population.LossName = loss
        apply, params = initialise(ARCHITECTURE, run_keys(0, "reference", runs))
        images = devices.replicate(noise_images(0, examples, ARCHITECTURE.inputs), mesh)
        if loss == "class_cross_entropy":
            targets = np.random.default_rng(0).integers(0, 10, (1, examples), np.int32)
            subset, row = ARCHITECTURE.class_logits(), jnp.zeros(size, jnp.int32)
        else:
            targets = population.predict(apply, params, images, mesh=mesh)
            subset, row = ARCHITECTURE.aux_logits(), jnp.asarray(runs[::-1], jnp.int32)
        knobs = population.Knobs(
            jnp.full(size, 3e-4, jnp.float32),
            run_keys(0, "order", runs),
            jnp.tile(subset, (size, 1)),
            row,
        )
        self._params, self._knobs = devices.spread((params, knobs), mesh)
        shape = population.Shape(loss, batch)
        self._state = population._start(self._params, self._knobs, shape=shape, mesh=mesh)
        self._shared = (images, devices.replicate(targets, mesh))
        self._program = partial(population._epoch, apply=apply, shape=shape, mesh=mesh)
        self._lower = partial(population._epoch.lower, apply=apply, shape=shape, mesh=mesh)

    def _arguments(self) -> tuple[Any, ...]:
        return (self._params, self._state, self._knobs, np.int32(0), *self._shared)

    def compile(self) -> None:
        """Traces and compiles an epoch's program, and throws it away."""
        self._lower(*self._arguments()).compile()

    def operations(self) -> int:
        """Matrix-product operations of an epoch of the whole population."""
        return product_operations(jax.make_jaxpr(self._program)(*self._arguments()))

    def epoch(self) -> None:
        """Trains every model for one epoch, and waits until it is done."""
        self._params, self._state, loss = self._program(*self._arguments())
        jax.block_until_ready((self._params, self._state, loss))
