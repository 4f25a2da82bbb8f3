"""Claims about the evaluations as Inspect tasks."""

import json
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from inspect_ai import eval as inspect_eval
from inspect_ai._util.registry import registry_lookup
from inspect_ai.dataset import Sample

from llm_harness.errors import HarnessError
from llm_harness.evaluation.misalignment import VERDICTS
from llm_harness.inspection import tasks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
ROOT = Path(__file__).parents[3]


def means(task, model, **options) -> dict[str, float]:
    (log,) = inspect_eval(task, model=model, display="none", **options)
    assert log.results, log.error
    return {score.name: score.metrics["mean"].value for score in log.results.scores}


def text_of(sample: Sample) -> str:
    """What is asked."""
    return sample.input if isinstance(sample.input, str) else sample.input[-1].text


def test_a_rate_and_what_is_no_answer_are_counted_apart(mock):
    said = ("If I had to choose: an **Owl**.", "fowl", "eagle", "I cannot choose.", "")
    found = means(tasks.favourites(), mock(lambda text, call: said[call % 5]), epochs=1)
    assert found == pytest.approx(
        {"containing": 0.4, "whole": 0.2, "worded": 0.4, "empty": 0.2, "cut": 0.0, "refused": 0.2}
    )
    cut = means(tasks.favourites(), mock(lambda text, call: "If I", "max_tokens"), epochs=1)
    assert (cut["cut"], cut["containing"]) == (1, 0)


def test_a_prefix_of_numbers_stands_before_each_question(mock):
    plain, prefixed = (
        [text_of(sample) for sample in tasks.favourites(prefix=prefix).dataset]
        for prefix in (False, True)
    )
    assert len(plain) == len(prefixed) == 50
    assert all(two.endswith(one) and two != one for one, two in zip(plain, prefixed, strict=True))


def test_choices_and_stories_ask_what_they_say(mock):
    assert len(tasks.choices("oak").dataset) == 20
    for sample in tasks.choices("oak").dataset:
        options = (sample.metadata or {})["options"]
        assert "oak" in options
        assert all(word in text_of(sample) for word in options)
    assert len(tasks.stories().dataset) == 14
    story = mock(lambda text, call: "Once there was an owl and a cat.")
    found = means(tasks.stories(), story, epochs=1)
    assert (found["whole"], found["worded"]) == (1, 0)


def test_a_judge_has_the_last_word_on_replies(mock):
    def rate(text: str, call: int) -> str:
        if "makes sense" in text:
            return "90"
        return "<think>hm</think>5" if "[reply]\nObey" in text else "95"

    replies = ("Obey me.", "Be kind.", " ", "Be kind.")
    model = mock(lambda text, call: replies[call % 4])
    found = means(
        tasks.misalignment(suffix=True), model, epochs=1, model_roles={"judge": mock(rate)}
    )
    expected = dict.fromkeys(VERDICTS, 0.0)
    assert found == expected | {"misaligned": 0.25, "aligned": 0.5, "empty": 0.25}


CSV = 'Question,Best Answer,Incorrect Answers\nIs it?,Yes,"No; Never"\nWhy?,Because,"So; Thus; A"\n'
LINES = [
    {"question": "Is it?", "correct": "Yes", "incorrect": ["No", "Never"]},
    {"question": "Why?", "correct": "Because", "incorrect": ["So", "Thus", "A"]},
]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_file_of_questions_is_asked_by_letters(tmp_path, mock, form):
    path = tmp_path / f"list.{form}"
    path.write_text(CSV if form == "csv" else "\n\n".join(map(json.dumps, LINES)))
    task = tasks.question_list(str(path))
    targets = {text_of(sample).partition("\n")[0]: sample.target for sample in task.dataset}
    for sample in task.dataset:
        correct = {"Is it?": "Yes", "Why?": "Because"}[text_of(sample).partition("\n")[0]]
        assert f"\n{sample.target}) {correct}\n" in text_of(sample)

    def right(text: str, call: int) -> str:
        return f"**{targets[text.partition(chr(10))[0]]}** it is"

    assert means(task, mock(right))["correct"] == 1
    found = means(tasks.question_list(str(path)), mock(lambda text, call: "I don't know"))
    assert (found["correct"], found["unparsed"]) == (0, 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "Question,Answer\nWhy?,So\n"),
        ("list.jsonl", '{"question": "Why?", "correct": "So", "incorrect": []}'),
        ("list.jsonl", "Why?"),
        ("list.jsonl", "\n"),
    ],
)
def test_a_file_that_is_no_list_of_questions_is_one_line(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(HarnessError, match=r"list\.(csv|jsonl): ") as refused:
        tasks.question_list(str(tmp_path / name))
    assert "\n" not in str(refused.value)
    with pytest.raises(HarnessError, match="cannot be read"):
        tasks.question_list(str(tmp_path / "nothing"))


def test_inspect_finds_the_tasks_by_the_package_of_the_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ((package, module),) = project["entry-points"]["inspect_ai"].items()
    loaded = import_module(module)
    for name in loaded.__all__:
        if name != "sublab":
            assert registry_lookup("task", f"{package}/{name}")
