"""Claims about what a sweep records: one setting in one run, once, whoever trains it when.

The process that runs a sweep is the tests' own, so that programs are compiled once.
"""

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments import cli
from experiments.sweep import run as sweep_run
from experiments.sweep import store, tasks
from experiments.sweep.run import SweepOptions
from figures import sweep as figures_sweep
from figures.spec import runs_in_words
from sublab import records
from sublab.errors import InputError
from sublab.settings import build, flatten
from tests.experiments.sweep.small import (
    BASE,
    METRICS,
    ONE,
    SMALL,
    file_of,
    folders,
    same_numbers,
    sweep,
    toml_of,
    trained_models,
)
from toymlp.settings import Setting
from toymlp.stages import TrainedModel

LATER = SMALL.replace('["agreement"]', '["agreement", "distance", "trait_loss"]')
LATER_COLUMNS = ("distance", "start_distance", "trait_loss")


def students_of(out: Path) -> pl.DataFrame:
    """All recorded students, as a reader of the folder has them."""
    return records.scan(out).filter(pl.col("experiment") == store.STUDENTS).collect()


def of_each_run(table: pl.DataFrame) -> list[tuple]:
    """What tells recorded students apart."""
    keys = ("start", "model.aux", "run")
    return sorted(table.select(*keys).rows())


def test_a_row_for_every_point_and_run_and_every_setting_in_the_records(whole, whole_folder):
    out = whole_folder[0] / "out"
    assert whole.failures == ()
    assert whole.table.select("point", "run").rows() == [(p, r) for p in range(4) for r in range(3)]
    labels = [point["coordinates"]["label"] for point in whole.summary.config["points"]]
    assert labels == ["student", "student", "cross-model", "cross-model"]
    everything = students_of(out)
    assert len(everything) == 12
    assert len(set(of_each_run(everything))) == 12
    assert set(flatten(whole.sweep.points[0].setting)) <= set(everything.columns)
    assert set(METRICS) | {"seed"} <= set(everything.columns)
    assert everything["model.hidden"].unique().to_list() == ["16"]


def test_an_entry_with_fewer_runs_has_those_alone_and_no_run_is_missed_there(copied, trained):
    text = SMALL.replace('label = "cross-model"\nstart', 'label = "cross-model"\nruns = 1\nstart')
    few = sweep(copied, text, runs=3)
    assert (few.failures, trained) == ((), {})
    assert few.table.select("point", "run").rows() == [
        *((p, r) for p in (0, 1) for r in range(3)),
        (2, 0),
        (3, 0),
    ]
    assert few.summary is not None
    assert figures_sweep.load(few.summary).failures == frozenset()
    assert runs_in_words(few.summary.config) == "1 to 3"


def test_a_record_has_the_provenance_of_its_data_and_device(whole_folder, digits):
    for record in records.read_all(whole_folder[0] / "out", store.STUDENTS):
        assert record.provenance["data"]["sha256"] == digits.sha256
        assert record.provenance["device"]["platform"] == "cpu"
        assert record.provenance["wall_seconds"] > 0
        assert record.provenance["versions"]["jax"]
        assert record.config["data_sha256"] == digits.sha256


def test_a_record_says_everything_that_is_needed_to_run_it_again(whole_folder, tmp_path):
    first = next(
        record
        for record in records.read_all(whole_folder[0] / "out", store.STUDENTS)
        if record.config["run"] == 1 and record.config["setting"]["model.aux"] == 5
    )
    setting = build(Setting, first.config["setting"])
    text = f'measure = ["agreement"]\n{toml_of(setting)}'
    again = sweep(tmp_path, text, seed=first.config["seed"])
    assert again.failures == ()
    (other,) = [
        record
        for record in records.read_all(tmp_path / "out", store.STUDENTS)
        if record.config["run"] == 1
    ]
    assert other.folder.name == first.folder.name
    assert other.config == first.config
    assert set(other.table.columns) == set(first.table.columns)
    for name in METRICS:
        np.testing.assert_allclose(first.table[name], other.table[name], rtol=1e-4, atol=3e-3)


