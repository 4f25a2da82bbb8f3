"""Random instances of the theorem's setting: a model, data, a distillation loss, a trait loss.

An instance is drawn from a key. Its architecture (`Family`) is static; its `Kinds` are traced, so
that one compiled program serves every activation, loss, trait and distribution of one family.
Float64 throughout.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Int32, Key

from experiments.verify.families import ACTIVATIONS, CLASSES, OUTPUTS, Family, FamilyModel
from sublab.randomness import run_keys
from theory.losses import (
    Loss,
    Potential,
    bernoulli_potential,
    class_cross_entropy,
    matching,
    poisson_potential,
    softmax_potential,
    squared_potential,
)
from theory.passes import Apply, Params, TraitLoss, inner

LOSSES = (
    "squared_error",
    "weighted_squared_error",
    "softmax",
    "softmax_temperature",
    "softmax_subset",
    "bernoulli",
    "poisson",
    "log_cosh",
)
TRAITS = ("cross_entropy", "squared_error", "regulariser", "blind")
DATA = ("normal", "uniform", "sparse", "low_rank", "heavy_tailed")
CHOICES = {"activation": tuple(ACTIVATIONS), "loss": LOSSES, "trait": TRAITS, "data": DATA}

# Instances that are evaluated together and share their kinds, so that each choice of a kind is a
# branch taken, not eight branches computed.
BLOCK = 10
# Examples that the student sees, and that the trait loss is about.
_EXAMPLES, _TRAIT_EXAMPLES = 16, 12


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Kinds:
    """Indices into ACTIVATIONS, LOSSES, TRAITS and DATA."""

    activation: Int[Array, "*batch"]
    loss: Int[Array, "*batch"]
    trait: Int[Array, "*batch"]
    data: Int[Array, "*batch"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Instance:
    """A random case of the theorem.

    Attributes:
        params: theta_0, the start of teacher and student.
        other: an independent start, for the controls.
        random_direction: a direction for Lemma 1, which allows any; of the length of `params`.
        inputs: the data D_S. Their first feature is 0, so that nothing tells of the weights which
            read it.
        trait_inputs: inputs of the trait losses, with all features.
        trait_labels: their classes.
        trait_targets: their targets, for a squared error.
        weights: the weights of a weighted squared error.
        temperature: the temperature of a softmax that has one.
        subset: the outputs of a softmax over a subset.
        alpha: the student's step size.
        units: which units of an MLP's hidden layers there are. What belongs to others is 0 in
            all parameters and directions, and nothing reads it.
        shallow: whether an MLP has one hidden layer.
        kinds: the instance's activation, loss, trait and data.
    """

    params: Params
    other: Params
    random_direction: Params
    inputs: Float[Array, "*examples features"]
    trait_inputs: Float[Array, "*trait_examples features"]
    trait_labels: Int[Array, "*batch trait_examples"]
    trait_targets: Float[Array, "*batch trait_examples outputs"]
    weights: Float[Array, "*batch outputs"]
    temperature: Float[Array, "*batch"]
    subset: Bool[Array, "*batch outputs"]
    alpha: Float[Array, "*batch"]
    units: list[Bool[Array, "*batch _"]]
    shallow: Bool[Array, "*batch"]
    kinds: Kinds


def one_by_one(factorise: Callable[..., Any]) -> Callable[..., Any]:
    """`factorise`, which under vmap takes one instance after the other.

    On a CPU a batch of factorisations (LAPACK) is cut up among threads that all devices share, and
    waits on one of them for the others: as many batches at once as there are threads wait for each
    other for ever. One factorisation, or a few small ones, have nothing to wait for.
    """
    return jax.custom_batching.sequential_vmap(factorise)


def draw_kinds(
    seed: int, family: str, first: int, blocks: int
) -> dict[str, Int32[np.ndarray, " blocks"]]:
    """The kinds of blocks of instances, as indices into CHOICES; a block's do not depend on others.

    Args:
        seed: the base seed.
        family: the architecture's name.
        first: the number of the first block.
        blocks: how many blocks there are.
    """
    rows = [
        np.random.default_rng([seed, zlib.crc32(family.encode()), block]).integers(
            [len(names) for names in CHOICES.values()]
        )
        for block in range(first, first + blocks)
    ]
    return dict(zip(CHOICES, np.array(rows, np.int32).T, strict=True))


def draw_keys(seed: int, suite: str, numbers: Int[Array, " instances"]) -> Key[Array, " instances"]:
    """One key for the instance of each number."""
    return run_keys(seed, f"verify {suite}", numbers)


def draw_one(seed: int, family: Family, number: int) -> tuple[Key[Array, ""], Kinds]:
    """Key and kinds of the instance of one number."""
    kinds = draw_kinds(seed, family.name, number // BLOCK, 1)
    key = draw_keys(seed, family.name, jnp.array([number]))[0]
    return key, Kinds(**{name: jnp.int32(index[0]) for name, index in kinds.items()})


def draw(family: Family, key: Key[Array, ""], kinds: Kinds) -> Instance:
    """The instance of `family` with these kinds; everything else in it comes from `key`."""
    shape = nnx.state(nnx.eval_shape(lambda: FamilyModel(family, nnx.Rngs(0))), nnx.Param)
    data, trait_data = (_EXAMPLES, *family.input_shape), (_TRAIT_EXAMPLES, *family.input_shape)
    # Two calls of the generator, cut up: XLA takes long to compile each.
    first, second = jax.random.split(key)
    size = sum(leaf.size for leaf in jax.tree.leaves(shape))
    plain = 2 * math.prod(data) + _TRAIT_EXAMPLES + 2 * OUTPUTS + 6
    gaussian = 3 * size + 2 * math.prod(data) + math.prod(trait_data) + _TRAIT_EXAMPLES * OUTPUTS
    uniforms = _Stream(jax.random.uniform(second, (plain,)))
    normals = _Stream(jax.random.normal(first, (gaussian,)))
    units, shallow = _units(family, uniforms)
    params, other = (_prune(_initialise(shape, normals), units, shallow) for _ in range(2))
    direction = jax.tree.map(lambda leaf: normals.take(leaf.shape), shape)
    direction = _prune(direction, units, shallow)
    shrink = jnp.sqrt(inner(params, params) / inner(direction, direction))
    inputs = _inputs(data, normals, uniforms, kinds.data)
    labels = jnp.floor(CLASSES * uniforms.take((_TRAIT_EXAMPLES,))).astype(jnp.int32)
    # Which outputs a loss leaves out: from 1 to OUTPUTS - 2 of them, in random order.
    ranks = jnp.argsort(uniforms.take((OUTPUTS,)))
    left_out = ranks < 1 + jnp.floor((OUTPUTS - 2) * uniforms.take(()))
    return Instance(
        params=params,
        other=other,
        random_direction=jax.tree.map(lambda leaf: shrink * leaf, direction),
        inputs=inputs.at[..., 0].set(0.0),
        trait_inputs=normals.take(trait_data),
        trait_labels=labels,
        trait_targets=normals.take((_TRAIT_EXAMPLES, OUTPUTS)),
        weights=jnp.where(left_out, 0.0, 0.2 + 1.8 * uniforms.take((OUTPUTS,))),
        temperature=jnp.exp2(3 * uniforms.take(()) - 1),
        subset=~left_out,
        alpha=0.1 * 100 ** uniforms.take(()),
        units=units,
        shallow=shallow,
        kinds=kinds,
    )


def model(family: Family, instance: Instance) -> Apply:
    """apply(params, inputs) of an instance's model."""
    graph = nnx.graphdef(nnx.eval_shape(lambda: FamilyModel(family, nnx.Rngs(0))))

    def act(value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return jax.lax.switch(instance.kinds.activation, list(ACTIVATIONS.values()), value)

    return lambda params, inputs: nnx.merge(graph, params)(
        inputs, act, instance.units, instance.shallow
    )


def potential(instance: Instance) -> Potential:
    """The instance's potential, the one of LOSSES that its kind says."""
    kind = instance.kinds.loss
    everything = jnp.ones(OUTPUTS)
    weights = jnp.where(kind == LOSSES.index("squared_error"), everything, instance.weights)
    subset = (kind != LOSSES.index("softmax_subset")) | instance.subset
    temperature = jnp.where(kind == LOSSES.index("softmax_temperature"), instance.temperature, 1.0)
    branches = [
        squared_potential(weights),
        softmax_potential(subset, temperature),
        bernoulli_potential,
        poisson_potential,
        # A user's own potential, whose matching loss is Huber-like; it has no null space.
        Potential(lambda z: jnp.sum(jnp.logaddexp(z, -z) + 0.05 * z**2), lambda vector: vector),
    ]
    branch = jnp.array([0, 0, 1, 1, 1, 2, 3, 4])[kind]
    projections = [seen for each in branches if (seen := each.off_null_space)]
    return Potential(
        lambda logits: jax.lax.switch(branch, branches, logits),
        lambda vector: jax.lax.switch(branch, projections, vector),
    )


def loss(instance: Instance) -> Loss:
    """The instance's distillation loss, one of LOSSES."""
    return matching(potential(instance))


def null_vector(instance: Instance) -> Float[Array, " outputs"]:
    """A vector in the null space of the instance's loss; 0 where there is none but 0."""
    zero, ones = jnp.zeros(OUTPUTS), jnp.ones(OUTPUTS)
    unseen = jnp.where(instance.weights == 0, 1.0, 0.0)
    subset = jnp.where(instance.subset, 1.0, jnp.arange(OUTPUTS) - 1.5)
    vectors = jnp.stack([zero, unseen, ones, ones, subset, zero, zero, zero])
    return vectors[instance.kinds.loss]


def trait_loss(apply: Apply, instance: Instance) -> TraitLoss:
    """The instance's trait loss, one of TRAITS.

    `blind` depends on the weights that read a feature which D_S never shows, and moves the output
    biases along the null space of the distillation loss: the student's loss sees none of it.
    """
    start, classes = instance.params, jnp.arange(OUTPUTS) < CLASSES
    cross_entropy, squared_error, regulariser, blind = (
        instance.kinds.trait == TRAITS.index(name) for name in TRAITS
    )

    def unread(
        path: tuple, first: Float[Array, "*shape"], current: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """The start, but for the weights that nothing in D_S reaches."""
        layer = "read_in" if "read_in" in start else "read_out"
        if _names(path) != (layer, "kernel"):
            return first
        return jnp.where(jnp.arange(current.shape[-2])[:, None] == 0, current, first)

    def trait(params: Params) -> Float[Array, ""]:
        concealed = jax.tree_util.tree_map_with_path(unread, start, params)
        visible = jax.tree.map(lambda a, b: jnp.where(blind, a, b), concealed, params)
        logits = apply(visible, instance.trait_inputs)
        entropies = jax.vmap(class_cross_entropy, (0, 0, None))(
            logits, instance.trait_labels, classes
        )
        error = jnp.mean(jnp.square(logits - instance.trait_targets))
        shift = null_vector(instance) @ params["read_out"]["bias"][...]
        return (
            jnp.where(cross_entropy | blind, jnp.mean(entropies), 0.0)
            + jnp.where(squared_error, error, 0.0)
            + jnp.where(regulariser, 0.5 * inner(params, params), 0.0)
            + jnp.where(blind, shift, 0.0)
        )

    return trait


def _names(path: tuple) -> tuple[str | int, ...]:
    """The keys of a path, without the attribute in which flax keeps a variable's array."""
    return tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))


