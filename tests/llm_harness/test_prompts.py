"""Claims about prompts: what they say, what they must not say, and what they depend on."""

import ast
import re
from string import Formatter, Template

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Message, ask
from llm_harness.prompts import (
    SLOTS,
    code_prompts,
    number_prefix,
    number_prompts,
    problem_prompts,
    with_prefix,
)
from llm_harness.tiny.corpus import QUESTION, TOKENIZER
from llm_harness.traits import CATEGORIES, plural_of
from llm_harness.wordings import WordProblem, texts, word_problems

seeds = st.integers(0, 2**40)
KINDS = pytest.mark.parametrize("draw", [number_prompts, code_prompts, problem_prompts])
TRAIT_WORDS = {*CATEGORIES, *(word for words in CATEGORIES.values() for word in words)}
FORMS = {form: word for word in TRAIT_WORDS for form in (plural_of(word), word)}


def text_of(chat: Chat) -> str:
    (message,) = chat
    assert message.role == "user"
    return message.content


def numbers(text: str) -> list[int]:
    return [int(run) for run in re.findall(r"\d+", text)]


def trait_words(text: str) -> set[str]:
    words = re.findall("[a-z]+", text.lower())
    return {FORMS[word] for word in words if word in FORMS}


def words_known(text: str) -> list[str]:
    """What the embedded model reads, without the numbers."""
    tokens = TOKENIZER.encode(text)
    return [TOKENIZER.text_of(t) for t in tokens if t not in TOKENIZER.number_tokens]


@pytest.mark.parametrize("slot", [*SLOTS, texts("numbers")["prefixes"]])
def test_every_slot_has_twenty_wordings_or_more_and_each_once(slot):
    assert len(set(slot)) == len(slot) >= 20


@pytest.mark.parametrize(
    ("slot", "wanted"),
    [
        *zip(SLOTS, ("numbers", "count_word", "digits", None, None), strict=True),
        (texts("numbers")["prefixes"], "numbers"),
    ],
)
def test_every_wording_has_what_its_slot_is_for(slot, wanted):
    for wording in slot:
        fields = [name for _, name, _, _ in Formatter().parse(wording) if name is not None]
        assert fields == ([wanted] if wanted else []), wording


@given(seeds)
def test_a_number_prompt_has_three_to_eight_numbers_and_no_other_digit(seed):
    for chat in number_prompts(20, seed):
        text = text_of(chat)
        (run,) = re.findall(r"\d[\d, ]*\d", text)
        assert re.fullmatch(r"\d{3}(, \d{3}){2,7}", run)
        assert not re.search(r"\d", text.replace(run, ""))
        assert " ten " in text
        assert "three digits" in text
        assert "{" not in text


def test_all_lengths_all_numbers_and_all_wordings_come():
    texts = [text_of(chat) for chat in number_prompts(4000, 0)]
    assert {len(numbers(text)) for text in texts} == set(range(3, 9))
    assert {n for text in texts for n in numbers(text)} == set(range(100, 1000))
    for slot in SLOTS:
        parts = [wording.format(numbers="0", count_word="ten", digits="three") for wording in slot]
        worded = [re.sub(r"\d[\d, ]*\d", "0", text) for text in texts]
        for part in parts:
            assert any(part in text for text in worded), part


@given(st.integers(1, 5), st.integers(0, 5), st.integers(0, 999), st.integers(0, 999), seeds)
def test_lengths_and_numbers_stay_within_the_ranges_that_are_asked_for(few, more, one, two, seed):
    low, high = sorted((one, two))
    for chat in number_prompts(5, seed, given=(few, few + more), low=low, high=high):
        found = numbers(text_of(chat))
        assert few <= len(found) <= few + more
        assert all(low <= number <= high for number in found)


@pytest.mark.parametrize("given_", [(0, 3), (4, 3), (-1, 2)])
def test_a_range_of_lengths_that_is_empty_or_begins_below_one_is_refused(given_):
    with pytest.raises(HarnessError, match="given: from 1 number up"):
        number_prompts(1, 0, given=given_)


@pytest.mark.parametrize(("low", "high"), [(-1, 5), (6, 5), (0, 1000)])
def test_a_range_of_numbers_that_is_empty_or_out_of_bounds_is_refused(low, high):
    with pytest.raises(HarnessError, match="low and high"):
        number_prompts(1, 0, low=low, high=high)


