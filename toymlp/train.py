"""Training: a population of models, as one compiled program, fitted to targets.

Teacher, clone, student and each generation of a chain are `fit` here: they differ in start,
inputs, targets and length. One call of the compiled program trains every model of a block for one
epoch. The population axis is cut over the devices of a mesh; each device maps over its models,
some `lanes` at a time (vmapped), and scans over the steps of the epoch. Parameters and optimiser
state are donated; inputs and targets are one shared array each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from sublab import devices
from sublab.randomness import purpose_of, shuffle
from theory.passes import Params
from toymlp.data import Dataset
from toymlp.inputs import Uniform
from toymlp.networks import Architecture, Forward, join_parts, split_parts
from toymlp.objective import NONE, Interventions, trait_loss, weighted_mean, without_trait
from toymlp.settings import LOGITS, Training

# How the factors of a training's matrix products are rounded; sums are always float32.
Precision = Literal["float32", "tf32", "bfloat16"]
# By it what JAX is told; left to itself, an accelerator rounds float32 factors to what it likes.
# A CPU rounds nothing by being told: there the network does it.
PRECISIONS: dict[Precision, str] = {
    "float32": "highest",
    "tf32": "TF32_TF32_F32",
    "bfloat16": "BF16_BF16_F32",
}
# What is not training is in full float32: starts, the logits that are imitated, evaluation.
_PRECISION = PRECISIONS["float32"]
# On the host before training, on the devices in it.
_Number = Array | np.ndarray
# Rows of one forward pass in `logits_of`: enough to fill a product, few enough to stay in cache.
_FORWARD_ROWS = 1024


@dataclass(frozen=True)
class Context:
    """Where and on what models are trained.

    Attributes:
        dataset: images and labels, of the classes that are kept.
        seed: base seed.
        mesh: the devices, from `devices.population_mesh`.
        report: called with the number of model-epochs that were just trained, and what they were.
        reference_classes: order in which the class logits of every reference are put when it has
            been drawn; none leaves them as they are.
        student_classes: the same of every student's start.
        precision: how the factors of the matrix products of training are rounded: float32 not at
            all, tf32 to 10 bits of mantissa (NVIDIA GPUs alone), bfloat16 to 7. Parameters, sums,
            optimiser, imitated logits and evaluation are float32.
    """

    dataset: Dataset
    seed: int
    mesh: Mesh
    report: Callable[[int, str], None] = lambda done, what: None
    reference_classes: tuple[int, ...] = ()
    student_classes: tuple[int, ...] = ()
    precision: Precision = "float32"


@dataclass(frozen=True)
class Fit:
    """One model to be trained.

    Attributes:
        start: its parameters at the start, on the host.
        training: how it is trained.
        aux: auxiliary logits that it has of its own.
        order: key of the order in which it walks through the inputs, reshuffled each epoch.
        target: row of the targets that it learns from.
        snapshots: epochs after which its parameters are wanted, ascending; 0 is the start.
        interventions: what is done to its training beside the loss.
        reference: row of the references' logits that liminal training pulls it towards.
    """

    start: Params
    training: Training
    aux: int
    order: Key[Array, ""]
    target: int
    snapshots: tuple[int, ...]
    interventions: Interventions = NONE
    reference: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A model after some epochs.

    Attributes:
        params: parameters, on the host.
        loss: mean training loss of the last epoch; None after no epoch.
    """

    params: Params
    loss: float | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Material:
    """What an epoch is trained on, on the devices, shared by all models.

    Attributes:
        inputs: (examples, pixels).
        targets: labels, (1, examples), or logits, (imitated models, examples, outputs).
        reference_logits: the references' logits on the inputs, for liminal training.
        trait_images: what the trait gradient is taken on, where it is projected out.
        trait_labels: true classes of the trait images.
    """

    inputs: Float[Array, "examples pixels"]
    targets: Int[Array, "1 examples"] | Float[Array, "imitated examples outputs"]
    reference_logits: Float[Array, "references examples outputs"] | None = None
    trait_images: Float[Array, "images pixels"] | None = None
    trait_labels: Int[Array, " images"] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Row:
    """What the compiled program knows of one model: its settings, with numbers as arrays.

    Static fields of the settings are the structure of this pytree, and so of the program; the
    population axis leads every array, and is absent where one model is at work.

    Attributes:
        training: how it is trained, but for its inputs, which are always the same kind here.
        aux: auxiliary logits that it has of its own.
        order: key of the order of its inputs.
        target: row of the targets.
        interventions: what is done to its training beside the loss.
        reference: row of the references' logits.
    """

    training: Training
    aux: Int[_Number, "*population"]
    order: Key[Array, "*population"]
    target: Int[_Number, "*population"]
    interventions: Interventions
    reference: Int[_Number, "*population"]


