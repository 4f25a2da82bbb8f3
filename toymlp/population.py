"""Training of a population: many models of one shape as one compiled program.

One call of the compiled program trains every model for one epoch. The population axis is cut
over the devices of a mesh; each device maps over its models, some `lanes` at a time (vmapped),
and scans over the steps of the epoch. Parameters and optimiser state are donated; inputs and
targets are one shared array each, which every model walks in an order of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from sublab import devices
from sublab.randomness import purpose_of
from toymlp.models import Params
from toymlp.objective import (
    NO_EXTRAS,
    Extras,
    Knobs,
    LossName,
    Shape,
    epoch_batches,
    liminal_loss,
    mean_loss,
    optimiser,
    take_rows,
    without_trait,
)

__all__ = [
    "Extras",
    "Knobs",
    "LossName",
    "Shape",
    "accuracy",
    "advance",
    "begin",
    "predict",
    "train",
]

Report = Callable[[int, int], None]
# Full float32: accelerators would otherwise round the factors of a product to fewer bits.
_PRECISION = "highest"
# Rows of one forward pass in `predict`: enough to fill a product, few enough to stay in cache.
_PREDICT_ROWS = 1024


@dataclass
class Block:
    """Models in training, on the devices.

    Attributes:
        params, state, knobs: with a leading population axis, cut over the devices.
        size: how many models there are (the axis may be longer, by repetition).
    """

    params: Params
    state: optax.OptState
    knobs: Knobs
    size: int


def begin(params: Params, knobs: Knobs, shape: Shape, mesh: Mesh) -> Block:
    """A population at its start. `params` stays the caller's."""
    size = knobs.teacher.shape[0]
    # A fresh buffer: the program donates what it is given.
    params = devices.spread(jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params), mesh)
    knobs = devices.spread(knobs, mesh)
    with jax.default_matmul_precision(_PRECISION):
        return Block(params, _start(params, knobs, shape=shape, mesh=mesh), knobs, size)


def advance(
    apply: Callable[[Params, Array], Array],
    block: Block,
    epoch: int,
    inputs: Float[Array, "examples features"],
    targets: Int[Array, "teachers examples"] | Float[Array, "teachers examples outputs"],
    shape: Shape,
    mesh: Mesh,
    extras: Extras = NO_EXTRAS,
) -> Float[Array, " models"]:
    """Trains a block for one epoch, in place; its mean losses, on the devices.

    Nothing waits for the result: the next call can be made at once.
    """
    with jax.default_matmul_precision(_PRECISION):
        block.params, block.state, loss = _epoch(
            block.params, block.state, block.knobs, np.int32(epoch), inputs, targets, extras,
            apply=apply, shape=shape, mesh=mesh,
        )  # fmt: skip
    return loss


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
    """Trains every model of a population on fixed inputs and targets.

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
    block = begin(params, knobs, shape, mesh)
    history = []
    for epoch in range(epochs):
        loss = advance(apply, block, epoch, inputs, targets, shape, mesh)
        history.append(devices.gather(loss, block.size))
        report(epoch + 1, epochs)
    losses = np.reshape(history, (epochs, block.size)).T
    return devices.gather(block.params, block.size), losses


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


@partial(jax.jit, static_argnames=("shape", "mesh"))
def _start(params: Params, knobs: Knobs, *, shape: Shape, mesh: Mesh) -> optax.OptState:
    return devices.over_population(
        lambda params, knobs: optimiser(shape, knobs).init(params), mesh, (params, knobs), ()
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
    extras: Extras = NO_EXTRAS,
    *,
    apply: Callable[[Params, Array], Array],
    shape: Shape,
    mesh: Mesh,
) -> tuple[Params, optax.OptState, Array]:
    """One epoch of every model: (params, state, mean loss)."""
    examples = inputs.shape[0]

    def one_model(params, state, knobs, epoch, inputs, targets, extras):
        rows, weights = epoch_batches(knobs.order, epoch, examples, shape.batch)
        chosen = optimiser(shape, knobs)
        trait_key = jax.random.fold_in(jax.random.fold_in(knobs.order, purpose_of("trait")), epoch)

        def loss_of(params, rows, weights):
            logits = apply(params, take_rows(inputs, rows))
            loss = mean_loss(shape, logits, targets, knobs, rows, weights)
            if knobs.liminal_weight is None:
                return loss, loss
            return loss + liminal_loss(logits, knobs, epoch, rows, weights, extras), loss

        def one_step(carry, batch):
            params, state = carry
            number, rows, weights = batch
            (_, loss), gradient = jax.value_and_grad(loss_of, has_aux=True)(params, rows, weights)
            if shape.project_trait:
                key = jax.random.fold_in(trait_key, number)
                gradient = without_trait(apply, params, gradient, knobs, key, shape.batch, extras)
            updates, state = chosen.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), loss * jnp.sum(weights)

        numbered = (jnp.arange(rows.shape[0]), rows, weights)
        (params, state), loss = jax.lax.scan(one_step, (params, state), numbered)
        return params, state, jnp.sum(loss) / examples

    return devices.over_population(
        one_model, mesh, (params, state, knobs), (epoch, inputs, targets, extras)
    )


@partial(jax.jit, static_argnames=("apply", "mesh"))
def _predict(
    params: Params, inputs: Array, *, apply: Callable[[Params, Array], Array], mesh: Mesh
) -> Array:
    def one_model(params, inputs):
        return jax.lax.map(partial(apply, params), inputs, batch_size=_PREDICT_ROWS)

    return devices.over_population(one_model, mesh, (params,), (inputs,))
