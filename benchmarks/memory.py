"""Peak memory of distilling a population: `python -m benchmarks.memory`.

A process of its own for every size: one model and 25, few and many steps an epoch, one device and
one a core. Of each pair that differs in models alone the difference is what one model more takes.
"""

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from sublab import devices
from sublab.machine import provenance

_FEW, _MANY = 1, 25


@dataclass(frozen=True)
class MemoryBenchmark:
    """Peak memory by number of models, steps and devices, in megabytes."""

    images: tuple[int, int] = (15_000, 60_000)
    """Noise images an epoch: few, and as many as the paper has."""
    batch: int = 1024
    """Images a step."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the figures to this file."""


def main(options: MemoryBenchmark) -> None:
    """Measures, prints a line for every number of steps and devices, and writes it where asked."""
    whole = replace(options, json=None) == MemoryBenchmark()
    figures: dict[str, Any] = {"size": "full" if whole else "other"}
    begun = time.monotonic()
    for images, count in product(options.images, dict.fromkeys((1, devices.cores()))):
        few, many = (
            peak_in_a_process(models, images, options.batch, count) for models in (_FEW, _MANY)
        )
        each = (many - few) / (_MANY - _FEW)
        steps = -(-images // options.batch)
        name = f"{steps} steps, {count} device{'s' if count > 1 else ''}"
        figures[name] = {"one": few, "many": many, "a_model": each}
        print(f"{name}: {few:.0f} MB for {_FEW} model, {many:.0f} for {_MANY}: {each:.1f} a model")
    figures["made_by"] = provenance(wall_seconds=time.monotonic() - begun)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def peak_in_a_process(models: int, images: int, batch: int, count: int | None = None) -> float:
    """Megabytes that a fresh process takes at most while some students train one epoch.

    Args:
        models: students.
        images: noise images of the epoch.
        batch: images a step.
        count: devices; by default one a core.
    """
    numbers = map(str, (models, images, batch, count or devices.cores()))
    program = "from benchmarks.memory import peak; import sys; peak(*map(int, sys.argv[1:]))"
    command = [sys.executable, "-c", program, *numbers]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root)
    return float(done.stdout)


def peak(models: int, images: int, batch: int, count: int) -> None:
    """Trains, and prints the peak of this process; arguments as those of `peak_in_a_process`."""
    jax.config.update("jax_num_cpu_devices", count)
    from benchmarks.training import PopulationTraining

    mesh = devices.population_mesh()
    PopulationTraining("distillation", models, mesh, images, batch).epoch()
    # Not getrusage: a child there inherits the peak of the process that started it.
    status = Path("/proc/self/status").read_text()
    print(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024)


if __name__ == "__main__":
    main(tyro.cli(MemoryBenchmark))
