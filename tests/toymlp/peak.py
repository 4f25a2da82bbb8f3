"""Peak memory of one epoch of many students: `python -m tests.toymlp.peak COUNT`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from sublab import devices
from toymlp import data
from toymlp.networks import Forward, architectures
from toymlp.settings import PREPRINT
from toymlp.stages import Draws, orders_of
from toymlp.train import Context, Fit, Material, fit, logits_of

ROOT = Path(__file__).parents[2]


def peak_of(count: int, environment: dict[str, str]) -> float:
    """Megabytes that a fresh process takes at most while so many students train one epoch.

    Args:
        count: how many; each has a teacher of its own.
        environment: the environment of the process.
    """
    command = [sys.executable, "-m", "tests.toymlp.peak", str(count)]
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | environment,
    )
    return float(process.stdout)


def train(count: int) -> None:
    """One epoch of the paper's students on as much noise as the paper has."""
    mesh = devices.population_mesh()
    architecture, _ = architectures(PREPRINT)
    draws = Draws(architecture, 0)
    orders = orders_of(PREPRINT, "order", range(count), 0)
    starts = [draws.reference(1.0, run) for run in range(count)]
    random = np.random.default_rng(0)
    inputs = devices.replicate(
        random.random((60_000, architecture.pixels), np.float32) * 2 - 1, mesh
    )
    targets = devices.replicate(logits_of(Forward(architecture), starts, inputs, mesh), mesh)
    students = [
        Fit(
            start,
            PREPRINT.student,
            aux=3,
            order=orders[run],
            target=count - 1 - run,
            snapshots=(1,),
        )
        for run, start in enumerate(starts)
    ]
    context = Context(data.load("digits"), 0, mesh)
    fit(architecture, students, lambda _: Material(inputs, targets), context, "students")


if __name__ == "__main__":
    devices.use_every_core()
    train(int(sys.argv[1]))
    # Not getrusage: a child there inherits the peak of the process that started it.
    status = Path("/proc/self/status").read_text()
    print(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024)
