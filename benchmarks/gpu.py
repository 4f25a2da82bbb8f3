"""The package on one accelerator, with nothing to install: `python -m benchmarks.gpu`.

Needs JAX, flax, optax, jaxtyping, NumPy, SciPy and scikit-learn, and the data set in a folder. It
checks that the numbers are those of a CPU, measures what the machine can do at most, and runs the
paper's MNIST experiments of 100 runs in each precision. Every part is written to one JSON file as
soon as it is done; a part that fails, or that time does not allow, is noted there, and the others
go on.

    python -m benchmarks.gpu --data-dir data/mnist --json gpu.json
    python -m benchmarks.gpu --data-dir data/mnist --json smoke.json --size smoke
"""

import argparse
import json
import os
import time
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks import golden
from benchmarks.arithmetic import product_operations
from benchmarks.decoder import SMOLLM2, DecoderSpeed, seconds
from benchmarks.equivalence import equivalence
from benchmarks.training import gradient_products
from llm_harness.decoder.network import DecoderConfig
from sublab import devices
from sublab.machine import exact, provenance
from sublab.settings import build
from sublab.statistics import mean_interval
from toymlp import data
from toymlp.checks import canonical
from toymlp.networks import Architecture, Forward, architectures
from toymlp.settings import AUX_HEAD, Setting, clone_of, teacher_of
from toymlp.stages import Student, TrainedModel, clones, population_of, students, teachers
from toymlp.train import PRECISIONS, Context, Precision, logits_of

Figures = dict[str, Any]
# Relative errors of a product of random matrices, far apart: 23, 10 and 7 bits of mantissa.
_ERRORS: dict[Precision, tuple[float, float]] = {
    "float32": (0.0, 1e-5),
    "tf32": (1e-5, 1e-3),
    "bfloat16": (1e-3, 1e-2),
}


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        runs: of every condition.
        inputs: noise images that a student learns from.
        square: rows of the large square products.
        megabytes: of the array whose copy measures the memory.
        models: models of the products at the network's shapes.
        lengths: numbers of cloning epochs.
        aux: numbers of auxiliary logits.
        decoder: the decoder's sizes.
        sequences: sequences of a forward pass, of a training step, and completions drawn.
        length: tokens of a sequence, and tokens drawn.
    """

    runs: int = 100
    inputs: int = 60_000
    square: int = 8_192
    megabytes: int = 2_048
    models: int = 100
    lengths: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50, 100)
    aux: tuple[int, ...] = (2, 3, 5, 10, 20, 50)
    decoder: DecoderConfig = SMOLLM2
    sequences: tuple[int, int, int] = (64, 16, 256)
    length: int = 256


SIZES = {
    "full": Size(),
    "smoke": Size(
        runs=2,
        inputs=2_048,
        square=256,
        megabytes=16,
        models=2,
        lengths=(0, 1),
        aux=(2, 3),
        decoder=DecoderConfig(vocabulary=128),
        sequences=(2, 2, 4),
        length=16,
    ),
}


@dataclass
class Clock:
    """When each epoch of each training ended, and how long was spent compiling."""

    compiling: float = 0.0
    _ends: dict[str, dict[str, float]] = field(default_factory=dict)

    def listen(self) -> None:
        """Hears of every compilation from now on."""

        def heard(event: str, duration_secs: float, **kwargs: str | int) -> None:
            del kwargs
            if event.endswith("backend_compile_duration"):
                self.compiling += duration_secs

        jax.monitoring.register_event_duration_secs_listener(heard)

    def report(self, done: int, what: str) -> None:
        """As `Context.report` is called."""
        del done
        stage, epoch = what.rsplit(", ", 1)
        # Blocks of one epoch report one after the other: the last one counts.
        self._ends.setdefault(stage, {})[epoch] = time.perf_counter()

    def epoch_seconds(self, what: str) -> float | None:
        """The median time of an epoch after the first, which compiles; then forgets."""
        ends = list(self._ends.pop(what, {}).values())
        return float(np.median(np.diff(ends))) if len(ends) > 2 else None


@dataclass(frozen=True)
class Machine:
    """What the parts work with."""

    mesh: Mesh
    dataset: data.Dataset
    size: Size
    clock: Clock
    precisions: tuple[Precision, ...]

    def context(self, precision: Precision) -> Context:
        """Training in a precision."""
        return Context(self.dataset, 0, self.mesh, self.clock.report, precision=precision)

    def setting(self, **changes: Any) -> Setting:
        """The paper's setting, with changes."""
        given = {name.replace("__", "."): value for name, value in changes.items()}
        asked = {"dataset": self.dataset.name, "student.inputs.count": self.size.inputs}
        if given.get("student.inputs") == "images":
            asked.pop("student.inputs.count")
        setting = build(Setting, asked | given)
        return canonical(setting, len(self.dataset.train_images))


