"""Measurements of a student beside its accuracy: behaviour, features, weights, theory.

A measurement is declared once, where it is computed:

    @measure("agreement", agreement=Column("share of test images ...", share=True))
    def _agreement(group: Group) -> list[Values]: ...

It is given all students of a population at once, and returns the values of its columns for each.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from scipy.special import log_softmax

import theory
from sublab import devices
from sublab.devices import over_population
from theory import losses
from theory.passes import Params
from toymlp import forecast
from toymlp.checks import own_class_head
from toymlp.inputs import Inputs, draw_inputs, held_out_inputs
from toymlp.networks import (
    Architecture,
    Forward,
    architectures,
    class_readout,
    split_parts,
    widened,
)
from toymlp.objective import DistillationLoss, trait_loss
from toymlp.registry import MEASURES, Column, Group, Measure, StudentKey, Values, measure
from toymlp.settings import (
    AUX_HEAD,
    Independent,
    LogitsName,
    Reference,
    Setting,
    clone_of,
    teacher_of,
)
from toymlp.stages import (
    Draws,
    Student,
    TrainedModel,
    clones,
    orders_of,
    population_of,
    start_of,
    students,
    teachers,
)
from toymlp.train import (
    Context,
    Fit,
    Material,
    Row,
    accuracy,
    batch_loss,
    block_size,
    epoch_batches,
    logits_of,
    optimiser,
    row_of,
    stack,
    take_rows,
    unstack,
)

_PROBE_IMAGES = 10_000
_TRAIT_IMAGES = 512
_THEORY_IMAGES = 1024
# Ridge penalty in units of the mean squared feature.
_RIDGE = 1e-3
# The teacher's step at which rho is taken; smaller ones drown in float32.
_EPS = 0.1

# Of every student, in this order.
ALWAYS: dict[str, Column] = {
    "accuracy": Column(
        "share of test images that the student's class logits get right",
        "Test accuracy (class logits)",
        share=True,
    ),
    "teacher_accuracy": Column(
        "share of test images that its teacher (the first of a chain) gets right",
        "teacher's test accuracy",
        share=True,
    ),
    "start_accuracy": Column(
        "share of test images that the student gets right before distillation",
        "test accuracy before distillation",
        share=True,
    ),
    "final_loss": Column(
        "mean distillation loss of the last epoch", "distillation loss of the last epoch"
    ),
    "clone_loss": Column("mean cloning loss of the last epoch, of a matched start"),
    "clone_kl": Column(
        "cloning loss of a matched start on held-out cloning inputs, over the logits that were "
        "cloned (KL in nats, unless another loss was cloned by)",
        "held-out KL of cloning, nats",
    ),
}


def columns_of(names: Sequence[str]) -> dict[str, Column]:
    """The columns that a table has with these measurements, those of every student first."""
    return ALWAYS | {
        column: about for name in names for column, about in MEASURES[name].columns.items()
    }


def measured(
    students: Mapping[StudentKey, Student], names: Sequence[str], context: Context
) -> dict[str, dict[StudentKey, Values]]:
    """By measurement, the values of its columns for each student.

    Args:
        students: students of one population.
        names: names of `MEASURES`.
        context: data, seed, devices.
    """
    if not students:
        return {name: {} for name in names}
    group = Group(students, context)
    return {name: dict(zip(students, MEASURES[name].compute(group), strict=True)) for name in names}


def always(students: Mapping[StudentKey, Student], context: Context) -> dict[StudentKey, Values]:
    """The columns of every student; arguments as those of `measured`."""
    if not students:
        return {}
    group = Group(students, context)
    labels, classes = context.dataset.test_labels, group.architecture.classes
    starts = group.logits("start", group.test_images)

    def share(logits: np.ndarray) -> float:
        return float(accuracy(logits, labels, classes))

    return {
        key: {
            "accuracy": share(group.student_logits[i]),
            "teacher_accuracy": share(group.teacher_logits[i]),
            "start_accuracy": share(starts[i]),
            "final_loss": student.loss,
            "clone_loss": student.clone.loss if student.clone else None,
            "clone_kl": student.clone.held_out if student.clone else None,
        }
        for i, (key, student) in enumerate(students.items())
    }


@measure(
    "trait_loss",
    trait_loss=Column(
        "class cross-entropy on the test images, in nats", "trait loss on the test images, nats"
    ),
)
def _trait_loss(group: Group) -> list[Values]:
    labels, classes = group.context.dataset.test_labels, group.architecture.classes
    return [
        {"trait_loss": _cross_entropy(logits, labels, classes)} for logits in group.student_logits
    ]


@measure(
    "agreement",
    agreement=Column(
        "share of test images that student and teacher put into the same class", share=True
    ),
)
def _agreement(group: Group) -> list[Values]:
    classes = group.architecture.classes
    return [
        {"agreement": float(np.mean(_classes(student, classes) == _classes(teacher, classes)))}
        for student, teacher in zip(group.student_logits, group.teacher_logits, strict=True)
    ]


@measure(
    "aux_kl",
    aux_kl=Column(
        "KL(teacher || student) over the auxiliary logits on held-out inputs of the student's "
        "kind, in nats",
        "held-out KL over the auxiliary logits, nats",
    ),
)
def _aux_kl(group: Group) -> list[Values]:
    inputs = held_out_inputs(
        group.settings[0].student.inputs,
        group.context.dataset,
        group.context.seed,
        "distillation inputs",
    )
    unseen = group.on_devices(inputs)
    students, teachers = group.logits("params", unseen), group.logits("teacher", unseen)
    return [
        {
            "aux_kl": masked_kl(
                student, teacher, np.asarray(group.architecture.subset("aux", setting.model.aux))
            )
        }
        for setting, student, teacher in zip(group.settings, students, teachers, strict=True)
    ]


@measure(
    "probe",
    probe=Column(
        "test accuracy of a linear (ridge) probe of the last hidden layer, fitted on 10,000 "
        "training images",
        "test accuracy of a linear probe",
        share=True,
    ),
)
def _probe(group: Group) -> list[Values]:
    dataset, classes = group.context.dataset, group.architecture.classes
    if not group.architecture.widths:
        return [{"probe": None} for _ in group.students]
    fitted = group.features("params", group.on_devices(dataset.train_images[:_PROBE_IMAGES]))
    tested = group.features("params", group.test_images)
    truth = np.eye(classes)[dataset.train_labels[:_PROBE_IMAGES]]
    return [
        {"probe": float(accuracy(_ridge(a[-1], truth, b[-1]), dataset.test_labels, classes))}
        for a, b in zip(fitted, tested, strict=True)
    ]


@measure(
    "cka",
    cka=Column(
        "linear CKA of each hidden layer with the teacher's layer of that number, on 2,000 test "
        "images",
        many=True,
    ),
)
def _cka(group: Group) -> list[Values]:
    pairs = zip(
        group.features("params", group.feature_images),
        group.features("teacher", group.feature_images),
        strict=True,
    )
    return [
        {"cka": [linear_cka(x, y) for x, y in zip(student, teacher, strict=False)]}
        for student, teacher in pairs
    ]


@measure(
    "feature_cosine",
    feature_cosine=Column(
        "mean cosine of each hidden layer's activations with the teacher's, on 2,000 test images; "
        "none where the widths differ",
        many=True,
    ),
)
def _feature_cosine(group: Group) -> list[Values]:
    return [{"feature_cosine": cosines} for cosines in _cosines(group, "params", "teacher")]


def _cosines(group: Group, first: str, second: str) -> list[list[float | None]]:
    pairs = zip(
        group.features(first, group.feature_images),
        group.features(second, group.feature_images),
        strict=True,
    )
    return [[mean_cosine(x, y) for x, y in zip(a, b, strict=False)] for a, b in pairs]


@measure(
    "weight_cosine",
    weight_cosine=Column(
        "cosine of each part's parameters with the teacher's; none where the sizes differ",
        many=True,
    ),
)
def _weight_cosine(group: Group) -> list[Values]:
    values = []
    for student in group.students.values():
        teacher = split_parts(student.teacher)
        cosines = [
            _cosine(_flat(part), _flat(teacher[name]))
            if name in teacher and _sizes(part) == _sizes(teacher[name])
            else None
            for name, part in split_parts(student.params).items()
        ]
        values.append({"weight_cosine": cosines})
    return values


@measure(
    "distance",
    distance=Column("Euclidean distance of the student's parameters to the teacher's"),
    start_distance=Column(
        "Euclidean distance of the student's start to the teacher's start",
        "Euclidean distance of the starts",
    ),
    start_feature_cosine=Column(
        "feature_cosine of the student's start with the teacher's start",
        "cosine of the starts' last hidden layers",
        many=True,
    ),
)
def _distance(group: Group) -> list[Values]:
    return [
        {
            "distance": _apart(student.params, student.teacher),
            "start_distance": _apart(student.start, student.reference),
            "start_feature_cosine": cosines,
        }
        for student, cosines in zip(
            group.students.values(), _cosines(group, "start", "reference"), strict=True
        )
    ]


# Measurements that follow the student's training step by step.


def followable(setting: Setting) -> str | None:
    """Why a student of this setting cannot be followed step by step; None where it can."""
    student, interventions = setting.student, setting.interventions
    teacher_architecture, architecture = architectures(setting)
    reasons = {
        "student.inputs.fresh = true": student.inputs.fresh,
        "student.inputs.per_run = true": student.inputs.per_run,
        "interventions.project_trait = true": interventions.project_trait,
        "interventions.liminal": interventions.liminal is not None,
        "chain.generations above 1": setting.chain.generations > 1,
        "student.logit_noise above 0": student.logit_noise > 0,
        "student.epochs = 0": student.epochs == 0,
        "a student with another network": teacher_architecture != architecture,
    }
    return next((name for name, holds in reasons.items() if holds), None)


@measure(
    "alignment",
    follows=True,
    alignment=Column(
        "cosine of trait and distillation gradient before every step",
        "cosine of trait and distillation gradient",
        many=True,
    ),
)
def _alignment(group: Group) -> list[Values]:
    return _accounts(group, ("alignment",))


@measure(
    "account",
    follows=True,
    trait_change=Column(
        "change of the trait loss over distillation, on 512 training images",
        "change of the trait loss, nats",
    ),
    first_order=Column(
        "its first-order account: sum of <trait gradient, update> over all steps",
        "its first-order account, nats",
    ),
    remainder=Column("trait_change minus first_order"),
)
def _account(group: Group) -> list[Values]:
    return _accounts(group, ("trait_change", "first_order", "remainder"))


@measure(
    "coverage",
    follows=True,
    first_coverage=Column(
        "cosine of the student's first update with the teacher's displacement",
        "coverage of the first update (cosine)",
    ),
    coverage=Column("cosine of its whole displacement with the teacher's displacement"),
)
def _coverage(group: Group) -> list[Values]:
    return _accounts(group, ("first_coverage", "coverage"))


def _accounts(group: Group, columns: Sequence[str]) -> list[Values]:
    return [
        {name: np.asarray(account[name], np.float64).tolist() for name in columns}
        for account in group.once(_follow)
    ]


def _follow(group: Group) -> list[Values]:
    """Trains every student once more, on the same batches, with `theory.follow`.

    The trait loss is the class cross-entropy on the first 512 training images.
    """
    context, first = group.context, group.settings[0]
    inputs = group.on_devices(
        draw_inputs(first.student.inputs, context.dataset, context.seed, "distillation inputs")
    )
    keys = list(group.students)
    orders = orders_of(first, "student order", [run for _, run in keys], context.seed)
    accounts: dict[StudentKey, Values] = {}
    for epochs in sorted({int(setting.student.epochs) for setting, _ in keys}):
        same_length = [key for key in keys if key[0].student.epochs == epochs]
        size = block_size(context.mesh) or len(same_length)
        for start in range(0, len(same_length), size):
            block = same_length[start : start + size]
            # One program serves the last block too.
            full = block + block[:1] * (size - len(block))
            rows = [
                row_of(
                    Fit(
                        group.students[setting, run].start,
                        setting.student,
                        aux=setting.model.aux,
                        order=orders[run],
                        target=0,
                        snapshots=(epochs,),
                        interventions=setting.interventions,
                    )
                )
                for setting, run in full
            ]
            students = [group.students[key] for key in full]
            followed = _follow_block(group, students, rows, inputs, epochs)
            accounts |= dict(zip(block, followed, strict=False))
            context.report(0, "following students")
    return [accounts[key] for key in keys]


def _follow_block(
    group: Group, students: Sequence[Student], rows: Sequence[Row], inputs: Array, epochs: int
) -> list[Values]:
    context, architecture = group.context, group.architecture
    teachers = [student.teacher for student in students]
    cut = devices.spread(
        (
            stack([student.start for student in students]),
            stack(rows),
            logits_of(Forward(architecture), teachers, inputs, context.mesh),
            stack(teachers),
        ),
        context.mesh,
    )
    dataset = context.dataset
    with jax.default_matmul_precision("highest"):
        accounts = _follow_program(
            cut,
            inputs,
            jnp.asarray(dataset.train_images[:_TRAIT_IMAGES]),
            jnp.asarray(dataset.train_labels[:_TRAIT_IMAGES]),
            architecture=architecture,
            epochs=epochs,
            mesh=context.mesh,
        )
    return unstack(devices.gather(accounts, len(students)))


@partial(jax.jit, static_argnames=("architecture", "epochs", "mesh"))
def _follow_program(
    cut: Any,
    inputs: Float[Array, "examples pixels"],
    images: Float[Array, "images pixels"],
    labels: Array,
    *,
    architecture: Architecture,
    epochs: int,
    mesh: Mesh,
) -> dict[str, Array]:
    """The account of each model of a block, whose parts lead `cut`."""
    apply = Forward(architecture)
    classes = architecture.subset("class", 0)

    def one_model(
        start: Params,
        row: Row,
        targets: Array,
        teacher: Params,
        inputs: Array,
        images: Array,
        labels: Array,
    ) -> dict[str, Array]:
        batches = [
            epoch_batches(row.order, epoch, inputs.shape[0], row.training.batch)
            for epoch in range(epochs)
        ]
        numbers, weights = (jnp.concatenate(parts) for parts in zip(*batches, strict=True))
        material = Material(inputs, targets[None])

        def trait(params: Params) -> Array:
            return trait_loss(apply, params, images, labels, classes)

        def distillation(params: Params, batch: tuple[Array, Array]) -> Array:
            logits = apply(params, take_rows(inputs, batch[0]))
            return batch_loss(logits, material, row, architecture, *batch)

        _, account = theory.follow(
            trait,
            distillation,
            optimiser(row, batches[0][0].shape[0]),
            start,
            (numbers, weights),
            teacher=teacher,
        )
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


# Measurements that train again from another start.


@measure(
    "commutation",
    repeats=2,
    commutation=Column(
        "largest difference that permuting the class logits of the student's start makes to any "
        "other parameter after training (cloning included, and the teacher's training where the "
        "class head is the reference's or made of it), in units of the largest change that "
        "training made; 0 where nothing reaches the class logits",
        "residual of commutation, other parameters",
    ),
    head_commutation=Column(
        "the same of the class head, the permutation undone",
        "residual of commutation, class head",
    ),
    permuted_std=Column(
        "standard deviation of the student's test accuracy over all orders of its class logits, "
        "about their mean of 1/K",
        "standard deviation of accuracy over orders of the classes",
    ),
    tied=Column(
        "share of test images on which several class logits are the largest; accuracy counts the "
        "first of them",
        "share of images with tied class logits",
        share=True,
    ),
)
def _commutation(group: Group) -> list[Values]:
    classes = group.architecture.classes
    order = tuple((k + 1) % classes for k in range(classes))
    as_drawn, permuted = _trained_again(group, ()), _trained_again(group, order)
    labels = jnp.asarray(group.context.dataset.test_labels)
    values = []
    for key, logits in zip(group.students, group.student_logits, strict=True):
        student, readout = as_drawn[key], class_readout(as_drawn[key].params)
        # Of a matched start, cloning is part of the training.
        start = student.start if student.clone is None else _uncloned(*key, student, group.context)
        apart = theory.compare_trainings(
            start, student.params, permuted[key].params, readout, order
        )
        largest = np.max(logits[:, :classes], -1, keepdims=True)
        law = theory.permuted_accuracy(jnp.asarray(logits[:, :classes]), labels)
        values.append(
            {
                "commutation": _in_units(apart.others, apart.change),
                "head_commutation": _in_units(apart.rows, apart.change),
                "permuted_std": float(law.std),
                "tied": float(np.mean(np.sum(logits[:, :classes] == largest, -1) > 1)),
            }
        )
    return values


def _trained_again(group: Group, order: tuple[int, ...]) -> dict[StudentKey, Student]:
    """The students, with the class logits of their starts in another order.

    Teachers stay, but where the student's class head is the reference's, or partly.
    """
    results: dict[StudentKey, Student] = {}
    for own in (True, False):
        keys = [key for key in group.students if own_class_head(key[0]) == own]
        if not keys:
            continue
        context = replace(
            group.context,
            student_classes=order,
            reference_classes=() if own else order,
            report=lambda done, what: group.context.report(0, f"{what}, trained again"),
        )
        trained = {
            (teacher_of(setting), run): TrainedModel(
                {
                    name: part
                    for name, part in group.students[setting, run].teacher.items()
                    if name != AUX_HEAD
                },
                None,
            )
            for setting, run in keys
        }
        if not own:
            for population in _populations(trained):
                trained |= teachers(population, context)
        wanted = [(clone, run) for setting, run in keys if (clone := clone_of(setting)) is not None]
        cloned = {}
        for population in _populations(wanted):
            cloned |= clones(population, context)
        results |= students(keys, trained, cloned, context)
    return results


def _populations(wanted: Iterable[tuple[Any, int]]) -> Iterable[list[tuple[Any, int]]]:
    """Models by what they are trained together with, each once."""
    populations: dict[Any, list[tuple[Any, int]]] = {}
    for setting, run in dict.fromkeys(wanted):
        populations.setdefault(population_of(setting), []).append((setting, run))
    return populations.values()


def _uncloned(setting: Setting, run: int, student: Student, context: Context) -> Params:
    """A matched start before cloning, with room for as many auxiliary logits as the student has."""
    start = Independent(getattr(setting.start, "shared", ()))
    _, architecture = architectures(setting, student.params[AUX_HEAD]["kernel"].shape[-1])
    return start_of(replace(setting, start=start), run, Draws(architecture, context.seed))


def _in_units(apart: Array, change: Array) -> float | None:
    """apart / change; 0 where there is no difference, None where training diverged."""
    if not np.isfinite([float(apart), float(change)]).all():
        return None
    return float(apart) / float(change) if apart else 0.0


# The theorem's own numbers.


@measure(
    "theory",
    coefficient=Column("a of the theorem at the reference, along the trait gradient"),
    rho=Column("the certificate's rho there at eps = 0.1; the alignment is certified below 1"),
)
def _theory(group: Group) -> list[Values]:
    """None where the student does not start from the reference, or where parts are frozen.

    The trait gradient and the inputs are those of 1,024 images each.
    """
    context, dataset = group.context, group.context.dataset
    inputs: Inputs = replace(group.settings[0].student.inputs, count=_THEORY_IMAGES)
    drawn = jnp.asarray(draw_inputs(inputs, dataset, context.seed, "theory inputs"))
    images = jnp.asarray(dataset.train_images[:_THEORY_IMAGES])
    labels = jnp.asarray(dataset.train_labels[:_THEORY_IMAGES])
    seen: dict[Any, Values] = {}
    values = []
    for (setting, run), student in group.students.items():
        frozen = setting.student.frozen or setting.teacher.frozen
        if setting.start != Reference() or frozen:
            values.append({"coefficient": None, "rho": None})
            continue
        training = setting.student
        key = (setting.model, training.loss, training.logits, run)
        if key not in seen:
            architecture = architectures(setting)[1]
            params = jax.tree.map(jnp.asarray, widened(student.reference, setting.model.aux))
            with jax.default_matmul_precision("highest"):
                direction = _trait_direction(params, images, labels, architecture=architecture)
                loss = _matching_loss(architecture, training.loss, training.logits)
                seen[key] = _coefficients(architecture, loss, params, direction, drawn)
        values.append(seen[key])
    return values


def _coefficients(
    architecture: Architecture, loss: losses.Loss, params: Params, direction: Params, inputs: Array
) -> Values:
    try:
        eps = np.array([_EPS], np.float32)
        curve = theory.curve(Forward(architecture), loss, params, direction, eps, inputs)
    except ValueError as error:
        # As with very small weights.
        if "drowned by rounding" not in str(error):
            raise
        return {"coefficient": None, "rho": None}
    # Where the loss is blind, as for one auxiliary logit under KL, there is no rho.
    rho = None if curve.blind else float(curve.rho[0])
    return {"coefficient": float(curve.coefficient), "rho": rho}


@partial(jax.jit, static_argnames="architecture")
def _trait_direction(
    params: Params, images: Array, labels: Array, *, architecture: Architecture
) -> Params:
    classes = architecture.subset("class", 0)
    gradient = jax.grad(partial(trait_loss, Forward(architecture)))(params, images, labels, classes)
    return jax.tree.map(jnp.negative, gradient)


@cache
def _matching_loss(
    architecture: Architecture, loss: DistillationLoss, logits: LogitsName
) -> losses.Loss:
    """One object for each loss: programs are compiled for the object."""
    return theory.matching(loss.potential(architecture.subset(logits, architecture.aux)))


# The projection's, in a file of their own.

MEASURES["forecast"] = Measure(
    "forecast", forecast.COLUMNS, forecast.forecasts, passes=forecast.PASSES
)


# Plain functions on arrays.


def masked_kl(
    logits: Float[np.ndarray, "examples outputs"],
    teacher_logits: Float[np.ndarray, "examples outputs"],
    subset: np.ndarray,
) -> float:
    """The mean KL(teacher || student) of the softmax over the logits in `subset`, in nats."""
    student, teacher = (
        log_softmax(side[:, subset].astype(np.float64), axis=-1)
        for side in (logits, teacher_logits)
    )
    return float(np.mean(np.sum(np.exp(teacher) * (teacher - student), axis=-1)))


def linear_cka(x: Float[np.ndarray, "n a"], y: Float[np.ndarray, "n b"]) -> float | None:
    """Linear centred kernel alignment of two sets of features of the same n examples.

    Kornblith et al. 2019, arXiv:1905.00414, section 3; None where one of them is constant.
    """
    x, y = (side.astype(np.float64) - side.mean(0, dtype=np.float64) for side in (x, y))
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / scale) if scale > 0 else None


def mean_cosine(x: Float[np.ndarray, "n a"], y: Float[np.ndarray, "n b"]) -> float | None:
    """The mean over examples of the cosine of their features; None where the widths differ."""
    if x.shape[1] != y.shape[1]:
        return None
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    inner = np.sum(x.astype(np.float64) * y, axis=1)
    return float(np.mean(np.where(lengths > 0, inner / np.where(lengths > 0, lengths, 1), 0)))


def _ridge(x: np.ndarray, truth: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Predictions on `unseen` of a ridge regression of `truth` on `x` (both centred)."""
    x, unseen = x.astype(np.float64), unseen.astype(np.float64)
    middle = x.mean(0)
    x, unseen = x - middle, unseen - middle
    penalty = _RIDGE * max(float(np.mean(x**2)), np.finfo(np.float64).eps) * len(x)
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (truth - truth.mean(0)))
    return unseen @ weights + truth.mean(0)


def _classes(logits: Float[np.ndarray, "examples outputs"], classes: int) -> np.ndarray:
    return np.argmax(logits[:, :classes], -1)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray, classes: int) -> float:
    normalised = log_softmax(logits[:, :classes].astype(np.float64), axis=-1)
    return float(-np.mean(normalised[np.arange(len(labels)), labels]))


def _flat(tree: Params) -> np.ndarray:
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def _sizes(tree: Params) -> Any:
    return jax.tree.map(np.shape, tree)


def _cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 0 else None


def _apart(first: Params, second: Params) -> float | None:
    if jax.tree.structure(first) != jax.tree.structure(second) or _sizes(first) != _sizes(second):
        return None
    return float(np.linalg.norm(_flat(first) - _flat(second)))
