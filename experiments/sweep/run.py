"""`sublab sweep`: any variation of the toy, from a short file, as populations on any executor."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import tyro

from experiments.sweep import executors
from experiments.sweep import file as sweep_files
from experiments.sweep.file import SizeName, Sweep
from experiments.sweep.plan import (
    Cost,
    Need,
    Piece,
    chunks,
    cost,
    pieces,
    product_rate,
    trained,
    work,
)
from experiments.sweep.summary import runs_table, summary_table
from experiments.sweep.tasks import VERSION, Done, ModelTask, Source, StudentTask, run_task
from sublab import records
from sublab.console import progress, say
from sublab.devices import population_mesh
from sublab.errors import InputError
from sublab.machine import provenance
from sublab.randomness import check_seed
from toymlp import data
from toymlp.measures import columns_of

STUDENTS, RUNS, SUMMARY = "sweep", "sweep_runs", "sweep_summary"
# Teachers and clones are kept apart from the tables, which `records.scan` reads as one.
_MODELS = "models"


@dataclass(frozen=True)
class Options:
    """A sweep over settings of the toy, from a file or a preset."""

    file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = None
    """A sweep file (docs/sweeps.md says how to write one); or give --preset."""
    preset: str | None = None
    """A preset, such as ed2b; an unknown name lists them all."""
    size: SizeName = "cpu"
    """How large: smoke (seconds), cpu (minutes on two cores), paper (100 runs)."""
    runs: int | None = None
    """Independent runs of every point; by default what the file says for the size."""
    dry_run: bool = False
    """Say what would be done and what it would cost, and do nothing."""
    workers: int | None = None
    """Do it in so many processes, each with its share of the cores."""
    scheduler: str | None = None
    """Do it on the Dask cluster whose scheduler has this address."""
    out: Path = Path("results")
    """Folder for records and figures; what is found there is reused."""
    seed: int = 0
    """Base seed; a run's numbers depend on the seed, the run's number and its setting alone."""
    data_dir: Path | None = None
    """Folder with one folder per data set, looked at first."""
    group: int | None = None
    """Runs trained and recorded together; by default 4 on a CPU, 20 on an accelerator."""
    memory: float | None = None
    """GB that a population may take; by default half of the free memory, or most of a GPU's."""


