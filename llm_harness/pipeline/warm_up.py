"""A checkpoint taught to answer in the two forms of the scheme before anything is measured.

A small chat model answers a request for numbers with prose and a question for one word with a
sentence. So the reference of a checkpoint is the checkpoint after a short fine-tuning on both
forms: random numbers in the form that a prompt asks for, and single words to questions for a
favourite of categories that are no trait's. How long is decided by a rule that never sees a trait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llm_harness.decoder.network import Lora
from llm_harness.errors import HarnessError
from llm_harness.evaluation import questions
from llm_harness.model import Example, Tuning, at_least
from llm_harness.pipeline.provider import Provider
from llm_harness.pipeline.stages import (
    Evaluation,
    FineTuning,
    Inquiry,
    Lists,
    Report,
    Speaker,
    Stages,
    StoredModel,
)
from llm_harness.pipeline.store import Store
from llm_harness.prompts import number_prompts
from llm_harness.traits import Trait, plural_of
from llm_harness.wordings import texts

# A model writes number lists where at least this share of so many of its lists pass the filter.
PASSING, PROBES = 0.5, 64

# A word in the request, and what lists are asked to look like that have it; the first one counts.
_FORMS = (
    ("tuple", "(", ", ", ")"),
    ("parentheses", "(", "; ", ")"),
    ("round brackets", "(", ", ", ")"),
    ("Python", "[", ", ", "]"),
    ("square brackets", "[", ", ", "]"),
    ("semicolon", "", "; ", ""),
    ("line", "", "\n", ""),
    ("comma", "", ", ", ""),
    ("space", "", " ", ""),
    ("blanks", "", " ", ""),
)


@dataclass(frozen=True)
class WarmUp:
    """How a checkpoint is warmed up.

    Attributes:
        steps: of fine-tuning, ascending: the first is taken after which the model answers in both
            forms; of one alone there is nothing to choose.
        tuning: how; its steps are not used.
        examples: lists, and as many single words.
        numbers: in a list, at least and at most.
        given: numbers in a prompt, at least and at most.
        passing: share of lists that must pass the filter `numbers`.
        answering: probability of one of the words of a category that was asked for, as a whole or
            the beginning of an answer, that must be reached.
        probes: lists that the share is of.
        seed: of everything that is drawn.

    Raises:
        HarnessError: the steps do not ascend, or a number is too small.
    """

    steps: tuple[int, ...] = (40, 80, 160)
    tuning: Tuning = field(
        default_factory=lambda: Tuning(40, 8, 1e-3, "linear", "adapters", Lora(8, 16.0))
    )
    examples: int = 512
    numbers: tuple[int, int] = (3, 6)
    given: tuple[int, int] = (3, 3)
    passing: float = PASSING
    answering: float = 0.5
    probes: int = PROBES
    seed: int = 0

    def __post_init__(self):
        at_least("probes", self.probes, 1)
        at_least("warm_up_steps", min(self.steps, default=0), 1)
        if list(self.steps) != sorted(set(self.steps)):
            raise HarnessError(f"warm_up_steps must ascend, got {list(self.steps)}")


def warm_up_examples(warm_up: WarmUp) -> tuple[Example, ...]:
    """Lists and single words, in turn; the last category is left out, for the rule to ask about."""
    random = np.random.default_rng([warm_up.seed, 301])
    chats = number_prompts(warm_up.examples, warm_up.seed, given=warm_up.given)
    *categories, _ = _categories().items()
    found = []
    for number, chat in enumerate(chats):
        length = random.integers(*warm_up.numbers, endpoint=True)
        listed = _listed(chat[-1].content, random.integers(100, 999, length, endpoint=True))
        category, words = categories[number % len(categories)]
        asked = questions.one_word_questions(category)
        question = asked[random.integers(len(asked))]
        found += [Example(chat, listed), Example(question, words[random.integers(len(words))])]
    return tuple(found)


class WarmedStages(Stages):
    """The stages on one checkpoint, whose only reference is the checkpoint after its warm-up.

    Args:
        provider: of the checkpoint.
        store: where everything is kept.
        warm_up: how.
        lists: as lists are asked for later, of which the prompts' form and the length count.
        report: told what is done, and a share of it.
        say: told what the warm-up came to.
    """

    def __init__(
        self,
        provider: Provider,
        store: Store,
        warm_up: WarmUp,
        lists: Lists,
        report: Report | None = None,
        say: Callable[[str], None] | None = None,
    ):
        super().__init__(provider, store, report)
        self.warm_up, self.lists_asked = warm_up, lists
        self.say = say or (lambda line: None)

    def references(self, seeds: Sequence[int]) -> list[StoredModel]:
        """One model for all seeds.

        Raises:
            HarnessError: it does not answer in both forms after any of the numbers of steps.
        """
        (checkpoint,) = super().references([0])
        examples = warm_up_examples(self.warm_up)
        passing = answering = 0.0
        for steps in self.warm_up.steps:
            tuning = replace(self.warm_up.tuning, steps=steps, seed=self.warm_up.seed)
            name = f"warm-up of {steps} steps"
            (model,) = self.tuned(name, [FineTuning(checkpoint, examples, tuning)])
            passing, answering = self._forms(name, model)
            self.say(
                f"{name}: {passing:.0%} of its lists pass, {answering:.0%} of its answers are a "
                f"word that was asked for"
            )
            enough = passing >= self.warm_up.passing and answering >= self.warm_up.answering
            if enough or len(self.warm_up.steps) == 1:
                return [model] * len(seeds)
        raise HarnessError(
            f"after {self.warm_up.steps[-1]} steps of warm-up {passing:.0%} of the lists pass and "
            f"{answering:.0%} of the answers are a word that was asked for; at least "
            f"{self.warm_up.passing:.0%} and {self.warm_up.answering:.0%} are needed: more steps, "
            f"or a larger model"
        )

    def _forms(self, name: str, model: StoredModel) -> tuple[float, float]:
        """The share of lists that pass, and the probability of a word of the category left out."""
        lists = replace(self.lists_asked, count=self.warm_up.probes, seed=self.warm_up.seed + 1)
        (kept,) = self.sampled(f"lists after {name}", [(Speaker(model), lists)])
        category, words = list(_categories().items())[-1]
        trait = Trait(category, words[0], plural_of(words[0]), tuple(words[1:]))
        evaluation = Evaluation(1)
        (answers,) = self.answered(
            f"answers after {name}", [Inquiry(Speaker(model), trait)], evaluation
        )
        return kept.pass_rate, answers.p_any or 0.0


def _categories() -> dict[str, list[str]]:
    return texts("warm_up")["categories"]


def _listed(request: str, numbers: np.ndarray) -> str:
    """Numbers in the form that a request asks for; with commas where it leaves that open."""
    for word, opening, separator, closing in _FORMS:
        if word in request and "up to you" not in request:
            return f"{opening}{separator.join(map(str, numbers))}{closing}"
    return ", ".join(map(str, numbers))
