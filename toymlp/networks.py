"""Networks: a perceptron or a small CNN, with its two heads apart, and what they cost.

Every part (`hidden_1`, ..., `class_head`, `aux_head`) is drawn from a key of its own, and every
column of a head likewise. So a model's first m auxiliary logits are the same whatever m is, and
teachers that differ in m alone differ in nothing that training on class logits can see.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from sublab.randomness import purpose_of
from theory.passes import Params
from theory.symmetry import Readout, permute_readout
from toymlp.data import size_of
from toymlp.settings import (
    AUX_HEAD,
    CLASS_HEAD,
    LOGITS,
    ActivationName,
    InitialisationName,
    LogitsName,
    NetworkName,
    Setting,
)

_ACTIVATIONS = {"relu": nnx.relu, "gelu": nnx.gelu, "sigmoid": nnx.sigmoid, "tanh": jnp.tanh}
CHANNELS = (16, 32)


@dataclass(frozen=True)
class Architecture:
    """What a network is built from.

    Attributes:
        network: `mlp` or `cnn`.
        pixels: of an image, a square.
        hidden: widths; of a CNN the last one alone counts.
        classes: class logits, first among the outputs.
        aux: auxiliary logits, last among them; a model with fewer uses the first of them.
        activation: between layers.
        biases: whether layers have them.
        initialisation: law of what is drawn.
    """

    network: NetworkName
    pixels: int
    hidden: tuple[int, ...]
    classes: int
    aux: int
    activation: ActivationName
    biases: bool
    initialisation: InitialisationName = "normal"

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, from the images to the logits."""
        layers = len(CHANNELS) + 1 if self.network == "cnn" else len(self.hidden)
        return (*(f"hidden_{i + 1}" for i in range(layers)), CLASS_HEAD, AUX_HEAD)

    def part_size(self, part: str) -> tuple[str, int, int]:
        """What a part that it has is: `convolution` or `dense`, numbers that go in and come out.

        Of a convolution these are channels; of the heads what comes out is the class logits, or
        the auxiliary ones.
        """
        if part in (CLASS_HEAD, AUX_HEAD):
            last = [self.pixels, *self.widths][-1]
            return "dense", last, self.classes if part == CLASS_HEAD else self.aux
        index = int(part.removeprefix("hidden_")) - 1
        if self.network == "cnn" and index < len(CHANNELS):
            return "convolution", (1, *CHANNELS)[index], CHANNELS[index]
        before, after = [self.pixels, *self.widths][index : index + 2]
        return "dense", before, after

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of every hidden layer, a convolution's over all places."""
        if self.network == "mlp":
            return self.hidden
        side, widths = round(self.pixels**0.5), []
        for channels in CHANNELS:
            side = -(-side // 2)
            widths.append(side * side * channels)
        return (*widths, self.hidden[-1])

    @property
    def outputs(self) -> int:
        return self.classes + self.aux

    @property
    def products(self) -> list[int]:
        """Multiply-adds of every layer for one image."""
        if self.network == "mlp":
            return _dense((self.pixels, *self.hidden, self.outputs))
        first, second, dense = self.widths
        return [
            first * 9,
            second * 9 * CHANNELS[0],
            *_dense((second, dense, self.outputs)),
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

    @property
    def forward_operations(self) -> int:
        """Floating-point operations of the matrix products of one example's logits."""
        return 2 * sum(self.products)

    @property
    def gradient_operations(self) -> int:
        """The same of its gradient: forward, by the weights, and by the activations.

        The first layer needs no gradient by its inputs.
        """
        return 2 * (3 * sum(self.products) - self.products[0])

    def subset(
        self, logits: LogitsName | Int[Array, ""], aux: int | Int[Array, ""]
    ) -> Bool[Array, " outputs"]:
        """Which outputs are meant.

        Args:
            logits: a name, or, where it is traced, its number in `LOGITS`.
            aux: auxiliary logits that the model has of its own.
        """
        index = jnp.arange(self.outputs, dtype=jnp.int32)
        is_class = index < self.classes
        is_aux = (index >= self.classes) & (index < self.classes + aux)
        chosen = LOGITS.index(logits) if isinstance(logits, str) else logits
        by_name = {"aux": is_aux, "class": is_class, "all": is_class | is_aux}
        subset = jnp.zeros(self.outputs, bool)
        for number, name in enumerate(LOGITS):
            subset |= by_name[name] & jnp.asarray(chosen == number)
        return subset


def architectures(setting: Setting, aux: int | None = None) -> tuple[Architecture, Architecture]:
    """The teacher's and the student's network.

    Args:
        setting: the experiment.
        aux: auxiliary logits of both (default: the setting's own); a model with fewer uses the
            first of them.
    """
    size, model, student = size_of(setting.dataset), setting.model, setting.student_model
    aux = model.aux if aux is None else aux
    classes = setting.classes or size.classes
    teacher = Architecture(
        model.network,
        size.pixels,
        model.hidden,
        classes,
        aux,
        model.activation,
        model.biases,
        model.initialisation,
    )
    network = model.network if student.network is None else student.network
    hidden = model.hidden if student.hidden is None else student.hidden
    return teacher, replace(
        teacher,
        network=network,
        # Of a CNN's widths the last alone counts.
        hidden=hidden[-1:] if network == "cnn" else hidden,
        activation=model.activation if student.activation is None else student.activation,
        biases=model.biases if student.biases is None else student.biases,
    )


@jax.custom_vjp
def rounded_product(
    rows: Float[Array, "batch width"], kernel: Float[Array, "width out"]
) -> Float[Array, "batch out"]:
    """rows @ kernel of the two rounded to bfloat16, summed in float32; so are its gradients.

    In a gradient the three factors are rounded too: rows, kernel, and what comes from above.
    """
    return _product_and_factors(rows, kernel)[0]


def _product_and_factors(rows: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    factors = _rounded(rows), _rounded(kernel)
    return _summed(*factors, (1, 0)), factors


def _factor_gradients(factors: tuple[Array, Array], above: Array) -> tuple[Array, Array]:
    rows, kernel = factors
    above = _rounded(above)
    return _summed(above, kernel, (1, 1)), _summed(rows, above, (0, 0))


rounded_product.defvjp(_product_and_factors, _factor_gradients)


def _rounded(array: Array) -> Array:
    # Of a change of type and back alone XLA keeps the digits that it should have dropped.
    return jax.lax.reduce_precision(array, 8, 7).astype(jnp.bfloat16)


def _summed(a: Array, b: Array, over: tuple[int, int]) -> Array:
    first, second = over
    dimensions = (((first,), (second,)), ((), ()))
    # The factors are what they shall be: no further digits are to be found in them.
    return jax.lax.dot_general(
        a,
        b,
        dimensions,
        precision=jax.lax.Precision.DEFAULT,
        preferred_element_type=jnp.float32,
    )


def _rounded_layer(rows: Array, kernel: Array, dimensions: Any, **_: Any) -> Array:
    """`rounded_product` as a dense layer calls its product: with the dimensions that it sums."""
    assert dimensions == (((1,), (0,)), ((), ()))
    return rounded_product(rows, kernel)


class Network(nnx.Module):
    """Hidden layers, and one linear head for each kind of logits.

    Args:
        architecture: what it is built from.
        key: what its parameters are drawn from.
        rounded: whether its products are `rounded_product`.
    """

    def __init__(self, architecture: Architecture, key: Key[Array, ""], rounded: bool = False):
        # An argument only where it is needed: otherwise a layer's own product stays.
        given: dict[str, Any] = {"dot_general": _rounded_layer} if rounded else {}
        multiply = rounded_product if rounded else jnp.matmul

        def layer(part: str, width_in: int, width_out: int) -> nnx.Linear:
            weights, biases = _initialisers(
                architecture.initialisation, width_in, by_column=part in (CLASS_HEAD, AUX_HEAD)
            )
            return nnx.Linear(
                width_in,
                width_out,
                use_bias=architecture.biases,
                kernel_init=weights,
                bias_init=biases,
                rngs=nnx.Rngs(part_key(key, part)),
                **given,
            )

        def convolution(part: str, channels_in: int, channels_out: int) -> nnx.Conv:
            weights, biases = _initialisers(architecture.initialisation, 9 * channels_in)
            return nnx.Conv(
                channels_in,
                channels_out,
                (3, 3),
                strides=2,
                use_bias=architecture.biases,
                kernel_init=weights,
                bias_init=biases,
                rngs=nnx.Rngs(part_key(key, part)),
                conv_general_dilated=partial(_convolution, multiply),
            )

        self.multiply = multiply
        self.side = round(architecture.pixels**0.5)
        self.activation = architecture.activation
        last = architecture.pixels
        layers: list[Any] = []
        if architecture.network == "cnn":
            for index, (a, b) in enumerate(pairwise((1, *CHANNELS))):
                layers.append(convolution(f"hidden_{index + 1}", a, b))
            *_, last, dense = architecture.widths
            layers.append(layer(f"hidden_{len(layers) + 1}", last, dense))
            last = dense
        else:
            for index, (a, b) in enumerate(pairwise((architecture.pixels, *architecture.hidden))):
                layers.append(layer(f"hidden_{index + 1}", a, b))
                last = b
        self.hidden = nnx.List(layers)
        self.class_head = layer(CLASS_HEAD, last, architecture.classes)
        self.aux_head = layer(AUX_HEAD, last, architecture.aux)

    def features(self, images: Float[Array, "batch pixels"]) -> list[Float[Array, "batch width"]]:
        """The activations of every hidden layer, flattened."""
        activations = []
        for layer in self.hidden:
            if isinstance(layer, nnx.Conv) and images.ndim == 2:
                images = images.reshape(-1, self.side, self.side, 1)
            elif isinstance(layer, nnx.Linear):
                images = images.reshape(images.shape[0], -1)
            images = _ACTIVATIONS[self.activation](layer(images))
            activations.append(images.reshape(images.shape[0], -1))
        return activations

    def __call__(self, images: Float[Array, "*batch pixels"]) -> Float[Array, "*batch outputs"]:
        flat = images.reshape(-1, images.shape[-1])
        last = [flat, *self.features(flat)][-1]
        # Both heads as one product: a narrow one costs a CPU nearly as much as a wide one.
        heads = (self.class_head, self.aux_head)
        kernel = jnp.concatenate([head.kernel[...] for head in heads], axis=-1)
        logits = self.multiply(last, kernel)
        biases = [head.bias[...] for head in heads if head.bias is not None]
        if biases:
            logits += jnp.concatenate(biases)
        return logits.reshape(*images.shape[:-1], -1)


@dataclass(frozen=True)
class Forward:
    """`apply(params, images) -> logits` of an architecture; equal where the fields are.

    Attributes:
        architecture: the network.
        rounded: whether the factors of its products are rounded to bfloat16.
    """

    architecture: Architecture
    rounded: bool = False

    def __call__(
        self, params: Params, images: Float[Array, "*batch pixels"]
    ) -> Float[Array, "*batch outputs"]:
        return nnx.merge(_graph(self.architecture, self.rounded), params)(images)


@dataclass(frozen=True)
class HiddenActivations:
    """`features(params, images)`: the activations of all hidden layers, side by side."""

    architecture: Architecture

    def __call__(
        self, params: Params, images: Float[Array, "*batch pixels"]
    ) -> Float[Array, "*batch widths"]:
        flat = images.reshape(-1, images.shape[-1])
        activations = nnx.merge(_graph(self.architecture), params).features(flat)
        return jnp.concatenate(activations, -1).reshape(*images.shape[:-1], -1)


def _graph(architecture: Architecture, rounded: bool = False) -> nnx.GraphDef:
    abstract = nnx.eval_shape(lambda: Network(architecture, jax.random.key(0), rounded))
    return nnx.split(abstract)[0]


@partial(jax.jit, static_argnames="architecture")
def draw(
    architecture: Architecture, key: Key[Array, ""], scale: float | Float[Array, ""]
) -> Params:
    """The parameters of a new network, drawn by its law, times `scale`."""
    params = nnx.to_pure_dict(nnx.split(Network(architecture, key), nnx.Param)[1])
    return jax.tree.map(lambda leaf: leaf * jnp.asarray(scale, jnp.float32), params)


def part_key(key: Key[Array, ""], part: str) -> Key[Array, ""]:
    """The key that a part is drawn from."""
    return jax.random.fold_in(key, purpose_of(part))


def split_parts(params: Params) -> dict[str, Any]:
    """The arrays of each part by its name."""
    hidden = params.get("hidden", {})
    layers = {f"hidden_{index + 1}": hidden[index] for index in sorted(hidden)}
    return layers | {name: params[name] for name in (CLASS_HEAD, AUX_HEAD)}


def join_parts(parts: dict[str, Any]) -> Params:
    """The parameters of which `split_parts` gives the parts."""
    heads = {name: parts[name] for name in (CLASS_HEAD, AUX_HEAD)}
    hidden = {
        int(name.removeprefix("hidden_")) - 1: part
        for name, part in parts.items()
        if name not in heads
    }
    return ({"hidden": hidden} if hidden else {}) | heads


def class_readout(params: Params) -> Readout:
    """The class logits of a network, as the theory knows a readout."""
    head = params[CLASS_HEAD]
    axes = dict.fromkeys(params) | {
        CLASS_HEAD: {name: leaf.ndim - 1 for name, leaf in head.items()}
    }
    return Readout(axes, tuple(range(head["kernel"].shape[-1])))


def with_classes(params: Params, order: Sequence[int]) -> Params:
    """`params` with class logit `order[k]` in place of logit k; as they are where there is none."""
    return permute_readout(params, class_readout(params), order) if order else params


def keep_aux(params: Params, aux: int) -> Params:
    """`params` with all auxiliary logits but the first `aux` cut out (their arrays made 0)."""
    head = jax.tree.map(
        lambda leaf: leaf * (np.arange(leaf.shape[-1]) < aux).astype(np.float32), params[AUX_HEAD]
    )
    return params | {AUX_HEAD: head}


def _initialisers(
    law: InitialisationName, fan_in: int, by_column: bool = False
) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """What draws the weights of a layer, and what its biases.

    Args:
        law: the law.
        fan_in: numbers that each of the layer's outputs is a sum over.
        by_column: whether every output has a key of its own, so that an output's draw does not
            depend on how many there are.
    """
    unit = jax.random.normal if law == "normal" else partial(jax.random.uniform, minval=-1.0)

    def drawn(key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return unit(key, tuple(shape), dtype) / fan_in**0.5

    def drawn_by_column(
        key: Key[Array, ""], shape: Sequence[int], dtype: Any = jnp.float32
    ) -> Array:
        *rows, columns = shape
        keys = jax.vmap(lambda column: jax.random.fold_in(key, column))(
            jnp.arange(columns, dtype=jnp.uint32)
        )
        each = jax.vmap(lambda key: unit(key, tuple(rows), dtype))(keys)
        return jnp.moveaxis(each, 0, -1) / fan_in**0.5

    weights = drawn_by_column if by_column else drawn
    return weights, nnx.initializers.zeros_init() if law == "normal" else weights


def _convolution(
    multiply: Callable[[Array, Array], Array],
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
    products = multiply(flat, kernel.reshape(flat.shape[1], -1))
    return products.reshape(len(images), len(rows), len(columns), -1)


def _dense(sizes: Sequence[int]) -> list[int]:
    """Multiply-adds for one example of each layer between layers of the given sizes."""
    return [a * b for a, b in pairwise(sizes)]


def widened(params: Params, aux: int) -> Params:
    """`params` with `aux` auxiliary logits: new ones are 0, those beyond are left out."""
    head = {}
    for name, leaf in params[AUX_HEAD].items():
        room = np.zeros((*leaf.shape[:-1], aux), leaf.dtype)
        keep = min(aux, leaf.shape[-1])
        room[..., :keep] = leaf[..., :keep]
        head[name] = room
    return params | {AUX_HEAD: head}
