"""The stages of a trial: teacher, behavioural cloning, distillation, chains.

A stage is given many settings of one `Shape` and many runs, and trains each model that they need
once: settings that share a teacher share its training, settings that differ in a number of epochs
alone are snapshots of one training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import log_softmax

from sublab import devices
from sublab.randomness import run_keys
from toymlp.inputs import cloning_kind, draw_inputs, held_out_inputs, input_count
from toymlp.jobs import (
    Context,
    Job,
    Material,
    Snapshot,
    as_float,
    as_int,
    logits_of,
    train_jobs,
)
from toymlp.models import Params
from toymlp.networks import Apply, Plan, join_parts, split_parts
from toymlp.objective import Knobs as Row
from toymlp.objective import Shape as Program
from toymlp.protocol import Protocol
from toymlp.rules import plans
from toymlp.settings import AUX_HEAD, Setting, Shape, from_dict
from toymlp.starts import independent, references, with_shared
from toymlp.trainings import stops, trainings

_TEACHER_SHAPE = (
    "dataset", "classes", "hidden", "activation", "biases", "teacher_optimiser", "teacher_batch",
)  # fmt: skip
TEACHER_FIELDS = (
    *_TEACHER_SHAPE, "init_scale", "teacher_learning_rate", "teacher_epochs",
    "teacher_weight_decay",
)  # fmt: skip
CLONE_FIELDS = (
    "dataset", "classes", "hidden", "activation", "biases", "student_network", "student_hidden",
    "student_activation", "student_biases", "clone_inputs", "clone_images", "clone_fresh",
    "clone_batch", "clone_optimiser", "clone_schedule", "init_scale", "aux", "start", "shared",
    "clone_epochs", "clone_learning_rate", "clone_horizon", "clone_logits",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A model that a stage made.

    Attributes:
        params: on the host. A teacher's have no auxiliary head: training on class logits leaves
            it as it was drawn, so that one teacher serves every m.
        loss: mean training loss of the last epoch; None where there was none.
        held_out: of a clone, its loss on held-out inputs; None for a teacher.
    """

    params: Params
    loss: float | None
    held_out: float | None = None


def teacher_setting(setting: Setting) -> Setting:
    """`setting` with everything at its default that its teacher does not depend on."""
    return _only(setting, TEACHER_FIELDS)


def clone_setting(setting: Setting) -> Setting:
    """`setting` with everything at its default that its matched start does not depend on."""
    return _only(setting, CLONE_FIELDS)


def teacher_batch(shape: Shape, images: int) -> int:
    """Images a step of the teacher on a training set of so many."""
    return shape.teacher_batch or Protocol().teacher_batch_for(images)


def teachers(
    settings: Sequence[Setting], runs: tuple[int, ...], context: Context
) -> dict[tuple[Setting, int], Made]:
    """The teacher of each setting in each run.

    Args:
        settings: what `teacher_setting` gives, all of one shape.
        runs: run numbers.
        context: where.
    """
    shape, dataset = settings[0].shape, context.dataset
    # One auxiliary logit, which nothing refers to.
    plan, _ = plans(settings[0], aux=1)
    orders = run_keys(context.seed, "teacher order", jnp.asarray(runs))
    subset = np.asarray(plan.subset("class", 1))
    program = Program(
        "class_cross_entropy", teacher_batch(shape, len(dataset.train_labels)),
        shape.teacher_optimiser,
    )  # fmt: skip
    jobs, owners = [], []
    for knobs, some in trainings("teachers", settings).items():
        for row, start in enumerate(references(plan, runs, knobs.init_scale, context.seed)):
            jobs.append(
                Job(
                    start,
                    Row(
                        as_float(knobs.teacher_learning_rate), orders[row], subset, as_int(0),
                        weight_decay=decay_of(program, knobs.teacher_weight_decay),
                    ),
                    stops("teachers", some),
                )
            )  # fmt: skip
            owners.append((knobs, runs[row]))
    material = Material(
        devices.replicate(dataset.train_images, context.mesh),
        devices.replicate(dataset.train_labels[None], context.mesh),
    )
    trained = train_jobs(Apply(plan), jobs, lambda epoch: material, program, context, "teachers")
    return {
        (Setting(shape, replace(knobs, teacher_epochs=epochs)), run): Made(
            {name: part for name, part in snapshot.params.items() if name != AUX_HEAD},
            snapshot.loss,
        )
        for (knobs, run), snapshots in zip(owners, trained, strict=True)
        for epochs, snapshot in snapshots.items()
    }


def with_aux_head(teacher: Params, reference: Params) -> Params:
    """A teacher as a whole: what it learnt, and the auxiliary head that it was drawn with."""
    return teacher | {AUX_HEAD: reference[AUX_HEAD]}


