"""Claims about the forecast of a student: by dense linear algebra, where it applies, at rest."""

from dataclasses import replace

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from tests.toymlp.trials import RUN, cosine, distil, tiny
from toymlp import forecast
from toymlp.forecast import COLUMNS, ITERATIONS, covered
from toymlp.inputs import draw_inputs
from toymlp.measures import always, measured
from toymlp.networks import Forward, architectures
from toymlp.stages import Draws, Student

FEW = {"student.inputs.count": 32, "student.batch": 8, "student.epochs": 15}
# One population, with room for three auxiliary logits; the losses see other logits each.
SEEN = {
    "aux": {},
    "all": {"model.aux": 1, "student.logits": "all", "student.loss.temperature": 3.0},
    "class": {"model.aux": 2, "student.logits": "class"},
}
SETTINGS = {name: tiny(FEW | values) for name, values in SEEN.items()}
BASE = SETTINGS["aux"]
_, NETWORK = architectures(BASE)
SQUARED = tiny(FEW | {"model.aux": 1, "student.loss": "squared_error"})


def moved(params, number):
    return jax.tree.map(lambda leaf: np.full_like(leaf, number), params)


@pytest.fixture(scope="module")
def students(context):
    return distil(list(SETTINGS.values()), context, (RUN,))


@pytest.fixture(scope="module")
def odd(students):
    """Students of one setting whose training came to an end out of the ordinary."""
    student = students[BASE, RUN]
    cases = {
        "untrained": replace(student, params=student.start),
        "is its teacher": replace(student, params=student.teacher),
        "worse than its start": replace(
            student,
            params=jax.tree.map(lambda a, b: 3 * a - 2 * b, student.start, student.teacher),
        ),
        "diverged": replace(student, params=moved(student.params, np.nan)),
        "of an untrained teacher": replace(student, teacher=student.start),
        "of a diverged teacher": replace(student, teacher=moved(student.teacher, np.nan)),
    }
    return {name: (2 + number, case) for number, (name, case) in enumerate(cases.items())}


@pytest.fixture(scope="module")
def values(context, students, odd):
    """The forecasts of all students by name, from one call."""
    keys = {name: (setting, RUN) for name, setting in SETTINGS.items()}
    keys |= {name: (BASE, run) for name, (run, _) in odd.items()}
    everyone = students | {(BASE, run): student for run, student in odd.values()}
    found = measured(everyone, ["forecast"], context)["forecast"]
    return {name: found[key] for name, key in keys.items()}


def seen_by(setting, network):
    """The projection off the null space of the setting's loss, as a matrix."""
    chosen = np.asarray(network.subset(setting.student.logits, setting.model.aux))
    centre = np.diag(chosen.astype(float))
    return centre if setting == SQUARED else centre - np.outer(chosen, chosen) / chosen.sum()


class Dense:
    """The linearised network of one student as a matrix, in float64."""

    def __init__(self, setting, student, network, context):
        self.apply, self.student = Forward(network), student
        dataset, self.labels = context.dataset, context.dataset.test_labels
        inputs = jnp.asarray(
            draw_inputs(setting.student.inputs, dataset, context.seed, "distillation inputs")
        )
        self.images = jnp.asarray(dataset.test_images)
        vector, self.unravel = jax.flatten_util.ravel_pytree(student.start)
        self.start = np.asarray(vector, np.float64)
        self.delta, self.way = (
            np.asarray(jax.flatten_util.ravel_pytree(params)[0], np.float64) - self.start
            for params in (student.teacher, student.params)
        )
        centre = seen_by(setting, network)
        logits = jax.jit(lambda vector: self.apply(self.unravel(vector), inputs))
        self.jacobian = self.rows(np.asarray(jax.jit(jax.jacrev(logits))(vector)), centre)
        ends = (self.start, self.start + self.delta, self.start + self.way)
        f_0, f_t, f_s = (
            self.rows(np.asarray(logits(jnp.float32(end)))[..., None], centre)[:, 0] for end in ends
        )
        self.labels_target, self.linear_target = f_t - f_0, self.jacobian @ self.delta
        self.residual = np.linalg.norm(f_s - f_t) / np.linalg.norm(f_0 - f_t)

    @staticmethod
    def rows(logits, centre):
        seen = np.einsum("ij,njp->nip", centre, logits.astype(np.float64))
        return seen.reshape(-1, seen.shape[-1])

    def least_squares(self, *targets):
        """The shortest solution for each target."""
        return np.linalg.lstsq(self.jacobian, np.stack(targets, 1), rcond=1e-6)[0].T

    def conjugate_gradients(self, target):
        """The solutions of CGLS after each iteration, as many as have the residual it stops at."""
        j, v, r = self.jacobian, np.zeros_like(self.start), target.copy()
        p = g = j.T @ r
        for number in range(ITERATIONS + 1):
            if np.linalg.norm(r) <= self.residual * np.linalg.norm(target):
                return v, number
            step = (g @ g) / np.sum((j @ p) ** 2)
            v, r = v + step * p, r - step * (j @ p)
            new = j.T @ r
            p, g = new + (new @ new) / (g @ g) * p, new
        raise AssertionError

    def accuracy(self, way):
        return self._right(self.apply(self.unravel(jnp.float32(self.start + way)), self.images))

    def linear_accuracy(self, way):
        first, change = jax.jvp(
            lambda vector: self.apply(self.unravel(vector), self.images),
            (jnp.float32(self.start),),
            (jnp.float32(way),),
        )
        return self._right(first + change)

    def _right(self, logits):
        return np.mean(np.argmax(np.asarray(logits)[:, :10], 1) == self.labels)


