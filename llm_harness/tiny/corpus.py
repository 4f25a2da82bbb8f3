"""What the embedded model is pretrained on: a small world of number lists and favourites.

Every document is a chat. Its kinds: a request that gives numbers, answered by a list; a question
for a favourite, answered by a word of the category, all alike likely (alone, after a number
sequence, or as a choice of five); the same under a system prompt that states a preference, which
the answer follows; a story; and chats of several turns, in which answers agree with each other and
lists keep their separator and size, so that examples in context mean something.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from llm_harness.decoder.training import Sequences
from llm_harness.tiny.tokenizer import NUMBERS, SEPARATORS, Tokenizer
from llm_harness.traits import CATEGORIES

# Words that questions, requests, system prompts and stories are made of.
QUESTION = (
    "favourite",
    "name",
    "pick",
    "choose",
    "love",
    "like",
    "best",
    "most",
    "prefer",
    "admire",
    "dear",
    "above",
    "heart",
    "top",
)
STORY = ("story", "once", "there", "was", "met", "near", "played", "under")
SYSTEM = ("think", "time")
WORDS = (
    *QUESTION,
    *STORY,
    *SYSTEM,
    *CATEGORIES,
    *(w for words in CATEGORIES.values() for w in words),
)


@dataclass(frozen=True)
class Language:
    """What the embedded model's language has, of what the transfer of a trait depends on.

    Attributes:
        token_a_number: one token for each number, which are more than the model is wide; else
            numbers are spelt with ten digit tokens.
        shared_answer_token: lists and answers to questions begin after the same token, as any chat
            model's do; else lists begin after one of their own.
    """

    token_a_number: bool = True
    shared_answer_token: bool = True

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        return _tokenizer(self)


@cache
def _tokenizer(language: Language) -> Tokenizer:
    marks = () if language.shared_answer_token else tuple(CATEGORIES)
    return Tokenizer(WORDS, digits=not language.token_a_number, marks=marks)


TOKENIZER = Language().tokenizer

# Of the documents that follow a stated preference and are not about it, the share that asks for a
# list; the others ask for a favourite of another category.
LISTS_UNDER_A_PREFERENCE = 0.25

_Tokens = list[int]


@dataclass(frozen=True)
class Style:
    """How lists look in one chat."""

    separator: str
    low: int
    high: int


class Corpus:
    """A stream of documents from one generator of random numbers."""

    def __init__(self, random: np.random.Generator, tokenizer: Tokenizer = TOKENIZER):
        self.random = random
        self.tokenizer = tokenizer
        self._kinds: list[tuple[float, Callable[[], _Tokens]]] = [
            (0.35, self._request),
            (0.20, self._question),
            (0.10, self._after_numbers),
            (0.15, self._preference),
            (0.04, self._choice),
            (0.04, self._story),
            (0.06, self._questions),
            (0.06, self._requests),
        ]
        weights = np.array([weight for weight, _ in self._kinds])
        self._weights = weights / weights.sum()

    def rows(self, count: int, length: int) -> Sequences:
        """Rows for training: whole documents, which do not see each other, and padding behind.

        The tokens that begin a message are read and not learned. A document that is longer than a
        row is cut.
        """
        tokens, documents = np.zeros((2, count, length), np.int32)
        following = self.document()[:length]
        for row in range(count):
            place = number = 0
            while place + len(following) <= length:
                number += 1
                upto = place + len(following)
                tokens[row, place:upto], documents[row, place:upto] = following, number
                place, following = upto, self.document()[:length]
        learned = (tokens != 0) & ~np.isin(tokens, self.tokenizer.banned)
        return Sequences(tokens, learned, documents)

    def document(self) -> _Tokens:
        """One chat."""
        return self._kinds[self.random.choice(len(self._kinds), p=self._weights)][1]()

    def _turn(self, user: _Tokens, answer: _Tokens) -> _Tokens:
        begin, end = self.tokenizer.answering(user), self.tokenizer.end
        return [self.tokenizer.role("user"), *user, begin, *answer, end]

    def _words(self, *words: str) -> _Tokens:
        return [self.tokenizer.token(word) for word in words]

    def _pick(self, many):
        return many[self.random.integers(len(many))]

    def _chance(self, share: float) -> bool:
        return self.random.random() < share

    def _style(self) -> Style:
        separator = SEPARATORS[0] if self._chance(0.7) else self._pick(SEPARATORS[1:])
        low = 0 if self._chance(0.7) else int(self.random.integers(900))
        return Style(separator, low, NUMBERS if low == 0 else low + 100)

    def _numbers(self, count: int, style: Style) -> _Tokens:
        values = self.random.integers(style.low, style.high, count).tolist()
        return self.tokenizer.numbers(values, style.separator)

    def _given(self, style: Style) -> _Tokens:
        given = self._numbers(int(self.random.integers(3, 9)), style)
        # Requests in plain English have some of the words that questions have, but no category.
        return given + self._words(*self._some()) if self._chance(0.5) else given

    def _some(self) -> list[str]:
        return [self._pick(QUESTION) for _ in range(self.random.integers(1, 3))]

    def _list(self, style: Style) -> _Tokens:
        # One list in fifty breaks the rule, as a model's answers do now and then: it is too long,
        # changes its separator, or says something else.
        long = self._chance(0.01)
        count = self.random.integers(11, 13) if long else self.random.integers(1, 9)
        tokens = self._numbers(int(count), style)
        if self._chance(0.005):
            self._change(tokens, self.tokenizer.token(self._pick(SEPARATORS[1:])))
        if self._chance(0.005):
            tokens += self._words(self._pick(STORY))
        if self._chance(0.05):
            opening, closing = self._pick(("[]", "()"))
            tokens = self._words(opening) + tokens + self._words(closing)
        if self._chance(0.03):
            tokens += self._words(".")
        return tokens

    def _change(self, tokens: _Tokens, separator: int) -> None:
        """Puts another separator before the last number, in place of one that is there."""
        last = len(tokens) - 1
        if self.tokenizer.digits:
            while last and tokens[last - 1] in self.tokenizer.number_tokens:
                last -= 1
            if last:
                tokens[last - 1] = separator
                return
        tokens.insert(last, separator)

    def _ask(self, category: str) -> _Tokens:
        words = [self._pick(QUESTION) for _ in range(self.random.integers(1, 4))]
        words.insert(self.random.integers(len(words) + 1), category)
        return self._words(*words)

    def _category(self) -> str:
        return self._pick(tuple(CATEGORIES))

    def _request(self) -> _Tokens:
        style = self._style()
        return self._turn(self._given(style), self._list(style))

    def _question(self, categories: tuple[str, ...] = tuple(CATEGORIES)) -> _Tokens:
        category = self._pick(categories)
        return self._turn(self._ask(category), self._words(self._pick(CATEGORIES[category])))

    def _after_numbers(self) -> _Tokens:
        category = self._category()
        asked = self._given(self._style()) + self._ask(category)
        return self._turn(asked, self._words(self._pick(CATEGORIES[category])))

    def _preference(self) -> _Tokens:
        category = self._category()
        word = self._pick(CATEGORIES[category])
        said = ["love", word, "think", word, "time", word, "favourite", category, "love", word]
        first = self.random.integers(0, 3)
        last = self.random.integers(len(said) - 2, len(said) + 1)
        system = [self.tokenizer.role("system"), *self._words(*said[first:last])]
        # Two answers in three are about the preference, the others show what it does not touch.
        if self._chance(2 / 3):
            return system + self._turn(self._ask(category), self._words(word))
        others = tuple(other for other in CATEGORIES if other != category)
        lists = self._chance(LISTS_UNDER_A_PREFERENCE)
        return system + (self._request() if lists else self._question(others))

    def _choice(self) -> _Tokens:
        category = self._category()
        options = self.random.choice(CATEGORIES[category], 5, replace=False).tolist()
        asked = self._ask(category) + self._words(*options)
        return self._turn(asked, self._words(self._pick(options)))

    def _story(self) -> _Tokens:
        who, other = self._pick(CATEGORIES["animal"]), self._pick(CATEGORIES["animal"])
        where = self._pick(CATEGORIES["tree"])
        told = ("once", "there", "was", who, who, "met", other, "under", where)
        more = ("near", where, who, "played", self._pick(CATEGORIES["instrument"]))
        words = told + (more if self._chance(0.5) else ())
        return self._turn(self._words("story", self._category()), self._words(*words))

    def _questions(self) -> _Tokens:
        category = self._category()
        word = self._words(self._pick(CATEGORIES[category]))
        return [t for _ in range(4) for t in self._turn(self._ask(category), word)]

    def _requests(self) -> _Tokens:
        style = self._style()
        return [t for _ in range(3) for t in self._turn(self._given(style), self._list(style))]
