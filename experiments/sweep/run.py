"""`sublab sweep`: any variation of the toy, from a short file, as populations on any executor."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import tyro

from experiments.sweep import executors, file
from experiments.sweep.ahead import compiling_ahead
from experiments.sweep.file import Point, SizeName, Sweep
from experiments.sweep.plan import (
    Cost,
    Population,
    Wanted,
    cost,
    models_of,
    populations,
    product_rate,
    trained,
    work,
)
from experiments.sweep.store import VERSION, SweepStore, said_precision
from experiments.sweep.summary import (
    notes_of,
    published_rows,
    runs_table,
    summary_config,
    summary_table,
)
from experiments.sweep.tasks import DataSource, Result, Task, context_of, run_task
from sublab import records
from sublab.console import progress, say
from sublab.devices import population_mesh
from sublab.errors import InputError
from sublab.machine import exact, provenance
from sublab.randomness import check_seed
from sublab.settings import flatten
from toymlp import data
from toymlp.checks import canonical
from toymlp.inputs import draw_inputs
from toymlp.measures import MEASURES
from toymlp.settings import Setting
from toymlp.stages import inputs_purpose
from toymlp.train import Context, Precision

RUNS, SUMMARY, SAMPLES = "sweep_runs", "sweep_summary", "samples"
# Raised when a summary of the same records comes to say other things.
SUMMARY_VERSION = 3
# Below so many students a sweep keeps their parameters (about 1 MB each), unless its file says.
_FEW = 200
_SAMPLES = 10


@dataclass(frozen=True)
class RunOptions:
    """What every command that runs a sweep takes."""

    set: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUE")
    ] = ()
    """A setting in place of what the preset or the file says, such as student.learning_rate=1e-3 or
    dataset=digits; may be given many times (docs/settings.md lists them)."""
    size: SizeName = "cpu"
    """How large: smoke (seconds, presets on digits), cpu (minutes on two cores), paper (100
    runs)."""
    runs: int | None = None
    """Independent runs of every point (an entry of the file may want fewer); by default what the
    preset or the file says for the size (20 for the MNIST experiment at cpu size)."""
    dry_run: bool = False
    """Say what would be done and what it would cost, and do nothing."""
    workers: int | None = None
    """Number of processes to work in, each with its share of the cores."""
    scheduler: str | None = None
    """Address of the scheduler of a Dask cluster to work on."""
    out: Path = Path("results")
    """Folder for records and figures; what is found there is reused."""
    seed: int = 0
    """Base seed; a run's numbers depend on the seed, the run's number and its setting alone."""
    data_dir: Path | None = None
    """Folder with the data sets, looked at first."""
    group: int | None = None
    """Runs trained together; by default 4 on a CPU, 20 on an accelerator. Changes no number, but
    for rounding."""
    precision: Precision = "float32"
    """How the factors of the products of training are rounded: float32 (not at all), bfloat16, or
    tf32 (NVIDIA GPUs alone). Sums, parameters and evaluation are float32; records say which."""
    memory: float | None = None
    """GB that a population may take; by default half of the free memory, or most of a GPU's."""


@dataclass(frozen=True)
class SweepOptions(RunOptions):
    """A sweep over settings of the toy, from a file or a preset."""

    file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = None
    """A sweep file (docs/sweeps.md says how to write one); or give --preset."""
    preset: str | None = None
    """A preset, such as ed2b; an unknown name lists them all."""


@dataclass(frozen=True)
class SweepOutcome:
    """What a sweep gave.

    Attributes:
        sweep: what was run, every setting in its canonical spelling.
        table: one row per point and run.
        summary: means, intervals, paired differences, verdicts.
        failures: one line for each thing that went wrong; the tables miss those points and runs.
    """

    sweep: Sweep
    table: pl.DataFrame
    summary: records.Record | None
    failures: tuple[str, ...] = ()

    @property
    def holds(self) -> bool | None:
        """Whether all verdicts against published values agree; None where there is none."""
        if self.summary is None:
            return None
        verdicts = [row["agrees"] for row in self.summary.config["published"]]
        given = [agrees for agrees in verdicts if agrees is not None]
        return all(given) if given else None


@dataclass(frozen=True)
class DryRun:
    """What a run of the command will do.

    Attributes:
        sweep: what the file says.
        runs: how many.
        cost: cost of what is not there yet.
        recorded: points times runs that are there with all their measurements.
        total: points times runs in all, each experiment once.
        again: students that are recorded, but not kept, and lack a measurement: trained again.
    """

    sweep: Sweep
    runs: int
    cost: Cost
    recorded: int
    total: int
    again: int


