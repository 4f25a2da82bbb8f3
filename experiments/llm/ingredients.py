"""`sublab llm ingredients`: what the transfer of a trait depends on, one ingredient at a time.

Every variation changes one thing of the setting and is run on the same seeds, with the student of
the reference's own numbers beside it. Nothing is selection by the outcome.
"""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import tyro

from experiments.llm import summary as llm_summary
from experiments.llm.run import Common, RatesOutcome, head_of, outcome_of, setting_of, stages_of
from llm_harness import pipeline
from llm_harness.corpus import Language
from llm_harness.errors import HarnessError
from llm_harness.pretraining import Pretraining
from llm_harness.scheme import RateRow, SchemeSetting
from llm_harness.traits import trait

INGREDIENTS = "llm_ingredients"
VERSION = 1
# Eight numbers of three digits, a separator after each, brackets and an end.
_SPELT = 36


@dataclass(frozen=True)
class Ingredients(Common):
    """What the transfer depends on, one ingredient at a time."""

    runs: int = 3
    """Independent runs, the same for every variation."""
    trait: str = "owl"
    """Favourite to transmit."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ()
    """Variations to run, by name (all, if none is named); the unchanged setting always is."""


def variations(
    pretraining: Pretraining, setting: SchemeSetting
) -> dict[str, tuple[Pretraining, SchemeSetting]]:
    """The setting unchanged, first, and with one ingredient changed each."""

    def student(**changed: Any) -> tuple[Pretraining, SchemeSetting]:
        return pretraining, replace(setting, student=replace(setting.student, **changed))

    def spoken(language: Language, setting: SchemeSetting) -> tuple[Pretraining, SchemeSetting]:
        return replace(pretraining, language=language), setting

    def fewer(count: int) -> int:
        return max(1, count // 4)

    spelt = replace(setting, lists=replace(setting.lists, max_tokens=_SPELT))
    quarter = replace(setting.lists, count=fewer(setting.lists.count))
    vocabulary_trained = replace(
        setting,
        teacher=replace(setting.teacher, freeze_vocabulary=False),
        student=replace(setting.student, freeze_vocabulary=False),
    )
    tuned = replace(setting, teacher_by="fine-tuning")
    return {
        llm_summary.UNCHANGED: (pretraining, setting),
        "own-list-token": spoken(Language(shared_answer_token=False), setting),
        "digits": spoken(Language(token_a_number=False), spelt),
        "vocabulary-trained": (pretraining, vocabulary_trained),
        "constant-rate": student(schedule="constant"),
        "quarter-of-lists": (pretraining, replace(setting, lists=quarter)),
        "quarter-of-steps": student(steps=fewer(setting.student.steps)),
        "quarter-of-pretraining": (replace(pretraining, steps=fewer(pretraining.steps)), setting),
        "prompted-teacher": (pretraining, replace(setting, teacher_by="prompt")),
        "soft-targets-numbers": (pretraining, replace(tuned, soft="numbers")),
        "soft-targets-vocabulary": (pretraining, replace(tuned, soft="vocabulary")),
    }


def ingredients(options: Ingredients) -> RatesOutcome:
    """Runs `sublab llm ingredients`.

    Raises:
        HarnessError: an option is wrong, or a stage on disk was changed.
        RecordError: `options.out` cannot be written.
    """
    word, base = trait(options.trait), setting_of(options)
    every_variation = variations(Pretraining(steps=options.pretraining_steps), base)
    if unknown := [name for name in options.only if name not in every_variation]:
        raise HarnessError(
            f"no variation is named {unknown[0]!r}; there are: {', '.join(every_variation)}"
        )
    selection = {
        name: how
        for name, how in every_variation.items()
        if not options.only or name in (llm_summary.UNCHANGED, *options.only)
    }
    config = head_of(options, INGREDIENTS, VERSION) | {
        "setting": asdict(base),
        "runs": options.runs,
        "trait": options.trait,
        # A list, since records keep no order of names.
        "variations": [
            {"name": name, "pretraining": asdict(pretraining), "setting": asdict(setting)}
            for name, (pretraining, setting) in selection.items()
        ],
    }

    def rows() -> list[RateRow]:
        rates = []
        for name, (pretraining, setting) in selection.items():
            with stages_of(options, pretraining, name) as stages:
                plain = pipeline.transmission(stages, word, options.runs, options.seed, setting)
            rates += [
                replace(row, condition=llm_summary.varied(row.condition, name)) for row in plain
            ]
        return rates

    return outcome_of(options, config, rows, llm_summary.ingredients)