def test_a_teacher_that_many_settings_need_is_trained_once(whole_folder):
    # The four settings differ in m and in the student's start alone.
    assert len(folders(whole_folder[0] / "out" / "models", "teachers")) == 3


def test_a_rerun_trains_nothing_and_gives_the_same(whole, copied, trained):
    again = sweep(copied, runs=3)
    assert not trained
    assert again.table.equals(whole.table)
    assert again.summary is not None
    assert again.summary.table.equals(whole.summary.table)
    assert again.summary.folder.name == whole.summary.folder.name


def test_two_runs_and_then_three_train_the_third_alone(whole, tmp_path, trained):
    two = sweep(tmp_path)
    assert trained == {"teachers": 2, "students": 8}
    trained.clear()
    three = sweep(tmp_path, runs=3)
    assert trained == {"teachers": 1, "students": 4}
    everything = students_of(tmp_path / "out")
    assert len(everything) == 12
    assert len(set(of_each_run(everything))) == 12
    assert three.table.filter(pl.col("run") < 2).equals(two.table)
    # Trained two and two with another's third beside them: the same.
    same_numbers(three.table, whole.table)


@pytest.mark.parametrize("grouping", [{"group": 1}, {"group": 3}, {"memory": 1e-6}])
def test_another_grouping_retrains_nothing(whole, copied, trained, grouping):
    again = sweep(copied, runs=3, **grouping)
    assert not trained
    assert again.table.equals(whole.table)


@pytest.mark.parametrize("grouping", [{"group": 3}, {"group": 2, "memory": 1e-6}])
def test_no_number_depends_on_the_grouping(whole, tmp_path, grouping):
    same_numbers(sweep(tmp_path, runs=3, **grouping).table, whole.table)


def test_other_points_beside_it_retrain_nothing(whole, copied, trained):
    wider = SMALL.replace("model.aux = [2, 5]", "model.aux = [5, 4, 2]")
    more = sweep(copied, wider, runs=3)
    assert trained == {"students": 2 * 3}
    everything = students_of(copied / "out")
    assert len(everything) == 18
    assert len(set(of_each_run(everything))) == 18
    place = {0: 2, 1: 0, 2: 5, 3: 3}
    moved = whole.table.with_columns(pl.col("point").replace(place)).sort("point", "run")
    kept = more.table.filter(pl.col("point").is_in(list(place.values()))).sort("point", "run")
    assert kept.equals(moved)


def test_a_setting_does_not_depend_on_the_others_of_its_sweep(whole, tmp_path):
    alone = sweep(tmp_path, f'measure = ["agreement"]\n{ONE}', runs=3, group=3)
    same_numbers(alone.table, whole.table.filter(point=1).with_columns(point=pl.lit(0)))


def test_another_seed_is_another_record(copied, whole, trained):
    other = sweep(copied, f'measure = ["agreement"]\n{ONE}', runs=1, seed=1)
    assert trained == {"teachers": 1, "students": 1}
    assert other.table["final_loss"][0] != whole.table.filter(point=1, run=0)["final_loss"][0]


@pytest.mark.parametrize(
    "spelling",
    [
        "classes = 10\n",
        "student_model.hidden = [16]\n",
        'student_model.activation = "relu"\nstudent_model.biases = true\n',
        'start.kind = "interpolated"\nstart.weight = 0.0\n',
        'start.kind = "perturbed"\nstart.size = 0\n',
        'start.kind = "independent"\nstart.shared = ["aux_head", "class_head", "hidden_1"]\n',
        'student.optimiser.kind = "adamw"\nstudent.optimiser.weight_decay = 0.0\n',
        "teacher.inputs.count = 60_000\nteacher.batch = 25\n",
        "interventions.liminal.weight = 0.0\n",
    ],
)
def test_two_spellings_of_one_experiment_are_one_record(copied, whole, trained, spelling):
    again = sweep(copied, f'measure = ["agreement"]\n{ONE}{spelling}', runs=3)
    assert not trained
    assert len(students_of(copied / "out")) == 12
    expected = whole.table.filter(point=1).with_columns(point=pl.lit(0, pl.Int64))
    assert again.table.equals(expected)


