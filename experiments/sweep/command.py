"""`sublab sweep` and `sublab mnist` on the command line."""

import sys
from dataclasses import dataclass, fields

from experiments.draw import draw
from experiments.sweep import run, tables
from experiments.sweep.run import RunOptions, SweepOptions
from sublab.machine import prepare_jax

MNIST = "fig10b"


@dataclass(frozen=True)
class MnistOptions(RunOptions):
    """The paper's MNIST experiment in six conditions: `sublab sweep --preset fig10b`."""

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