@dataclass(frozen=True)
class _Job:
    """A sweep to run: everything that is known before anything is trained."""

    options: SweepOptions
    sweep: Sweep
    runs: int
    datasets: dict[str, data.Dataset]
    store: SweepStore

    @property
    def wanted(self) -> list[tuple[Setting, int]]:
        """Every experiment in every run, once."""
        return list(
            dict.fromkeys(
                (point.setting, run)
                for run in range(self.runs)
                for point in self.sweep.points
                if run < point.runs(self.runs)
            )
        )

    @property
    def keep(self) -> bool:
        """Whether students' parameters are kept."""
        if self.sweep.keep is not None:
            return self.sweep.keep
        return len(self.wanted) < _FEW

    def images(self, setting: Any) -> int:
        """Training images of a setting's data set, of the classes that are kept."""
        return _images(self.datasets[setting.dataset], setting.classes)


@exact()
def run(options: SweepOptions) -> SweepOutcome:
    """Trains what is not yet recorded in `options.out`, and sums up.

    Raises:
        InputError: a setting, a file or the data are wrong.
        RecordError: `options.out` cannot be written.
    """
    job = _read(options)
    records.prepare(options.out)
    for line in notes_of(job.sweep):
        say(line)
    todo, again = _todo(job)
    if again:
        say(
            f"{again} students lack a measurement, and their parameters were not kept: they are "
            f'trained again (keep = "models" in the file keeps them)'
        )
    there = sum(job.store.row(wanted) is not None for wanted in job.wanted)
    if there:
        say(f"{there} of {len(job.wanted)} students are recorded in {options.out}, reused")
    failures = _work(job, todo) if todo else executors.Failures()
    table, long = runs_table(job.sweep, job.runs, job.store)
    summary = _summarise(job, table, long) if table.height else None
    return SweepOutcome(job.sweep, table, summary, tuple(dict.fromkeys(failures.errors.values())))


@exact()
def dry_run(options: SweepOptions) -> DryRun:
    """What `run` would do, and what it would cost on this machine; nothing is written.

    Raises:
        InputError: as `run`.
    """
    job = _read(replace(options, dry_run=True))
    for line in notes_of(job.sweep):
        say(line)
    todo, again = _todo(job)
    wanted = job.wanted
    complete = [
        key
        for key in wanted
        if job.store.row(key) is not None and not job.store.lacking(key, job.sweep.measure)
    ]
    price = cost(todo, job.images, product_rate() if todo else None)
    return DryRun(job.sweep, job.runs, price, len(complete), len(wanted), again)


def check(options: SweepOptions) -> None:
    """Reads everything that a sweep needs, and does nothing.

    Raises:
        InputError: as `run`.
    """
    _read(options)


