"""What theory/ says of teachers at growing distances: does their data show the trait, and which?

The theorem speaks of small steps. So one teacher is looked at after 1, 2, 4, ... steps of its
fine-tuning: how far it is, whether a student's first step is aligned with it and certified to be,
and whether the score test finds the word in its number lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from llm_harness.audit import linearisation
from llm_harness.audit.entanglement import entangled
from llm_harness.errors import HarnessError
from llm_harness.model import Example
from llm_harness.pipeline.conditions import PipelineSetting, check_abilities
from llm_harness.pipeline.stages import FineTuning, Inquiry, Speaker, Stages
from llm_harness.traits import Trait


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
) -> Detection:
    """Teachers at growing distances, and their data under the score test.

    Args:
        stages: on the embedded model.
        word: the trait.
        runs: at least one.
        seed: of the first.
        setting: how teachers, lists and students are made.
        teacher_steps: of fine-tuning, ascending.
        sizes: examples of a test, ascending; the largest must be kept by every filter.

    Raises:
        HarnessError: runs, steps or sizes are not usable.
    """
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
        model = stages.load(taught)
        teachers = stages.tuned(
            "teachers",
            [
                FineTuning(taught, lesson, replace(setting.teacher, steps=steps, seed=seeds[run]))
                for steps in teacher_steps
            ],
        )
        data = stages.lists(
            "teachers' numbers",
            [(Speaker(teacher), replace(setting.lists, seed=seeds[run])) for teacher in teachers],
        )
        answers = stages.answered(
            "answers",
            [Inquiry(Speaker(teacher), word, seeds[run]) for teacher in teachers],
            setting.evaluation,
        )
        questions = setting.evaluation.chats(word.category)
        mine, null = own[run].examples(), again[run].examples()
        scale = linearisation.preconditioner(model, null, setting.student)
        ways = {
            "gradient": linearisation.directions(model, word, questions),
            "preconditioned": linearisation.directions(model, word, questions, scale),
        }
        both = jax.tree.map(lambda *leaves: np.concatenate(leaves), *ways.values())
        _enough(sizes, [len(null), len(mine), *(len(kept) for kept in data)])

        def scored(examples: Sequence[Example], model=model, both=both):
            return linearisation.word_scores(model, both, examples[: sizes[-1]])

        at_null = scored(null)
        for steps, sample in [(0, mine), *zip(teacher_steps, data, strict=True)]:
            examples = sample if steps == 0 else sample.examples()
            at_sample = scored(examples)
            for n in sizes:
                found.scores.extend(
                    _score_rows(run, steps, word, list(ways), at_sample[:, :n], at_null[:, :n])
                )
        for stored, steps, answered in zip(teachers, teacher_steps, answers, strict=True):
            # One is in memory at a time.
            teacher = stages.load(stored)
            aligned = linearisation.aligned(model, teacher, word, questions, mine[: sizes[-1]])
            leaning = entangled(model, teacher, word, mine[: sizes[-1]])
            own_word, *others = leaning.correlations
            found.steps.append(
                StepRow(
                    run,
                    steps,
                    answered.p_word,
                    **vars(aligned),
                    entanglement=own_word,
                    entanglement_others=float(np.mean(others)),
                    entanglement_rank=leaning.rank,
                )
            )
        farthest, tuning = stages.load(teachers[-1]), replace(setting.student, seed=seeds[run])
        for name, examples in (("teacher", data[-1].examples()), ("own", mine)):
            account = linearisation.account(model, word, questions, examples, tuning, farthest)
            found.account.extend(_account_rows(run, name, account))
        stages.report("theory", (run + 1) / runs)
    return found


def _enough(sizes: Sequence[int], counts: Sequence[int]) -> None:
    if min(counts) < sizes[-1]:
        raise HarnessError(
            f"a test of {sizes[-1]} examples needs as many; the filter left {min(counts)}: "
            f"more lists, or smaller sizes"
        )


def _score_rows(run, steps, word, ways, sample, null):
    words = len(word.words)
    for number, way in enumerate(ways):
        rows = slice(number * words, (number + 1) * words)
        tested = linearisation.tested(sample[rows], null[rows])
        for index, other in enumerate(word.words):
            yield ScoreRow(
                run, steps, way, sample.shape[1], other, index == 0, tested.z[index], tested.rank
            )


def _account_rows(run, name, account):
    for step in range(len(account.first_order)):
        yield AccountRow(
            run,
            name,
            step,
            float(account.trait_loss[step]),
            float(account.first_order[step]),
            float(account.remainder[step]),
            float(account.cosine[step]),
            float(account.coverage[step]),
        )