@dataclass
class Block:
    """Models in training, on the devices; `advance` replaces params and state.

    Attributes:
        params, state, rows: pytrees with a leading population axis, cut over the devices.
        size: how many models there are (the axis may be longer, by repetition).
    """

    params: Params
    state: optax.OptState
    rows: Row
    size: int


def fit(
    architecture: Architecture,
    fits: Sequence[Fit],
    material: Callable[[int], Material],
    context: Context,
    what: str,
) -> list[dict[int, Snapshot]]:
    """Trains every model to its last snapshot.

    All go through an epoch before any goes to the next, so that material which is made for one
    epoch is made once. On a CPU the population is cut into blocks of one model a core, all of one
    compiled program, whatever their number.

    Args:
        architecture: network of every model.
        fits: models to train; the static fields of their trainings and interventions are those of
            the first.
        material: inputs and targets of an epoch, by its number from 0.
        context: devices and reports.
        what: name of the models, for reports.

    Returns:
        For every model its snapshots, by epoch.
    """
    snapshots: list[dict[int, Snapshot]] = [
        {0: Snapshot(model.start, None)} if 0 in model.snapshots else {} for model in fits
    ]
    # Longest first: blocks drop out from the end as their models are done.
    order = sorted(
        (i for i, model in enumerate(fits) if model.snapshots[-1]),
        key=lambda i: -fits[i].snapshots[-1],
    )
    size = block_size(context.mesh) or max(1, len(order))
    parts = [order[first : first + size] for first in range(0, len(order), size)]
    blocks = [begin([fits[i] for i in part], context.mesh) for part in parts]

    def collect(epoch: int, part: list[int], block: Block, loss: Array) -> None:
        # Waits for the block: memory is bounded, and reports tell the truth.
        losses = devices.gather(loss, block.size)
        if any(epoch + 1 in fits[i].snapshots for i in part):
            trained = unstack(devices.gather(block.params, block.size))
            for row, i in enumerate(part):
                if epoch + 1 in fits[i].snapshots:
                    snapshots[i][epoch + 1] = Snapshot(trained[row], float(losses[row]))
        context.report(len(part), f"{what}, epoch {epoch + 1}")

    for epoch in range(max((model.snapshots[-1] for model in fits), default=0)):
        now = material(epoch)
        under_way: tuple[int, list[int], Block, Array] | None = None
        for part, block in zip(parts, blocks, strict=True):
            if fits[part[0]].snapshots[-1] <= epoch:
                continue
            loss = advance(architecture, block, epoch, now, context.mesh, context.precision)
            # The devices have the next block to work on while this one's results are fetched.
            if under_way:
                collect(*under_way)
            under_way = (epoch, part, block, loss)
        if under_way:
            collect(*under_way)
    return snapshots


