"""Claims about running a sweep: records, resuming, sharing, executors, devices."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments import cli
from experiments.sweep import file as sweep_files
from experiments.sweep import plan as sweep_plan
from experiments.sweep import run as sweep
from experiments.sweep import tasks as sweep_tasks
from experiments.sweep.run import Options
from sublab import records
from sublab.errors import InputError
from toymlp import data, stages
from toymlp.settings import from_dict

SMALL = """\
title = "Small"
measure = ["agreement"]
[base]
dataset = "digits"
hidden = [16, 16]
images = 256
student_batch = 64
student_epochs = 1
teacher_epochs = 1
[grid]
aux = [2, 5]
[[list]]
label = "student"
[[list]]
label = "cross-model"
start = "independent"
[baseline]
label = "cross-model"
"""
METRICS = ["accuracy", "teacher_accuracy", "start_accuracy", "final_loss", "agreement"]


def file_of(folder: Path, text: str = SMALL) -> Path:
    path = folder / "small.toml"
    path.write_text(text)
    return path


def folders(out: Path, kind: str) -> set[str]:
    return {path.name for path in (out / kind).glob("*") if not path.name.startswith(".")}


def same_numbers(one: pl.DataFrame | None, other: pl.DataFrame | None) -> None:
    assert one is not None
    assert other is not None
    assert one.drop(METRICS).equals(other.drop(METRICS))
    for name in METRICS:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=3e-3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A sweep of four runs, in groups of two, in this process."""
    folder = tmp_path_factory.mktemp("whole")
    options = Options(file=file_of(folder), runs=4, group=2, out=folder / "out")
    return options, sweep.run(options)


def test_a_row_for_every_point_and_run_and_every_setting_in_the_records(whole):
    options, outcome = whole
    assert outcome.failures == ()
    assert outcome.table.select("setting", "run").rows() == [
        (s, r) for s in range(4) for r in range(4)
    ]
    assert set(outcome.table["label"]) == {"student", "cross-model"}
    everything = records.scan(options.out).filter(pl.col("experiment") == sweep.STUDENTS).collect()
    assert len(everything) == 16
    assert set(from_dict({}).as_dict()) <= set(everything.columns)


def test_a_record_says_everything_that_is_needed_to_run_it_again(whole, tmp_path):
    options, _ = whole
    record = records.read_all(options.out, sweep.STUDENTS)[0]
    setting = from_dict(record.config["setting"])
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in setting.as_dict().items()
        if value is not None and value != from_dict({}).as_dict()[name]
    ]
    text = f"measure = {record.config['measure']}\n[base]\n" + "\n".join(lines)
    again = sweep.run(
        Options(file=file_of(tmp_path, text), runs=2, group=2, seed=record.config["seed"],
                out=tmp_path / "out")
    )  # fmt: skip
    (made,) = records.read_all(tmp_path / "out", sweep.STUDENTS)
    assert made.folder.name == record.folder.name
    assert again.failures == ()
    same_numbers(made.table, record.table)


def test_differences_are_paired_by_run(whole):
    _, outcome = whole
    table, summary = outcome.table, outcome.summary.table
    row = summary.filter(setting=0, metric="accuracy").to_dicts()[0]
    mine, its = (table.filter(setting=s)["accuracy"].to_numpy() for s in (0, 2))
    assert row["baseline"] == 2
    assert row["difference"] == pytest.approx(np.mean(mine - its))
    half = (row["difference_high"] - row["difference_low"]) / 2
    assert half == pytest.approx(3.18245 * np.std(mine - its, ddof=1) / 2, rel=1e-4)
    assert summary.filter(setting=2, metric="accuracy")["difference"].to_list() == [None]


def test_a_teacher_that_many_settings_need_is_trained_once(whole):
    options, _ = whole
    # Two groups of runs; the four settings differ in m and in the student's start alone.
    assert len(folders(options.out / "models", "teachers")) == 2
    todo = sweep_plan.pieces(
        [point.setting for point in sweep_files.read_file(options.file, "cpu").points],
        [(0, 1)], lambda need: False,
    )  # fmt: skip
    assert [piece.stage for piece in todo] == ["teachers", "students"]


def test_a_rerun_trains_nothing(whole, monkeypatch):
    options, outcome = whole
    monkeypatch.setattr(sweep, "run_task", None)
    again = sweep.run(options)
    assert again.table is not None
    assert again.table.equals(outcome.table)