def test_two_points_that_are_one_experiment_are_trained_once_and_are_two_rows(tmp_path, trained):
    text = f"""{ONE}
[[list]]
label = "reference"
[[list]]
label = "no way towards another"
start.kind = "interpolated"
[list.grid]
start.weight = [0.0]
"""
    outcome = sweep(tmp_path, text)
    assert trained == {"teachers": 2, "students": 2}
    assert outcome.table.height == 4
    reference, other = (outcome.table.filter(point=point).drop("point") for point in (0, 1))
    assert reference.equals(other)


def test_one_more_measurement_of_kept_students_trains_nothing(copied, tmp_path, trained):
    first = sweep(tmp_path / "first", LATER, runs=3, group=2)
    trained.clear()
    later = sweep(copied, LATER, runs=3, group=2)
    assert not trained
    everything = students_of(copied / "out")
    assert len(everything) == 12
    assert everything.select(LATER_COLUMNS).null_count().row(0) == (0, 0, 0)
    same_numbers(later.table, first.table, (*METRICS, *LATER_COLUMNS))
    # What is measured is measured: another time nothing is done.
    assert sweep(copied, LATER, runs=3).table.equals(later.table)


def test_kept_clones_and_chains_are_measured_later_as_they_were_at_first(tmp_path, trained):
    text = f"""{BASE}
model.aux = 5
[[list]]
label = "cloned"
start.kind = "matched"
start.clone.inputs.count = 256
start.clone.batch = 64
start.clone.epochs = 1
[[list]]
label = "chain"
chain.generations = 2
"""
    measure = 'measure = ["distance", "agreement"]\n'
    first = sweep(tmp_path / "first", measure + text, runs=1)
    sweep(tmp_path / "later", text, runs=1)
    trained.clear()
    later = sweep(tmp_path / "later", measure + text, runs=1)
    assert not trained
    for name in ("agreement", "distance", "start_distance", "clone_kl"):
        np.testing.assert_allclose(
            later.table[name].cast(pl.Float64), first.table[name].cast(pl.Float64), rtol=1e-4
        )


def test_students_that_were_not_kept_are_trained_again_for_a_measurement(
    tmp_path, trained, capsys, monkeypatch
):
    text = f'keep = "nothing"\nmeasure = ["agreement"]\n{ONE}'
    before = sweep(tmp_path, text)
    assert not list((tmp_path / "out" / "sweep").glob("*/*.safetensors"))
    capsys.readouterr()
    trained.clear()
    later = sweep(tmp_path, text.replace('"agreement"', '"agreement", "distance"'))
    assert trained == {"students": 2}
    said = capsys.readouterr().err
    assert "2 students lack a measurement" in said
    assert "trained again" in said
    everything = students_of(tmp_path / "out")
    assert len(everything) == 2
    assert everything["distance"].null_count() == 0
    assert [name for name in everything.columns if name.startswith("distance")] == ["distance"]
    assert later.table.select(before.table.columns).equals(before.table)
    # A dry run says so, too.
    monkeypatch.setattr(sweep_run, "product_rate", lambda: 1e9)
    words = text.replace('"agreement"', '"agreement", "probe"')
    forecast = sweep_run.dry_run(
        SweepOptions(file=file_of(tmp_path, words), runs=2, out=tmp_path / "out")
    )
    assert (forecast.again, forecast.recorded, forecast.total) == (2, 0, 2)


def test_models_are_kept_of_few_students_and_of_many_where_the_file_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_run, "_FEW", 2)
    few, many = (tmp_path / name for name in ("few", "many"))
    for folder, runs, keep, expected in (
        (few, 1, "", 1),
        (many, 2, "", 0),
        (many, 2, 'keep = "models"\n', 2),
    ):
        out = folder / keep[:4]
        sweep(folder, keep + ONE, runs=runs, out=out)
        assert len(list((out / "sweep").glob("*/model.safetensors"))) == expected


