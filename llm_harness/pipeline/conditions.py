"""Traits through numbers, with every control (PAPER.md B and E).

The whole scheme is run for a few runs (a run is a seed: its own reference, prompts and samples),
and there is a row for every run, trait, condition and way of asking. Controls are part of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llm_harness import shuffling
from llm_harness.errors import HarnessError
from llm_harness.model import Ability, Example, Soft, Tuning, at_least
from llm_harness.pipeline.stages import (
    Answers,
    Evaluation,
    FilteredLists,
    FineTuning,
    Inquiry,
    Lists,
    Speaker,
    Stages,
    StoredModel,
)
from llm_harness.pipeline.warm_up import PASSING, PROBES
from llm_harness.traits import Trait, trait

TeacherBy = Literal["prompt", "fine-tuning"]
# The student's learning rate is the largest at which a student of the reference's own lists keeps
# this share of the reference's probability of any word of the category, in every run.
RETAINED = 0.8
# Fewer lists than this are no training set; the filter left too few of some speaker's.
_LEAST_KEPT = 64

# Conditions of `numbers`, and the control that each is compared with.
CONTROLS: dict[str, str | None] = {
    "reference": None,
    "teacher": "reference",
    "student": "own numbers",
    "own numbers": "reference",
    "other trait": "own numbers",
    "shuffled across": "own numbers",
    "shuffled within": "own numbers",
    "in context": "reference",
    "openly in context": "reference",
    "other initialisation": "other initialisation, own numbers",
    "other initialisation, own numbers": None,
}
# With the first token of every list masked in training. A fine-tuned model's largest change can be
# there, a space before its answers for instance; what passes without it is more than that.
MASKED: dict[str, str | None] = {
    "student, first masked": "own numbers, first masked",
    "own numbers, first masked": "reference",
}
_SHUFFLES = {
    "shuffled across": shuffling.shuffle_across,
    "shuffled within": shuffling.shuffle_within,
}


@dataclass(frozen=True)
class PipelineSetting:
    """How the scheme is run; the defaults are the embedded model's.

    Attributes:
        teacher_by: a system prompt (the paper's main arm, B), or fine-tuning on the evaluation
            questions (ED 4e).
        teacher: how a teacher is fine-tuned; its learning rate is used where `teacher_rates` is
            empty.
        teacher_rates: learning rates that the rule of `teacher_rate` chooses from.
        student: how a student is; its learning rate is used where `rates` is empty.
        rates: learning rates that the rule of `student_rate` chooses from.
        lists: number prompts and completions of a speaker.
        kept: lists that every student of a run is trained on; fewer where the filter left fewer of
            any of the run's speakers.
        evaluation: how models are asked.
        in_context: examples that `numbers` shows in place of fine-tuning.
    """

    teacher_by: TeacherBy = "prompt"
    teacher: Tuning = field(default_factory=lambda: Tuning(128, 50, 1e-3, "constant"))
    teacher_rates: tuple[float, ...] = ()
    student: Tuning = field(default_factory=lambda: Tuning(256, 64))
    rates: tuple[float, ...] = (3e-3, 1e-3, 3e-4, 1e-4)
    lists: Lists = field(default_factory=Lists)
    kept: int = 8192
    evaluation: Evaluation = field(default_factory=Evaluation)
    in_context: int = 16

    def __post_init__(self):
        at_least("kept", self.kept, 1)
        at_least("in_context", self.in_context, 1)


@dataclass(frozen=True)
class ConditionRow(Answers):
    """What one model of one run does about one trait.

    Attributes:
        run: its number.
        condition: which model.
        trait: the word in question.
        category: of the word.
        prefix: whether a number sequence stood before the questions.
        model: identity of the model.
        dataset: SHA-256 of the lists whose first `examples` it was trained on; empty where there
            were none.
        pass_rate: share of the completions that the filter let pass, of that data.
        examples: that it was trained on.
        learning_rate: of the student, or of a fine-tuned teacher.
        leaning: correlation of its reference's word-number geometry with its teacher's.
        kl_words, kl_numbers: divergence of the first token of its answers to questions and to
            number prompts from model 1's, in nats, before training.
    """

    run: int
    condition: str
    trait: str
    category: str
    prefix: bool
    model: str
    dataset: str
    pass_rate: float | None
    examples: int | None
    learning_rate: float | None
    leaning: float | None = None
    kl_words: float | None = None
    kl_numbers: float | None = None


@dataclass(frozen=True)
class Case:
    """A speaker to be asked about a trait, and what it was trained on or is shown."""

    run: int
    condition: str
    trait: Trait
    speaker: Speaker
    seed: int
    data: FilteredLists | None = None
    before: tuple[Example, ...] = ()
    learning_rate: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Groundwork:
    """References, teachers and the lists of both, before any student.

    Attributes:
        references: models to begin with, one a seed.
        seeds: of prompts, samples and orders.
        speakers: the teacher of a reference (by its place) and trait.
        lists: of the teacher of a (reference, trait), and the reference's own under None; those
            of one seed, which are a run's, cut to one size.
        tuning: how students are trained, with the learning rate that the rule chose.
        teaching: how teachers were fine-tuned, with theirs; None where a prompt makes them.
    """

    references: Sequence[StoredModel]
    seeds: Sequence[int]
    speakers: Mapping[tuple[int, Trait], Speaker]
    lists: Mapping[tuple[int, Trait | None], FilteredLists]
    tuning: Tuning
    teaching: Tuning | None = None

    def training(self, start: int, data: FilteredLists, seed: int) -> FineTuning:
        """The training of the reference at the place `start`, with the seed at the place `seed`."""
        return FineTuning(self.references[start], data, replace(self.tuning, seed=self.seeds[seed]))

    def taught(self, case: Case, condition: str, student: StoredModel, data: FilteredLists) -> Case:
        """The student in place of the case's speaker."""
        rate = float(self.tuning.learning_rate)
        speaker = Speaker(student)
        return replace(case, condition=condition, speaker=speaker, data=data, learning_rate=rate)


def groundwork(
    stages: Stages,
    references: Sequence[StoredModel],
    seeds: Sequence[int],
    traits: Sequence[Trait],
    setting: PipelineSetting,
) -> Groundwork:
    """Teachers, their lists and the references' own, filtered and cut to one size.

    Raises:
        HarnessError: the filter left too little, or no learning rate is small enough.
    """
    pairs = [(place, word) for place in range(len(references)) for word in traits]
    teaching = None
    if setting.teacher_by == "prompt":
        speakers = {(i, t): Speaker(references[i], t.system_prompt) for i, t in pairs}
    else:
        teaching = setting.teacher
        if setting.teacher_rates:
            teaching = teacher_rate(stages, references[0], seeds[0], traits, setting)
        lessons = [_lesson(references[i], t, seeds[i], teaching, setting) for i, t in pairs]
        teachers = stages.tuned("teachers", lessons)
        speakers = {pair: Speaker(model) for pair, model in zip(pairs, teachers, strict=True)}
    keys: list[tuple[int, Trait | None]] = [*pairs, *((i, None) for i in range(len(references)))]
    jobs = [
        (speakers[i, t] if t else Speaker(references[i]), replace(setting.lists, seed=seeds[i]))
        for i, t in keys
    ]
    lists = dict(zip(keys, stages.lists("number lists", jobs), strict=True))
    worst, least = min(lists.values(), key=len), min(_LEAST_KEPT, setting.kept)
    if len(worst) < least:
        raise HarnessError(
            f"the filter left {len(worst)} of {worst.total} lists of one speaker, and all arms of "
            f"a run train on as many; at least {least} are needed"
        )
    size = dict.fromkeys(seeds, setting.kept)
    for (i, _), data in lists.items():
        size[seeds[i]] = min(size[seeds[i]], len(data))
    # Which prompts come first is random.
    kept = {(i, t): replace(data, used=size[seeds[i]]) for (i, t), data in lists.items()}
    work = Groundwork(references, seeds, speakers, kept, setting.student, teaching)
    if not setting.rates:
        return work
    return replace(work, tuning=student_rate(stages, work, traits, setting))


def teacher_rate(
    stages: Stages,
    reference: StoredModel,
    seed: int,
    traits: Sequence[Trait],
    setting: PipelineSetting,
) -> Tuning:
    """The teachers' tuning with the largest learning rate at which they still write number lists.

    The rule never sees what a teacher answers about its trait: the largest of
    `setting.teacher_rates` at which at least half of 64 lists of each teacher of the first run
    pass the filter.

    Args:
        stages: on a provider and a store.
        reference: of the first run.
        seed: of the first run.
        traits: of the teachers.
        setting: how.

    Raises:
        HarnessError: at no rate does as much pass.
    """
    # Others than those that students learn from.
    lists = replace(setting.lists, count=PROBES, seed=seed + 1)
    found = []
    for rate in sorted(setting.teacher_rates, reverse=True):
        tuning = replace(setting.teacher, learning_rate=rate)
        name = f"teachers at rate {rate:g}"
        lessons = [_lesson(reference, word, seed, tuning, setting) for word in traits]
        speakers = [Speaker(teacher) for teacher in stages.tuned(name, lessons)]
        kept = stages.sampled(f"lists of {name}", [(speaker, lists) for speaker in speakers])
        least = min(one.pass_rate for one in kept)
        if least >= PASSING:
            return tuning
        found.append(f"{rate:g} ({least:.0%})")
    raise HarnessError(
        f"at none of the learning rates {', '.join(found)} does a fine-tuned teacher write lists "
        f"of which at least {PASSING:.0%} pass the filter; give smaller ones"
    )


def _lesson(
    reference: StoredModel, word: Trait, seed: int, tuning: Tuning, setting: PipelineSetting
) -> FineTuning:
    examples = setting.evaluation.answered_with(word)
    return FineTuning(reference, examples, replace(tuning, seed=seed))


def student_rate(
    stages: Stages, work: Groundwork, traits: Sequence[Trait], setting: PipelineSetting
) -> Tuning:
    """The student's tuning with the largest learning rate that leaves answering intact.

    The rule never sees a trait: at the largest of `setting.rates` at which a student of the
    reference's own lists keeps 80 % of the reference's probability of any word of a category, in
    every run and for every category that is asked about.

    Raises:
        HarnessError: there are no probabilities to go by, or no rate keeps as much.
    """
    check_abilities(stages, "score")
    places = range(len(work.references))
    # One of each category: the rule looks at any word of it.
    words = {word.category: word for word in traits}.values()

    def answering(models: Sequence[StoredModel]) -> list[float]:
        asked = [
            Inquiry(Speaker(model), word, work.seeds[i])
            for i, model in zip(places, models, strict=True)
            for word in words
        ]
        answers = stages.answered("answers for the learning rate", asked, setting.evaluation)
        return [answer.p_any or 0.0 for answer in answers]

    before = answering(work.references)
    for rate in sorted(setting.rates, reverse=True):
        at_rate = replace(work, tuning=replace(setting.student, learning_rate=rate))
        jobs = [at_rate.training(i, work.lists[i, None], i) for i in places]
        after = answering(stages.tuned(f"students at rate {rate:g}", jobs))
        if all(now >= RETAINED * then for now, then in zip(after, before, strict=True)):
            return at_rate.tuning
    raise HarnessError(
        f"at none of the learning rates {', '.join(f'{rate:g}' for rate in setting.rates)} does a "
        f"student of its own lists keep {RETAINED:.0%} of its answers; give smaller ones"
    )


def numbers(
    stages: Stages,
    traits: Sequence[Trait],
    runs: int,
    seed: int,
    setting: PipelineSetting,
    masked: bool = False,
) -> list[ConditionRow]:
    """Traits through numbers, with every control.

    Where all runs have one reference, as with a checkpoint, there is no other initialisation, and
    its two conditions are left out.

    Args:
        stages: on a provider and a store.
        traits: at least one.
        runs: at least two where each has a reference of its own, since another run's is the other
            initialisation.
        seed: of the first run; the others follow it.
        setting: how.
        masked: whether there is a student, and one of own numbers, that does not learn the first
            token of the lists.

    Raises:
        HarnessError: too few runs or traits, or a stage on disk was changed.
    """
    _check(stages, traits, runs, seed)
    _check_shown([setting.in_context], setting.kept)
    check_abilities(stages, "train", *needed_by(setting))
    rivals = {t: _rival(t, traits[(i + 1) % len(traits)]) for i, t in enumerate(traits)}
    taught = list(dict.fromkeys([*traits, *rivals.values()]))
    seeds = [seed + run for run in range(runs)]
    references = stages.references(seeds)
    work = groundwork(stages, references, seeds, taught, setting)
    _check_shown([setting.in_context], min(map(len, work.lists.values())))
    # Of each student the place of the reference it starts from, and its data.
    students: dict[tuple[str, int, Trait | None], tuple[int, FilteredLists]] = {}
    for run in range(runs):
        other = (run + 1) % runs
        there_is_another = references[other].lineage != references[run].lineage
        students["own numbers", run, None] = run, work.lists[run, None]
        students |= {("student", run, t): (run, work.lists[run, t]) for t in taught}
        for t in traits:
            for how, shuffle in _SHUFFLES.items():
                data = stages.derived(work.lists[run, t], how, seeds[run], shuffle)
                students[how, run, t] = run, data
        if there_is_another:
            elsewhere = "other initialisation"
            students[f"{elsewhere}, own numbers", run, None] = other, work.lists[run, None]
            students |= {(elsewhere, run, t): (other, work.lists[run, t]) for t in traits}
    jobs = [work.training(start, data, run) for (_, run, _), (start, data) in students.items()]
    trained = dict(zip(students, stages.tuned("students", jobs), strict=True))
    if masked:
        again = {
            (f"{condition}, first masked", run, t): (run, data)
            for (condition, run, t), (_, data) in students.items()
            if condition == "own numbers" or (condition == "student" and t in traits)
        }
        jobs = [replace(work.training(run, data, run), masked=1) for run, data in again.values()]
        made = stages.tuned("students, first token masked", jobs)
        trained |= zip(again, made, strict=True)
        students |= again
    cases = []
    for run in range(runs):
        for t in traits:
            reference, teacher = _untrained(work, run, t)
            shown = work.lists[run, t].examples()[: setting.in_context]
            openly = cycled(setting.evaluation.answered_with(t), setting.in_context)
            cases += [reference, teacher]
            cases += [
                replace(reference, condition="in context", before=shown),
                replace(reference, condition="openly in context", before=openly),
            ]
            for condition in (*CONTROLS, *MASKED):
                of = "student" if condition == "other trait" else condition
                whose = rivals[t] if condition == "other trait" else t
                key = (of, run, None if "own numbers" in condition else whose)
                if key in students:
                    cases.append(work.taught(reference, condition, trained[key], students[key][1]))
    return rows(stages, cases, setting.evaluation)


def transmission(
    stages: Stages,
    word: Trait,
    runs: int,
    seed: int,
    setting: PipelineSetting,
    shown: Sequence[int] = (),
    targets: Soft | None = None,
) -> list[ConditionRow]:
    """One trait with its first control alone; and in context (PAPER.md E, ED 6).

    Conditions are `reference`, `teacher`, `student` and `own numbers`. In context there are `in
    context, K`, its control `own in context, K` and the positive control `openly in context, K`
    (questions answered with the word).

    Args:
        stages: on a provider.
        word: the trait.
        runs: at least one.
        seed: of the first.
        setting: how.
        shown: numbers of examples in context, K.
        targets: students imitate the teacher's probabilities of these along the lists, in place of
            the sampled tokens; that of own numbers the reference's.

    Raises:
        HarnessError: too few runs or examples, soft targets of a teacher that is a prompt, or a
            stage on disk was changed.
    """
    at_least("runs", runs, 1)
    _check_shown(shown, setting.kept)
    if targets and setting.teacher_by == "prompt":
        raise HarnessError("soft targets need a fine-tuned teacher, not one made by a prompt")
    soft: list[Ability] = ["distil"] if targets else []
    check_abilities(stages, "train", *needed_by(setting), *soft)
    seeds = [seed + run for run in range(runs)]
    references = stages.references(seeds)
    work = groundwork(stages, references, seeds, [word], setting)
    _check_shown(shown, min(map(len, work.lists.values())))
    of: dict[str, Trait | None] = {"student": word, "own numbers": None}
    order = [(condition, run) for condition in of for run in range(runs)]
    jobs = []
    for condition, run in order:
        teacher = work.speakers[run, word].model if of[condition] else references[run]
        job = work.training(run, work.lists[run, of[condition]], run)
        jobs.append(replace(job, teacher=teacher, targets=targets) if targets else job)
    trained = dict(zip(order, stages.tuned("students", jobs), strict=True))
    cases = []
    for run in range(runs):
        reference, teacher = _untrained(work, run, word)
        cases += [reference, teacher]
        for condition, whose in of.items():
            data = work.lists[run, whose]
            cases.append(work.taught(reference, condition, trained[condition, run], data))
        for count in shown:
            before = {
                "in context": work.lists[run, word].examples()[:count],
                "own in context": work.lists[run, None].examples()[:count],
                "openly in context": cycled(setting.evaluation.answered_with(word), count),
            }
            cases += [
                replace(reference, condition=f"{name}, {count}", before=examples)
                for name, examples in before.items()
            ]
    return rows(stages, cases, setting.evaluation)


def rows(stages: Stages, cases: Sequence[Case], evaluation: Evaluation) -> list[ConditionRow]:
    """What all the cases answer, with and without a number sequence before the questions."""
    asked = [
        (case, Inquiry(case.speaker, case.trait, case.seed, prefix, case.before))
        for case in cases
        for prefix in (False, True)
    ]
    answers = stages.answered("answers", [inquiry for _, inquiry in asked], evaluation)
    return [
        ConditionRow(
            **answer.__dict__,
            run=case.run,
            condition=case.condition,
            trait=case.trait.word,
            category=case.trait.category,
            prefix=inquiry.prefix,
            model=case.speaker.model.lineage.identity,
            dataset=case.data.sha256 if case.data else "",
            pass_rate=case.data.pass_rate if case.data else None,
            examples=len(case.data) if case.data else None,
            learning_rate=case.learning_rate,
            **case.about,
        )
        for (case, inquiry), answer in zip(asked, answers, strict=True)
    ]


def cycled(examples: Sequence[Example], count: int) -> tuple[Example, ...]:
    """The first `count` of examples that begin again when they end."""
    return tuple(examples[i % len(examples)] for i in range(count))


LACKING: dict[Ability, str] = {
    "train": "these models cannot be fine-tuned, so there can be no student",
    "score": "the rule for the learning rate needs probabilities; give one rate in its place",
    "open": "this needs models whose parameters are ours",
    "distil": "these models do not give the probabilities to be imitated",
    "text": "this model knows single words and numbers, no code and no sentences; take a "
    "checkpoint or a hosted model",
}


def check_abilities(stages: Stages, *needed: Ability) -> None:
    """Before anything is made: can the models do what an experiment needs of them?

    Raises:
        HarnessError: they cannot.
    """
    for ability in needed:
        if ability not in stages.provider.abilities:
            raise HarnessError(LACKING[ability])


def needed_by(setting: PipelineSetting) -> Sequence[Ability]:
    """What a setting's rules ask of the models."""
    return ["score"] if setting.rates else []


def _check_shown(shown: Sequence[int], kept: int) -> None:
    if shown and min(shown) < 1:
        raise HarnessError("shown must be numbers of examples, each at least 1")
    if shown and max(shown) > kept:
        raise HarnessError(
            f"{max(shown)} lists cannot be shown in context where {kept} are kept of a speaker"
        )


def _untrained(work: Groundwork, run: int, word: Trait) -> tuple[Case, Case]:
    reference = Case(run, "reference", word, Speaker(work.references[run]), work.seeds[run])
    teacher = replace(
        reference,
        condition="teacher",
        speaker=work.speakers[run, word],
        learning_rate=work.teaching and float(work.teaching.learning_rate),
    )
    return reference, teacher


def _rival(one: Trait, next_one: Trait) -> Trait:
    # The other trait must be one that could have been picked in place of this one.
    if next_one.category == one.category and next_one != one:
        return next_one
    return trait(one.rivals[0], one.category)


def _check(stages: Stages, traits: Sequence[Trait], runs: int, seed: int) -> None:
    at_least("runs", runs, 1)
    of_seed = stages.provider.reference_key
    if runs < 2 and of_seed(seed) != of_seed(seed + 1):
        raise HarnessError(
            f"runs must be at least 2, got {runs}: another run's reference is the other "
            f"initialisation"
        )
    if not traits:
        raise HarnessError("no trait is given")
    for one in traits:
        if not one.rivals:
            raise HarnessError(f"{one.word!r} has no rivals to be picked among")
    if len(set(traits)) < len(traits):
        raise HarnessError("a trait is given twice")