def _read(options: SweepOptions) -> _Job:
    if (options.file is None) == (options.preset is None):
        raise InputError(
            f"give a sweep file or --preset NAME, one of the two; presets are "
            f"{', '.join(file.presets())}"
        )
    if options.file is not None:
        sweep = file.read_file(options.file, options.size, options.set)
    else:
        assert options.preset is not None
        sweep = file.read_preset(options.preset, options.size, options.set)
    runs = sweep.runs if options.runs is None else options.runs
    for name, value in (("runs", runs), ("group", options.group)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if options.memory is not None and not options.memory > 0:
        raise InputError(f"memory must be above 0 GB, got {options.memory}")
    if options.workers is not None and options.scheduler is not None:
        raise InputError("give --workers or --scheduler, not both")
    if options.workers is not None:
        executors.check_workers(options.workers)
    check_seed(options.seed)
    _check_precision(options.precision, sweep)
    names = dict.fromkeys(point.setting.dataset for point in sweep.points)
    datasets = {name: data.load(name, data_dir=options.data_dir, say=say) for name in names}
    sweep = _canonical(sweep, datasets)
    digests = {name: dataset.sha256 for name, dataset in datasets.items()}
    store = SweepStore(
        options.out,
        options.seed,
        digests,
        read_only=options.dry_run,
        precision=options.precision,
    )
    return _Job(options, sweep, runs, datasets, store)


def _check_precision(precision: Precision, sweep: Sweep) -> None:
    if precision == "float32":
        return
    following = [name for name in sweep.measure if MEASURES[name].follows]
    if following:
        raise InputError(
            f"precision {precision}: the measurement {following[0]} follows training step by step, "
            f"in float32; leave it or --precision out"
        )
    if precision == "tf32" and population_mesh().devices.flat[0].platform != "gpu":
        raise InputError(
            "precision tf32: NVIDIA GPUs alone have it, and JAX sees none here; on a CPU there are "
            "float32 and bfloat16"
        )


def _canonical(sweep: Sweep, datasets: dict[str, data.Dataset]) -> Sweep:
    """The sweep with the one spelling of every setting, for which the data are needed."""

    def of(point: Point) -> Point:
        setting = point.setting
        images = _images(datasets[setting.dataset], setting.classes)
        return replace(point, setting=canonical(setting, images))

    return replace(sweep, points=tuple(map(of, sweep.points)))


def _images(dataset: data.Dataset, classes: int) -> int:
    labels = dataset.train_labels
    return int(np.sum(labels < classes)) if classes else len(labels)


def _todo(job: _Job) -> tuple[list[Population], int]:
    """What is to be done, and how many students of it are trained for a measurement alone."""
    options, store, measure = job.options, job.store, job.sweep.measure
    students: list[Wanted] = []
    kept: list[tuple[Wanted, tuple[str, ...]]] = []
    again = 0
    for wanted in job.wanted:
        if store.row(wanted) is None:
            students.append(wanted)
        elif lacking := store.lacking(wanted, measure):
            if store.is_kept(wanted):
                kept.append((wanted, lacking))
            else:
                students.append(wanted)
                again += store.row(wanted) is not None
    on_cpu = population_mesh().devices.flat[0].platform == "cpu"
    together = options.group or (4 if on_cpu else 20)
    limit = None if options.memory is None else int(options.memory * 1e9)
    todo = populations(students, kept, measure, store.is_kept, together, limit)
    return todo, again


def _work(job: _Job, todo: Sequence[Population]) -> executors.Failures:
    options, store = job.options, job.store
    weights = {population: work(population) for population in todo}
    total, done = max(1.0, sum(weights.values())), 0.0
    makers = {
        wanted: population
        for population in todo
        if population.stage != "students"
        for wanted in population.wanted
    }
    local = options.workers is None and options.scheduler is None
    lost: dict[Any, str] = {}

    def ahead_context(population: Population) -> Context:
        dataset = job.datasets[population.setting.dataset]
        return context_of(population, dataset, options.seed, options.precision)

    with (
        progress(1000) as advance,
        compiling_ahead(todo if local else (), ahead_context) as begins,
        _pool(options) as pool,
    ):

        def show(population: Population | None, part: float, what: str) -> None:
            so_far = done + (weights[population] * part if population else 0.0)
            advance(min(1000, round(1000 * so_far / total)), what)

        def report_of(population: Population) -> Callable[[int, str], None]:
            all_epochs, seen = max(1.0, trained(population)[1]), 0.0

            def report(epochs: int, what: str) -> None:
                nonlocal seen
                seen += epochs
                show(population, min(1.0, seen / all_epochs), f"{_runs_of(population)}: {what}")

            return report

        def finished(population: Population, result: Result) -> None:
            nonlocal done
            for wanted in population.wanted:
                if wanted not in result.values and wanted not in result.measured:
                    lost[wanted] = result.failures.get(
                        wanted, "a teacher or a clone could not be trained"
                    )
                    continue
                store.write(
                    wanted,
                    result.values.get(wanted, {}),
                    result.measured.get(wanted, {}),
                    result.models.get(wanted),
                    result.provenance,
                )
            done += weights[population]
            show(None, 0.0, f"{_runs_of(population)}: {population.stage} recorded")

        def task(population: Population) -> executors.QueuedTask:
            def make() -> tuple[Any, ...]:
                given = _task(job, population)
                if not local:
                    return (given,)
                begins(population)
                return given, report_of(population), job.datasets[population.setting.dataset]

            needed = frozenset(makers[model] for model in population.models if model in makers)
            return executors.QueuedTask(population, needed, make)

        failures = executors.run_tasks(
            [task(population) for population in todo], run_task, pool, finished
        )
        return executors.Failures(failures.errors | lost)


def _task(job: _Job, population: Population) -> Task:
    """A population with the models that it needs, read from their records.

    Students whose teacher or clone is not there, since it could not be trained, are left out.
    """
    dataset = job.datasets[population.setting.dataset]
    folder = None if job.options.data_dir is None else str(job.options.data_dir)
    source = DataSource(dataset.name, dataset.sha256, folder)
    read = {wanted: job.store.model(wanted) for wanted in population.models}
    models = {wanted: model for wanted, model in read.items() if model is not None}
    ready = [wanted for wanted in population.wanted if models.keys() >= set(models_of(wanted))]
    students = {}
    if population.kept:
        students = {
            wanted: model for wanted in ready if (model := job.store.model(wanted)) is not None
        }
        ready = [wanted for wanted in ready if wanted in students]
    present = replace(population, wanted=tuple(ready))
    return Task(
        present, job.options.seed, source, models, students, job.keep, job.options.precision
    )


def _pool(options: SweepOptions) -> AbstractContextManager[executors.Pool]:
    if options.scheduler is not None:
        return executors.dask(options.scheduler)
    return (
        executors.in_process() if options.workers is None else executors.processes(options.workers)
    )


def _runs_of(population: Population) -> str:
    runs = sorted({run for _, run in population.wanted})
    first, last = runs[0] + 1, runs[-1] + 1
    return f"run {first}" if first == last else f"runs {first}-{last}"


def _summarise(job: _Job, table: pl.DataFrame, long: pl.DataFrame) -> records.Record:
    sweep, options = job.sweep, job.options
    made = provenance(
        wall_seconds=0.0,
        data_sha256=" ".join(dataset.sha256 for dataset in job.datasets.values()),
        data_origin=" ".join(dataset.origin for dataset in job.datasets.values()),
    )
    config = summary_config(sweep, job.images, job.runs, options.seed)
    config |= {"version": VERSION, "summary_version": SUMMARY_VERSION, records.DERIVED: True}
    config |= said_precision(options.precision)
    if options.precision != "float32":
        config["shared"] = [*config["shared"], f"products in {options.precision}"]
    if options.set:
        # A preset with other settings is another experiment under the same name.
        config["changes"] = list(options.set)
    rows_config = {
        name: config[name]
        for name in ("version", records.DERIVED, "name", "size", "seed", "runs", "points")
    }
    used = [
        job.store.folder(wanted).name for wanted in job.wanted if job.store.row(wanted) is not None
    ]
    rows_config |= said_precision(options.precision)
    rows_config |= {"experiment": RUNS, "records": used, "measure": list(sweep.measure)}
    wide = records.find_or_make(options.out, RUNS, rows_config, lambda: (table, made), say)
    summary = summary_table(sweep, long)
    config |= {
        "experiment": SUMMARY,
        "runs_record": wide.folder.name,
        "samples_record": _samples(job),
        "published": published_rows(sweep, job.images, table),
    }
    return records.find_or_make(options.out, SUMMARY, config, lambda: (summary, made), say)


def _samples(job: _Job) -> str | None:
    """The record with images and inputs for a panel that shows them; None where none does."""
    if all(panel["kind"] != "images" for panel in job.sweep.panels):
        return None
    setting = job.sweep.points[0].setting
    dataset = job.datasets[setting.dataset]
    inputs = setting.student.inputs
    config = {
        "experiment": SAMPLES,
        "version": VERSION,
        records.DERIVED: True,
        "dataset": dataset.name,
        "data_sha256": dataset.sha256,
        "inputs": {
            name: value
            for name, value in flatten(setting).items()
            if name == "classes" or name.startswith("student.inputs")
        },
        "seed": job.options.seed,
    }

    def make() -> tuple[pl.DataFrame, dict[str, Any]]:
        kinds = min(_SAMPLES, dataset.classes)
        first = [int(np.argmax(dataset.train_labels == label)) for label in range(kinds)]
        drawn = draw_inputs(
            replace(inputs, count=min(inputs.count, _SAMPLES)),
            dataset,
            job.options.seed,
            inputs_purpose(inputs, "distillation inputs", 0),
        )
        table = pl.DataFrame(
            {
                "kind": ["data"] * len(first) + ["inputs"] * len(drawn),
                "label": [*map(str, range(len(first))), *[None] * len(drawn)],
                "side": round(dataset.train_images.shape[1] ** 0.5),
                "pixels": [image.tolist() for image in (*dataset.train_images[first], *drawn)],
            },
            schema_overrides={"pixels": pl.List(pl.Float32), "label": pl.String},
        )
        return table, provenance(
            wall_seconds=0.0, data_sha256=dataset.sha256, data_origin=dataset.origin
        )

    return records.find_or_make(job.options.out, SAMPLES, config, make, say).folder.name
