"""`sublab mnist`: the paper's MNIST experiment in six conditions, with records and a verdict."""

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import tyro

from sublab import records
from sublab.console import progress, say
from sublab.devices import population_mesh
from sublab.errors import InputError
from sublab.machine import provenance
from sublab.paper import FIGURE_10B, Published
from sublab.randomness import check_seed
from sublab.statistics import compare, mean_interval
from toymlp import data
from toymlp.protocol import (
    CONDITIONS,
    PAPER_IMAGES,
    Protocol,
    Results,
    noise_images,
    prepare,
    run_protocol,
)
from toymlp.settings import DatasetName

EXPERIMENT, SUMMARY, SAMPLES = "mnist", "mnist_summary", "samples"
# Raised whenever the same settings come to give other numbers, so that old records are not reused.
_VERSION = 1


@dataclass(frozen=True)
class Options:
    """The paper's MNIST experiment: reference, teacher, students, cross-model students."""

    runs: int = 20
    """Independent runs, each with its own reference, teacher and four students."""
    protocol: Annotated[Protocol, tyro.conf.arg(name="")] = field(default_factory=Protocol)
    """The settings of the experiment."""
    dataset: DatasetName = "mnist"
    """Data set that the teacher learns; digits is bundled, the others are found or downloaded."""
    out: Path = Path("results")
    """Folder for records and figures; finished groups found there are reused."""
    seed: int = 0
    """Base seed; a run's numbers depend on the seed and the run's number alone."""
    data_dir: Path | None = None
    """Folder with one folder per data set, looked at first."""
    group: int | None = None
    """Runs trained and recorded together; by default 4 on a CPU, 25 on an accelerator."""


@dataclass(frozen=True)
class Outcome:
    """What an experiment gave.

    Attributes:
        table: one row per model.
        summary: one row per condition.
        samples: images for the data panel.
        agrees: whether every verdict holds; None where there is none to give.
    """

    table: pl.DataFrame
    summary: records.Record
    samples: records.Record
    agrees: bool | None


def run(options: Options) -> Outcome:
    """Trains what is not yet recorded in `options.out`, and sums up.

    Raises:
        InputError: a setting or a data file is wrong.
        RecordError: `options.out` cannot be written.
    """
    check(options)
    records.prepare(options.out)
    dataset = data.load(options.dataset, data_dir=options.data_dir, say=say)
    batch = options.protocol.teacher_batch_for(len(dataset.train_labels))
    protocol = replace(options.protocol, teacher_batch=batch)
    samples = _record_samples(options, dataset)
    groups = _train(options, protocol, dataset)
    table = pl.concat(group.table for group in groups)
    summary = _summarise(options, protocol, dataset, table, groups)
    verdicts = summary.table["agrees"].drop_nulls()
    return Outcome(table, summary, samples, bool(verdicts.all()) if len(verdicts) else None)


def check(options: Options) -> None:
    """Refuses numbers out of range.

    Raises:
        InputError: names the setting.
    """
    if options.runs < 1:
        raise InputError(f"runs must be at least 1, got {options.runs}")
    if options.group is not None and options.group < 1:
        raise InputError(f"group must be at least 1, got {options.group}")
    check_seed(options.seed)


def published(protocol: Protocol, dataset: str) -> dict[str, Published]:
    """The paper's numbers if the setting is the paper's (preprint, figure 10b), else nothing.

    Args:
        protocol: with the teacher's batch resolved for the data set.
        dataset: its name.
    """
    preprint = replace(Protocol(), teacher_batch=Protocol().teacher_batch_for(PAPER_IMAGES))
    return FIGURE_10B if dataset == "mnist" and protocol == preprint else {}


def _train(options: Options, protocol: Protocol, dataset: data.Dataset) -> list[records.Record]:
    """The records of all groups, in order; what is not there yet is trained and recorded."""
    mesh = population_mesh()
    size = options.group or (4 if mesh.devices.flat[0].platform == "cpu" else 25)
    base = _config(options, protocol, dataset)
    groups = [
        list(range(first, min(first + size, options.runs)))
        for first in range(0, options.runs, size)
    ]
    found = [records.find(options.out, EXPERIMENT, base | {"runs": runs}, say) for runs in groups]
    reused = sum(len(runs) for runs, record in zip(groups, found, strict=True) if record)
    if reused:
        say(f"{reused} of {options.runs} runs found in {options.out}, reused")
    if reused == options.runs:
        return [record for record in found if record]
    say(
        f"{dataset.name} from {dataset.origin}; training {options.runs - reused} runs on "
        f"{mesh.size} {mesh.devices.flat[0].platform} device(s)"
    )
    inputs = prepare(protocol, dataset, seed=options.seed, mesh=mesh)
    done = protocol.model_epochs(reused)
    whole: list[records.Record] = []
    with progress(protocol.model_epochs(options.runs), done) as advance:
        for runs, earlier in zip(groups, found, strict=True):
            record = earlier
            if record is None:
                label = f"runs {runs[0] + 1}-{runs[-1] + 1} of {options.runs}"

                def report(stage: str, part: int, _: int, done=done, label=label) -> None:
                    advance(done + part, f"{label}: {stage}")

                start = time.monotonic()
                results = run_protocol(protocol, inputs, runs=runs, report=report)
                config = base | {"runs": runs}
                record = records.write(
                    options.out, EXPERIMENT, config, _rows(config, results),
                    _provenance(dataset, time.monotonic() - start),
                )  # fmt: skip
                done += protocol.model_epochs(len(runs))
            whole.append(record)
    return whole