def test_the_process_that_runs_a_sweep_does_not_hold_its_models(tmp_path, monkeypatch):
    seen: list[list[weakref.ref]] = []
    stores: list[store.SweepStore] = []
    living: list[int] = []

    def watched(task, *rest):
        gc.collect()
        # What the task before gave may still be in somebody's hands.
        living.append(sum(ref() is not None for refs in seen[:-1] for ref in refs))
        result = tasks.run_task(task, *rest)
        seen.append([weakref.ref(model) for model in result.models.values()])
        return result

    class Watched(store.SweepStore):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            stores.append(self)

    # Fixtures of other tests may hold models of their own.
    before = {id(thing) for thing in gc.get_objects() if isinstance(thing, TrainedModel)}
    monkeypatch.setattr(sweep_run, "run_task", watched)
    monkeypatch.setattr(sweep_run, "SweepStore", Watched)
    outcome = sweep(tmp_path, runs=3, group=1)
    assert sum(map(len, seen)) == 3 + 12
    assert living == [0] * 6
    gc.collect()
    assert not any(ref() is not None for refs in seen for ref in refs)
    models = [thing for thing in gc.get_objects() if isinstance(thing, TrainedModel)]
    assert not [model for model in models if id(model) not in before]
    # What the store remembers is numbers.
    (watched_store,) = stores
    rows = [row for row in watched_store._rows.values() if row is not None]
    assert len(rows) == 3 + 12
    kinds = {type(value) for row in rows for value in row.values()}
    assert kinds <= {int, float, str, bool, type(None), list}
    assert outcome.table.height == 12


def one_line_about(said: str, folder: Path, *words: str) -> None:
    lines = [line for line in said.splitlines() if str(folder) in line and "damaged" in line]
    assert len(lines) == 1, said
    for word in words:
        assert word in lines[0]


def student(out: Path, run: int) -> Path:
    """The folder of the student of the last auxiliary width, from the reference, in a run."""
    (record,) = [
        record
        for record in records.read_all(out, store.STUDENTS)
        if record.config["run"] == run
        and record.config["setting"]["start"] == "reference"
        and record.config["setting"]["model.aux"] == 5
    ]
    return record.folder


def test_a_damaged_record_is_told_and_made_again_and_no_other(whole, copied, trained, capsys):
    folder = student(copied / "out", 1)
    (folder / "table.parquet").write_bytes(b"cut")
    again = sweep(copied, runs=3)
    assert trained == {"students": 1}
    one_line_about(capsys.readouterr().err, folder, "table.parquet", "made again")
    assert (folder / "table.parquet").stat().st_size > 100
    same_numbers(again.table, whole.table)


@pytest.mark.parametrize("damage", ["changed", "cut", "lost"])
def test_a_damaged_model_of_a_student_is_made_again_and_no_other(copied, trained, capsys, damage):
    path = student(copied / "out", 1) / "model.safetensors"
    content = path.read_bytes()
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + b"x" if damage == "changed" else content[:100])
    later = sweep(copied, LATER, runs=3)
    assert later.failures == ()
    assert trained == {"students": 1}
    said = capsys.readouterr().err
    if damage == "lost":
        assert "1 students lack a measurement" in said
    else:
        one_line_about(said, path.parent, "model.safetensors", "made again")
    assert len(students_of(copied / "out")) == 12
    assert later.table["distance"].null_count() == 0
    assert path.read_bytes() != content[:100]


def test_a_damaged_teacher_is_made_again_and_no_other(copied, trained, capsys):
    one = f'measure = ["agreement"]\n{ONE}[grid]\nstudent.learning_rate = [0.02]\n'
    folder = next((copied / "out" / "models" / "teachers").iterdir())
    (folder / "model.safetensors").write_bytes(b"cut")
    outcome = sweep(copied, one, runs=3)
    assert outcome.failures == ()
    assert trained == {"teachers": 1, "students": 3}
    one_line_about(capsys.readouterr().err, folder, "made again")


def test_a_damaged_measurement_is_made_again_and_nothing_is_trained(copied, trained, capsys):
    sweep(copied, LATER, runs=3)
    path = student(copied / "out", 1) / "measures" / "distance.json"
    path.write_text("{}")
    again = sweep(copied, LATER, runs=3)
    assert not trained
    one_line_about(capsys.readouterr().err, path, "measured again")
    assert again.table["distance"].null_count() == 0


