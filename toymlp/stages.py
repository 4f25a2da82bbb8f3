"""The stages of an experiment: teacher, behavioural cloning, distillation, chains.

Each says what start, inputs, targets and length a training has; `toymlp.train.fit` trains. A stage
is given any settings of one population in any runs, and trains each model that they need once:
settings that share a teacher share its training, settings that differ in a number of epochs alone
are snapshots of one training.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Key

from sublab import devices
from sublab.randomness import purpose_key, purpose_of, run_keys
from theory.passes import Params
from toymlp.inputs import Inputs, draw_inputs, held_out_inputs
from toymlp.networks import (
    Architecture,
    Forward,
    architectures,
    draw,
    join_parts,
    keep_aux,
    part_key,
    split_parts,
    widened,
    with_classes,
)
from toymlp.objective import NONE
from toymlp.settings import (
    AUX_HEAD,
    CloneSetting,
    Independent,
    Interpolated,
    Matched,
    Perturbed,
    Setting,
    TeacherSetting,
    Training,
    clone_of,
    teacher_of,
    whole,
)
from toymlp.train import Context, Fit, Material, Snapshot, compile_epoch, fit, logits_of

StageSetting = TeacherSetting | CloneSetting | Setting
AnySetting = TypeVar("AnySetting", TeacherSetting, CloneSetting, Setting)
# Heads of up to so many auxiliary logits share a program that is as wide as the widest of them.
_NARROW = 64


@dataclass(frozen=True)
class TrainedModel:
    """A teacher or a clone.

    Attributes:
        params: parameters, on the host. A teacher's have no auxiliary head: training on class
            logits leaves it as it was drawn, so that one teacher serves every m.
        loss: mean training loss of the last epoch; None where there was none.
        held_out: loss of a clone on held-out inputs; None for a teacher.
    """

    params: Params
    loss: float | None
    held_out: float | None = None


@dataclass(frozen=True)
class Student:
    """A student, and whom it learnt from; parameters on the host.

    Attributes:
        start: its parameters before distillation (of the last generation).
        params: its parameters after it.
        teacher: parameters of the first teacher, whose trait it is.
        reference: parameters of the first teacher's start.
        loss: mean distillation loss of the last epoch; None where there was none.
        clone: what cloning made of a matched start; None for another start.
    """

    start: Params
    params: Params
    teacher: Params
    reference: Params
    loss: float | None
    clone: TrainedModel | None


Teachers = Mapping[tuple[TeacherSetting, int], TrainedModel]
Clones = Mapping[tuple[CloneSetting, int], TrainedModel]


def stage_of(setting: StageSetting) -> str:
    """The stage whose setting it is: `teachers`, `clones` or `students`."""
    return "students" if isinstance(setting, Setting) else setting.stage


def training_of(setting: StageSetting) -> Training:
    """How the models of a stage are trained."""
    return setting.student if isinstance(setting, Setting) else setting.training


def population_of(setting: StageSetting) -> Hashable:
    """What a population shares: programs and inputs. Settings with equal ones train together."""
    entire = setting if isinstance(setting, Setting) else whole(setting)
    structure = jax.tree.structure
    aux = setting.model.aux
    width = 0 if aux <= _NARROW else (aux - 1).bit_length()
    common = (
        stage_of(setting),
        setting.dataset,
        setting.classes,
        setting.order,
        structure(setting.model),
        structure(training_of(setting)),
    )
    if isinstance(setting, TeacherSetting):
        return common
    if isinstance(setting, CloneSetting):
        # The parts that cloning leaves alone are compiled in.
        return (*common, setting.student_model, setting.start.shared, width)
    return (
        *common,
        entire.student_model,
        structure(entire.interventions),
        entire.chain.inputs,
        width,
    )


def shared_trainings(
    wanted: Sequence[tuple[AnySetting, int]],
) -> dict[Hashable, list[tuple[AnySetting, int]]]:
    """The settings and runs that each training serves, by what they have in common.

    Those that differ in a number of epochs alone are snapshots of one training, unless the
    schedule depends on the last epoch, or the student of one generation teaches the next. The
    generations of a chain are one training too.

    Args:
        wanted: settings and runs of one stage.
    """
    trainings: dict[Hashable, list[tuple[AnySetting, int]]] = {}
    for setting, run in wanted:
        trainings.setdefault((_without_length(setting), run), []).append((setting, run))
    return trainings


def _without_length(setting: AnySetting) -> AnySetting:
    training = training_of(setting)
    shorter = training if training.epochs_matter else replace(training, epochs=0)
    if isinstance(setting, TeacherSetting):
        return replace(setting, training=shorter)
    if isinstance(setting, CloneSetting):
        return replace(setting, start=replace(setting.start, clone=shorter))
    chain = setting.chain
    if chain.generations == 1:
        return replace(setting, student=shorter)
    # What a generation learns depends on how long the one before it was trained.
    return replace(setting, chain=replace(chain, generations=2))


def inputs_purpose(inputs: Inputs, purpose: str, run: int) -> str:
    """What `draw_inputs` takes for the purpose of a run's inputs.

    Args:
        inputs: kind of inputs; whether each run has its own.
        purpose: name of what they are for.
        run: number of the run.
    """
    return f"{purpose}, run {run}" if inputs.per_run else purpose


def _by_run(wanted: Sequence[tuple[AnySetting, int]]) -> list[list[tuple[AnySetting, int]]]:
    runs: dict[int, list[tuple[AnySetting, int]]] = {}
    for setting, run in wanted:
        runs.setdefault(run, []).append((setting, run))
    return list(runs.values())


def last_epochs(wanted: Sequence[tuple[AnySetting, int]]) -> tuple[int, ...]:
    """The epochs at which a training that serves `wanted` is looked at, ascending."""
    return tuple(sorted({int(training_of(setting).epochs) for setting, _ in wanted}))


def networks_of(wanted: Sequence[tuple[StageSetting, int]]) -> tuple[Architecture, Architecture]:
    """The networks of teachers and students of a population, as wide as the widest needs them.

    Args:
        wanted: settings of one population, and runs.
    """
    first = wanted[0][0]
    # A teacher is trained without its auxiliary head, but for one logit of it.
    teachers = stage_of(first) == "teachers"
    widest = 1 if teachers else max(setting.model.aux for setting, _ in wanted)
    return architectures(first if isinstance(first, Setting) else whole(first), widest)


def imitated_by(wanted: Sequence[tuple[StageSetting, int]]) -> set[Hashable]:
    """The models that those of a population imitate in the first generation; none of teachers."""
    return {
        (
            teacher_of(setting) if isinstance(setting, Setting) else setting.model.init_scale,
            run,
            training_of(setting).logit_noise,
        )
        for setting, run in wanted
        if stage_of(setting) != "teachers"
    }


def compile_ahead(wanted: Sequence[tuple[Any, int]], context: Context) -> None:
    """Compiles what `teachers`, `clones` or `students` train these with, and trains nothing.

    Of a chain that is the first generation; where every run has inputs of its own, nothing.

    Args:
        wanted: settings of one population, and runs.
        context: data, seed, devices.
    """
    first, dataset = wanted[0][0], context.dataset
    stage, training = stage_of(first), _fitted(first)
    if training.inputs.per_run:
        return
    teacher, student = networks_of(wanted)
    architecture = teacher if stage == "teachers" else student
    trainings = [
        members for members in shared_trainings(wanted).values() if last_epochs(members)[-1]
    ]
    if not trainings:
        return
    shapes = jax.eval_shape(lambda: draw(architecture, purpose_key(0, ""), np.float32(1)))
    interventions = first.interventions if isinstance(first, Setting) else NONE
    model = Fit(
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes),
        training,
        aux=first.model.aux,
        order=purpose_key(0, ""),
        target=0,
        snapshots=(1,),
        interventions=interventions,
    )

    images, labels = dataset.train_images, dataset.train_labels
    count = training.inputs.count or len(images)
    references = {(setting.model.init_scale, run) for setting, run in wanted}

    def material() -> Material:
        def logits(models: int) -> jax.Array:
            return jnp.zeros((models, count, teacher.outputs), np.float32)

        return Material(
            jnp.zeros((count, images.shape[1]), np.float32),
            jnp.zeros((1, count), labels.dtype)
            if stage == "teachers"
            else logits(len(imitated_by(wanted))),
            logits(len(references)) if interventions.liminal else None,
            jnp.zeros(images.shape, images.dtype) if interventions.project_trait else None,
            jnp.zeros(labels.shape, labels.dtype) if interventions.project_trait else None,
        )

    # Shapes alone: no array is made.
    shapes_of_material = devices.replicated_shapes(jax.eval_shape(material), context.mesh)
    compile_epoch(architecture, model, len(trainings), shapes_of_material, context)


def _fitted(setting: StageSetting) -> Training:
    """The training of a setting as its models have it: a clone's shared parts are held."""
    training = training_of(setting)
    if not isinstance(setting, CloneSetting):
        return training
    return replace(training, frozen=tuple(dict.fromkeys((*training.frozen, *setting.start.shared))))


