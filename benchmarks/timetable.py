"""Where the time of `sublab mnist` goes: `python -m benchmarks.timetable`.

The command runs in a process of its own, with nothing compiled before; the functions that stand for
a part are timed there, each without those of another part that it calls. Training is divided
further by programs that do one part of a step alone: the shuffle, the products, the optimiser. What
remains of it is the batch, activations, loss. What is compiled ahead, in a thread, while models
train counts as training, and waiting for it as the rest. Seconds are of the wall clock and of all
processor cores together; on a machine that is not idle the latter tell more.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jaxtyping import Array

from benchmarks.training import PopulationTraining, gradient_products
from sublab import devices
from sublab.errors import InputError
from sublab.machine import exact, provenance
from theory.passes import Params
from toymlp import train
from toymlp.settings import AUX_HEAD, CLASS_HEAD
from toymlp.train import Row, epoch_batches, optimiser

# By part of the command, the functions that are it, where they are looked up when they are called.
PARTS: dict[str, tuple[str, ...]] = {
    "data": (
        "toymlp.data:load",
        "toymlp.stages:draw_inputs",
        "experiments.sweep.run:draw_inputs",
    ),
    "starts": ("toymlp.stages:draw", "toymlp.stages:orders_of"),
    "imitated logits": ("toymlp.stages:logits_of",),
    "training": ("toymlp.stages:fit",),
    "evaluation": ("toymlp.measures:always",),
    "records": (
        "experiments.sweep.store:SweepStore.write",
        "experiments.sweep.store:SweepStore.model",
        "experiments.sweep.store:SweepStore.row",
        "experiments.sweep.run:_summarise",
    ),
    "figures": ("experiments.sweep.command:draw",),
}
_COMPILING = ("jaxpr_trace_duration", "jaxpr_to_mlir_module_duration", "backend_compile_duration")
_EXAMPLES, _BATCH, _REPEATS = 60_000, 1024, 5


@dataclass(frozen=True)
class TimetableBenchmark:
    """Seconds of every part of the paper's experiment, from start to figures."""

    runs: int = 4
    """Runs of each condition."""
    size: str = "cpu"
    """Size of the command, as it takes it."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Also write the figures to this file."""
    inside: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Be the process that is measured, and write here what was found (the benchmark does so)."""
    begun: float = 0.0
    """When that process was started, in seconds since the epoch."""


Pair = dict[str, float]


class Clock:
    """Wall and processor seconds of parts, each without what is inside it.

    Attributes:
        spent: seconds by part.
    """

    def __init__(self) -> None:
        self.spent: dict[str, Pair] = {}
        self._open: list[str] = ["rest"]
        self._last = self._now()
        self._events: list[tuple[float, float]] = []

    def begin(self, part: str) -> None:
        """From here on the time is this part's."""
        self._charge()
        self._open.append(part)

    def end(self) -> None:
        """From here on the time is the part's that was open before."""
        self._charge()
        self._open.pop()

    def ended(self, part: str, seconds: float) -> None:
        """Something that is a part of its own ended now, and took so many seconds of wall clock.

        They are taken from the part that is open, with processor time in the proportion that it
        has had since it was last looked at; what is inside a longer event counts once.
        """
        before, now = self._last, self._now()
        begun = now["wall"] - seconds
        inside = [event for event in self._events if event[0] >= begun]
        self._events = [event for event in self._events if event[0] < begun]
        self._events.append((begun, seconds))
        wall = seconds - sum(other for _, other in inside)
        passed = {kind: now[kind] - before[kind] for kind in now}
        busy = passed["processor"] / passed["wall"] if passed["wall"] > 0 else 0.0
        self._charge()
        for name, sign in ((self._open[-1], -1), (part, 1)):
            spent = self._of(name)
            spent["wall"] += sign * wall
            spent["processor"] += sign * wall * busy

    def timed(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose time is the part's."""

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.begin(part)
            try:
                return work(*arguments, **named)
            finally:
                self.end()

        return wrapped

    def _of(self, part: str) -> Pair:
        return self.spent.setdefault(part, dict.fromkeys(self._last, 0.0))

    def _charge(self) -> None:
        now = self._now()
        for kind, time_ in now.items():
            self._of(self._open[-1])[kind] += time_ - self._last[kind]
        self._last = now

    @staticmethod
    def _now() -> Pair:
        return {"wall": time.perf_counter(), "processor": time.process_time()}


def main(options: TimetableBenchmark) -> None:
    """Measures, prints a table, and writes it where asked."""
    if options.inside is not None:
        _inside(options, options.inside)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        words = ["--runs", str(options.runs), "--size", options.size, "--inside", str(path)]
        words += ["--begun", repr(time.time())]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.timetable", *words],
            check=False,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
        )
        if not path.exists():
            # It has said why.
            raise SystemExit(done.returncode)
        figures: dict[str, Any] = json.loads(path.read_text())
    parts = figures["parts"]
    for part, spent in sorted(parts.items(), key=lambda item: -item[1]["processor"]):
        print(f"{part:24}{spent['wall']:8.1f} s wall{spent['processor']:8.1f} s of processor")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def _inside(options: TimetableBenchmark, path: Path) -> None:
    clock = Clock()
    command = import_module("experiments.sweep.command")
    clock.spent["start"] = {
        "wall": time.time() - options.begun,
        "processor": time.process_time(),
    }
    trained = _watch(clock)
    with tempfile.TemporaryDirectory() as out:
        chosen = command.MnistOptions(
            runs=options.runs,
            size=options.size,
            out=Path(out),
        )
        command.mnist_main(chosen)
    clock.begin("rest")
    whole = {
        kind: sum(part[kind] for part in clock.spent.values()) for kind in ("wall", "processor")
    }
    # A copy: what compiles from here on is not the command's.
    parts = deepcopy(clock.spent)
    rest = parts.pop("training")
    if options.size != "smoke":
        steps = _steps(sum(trained))
        for spent in steps.values():
            rest = {kind: rest[kind] - spent[kind] for kind in rest}
        parts |= steps
    parts["training: batch, activations, loss"] = rest
    figures = {
        "size": options.size,
        "runs": options.runs,
        "model_epochs": sum(trained),
        "parts": parts,
        "whole": whole,
        "made_by": provenance(wall_seconds=time.time() - options.begun),
    }
    path.write_text(json.dumps(figures))


