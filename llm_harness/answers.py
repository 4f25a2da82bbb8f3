"""Answers that are none: empty, cut at the token limit, refused. Each is counted by its name."""

import re
from functools import cache
from typing import Literal

from llm_harness.model import Completion
from llm_harness.wordings import texts

Failure = Literal["empty", "cut", "refused"]


def failure(answer: Completion) -> Failure | None:
    """Why there is no answer to a plain question, or None where there is one.

    A refusal is known by how it begins, too (`refuses`).
    """
    return "refused" if refuses(answer.text) else missing(answer)


def missing(answer: Completion) -> Failure | None:
    """Why an answer was not said to its end, or None where it was, whatever it says.

    One that was cut before its first word counts as cut: a model that reasons used its tokens up.
    """
    if answer.stop != "end":
        return "cut" if answer.stop == "length" else "refused"
    return None if answer.text.strip() else "empty"


def refuses(text: str) -> bool:
    """Whether a text begins as a refusal does, in one of the wordings of questions.toml."""
    return _refusals().match(text.replace("\u2019", "'").casefold()) is not None


def concluded(answer: str) -> str:
    """What an answer says after its reasoning in <think>, where there is any."""
    return answer.rpartition("</think>")[2].strip()


@cache
def _refusals() -> re.Pattern[str]:
    return re.compile(rf"\W*(?:{'|'.join(map(re.escape, texts('questions')['refusals']))})")
