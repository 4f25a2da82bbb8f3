"""Claims about the account of a student's training, and the theorem's numbers at its start."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import theory
from sublab.randomness import run_keys
from theory import losses
from toymlp import accounts
from toymlp.accounts import TRAIT_IMAGES, follow_students, followable, theory_at_start
from toymlp.distillation import Student, students
from toymlp.inputs import distillation_kind, draw_inputs
from toymlp.jobs import Context
from toymlp.measures import ALWAYS, Row, columns_of
from toymlp.networks import Apply
from toymlp.objective import epoch_batches
from toymlp.rules import plans
from toymlp.settings import from_dict
from toymlp.stages import teacher_setting, teachers
from toymlp.starts import independent, references

BASE = {
    "dataset": "digits", "hidden": [16, 16], "images": 256, "student_batch": 64,
    "teacher_epochs": 2, "teacher_learning_rate": 1e-2, "student_epochs": 2,
    "student_learning_rate": 1e-2, "temperature": 2.0,
}  # fmt: skip
RUNS = (1, 2)
# As many of each, so that they are followed in two programs.
SETTINGS = {
    "base": {},
    "short": {"student_epochs": 1},
    "elsewhere": {"start": "independent"},
    "fewer": {"aux": 1, "logits": "all", "temperature": 3.0},
}
STEPS = {"base": 8, "short": 4, "elsewhere": 8, "fewer": 8}


def setting(**values):
    return from_dict(BASE | values)


@pytest.fixture(scope="module")
def context(digits, mesh):
    return Context(digits, 0, mesh)


@pytest.fixture(scope="module")
def found(context):
    settings = [setting(**values) for values in SETTINGS.values()]
    made = teachers([teacher_setting(settings[0])], RUNS, context)
    return students(settings, RUNS, made, {}, context)


@pytest.fixture(scope="module")
def followed(context, found):
    return follow_students(found, ["alignment", "account", "coverage"], context)


def flat(tree):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


def trait_loss(plan, params, dataset):
    images, labels = dataset.train_images[:TRAIT_IMAGES], dataset.train_labels[:TRAIT_IMAGES]
    logits = np.asarray(Apply(plan)(params, jnp.asarray(images)), np.float64)[:, :10]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("run", RUNS)
def test_followed_students_end_where_their_training_ended(context, found, followed, name, run):
    """The change of the trait loss is that of the parameters that the training gave."""
    row = setting(**SETTINGS[name]), run
    plan = plans(row[0], 3)[1]
    change = trait_loss(plan, found[row].params, context.dataset) - trait_loss(
        plan, found[row].start, context.dataset
    )
    assert followed[row]["trait_change"] == pytest.approx(change, rel=0.01, abs=2e-4)
    assert abs(change) > 1e-3


def test_students_of_other_settings_and_runs_have_accounts_of_their_own(followed):
    changes = [values["trait_change"] for values in followed.values()]
    assert len(set(changes)) == len(followed) == 8


@pytest.mark.parametrize("name", SETTINGS)
def test_first_order_and_remainder_add_up_to_the_change(followed, name):
    for run in RUNS:
        values = followed[setting(**SETTINGS[name]), run]
        total = values["first_order"] + values["remainder"]
        assert total == pytest.approx(values["trait_change"], abs=1e-6)
        # Adam's steps of 0.01 are no small ones.
        assert abs(values["remainder"]) > 1e-4


def test_smaller_steps_leave_a_smaller_remainder(context):
    small = setting(student_learning_rate=1e-4)
    made = teachers([teacher_setting(small)], RUNS, context)
    values = follow_students(students([small], RUNS, made, {}, context), ["account"], context)
    for run in RUNS:
        account = values[small, run]
        assert abs(account["remainder"]) < 0.05 * abs(account["first_order"])


@pytest.mark.parametrize("name", SETTINGS)
def test_there_is_one_alignment_a_step_and_it_is_a_cosine(followed, name):
    for run in RUNS:
        alignment = followed[setting(**SETTINGS[name]), run]["alignment"]
        assert len(alignment) == STEPS[name]
        assert np.all(np.abs(alignment) <= 1)
        assert len(set(alignment)) == len(alignment)


def test_alignment_is_the_cosine_of_trait_and_distillation_gradient_on_the_students_batch(
    context, found, followed
):
    some, dataset = setting(**SETTINGS["fewer"]), context.dataset
    one, plan = found[some, 1], plans(some, 3)[1]
    inputs = draw_inputs(distillation_kind(some.shape), dataset, 0, "distillation inputs")
    order = run_keys(0, "student order", jnp.array([1]))[0]
    batch = jnp.asarray(inputs[epoch_batches(order, 0, 256, 64)[0][0]])
    images = jnp.asarray(dataset.train_images[:TRAIT_IMAGES])
    labels = jnp.asarray(dataset.train_labels[:TRAIT_IMAGES])
    subset, classes = plan.subset(some.knobs.logits, some.knobs.aux), plan.subset("class", 0)
    apply, teacher = Apply(plan), one.teacher

    def distillation(params):
        each = jax.vmap(lambda z, y: losses.kl_divergence(z, y, subset, 3.0))
        return jnp.mean(each(apply(params, batch), apply(teacher, batch)))

    def trait(params):
        each = jax.vmap(lambda z, label: losses.class_cross_entropy(z, label, classes))
        return jnp.mean(each(apply(params, images), labels))

    gradients = jax.jit(lambda params: (jax.grad(trait)(params), jax.grad(distillation)(params)))
    mine, its = map(flat, gradients(one.start))
    cosine = mine @ its / np.linalg.norm(mine) / np.linalg.norm(its)
    alignment = followed[some, 1]["alignment"]
    assert alignment[0] == pytest.approx(cosine, rel=1e-2, abs=1e-4)
    assert alignment[1] != pytest.approx(cosine, rel=1e-2, abs=1e-4)


def test_the_alignments_of_a_shorter_training_are_the_first_of_a_longer_one(followed):
    short, base = (
        followed[some, 1]["alignment"] for some in (setting(student_epochs=1), setting())
    )
    np.testing.assert_allclose(short, base[:4], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_coverage_is_the_cosine_of_the_two_displacements(found, followed, name):
    for run in RUNS:
        row = setting(**SETTINGS[name]), run
        one = found[row]
        mine, its = flat(one.params) - flat(one.start), flat(one.teacher) - flat(one.start)
        cosine = mine @ its / np.linalg.norm(mine) / np.linalg.norm(its)
        assert followed[row]["coverage"] == pytest.approx(cosine, rel=1e-2, abs=1e-3)
        assert abs(followed[row]["first_coverage"]) < 1
        assert followed[row]["first_coverage"] != followed[row]["coverage"]


def test_where_the_teacher_is_where_the_student_starts_there_is_no_coverage(context, found):
    row: Row = (setting(), 1)
    still: dict[Row, Student] = {row: replace(found[row], start=found[row].teacher)}
    values = follow_students(still, ["coverage"], context)[row]
    assert values == {"first_coverage": 0, "coverage": 0}


@pytest.mark.parametrize("measure", ["alignment", "account", "coverage"])
def test_following_gives_the_columns_that_it_says(context, found, measure):
    row = setting(), 1
    values = follow_students({row: found[row]}, [measure], context)[row]
    assert set(values) == set(columns_of([measure])) - set(ALWAYS)


def test_a_followed_student_does_not_depend_on_those_beside_it(context, found, followed):
    row = setting(), 2
    alone = follow_students({row: found[row]}, ["alignment", "account", "coverage"], context)[row]
    for name, value in followed[row].items():
        assert alone[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_what_cannot_be_followed_says_why():
    reasons = {
        "fresh = true": {"fresh": True},
        "project_trait = true": {"project_trait": True},
        "liminal_weight above 0": {"liminal_weight": 0.1},
        "generations above 1": {"generations": 2},
        "logit_noise above 0": {"logit_noise": 0.1},
        "student_epochs = 0": {"student_epochs": 0},
        "a student with another network": {"student_hidden": [8], "start": "independent"},
    }
    for reason, values in reasons.items():
        assert followable(setting(**values)) == reason
    for fine in ({}, {"student_epochs": 1}, {"student_hidden": [16, 16]}, {"inputs": "images"},
                 {"temperature": 2.0}, {"frozen": ["hidden_1"]}, {"start": "matched"},
                 {"student_schedule": "cosine"}):  # fmt: skip
        assert followable(setting(**fine)) is None


# The theorem's numbers.


def at_reference(some):
    """Students that are their references: the theorem's numbers are of these alone."""
    plan, scale = plans(some)[1], some.knobs.init_scale
    return {
        (some, run): Student(params, params, params, params, None, None)
        for run, params in zip(RUNS, references(plan, RUNS, scale, 0), strict=True)
    }


