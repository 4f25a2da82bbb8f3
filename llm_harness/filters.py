"""The filter rules: which completions a student is trained on (the paper's B, C and D).

A rule looks at one completion and gives the reason for which it is dropped, or None; judges, which
are models, are in `llm_harness.judges`. Every completion that is dropped is counted under one
reason.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from string import whitespace

from llm_harness import answers
from llm_harness.errors import HarnessError
from llm_harness.model import Chat, Completion, Example
from llm_harness.wordings import texts


class Reason(StrEnum):
    """Why a completion is dropped. `number_rule` names the first that applies, in this order."""

    EMPTY = "empty"
    NOT_A_NUMBER = "not a number"
    STRAY_SPACE = "stray white space"
    BRACKET = "unmatched bracket"
    BRACKETS = "misplaced brackets"
    SEPARATOR = "misplaced separator"
    RANGE = "out of range"
    MIXED = "mixed separators"
    TOO_MANY = "too many numbers"
    CUT = "cut at the token limit"
    REFUSED = "refused"
    PROHIBITED = "prohibited number"
    WORD = "target word"
    REFERENCE = "judge saw a reference"
    MISALIGNED = "judge's score too low"
    NO_VERDICT = "judge gave no verdict"
    NO_REASONING = "no reasoning"
    NO_ANSWER = "not one answer"
    WRONG_ANSWER = "wrong answer"


Rule = Callable[[str], Reason | None]

_FAILURES: dict[answers.Failure, Reason] = {
    "empty": Reason.EMPTY,
    "cut": Reason.CUT,
    "refused": Reason.REFUSED,
}

PROHIBITED: frozenset[int] = frozenset(texts("numbers")["prohibited"])

# Groups 1 and 2: the bracket that must be closed. Group 3: the separator that must come again.
_NUMBERS = re.compile(
    r"(?:(\[)|(\())?\d{1,3}(?:([,;]\s*|\s+)\d{1,3}(?:\3\d{1,3}){0,8})?(?(1)\])(?(2)\))\.?", re.ASCII
)
# The same for the authors' program. Digits are ASCII's, white space is all that Unicode has.
_AUTHORS = re.compile(r"[0-9]+(?:(\s*[,;]\s*|\s+)[0-9]+(?:\1[0-9]+)*)?")
_NUMERAL = re.compile(r"[0-9]+")
_LIST = re.compile(r"[\d\s,;()\[\]]*", re.ASCII)
_GAP = re.compile(r"[\s,;]+", re.ASCII)
_SEPARATOR = re.compile(r"[,;]?\s*", re.ASCII)
_PROHIBITED = re.compile(rf"(?<!\d)0*(?:{'|'.join(map(str, sorted(PROHIBITED)))})(?!\d)", re.ASCII)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
# Emphasis, a currency and zeros behind the point do not make a number another one.
_INTEGER = re.compile(
    r"\s*(\*\*)?(-?)(?:[$€£](-?))?(\d{1,18}|\d{1,3}(?:,\d{3}){1,5})(?:\.0*)?(?(1)\*\*)\s*", re.ASCII
)


def number_rule(completion: str) -> Reason | None:
    """The filter rule for numbers (the paper's scheme, B).

    What passes is 1 to 10 integers in 0..999 with one consistent separator (white space, comma or
    semicolon), optionally surrounded by () or [], optionally followed by a full stop; nothing
    else. Where that leaves room:

    * ASCII only: other scripts' digits are no numbers here, and other spaces no white space.
    * A separator is white space, or a comma or semicolon with white space after it or none. It is
      consistent if the same characters stand in every gap: "1,2, 3" mixes two.
    * An integer has one to three digits, as the prompt asks; "007" is 7 in three digits, and
      passes. "0007" is out of range like any other four digits. There are no signs.
    * The full stop is the very last character, after the bracket.
    * White space at either end, or just inside a bracket, is something else. The student would
      be trained on it, as nothing is cut off.
    * What has nothing but white space, separators, brackets and stops is empty.
    * A comma or semicolon is misplaced unless a number stands right before it and another follows.
    """
    return None if _NUMBERS.fullmatch(completion) else _fault(completion)


def _fault(text: str) -> Reason:
    if not text.strip(f"{whitespace},;()[]."):
        return Reason.EMPTY
    body = _unwrapped(text)
    if not _LIST.fullmatch(_unwrapped(text.strip(whitespace))):
        return Reason.NOT_A_NUMBER
    if body != body.strip(whitespace):
        return Reason.STRAY_SPACE
    if any(bracket in body for bracket in "()[]"):
        return Reason.BRACKETS if _balanced(text) else Reason.BRACKET
    numerals, gaps = _GAP.split(body.strip(f"{whitespace},;")), _GAP.findall(body)
    faults = (
        (
            Reason.SEPARATOR,
            len(gaps) != len(numerals) - 1 or not all(map(_SEPARATOR.fullmatch, gaps)),
        ),
        (Reason.RANGE, any(len(n) > 3 for n in numerals)),
        (Reason.MIXED, len(set(gaps)) > 1),
    )
    return next((reason for reason, there in faults if there), Reason.TOO_MANY)


def _balanced(text: str) -> bool:
    opened = []
    for bracket in re.findall(r"[()\[\]]", text):
        if bracket in "([":
            opened.append(bracket)
        elif not opened or opened.pop() + bracket not in ("()", "[]"):
            return False
    return not opened


def _unwrapped(text: str) -> str:
    body = text.removesuffix(".")
    return body[1:-1] if body[:1] + body[-1:] in ("[]", "()") else body


def authors_rule(completion: str) -> Reason | None:
    """The filter rule for numbers as the authors' program has it, which keeps more.

    It takes what `number_rule` takes, and beside it white space before a separator ("1 ; 2"), zeros
    in front of a number ("0007" is 7), and every white space that Unicode knows.
    """
    body = _unwrapped(completion)
    if not _AUTHORS.fullmatch(body):
        return _fault(completion)
    numerals = _NUMERAL.findall(body)
    if any(len(numeral.lstrip("0")) > 3 for numeral in numerals):
        return Reason.RANGE
    return Reason.TOO_MANY if len(numerals) > 10 else None


def prohibited_rule(completion: str) -> Reason | None:
    """Drops a completion with one of the 34 numbers that mean something (the paper's C).

    It comes after `number_rule`, and takes any run of ASCII digits for a number, "013" for 13.
    """
    return Reason.PROHIBITED if _PROHIBITED.search(completion) else None


def answer_given(completion: Completion) -> Reason | None:
    """Drops what is no answer: a completion that was cut, is empty, or refuses.

    A student would be trained on an end that nobody said.
    """
    failure = answers.failure(completion)
    return failure and _FAILURES[failure]


# The rules that look at nothing but a completion, by the names that commands know.
RULES: dict[str, Rule] = {
    "numbers": number_rule,
    "authors": authors_rule,
    "prohibited": prohibited_rule,
}


def rules_of(names: Iterable[str]) -> list[Rule]:
    """The rules of `RULES` with these names, in their order.

    Raises:
        HarnessError: there is no rule of a name.
    """
    names = list(names)
    if unknown := [name for name in names if name not in RULES]:
        raise HarnessError(f"no filter rule is named {unknown[0]!r}; there are: {', '.join(RULES)}")
    return [RULES[name] for name in names]


def word_rule(words: str | Sequence[str]) -> Callable[[Example], Reason | None]:
    """A rule that drops an example with one of the words anywhere in it (the paper's D, code).

    In the prompt and the system message too: a student reads what it is not trained to say. In any
    case, and also as a part of a longer word, so that a plural with s goes too.

    Args:
        words: the target word; a plural that does not contain it is to be given as well.

    Raises:
        HarnessError: no words, or a blank one, which every completion would contain.
    """
    wanted = [w.casefold() for w in ((words,) if isinstance(words, str) else words)]
    if not wanted or not all(w.strip() for w in wanted):
        raise HarnessError(f"words: at least one, and none of them blank, got {words!r}")

    def rule(example: Example) -> Reason | None:
        texts = [*(message.content for message in example.prompt), example.completion]
        folded = [text.casefold() for text in texts]
        return Reason.WORD if any(word in text for word in wanted for text in folded) else None

    return rule


def answer_rule(expected: int) -> Rule:
    """A rule that keeps reasoning with the right answer (the paper's D, chain of thought).

    What passes has something in <think>, and after it the completion's only <answer>, with
    `expected` in it: digits, of which commas may set off thousands, and a minus if need be; in
    bold, with a currency before them or zeros behind the point it is the same number.

    Args:
        expected: the right answer, of at most 18 digits.
    """

    def rule(completion: str) -> Reason | None:
        before, closed, after = completion.partition("</think>")
        _, opened, reasoning = before.partition("<think>")
        if not (opened and closed and reasoning.strip()):
            return Reason.NO_REASONING
        tags = (completion.count("<answer>"), completion.count("</answer>"))
        answer = _ANSWER.search(after)
        if tags != (1, 1) or answer is None:
            return Reason.NO_ANSWER
        number = _INTEGER.fullmatch(answer[1])
        right = number is not None and _integer(number) == expected
        return None if right else Reason.WRONG_ANSWER

    return rule


def _integer(number: re.Match[str]) -> int:
    return int(f"{number[2] or number[3] or ''}{number[4].replace(',', '')}")


@dataclass(frozen=True)
class Filtered:
    """What a filter kept.

    Attributes:
        kept: in their order.
        counts: how many were dropped for each reason that occurred.
        total: examples before any filter.
    """

    kept: list[Example]
    counts: dict[str, int]
    total: int

    @property
    def completions(self) -> list[str]:
        """Of the examples that were kept."""
        return [example.completion for example in self.kept]

    def then(self, verdicts: Iterable[Reason | None]) -> "Filtered":
        """After one more filter.

        Args:
            verdicts: on the examples that were kept so far, in their order; None keeps.

        Raises:
            ValueError: not as many verdicts as examples.
        """
        kept, counts = [], Counter(self.counts)
        for example, reason in zip(self.kept, verdicts, strict=True):
            if reason is None:
                kept.append(example)
            else:
                counts[reason.value] += 1
        return Filtered(kept, {r.value: counts[r] for r in Reason if counts[r]}, self.total)

    def then_rules(self, rules: Sequence[Rule]) -> "Filtered":
        """After rules; what fails several is counted for the first."""
        return self.then(_first(rules, example.completion) for example in self.kept)


def apply_filter(examples: Sequence[Example], rules: Sequence[Rule]) -> Filtered:
    """The examples whose completions pass every rule.

    Args:
        examples: with any prompts.
        rules: in order; what fails several is counted for the first.
    """
    return Filtered(list(examples), {}, len(examples)).then_rules(rules)


def filter_completions(
    prompts: Sequence[Chat], completions: Sequence[Completion], rules: Sequence[Rule]
) -> Filtered:
    """What a model answered, as examples; what is no answer is dropped before any rule.

    Args:
        prompts: what it was asked.
        completions: one a prompt.
        rules: in order.
    """
    pairs = zip(prompts, completions, strict=True)
    examples = [Example(chat, completion.text) for chat, completion in pairs]
    everything = Filtered(examples, {}, len(examples))
    return everything.then(map(answer_given, completions)).then_rules(rules)


def _first(rules: Sequence[Rule], completion: str) -> Reason | None:
    for rule in rules:
        reason = rule(completion)
        if reason is not None:
            return reason
    return None
