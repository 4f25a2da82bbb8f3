"""Which settings contradict each other, or have no effect beside each other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sublab.errors import InputError
from toymlp.data import size_of
from toymlp.networks import Plan, student_plan, teacher_plan
from toymlp.settings import AUX_HEAD, CLASS_HEAD, Setting

# Starts that need the student's parameters to be like the teacher's.
_SAME_NETWORK = ("reference", "interpolated", "perturbed", "layerwise")


@dataclass(frozen=True)
class Contradiction:
    """One thing that is wrong with a setting.

    Attributes:
        names: the settings that it is about; the first is the one to change.
        message: what is wrong, and what would be right.
    """

    names: tuple[str, ...]
    message: str


class ContradictionError(InputError):
    """Settings that do not go together."""

    def __init__(self, contradiction: Contradiction):
        super().__init__(contradiction.message)
        self.names = contradiction.names


def pixels_and_classes(setting: Setting) -> tuple[int, int]:
    """Pixels of an image of the setting's data set, and the number of classes that are kept."""
    size = size_of(setting.shape.dataset)
    return size.pixels, setting.shape.classes or size.classes


def plans(setting: Setting, aux: int | None = None) -> tuple[Plan, Plan]:
    """The teacher's and the student's network, with `aux` auxiliary logits (the setting's own)."""
    size = pixels_and_classes(setting)
    aux = setting.knobs.aux if aux is None else aux
    return teacher_plan(setting.shape, *size, aux), student_plan(setting.shape, *size, aux)


def check(setting: Setting) -> None:
    """Refuses a setting whose parts contradict each other, or in which one has no effect.

    Raises:
        ContradictionError: names them, and says what would be right.
    """
    for found in contradictions(setting):
        raise ContradictionError(found)


def contradictions(setting: Setting) -> Iterator[Contradiction]:
    """Everything that is wrong with a setting."""
    yield from impossible(setting)
    values = setting.as_dict()
    for name, because in idle(setting).items():
        yield Contradiction((name,), f"{name} = {values[name]!r} has no effect: {because}")


def idle(setting: Setting) -> dict[str, str]:
    """The settings that are not at their default and have no effect, and why."""
    values, defaults = setting.as_dict(), Setting().as_dict()
    return {
        name: because
        for name, (matters, because) in _MATTERS.items()
        if values[name] != defaults[name] and not matters(setting)
    }


def matters(setting: Setting, name: str) -> bool:
    """Whether the setting `name` has any effect beside the others."""
    return name not in _MATTERS or _MATTERS[name][0](setting)


def impossible(setting: Setting) -> Iterator[Contradiction]:
    """What cannot be together."""
    yield from _of_the_losses(setting)
    shape = setting.shape
    if shape.student_network == "cnn" and not shape.hidden and shape.student_hidden is None:
        yield Contradiction(
            ("student_hidden",), "a CNN needs a dense layer: give student_hidden = [256]"
        )
        return
    yield from _of_the_networks(setting)
    yield from _of_the_inputs(setting)
    if setting.knobs.start == "matched":
        yield from _of_cloning(setting)


def _of_the_losses(setting: Setting) -> Iterator[Contradiction]:
    shape, knobs = setting.shape, setting.knobs
    there = size_of(shape.dataset).classes
    if shape.classes == 1 or shape.classes > there:
        yield Contradiction(
            ("classes",),
            f"classes = {shape.classes} is not allowed: {shape.dataset} has {there}; keep from 2 "
            f"to {there}, or 0 for all",
        )
    if knobs.aux == 1 and knobs.logits == "aux" and shape.loss == "kl":
        yield Contradiction(
            ("aux", "loss"),
            "aux = 1 with the KL loss carries nothing, since a softmax over one logit is constant; "
            "use aux >= 2, or loss = squared_error",
        )


def _of_the_networks(setting: Setting) -> Iterator[Contradiction]:
    knobs = setting.knobs
    teacher, student = plans(setting)
    if teacher != student and knobs.start in _SAME_NETWORK:
        yield Contradiction(
            ("start",),
            f"start = {knobs.start} needs a student with the teacher's network; for another one "
            f"use independent or matched",
        )
    for name in ("redrawn", "shared", "frozen"):
        for part in getattr(knobs, name):
            if part not in student.parts:
                yield Contradiction(
                    (name,),
                    f"{name}: the student has no part {part!r}; it has {', '.join(student.parts)}",
                )
    for part in knobs.shared if teacher != student else ():
        if not _same_part(teacher, student, part):
            yield Contradiction(
                ("shared",),
                f"shared: {part} has another size in the student than in the teacher, or another "
                f"kind",
            )
    if knobs.start == "layerwise" and not knobs.redrawn:
        yield Contradiction(
            ("redrawn", "start"),
            "start = layerwise needs redrawn, the parts that are drawn anew; with none it is "
            "start = reference",
        )
    if set(knobs.frozen) >= set(student.parts):
        yield Contradiction(("frozen",), "frozen: with every part frozen there is nothing to train")


