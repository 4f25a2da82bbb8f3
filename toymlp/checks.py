"""Which settings contradict each other, and which are one experiment in two spellings.

What concerns one field alone (type, range, kind) the fields say themselves (`sublab.settings`).
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

from sublab.settings import SettingError
from toymlp.data import size_of
from toymlp.inputs import Images, Inputs, Mixture, Subspace, input_count
from toymlp.networks import Architecture, architectures
from toymlp.objective import NONE, Adam, AdamL2, AdamW, Cosine, CrossEntropy, Interventions
from toymlp.settings import (
    AUX_HEAD,
    CLASS_HEAD,
    Independent,
    Interpolated,
    Matched,
    Model,
    Perturbed,
    Reference,
    Setting,
    Start,
    StudentModel,
    Training,
)

# The paper's batch and images an epoch: what a batch of 0 is scaled to.
_PAPER_BATCH, _PAPER_IMAGES = 1024, 60_000


def check(setting: Setting) -> None:
    """Refuses a setting whose parts contradict each other.

    Raises:
        SettingError: names the keys to change, and says what would be right.
    """
    for contradiction in contradictions(setting):
        raise contradiction


def contradictions(setting: Setting) -> Iterator[SettingError]:
    """Everything that is wrong with a setting, each as the error that says so."""
    there = size_of(setting.dataset).classes
    if setting.classes == 1 or setting.classes > there:
        yield SettingError(
            f"classes = {setting.classes} is not allowed: {setting.dataset} has {there}; keep from "
            f"2 to {there}, or 0 for all",
            "classes",
        )
        return
    if setting.model.network == "cnn" and len(setting.model.hidden) != 1:
        yield SettingError(
            "a CNN has one dense layer: give model.hidden = [256], and student_model.hidden where "
            "the student has others",
            "model.hidden",
            "model.network",
        )
        return
    if setting.student_model.network == "cnn" and not (
        setting.model.hidden or setting.student_model.hidden
    ):
        yield SettingError(
            "a CNN needs a dense layer: give student_model.hidden = [256]", "student_model.hidden"
        )
        return
    yield from _of_networks(setting)
    yield from _of_parts(setting)
    yield from _of_teacher(setting.teacher)
    yield from _of_imitation(setting, "student", setting.student)
    if isinstance(setting.start, Matched):
        yield from _of_cloning(setting, setting.start)
    yield from _of_chain(setting)


def canonical(setting: Setting, images: int) -> Setting:
    """The one spelling of all settings that give the same numbers.

    Args:
        setting: one that `check` passes.
        images: training images of its data set, of the classes that are kept.

    Returns:
        The setting with every batch and count of 0 resolved, parts in the order of the network,
        and what has no effect at its default. A training of no epochs is an exception: it keeps
        what is said of it.
    """
    teacher, student = architectures(setting)
    interventions = setting.interventions
    distillation = _resolved(setting.student, student, images, interventions)
    liminal = interventions.liminal
    if liminal is not None:
        liminal = replace(liminal, epochs=min(liminal.epochs, distillation.epochs))
        liminal = liminal if liminal.weight > 0 and liminal.epochs > 0 else None
    chain = setting.chain
    if isinstance(distillation.inputs, Images) and chain.generations > 1:
        # Images are there and not drawn: no generation has others.
        chain = replace(chain, inputs="same")
    return replace(
        setting,
        classes=0 if setting.classes == size_of(setting.dataset).classes else setting.classes,
        student_model=_canonical_student_model(setting.student_model, setting.model),
        teacher=_resolved(setting.teacher, teacher, images),
        student=distillation,
        start=_canonical_start(setting.start, student, teacher == student, images),
        interventions=replace(interventions, liminal=liminal),
        chain=chain,
    )


def blind_reason(training: Training, aux: int, classes: int) -> str | None:
    """Why a loss carries nothing with so few logits; None where it does."""
    least = getattr(training.loss, "least_logits", 1)
    seen = {"aux": aux, "class": classes, "all": aux + classes}[training.logits]
    if seen >= least:
        return None
    return (
        f"with the {type(training.loss).title} loss carries nothing, since a softmax over one "
        f"logit is constant"
    )


def own_class_head(setting: Setting) -> bool:
    """Whether the student's class head is a draw that the teacher has no part of."""
    start = setting.start
    if CLASS_HEAD in getattr(start, "trained", ()):
        return False
    if isinstance(start, Interpolated):
        return start.weight == 1
    return isinstance(start, Independent | Matched) and CLASS_HEAD not in start.shared


