"""The embedded model in small: the sizes that all quick tests share, and so their programs too."""

from dataclasses import dataclass

import pytest

from experiments.llm import ingredients, run
from figures import style
from llm_harness import detection, model, pretraining, questions, scheme, together
from llm_harness.model import Tuning
from llm_harness.pretraining import Pretraining
from llm_harness.scheme import SchemeSetting

SMALL = Pretraining(steps=48, batch=16, learning_rate=1e-2, width=16, layers=1)


@dataclass(frozen=True)
class SmallPretraining(Pretraining):
    """`Pretraining` with the sizes of `SMALL` where nothing is said."""

    batch: int = SMALL.batch
    learning_rate: float | int = SMALL.learning_rate
    width: int = SMALL.width
    layers: int = SMALL.layers


@dataclass(frozen=True)
class SmallTuning(Tuning):
    """`Tuning` of few steps and examples where nothing is said."""

    steps: int = 16
    batch: int = 8


@dataclass(frozen=True)
class SmallScheme(SchemeSetting):
    """`SchemeSetting` with small tunings where nothing is said."""

    teacher: Tuning = SmallTuning(learning_rate=1e-3, schedule="constant")
    student: Tuning = SmallTuning()


def ask_few_questions(patch: pytest.MonkeyPatch) -> None:
    """Asks 10 questions for a favourite in place of 50."""
    every_question = questions.one_word_questions
    for module in (questions, detection):
        patch.setattr(module, "one_word_questions", lambda category: every_question(category)[:10])


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Takes small models where a command or a program says nothing about their size.

    What they say goes on to count: steps, lists and answers. Samples are drawn 16 or 256 at a time
    in place of 64 or 1,024, which are more than there are in small; figures are written in one
    format of three.
    """
    ask_few_questions(patch)
    patch.setattr(style, "FORMATS", ("png",))
    for module in (pretraining, run, ingredients):
        patch.setattr(module, "Pretraining", SmallPretraining)
    for module in (scheme, run):
        patch.setattr(module, "SchemeSetting", SmallScheme)
    patch.setattr(model, "Tuning", SmallTuning)
    patch.setattr(together, "_SEQUENCES", (16, 256))