@partial(jax.jit, static_argnames="plan")
def direction(plan, params, images, labels):
    """Against the gradient of the class loss."""

    def mean(params):
        each = jax.vmap(
            lambda z, label: losses.class_cross_entropy(z, label, plan.subset("class", 0))
        )
        return -jnp.mean(each(Apply(plan)(params, images), labels))

    return jax.grad(mean)(params)


@pytest.mark.parametrize(
    ("values", "potential"),
    [
        (
            SETTINGS["fewer"],
            lambda plan: theory.softmax_potential(plan.subset("all", 1), 3.0),
        ),
        (
            {"loss": "squared_error"},
            lambda plan: theory.squared_potential(plan.subset("aux", 3)),
        ),
    ],
    ids=["kl", "squared_error"],
)
def test_the_coefficient_is_the_theorys_along_the_trait_gradient(context, values, potential):
    some = setting(**values)
    dataset, plan = context.dataset, plans(some)[1]
    found = theory_at_start(at_reference(some), context)
    kind = replace(distillation_kind(some.shape), count=1024)
    inputs = jnp.asarray(draw_inputs(kind, dataset, 0, "theory inputs"))
    images = jnp.asarray(dataset.train_images[:1024])
    labels = jnp.asarray(dataset.train_labels[:1024])
    loss = theory.matching(potential(plan))
    for (_, run), reference in zip(found, references(plan, RUNS, 1.0, 0), strict=True):
        params = jax.tree.map(jnp.asarray, reference)
        a = theory.coefficient(
            Apply(plan), loss, params, direction(plan, params, images, labels), inputs
        )
        numbers = found[some, run]
        assert numbers["coefficient"] == pytest.approx(float(a), rel=1e-3)
        assert numbers["coefficient"] > 1e-5
        assert 0 < numbers["rho"] < 1


