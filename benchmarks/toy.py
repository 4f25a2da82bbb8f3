"""`make bench`: speed and memory of the MNIST experiment on this machine, in one run.

Everything is a ratio to what the same machine does in the same minutes: the rate of float32
matrix products at the model's shapes is measured between the trainings, not once before them.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from benchmarks.arithmetic import product_operations
from benchmarks.memory import peak_in_a_process
from benchmarks.training import Kind, PopulationTraining, architecture, gradient_products
from sublab import devices
from sublab.console import say
from sublab.machine import provenance

_STUDENT = architecture("distillation")
_SIZES = (_STUDENT.pixels, *_STUDENT.hidden, _STUDENT.outputs)


@dataclass(frozen=True)
class ToyBenchmark:
    """Speed and memory of teacher training and distillation at the paper's shapes."""

    models: int = 8
    """Models in the population."""
    epochs: int = 5
    """Timed epochs, after one that warms up."""
    images: int = 60_000
    """Images an epoch."""
    batch: int = 1024
    """Images a step."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the figures to this file."""


def main(options: ToyBenchmark) -> None:
    """Measures, prints a table, and writes it where asked."""
    devices.use_every_core()
    # Compilation is one of the things measured.
    jax.config.update("jax_enable_compilation_cache", False)
    mesh = devices.population_mesh()
    say(f"{mesh.size} device(s), {options.models} models, {options.images:,} images an epoch")
    figures: dict[str, Any] = {"products": {}, "teacher": {}, "distillation": {}}
    product, operations_of_product = products(options, mesh)
    product()
    one_device = devices.population_mesh(list(mesh.devices.flat)[:1])
    kinds: tuple[Kind, ...] = ("teacher", "distillation")
    trainings: dict[Kind, PopulationTraining] = {
        kind: PopulationTraining(kind, options.models, mesh, options.images, options.batch)
        for kind in kinds
    }
    rates: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in trainings}
    for name, training in trainings.items():
        figures[name]["compile_seconds"] = timed(training.compile)
        training.epoch()
    for epoch in range(options.epochs):
        for name, training in trainings.items():
            rates.append(operations_of_product / _best(product, 7))
            seconds[name].append(timed(training.epoch))
        say(f"epoch {epoch + 1} of {options.epochs}")
    product_rate = float(np.median(rates))
    figures["products"] = {
        "gflops": product_rate / 1e9,
        "numpy_gflops": _numpy_rate(options) / 1e9,
    }
    for name, training in trainings.items():
        typical = float(np.median(seconds[name]))
        gradient = architecture(name).gradient_operations
        needed = options.models * options.images * gradient
        figures[name] |= {
            "model_epochs_per_second": options.models / typical,
            "gflops": needed / typical / 1e9,
            "share_of_product_rate": needed / typical / product_rate,
            "arithmetic_over_needed": training.operations() / needed,
        }
        say(f"one program per model: {name}")
        alone = PopulationTraining(name, 1, one_device, options.images, options.batch)
        alone.compile()
        alone.epoch()
        loop = options.models * float(np.median([timed(alone.epoch) for _ in range(3)]))
        figures[name]["population_over_loop"] = loop / typical
    say("peak memory of 1 and 25 models")
    peaks = {size: peak_in_a_process(size, options.images, options.batch) for size in (1, 25)}
    figures["memory"] = {
        "megabytes_of_1": peaks[1],
        "megabytes_of_25": peaks[25],
        "megabytes_a_model": (peaks[25] - peaks[1]) / 24,
    }
    figures["made_by"] = provenance(data_sha256="none", data_origin="random", wall_seconds=0.0)
    _print(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")


def products(options: ToyBenchmark, mesh: Mesh) -> tuple[Callable[[], Any], int]:
    """The eight products of one gradient step and nothing else, on every device at once."""
    size = mesh.size * (devices.lanes(mesh) or options.models)
    rng = np.random.default_rng(0)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(size=(size, *shape)).astype(np.float32)

    weights = [random(a, b) for a, b in pairwise(_SIZES)]
    images = random(options.batch, _SIZES[0])

    program = jax.jit(lambda cut: devices.over_population(gradient_products, mesh, cut, ()))
    cut = devices.spread((images, weights), mesh)
    operations = product_operations(jax.make_jaxpr(program)(cut))
    return lambda: jax.block_until_ready(program(cut)), operations


def _numpy_rate(options: ToyBenchmark) -> float:
    """The rate of NumPy's BLAS over the same eight products of one model."""
    rng = np.random.default_rng(0)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for index, (a, b) in enumerate(pairwise(_SIZES)):
        x, w, d = (
            rng.normal(size=shape).astype(np.float32)
            for shape in ((options.batch, a), (a, b), (options.batch, b))
        )
        pairs += [(x, w), (x.T, d), *([(d, w.T)] if index else [])]
    operations = sum(2 * x.shape[0] * x.shape[1] * y.shape[1] for x, y in pairs)
    return operations / _best(lambda: [x @ y for x, y in pairs], 50)


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _best(work: Callable[[], Any], times: int) -> float:
    return min(timed(work) for _ in range(times))


def _print(figures: dict[str, Any]) -> None:
    table = Table("figure", "teacher", "distillation", title="784-256-256-13, float32")
    rows = (
        ("model-epochs a second", "model_epochs_per_second", "{:.2f}"),
        ("useful Gflop/s", "gflops", "{:.0f}"),
        ("share of the machine's product rate", "share_of_product_rate", "{:.1%}"),
        ("arithmetic over what gradients need", "arithmetic_over_needed", "{:.4f}"),
        ("compile, s", "compile_seconds", "{:.1f}"),
        ("population over one program per model", "population_over_loop", "{:.2f} x"),
    )
    for title, name, form in rows:
        table.add_row(
            title, *(form.format(figures[kind][name]) for kind in ("teacher", "distillation"))
        )
    console = Console(width=100)
    console.print(table)
    products, memory, device = figures["products"], figures["memory"], figures["made_by"]["device"]
    console.print(
        f"machine: {device['processor']}, {device['count']} x {device['kind']}\n"
        f"float32 products at these shapes: {products['gflops']:.0f} Gflop/s "
        f"(NumPy's BLAS, one model at a time: {products['numpy_gflops']:.0f})\n"
        f"peak memory: {memory['megabytes_of_1']:.0f} MB for 1 model, "
        f"{memory['megabytes_of_25']:.0f} MB for 25: {memory['megabytes_a_model']:.1f} MB a model",
        highlight=False,
    )


if __name__ == "__main__":
    main(tyro.cli(ToyBenchmark))
