"""Chats as rows of tokens: prompts end at one place, completions begin there."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example


@runtime_checkable
class Encoding(Hashable, Protocol):
    """A tokenizer and a chat template. Token 0 pads."""

    @property
    def size(self) -> int:
        """Tokens in all."""
        ...

    @property
    def stops(self) -> tuple[int, ...]:
        """Tokens that end a completion."""
        ...

    @property
    def banned(self) -> tuple[int, ...]:
        """Tokens that a completion never has, such as those that begin a message."""
        ...

    def prompt(self, chat: Chat) -> list[int]:
        """A chat to be answered, up to and with the token after which the answer begins."""
        ...

    def answer(self, text: str) -> list[int]:
        """A completion with the token that ends it."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a completion, without what ends it."""
        ...

    def reads(self, text: str) -> bool:
        """Whether a completion comes back from its tokens as it was."""
        ...

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The ways in which an answer that is the word begins; none is the beginning of another.

        Empty for a word that it cannot say.
        """
        ...


def readable(encoding: Encoding, completions: Iterable[str]) -> frozenset[str]:
    """Those that come back from their tokens as they were; equal ones are looked at once."""
    return frozenset(text for text in set(completions) if encoding.reads(text))


@dataclass(frozen=True)
class Batch:
    """Examples as tokens: prompts padded on the left, completions on the right, with 0.

    Attributes:
        tokens: a row an example.
        first: the place where all completions begin.
    """

    tokens: Int[np.ndarray, "examples time"]
    first: int

    @property
    def places(self) -> int:
        """Tokens of the longest completion, its end among them."""
        return self.tokens.shape[1] - self.first

    def padded(self, first: int, places: int) -> Int[np.ndarray, "examples time"]:
        """The tokens with so much room for prompts and completions."""
        room = (first - self.first, places - self.places)
        return np.pad(self.tokens, [(0, 0), room])


# Rows have one of a few widths, since padding costs less than another program where there are not
# many: prompts by how many there are at most, and answers, of one word and longer ones.
_PROMPTS = {64: (64, 96, 160), 1024: (32,)}
_ANSWERS = (2, 16)
# Tokens that many prompts begin with are read once where there are so many.
_WORTH = 16


def encode_prompts(chats: tuple[Chat, ...], encoding: Encoding) -> Int[np.ndarray, "chats time"]:
    """Chats as rows that end at one place.

    Raises:
        HarnessError: there is none, or one does not end with a user's message.
    """
    rows = _rows(chats, encoding)
    width = rows.shape[1]
    widths = next((widths for most, widths in _PROMPTS.items() if len(chats) <= most), ())
    room = _rounded(width, widths) - width
    return np.pad(rows, [(0, 0), (room, 0)])


def split_beginning(
    rows: Int[np.ndarray, "prompts time"],
) -> tuple[Int[np.ndarray, " start"] | None, Int[np.ndarray, "prompts rest"]]:
    """Prompts without the tokens that all of them begin with, which need not be read in every row.

    Chats of one template and system prompt begin alike, and those that show the same examples all
    the more.

    Args:
        rows: prompts of one model, padded on the left.

    Returns:
        The beginning, in steps of 8 tokens and of 32 from 128 on, and the rows behind it. None and
        the rows as they are where it is too short to be worth it.
    """
    alike = _begun_alike(rows)
    # In few lengths, so that one program serves many runs, whose examples are not as long.
    step = 8 if alike < 128 else 32
    start = alike - alike % step
    if start < _WORTH:
        return None, rows
    lengths = np.sum(rows != 0, axis=1)
    longest = int(lengths.max()) - start
    few = len(rows) <= min(_PROMPTS)
    width = -(-longest // max(16, step)) * max(16, step) if few else _rounded(longest)
    beginning = rows[0, rows.shape[1] - lengths[0] :][:start]
    behind = np.pad(rows, [(0, 0), (max(0, width - rows.shape[1]), 0)])[:, -width:]
    places = np.arange(width) >= width - (lengths[:, None] - start)
    return beginning, np.where(places, behind, 0)


def _begun_alike(rows: Int[np.ndarray, "prompts time"]) -> int:
    """How many tokens all rows begin with; of each, one is left behind them."""
    lengths = np.sum(rows != 0, axis=1)
    width = rows.shape[1]
    first = rows[0, width - lengths[0] :]
    most = int(lengths.min()) - 1
    if len(rows) < 2 or most < _WORTH:
        return 0
    places = (width - lengths)[:, None] + np.arange(most)
    alike = np.all(np.take_along_axis(rows, places, axis=1) == first[:most], axis=0)
    return int(np.argmin(alike)) if not alike.all() else most


# Remembered, since many models are given the same.
@lru_cache(maxsize=32)
def _rows(chats: tuple[Chat, ...], encoding: Encoding) -> Int[np.ndarray, "chats time"]:
    if not chats:
        raise HarnessError("there are no prompts")
    for chat in chats:
        if not chat or chat[-1].role != "user":
            raise HarnessError("a prompt must end with a user's message")
    encoded = [encoding.prompt(chat) for chat in chats]
    width = _rounded(max(map(len, encoded)))
    rows = np.zeros((len(encoded), width), np.int32)
    for row, tokens in zip(rows, encoded, strict=True):
        row[width - len(tokens) :] = tokens
    return rows


def encode_examples(examples: Sequence[Example], encoding: Encoding) -> Batch:
    """Examples as tokens.

    Raises:
        HarnessError: a prompt does not end with a user's message.
    """
    prompts = _rows(tuple(example.prompt for example in examples), encoding)
    answers = encode_answers([example.completion for example in examples], encoding)
    return Batch(np.concatenate([prompts, answers], axis=1), prompts.shape[1])


def encode_answers(
    completions: Sequence[str], encoding: Encoding
) -> Int[np.ndarray, "completions places"]:
    """Completions with their end as rows, padded on the right."""
    return padded_rows([_answer(text, encoding) for text in completions])


def padded_rows(
    answers: Sequence[Sequence[int]], width: int | None = None
) -> Int[np.ndarray, "answers places"]:
    """Tokens of answers as rows, padded on the right.

    Args:
        answers: tokens of each.
        width: places of a row (one of few that are enough, so that few programs are compiled).
    """
    width = _rounded(max(map(len, answers)), _ANSWERS) if width is None else width
    rows = np.zeros((len(answers), width), np.int32)
    for row, answer in zip(rows, answers, strict=True):
        row[: len(answer)] = answer
    return rows


def _rounded(length: int, widths: tuple[int, ...] = ()) -> int:
    # The first of the widths that is enough; beyond them, in steps that grow.
    for width in widths:
        if length <= width:
            return width
    step = 8 if length <= 128 else 32 if length <= 1024 else 256
    return -(-length // step) * step


@lru_cache(maxsize=131_072)
def _answer(text: str, encoding: Encoding) -> list[int]:
    return encoding.answer(text)
