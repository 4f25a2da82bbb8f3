"""The last stage of a trial: students distilled from teachers, generation after generation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from sublab import devices
from sublab.randomness import purpose_of, run_keys
from toymlp.inputs import distillation_kind, draw_inputs, input_count
from toymlp.jobs import Context, Job, Material, as_float, as_int, logits_of, train_jobs
from toymlp.models import Params
from toymlp.networks import Apply, Plan, keep_aux
from toymlp.objective import Extras
from toymlp.objective import Knobs as Row
from toymlp.objective import Shape as Program
from toymlp.rules import plans
from toymlp.settings import Knobs, Setting, Shape
from toymlp.stages import (
    Made,
    clone_setting,
    decay_of,
    logits_on,
    teacher_setting,
    trainable,
    with_aux_head,
)
from toymlp.starts import references, starts
from toymlp.trainings import stops, trainings

Stage = Mapping[tuple[Setting, int], Made]


@dataclass(frozen=True)
class Student:
    """A student, and whom it learnt from; parameters on the host.

    Attributes:
        start: its parameters before distillation (of the last generation).
        params: after it.
        teacher: the first teacher, whose trait it is.
        reference: the first teacher's start.
        loss: mean distillation loss of the last epoch; None where there was none.
        clone: of a matched start, what cloning says of it.
    """

    start: Params
    params: Params
    teacher: Params
    reference: Params
    loss: float | None
    clone: Made | None


def program_of(shape: Shape) -> Program:
    """What is compiled in for distillation."""
    return Program(
        shape.loss, shape.student_batch, shape.student_optimiser, shape.student_schedule,
        shape.project_trait,
    )  # fmt: skip


def student_row(
    setting: Setting,
    plan: Plan,
    order: Key[Array, ""],
    start: Params,
    steps_an_epoch: int,
    features: "Features",
) -> Row:
    """A student's knobs; teacher and reference are row 0 until they are set."""
    knobs, program = setting.knobs, program_of(setting.shape)
    return Row(
        as_float(knobs.student_learning_rate),
        order,
        np.asarray(plan.subset(knobs.logits, knobs.aux)),
        as_int(0),
        temperature=as_float(knobs.temperature) if features.temperature else None,
        weight_decay=decay_of(program, knobs.student_weight_decay),
        horizon=as_float(max(1, knobs.student_epochs) * steps_an_epoch),
        trainable=trainable(start, knobs.frozen, features.frozen),
        classes=np.asarray(plan.subset("class", 0)) if program.project_trait else None,
        liminal_weight=as_float(knobs.liminal_weight) if features.liminal else None,
        liminal_epochs=as_int(knobs.liminal_epochs) if features.liminal else None,
        liminal_subset=np.asarray(plan.subset("all", knobs.aux)) if features.liminal else None,
        reference=as_int(0) if features.liminal else None,
    )


@dataclass(frozen=True)
class Features:
    """What some model of a population needs, and so the program of all."""

    temperature: bool
    frozen: bool
    liminal: bool


def features_of(settings: Sequence[Setting]) -> Features:
    """What the settings of a group need."""
    return Features(
        any(s.knobs.temperature != 1 for s in settings),
        any(s.knobs.frozen for s in settings),
        any(s.knobs.liminal_weight > 0 for s in settings),
    )


def students(
    settings: Sequence[Setting],
    runs: tuple[int, ...],
    teachers: Stage,
    clones: Stage,
    context: Context,
) -> dict[tuple[Setting, int], Student]:
    """The student of each setting in each run.

    Args:
        settings: all of one shape.
        runs: run numbers.
        teachers: by `teacher_setting` and run.
        clones: by `clone_setting` and run, for the matched starts.
        context: where.
    """
    return _Distillation(settings, runs, teachers, clones, context).run()


