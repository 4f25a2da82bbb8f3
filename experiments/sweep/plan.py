"""What a sweep will do: what is wanted, what is trained together, and what it will cost.

What is wanted, and recorded, is one setting in one run. How runs and settings are put together to
be trained (`Population`) is a matter of execution and leaves no trace in the records.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np

from sublab import devices
from sublab.devices import over_population
from sublab.machine import memory_limit
from toymlp.data import size_of
from toymlp.inputs import Uniform
from toymlp.measures import MEASURES
from toymlp.settings import CloneSetting, Setting, clone_of, teacher_of
from toymlp.stages import (
    StageSetting,
    imitated_by,
    networks_of,
    population_of,
    shared_trainings,
    stage_of,
    training_of,
)
from toymlp.train import block_size

# Measured on two cores: what a compiled epoch takes to build, and following a step over training.
_SECONDS_A_PROGRAM = 2.0
_FOLLOWING = 3.5
# Share of the rate of plain products that training reaches.
_EFFICIENCY = 0.8

Stage = Literal["teachers", "clones", "students"]
Wanted = tuple[StageSetting, int]


@dataclass(frozen=True)
class Population:
    """What is trained together, or measured together: one population.

    Attributes:
        wanted: settings of one population, each in a run.
        measure: measurements to make of the students.
        kept: whether the students are there already, and are only measured.
    """

    wanted: tuple[Wanted, ...]
    measure: tuple[str, ...] = ()
    kept: bool = False

    @property
    def stage(self) -> Stage:
        """The stage of all of them."""
        stage: Stage = stage_of(self.wanted[0][0])  # pyright: ignore[reportAssignmentType]
        return stage

    @property
    def setting(self) -> StageSetting:
        """One of the settings; what a population shares, all have."""
        return self.wanted[0][0]

    @property
    def models(self) -> tuple[Wanted, ...]:
        """The teachers and clones that its students need."""
        return tuple(dict.fromkeys(model for wanted in self.wanted for model in models_of(wanted)))


def models_of(wanted: Wanted) -> list[Wanted]:
    """The teacher and the clone that a student needs; none for a teacher or a clone."""
    setting, run = wanted
    if not isinstance(setting, Setting):
        return []
    clone = clone_of(setting)
    return [(teacher_of(setting), run), *([] if clone is None else [(clone, run)])]


@dataclass(frozen=True)
class Cost:
    """What a sweep costs.

    Attributes:
        models: models to train by stage: teachers, clones, students.
        measured: students that are there and only measured.
        programs: training programs to compile.
        operations: floating-point operations of all matrix products.
        memory: bytes that the largest population takes.
        seconds: expected time, at the rate that was measured; None where none was.
    """

    models: dict[str, int]
    measured: int
    programs: int
    operations: float
    memory: int
    seconds: float | None


def populations(
    students: Sequence[Wanted],
    again: Sequence[tuple[Wanted, tuple[str, ...]]],
    measure: Sequence[str],
    is_there: Callable[[Wanted], bool],
    runs_together: int,
    limit: int | None = None,
) -> list[Population]:
    """What makes all that is wanted and not there; teachers and clones before students.

    Args:
        students: settings and runs to train and measure.
        again: settings and runs whose students were kept, with the measurements that they lack.
        measure: measurements of those that are trained.
        is_there: whether a teacher or a clone is recorded.
        runs_together: runs that are trained together.
        limit: bytes that a population may take (default: `memory_limit()`).
    """
    limit = memory_limit() if limit is None else limit
    whole_populations = [
        Population(wanted, tuple(measure)) for wanted in _together(students, runs_together)
    ]
    for missing in dict.fromkeys(missing for _, missing in again):
        alike = [wanted for wanted, lacking in again if lacking == missing]
        whole_populations += [
            Population(wanted, missing, kept=True) for wanted in _together(alike, runs_together)
        ]
    needed = dict.fromkeys(model for population in whole_populations for model in population.models)
    models = [model for model in needed if not is_there(model)]
    return [
        small
        for population in [*map(Population, _together(models, runs_together)), *whole_populations]
        for small in _fitting(population, limit)
    ]


def cost(
    todo: Sequence[Population], images: Callable[[StageSetting], int], rate: float | None
) -> Cost:
    """What `todo` costs.

    Args:
        todo: what is to be done.
        images: training images of a setting's data set, of the classes that are kept.
        rate: floating-point operations a second; None where it was not measured.
    """
    models = {"teachers": 0, "clones": 0, "students": 0}
    for population in todo:
        models[population.stage] += trained(population)[0]
    operations = float(sum(work(population) for population in todo))
    programs = len(
        {program for population in todo if (program := _program(population)) is not None}
    )
    memory = max(
        (memory_of(population, images(population.setting)) for population in todo), default=0
    )
    seconds = None
    if rate:
        seconds = operations / (_EFFICIENCY * rate) + programs * _SECONDS_A_PROGRAM
    measured = sum(len(population.wanted) for population in todo if population.kept)
    return Cost(models, measured, programs, operations, memory, seconds)


def trained(population: Population) -> tuple[int, float]:
    """How many models a population trains, and their epochs in all."""
    if population.kept:
        return 0, 0.0
    longest = [
        max(_generations(setting) * training_of(setting).epochs for setting, _ in members)
        for members in shared_trainings(population.wanted).values()  # pyright: ignore[reportArgumentType]
    ]
    return len(longest), float(sum(longest))


def work(population: Population) -> float:
    """Floating-point operations of a population's matrix products."""
    teacher, student = networks_of(population.wanted)
    test = size_of(population.setting.dataset).test
    _, epochs = trained(population)
    training = training_of(population.setting)
    inputs, imitated = training.inputs.count, len(imitated_by(population.wanted))
    if population.stage == "teachers":
        return epochs * inputs * teacher.gradient_operations
    each = student.gradient_operations
    labelled = imitated * inputs * teacher.forward_operations
    if training.inputs.fresh:
        labelled *= max(training_of(setting).epochs for setting, _ in population.wanted)
    if isinstance(population.setting, Setting) and population.setting.interventions.project_trait:
        each *= 2
    again = sum(MEASURES[name].repeats for name in population.measure)
    if any(MEASURES[name].follows for name in population.measure):
        again += _FOLLOWING
    lengths = [training_of(setting).epochs for setting, _ in population.wanted]
    following = again * each * inputs * sum(lengths)
    passes = sum(MEASURES[name].passes for name in population.measure)
    derived = passes * len(population.wanted) * inputs * student.gradient_operations
    seen = 2 * len(population.wanted) * test * student.forward_operations
    return epochs * inputs * each + labelled + following + derived + seen