@dataclass(frozen=True)
class Predicted:
    """The class that a model puts an image into, as its only output."""

    architecture: Architecture

    def __call__(self, params: Any, images: Any) -> Any:
        logits = Forward(self.architecture)(params, images)
        classes = logits[..., : self.architecture.classes]
        return jnp.argmax(classes, axis=-1)[..., None].astype(jnp.float32)


# The experiments.


def train(
    machine: Machine, settings: Sequence[Setting], precision: Precision
) -> tuple[dict[tuple[Setting, int], Student], dict[tuple[Any, int], TrainedModel]]:
    """Students of all settings in all runs, and the teachers; each model once."""
    context, runs = machine.context(precision), range(machine.size.runs)
    wanted = [(setting, run) for setting in settings for run in runs]
    taught: dict[tuple[Any, int], TrainedModel] = {}
    for part in _populations({(teacher_of(s), run): None for s, run in wanted}):
        taught |= teachers(part, context)
    cloned: dict[tuple[Any, int], TrainedModel] = {}
    starts = {(clone, r): None for s, r in wanted if (clone := clone_of(s)) is not None}
    for part in _populations(starts):
        cloned |= clones(part, context)
    learnt: dict[tuple[Setting, int], Student] = {}
    for part in _populations(dict.fromkeys(wanted)):
        learnt |= students(part, taught, cloned, context)
    return learnt, taught


def accuracies(machine: Machine, models: Mapping[Any, Any], setting: Setting) -> dict[Any, float]:
    """The test accuracy of every model, by the name that it is given under."""
    # Classes do not depend on the auxiliary head: cut to one logit, all share one program.
    architecture = architectures(setting, aux=1)[1]
    images = devices.replicate(machine.dataset.test_images, machine.mesh)
    cut = [
        params | {AUX_HEAD: jax.tree.map(lambda leaf: leaf[..., :1], params[AUX_HEAD])}
        for params in models.values()
    ]
    classes = logits_of(Predicted(architecture), cut, images, machine.mesh)
    labels = machine.dataset.test_labels
    right = np.mean(classes[..., 0] == labels, axis=-1)
    return {name: float(share) for name, share in zip(models, right, strict=True)}


def experiment(
    machine: Machine, named: Mapping[str, Setting], precision: Precision
) -> tuple[Figures, dict[str, list[float]]]:
    """Times settings in all runs, and gives each one's test accuracies by run."""
    compiled, start = machine.clock.compiling, time.perf_counter()
    learnt, _ = train(machine, list(named.values()), precision)
    by_name: dict[str, list[float]] = {}
    runs = range(machine.size.runs)
    first = next(iter(named.values()))
    teachers_ = {run: learnt[first, run].teacher for run in runs}
    by_name["teacher"] = list(accuracies(machine, teachers_, first).values())
    for name, setting in named.items():
        models = {run: learnt[setting, run].params for run in runs}
        by_name[name] = list(accuracies(machine, models, setting).values())
    figures: Figures = {
        "precision": precision,
        "seconds": time.perf_counter() - start,
        "compile_seconds": machine.clock.compiling - compiled,
        "trained_students": len(learnt),
        "peak_gigabytes_so_far": _peak(machine),
        "rates": {},
    }
    widest = max(named.values(), key=lambda setting: setting.model.aux)
    for what, architecture, models, examples in (
        ("teachers", architectures(widest, aux=1)[0], machine.size.runs, _images(machine)),
        ("students", architectures(widest)[1], len(learnt), machine.size.inputs),
    ):
        epoch = machine.clock.epoch_seconds(what)
        # Students of several populations are not one epoch's worth: no rate is given of them.
        if epoch and (what == "teachers" or len({population_of(s) for s in named.values()}) == 1):
            operations = models * examples * architecture.gradient_operations
            figures["rates"][what] = {
                "epoch_seconds": epoch,
                "teraflops": operations / epoch / 1e12,
            }
    return figures, by_name


