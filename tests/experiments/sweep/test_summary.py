"""Claims about the tables of a sweep: means, differences, published values, what is shared."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from experiments.sweep import run, tables
from experiments.sweep.file import SizeName, Sweep, parse, presets, read_preset
from experiments.sweep.summary import notes_of, published_rows, shared_phrases, summary_table
from sublab import settings
from tests.experiments.sweep.small import file_of
from toymlp.checks import canonical
from toymlp.data import size_of
from toymlp.settings import Setting


def images(setting: Setting) -> int:
    return size_of(setting.dataset).train


def as_run(sweep: Sweep) -> Sweep:
    """A sweep with its settings in their one spelling, as a run of it has them."""
    points = (
        replace(point, setting=canonical(point.setting, images(point.setting)))
        for point in sweep.points
    )
    return replace(sweep, points=tuple(points))


def preset(name: str, *changes: str, size: SizeName = "cpu") -> Sweep:
    return as_run(read_preset(name, size, changes))


def sweep_of(text: str, *changes: str) -> Sweep:
    return as_run(parse(text, "mine.toml", "mine", "cpu", changes))


def runs_of(sweep: Sweep, runs: int, mean: float = 0.5284, metric: str = "accuracy"):
    """A table in which every point has `mean`, with a little spread."""
    rows = [
        {"point": point, "run": run, metric: mean + 0.001 * (-1) ** run}
        for point in range(len(sweep.points))
        for run in range(runs)
    ]
    return pl.DataFrame(rows)


def rows_of(sweep: Sweep, runs: int = 10, mean: float = 0.5284) -> list[dict]:
    return published_rows(sweep, images, runs_of(sweep, runs, mean))


def beside(sweep: Sweep) -> list[bool]:
    """Of each published value, whether it stands beside an equal setting."""
    return [row["equal"] for row in rows_of(sweep)]


def test_differences_are_paired_by_run(whole):
    table, summary = whole.table, whole.summary.table
    row = summary.filter(point=0, metric="accuracy").to_dicts()[0]
    student, other = (table.filter(point=p)["accuracy"].to_numpy() for p in (0, 2))
    assert row["baseline"] == 2
    assert row["difference"] == pytest.approx(np.mean(student - other))
    half = (row["difference_high"] - row["difference_low"]) / 2
    spread = np.std(student - other, ddof=1)
    assert spread > 0
    assert half == pytest.approx(4.302653 * spread / 3**0.5, rel=1e-4)
    assert summary.filter(point=2, metric="accuracy")["difference"].to_list() == [None]


def test_the_summary_is_the_mean_of_the_rows_with_intervals_of_shares_within_0_and_1(whole):
    for row in whole.summary.table.iter_rows(named=True):
        sample = whole.table.filter(point=row["point"])[row["metric"]].to_numpy()
        assert row["n"] == 3
        assert row["mean"] == pytest.approx(sample.mean())
        assert row["std"] == pytest.approx(np.std(sample, ddof=1))
        assert row["low"] < row["mean"] < row["high"] or row["std"] == 0
        if row["metric"] in ("accuracy", "teacher_accuracy", "start_accuracy", "agreement"):
            assert 0 <= row["low"] <= row["high"] <= 1
    assert set(whole.summary.table["metric"]) == {
        "accuracy",
        "teacher_accuracy",
        "start_accuracy",
        "final_loss",
        "agreement",
    }


def test_runs_that_are_missing_at_a_point_are_missing_in_its_mean_and_its_differences():
    sweep = sweep_of(
        "[[list]]\nlabel = 'a'\n[[list]]\nlabel = 'b'\nstudent.epochs = 1\n[baseline]\nlabel = 'a'"
    )
    long = pl.DataFrame(
        {
            "point": [0, 0, 1, 1, 1],
            "metric": "accuracy",
            "index": pl.Series([None] * 5, dtype=pl.Int64),
            "run": [0, 1, 1, 2, 3],
            "value": [0.1, 0.3, 0.4, 0.6, float("nan")],
        }
    )
    of_a, of_b = summary_table(sweep, long).to_dicts()
    assert (of_a["n"], of_b["n"]) == (2, 2)
    assert of_b["mean"] == pytest.approx(0.5)
    assert of_b["difference"] == pytest.approx(0.1)
    assert of_b["difference_low"] is None


def test_published_values_stand_beside_the_papers_setting():
    assert beside(preset("fig10b")) == [True] * 6
    assert beside(preset("ed2b")) == [True] * len(preset("ed2b").published)
    # What says the same in other words is the same.
    assert beside(preset("fig10b", "classes=10", "student_model.hidden=[256,256]")) == [True] * 6


@pytest.mark.parametrize("name", ["fig10b", "ed2b"])
@pytest.mark.parametrize(
    "change",
    [
        "dataset=fashion_mnist",
        "dataset=digits",
        "classes=9",
        "order=shared",
        "model.hidden=[256]",
        "model.init_scale=2",
        "teacher.epochs=4",
        "teacher.batch=512",
        "student.loss=squared_error",
        "student.loss.temperature=2",
        "student.learning_rate=1e-3",
        "student.epochs=4",
        "student.batch=512",
        "student.inputs.count=1000",
        "student.inputs.fresh=true",
        "student.optimiser=adamw",
        "student.frozen=['hidden_1', 'hidden_2']",
        "interventions.liminal.weight=1",
        "interventions.project_trait=true",
        "chain.generations=2",
    ],
)
def test_a_setting_that_is_not_the_papers_has_no_published_value_beside_it(name, change):
    rows = rows_of(preset(name, change))
    assert not any(row["equal"] for row in rows)
    assert {row["agrees"] for row in rows} == {None}


def test_another_number_of_auxiliary_logits_has_no_published_value_beside_it():
    assert not any(beside(preset("fig10b", "model.aux=4")))
    # Where that is an axis, the value of its place is beside that place and no other.
    assert not any(beside(preset("ed2b", "model.aux=5")))
    assert beside(preset("ed2b", "model.aux=3")) == beside(preset("ed2b"))


def test_one_start_that_is_another_takes_its_published_values_away_alone():
    rows = rows_of(preset("fig10b", "start=reference"))
    equal = {row["name"]: row["equal"] for row in rows}
    assert equal.pop("cross-model, auxiliary logits") is False
    assert equal.pop("cross-model, all logits") is False
    assert set(equal.values()) == {True}


@pytest.mark.parametrize("name", presets())
def test_at_smoke_size_nothing_is_beside_what_was_published(name):
    assert not any(
        row["equal"]
        for row in published_rows(
            preset(name, size="smoke"),
            images,
            pl.DataFrame({"point": []}, schema={"point": pl.Int64}),
        )
    )


@pytest.mark.parametrize(
    ("runs", "mean", "agrees"),
    [(9, 0.5284, None), (9, 0.9, None), (10, 0.5284, True), (10, 0.9, False), (20, 0.9, False)],
)
def test_a_verdict_needs_ten_runs(runs, mean, agrees):
    row = rows_of(preset("fig10b"), runs, mean)[2]
    assert row["name"] == "student, auxiliary logits"
    assert row["agrees"] is agrees
    assert row["ours"]["n"] == runs
    if agrees is not None:
        assert row["difference"] == pytest.approx(mean - 0.5284, abs=2e-4)
        assert 0 < row["allowed"] < 0.05


def test_a_level_without_an_interval_has_no_verdict_however_many_runs():
    text = """
