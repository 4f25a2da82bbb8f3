"""Tasks: what one worker does at a time. Pure functions of what they are given.

A task travels to a worker process or another machine and its results travel back; only the process
that runs the sweep writes records. A worker needs the data set, found as `toymlp.data` says.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from experiments.sweep.plan import Population, Wanted, halves
from sublab.console import say
from sublab.devices import population_mesh
from sublab.errors import InputError
from sublab.machine import exact, prepare_jax, provenance, release_programs
from toymlp import data, measures
from toymlp.networks import AUX_HEAD
from toymlp.settings import CloneSetting, Setting, TeacherSetting
from toymlp.stages import (
    Student,
    TrainedModel,
    clones,
    student_again,
    students,
    teachers,
)
from toymlp.train import Context, Precision

Report = Callable[[int, str], None]


@dataclass(frozen=True)
class DataSource:
    """Where a worker finds the data, and what they must be.

    Attributes:
        dataset: name of the data set.
        sha256: digest of its content.
        data_dir: folder to look in first.
    """

    dataset: str
    sha256: str
    data_dir: str | None


@dataclass(frozen=True)
class Task:
    """A population to do, and all that it takes.

    Attributes:
        population: settings and runs.
        seed: base seed.
        source: the data.
        models: teachers and clones that its students need.
        students: parameters and last loss of the students that were kept, for measurements.
        keep: whether the students' parameters are wanted.
        precision: of the products of training.
    """

    population: Population
    seed: int
    source: DataSource
    models: Mapping[Wanted, TrainedModel] = field(default_factory=dict)
    students: Mapping[Wanted, TrainedModel] = field(default_factory=dict)
    keep: bool = False
    precision: Precision = "float32"


@dataclass(frozen=True)
class Result:
    """What a task gave.

    Attributes:
        values: of each setting and run, the values of its columns.
        measured: of each student, by measurement, the values of its columns.
        models: teachers, clones, and the students that are to be kept.
        provenance: what made them.
        failures: of each setting and run that could not be done, the reason in one line.
    """

    values: dict[Wanted, dict[str, Any]]
    measured: dict[Wanted, dict[str, dict[str, Any]]]
    models: dict[Wanted, TrainedModel]
    provenance: dict[str, Any]
    failures: dict[Wanted, str] = field(default_factory=dict)


@exact()
def run_task(
    task: Task, report: Report = lambda done, what: None, dataset: data.Dataset | None = None
) -> Result:
    """Does a task; where something fails, in halves, so that one setting costs no other.

    Args:
        task: what to do.
        report: called with what has been trained.
        dataset: the task's data, where they are in memory; a worker of its own reads them.

    Raises:
        InputError: the worker's data are missing, or not those of the sweep.
    """
    prepare_jax()
    if not task.population.wanted:
        return Result({}, {}, {}, {})
    release_programs()
    start = time.monotonic()
    if dataset is None:
        dataset = _dataset(task.source)
    result = _halving(task, dataset, report)
    made = provenance(
        wall_seconds=time.monotonic() - start,
        data_sha256=dataset.sha256,
        data_origin=dataset.origin,
    )
    return replace(result, provenance=made)


def context_of(
    population: Population, dataset: data.Dataset, seed: int, precision: Precision
) -> Context:
    """Where and on what a population is trained, on this process's devices, without reports."""
    kept = data.keep_classes(dataset, population.setting.classes)
    return Context(kept, seed, population_mesh(), precision=precision)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on a device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _halving(task: Task, dataset: data.Dataset, report: Report) -> Result:
    try:
        return _do(task, dataset, report)
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if len(task.population.wanted) == 1:
            return Result({}, {}, {}, {}, {task.population.wanted[0]: reason})
        memory = out_of_memory(error)
        what = "out of memory" if memory else reason
        say(
            f"{what}, with {len(task.population.wanted)} models together; going on with half of "
            f"them at a time"
        )
    if memory:
        # Compiled programs hold memory too; after any other error they are of use.
        jax.clear_caches()
    first, second = (
        _halving(replace(task, population=half), dataset, report)
        for half in halves(task.population)
    )
    return Result(
        first.values | second.values,
        first.measured | second.measured,
        first.models | second.models,
        {},
        first.failures | second.failures,
    )


def _do(task: Task, dataset: data.Dataset, report: Report) -> Result:
    population = task.population
    context = replace(context_of(population, dataset, task.seed, task.precision), report=report)
    if population.stage == "teachers":
        return _of_models(teachers(_settings(population.wanted, TeacherSetting), context))
    if population.stage == "clones":
        return _of_models(clones(_settings(population.wanted, CloneSetting), context))
    wanted = _settings(population.wanted, Setting)
    values: dict[Wanted, dict[str, Any]] = {}
    needed = {kind: _of_kind(task.models, kind) for kind in (TeacherSetting, CloneSetting)}
    models = (needed[TeacherSetting], needed[CloneSetting])
    if population.kept:
        aux = max(setting.model.aux for setting, _ in wanted)
        trained: dict[tuple[Setting, int], Student] = {}
        for setting, run in wanted:
            student = task.students[setting, run]
            trained[setting, run] = student_again(
                setting, run, student.params, student.loss, *models, context, aux
            )
    else:
        trained = students(wanted, *models, context)
        values |= measures.always(trained, context)
    measured: dict[Wanted, dict[str, dict[str, Any]]] = {key: {} for key in wanted}
    for name, of_all in measures.measured(trained, population.measure, context).items():
        for key, columns in of_all.items():
            measured[key][name] = columns
    keep = task.keep and not population.kept
    return Result(
        values,
        measured,
        {
            (setting, run): TrainedModel(_narrowed(student.params, setting), student.loss)
            for (setting, run), student in trained.items()
        }
        if keep
        else {},
        {},
    )


def _of_models(models: Mapping[Any, TrainedModel]) -> Result:
    values = {
        key: {"loss": model.loss, "held_out": model.held_out} for key, model in models.items()
    }
    return Result(values, {}, dict(models), {})


def _narrowed(params: Any, setting: Setting) -> Any:
    """Parameters with the auxiliary logits that the setting has, and no more."""
    head = {
        name: np.ascontiguousarray(leaf[..., : setting.model.aux])
        for name, leaf in params[AUX_HEAD].items()
    }
    return params | {AUX_HEAD: head}


def _of_kind(models: Mapping[Wanted, TrainedModel], kind: type) -> dict[Any, TrainedModel]:
    return {wanted: model for wanted, model in models.items() if isinstance(wanted[0], kind)}


def _settings(wanted: Sequence[Wanted], kind: type) -> list[Any]:
    assert all(isinstance(setting, kind) for setting, _ in wanted)
    return list(wanted)


@lru_cache(maxsize=2)
def _dataset(source: DataSource) -> data.Dataset:
    dataset = data.load(source.dataset, data_dir=source.data_dir, say=say)
    if dataset.sha256 != source.sha256:
        raise data.DatasetUnavailableError(
            f"{dataset.origin}: the {source.dataset} that this worker found is not the sweep's "
            f"(SHA-256 {dataset.sha256[:12]}, not {source.sha256[:12]})"
        )
    return dataset