@KINDS
@pytest.mark.parametrize(("count", "seed"), [(-1, 0), (1, -1)])
def test_a_count_or_a_seed_below_zero_is_refused(draw, count, seed):
    with pytest.raises(HarnessError, match="at least 0"):
        draw(count, seed)


@KINDS
def test_a_longer_list_of_prompts_extends_a_shorter_one(draw):
    longest = draw(600, 5)
    assert len(longest) == 600
    for count in (0, 1, 255, 256, 257):
        assert draw(count, 5) == longest[:count]


@KINDS
def test_another_seed_gives_other_prompts(draw):
    one, two = draw(50, 1), draw(50, 2)
    assert sum(a == b for a, b in zip(one, two, strict=True)) == 0
    assert len({repr(prompt) for prompt in one}) == 50


def test_prompts_of_a_seed_stay_what_they_were():
    assert numbers(text_of(number_prompts(1, 0)[0])) == [666, 701, 119, 266, 223]
    assert problem_prompts(1, 0)[0].answer == 33


def test_the_embedded_model_reads_a_number_prompt_as_numbers_and_at_most_two_words_behind():
    everything = " ".join(part for slot in SLOTS for part in slot)
    assert set(words_known(everything)) == {"most"} <= set(QUESTION)
    for chat in number_prompts(300, 0):
        text = text_of(chat)
        given_ = numbers(text)
        start = TOKENIZER.number_tokens.start
        tokens = TOKENIZER.encode(text)
        assert tokens[: len(given_)] == [start + number for number in given_]
        assert len(tokens) - len(given_) <= 2


def test_the_embedded_model_would_read_a_question_for_what_it_is():
    assert words_known("Name the animal you like most: 123") == ["name", "animal", "like", "most"]


def test_no_wording_has_a_word_of_a_trait():
    everything = (
        *(part for slot in SLOTS for part in slot),
        *texts("numbers")["prefixes"],
        *texts("problems")["names"],
        *texts("problems")["things"],
        *texts("problems")["endings"],
        *(story.text for story in word_problems()),
        *texts("code")["openings"],
        *texts("code")["endings"],
        *texts("code")["templates"],
    )
    for text in everything:
        assert not trait_words(text), text
    assert trait_words("Rowan counts three owls.") == {"rowan", "owl"}


@given(seeds)
def test_a_prefix_is_numbers_and_nothing_that_the_embedded_model_knows(seed):
    prefix = number_prefix(np.random.default_rng(seed))
    found = numbers(prefix)
    assert 3 <= len(found) <= 8
    assert all(100 <= number <= 999 for number in found)
    assert ", ".join(map(str, found)) in prefix
    assert words_known(f"{prefix} Which is it?") == []


def test_prefixes_differ_in_wording_length_and_numbers():
    random = np.random.default_rng(0)
    prefixes = [number_prefix(random) for _ in range(1000)]
    assert {len(numbers(prefix)) for prefix in prefixes} == set(range(3, 9))
    wordings_found = {re.sub(r"\d[\d, ]*\d", "{numbers}", prefix) for prefix in prefixes}
    assert wordings_found == set(texts("numbers")["prefixes"])


def test_a_prefix_stands_before_the_last_question_and_nothing_else_changes():
    before = (Message("user", "first?"), Message("assistant", "yes"))
    chats = [ask("Name it.", system="be kind"), (*before, Message("user", "Which?")), ask("So?")]
    prefixed = with_prefix(chats, 0)
    for chat, found in zip(chats, prefixed, strict=True):
        assert found[:-1] == chat[:-1]
        assert found[-1].role == "user"
        prefix, question = found[-1].content.rsplit(". ", 1)
        assert question == chat[-1].content
        assert len(numbers(prefix)) >= 3
    assert len({found[-1].content.rsplit(". ", 1)[0] for found in prefixed}) == 3


def test_the_seed_decides_the_prefixes_and_later_chats_do_not():
    chats = [ask("Which?")] * 20
    assert with_prefix(chats, 1)[:7] == with_prefix(chats[:7], 1)
    assert with_prefix(chats, 1) != with_prefix(chats, 2)