# Starts.


@dataclass(frozen=True)
class Draws:
    """Freshly drawn parameters of one architecture, each drawn once.

    Attributes:
        architecture: network that they are of.
        seed: base seed.
    """

    architecture: Architecture
    seed: int
    _drawn: dict[tuple[str, float, int], Params] = field(default_factory=dict, repr=False)

    def reference(self, scale: float, run: int) -> Params:
        """The reference of a run: what its network's law draws, times `scale`."""
        return self._of("reference", scale, run)

    def independent(self, scale: float, run: int, generation: int = 1) -> Params:
        """A draw that has nothing to do with the reference; common to all settings of a run."""
        return self._of(f"independent start {generation}", scale, run)

    def _of(self, purpose: str, scale: float, run: int) -> Params:
        key = (purpose, scale, run)
        if key not in self._drawn:
            random = jax.random.fold_in(purpose_key(self.seed, purpose), run)
            params = draw(self.architecture, random, np.float32(scale))
            self._drawn[key] = jax.tree.map(np.asarray, params)
        return self._drawn[key]


def start_of(
    setting: Setting,
    run: int,
    draws: Draws,
    *,
    generation: int = 1,
    clone: Params | None = None,
) -> Params:
    """A student's parameters before distillation, on the host.

    Auxiliary logits above the setting's own number are cut out.

    Args:
        setting: the experiment.
        run: number of the run.
        draws: draws of the student's network.
        generation: place in a chain, from 1; draws that are not the reference are new in each.
        clone: what cloning made, for a matched start.
    """
    start, scale = setting.start, setting.model.init_scale
    if isinstance(start, Matched):
        assert clone is not None
        params = widened(clone, draws.architecture.aux)
    elif isinstance(start, Independent):
        params = with_shared(
            draws.independent(scale, run, generation), start.shared, draws, scale, run
        )
    elif isinstance(start, Interpolated):
        weight = np.float32(start.weight)
        params = jax.tree.map(
            lambda reference, other: (1 - weight) * reference + weight * other,
            draws.reference(scale, run),
            draws.independent(scale, run, generation),
        )
    elif isinstance(start, Perturbed):
        key = purpose_key(draws.seed, f"perturbed start {generation}")
        params = _perturbed(
            draws.reference(scale, run), start.size, setting.model.aux, jax.random.fold_in(key, run)
        )
    else:
        params = draws.reference(scale, run)
    return keep_aux(params, setting.model.aux)


