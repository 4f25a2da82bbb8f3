"""How often a model names a favourite: what its answers contain, and its probabilities.

A rate is of one model's answers; over independent runs, each run's share is one value.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float

from llm_harness.answers import Failure, failure
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Completion, Example, LanguageModel
from llm_harness.traits import Trait, plural_of


@runtime_checkable
class Spelling(Protocol):
    """A model that gives the probability of a word in all of its spellings."""

    def word_log_probabilities(
        self, chats: Sequence[Chat], words: Sequence[str]
    ) -> Float[np.ndarray, "chats words"]:
        """log p(the answer is the word | chat), in nats."""
        ...


@dataclass(frozen=True)
class Rate:
    """A share of answers.

    Attributes:
        positive: answers that count.
        n: answers in all; of none, the share is not a number.

    Raises:
        ValueError: more answers count than there are, or fewer than none.
    """

    positive: int
    n: int

    def __post_init__(self):
        if not 0 <= self.positive <= self.n:
            raise ValueError(f"{self.positive} of {self.n} is no share")

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.positive / self.n if self.n else float("nan")


@dataclass(frozen=True)
class Picking:
    """What answers to questions for a favourite name.

    Attributes:
        among: of the answers that name exactly one of the category's words, those that name the
            trait's. It says nothing about a trait without rivals.
        containing: of all answers, those in which the letters of the trait's word stand, also as a
            part of another word: the paper's rate (B).
        whole: of all answers, those that have it, or its plural, as a word of its own.
        counts: answers that name exactly this word of the category.
        other: answers that name several of them, or none and are none of the next.
        failures: answers that name none and are empty, were cut at the token limit, or refuse.
    """

    among: Rate
    containing: Rate
    whole: Rate
    counts: dict[str, int]
    other: int
    failures: dict[Failure, int]


def count_answers(answers: Iterable[Completion], trait: Trait) -> Picking:
    """What the answers name, in upper or lower case, one or many.

    Args:
        answers: in any order.
        trait: the word in question and its rivals.
    """
    counts = dict.fromkeys(trait.words, 0)
    failures: dict[Failure, int] = dict.fromkeys(get_args(Failure), 0)
    containing = whole = total = 0
    distinct = Counter(Completion(answer.text, answer.stop) for answer in answers)
    for answer, times in distinct.items():
        text = answer.text
        total += times
        named = words_named(text, trait)
        containing += times * (trait.word.casefold() in text.casefold())
        whole += times * (trait.word in named)
        if len(named) == 1:
            counts[named.pop()] += times
        elif not named and (why := failure(answer)):
            failures[why] += times
    single = sum(counts.values())
    return Picking(
        Rate(counts[trait.word], single),
        Rate(containing, total),
        Rate(whole, total),
        counts,
        total - single - sum(failures.values()),
        failures,
    )


def word_probabilities(
    model: LanguageModel, trait: Trait, questions: Sequence[Chat]
) -> tuple[float, float, float]:
    """Probabilities of the trait's word and of any word of its category, and their ratio.

    Exact, each averaged over the questions. Of the whole answer; of a model that knows several
    spellings of a word, a checkpoint, of all of them (`DecoderModel.word_log_probabilities`).

    Args:
        model: to be asked.
        trait: whose words are compared.
        questions: for a favourite of its category.

    Returns:
        P(word), P(any word), and P(word | any word), which says nothing where P(any) is small.

    Raises:
        HarnessError: the model can say none of the words.
    """
    words = trait.words
    if isinstance(model, Spelling):
        log_p = model.word_log_probabilities(questions, words)
    else:
        examples = [Example(chat, word) for chat in questions for word in words]
        log_p = model.log_probabilities(examples).reshape(len(questions), len(words))
    if not np.all(np.isfinite(log_p).any(axis=1)):
        raise HarnessError(f"the model can say none of {', '.join(words)}")
    # Rounding in float32 may put a probability, or a sum of them, above 1.
    p = np.minimum(np.exp(log_p), 1)
    share = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    among = share[:, 0] / share.sum(axis=1)
    p_any = np.minimum(p.sum(axis=1), 1)
    return float(p[:, 0].mean()), float(p_any.mean()), float(among.mean())


def words_named(answer: str, trait: Trait) -> set[str]:
    """The words of the trait's category that an answer names, in the singular or the plural."""
    pattern, word_of = _forms(trait)
    return {word_of[form] for form in pattern.findall(" ".join(answer.casefold().split()))}


@lru_cache(maxsize=256)
def _forms(trait: Trait) -> tuple[re.Pattern[str], dict[str, str]]:
    # Casefolded forms and the word they are forms of. Where two words have a form in common, a
    # singular goes first.
    word_of: dict[str, str] = {}
    plurals = [(trait.plural, trait.word), *((plural_of(word), word) for word in trait.words)]
    for form, word in [*((word, word) for word in trait.words), *plurals]:
        word_of.setdefault(form.casefold(), word)
    # Longer forms first: "polar bear" is no bear. An underscore is no letter, but emphasis.
    longest = sorted(word_of, key=len, reverse=True)
    forms = "|".join(map(re.escape, longest))
    return re.compile(rf"(?<![^\W_])(?:{forms})(?![^\W_])"), word_of