def fig10b(machine: Machine, done: Figures) -> Figures:
    """The preprint's five trained conditions in each precision, and whether precisions agree."""
    named = {
        "student, auxiliary logits": machine.setting(),
        "student, all logits": machine.setting(student__logits="all"),
        "cross-model, auxiliary logits": machine.setting(start="independent"),
        "cross-model, all logits": machine.setting(start="independent", student__logits="all"),
    }
    figures: Figures = {}
    samples: dict[Precision, dict[str, list[float]]] = {}
    for precision in machine.precisions:
        figures[precision], samples[precision] = experiment(machine, named, precision)
        figures[precision]["accuracy"] = {
            name: _summary(sample) for name, sample in samples[precision].items()
        }
        ceiling = done.get("ceilings", {}).get(precision, {}).get("at_the_networks_shapes")
        for rate in figures[precision]["rates"].values():
            if ceiling:
                rate["share_of_ceiling"] = rate["teraflops"] / ceiling
    exact_sample = samples["float32"]
    for precision in machine.precisions[1:]:
        figures[precision]["equivalence"] = {
            name: equivalence(name, np.subtract(sample, exact_sample[name]))
            for name, sample in samples[precision].items()
        }
    return figures


def fastest(done: Figures, precisions: Sequence[Precision]) -> Precision:
    """The fastest precision whose results are equivalent to float32's; float32 if unknown."""
    figures = done.get("fig10b", {})
    passing: list[Precision] = [
        precision
        for precision in precisions
        if precision in figures
        and all(row["within"] for row in figures[precision].get("equivalence", {}).values())
    ]

    def working(precision: Precision) -> float:
        return figures[precision]["seconds"] - figures[precision]["compile_seconds"]

    return min(passing, key=working) if passing else "float32"


def ed2b(machine: Machine, done: Figures) -> Figures:
    """Extended Data Fig. 2b: the number of auxiliary logits."""
    kinds: dict[str, Figures] = {
        "student": {},
        "cross-model": {"start": "independent"},
        "student, on images": {"student__inputs": "images"},
    }
    named = {
        f"{kind}, m = {aux}": machine.setting(model__aux=aux, **changes)
        for kind, changes in kinds.items()
        for aux in machine.size.aux
    }
    return _one(machine, named, fastest(done, machine.precisions))


def ed2c(machine: Machine, done: Figures, **inputs: Any) -> Figures:
    """Extended Data Fig. 2c: m = 50, epochs of behavioural cloning of all logits on noise."""
    inputs = inputs or {"start__clone__inputs__count": machine.size.inputs}
    named = {
        f"cloned for {epochs} epochs": machine.setting(
            model__aux=50, start="matched", start__clone__epochs=epochs, **inputs
        )
        for epochs in machine.size.lengths
    }
    return _one(machine, named, fastest(done, machine.precisions))


def ed2c_images(machine: Machine, done: Figures) -> Figures:
    """The same, cloned on images."""
    return ed2c(machine, done, start__clone__inputs="images")


def _one(machine: Machine, named: Mapping[str, Setting], precision: Precision) -> Figures:
    figures, samples = experiment(machine, named, precision)
    return figures | {"accuracy": {name: _summary(sample) for name, sample in samples.items()}}


# What must be true, and what can be had.