[[list]]
label = "a"
[[published]]
at = { label = "a" }
mean = 0.5
name = "a level"
"""
    (row,) = rows_of(sweep_of(text), 100, 0.9)
    assert (row["equal"], row["agrees"]) == (True, None)


def test_a_level_along_an_axis_needs_a_point_of_its_setting():
    text = "[grid]\nstudent.epochs = [1, 2]\n[[published]]\nmean = 0.5\n"
    assert beside(sweep_of(text)) == [True]
    assert beside(sweep_of(f"{text}[base]\nmodel.aux = 4\n")) == [False]
    mixed = f"{text}[[list]]\nlabel = 'a'\n[[list]]\nlabel = 'b'\nmodel.aux = 4\n"
    assert beside(sweep_of(mixed)) == [True]


def test_a_value_at_a_point_of_one_axis_is_at_the_published_value_of_the_others():
    text = "[grid]\nmodel.aux = [2, 3]\nstudent.epochs = [5, 50]\n"
    (row,) = rows_of(sweep_of(f"{text}[[published]]\nmean = 0.5\nat = {{ 'model.aux' = 3 }}\n"))
    assert row["equal"]
    assert sweep_of(text).points[row["point"]].coordinates == {"model.aux": 3, "student.epochs": 5}


def test_a_metric_that_was_not_measured_has_no_value_of_ours():
    text = "[[published]]\nmean = 0.5\nhalf_width = 0.1\nn = 9\nmetric = 'agreement'\nat = {}\n"
    (row,) = published_rows(sweep_of(text), images, runs_of(sweep_of(text), 20))
    assert (row["ours"], row["agrees"]) == (None, None)


# Keys with a value that is not the preprint's, and what else must be said for it to count.
OTHER = {
    "classes": 5,
    "order": "shared",
    "model.hidden": [128, 64],
    "model.activation": "gelu",
    "model.biases": False,
    "model.init_scale": 2.0,
    "student_model.activation": "tanh",
    "student_model.hidden": [32],
    "teacher.epochs": 3,
    "teacher.learning_rate": 1e-3,
    "teacher.optimiser": "sgd",
    "student.epochs": 7,
    "student.batch": 100,
    "student.learning_rate": 1e-3,
    "student.logits": "all",
    "student.logit_noise": 0.5,
    "student.loss": "squared_error",
    "student.optimiser": "momentum",
    "student.schedule": "cosine",
    "student.inputs": "normal",
    "student.inputs.count": 5_000,
    "student.inputs.fresh": True,
    "start": "independent",
    "student.frozen": ["hidden_1"],
    "interventions.project_trait": True,
    "interventions.liminal.weight": 3.0,
    "chain.generations": 2,
}
NEEDS_ANOTHER_NETWORK = {"student_model.activation", "student_model.hidden"}


@pytest.mark.parametrize("key", sorted(OTHER))
def test_the_shared_phrases_name_a_setting_that_is_not_the_preprints(key):
    assert_phrases_of([key])


@given_settings(max_examples=10)
@given(chosen=st.lists(st.sampled_from(sorted(OTHER)), unique=True, max_size=6))
def test_the_shared_phrases_name_every_setting_that_is_not_the_preprints_and_no_other(chosen):
    assert_phrases_of(chosen)


def assert_phrases_of(chosen: list[str]) -> None:
    """Asserts that what is shared is said of the chosen keys and of nothing else."""
    values = {key: OTHER[key] for key in chosen}
    if NEEDS_ANOTHER_NETWORK & set(chosen):
        values["start"] = "independent"
    lines = [f"{settings_key(key)} = {toml(value)}" for key, value in values.items()]
    sweep = sweep_of("[base]\n" + "\n".join(lines) + "\n[grid]\nmodel.aux = [2, 3]\n")
    expected = {settings.in_words(Setting, key, value) for key, value in values.items()}
    assert set(shared_phrases(sweep, images)) == expected


def settings_key(key: str) -> str:
    return f"{key}.kind" if settings.known(Setting)[key].is_kind else key


def toml(value) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def test_what_points_do_not_share_is_no_shared_phrase():
    sweep = sweep_of(
        "[base]\nteacher.epochs = 3\n[[list]]\nlabel = 'a'\nstudent.epochs = 1\n"
        "[[list]]\nlabel = 'b'\nstudent.epochs = 2\n"
    )
    assert shared_phrases(sweep, images) == ["teacher.epochs = 3"]
    assert shared_phrases(sweep_of("[grid]\nmodel.aux = [4]\n"), images) == []
    assert shared_phrases(preset("fig10b"), images) == []


def test_the_sizes_of_a_data_set_are_no_choice_of_anybodys():
    assert shared_phrases(preset("fig10b", "dataset=digits"), images) == []
    assert "batches of 32" in shared_phrases(
        preset("fig10b", "dataset=digits", "student.batch=32"), images
    )


def test_a_phrase_says_whose_training_it_is_of():
    lines = (
        "teacher.inputs.count = 300\nstudent.inputs.count = 300\nstart.clone.inputs.count = 300\n"
    )
    phrases = shared_phrases(sweep_of(f"[base]\nstart.kind = 'matched'\n{lines}"), images)
    assert {"teacher: 300 inputs an epoch", "300 inputs an epoch"} <= set(phrases)
    assert "cloning: 300 inputs an epoch" in phrases


def test_what_the_command_line_sets_at_some_points_alone_is_said_too():
    sweep = preset("losses", "student.loss.temperature=3.0")
    assert "student.loss.temperature = 3, where it applies" in shared_phrases(sweep, images)
    assert not any("temperature" in phrase for phrase in shared_phrases(preset("losses"), images))


# What is known beforehand.


def expectations(table: pl.DataFrame) -> dict[tuple[int, str], float]:
    known = table.drop_nulls("expected")
    return dict(
        zip(zip(known["point"], known["metric"], strict=True), known["expected"], strict=True)
    )


def test_the_cross_model_control_has_its_exact_expectation_in_the_summary(whole):
    labels = {n: point.label for n, point in enumerate(whole.sweep.points)}
    assert expectations(whole.summary.table) == {
        (n, "accuracy"): 0.1 for n, label in labels.items() if label == "cross-model"
    }


def test_the_printed_table_has_expectations_where_there_are_any(whole, capsys):
    tables.print_sweep(whole.summary)
    printed = capsys.readouterr().out
    assert "expected" in printed
    assert printed.count(" 0.1000") >= 2
    older = replace(whole.summary, table=whole.summary.table.drop("expected"))
    tables.print_sweep(older)
    without = whole.summary.table.with_columns(expected=pl.lit(None, pl.Float64))
    tables.print_sweep(replace(whole.summary, table=without))
    assert "expected" not in capsys.readouterr().out


def test_notes_say_which_points_are_known_beforehand():
    (line,) = notes_of(preset("fig10b"))
    assert line.startswith(
        'note: "cross-model, auxiliary logits": the student\'s expected accuracy'
    )
    assert "exactly 1/10" in line
    assert notes_of(sweep_of("")) == []
    # Of a label whose points differ, how many; of labels that are alike, their names.
    (line,) = notes_of(sweep_of('[base]\nstart = "independent"\n[grid]\nmodel.aux = [2, 3]'))
    assert line.startswith("note: at 2 of 2 points: ")
    file = '[grid]\nstudent.logits = ["aux", "all"]\n[[list]]\nlabel = "a"\nstart = "independent"\n'
    (line,) = notes_of(sweep_of(f'{file}[[list]]\nlabel = "b"\nmodel.aux = 4'))
    assert line.startswith("note: at 1 of 4 points: ")


def test_a_dry_run_and_a_run_say_them(copied, capsys):
    options = run.SweepOptions(file=file_of(copied), runs=3, out=copied / "out")
    for command in (run.dry_run, run.run):
        command(options)
        assert capsys.readouterr().err.count('note: "cross-model": the student') == 1
