"""`sublab sweep`, `sublab mnist` and `sublab results` on the command line."""

import sys
from dataclasses import dataclass
from pathlib import Path

from experiments import mnist
from experiments import tables as mnist_tables
from experiments.figures_command import draw
from experiments.sweep import run, tables
from sublab import records
from sublab.errors import InputError
from sublab.machine import exact, prepare_jax


@dataclass(frozen=True)
class ResultsOptions:
    """Write the summary of every recorded sweep as a table, a row a setting and metric."""

    out: Path = Path("results")
    """Folder with the records."""
    to: Path = Path("tables")
    """Folder that the CSV files are written to."""


OPTIONS, MNIST_OPTIONS, RESULTS_OPTIONS = run.Options, mnist.Options, ResultsOptions


def main(options: run.Options) -> int:
    """Runs a sweep, prints its table and draws its figure; returns the exit status."""
    prepare_jax()
    if options.dry_run:
        tables.print_plan(run.plan(options))
        return 0
    with exact():
        outcome = run.run(options)
    for reason in outcome.failures:
        print(f"sublab: {reason}", file=sys.stderr)
    if outcome.summary is None:
        print("sublab: what was done is recorded; the same command goes on", file=sys.stderr)
        return 1
    tables.print_sweep(outcome.sweep, outcome.summary)
    draw([outcome.summary])
    return 0


def mnist_main(options: mnist.Options) -> int:
    """Runs the MNIST experiment, prints its table and draws its figures; returns the status."""
    prepare_jax()
    with exact():
        outcome = mnist.run(options)
    mnist_tables.print_accuracy(outcome)
    draw([outcome.summary, outcome.samples])
    return 1 if outcome.agrees is False else 0


def results_main(options: ResultsOptions) -> int:
    """Writes the tables; returns the exit status."""
    summaries = records.read_all(options.out, run.SUMMARY)
    if not summaries:
        raise InputError(f"{options.out}: no recorded sweeps")
    options.to.mkdir(parents=True, exist_ok=True)
    for record in summaries:
        path = options.to / f"{record.folder.name}.csv"
        record.table.write_csv(path)
        print(f"table: {path}")
    return 0
