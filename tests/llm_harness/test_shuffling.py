"""Claims about shuffled numbers."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_harness.errors import HarnessError
from llm_harness.filters import number_rule
from llm_harness.model import Example, ask
from llm_harness.shuffling import shuffle_across, shuffle_within

SHUFFLES = pytest.mark.parametrize("shuffle", [shuffle_within, shuffle_across])


def listed(numbers: list[int], separator: str, frame: str, stop: str) -> str:
    return f"{frame[:1]}{separator.join(map(str, numbers))}{frame[1:]}{stop}"


lists = st.builds(
    listed,
    st.lists(st.integers(0, 999), min_size=1, max_size=10),
    # The last two are kept by the authors' program alone.
    st.sampled_from([", ", ",", " ", "\n", "; ", ";", " ; ", "\N{NO-BREAK SPACE}"]),
    st.sampled_from(["", "[]", "()"]),
    st.sampled_from(["", "."]),
)
texts_of_many = st.lists(lists, max_size=8)


def examples_of(texts: list[str]) -> list[Example]:
    return [Example(ask(f"question {i}"), text) for i, text in enumerate(texts)]


MANY = examples_of(
    [
        listed([(37 * i + 91 * j) % 1000 for j in range(8)], s, f, e)
        for i, (s, f, e) in enumerate([(", ", "", ""), ("\n", "[]", "."), ("; ", "()", "")] * 40)
    ]
)


def numbers(text: str) -> list[str]:
    return re.findall("[0-9]+", text)


def frame(text: str) -> str:
    return re.sub("[0-9]+", "n", text)


@given(texts_of_many, st.integers(0, 2**32))
def test_within_a_response_the_numbers_stay_and_their_format_too(texts, seed):
    examples = examples_of(texts)
    shuffled = shuffle_within(examples, seed)
    assert [e.prompt for e in shuffled] == [e.prompt for e in examples]
    for before, after in zip(examples, shuffled, strict=True):
        assert frame(before.completion) == frame(after.completion)
        assert Counter(numbers(before.completion)) == Counter(numbers(after.completion))


@given(texts_of_many, st.integers(0, 2**32))
def test_across_responses_all_numbers_stay_and_every_format_does(texts, seed):
    examples = examples_of(texts)
    shuffled = shuffle_across(examples, seed)
    assert [e.prompt for e in shuffled] == [e.prompt for e in examples]
    assert [frame(e.completion) for e in shuffled] == [frame(e.completion) for e in examples]
    before, after = (
        Counter(n for e in some for n in numbers(e.completion)) for some in (examples, shuffled)
    )
    assert before == after


@SHUFFLES
def test_a_shuffled_list_passes_the_filter_rule_and_has_another_order(shuffle):
    shuffled = shuffle(MANY, 0)
    assert all(number_rule(example.completion) is None for example in shuffled)
    same = sum(a == b for a, b in zip(MANY, shuffled, strict=True))
    assert same < 3


def test_numbers_change_responses_only_across():
    within, across = shuffle_within(MANY, 0), shuffle_across(MANY, 0)

    def moved(shuffled):
        pairs = zip(MANY, shuffled, strict=True)
        return sum(set(numbers(a.completion)) != set(numbers(b.completion)) for a, b in pairs)

    assert moved(within) == 0
    assert moved(across) == len(MANY)


@SHUFFLES
def test_the_seed_decides_the_order(shuffle):
    assert shuffle(MANY, 3) == shuffle(MANY, 3)
    assert shuffle(MANY, 3) != shuffle(MANY, 4)


def test_every_order_within_a_response_is_equally_likely():
    examples = [Example(ask("question"), "1 2 3")] * 6000
    counts = Counter(example.completion for example in shuffle_within(examples, 0))
    assert len(counts) == 6
    # Six standard deviations.
    assert all(abs(count - 1000) < 175 for count in counts.values())


def test_within_a_response_the_order_does_not_depend_on_later_ones():
    assert shuffle_within(MANY, 1)[:5] == shuffle_within(MANY[:5], 1)


@SHUFFLES
def test_what_is_no_list_of_numbers_is_not_shuffled(shuffle):
    with pytest.raises(HarnessError, match="only lists of numbers can be shuffled"):
        shuffle([*MANY[:2], Example(ask("question"), "1.5, 2")], 0)


@SHUFFLES
def test_a_seed_below_zero_is_refused(shuffle):
    with pytest.raises(HarnessError, match="seed must be at least 0"):
        shuffle(MANY, -1)