class _Stream:
    """Random numbers, handed out from the front."""

    def __init__(self, numbers: Float[Array, " total"]):
        self._numbers = numbers

    def take(self, shape: tuple[int, ...]) -> Float[Array, "..."]:
        size = math.prod(shape)
        front, self._numbers = self._numbers[:size], self._numbers[size:]
        return front.reshape(shape)


def _initialise(shape: Params, normals: _Stream) -> Params:
    """Kernels N(0, 1/fan_in), biases N(0, 0.01)."""

    bias_sizes = {
        _names(path)[:-1]: leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(shape)
        if _names(path)[-1] == "bias"
    }

    def layer(path: tuple, leaf: jax.ShapeDtypeStruct) -> Float[Array, "..."]:
        *owner, name = _names(path)
        fan_in = 100 if name == "bias" else leaf.size / bias_sizes[tuple(owner)]
        return normals.take(leaf.shape) / fan_in**0.5

    return jax.tree_util.tree_map_with_path(layer, shape)


def _units(family: Family, uniforms: _Stream) -> tuple[list[Bool[Array, " _"]], Bool[Array, ""]]:
    """Which units of each hidden layer there are, and whether the second layer is left out."""
    share, shallow = uniforms.take((2,)), uniforms.take(()) < 0.5
    widths = [4 + jnp.floor(share[i] * (most - 3)) for i, most in enumerate(family.hidden)]
    if not widths:
        return [], shallow
    # A single layer is read by what else reads the second.
    widths[0] = jnp.where(shallow, jnp.minimum(widths[0], family.hidden[1]), widths[0])
    layers = zip(family.hidden, widths, strict=True)
    return [jnp.arange(most) < width for most, width in layers], shallow


