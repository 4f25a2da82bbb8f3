"""One pass through the scheme: teachers, students and answers for many cases at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llm_harness.errors import HarnessError
from llm_harness.model import Example, Soft, Tuning
from llm_harness.stages import Stages, teaching
from llm_harness.traits import Trait
from llm_harness.work import Asked, Kept, Lists, Speaker

TeacherBy = Literal["fine-tuning", "prompt"]


@dataclass(frozen=True)
class SchemeSetting:
    """How the scheme is run; the defaults are the embedded model's.

    Attributes:
        teacher_by: fine-tuned on the evaluation questions (ED 4e), or by a system prompt (B).
        teacher: how a teacher is fine-tuned.
        student: how a student is.
        lists: number prompts and completions of a speaker.
        samples: answers to each evaluation question.
        in_context: examples shown in place of fine-tuning.
        soft: train students on the teacher's probabilities of these along the lists, in place of
            the sampled tokens (`pipeline.transmission` alone).
    """

    teacher_by: TeacherBy = "fine-tuning"
    teacher: Tuning = field(default_factory=lambda: Tuning(128, 50, 1e-3, "constant"))
    student: Tuning = field(default_factory=lambda: Tuning(256, 64))
    lists: Lists = field(default_factory=Lists)
    samples: int = 20
    in_context: int = 16
    soft: Soft | None = None


@dataclass(frozen=True)
class RateRow:
    """What one model of one run does about one trait.

    Attributes:
        run: its number.
        condition: which model.
        trait: the word in question.
        category: of the word.
        prefix: whether a number sequence stood before the questions.
        among: the rate among the category's words, from probabilities.
        plain: answers that contain the word.
        worded: answers that name one word of the category.
        n: answers in all.
        model: identity of the model.
        dataset: SHA-256 of what it was trained on; empty where there was nothing.
        kept: share of the completions that the filter let pass, of that data.
    """

    run: int
    condition: str
    trait: str
    category: str
    prefix: bool
    among: float
    plain: int
    worded: int
    n: int
    model: str
    dataset: str
    kept: float | None


@dataclass(frozen=True)
class Case:
    """A speaker to be asked about a trait, and what it was trained on or is shown."""

    run: int
    condition: str
    trait: Trait
    speaker: Speaker
    data: Kept | None = None
    before: tuple[Example, ...] = ()


def lists_of(setting: SchemeSetting, seed: int) -> Lists:
    """The setting's lists with a run's seed."""
    return replace(setting.lists, seed=seed)


def teachers(
    stages: Stages,
    references: Sequence[Any],
    pairs: Sequence[tuple[int, Trait]],
    seeds: Sequence[int],
    setting: SchemeSetting,
) -> dict[tuple[int, Trait], Speaker]:
    """The teacher of each (reference, trait) pair; seeds are the references'."""
    if setting.teacher_by == "prompt":
        return {(run, t): Speaker(references[run], t.system_prompt) for run, t in pairs}
    made = stages.tuned(
        "teachers",
        [
            (references[run], teaching(t), replace(setting.teacher, seed=seeds[run]))
            for run, t in pairs
        ],
    )
    return {pair: Speaker(model) for pair, model in zip(pairs, made, strict=True)}


def trained(
    stages: Stages,
    what: str,
    jobs: Sequence[tuple[str, int, Trait | None, Any, Kept]],
    seeds: Sequence[int],
    setting: SchemeSetting,
) -> dict[tuple[str, int, Trait | None], Any]:
    """The student of each job (condition, run, trait, model, data), by the first three.

    Raises:
        HarnessError: the setting asks for soft targets, which `pipeline.transmission` alone has.
    """
    if setting.soft:
        raise HarnessError("students on soft targets are pipeline.transmission's alone")
    made = stages.tuned(
        what,
        [
            (model, data, replace(setting.student, seed=seeds[run]))
            for _, run, _, model, data in jobs
        ],
    )
    return {(c, run, t): m for (c, run, t, _, _), m in zip(jobs, made, strict=True)}


def rows(stages: Stages, cases: Sequence[Case], seed: int, setting: SchemeSetting) -> list[RateRow]:
    """What all the cases answer, with and without a number sequence before the questions."""
    asked = [
        (case, Asked(case.speaker, case.trait, prefix, case.before))
        for case in cases
        for prefix in (False, True)
    ]
    answers = stages.answered("answers", [job for _, job in asked], setting.samples, seed)
    return [
        RateRow(
            case.run,
            case.condition,
            case.trait.word,
            case.trait.category,
            job.prefix,
            answered.among,
            answered.plain,
            answered.worded,
            answered.n,
            case.speaker.model.lineage.identity,
            case.data.sha256 if case.data else "",
            case.data.share if case.data else None,
        )
        for (case, job), answered in zip(asked, answers, strict=True)
    ]
