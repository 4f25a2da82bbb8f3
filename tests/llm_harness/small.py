"""The embedded model in small: the sizes that all quick tests share, and so their programs too."""

from dataclasses import dataclass, replace

import pytest

from experiments.llm import ingredients, run
from figures import style
from llm_harness.decoder import population
from llm_harness.evaluation import questions
from llm_harness.model import Tuning
from llm_harness.pipeline import conditions
from llm_harness.tiny import pretraining
from llm_harness.tiny.pretraining import Pretraining

SMALL = Pretraining(steps=48, batch=16, learning_rate=1e-2, width=16, layers=1, hidden=32)


@dataclass(frozen=True)
class SmallPretraining(Pretraining):
    """`Pretraining` with the sizes of `SMALL` where nothing is said."""

    batch: int = SMALL.batch
    learning_rate: float | int = SMALL.learning_rate
    width: int = SMALL.width
    layers: int = SMALL.layers
    hidden: int = SMALL.hidden


def ask_few_questions(patch: pytest.MonkeyPatch) -> None:
    """Asks 10 questions for a favourite in place of 50."""
    every_question = questions.one_word_questions
    patch.setattr(
        questions,
        "one_word_questions",
        lambda category, wordings=(): every_question(category, wordings)[:10],
    )


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Takes small models, and 8 examples a step, where a command says nothing about their size.

    What it says goes on to count: steps, lists and answers. Samples are drawn 16 or 256 at a time
    in place of 64 or 1,024, which are more than there are in small; one list that the filter kept
    is enough; figures are written in one format of three.
    """
    ask_few_questions(patch)
    patch.setattr(style, "FORMATS", ("png",))
    for module in (pretraining, run, ingredients):
        patch.setattr(module, "Pretraining", SmallPretraining)
    default = conditions.PipelineSetting()
    small = replace(
        default, teacher=Tuning(16, 8, 1e-3, "constant"), student=replace(default.student, batch=8)
    )
    patch.setattr(run, "PipelineSetting", lambda **changed: replace(small, **changed))
    patch.setattr(conditions, "_LEAST_KEPT", 1)
    patch.setattr(population, "_SEQUENCES", (16, 256))
