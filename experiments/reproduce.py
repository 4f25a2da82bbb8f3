"""`sublab reproduce`: the paper's MNIST experiment, or the same on `digits` where MNIST is not."""

from dataclasses import dataclass, replace
from pathlib import Path

from experiments import mnist
from experiments.progress import say
from toymlp import data


@dataclass(frozen=True)
class Options:
    """Everything, at the paper's settings: records, tables and figures."""

    runs: int = 20
    """Independent runs of the MNIST experiment."""
    out: Path = Path("results")
    """Folder for records and figures; finished groups found there are reused."""
    seed: int = 0
    """Base seed."""
    data_dir: Path | None = None
    """Folder with one folder per data set, looked at first."""


def run(options: Options) -> mnist.Outcome:
    """The MNIST experiment; on `digits`, said loudly, if MNIST can be had from nowhere.

    Raises:
        InputError, RecordError: as `experiments.mnist.run`.
    """
    setting = mnist.Options(
        runs=options.runs, out=options.out, seed=options.seed, data_dir=options.data_dir
    )
    try:
        return mnist.run(setting)
    except data.DatasetUnavailableError as error:
        say(f"WARNING: {error}")
        say(
            "WARNING: this run is on `digits`, scikit-learn's 8 x 8 images, NOT on MNIST; its "
            "numbers are not the paper's and get no verdict"
        )
        return mnist.run(replace(setting, dataset="digits"))