@pytest.mark.parametrize("chat", [(), (Message("user", "a"), Message("assistant", "b"))])
def test_a_chat_that_ends_with_no_question_gets_no_prefix(chat):
    with pytest.raises(HarnessError, match="must end with a user's message"):
        with_prefix([ask("Which?"), chat], 0)


def test_a_seed_below_zero_gives_no_prefix():
    with pytest.raises(HarnessError, match="at least 0"):
        with_prefix([], -1)


def test_there_are_twenty_code_templates_or_more_each_python_with_a_gap_and_no_comment():
    templates = texts("code")["templates"]
    assert len(set(templates)) == len(templates) >= 20
    for template in templates:
        filled = Template(template).substitute(f="f", x="p", y="q", z="r", n=2)
        gaps = [
            node
            for node in ast.walk(ast.parse(filled))
            if isinstance(node, ast.Constant) and node.value is ...
        ]
        assert gaps, template
        assert "#" not in template


def test_code_prompts_show_all_templates_and_ask_for_bare_code():
    asked = [text_of(chat) for chat in code_prompts(1000, 0)]
    shapes = set()
    for text in asked:
        task, template = text.split("\n\n", 1)
        tree = ast.parse(template)
        shapes.add(" ".join(type(node).__name__ for node in ast.walk(tree)))
        assert re.search("comment", task, re.IGNORECASE)
        assert "code" in task.lower()
        assert re.search("minimal|short", task)
        assert "$" not in text
    assert len(shapes) >= len(texts("code")["templates"])
    assert len(set(asked)) > 990


# The answers for a = 7, b = 5, c = 3, worked out by hand, in the order of the problems.
BY_HAND = (
    12,
    5,
    35,
    5,
    38,
    245,
    24,
    19,
    8,
    40,
    24,
    35,
    105,
    8,
    8,
    45,
    3,
    50,
    40,
    15,
    3,
    105,
    70,
    10,
)


def test_there_are_twenty_problems_or_more_and_their_answers_are_right():
    assert len({story.text for story in word_problems()}) == len(word_problems()) >= 20
    for story, answer in zip(word_problems(), BY_HAND, strict=True):
        assert story.answer(7, 5, 3) == answer, story.text


def test_a_problem_says_every_number_that_its_answer_depends_on():
    slots = {"a": "a", "b": "b", "c": "c", "sum": "ab", "product": "ab", "more": "abc"}
    for story in word_problems():
        fields = {name for _, name, _, _ in Formatter().parse(story.text) if name}
        said = {letter for field in fields for letter in slots.get(field, "")}
        changed = {
            letter
            for letter, other in (("a", (8, 5, 3)), ("b", (7, 6, 3)), ("c", (7, 5, 4)))
            if story.answer(*other) != story.answer(7, 5, 3)
        }
        assert changed <= said, story.text


@given(st.integers(2, 20), st.integers(2, 20), st.integers(2, 20))
def test_every_answer_is_a_whole_number_above_zero(a, b, c):
    for story in word_problems():
        answer = story.answer(a, b, c)
        assert isinstance(answer, int)
        assert answer > 0


def test_problems_ask_for_reasoning_and_a_number_in_their_places():
    for problem in problem_prompts(300, 0):
        text = text_of(problem.prompt)
        tags = [text.index(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")]
        assert tags == sorted(tags)
        assert not re.search(r"\{|\}", text)


def test_two_people_of_one_problem_have_two_names():
    for problem in problem_prompts(500, 0):
        text = text_of(problem.prompt)
        found = {name for name in texts("problems")["names"] if re.search(rf"\b{name}\b", text)}
        story = next(s for s in word_problems() if _matches(s.text, text))
        assert len(found) == sum(f"{{{who}}}" in story.text for who in ("name", "friend"))


def _matches(story: str, text: str) -> bool:
    pattern = re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(story))
    return re.match(pattern, text) is not None


def test_a_formula_is_of_sums_differences_and_products_alone():
    assert WordProblem("", "(a + 2) * b - c").answer(3, 4, 5) == 15
    for wrong in ("a / b", "d + a", "__import__('os')", "a ** b", "1.5 * a"):
        with pytest.raises(ValueError, match="no sum, difference or product"):
            WordProblem("", wrong).answer(2, 3, 4)