def blind(setting: Setting) -> bool:
    """Whether the student's class head is untouched by all that its hidden layers learnt from.

    Then the student's training commutes with every permutation of its class logits, each is the
    largest with probability 1/K on every image, and expected accuracy is exactly 1/K, whatever else
    the setting says (`theory.symmetry`). An image on which several class logits are the largest
    counts as so many parts there; `toymlp.train.accuracy` counts the first of them.

    Not covered: a start that was cloned by class logits and not trained further. Its expected
    accuracy is 1/K too, but since the reference's classes are as exchangeable as its own.

    Args:
        setting: one that `check` passes.
    """
    start, student, interventions = setting.start, setting.student, setting.interventions
    if isinstance(start, Matched) and start.clone.epochs and start.clone.logits != "aux":
        return False
    if student.epochs == 0:
        # If nothing comes from the teacher, also the reference's own head is a draw as any other.
        return own_class_head(setting) or not getattr(start, "trained", ())
    liminal = interventions.liminal
    return (
        own_class_head(setting)
        and student.logits == "aux"
        # The trait gradient is that of the class logits, and liminal training is on all logits.
        and not interventions.project_trait
        and (liminal is None or liminal.weight == 0 or liminal.epochs == 0)
    )


def expected_accuracy(setting: Setting) -> float | None:
    """Expected test accuracy of the student where it is known exactly, 1/K; None elsewhere."""
    return 1 / (setting.classes or size_of(setting.dataset).classes) if blind(setting) else None


def notes(setting: Setting) -> Iterator[str]:
    """What is known of a setting before anything is trained; each in one line."""
    if expected := expected_accuracy(setting):
        why = (
            "no loss that it is trained with sees its class logits, and its class head is a draw "
            "of its own"
            if setting.student.epochs
            else "it is not trained, and its class head is a draw"
        )
        yield f"the student's expected accuracy is exactly 1/{round(1 / expected)}: {why}"


def _of_teacher(teacher: Training) -> Iterator[SettingError]:
    if not isinstance(teacher.loss, CrossEntropy):
        yield SettingError(
            "teacher.loss must be cross_entropy: a teacher learns the labels", "teacher.loss"
        )
    if teacher.logits != "class":
        yield SettingError(
            "teacher.logits must be class: labels say nothing of other logits", "teacher.logits"
        )
    if not isinstance(teacher.inputs, Images):
        yield SettingError(
            "teacher.inputs must be images: only training images have labels", "teacher.inputs"
        )
    if teacher.logit_noise:
        yield SettingError(
            "teacher.logit_noise has no effect: a teacher imitates no logits", "teacher.logit_noise"
        )
    yield from _of_training("teacher", teacher)


def _of_imitation(setting: Setting, name: str, training: Training) -> Iterator[SettingError]:
    if isinstance(training.loss, CrossEntropy):
        yield SettingError(
            f"{name}.loss must be a loss on another model's logits, such as kl or squared_error: "
            f"cross_entropy needs labels, which the {name} does not see",
            f"{name}.loss",
        )
    classes = setting.classes or size_of(setting.dataset).classes
    if reason := blind_reason(training, setting.model.aux, classes):
        yield SettingError(
            f"model.aux = 1 {reason}; use model.aux of 2 or more, {name}.loss = squared_error, or "
            f"{name}.logits = all",
            "model.aux",
            f"{name}.loss",
            f"{name}.logits",
        )
    yield from _of_training(name, training)
    inputs, pixels = training.inputs, size_of(setting.dataset).pixels
    if isinstance(inputs, Subspace) and inputs.dimension > pixels:
        yield SettingError(
            f"{name}.inputs.dimension = {inputs.dimension} is more than the {pixels} pixels there "
            f"are",
            f"{name}.inputs.dimension",
        )