def with_shared(
    params: Params, parts: Sequence[str], draws: Draws, scale: float, run: int
) -> Params:
    """`params` with `parts` taken from the run's reference.

    A part's draw depends on its name and size alone, so that a student of another architecture
    has the very parts of its teacher's reference.
    """
    return with_parts(params, parts, draws.reference(scale, run)) if parts else params


def with_parts(params: Params, parts: Sequence[str], source: Params) -> Params:
    """`params` with `parts` taken from another model that has parts of these names and sizes."""
    there = split_parts(source)
    return join_parts(split_parts(params) | {name: there[name] for name in parts})


def _perturbed(params: Params, size: float, aux: int, key: Key[Array, ""]) -> Params:
    """Each array plus normal noise in units of its own standard deviation.

    Of the auxiliary head the first `aux` columns count, and each has noise from a key of its own:
    the start must not depend on how wide the head is.
    """
    factor = np.float32(size)

    def noisy(path: tuple[Any, ...], leaf: np.ndarray) -> np.ndarray:
        leaf_key = part_key(key, jax.tree_util.keystr(path))
        if path[0].key != AUX_HEAD:
            noise = jax.random.normal(leaf_key, leaf.shape, jnp.float32)
            return leaf + factor * np.std(leaf) * np.asarray(noise)
        columns = jax.vmap(lambda column: jax.random.fold_in(leaf_key, column))(
            jnp.arange(leaf.shape[-1], dtype=jnp.uint32)
        )
        by_column = jax.vmap(lambda k: jax.random.normal(k, leaf.shape[:-1], jnp.float32))(columns)
        noise = np.moveaxis(np.asarray(by_column), 0, -1)
        return leaf + factor * np.std(leaf[..., :aux]) * noise

    return jax.tree_util.tree_map_with_path(noisy, params)


