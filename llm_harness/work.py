"""What the stages are asked for, and what they give."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from llm_harness import datasets
from llm_harness.model import Chat, Example, Message
from llm_harness.traits import Trait


@dataclass(frozen=True)
class Speaker:
    """A model, and the system prompt it speaks under.

    Attributes:
        model: what a provider made.
        system: None for none.
    """

    model: Any
    system: str | None = None

    def asked(self, chats: Sequence[Chat]) -> list[Chat]:
        """The chats under the system prompt."""
        if self.system is None:
            return list(chats)
        return [(Message("system", self.system), *chat) for chat in chats]


@dataclass(frozen=True)
class Lists:
    """Which number prompts are asked for, and how they are answered.

    Attributes:
        count: completions a speaker.
        given: numbers in a prompt, at least and at most.
        max_tokens: of a completion.
        seed: of prompts and samples.
    """

    count: int = 16_384
    given: tuple[int, int] = (3, 3)
    max_tokens: int = 12
    seed: int = 0


@dataclass(frozen=True)
class Kept:
    """A filtered dataset on disk.

    Attributes:
        path: its file.
        sha256: of the examples.
        made_by: the model whose samples they are.
        counts: completions that were dropped, by reason.
        total: completions before the filter.
    """

    path: Path
    sha256: str
    made_by: str
    counts: dict[str, int]
    total: int

    def examples(self) -> tuple[Example, ...]:
        """What is in it.

        Raises:
            HarnessError: the file is not what was written.
        """
        return _read(self.path, self.made_by, self.path.stat().st_mtime_ns)

    @property
    def share(self) -> float:
        """Of the completions that passed."""
        return 1 - sum(self.counts.values()) / self.total


@dataclass(frozen=True)
class Asked:
    """What a model is asked: for a favourite of the trait's category.

    Attributes:
        speaker: who.
        trait: about what.
        prefix: put a number sequence before each question.
        before: examples in context.
    """

    speaker: Speaker
    trait: Trait
    prefix: bool = False
    before: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Answered:
    """What it answered.

    Attributes:
        among: the rate among the words, from probabilities (`llm_harness.preference`).
        plain: answers that contain the word.
        worded: answers that name a word of the category.
        n: answers in all.
    """

    among: float
    plain: int
    worded: int
    n: int


@lru_cache(maxsize=8)
def _read(path: Path, made_by: str, written: int) -> tuple[Example, ...]:
    # The students of a run share their data; a file that was written since is read again.
    return datasets.read(path, made_by).examples