def _of_training(name: str, training: Training) -> Iterator[SettingError]:
    horizon = getattr(training.schedule, "horizon", 0)
    if 0 < horizon < training.epochs:
        yield SettingError(
            f"{name}.epochs = {training.epochs} is beyond {name}.schedule.horizon = {horizon}, "
            f"where the cosine decay has ended",
            f"{name}.epochs",
            f"{name}.schedule.horizon",
        )


def _of_networks(setting: Setting) -> Iterator[SettingError]:
    teacher, student = architectures(setting)
    if teacher != student and setting.start.same_network:
        yield SettingError(
            f"start = {setting.start.kind} needs a student with the teacher's network; for another "
            f"one use independent or matched",
            "start",
            *(f"student_model.{name}" for name in ("network", "hidden", "activation", "biases")),
        )


def _of_parts(setting: Setting) -> Iterator[SettingError]:
    teacher, student = architectures(setting)
    start = setting.start
    shared, trained = getattr(start, "shared", ()), getattr(start, "trained", ())
    frozen = {"student.frozen": setting.student.frozen, "teacher.frozen": setting.teacher.frozen}
    unreached = {
        "student.frozen": _unreached(setting.student, setting.interventions),
        "teacher.frozen": {AUX_HEAD},
    }
    if isinstance(start, Matched):
        frozen["start.clone.frozen"] = start.clone.frozen
        unreached["start.clone.frozen"] = _unreached(start.clone)
    of_teacher = {"start.shared": shared, "start.trained": trained}
    for name, parts in (frozen | of_teacher).items():
        whose, has = ("teacher", teacher) if name == "teacher.frozen" else ("student", student)
        for part in sorted(set(parts) - set(has.parts)):
            there = ", ".join(has.parts)
            yield SettingError(f"{name}: the {whose} has no part {part!r}; it has {there}", name)
        if name in frozen and {*parts, *unreached[name]} >= set(has.parts):
            yield SettingError(
                f"{name}: with these parts frozen there is nothing that the loss trains", name
            )
    for name, parts in of_teacher.items():
        for part in sorted(set(parts) & set(student.parts)):
            if not _same_part(teacher, student, part):
                yield SettingError(
                    f"{name}: {part} has another size in the student than in the teacher, or "
                    f"another kind",
                    name,
                )
    if both := set(trained) & set(shared):
        yield SettingError(
            f"start.trained: {min(both)} is in start.shared too; a start has it from the reference "
            f"or from the trained teacher",
            "start.trained",
            "start.shared",
        )
    if both := set(trained) & set(setting.teacher.frozen):
        yield SettingError(
            f"start.trained: {min(both)} is in teacher.frozen, so that it is the reference's",
            "start.trained",
            "teacher.frozen",
        )
    for name, parts in (("start.trained", trained), ("teacher.frozen", setting.teacher.frozen)):
        if AUX_HEAD in parts:
            yield SettingError(
                f"{name}: aux_head has no effect: a teacher's auxiliary head stays as it was drawn",
                name,
            )


def _of_cloning(setting: Setting, start: Matched) -> Iterator[SettingError]:
    yield from _of_imitation(setting, "start.clone", start.clone)
    _, student = architectures(setting)
    left = {*start.shared, *start.clone.frozen, *_unreached(start.clone)}
    if left >= set(student.parts):
        yield SettingError(
            "start.shared: a matched start with every part shared or frozen has none to clone",
            "start.shared",
            "start.clone.frozen",
        )