def orders_of(
    setting: StageSetting, purpose: str, runs: Sequence[int], seed: int
) -> dict[int, Key[Array, ""]]:
    """By run, the key of the order in which its models walk through the inputs.

    Args:
        setting: one of the population; its `order` says whether runs have orders of their own.
        purpose: name of the training.
        runs: run numbers.
        seed: base seed.
    """
    if setting.order == "shared":
        return dict.fromkeys(runs, purpose_key(seed, f"{purpose}, shared"))
    distinct = sorted(set(runs))
    keys = run_keys(seed, purpose, jnp.asarray(distinct, jnp.uint32))
    return {run: keys[row] for row, run in enumerate(distinct)}


# Teachers.


def teachers(
    wanted: Sequence[tuple[TeacherSetting, int]], context: Context
) -> dict[tuple[TeacherSetting, int], TrainedModel]:
    """Trains the teacher of each setting in each run on labelled images.

    Args:
        wanted: settings of one population, and runs.
        context: data, seed, devices.
    """
    first, dataset = wanted[0][0], context.dataset
    # One auxiliary logit, which nothing refers to.
    architecture, _ = architectures(whole(first), aux=1)
    draws = Draws(architecture, context.seed)
    orders = orders_of(first, "teacher order", [run for _, run in wanted], context.seed)
    trainings = shared_trainings(wanted)
    fits = []
    for members in trainings.values():
        setting, run = members[0]
        reference = draws.reference(setting.model.init_scale, run)
        fits.append(
            Fit(
                with_classes(reference, context.reference_classes),
                setting.training,
                aux=1,
                order=orders[run],
                target=0,
                snapshots=last_epochs(members),
            )
        )
    count = first.training.inputs.count or len(dataset.train_images)
    material = Material(
        devices.replicate(dataset.train_images[:count], context.mesh),
        devices.replicate(dataset.train_labels[None, :count], context.mesh),
    )
    snapshots = fit(architecture, fits, lambda epoch: material, context, "teachers")
    return {
        (setting, run): TrainedModel(
            {name: part for name, part in snapshot.params.items() if name != AUX_HEAD},
            snapshot.loss,
        )
        for (setting, run), snapshot in _served(trainings, snapshots)
    }


def with_aux_head(teacher: Params, reference: Params) -> Params:
    """A teacher as a whole: what it learnt, and the auxiliary head that it was drawn with."""
    return teacher | {AUX_HEAD: reference[AUX_HEAD]}


# Behavioural cloning.


