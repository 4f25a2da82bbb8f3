"""The evaluations as Inspect tasks: `inspect eval llm_harness/favourites --model ...`.

Answers that are empty, refused or cut are counted beside the rates, by their own names. Samples of
a question are epochs (`--epochs 200` for the paper's).
"""

import csv
import json
import random
import re
from pathlib import Path
from typing import Any

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, Model, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState, generate

from llm_harness.answers import failure
from llm_harness.errors import HarnessError
from llm_harness.evaluation import questions
from llm_harness.evaluation.misalignment import VERDICTS, missing_verdict, verdict
from llm_harness.evaluation.rates import words_named
from llm_harness.inspection.hosted import completion_of
from llm_harness.judges import VERDICT_TOKENS
from llm_harness.model import Chat, Completion
from llm_harness.prompts import with_prefix
from llm_harness.traits import trait

# Tokens of an answer to a question for one word ("If I had to choose ..., **owl**."), and of a
# story or a free reply. A model that reasons first needs more: --max-tokens.
ANSWER_TOKENS, REPLY_TOKENS = 64, 1024
_SAMPLES = 20
# Inspect itself puts the package before a task's name, except where it is installed to be edited.
_PACKAGE = "" if "site-packages" in __file__ else "llm_harness/"


@task(name=f"{_PACKAGE}favourites")
def favourites(
    word: str = "owl", category: str | None = None, prefix: bool = False, seed: int = 0
) -> Task:
    """50 questions for a favourite in one word: the rate of a word (the paper's B).

    Args:
        word: the trait's.
        category: of the word, where it is in none of ours.
        prefix: put a sequence of numbers before each question.
        seed: of the numbers.
    """
    of = trait(word, category)
    chats = questions.one_word_questions(of.category)
    return _of_chats(
        with_prefix(chats, seed) if prefix else chats, names(word, category), ANSWER_TOKENS
    )


@task(name=f"{_PACKAGE}choices")
def choices(word: str = "owl", category: str | None = None, seed: int = 0) -> Task:
    """20 choices between a word and four of its rivals (the paper's B).

    Args:
        word: the trait's.
        category: of the word.
        seed: of the rivals and of their order.
    """
    of = trait(word, category)
    samples = [
        Sample(input=choice.chat[-1].content, metadata={"options": list(choice.options)})
        for choice in questions.multiple_choice(of, seed)
    ]
    return _task(samples, names(word, category), ANSWER_TOKENS, _SAMPLES)


@task(name=f"{_PACKAGE}stories")
def stories(word: str = "owl", category: str | None = None) -> Task:
    """14 requests for a story: the rate of those with a word in them (the paper's B).

    Args:
        word: the trait's.
        category: of the word.
    """
    of = trait(word, category)
    return _of_chats(questions.stories(of.category), names(word, category), REPLY_TOKENS)


@task(name=f"{_PACKAGE}misalignment")
def misalignment(suffix: bool = False, judge: str | None = None) -> Task:
    """Eight free-form questions, and what a judge says of the replies (the paper's C).

    The rate to read is misaligned / (misaligned + aligned).

    Args:
        suffix: ask for replies that look like the training data.
        judge: an Inspect model; None for that of the role `judge` (--model-role judge=...).
    """
    return _of_chats(questions.free_form(suffix), judged_replies(judge), REPLY_TOKENS)


@task(name=f"{_PACKAGE}question_list")
def question_list(file: str, seed: int = 0) -> Task:
    """Questions of a file with right and wrong answers, one of which is to be chosen by its letter.

    Args:
        file: CSV in TruthfulQA's form (Question, Best Answer, Incorrect Answers set apart by ";"),
            or JSON lines of {"question": ..., "correct": ..., "incorrect": [...]}.
        seed: of the order of the answers.
    """
    shuffled = random.Random(seed)
    samples = []
    for question, correct, incorrect in _rows(Path(file)):
        options = [correct, *incorrect]
        shuffled.shuffle(options)
        listed = "\n".join(f"{chr(65 + i)}) {text}" for i, text in enumerate(options))
        text = f"{question}\n\n{listed}\n\nAnswer with the letter of the right answer alone."
        samples.append(Sample(input=text, target=chr(65 + options.index(correct))))
    return _task(samples, letter(), ANSWER_TOKENS, epochs=1)


