"""Flags of XLA that make tests compile faster, where this version of it knows them."""

import contextlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

# Tests compile more than they compute. Without LLVM's passes a tiny sweep takes 15 s, not 38; with
# the older emitters of fusions too, XLA's part of one fell from 11 s to 6. A program compiled in
# one part takes less of the processor than in several side by side: small ones a sixth less.
QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)


def known_flags(flags: tuple[str, ...], folder: Path) -> list[str]:
    """Those of XLA's flags that this version of it knows: it aborts a process that has another.

    Each is tried in a process of its own, once a version; the answer is kept in `folder`.
    """
    answer = folder / f"xla_flags-{version('jaxlib')}.json"
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(answer.read_text())
        if set(kept) == set(flags):
            return [flag for flag in flags if kept[flag]]
    tries = {
        flag: subprocess.Popen(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env=os.environ | {"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for flag in flags
    }
    known = {flag: process.wait() == 0 for flag, process in tries.items()}
    folder.mkdir(parents=True, exist_ok=True)
    partial = answer.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(known, indent=2))
    partial.replace(answer)
    return [flag for flag in flags if known[flag]]
