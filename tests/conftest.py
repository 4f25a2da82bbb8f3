"""What all tests share: two CPU devices, checked signatures, a cache of compiled programs."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from tests.signatures import check_signatures
from tests.xla_flags import QUICK, known_flags

# Half of what collecting the tests takes is to compile them and what they import: that is kept, for
# the next run and for every process that a test starts, whatever the environment says.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A shell has what it starts in the background ignore interrupts, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before anything of ours is imported: every annotated shape is checked at run time.
check_signatures(["sublab", "theory", "toymlp", "llm_harness", "experiments"])
jax.config.update("jax_num_cpu_devices", 2)
# Compiled programs outlive the run; commands that tests start find them too.
PROGRAMS = Path(__file__).parents[1] / ".cache" / "programs"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(PROGRAMS)
jax.config.update("jax_compilation_cache_dir", str(PROGRAMS))
# Each once, also in a process whose parent set them: a program is found again by all of its flags.
_SET = os.environ.get("XLA_FLAGS", "").split()
_QUICK = [flag for flag in known_flags(QUICK, PROGRAMS.parent) if flag not in _SET]
os.environ["XLA_FLAGS"] = " ".join([*_QUICK, *_SET])

from hypothesis import settings  # noqa: E402

from sublab import devices, machine  # noqa: E402
from toymlp import data  # noqa: E402

# Tracing makes many small objects that live on; looking for cycles among them as often as Python
# does by itself took 6 % of the time.
gc.set_threshold(20_000, 20, 20)

settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.load_profile("reproducible")


def pytest_collection_finish() -> None:
    """What modules and tests hold is looked through no more."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Keeps every program, also the smallest.

    A process that finds them takes half the time for small operations, and to write them took no
    time that could be measured. It is said before every test and its fixtures, since a command that
    runs in a test's own process sets what users have.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """A worker's programs are let go in time, as those of a long sweep are."""
    yield
    machine.release_programs()


@pytest.fixture(scope="session")
def computing() -> dict[str, str]:
    """The environment of a command that computes for longer than it compiles."""
    flags = os.environ["XLA_FLAGS"].replace("optimization_level=0", "optimization_level=1")
    return os.environ | {"XLA_FLAGS": flags}


@pytest.fixture(scope="session")
def mesh() -> jax.sharding.Mesh:
    return devices.population_mesh()


@pytest.fixture(scope="session")
def digits() -> data.Dataset:
    return data.load("digits")


@pytest.fixture(scope="session")
def mnist() -> data.Dataset:
    try:
        return data.load("mnist")
    except data.DatasetUnavailableError as error:
        pytest.skip(f"real MNIST is needed: {error}")


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Inside, files are reached with an ordinary user's rights, also when root runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def readable_tmp(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that an ordinary user can walk into."""
    base = tmp_path_factory.getbasetemp()
    # pytest's own folders and nothing above them.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(base) or folder.name.startswith("pytest-"):
            folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path
