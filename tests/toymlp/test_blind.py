"""Claims about settings whose student's class head nobody touches: they are known beforehand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublab.settings import build
from tests.toymlp.trials import MATCHED, RUN, RUNS, distil, flat, tiny
from toymlp import checks
from toymlp.checks import blind, expected_accuracy, notes
from toymlp.measures import always, measured
from toymlp.networks import class_readout, with_classes
from toymlp.settings import PREPRINT, Setting

ELSEWHERE = {"start": "independent"}
CLONED_AUX = MATCHED | {"start.clone.logits": "aux"}
HIDDEN = ["hidden_1", "hidden_2"]
# Near the cross-model control: what keeps its class head untouched, and what does not.
BLIND: dict[str, dict[str, Any]] = {
    "another start": ELSEWHERE,
    "shared hidden layers": ELSEWHERE | {"start.shared": [*HIDDEN, "aux_head"]},
    "behavioural cloning of auxiliary logits": CLONED_AUX,
    "trained hidden layers, not trained further": ELSEWHERE
    | {"start.trained": ["hidden_1", "hidden_2"], "student.epochs": 0},
    "trained hidden layers": ELSEWHERE | {"start.trained": ["hidden_1", "hidden_2"]},
    "a start that is not cloned": MATCHED
    | {"start.clone.logits": "class", "start.clone.epochs": 0},
    "a clone of the reference's class head, not trained": CLONED_AUX
    | {"start.shared": ["class_head"], "student.epochs": 0},
    "weight decay": ELSEWHERE
    | {"student.optimiser": "adamw", "student.optimiser.weight_decay": 0.3},
    "a frozen class head": ELSEWHERE | {"student.frozen": ["class_head"]},
    "no biases": ELSEWHERE | {"student_model.biases": False},
    "a chain": ELSEWHERE | {"chain.generations": 3},
    "an interpolation that is all independent": {"start": "interpolated", "start.weight": 1.0},
    "liminal training for no epochs": ELSEWHERE
    | {"interventions.liminal.weight": 1.0, "interventions.liminal.epochs": 0},
    "the reference itself": {"student.epochs": 0},
    "the reference itself, whatever its loss": {"student.epochs": 0, "student.logits": "all"},
    "a perturbed reference, not trained": {"start": "perturbed", "student.epochs": 0},
}
SEEING: dict[str, dict[str, Any]] = {
    "the reference": {},
    "a shared class head": ELSEWHERE | {"start.shared": ["class_head"]},
    "a trained class head": ELSEWHERE | {"start.trained": ["class_head"]},
    "a trained class head, not trained further": ELSEWHERE
    | {"start.trained": ["class_head"], "student.epochs": 0},
    "the reference's class head on trained layers": {
        "start.trained": ["hidden_1"],
        "student.epochs": 0,
    },
    "a shared class head on trained layers": ELSEWHERE
    | {"start.shared": ["class_head"], "start.trained": ["hidden_1"], "student.epochs": 0},
    "a clone's shared class head": CLONED_AUX | {"start.shared": ["class_head"]},
    "class logits": ELSEWHERE | {"student.logits": "class"},
    "all logits": ELSEWHERE | {"student.logits": "all"},
    "all logits, with a frozen class head": ELSEWHERE
    | {"student.logits": "all", "student.frozen": ["class_head"]},
    "cloning of all logits": MATCHED | {"start.clone.logits": "all"},
    "cloning of class logits": MATCHED | {"start.clone.logits": "class"},
    "cloning of all logits, not trained further": MATCHED
    | {"start.clone.logits": "all", "student.epochs": 0},
    "an interpolation": {"start": "interpolated", "start.weight": 0.99},
    "a perturbation": {"start": "perturbed", "start.size": 100.0},
    "liminal training": ELSEWHERE | {"interventions.liminal.weight": 1.0},
    "the trait's gradient, projected out": ELSEWHERE | {"interventions.project_trait": True},
    "a chain with one class head": ELSEWHERE
    | {"start.shared": ["class_head"], "chain.generations": 2},
}
# One program serves all of these students.
ALIKE = [
    *("another start", "behavioural cloning of auxiliary logits", "the reference itself"),
    *("a perturbed reference, not trained", "a chain"),
    "an interpolation that is all independent",
    *("the reference", "class logits", "cloning of all logits", "a perturbation"),
    *("a shared class head", "a clone's shared class head"),
]


def residuals(setting, context, runs=(RUN,)):
    """The two residuals of each run, which must be there: no training diverged."""
    students = distil([setting], context, runs)
    values = measured(students, ["commutation"], context)["commutation"]
    return [(row["commutation"], row["head_commutation"]) for row in values.values()]


@pytest.mark.parametrize("name", [*BLIND, *SEEING])
def test_a_setting_is_blind_where_nothing_sees_its_class_head(name):
    setting = tiny((BLIND | SEEING)[name])
    checks.check(setting)
    assert blind(setting) == (name in BLIND)
    assert blind(checks.canonical(setting, 1437)) == blind(setting)
    lines = list(notes(setting))
    if name in BLIND:
        assert expected_accuracy(setting) == 0.1
        assert "exactly 1/10: " in lines[0]
        assert ("not trained" in lines[0]) == (setting.student.epochs == 0)
    else:
        assert expected_accuracy(setting) is None
        assert lines == []


def test_the_expectation_is_one_over_the_classes_that_are_kept():
    for values, classes in (({"classes": 3}, 3), ({"dataset": "emnist_balanced"}, 47), ({}, 10)):
        assert expected_accuracy(build(Setting, ELSEWHERE | values)) == 1 / classes
    assert list(notes(PREPRINT)) == []


@pytest.mark.parametrize("name", ALIKE)
def test_a_setting_is_blind_where_its_training_commutes_bit_for_bit(context, name):
    setting = tiny((BLIND | SEEING)[name])
    for other, head in residuals(setting, context, RUNS):
        assert (other == 0) == blind(setting) == (name in BLIND)
        if blind(setting):
            assert head == 0
        else:
            assert other > 0.1


TABLES = st.fixed_dictionaries(
    {
        "model.aux": st.integers(2, 4),
        "model.init_scale": st.sampled_from([0.5, 1.0]),
        "model.activation": st.sampled_from(["relu", "tanh"]),
        "student_model.biases": st.booleans(),
        "student.logits": st.sampled_from(["aux", "aux", "aux", "all", "class"]),
        "student.epochs": st.sampled_from([0, 1, 2]),
        "student.optimiser": st.sampled_from(["sgd", "momentum", "adam", "adamw"]),
        "student.loss": st.sampled_from(["kl", "squared_error"]),
        "student.logit_noise": st.sampled_from([0.0, 0.5]),
        "student.inputs.fresh": st.booleans(),
        "start": st.sampled_from(["independent", "matched", "matched", "perturbed", "reference"]),
        "start.shared": st.sampled_from([[], [], ["hidden_1"], ["aux_head"], ["class_head"]]),
        "start.clone.logits": st.sampled_from(["aux", "aux", "all"]),
        "start.clone.epochs": st.sampled_from([0, 1]),
        "student.frozen": st.sampled_from([[], [], ["hidden_1"], ["class_head"]]),
        "interventions.project_trait": st.sampled_from([False, False, False, True]),
        "interventions.liminal.weight": st.sampled_from([None, None, 0.0, 1.0]),
        "chain.generations": st.sampled_from([1, 1, 2]),
    }
)


def drawn(values: dict[str, Any]) -> Setting:
    """The small setting of a table, less what has no effect or no place beside the rest."""
    small = {
        "teacher.inputs.count": 128,
        "teacher.epochs": 1,
        "student.inputs.count": 64,
        "student.batch": 32,
        "start.clone.inputs.count": 64,
        "start.clone.batch": 32,
    }
    start = values["start"]
    left_out = {name for name, value in values.items() if value is None}
    if start not in ("independent", "matched"):
        # A start of the reference's network has the reference's biases, and shares nothing.
        left_out |= {"start.shared", "student_model.biases"}
    if not values["student_model.biases"]:
        left_out.add("start.shared")
    if start == "matched":
        left_out.add("chain.generations")
    else:
        left_out |= {name for name in values | small if name.startswith("start.clone.")}
    table = small | values
    return tiny({name: value for name, value in table.items() if name not in left_out})


@pytest.mark.slow
@settings(max_examples=30)
@given(TABLES)
def test_any_setting_is_blind_where_its_training_commutes_bit_for_bit(context, values):
    setting = drawn(values)
    checks.check(setting)
    ((other, head),) = residuals(setting, context)
    if blind(setting):
        assert other == head == 0
    elif setting.student.epochs:
        assert max(other, head) > 1e-3


# The measure.


@pytest.mark.slow
def test_the_mean_accuracy_of_blind_students_is_1_in_k_and_scatters_as_their_orders_do(context):
    """The mean over runs, in units of the standard error that the orders of classes say."""
    runs = tuple(range(60))
    for values in (ELSEWHERE, MATCHED):
        setting = tiny(values)
        students = distil([setting], context, runs)
        accuracy = [row["accuracy"] for row in always(students, context).values()]
        rows = measured(students, ["commutation"], context)["commutation"].values()
        std = np.array([row["permuted_std"] for row in rows])
        z = (np.mean(accuracy) - 0.1) / np.sqrt(np.mean(std**2) / len(runs))
        assert abs(z) < 3
        # Each is one draw from the law of its orders: their squares have mean 1 in its units.
        assert 0.6 < np.mean(((np.array(accuracy) - 0.1) / std) ** 2) < 1.5
        assert all(row["tied"] < 0.01 for row in rows)


def test_ties_are_counted_and_accuracy_takes_the_first_of_them(context):
    """A student whose hidden layers are off has all class logits 0."""
    setting = tiny(ELSEWHERE)
    (key,), (student,) = zip(*distil([setting], context, (RUN,)).items(), strict=True)
    hidden = {
        index: {"kernel": np.zeros_like(layer["kernel"]), "bias": np.zeros_like(layer["bias"])}
        for index, layer in student.params["hidden"].items()
    }
    off = replace(student, params=student.params | {"hidden": hidden})
    values = measured({key: off}, ["commutation"], context)["commutation"][key]
    assert values["tied"] == 1
    assert values["permuted_std"] == pytest.approx(0, abs=1e-6)
    zeros = np.mean(context.dataset.test_labels == 0)
    assert always({key: off}, context)[key]["accuracy"] == pytest.approx(zeros)


def test_a_student_that_diverged_has_no_residual(context):
    steep = {"student.optimiser": "sgd", "student.learning_rate": 1e3}
    setting = tiny(ELSEWHERE | steep | {"student.loss": "squared_error", "student.epochs": 20})
    students = distil([setting], context, (RUN,))
    ((_, student),) = students.items()
    assert not np.isfinite(flat(student.params)).all()
    values = measured(students, ["commutation"], context)["commutation"][setting, RUN]
    assert values["commutation"] is None


def test_classes_are_put_in_order_by_columns_and_nothing_else_moves(context):
    student = distil([tiny(ELSEWHERE)], context, (RUN,))[tiny(ELSEWHERE), RUN]
    order = (*range(1, 10), 0)
    moved = with_classes(student.start, order)
    head, before = moved["class_head"], student.start["class_head"]
    np.testing.assert_array_equal(head["kernel"], before["kernel"][:, list(order)])
    np.testing.assert_array_equal(moved["aux_head"]["kernel"], student.start["aux_head"]["kernel"])
    assert with_classes(student.start, ()) is student.start
    assert class_readout(student.start).answers == tuple(range(10))