def test_more_runs_and_another_point_train_what_is_missing_and_nothing_else(whole, tmp_path):
    options, outcome = whole
    before = folders(options.out, "sweep")
    text = SMALL.replace("aux = [2, 5]", "aux = [2, 5, 7]")
    wider = Options(file=file_of(tmp_path, text), runs=6, group=2, out=options.out)
    assert sweep.plan(wider).found == (16, 36)
    more = sweep.run(wider)
    assert more.table is not None
    assert len(folders(options.out, "sweep") - before) == 3 * 6 - 8
    kept = more.table.filter(pl.col("aux") != 7, pl.col("run") < 4).sort("label", "aux", "run")
    assert kept.drop("setting").equals(outcome.table.sort("label", "aux", "run").drop("setting"))


def test_a_setting_does_not_depend_on_the_others_of_its_sweep_nor_on_the_groups(whole, tmp_path):
    _, outcome = whole
    text = SMALL.replace("aux = [2, 5]", "aux = [5]")
    alone = sweep.run(Options(file=file_of(tmp_path, text), runs=3, group=3, out=tmp_path / "out"))
    assert alone.table is not None
    theirs = outcome.table.filter(pl.col("aux") == 5, pl.col("run") < 3)
    same_numbers(alone.table.drop("setting"), theirs.drop("setting"))


def test_a_damaged_record_is_made_again(whole, tmp_path, capsys):
    options, outcome = whole
    out = tmp_path / "out"
    shutil.copytree(options.out, out)
    name = sorted(folders(out, "sweep"))[0]
    (out / "sweep" / name / "table.parquet").write_bytes(b"cut")
    again = sweep.run(Options(file=options.file, runs=4, group=2, out=out))
    assert "made again" in capsys.readouterr().err
    same_numbers(again.table, outcome.table)


def test_a_sweep_that_was_killed_goes_on_from_what_was_recorded(whole, tmp_path, monkeypatch):
    options, outcome = whole
    done = []

    def interrupted(task, report):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task)
        return sweep_tasks.run_task(task, report)

    out = tmp_path / "out"
    monkeypatch.setattr(sweep, "run_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(Options(file=options.file, runs=4, group=2, out=out))
    kept = folders(out, "sweep") | folders(out / "models", "teachers")
    assert kept
    monkeypatch.undo()
    again = sweep.run(Options(file=options.file, runs=4, group=2, out=out))
    assert kept <= folders(out, "sweep") | folders(out / "models", "teachers")
    same_numbers(again.table, outcome.table)


def test_out_of_memory_halves_the_population_and_goes_on(whole, tmp_path, monkeypatch, capsys):
    options, outcome = whole
    sizes = []
    students = sweep_tasks.students

    def small_memory(settings, runs, *more):
        sizes.append(len(settings) * len(runs))
        if sizes[-1] > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")
        return students(settings, runs, *more)

    monkeypatch.setattr(sweep_tasks, "students", small_memory)
    again = sweep.run(Options(file=options.file, runs=4, group=4, out=tmp_path / "out"))
    assert again.failures == ()
    assert sizes[:3] == [16, 8, 4]
    assert max(size for size in sizes if size <= 2) == 2
    assert "half of them at a time" in capsys.readouterr().err
    same_numbers(again.table, outcome.table)


def test_a_model_that_does_not_fit_alone_fails_and_keeps_the_rest(tmp_path, monkeypatch, capsys):
    students = sweep_tasks.students

    def no_memory(settings, runs, *more):
        if any(setting.knobs.start == "independent" for setting in settings):
            raise MemoryError("nothing left")
        return students(settings, runs, *more)

    monkeypatch.setattr(sweep_tasks, "students", no_memory)
    # Another width, so that the two starts are two groups.
    text = SMALL.replace('start = "independent"', 'start = "independent"\nstudent_hidden = [8, 16]')
    status = cli.main(
        ["sweep", str(file_of(tmp_path, text)), "--runs", "1", "--out", str(tmp_path / "out")]
    )
    assert status == 1
    said = capsys.readouterr().err
    assert "MemoryError" in said
    assert "the same command goes on" in said
    assert len(folders(tmp_path / "out", "sweep")) == 2


def test_a_population_that_would_not_fit_is_cut(whole):
    options, _ = whole
    settings = [point.setting for point in sweep_files.read_file(options.file, "cpu").points]
    (all_at_once,) = sweep_plan.pieces(settings, [(0, 1)], lambda n: n.stage == "teachers")
    limit = sweep_plan.memory_of(all_at_once) - 1
    cut = sweep_plan.pieces(settings, [(0, 1)], lambda n: n.stage == "teachers", limit)
    assert len(cut) > 1
    assert sorted(s.knobs.aux for piece in cut for s in piece.settings) == [2, 2, 5, 5]
    assert all(sweep_plan.memory_of(piece) <= limit for piece in cut)


def test_worker_processes_give_the_same_table(whole, tmp_path):
    options, outcome = whole
    there = sweep.run(Options(file=options.file, runs=4, group=2, workers=2, out=tmp_path / "out"))
    same_numbers(there.table, outcome.table)


def test_dask_finishes_without_loss_or_doubles_when_a_worker_is_killed(whole, tmp_path):
    distributed = pytest.importorskip("distributed")
    options, outcome = whole
    out, killed = tmp_path / "out", []
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as watcher,
    ):

        def kill() -> None:
            """Kills a worker that is at work, once a first task has been recorded."""
            while not killed:
                time.sleep(0.05)
                if not folders(out / "models", "teachers"):
                    continue
                for address, keys in watcher.processing().items():
                    if keys:
                        pid = watcher.scheduler_info()["workers"][address]["metrics"].get("pid")
                        pid = pid or watcher.run(os.getpid, workers=[address])[address]
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        break

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        there = sweep.run(
            Options(
                file=options.file, runs=4, group=1, scheduler=cluster.scheduler_address, out=out
            )
        )
        thread.join(10)
    assert killed
    assert there.failures == ()
    assert len(folders(out, "sweep")) == 4 * 4
    same_numbers(there.table, outcome.table)


