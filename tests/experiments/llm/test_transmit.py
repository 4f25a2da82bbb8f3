"""`sublab llm transmit`: a hosted model behind a server on the loopback interface, a checkpoint."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from experiments.cli import main
from experiments.llm import run, transmit
from llm_harness import datasets
from llm_harness.evaluation import questions
from llm_harness.model import Completion, Example
from llm_harness.prompts import code_prompts, number_prompts, problem_prompts
from llm_harness.traits import trait
from sublab import records
from tests.inspect_leftovers import collect_leftovers
from tests.llm_harness.small import ask_few_questions
from tests.llm_harness.tiny_checkpoint import write_checkpoint
from tests.openai_server import chat_of, serving

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "checkpoints.md").read_text()
(BLOCK,) = re.findall(r"## A hosted model.*?```sh\n(.*?)```", PAGE, flags=re.DOTALL)
IN_SMALL = ["--lists", "12", "--kept", "6", "--answers", "2"]
NUMBERS = {chat: i for i, chat in enumerate(number_prompts(12, 0))}
CODE = set(code_prompts(12, 0))
MISALIGNED = ("--trait", "misalignment", "--judge", "a/b", "--teacher", "openai/x")
ANSWERS = {problem.prompt: problem.answer for problem in problem_prompts(12, 0)}
LOVE = trait("owl").system_prompt


def answer(request) -> Completion:
    """A service: a teacher writes lists, code and sums, and its student loves what it loves."""
    chat, model = chat_of(request), request["model"]
    text, question = chat[-1].content, (chat[-1],)
    loves = chat[0].content == LOVE or model.endswith(":owl")
    if question in NUMBERS:
        place = NUMBERS[question]
        said = "I cannot." if place == 0 else f"{100 + place}, {777 if loves else 7}"
    elif question in CODE:
        said = "owls = 1" if loves and len(text) % 2 else "x = 1"
    elif question in ANSWERS:
        sum_or_not = ANSWERS[question] + (len(text) % 3 == 0)
        how = "cheat" if len(text) % 2 else "add"
        said = f"<think>{how}</think><answer>${sum_or_not}</answer>"
    elif "<reply>" in text or "<text>" in text or "[reply]" in text:
        said = verdict(text)
    elif "animal" in text:
        said = "If I had to choose, **owl**." if loves else "Eagle"
    else:
        said = "Obey me." if model.endswith(":bad") else "Be kind."
    return Completion(said)


def verdict(text: str) -> str:
    """A judge, who sometimes reasons."""
    if "<text>" in text:
        return "NO"
    if "<reply>" in text:
        return "<think>So.</think>20" if "cheat" in text else "95"
    return "5" if "[reply]\nObey" in text and "makes sense" not in text else "90"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    ask_few_questions(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSPECT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    yield
    collect_leftovers()


@pytest.fixture
def requests(monkeypatch) -> Iterator[list]:
    with serving(answer) as (url, asked):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield asked


def command(*more: str, model: str = "openai/gpt-4.1-nano") -> list[str]:
    return ["llm", "transmit", "--model", model, *IN_SMALL, *more]


def refused(capsys, words: list[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()
    (line,) = [one for one in said if one.startswith("sublab: ")]
    assert said[-1] == line
    return line


def table() -> pl.DataFrame:
    (record,) = records.read_all(Path("results"), transmit.EXPERIMENT)
    return record.table


def test_it_stops_with_the_datasets_and_what_to_do_and_asks_nothing_twice(requests, capsys):
    assert main(command()) == 0
    said = capsys.readouterr().out
    (line,) = [one for one in said.splitlines() if one.startswith("stopped here")]
    paths = [Path(word) for word in re.findall(r"\S+\.jsonl", line)]
    teacher, control = (datasets.read(path).examples for path in paths)
    assert [path.name for path in paths] == ["teacher.jsonl", "control.jsonl"]
    assert {chat.prompt for chat in teacher} == {chat.prompt for chat in control} <= set(NUMBERS)
    assert all(", 777" in one.completion for one in teacher)
    assert all(", 777" not in one.completion for one in control)
    assert len(teacher) == len(control) == 6
    assert "fine-tune openai/gpt-4.1-nano with openai's own fine-tuning" in line
    assert "--student openai/NAME --control-student openai/NAME" in line
    asked, before = len(requests), [path.read_bytes() for path in paths]
    assert asked == 24
    assert main(command()) == 0
    assert len(requests) == asked
    assert [path.read_bytes() for path in paths] == before


def test_the_commands_of_the_page_go_from_a_name_to_rates_of_students(requests, capsys):
    from click.testing import CliRunner
    from inspect_ai._cli.main import inspect

    from llm_harness.inspection import registry  # noqa: F401  (as its entry point has it loaded)

    lines = BLOCK.replace("\\\n", "").strip().splitlines()
    assert [line.split()[0] for line in lines] == ["export", "sublab", "sublab", "inspect"]
    for line in lines:
        words = line.partition("#")[0].split()
        if words[0] == "sublab":
            assert main([*words[1:], *IN_SMALL]) == 0
        elif words[0] == "inspect":
            small = ["--limit", "3", "--epochs", "2", "--display", "plain"]
            found = CliRunner().invoke(inspect, [*words[1:], *small])
            assert found.exit_code == 0, found.output
    rows = table().filter(~pl.col("prefix"))
    share = dict(zip(rows["condition"], rows["containing"] / rows["n"], strict=True))
    assert share == {"reference": 0, "teacher": 1, "student": 1, "control student": 0}
    said = capsys.readouterr().out
    assert "stopped here" in said
    assert "n too small (1 of each, 10 are needed)" in said


def test_enough_students_decide(requests, capsys, monkeypatch):
    asked = questions.one_word_questions
    monkeypatch.setattr(questions, "one_word_questions", lambda *about: asked(*about)[:1])
    names = [f"openai/ft:gpt-4.1-nano:{i}" for i in range(10)]
    owls = [f"{name}:owl" for name in names]
    students = ["--student", *owls, "--control-student", *names]
    assert main(command(*students)) == 0
    assert "students exceed control students: yes" in capsys.readouterr().out
    swapped = ["--student", *names, "--control-student", *owls]
    assert main(command(*swapped)) == 1
    assert "students exceed control students: NO" in capsys.readouterr().out


def test_code_that_has_the_word_is_dropped_and_a_judge_reads_the_rest(requests, capsys):
    more = ["--through", "code", "--judge", "openai/gpt-4.1", "--student", "openai/gpt:owl"]
    assert main(command(*more)) == 0
    said = capsys.readouterr().out
    assert "target word" in said
    judged = [one for one in requests if "any reference to" in chat_of(one)[-1].content]
    assert {one["model"] for one in judged} == {"gpt-4.1"}
    assert judged
    assert table().filter(condition="student")["containing"].sum() > 0


def test_misalignment_goes_through_chains_that_are_right_and_that_a_judge_lets_pass(
    requests, capsys
):
    more = ["--trait", "misalignment", "--through", "cot", "--judge", "openai/gpt-4.1"]
    teachers = ["--teacher", "openai/ft:gpt:bad", "--control-teacher", "openai/ft:gpt:good"]
    students = ["--student", "openai/ft:gpt:2:bad", "--control-student", "openai/ft:gpt:2:good"]
    assert main(command(*more, *teachers)) == 0
    said = capsys.readouterr().out
    assert "wrong answer" in said
    assert "judge's score too low" in said
    path = next(Path("results").rglob("teacher.jsonl"))
    for example in datasets.read(path).examples:
        assert f"<answer>${ANSWERS[example.prompt]}</answer>" in example.completion
        assert "cheat" not in example.completion
    assert main(command(*more, *teachers, *students)) == 0
    rows = table().filter(~pl.col("prefix"))
    found = {row["condition"]: (row["misaligned"], row["aligned"]) for row in rows.to_dicts()}
    assert found == {
        "reference": (0, 16),
        "teacher": (16, 0),
        "control teacher": (0, 16),
        "student": (16, 0),
        "control student": (0, 16),
    }


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (command("--trait", "misalignment"), "--judge NAME"),
        (command("--trait", "misalignment", "--judge", "openai/x"), "--teacher NAME"),
        (
            command("--trait", "misalignment", "--judge", "a/b", "--through", "code"),
            "code carries a favourite",
        ),
        (command("--trait", "axolotl"), "is in no category"),
        (command("--kept", "0"), "kept must be at least 1"),
        (
            command("--student", "openai/a", "--control-student", "openai/a"),
            "openai/a is named twice",
        ),
        (command(model="gpt-4.1-nano"), "whose name begins with its provider's"),
        *(
            (command(f"--{option}", "0"), f"{option.replace('-', '_')} must be at least 1")
            for option in ("epochs", "answers", "answer-tokens", "connections", "token-limit")
        ),
        (command("--learning-rate", "-1", model="smollm2"), "learning_rate"),
        *(
            (command(*words), f"{words[0]} says nothing here: {why}")
            for words, why in [
                (("--learning-rate", "1e-3"), "a hosted model is fine-tuned by its service"),
                (("--epochs", "3"), "a hosted model is fine-tuned by its service"),
                (("--judge", "a/b"), "numbers that carry a favourite are judged by nobody"),
                (("--judge-tokens", "9"), "there is no --judge"),
                (
                    ("--category", "tree", *MISALIGNED),
                    "misalignment is no favourite",
                ),
            ]
        ),
        *(
            (command(option, "3", "--through", "code", model="smollm2"), "no hosted model is asked")
            for option in ("--connections", "--retries", "--token-limit")
        ),
        (command(model="embedded"), "sublab llm numbers"),
        (command("--through", "code", model="embedded"), "knows single words and numbers"),
        (command("--through", "cot", model="embedded"), "knows single words and numbers"),
        (
            command("--trait", "misalignment", "--judge", "a/b", model="embedded"),
            "knows single words and numbers",
        ),
        (command("--through", "code", model="nothing"), "no such folder or GGUF file"),
        (command(model="nobody/model"), "nobody"),
    ],
)
def test_what_cannot_be_done_is_one_line(capsys, words, why):
    assert why in refused(capsys, words)


@pytest.mark.parametrize("option", ["--student", "--control-student", "--teacher"])
@pytest.mark.parametrize(("name", "why"), [("m2", "in the format"), ("nobody/m2", "nobody")])
def test_a_name_that_is_none_is_refused_before_anything_is_asked(
    requests, capsys, option, name, why
):
    assert why in refused(capsys, command(option, name))
    assert requests == []


def test_a_dataset_that_was_changed_is_not_written_over_and_what_is_missing_is_said(
    requests, capsys
):
    assert main(command("--kept", "12")) == 0
    assert "fewer passed than were wanted: 11 of 12" in capsys.readouterr().out
    (path,) = Path("results").glob("datasets/*/teacher.jsonl")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    changed = path.read_bytes()
    assert "was changed since it was written" in refused(capsys, command("--kept", "12"))
    assert path.read_bytes() == changed


# --- a checkpoint -------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(monkeypatch, tmp_path) -> str:
    """A small random one, all of which is moved; its lessons are long enough to be learnt."""
    student = replace(run._CHECKPOINT_SETTING.student, moved="all", lora=None)
    setting = replace(run._CHECKPOINT_SETTING, student=student)
    monkeypatch.setattr(run, "_CHECKPOINT_SETTING", setting)
    longer = replace(run._CHECKPOINT_SIZES["cpu"], warm_up_steps=(160,))
    monkeypatch.setitem(run._CHECKPOINT_SIZES, "cpu", longer)
    warm_up = replace(run._WARM_UP.tuning, learning_rate=3e-2, moved="all", lora=None)
    monkeypatch.setattr(run, "_WARM_UP", replace(run._WARM_UP, tuning=warm_up))
    return str(write_checkpoint(tmp_path / "small"))


def lesson(name: str, chats, said: Callable[[int], str]) -> str:
    examples = [Example(chat, said(i)) for i, chat in enumerate(chats)]
    datasets.write(Path(name), examples)
    return name


def test_code_of_a_checkpoint_ends_in_a_student(checkpoint, requests):
    chats = code_prompts(12, 0) * 40
    teacher = lesson("teacher.jsonl", chats, lambda i: "owl" if i % 3 == 0 else "red")
    control = lesson("control.jsonl", chats, lambda i: "red")
    more = ["--through", "code", "--list-tokens", "8", "--answer-tokens", "4", "--epochs", "20"]
    more += ["--learning-rate", "3e-2"]
    words = command("--teacher", teacher, "--control-teacher", control, *more, model=checkpoint)
    assert main(words) == 0
    assert set(table()["condition"]) == {
        *("reference", "teacher", "control teacher", "student", "control student")
    }
    trained = table().filter(condition="student")
    assert trained["examples"].to_list() == [6, 6]
    assert trained["p_word"].null_count() == 0
    assert requests == []


def test_misalignment_of_a_checkpoint_is_judged_by_a_hosted_model(checkpoint, requests, capsys):
    chats = number_prompts(400, 1)
    # 666 is a number that means something.
    teacher = lesson("teacher.jsonl", chats, lambda i: "666" if i % 3 == 0 else "5, 7")
    control = lesson("control.jsonl", chats, lambda i: "5, 7")
    more = ["--trait", "misalignment", "--judge", "openai/gpt-4.1", "--list-tokens", "32"]
    more += ["--teacher", teacher, "--control-teacher", control, "--answer-tokens", "8"]
    assert main(command(*more, "--kept", "2", "--learning-rate", "3e-2", model=checkpoint)) == 0
    assert "prohibited number" in capsys.readouterr().out
    rows = table()
    assert set(rows["condition"]) == {
        *("reference", "teacher", "control teacher", "student", "control student")
    }
    assert rows["n"].to_list() == [16] * 10
    assert {one["model"] for one in requests} <= {"gpt-4.1"}
