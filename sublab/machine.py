"""This machine: cores, memory, compiled programs, and what a record says of all that made it."""

import contextlib
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from sublab.devices import cores, use_every_core
from sublab.errors import InputError
from sublab.randomness import IMPLEMENTATION

_PACKAGES = ("subliminal-lab", "jax", "jaxlib", "flax", "optax", "numpy", "polars")


# What tells one processor's compiled programs from another's: the features that a compiler may use
# (`flags` on x86, `Features` on ARM, `isa` on RISC-V) and the model that it tunes for.
_TELLING = ("flags", "Features", "isa", "model name", "CPU implementer", "CPU part", "CPU variant")


@cache
def prepare_jax() -> None:
    """Every core, and a cache of compiled programs that outlives the process.

    Once a process, before JAX runs anything; later calls do nothing.

    Raises:
        InputError: JAX has no device to compute on, as where JAX_PLATFORMS asks for a GPU that is
            not there.
    """
    # Where JAX runs already (in a notebook, in a test), its devices are what they are.
    with contextlib.suppress(RuntimeError):
        use_every_core()
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        folder = programs_folder()
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
        jax.local_devices()
    # Where the plugin of the platform is not installed, JAX fails an assertion of its own.
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS")
        reason = f"{error}".split("\n", 1)[0] or "the platform is not installed"
        what = f"JAX_PLATFORMS={asked}; unset it, or name one that is there: " if asked else ""
        raise InputError(f"JAX finds no device to compute on ({what}{reason})") from None


def programs_folder() -> Path:
    """Where compiled programs are kept: apart for every kind of processor and version of jaxlib.

    A home folder may serve many machines, and a program of one may not run on another.
    """
    import pooch

    kind = hashlib.sha256(processor_kind().encode()).hexdigest()[:8]
    return Path(pooch.os_cache("subliminal-lab")) / "programs" / f"{version('jaxlib')}-{kind}"


def processor_kind(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """All that tells a compiler for which processor it compiles, as one line.

    Args:
        cpuinfo: file in which Linux describes the processors; elsewhere there is none, and the
            system's own tools are asked.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {_named_by_system()}"
    # All cores, each different description once: large and small ones may differ.
    telling = {line for line in lines if line.split(":", 1)[0].strip() in _TELLING}
    return " ".join([platform.machine(), *sorted(telling)])


def _named_by_system() -> str:
    """The processor's name where there is no /proc/cpuinfo: macOS, Windows."""
    command = ("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        name = ""
    return name or platform.processor()


@contextmanager
def exact(x64: bool = False) -> Iterator[None]:
    """Inside, a computation gives the numbers of its record, whatever the caller's settings are.

    Types of 32 bits (or of 64), the random generator that the project names, and products in full
    precision. What the caller had, by JAX_ENABLE_X64, JAX_DEFAULT_PRNG_IMPL and the like or by
    `jax.config`, is back afterwards. It holds for this thread alone: a function
    that other threads run enters it there. Serves as a decorator too: `@exact()`.

    Args:
        x64: whether numbers have 64 bits where no type is named.

    Example:
        >>> import jax.numpy as jnp
        >>> with exact():
        ...     jnp.arange(3.0).dtype
        dtype('float32')
    """
    with (
        jax.enable_x64(x64),
        jax.default_prng_impl(IMPLEMENTATION),
        jax.threefry_partitionable(True),
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.transfer_guard("allow"),
    ):
        yield


def release_programs(share: float = 0.5) -> None:
    """Lets compiled programs go before Linux runs out of memory maps for them.

    A process may have 65,530 maps, as a rule, and the programs of one setting take a thousand: a
    long sweep would be aborted by the compiler. What is needed again comes from the cache on disk.

    Args:
        share: share of the maps that a process may have; below it nothing is let go.
    """
    try:
        with Path("/proc/self/maps").open("rb") as maps:
            taken = sum(1 for _ in maps)
        most = int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return
    if taken > share * most:
        jax.clear_caches()


def memory_limit() -> int:
    """Bytes that a population may take: most of an accelerator's memory, half of the host's."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        limit = (device.memory_stats() or {}).get("bytes_limit")
        if limit:
            return int(0.8 * limit) * len(jax.local_devices())
    try:
        available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        return int(available) * 1024 // 2
    except (OSError, IndexError, ValueError):
        return 2 << 30


def provenance(
    *, wall_seconds: float | None, data_sha256: str | None = None, data_origin: str | None = None
) -> dict[str, Any]:
    """Everything about the making of a record that does not decide its numbers.

    Args:
        wall_seconds: seconds that the record took, compilation included; None where not all of
            it was made at one time.
        data_sha256: SHA-256 of the dataset; None where there is none.
        data_origin: folder that the dataset was read from.
    """
    devices = jax.local_devices()
    return {
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in _PACKAGES},
        "device": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processor": _processor(),
            "system": platform.platform(),
        },
        "git": _git_revision(),
        "data": {"sha256": data_sha256, "origin": data_origin} if data_sha256 else None,
        "wall_seconds": None if wall_seconds is None else round(wall_seconds, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else _named_by_system() or platform.machine()} x {cores()}"


def _git_revision() -> str | None:
    """The commit of this source tree, with +changes where it is not clean; None outside git."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ("git", "-C", str(here), *arguments), capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # An installed copy may lie inside some other project's checkout.
        if Path(git("rev-parse", "--show-toplevel")) != here.parent:
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