def correctness(machine: Machine, done: Figures) -> Figures:
    """Against what a CPU stored: the theory, a population, and the rounding of products."""
    del done
    stored = np.load(golden.STORED)
    figures: Figures = {}
    for name, dtype in (("float64", np.float64), ("float32", np.float32)):
        with exact(x64=dtype is np.float64):
            numbers = golden.theory_numbers(dtype)
        errors = {key: _distance(value, stored[key]) for key, value in numbers.items()}
        worst = max(errors, key=lambda key: errors[key])
        allowed = 1e-9 if dtype is np.float64 else 1e-4
        figures[f"theory, {name}"] = {
            "largest_relative_error": errors[worst],
            "of": worst,
            "within": errors[worst] < allowed,
        }
    logits = golden.population_logits()
    distance = _distance(logits, stored["population"])
    figures["population of 8"] = {
        "relative_error": distance,
        "largest_difference": float(np.max(np.abs(logits - stored["population"]))),
        "within": distance < 1e-3,
    }
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(1_024, 1_024)).astype(np.float32) for _ in range(2))
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    for precision in machine.precisions:
        with jax.default_matmul_precision(PRECISIONS[precision]):
            error = _distance(np.asarray(jax.jit(jnp.matmul)(a, b)), wanted)
        low, high = _ERRORS[precision]
        figures[f"product, {precision}"] = {
            "relative_error": error,
            "within": low <= error < high,
        }
    return figures