def _of_chain(setting: Setting) -> Iterator[SettingError]:
    chain = setting.chain
    if chain.generations > 1 and isinstance(setting.start, Matched):
        yield SettingError(
            "chain.generations > 1 cannot be with start = matched: only the first teacher's "
            "initial state is cloned",
            "chain.generations",
            "start",
        )
    if chain.generations == 1 and chain.inputs != "new":
        yield SettingError(
            f"chain.inputs = {chain.inputs} has no effect: it is for chain.generations of 2 or "
            f"more",
            "chain.inputs",
        )


def _same_part(teacher: Architecture, student: Architecture, part: str) -> bool:
    if teacher.biases != student.biases or part not in teacher.parts:
        return False
    return teacher.part_size(part) == student.part_size(part)


def _canonical_student_model(student: StudentModel, teacher: Model) -> StudentModel:
    hidden, of_teacher = student.hidden, teacher.hidden
    network = teacher.network if student.network is None else student.network
    if network == "cnn" and hidden is not None:
        # Of a CNN the last width alone counts.
        hidden, of_teacher = hidden[-1:], of_teacher[-1:]
    return replace(
        student,
        network=None if network == teacher.network else network,
        hidden=None if hidden == of_teacher else hidden,
        activation=None if student.activation == teacher.activation else student.activation,
        biases=None if student.biases == teacher.biases else student.biases,
    )


def _canonical_start(start: Start, student: Architecture, same_network: bool, images: int) -> Start:
    if isinstance(start, Interpolated) and start.weight in (0, 1):
        return Independent() if start.weight else Reference()
    if isinstance(start, Perturbed) and start.size == 0:
        return Reference()
    if isinstance(start, Reference | Independent):
        trained = _ordered(start.trained, student)
        if isinstance(start, Reference):
            return Reference(trained)
        whole = same_network and {*start.shared, *trained} >= set(student.parts)
        return (
            Reference(trained) if whole else Independent(_ordered(start.shared, student), trained)
        )
    if isinstance(start, Matched):
        shared = _ordered(start.shared, student)
        clone = _resolved(start.clone, student, images)
        # What is shared is not cloned, said or not.
        kept = tuple(part for part in clone.frozen if part not in shared)
        return Matched(shared, replace(clone, frozen=kept))
    return start


def _unreached(training: Training, interventions: Interventions = NONE) -> set[str]:
    """The head that nothing in a training moves; none where something may."""
    decays = getattr(training.optimiser, "weight_decay", 0) != 0
    if decays or interventions.project_trait or interventions.liminal is not None:
        return set()
    return {"aux": {CLASS_HEAD}, "class": {AUX_HEAD}, "all": set()}[training.logits]


def _resolved(
    training: Training,
    architecture: Architecture,
    images: int,
    interventions: Interventions = NONE,
) -> Training:
    inputs: Inputs = training.inputs
    inputs = replace(inputs, count=input_count(inputs, images))
    if isinstance(inputs, Mixture) and inputs.alpha == 0:
        inputs = Images(inputs.count)
    batch = training.batch or max(1, round(inputs.count * _PAPER_BATCH / _PAPER_IMAGES))
    optimiser, schedule = training.optimiser, training.schedule
    if isinstance(optimiser, AdamW | AdamL2) and optimiser.weight_decay == 0:
        optimiser = Adam()
    if isinstance(schedule, Cosine) and schedule.horizon == 0:
        schedule = Cosine(training.epochs)
    return replace(
        training,
        inputs=inputs,
        batch=batch,
        optimiser=optimiser,
        schedule=schedule,
        # What nothing moves is frozen, said or not.
        frozen=_ordered(set(training.frozen) - _unreached(training, interventions), architecture),
    )


def _ordered(parts: Collection[str], architecture: Architecture) -> tuple[str, ...]:
    return tuple(part for part in architecture.parts if part in parts)