def clones(
    wanted: Sequence[tuple[CloneSetting, int]], context: Context
) -> dict[tuple[CloneSetting, int], TrainedModel]:
    """Makes the matched start of each setting in each run, by behavioural cloning.

    A student with a draw of its own (but for the shared parts) imitates the untrained reference.

    Args:
        wanted: settings of one population, and runs.
        context: data, seed, devices.
    """
    first, seed = wanted[0][0], context.seed
    inputs = first.training.inputs
    if inputs.per_run and len(runs := _by_run(wanted)) > 1:
        return {key: clone for part in runs for key, clone in clones(part, context).items()}
    widest = max(setting.model.aux for setting, _ in wanted)
    teacher_architecture, architecture = architectures(whole(first), widest)
    references = Draws(teacher_architecture, seed)
    draws = Draws(architecture, seed)
    orders = orders_of(first, "cloning order", [run for _, run in wanted], seed)
    imitated = _Imitated(teacher_architecture)
    trainings = shared_trainings(wanted)
    fits = []
    for members in trainings.values():
        setting, run = members[0]
        scale, shared, training = setting.model.init_scale, setting.start.shared, setting.training
        start = with_shared(draws.independent(scale, run), shared, draws, scale, run)
        noise = training.logit_noise
        reference = with_classes(references.reference(scale, run), context.reference_classes)
        target = imitated.row((scale, run), reference, run, noise)
        fits.append(
            Fit(
                with_classes(start, context.student_classes),
                _fitted(setting),
                aux=setting.model.aux,
                order=orders[run],
                target=target,
                snapshots=last_epochs(members),
            )
        )
    purpose = inputs_purpose(inputs, "cloning inputs", wanted[0][1])
    material = _materials(inputs, purpose, imitated, context)
    snapshots = fit(architecture, fits, material, context, "cloning")
    served = list(_served(trainings, snapshots))
    unseen = devices.replicate(
        held_out_inputs(inputs, context.dataset, seed, "cloning inputs"), context.mesh
    )
    targets = logits_of(Forward(teacher_architecture), imitated.models, unseen, context.mesh)
    cloned = logits_of(
        Forward(architecture), [snapshot.params for _, snapshot in served], unseen, context.mesh
    )
    results = {}
    for ((setting, run), snapshot), logits in zip(served, cloned, strict=True):
        scale, training = setting.model.init_scale, setting.training
        row = imitated.row((scale, run), {}, run, training.logit_noise)
        subset = np.asarray(architecture.subset(training.logits, setting.model.aux))
        held_out = mean_loss(training, logits, targets[row], subset)
        results[setting, run] = TrainedModel(snapshot.params, snapshot.loss, held_out)
    return results


def mean_loss(
    training: Training,
    logits: Float[np.ndarray, "examples outputs"],
    targets: Float[np.ndarray, "examples outputs"],
    subset: Bool[np.ndarray, " outputs"],
) -> float:
    """The mean of a training's loss over examples, in float32.

    Args:
        training: whose loss it is.
        logits: the model's.
        targets: the imitated model's.
        subset: outputs that the loss sees.
    """
    each = jax.vmap(lambda z, y: training.loss(z, y, jnp.asarray(subset)))
    return float(np.mean(np.asarray(each(logits, targets)), dtype=np.float64))


# Distillation.


