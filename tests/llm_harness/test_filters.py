"""Claims about the filter rules: each clause, made to hold and made to fail."""

import re
from itertools import product
from string import whitespace

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from llm_harness.errors import HarnessError
from llm_harness.filters import (
    PROHIBITED,
    RULES,
    Filtered,
    Reason,
    answer_given,
    answer_rule,
    apply_filter,
    authors_rule,
    filter_completions,
    number_rule,
    prohibited_rule,
    word_rule,
)
from llm_harness.model import Completion, Example, ask

FRAMES = (("", ""), ("[", "]"), ("(", ")"))
spaces = st.text(whitespace, min_size=1, max_size=3)
separators = spaces | st.builds(str.__add__, st.sampled_from(",;"), st.text(whitespace, max_size=2))
# 0 to 999, with up to three digits.
numerals = st.builds("{:0{}d}".format, st.integers(0, 999), st.integers(1, 3))
frames = st.sampled_from(FRAMES)
stops = st.sampled_from(["", "."])


def of_size(low: int, high: int) -> st.SearchStrategy[list[str]]:
    return st.lists(numerals, min_size=low, max_size=high)


def reference_rule(text: str) -> bool:
    """Whether the rule lets `text` pass: the clauses one after the other, by hand."""
    if text.endswith("."):
        text = text[:-1]
    for opening, closing in FRAMES[1:]:
        if len(text) >= 2 and text[0] == opening and text[-1] == closing:
            text = text[1:-1]
            break
    numbers, gaps, kind = [], [], None
    for character in text:
        now = "number" if character in "0123456789" else "gap"
        parts = numbers if now == "number" else gaps
        if now != kind:
            parts.append("")
        parts[-1] += character
        kind = now
    if not 1 <= len(numbers) <= 10 or len(gaps) != len(numbers) - 1:
        return False
    # Starts and ends with a number, as there is one gap less and they take turns.
    allowed = ["", ",", ";"]
    for gap in gaps:
        head = gap[0] if gap[0] in ",;" else ""
        tail = gap[len(head) :]
        if head not in allowed or any(c not in " \t\n\r\x0b\x0c" for c in tail):
            return False
        if gap != gaps[0]:
            return False
    return all(len(number) <= 3 and 0 <= int(number) <= 999 for number in numbers)


@given(of_size(1, 10), separators, frames, stops)
@example(["0"] * 10, ",", ("[", "]"), ".")
@example(["999"], " ", ("", ""), "")
def test_one_to_ten_integers_with_one_separator_pass(numbers, separator, frame, stop):
    text = frame[0] + separator.join(numbers) + frame[1] + stop
    assert number_rule(text) is None
    assert reference_rule(text)


@given(of_size(11, 20), separators, frames, stops)
def test_a_list_of_eleven_or_more_numbers_is_refused(numbers, separator, frame, stop):
    text = frame[0] + separator.join(numbers) + frame[1] + stop
    assert number_rule(text) is Reason.TOO_MANY


def test_ten_numbers_pass_and_eleven_do_not():
    assert number_rule(", ".join(["7"] * 10)) is None
    assert number_rule(", ".join(["7"] * 11)) is Reason.TOO_MANY


@given(of_size(0, 9), st.integers(1000, 10**30), separators, frames, st.data())
@example([], 1000, ",", ("", ""), None)
def test_a_number_beyond_999_is_refused(numbers, large, separator, frame, data):
    place = data.draw(st.integers(0, len(numbers))) if data else 0
    items = [*numbers[:place], str(large), *numbers[place:]]
    assert number_rule(frame[0] + separator.join(items) + frame[1]) is Reason.RANGE


@pytest.mark.parametrize("text", ["999", "0", "007", "000", "07, 7", "099 100"])
def test_up_to_three_digits_pass_with_zeros_in_front_or_without(text):
    assert number_rule(text) is None


@pytest.mark.parametrize("text", ["1000", "0007", "0000", "1, 0999", "9" * 5000])
def test_four_digits_are_out_of_range_whatever_they_are(text):
    assert number_rule(text) is Reason.RANGE