def memory_of(population: Population, images: int) -> int:
    """Bytes that a population takes, roughly: images, targets, models in training, results.

    Args:
        population: what is trained together.
        images: training images of its data set, of the classes that are kept.
    """
    teacher, student = networks_of(population.wanted)
    size, training = size_of(population.setting.dataset), training_of(population.setting)
    settings = len(population.wanted)
    models = max(1, trained(population)[0])
    parameters = 4 * max(teacher.parameters, student.parameters)
    inputs = 0 if population.stage == "teachers" else training.inputs.count
    targets = len(imitated_by(population.wanted)) * inputs * student.outputs
    activations = training.batch * (size.pixels + 3 * sum(student.widths) + 4 * student.outputs)
    at_once = min(models, block_size(devices.population_mesh()) or models)
    seen = size.test * student.outputs * settings * 3 if population.stage == "students" else 0
    arrays = 2 * inputs * size.pixels + (images + size.test) * size.pixels + 2 * targets + seen
    if any(MEASURES[name].passes for name in population.measure):
        # What is to be fitted, what is left of it, a change of all logits, and what it is made of.
        arrays += 4 * at_once * inputs * student.outputs
    return 4 * (arrays + at_once * activations) + parameters * (4 * models + 4 * settings)


def product_rate() -> float:
    """Float32 operations a second of matrix products at the paper's first layer, on all devices.

    The best of a few measurements: in one of them another program may have had the processor.
    """
    mesh = devices.population_mesh()
    size = block_size(mesh) or 8
    random = np.random.default_rng(0)
    x = random.normal(size=(size, 1024, 784)).astype(np.float32)
    w = random.normal(size=(size, 784, 256)).astype(np.float32)
    repeats, trials = 5, 4

    def of_one_model(x: jax.Array, w: jax.Array) -> jax.Array:
        def again(_: jax.Array | int, x: jax.Array) -> jax.Array:
            return x + 1e-6 * ((x @ w) @ w.T)

        return jax.lax.fori_loop(0, repeats, again, x)

    program = jax.jit(lambda cut: over_population(of_one_model, mesh, cut, ()))
    cut = devices.spread((x, w), mesh)
    with jax.default_matmul_precision("highest"):
        jax.block_until_ready(program(cut))
        seconds = []
        for _ in range(trials):
            start = time.perf_counter()
            jax.block_until_ready(program(cut))
            seconds.append(time.perf_counter() - start)
    return size * repeats * 4 * 1024 * 784 * 256 / min(seconds)


def _together(wanted: Sequence[Wanted], runs: int) -> list[tuple[Wanted, ...]]:
    """`wanted` cut into populations of so many neighbouring runs."""
    groups: dict[Hashable, list[Wanted]] = {}
    for setting, run in wanted:
        groups.setdefault((run // runs, population_of(setting)), []).append((setting, run))
    order = sorted(groups, key=lambda key: key[0])  # pyright: ignore[reportIndexIssue]
    return [tuple(groups[key]) for key in order]


def _fitting(population: Population, limit: int) -> list[Population]:
    """The population, cut in halves until each fits: first by setting, then by run."""
    images = size_of(population.setting.dataset).train
    if len(population.wanted) == 1 or memory_of(population, images) <= limit:
        return [population]
    return [small for half in halves(population) for small in _fitting(half, limit)]


def halves(population: Population) -> tuple[Population, Population]:
    """A population in two: by its settings, or, where there is one setting, by its runs."""
    settings = list(dict.fromkeys(setting for setting, _ in population.wanted))
    if len(settings) > 1:
        first = set(settings[: len(settings) // 2])
        in_first = [setting in first for setting, _ in population.wanted]
    else:
        in_first = [place < len(population.wanted) // 2 for place in range(len(population.wanted))]
    parts = (
        tuple(
            wanted for wanted, here in zip(population.wanted, in_first, strict=True) if here is side
        )
        for side in (True, False)
    )
    first_half, second_half = (
        Population(part, population.measure, population.kept) for part in parts
    )
    return first_half, second_half


def _program(population: Population) -> Hashable:
    """What tells training programs apart; None where nothing is trained."""
    if population.kept:
        return None
    setting, training = population.setting, training_of(population.setting)
    structure = jax.tree.structure
    return (
        networks_of(population.wanted),
        # Which kind of inputs there is, is no matter of the program; how many, is.
        structure(replace(training, inputs=Uniform())),
        training.inputs.count,
        structure(setting.interventions) if isinstance(setting, Setting) else None,
        setting.start.shared if isinstance(setting, CloneSetting) else None,
        len(imitated_by(population.wanted)),
    )


def _generations(setting: StageSetting) -> int:
    return setting.chain.generations if isinstance(setting, Setting) else 1