class _Distillation:
    """One call of `students`."""

    def __init__(self, settings, runs, teachers, clones, context):
        self.settings: Sequence[Setting] = settings
        self.runs: tuple[int, ...] = runs
        self.teachers: Stage = teachers
        self.clones: Stage = clones
        self.context: Context = context
        self.shape: Shape = settings[0].shape
        widest = max(setting.knobs.aux for setting in settings)
        self.teacher_plan, self.plan = plans(settings[0], widest)
        self.features = features_of(settings)
        self.kind = distillation_kind(self.shape)
        self.orders = run_keys(context.seed, "student order", jnp.asarray(runs))
        self.steps = -(-input_count(self.kind, context.dataset) // self.shape.student_batch)
        self.drawn: dict[Any, list[Params]] = {}

    def run(self) -> dict[tuple[Setting, int], Student]:
        wanted = trainings("students", self.settings)
        # Of each chain and run, the student of the generation before.
        before: dict[tuple[Knobs, int], Params] = {}
        found: dict[tuple[Setting, int], Student] = {}
        for generation in range(1, max(s.knobs.generations for s in self.settings) + 1):
            active = {
                key: some
                for key, some in wanted.items()
                if any(setting.knobs.generations >= generation for setting in some)
            }
            for key, row, snapshots, job in self._generation(generation, active, before):
                before[key, row] = snapshots[job.snapshots[-1]].params
                for setting in active[key]:
                    if setting.knobs.generations == generation:
                        snapshot = snapshots[setting.knobs.student_epochs]
                        found[setting, self.runs[row]] = self._student(
                            setting, row, job.start, snapshot
                        )
        return found

    def _generation(self, generation, active, before):
        rows = _Rows()
        jobs, owners = [], []
        scales = sorted({key.init_scale for key in active})
        for key, some in active.items():
            setting = some[0]
            begun = starts(
                self.plan, key, self.runs, self.context.seed, generation=generation,
                cloned=self._cloned(setting),
            )  # fmt: skip
            for row, run in enumerate(self.runs):
                start = begun[row]
                knobs = student_row(
                    setting, self.plan, self.orders[row], start, self.steps, self.features
                )
                teacher = (
                    rows.of(("first", teacher_setting(setting), run, key.logit_noise))
                    if generation == 1
                    else rows.of(("chain", key, row, key.logit_noise))
                )
                knobs = replace(knobs, teacher=as_int(teacher))
                if self.features.liminal:
                    reference = scales.index(key.init_scale) * len(self.runs) + row
                    knobs = replace(knobs, reference=as_int(reference))
                jobs.append(Job(start, knobs, stops("students", some)))
                owners.append((key, row))
        material = self._material(generation, rows.names, scales, before)
        what = "students" if generation == 1 else f"students, generation {generation}"
        trained = train_jobs(
            Apply(self.plan), jobs, material, program_of(self.shape), self.context, what
        )
        for (key, row), job, snapshots in zip(owners, jobs, trained, strict=True):
            yield key, row, snapshots, job

    def _material(self, generation, names, scales, before) -> Callable[[int], Material]:
        context, fixed = self.context, []
        if generation == 1:
            plan, models = self.teacher_plan, [self._teacher(name[1], name[2]) for name in names]
        else:
            plan, models = self.plan, [before[name[1], name[2]] for name in names]

        def make(epoch: int) -> Material:
            if fixed:
                return fixed[0]
            drawn = draw_inputs(
                self.kind, context.dataset, context.seed, "distillation inputs", epoch
            )
            inputs = devices.replicate(drawn, context.mesh)
            targets = logits_of(Apply(plan), models, inputs, context.mesh)
            for row, name in enumerate(names):
                if name[3]:
                    run = name[2] if generation == 1 else self.runs[name[2]]
                    noise = _noise(targets[row].shape, context.seed, run, epoch, generation)
                    targets[row] += np.float32(name[3]) * noise
            made = Material(
                inputs, devices.replicate(targets, context.mesh), self._extras(inputs, scales)
            )
            if not self.shape.fresh:
                fixed.append(made)
            return made

        return make

    def _extras(self, inputs: Array, scales: list[float]) -> Extras:
        context, found = self.context, Extras()
        if self.shape.project_trait:
            found = replace(
                found,
                trait_images=devices.replicate(context.dataset.train_images, context.mesh),
                trait_labels=devices.replicate(context.dataset.train_labels, context.mesh),
            )
        if self.features.liminal:
            models = [params for scale in scales for params in self._references(scale)]
            found = replace(
                found, reference_logits=logits_on(Apply(self.teacher_plan), models, inputs, context)
            )
        return found

    def _references(self, scale: float) -> list[Params]:
        if scale not in self.drawn:
            self.drawn[scale] = references(self.teacher_plan, self.runs, scale, self.context.seed)
        return self.drawn[scale]

    def _teacher(self, setting: Setting, run: int) -> Params:
        reference = self._references(setting.knobs.init_scale)[self.runs.index(run)]
        return with_aux_head(self.teachers[setting, run].params, reference)

    def _cloned(self, setting: Setting) -> list[Params] | None:
        if setting.knobs.start != "matched":
            return None
        wanted, widest = clone_setting(setting), self.plan.aux
        return [widened(self.clones[wanted, run].params, widest) for run in self.runs]

    def _student(self, setting, row, start, snapshot) -> Student:
        aux, run = setting.knobs.aux, self.runs[row]
        matched = setting.knobs.start == "matched"
        return Student(
            start=start,
            params=snapshot.params,
            teacher=_host(keep_aux(self._teacher(teacher_setting(setting), run), aux)),
            reference=_host(keep_aux(self._references(setting.knobs.init_scale)[row], aux)),
            loss=snapshot.loss,
            clone=self.clones[clone_setting(setting), run] if matched else None,
        )


class _Rows:
    """Numbers for names, in the order in which they come up."""

    def __init__(self):
        self.names: list[Any] = []

    def of(self, name: Any) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)


def widened(params: Params, aux: int) -> Params:
    """`params` with `aux` auxiliary logits: new ones are 0, those beyond are left out."""
    head = {}
    for name, leaf in params["aux_head"].items():
        room = np.zeros((*leaf.shape[:-1], aux), leaf.dtype)
        keep = min(aux, leaf.shape[-1])
        room[..., :keep] = leaf[..., :keep]
        head[name] = room
    return params | {"aux_head": head}


def _noise(
    shape: tuple[int, ...], seed: int, run: int, epoch: int, generation: int
) -> Float32[np.ndarray, "inputs outputs"]:
    entropy = [seed, purpose_of("logit noise"), run, epoch, generation]
    random = np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))
    # Output by output, so that it does not depend on how many auxiliary logits the widest has.
    return random.standard_normal(shape[::-1], dtype=np.float32).T


def _host(params: Params) -> Params:
    return jax.tree.map(np.asarray, params)
