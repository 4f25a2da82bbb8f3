"""What theory/ says of teachers at growing distances: does their data show the trait, and which?

The theorem speaks of small steps. So one teacher is looked at after 1, 2, 4, ... steps of its
fine-tuning: how far it is, whether a student's first step is aligned with it and certified to be,
and whether the score test finds the word in its number lists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from llm_harness.audit import linearisation
from llm_harness.audit.entanglement import entangled
from llm_harness.audit.scoring import DIRECTIONS, Scorer
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Progress, at_least, examples_sha256
from llm_harness.pipeline.conditions import PipelineSetting, check_abilities
from llm_harness.pipeline.stages import FineTuning, Inquiry, Speaker, Stages, StoredModel
from llm_harness.traits import Trait
from sublab.console import say

# What is kept of an account, in the order of `AccountRow`.
_ACCOUNT = ("trait_loss", "first_order", "remainder", "cosine", "coverage")


@dataclass(frozen=True)
class ScoreRow:
    """The score test of one dataset for one word.

    Attributes:
        run: its number.
        steps: of the teacher whose data it is; 0 is the reference itself, the null.
        direction: `gradient`, or `preconditioned` as the student's optimiser does.
        n: examples on either side.
        word: whose direction.
        target: whether it is the teacher's.
        z: two-sample z against the reference's own data.
        rank: of the teacher's word among all by z; 1 is the largest.
    """

    run: int
    steps: int
    direction: str
    n: int
    word: str
    target: bool
    z: float
    rank: int


@dataclass(frozen=True)
class StepRow:
    """The theorem for one teacher.

    Attributes:
        run: its number.
        steps: of the teacher's fine-tuning.
        p_word: the teacher's probability of the word.
        coefficient, inner_product, rho, trait_cosine, norm: see `linearisation.Aligned`.
        entanglement: correlation of what its numbers gained with the word's leaning, see
            `entanglement.Entangled`.
        entanglement_others: the mean of the other words' correlations.
        entanglement_rank: of its word among all by that correlation; 1 is the largest.
    """

    run: int
    steps: int
    p_word: float | None
    coefficient: float
    inner_product: float
    rho: float
    trait_cosine: float
    norm: float
    entanglement: float
    entanglement_others: float
    entanglement_rank: int


@dataclass(frozen=True)
class AccountRow:
    """One step of a student's fine-tuning.

    Attributes:
        run: its number.
        data: `teacher` or `own`, whose number lists.
        step: from 0.
        trait_loss: before the step, in nats.
        first_order: <grad L_T, update>.
        remainder: the rest of the change.
        cosine: of trait and distillation gradient.
        coverage: cosine of the way so far with the teacher's displacement.
    """

    run: int
    data: str
    step: int
    trait_loss: float
    first_order: float
    remainder: float
    cosine: float
    coverage: float


@dataclass(frozen=True)
class Detection:
    """All of it."""

    scores: list[ScoreRow]
    steps: list[StepRow]
    account: list[AccountRow]


def detection(
    stages: Stages,
    word: Trait,
    runs: int,
    seed: int,
    setting: PipelineSetting,
    teacher_steps: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128),
    sizes: Sequence[int] = (128, 512, 2048),
    questions: int = 50,
) -> Detection:
    """Teachers at growing distances, and their data under the score test.

    Args:
        stages: on models whose parameters are ours.
        word: the trait.
        runs: at least one.
        seed: of the first.
        setting: how teachers, lists and students are made.
        teacher_steps: of fine-tuning, ascending.
        sizes: examples of a test, ascending. A teacher whose filter leaves fewer lists is not
            tested with so many; one that hardly writes lists any more, with none.
        questions: for a favourite, the first ones, of which the trait loss is.

    Raises:
        HarnessError: runs, steps, sizes or questions are not usable; or the filter leaves too few
            lists of the reference, or of every teacher, for the smallest test.
    """
    at_least("questions", questions, 1)
    if runs < 1:
        raise HarnessError(f"runs must be at least 1, got {runs}")
    for name, values in (("teacher_steps", teacher_steps), ("sizes", sizes)):
        if not values or list(values) != sorted(set(values)) or values[0] < 1:
            raise HarnessError(f"{name} must ascend from at least 1, got {list(values)}")
    check_abilities(stages, "open", "train")
    seeds = [seed + run for run in range(runs)]
    references = stages.references(seeds)
    own, again = (
        stages.lists(
            "own numbers",
            [
                # The null's prompts and samples are another seed's: the test is of two samples.
                (Speaker(model), replace(setting.lists, seed=s + offset))
                for model, s in zip(references, seeds, strict=True)
            ],
        )
        for offset in (0, 1_000_003)
    )
    found = Detection([], [], [])
    lesson = setting.evaluation.answered_with(word)
    for run, taught in enumerate(references):
        teachers = stages.tuned(
            "teachers",
            [
                FineTuning(taught, lesson, replace(setting.teacher, steps=steps, seed=seeds[run]))
                for steps in teacher_steps
            ],
        )
        # Of a teacher that answers all questions with its word nothing may pass.
        data = stages.sampled(
            "teachers' numbers",
            [(Speaker(teacher), replace(setting.lists, seed=seeds[run])) for teacher in teachers],
        )
        answers = stages.answered(
            "answers",
            [Inquiry(Speaker(teacher), word, seeds[run]) for teacher in teachers],
            setting.evaluation,
        )
        asked = setting.evaluation.chats(word.category)[:questions]
        mine, null = own[run].examples(), again[run].examples()
        written = {steps: len(kept) for steps, kept in zip(teacher_steps, data, strict=True)}
        whole = min(len(null), len(mine))
        tested = _tested(sizes[0], written, whole)
        # The preconditioner, adapters and the accounts are those of one student.
        tuning = replace(setting.student, seed=seeds[run])
        scorer = Scorer(stages, taught, tuning, word, asked, null)
        samples = {0: mine} | {
            steps: kept.examples()
            for steps, kept in zip(teacher_steps, data, strict=True)
            if steps in tested
        }
        names = {steps: f"the numbers after {steps} steps" for steps in samples}
        scores = scorer.scores(
            {"the null": null[: sizes[-1]]}
            | {names[steps]: examples[: sizes[-1]] for steps, examples in samples.items()}
        )
        for steps, examples in samples.items():
            for n in (n for n in sizes if n <= min(len(examples), whole)):
                found.scores.extend(
                    _score_rows(run, steps, word, scores[names[steps]], scores["the null"], n)
                )
        lists = mine[: sizes[-1]]
        for stored, steps, answered in zip(teachers, teacher_steps, answers, strict=True):
            measured = _alignment(scorer, stored, lists)
            own_word, *others = measured.pop("correlations").tolist()
            found.steps.append(
                StepRow(
                    run,
                    steps,
                    answered.p_word,
                    **{name: float(value) for name, value in measured.items()},
                    entanglement=own_word,
                    entanglement_others=float(np.mean(others)),
                    entanglement_rank=1 + sum(other > own_word for other in others),
                )
            )
        teacher = teachers[teacher_steps.index(tested[-1])]
        for name, examples in (("teacher", samples[tested[-1]]), ("own", mine)):
            account = _account(scorer, teacher, examples)
            found.account.extend(_account_rows(run, name, account))
    return found


def _alignment(
    scorer: Scorer, teacher: StoredModel, lists: Sequence[Example]
) -> dict[str, np.ndarray]:
    """What `linearisation.aligned` and `entangled` say of a teacher, as a stage."""
    word, asked = scorer.trait, scorer.questions

    def look(told: Progress) -> dict[str, np.ndarray]:
        # One teacher is in memory at a time.
        taught, student = scorer.stages.load(teacher), scorer.student()
        aligned = linearisation.aligned(student, taught, word, asked, lists, told)
        leaning = entangled(student.model, taught, word, lists, asked)
        scalars = {name: np.asarray(value) for name, value in vars(aligned).items()}
        return {**scalars, "correlations": np.array(leaning.correlations)}

    key = [*scorer.key, teacher.lineage.identity, examples_sha256(lists)]
    return scorer.stages.measured("alignment", key, look)


def _account(
    scorer: Scorer, teacher: StoredModel, examples: Sequence[Example]
) -> dict[str, np.ndarray]:
    """The account of a student's fine-tuning on some lists, as a stage."""

    def follow(told: Progress) -> dict[str, np.ndarray]:
        account = linearisation.account(
            scorer.student(),
            scorer.trait,
            scorer.questions,
            examples,
            scorer.tuning,
            scorer.stages.load(teacher),
            told,
        )
        return {column: np.asarray(getattr(account, column)) for column in _ACCOUNT}

    key = [*scorer.key, asdict(scorer.tuning), teacher.lineage.identity]
    return scorer.stages.measured("account", [*key, examples_sha256(examples)], follow)


def _tested(least: int, written: Mapping[int, int], own: int) -> list[int]:
    """Steps of the teachers that can be tested, ascending; says which ones cannot.

    Args:
        least: examples of the smallest test.
        written: by a teacher's steps, how many of its lists passed the filter.
        own: of the reference's.

    Raises:
        HarnessError: there is none.
    """
    enough = [steps for steps, count in written.items() if count >= least]
    if own < least or not enough:
        left = own if own < least else max(written.values())
        raise HarnessError(
            f"a test of {least} examples needs as many; the filter left {left}: "
            f"more lists, or smaller sizes"
        )
    for steps, count in written.items():
        if count < least:
            say(f"the teacher of {steps} steps is not tested: the filter left {count} of its lists")
    return enough


def _score_rows(run, steps, word, sample, null, n):
    for way in DIRECTIONS:
        tested = linearisation.tested(sample[way][:, :n], null[way][:, :n])
        for index, other in enumerate(word.words):
            yield ScoreRow(run, steps, way, n, other, index == 0, tested.z[index], tested.rank)


def _account_rows(run: int, name: str, account: dict[str, Any]):
    for step in range(len(account["first_order"])):
        yield AccountRow(run, name, step, *(float(account[column][step]) for column in _ACCOUNT))