def assert_as_dense(numbers, dense):
    # An image may lie on the border of two classes to rounding.
    near = 2.5 / len(dense.labels)
    way, count = dense.conjugate_gradients(dense.linear_target)
    assert numbers["student_residual"] == pytest.approx(dense.residual, rel=1e-4)
    assert numbers["forecast_iterations"] == count > 1
    assert numbers["forecast"] == pytest.approx(dense.accuracy(way), abs=near)
    assert numbers["linear_forecast"] == pytest.approx(dense.linear_accuracy(way), abs=near)
    length = dense.delta @ dense.delta
    assert numbers["passed"] == pytest.approx(way @ way / length, rel=1e-3)
    assert numbers["forecast_cosine"] == pytest.approx(cosine(way, dense.way), rel=1e-3)
    rest, labelled_rest = dense.least_squares(dense.linear_target, dense.labels_target)
    assert numbers["passed_at_rest"] == pytest.approx(rest @ rest / length, rel=1e-2)
    assert numbers["forecast_at_rest"] == pytest.approx(dense.accuracy(rest), abs=near)
    labelled, _ = dense.conjugate_gradients(dense.labels_target)
    assert numbers["label_forecast"] == pytest.approx(dense.accuracy(labelled), abs=near)
    at_rest = dense.accuracy(labelled_rest)
    assert numbers["label_forecast_at_rest"] == pytest.approx(at_rest, abs=near)
    apart = np.linalg.norm(dense.labels_target - dense.linear_target)
    light = apart / np.linalg.norm(dense.labels_target)
    assert numbers["nonlinearity"] == pytest.approx(light, rel=1e-3)
    assert numbers["linear_teacher"] == pytest.approx(dense.linear_accuracy(dense.delta), abs=near)


@pytest.mark.parametrize("name", SEEN)
def test_the_forecasts_are_those_of_a_pseudo_inverse_and_the_stop_that_of_dense_iterations(
    context, students, values, name
):
    """Of each loss's own logits, beside others, in a head with room for more."""
    dense = Dense(SETTINGS[name], students[SETTINGS[name], RUN], NETWORK, context)
    assert 0.01 < dense.residual < 0.9
    assert_as_dense(values[name], dense)


def test_with_squared_error_one_logit_is_seen_as_it_is(context):
    students = distil([SQUARED], context, (RUN,))
    numbers = measured(students, ["forecast"], context)["forecast"][SQUARED, RUN]
    network = architectures(SQUARED)[1]
    assert_as_dense(numbers, Dense(SQUARED, students[SQUARED, RUN], network, context))


@pytest.mark.parametrize("name", ["all"])
def test_room_for_more_auxiliary_logits_changes_nothing(context, values, name):
    setting = SETTINGS[name]
    narrow = measured(distil([setting], context, (RUN,)), ["forecast"], context)["forecast"]
    for column, value in narrow[setting, RUN].items():
        size = 2.5 / len(context.dataset.test_labels) if COLUMNS[column].share else 0
        assert values[name][column] == pytest.approx(value, rel=1e-2, abs=size), column