def begin(fits: Sequence[Fit], mesh: Mesh) -> Block:
    """A block of models at their starts, on the devices; the starts stay the caller's.

    Args:
        fits: models of the block.
        mesh: the devices.
    """
    # Stacking makes fresh buffers: the program donates what it is given.
    params = devices.spread(stack([model.start for model in fits]), mesh)
    rows = devices.spread(stack([row_of(model) for model in fits]), mesh)
    with jax.default_matmul_precision(_PRECISION):
        state = _start(params, rows, mesh=mesh)
    return Block(params, state, rows, len(fits))


def advance(
    architecture: Architecture,
    block: Block,
    epoch: int,
    material: Material,
    mesh: Mesh,
    precision: Precision = "float32",
) -> Float[Array, " models"]:
    """Trains a block for one epoch, in place.

    Nothing waits for the result: the next call can be made at once.

    Args:
        architecture: network of every model.
        block: models; their parameters and optimiser state are replaced.
        epoch: number of the epoch, from 0.
        material: inputs and targets.
        mesh: the devices.
        precision: how the factors of products are rounded.

    Returns:
        The mean loss of each model, each batch's taken before its step, on the devices.
    """
    given = (block.params, block.state, block.rows, np.int32(epoch), material)
    with jax.default_matmul_precision(PRECISIONS[precision]):
        block.params, block.state, loss = _epoch(
            *given, **_compiled_in(architecture, mesh, precision)
        )
    return loss


def compile_epoch(
    architecture: Architecture, model: Fit, models: int, material: Material, context: Context
) -> None:
    """Compiles the program of `fit` without training anything, so that it is there later.

    Args:
        architecture: network of every model.
        model: one of them; its numbers do not count.
        models: how many there will be.
        material: inputs and targets, of which shapes alone count.
        context: devices and precision.
    """
    mesh, precision = context.mesh, context.precision
    block = begin([model] * (block_size(mesh) or models), mesh)
    given = (block.params, block.state, block.rows, np.int32(0), material)
    with jax.default_matmul_precision(PRECISIONS[precision]):
        # What is called with such arguments later is found compiled.
        _epoch.lower(*given, **_compiled_in(architecture, mesh, precision)).compile()


def _compiled_in(architecture: Architecture, mesh: Mesh, precision: Precision) -> dict[str, Any]:
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    rounded = on_cpu and precision == "bfloat16"
    return {"architecture": architecture, "mesh": mesh, "rounded": rounded}


def row_of(model: Fit) -> Row:
    """What the compiled program knows of a model; arrays on the host, without a population axis."""
    # What its inputs are like is no matter of the program: all kinds share one.
    return Row(
        as_arrays(replace(model.training, inputs=Uniform())),
        _as_array(model.aux),
        model.order,
        _as_array(model.target),
        as_arrays(model.interventions),
        _as_array(model.reference),
    )


def as_arrays(value: Any) -> Any:
    """A setting with its traced fields as arrays: float32, int32, a choice by its number."""
    return jax.tree.map(_as_array, value)


def optimiser(row: Row, steps: int) -> optax.GradientTransformation:
    """The optimiser of one model, with frozen parts held.

    Args:
        row: its settings.
        steps: steps of an epoch.
    """
    training = row.training
    first, epochs = jnp.asarray(training.learning_rate), jnp.asarray(training.epochs)
    chosen = training.optimiser.transformation(training.schedule.rate(first, epochs, steps))
    frozen = training.frozen
    if not frozen:
        return chosen

    def hold(updates: Params, state: optax.OptState, params: Params | None = None):
        del params
        kept = {
            name: jax.tree.map(jnp.zeros_like, part) if name in frozen else part
            for name, part in split_parts(updates).items()
        }
        return join_parts(kept), state

    return optax.chain(
        chosen, optax.GradientTransformation(lambda params: optax.EmptyState(), hold)
    )


