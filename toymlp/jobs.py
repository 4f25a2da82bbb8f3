"""Jobs: trainings that differ in knobs and length, run as populations with snapshots on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from sublab import devices
from toymlp import population
from toymlp.data import Dataset
from toymlp.models import Params
from toymlp.objective import NO_EXTRAS, Extras, Knobs, Shape

Apply = Callable[[Params, Array], Array]


@dataclass(frozen=True)
class Context:
    """Where and on what a task works.

    Attributes:
        dataset: its images and labels, of the classes that are kept.
        seed: base seed.
        mesh: the devices.
        report: called with the number of model-epochs that were just trained, and what they were.
    """

    dataset: Dataset
    seed: int
    mesh: Mesh
    report: Callable[[int, str], None] = lambda done, what: None


@dataclass(frozen=True)
class Job:
    """The training of one model.

    Attributes:
        start: its parameters at the start, on the host.
        knobs: of one model.
        snapshots: the epochs after which its parameters are wanted, ascending; 0 is the start.
    """

    start: Params
    knobs: Knobs
    snapshots: tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """A model after some epochs.

    Attributes:
        params: on the host.
        loss: the mean training loss of the last epoch; None after no epoch.
    """

    params: Params
    loss: float | None


@dataclass(frozen=True)
class Material:
    """What an epoch is trained on, on the devices."""

    inputs: Array
    targets: Array
    extras: Extras = NO_EXTRAS


def train_jobs(
    apply: Apply,
    jobs: Sequence[Job],
    material: Callable[[int], Material],
    shape: Shape,
    context: Context,
    what: str,
) -> list[dict[int, Snapshot]]:
    """Trains every job to its last snapshot; the snapshots of each.

    All jobs go through an epoch before any goes to the next, so that material which is made for
    one epoch is made once. On a CPU the population is cut into blocks of one model a core, all of
    one compiled program, whatever their number.

    Args:
        apply: of one model.
        jobs: what to train.
        material: the inputs and targets of an epoch, by its number from 0.
        shape: what is compiled in.
        context: where.
        what: of the jobs, for reports.
    """
    found: list[dict[int, Snapshot]] = [
        {0: Snapshot(job.start, None)} if 0 in job.snapshots else {} for job in jobs
    ]
    # Longest first: blocks drop out from the end as their jobs are done.
    order = sorted(
        (i for i, job in enumerate(jobs) if job.snapshots[-1]), key=lambda i: -jobs[i].snapshots[-1]
    )
    size = block_size(context.mesh) or max(1, len(order))
    parts = [order[first : first + size] for first in range(0, len(order), size)]
    blocks = [
        population.begin(
            stack([jobs[i].start for i in part]), stack([jobs[i].knobs for i in part]), shape,
            context.mesh,
        )
        for part in parts
    ]  # fmt: skip
    for epoch in range(max((job.snapshots[-1] for job in jobs), default=0)):
        active = [
            (part, block)
            for part, block in zip(parts, blocks, strict=True)
            if jobs[part[0]].snapshots[-1] > epoch
        ]
        now = material(epoch)
        for part, block in active:
            loss = population.advance(
                apply, block, epoch, now.inputs, now.targets, shape, context.mesh, now.extras
            )
            # Waits for the block: its memory is bounded, and reports tell the truth.
            losses = devices.gather(loss, block.size)
            if any(epoch + 1 in jobs[i].snapshots for i in part):
                trained = unstack(devices.gather(block.params, block.size))
                for row, i in enumerate(part):
                    if epoch + 1 in jobs[i].snapshots:
                        found[i][epoch + 1] = Snapshot(trained[row], float(losses[row]))
            context.report(len(part), f"{what}, epoch {epoch + 1}")
    return found


def block_size(mesh: Mesh) -> int | None:
    """How many models are trained at a time; None: all there are."""
    each = devices.lanes(mesh)
    return None if each is None else each * mesh.size


def logits_of(
    apply: Apply, models: Sequence[Params], inputs: Float[Array, "examples pixels"], mesh: Mesh
) -> Float[np.ndarray, "models examples outputs"]:
    """The logits of every model on `inputs`, block by block, on the host."""
    size = block_size(mesh) or max(1, len(models))
    found = []
    for first in range(0, len(models), size):
        some = list(models[first : first + size])
        # One program serves the last block too.
        full = some + some[:1] * (size - len(some)) if first else some
        found.append(population.predict(apply, stack(full), inputs, mesh=mesh)[: len(some)])
    return np.concatenate(found)


def stack(trees: Sequence[Any]) -> Any:
    """Pytrees of one structure as one, with a leading axis."""
    return jax.tree.map(lambda *leaves: _stacked(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """The pytrees of which `stack` makes one."""
    leaves, structure = jax.tree.flatten(tree)
    return [
        jax.tree.unflatten(structure, [leaf[row] for leaf in leaves])
        for row in range(leaves[0].shape[0])
    ]


def as_float(value: float | int | np.generic) -> np.ndarray:
    """A knob of one model."""
    return np.array(value, np.float32)


def as_int(value: int | np.generic) -> np.ndarray:
    """A knob of one model that is a whole number."""
    return np.array(value, np.int32)


def _stacked(leaves: Sequence[Any]) -> Any:
    keys = isinstance(leaves[0], jax.Array)
    return jnp.stack(leaves) if keys else np.stack(leaves)
