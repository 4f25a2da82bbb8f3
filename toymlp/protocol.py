"""The paper's MNIST protocol: a teacher learns digits, students learn from its logits on noise.

For every run (preprint section 5 and figure 10; Nature Extended Data Fig. 2):

1. *reference*: a freshly drawn network with class logits and auxiliary logits.
2. *teacher*: the reference, trained on the class logits of the training images.
3. *student*: the same reference, distilled on noise images towards the teacher's auxiliary
   logits, or towards all of its logits. It sees no image and no label.
4. *cross-model student*: the same from ANOTHER run's reference, the control.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from sublab import devices
from sublab.errors import InputError
from sublab.randomness import purpose_key, run_keys
from toymlp import population
from toymlp.data import Dataset
from toymlp.models import Architecture, Params, initialise

CONDITIONS = (
    "reference", "teacher", "student_aux", "student_all", "cross_model_aux", "cross_model_all",
)  # fmt: skip
STUDENTS = CONDITIONS[2:]

PAPER_IMAGES = 60_000
PAPER_BATCH = 1024

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Protocol:
    """The settings of the experiment; the defaults are the preprint's (figure 10).

    Attributes:
        aux: number m of auxiliary logits.
        hidden: widths of the hidden layers.
        loss: distillation loss, `kl` (teacher || student) or `squared_error`, over the chosen
            logits only.
        learning_rate: of Adam, for teacher and students.
        teacher_epochs: passes of the teacher over the training images.
        student_epochs: passes of each student over the noise images.
        teacher_batch: images a step of the teacher; None: as large a share of the training set
            as the paper's 1,024 of 60,000.
        student_batch: noise images a step of a student.
        noise_images: size of the fixed set of noise images, uniform in [-1, 1].

    Raises:
        InputError: a setting is out of range.
    """

    aux: int = 3
    hidden: tuple[int, ...] = (256, 256)
    loss: Literal["kl", "squared_error"] = "kl"
    learning_rate: float = 3e-4
    teacher_epochs: int = 5
    student_epochs: int = 5
    teacher_batch: int | None = None
    student_batch: int = PAPER_BATCH
    noise_images: int = PAPER_IMAGES

    def __post_init__(self) -> None:
        if self.aux < 1:
            raise InputError(f"aux must be at least 1 (auxiliary logits), got {self.aux}")
        if self.loss not in ("kl", "squared_error"):
            raise InputError(f"loss must be kl or squared_error, got {self.loss!r}")
        if self.aux == 1 and self.loss == "kl":
            raise InputError(
                "aux = 1 with the KL loss carries nothing, since a softmax over one logit is "
                "constant; use aux >= 2 or loss = squared_error"
            )
        if not (isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(
                f"learning_rate must be a positive finite number, got {self.learning_rate}"
            )
        for name in ("teacher_epochs", "student_epochs"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("student_batch", "noise_images"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.noise_images > 2**24:
            raise InputError(f"noise_images must be at most 2**24, got {self.noise_images}")
        if self.teacher_batch is not None and self.teacher_batch < 1:
            raise InputError(f"teacher_batch must be at least 1, got {self.teacher_batch}")
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"hidden must be one or more positive widths, got {self.hidden}")

    def model_epochs(self, runs: int) -> int:
        """Epochs that `runs` runs train, over the teacher and the students of each."""
        return runs * (self.teacher_epochs + len(STUDENTS) * self.student_epochs)

    def teacher_batch_for(self, images: int) -> int:
        """The teacher's batch on a training set of `images` images."""
        if self.teacher_batch is not None:
            return self.teacher_batch
        return max(1, round(images * PAPER_BATCH / PAPER_IMAGES))


@dataclass(frozen=True)
class Results:
    """What a group of runs gave; every array has one entry a run, in the order of `runs`.

    Attributes:
        runs: the runs.
        start: for each condition, the run whose reference the model started from.
        accuracy: for each condition, the share of test images that the class logits get right.
        loss: for the teacher and each student, the mean training loss of its last epoch, in nats
            for KL; empty where it had no epoch.
    """

    runs: tuple[int, ...]
    start: dict[str, tuple[int, ...]]
    accuracy: dict[str, Float[np.ndarray, " runs"]]
    loss: dict[str, Float[np.ndarray, " runs"]]


def cross_model_partner(run: int) -> int:
    """The run whose reference the cross-model students of `run` start from.

    It pairs 0 with 1, 2 with 3, ...: a derangement (no student meets its own teacher) that does
    not depend on how many runs there are, so that more runs can be added later. The last of an
    odd number of runs starts from the reference of a run that was not asked for.
    """
    return run ^ 1


def noise_images(seed: int, count: int, pixels: int) -> Float[np.ndarray, "count pixels"]:
    """The fixed distillation inputs of `seed`: every pixel uniform in [-1, 1]."""
    key = purpose_key(seed, "noise images")
    return np.asarray(jax.random.uniform(key, (count, pixels), minval=-1.0, maxval=1.0))


@dataclass(frozen=True)
class Inputs:
    """All images of a seed, on the devices, there once for any number of groups of runs.

    Attributes:
        seed: base seed.
        classes: number of classes.
        train_images, train_labels: what the teacher learns; labels have a leading axis of one.
        noise: what the students are distilled on.
        test_images, test_labels: what every model is tested on; labels on the host.
        mesh: the devices.
    """

    seed: int
    classes: int
    train_images: Float[Array, "train pixels"]
    train_labels: Int[Array, "1 train"]
    noise: Float[Array, "noise pixels"]
    test_images: Float[Array, "test pixels"]
    test_labels: Int[np.ndarray, " test"]
    mesh: Mesh


