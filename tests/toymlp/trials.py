"""What tests of the toy share: one tiny setting, its models, comparisons of parameters."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import theory
from sublab import settings
from theory import losses
from toymlp import stages
from toymlp.objective import SquaredError
from toymlp.settings import Setting, clone_of, teacher_of
from toymlp.stages import Student, population_of
from toymlp.train import Context

BASE = {
    "dataset": "digits",
    "model.hidden": [16, 16],
    "teacher.batch": 64,
    "teacher.epochs": 2,
    "teacher.learning_rate": 1e-2,
    "student.inputs.count": 256,
    "student.batch": 64,
    "student.epochs": 2,
    "student.learning_rate": 1e-2,
}
MATCHED = {
    "start": "matched",
    "start.clone.inputs.count": 256,
    "start.clone.batch": 64,
    "start.clone.learning_rate": 1e-2,
    "start.clone.epochs": 2,
}
# Settings of one population, of which each must come out as it does alone.
GROUP: dict[str, dict[str, Any]] = {
    "base": {},
    "one epoch": {"student.epochs": 1},
    "three epochs": {"student.epochs": 3},
    "more logits": {"model.aux": 5},
    "fewer logits": {"model.aux": 1, "student.logits": "all", "student.loss.temperature": 3.0},
    "all logits": {"student.logits": "all"},
    "another rate": {"student.learning_rate": 3e-3},
    "hot": {"student.loss.temperature": 4.0},
    "another teacher": {"teacher.epochs": 1},
    "another scale": {"model.init_scale": 0.5},
    "independent": {"start": "independent"},
    "shared head": {"start": "independent", "start.shared": ["aux_head"]},
    "interpolated": {"start": "interpolated", "start.weight": 0.3},
    "perturbed": {"start": "perturbed"},
    "one part redrawn": {
        "start": "independent",
        "start.shared": ["hidden_2", "class_head", "aux_head"],
    },
    "matched": MATCHED,
    "noisy logits": {"student.logit_noise": 0.5},
}
RUNS = (0, 1)
# The run that is looked at.
RUN = 1


@settings.setting
class Poisson(SquaredError):  # noqa: N818 (no exception)
    """A loss that a user might add: another potential, of class and auxiliary logits alike."""

    kind: ClassVar[str] = "poisson"

    def __call__(self, logits: Any, target: Any, subset: Any) -> Any:
        return theory.matching(self.potential(subset))(logits, target)

    def potential(self, subset: Any) -> losses.Potential:
        return losses.Potential(
            lambda logits: jnp.sum(jnp.where(subset, jnp.exp(logits), 0)),
            lambda vector: jnp.where(subset, vector, 0),
        )


def tiny(values: Mapping[str, Any] | None = None, **more: Any) -> Setting:
    """The tiny setting with other values by dotted key, or by keyword with two underscores."""
    dotted = {name.replace("__", "."): value for name, value in more.items()}
    return settings.build(Setting, BASE | dict(values or {}) | dotted)


KEYS = settings.known(Setting)


def another(key: settings.Key) -> Any:
    """A value of a key that is allowed and not its default."""
    words = settings.allowed(key).removesuffix(", or left out").removeprefix("one of ")
    for value in (True, False, 1, 2, 0.25, 0.75, [4], ["hidden_1"], *words.split(", ")):
        try:
            settings.checked(Setting, key.name, value)
        except settings.SettingError:
            continue
        if value != key.default:
            return value
    raise AssertionError(key.name)


def kinds_in(key: settings.Key) -> list[str]:
    """The kinds that a union has."""
    return settings.allowed(key).removeprefix("one of ").split(", ")


def kinds_of(key: settings.Key) -> dict[str, str]:
    """Kinds beside which a key exists, as a table."""
    return {union: kinds[0] for union, kinds in key.kinds.items()}


def is_optional_setting(key: settings.Key) -> bool:
    """Whether it stands for a setting that may be left out, of which nothing is said as a whole."""
    return key.metadata["mark"] == "nested" and not key.is_kind


def neighbours(name: str) -> tuple[Setting, Setting]:
    """Two settings that differ in one key alone; a kind brings its numbers with it."""
    key = KEYS[name]
    base = kinds_of(key)
    above = [other for other in KEYS.values() if name.startswith(f"{other.name}.")]
    if any(is_optional_setting(other) for other in above):
        # What is optional is there on both sides.
        base |= {name: key.default}
    return settings.build(Setting, base), settings.build(Setting, base | {name: another(key)})


def by_population(wanted: Sequence[Any]) -> list[list[Any]]:
    """Settings by the population that they are trained in, each once."""
    groups: dict[Any, list[Any]] = {}
    for setting in dict.fromkeys(wanted):
        groups.setdefault(population_of(setting), []).append(setting)
    return list(groups.values())


def across(wanted: Sequence[Any], runs: Sequence[int]) -> list[tuple[Any, int]]:
    """Every setting in every run."""
    return [(setting, run) for setting in wanted for run in runs]


def teachers_and_clones(
    wanted: Sequence[Setting], context: Context, runs: Sequence[int] = RUNS
) -> tuple[dict, dict]:
    """The teachers and the clones that the students of these settings need."""
    teachers, clones = {}, {}
    for group in by_population([teacher_of(setting) for setting in wanted]):
        teachers |= stages.teachers(across(group, runs), context)
    matched = [part for setting in wanted if (part := clone_of(setting)) is not None]
    for group in by_population(matched):
        clones |= stages.clones(across(group, runs), context)
    return teachers, clones


def distil(
    wanted: Sequence[Setting], context: Context, runs: Sequence[int] = RUNS
) -> dict[tuple[Setting, int], Student]:
    """The students of these settings, with teachers and clones of their own."""
    teachers, clones = teachers_and_clones(wanted, context, runs)
    students = {}
    for group in by_population(wanted):
        students |= stages.students(across(group, runs), teachers, clones, context)
    return students


def alone(setting: Setting, context: Context, run: int = RUN) -> Student:
    """The student of one setting in one run, with nobody beside it."""
    return distil([setting], context, (run,))[setting, run]


def gap(first: Any, second: Any) -> float:
    """The largest difference of two pytrees' numbers."""
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def assert_close(first: Any, second: Any, *, rtol: float = 1e-3, atol: float = 2e-5) -> None:
    """Pytrees of one structure, with equal numbers to rounding."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), first, second)


def assert_same(first: Any, second: Any) -> None:
    """Pytrees of one structure, with the very same numbers."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def narrow(params: Any, aux: int) -> Any:
    """Without room for more than `aux` auxiliary logits, which must be 0 there."""
    head = params["aux_head"]
    for leaf in head.values():
        np.testing.assert_array_equal(leaf[..., aux:], 0)
    return params | {"aux_head": {name: leaf[..., :aux] for name, leaf in head.items()}}


def flat(tree: Any) -> np.ndarray:
    """All numbers of a pytree, as float64."""
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def cosine(first: Any, second: Any) -> float:
    """The cosine of two pytrees' numbers."""
    a, b = flat(first), flat(second)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
