"""The command `sublab verify`: runs, prints, draws, and gives the verdict as an exit status."""

from experiments.verify import run as verify
from experiments.verify.run import VerifyOptions
from experiments.verify.tables import print_claims
from figures.verify import DRAW
from sublab.machine import prepare_jax

OPTIONS = VerifyOptions


def main(options: VerifyOptions) -> int:
    """Verifies the theory, prints the claims, and draws the figures into `options.out/figures`.

    Args:
        options: what the command line gave.

    Returns:
        0 where everything holds that is claimed, else 1.

    Raises:
        InputError: an option is out of its range.
        RecordError: `options.out` cannot be written.
    """
    prepare_jax()
    outcome = verify.run(options)
    print_claims(outcome.summary)
    for record in (outcome.summary, *outcome.examples):
        for path in DRAW[record.folder.parent.name](record, options.out / "figures"):
            print(f"figure: {path}")
    return 0 if outcome.holds else 1