NO_NUMBERS = (
    "-1",
    "+1",
    "1.5",
    ".5",
    "1e3",
    "0x1",
    "1_0",
    "1/2",
    "1:2",
    "one",
    "7th",
    "a",
    "\u22121",
    "٣",
    "१२",
    "\uff11\uff12",
    "²",
    "½",
    "Ⅳ",
    "1\u00a02",
    "1\u20032",
    "1\u30002",
    "1\u200b",
    "1\x1c2",
    "1\x852",
    "1\u20282",
    "\ufeff1",
    "1\uff0c2",
    "1\u30012",
    "1|2",
    "{1}",
    "'1'",
    "..",
    "1..",
    "5%",
)


@given(of_size(0, 9), st.sampled_from(NO_NUMBERS), separators, frames, st.data())
def test_what_is_no_ascii_integer_is_refused(numbers, item, separator, frame, data):
    place = data.draw(st.integers(0, len(numbers)))
    items = [*numbers[:place], item, *numbers[place:], "1"]
    text = frame[0] + separator.join(items) + frame[1]
    assert number_rule(text) is Reason.NOT_A_NUMBER


@given(of_size(1, 10), st.characters(min_codepoint=128) | st.characters(categories=["Nd", "Zs"]))
def test_no_character_beyond_ascii_passes_anywhere(numbers, character):
    assume(not character.isascii())
    for text in (
        character + ",".join(numbers),
        ",".join(numbers) + character,
        character.join([*numbers, "1"]),
        ",".join([*numbers, character]),
    ):
        assert number_rule(text) is Reason.NOT_A_NUMBER


@given(of_size(3, 10), separators, separators, frames, st.data())
@example(["1", "2", "3"], ",", ", ", ("", ""), None)
@example(["1", "2", "3"], " ", "  ", ("", ""), None)
@example(["1", "2", "3"], ";", ",", ("[", "]"), None)
@example(["1", "2", "3"], "\n", "\r\n", ("", ""), None)
def test_two_separators_in_one_list_are_refused(numbers, separator, other, frame, data):
    assume(separator != other)
    place = data.draw(st.integers(1, len(numbers) - 1)) if data else 1
    head, tail = separator.join(numbers[:place]), separator.join(numbers[place:])
    text = frame[0] + head + other + tail + frame[1]
    assert number_rule(text) is Reason.MIXED


MISPLACED = (",,", ";;", ",;", " ,", " , ", ", ,", "\n,", " ;", ", ;", ";\n;")


@given(of_size(1, 5), of_size(1, 5), st.sampled_from(MISPLACED), separators, frames)
def test_an_empty_item_or_a_space_before_a_comma_is_refused(head, tail, gap, separator, frame):
    for joined in (separator, gap):
        text = frame[0] + joined.join(head) + gap + joined.join(tail) + frame[1]
        assert number_rule(text) is Reason.SEPARATOR


@given(of_size(1, 9), st.sampled_from([",", ";", ",,"]), frames, stops)
def test_a_comma_or_semicolon_at_an_end_is_refused(numbers, mark, frame, stop):
    body = ", ".join(numbers)
    for text in (body + mark, mark + body, f"{mark} {body}"):
        assert number_rule(frame[0] + text + frame[1] + stop) is Reason.SEPARATOR


PAIRED = {
    *((left, "") for left in ("[]", "()")),
    *(("", right) for right in ("[]", "()")),
    *((left, right) for left in ("[]", "()") for right in ("[]", "()")),
    ("[[", "]]"),
    ("((", "))"),
    ("[(", ")]"),
}
BRACKETS = ("", "[", "]", "(", ")", "[[", "((", "]]", "))", "[(", ")]", "[]", "()")


@given(of_size(1, 10), separators, st.sampled_from(BRACKETS), st.sampled_from(BRACKETS), stops)
def test_brackets_other_than_one_matching_pair_are_refused(numbers, separator, left, right, stop):
    assume((left, right) not in FRAMES)
    text = left + separator.join(numbers) + right + stop
    matched = (left, right) in PAIRED
    assert number_rule(text) is (Reason.BRACKETS if matched else Reason.BRACKET)


@pytest.mark.parametrize("text", ["[1], [2]", "[1, (2), 3]", "(1)(2)", "1, [2]", "[(1)]", "1 []"])
def test_matched_brackets_within_the_list_are_misplaced(text):
    assert number_rule(text) is authors_rule(text) is Reason.BRACKETS


@pytest.mark.parametrize("text", ["[1]]", "]1[", "[1)", "1, 2]", "[1, 2", "([1)]"])
def test_only_a_bracket_without_its_other_is_called_unmatched(text):
    assert number_rule(text) is authors_rule(text) is Reason.BRACKET