def _of_the_inputs(setting: Setting) -> Iterator[Contradiction]:
    shape = setting.shape
    pixels, _ = pixels_and_classes(setting)
    if shape.inputs == "subspace" and shape.subspace > pixels:
        yield Contradiction(
            ("subspace",), f"subspace = {shape.subspace} is more than the {pixels} pixels there are"
        )
    if shape.fresh and shape.inputs == "images":
        yield Contradiction(
            ("fresh", "inputs"),
            "fresh = true cannot be with inputs = images, which are there and not drawn",
        )


def _of_cloning(setting: Setting) -> Iterator[Contradiction]:
    shape, knobs = setting.shape, setting.knobs
    _, student = plans(setting)
    if knobs.aux == 1 and knobs.clone_logits == "aux":
        yield Contradiction(
            ("aux", "clone_logits"),
            "aux = 1 cannot be cloned, since cloning is by KL and a softmax over one logit is "
            "constant; use aux >= 2, or clone_logits = all",
        )
    if set(knobs.shared) >= set(student.parts):
        yield Contradiction(("shared",), "a matched start with every part shared has none to clone")
    if shape.clone_fresh and shape.clone_inputs == "images":
        yield Contradiction(
            ("clone_fresh", "clone_inputs"),
            "clone_fresh = true cannot be with clone_inputs = images, which are there and not "
            "drawn; say clone_fresh = false",
        )
    if shape.clone_schedule == "cosine" and knobs.clone_epochs > knobs.clone_horizon:
        yield Contradiction(
            ("clone_epochs", "clone_horizon"),
            f"clone_epochs = {knobs.clone_epochs} is beyond clone_horizon = "
            f"{knobs.clone_horizon}, where the cosine decay has ended",
        )
    if knobs.generations > 1:
        yield Contradiction(
            ("generations", "start"),
            "generations > 1 cannot be with start = matched: only the first teacher's initial "
            "state is cloned",
        )


def _same_part(teacher: Plan, student: Plan, part: str) -> bool:
    if teacher.biases != student.biases or part not in teacher.parts:
        return False
    if part in (CLASS_HEAD, AUX_HEAD):
        return [teacher.pixels, *teacher.hidden][-1] == [student.pixels, *student.hidden][-1]
    if student.network == "cnn":
        return False
    index = int(part.removeprefix("hidden_"))
    return [teacher.pixels, *teacher.hidden][index - 1 : index + 1] == (
        [student.pixels, *student.hidden][index - 1 : index + 1]
    )


_Matters = tuple[Callable[[Setting], bool], str]


def _start(*names: str) -> _Matters:
    return (
        lambda setting: setting.knobs.start in names,
        f"it is for start = {' or '.join(names)}",
    )


_MATTERS: dict[str, _Matters] = {
    "interpolation": _start("interpolated"),
    "perturbation": _start("perturbed"),
    "redrawn": _start("layerwise"),
    "shared": _start("matched", "independent"),
    **{
        name: _start("matched")
        for name in (
            "clone_inputs", "clone_images", "clone_fresh", "clone_batch", "clone_optimiser",
            "clone_schedule", "clone_epochs", "clone_learning_rate", "clone_horizon",
            "clone_logits",
        )
    },
    "alpha": (lambda s: s.shape.inputs == "mixture", "it is for inputs = mixture"),
    "blur": (lambda s: s.shape.inputs == "blurred", "it is for inputs = blurred"),
    "subspace": (lambda s: s.shape.inputs == "subspace", "it is for inputs = subspace"),
    "temperature": (lambda s: s.shape.loss == "kl", "it is for loss = kl"),
    "liminal_epochs": (lambda s: s.knobs.liminal_weight > 0, "liminal_weight is 0"),
    "teacher_weight_decay": (
        lambda s: s.shape.teacher_optimiser == "adamw", "it is for teacher_optimiser = adamw"
    ),
    "student_weight_decay": (
        lambda s: s.shape.student_optimiser == "adamw", "it is for student_optimiser = adamw"
    ),
    "clone_horizon": (
        lambda s: s.knobs.start == "matched" and s.shape.clone_schedule == "cosine",
        "it is for start = matched with clone_schedule = cosine",
    ),
}  # fmt: skip
