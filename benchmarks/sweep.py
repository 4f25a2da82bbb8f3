"""Throughput of a whole sweep command: teachers, and students for six values of m.

The command runs in a process of its own with nothing compiled before. What it computes is counted
as the gradients need it, of each network at its own m; its time is everything, from the start of
Python to the last record. The machine's product rate is measured before and after.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from benchmarks import toy
from sublab import devices
from sublab.console import say
from sublab.settings import build
from toymlp import data
from toymlp.networks import architectures
from toymlp.settings import Setting

AUX = (2, 3, 5, 10, 20, 50)


@dataclass(frozen=True)
class SweepBenchmark:
    """Share of the machine's matrix-product rate that a whole sweep command reaches."""

    runs: int = 20
    """Runs of each value of m."""
    epochs: int = 5
    """Epochs of teachers and students."""
    images: int = 60_000
    """Noise images an epoch."""
    dataset: str = "mnist"
    """Data set of the teachers."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the figures to this file."""


def main(options: SweepBenchmark) -> None:
    """Measures, and prints one line for each figure."""
    devices.use_every_core()
    jax.config.update("jax_enable_compilation_cache", False)
    dataset = data.load(options.dataset, say=say)
    rates = [_rate()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "throughput.toml"
        path.write_text(
            f'[base]\ndataset = "{options.dataset}"\nteacher.epochs = {options.epochs}\n'
            f"student.epochs = {options.epochs}\nstudent.inputs.count = {options.images}\n"
            f"[grid]\nmodel.aux = {list(AUX)}\n"
        )
        words = ("sweep", str(path), "--runs", str(options.runs), "--out", f"{folder}/out")
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "experiments.cli", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        )
        seconds = time.perf_counter() - start
    rates.append(_rate())
    setting = build(Setting, {"dataset": options.dataset})

    def gradient(aux: int) -> int:
        return architectures(setting, aux)[1].gradient_operations

    teachers, students = len(dataset.train_images) * gradient(1), sum(map(gradient, AUX))
    needed = options.runs * options.epochs * (teachers + options.images * students)
    rate = float(np.mean(rates))
    figures = {
        "models": options.runs * (1 + len(AUX)),
        "seconds": seconds,
        "gflops": needed / seconds / 1e9,
        "product_gflops": [rate / 1e9 for rate in rates],
        "share_of_product_rate": needed / seconds / rate,
    }
    print(
        f"a sweep of {len(AUX)} values of m x {options.runs} runs: {figures['models']} models in "
        f"{seconds:.0f} s, everything counted\n"
        f"{figures['gflops']:.0f} useful Gflop/s, {figures['share_of_product_rate']:.1%} of the "
        f"machine's product rate ({rates[0] / 1e9:.0f} before, {rates[1] / 1e9:.0f} after)"
    )
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _rate() -> float:
    product, operations = toy.products(toy.ToyBenchmark(), devices.population_mesh())
    product()
    return operations / float(np.median([toy.timed(product) for _ in range(20)]))


if __name__ == "__main__":
    main(tyro.cli(SweepBenchmark))