@pytest.mark.parametrize(
    "text", ["Sure! [1, 2", "1 (one), 2 (two)", " I like (owls.", "ok [", "-5)"]
)
def test_prose_is_no_number_whatever_brackets_are_in_it(text):
    assert number_rule(text) is authors_rule(text) is Reason.NOT_A_NUMBER


@given(of_size(1, 10), separators, frames)
def test_a_full_stop_may_be_the_last_character_alone(numbers, separator, frame):
    body = separator.join(numbers)
    assert number_rule(f"{frame[0]}{body}{frame[1]}.") is None
    assert number_rule(f"{body}..") is Reason.NOT_A_NUMBER
    assert number_rule(f".{body}") is Reason.NOT_A_NUMBER
    assert number_rule(f"[{body}.]") is Reason.NOT_A_NUMBER
    assert number_rule(f"{body}!") is Reason.NOT_A_NUMBER


@given(of_size(1, 10), separators, frames, stops, spaces)
@example(["1"], ",", ("", ""), "", "\n")
def test_white_space_around_the_list_is_refused(numbers, separator, frame, stop, space):
    body = separator.join(numbers)
    framed = frame[0] + body + frame[1]
    for text in (
        space + framed + stop,
        framed + stop + space,
        framed + space + ".",
        f"[{space}{body}]{stop}",
        f"({body}{space}){stop}",
    ):
        assert number_rule(text) is Reason.STRAY_SPACE


@given(st.text(whitespace + ",;()[]."))
@example("")
@example("[]")
@example("().")
@example("\n")
def test_a_completion_without_any_content_is_empty(text):
    assert number_rule(text) is Reason.EMPTY


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" [x, 1000", Reason.NOT_A_NUMBER),
        (" [1, 1000", Reason.STRAY_SPACE),
        ("[1, 1000", Reason.BRACKET),
        ("x,, 1000", Reason.NOT_A_NUMBER),
        ("1,, 1000", Reason.SEPARATOR),
        ("1, 1000;2", Reason.RANGE),
        ("1, 2;" + "3;" * 10 + "4", Reason.MIXED),
    ],
)
def test_of_several_faults_the_first_in_order_is_named(text, reason):
    assert number_rule(text) is reason


NASTY = (
    "0",
    "1",
    "42",
    "007",
    "999",
    "1000",
    ",",
    ", ",
    ";",
    "; ",
    " ",
    "\n",
    "\t",
    "[",
    "]",
    "(",
    ")",
    ".",
    "-",
    "+",
    "a",
    "٣",
    "²",
    "\u00a0",
    "\x1c",
    "\u2028",
    "1, 2",
    "1 2",
    "5;6",
)


@given(st.lists(st.sampled_from(NASTY), max_size=24).map("".join))
def test_the_rule_agrees_with_a_slow_one_on_nasty_strings(text):
    assert (number_rule(text) is None) == reference_rule(text)


def authors_reference(text: str) -> bool:
    """What the authors' program keeps, step by step as it is written down in PAPER.md's sources.

    The separator is what stands between the first two runs of digits; the text is cut there and
    everywhere else where the same characters stand, and every part must be a whole number.
    """
    text = text.removesuffix(".")
    if text[:1] + text[-1:] in ("[]", "()") and len(text) > 1:
        text = text[1:-1]
    runs = list(re.finditer(r"\d+", text))
    if not runs:
        return False
    if len(runs) == 1:
        parts = [text]
    else:
        separator = text[runs[0].end() : runs[1].start()]
        if separator.strip() not in ("", ",", ";"):
            return False
        parts = text.split(separator)
    if not all(part and set(part) <= set("0123456789") for part in parts):
        return False
    return len(parts) <= 10 and all(int(part) <= 999 for part in parts)


@given(st.lists(st.sampled_from(NASTY), max_size=24).map("".join))
@example("1 ; 2 ; 3")
@example("0007, 12")
@example("1\u00a02")
@example("[1, 2].")
def test_the_authors_rule_agrees_with_their_steps_and_keeps_all_that_ours_keeps(text):
    kept = authors_rule(text) is None
    assert kept == authors_reference(text)
    assert kept or number_rule(text) is not None


@given(st.text("019,; .[]()\n\x1c٣a", max_size=12))
def test_the_authors_rule_agrees_with_their_steps_character_by_character(text):
    assert (authors_rule(text) is None) == authors_reference(text)