def _rows(config: dict[str, Any], results: Results) -> pl.DataFrame:
    settings = {
        name: records.cell(value)
        for name, value in config.items()
        if name not in ("experiment", "version", "runs")
    }
    return pl.DataFrame(
        [
            settings
            | {
                "run": run,
                "condition": condition,
                "start_run": results.start[condition][row],
                "accuracy": float(results.accuracy[condition][row]),
                "final_loss": (
                    float(results.loss[condition][row]) if condition in results.loss else None
                ),
            }
            for row, run in enumerate(results.runs)
            for condition in CONDITIONS
        ],
        schema_overrides={"final_loss": pl.Float64},
    )


def _summarise(
    options: Options,
    protocol: Protocol,
    dataset: data.Dataset,
    table: pl.DataFrame,
    groups: list[records.Record],
) -> records.Record:
    paper = published(protocol, dataset.name)
    rows = []
    for condition in CONDITIONS:
        sample = table.filter(pl.col("condition") == condition)["accuracy"].to_numpy()
        theirs = paper.get(condition)
        verdict = compare(sample, theirs) if theirs else None
        rows.append(
            {"condition": condition}
            | asdict(mean_interval(sample))
            | {
                "paper_mean": theirs.mean if theirs else None,
                "paper_half_width": theirs.half_width if theirs else None,
                "difference": verdict.difference if verdict else None,
                "allowed": verdict.allowed if verdict else None,
                "agrees": verdict.agrees if verdict else None,
            }
        )
    config = _config(options, protocol, dataset) | {
        "experiment": SUMMARY,
        "runs": options.runs,
        "records": [group.folder.name for group in groups],
    }
    floats = ("std", "low", "high", "paper_mean", "paper_half_width", "difference", "allowed")
    summary = pl.DataFrame(
        rows, schema_overrides=dict.fromkeys(floats, pl.Float64) | {"agrees": pl.Boolean}
    )
    return records.find_or_make(
        options.out, SUMMARY, config, lambda: (summary, _provenance(dataset, 0.0)), say
    )


def _record_samples(options: Options, dataset: data.Dataset, per_kind: int = 10) -> records.Record:
    """Ten images of each kind for the data panel: one of every class (the first ten), and noise."""
    config = {
        "experiment": SAMPLES,
        "version": _VERSION,
        "dataset": dataset.name,
        "data_sha256": dataset.sha256,
        "seed": options.seed,
        "noise_images": options.protocol.noise_images,
    }

    def make() -> tuple[pl.DataFrame, dict[str, Any]]:
        kinds = min(per_kind, dataset.classes)
        first = [int(np.argmax(dataset.train_labels == c)) for c in range(kinds)]
        pixels = dataset.train_images.shape[1]
        noise = noise_images(options.seed, options.protocol.noise_images, pixels)[:per_kind]
        images = [*dataset.train_images[first], *noise]
        table = pl.DataFrame(
            {
                "kind": ["data"] * len(first) + ["noise"] * len(noise),
                "label": [*range(len(first)), *[None] * len(noise)],
                "side": round(pixels**0.5),
                "pixels": [image.tolist() for image in images],
            },
            schema_overrides={"pixels": pl.List(pl.Float32)},
        )
        return table, _provenance(dataset, 0.0)

    return records.find_or_make(options.out, SAMPLES, config, make, say)


def _config(options: Options, protocol: Protocol, dataset: data.Dataset) -> dict[str, Any]:
    settings = asdict(protocol) | {"hidden": list(protocol.hidden)}
    return {
        "experiment": EXPERIMENT,
        "version": _VERSION,
        "dataset": dataset.name,
        "data_sha256": dataset.sha256,
        "seed": options.seed,
    } | settings


def _provenance(dataset: data.Dataset, wall_seconds: float) -> dict[str, Any]:
    return provenance(
        data_sha256=dataset.sha256, data_origin=dataset.origin, wall_seconds=wall_seconds
    )