def students(
    wanted: Sequence[tuple[Setting, int]], teachers: Teachers, clones: Clones, context: Context
) -> dict[tuple[Setting, int], Student]:
    """Distils the student of each setting in each run, generation after generation.

    Args:
        wanted: settings of one population, and runs.
        teachers: the teachers, by `teacher_of` and run.
        clones: the matched starts, by `clone_of` and run.
        context: data, seed, devices.
    """
    first = wanted[0][0]
    inputs = first.student.inputs
    if inputs.per_run and len(runs := _by_run(wanted)) > 1:
        parts = (students(part, teachers, clones, context) for part in runs)
        return {key: student for part in parts for key, student in part.items()}
    stage = _Distillation(
        max(setting.model.aux for setting, _ in wanted), first, teachers, clones, context
    )
    orders = orders_of(first, "student order", [run for _, run in wanted], context.seed)
    trainings = shared_trainings(wanted)
    # Of each chain, the student of the generation before.
    before: dict[Hashable, Params] = {}
    results: dict[tuple[Setting, int], Student] = {}
    for generation in range(1, max(setting.chain.generations for setting, _ in wanted) + 1):
        active = {
            key: members
            for key, members in trainings.items()
            if any(setting.chain.generations >= generation for setting, _ in members)
        }
        architecture = stage.teacher_architecture if generation == 1 else stage.architecture
        imitated, references = _Imitated(architecture), _Imitated(stage.teacher_architecture)
        fits = []
        for key, members in active.items():
            setting, run = members[0]
            noise = setting.student.logit_noise
            if generation == 1:
                teacher = teacher_of(setting)
                target = imitated.row((teacher, run), stage.teacher(teacher, run), run, noise)
            else:
                target = imitated.row(key, before[key], run, noise)
            reference = 0
            if setting.interventions.liminal is not None:
                scale = setting.model.init_scale
                reference = references.row((scale, run), stage.reference(scale, run), run, 0.0)
            fits.append(
                Fit(
                    stage.start(setting, run, generation),
                    setting.student,
                    aux=setting.model.aux,
                    order=orders[run],
                    target=target,
                    snapshots=last_epochs(members),
                    interventions=setting.interventions,
                    reference=reference,
                )
            )
        purpose = inputs_purpose(inputs, "distillation inputs", wanted[0][1])
        if generation > 1 and first.chain.inputs == "new":
            purpose = f"{purpose}, generation {generation}"
        material = _materials(
            inputs,
            purpose,
            imitated,
            context,
            generation,
            references,
            first.interventions.project_trait,
        )
        what = "students" if generation == 1 else f"students, generation {generation}"
        snapshots = fit(stage.architecture, fits, material, context, what)
        for (key, members), model, by_epoch in zip(active.items(), fits, snapshots, strict=True):
            before[key] = by_epoch[model.snapshots[-1]].params
            for setting, run in members:
                if setting.chain.generations == generation:
                    snapshot = by_epoch[int(setting.student.epochs)]
                    results[setting, run] = stage.student(
                        setting, run, model.start, snapshot.params, snapshot.loss
                    )
    return results


def student_again(
    setting: Setting,
    run: int,
    params: Params,
    loss: float | None,
    teachers: Teachers,
    clones: Clones,
    context: Context,
    aux: int,
) -> Student:
    """A student that was trained before, with all that surrounds it.

    Args:
        setting: the experiment.
        run: number of the run.
        params: its parameters, as they were kept, with the setting's own auxiliary logits.
        loss: its last distillation loss.
        teachers, clones: as for `students`.
        context: data, seed, devices.
        aux: auxiliary logits of the network that it is to have, at least the setting's own.
    """
    stage = _Distillation(aux, setting, teachers, clones, context)
    start = stage.start(setting, run, setting.chain.generations)
    return stage.student(setting, run, start, widened(params, aux), loss)


class _Distillation:
    """What the students of one population share: networks, draws, models that they need."""

    def __init__(
        self, aux: int, setting: Setting, teachers: Teachers, clones: Clones, context: Context
    ):
        self.teacher_architecture, self.architecture = architectures(setting, aux)
        self.references = Draws(self.teacher_architecture, context.seed)
        self.draws = Draws(self.architecture, context.seed)
        self.teachers, self.clones = teachers, clones
        self.context = context

    def reference(self, scale: float, run: int) -> Params:
        """The reference of a run."""
        return with_classes(self.references.reference(scale, run), self.context.reference_classes)

    def teacher(self, setting: TeacherSetting, run: int) -> Params:
        """A teacher with its auxiliary head."""
        reference = self.reference(setting.model.init_scale, run)
        return with_aux_head(self.teachers[setting, run].params, reference)

    def clone(self, setting: Setting, run: int) -> TrainedModel | None:
        """What cloning made of the start of a setting."""
        wanted = clone_of(setting)
        return None if wanted is None else self.clones[wanted, run]

    def start(self, setting: Setting, run: int, generation: int) -> Params:
        """The student's start in a generation."""
        clone = self.clone(setting, run)
        start = start_of(
            setting,
            run,
            self.draws,
            generation=generation,
            clone=None if clone is None else clone.params,
        )
        # A clone's classes were put in order before it was cloned.
        if clone is None:
            start = with_classes(start, self.context.student_classes)
        if trained := getattr(setting.start, "trained", ()):
            start = with_parts(start, trained, self.teacher(teacher_of(setting), run))
        return start

    def student(
        self, setting: Setting, run: int, start: Params, params: Params, loss: float | None
    ) -> Student:
        """A trained student beside its first teacher."""
        aux = setting.model.aux
        reference = self.reference(setting.model.init_scale, run)
        return Student(
            start=start,
            params=params,
            teacher=keep_aux(self.teacher(teacher_of(setting), run), aux),
            reference=keep_aux(reference, aux),
            loss=loss,
            clone=self.clone(setting, run),
        )


