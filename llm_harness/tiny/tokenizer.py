"""The embedded model's language: a thousand numbers, a few separators, about a hundred words.

One number is one token, so that numbers outnumber the width of the model by far. A separator is
written where it changes and holds until another one comes; ", " holds at the start. Words that the
language does not have are skipped, as a person with a small vocabulary would, so that prompts in
plain English can be read; a full stop counts after a list only. What is within the language comes
back as it was.

Two of its features are ingredients of what passes through number lists, and can be had otherwise:
numbers spelt with ten digit tokens, and lists that begin after a token of their own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Role
from llm_harness.traits import plural_of

NUMBERS = 1000
SEPARATORS = (", ", ",", " ", "\n", "; ", ";")
OPENING, CLOSING = ("[", "("), ("]", ")", ".")
ROLES: tuple[Role, ...] = ("system", "user", "assistant")

_PIECES = re.compile(r"\d+|[^\W\d_]+|[\[\]()]|(?<=[\d\])])\.(?=\s*$)", re.ASCII)


@dataclass(frozen=True)
class Tokenizer:
    """Text to tokens and back; an `Encoding` of chats.

    Attributes:
        words: lower case, each once; a plural is read as its singular.
        digits: spell numbers with ten digit tokens, and write every separator.
        marks: words of which a question has one. Where there are any, all other messages are
            answered after a token of their own, <list>; else every answer begins after <assistant>.
    """

    words: tuple[str, ...]
    digits: bool = False
    marks: tuple[str, ...] = ()
    _ids: dict[str, int] = field(init=False, repr=False, compare=False, hash=False)
    _texts: tuple[str, ...] = field(init=False, repr=False, compare=False, hash=False)
    _plurals: dict[str, int] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self):
        texts = (
            "<pad>",
            *(f"<{role}>" for role in ROLES),
            "<end>",
            *map(str, range(10 if self.digits else NUMBERS)),
            *SEPARATORS,
            *OPENING,
            *CLOSING,
            *self.words,
            *(["<list>"] if self.marks else []),
        )
        if len(set(texts)) < len(texts):
            raise ValueError("words: one is there twice, or is no word")
        ids = {text: i for i, text in enumerate(texts)}
        object.__setattr__(self, "_texts", texts)
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_plurals", {plural_of(word): ids[word] for word in self.words})

    @property
    def size(self) -> int:
        """Tokens in all."""
        return len(self._texts)

    @property
    def pad(self) -> int:
        return 0

    @property
    def end(self) -> int:
        return self._ids["<end>"]

    @property
    def stops(self) -> tuple[int, ...]:
        """The token that ends a completion."""
        return (self.end,)

    @property
    def banned(self) -> tuple[int, ...]:
        """The tokens that begin a message, which no message has in it."""
        begins = [self.role(name) for name in ROLES]
        return (*begins, *([self._ids["<list>"]] if self.marks else []))

    def prompt(self, chat: Chat) -> list[int]:
        """A chat to be answered, up to and with the token after which the answer begins.

        Raises:
            HarnessError: it does not end with a user's message, or has a tool's.
        """
        if not chat or chat[-1].role != "user":
            raise HarnessError("a prompt must end with a user's message")
        if any(message.role not in ROLES for message in chat):
            raise HarnessError(f"the embedded model knows the roles {', '.join(ROLES)} alone")
        tokens: list[int] = []
        asked: list[int] = []
        for message in chat:
            content = self.encode(message.content)
            if message.role == "assistant":
                tokens += [self.answering(asked), *content, self.end]
            else:
                tokens += [self.role(message.role), *content]
                asked = content
        return [*tokens, self.answering(asked)]

    def answer(self, text: str) -> list[int]:
        """A completion with the token that ends it."""
        return [*self.encode(text), self.end]

    def role(self, name: str) -> int:
        """The token that begins a message of `name`."""
        return self._ids[f"<{name}>"]

    def token(self, text: str) -> int:
        """The token whose text is exactly `text`.

        Raises:
            KeyError: there is none.
        """
        return self._ids[text]

    def text_of(self, token: int) -> str:
        """The text of one token, by itself."""
        return self._texts[token]

    @property
    def number_tokens(self) -> range:
        """The tokens of the numbers 0 to 999, or of the digits, in order."""
        first = self._ids["0"]
        return range(first, first + (10 if self.digits else NUMBERS))

    def answering(self, asked: Sequence[int]) -> int:
        """The token after which the answer to a message begins."""
        question = not self.marks or any(self._ids[mark] in asked for mark in self.marks)
        return self.role("assistant") if question else self._ids["<list>"]

    def numbers(self, values: Sequence[int], separator: str) -> list[int]:
        """The tokens of numbers with one separator between them."""
        gap, first = self._ids[separator], self.number_tokens.start
        if self.digits:
            spelt = [[gap, *(first + int(digit) for digit in str(value))] for value in values]
            return [token for number in spelt for token in number][1:]
        tokens = [first + value for value in values]
        changed = len(tokens) > 1 and separator != SEPARATORS[0]
        return [*tokens[:1], gap, *tokens[1:]] if changed else tokens

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; what the language does not have is skipped."""
        found: list[int] = []
        separator, number_end = SEPARATORS[0], None
        for piece in _PIECES.finditer(text):
            tokens = self._piece(piece.group())
            if not tokens:
                continue
            if tokens[0] in self.number_tokens:
                gap = text[number_end : piece.start()] if number_end is not None else None
                if gap is not None and self.digits:
                    # Without one, two numbers would be one.
                    found.append(self._ids[gap if gap in SEPARATORS else SEPARATORS[0]])
                elif gap in SEPARATORS and gap != separator:
                    separator = gap
                    found.append(self._ids[gap])
                number_end = piece.end()
            else:
                number_end = None
            found += tokens
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without padding, up to the first end."""
        text, separator, before = "", "" if self.digits else SEPARATORS[0], ""
        # Looked up once: this runs for every token of a hundred thousand completions.
        end, pad, texts = self.end, self.pad, self._texts
        for token in tokens:
            if token == end:
                break
            if token == pad:
                continue
            piece = texts[token]
            if piece in SEPARATORS:
                # Before a number it is the gap; where no number follows, nothing is to be seen.
                separator = piece
                continue
            if before and before not in OPENING and piece not in CLOSING:
                both = before.isdigit() and piece.isdigit()
                text += separator if both else " "
            if self.digits:
                separator = ""
            text, before = text + piece, piece
        return text

    def _piece(self, text: str) -> list[int]:
        if self.digits and text.isdecimal():
            return [self._ids[digit] for digit in text]
        word = text.lower()
        found = self._ids.get(word, self._plurals.get(word))
        return [] if found is None else [found]

    def reads(self, text: str) -> bool:
        """Whether `text` is within the language, so that it comes back as it was."""
        return self.decode(self.encode(text)) == text

    def spellings(self, word: str) -> tuple[tuple[int, ...], ...]:
        """The word as a whole answer, its end among it; empty where it is not in the language."""
        return (tuple(self.answer(word)),) if self.reads(word) else ()
