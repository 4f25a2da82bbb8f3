"""Measurements from theory/: the account of a student's training, and a and rho at its start."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

import theory
from sublab import devices
from sublab.devices import over_population
from sublab.randomness import run_keys
from theory import losses
from toymlp.distillation import Student, features_of, program_of, student_row, widened
from toymlp.inputs import distillation_kind, draw_inputs, input_count
from toymlp.jobs import Context, block_size, logits_of, stack, unstack
from toymlp.measures import Row, Values, columns_of
from toymlp.models import Params
from toymlp.networks import Apply, Plan
from toymlp.objective import Knobs, Shape, class_loss, epoch_batches, optimiser, student_loss
from toymlp.rules import plans
from toymlp.settings import Setting

TRAIT_IMAGES = 512
_THEORY_IMAGES = 1024
# The teacher's step at which rho is taken; smaller ones drown in float32.
_EPS = 0.1


def followable(setting: Setting) -> str | None:
    """Why a student of this setting cannot be followed step by step; None where it can."""
    shape, knobs = setting.shape, setting.knobs
    reasons = {
        "fresh = true": shape.fresh,
        "project_trait = true": shape.project_trait,
        "liminal_weight above 0": knobs.liminal_weight > 0,
        "generations above 1": knobs.generations > 1,
        "logit_noise above 0": knobs.logit_noise > 0,
        "student_epochs = 0": knobs.student_epochs == 0,
        "a student with another network": plans(setting)[0] != plans(setting)[1],
    }
    return next((name for name, true in reasons.items() if true), None)


def follow_students(
    found: Mapping[Row, Student], measure: Sequence[str], context: Context
) -> dict[Row, Values]:
    """Trains every student once more, on the same batches, with `theory.follow`.

    The trait loss is the class cross-entropy on the first 512 training images. Settings must be
    `followable`, and of one shape.

    Args:
        found: the students.
        measure: `alignment`, `account`, `coverage`, or several of them.
        context: where.
    """
    settings = list(dict.fromkeys(setting for setting, _ in found))
    shape, program = settings[0].shape, program_of(settings[0].shape)
    plan = plans(settings[0], max(s.knobs.aux for s in settings))[1]
    kind = distillation_kind(shape)
    inputs = devices.replicate(
        draw_inputs(kind, context.dataset, context.seed, "distillation inputs"), context.mesh
    )
    steps = -(-input_count(kind, context.dataset) // shape.student_batch)
    rows = list(found)
    values: dict[Row, Values] = {}
    for epochs in sorted({setting.knobs.student_epochs for setting in settings}):
        mine = [row for row in rows if row[0].knobs.student_epochs == epochs]
        size = block_size(context.mesh) or len(mine)
        for first in range(0, len(mine), size):
            some = mine[first : first + size]
            full = some + some[:1] * (size - len(some))
            accounts = _follow_block(
                [found[row] for row in full], full, plan, program, features_of(settings), steps,
                epochs, inputs, context,
            )  # fmt: skip
            for row, account in zip(some, accounts, strict=False):
                values[row] = _values(account, measure)
            context.report(0, "following students")
    return values


def _follow_block(students, rows, plan, program, features, steps, epochs, inputs, context):
    knobs = [
        replace(
            student_row(
                setting, plan, run_keys(context.seed, "student order", jnp.asarray([run]))[0],
                student.start, steps, features,
            ),
            classes=np.asarray(plan.subset("class", 0)),
        )
        for (setting, run), student in zip(rows, students, strict=True)
    ]  # fmt: skip
    targets = logits_of(Apply(plan), [s.teacher for s in students], inputs, context.mesh)
    cut = devices.spread(
        (
            stack([student.start for student in students]),
            stack(knobs),
            targets,
            stack([student.teacher for student in students]),
        ),
        context.mesh,
    )
    dataset = context.dataset
    with jax.default_matmul_precision("highest"):
        accounts = _follow(
            cut, inputs, jnp.asarray(dataset.train_images[:TRAIT_IMAGES]),
            jnp.asarray(dataset.train_labels[:TRAIT_IMAGES]),
            apply=Apply(plan), shape=program, epochs=epochs, mesh=context.mesh,
        )  # fmt: skip
    return unstack(devices.gather(accounts, len(students)))


@partial(jax.jit, static_argnames=("apply", "shape", "epochs", "mesh"))
def _follow(
    cut: Any, inputs: Array, images: Array, labels: Array, *,
    apply: Apply, shape: Shape, epochs: int, mesh: Mesh,
) -> Any:  # fmt: skip
    def one_model(start, knobs: Knobs, targets, teacher, inputs, images, labels):
        batches = [
            epoch_batches(knobs.order, epoch, inputs.shape[0], shape.batch)
            for epoch in range(epochs)
        ]
        rows, weights = (jnp.concatenate(some) for some in zip(*batches, strict=True))

        def trait_loss(params):
            return class_loss(apply, params, images, labels, jnp.asarray(knobs.classes))

        def distillation_loss(params, batch):
            rows, weights = batch
            return student_loss(apply, shape, params, knobs, rows, weights, inputs, targets[None])

        _, account = theory.follow(
            trait_loss, distillation_loss, optimiser(shape, knobs), start, (rows, weights),
            teacher=teacher,
        )  # fmt: skip
        assert account.coverage is not None
        return {
            "alignment": account.cosine,
            "trait_change": account.trait_loss[-1] - account.trait_loss[0],
            "first_order": jnp.sum(account.first_order),
            "remainder": jnp.sum(account.remainder),
            "first_coverage": account.coverage[0],
            "coverage": account.coverage[-1],
        }

    return over_population(one_model, mesh, cut, (inputs, images, labels))


def _values(account: Mapping[str, np.ndarray], measure: Sequence[str]) -> Values:
    wanted = columns_of(measure)
    return {
        name: np.asarray(value, np.float64).tolist()
        for name, value in account.items()
        if name in wanted
    }


def theory_at_start(found: Mapping[Row, Student], context: Context) -> dict[Row, Values]:
    """a and rho at each student's reference, along the trait gradient on 1,024 training images.

    None where the student does not start from the reference, which the theorem is about.
    """
    setting = next(iter(found))[0]
    kind = replace(distillation_kind(setting.shape), count=_THEORY_IMAGES)
    inputs = jnp.asarray(draw_inputs(kind, context.dataset, context.seed, "theory inputs"))
    images = jnp.asarray(context.dataset.train_images[:_THEORY_IMAGES])
    labels = jnp.asarray(context.dataset.train_labels[:_THEORY_IMAGES])
    values: dict[Row, Values] = {}
    seen: dict[Any, Values] = {}
    for (setting, run), student in found.items():
        knobs = setting.knobs
        plan = plans(setting)[1]
        if knobs.start != "reference":
            values[setting, run] = {"coefficient": None, "rho": None}
            continue
        key = (plan, setting.shape.loss, knobs.logits, knobs.temperature, knobs.init_scale, run)
        if key not in seen:
            params = jax.tree.map(jnp.asarray, widened(student.reference, knobs.aux))
            seen[key] = _coefficients(plan, setting, params, inputs, images, labels)
        values[setting, run] = seen[key]
    return values


def _coefficients(plan, setting, params, inputs, images, labels) -> Values:
    with jax.default_matmul_precision("highest"):
        direction = _trait_direction(params, images, labels, apply=Apply(plan))
        curve = _curve(
            Apply(plan), _loss(plan, setting.shape.loss, setting.knobs.logits,
                               setting.knobs.temperature),
            params, direction, np.array([_EPS], np.float32), inputs,
        )  # fmt: skip
    if curve is None:
        return {"coefficient": None, "rho": None}
    # Where the loss is blind, as for one auxiliary logit under KL, there is no rho.
    rho = None if curve.blind else float(curve.rho[0])
    return {"coefficient": float(curve.coefficient), "rho": rho}


def _curve(*arguments: Any) -> theory.Curve | None:
    """`theory.curve`, or None where rounding would drown it, as with very small weights."""
    try:
        return theory.curve(*arguments)
    except ValueError as error:
        if "drowned by rounding" not in str(error):
            raise
        return None


@partial(jax.jit, static_argnames="apply")
def _trait_direction(params: Params, images: Array, labels: Array, *, apply: Apply) -> Params:
    classes = apply.plan.subset("class", 0)
    gradient = jax.grad(partial(class_loss, apply))(params, images, labels, classes)
    return jax.tree.map(jnp.negative, gradient)


@cache
def _loss(plan: Plan, name: str, logits: str, temperature: float) -> losses.Loss:
    """One object for each loss: programs are compiled for the object."""
    subset = plan.subset(logits, plan.aux)
    if name == "squared_error":
        return theory.matching(theory.squared_potential(subset))
    return theory.matching(theory.softmax_potential(subset, temperature))
