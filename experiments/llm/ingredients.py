"""`sublab llm ingredients`: what the transfer of a trait depends on, one ingredient at a time.

Every variation changes one thing of the setting and is run on the same seeds, with the student of
the reference's own numbers beside it. Its learning rate is the one that the rule takes under it:
what leaves answering intact differs from one variation to the next. No choice sees a trait.
"""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import tyro

from experiments.llm import summary as llm_summary
from experiments.llm.run import (
    Common,
    RatesOutcome,
    chance_of,
    head_of,
    outcome_of,
    pretraining_of,
    setting_of,
    stages_of,
)
from llm_harness.decoder.network import Lora
from llm_harness.errors import HarnessError
from llm_harness.model import Soft
from llm_harness.pipeline import conditions
from llm_harness.pipeline.conditions import ConditionRow, PipelineSetting
from llm_harness.tiny.corpus import Language
from llm_harness.tiny.pretraining import Pretraining
from llm_harness.traits import trait

INGREDIENTS = "llm_ingredients"
VERSION = 2
# Eight numbers of three digits, a separator after each, brackets and an end.
_SPELT = 36
# How references are made, how the scheme is run, and which probabilities students imitate.
Variation = tuple[Pretraining, PipelineSetting, Soft | None]


@dataclass(frozen=True)
class Ingredients(Common):
    """What the transfer depends on, one ingredient at a time."""

    trait: str = "owl"
    """Favourite to transmit."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ()
    """Variations to run, by name (all, if none is named); the unchanged setting always is."""


def variations(pretraining: Pretraining, setting: PipelineSetting) -> dict[str, Variation]:
    """The setting unchanged, first, and with one ingredient changed each."""

    def student(**changed: Any) -> Variation:
        return pretraining, replace(setting, student=replace(setting.student, **changed)), None

    def fewer(count: int) -> int:
        return max(1, count // 4)

    spelt = replace(setting, lists=replace(setting.lists, max_tokens=_SPELT))
    vocabulary_trained = replace(
        setting,
        teacher=replace(setting.teacher, moved="all"),
        student=replace(setting.student, moved="all"),
    )
    tuned = replace(setting, teacher_by="fine-tuning")
    return {
        llm_summary.UNCHANGED: (pretraining, setting, None),
        "own-list-token": (
            replace(pretraining, language=Language(shared_answer_token=False)),
            setting,
            None,
        ),
        "digits": (
            replace(
                pretraining,
                language=Language(token_a_number=False),
                # Rows that hold documents of so many more tokens, and as many tokens a step.
                length=4 * pretraining.length,
                batch=fewer(pretraining.batch),
            ),
            spelt,
            None,
        ),
        "vocabulary-trained": (pretraining, vocabulary_trained, None),
        "constant-rate": student(schedule="constant"),
        "quarter-of-lists": (pretraining, replace(setting, kept=fewer(setting.kept)), None),
        "quarter-of-steps": student(steps=fewer(setting.student.steps)),
        "low-rank": (
            pretraining,
            replace(setting, student=replace(setting.student, moved="adapters", lora=Lora())),
            None,
        ),
        "quarter-of-pretraining": (
            replace(pretraining, steps=fewer(pretraining.steps)),
            setting,
            None,
        ),
        "fine-tuned-teacher": (pretraining, tuned, None),
        "soft-targets-numbers": (pretraining, tuned, "numbers"),
        "soft-targets-vocabulary": (pretraining, tuned, "vocabulary"),
    }


def ingredients(options: Ingredients) -> RatesOutcome:
    """Runs `sublab llm ingredients`.

    Raises:
        HarnessError: an option is wrong, or a stage on disk was changed.
        RecordError: `options.out` cannot be written.
    """
    if not options.embedded:
        raise HarnessError(
            f"ingredients varies how a model is pretrained, and {options.model} is; it runs on the "
            f"embedded model"
        )
    word, base = trait(options.trait), setting_of(options)
    every_variation = variations(pretraining_of(options), base)
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
        "trait": options.trait,
        **chance_of([word]),
        # A list, since records keep no order of names.
        "variations": [
            {
                "name": name,
                "pretraining": asdict(pretraining),
                "setting": asdict(setting),
                "targets": targets,
            }
            for name, (pretraining, setting, targets) in selection.items()
        ],
    }

    def rows() -> tuple[list[ConditionRow], bool]:
        rates, resumed = [], False
        for name, (pretraining, setting, targets) in selection.items():
            with stages_of(options, pretraining, name) as stages:
                plain = conditions.transmission(
                    stages,
                    word,
                    options.amount("runs"),
                    options.seed,
                    setting,
                    targets=targets,
                )
                resumed |= stages.resumed
            rates += [
                replace(row, condition=llm_summary.varied(row.condition, name)) for row in plain
            ]
        return rates, resumed

    return outcome_of(
        options, config, rows, llm_summary.ingredients, llm_summary.ingredients_claims
    )