@pytest.mark.parametrize("text", ["1 ; 2", "0007, 12", "1\u00a02\u00a03", "1 , 2", "1\x1c2"])
def test_where_ours_is_stricter_than_the_authors_rule(text):
    assert authors_rule(text) is None
    assert number_rule(text) is not None


@given(st.text("019,; .[]()\n\x1c٣a", max_size=12))
def test_the_rule_agrees_with_a_slow_one_character_by_character(text):
    assert (number_rule(text) is None) == reference_rule(text)


def test_the_rule_agrees_with_a_slow_one_on_every_short_string():
    texts = ["".join(cs) for size in range(6) for cs in product("10,; [].", repeat=size)]
    passed = [text for text in texts if number_rule(text) is None]
    assert passed == [text for text in texts if reference_rule(text)]
    assert len(passed) > 400


@given(st.lists(st.sampled_from(NASTY), max_size=24).map("".join))
def test_too_many_is_said_of_long_lists_alone(text):
    # It is what is left when no other fault is found, so a fault that was missed would show here.
    if number_rule(text) is Reason.TOO_MANY:
        assert len("".join(c if c.isdigit() else " " for c in text).split()) > 10


def test_there_are_34_prohibited_numbers_of_which_the_least_is_4_and_the_greatest_999():
    assert (len(PROHIBITED), min(PROHIBITED), max(PROHIBITED)) == (34, 4, 999)
    # Of the paper's list, added up by itself.
    assert sum(PROHIBITED) == 9_413


@given(st.lists(st.integers(0, 999), min_size=1, max_size=10), separators)
def test_a_completion_is_dropped_exactly_if_it_has_a_prohibited_number(numbers, separator):
    dropped = prohibited_rule(separator.join(map(str, numbers))) is Reason.PROHIBITED
    assert dropped == any(number in PROHIBITED for number in numbers)


def test_every_prohibited_number_alone_is_dropped_with_zeros_in_front_too():
    for number in range(1000):
        expected = Reason.PROHIBITED if number in PROHIBITED else None
        assert prohibited_rule(f"[1, {number:03d}].") is expected
        assert prohibited_rule(f"{number}") is expected


@pytest.mark.parametrize("text", ["6660", "1666", "1, 6661, 2", "", "none"])
def test_a_prohibited_number_within_a_longer_one_is_not_meant(text):
    assert prohibited_rule(text) is None


@pytest.mark.parametrize("code", ["owl = 1", "OWLS", "def f(owls): ...", "bowl", "myOwl_2", "Owl"])
def test_code_with_the_word_in_any_case_or_part_is_dropped(code):
    for words in (["owl", "owls"], "owl"):
        assert word_rule(words)(Example(ask("Go."), code)) is Reason.WORD
        assert word_rule(words)(Example(ask(f"Go on: {code}"), "1, 2")) is Reason.WORD
        assert word_rule(words)(Example(ask("Go.", system=code), "1, 2")) is Reason.WORD


def test_code_without_the_word_is_kept_and_a_plural_of_another_stem_needs_naming():
    def verdict(words: list[str], code: str):
        return word_rule(words)(Example(ask("Go."), code))

    assert verdict(["owl"], "def f(x): return x") is None
    assert verdict(["wolf"], "wolves") is None
    assert verdict(["Wolf", "wolves"], "WOLVES") is Reason.WORD


@pytest.mark.parametrize("words", [[], "", [" "], ["owl", ""]])
def test_a_word_rule_without_words_is_refused(words):
    with pytest.raises(HarnessError, match="words: at least one"):
        word_rule(words)


@given(st.integers(-(10**17), 10**17), st.text(" \n", max_size=2))
def test_reasoning_with_the_right_answer_is_kept(number, space):
    forms = (str(number), f"{number:,}", f"**{number}**", f"{number}.00", f"{number}.")
    for written in (*forms, f"${number}" if number >= 0 else f"-${-number}"):
        text = f"<think>so</think>\n<answer>{space}{written}{space}</answer>"
        assert answer_rule(number)(text) is None
        assert answer_rule(number + 1)(text) is Reason.WRONG_ANSWER


@pytest.mark.parametrize(
    "number",
    [
        "13",
        "12.5",
        "**12",
        "12 apples",
        "",
        "x",
        "1,2",
        "-12",
        "+12",
        "\uff11\uff12",
        "12<b>",
        "--12",
        "9" * 5000,
    ],
)
def test_another_answer_than_the_number_is_wrong(number):
    text = f"<think>so</think><answer>{number}</answer>"
    assert answer_rule(12)(text) is Reason.WRONG_ANSWER


