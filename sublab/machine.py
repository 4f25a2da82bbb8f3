"""This machine: cores, memory, compiled programs, and what a record says of all that made it."""

import contextlib
import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import pooch

from sublab.devices import cores, use_every_core

_PACKAGES = ("subliminal-lab", "jax", "jaxlib", "flax", "optax", "numpy", "polars")


@cache
def prepare_jax() -> None:
    """Every core, and a cache of compiled programs that outlives the process.

    Once a process, before JAX runs anything; later calls do nothing.
    """
    # Where JAX runs already (in a notebook, in a test), its devices are what they are.
    with contextlib.suppress(RuntimeError):
        use_every_core()
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        # Programs are compiled for one processor; a shared home may serve many kinds.
        try:
            features = Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0]
        except OSError:
            features = ""
        kind = hashlib.sha256(features.encode()).hexdigest()[:8]
        folder = Path(pooch.os_cache("subliminal-lab")) / "programs" / kind
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def release_programs(share: float = 0.5) -> None:
    """Lets compiled programs go before Linux runs out of memory maps for them.

    A process may have 65,530 maps, as a rule, and the programs of one setting take a thousand: a
    long sweep would be aborted by the compiler. What is needed again comes from the cache on disk.

    Args:
        share: of the maps that a process may have; below it nothing is let go.
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
        found = (device.memory_stats() or {}).get("bytes_limit")
        if found:
            return int(0.8 * found) * len(jax.local_devices())
    try:
        available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
        return int(available) * 1024 // 2
    except (OSError, IndexError, ValueError):
        return 2 << 30


def provenance(
    *, wall_seconds: float, data_sha256: str | None = None, data_origin: str | None = None
) -> dict[str, Any]:
    """Everything about the making of a record that does not decide its numbers.

    Args:
        wall_seconds: what the group took, compilation included.
        data_sha256: of the dataset; None where there is none.
        data_origin: where it was read from.
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
        "wall_seconds": round(wall_seconds, 3),
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
    return f"{names[0] if names else platform.machine()} x {cores()}"


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
