"""Claims about plans: what is trained together, what it costs, and what a dry run says."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import cli
from experiments.sweep import plan
from experiments.sweep import run as sweep_run
from experiments.sweep.plan import Population, Wanted
from experiments.sweep.run import DryRun, SweepOptions
from sublab import settings
from tests.experiments.sweep.small import BASE, ONE, SMALL, file_of
from toymlp.checks import canonical
from toymlp.measures import MEASURES
from toymlp.settings import Setting, teacher_of
from toymlp.stages import stage_of

IMAGES = 1437


@pytest.fixture
def rated(monkeypatch) -> None:
    """The rate of this machine is taken as known, which saves the time of measuring it."""
    monkeypatch.setattr(sweep_run, "product_rate", lambda: 1e9)


def foreseen(folder: Path, text: str, runs: int = 1, **more) -> DryRun:
    options: dict[str, Any] = {"out": folder / "out"} | more
    return sweep_run.dry_run(SweepOptions(file=file_of(folder, text), runs=runs, **options))


def setting(**values) -> Setting:
    """A setting of `digits`, in its one spelling."""
    named = {name.replace("__", "."): value for name, value in values.items()}
    return canonical(settings.build(Setting, {"dataset": "digits"} | named), IMAGES)


def wanted(aux: tuple[int, ...] = (2, 5), runs: int = 2, **more) -> list[Wanted]:
    return [(setting(model__aux=m, **more), run) for run in range(runs) for m in aux]


def planned(
    students: list[Wanted], together: int = 4, limit: int | None = None
) -> list[Population]:
    return plan.populations(students, [], ("agreement",), lambda model: False, together, limit)


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_a_dry_run_says_the_cost_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["sweep", str(file_of(tmp_path)), "--runs", "4", "--dry-run", "--out", str(out)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    for part in (
        "Small: 4 points x 4 runs; 0 of 16 are recorded",
        "20 models (4 teachers, 16 students)",
        "2 training programs",
        "flop of matrix products",
        "B for the largest population",
        "expected time on this machine",
    ):
        assert part in said
    assert not out.exists()


def test_a_dry_run_over_records_changes_none_and_counts_what_is_there(copied, capsys, rated):
    before = files_of(copied / "out")
    words = ["sweep", str(file_of(copied)), "--dry-run", "--out", str(copied / "out"), "--runs"]
    assert cli.main([*words, "3"]) == 0
    said = capsys.readouterr().out
    assert "12 of 12 are recorded" in said
    assert "0 models (none)" in said
    assert "expected time" not in said
    assert cli.main([*words, "5"]) == 0
    said = capsys.readouterr().out
    assert "12 of 20 are recorded" in said
    assert "10 models (2 teachers, 8 students)" in said
    file_of(copied, SMALL.replace('["agreement"]', '["agreement", "probe"]'))
    assert cli.main([*words, "3"]) == 0
    said = capsys.readouterr().out
    assert "0 of 12 are recorded" in said
    assert "0 models (none)" in said
    assert "to measure: 12 students that were kept" in said
    assert files_of(copied / "out") == before


def test_a_forecast_counts_one_experiment_once(tmp_path, rated):
    text = f"{ONE}[[list]]\nlabel = 'a'\n[[list]]\nlabel = 'b'\nclasses = 10\n"
    said = foreseen(tmp_path, text, runs=3)
    assert said.total == 3
    assert said.cost.models == {"teachers": 3, "clones": 0, "students": 3}


def products(*widths: int) -> int:
    """Operations of the gradient of one example, but for that by the images."""
    layers = [a * b for a, b in pairwise(widths)]
    return 2 * (3 * sum(layers) - layers[0])


def test_the_arithmetic_of_teachers_is_that_of_their_gradients():
    paper = canonical(settings.build(Setting, {}), 60_000)
    population = Population(tuple((teacher_of(paper), run) for run in (0, 1)))
    assert plan.work(population) == 2 * 5 * 60_000 * products(784, 256, 256, 10 + 1)


def test_the_arithmetic_of_students_has_their_targets_and_their_test():
    paper = canonical(settings.build(Setting, {}), 60_000)
    forward = 2 * (784 * 256 + 256 * 256 + 256 * 13)
    expected = 5 * 60_000 * products(784, 256, 256, 13) + 60_000 * forward + 2 * 10_000 * forward
    assert plan.work(Population(((paper, 0),))) == expected


def test_a_measurement_that_derives_the_network_along_directions_costs_a_gradient_each_time():
    paper = canonical(settings.build(Setting, {}), 60_000)
    measured, alone = (
        plan.work(Population(((paper, 0),), measure=measure)) for measure in (("forecast",), ())
    )
    passes = MEASURES["forecast"].passes
    assert passes > 1000
    assert measured - alone == passes * 60_000 * products(784, 256, 256, 13)


@pytest.mark.parametrize(
    ("change", "count"),
    [
        # Asked for 60,000, there are 1,437.
        ('student.inputs.kind = "images"\nstudent.inputs.count = 60_000\n', 1437),
        ('student.inputs.kind = "images"\nstudent.inputs.count = 0\n', 1437),
        ('student.inputs.kind = "shuffled"\nstudent.inputs.count = 5_000\n', 1437),
        ('student.inputs.kind = "images"\nstudent.inputs.count = 300\n', 300),
        ("student.inputs.count = 5_000\n", 5_000),
    ],
)
def test_a_forecast_counts_the_inputs_that_there_are(tmp_path, rated, change, count):
    base = ONE.replace("student.inputs.count = 256\n", "")
    operations = foreseen(tmp_path, base + change).cost.operations
    teacher = 1437 * products(64, 16, 11)
    forward = 2 * (64 * 16 + 16 * 15)
    assert operations == teacher + count * (products(64, 16, 15) + forward) + 2 * 360 * forward


def test_a_forecast_leaves_out_the_images_of_classes_that_are_dropped(tmp_path, rated, digits):
    base = ONE.replace("student.inputs.count = 256\n", 'student.inputs.kind = "images"\n')
    images = int(np.sum(digits.train_labels < 3))
    assert 0 < images < 500
    few = foreseen(tmp_path, f"{base}classes = 3\n")
    forward = 2 * (64 * 16 + 16 * 8)
    expected = images * (products(64, 16, 4) + products(64, 16, 8) + forward) + 720 * forward
    assert few.cost.operations == expected
    assert few.cost.memory < foreseen(tmp_path, base).cost.memory


def test_the_time_is_that_of_the_arithmetic_and_of_compiling(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_run, "product_rate", lambda: 1e3)
    slow = foreseen(tmp_path, ONE).cost
    assert slow.seconds == pytest.approx(slow.operations / 800 + 2 * 2.0)


def test_larger_batches_take_more_memory_as_more_models_and_more_inputs_do():
    def memory(students: list[Wanted]) -> int:
        return plan.memory_of(Population(tuple(students)), IMAGES)

    small = memory(wanted(student__batch=64))
    activations = 4 * 2 * (4096 - 64) * (64 + 3 * 2 * 256 + 4 * 15)
    assert memory(wanted(student__batch=4096)) - small == activations
    assert memory(wanted(student__batch=64, runs=3)) > small
    more_inputs = memory(wanted(student__batch=64, student__inputs__count=61_000))
    # 1,000 more: twice the inputs, and the targets of two teachers.
    assert more_inputs - small == 4 * 1000 * (2 * 64 + 2 * 2 * 15)


def test_settings_that_share_a_program_are_trained_together_and_teachers_first():
    todo = planned([*wanted(), *wanted(start="independent"), *wanted(student__batch=32)])
    assert [(population.stage, len(population.wanted)) for population in todo] == [
        ("teachers", 2),
        ("students", 8),
        ("students", 4),
    ]
    assert set(todo[1].models) == set(todo[0].wanted)


def test_so_many_runs_are_trained_together_as_is_said():
    todo = planned(wanted(runs=5), together=2)
    runs = [sorted({run for _, run in population.wanted}) for population in todo]
    assert runs == [[0, 1], [2, 3], [4], [0, 1], [2, 3], [4]]


def test_a_model_that_is_there_is_not_planned():
    there = {(teacher_of(setting()), 0)}
    todo = plan.populations(wanted(), [], (), lambda model: model in there, 4)
    assert todo[0].wanted == ((teacher_of(setting()), 1),)
    assert len(todo[1].models) == 2


def test_a_population_that_would_not_fit_is_cut_by_setting_and_then_by_run():
    students = wanted()
    (together,) = [population for population in planned(students) if population.stage == "students"]

    def cut(limit: int) -> list[Population]:
        todo = planned(students, limit=limit)
        return [population for population in todo if stage_of(population.setting) == "students"]

    def shape(batches: list[Population]) -> list[tuple[list[int], list[int]]]:
        return [
            (
                sorted({s.model.aux for s, _ in population.wanted if isinstance(s, Setting)}),
                sorted({run for _, run in population.wanted}),
            )
            for population in batches
        ]

    limit = plan.memory_of(together, IMAGES)
    assert shape(cut(limit)) == [([2, 5], [0, 1])]
    halves = cut(limit - 1)
    assert shape(halves) == [([2], [0, 1]), ([5], [0, 1])]
    assert all(plan.memory_of(population, IMAGES) < limit for population in halves)
    # Nothing is left out where nothing fits.
    assert shape(cut(1)) == [([2], [0]), ([2], [1]), ([5], [0]), ([5], [1])]


def test_measurements_of_kept_students_are_planned_apart_and_train_nothing():
    kept = [(one, ("probe",)) for one in wanted()]
    todo = plan.populations([], kept, ("agreement", "probe"), lambda model: True, 4)
    (population,) = todo
    assert (population.kept, population.measure) == (True, ("probe",))
    assert plan.trained(population) == (0, 0.0)
    said = plan.cost(todo, lambda setting: IMAGES, None)
    assert (sum(said.models.values()), said.measured, said.programs, said.seconds) == (
        0,
        4,
        0,
        None,
    )


def test_snapshots_of_one_training_cost_one_training(tmp_path, rated):
    three = foreseen(
        tmp_path, f"{ONE}[grid]\nstudent.epochs = [1, 2, 4]\n".replace("student.epochs = 1\n", "")
    )
    assert three.total == 3
    assert three.cost.models["students"] == 1
    chain = f"{BASE}[grid]\nchain.generations = [1, 2]\n"
    assert foreseen(tmp_path, chain).cost.models["students"] == 2
