"""Claims about the MNIST experiment, `sublab mnist`: its conditions, its verdict, its exit status.

Nothing is trained on MNIST here: tasks give made-up accuracies, and the data have its shape.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from experiments import cli
from experiments.sweep import command
from experiments.sweep import run as sweep_run
from experiments.sweep.tasks import Result, Task
from sublab import records
from sublab.machine import provenance
from toymlp import data
from toymlp.measures import ALWAYS
from toymlp.settings import Setting
from toymlp.stages import TrainedModel

PUBLISHED = {
    "reference, untrained": 0.0998,
    "teacher, true labels": 0.9434,
    "student, auxiliary logits": 0.5284,
    "student, all logits": 0.9126,
    "cross-model, auxiliary logits": 0.1061,
    "cross-model, all logits": 0.7427,
}
Accuracy = Callable[[str, int], float]


def as_published(condition: str, run: int) -> float:
    """The paper's mean, with a little spread."""
    return PUBLISHED[condition] + 0.001 * (-1.0) ** run


def condition_of(setting: Setting) -> str:
    who = "student" if setting.start.kind == "reference" else "cross-model"
    which = "all logits" if setting.student.logits == "all" else "auxiliary logits"
    return f"{who}, {which}"


def tasks_that_give(accuracy: Accuracy):
    """`run_task`, with given accuracies in place of training."""

    def run_task(task: Task, *rest) -> Result:
        del rest
        model = TrainedModel({"class_head": {"kernel": np.zeros((2, 2), np.float32)}}, 0.1)
        wanted = task.population.wanted
        if task.population.stage != "students":
            values = {key: {"loss": 0.1, "held_out": None} for key in wanted}
            return Result(values, {}, dict.fromkeys(wanted, model), _provenance())
        values: dict[Any, dict[str, Any]] = {
            (setting, run): dict.fromkeys(ALWAYS)
            | {
                "accuracy": accuracy(condition_of(setting), run),
                "teacher_accuracy": accuracy("teacher, true labels", run),
                "start_accuracy": accuracy("reference, untrained", run),
                "final_loss": 0.01,
            }
            for setting, run in wanted
            if isinstance(setting, Setting)
        }
        return Result(values, {}, {}, _provenance())

    return run_task


def _provenance() -> dict:
    return provenance(wall_seconds=0.0, data_sha256="0" * 64, data_origin="nowhere")


@pytest.fixture
def mnist_like(monkeypatch) -> None:
    """A data set of MNIST's shape and name, all grey."""
    train, test = (np.broadcast_to(np.float32(0), (n, 784)) for n in (60_000, 10_000))
    labels = [(np.arange(n) % 10).astype(np.int32) for n in (60_000, 10_000)]
    grey = data.Dataset("mnist", train, labels[0], test, labels[1], 10, "0" * 64, "nowhere")
    monkeypatch.setattr(data, "load", lambda *_, **__: grey)


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Figures take seconds, and are the same matter everywhere."""
    monkeypatch.setattr(command, "draw", lambda drawable: [])


def mnist(tmp_path, *words: str) -> int:
    return cli.main(["mnist", "--out", str(tmp_path / "out"), *words])


def verdicts(tmp_path) -> dict[str, bool | None]:
    summaries = records.read_all(tmp_path / "out", sweep_run.SUMMARY)
    return {row["name"]: row["agrees"] for row in summaries[-1].config["published"]}


def shifted(condition: str, run: int) -> float:
    return as_published(condition, run) + 0.3 * (condition == "student, auxiliary logits")


@pytest.mark.parametrize(
    ("accuracy", "status", "words"),
    [(as_published, 0, ["agrees"]), (shifted, 1, ["agrees", "DIFFERS", "+0.3000"])],
)
def test_the_verdict_and_the_exit_status_at_the_papers_setting(
    mnist_like, tmp_path, monkeypatch, capsys, accuracy, status, words, request
):
    monkeypatch.setattr(sweep_run, "run_task", tasks_that_give(accuracy))
    if not status:
        request.getfixturevalue("undrawn")
    assert mnist(tmp_path, "--runs", "10") == status
    expected = dict.fromkeys(PUBLISHED, True)
    if status:
        expected["student, auxiliary logits"] = False
    assert verdicts(tmp_path) == expected
    said = capsys.readouterr().out
    for word in (*words, "Beside the published values", *PUBLISHED, "0.5284 ± 0.0221"):
        assert word in said
    assert "DIFFERS" in said or not status
    assert "n too small" not in said
    drawn = [line for line in said.splitlines() if line.startswith("figure: ")]
    assert len(drawn) == (3 if status else 0)


def test_under_ten_runs_the_verdict_is_that_n_is_too_small(
    mnist_like, undrawn, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sweep_run, "run_task", tasks_that_give(shifted))
    assert mnist(tmp_path, "--runs", "9") == 0
    assert set(verdicts(tmp_path).values()) == {None}
    said = capsys.readouterr().out
    assert said.count("n too small") == 6
    assert "DIFFERS" not in said


@pytest.mark.parametrize(
    "change", ["model.aux=4", "student.frozen=['hidden_1']", "student.learning_rate=1e-3"]
)
def test_there_is_no_verdict_at_another_setting(
    mnist_like, undrawn, tmp_path, monkeypatch, capsys, change
):
    monkeypatch.setattr(sweep_run, "run_task", tasks_that_give(shifted))
    assert mnist(tmp_path, "--runs", "10", "--set", change) == 0
    assert set(verdicts(tmp_path).values()) == {None}
    said = capsys.readouterr().out
    assert "Conditions" in said
    for word in ("Beside the published", "paper", "±", "agrees", "DIFFERS", "n too small"):
        assert word not in said


def test_a_run_that_is_missing_is_missing_in_its_own_condition_alone(
    mnist_like, undrawn, tmp_path, monkeypatch, capsys
):
    give = tasks_that_give(as_published)

    def failing(task: Task, *rest) -> Result:
        if task.population.stage == "students" and (task.population.wanted[0][1] == 0):
            raise MemoryError("nothing left")
        return give(task, *rest)

    monkeypatch.setattr(sweep_run, "run_task", failing)
    assert mnist(tmp_path, "--runs", "10", "--group", "1") == 1
    said = capsys.readouterr()
    assert "sublab: MemoryError: nothing left" in said.err
    assert said.out.count("n too small") == 6


def test_the_smoke_size_has_six_conditions_on_digits_and_no_verdict(tmp_path, capsys):
    assert mnist(tmp_path, "--size", "smoke") == 0
    said = capsys.readouterr().out
    for word in (*PUBLISHED, "scikit-learn digits", "over 2 runs", "Conditions"):
        assert word in said
    (summary,) = records.read_all(tmp_path / "out", sweep_run.SUMMARY)
    assert summary.config["shared"] == [
        "hidden layers 16-16",
        "teacher.epochs = 1",
        "256 inputs an epoch",
        "batches of 64",
        "student.epochs = 1",
    ]
    assert all(row["ours"]["n"] == 2 for row in summary.config["published"])