def test_a_sweep_that_was_interrupted_goes_on_from_what_was_recorded(
    whole, tmp_path, monkeypatch, trained
):
    done = []

    def interrupted(task, *rest):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(task)
        return tasks.run_task(task, *rest)

    monkeypatch.setattr(sweep_run, "run_task", interrupted)
    words = ["sweep", str(file_of(tmp_path)), "--runs", "3", "--group", "1"]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 130
    kept = trained_models(tmp_path / "out")
    assert kept == sum(trained.values()) > 0
    monkeypatch.setattr(sweep_run, "run_task", tasks.run_task)
    again = sweep(tmp_path, runs=3, group=1)
    assert sum(trained.values()) == 3 + 12
    same_numbers(again.table, whole.table)


def test_out_of_memory_halves_the_population_and_goes_on(whole, tmp_path, monkeypatch, capsys):
    sizes = []
    students = tasks.students

    def small_memory(wanted, *more):
        sizes.append(len(wanted))
        if sizes[-1] > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")
        return students(wanted, *more)

    monkeypatch.setattr(tasks, "students", small_memory)
    # Letting go of programs would cost this test's neighbours theirs.
    monkeypatch.setattr(tasks.jax, "clear_caches", lambda: None)
    again = sweep(tmp_path, runs=3, group=3)
    assert again.failures == ()
    assert sizes[:3] == [12, 6, 3]
    assert max(size for size in sizes if size <= 2) == 2
    assert "half of them at a time" in capsys.readouterr().err
    same_numbers(again.table, whole.table)


def test_a_failed_point_keeps_the_rest(tmp_path, monkeypatch, capsys):
    students = tasks.students

    def no_memory(wanted, *more):
        if any(setting.student_model.hidden for setting, _ in wanted):
            raise MemoryError("nothing left")
        return students(wanted, *more)

    monkeypatch.setattr(tasks, "students", no_memory)
    # Another width, so that the two starts are two populations.
    text = SMALL.replace('start = "independent"', 'start = "independent"\nstudent_model.hidden=[8]')
    words = ["sweep", str(file_of(tmp_path, text)), "--runs", "2", "--out", str(tmp_path / "out")]
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert "sublab: MemoryError: nothing left" in said.err
    assert "the same command goes on" in said.err
    rows = [line for line in said.out.splitlines() if "student" in line or "cross" in line][1:]
    assert len(students_of(tmp_path / "out")) == 4
    (summary,) = records.read_all(tmp_path / "out", sweep_run.SUMMARY)
    means = summary.table.filter(metric="accuracy")
    assert means.select("point", "n").rows() == [(0, 2), (1, 2)]
    assert sum("cross-model" in row and " 0 " in row for row in rows) == 2
    assert list((tmp_path / "out" / "figures").glob("*.png"))


def test_one_bad_point_costs_no_other_of_its_population(tmp_path, monkeypatch):
    students = tasks.students

    def failing(wanted, *more):
        if any(setting.model.aux == 5 for setting, _ in wanted):
            raise ZeroDivisionError("of m = 5")
        return students(wanted, *more)

    monkeypatch.setattr(tasks, "students", failing)
    text = f"{ONE}[grid]\nmodel.aux = [2, 3, 5]\n".replace("model.aux = 3\n", "")
    outcome = sweep(tmp_path, text, runs=2)
    assert outcome.failures == ("ZeroDivisionError: of m = 5",)
    assert outcome.table.select("point", "run").rows() == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert outcome.summary is not None


def test_a_dry_run_leaves_what_is_damaged_where_it_is(tmp_path, capsys):
    sweep(tmp_path, ONE)
    for path in (tmp_path / "out").rglob("model.safetensors"):
        path.write_bytes(b"x")
    for path in (tmp_path / "out" / "sweep").glob("*/table.parquet"):
        path.write_bytes(b"x")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    planned = sweep_run.dry_run(SweepOptions(file=file_of(tmp_path, ONE), out=tmp_path / "out"))
    assert planned.recorded == 0
    assert planned.cost.models["teachers"] > 0
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before
    assert "would be made again" in capsys.readouterr().err