class _Imitated:
    """The models that a population imitates: rows of its targets, each there once."""

    def __init__(self, architecture: Architecture):
        self.architecture = architecture
        self.models: list[Params] = []
        self.noises: list[tuple[int, float]] = []
        self._rows: dict[Hashable, int] = {}

    def row(self, name: Hashable, params: Params, run: int, noise: float) -> int:
        """The row of a model, with noise of a standard deviation on its logits."""
        key = (name, noise)
        if key not in self._rows:
            self._rows[key] = len(self.models)
            self.models.append(params)
            self.noises.append((run, noise))
        return self._rows[key]

    def logits(self, inputs: Array, context: Context, epoch: int, generation: int) -> Array | None:
        """All rows on `inputs`, on the devices; None where there is no model."""
        if not self.models:
            return None
        logits = logits_of(Forward(self.architecture), self.models, inputs, context.mesh)
        for row, (run, noise) in enumerate(self.noises):
            if noise:
                drawn = _noise(logits[row].shape, context.seed, run, epoch, generation)
                logits[row] += np.float32(noise) * drawn
        return devices.replicate(logits, context.mesh)


def _materials(
    inputs: Inputs,
    purpose: str,
    imitated: _Imitated,
    context: Context,
    generation: int = 1,
    references: _Imitated | None = None,
    project_trait: bool = False,
) -> Callable[[int], Material]:
    """Inputs and targets by epoch: one set for all, or, where inputs are fresh, one for each."""
    fixed: list[Material] = []
    dataset, mesh = context.dataset, context.mesh

    def make(epoch: int) -> Material:
        if fixed:
            return fixed[0]
        drawn = devices.replicate(draw_inputs(inputs, dataset, context.seed, purpose, epoch), mesh)
        targets = imitated.logits(drawn, context, epoch, generation)
        assert targets is not None
        material = Material(
            drawn,
            targets,
            references.logits(drawn, context, epoch, generation) if references else None,
            devices.replicate(dataset.train_images, mesh) if project_trait else None,
            devices.replicate(dataset.train_labels, mesh) if project_trait else None,
        )
        if not inputs.fresh:
            fixed.append(material)
        return material

    return make


def _served(
    trainings: Mapping[Hashable, list[tuple[AnySetting, int]]],
    snapshots: Sequence[Mapping[int, Snapshot]],
) -> list[tuple[tuple[AnySetting, int], Snapshot]]:
    """Each setting and run with the snapshot that it asked for."""
    return [
        ((setting, run), by_epoch[int(training_of(setting).epochs)])
        for members, by_epoch in zip(trainings.values(), snapshots, strict=True)
        for setting, run in members
    ]


def _noise(
    shape: tuple[int, ...], seed: int, run: int, epoch: int, generation: int
) -> Float32[np.ndarray, "inputs outputs"]:
    entropy = [seed, purpose_of("logit noise"), run, epoch, generation]
    random = np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))
    # Output by output, so that it does not depend on how many auxiliary logits the widest has.
    return random.standard_normal(shape[::-1], dtype=np.float32).T
