"""Claims about chats as tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_harness.decoder.encoding import (
    Encoding,
    encode_answers,
    encode_examples,
    encode_prompts,
    split_beginning,
)
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Example, Message, ask
from llm_harness.tiny.corpus import TOKENIZER, Language

CHAT = ask("Name a tree: 1;2", "You love owls.", [Example(ask("3, 4"), "5")])


def texts(tokens) -> list[str]:
    return [TOKENIZER.text_of(int(token)) for token in tokens]


def test_a_tokenizer_is_an_encoding_and_equal_ones_are_one():
    assert isinstance(TOKENIZER, Encoding)
    assert Language().tokenizer == TOKENIZER != Language(shared_answer_token=False).tokenizer
    assert hash(Language().tokenizer) == hash(TOKENIZER)


def test_messages_begin_with_their_role_and_answers_end():
    assert texts(TOKENIZER.prompt(CHAT)) == [
        "<system>",
        "love",
        "owl",
        "<user>",
        "3",
        "4",
        "<assistant>",
        "5",
        "<end>",
        "<user>",
        "name",
        "tree",
        "1",
        ";",
        "2",
        "<assistant>",
    ]


@pytest.mark.parametrize(
    "chat", [(), (Message("system", "owl"),), (Message("user", "owl"), Message("assistant", "cat"))]
)
def test_a_chat_that_does_not_end_with_a_user_is_refused(chat: Chat):
    with pytest.raises(HarnessError, match="must end with a user's message"):
        TOKENIZER.prompt(chat)
    with pytest.raises(HarnessError, match="must end with a user's message"):
        encode_prompts((ask("owl"), chat), TOKENIZER)
    with pytest.raises(HarnessError, match="must end with a user's message"):
        encode_examples([Example(chat, "owl")], TOKENIZER)


def test_no_chats_at_all_are_refused():
    with pytest.raises(HarnessError, match="no prompts"):
        encode_prompts((), TOKENIZER)


def test_prompts_of_all_lengths_end_at_one_place_behind_padding():
    chats = (ask("owl"), CHAT, ask(" ".join(["1"] * 40)))
    tokens = encode_prompts(chats, TOKENIZER)
    for row, chat in zip(tokens, chats, strict=True):
        expected = TOKENIZER.prompt(chat)
        assert row[len(row) - len(expected) :].tolist() == expected
        assert not row[: len(row) - len(expected)].any()
    assert (tokens[:, -1] == TOKENIZER.role("assistant")).all()


def test_completions_begin_at_one_place_end_and_are_padded_behind():
    examples = [Example(ask("owl"), "1;2"), Example(CHAT, ""), Example(CHAT, "owl cat lion bear")]
    batch = encode_examples(examples, TOKENIZER)
    answers = [texts(row[batch.first :]) for row in batch.tokens]
    assert [answer[:6] for answer in answers] == [
        ["1", ";", "2", "<end>", "<pad>", "<pad>"],
        ["<end>", "<pad>", "<pad>", "<pad>", "<pad>", "<pad>"],
        ["owl", "cat", "lion", "bear", "<end>", "<pad>"],
    ]
    assert batch.places == 16
    assert not batch.tokens[:, -10:].any()
    np.testing.assert_array_equal(
        batch.tokens[:, : batch.first],
        encode_prompts(tuple(example.prompt for example in examples), TOKENIZER)[:, -batch.first :],
    )
    np.testing.assert_array_equal(
        batch.tokens[:, batch.first :],
        encode_answers([example.completion for example in examples], TOKENIZER),
    )


def test_more_room_moves_prompts_and_completions_together():
    batch = encode_examples([Example(CHAT, "1;2"), Example(ask("owl"), "cat")], TOKENIZER)
    padded = batch.padded(batch.first + 3, batch.places + 2)
    assert padded.shape == (2, batch.tokens.shape[1] + 5)
    np.testing.assert_array_equal(padded[:, 3:-2], batch.tokens)
    assert not padded[:, :3].any()
    assert not padded[:, -2:].any()


def test_prompts_have_few_widths():
    questions = [ask("owl"), ask(" ".join(["1"] * 40)), CHAT]
    assert {encode_prompts((chat,), TOKENIZER).shape[1] for chat in questions} == {64}
    longer = [ask(" ".join(["1"] * count)) for count in (70, 130)]
    assert {encode_prompts((chat,), TOKENIZER).shape[1] for chat in longer} == {96, 160}
    many = tuple(ask(f"owl {number}") for number in range(1025))
    assert encode_prompts(many[:65], TOKENIZER).shape[1] == 32
    assert encode_prompts(many, TOKENIZER).shape[1] == 8


@pytest.mark.parametrize("longest", [1, 3, 11, 12, 13, 31, 40, 250, 300])
def test_widths_are_few_and_at_least_as_long_as_the_longest_chat(longest):
    # `<user>` and `<assistant>` beside the numbers.
    widths = {
        encode_prompts((ask(" ".join(["1"] * count)),), TOKENIZER).shape[1]
        for count in range(longest, 305)
    }
    assert min(widths) >= longest + 2
    assert len(widths) <= 16


@st.composite
def begun_alike(draw):
    """Prompts with a beginning in common."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    alike = random.integers(1, 5, draw(st.integers(0, 300))).tolist()
    rows = [
        alike + random.integers(1, 5, random.integers(1, 30)).tolist()
        for _ in range(draw(st.integers(1, 70)))
    ]
    width = max(map(len, rows)) + draw(st.integers(0, 9))
    return np.array([[0] * (width - len(row)) + row for row in rows], np.int32)


@given(begun_alike())
def test_a_beginning_and_the_rows_behind_it_are_the_prompts(prompts):
    beginning, rest = split_beginning(prompts)
    if beginning is None:
        assert rest is prompts
        return
    assert len(beginning) >= 16
    for row, prompt in zip(rest, prompts, strict=True):
        tokens = row[row != 0]
        assert tokens.size
        # It ends at the last place, where an answer begins.
        np.testing.assert_array_equal(row[-tokens.size :], tokens)
        np.testing.assert_array_equal([*beginning, *tokens], prompt[prompt != 0])


def test_a_beginning_that_is_short_or_of_one_prompt_is_none():
    long, short = (
        np.concatenate([np.tile(np.arange(1, end), (2, 1)), [[1], [2]]], axis=1) for end in (41, 16)
    )
    assert split_beginning(long)[0] is not None
    assert split_beginning(short)[0] is None
    assert split_beginning(long[:1])[0] is None
