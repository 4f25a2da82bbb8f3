"""This machine: its cores for JAX, its memory, and where compiled programs are kept."""

import contextlib
import hashlib
import os
from functools import cache
from pathlib import Path

import jax
import pooch

from populations.devices import use_every_core


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
