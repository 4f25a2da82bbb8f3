"""`sublab verify` on the command line."""

from experiments.figures_command import draw
from experiments.verify import run, tables
from sublab.machine import prepare_jax

OPTIONS = run.Options


def main(options: run.Options) -> int:
    """Verifies the theory, prints the claims and draws the figures; returns the exit status.

    Raises:
        InputError: an option is wrong.
        RecordError: the folder of the records cannot be written.
    """
    prepare_jax()
    outcome = run.run(options)
    tables.print_claims(outcome.summary)
    draw([outcome.summary, *outcome.examples])
    return 0 if outcome.holds else 1