def prepare(
    protocol: Protocol, dataset: Dataset, *, seed: int = 0, mesh: Mesh | None = None
) -> Inputs:
    """The images of `dataset` and the noise of `seed` on the devices.

    Args:
        protocol: says how many noise images there are.
        dataset: images that the teacher learns and everything is tested on.
        seed: base seed; the noise images are common to all runs of a seed.
        mesh: devices to use, all local ones by default.
    """
    mesh = devices.population_mesh() if mesh is None else mesh
    noise = noise_images(seed, protocol.noise_images, dataset.train_images.shape[1])
    return Inputs(
        seed=seed,
        classes=dataset.classes,
        train_images=devices.replicate(dataset.train_images, mesh),
        train_labels=devices.replicate(dataset.train_labels[None], mesh),
        noise=devices.replicate(noise, mesh),
        test_images=devices.replicate(dataset.test_images, mesh),
        test_labels=dataset.test_labels,
        mesh=mesh,
    )


def run_protocol(
    protocol: Protocol,
    inputs: Inputs,
    *,
    runs: Sequence[int],
    report: Report = lambda stage, done, total: None,
) -> Results:
    """All six conditions for every run of a group.

    Args:
        protocol: the settings.
        inputs: what `prepare` gives.
        runs: run numbers, each 0 or more; a run's numbers depend on (seed, run) alone.
        report: called as report(stage, model-epochs done, model-epochs in all) as it goes.

    Returns:
        Test accuracy and final training loss of every model.
    """
    runs = tuple(runs)
    size, mesh = len(runs), inputs.mesh
    total = protocol.model_epochs(size)
    partners = tuple(map(cross_model_partner, runs))
    starts = {name: partners if name.startswith("cross_model") else runs for name in CONDITIONS}
    architecture = Architecture(
        inputs=inputs.train_images.shape[1],
        hidden=protocol.hidden,
        classes=inputs.classes,
        aux=protocol.aux,
    )

    def keys(purpose: str, of_runs: Sequence[int]) -> Key[Array, " models"]:
        return run_keys(inputs.seed, purpose, jnp.asarray(of_runs))

    def knobs(order: str, models: Sequence[int], subset: Array, teacher: Array):
        rate = jnp.full(len(models), protocol.learning_rate, jnp.float32)
        return population.Knobs(rate, keys(order, models), subset, teacher)

    def test_accuracy(params: Params) -> Float[np.ndarray, " models"]:
        logits = population.predict(apply, params, inputs.test_images, mesh=mesh)
        return population.accuracy(logits, inputs.test_labels, inputs.classes)

    # Partners are often in the group too: each reference is drawn once.
    drawn = sorted({*runs, *partners})
    apply, all_references = initialise(architecture, keys("reference", drawn))

    def references_of(some: Sequence[int]) -> Params:
        rows = np.array([drawn.index(run) for run in some])
        return jax.tree.map(lambda leaf: leaf[rows], all_references)

    references = references_of(runs)
    teacher_batch = protocol.teacher_batch_for(len(inputs.train_images))
    teachers, teacher_loss = population.train(
        apply,
        references,
        inputs.train_images,
        inputs.train_labels,
        population.Shape("class_cross_entropy", teacher_batch),
        knobs(
            "teacher order",
            runs,
            subset=jnp.tile(architecture.class_logits(), (size, 1)),
            teacher=jnp.zeros(size, jnp.int32),
        ),
        epochs=protocol.teacher_epochs,
        mesh=mesh,
        report=lambda done, epochs: report(
            f"teacher, epoch {done} of {epochs}", done * size, total
        ),
    )

    # Once per teacher: these logits serve every student and every epoch.
    teacher_logits = population.predict(apply, teachers, inputs.noise, mesh=mesh)
    # All students of all runs are one population: by condition, then by run.
    subsets = {"aux": architecture.aux_logits(), "all": architecture.all_logits()}
    students, student_loss = population.train(
        apply,
        references_of([run for name in STUDENTS for run in starts[name]]),
        inputs.noise,
        devices.replicate(teacher_logits, mesh),
        population.Shape(protocol.loss, protocol.student_batch),
        knobs(
            "student order",
            runs * len(STUDENTS),
            subset=jnp.repeat(
                jnp.stack([subsets[name.rsplit("_")[-1]] for name in STUDENTS]), size, axis=0
            ),
            teacher=jnp.tile(jnp.arange(size, dtype=jnp.int32), len(STUDENTS)),
        ),
        epochs=protocol.student_epochs,
        mesh=mesh,
        report=lambda done, epochs: report(
            f"students, epoch {done} of {epochs}",
            size * (protocol.teacher_epochs + len(STUDENTS) * done),
            total,
        ),
    )

    accuracy = {"reference": test_accuracy(references), "teacher": test_accuracy(teachers)}
    for name, part in zip(STUDENTS, np.split(test_accuracy(students), len(STUDENTS)), strict=True):
        accuracy[name] = part
    losses = {"teacher": teacher_loss}
    for name, part in zip(STUDENTS, np.split(student_loss, len(STUDENTS)), strict=True):
        losses[name] = part
    return Results(
        runs=runs,
        start=starts,
        accuracy=accuracy,
        loss={name: loss[:, -1] for name, loss in losses.items() if loss.shape[1]},
    )
