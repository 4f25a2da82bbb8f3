"""What a measurement of students is, where it is declared, and what it is given."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from sublab import devices
from theory.passes import Params
from toymlp.networks import Architecture, Forward, HiddenActivations, architectures
from toymlp.settings import Setting
from toymlp.stages import Student
from toymlp.train import Context, logits_of

_FEATURE_IMAGES = 2_000

Values = dict[str, Any]
StudentKey = tuple[Setting, int]


@dataclass(frozen=True)
class Column:
    """A column of a measurement.

    Attributes:
        help: what it is, with its unit.
        title: what an axis of a figure calls it (default: its name).
        share: whether it is a share, between 0 and 1.
        many: whether a value is a list, one number a layer or a step.
    """

    help: str
    title: str | None = None
    share: bool = False
    many: bool = False


@dataclass(frozen=True)
class Measure:
    """A measurement.

    Attributes:
        name: name in a sweep file.
        columns: by name, what it gives.
        compute: from a group of students to the values of each, in their order.
        follows: whether it follows the student's training step by step.
        repeats: how many times it trains every student, its clone and perhaps its teacher again.
        passes: how many times at most it derives the network along one direction, forward or in
            reverse, on all of the student's inputs.
    """

    name: str
    columns: Mapping[str, Column]
    compute: Callable[["Group"], list[Values]]
    follows: bool = False
    repeats: int = 0
    passes: int = 0


MEASURES: dict[str, Measure] = {}


def measure(
    name: str, *, follows: bool = False, repeats: int = 0, passes: int = 0, **columns: Column
) -> Callable[[Callable[["Group"], list[Values]]], Callable[["Group"], list[Values]]]:
    """Declares a measurement: the decorated function computes its columns."""

    def declare(compute: Callable[["Group"], list[Values]]):
        MEASURES[name] = Measure(name, columns, compute, follows, repeats, passes)
        return compute

    return declare


@dataclass(frozen=True)
class Group:
    """Students of one population, and what is seen when images are put before them.

    Attributes:
        students: by setting and run.
        context: data, seed, devices.
    """

    students: Mapping[StudentKey, Student]
    context: Context
    _computed: dict[Callable[["Group"], list[Values]], list[Values]] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def settings(self) -> list[Setting]:
        """The setting of each student."""
        return [setting for setting, _ in self.students]

    @cached_property
    def architecture(self) -> Architecture:
        """The students' network."""
        return self._architectures[1]

    @cached_property
    def teacher_architecture(self) -> Architecture:
        """The teachers' network."""
        return self._architectures[0]

    @cached_property
    def _architectures(self) -> tuple[Architecture, Architecture]:
        widest = max(setting.model.aux for setting in self.settings)
        return architectures(self.settings[0], widest)

    def architecture_of(self, which: str) -> Architecture:
        """The network of one kind of model."""
        of_teacher = which in ("teacher", "reference")
        return self.teacher_architecture if of_teacher else self.architecture

    def logits(self, which: str, inputs: Array) -> list[Float[np.ndarray, "examples outputs"]]:
        """The logits of every student's `params`, `start`, `teacher` or `reference`."""
        return self._seen(which, Forward(self.architecture_of(which)), inputs)

    def features(
        self, which: str, inputs: Array
    ) -> list[list[Float[np.ndarray, "examples width"]]]:
        """The hidden layers of each."""
        architecture = self.architecture_of(which)
        if not architecture.widths:
            return [[] for _ in self.students]
        edges = np.cumsum(architecture.widths)[:-1]
        seen = self._seen(which, HiddenActivations(architecture), inputs)
        return [np.split(layers, edges, -1) for layers in seen]

    def _seen(self, which: str, apply: Any, inputs: Array) -> list[np.ndarray]:
        models = [getattr(student, which) for student in self.students.values()]
        # Students share teachers and starts: no model is asked twice.
        keys = [_fingerprint(model) for model in models]
        distinct = dict(zip(keys, models, strict=True))
        seen = logits_of(apply, list(distinct.values()), inputs, self.context.mesh)
        by_key = dict(zip(distinct, seen, strict=True))
        return [by_key[key] for key in keys]

    def on_devices(self, array: np.ndarray) -> Array:
        """An array on every device."""
        return devices.replicate(array, self.context.mesh)

    @cached_property
    def test_images(self) -> Array:
        """All test images, on the devices."""
        return self.on_devices(self.context.dataset.test_images)

    @cached_property
    def feature_images(self) -> Array:
        """The test images on which features are compared."""
        return self.on_devices(self.context.dataset.test_images[:_FEATURE_IMAGES])

    @cached_property
    def student_logits(self) -> list[Float[np.ndarray, "test outputs"]]:
        """Every student's logits on the test images."""
        return self.logits("params", self.test_images)

    def once(self, compute: Callable[["Group"], list[Values]]) -> list[Values]:
        """What `compute` gives of the group: once, however many measurements ask for it."""
        if compute not in self._computed:
            self._computed[compute] = compute(self)
        return self._computed[compute]

    @cached_property
    def teacher_logits(self) -> list[Float[np.ndarray, "test outputs"]]:
        """Every student's teacher's logits on the test images."""
        return self.logits("teacher", self.test_images)


def _fingerprint(model: Params) -> bytes:
    """Tells models apart."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.digest()