def clones(
    settings: Sequence[Setting], runs: tuple[int, ...], context: Context
) -> dict[tuple[Setting, int], Made]:
    """The matched start of each setting in each run, by behavioural cloning.

    A student with a draw of its own (but for the shared parts) imitates the reference: KL on the
    logits of `clone_logits`.

    Args:
        settings: what `clone_setting` gives, all of one shape.
        runs: run numbers.
        context: where.
    """
    shape, seed, mesh = settings[0].shape, context.seed, context.mesh
    widest = max(setting.knobs.aux for setting in settings)
    reference_plan, plan = plans(settings[0], widest)
    kind = cloning_kind(shape)
    program = Program("kl", shape.clone_batch, shape.clone_optimiser, shape.clone_schedule)
    orders = run_keys(seed, "cloning order", jnp.asarray(runs))
    wanted = trainings("clones", settings)
    scales = sorted({knobs.init_scale for knobs in wanted})
    some_shared = any(knobs.shared for knobs in wanted)
    imitated = [
        params for scale in scales for params in references(reference_plan, runs, scale, seed)
    ]

    fixed: list[Material] = []

    def material(epoch: int) -> Material:
        if fixed:
            return fixed[0]
        drawn = draw_inputs(kind, context.dataset, seed, "cloning inputs", epoch)
        inputs = devices.replicate(drawn, mesh)
        made = Material(inputs, logits_on(Apply(reference_plan), imitated, inputs, context))
        if not shape.clone_fresh:
            fixed.append(made)
        return made

    steps = -(-input_count(kind, context.dataset) // shape.clone_batch)
    jobs, owners = [], []
    for knobs, some in wanted.items():
        drawn = independent(plan, runs, knobs.init_scale, seed)
        for row, start in enumerate(
            with_shared(drawn, plan, set(knobs.shared), runs, knobs.init_scale, seed)
        ):
            jobs.append(
                Job(
                    start,
                    Row(
                        as_float(knobs.clone_learning_rate), orders[row],
                        np.asarray(plan.subset(knobs.clone_logits, knobs.aux)),
                        as_int(scales.index(knobs.init_scale) * len(runs) + row),
                        weight_decay=decay_of(program, 0.0),
                        horizon=as_float(knobs.clone_horizon * steps),
                        trainable=trainable(start, knobs.shared, some_shared),
                    ),
                    stops("clones", some),
                )
            )  # fmt: skip
            owners.append((knobs, row))
    trained = train_jobs(Apply(plan), jobs, material, program, context, "cloning")
    found = {
        (Setting(shape, replace(knobs, clone_epochs=epochs)), row): snapshot
        for (knobs, row), snapshots in zip(owners, trained, strict=True)
        for epochs, snapshot in snapshots.items()
    }
    unseen = held_out_inputs(kind, context.dataset, seed, "cloning inputs")
    held_out = _held_out(
        found, plan, reference_plan, imitated, scales, len(runs),
        devices.replicate(unseen, mesh), context,
    )  # fmt: skip
    return {
        (setting, runs[row]): Made(snapshot.params, snapshot.loss, loss)
        for ((setting, row), snapshot), loss in zip(found.items(), held_out, strict=True)
    }


def trainable(params: Params, fixed: Sequence[str], needed: bool) -> dict | None:
    """For every array 1, or 0 in the parts that are `fixed`.

    None unless `needed`, that is, unless some model of the population has fixed parts.
    """
    if not needed:
        return None
    return join_parts(
        {
            name: {array: as_float(name not in fixed) for array in part}
            for name, part in split_parts(params).items()
        }
    )


def masked_kl(
    logits: Float[np.ndarray, "examples outputs"],
    teacher: Float[np.ndarray, "examples outputs"],
    subset: np.ndarray,
) -> float:
    """The mean KL(teacher || student) of the softmax over the logits in `subset`, in nats."""
    student, target = (
        log_softmax(some[:, subset].astype(np.float64), axis=-1) for some in (logits, teacher)
    )
    return float(np.mean(np.sum(np.exp(target) * (target - student), axis=-1)))


def _held_out(
    found: dict[tuple[Setting, int], Snapshot],
    plan: Plan,
    reference_plan: Plan,
    imitated: list[Params],
    scales: list[float],
    runs: int,
    inputs: Array,
    context: Context,
) -> list[float]:
    targets = logits_of(Apply(reference_plan), imitated, inputs, context.mesh)
    cloned = logits_of(Apply(plan), [s.params for s in found.values()], inputs, context.mesh)
    return [
        masked_kl(
            mine,
            targets[scales.index(setting.knobs.init_scale) * runs + row],
            np.asarray(plan.subset(setting.knobs.clone_logits, setting.knobs.aux)),
        )
        for (setting, row), mine in zip(found, cloned, strict=True)
    ]


def logits_on(apply: Apply, models: list[Params], inputs: Array, context: Context) -> Array:
    """The logits of every model on `inputs`, on the devices."""
    return devices.replicate(logits_of(apply, models, inputs, context.mesh), context.mesh)


def decay_of(program: Program, weight_decay: float) -> np.ndarray | None:
    """The weight decay as a knob, where the optimiser has one."""
    return as_float(weight_decay) if program.optimiser == "adamw" else None


def _only(setting: Setting, names: Sequence[str]) -> Setting:
    values = setting.as_dict()
    return from_dict({name: values[name] for name in names})