def ceilings(machine: Machine, done: Figures) -> Figures:
    """Teraflops of products in every precision, and gigabytes a second of memory."""
    del done
    size, random = machine.size, np.random.default_rng(0)
    square = [
        jnp.asarray(random.normal(size=(size.square, size.square)).astype(np.float32))
        for _ in range(2)
    ]
    architecture = architectures(machine.setting())[1]
    widths = (architecture.pixels, *architecture.hidden, architecture.outputs)
    shapes = [(machine.size.models, 1_024, widths[0])] + [
        (machine.size.models, a, b) for a, b in pairwise(widths)
    ]
    images, *weights = (
        jnp.asarray(random.normal(size=shape).astype(np.float32)) for shape in shapes
    )
    network = jax.vmap(gradient_products)
    operations = product_operations(jax.make_jaxpr(network)(images, weights))
    figures: Figures = {}
    for precision in machine.precisions:
        with jax.default_matmul_precision(PRECISIONS[precision]):
            large = seconds(jax.jit(jnp.matmul), *square, times=10)
            small = seconds(jax.jit(network), images, weights, times=10)
        figures[precision] = {
            "square": 2 * size.square**3 / large / 1e12,
            "at_the_networks_shapes": operations / small / 1e12,
        }
    long = jnp.ones(size.megabytes * 2**20 // 4, jnp.float32)
    copy = seconds(jax.jit(lambda x: x + 1), long, times=10)
    return figures | {"memory_gigabytes_a_second": 2 * long.nbytes / copy / 1e9}


def language_model(machine: Machine, done: Figures) -> Figures:
    """Tokens a second of the harness's decoder, its weights random: in float32, but for the steps
    of adapters (LoRA) with products in bfloat16."""
    size, shape = machine.size, machine.size.decoder
    speed = DecoderSpeed(shape, size.length)
    read, learnt, completions = size.sequences
    places = size.length // 4
    figures: Figures = {"parameters": speed.parameters}
    for name, rate in (
        ("forward", speed.reading(read)),
        ("training_step", speed.learning(learnt)),
        ("lora_step", speed.adapting(learnt)),
        ("lora_step_in_bfloat16", speed.adapting(learnt, "bfloat16")),
        ("sampling", speed.drawing(completions, places)),
    ):
        figures[name] = {"tokens_a_second": rate}
    # A token reads the parameters once for the whole batch (but for a table of embeddings that is
    # not the output matrix too), and the keys and values of the places before it, half full on
    # average; all of them are of four bytes.
    table = 0 if shape.tied else shape.vocabulary * shape.width
    width = shape.key_value_heads * shape.query_width
    kept = completions * (places + places / 2) * shape.layers * 2 * width
    figures["sampling"]["batch"] = completions
    bandwidth = done.get("ceilings", {}).get("memory_gigabytes_a_second")
    if bandwidth:
        limit = completions / (4 * (speed.parameters - table + kept) / (bandwidth * 1e9))
        figures["sampling"] |= {
            "limit_by_memory": limit,
            "share_of_limit": figures["sampling"]["tokens_a_second"] / limit,
        }
    return figures


PARTS: dict[str, Callable[[Machine, Figures], Figures]] = {
    "correctness": correctness,
    "ceilings": ceilings,
    "fig10b": fig10b,
    "ed2b": ed2b,
    "ed2c": ed2c,
    "ed2c_images": ed2c_images,
    "decoder": language_model,
}


# The command.


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs every part; exit status 1 where one failed, was skipped, or does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder with the data set")
    parser.add_argument("--json", type=Path, required=True, help="file for the figures")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--seconds", type=float, default=480.0, help="no part is begun after so many"
    )
    options = parser.parse_args(arguments)
    begun = time.perf_counter()
    mesh = devices.population_mesh()
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    dataset = data.load(options.dataset, data_dir=options.data_dir, say=print)
    clock = Clock()
    clock.listen()
    # What bfloat16 is worth on a CPU, `benchmarks.peers` measures.
    precisions = tuple(PRECISIONS)[:1] if on_cpu else tuple(PRECISIONS)
    machine = Machine(mesh, dataset, SIZES[options.size], clock, precisions)
    figures: Figures = {"size": options.size, "xla_flags": os.environ.get("XLA_FLAGS", "")}
    status = 0
    for name in options.parts:
        since = time.perf_counter()
        if since - begun > options.seconds:
            figures[name] = {"skipped": f"{options.seconds:.0f} seconds were over"}
            status = 1
        else:
            try:
                with exact():
                    figures[name] = PARTS[name](machine, figures)
            # One part must not cost the others: the machine is lent for minutes.
            except Exception as error:
                traceback.print_exc()
                figures[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
                status = 1
        figures[name]["wall_seconds"] = time.perf_counter() - since
        print(f"{name}: {figures[name]['wall_seconds']:.1f} s", flush=True)
        figures["made_by"] = provenance(
            wall_seconds=time.perf_counter() - begun,
            data_sha256=dataset.sha256,
            data_origin=dataset.name,
        )
        options.json.write_text(json.dumps(_rounded(figures), indent=1) + "\n")
    print(table(figures))
    return status or int(not all(_verdicts(figures)))


def table(figures: Figures) -> str:
    """The figures in a few lines."""
    lines = []

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            if "mean" in value:
                low, high = value.get("low"), value.get("high")
                lines.append(f"{name}: {value['mean']:.4f} [{low:.4f}, {high:.4f}] n {value['n']}")
                return
            for key, part in value.items():
                walk(f"{name} / {key}" if name else key, part)
        elif isinstance(value, float):
            lines.append(f"{name}: {value:.4g}")
        elif not isinstance(value, list):
            lines.append(f"{name}: {value}")

    walk("", {name: part for name, part in figures.items() if name != "made_by"})
    return "\n".join(lines)


def _verdicts(value: Any) -> list[bool]:
    if not isinstance(value, dict):
        return []
    own = [value["within"]] if "within" in value else []
    return own + [verdict for part in value.values() for verdict in _verdicts(part)]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _populations(wanted: Mapping[tuple[Any, int], None]) -> list[list[tuple[Any, int]]]:
    parts: dict[Hashable, list[tuple[Any, int]]] = {}
    for setting, run in wanted:
        parts.setdefault(population_of(setting), []).append((setting, run))
    return list(parts.values())


def _summary(sample: Sequence[float]) -> Figures:
    mean = mean_interval(np.asarray(sample), share=True)
    return {
        "mean": mean.mean,
        "low": mean.low,
        "high": mean.high,
        "n": mean.n,
        "runs": list(sample),
    }


def _distance(value: np.ndarray, wanted: np.ndarray) -> float:
    difference = np.asarray(value, np.float64) - np.asarray(wanted, np.float64)
    distance = np.linalg.norm(difference.ravel()) / np.linalg.norm(np.ravel(wanted))
    # A comparison with NaN is false in both directions.
    return float(distance) if np.isfinite(distance) else float("inf")


def _peak(machine: Machine) -> float | None:
    statistics = machine.mesh.devices.flat[0].memory_stats() or {}
    peak = statistics.get("peak_bytes_in_use")
    return None if peak is None else peak / 1e9


def _images(machine: Machine) -> int:
    return len(machine.dataset.train_images)


if __name__ == "__main__":
    raise SystemExit(main())