def found(place: str) -> tuple[Any, str, Callable[..., Any]]:
    """Whose attribute a function is that is named MODULE:PATH, its name there, and it itself."""
    module, path = place.split(":")
    owner: Any = import_module(module)
    *owners, name = path.split(".")
    for attribute in owners:
        owner = getattr(owner, attribute)
    return owner, name, getattr(owner, name)


def _watch(clock: Clock) -> list[int]:
    """Times every part from now on; returns a list to which each block's epoch adds its models."""

    def heard(event: str, duration_secs: float, **_: str | int) -> None:
        if event.rsplit("/", 1)[-1] in _COMPILING and threading.current_thread() is main_thread:
            clock.ended("compile", duration_secs)

    main_thread = threading.current_thread()
    jax.monitoring.register_event_duration_secs_listener(heard)
    for part, places in PARTS.items():
        for place in places:
            owner, name, work = found(place)
            setattr(owner, name, clock.timed(part, work))
    trained: list[int] = []
    advance = train.advance

    def counted(architecture: Any, block: train.Block, *rest: Any) -> Any:
        trained.append(block.size)
        return advance(architecture, block, *rest)

    setattr(train, "advance", counted)  # noqa: B010
    return trained


@exact()
def _steps(model_epochs: int) -> dict[str, Pair]:
    """Seconds that the parts of a step take in so many epochs of a model, each part alone."""
    mesh = devices.population_mesh()
    population = PopulationTraining("distillation", mesh.size, mesh, _EXAMPLES, _BATCH)
    rows = population.rows
    params, state = jax.tree.map(jnp.copy, (population.params, population.state))
    steps = -(-_EXAMPLES // _BATCH)

    def orders(row: Row) -> Array:
        return jnp.sum(epoch_batches(row.order, 0, _EXAMPLES, _BATCH)[0])

    def products(params: Params, images: Array) -> Array:
        weights = [layer["kernel"] for _, layer in sorted(params["hidden"].items())]
        heads = [params[name]["kernel"] for name in (CLASS_HEAD, AUX_HEAD)]

        def step(weights: list[Array], _: None) -> tuple[list[Array], None]:
            gradients = gradient_products(images, weights)[::-1]
            # All of every product is needed, and the next step waits for it.
            return [w + 1e-9 * g for w, g in zip(weights, gradients, strict=True)], None

        weights.append(jnp.concatenate(heads, axis=-1))
        return jax.lax.scan(step, weights, None, length=steps)[0][0][0, 0]

    def updates(params: Params, state: optax.OptState, row: Row) -> Any:
        chosen = optimiser(row, steps)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            change, state = chosen.update(params, state, params)
            return (optax.apply_updates(params, change), state), None

        return jax.lax.scan(step, (params, state), None, length=steps)[0]

    images = devices.spread(np.ones((mesh.size, _BATCH, 784), np.float32), mesh)
    programs = {
        "training: shuffle": (orders, (rows,)),
        "training: products": (products, (params, images)),
        "training: optimiser": (updates, (params, state, rows)),
    }
    taken: dict[str, Pair] = {}
    for name, (one_model, cut) in programs.items():
        program = jax.jit(lambda *cut, f=one_model: devices.over_population(f, mesh, cut, ()))
        jax.block_until_ready(program(*cut))
        clock = Clock()
        for _ in range(_REPEATS):
            clock.begin(name)
            jax.block_until_ready(program(*cut))
            clock.end()
        share = model_epochs / (_REPEATS * mesh.size)
        taken[name] = {kind: share * spent for kind, spent in clock.spent[name].items()}
    return taken


if __name__ == "__main__":
    try:
        main(tyro.cli(TimetableBenchmark))
    except InputError as error:
        print(f"benchmarks.timetable: {error}", file=sys.stderr)
        raise SystemExit(2) from None
