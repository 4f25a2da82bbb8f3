"""`sublab reproduce`: the theory verified, and the MNIST experiment, or `digits` without MNIST."""

from dataclasses import dataclass, replace
from pathlib import Path

from experiments.sweep import command as sweep_command
from experiments.sweep import run as sweep
from experiments.sweep.command import MnistOptions
from experiments.verify import command as verify_command
from experiments.verify.run import VerifyOptions
from sublab.console import say
from toymlp.data import DatasetUnavailableError


@dataclass(frozen=True)
class ReproduceOptions:
    """Everything, at the paper's settings: records, tables and figures."""

    runs: int = 20
    """Independent runs of the MNIST experiment."""
    instances: int = 10_000
    """Random instances on which the theory is verified."""
    out: Path = Path("results")
    """Folder for records and figures; what is found there is reused."""
    seed: int = 0
    """Base seed of the verification and of the MNIST experiment."""
    data_dir: Path | None = None
    """Folder with the data sets, looked at first."""
    dataset: str = "mnist"
    """Images and labels of the MNIST experiment; the paper's numbers are of mnist."""
    group: int | None = None
    """Runs of the MNIST experiment trained together; fewer take less memory."""


OPTIONS = ReproduceOptions


def main(options: ReproduceOptions) -> int:
    """The theory's claims, then the MNIST experiment; returns the worse exit status.

    Raises:
        InputError, RecordError: as both experiments.
    """
    mnist = _mnist(options)
    # Arguments of the second are looked at before the first takes its minutes.
    mnist = _with_data(mnist)
    claims = verify_command.main(
        VerifyOptions(instances=options.instances, out=options.out, seed=options.seed)
    )
    # Both are shown, whatever the first one's verdict.
    status = max(claims, sweep_command.mnist_main(mnist))
    print(f"on one page, beside the paper's claims: sublab report --out {options.out}")
    return status


def _mnist(options: ReproduceOptions) -> MnistOptions:
    return MnistOptions(
        set=() if options.dataset == "mnist" else (f"dataset={options.dataset}",),
        runs=options.runs,
        out=options.out,
        seed=options.seed,
        data_dir=options.data_dir,
        group=options.group,
    )


def _with_data(mnist: MnistOptions) -> MnistOptions:
    """The options; of `digits`, said loudly, if MNIST can be had from nowhere."""
    try:
        sweep.check(mnist.sweep())
    except DatasetUnavailableError as error:
        if mnist.set:
            raise
        say(f"WARNING: {error}")
        say(
            "WARNING: this run is on `digits`, scikit-learn's 8 x 8 images, NOT on MNIST; its "
            "numbers are not the paper's and get no verdict"
        )
        return replace(mnist, set=("dataset=digits",))
    return mnist