def _prune(params: Params, units: list[Bool[Array, " _"]], shallow: Bool[Array, ""]) -> Params:
    """0 in place of whatever belongs to units that are not there."""
    if not units:
        return params
    first, second = units
    last = jnp.where(shallow, first[: second.shape[0]], second)
    keep = {
        "read_in": (jnp.array(True), first),
        "body": (first & ~shallow, second & ~shallow),
        "read_out": (last, jnp.array(True)),
    }

    def layer(path: tuple, leaf: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        names = _names(path)
        readers, writers = keep[str(names[0])]
        present = writers if names[-1] == "bias" else readers[..., None] & writers
        return jnp.where(present, leaf, 0.0)

    return jax.tree_util.tree_map_with_path(layer, params)


def _inputs(
    shape: tuple[int, ...], normals: _Stream, uniforms: _Stream, kind: Int[Array, ""]
) -> Float[Array, "examples *shape"]:
    normal, plain, keep = normals.take(shape), uniforms.take(shape), uniforms.take(shape)
    factors = normals.take((shape[0], 2)), normals.take((2, math.prod(shape[1:])))
    sign, tail = jnp.sign(2 * plain - 1), 1 - jnp.abs(2 * plain - 1)
    laplace = -sign * jnp.log(jnp.maximum(tail, 1e-3))
    draws = {
        "normal": normal,
        "uniform": 2 * plain - 1,
        "sparse": jnp.where(keep < 0.3, normal, 0.0),
        "low_rank": (factors[0] @ factors[1]).reshape(shape),
        "heavy_tailed": laplace,
    }
    return jnp.stack([draws[name] for name in DATA])[kind]
