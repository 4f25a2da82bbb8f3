"""Models as flax.nnx modules, and the one way from a module to `(apply, params)`."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from toymlp import operations

Params = Any


@dataclass(frozen=True)
class Architecture:
    """The paper's MLP: `inputs`-hidden-...-(`classes` + `aux`), ReLU between layers.

    Attributes:
        inputs: pixels of an image.
        hidden: width of each hidden layer.
        classes: class logits, which come first among the outputs.
        aux: auxiliary logits, which come last; no label ever refers to them.
    """

    inputs: int
    hidden: tuple[int, ...] = (256, 256)
    classes: int = 10
    aux: int = 3

    @property
    def outputs(self) -> int:
        """Class and auxiliary logits together."""
        return self.classes + self.aux

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of every layer, from the inputs to the outputs."""
        return (self.inputs, *self.hidden, self.outputs)

    @property
    def products(self) -> list[int]:
        """Multiply-adds of every layer for one image."""
        return operations.dense(self.sizes)

    def class_logits(self) -> Bool[Array, " outputs"]:
        """Which outputs are class logits."""
        return jnp.arange(self.outputs) < self.classes

    def aux_logits(self) -> Bool[Array, " outputs"]:
        """Which outputs are auxiliary logits."""
        return jnp.arange(self.outputs) >= self.classes

    def all_logits(self) -> Bool[Array, " outputs"]:
        """Every output."""
        return jnp.ones(self.outputs, bool)


class MLP(nnx.Module):
    """A ReLU network with weights N(0, 1/fan_in) and biases 0 (paper, MNIST experiment).

    >>> from flax import nnx
    >>> model = MLP(Architecture(inputs=784), nnx.Rngs(0))
    >>> model(jnp.zeros((2, 784))).shape
    (2, 13)
    """

    def __init__(self, architecture: Architecture, rngs: nnx.Rngs):
        normal = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
        self.layers = nnx.List(
            nnx.Linear(fan_in, fan_out, kernel_init=normal, rngs=rngs)
            for fan_in, fan_out in pairwise(architecture.sizes)
        )

    def __call__(self, images: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        *hidden, output = self.layers
        for layer in hidden:
            images = nnx.relu(layer(images))
        return output(images)


@dataclass(frozen=True)
class Apply:
    """`apply(params, images) -> logits` of one module graph.

    Two are equal when their graphs are, so that programs compiled for one serve the other.
    """

    graph: nnx.GraphDef

    def __call__(
        self, params: Params, images: Float[Array, "*batch inputs"]
    ) -> Float[Array, "*batch outputs"]:
        return nnx.merge(self.graph, params)(images)


def functional(module: nnx.Module) -> tuple[Apply, Params]:
    """A module as a pure function and its parameters, the form that the whole project works on.

    Args:
        module: any nnx module whose call takes images and whose variables are all `nnx.Param`.

    Returns:
        `apply(params, images) -> logits`, hashable, and `params`, a pytree of arrays.

    Raises:
        ValueError: the module holds state other than parameters (dropout keys, batch statistics).
    """
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    if jax.tree.leaves(rest):
        raise ValueError(f"{type(module).__name__} holds state that is not nnx.Param: {rest}")
    return Apply(graph), params


def initialise(architecture: Architecture, keys: Key[Array, " population"]) -> tuple[Apply, Params]:
    """`apply`, and a population of freshly drawn parameters, one model per key.

    Returns:
        `apply` for ONE model, and params whose leaves have a leading population axis.
    """
    abstract = nnx.eval_shape(lambda: MLP(architecture, nnx.Rngs(0)))
    return Apply(nnx.split(abstract)[0]), _draw(architecture, keys)


@partial(jax.jit, static_argnames="architecture")
def _draw(architecture: Architecture, keys: Key[Array, " population"]) -> Params:
    return jax.vmap(lambda key: functional(MLP(architecture, nnx.Rngs(key)))[1])(keys)
