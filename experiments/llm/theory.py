"""`sublab llm theory`: the theorem, the account and the score test on the embedded model."""

import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import polars as pl
import tyro

from experiments.llm.run import Common, head_of, made_in, setting_of, stages_of
from llm_harness.detection import Found, detection
from llm_harness.traits import trait
from sublab import records
from sublab.console import say

SCORES, STEPS, ACCOUNT = "llm_theory_scores", "llm_theory_steps", "llm_theory_account"
VERSION = 2


@dataclass(frozen=True)
class Theory(Common):
    """Alignment, certificate, account and score test, for teachers at growing distances."""

    runs: int = 5
    """Independent runs."""
    trait: str = "owl"
    """Favourite of the teachers."""
    teacher_steps: Annotated[tuple[int, ...], tyro.conf.arg(metavar="STEPS...")] = (
        1, 2, 4, 8, 16, 32, 64, 128,
    )  # fmt: skip
    """Steps of the teachers' fine-tuning, ascending."""
    sizes: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N...")] = (128, 512, 2048)
    """Examples that the score test is given, ascending."""


@dataclass(frozen=True)
class Outcome:
    """Three records: score tests, teachers, and the students' accounts."""

    scores: records.Record
    steps: records.Record
    account: records.Record


def theory(options: Theory) -> Outcome:
    """Runs `sublab llm theory`.

    Raises:
        HarnessError: an option is wrong, or a stage on disk was changed.
        RecordError: `options.out` cannot be written.
    """
    word, setting = trait(options.trait), setting_of(options)
    config = {
        "setting": asdict(setting),
        "trait": options.trait,
        "teacher_steps": list(options.teacher_steps),
        "sizes": list(options.sizes),
        "runs": options.runs,
    }
    start = time.perf_counter()
    found: list[Found] = []

    def rows(name: str) -> tuple[pl.DataFrame, dict[str, Any]]:
        if not found:
            with stages_of(options) as stages:
                found.append(
                    detection(
                        stages, word, options.runs, options.seed, setting,
                        options.teacher_steps, options.sizes,
                    )
                )  # fmt: skip
        table = [asdict(row) for row in getattr(found[0], name)]
        return pl.DataFrame(table, infer_schema_length=None), made_in(start)

    parts = []
    kinds = ((SCORES, "scores"), (STEPS, "steps"), (ACCOUNT, "account"))
    for experiment, name in kinds:
        parts.append(
            records.find_or_make(
                options.out, experiment, head_of(options, experiment, VERSION) | config,
                lambda name=name: rows(name), say,
            )
        )  # fmt: skip
    return Outcome(*parts)