@dataclass(frozen=True)
class Outcome:
    """What a sweep gave.

    Attributes:
        sweep: what was run.
        table: one row per point and run.
        summary: means, intervals, paired differences.
        failures: one line for each thing that went wrong; then the tables miss those points.
    """

    sweep: Sweep
    table: pl.DataFrame | None
    summary: records.Record | None
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a run of the command will do.

    Attributes:
        sweep: what the file says.
        runs: how many.
        cost: of what is not there yet.
        found: points times runs that are there, and of how many.
    """

    sweep: Sweep
    runs: int
    cost: Cost
    found: tuple[int, int]


class _Store:
    """What is recorded of a sweep, and under which names."""

    def __init__(self, options: Options, sweep: Sweep, datasets: dict[str, data.Dataset]):
        self.out, self.seed, self.measure = options.out, options.seed, sweep.measure
        self.datasets = datasets
        self._found: dict[Need, records.Record | None] = {}

    def config(self, need: Need) -> dict[str, Any]:
        config = {
            "experiment": STUDENTS if need.stage == "students" else need.stage,
            "version": VERSION,
            "setting": need.setting.as_dict(),
            "runs": list(need.runs),
            "seed": self.seed,
            "data_sha256": self.datasets[need.setting.shape.dataset].sha256,
        }
        return config | ({"measure": sorted(self.measure)} if need.stage == "students" else {})

    def place(self, need: Need) -> tuple[Path, str]:
        students = need.stage == "students"
        return (self.out, STUDENTS) if students else (self.out / _MODELS, need.stage)

    def find(self, need: Need) -> records.Record | None:
        if self._found.get(need) is None:
            self._found[need] = records.find(*self.place(need), self.config(need), say)
        return self._found[need]

    def write(self, need: Need, table: pl.DataFrame, made: dict[str, Any]) -> None:
        # The names of the settings are columns, so that records can be read as one table.
        if need.stage == "students":
            settings = need.setting.as_dict().items()
            columns = [pl.lit(records.cell(value)).alias(name) for name, value in settings]
            table = table.select(*columns, pl.all())
        self._found[need] = records.write(*self.place(need), self.config(need), table, made)

    def table(self, need: Need) -> pl.DataFrame:
        record = self.find(need)
        assert record is not None
        if need.stage != "students":
            return record.table
        return record.table.select("run", *columns_of(self.measure))


def run(options: Options) -> Outcome:
    """Trains what is not yet recorded in `options.out`, and sums up.

    Raises:
        InputError: a setting, a file or the data are wrong.
        RecordError: `options.out` cannot be written.
    """
    sweep, runs, datasets = _read(options)
    records.prepare(options.out)
    store = _Store(options, sweep, datasets)
    todo, parts = _todo(options, sweep, runs, store)
    failures = _work(options, sweep, todo, store) if todo else executors.Failures()
    if failures.errors:
        return Outcome(sweep, None, None, tuple(dict.fromkeys(failures.errors.values())))
    needs = [[Need("students", point.setting, part) for part in parts] for point in sweep.points]
    tables = [pl.concat([store.table(need) for need in some]) for some in needs]
    table = runs_table(sweep, tables)
    used = [record.folder.name for some in needs for need in some if (record := store.find(need))]
    return Outcome(sweep, table, _summarise(options, sweep, runs, table, tables, used, datasets))


def plan(options: Options) -> Plan:
    """What `run` would do, and what it would cost on this machine; nothing is written.

    Raises:
        InputError: as `run`.
    """
    sweep, runs, datasets = _read(options)
    store = _Store(options, sweep, datasets)
    todo, parts = _todo(options, sweep, runs, store)
    missing = sum(len(piece.needs) * len(piece.runs) for piece in todo if piece.stage == "students")
    total = len({point.setting for point in sweep.points}) * sum(map(len, parts))
    return Plan(sweep, runs, cost(todo, sweep.measure, product_rate()), (total - missing, total))


def _read(options: Options) -> tuple[Sweep, int, dict[str, data.Dataset]]:
    if (options.file is None) == (options.preset is None):
        raise InputError(
            f"give a sweep file or --preset NAME, one of the two; presets are "
            f"{', '.join(sweep_files.presets())}"
        )
    if options.file is not None:
        sweep = sweep_files.read_file(options.file, options.size)
    else:
        assert options.preset is not None
        sweep = sweep_files.read_preset(options.preset, options.size)
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
    names = dict.fromkeys(point.setting.shape.dataset for point in sweep.points)
    datasets = {name: data.load(name, data_dir=options.data_dir, say=say) for name in names}
    return sweep, runs, datasets


def _todo(
    options: Options, sweep: Sweep, runs: int, store: _Store
) -> tuple[list[Piece], list[tuple[int, ...]]]:
    on_cpu = population_mesh().devices.flat[0].platform == "cpu"
    parts = chunks(runs, options.group or (4 if on_cpu else 20))
    limit = None if options.memory is None else int(options.memory * 1e9)
    settings = [point.setting for point in sweep.points]
    return pieces(settings, parts, lambda need: store.find(need) is not None, limit), parts


def _work(options: Options, sweep: Sweep, todo: list[Piece], store: _Store) -> executors.Failures:
    weights = {piece: work(piece, sweep.measure) for piece in todo}
    total, done = sum(weights.values()), 0.0
    makers = {need: piece for piece in todo if piece.stage != "students" for need in piece.needs}
    local = options.workers is None and options.scheduler is None
    with progress(1000) as advance, _pool(options) as pool:

        def show(piece: Piece | None, part: float, what: str) -> None:
            so_far = done + (weights[piece] * part if piece else 0.0)
            advance(min(1000, round(1000 * so_far / total)), what)

        def report_of(piece: Piece) -> Callable[[int, str], None]:
            whole, seen = max(1.0, trained(piece)[1]), 0.0

            def report(epochs: int, what: str) -> None:
                nonlocal seen
                seen += epochs
                show(piece, min(1.0, seen / whole), f"{_runs_of(piece)}: {what}")

            return report

        def finished(piece: Piece, result: Done) -> None:
            nonlocal done
            for need, table in zip(piece.needs, result.tables, strict=True):
                store.write(need, table, result.provenance)
            done += weights[piece]
            show(None, 0.0, f"{_runs_of(piece)}: {piece.stage} recorded")

        def task(piece: Piece) -> executors.Task:
            def make() -> tuple[Any, ...]:
                given = _task(options, sweep, piece, store)
                return (given, report_of(piece)) if local else (given,)

            needed = frozenset(makers[need] for need in piece.models if need in makers)
            return executors.Task(piece, needed, make)

        return executors.run_tasks([task(piece) for piece in todo], run_task, pool, finished)


def _task(options: Options, sweep: Sweep, piece: Piece, store: _Store) -> ModelTask | StudentTask:
    dataset = store.datasets[piece.settings[0].shape.dataset]
    folder = None if options.data_dir is None else str(options.data_dir)
    source = Source(dataset.name, dataset.sha256, folder)
    if piece.stage != "students":
        stage = "teachers" if piece.stage == "teachers" else "clones"
        return ModelTask(stage, piece.settings, piece.runs, options.seed, source)
    models = tuple(store.table(need) for need in piece.models)
    return StudentTask(piece.settings, piece.runs, options.seed, source, sweep.measure, models)


def _pool(options: Options) -> AbstractContextManager[executors.Pool]:
    if options.scheduler is not None:
        return executors.dask(options.scheduler)
    return (
        executors.in_process() if options.workers is None else executors.processes(options.workers)
    )


def _runs_of(piece: Piece) -> str:
    first, last = piece.runs[0] + 1, piece.runs[-1] + 1
    return f"run {first}" if first == last else f"runs {first}-{last}"


def _summarise(
    options: Options,
    sweep: Sweep,
    runs: int,
    table: pl.DataFrame,
    tables: list[pl.DataFrame],
    used: list[str],
    datasets: dict[str, data.Dataset],
) -> records.Record:
    settings = [point.setting.as_dict() for point in sweep.points]
    base = {
        name: value
        for name, value in settings[0].items()
        if all(setting[name] == value for setting in settings)
    }
    config = {
        "experiment": RUNS,
        "version": VERSION,
        "name": sweep.name,
        "title": sweep.title,
        "figure": sweep.figure,
        "size": options.size,
        "seed": options.seed,
        "runs": runs,
        "axes": list(sweep.axes),
        "measure": list(sweep.measure),
        "baseline": sweep.baseline,
        "base": base,
        "points": [point.coordinates for point in sweep.points],
        "records": used,
    }
    made = provenance(
        wall_seconds=0.0,
        data_sha256=" ".join(dataset.sha256 for dataset in datasets.values()),
        data_origin=" ".join(dataset.origin for dataset in datasets.values()),
    )
    wide = records.find_or_make(options.out, RUNS, config, lambda: (table, made), say)
    config = config | {"experiment": SUMMARY, "runs_record": wide.folder.name}
    return records.find_or_make(
        options.out, SUMMARY, config, lambda: (summary_table(sweep, tables), made), say
    )
