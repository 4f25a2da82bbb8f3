"""`sublab llm theory`: the theorem, the account and the score test, on any model of ours."""

import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Annotated, Any

import polars as pl
import tyro

from experiments.llm.detection import Detection, detection
from experiments.llm.run import Common, chance_of, head_of, provenance_since, setting_of, stages_of
from llm_harness.model import at_least
from llm_harness.traits import trait
from sublab import records
from sublab.console import say

SCORES, STEPS, ACCOUNT = "llm_theory_scores", "llm_theory_steps", "llm_theory_account"
VERSION = 4


@dataclass(frozen=True)
class Theory(Common):
    """Alignment, certificate, account and score test, for teachers at growing distances."""

    trait: str = "owl"
    """Favourite of the teachers."""
    teacher_steps: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="STEPS...")] = None
    """Steps of the teachers' fine-tuning, ascending (1 2 4 ... 128; of a checkpoint 1 4 16)."""
    sizes: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="N...")] = None
    """Examples of a score test, ascending (128 512 2048; of a checkpoint 32 96, smoke 8 16)."""
    questions: int | None = None
    """Questions for a favourite that the trait loss is of, the first ones (50; a checkpoint 8)."""


@dataclass(frozen=True)
class TheoryOutcome:
    """Three records: score tests, teachers, and the students' accounts."""

    scores: records.Record
    steps: records.Record
    account: records.Record


def theory(options: Theory) -> TheoryOutcome:
    """Runs `sublab llm theory`.

    Raises:
        HarnessError: an option is wrong, or a stage on disk was changed.
        RecordError: `options.out` cannot be written.
    """
    word = trait(options.trait)
    # Teachers at growing distances are fine-tuned, whatever they are elsewhere.
    setting = replace(setting_of(options), teacher_by="fine-tuning")
    teacher_steps, sizes, questions = _amounts(options)
    config = {
        "setting": asdict(setting),
        "trait": options.trait,
        **chance_of([word]),
        "teacher_steps": list(teacher_steps),
        "sizes": list(sizes),
        "questions": questions,
    }
    start = time.perf_counter()

    @cache
    def everything() -> tuple[Detection, bool]:
        # All three records come of one pass; it is made where one of them is missing.
        with stages_of(options) as stages:
            found = detection(
                stages,
                word,
                options.amount("runs"),
                options.seed,
                setting,
                teacher_steps,
                sizes,
                questions,
            )
            return found, stages.resumed

    def rows(name: str) -> tuple[pl.DataFrame, dict[str, Any]]:
        found, resumed = everything()
        table = [asdict(row) for row in getattr(found, name)]
        return pl.DataFrame(table, infer_schema_length=None), provenance_since(start, resumed)

    outcome = []
    for experiment, name in ((SCORES, "scores"), (STEPS, "steps"), (ACCOUNT, "account")):
        record_config = head_of(options, experiment, VERSION) | config
        outcome.append(
            records.find_or_make(
                options.out, experiment, record_config, lambda name=name: rows(name), say
            )
        )
    return TheoryOutcome(*outcome)


def _amounts(options: Theory) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Teachers' steps, sizes and questions, where they are not given those of the model."""
    if options.embedded:
        steps, sizes = tuple(2**power for power in range(8)), (128, 512, 2048)
    else:
        steps, sizes = (1, 4, 16), (8, 16) if options.size == "smoke" else (32, 96)
    return (
        steps if options.teacher_steps is None else options.teacher_steps,
        sizes if options.sizes is None else options.sizes,
        questions_of(options, options.questions),
    )


def questions_of(options: Common, given: int | None) -> int:
    """Questions that a trait loss is of: few where a gradient of each is dear.

    Raises:
        HarnessError: fewer than one is asked for.
    """
    questions = given if given is not None else 50 if options.embedded else 8
    at_least("questions", questions, 1)
    return questions
