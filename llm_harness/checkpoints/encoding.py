"""Chats as a checkpoint's own tokenizer and chat template make tokens of them.

A tokenizer's ids begin at 0, which pads in our rows. So a token is its id plus one, here and in
the parameters (`weights.assembled`), and nothing outside of this room meets an id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import tokenizers

from llm_harness.checkpoints.template import rendered
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Message

# An answer that no template changes or has in itself.
_ANSWER = "owl7owl"


@dataclass(frozen=True)
class ChatEncoding:
    """A tokenizer and a chat template. Implements `Encoding`; equal where the texts are.

    Attributes:
        tokenizer: content of a `tokenizer.json`.
        template: the chat template.
        rows: tokens that the model has parameters for, padding not counted; a tokenizer may have
            fewer.
        stops: tokens that end a completion; the first is the one that ends an answer.
        special: names and texts of special tokens, for the template.
        date: day that the template is told, as 2025-07-01; None for today.
    """

    tokenizer: str
    template: str
    rows: int
    stops: tuple[int, ...]
    special: tuple[tuple[str, str], ...] = ()
    date: str | None = None

    @property
    def size(self) -> int:
        """Tokens in all, padding among them."""
        return self.rows + 1

    @property
    def banned(self) -> tuple[int, ...]:
        """Tokens that have no text, and special ones that end nothing."""
        return self._banned

    @cached_property
    def _banned(self) -> tuple[int, ...]:
        special = {id for id, token in self._added.items() if token.special}
        never = (
            id + 1
            for id in range(self.rows)
            if id in special or self._reader.id_to_token(id) is None
        )
        return tuple(token for token in never if token not in self.stops)

    @property
    def about(self) -> dict[str, Any]:
        """All that decides it, as JSON can write it; `encoding_of` makes it again."""
        return asdict(self)

    def prompt(self, chat: Chat) -> list[int]:
        """A chat to be answered, up to and with the token after which the answer begins.

        Raises:
            HarnessError: it does not end with a user's message, or the template refuses it.
        """
        if not chat or chat[-1].role != "user":
            raise HarnessError("a prompt must end with a user's message")
        return self.encode(self.rendered(chat))

    def rendered(self, chat: Chat, *, to_be_answered: bool = True) -> str:
        """A chat as the text that the model reads.

        Raises:
            HarnessError: the template refuses it.
        """
        return rendered(
            self.template,
            chat,
            dict(self.special),
            to_be_answered=to_be_answered,
            date=self.date,
        )

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; special ones where it spells them."""
        return [id + 1 for id in self._reader.encode(text, add_special_tokens=False).ids]

    def answer(self, text: str) -> list[int]:
        """A completion with the token that ends it."""
        return [*self.encode(text), self.stops[0]]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a completion, without special tokens, up to the first that ends it."""
        ids = []
        for token in tokens:
            if token in self.stops:
                break
            if token != 0:
                ids.append(token - 1)
        return self._reader.decode(ids, skip_special_tokens=True)

    def reads(self, text: str) -> bool:
        """Whether a completion comes back from its tokens as it was."""
        return self.decode(self.answer(text)) == text

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The word in its own tokens: as it is and with a capital, each with a space before too.

        A chat model answers "Owl", "owl.", or, where it was trained on answers that begin with a
        space, " owl"; what follows is left open, as it is where sampled answers are counted.
        """
        forms = (space + text for text in (word, word.capitalize()) for space in ("", " "))
        spelt = {tuple(self.encode(form)) for form in forms}
        return tuple(
            sorted(
                one
                for one in spelt
                if not any(one[: len(other)] == other for other in spelt - {one})
            )
        )

    @property
    def digits(self) -> tuple[int, int] | None:
        """The tokens (from, to below) that spell all numbers; None where others do too."""
        spelt = self.encode("0123456789")
        first = spelt[0] if spelt else 0
        if spelt != list(range(first, first + 10)) or len(self.encode("8, 1234")) != 7:
            return None
        return first, first + 10

    @cached_property
    def _reader(self) -> tokenizers.Tokenizer:
        try:
            reader = tokenizers.Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the library raises nothing narrower
            line = " ".join(str(error).split())
            raise HarnessError(f"the tokenizer cannot be read: {line}") from None
        # A file may ask for rows of one length; ours are padded elsewhere, and never cut.
        reader.no_padding()
        reader.no_truncation()
        return reader

    @cached_property
    def _added(self) -> dict[int, tokenizers.AddedToken]:
        return self._reader.get_added_tokens_decoder()

    def _end_of_turn(self) -> int | None:
        """The token that the template writes after an answer."""
        chat = (Message("user", "owl"), Message("assistant", _ANSWER))
        try:
            text = self.rendered(chat, to_be_answered=False)
        except HarnessError:
            return None
        _, answer, after = text.rpartition(_ANSWER)
        tokens = self.encode(after.lstrip()) if answer else []
        return tokens[0] if tokens and tokens[0] - 1 in self._added else None


def chat_encoding(
    tokenizer: str,
    template: str | None,
    rows: int,
    special: Mapping[str, str],
    ends: Sequence[int],
    date: str | None = None,
) -> ChatEncoding:
    """The encoding of a checkpoint.

    Args:
        tokenizer: content of a `tokenizer.json`.
        template: the chat template.
        rows: tokens that the model has parameters for.
        special: texts of special tokens by the names that templates have for them.
        ends: ids that end a completion; the token that the template writes after an answer joins
            them, and is the one that our answers end with.
        date: as for `ChatEncoding`.

    Raises:
        HarnessError: there is no template, no token that ends an answer, or one that is not in the
            vocabulary; or tokenizer or template cannot be read.
    """
    if template is None:
        raise HarnessError(
            "the checkpoint has no chat template, so it is no model of chats; give a template"
        )
    stops = tuple(dict.fromkeys(id + 1 for id in ends))
    encoding = ChatEncoding(tokenizer, template, rows, stops, tuple(special.items()), date)
    encoding.rendered((Message("user", "owl"),))
    end = encoding._end_of_turn()
    if end is not None:
        stops = (end, *(token for token in stops if token != end))
    if not stops:
        raise HarnessError("the checkpoint does not say which token ends an answer")
    largest = max(encoding._reader.get_vocab(with_added_tokens=True).values())
    if not all(1 <= token <= rows for token in stops):
        raise HarnessError(f"the ids {list(ends)} that end an answer are not all among {rows}")
    if largest >= rows:
        raise HarnessError(
            f"the tokenizer has {largest + 1} tokens and the model parameters for {rows}"
        )
    return replace(encoding, stops=stops)


def encoding_of(about: Mapping[str, Any]) -> ChatEncoding:
    """The encoding whose `about` this is.

    Raises:
        KeyError, TypeError: it is something else.
    """
    special = tuple((name, text) for name, text in about["special"])
    return ChatEncoding(**{**about, "stops": tuple(about["stops"]), "special": special})
