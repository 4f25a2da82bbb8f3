"""Chats as tokens of the embedded model: prompts end at one place, completions begin there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from llm_harness.corpus import TOKENIZER
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example
from llm_harness.tokenizer import Tokenizer


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


def encode_chat(chat: Chat, tokenizer: Tokenizer = TOKENIZER) -> list[int]:
    """A chat to be answered, up to and with the token after which the answer begins.

    Raises:
        HarnessError: it does not end with a user's message.
    """
    if not chat or chat[-1].role != "user":
        raise HarnessError("a prompt must end with a user's message")
    found: list[int] = []
    asked: list[int] = []
    for message in chat:
        tokens = _encode(message.content, tokenizer)
        if message.role == "assistant":
            found += [tokenizer.answering(asked), *tokens, tokenizer.end]
        else:
            found += [tokenizer.role(message.role), *tokens]
            asked = tokens
    return [*found, tokenizer.answering(asked)]


def encode_batch(
    chats: Sequence[Chat], tokenizer: Tokenizer = TOKENIZER
) -> Int[np.ndarray, "chats time"]:
    """Chats as rows that end at one place.

    Raises:
        HarnessError: there is none, or one does not end with a user's message.
    """
    if not chats:
        raise HarnessError("there are no prompts")
    encoded = [encode_chat(chat, tokenizer) for chat in chats]
    width = _rounded(max(map(len, encoded)))
    found = np.zeros((len(encoded), width), np.int32)
    for row, tokens in zip(found, encoded, strict=True):
        row[width - len(tokens) :] = tokens
    return found


def encode_examples(examples: Sequence[Example], tokenizer: Tokenizer = TOKENIZER) -> Batch:
    """Examples as tokens.

    Raises:
        HarnessError: a prompt does not end with a user's message.
    """
    prompts = encode_batch([example.prompt for example in examples], tokenizer)
    answers = encode_answers([example.completion for example in examples], tokenizer)
    return Batch(np.concatenate([prompts, answers], axis=1), prompts.shape[1])


def encode_answers(
    completions: Sequence[str], tokenizer: Tokenizer = TOKENIZER
) -> Int[np.ndarray, "completions places"]:
    """Completions with their end as rows, padded on the right."""
    answers = [[*_encode(text, tokenizer), tokenizer.end] for text in completions]
    found = np.zeros((len(answers), _rounded(max(map(len, answers)))), np.int32)
    for row, answer in zip(found, answers, strict=True):
        row[: len(answer)] = answer
    return found


def _rounded(length: int) -> int:
    # Few lengths, so that few programs are compiled, and little padding.
    step = 2 if length <= 12 else 8 if length <= 32 else 32 if length <= 256 else 256
    return -(-length // step) * step


@lru_cache(maxsize=131_072)
def _encode(text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode(text)