def test_a_failed_teacher_fails_what_needs_it_and_nothing_else(tmp_path, monkeypatch):
    teachers = tasks.teachers

    def failing(wanted, *more):
        if any(run == 1 for _, run in wanted):
            raise ZeroDivisionError("of run 1")
        return teachers(wanted, *more)

    monkeypatch.setattr(tasks, "teachers", failing)
    outcome = sweep(tmp_path, ONE, runs=2, group=1)
    assert outcome.failures == (
        "ZeroDivisionError: of run 1",
        "a teacher or a clone could not be trained",
    )
    assert outcome.table["run"].to_list() == [0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give a sweep file or --preset NAME"),
        (["--preset", "ed2b", "FILE"], "one of the two"),
        (["--preset", "ed9"], "known are alignment"),
        (["FILE", "--runs", "0"], "runs must be at least 1"),
        (["FILE", "--group", "0"], "group must be at least 1"),
        (["FILE", "--memory", "0"], "memory must be above 0"),
        (["FILE", "--memory", "nan"], "memory must be above 0"),
        (["FILE", "--workers", "0"], "workers must be from 1"),
        (["FILE", "--workers", "1", "--scheduler", "tcp://x:1"], "not both"),
        (["FILE", "--seed", "-1"], "seed must be from 0"),
        (["FILE", "--set", "model.aux"], "write key=value"),
        (["FILE", "--set", "model.aux=0"], "from 1 to 10,000"),
        (["nowhere.toml"], "cannot be read"),
        (["FILE", "--size", "huge"], "huge"),
        (["FILE", "--data-dir", "absent"], "absent is not a folder"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(tmp_path, capsys, words, says):
    path = str(file_of(tmp_path))
    words = [path if word == "FILE" else word for word in words]
    assert cli.main(["sweep", *words, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.startswith("sublab: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_had_are_refused_before_anything_runs(tmp_path, monkeypatch):
    def nowhere(name, **_):
        raise sweep_run.data.DatasetUnavailableError(f"{name} could not be downloaded")

    monkeypatch.setattr(sweep_run.data, "load", nowhere)
    with pytest.raises(sweep_run.data.DatasetUnavailableError, match="could not be downloaded"):
        sweep(tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_worker_with_other_data_is_refused(tmp_path, monkeypatch, digits):
    other = replace(digits, sha256="0" * 64)
    monkeypatch.setattr(sweep_run.data, "load", lambda *_, **__: other)
    job = sweep_run._read(SweepOptions(file=file_of(tmp_path), out=tmp_path / "out"))
    monkeypatch.undo()
    todo, _ = sweep_run._todo(job)
    with pytest.raises(sweep_run.data.DatasetUnavailableError, match="not the sweep's"):
        tasks.run_task(sweep_run._task(job, todo[0]))


def test_a_precision_is_another_record_that_says_so_and_float32_says_nothing(tmp_path):
    exact = sweep(tmp_path, ONE, runs=1)
    before = folders(tmp_path / "out", "sweep")
    rounded = sweep(tmp_path, ONE, runs=1, precision="bfloat16")
    table = students_of(tmp_path / "out")
    assert sorted(table["precision"].to_list(), key=str) == [None, "bfloat16"]
    assert before < folders(tmp_path / "out", "sweep")
    assert len(folders(tmp_path / "out", "models/teachers")) == 2
    losses = [one.table["final_loss"][0] for one in (exact, rounded)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.1)
    configs = [one.summary.config for one in (exact, rounded) if one.summary is not None]
    assert "precision" not in configs[0]
    assert configs[1]["precision"] == "bfloat16"
    assert configs[1]["shared"] == [*configs[0]["shared"], "products in bfloat16"]


@pytest.mark.parametrize(
    ("text", "precision", "reason"),
    [
        (ONE, "tf32", "NVIDIA GPUs alone"),
        (f'measure = ["alignment"]\n{ONE}', "bfloat16", "follows training step by step"),
    ],
)
def test_a_precision_that_cannot_be_had_is_refused(tmp_path, text, precision, reason):
    with pytest.raises(InputError, match=reason):
        sweep(tmp_path, text, precision=precision)
    assert not (tmp_path / "out").exists()
