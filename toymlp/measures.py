"""What is measured of a student beside its accuracy: behaviour, features, weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Array, Float
from scipy.special import log_softmax

from sublab import devices
from toymlp import population
from toymlp.distillation import Student
from toymlp.inputs import distillation_kind, held_out_inputs
from toymlp.jobs import Context, logits_of
from toymlp.models import Params
from toymlp.networks import Apply, Features, Plan, split_parts
from toymlp.rules import plans
from toymlp.settings import Setting
from toymlp.stages import masked_kl

MeasureName = Literal[
    "trait_loss", "agreement", "aux_kl", "probe", "cka", "feature_cosine", "weight_cosine",
    "distance", "alignment", "account", "coverage", "theory",
]  # fmt: skip
MEASURES: tuple[MeasureName, ...] = get_args(MeasureName)
# Those that follow the student's training step by step.
FOLLOWED = frozenset({"alignment", "account", "coverage"})
COLUMNS: dict[str, str] = {
    "accuracy": "share of test images that the student's class logits get right",
    "teacher_accuracy": "the same of its teacher (the first of a chain)",
    "start_accuracy": "the same of the student before distillation",
    "final_loss": "mean distillation loss of its last epoch",
    "clone_loss": "mean cloning loss of the last epoch, of a matched start",
    "clone_kl": "KL of a matched start to the reference on held-out cloning inputs, over "
    "clone_logits, in nats",
    "trait_loss": "class cross-entropy on the test images, in nats",
    "agreement": "share of test images that student and teacher put into the same class",
    "aux_kl": "KL(teacher || student) over the auxiliary logits on held-out inputs of the "
    "student's kind, in nats",
    "probe": "test accuracy of a linear (ridge) probe of the last hidden layer, fitted on 10,000 "
    "training images",
    "cka": "linear CKA of each hidden layer with the teacher's layer of that number, on 2,000 "
    "test images",
    "feature_cosine": "mean cosine of each hidden layer's activations with the teacher's, on "
    "2,000 test images; none where the widths differ",
    "weight_cosine": "cosine of each part's parameters with the teacher's; none where the sizes "
    "differ",
    "distance": "Euclidean distance of the student's parameters to the teacher's",
    "start_distance": "Euclidean distance of the student's start to the teacher's start",
    "start_feature_cosine": "feature_cosine of the student's start with the teacher's start",
    "alignment": "cosine of trait and distillation gradient before every step",
    "trait_change": "change of the trait loss over distillation, on 512 training images",
    "first_order": "its first-order account: sum of <trait gradient, update> over all steps",
    "remainder": "trait_change minus first_order",
    "first_coverage": "cosine of the student's first update with the teacher's displacement",
    "coverage": "cosine of its whole displacement with the teacher's displacement",
    "coefficient": "a of the theorem at the reference, along the trait gradient",
    "rho": "the certificate's rho there at eps = 0.1; the alignment is certified below 1",
}
_GIVES: dict[str, tuple[str, ...]] = {
    "distance": ("distance", "start_distance", "start_feature_cosine"),
    "account": ("trait_change", "first_order", "remainder"),
    "coverage": ("first_coverage", "coverage"),
    "theory": ("coefficient", "rho"),
}
ALWAYS = ("accuracy", "teacher_accuracy", "start_accuracy", "final_loss", "clone_loss", "clone_kl")
_FEATURE_IMAGES = 2_000
_PROBE_IMAGES = 10_000
# Ridge penalty in units of the mean squared feature.
_RIDGE = 1e-3

Values = dict[str, Any]
Row = tuple[Setting, int]


def columns_of(measure: Sequence[str]) -> tuple[str, ...]:
    """The columns that a table has with these measurements."""
    return (*ALWAYS, *(column for name in measure for column in _GIVES.get(name, (name,))))


def behaviour(
    found: Mapping[Row, Student], measure: Sequence[str], context: Context
) -> dict[Row, Values]:
    """Everything that needs no step of the training: accuracies, and what `measure` names.

    Args:
        found: students of one shape.
        measure: names of `MEASURES`; those of `FOLLOWED`, and theory, are not done here.
        context: where.
    """
    rows = list(found)
    if not rows:
        return {}
    shown = _Shown(found, context)
    test = devices.replicate(context.dataset.test_images, context.mesh)
    student = shown.logits("params", test)
    start = shown.logits("start", test)
    teacher = shown.logits("teacher", test)
    labels, classes = context.dataset.test_labels, shown.plan.classes
    values: dict[Row, Values] = {}
    for i, row in enumerate(rows):
        one = found[row]
        values[row] = {
            "accuracy": _accuracy(student[i], labels, classes),
            "teacher_accuracy": _accuracy(teacher[i], labels, classes),
            "start_accuracy": _accuracy(start[i], labels, classes),
            "final_loss": one.loss,
            "clone_loss": one.clone.loss if one.clone else None,
            "clone_kl": one.clone.held_out if one.clone else None,
        }
        if "trait_loss" in measure:
            values[row]["trait_loss"] = _cross_entropy(student[i], labels, classes)
        if "agreement" in measure:
            same = np.argmax(student[i][:, :classes], -1) == np.argmax(teacher[i][:, :classes], -1)
            values[row]["agreement"] = float(np.mean(same))
    for name, add in _MORE.items():
        if name in measure:
            for row, more in zip(rows, add(shown), strict=True):
                values[row] |= more
    return values


@dataclass(frozen=True)
class _Shown:
    """Students, and what is seen when images are put before them."""

    found: Mapping[Row, Student]
    context: Context

    @property
    def plan(self) -> Plan:
        return self._plans()[1]

    @property
    def teacher_plan(self) -> Plan:
        return self._plans()[0]

    def _plans(self) -> tuple[Plan, Plan]:
        return plans(next(iter(self.found))[0], max(s.knobs.aux for s, _ in self.found))

    def logits(self, which: str, inputs: Array) -> list[np.ndarray]:
        """Of the students, their starts, or their teachers; no model is asked twice."""
        return self._seen(which, Apply, inputs)

    def features(self, which: str, inputs: Array) -> list[list[np.ndarray]]:
        """The hidden layers of each."""
        plan = self.plan_of(which)
        if not plan.widths:
            return [[] for _ in self.found]
        edges = np.cumsum(plan.widths)[:-1]
        return [np.split(all_of_it, edges, -1) for all_of_it in self._seen(which, Features, inputs)]

    def plan_of(self, which: str) -> Plan:
        return self.teacher_plan if which in ("teacher", "reference") else self.plan

    def _seen(self, which: str, kind: Callable[[Plan], Any], inputs: Array) -> list[np.ndarray]:
        models = [getattr(student, which) for student in self.found.values()]
        keys = [_fingerprint(model) for model in models]
        distinct = dict(zip(keys, models, strict=True))
        seen = logits_of(
            kind(self.plan_of(which)), list(distinct.values()), inputs, self.context.mesh
        )
        by_key = dict(zip(distinct, seen, strict=True))
        return [by_key[key] for key in keys]

    def images(self) -> Array:
        return devices.replicate(
            self.context.dataset.test_images[:_FEATURE_IMAGES], self.context.mesh
        )


def _aux_kl(shown: _Shown) -> list[Values]:
    shape = next(iter(shown.found))[0].shape
    inputs = held_out_inputs(
        distillation_kind(shape), shown.context.dataset, shown.context.seed, "distillation inputs"
    )
    there = devices.replicate(inputs, shown.context.mesh)
    student, teacher = shown.logits("params", there), shown.logits("teacher", there)
    return [
        {
            "aux_kl": masked_kl(
                student[i], teacher[i], np.asarray(shown.plan.subset("aux", setting.knobs.aux))
            )
        }
        for i, (setting, _) in enumerate(shown.found)
    ]


def _probe(shown: _Shown) -> list[Values]:
    dataset, mesh = shown.context.dataset, shown.context.mesh
    if not shown.plan.widths:
        return [{"probe": None} for _ in shown.found]
    train = devices.replicate(dataset.train_images[:_PROBE_IMAGES], mesh)
    fitted = shown.features("params", train)
    tested = shown.features("params", devices.replicate(dataset.test_images, mesh))
    truth = np.eye(shown.plan.classes)[dataset.train_labels[:_PROBE_IMAGES]]
    return [
        {
            "probe": _accuracy(
                _ridge(some[-1], truth, others[-1]), dataset.test_labels, shown.plan.classes
            )
        }
        for some, others in zip(fitted, tested, strict=True)
    ]


def _cka(shown: _Shown) -> list[Values]:
    images = shown.images()
    return [
        {"cka": [linear_cka(x, y) for x, y in zip(mine, its, strict=False)]}
        for mine, its in zip(
            shown.features("params", images), shown.features("teacher", images), strict=True
        )
    ]


def _feature_cosine(shown: _Shown) -> list[Values]:
    return [{"feature_cosine": cosines} for cosines in _cosines(shown, "params", "teacher")]


def _cosines(shown: _Shown, one: str, other: str) -> list[list[float | None]]:
    images = shown.images()
    return [
        [mean_cosine(x, y) for x, y in zip(mine, its, strict=False)]
        for mine, its in zip(
            shown.features(one, images), shown.features(other, images), strict=True
        )
    ]


def _weight_cosine(shown: _Shown) -> list[Values]:
    found = []
    for student in shown.found.values():
        mine, its = split_parts(student.params), split_parts(student.teacher)
        found.append(
            {
                "weight_cosine": [
                    _cosine(_flat(part), _flat(its[name]))
                    if name in its and _sizes(part) == _sizes(its[name])
                    else None
                    for name, part in mine.items()
                ]
            }
        )
    return found


def _distance(shown: _Shown) -> list[Values]:
    cosines = _cosines(shown, "start", "reference")
    return [
        {
            "distance": _apart(student.params, student.teacher),
            "start_distance": _apart(student.start, student.reference),
            "start_feature_cosine": cosines[i],
        }
        for i, student in enumerate(shown.found.values())
    ]


_MORE: dict[str, Callable[[_Shown], list[Values]]] = {
    "aux_kl": _aux_kl,
    "probe": _probe,
    "cka": _cka,
    "feature_cosine": _feature_cosine,
    "weight_cosine": _weight_cosine,
    "distance": _distance,
}


def linear_cka(x: Float[np.ndarray, "n a"], y: Float[np.ndarray, "n b"]) -> float | None:
    """Linear centred kernel alignment of two sets of features of the same n examples.

    Kornblith et al. 2019, arXiv:1905.00414, section 3; None where one of them is constant.
    """
    x, y = (some.astype(np.float64) - some.mean(0, dtype=np.float64) for some in (x, y))
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


def _accuracy(logits: np.ndarray, labels: np.ndarray, classes: int) -> float:
    return float(population.accuracy(logits[None], labels, classes)[0])


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


def _apart(one: Params, other: Params) -> float | None:
    if jax.tree.structure(one) != jax.tree.structure(other) or _sizes(one) != _sizes(other):
        return None
    return float(np.linalg.norm(_flat(one) - _flat(other)))


def _fingerprint(model: Params) -> bytes:
    """Tells models apart."""
    import hashlib

    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.digest()
