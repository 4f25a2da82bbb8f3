"""Models that many tests look at, each trained once."""

import jax
import pytest

from tests.toymlp.trials import GROUP, RUNS, distil, tiny
from toymlp.data import Dataset
from toymlp.stages import Student
from toymlp.train import Context


@pytest.fixture(scope="session")
def context(digits: Dataset, mesh: jax.sharding.Mesh) -> Context:
    return Context(digits, 0, mesh)


@pytest.fixture(scope="session")
def group(context: Context) -> dict[tuple[str, int], Student]:
    """Every setting of `GROUP` in every run, as one population; all have room for five logits."""
    wanted = {name: tiny(values) for name, values in GROUP.items()}
    students = distil(list(wanted.values()), context)
    assert len(students) == len(GROUP) * len(RUNS)
    return {(name, run): students[setting, run] for name, setting in wanted.items() for run in RUNS}
