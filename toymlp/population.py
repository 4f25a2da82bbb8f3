"""Training of a population: many models of one shape as one compiled program.

One call of the compiled program trains every model for one epoch. The population axis is cut
over the devices of a mesh; each device maps over its models, some `lanes` at a time (vmapped),
and scans over the steps of the epoch. Parameters and optimiser state are donated; inputs and
targets are one shared array each, which every model walks in an order of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from theory import losses
from toymlp import devices
from toymlp.models import Params
from toymlp.randomness import shuffle

Report = Callable[[int, int], None]
LossName = Literal["class_cross_entropy", "kl", "squared_error"]

LOSSES: dict[LossName, Callable[..., Float[Array, ""]]] = {
    "class_cross_entropy": losses.class_cross_entropy,
    "kl": losses.kl_divergence,
    "squared_error": losses.squared_error,
}
# Full float32: accelerators would otherwise round the factors of a product to fewer bits.
_PRECISION = "highest"
# Rows of one forward pass in `predict`: enough to fill a product, few enough to stay in cache.
_PREDICT_ROWS = 1024


@dataclass(frozen=True)
class Shape:
    """What is compiled in: every model of a population shares it.

    Attributes:
        loss: `class_cross_entropy` (targets: labels), or `kl` or `squared_error` (targets: the
            teachers' logits). A batch's loss is the mean over its examples.
        batch: examples a step; the last batch of an epoch is trained on as it is, however small.
    """

    loss: LossName
    batch: int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Knobs:
    """What is traced: one value a model, so that changing it compiles nothing.

    The population axis leads every array; inside the program, where one model is at work, it is
    absent.

    Attributes:
        learning_rate: of Adam (its other constants are the usual .9, .999, 1e-8).
        order: the key of the order in which the model walks the inputs, reshuffled each epoch.
        subset: the outputs that the loss sees.
        teacher: the row of `targets` that the model learns from.
    """

    learning_rate: Float[Array, "*population"]
    order: Key[Array, "*population"]
    subset: Bool[Array, "*population outputs"]
    teacher: Int[Array, "*population"]


def train(
    apply: Callable[[Params, Array], Array],
    params: Params,
    inputs: Float[Array, "examples features"],
    targets: Int[Array, "teachers examples"] | Float[Array, "teachers examples outputs"],
    shape: Shape,
    knobs: Knobs,
    *,
    epochs: int,
    mesh: Mesh,
    report: Report = lambda done, total: None,
) -> tuple[Params, Float[np.ndarray, "population epochs"]]:
    """Trains every model of a population with Adam.

    Args:
        apply: of one model; hashable, and the same object (or an equal one) for equal programs.
        params: start of each model, leaves with a leading population axis. Not donated: the
            caller's copy stays usable.
        inputs: shared by all models; `devices.replicate` them once to use them many times.
        targets: labels or logits for every input, one row per teacher, replicated likewise.
        shape: what is compiled in.
        knobs: one value a model.
        epochs: passes over the inputs, 0 or more.
        mesh: from `devices.population_mesh`.
        report: called as report(epochs done, epochs) after each epoch.

    Returns:
        The trained parameters, on the host, and the mean loss of each model in each epoch, each
        batch's loss taken before its step.
    """
    size = knobs.teacher.shape[0]
    # A fresh buffer: the program donates what it is given.
    params = devices.spread(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params), mesh)
    knobs = devices.spread(knobs, mesh)
    with jax.default_matmul_precision(_PRECISION):
        state = _start(params, knobs, mesh=mesh)
        history = []
        for epoch in range(epochs):
            params, state, loss = _epoch(
                params, state, knobs, np.int32(epoch), inputs, targets,
                apply=apply, shape=shape, mesh=mesh,
            )  # fmt: skip
            history.append(devices.gather(loss, size))
            report(epoch + 1, epochs)
    return devices.gather(params, size), np.reshape(history, (epochs, size)).T


def predict(
    apply: Callable[[Params, Array], Array],
    params: Params,
    inputs: Float[Array, "examples features"],
    *,
    mesh: Mesh,
) -> Float[np.ndarray, "population examples outputs"]:
    """The logits of every model of a population on the shared `inputs`, on the host."""
    size = jax.tree.leaves(params)[0].shape[0]
    with jax.default_matmul_precision(_PRECISION):
        logits = _predict(devices.spread(params, mesh), inputs, apply=apply, mesh=mesh)
    return devices.gather(logits, size)


def accuracy(
    logits: Float[np.ndarray, "population examples outputs"],
    labels: Int[np.ndarray, " examples"],
    classes: int,
) -> Float[np.ndarray, " population"]:
    """The share of examples whose largest CLASS logit (the first `classes`) is the true one."""
    return np.mean(np.argmax(logits[..., :classes], axis=-1) == labels, axis=-1)


def _optimiser(learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
    return optax.adam(learning_rate)


def _over_population(
    one_model: Callable[..., Any], mesh: Mesh, cut: tuple[Any, ...], shared: tuple[Any, ...]
) -> Any:
    """one_model(*a model's slice of cut, *shared) for every model, on the device that holds it."""

    def on_device(cut: tuple[Any, ...], shared: tuple[Any, ...]) -> Any:
        here = jax.tree.leaves(cut)[0].shape[0]
        at_a_time = devices.lanes(mesh) or here
        return jax.lax.map(lambda model: one_model(*model, *shared), cut, batch_size=at_a_time)

    axis = PartitionSpec(devices.AXIS)
    return jax.shard_map(
        on_device, mesh=mesh, in_specs=(axis, PartitionSpec()), out_specs=axis, check_vma=False
    )(cut, shared)


@partial(jax.jit, static_argnames="mesh")
def _start(params: Params, knobs: Knobs, *, mesh: Mesh) -> optax.OptState:
    return _over_population(
        lambda params, knobs: _optimiser(knobs.learning_rate).init(params),
        mesh,
        (params, knobs),
        (),
    )


@partial(
    jax.jit, static_argnames=("apply", "shape", "mesh"), donate_argnames=("params", "state")
)  # fmt: skip
def _epoch(
    params: Params,
    state: optax.OptState,
    knobs: Knobs,
    epoch: Int[Array, ""],
    inputs: Array,
    targets: Array,
    *,
    apply: Callable[[Params, Array], Array],
    shape: Shape,
    mesh: Mesh,
) -> tuple[Params, optax.OptState, Array]:
    """One epoch of every model: (params, state, mean loss)."""
    examples = inputs.shape[0]
    steps = -(-examples // shape.batch)
    empty = steps * shape.batch - examples
    # The slots that pad the last batch weigh nothing, so that every step is one program.
    weights = (jnp.arange(steps * shape.batch) < examples).astype(inputs.dtype)
    weights = weights.reshape(steps, shape.batch)

    def batch_loss(params, knobs, rows, weights, inputs, targets):
        logits = apply(params, _rows(inputs, rows))
        target = targets.at[knobs.teacher, rows].get(mode="promise_in_bounds")
        loss = jax.vmap(LOSSES[shape.loss], in_axes=(0, 0, None))(logits, target, knobs.subset)
        return jnp.sum(loss * weights) / jnp.sum(weights)

    def one_model(params, state, knobs, epoch, inputs, targets):
        order = shuffle(jax.random.fold_in(knobs.order, epoch), examples)
        order = jnp.pad(order, (0, empty)).reshape(steps, shape.batch)
        optimiser = _optimiser(knobs.learning_rate)

        def step(carry, batch):
            params, state = carry
            rows, weights = batch
            loss, gradient = jax.value_and_grad(batch_loss)(
                params, knobs, rows, weights, inputs, targets
            )
            updates, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), loss * jnp.sum(weights)

        (params, state), loss = jax.lax.scan(step, (params, state), (order, weights))
        return params, state, jnp.sum(loss) / examples

    return _over_population(one_model, mesh, (params, state, knobs), (epoch, inputs, targets))


@partial(jax.jit, static_argnames=("apply", "mesh"))
def _predict(
    params: Params, inputs: Array, *, apply: Callable[[Params, Array], Array], mesh: Mesh
) -> Array:
    def one_model(params, inputs):
        return jax.lax.map(partial(apply, params), inputs, batch_size=_PREDICT_ROWS)

    return _over_population(one_model, mesh, (params,), (inputs,))


def _rows(inputs: Float[Array, "examples features"], rows: Int[Array, " batch"]) -> Array:
    # Without the promise JAX adds a pass over the batch that blanks rows out of bounds.
    return inputs.at[rows].get(mode="promise_in_bounds")
