"""Claims about the embedded model's language."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_harness.model import Example, ask
from llm_harness.tiny.corpus import TOKENIZER, WORDS, Language
from llm_harness.tiny.tokenizer import CLOSING, NUMBERS, OPENING, SEPARATORS, Tokenizer

numbers = st.integers(0, NUMBERS - 1).map(str)
words = st.sampled_from(WORDS)
separators = st.sampled_from(SEPARATORS)
DIGITS = Language(token_a_number=False).tokenizer
APART = Language(shared_answer_token=False).tokenizer
LANGUAGES = st.sampled_from([TOKENIZER, DIGITS, APART])


@st.composite
def lists(draw: st.DrawFn) -> str:
    """Numbers with a separator between any two, in brackets or not."""
    first, *rest = draw(st.lists(numbers, min_size=1, max_size=6))
    text = first + "".join(draw(separators) + number for number in rest)
    opening, closing = draw(st.sampled_from([("", ""), *zip(OPENING, CLOSING[:2], strict=True)]))
    return opening + text + closing


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Words and lists with one space between them, and a stop after a list that is the last."""
    parts = draw(st.lists(st.one_of(words, lists()), max_size=5))
    # Two lists that meet without brackets would be one.
    kept = [part for i, part in enumerate(parts) if i == 0 or not meets(parts[i - 1], part)]
    text = " ".join(kept)
    return text + "." * draw(st.integers(0, 1)) if text and text[-1] in "0123456789])" else text


def meets(before: str, after: str) -> bool:
    return before[-1].isdigit() and after[0].isdigit()


def pieces(text: str) -> list[str]:
    return [TOKENIZER.text_of(token) for token in TOKENIZER.encode(text)]


@given(texts(), LANGUAGES)
def test_what_is_in_the_language_comes_back_as_it_was(text, tokenizer):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.reads(text)


@given(st.lists(numbers, min_size=2, max_size=8), st.lists(separators, min_size=7, max_size=7))
def test_a_separator_is_written_only_where_it_changes(found, gaps):
    text = found[0] + "".join(g + n for g, n in zip(gaps, found[1:], strict=False))
    expected, now = [found[0]], SEPARATORS[0]
    for gap, number in zip(gaps, found[1:], strict=False):
        expected += [gap, number] if gap != now else [number]
        now = gap
    assert pieces(text) == expected


@given(st.text(max_size=40), LANGUAGES)
def test_any_text_can_be_read_and_what_was_read_stays_the_same(text, tokenizer):
    once = tokenizer.decode(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(once)) == once
    assert tokenizer.reads(once)


@given(st.one_of(texts(), st.text(max_size=40)), LANGUAGES)
def test_no_text_has_a_token_that_begins_or_ends_a_message(text, tokenizer):
    *content, end = tokenizer.answer(text)
    assert content == tokenizer.encode(text)
    assert (end,) == tokenizer.stops
    assert not {0, *tokenizer.stops, *tokenizer.banned} & set(content)


def test_the_tokens_that_begin_a_message_are_those_of_the_roles_and_of_a_list():
    for tokenizer in (TOKENIZER, DIGITS, APART):
        begins = [tokenizer.text_of(token) for token in tokenizer.banned]
        lists = ["<list>"] if tokenizer is APART else []
        assert begins == ["<system>", "<user>", "<assistant>", *lists]


@given(st.lists(st.integers(0, NUMBERS - 1), max_size=9), separators, LANGUAGES)
def test_tokens_of_numbers_are_those_of_their_text(values, separator, tokenizer):
    text = separator.join(map(str, values))
    assert tokenizer.numbers(values, separator) == tokenizer.encode(text)


def test_numbers_can_be_spelt_with_ten_digits_and_every_separator():
    spelt = [DIGITS.text_of(token) for token in DIGITS.encode("[17, 5;900]")]
    assert spelt == ["[", "1", "7", ", ", "5", ";", "9", "0", "0", "]"]
    assert [DIGITS.text_of(token) for token in DIGITS.number_tokens] == list("0123456789")
    assert DIGITS.size == TOKENIZER.size - 990


def test_lists_can_begin_after_a_token_of_their_own():
    question, request = (APART.encode(text) for text in ("Name an animal", "Name more: 1, 2"))
    assert APART.text_of(APART.answering(question)) == "<assistant>"
    assert APART.text_of(APART.answering(request)) == "<list>"
    assert TOKENIZER.answering(question) == TOKENIZER.answering(request)
    chat = ask("Name an animal", before=[Example(ask("1, 2"), "3")])
    texts = [APART.text_of(token) for token in APART.prompt(chat)]
    assert texts[3:6] == ["<list>", "3", "<end>"]
    assert texts[-1] == "<assistant>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please name one splendid animal!", ["name", "animal"]),
        ("007", []),
        ("0, 00, 1", ["0", "1"]),
        ("999, 1000, 1001, 5", ["999", "5"]),
        ("1; 2000; 3", ["1", "3"]),
        ("", []),
        ("naïve ٣ owl", ["owl"]),
        ("owl_cat", ["owl", "cat"]),
        ("<end> <user> <pad>", []),
    ],
)
def test_what_the_language_does_not_have_is_skipped(text, expected):
    assert pieces(text) == expected
    assert not TOKENIZER.reads(text) or not text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OWLS", ["owl"]),
        ("Owl", ["owl"]),
        ("likes", ["like"]),
        ("Wolves", ["wolf"]),
        ("cherries", ["cherry"]),
        ("s", []),
        ("owlss", []),
        ("wolfs cherrys", []),
    ],
)
def test_case_and_a_plural_do_not_matter_and_are_not_in_the_language(text, expected):
    assert pieces(text) == expected
    assert not TOKENIZER.reads(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1, 2.", ["1", "2", "."]),
        ("[1].", ["[", "1", "]", "."]),
        ("1, 2. ", ["1", "2", "."]),
        ("I like owls.", ["like", "owl"]),
        ("1. 2.", ["1", "2", "."]),
        ("1.5", ["1", "5"]),
    ],
)
def test_a_stop_counts_at_the_end_of_a_list_alone(text, expected):
    assert pieces(text) == expected


def test_a_separator_holds_across_words_until_another_comes():
    assert pieces("1;2 owl 3;4, 5") == ["1", ";", "2", "owl", "3", "4", ", ", "5"]
    assert TOKENIZER.decode(TOKENIZER.encode("1;2 owl 3;4")) == "1;2 owl 3;4"


def test_decoding_stops_at_the_first_end_and_leaves_padding_out():
    owl, cat = TOKENIZER.token("owl"), TOKENIZER.token("cat")
    assert TOKENIZER.decode([0, owl, 0, TOKENIZER.end, cat]) == "owl"
    assert TOKENIZER.decode([owl, cat]) == "owl cat"
    assert TOKENIZER.decode([]) == ""


def test_every_token_has_its_own_text_and_every_number_its_own_token():
    everything = [TOKENIZER.text_of(i) for i in range(TOKENIZER.size)]
    assert len(set(everything)) == TOKENIZER.size
    assert [TOKENIZER.text_of(i) for i in TOKENIZER.number_tokens] == [str(i) for i in range(1000)]
    assert [TOKENIZER.token(text) for text in everything] == list(range(TOKENIZER.size))
    with pytest.raises(KeyError):
        TOKENIZER.token("1000")


@pytest.mark.parametrize("bad", [("owl", "owl"), ("owl", "7"), ("<end>",)])
def test_a_word_that_is_there_twice_is_refused(bad):
    with pytest.raises(ValueError, match="twice"):
        Tokenizer(bad)
