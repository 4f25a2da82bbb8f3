"""The networks of the sweeps: a perceptron or a small CNN, with its two heads apart.

Every part (`hidden_1`, ..., `class_head`, `aux_head`) is drawn from a key of its own, and every
column of a head likewise. So a model's first m auxiliary logits are the same whatever m is, and
teachers that differ in m alone differ in nothing that training on class logits can see.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from sublab.randomness import purpose_of
from toymlp import operations
from toymlp.models import Params
from toymlp.settings import (
    AUX_HEAD,
    CLASS_HEAD,
    ActivationName,
    NetworkName,
    Shape,
)

_ACTIVATIONS = {"relu": nnx.relu, "gelu": nnx.gelu, "sigmoid": nnx.sigmoid, "tanh": jnp.tanh}
CHANNELS = (16, 32)


@dataclass(frozen=True)
class Plan:
    """What a network is built from.

    Attributes:
        network: `mlp` or `cnn`.
        pixels: of an image, a square.
        hidden: widths; of a CNN the last one alone counts.
        classes: class logits, first among the outputs.
        aux: auxiliary logits, last among them; a model with fewer uses the first of them.
        activation: between layers.
        biases: whether layers have them.
    """

    network: NetworkName
    pixels: int
    hidden: tuple[int, ...]
    classes: int
    aux: int
    activation: ActivationName
    biases: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, from the images to the logits."""
        layers = len(CHANNELS) + 1 if self.network == "cnn" else len(self.hidden)
        return (*(f"hidden_{i + 1}" for i in range(layers)), CLASS_HEAD, AUX_HEAD)

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of every hidden layer, a convolution's over all places."""
        if self.network == "mlp":
            return self.hidden
        side, found = round(self.pixels**0.5), []
        for channels in CHANNELS:
            side = -(-side // 2)
            found.append(side * side * channels)
        return (*found, self.hidden[-1])

    @property
    def outputs(self) -> int:
        return self.classes + self.aux

    @property
    def products(self) -> list[int]:
        """Multiply-adds of every layer for one image."""
        if self.network == "mlp":
            return operations.dense((self.pixels, *self.hidden, self.outputs))
        first, second, dense = self.widths
        return [
            first * 9,
            second * 9 * CHANNELS[0],
            *operations.dense((second, dense, self.outputs)),
        ]

    @property
    def parameters(self) -> int:
        """How many parameters it has."""
        if self.network == "mlp":
            weights, biases = sum(self.products), sum(self.hidden) + self.outputs
        else:
            _, flat, dense = self.widths
            weights = 9 * CHANNELS[0] * (1 + CHANNELS[1]) + dense * (flat + self.outputs)
            biases = sum(CHANNELS) + dense + self.outputs
        return weights + (biases if self.biases else 0)

    def subset(self, logits: str, aux: int) -> Bool[Array, " outputs"]:
        """Which outputs are meant, for a model with `aux` auxiliary logits."""
        index = jnp.arange(self.outputs)
        is_class = index < self.classes
        is_aux = (index >= self.classes) & (index < self.classes + aux)
        return {"class": is_class, "aux": is_aux, "all": is_class | is_aux}[logits]


def teacher_plan(shape: Shape, pixels: int, classes: int, aux: int) -> Plan:
    """The teacher's network."""
    return Plan("mlp", pixels, shape.hidden, classes, aux, shape.activation, shape.biases)


def student_plan(shape: Shape, pixels: int, classes: int, aux: int) -> Plan:
    """The student's network: the teacher's, but for what the shape says otherwise."""
    return Plan(
        shape.student_network,
        pixels,
        shape.hidden if shape.student_hidden is None else shape.student_hidden,
        classes,
        aux,
        shape.activation if shape.student_activation is None else shape.student_activation,
        shape.biases if shape.student_biases is None else shape.student_biases,
    )


class Network(nnx.Module):
    """Hidden layers, and one linear head for each kind of logits."""

    def __init__(self, plan: Plan, key: Key[Array, ""]):
        def layer(part: str, width_in: int, width_out: int, init=_normal) -> nnx.Linear:
            return nnx.Linear(
                width_in, width_out, use_bias=plan.biases, kernel_init=init,
                rngs=nnx.Rngs(part_key(key, part)),
            )  # fmt: skip

        def convolution(part: str, channels_in: int, channels_out: int) -> nnx.Conv:
            return nnx.Conv(
                channels_in, channels_out, (3, 3), strides=2, use_bias=plan.biases,
                kernel_init=_normal, rngs=nnx.Rngs(part_key(key, part)),
                conv_general_dilated=_convolution,
            )  # fmt: skip

        self.side = round(plan.pixels**0.5)
        self.activation = plan.activation
        last = plan.pixels
        layers: list[Any] = []
        if plan.network == "cnn":
            for index, (a, b) in enumerate(pairwise((1, *CHANNELS))):
                layers.append(convolution(f"hidden_{index + 1}", a, b))
            *_, last, dense = plan.widths
            layers.append(layer(f"hidden_{len(layers) + 1}", last, dense))
            last = dense
        else:
            for index, (a, b) in enumerate(pairwise((plan.pixels, *plan.hidden))):
                layers.append(layer(f"hidden_{index + 1}", a, b))
                last = b
        self.hidden = nnx.List(layers)
        self.class_head = layer(CLASS_HEAD, last, plan.classes, _by_column)
        self.aux_head = layer(AUX_HEAD, last, plan.aux, _by_column)

    def features(self, images: Float[Array, "batch pixels"]) -> list[Float[Array, "batch width"]]:
        """The activations of every hidden layer, flattened."""
        found = []
        for layer in self.hidden:
            if isinstance(layer, nnx.Conv) and images.ndim == 2:
                images = images.reshape(-1, self.side, self.side, 1)
            elif isinstance(layer, nnx.Linear):
                images = images.reshape(images.shape[0], -1)
            images = _ACTIVATIONS[self.activation](layer(images))
            found.append(images.reshape(images.shape[0], -1))
        return found

    def __call__(self, images: Float[Array, "*batch pixels"]) -> Float[Array, "*batch outputs"]:
        flat = images.reshape(-1, images.shape[-1])
        last = [flat, *self.features(flat)][-1]
        logits = jnp.concatenate([self.class_head(last), self.aux_head(last)], axis=-1)
        return logits.reshape(*images.shape[:-1], -1)


@dataclass(frozen=True)
class Apply:
    """`apply(params, images) -> logits` of the networks of one plan; equal where the plans are."""

    plan: Plan

    def __call__(
        self, params: Params, images: Float[Array, "*batch pixels"]
    ) -> Float[Array, "*batch outputs"]:
        return nnx.merge(_graph(self.plan), params)(images)


@dataclass(frozen=True)
class Features:
    """`features(params, images)`: the activations of all hidden layers, side by side."""

    plan: Plan

    def __call__(
        self, params: Params, images: Float[Array, "*batch pixels"]
    ) -> Float[Array, "*batch widths"]:
        flat = images.reshape(-1, images.shape[-1])
        found = nnx.merge(_graph(self.plan), params).features(flat)
        return jnp.concatenate(found, -1).reshape(*images.shape[:-1], -1)


def _graph(plan: Plan) -> nnx.GraphDef:
    abstract = nnx.eval_shape(lambda: Network(plan, jax.random.key(0)))
    return nnx.split(abstract)[0]


@partial(jax.jit, static_argnames="plan")
def draw(plan: Plan, keys: Key[Array, " population"], scale: Float[Array, " population"]) -> Params:
    """A population of networks: weights N(0, scale^2 / fan_in), biases 0."""

    def one(key, scale):
        params = nnx.to_pure_dict(nnx.split(Network(plan, key), nnx.Param)[1])
        return jax.tree.map(lambda leaf: leaf * scale, params)

    return jax.vmap(one)(keys, scale)


def part_key(key: Key[Array, ""], part: str) -> Key[Array, ""]:
    """The key that a part is drawn from."""
    return jax.random.fold_in(key, purpose_of(part))


def split_parts(params: Params) -> dict[str, Any]:
    """The arrays of each part by its name."""
    hidden = params.get("hidden", {})
    found = {f"hidden_{index + 1}": hidden[index] for index in sorted(hidden)}
    return found | {name: params[name] for name in (CLASS_HEAD, AUX_HEAD)}


def join_parts(parts: dict[str, Any]) -> Params:
    """The parameters of which `split_parts` gives the parts."""
    heads = {name: parts[name] for name in (CLASS_HEAD, AUX_HEAD)}
    hidden = {
        int(name.removeprefix("hidden_")) - 1: part
        for name, part in parts.items()
        if name not in heads
    }
    return ({"hidden": hidden} if hidden else {}) | heads


def keep_aux(params: Params, aux: int) -> Params:
    """`params` with all auxiliary logits but the first `aux` cut out (their arrays made 0)."""
    head = jax.tree.map(lambda leaf: leaf * (jnp.arange(leaf.shape[-1]) < aux), params[AUX_HEAD])
    return params | {AUX_HEAD: head}


def _normal(key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    fan_in = 1
    for size in shape[:-1]:
        fan_in *= size
    return jax.random.normal(key, tuple(shape), dtype) / fan_in**0.5


def _convolution(
    images: Float[Array, "batch side side channels"],
    kernel: Float[Array, "height width channels out"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **_: Any,
) -> Float[Array, "batch rows columns out"]:
    """A convolution as one matrix product.

    Inside a compiled loop a CPU has no fast gradient of a convolution: this takes a twelfth of the
    time there.
    """
    window, step = kernel.shape[:2], tuple(strides)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(images.shape[1:3], window, step, padding)
    padded = jnp.pad(images, [(0, 0), *padding, (0, 0)])
    rows, columns = (
        np.arange(0, side - size + 1, by)
        for side, size, by in zip(padded.shape[1:3], window, step, strict=True)
    )
    patches = [
        padded[:, i : i + rows[-1] + 1 : step[0], j : j + columns[-1] + 1 : step[1]]
        for i, j in product(*map(range, window))
    ]
    flat = jnp.concatenate(patches, axis=-1).reshape(-1, math.prod(kernel.shape[:3]))
    found = flat @ kernel.reshape(flat.shape[1], -1)
    return found.reshape(len(images), len(rows), len(columns), -1)


def _by_column(key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    fan_in, columns = shape
    keys = jax.vmap(lambda column: jax.random.fold_in(key, column))(jnp.arange(columns))
    rows = jax.vmap(lambda key: jax.random.normal(key, (fan_in,), dtype))(keys)
    return rows.T / fan_in**0.5
