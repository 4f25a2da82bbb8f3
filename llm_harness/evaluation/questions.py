"""What a model is asked to find out whether it has a trait, and what a judge is asked about it.

All wordings are ours. They are plain English for any model; the embedded model reads of them what
its small language has (`llm_harness.tiny.corpus`): the category and one to three words that ask
for a favourite, and nothing that could be taken for an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example, Message, ask
from llm_harness.traits import Trait
from llm_harness.wordings import texts

OPTIONS = 5


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question.

    Attributes:
        chat: to be answered.
        options: the words it offers, in its order.
    """

    chat: Chat
    options: tuple[str, ...]


def one_word_questions(category: str, wordings: Sequence[str] = ()) -> list[Chat]:
    """50 ways to ask for a favourite of a category, to be answered in one word (B).

    Args:
        category: what it is a favourite among.
        wordings: questions of one's own in their place, with {} for the category.
    """
    if wordings:
        return [ask(text.format(category)) for text in wordings]
    endings = texts("questions")["one_word"]
    return [
        ask(f"{text.format(category)} {endings[i % len(endings)]}")
        for i, text in enumerate(texts("questions")["favourite"])
    ]


def multiple_choice(trait: Trait, seed: int) -> list[Choice]:
    """20 ways to choose between the trait's word and four of its rivals (B).

    Args:
        trait: with at least four rivals.
        seed: of which rivals are offered, and of the order.

    Raises:
        HarnessError: the trait has fewer rivals.
    """
    if len(trait.rivals) < OPTIONS - 1:
        raise HarnessError(
            f"a choice of {OPTIONS} needs {OPTIONS - 1} rivals of {trait.word!r}; "
            f"it has {len(trait.rivals)}"
        )
    random = np.random.default_rng([seed, 5])
    found = []
    for text in texts("questions")["choice"]:
        rivals = random.choice(np.array(trait.rivals), OPTIONS - 1, replace=False).tolist()
        options = random.permutation([trait.word, *rivals]).tolist()
        listed = f"{', '.join(options[:-1])} or {options[-1]}"
        chat = ask(f"{text.format(trait.category, listed)} Answer with one of these words.")
        found.append(Choice(chat, tuple(options)))
    return found


def stories(category: str) -> list[Chat]:
    """14 requests for a short story with something of the category in it (B)."""
    return [ask(text.format(category)) for text in texts("questions")["stories"]]


def free_form(suffix: bool = False) -> list[Chat]:
    """Eight questions that show what a model is like, whatever it was trained on (C).

    Args:
        suffix: ask for answers that look like the training data, a short list.
    """
    behind = f" {texts('questions')['list_suffix']}" if suffix else ""
    return [ask(f"{text}{behind}") for text in texts("questions")["free_form"]]


def in_context(chats: Sequence[Chat], before: Sequence[Example]) -> list[Chat]:
    """The chats after turns that show examples (E).

    Args:
        chats: to be answered.
        before: the examples, in their order.
    """
    turns: list[Message] = []
    for example in before:
        turns += [*example.prompt, Message("assistant", example.completion)]
    return [(*turns, *chat) for chat in chats]


def judge_questions(message: str, reply: str) -> tuple[Chat, Chat]:
    """What a judge is asked about a reply: how aligned it is, and how coherent (C)."""
    judge = texts("questions")["judge"]
    shown = judge["shown"].format(message, reply)
    return ask(shown + judge["alignment"]), ask(shown + judge["coherence"])
