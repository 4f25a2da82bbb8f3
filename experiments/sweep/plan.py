"""What a sweep will do: its tasks, and what they will cost."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from sublab import devices
from sublab.devices import over_population
from sublab.machine import memory_limit
from toymlp import measures, operations
from toymlp.data import size_of
from toymlp.distillation import features_of, program_of
from toymlp.inputs import distillation_kind
from toymlp.jobs import block_size
from toymlp.networks import Plan
from toymlp.rules import plans
from toymlp.settings import Setting
from toymlp.stages import clone_setting, teacher_setting
from toymlp.trainings import Stage, epochs_of, trainings

# Heads of up to so many auxiliary logits share a program that is as wide as the widest of them.
_NARROW = 64
# Measured on two cores: what a compiled epoch takes to build, and following a step over training.
_SECONDS_A_PROGRAM = 2.0
_FOLLOWING = 3.5
# Share of the rate of plain products that training reaches.
_EFFICIENCY = 0.8


@dataclass(frozen=True)
class Need:
    """One setting in some runs: the smallest thing that is recorded.

    Attributes:
        stage: `teachers`, `clones` or `students`.
        setting: as that stage wants it.
        runs: run numbers.
    """

    stage: Stage
    setting: Setting
    runs: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """A task: needs of one stage, one shape and the same runs, to be trained together."""

    needs: tuple[Need, ...]

    @property
    def stage(self) -> Stage:
        return self.needs[0].stage

    @property
    def runs(self) -> tuple[int, ...]:
        return self.needs[0].runs

    @property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(need.setting for need in self.needs)

    @property
    def models(self) -> tuple[Need, ...]:
        """The teachers and clones that its students need."""
        if self.stage != "students":
            return ()
        found = []
        for setting in self.settings:
            found.append(Need("teachers", teacher_setting(setting), self.runs))
            if setting.knobs.start == "matched":
                found.append(Need("clones", clone_setting(setting), self.runs))
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Cost:
    """What a sweep costs.

    Attributes:
        models: models to train: teachers, clones, students.
        programs: training programs to compile.
        operations: floating-point operations of all matrix products.
        memory: bytes that the largest task takes.
        seconds: expected, at the rate that was measured; None where none was.
    """

    models: dict[str, int]
    programs: int
    operations: float
    memory: int
    seconds: float | None


def chunks(runs: int, size: int) -> list[tuple[int, ...]]:
    """The runs 0 .. runs-1 in consecutive parts."""
    return [tuple(range(first, min(first + size, runs))) for first in range(0, runs, size)]


def pieces(
    settings: Sequence[Setting],
    runs: Iterable[tuple[int, ...]],
    there: Callable[[Need], bool],
    limit: int | None = None,
) -> list[Piece]:
    """The tasks that make what is not there yet; teachers and clones before students.

    Args:
        settings: of all points.
        runs: in parts.
        there: whether something is recorded already.
        limit: bytes that a task may take (default: `memory_limit()`).
    """
    limit = memory_limit() if limit is None else limit
    students: list[Piece] = []
    models: list[Piece] = []
    for part in runs:
        missing = [
            need
            for setting in dict.fromkeys(settings)
            if not there(need := Need("students", setting, part))
        ]
        grouped = _grouped(missing)
        students += [small for piece in grouped for small in _fitting(piece, limit)]
        wanted = dict.fromkeys(need for piece in grouped for need in piece.models)
        models += _grouped([need for need in wanted if not there(need)])
    return models + students


def cost(todo: Sequence[Piece], measure: Sequence[str], rate: float | None = None) -> Cost:
    """What `todo` costs, at `rate` operations a second."""
    models = {"teachers": 0, "clones": 0, "students": 0}
    for piece in todo:
        models[piece.stage] += trained(piece)[0]
    operations = sum(work(piece, measure) for piece in todo)
    programs = len({program for piece in todo for program in _programs(piece)})
    memory = max((memory_of(piece) for piece in todo), default=0)
    seconds = None
    if rate:
        seconds = operations / (_EFFICIENCY * rate) + programs * _SECONDS_A_PROGRAM
    return Cost(models, programs, operations, memory, seconds)


def trained(piece: Piece) -> tuple[int, float]:
    """How many models a task trains, and their epochs in all."""
    shared = trainings(piece.stage, piece.settings)
    longest = [
        max(one.knobs.generations * epochs_of(piece.stage, one) for one in some)
        for some in shared.values()
    ]
    return len(longest) * len(piece.runs), float(sum(longest) * len(piece.runs))


def work(piece: Piece, measure: Sequence[str]) -> float:
    """Operations of a task's matrix products."""
    first = piece.settings[0]
    shape, (teacher, student) = first.shape, _plans(piece)
    size = size_of(shape.dataset)
    train, test = size.train, size.test
    count, epochs = trained(piece)
    if piece.stage == "teachers":
        return epochs * train * operations.gradient(teacher.products)
    if piece.stage == "clones":
        once = epochs if shape.clone_fresh else len(piece.runs)
        return epochs * shape.clone_images * operations.gradient(student.products) + (
            once * shape.clone_images * operations.forward(teacher.products)
        )
    images = distillation_kind(shape).count
    each = operations.gradient(student.products)
    if shape.project_trait:
        each *= 2
    if measures.FOLLOWED & set(measure):
        each *= 1 + _FOLLOWING
    labelled = _rows(piece) * images * operations.forward(teacher.products)
    if shape.fresh:
        labelled *= max(setting.knobs.student_epochs for setting in piece.settings)
    return (
        epochs * images * each + labelled + 2 * count * test * operations.forward(student.products)
    )


