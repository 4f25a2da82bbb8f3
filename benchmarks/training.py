"""A population of the paper's models, ready to be trained epoch by epoch and measured."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks.arithmetic import product_operations
from sublab import devices
from sublab.randomness import purpose_key
from sublab.settings import build
from toymlp.inputs import Uniform, draw_inputs
from toymlp.networks import Architecture, Forward, architectures
from toymlp.settings import Setting
from toymlp.stages import Draws
from toymlp.train import Fit, Material, _epoch, begin, logits_of

Kind = Literal["teacher", "distillation"]


def architecture(kind: Kind) -> Architecture:
    """The paper's network, as each kind of training has it."""
    teacher, student = architectures(Setting(), aux=1 if kind == "teacher" else None)
    return teacher if kind == "teacher" else student


def gradient_products(images: Any, weights: Sequence[Any]) -> list[Any]:
    """The products of one gradient step of a perceptron and nothing else.

    Args:
        images: batch x pixels.
        weights: a matrix a layer.
    """
    activations = [images]
    for weight in weights:
        activations.append(activations[-1] @ weight)
    signal, gradients = activations[-1], []
    for index in reversed(range(len(weights))):
        gradients.append(activations[index].T @ signal)
        if index:
            signal = signal @ weights[index].T
    return gradients


class PopulationTraining:
    """A population that can be trained epoch by epoch.

    Args:
        kind: whether it learns labels or imitates logits.
        size: number of models.
        mesh: the devices.
        examples: inputs an epoch.
        batch: inputs a step.
    """

    def __init__(self, kind: Kind, size: int, mesh: Mesh, examples: int, batch: int):
        self.kind: Kind = kind
        self.architecture = architecture(kind)
        stage = "teacher" if kind == "teacher" else "student"
        setting = build(Setting, {f"{stage}.batch": batch})
        training = getattr(setting, stage)
        draws = Draws(self.architecture, 0)
        starts = [draws.reference(1.0, run) for run in range(size)]
        dataset: Any = _Blank(self.architecture.pixels)
        inputs = devices.replicate(
            draw_inputs(Uniform(count=examples), dataset, 0, "benchmark"), mesh
        )
        if kind == "teacher":
            targets = np.random.default_rng(0).integers(0, 10, (1, examples), np.int32)
        else:
            targets = logits_of(Forward(self.architecture), starts, inputs, mesh)
        fits = [
            Fit(
                start,
                training,
                aux=self.architecture.aux,
                order=jax.random.fold_in(purpose_key(0, "order"), run),
                target=0 if kind == "teacher" else size - 1 - run,
                snapshots=(1,),
            )
            for run, start in enumerate(starts)
        ]
        self._block = begin(fits, mesh)
        self._material = Material(inputs, devices.replicate(targets, mesh))
        self._program = partial(_epoch, architecture=self.architecture, mesh=mesh)
        self._lower = partial(_epoch.lower, architecture=self.architecture, mesh=mesh)

    @property
    def params(self) -> Any:
        """Parameters of all models, on the devices; `epoch` uses them up."""
        return self._block.params

    @property
    def state(self) -> Any:
        """States of their optimisers; `epoch` uses them up."""
        return self._block.state

    @property
    def rows(self) -> Any:
        """What the program knows of each model."""
        return self._block.rows

    def _arguments(self) -> tuple[Any, ...]:
        block = self._block
        return block.params, block.state, block.rows, np.int32(0), self._material

    def compile(self) -> None:
        """Traces and compiles an epoch's program, and throws it away."""
        self._lower(*self._arguments()).compile()

    def operations(self) -> int:
        """Matrix-product operations of an epoch of the whole population."""
        return product_operations(jax.make_jaxpr(self._program)(*self._arguments()))

    def epoch(self) -> None:
        """Trains every model for one epoch, and waits until it is done."""
        self._block.params, self._block.state, loss = self._program(*self._arguments())
        jax.block_until_ready((self._block.params, self._block.state, loss))


class _Blank:
    """A data set of which noise needs the number of pixels alone."""

    def __init__(self, pixels: int):
        self.train_images = np.empty((0, pixels), np.float32)
