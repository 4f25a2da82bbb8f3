"""`sublab llm` on a checkpoint of somebody else's: a small random Llama in a folder."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments.cli import main
from experiments.llm import run as llm
from figures import style
from llm_harness import datasets
from llm_harness.checkpoints.provider import Checkpoint
from llm_harness.model import Example, ask
from llm_harness.pipeline import conditions
from llm_harness.pipeline.conditions import CONTROLS, MASKED
from llm_harness.pipeline.stages import Stages
from sublab import records
from tests.llm_harness.small import ask_few_questions
from tests.llm_harness.tiny_checkpoint import write_checkpoint

# Everything moves: in so small a model what adapters can reach is too little to learn a list.
SMALL = ["--size", "smoke", "--moved", "all", "--warm-up-steps", "160", "--kept", "4"]
ELSEWHERE = {"other initialisation", "other initialisation, own numbers"}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        ask_few_questions(patch)
        patch.setattr(style, "FORMATS", ("png",))
        patch.setattr(conditions, "_LEAST_KEPT", 1)
        patch.setattr(os, "fsync", lambda handle: None)
        tuning = replace(llm._WARM_UP.tuning, learning_rate=3e-2)
        patch.setattr(llm, "_WARM_UP", replace(llm._WARM_UP, tuning=tuning))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "small")


def words(folder: Path, out: Path, *more: str) -> list[str]:
    return ["llm", "numbers", "--model", str(folder), "--out", str(out), *SMALL, *more]


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory) -> Path:
    """The results of one run."""
    out = tmp_path_factory.mktemp("whole")
    assert main(words(folder, out)) == 0
    return out


def record_in(out: Path) -> records.Record:
    (record,) = records.read_all(out, llm.NUMBERS)
    return record


def rows_in(out: Path) -> pl.DataFrame:
    return record_in(out).table


def test_every_control_is_run_and_the_first_token_is_masked_too(whole):
    table = rows_in(whole)
    assert set(table["condition"]) == {*CONTROLS, *MASKED} - ELSEWHERE
    assert table["run"].unique().to_list() == [0]
    assert table["p_word"].is_between(0, 1).all()
    trained = table.drop_nulls("examples")
    assert trained["examples"].unique().to_list() == [4]


def test_the_record_names_the_checkpoint_by_its_content_and_says_the_warm_up(whole, folder):
    record = record_in(whole)
    config = record.config
    assert config["model"] == "small"
    assert config["checkpoint"] == llm.checkpoint(str(folder)).reference_key(0)
    assert config["warm_up"]["steps"] == [160]
    assert "pretraining" not in config
    assert len(list((whole / "figures").glob("llm_numbers_*.png"))) == 1


def test_again_nothing_is_made_and_it_says_what_one_checkpoint_cannot_show(whole, folder, capsys):
    stages = {p: p.stat().st_mtime_ns for p in (whole / "llm_stages").rglob("*")}
    assert main(words(folder, whole)) == 0
    shown = capsys.readouterr().out
    assert "1 run, seed 0, small" in shown
    assert "there is no other initialisation" in shown
    assert shown.count("n too small") == len(
        [line for line in shown.splitlines() if "n too" in line]
    )
    assert "without the lists' first token too: n too small" in shown
    assert {p: p.stat().st_mtime_ns for p in (whole / "llm_stages").rglob("*")} == stages


def test_killed_after_every_single_stage_it_ends_as_one_that_was_not(
    folder, whole, tmp_path, monkeypatch
):
    left = 0

    def counted(method):
        def call(self, *given, **named):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return method(self, *given, **named)

        return call

    for name in ("sample", "fine_tune"):
        monkeypatch.setattr(Checkpoint, name, counted(getattr(Checkpoint, name)))
    status, kills = 130, 0
    while status == 130:
        left = 1
        # The command line makes 130 of an interrupt.
        status = main(words(folder, tmp_path))
        kills += status == 130
        assert kills < 40
    assert status == 0
    assert kills >= 6
    assert rows_in(tmp_path).equals(rows_in(whole))
    # The last start made a part of it: how long all of it took, nothing says.
    assert record_in(tmp_path).provenance["wall_seconds"] is None
    assert record_in(whole).provenance["wall_seconds"] > 0


def test_another_checkpoint_shares_nothing_and_a_copy_shares_everything(whole, folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    models = set((whole / "llm_stages" / "models").iterdir())
    options = llm.Numbers(model=str(copy), size="smoke", out=whole)
    key, other = (
        llm.checkpoint(str(each)).reference_key(0)
        for each in (copy, write_checkpoint(tmp_path / "other", seed=1))
    )
    assert key == llm.checkpoint(str(folder)).reference_key(0) != other
    with llm.stages_of(replace(options, moved="all", warm_up_steps=(160,))) as stages:
        stages.references([0, 1])
    assert set((whole / "llm_stages" / "models").iterdir()) == models


def test_a_fine_tuned_teacher_can_be_had_too(folder, whole, capsys):
    """On the reference that the other teacher has."""
    before = set((whole / "llm_stages" / "models").iterdir())
    assert main(words(folder, whole, "--teacher", "fine-tuning")) == 0
    taught = [
        record.table
        for record in records.read_all(whole, llm.NUMBERS)
        if record.config["setting"]["teacher_by"] == "fine-tuning"
    ]
    (table,) = taught
    one = table.filter(~pl.col("prefix"))
    teacher, reference = (
        one.filter(condition=name)["p_word"].item() for name in ("teacher", "reference")
    )
    assert teacher > reference
    assert before < set((whole / "llm_stages" / "models").iterdir())


def test_in_context_runs_on_it(folder, whole, capsys):
    given = ["llm", "in-context", "--model", str(folder), "--out", str(whole), *SMALL]
    assert main([*given, "--shown", "1"]) == 0
    assert "openly in context, 1" in capsys.readouterr().out


THEORY = ["--teacher-steps", "1", "3", "--sizes", "2", "4", "--questions", "2"]
EXPERIMENTS = ("llm_theory_scores", "llm_theory_steps", "llm_theory_account")


def test_theory_runs_on_it_and_a_kill_costs_one_stage(folder, whole, capsys, monkeypatch):
    """On the reference that is there; killed whenever a second thing is measured."""
    given = ["llm", "theory", "--model", str(folder), "--out", str(whole), *SMALL, *THEORY]
    left, made = 0, []

    def counted(self, what, key, make, measured=Stages.measured):
        def while_any_is_left(told):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            made.append((what, str(key)))
            return make(told)

        return measured(self, what, key, while_any_is_left)

    monkeypatch.setattr(Stages, "measured", counted)
    status, kills = 130, 0
    while status == 130:
        # A score asks for directions, and these for the preconditioner, before any is done.
        left = 20 if kills == 0 else 1
        status = main(given)
        kills += status == 130
        assert kills < 40
    assert status == 0
    # Killed at each but the first 20, and nothing is made twice.
    assert kills == len(made) - 20 > 3
    assert len(set(made)) == len(made)
    assert {what.split(" ")[0] for what, _ in made} == {
        *("preconditioner", "direction", "scores", "alignment", "account")
    }
    tables = {name: records.read_all(whole, name)[0].table for name in EXPERIMENTS}
    (config,) = (one.config for one in records.read_all(whole, EXPERIMENTS[1]))
    assert config["setting"]["teacher_by"] == "fine-tuning"
    steps = tables["llm_theory_steps"]
    assert steps["steps"].to_list() == [1, 3]
    assert (steps["coefficient"] > 0).all()
    assert tables["llm_theory_scores"]["word"].n_unique() == 16
    assert tables["llm_theory_account"]["coverage"].is_between(-1, 1).all()
    assert "The theorem and the score test, up to 4 examples a side" in capsys.readouterr().out


def test_teachers_that_write_few_lists_are_tested_with_as_many_or_not_at_all(
    folder, whole, capsys, monkeypatch
):
    def few(self, what, asked, sampled=Stages.sampled):
        found = sampled(self, what, asked)
        if what != "teachers' numbers":
            return found
        return [replace(one, used=used) for one, used in zip(found, left, strict=True)]

    monkeypatch.setattr(Stages, "sampled", few)
    given = ["llm", "theory", "--model", str(folder), "--out", str(whole), *SMALL]
    given += ["--teacher-steps", "1", "3", "--questions", "1", "--sizes", "2"]
    left = [3, 1]
    assert main([*given, "4"]) == 0
    (table,) = (
        one.table for one in records.read_all(whole, EXPERIMENTS[0]) if one.config["questions"] == 1
    )
    tested = table.select("steps", "n").unique().sort("steps", "n").rows()
    assert tested == [(0, 2), (0, 4), (1, 2)]
    said = capsys.readouterr()
    assert "the teacher of 3 steps is not tested: the filter left 1 of its lists" in said.err
    left = [3, 0]
    assert main(given) == 0
    assert "the filter left 0 of its lists" in capsys.readouterr().err
    left = [1, 1]
    assert main([*given, "3"]) == 2
    assert "a test of 2 examples needs as many; the filter left 1" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--as-it-is"]], ids=["warmed up", "as it is"])
def test_a_file_is_scored_against_it(folder, whole, tmp_path, capsys, more):
    paths = [tmp_path / "file.jsonl", tmp_path / "own.jsonl"]
    random = np.random.default_rng(0)
    for path in paths:
        numbers = random.integers(100, 1000, (36, 2)).tolist()
        datasets.write(path, [Example(ask("1, 2, 3"), f"{a}, {b}") for a, b in numbers])
    file, own = map(str, paths)
    given = ["llm", "score", file, "--against", own, "--model", str(folder), "--out", str(whole)]
    given += ["--size", "smoke", "--moved", "all", "--warm-up-steps", "160", "--questions", "2"]
    assert main([*given, *more]) == 0
    shown = capsys.readouterr().out
    assert f"36 lists against 36 of {own}" in shown.replace("\n", "")
    stages = {p: p.stat().st_mtime_ns for p in (whole / "llm_stages").rglob("*")}
    assert main([*given, *more]) == 0
    assert capsys.readouterr().out == shown
    assert {p: p.stat().st_mtime_ns for p in (whole / "llm_stages").rglob("*")} == stages


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["numbers", "--model", "none"], "there is no such folder or GGUF file; or: embedded"),
        (["numbers", "--model", "{empty}"], "config.json"),
        (["numbers", "--model", "{folder}", "--pretraining-steps", "9"], "of the embedded model"),
        (["numbers", "--model", "{folder}", "--warm-up-steps", "4", "2"], "must ascend"),
        (["numbers", "--model", "{folder}", "--warm-up-steps", "0"], "warm_up_steps must be at"),
        (["numbers", "--warm-up-steps", "4"], "warm_up_steps: of a checkpoint"),
        (["numbers", "--teacher-rates", "1e-3"], "teacher_rates: of a fine-tuned teacher"),
        (["numbers", "--model", "{folder}", "--runs", "0"], "runs must be at least 1"),
        (["cross-model", "--model", "{folder}"], "compares initialisations"),
        (["theory", "--model", "{folder}", "--questions", "0"], "questions must be at least 1"),
        (["theory", "--model", "{folder}", "--sizes", "8", "4"], "sizes must ascend"),
        (["ingredients", "--model", "{folder}"], "how a model is pretrained"),
    ],
)
def test_what_cannot_be_run_is_one_line_before_anything_is_made(
    given, why, folder, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    said = [word.format(folder=folder, empty=tmp_path / "empty") for word in given]
    assert main(["llm", *said, "--out", str(out)]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert why in errors[-1]
    assert [line for line in errors[:-1] if not line.startswith("reading ")] == []
    assert not list(out.rglob("*.json"))