@pytest.mark.parametrize("count", [1, 4])
def test_the_number_of_devices_changes_no_number(whole, tmp_path, count):
    options, outcome = whole
    out = tmp_path / "out"
    words = ["sweep", str(options.file), "--runs", "4", "--group", "2", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", *words], capture_output=True, text=True,
        check=False, cwd=Path(__file__).parents[3],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(count)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = records.read_all(out, sweep.STUDENTS)[0]
    assert first.provenance["device"]["count"] == count
    assert folders(out, "sweep") == folders(options.out, "sweep") & folders(out, "sweep")
    assert len(folders(out, "sweep")) == 8
    (wide,) = records.read_all(out, sweep.RUNS)
    same_numbers(wide.table, outcome.table)


def test_a_dry_run_says_the_cost_and_does_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["sweep", str(file_of(tmp_path)), "--runs", "4", "--dry-run", "--out", str(out)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    for part in (
        "4 points x 4 runs", "0 of 16 are recorded", "20 models (4 teachers, 16 students)",
        "programs", "flop", "memory", "expected time",
    ):  # fmt: skip
        assert part in said
    assert not out.exists()


def test_the_arithmetic_of_a_dry_run_is_that_of_the_gradients():
    setting = from_dict({"aux": 3})
    need = sweep_plan.Need("teachers", stages.teacher_setting(setting), (0, 1))
    # 784-256-256-(10 + 1): forward and backward of every layer, but not to the images.
    products = 2 * 784 * 256 + 3 * (256 * 256 + 256 * 11)
    assert sweep_plan.work(sweep_plan.Piece((need,)), ()) == 2 * 5 * 60_000 * 2 * products


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give a sweep file or --preset NAME"),
        (["--preset", "ed2b", "FILE"], "one of the two"),
        (["--preset", "ed9"], "known are alignment"),
        (["FILE", "--runs", "0"], "runs must be at least 1"),
        (["FILE", "--group", "0"], "group must be at least 1"),
        (["FILE", "--memory", "0"], "memory must be above 0"),
        (["FILE", "--workers", "0"], "workers must be from 1"),
        (["FILE", "--workers", "1", "--scheduler", "tcp://x:1"], "not both"),
        (["FILE", "--seed", "-1"], "seed must be from 0"),
        (["nowhere.toml"], "cannot be read"),
        (["FILE", "--size", "huge"], "huge"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(tmp_path, capsys, words, says):
    path = str(file_of(tmp_path))
    words = [path if word == "FILE" else word for word in words]
    assert cli.main(["sweep", *words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_had_are_refused_before_anything_runs(tmp_path, monkeypatch):
    def nowhere(name, **_):
        raise data.DatasetUnavailableError(f"{name} could not be downloaded")

    monkeypatch.setattr(data, "load", nowhere)
    with pytest.raises(InputError, match="could not be downloaded"):
        sweep.run(Options(file=file_of(tmp_path), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