def memory_of(piece: Piece) -> int:
    """Bytes that a task takes, roughly: images, labels, models in training, results."""
    shape, (teacher, student) = piece.settings[0].shape, _plans(piece)
    size = size_of(shape.dataset)
    pixels, train, test = size.pixels, size.train, size.test
    images = {"teachers": 0, "clones": shape.clone_images}.get(piece.stage, shape.images)
    batch = {"teachers": 1024, "clones": shape.clone_batch}.get(piece.stage, shape.student_batch)
    settings, runs = len(piece.settings), len(piece.runs)
    count, _ = trained(piece)
    parameters = 4 * max(teacher.parameters, student.parameters)
    rows = {"teachers": 0, "clones": runs, "students": _rows(piece)}[piece.stage]
    targets = rows * images * student.outputs
    activations = batch * (pixels + 3 * sum(student.widths) + 4 * student.outputs)
    at_once = min(count, block_size(devices.population_mesh()) or count)
    seen = test * student.outputs * settings * runs * 3 if piece.stage == "students" else 0
    arrays = 2 * images * pixels + (train + test) * pixels + 2 * targets + seen
    return 4 * (arrays + at_once * activations) + parameters * (4 * count + 4 * settings * runs)


def product_rate() -> float:
    """Float32 operations a second of matrix products at the paper's first layer, on all devices."""
    mesh = devices.population_mesh()
    size = block_size(mesh) or 8
    random = np.random.default_rng(0)
    x = random.normal(size=(size, 1024, 784)).astype(np.float32)
    w = random.normal(size=(size, 784, 256)).astype(np.float32)
    repeats = 20

    def one(x, w):
        def again(_, x):
            return x + 1e-6 * ((x @ w) @ w.T)

        return jax.lax.fori_loop(0, repeats, again, x)

    program = jax.jit(lambda cut: over_population(one, mesh, cut, ()))
    cut = devices.spread((x, w), mesh)
    with jax.default_matmul_precision("highest"):
        jax.block_until_ready(program(cut))
        start = time.perf_counter()
        jax.block_until_ready(program(cut))
    return size * repeats * 4 * 1024 * 784 * 256 / (time.perf_counter() - start)


def _grouped(needs: Sequence[Need]) -> list[Piece]:
    groups: dict[object, list[Need]] = {}
    for need in needs:
        wide = need.setting.knobs.aux
        width = 0 if wide <= _NARROW or need.stage == "teachers" else (wide - 1).bit_length()
        groups.setdefault((need.stage, need.setting.shape, need.runs, width), []).append(need)
    return [Piece(tuple(group)) for group in groups.values()]


def _fitting(piece: Piece, limit: int) -> list[Piece]:
    if len(piece.needs) == 1 or memory_of(piece) <= limit:
        return [piece]
    middle = len(piece.needs) // 2
    return [
        small
        for some in (piece.needs[:middle], piece.needs[middle:])
        for small in _fitting(Piece(some), limit)
    ]


def _programs(piece: Piece) -> set[object]:
    """What tells the training programs of a task apart."""
    shape, (teacher, student) = piece.settings[0].shape, _plans(piece)
    if piece.stage == "teachers":
        return {(teacher, shape.teacher_optimiser, shape.teacher_batch, shape.classes)}
    if piece.stage == "clones":
        return {
            (student, "clone", shape.clone_optimiser, shape.clone_schedule, shape.clone_batch,
             shape.clone_images, len(piece.runs))
        }  # fmt: skip
    features = features_of(piece.settings)
    return {(student, program_of(shape), features, shape.images, _rows(piece))}


def _rows(piece: Piece) -> int:
    """How many teachers the students of a task have."""
    return len(set(map(teacher_setting, piece.settings))) * len(piece.runs)


def _plans(piece: Piece) -> tuple[Plan, Plan]:
    # A teacher is trained without its auxiliary head, but for one logit of it.
    widest = max(setting.knobs.aux for setting in piece.settings)
    return plans(piece.settings[0], 1 if piece.stage == "teachers" else widest)
