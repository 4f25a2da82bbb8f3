"""Which settings share a training: those that differ in a number of epochs alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from toymlp.settings import Knobs, Setting

Stage = Literal["teachers", "clones", "students"]
_EPOCHS = {"teachers": "teacher_epochs", "clones": "clone_epochs", "students": "student_epochs"}


def trainings(stage: Stage, settings: Sequence[Setting]) -> dict[Knobs, list[Setting]]:
    """The settings that each training of a stage serves, by what they have in common.

    Those that differ in a number of epochs alone are snapshots of one training. For students a
    schedule and a chain are exceptions: there the number decides more than where to stop. The
    generations of a chain are one training too.

    Args:
        stage: which.
        settings: as that stage wants them, all of one shape.
    """
    apart = stage == "students" and (
        settings[0].shape.student_schedule == "cosine"
        or any(setting.knobs.generations > 1 for setting in settings)
    )
    found: dict[Knobs, list[Setting]] = {}
    for setting in settings:
        key = replace(setting.knobs, generations=1)
        if not apart:
            key = replace(key, **{_EPOCHS[stage]: 0})
        found.setdefault(key, []).append(setting)
    return found


def epochs_of(stage: Stage, setting: Setting) -> int:
    """Epochs of one training of `stage`; of a chain, those of each generation."""
    return getattr(setting.knobs, _EPOCHS[stage])


def stops(stage: Stage, settings: Sequence[Setting]) -> tuple[int, ...]:
    """The epochs at which a training that serves `settings` is wanted, in order."""
    return tuple(sorted({epochs_of(stage, setting) for setting in settings}))