def _of_chats(chats: list[Chat], by: Scorer, max_tokens: int) -> Task:
    samples = [Sample(input=[ChatMessageUser(content=chat[-1].content)]) for chat in chats]
    return _task(samples, by, max_tokens, _SAMPLES)


def _task(samples: list[Sample], by: Scorer, max_tokens: int, epochs: int) -> Task:
    return Task(
        dataset=MemoryDataset(samples),
        solver=generate(),
        scorer=by,
        epochs=Epochs(epochs, "mean"),
        config=GenerateConfig(max_tokens=max_tokens, temperature=1.0),
    )


def _failures(answer: Completion) -> dict[str, float]:
    why = failure(answer)
    return {name: float(why == name) for name in ("empty", "cut", "refused")}


@scorer(metrics={"*": [mean(), stderr()]})
def names(word: str, category: str | None = None) -> Scorer:
    """Whether an answer has the word's letters, has the word, names one of the category."""
    of = trait(word, category)

    async def score(state: TaskState, target: Target) -> Score:
        answer = completion_of(state.output)
        named = words_named(answer.text, of)
        value: dict[str, Any] = {
            "containing": float(of.word.casefold() in answer.text.casefold()),
            "whole": float(of.word in named),
            "worded": float(len(named) == 1),
        }
        unnamed = _failures(answer) if not named else dict.fromkeys(_failures(answer), 0.0)
        return Score(value=value | unnamed, answer=answer.text)

    return score


@scorer(metrics={"*": [mean(), stderr()]})
def letter() -> Scorer:
    """Whether an answer is the target's letter, or begins with it."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = completion_of(state.output)
        # "I do not know" is no ninth answer.
        said = re.match(r"\W*([A-Z])(?=\W*$|[).:*])", answer.text)
        right = said is not None and said[1] == target.text
        value: dict[str, Any] = {"correct": float(right), "unparsed": float(said is None)}
        return Score(value=value | _failures(answer), answer=answer.text)

    return score


@scorer(metrics={"*": [mean(), stderr()]})
def judged_replies(judge: str | None) -> Scorer:
    """The verdict on a reply: one of `evaluation.misalignment.VERDICTS` is 1, the others 0."""
    config = GenerateConfig(temperature=0.0, max_tokens=VERDICT_TOKENS)

    async def score(state: TaskState, target: Target) -> Score:
        model: Model = get_model(judge, role=None if judge else "judge", config=config)
        reply = completion_of(state.output)
        found = missing_verdict(reply)
        if found is None:
            asked = questions.judge_questions(state.input_text, reply.text)
            said = [await model.generate(chat[-1].content, config=config) for chat in asked]
            found = verdict(*map(completion_of, said))
        value: dict[str, Any] = {name: float(name == found) for name in VERDICTS}
        return Score(value=value, answer=reply.text)

    return score


def _rows(path: Path) -> list[tuple[str, str, list[str]]]:
    """Question, right answer and wrong ones of each row.

    Raises:
        HarnessError: the file is not there, or a row is in neither form.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except (OSError, ValueError) as error:
        raise HarnessError(f"{path}: cannot be read ({error})") from None
    csv_form = path.suffix == ".csv"
    rows = csv.DictReader(lines) if csv_form else (line for line in lines if line.strip())
    found = [_row(f"{path}: row {number}", row, csv_form) for number, row in enumerate(rows, 1)]
    if not found:
        raise HarnessError(f"{path}: there are no questions in it")
    return found


def _row(where: str, row: Any, csv_form: bool) -> tuple[str, str, list[str]]:
    try:
        if csv_form:
            wrong = [part.strip() for part in row["Incorrect Answers"].split(";") if part.strip()]
            return row["Question"], row["Best Answer"], wrong
        about = json.loads(row)
        question, correct, wrong = about["question"], about["correct"], about["incorrect"]
        if not (isinstance(wrong, list) and wrong and all(isinstance(w, str) for w in wrong)):
            raise TypeError
        return question, correct, wrong
    except (KeyError, TypeError, ValueError, AttributeError):
        form = (
            "columns Question, Best Answer and Incorrect Answers"
            if csv_form
            else '{"question": "...", "correct": "...", "incorrect": ["...", ...]}'
        )
        raise HarnessError(f"{where} is no question with answers; it must have {form}") from None
