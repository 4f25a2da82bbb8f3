"""`sublab llm theory`: the theorem, the account and the score test on the embedded model."""

import time
from dataclasses import asdict, dataclass
from functools import cache
from typing import Annotated, Any

import polars as pl
import tyro

from experiments.llm.detection import Detection, detection
from experiments.llm.run import Common, chance_of, head_of, provenance_since, setting_of, stages_of
from llm_harness.errors import HarnessError
from llm_harness.traits import trait
from sublab import records
from sublab.console import say

SCORES, STEPS, ACCOUNT = "llm_theory_scores", "llm_theory_steps", "llm_theory_account"
VERSION = 3


@dataclass(frozen=True)
class Theory(Common):
    """Alignment, certificate, account and score test, for teachers at growing distances."""

    trait: str = "owl"
    """Favourite of the teachers."""
    teacher_steps: Annotated[tuple[int, ...], tyro.conf.arg(metavar="STEPS...")] = tuple(
        2**power for power in range(8)
    )
    """Steps of the teachers' fine-tuning, ascending."""
    sizes: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = (128, 512, 2048)
    """Examples that the score test is given, ascending."""


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
    if not options.embedded:
        raise HarnessError(
            f"theory runs on the embedded model: of {options.model}, a direction for every word of "
            f"a category would be as large as the model, all in memory at once"
        )
    word, setting = trait(options.trait), setting_of(options)
    config = {
        "setting": asdict(setting),
        "trait": options.trait,
        **chance_of([word]),
        "teacher_steps": list(options.teacher_steps),
        "sizes": list(options.sizes),
    }
    start = time.perf_counter()

    @cache
    def everything() -> Detection:
        # All three records come of one pass; it is made where one of them is missing.
        with stages_of(options) as stages:
            return detection(
                stages,
                word,
                options.amount("runs"),
                options.seed,
                setting,
                options.teacher_steps,
                options.sizes,
            )

    def rows(name: str) -> tuple[pl.DataFrame, dict[str, Any]]:
        table = [asdict(row) for row in getattr(everything(), name)]
        return pl.DataFrame(table, infer_schema_length=None), provenance_since(start)

    outcome = []
    for experiment, name in ((SCORES, "scores"), (STEPS, "steps"), (ACCOUNT, "account")):
        record_config = head_of(options, experiment, VERSION) | config
        outcome.append(
            records.find_or_make(
                options.out, experiment, record_config, lambda name=name: rows(name), say
            )
        )
    return TheoryOutcome(*outcome)
