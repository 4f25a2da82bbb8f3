"""`sublab reproduce`: the theory verified, and the MNIST experiment, or `digits` without MNIST."""

from dataclasses import dataclass, replace
from pathlib import Path

from experiments import mnist
from experiments.verify import run as verify
from sublab.console import say
from toymlp import data
from toymlp.settings import DatasetName


@dataclass(frozen=True)
class Options:
    """Everything, at the paper's settings: records, tables and figures."""

    runs: int = 20
    """Independent runs of the MNIST experiment."""
    instances: int = 10_000
    """Random instances on which the theory is verified."""
    out: Path = Path("results")
    """Folder for records and figures; finished groups found there are reused."""
    seed: int = 0
    """Base seed."""
    data_dir: Path | None = None
    """Folder with one folder per data set, looked at first."""
    dataset: DatasetName = "mnist"
    """Images and labels; the paper's numbers are of mnist."""


@dataclass(frozen=True)
class Outcome:
    """What both gave."""

    verify: verify.VerifyOutcome
    mnist: mnist.Outcome


def run(options: Options) -> Outcome:
    """The theory's claims, then the MNIST experiment.

    Raises:
        InputError, RecordError: as `experiments.verify.run.run` and `experiments.mnist.run`.
    """
    # Arguments of the second are looked at before the first takes its minutes.
    mnist.check(_mnist(options))
    claims = verify.run(verify.VerifyOptions(options.instances, options.out, options.seed))
    return Outcome(claims, _train(_mnist(options)))


def _mnist(options: Options) -> mnist.Options:
    return mnist.Options(
        dataset=options.dataset, runs=options.runs, out=options.out, seed=options.seed,
        data_dir=options.data_dir,
    )  # fmt: skip


def _train(setting: mnist.Options) -> mnist.Outcome:
    """The MNIST experiment; on `digits`, said loudly, if MNIST can be had from nowhere."""
    try:
        return mnist.run(setting)
    except data.DatasetUnavailableError as error:
        say(f"WARNING: {error}")
        say(
            "WARNING: this run is on `digits`, scikit-learn's 8 x 8 images, NOT on MNIST; its "
            "numbers are not the paper's and get no verdict"
        )
        return mnist.run(replace(setting, dataset="digits"))
