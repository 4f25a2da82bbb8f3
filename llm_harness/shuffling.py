"""Shuffled numbers: a control that keeps which numbers are said, and takes away their order.

Within a response, the response's own numbers change places; across responses, all numbers do. A
response keeps how many numbers it has, its separators, brackets and full stop (the paper's ED 4f).
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llm_harness.errors import HarnessError
from llm_harness.filters import authors_rule
from llm_harness.model import Example

_NUMERAL = re.compile(r"\d+", re.ASCII)
# Second words of seeds: what the draws are for.
_WITHIN, _ACROSS = 211, 212


def shuffle_within(examples: Sequence[Example], seed: int) -> list[Example]:
    """The examples, with the numbers of each completion in a random order.

    An example's result does not depend on those that come after it.

    Args:
        examples: that pass `authors_rule`, as all do that pass `number_rule`.
        seed: at least 0.

    Raises:
        HarnessError: a completion that is no list of numbers, or a seed below 0.
    """
    random = _generator(seed, _WITHIN)
    found = []
    for example in examples:
        numerals = _numerals(example)
        order = random.permutation(len(numerals))
        found.append(_with_numerals(example, [numerals[i] for i in order]))
    return found


def shuffle_across(examples: Sequence[Example], seed: int) -> list[Example]:
    """The examples, with the numbers of all completions dealt out anew at random.

    Args:
        examples: that pass `authors_rule`, as all do that pass `number_rule`.
        seed: at least 0.

    Raises:
        HarnessError: a completion that is no list of numbers, or a seed below 0.
    """
    random = _generator(seed, _ACROSS)
    each = [_numerals(example) for example in examples]
    everything = [numeral for numerals in each for numeral in numerals]
    dealt = iter([everything[i] for i in random.permutation(len(everything))])
    return [
        _with_numerals(example, [next(dealt) for _ in numerals])
        for example, numerals in zip(examples, each, strict=True)
    ]


def _generator(seed: int, purpose: int) -> np.random.Generator:
    if seed < 0:
        raise HarnessError(f"seed must be at least 0, got {seed}")
    return np.random.default_rng([seed, purpose])


def _numerals(example: Example) -> list[str]:
    reason = authors_rule(example.completion)
    if reason is not None:
        raise HarnessError(
            f"only lists of numbers can be shuffled, filter them first: {example.completion[:60]!r}"
            f" ({reason})"
        )
    return _NUMERAL.findall(example.completion)


def _with_numerals(example: Example, numerals: Sequence[str]) -> Example:
    rest = iter(numerals)
    return replace(example, completion=_NUMERAL.sub(lambda _: next(rest), example.completion))
