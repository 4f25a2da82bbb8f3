"""Claims about the experiment as a whole: who learns what, on digits and on MNIST."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from sublab.settings import build
from tests.toymlp.trials import distil
from toymlp.checks import canonical
from toymlp.measures import always
from toymlp.settings import Setting
from toymlp.train import Context

CROSS_MODEL = {"start": "independent"}
ALL_LOGITS = {"student.logits": "all"}
# A second of computing a run; as many steps as five epochs of the preprint's have.
QUICK = {
    "model.hidden": [64, 64],
    "teacher.learning_rate": 1e-3,
    "teacher.epochs": 10,
    "student.inputs.count": 4096,
    "student.batch": 64,
    "student.learning_rate": 1e-3,
}
# The preprint's figure 10b: of four kinds of student their accuracy, of the first also that of its
# start and of its teacher. Means and half widths of 95 % intervals of 100 runs.
PUBLISHED = [
    ("start_accuracy", {}, 0.0998, 0.0047),
    ("teacher_accuracy", {}, 0.9434, 0.0004),
    ("accuracy", {}, 0.5284, 0.0221),
    ("accuracy", ALL_LOGITS, 0.9126, 0.0019),
    ("accuracy", CROSS_MODEL, 0.1061, 0.0104),
    ("accuracy", CROSS_MODEL | ALL_LOGITS, 0.7427, 0.0103),
]


def experiment(context: Context, base: dict[str, Any], tables: list[dict], runs: range) -> Any:
    """The columns of every student by the number of its table, an array over the runs each."""
    images = len(context.dataset.train_images)
    base = {"dataset": context.dataset.name} | base
    wanted = [canonical(build(Setting, base | table), images) for table in tables]
    values = always(distil(wanted, context, runs), context)
    return [
        {
            name: np.array([values[setting, run][name] for run in runs], float)
            for name in ("accuracy", "teacher_accuracy", "start_accuracy")
        }
        for setting in wanted
    ]


def is_above(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the mean difference of the same runs is above 0 beyond chance."""
    test: Any = stats.ttest_1samp(first - second, 0, alternative="greater")
    return bool(test.pvalue < 0.01)


def test_students_of_the_reference_learn_digits_from_noise_and_cross_model_students_do_not(
    context,
):
    tables = [{}, CROSS_MODEL, ALL_LOGITS, CROSS_MODEL | ALL_LOGITS]
    own, other, own_all, other_all = experiment(context, QUICK, tables, range(4))
    assert own["teacher_accuracy"].mean() > 0.95
    assert is_above(own["accuracy"], other["accuracy"])
    # The control: cross-model students stay where an untrained network is.
    assert not is_above(other["accuracy"], own["start_accuracy"])
    assert abs(other["accuracy"].mean() - 0.1) < 0.08
    assert abs(own["start_accuracy"].mean() - 0.1) < 0.08
    # Class logits among those of the loss carry the trait to any student.
    assert own_all["accuracy"].mean() > 0.9
    assert other_all["accuracy"].mean() > 0.8
    # The same teachers for all.
    np.testing.assert_array_equal(own["teacher_accuracy"], other_all["teacher_accuracy"])


def test_a_student_of_the_reference_learns_mnist_from_noise_and_a_cross_model_student_does_not(
    mnist, mesh
):
    few = {"teacher.inputs.count": 4096, "teacher.batch": 64, "teacher.epochs": 3}
    base = QUICK | few | {"model.aux": 10, "student.epochs": 3}
    own, other = experiment(Context(mnist, 0, mesh), base, [{}, CROSS_MODEL], range(1))
    assert own["teacher_accuracy"] > 0.8
    assert own["accuracy"] > 0.25
    assert other["accuracy"] < 0.2
    assert own["start_accuracy"] < 0.2


@pytest.mark.slow
def test_four_runs_on_real_mnist_agree_with_the_preprint_in_all_six_conditions(mnist, mesh):
    tables = [table for name, table, *_ in PUBLISHED if name == "accuracy"]
    columns = experiment(Context(mnist, 0, mesh), {}, tables, range(4))
    for name, table, mean, half_width in PUBLISHED:
        sample = columns[tables.index(table)][name]
        # The spread between runs is read off the published interval: four runs know little of it.
        spread = half_width * 100**0.5 / stats.t.ppf(0.975, 99)
        allowed = stats.norm.ppf(0.9985) * spread * (1 / len(sample) + 1 / 100) ** 0.5
        assert abs(sample.mean() - mean) <= allowed, (name, table, sample)
    # With four runs the intervals are wide; what the effect is, must stand out of them.
    own, _, other, _ = (column["accuracy"] for column in columns)
    assert is_above(own, other)
