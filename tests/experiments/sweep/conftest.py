"""One sweep that many tests look at, and a count of what is trained."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from experiments.sweep.run import SweepOutcome
from tests.experiments.sweep.small import sweep
from toymlp import stages


@pytest.fixture(scope="session")
def whole_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepOutcome]:
    """A sweep of four settings in three runs, as it was left behind."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, sweep(folder, runs=3, group=2)


@pytest.fixture(scope="session")
def whole(whole_folder: tuple[Path, SweepOutcome]) -> SweepOutcome:
    """What that sweep gave."""
    return whole_folder[1]


@pytest.fixture
def copied(whole_folder: tuple[Path, SweepOutcome], tmp_path: Path) -> Path:
    """A folder whose `out` is a copy of that sweep's records, to work on."""
    shutil.copytree(whole_folder[0] / "out", tmp_path / "out")
    return tmp_path


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many models of each stage were trained in this process."""
    counts: Counter[str] = Counter()
    fit = stages.fit

    def counted(architecture, fits, material, context, what):
        counts[what] += len(fits)
        return fit(architecture, fits, material, context, what)

    monkeypatch.setattr(stages, "fit", counted)
    return counts