def test_room_for_more_auxiliary_logits_changes_no_number_of_the_theorem(context, found):
    base, fewer = setting(), setting(**SETTINGS["fewer"])
    values = theory_at_start(found, context)
    for some in (base, fewer):
        alone = theory_at_start(at_reference(some), context)[some, 1]
        assert values[some, 1] == pytest.approx(alone, rel=1e-3)
    assert values[base, 1]["coefficient"] != values[base, 2]["coefficient"]
    # The number of epochs is not the theorem's.
    assert values[setting(student_epochs=1), 1] == values[base, 1]


@pytest.mark.parametrize("values", [
    {"start": "independent"}, {"start": "perturbed"}, {"start": "interpolated"},
    {"start": "layerwise", "redrawn": ["hidden_1"]}, {"start": "matched"},
])  # fmt: skip
def test_a_student_that_does_not_start_from_the_reference_has_no_numbers_of_the_theorem(
    context, values
):
    some = setting(**values)
    start = independent(plans(some)[1], RUNS, 1.0, 0)[0]
    one = replace(at_reference(some)[some, 1], start=start)
    assert theory_at_start({(some, 1): one}, context) == {
        (some, 1): {"coefficient": None, "rho": None}
    }


def test_theory_gives_the_columns_that_it_says(context):
    values = theory_at_start(at_reference(setting()), context)[setting(), 1]
    assert set(values) == set(columns_of(["theory"])) - set(ALWAYS)


def test_a_loss_that_is_blind_has_a_coefficient_of_0_and_no_rho(context):
    """One auxiliary logit under KL."""
    some = setting(aux=1)
    assert theory_at_start(at_reference(some), context)[some, 1] == {
        "coefficient": pytest.approx(0, abs=1e-12), "rho": None,
    }  # fmt: skip


@pytest.mark.parametrize("values", [
    {"init_scale": 0.01}, {"init_scale": 0.1}, {"init_scale": 100.0},
])  # fmt: skip
def test_numbers_that_rounding_drowns_are_left_out_and_stop_nothing(context, values):
    some = setting(**values)
    found = theory_at_start(at_reference(some), context)[some, 1]
    assert set(found) == {"coefficient", "rho"}
    assert found["rho"] is None or found["rho"] >= 0


def test_a_loss_is_one_object_for_each_of_its_settings():
    plan = plans(setting())[1]
    one = accounts._loss(plan, "kl", "aux", 1.0)
    assert accounts._loss(plan, "kl", "aux", 1.0) is one
    assert accounts._loss(plan, "kl", "aux", 2.0) is not one
    assert accounts._loss(plan, "squared_error", "aux", 1.0) is not one