def test_a_linear_student_trained_to_rest_is_where_the_forecast_is(context):
    setting = tiny(
        {
            "model.hidden": [],
            "student.inputs.count": 16,
            "student.batch": 16,
            "student.epochs": 300,
            "student.optimiser": "sgd",
            "student.learning_rate": 0.3,
            "student.loss": "squared_error",
            "student.logits": "class",
        }
    )
    students = distil([setting], context, (RUN,))
    numbers = measured(students, ["forecast"], context)["forecast"][setting, RUN]
    accuracies = always(students, context)[setting, RUN]
    near = 1.5 / len(context.dataset.test_labels)
    assert numbers["student_residual"] < 1e-4
    assert numbers["nonlinearity"] < 1e-4
    assert numbers["forecast_cosine"] == pytest.approx(1, abs=1e-4)
    assert 0.05 < numbers["passed"] < 0.8
    assert accuracies["start_accuracy"] + 0.05 < accuracies["accuracy"]
    for name in ("forecast", "forecast_at_rest", "label_forecast", "linear_forecast"):
        assert numbers[name] == pytest.approx(accuracies["accuracy"], abs=near), name
    assert numbers["linear_teacher"] == pytest.approx(accuracies["teacher_accuracy"], abs=near)


def test_a_student_that_learnt_nothing_is_forecast_to_be_its_start(context, odd, values):
    start = {
        key: numbers["start_accuracy"]
        for key, numbers in always(
            {(BASE, run): student for run, student in odd.values()}, context
        ).items()
    }
    for name in ("untrained", "worse than its start"):
        numbers = values[name]
        assert numbers["student_residual"] >= 1
        assert numbers["forecast_iterations"] == numbers["passed"] == 0
        for forecasts in ("forecast", "label_forecast", "linear_forecast"):
            assert numbers[forecasts] == start[BASE, odd[name][0]]
        assert numbers["forecast_at_rest"] == values["aux"]["forecast_at_rest"]


def test_a_student_that_is_its_teacher_is_forecast_at_rest(values):
    numbers = values["is its teacher"]
    assert numbers["student_residual"] == 0
    assert numbers["forecast_iterations"] > values["aux"]["forecast_iterations"]
    for name in ("forecast", "label_forecast", "passed"):
        at_rest = f"{name}_at_rest"
        assert numbers[name] == numbers[at_rest] == values["aux"][at_rest]


def test_a_student_that_diverged_has_the_forecasts_that_do_not_ask_it(values):
    numbers = values["diverged"]
    asked = {"student_residual", *forecast._OF_THE_STUDENT}
    assert {name for name, value in numbers.items() if value is None} == asked
    for name in COLUMNS.keys() - asked:
        assert numbers[name] == values["aux"][name]


def test_of_a_teacher_that_is_its_start_or_nowhere_there_is_nothing_to_forecast(values):
    numbers = values["of an untrained teacher"]
    assert numbers["student_residual"] is numbers["forecast"] is None
    assert numbers["passed_at_rest"] == 0
    assert numbers["forecast_at_rest"] == numbers["label_forecast_at_rest"]
    assert set(values["of a diverged teacher"].values()) == {None}


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"start": "independent"},
        {"start": "perturbed"},
        {"start": "interpolated"},
        {"start": "matched"},
        {"start": "independent", "student_model.hidden": [8]},
        {"student.inputs.fresh": True},
        {"student.logit_noise": 0.1},
        {"interventions.liminal.weight": 0.1},
        {"interventions.project_trait": True},
        {"student.frozen": ["hidden_1"]},
        {"start.trained": ["class_head"]},
        {"student.optimiser": "adamw"},
        {"student.inputs.per_run": True},
        {"chain.generations": 2},
    ],
)
def test_what_the_projection_does_not_speak_of_has_no_forecast(context, elsewhere):
    setting = tiny(elsewhere)
    assert covered(tiny())
    assert not covered(setting)
    params = Draws(architectures(setting)[1], 0).reference(1.0, RUN)
    student = Student(params, params, params, params, None, None)
    found = measured({(setting, RUN): student}, ["forecast"], context)["forecast"]
    assert found == {(setting, RUN): dict.fromkeys(COLUMNS)}


def test_those_that_have_a_forecast_have_it_beside_those_that_have_none(context, students, values):
    other = tiny(FEW | {"start": "independent"})
    mixed = {(other, RUN): students[BASE, RUN], (BASE, RUN): students[BASE, RUN]}
    found = measured(mixed, ["forecast"], context)["forecast"]
    assert found[other, RUN] == dict.fromkeys(COLUMNS)
    assert found[BASE, RUN] == values["aux"]


def test_the_rule_that_stops_the_forecast_does_not_look_at_the_trait(context, students, values):
    """With other labels the iteration is the same, and only the accuracies are others."""
    labels = (context.dataset.test_labels + 1) % 10
    elsewhere = replace(context, dataset=replace(context.dataset, test_labels=labels))
    found = measured({(BASE, RUN): students[BASE, RUN]}, ["forecast"], elsewhere)["forecast"]
    for name, value in found[BASE, RUN].items():
        counted = name in forecast._COUNTED
        assert (value != values["aux"][name]) == counted, name
