"""Tasks: what one worker does at a time. Pure functions of what they are given.

A task travels to a worker process or another machine and its tables travel back; only the process
that runs the sweep writes records. A worker needs the data set, found as `toymlp.data` says.
"""

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import jax
import numpy as np
import polars as pl

from sublab.console import say
from sublab.devices import population_mesh
from sublab.machine import prepare_jax, provenance, release_programs
from toymlp import accounts, data, measures
from toymlp.distillation import students
from toymlp.jobs import Context
from toymlp.settings import Setting, from_dict
from toymlp.stages import Made, clones, teachers

Report = Callable[[int, str], None]
StageName = Literal["teachers", "clones"]
# Raised whenever the same setting comes to give other numbers, so that old records are not reused.
VERSION = 1


@dataclass(frozen=True)
class Source:
    """Where a worker finds the data, and what they must be."""

    dataset: str
    sha256: str
    data_dir: str | None


@dataclass(frozen=True)
class ModelTask:
    """Models to train that students need.

    Attributes:
        stage: `teachers` or `clones`.
        settings: as `toymlp.stages` wants them, of one shape.
        runs: run numbers.
        seed: base seed.
        source: the data.
    """

    stage: StageName
    settings: tuple[Setting, ...]
    runs: tuple[int, ...]
    seed: int
    source: Source


@dataclass(frozen=True)
class StudentTask:
    """Students to distil and to measure.

    Attributes:
        settings: of one shape.
        runs, seed, source: as above.
        measure: names of measurements.
        models: the tables of the teachers and clones that they need, as `run_task` gave them.
    """

    settings: tuple[Setting, ...]
    runs: tuple[int, ...]
    seed: int
    source: Source
    measure: tuple[str, ...]
    models: tuple[pl.DataFrame, ...] = ()


@dataclass(frozen=True)
class Done:
    """What a task gave: a table for each setting, in the order of the task, and what made them."""

    tables: tuple[pl.DataFrame, ...]
    provenance: dict[str, Any]


def run_task(task: ModelTask | StudentTask, report: Report = lambda done, what: None) -> Done:
    """Does a task; on running out of memory, in two halves.

    Raises:
        InputError: the worker's data are missing, or not those of the sweep.
    """
    prepare_jax()
    release_programs()
    start = time.monotonic()
    dataset = _dataset(task.source)
    tables = _halving(task, dataset, report)
    made = provenance(
        wall_seconds=time.monotonic() - start, data_sha256=dataset.sha256,
        data_origin=dataset.origin,
    )  # fmt: skip
    return Done(tuple(tables), made)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on a device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _halving(
    task: ModelTask | StudentTask, dataset: data.Dataset, report: Report
) -> list[pl.DataFrame]:
    try:
        return _do(task, dataset, report)
    except Exception as error:
        if not out_of_memory(error) or len(task.settings) * len(task.runs) == 1:
            raise
        say(
            f"out of memory with {len(task.settings)} settings x {len(task.runs)} runs; "
            f"going on with half of them at a time"
        )
    jax.clear_caches()
    if len(task.settings) > 1:
        middle = len(task.settings) // 2
        return [
            table
            for some in (task.settings[:middle], task.settings[middle:])
            for table in _halving(replace(task, settings=some), dataset, report)
        ]
    middle = len(task.runs) // 2
    halves = [
        _halving(replace(task, runs=some), dataset, report)
        for some in (task.runs[:middle], task.runs[middle:])
    ]
    return [pl.concat(both, how="vertical_relaxed") for both in zip(*halves, strict=True)]


def _do(task: ModelTask | StudentTask, dataset: data.Dataset, report: Report):
    kept = data.keep_classes(dataset, task.settings[0].shape.classes)
    context = Context(kept, task.seed, population_mesh(), report)
    if isinstance(task, ModelTask):
        made = {"teachers": teachers, "clones": clones}[task.stage](
            task.settings, task.runs, context
        )
        return [_model_table(setting, task.runs, made) for setting in task.settings]
    models = _models(task.models)
    found = students(task.settings, task.runs, models, models, context)
    values = measures.behaviour(found, task.measure, context)
    extra = [{row: {} for row in found}]
    if accounts_wanted := sorted(measures.FOLLOWED & set(task.measure)):
        extra.append(accounts.follow_students(found, accounts_wanted, context))
    if "theory" in task.measure:
        extra.append(accounts.theory_at_start(found, context))
    columns = measures.columns_of(task.measure)
    tables = []
    for setting in task.settings:
        rows = []
        for run in task.runs:
            row = values[setting, run].copy()
            for more in extra:
                row |= more[setting, run]
            rows.append({"run": run} | {name: row[name] for name in columns})
        tables.append(pl.DataFrame(rows, schema=_schema(columns)))
    return tables


def _schema(columns: Sequence[str]) -> dict[str, Any]:
    lists = ("cka", "feature_cosine", "weight_cosine", "alignment", "start_feature_cosine")
    return {"run": pl.Int64} | {
        name: pl.List(pl.Float64) if name in lists else pl.Float64 for name in columns
    }


def _model_table(
    setting: Setting, runs: tuple[int, ...], made: Mapping[tuple[Setting, int], Made]
) -> pl.DataFrame:
    rows = [
        {
            "setting": json.dumps(setting.as_dict(), sort_keys=True),
            "run": run,
            "loss": made[setting, run].loss,
            "held_out": made[setting, run].held_out,
            "params": _packed(made[setting, run].params),
        }
        for run in runs
    ]
    floats = dict.fromkeys(("loss", "held_out"), pl.Float64)
    return pl.DataFrame(rows, schema_overrides=floats | {"params": pl.Binary})


def _models(tables: Sequence[pl.DataFrame]) -> dict[tuple[Setting, int], Made]:
    return {
        (from_dict(json.loads(row["setting"])), row["run"]): Made(
            _unpacked(row["params"]), row["loss"], row["held_out"]
        )
        for table in tables
        for row in table.iter_rows(named=True)
    }


def _packed(params: Any) -> bytes:
    """Parameters as the bytes of an .npz, arrays by their path."""
    stream = io.BytesIO()
    arrays = {
        "/".join(str(key.key) for key in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]
    return stream.getvalue()


def _unpacked(content: bytes) -> Any:
    params: dict[Any, Any] = {}
    with np.load(io.BytesIO(content)) as arrays:
        for path in arrays.files:
            *owners, name = (int(key) if key.isdecimal() else key for key in path.split("/"))
            inside = params
            for owner in owners:
                inside = inside.setdefault(owner, {})
            inside[name] = arrays[path]
    return params


@lru_cache(maxsize=2)
def _dataset(source: Source) -> data.Dataset:
    dataset = data.load(source.dataset, data_dir=source.data_dir, say=say)
    if dataset.sha256 != source.sha256:
        raise data.DatasetUnavailableError(
            f"{dataset.origin}: the {source.dataset} that this worker found is not the sweep's "
            f"(SHA-256 {dataset.sha256[:12]}, not {source.sha256[:12]})"
        )
    return dataset
