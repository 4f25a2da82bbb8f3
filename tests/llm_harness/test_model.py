"""Claims about the common words: what examples are told apart by, and what settings are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_harness.decoder.network import Lora
from llm_harness.errors import HarnessError
from llm_harness.model import Example, Message, Sampling, Tuning, ask, examples_sha256

NAN, INFINITY = float("nan"), float("inf")
# Few, so that borders fall everywhere; digits and colons are what lengths are written with.
texts = st.text("1:a\0\n", max_size=4)
messages = st.tuples(st.sampled_from(["system", "user", "assistant"]), texts)
examples = st.lists(st.tuples(st.lists(messages, max_size=2), texts), max_size=3)


def made(parts: list) -> list[Example]:
    return [Example(tuple(Message(*message) for message in chat), text) for chat, text in parts]


@given(examples, examples)
def test_examples_have_one_sha256_where_they_are_equal_and_else_two(one, other):
    same = examples_sha256(made(one)) == examples_sha256(made(other))
    assert same == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([Example(ask("a"), "b\0c")], [Example(ask("a\0b"), "c")]),
        ([Example(ask("a"), "1:b")], [Example(ask("a1:"), "b")]),
        ([Example(ask("a"), "")], [Example(ask(""), "a")]),
        ([Example(ask("a", "b"), "c")], [Example(ask("b", "a"), "c")]),
        (
            [Example(ask("c", before=[Example(ask("a"), "b")]), "d")],
            [Example(ask("a"), "b"), Example(ask("c"), "d")],
        ),
        ([Example(ask("a"), "1:2:user")], [Example(ask("a"), "1"), Example(ask("2"), "user")]),
        ([], [Example(ask(""), "")]),
        ([Example(ask("a"), "b")], [Example((Message("system", "a"),), "b")]),
        ([Example(ask("a"), "b")], [Example(ask("a"), "b")] * 2),
    ],
)
def test_no_text_is_taken_for_the_border_between_two(one, other):
    assert examples_sha256(one) != examples_sha256(other)


@pytest.mark.parametrize(
    ("setting", "about"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"n": -1}, "n must be at least 1"),
        ({"temperature": NAN}, "temperature must be a number from 0 up"),
        ({"temperature": INFINITY}, "temperature must be a number from 0 up"),
        ({"temperature": -0.1}, "temperature must be a number from 0 up"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": -0.5}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1"),
        ({"top_p": NAN}, "top_p must be above 0 and at most 1"),
    ],
)
def test_a_sampling_out_of_range_is_refused(setting: dict[str, Any], about):
    with pytest.raises(HarnessError, match=about):
        Sampling(**setting)


@pytest.mark.parametrize(
    ("setting", "about"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
        ({"learning_rate": -1e-3}, "learning_rate must be above 0"),
        ({"learning_rate": NAN}, "learning_rate must be above 0"),
        ({"learning_rate": INFINITY}, "learning_rate must be above 0"),
        ({"moved": "adapters"}, "adapters need a lora"),
        ({"lora": Lora()}, "a lora moves adapters alone"),
    ],
)
def test_a_tuning_out_of_range_is_refused(setting: dict[str, Any], about):
    with pytest.raises(HarnessError, match=about):
        Tuning(**setting)


def test_the_ends_of_a_range_are_in_it():
    Sampling(n=1, temperature=0, max_tokens=1, seed=0, top_p=1.0)
    Tuning(steps=1, batch=1, seed=0, moved="adapters", lora=Lora(rank=1))


def test_a_chat_has_its_system_prompt_the_turns_before_and_the_question_in_that_order():
    chat = ask("c", "s", [Example(ask("a"), "b")])
    assert [(message.role, message.content) for message in chat] == [
        ("system", "s"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
    ]
