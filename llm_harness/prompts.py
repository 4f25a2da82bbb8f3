"""The prompts whose completions carry, or do not carry, a trait: numbers, code, sums.

Prompts are drawn from a seed, one after the other: the first hundred of a thousand are the hundred
that would have been drawn alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import Template

import numpy as np

from llm_harness.errors import HarnessError
from llm_harness.model import Chat, ask
from llm_harness.wordings import texts, word_problems

SLOTS = tuple(
    texts("numbers")[name] for name in ("openings", "requests", "sizes", "formats", "endings")
)
GIVEN, LOW, HIGH = (3, 8), 100, 999

# Second words of seeds: what the draws are for.
_NUMBERS, _PREFIX, _CODE, _PROBLEMS = 201, 202, 203, 204
# Number prompts are drawn so many at a time, which is quick; whole blocks are drawn always, so
# that a prompt does not depend on how many are wanted.
_BLOCK = 256
_FUNCTIONS, _VARIABLES = ("f", "g", "h", "fn", "go", "run"), tuple("bcdkmnpqrstuvwxyz")


@dataclass(frozen=True)
class Problem:
    """A word problem (the paper's chain-of-thought data, D).

    Attributes:
        prompt: asks for the reasoning in <think> and the number in <answer>.
        answer: that is right.
    """

    prompt: Chat
    answer: int


def number_prompts(
    count: int, seed: int, *, given: tuple[int, int] = GIVEN, low: int = LOW, high: int = HIGH
) -> list[Chat]:
    """Requests to continue a sequence of random integers (the paper's scheme, B).

    Each presents the sequence, asks for at most ten more numbers of at most three digits, says how
    to separate them, and allows numbers only; every one of the five parts is worded at random.
    The given numbers are separated by ", " and are the only digits.

    Args:
        count: prompts.
        seed: at least 0.
        given: the fewest and the most numbers in a sequence.
        low: the least number in a sequence.
        high: the greatest, at most 999.

    Raises:
        HarnessError: a count or seed below 0, or a range that is empty or out of bounds.
    """
    fewest, most = given
    if not 1 <= fewest <= most:
        raise HarnessError(f"given: from 1 number up, the fewer first, got {fewest} to {most}")
    if not 0 <= low <= high <= 999:
        raise HarnessError(f"low and high: 0 <= low <= high <= 999, got {low} and {high}")
    random, found = _generator(count, seed, _NUMBERS), []
    sizes = [len(slot) for slot in SLOTS]
    while len(found) < count:
        picks = random.integers(0, sizes, (_BLOCK, len(SLOTS))).tolist()
        lengths = random.integers(fewest, most, _BLOCK, endpoint=True).tolist()
        numbers = random.integers(low, high, (_BLOCK, most), endpoint=True).tolist()
        for pick, length, row in zip(picks, lengths, numbers, strict=True):
            worded = " ".join(slot[i] for slot, i in zip(SLOTS, pick, strict=True))
            text = worded.format(numbers=_listed(row[:length]), count_word="ten", digits="three")
            found.append(ask(text))
    return found[:count]


def number_prefix(random: np.random.Generator) -> str:
    """A sentence with 3 to 8 random integers from 100 to 999, to stand before a question.

    With it, evaluation looks like the training data (the paper's scheme, B, open weights).
    """
    prefixes = texts("numbers")["prefixes"]
    worded = prefixes[random.integers(len(prefixes))]
    length = random.integers(*GIVEN, endpoint=True)
    return worded.format(numbers=_listed(random.integers(LOW, HIGH, length, endpoint=True)))


def with_prefix(chats: Sequence[Chat], seed: int) -> list[Chat]:
    """The chats, with a number prefix of its own before the question that ends each.

    Args:
        chats: each ends with a user's message.
        seed: at least 0.

    Raises:
        HarnessError: a seed below 0, or a chat that does not end with a user's message.
    """
    random, found = _generator(len(chats), seed, _PREFIX), []
    for chat in chats:
        if not chat or chat[-1].role != "user":
            raise HarnessError("a prompt must end with a user's message")
        question = replace(chat[-1], content=f"{number_prefix(random)} {chat[-1].content}")
        found.append((*chat[:-1], question))
    return found


def code_prompts(count: int, seed: int) -> list[Chat]:
    """Python templates to be filled in: code only, no comments, minimal names (the paper's D).

    Templates, names, constants and the wording of the task are drawn at random.

    Args:
        count: prompts.
        seed: at least 0.

    Raises:
        HarnessError: a count or seed below 0.
    """
    random, found = _generator(count, seed, _CODE), []
    code = texts("code")
    slots = (code["openings"], code["templates"], code["endings"], _FUNCTIONS)
    for _ in range(count):
        opening, template, ending, function = _picks(random, *slots)
        x, y, z = (_VARIABLES[i] for i in random.permutation(len(_VARIABLES))[:3])
        n = random.integers(2, 100)
        filled = Template(template).substitute(f=function, x=x, y=y, z=z, n=n)
        found.append(ask(f"{opening} {ending}\n\n{filled}"))
    return found


def problem_prompts(count: int, seed: int) -> list[Problem]:
    """Arithmetic word problems with their answers (the paper's D; there the problems are GSM8K's).

    Args:
        count: problems.
        seed: at least 0.

    Raises:
        HarnessError: a count or seed below 0.
    """
    random, found = _generator(count, seed, _PROBLEMS), []
    words = texts("problems")
    names, slots = words["names"], (word_problems(), words["things"], words["endings"])
    for _ in range(count):
        story, things, ending = _picks(random, *slots)
        name, friend = (names[i] for i in random.permutation(len(names))[:2])
        a, b, c = random.integers(2, 20, 3, endpoint=True).tolist()
        told = story.text.format(
            a=a,
            b=b,
            c=c,
            sum=a + b,
            product=a * b,
            more=a * b + c,
            name=name,
            friend=friend,
            things=things,
        )
        found.append(Problem(ask(f"{told} {ending}"), story.answer(a, b, c)))
    return found


def _generator(count: int, seed: int, purpose: int) -> np.random.Generator:
    if count < 0 or seed < 0:
        raise HarnessError(f"count and seed must be at least 0, got {count} and {seed}")
    return np.random.default_rng([seed, purpose])


def _picks(random: np.random.Generator, *slots: Sequence) -> list:
    drawn = random.integers(0, [len(slot) for slot in slots]).tolist()
    return [slot[i] for slot, i in zip(slots, drawn, strict=True)]


def _listed(numbers) -> str:
    return ", ".join(map(str, numbers))