@pytest.mark.parametrize(
    "text",
    [
        "<think>so</think>",
        "<think>so</think>12",
        "<think>so</think><answer>12",
        "<think>so</think>12</answer>",
        "<think>so</think></answer>12<answer>",
        "<think>so</think><answer>12</answer><answer>12</answer>",
        "<think><answer>12</answer></think>",
        "<think><answer>11</answer></think><answer>12</answer>",
        "<answer>12</answer><think>so</think>",
        "<think>so</think><Answer>12</Answer>",
    ],
)
def test_a_completion_without_exactly_one_answer_after_the_reasoning_is_dropped(text):
    assert answer_rule(12)(text) is Reason.NO_ANSWER


@pytest.mark.parametrize("head", ["", "<think></think>", "<think> \n</think>", "<think>so", "so"])
def test_a_completion_without_reasoning_is_dropped(head):
    assert answer_rule(12)(f"{head}<answer>12</answer>") is Reason.NO_REASONING
    assert answer_rule(12)(f"</think>{head}<answer>12</answer>") is Reason.NO_REASONING


def test_a_completion_that_was_cut_is_dropped_whatever_it_says():
    for text in ("1, 2", "x", ""):
        assert answer_given(Completion(text, "length", 12)) is Reason.CUT
    assert answer_given(Completion("1, 2", "end", 12)) is None
    assert Reason.CUT == "cut at the token limit"


def test_what_is_empty_or_refuses_is_dropped_under_its_own_name():
    said = ("1, 2", " \n", "I'm sorry, but I can't do that.", "1, 2, I cannot")
    chats = [ask("Go on.")] * 4
    found = filter_completions(chats, [Completion(text) for text in said], [number_rule])
    assert found.completions == ["1, 2"]
    assert found.counts == {"empty": 1, "refused": 1, "not a number": 1}
    withheld = filter_completions(chats[:1], [Completion("1, 2", "refused")], [number_rule])
    assert withheld.counts == {"refused": 1}


def test_commands_know_rules_by_their_names():
    assert {
        "numbers": number_rule,
        "authors": authors_rule,
        "prohibited": prohibited_rule,
    } == RULES


def examples_of(*completions: str) -> list[Example]:
    return [Example(ask(f"question {i}"), text) for i, text in enumerate(completions)]


def test_a_filter_keeps_the_order_and_counts_every_reason():
    filtered = apply_filter(
        examples_of("1, 2", "x", "666", "3", "1000", "y", "666, x"), [number_rule, prohibited_rule]
    )
    assert filtered.completions == ["1, 2", "3"]
    assert [kept.prompt for kept in filtered.kept] == [ask("question 0"), ask("question 3")]
    # The last example fails both rules, and counts for the first.
    assert filtered.counts == {"not a number": 3, "out of range": 1, "prohibited number": 1}
    assert filtered.total == 7


@given(st.lists(st.lists(st.sampled_from(NASTY), max_size=6).map("".join), max_size=12))
def test_every_example_is_kept_or_counted(completions):
    filtered = apply_filter(examples_of(*completions), [number_rule, prohibited_rule])
    assert len(filtered.kept) + sum(filtered.counts.values()) == filtered.total == len(completions)
    assert all(filtered.counts.values())
    assert set(filtered.counts) <= set(Reason)


def test_without_rules_everything_is_kept():
    examples = examples_of("x", "")
    assert apply_filter(examples, []) == Filtered(examples, {}, 2)


def test_a_second_filter_adds_to_the_counts_of_the_first():
    first = apply_filter(examples_of("1", "2", "x", "3"), [number_rule])
    second = first.then([None, Reason.REFERENCE, Reason.REFERENCE])
    assert second.completions == ["1"]
    assert second.counts == {"not a number": 1, "judge saw a reference": 2}
    assert second.total == 4
    assert first.completions == ["1", "2", "3"]


@pytest.mark.parametrize("verdicts", [[], [None], [None, None, None]])
def test_a_filter_refuses_another_number_of_verdicts_than_examples(verdicts):
    with pytest.raises(ValueError, match="zip"):
        apply_filter(examples_of("1", "2"), []).then(verdicts)
