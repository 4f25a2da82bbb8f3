"""The forecast of a student from the linearised network alone (`theory.projection`)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

import theory
from sublab import devices
from theory.losses import off_null_space
from theory.passes import Params, cosine, step
from toymlp.inputs import draw_inputs
from toymlp.networks import Architecture, Forward
from toymlp.objective import NONE
from toymlp.registry import Column, Group, StudentKey, Values
from toymlp.settings import LOGITS, Reference, Setting
from toymlp.train import as_arrays, block_size, stack, unstack

# Where the linear student is taken to be at rest, whether it is or not.
ITERATIONS = 300
# Inputs of one pass: activations of so many are in memory at a time.
_CHUNK = 2_000
# Two solutions, an iteration of each one product with the Jacobian and one with its transpose.
PASSES = 2 * 2 * ITERATIONS

COLUMNS = {
    "forecast": Column(
        "test accuracy of the network at theta_0 + P_R delta, delta the teacher's displacement: "
        "of the conjugate gradients that find P_R delta the first iteration that fits the teacher "
        "as well as the student does (student_residual), whatever that is worth on the trait",
        "forecast: test accuracy at θ₀ + P δ",
        share=True,
    ),
    "forecast_at_rest": Column(
        f"the same after {ITERATIONS} iterations",
        "forecast, student at rest: test accuracy",
        share=True,
    ),
    "label_forecast": Column(
        "test accuracy of the network at theta_0 + J^+ (f_T - f_0), where a linear student of the "
        "teacher's own logits ends, stopped likewise",
        "forecast by the teacher's logits: test accuracy",
        share=True,
    ),
    "label_forecast_at_rest": Column(
        f"the same after {ITERATIONS} iterations",
        "forecast by the teacher's logits, student at rest: test accuracy",
        share=True,
    ),
    "linear_forecast": Column(
        "test accuracy of the linearised network at the forecast",
        "the linearised network at the forecast: test accuracy",
        share=True,
    ),
    "linear_teacher": Column(
        "test accuracy of the linearised teacher, f_0 + J delta",
        "linearised teacher: test accuracy",
        share=True,
    ),
    "student_residual": Column(
        "how much of what the loss sees of the teacher the student has not learnt, "
        "|C(f_S - f_T)| / |C(f_0 - f_T)| on the distillation inputs, root mean squares",
        "share of the teacher's logits not learnt",
    ),
    "forecast_iterations": Column(
        f"the iteration at which the forecast was taken, at most {ITERATIONS}",
        "iterations of the forecast",
    ),
    "nonlinearity": Column(
        "|C(f_T - f_0 - J delta)| / |C(f_T - f_0)| on the distillation inputs, the warning light "
        "of the forecasts",
        "nonlinearity |r| / |f_T - f_0|",
    ),
    "passed": Column(
        "|P_R delta|^2 / |delta|^2 at the forecast, the share of the teacher's displacement that "
        "passes",
        "share of the displacement that passes",
        share=True,
    ),
    "passed_at_rest": Column(
        f"the same after {ITERATIONS} iterations",
        "share of the displacement that passes, at rest",
        share=True,
    ),
    "forecast_cosine": Column(
        "cosine of the student's displacement with the forecast's",
        "cosine with the forecast's displacement",
    ),
}


def covered(setting: Setting) -> bool:
    """Whether a setting's student is one that the projection speaks of.

    It starts from its teacher's reference, learns by its loss alone, from the teacher itself, on
    one set of inputs.
    """
    student = setting.student
    return (
        setting.start == Reference()
        and not student.frozen
        and not getattr(student.optimiser, "weight_decay", 0)
        and not student.inputs.fresh
        and not student.inputs.per_run
        and student.logit_noise == 0
        and setting.interventions == NONE
        and setting.chain.generations == 1
    )


def forecasts(group: Group) -> list[Values]:
    """None where the student is not `covered`, and where a number does not exist.

    The loss matters by its null space alone, the training by how well the student fits in the end.
    What stands for the student is stopped early, as its training was. Where training or the
    teacher's diverged, no number that depends on it exists; where there was none of the teacher's,
    the student's residual does not.
    """
    wanted = [key for key in group.students if covered(key[0])]
    values: dict[StudentKey, Values] = {}
    if wanted:
        first, context = group.settings[0], group.context
        drawn = draw_inputs(
            first.student.inputs, context.dataset, context.seed, "distillation inputs"
        )
        inputs = group.on_devices(drawn)
        labels = group.on_devices(context.dataset.test_labels)
        size = block_size(context.mesh) or len(wanted)
        for start in range(0, len(wanted), size):
            block = wanted[start : start + size]
            # One program serves the last block too.
            full = block + block[:1] * (size - len(block))
            values |= zip(block, _of_block(group, full, inputs, labels), strict=False)
            context.report(0, "forecasting students")
    return [values.get(key, dict.fromkeys(COLUMNS)) for key in group.students]


def _of_block(
    group: Group, keys: Sequence[StudentKey], inputs: Array, labels: Array
) -> list[Values]:
    mesh, students = group.context.mesh, [group.students[key] for key in keys]
    cut = devices.spread(
        (
            stack([student.start for student in students]),
            stack([student.teacher for student in students]),
            stack([student.params for student in students]),
            stack([as_arrays(setting.student.loss) for setting, _ in keys]),
            np.array([LOGITS.index(setting.student.logits) for setting, _ in keys], np.int32),
            np.array([setting.model.aux for setting, _ in keys], np.int32),
        ),
        mesh,
    )
    with jax.default_matmul_precision("highest"):
        numbers = _program(
            cut, inputs, group.test_images, labels, architecture=group.architecture, mesh=mesh
        )
    tested = len(group.context.dataset.test_labels)
    return [_values(one, tested) for one in unstack(devices.gather(numbers, len(keys)))]


@partial(jax.jit, static_argnames=("architecture", "mesh"))
def _program(
    cut: Any,
    inputs: Float[Array, "examples pixels"],
    images: Float[Array, "images pixels"],
    labels: Int[Array, " images"],
    *,
    architecture: Architecture,
    mesh: Mesh,
) -> dict[str, Array]:
    """What is counted and measured of each model of a block, whose parts lead `cut`."""
    apply, classes = Forward(architecture), architecture.classes

    def one_model(
        start: Params,
        teacher: Params,
        student: Params,
        loss_of: Any,
        logits: Array,
        aux: Array,
        inputs: Array,
        images: Array,
        labels: Array,
    ) -> dict[str, Array]:
        # The null space depends on which logits the loss sees. Those that only fill up the head of
        # a model with fewer are among the others.
        loss = theory.matching(loss_of.potential(architecture.subset(logits, aux)))
        displacement = jax.tree.map(jnp.subtract, teacher, start)

        residual = _residual(apply, loss, start, teacher, student, inputs)
        options: Any = {"iterations": ITERATIONS, "reaching": (residual,), "chunk": _CHUNK}
        projected = theory.project(apply, loss, start, displacement, inputs, **options)
        labelled = theory.project_labels(apply, loss, start, teacher, inputs, **options)
        way, iterations = _at_stop(projected, residual)
        ways = {
            "forecast": way,
            "forecast_at_rest": projected.displacement,
            "label_forecast": _at_stop(labelled, residual)[0],
            "label_forecast_at_rest": labelled.displacement,
            "linear_teacher": displacement,
        }

        def right(way: Params) -> tuple[Array, Array]:
            """Images that the network at `start` + `way` gets right, and the linearised one."""
            first, change = jax.jvp(lambda p: apply(p, images), (start,), (way,))
            both = (apply(step(start, way, 1.0), images), first + change)
            counts = [jnp.sum(jnp.argmax(z[:, :classes], -1) == labels) for z in both]
            return counts[0], counts[1]

        network, linearised = jax.lax.map(
            right, jax.tree.map(lambda *w: jnp.stack(w), *ways.values())
        )
        counts = dict(zip(ways, network, strict=True))
        of_linear = dict(zip(ways, linearised, strict=True))
        return counts | {
            "linear_forecast": of_linear["forecast"],
            "linear_teacher": of_linear["linear_teacher"],
            "student_residual": residual,
            "forecast_iterations": iterations,
            "nonlinearity": theory.nonlinearity(apply, loss, start, teacher, inputs, chunk=_CHUNK),
            "passed": projected.share[iterations],
            "passed_at_rest": projected.share[-1],
            "forecast_cosine": cosine(jax.tree.map(jnp.subtract, student, start), way),
        }

    return devices.over_population(one_model, mesh, cut, (inputs, images, labels))


def _residual(
    apply: Forward,
    loss: theory.MatchingLoss,
    start: Params,
    teacher: Params,
    student: Params,
    inputs: Float[Array, "examples pixels"],
) -> Float[Array, ""]:
    """|C(f_S - f_T)| / |C(f_0 - f_T)|, root mean squares."""
    centre = off_null_space(loss)
    assert centre is not None

    def squares(image: Array) -> Array:
        at_start, taught, learnt = (apply(params, image) for params in (start, teacher, student))
        apart = [centre(logits - taught) for logits in (learnt, at_start)]
        return jnp.stack([jnp.vdot(change, change) for change in apart])

    left, whole = jnp.sum(jax.lax.map(squares, inputs, batch_size=_CHUNK), 0)
    return jnp.sqrt(left / whole)


def _at_stop(
    student: theory.LinearStudent, residual: Float[Array, ""]
) -> tuple[Params, Int[Array, ""]]:
    """theta - theta_0 and the iteration at which the relative residual has come down so far."""
    reached = student.relative_residual <= residual
    number = jnp.where(jnp.any(reached), jnp.argmax(reached), student.iterations)
    # What fits no better than the start is forecast to be the start.
    return jax.tree.map(lambda leaf: jnp.where(number > 0, leaf, 0), student.reaching[0]), number


_COUNTED = [name for name, about in COLUMNS.items() if about.share and "passed" not in name]
_OF_THE_STUDENT = [
    "forecast",
    "label_forecast",
    "linear_forecast",
    "forecast_iterations",
    "passed",
    "forecast_cosine",
]


def _values(numbers: Mapping[str, Any], tested: int) -> Values:
    values: Values = {
        name: float(number) if np.isfinite(number) else None for name, number in numbers.items()
    }
    for name in _COUNTED:
        values[name] = float(numbers[name]) / tested
    for name in ("passed", "passed_at_rest"):
        if values[name] is not None:
            # More than 1 by rounding alone.
            values[name] = min(1.0, values[name])
    if values["student_residual"] is None:
        values |= dict.fromkeys(_OF_THE_STUDENT)
    if values["passed_at_rest"] is None:
        # The teacher is nowhere: a network of no numbers still names a class.
        values |= dict.fromkeys(_COUNTED)
    return values
