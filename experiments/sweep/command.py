"""`sublab sweep` and `sublab mnist` on the command line."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from experiments.figures_command import draw
from experiments.sweep import run, tables
from experiments.sweep.file import SizeName
from experiments.sweep.run import SweepOptions
from sublab.machine import prepare_jax

MNIST = "fig10b"


@dataclass(frozen=True)
class MnistOptions:
    """The paper's MNIST experiment in six conditions: `sublab sweep --preset fig10b`."""

    set: Annotated[
        tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUE")
    ] = ()
    """A setting that is not the paper's, such as model.aux=10 or dataset=digits; may be given many
    times (docs/sweeps.md lists them)."""
    size: SizeName = "cpu"
    """How large: smoke (seconds, on digits), cpu (20 runs), paper (100 runs)."""
    runs: int | None = None
    """Independent runs, each with its own reference, teacher and four students."""
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
    """Folder with the data sets, looked at first."""
    group: int | None = None
    """Runs trained together; by default 4 on a CPU, 20 on an accelerator. Changes no number."""
    memory: float | None = None
    """GB that a population may take; by default half of the free memory, or most of a GPU's."""

    def sweep(self) -> SweepOptions:
        """The same as options of a sweep."""
        same = {item.name: getattr(self, item.name) for item in fields(self)}
        return SweepOptions(preset=MNIST, **same)


OPTIONS, MNIST_OPTIONS = SweepOptions, MnistOptions


def main(options: SweepOptions) -> int:
    """Runs a sweep, prints its table and draws its figure; returns the exit status.

    1 where a run failed, or a verdict against a published value does not hold.
    """
    prepare_jax()
    if options.dry_run:
        tables.print_dry_run(run.dry_run(options))
        return 0
    outcome = run.run(options)
    for reason in outcome.failures:
        print(f"sublab: {reason}", file=sys.stderr)
    if outcome.failures:
        print(
            "sublab: what was done is recorded and summed up; the same command goes on",
            file=sys.stderr,
        )
    if outcome.summary is not None:
        tables.print_sweep(outcome.summary)
        draw([outcome.summary])
    return 1 if outcome.failures or outcome.holds is False else 0


def mnist_main(options: MnistOptions) -> int:
    """Runs the paper's experiment; returns the exit status, as `main`."""
    return main(options.sweep())
