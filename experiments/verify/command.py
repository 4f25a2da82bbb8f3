"""`sublab verify` on the command line."""

from experiments.draw import draw
from experiments.verify import run
from experiments.verify.run import VerifyOptions
from experiments.verify.tables import print_claims
from sublab.machine import prepare_jax

OPTIONS = VerifyOptions


def main(options: VerifyOptions) -> int:
    """Verifies the theory, prints the claims and draws the figures.

    Args:
        options: what the command line gave.

    Returns:
        The exit status: 0 where everything holds that is claimed, else 1.

    Raises:
        InputError: an option is out of its range.
        RecordError: `options.out` cannot be written.
    """
    prepare_jax()
    outcome = run.run(options)
    print_claims(outcome.summary)
    draw([outcome.summary, *outcome.examples])
    return 0 if outcome.holds else 1