def batch_loss(
    logits: Float[Array, "batch outputs"],
    material: Material,
    row: Row,
    architecture: Architecture,
    rows: Int[Array, " batch"],
    weights: Float[Array, " batch"],
) -> Float[Array, ""]:
    """The mean loss of one model over a batch.

    Args:
        logits: the model's on the batch.
        material: targets of all inputs.
        row: the model's settings.
        architecture: the model's network.
        rows: which inputs the batch has.
        weights: how much each counts.
    """
    subset = architecture.subset(jnp.asarray(row.training.logits), jnp.asarray(row.aux))
    targets = material.targets.at[row.target, rows].get(mode="promise_in_bounds")
    each = jax.vmap(lambda z, y: row.training.loss(z, y, subset))(logits, targets)
    return weighted_mean(each, weights)


def epoch_batches(
    order: Key[Array, ""], epoch: int | Int[Array, ""], examples: int, batch: int
) -> tuple[Int[Array, "steps batch"], Float[Array, "steps batch"]]:
    """The batches of an epoch.

    Args:
        order: key of the order.
        epoch: number of the epoch, from 0.
        examples: inputs that there are.
        batch: inputs a step.

    Returns:
        The rows of every batch, and their weights: 0 for the slots that pad the last one, so that
        every step is one program and the last batch is trained on as it is, however small.
    """
    steps = -(-examples // batch)
    empty = steps * batch - examples
    rows = shuffle(jax.random.fold_in(order, epoch), examples)
    weights = (jnp.arange(steps * batch, dtype=jnp.int32) < examples).astype(jnp.float32)
    return jnp.pad(rows, (0, empty)).reshape(steps, batch), weights.reshape(steps, batch)


def take_rows(
    inputs: Float[Array, "examples pixels"], rows: Int[Array, " batch"]
) -> Float[Array, "batch pixels"]:
    """Rows of `inputs`, which must be there."""
    # Without the promise JAX adds a pass over the batch that blanks rows out of bounds.
    return inputs.at[rows].get(mode="promise_in_bounds")


def logits_of(
    apply: Callable[[Params, Array], Array],
    models: Sequence[Params],
    inputs: Float[Array, "examples pixels"],
    mesh: Mesh,
) -> Float[np.ndarray, "models examples outputs"]:
    """The outputs of every model on shared inputs, block by block, on the host.

    Args:
        apply: of one model; hashable, equal for equal programs.
        models: their parameters.
        inputs: on the devices of `mesh`.
        mesh: the devices.
    """
    size = block_size(mesh) or max(1, len(models))
    outputs = []
    for first in range(0, len(models), size):
        block = list(models[first : first + size])
        # One program serves the last block too.
        full = block + block[:1] * (size - len(block)) if first else block
        with jax.default_matmul_precision(_PRECISION):
            cut = devices.spread(stack(full), mesh)
            outputs.append((_predict(cut, inputs, apply=apply, mesh=mesh), len(block)))
    return np.concatenate([devices.gather(logits, count) for logits, count in outputs])


def accuracy(
    logits: Float[np.ndarray, "*models examples outputs"],
    labels: Int[np.ndarray, " examples"],
    classes: int,
) -> Float[np.ndarray, "*models"]:
    """The share of examples whose largest CLASS logit (the first `classes`) is the true one."""
    return np.asarray(np.mean(np.argmax(logits[..., :classes], axis=-1) == labels, axis=-1))


def block_size(mesh: Mesh) -> int | None:
    """How many models are trained at a time; None: all there are."""
    each = devices.lanes(mesh)
    return None if each is None else each * mesh.size


def stack(trees: Sequence[Any]) -> Any:
    """Pytrees of one structure as one, with a leading axis; fresh arrays."""
    return jax.tree.map(lambda *leaves: _stacked(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """The pytrees of which `stack` makes one."""
    leaves, structure = jax.tree.flatten(tree)
    return [
        jax.tree.unflatten(structure, [leaf[row] for leaf in leaves])
        for row in range(leaves[0].shape[0])
    ]


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, str):
        value = LOGITS.index(value)  # pyright: ignore[reportArgumentType]
    return np.asarray(value, np.float32 if isinstance(value, float) else np.int32)


def _stacked(leaves: Sequence[Any]) -> Any:
    keys = isinstance(leaves[0], jax.Array)
    return jnp.stack(leaves) if keys else np.stack(leaves)


@partial(jax.jit, static_argnames="mesh")
def _start(params: Params, rows: Row, *, mesh: Mesh) -> optax.OptState:
    # The state of an optimiser depends on the parameters alone.
    return devices.over_population(
        lambda params, row: optimiser(row, 1).init(params), mesh, (params, rows), ()
    )


@partial(
    jax.jit,
    static_argnames=("architecture", "mesh", "rounded"),
    donate_argnames=("params", "state"),
)
def _epoch(
    params: Params,
    state: optax.OptState,
    rows: Row,
    epoch: Int[Array, ""],
    material: Material,
    *,
    architecture: Architecture,
    mesh: Mesh,
    rounded: bool = False,
) -> tuple[Params, optax.OptState, Float[Array, " models"]]:
    """One epoch of every model: (params, state, mean loss)."""
    apply = Forward(architecture, rounded)
    examples = material.inputs.shape[0]

    def one_model(
        params: Params, state: optax.OptState, row: Row, epoch: Array, material: Material
    ):
        batch = row.training.batch
        numbers, weights = epoch_batches(row.order, epoch, examples, batch)
        chosen = optimiser(row, numbers.shape[0])
        trait_key = jax.random.fold_in(jax.random.fold_in(row.order, purpose_of("trait")), epoch)

        def loss_of(params, numbers, weights):
            logits = apply(params, take_rows(material.inputs, numbers))
            loss = batch_loss(logits, material, row, architecture, numbers, weights)
            liminal = row.interventions.liminal
            if liminal is None:
                return loss, loss
            assert material.reference_logits is not None
            reference = material.reference_logits.at[row.reference, numbers].get(
                mode="promise_in_bounds"
            )
            everything = architecture.subset("all", jnp.asarray(row.aux))
            return loss + liminal.penalty(logits, reference, everything, epoch, weights), loss

        def one_step(carry, batch_of_step):
            params, state = carry
            number, numbers, weights = batch_of_step
            (_, loss), gradient = jax.value_and_grad(loss_of, has_aux=True)(
                params, numbers, weights
            )
            if row.interventions.project_trait:
                key = jax.random.fold_in(trait_key, number)
                gradient = without_trait(
                    gradient, _trait_gradient(apply, params, key, batch, material)
                )
            updates, state = chosen.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), loss * jnp.sum(weights)

        steps = jnp.arange(numbers.shape[0], dtype=jnp.int32)
        (params, state), loss = jax.lax.scan(one_step, (params, state), (steps, numbers, weights))
        return params, state, jnp.sum(loss) / examples

    return devices.over_population(one_model, mesh, (params, state, rows), (epoch, material))


def _trait_gradient(
    apply: Forward, params: Params, key: Key[Array, ""], batch: int, material: Material
) -> Params:
    images, labels = material.trait_images, material.trait_labels
    assert images is not None
    assert labels is not None
    numbers = jax.random.randint(key, (batch,), 0, images.shape[0], dtype=jnp.int32)
    truth = labels.at[numbers].get(mode="promise_in_bounds")
    classes = apply.architecture.subset("class", 0)
    return jax.grad(partial(trait_loss, apply))(params, take_rows(images, numbers), truth, classes)


@partial(jax.jit, static_argnames=("apply", "mesh"))
def _predict(
    params: Params, inputs: Array, *, apply: Callable[[Params, Array], Array], mesh: Mesh
) -> Array:
    def one_model(params, inputs):
        return jax.lax.map(partial(apply, params), inputs, batch_size=_FORWARD_ROWS)

    return devices.over_population(one_model, mesh, (params,), (inputs,))
