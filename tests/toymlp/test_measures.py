"""Claims about what is measured of a student: behaviour, features, weights, account, theory."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import theory
from tests.toymlp.trials import MATCHED, RUN, RUNS, Poisson, cosine, distil, flat, tiny
from theory import losses
from toymlp import measures, registry
from toymlp.inputs import draw_inputs, held_out_inputs
from toymlp.measures import (
    ALWAYS,
    MEASURES,
    always,
    columns_of,
    followable,
    linear_cka,
    masked_kl,
    mean_cosine,
    measured,
)
from toymlp.networks import Forward, architectures, split_parts
from toymlp.objective import KL, SquaredError
from toymlp.stages import Draws, Student, TrainedModel, orders_of
from toymlp.train import accuracy, epoch_batches

RANDOM = np.random.default_rng(0)
FOLLOWED = [name for name, measure in MEASURES.items() if measure.follows]
REPEATED = [name for name, measure in MEASURES.items() if measure.repeats]
BEHAVIOUR = [name for name in MEASURES if name not in (*FOLLOWED, *REPEATED, "theory", "forecast")]
# One population: all have room for three auxiliary logits.
STUDENTS = {
    "base": {},
    "short": {"student.epochs": 1},
    "elsewhere": {"start": "independent", "model.aux": 2},
    "fewer": {"model.aux": 1, "student.logits": "all", "student.loss.temperature": 3.0},
}
STEPS = {"base": 8, "short": 4, "elsewhere": 8, "fewer": 8}
BASE, ELSEWHERE, FEWER = (tiny(STUDENTS[name]) for name in ("base", "elsewhere", "fewer"))
_, NETWORK = architectures(BASE)


@pytest.fixture(scope="module")
def students(context):
    return distil([tiny(values) for values in STUDENTS.values()], context)


def behaviour(students, context, names=BEHAVIOUR):
    """The columns of every student and those of `names`, by student."""
    values = always(students, context)
    for columns in measured(students, names, context).values():
        values = {key: values[key] | columns[key] for key in values}
    return values


@pytest.fixture(scope="module")
def behaved(context, students):
    return behaviour(students, context)


@pytest.fixture(scope="module")
def followed(context, students):
    by_measure = measured(students, FOLLOWED, context)
    return {
        key: {name: value for values in by_measure.values() for name, value in values[key].items()}
        for key in students
    }


def as_its_teacher(student):
    return replace(student, params=student.teacher, start=student.reference)


def cka(x, y) -> float:
    value = linear_cka(x, y)
    assert value is not None
    return value


def logits(params, images, network=NETWORK):
    return np.asarray(Forward(network)(params, jnp.asarray(images)))


# Numbers of two sets of features.


def test_cka_of_a_rotation_and_a_shift_and_a_scale_is_1_and_of_another_map_less():
    x = RANDOM.normal(size=(500, 6)) * [5, 3, 1, 1, 1, 0.5]
    rotation = stats.ortho_group.rvs(6, random_state=0)
    assert cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    assert cka(x, x) == pytest.approx(1)
    assert cka(x, x * [0.1, 1, 1, 1, 1, 1]) < 0.9


def test_cka_of_independent_noise_is_near_0_and_it_takes_any_two_widths():
    x, y = RANDOM.normal(size=(4000, 5)), RANDOM.normal(size=(4000, 9))
    assert cka(x, y) < 0.01
    assert cka(x, np.hstack([x, y])) == pytest.approx(5 / (5 * 14) ** 0.5, abs=0.02)
    assert cka(x, y) == pytest.approx(cka(y, x))


def test_cka_is_hilbert_schmidts_independence_of_centred_kernels():
    x, y = RANDOM.normal(size=(40, 3)), RANDOM.normal(size=(40, 4))
    y[:, 0] += x[:, 0]
    centre = np.eye(40) - 1 / 40
    kernels = [centre @ side @ side.T @ centre for side in (x, y)]
    lengths = np.prod([np.linalg.norm(kernel) for kernel in kernels])
    assert cka(x, y) == pytest.approx(np.sum(kernels[0] * kernels[1]) / lengths)


def test_there_is_no_cka_with_constant_features():
    x = RANDOM.normal(size=(50, 3))
    for constant in (np.zeros((50, 2)), np.full((50, 2), 3.0)):
        assert linear_cka(x, constant) is None
        assert linear_cka(constant, x) is None


def test_the_mean_cosine_is_over_examples_and_0_where_one_of_the_two_is_0():
    x = RANDOM.normal(size=(50, 4))
    scale = RANDOM.uniform(1, 9, (50, 1))
    assert mean_cosine(x, scale * x) == pytest.approx(1)
    assert mean_cosine(x, -scale * x) == pytest.approx(-1)
    assert mean_cosine(np.eye(3), np.eye(3)[[1, 2, 0]]) == 0
    assert mean_cosine(np.ones((2, 2)), np.array([[1.0, 1.0], [0.0, 0.0]])) == pytest.approx(0.5)
    assert mean_cosine(np.ones((2, 2)), np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(
        0.5**0.5
    )


def test_there_is_no_mean_cosine_of_other_widths():
    assert mean_cosine(np.ones((5, 3)), np.ones((5, 4))) is None


def test_masked_kl_is_the_kl_of_the_softmax_over_the_subset_alone():
    student, teacher = (RANDOM.normal(size=(20, 6)).astype(np.float32) for _ in range(2))
    subset = np.array([True, False, True, True, False, False])
    p, q = (special.softmax(side[:, subset].astype(float), axis=1) for side in (teacher, student))
    by_scipy = special.rel_entr(p, q).sum(1).mean()
    assert masked_kl(student, teacher, subset) == pytest.approx(by_scipy)
    assert masked_kl(teacher, student, subset) != pytest.approx(by_scipy)
    # What is outside the subset is not looked at, and a shift of all within it changes nothing.
    other = student + np.where(subset, 5, RANDOM.normal(size=6)).astype(np.float32)
    assert masked_kl(other, teacher, subset) == pytest.approx(by_scipy, rel=1e-5)
    assert masked_kl(teacher, teacher, subset) == 0
    # Logits that overflow exp.
    assert np.isfinite(masked_kl(1e4 * student, 1e4 * teacher, subset))


def test_a_linear_probe_finds_separable_classes_and_nothing_in_random_labels():
    labels = RANDOM.integers(0, 4, 800).astype(np.int32)
    features = 3 * np.eye(4)[labels] @ RANDOM.normal(size=(4, 10)) + 100
    features += 0.1 * RANDOM.normal(size=features.shape)

    def probe(truth):
        fitted = measures._ridge(features[:600], np.eye(4)[truth[:600]], features[600:])
        return accuracy(fitted, truth[600:], 4)

    assert probe(labels) > 0.99
    assert abs(probe(RANDOM.permutation(labels)) - 0.25) < 0.15


def test_a_probe_of_features_without_variance_guesses_the_commonest_class():
    labels = np.array([0] * 10 + [1] * 30)
    fitted = measures._ridge(np.ones((40, 3)), np.eye(2)[labels], np.ones((5, 3)))
    np.testing.assert_allclose(fitted, [[0.25, 0.75]] * 5)


# Of students.


def test_a_student_that_is_its_teacher_agrees_with_it_in_everything(context, students):
    teachers = {key: as_its_teacher(student) for key, student in students.items() if key[0] == BASE}
    for values in behaviour(teachers, context).values():
        assert values["agreement"] == 1
        assert values["aux_kl"] == 0
        assert values["distance"] == values["start_distance"] == 0
        assert values["accuracy"] == values["teacher_accuracy"] > 0.7
        assert values["cka"] == pytest.approx([1, 1])
        for name in ("feature_cosine", "start_feature_cosine"):
            assert values[name] == pytest.approx([1, 1])
        assert values["weight_cosine"] == pytest.approx([1, 1, 1, 1])


def test_a_student_of_the_reference_is_nearer_to_its_teacher_than_one_that_starts_elsewhere(
    behaved,
):
    for run in RUNS:
        near, far = behaved[BASE, run], behaved[ELSEWHERE, run]
        assert near["distance"] < far["distance"]
        assert 0 == near["start_distance"] < far["start_distance"]
        assert near["start_feature_cosine"] == pytest.approx([1, 1])
        assert near["cka"][-1] > far["cka"][-1]
        for name in ("feature_cosine", "weight_cosine"):
            assert all(a > b for a, b in zip(near[name], far[name], strict=True))
        assert max(abs(value) for value in far["weight_cosine"]) < 0.6
        assert near["start_accuracy"] < near["teacher_accuracy"] > 0.7
        assert far["agreement"] < 0.6


def test_accuracies_losses_and_agreement_are_those_of_the_test_images(context, students, behaved):
    images, labels = context.dataset.test_images, context.dataset.test_labels
    columns = {"params": "accuracy", "start": "start_accuracy", "teacher": "teacher_accuracy"}
    for key, student in students.items():
        scores = {name: logits(getattr(student, name), images)[:, :10] for name in columns}
        values = behaved[key]
        classes = {name: score.argmax(1) for name, score in scores.items()}
        # A class or two may be a tie to rounding.
        for name, column in columns.items():
            assert values[column] == pytest.approx(np.mean(classes[name] == labels), abs=0.006)
        same = np.mean(classes["params"] == classes["teacher"])
        assert values["agreement"] == pytest.approx(same, abs=0.006)
        chosen = special.log_softmax(scores["params"], axis=1)[np.arange(len(labels)), labels]
        assert values["trait_loss"] == pytest.approx(-chosen.mean(), rel=1e-3)
        assert values["final_loss"] == student.loss
        assert values["clone_loss"] is values["clone_kl"] is None


def test_aux_kl_is_over_a_models_own_auxiliary_logits_on_inputs_it_was_not_trained_on(
    context, students, behaved
):
    unseen = held_out_inputs(BASE.student.inputs, context.dataset, 0, "distillation inputs")
    for setting, aux in ((BASE, 3), (ELSEWHERE, 2)):
        student = students[setting, RUN]
        subset = np.arange(13) >= 10
        subset[10 + aux :] = False
        expected = masked_kl(
            logits(student.params, unseen), logits(student.teacher, unseen), subset
        )
        assert behaved[setting, RUN]["aux_kl"] == pytest.approx(expected, rel=1e-3)
    assert behaved[BASE, RUN]["aux_kl"] > 0


def dead(params):
    hidden = {index: dict(layer) for index, layer in params["hidden"].items()}
    hidden[1] |= {"bias": hidden[1]["bias"] - 1000}
    return params | {"hidden": hidden}


def test_a_probe_of_a_trained_network_reads_the_classes_off_its_last_layer(context, students):
    trained, other = students[BASE, 0], students[BASE, 1]
    rows = {
        (BASE, 0): as_its_teacher(trained),
        (BASE, 1): replace(other, params=dead(other.params)),
    }
    values = behaviour(rows, context, ["probe"])
    assert values[BASE, 0]["probe"] > 0.8
    # Of a network whose last layer is dead there is nothing to be read: all are the same class.
    commonest = np.bincount(context.dataset.train_labels).argmax()
    guess = np.mean(context.dataset.test_labels == commonest)
    assert values[BASE, 1]["probe"] == pytest.approx(guess)


def test_cka_of_a_dead_layer_is_none_and_its_cosine_0(context, students):
    student = students[BASE, RUN]
    rows = {(BASE, RUN): replace(student, params=dead(student.params))}
    values = behaviour(rows, context, ["cka", "feature_cosine"])[BASE, RUN]
    assert values["cka"][0] > 0.3
    assert values["cka"][1] is None
    assert values["feature_cosine"][1] == 0


def test_weight_cosine_and_distance_are_those_of_the_arrays(context, students, behaved):
    student, values = students[BASE, RUN], behaved[BASE, RUN]
    trained, teacher = split_parts(student.params), split_parts(student.teacher)
    by_hand = [cosine(trained[name], teacher[name]) for name in NETWORK.parts]
    assert values["weight_cosine"] == pytest.approx(by_hand, rel=1e-4)
    apart = np.linalg.norm(flat(student.params) - flat(student.teacher))
    assert values["distance"] == pytest.approx(apart, rel=1e-4)
    # Known trees: a step of 3 along one weight and 4 along another.
    moved = jax.tree.map(np.copy, student.teacher)
    moved["class_head"]["kernel"][0, 0] += 3
    moved["hidden"][0]["bias"][5] += 4
    opposite = moved | {"aux_head": jax.tree.map(np.negative, moved["aux_head"])}
    rows = {
        (BASE, 0): replace(student, params=moved),
        (BASE, 1): replace(student, params=opposite),
    }
    values = behaviour(rows, context, ["distance", "weight_cosine"])
    assert values[BASE, 0]["distance"] == pytest.approx(5)
    assert values[BASE, 0]["weight_cosine"][1::2] == pytest.approx([1, 1])
    assert values[BASE, 0]["weight_cosine"][0] < 0.99
    assert values[BASE, 1]["weight_cosine"][3] == pytest.approx(-1)


def test_there_is_no_distance_to_a_teacher_of_another_size_and_no_cosine_of_such_parts(context):
    """A CNN, which has three hidden layers, and a perceptron with two."""
    setting = tiny(
        {
            "student_model.network": "cnn",
            "start": "independent",
            "student.epochs": 1,
        }
    )
    for values in behaviour(distil([setting], context, (RUN,)), context).values():
        assert values["distance"] is values["start_distance"] is None
        assert values["weight_cosine"][:3] == [None] * 3
        assert all(-1 < value < 1 for value in values["weight_cosine"][3:])
        assert len(values["weight_cosine"]) == 5
        # As many layers as both have, whatever their widths.
        assert values["feature_cosine"] == values["start_feature_cosine"] == [None, None]
        assert len(values["cka"]) == 2
        assert all(0 < value < 1 for value in values["cka"])
        assert 0.1 < values["probe"] < 1
        assert 0 <= values["agreement"] < 1
        assert values["aux_kl"] > 0


@pytest.fixture(scope="module")
def linear(context):
    """Students that are their references, and have no hidden layer."""
    heads = {
        name: {
            "kernel": RANDOM.normal(size=(64, outputs)).astype(np.float32),
            "bias": RANDOM.normal(size=outputs).astype(np.float32),
        }
        for name, outputs in (("class_head", 10), ("aux_head", 3))
    }
    rows = {(tiny(model__hidden=[]), RUN): Student(heads, heads, heads, heads, None, None)}
    return behaviour(rows, context)


@pytest.mark.parametrize("measure", BEHAVIOUR)
def test_a_linear_model_can_be_measured_in_every_way(linear, measure):
    """Where a measure is about hidden layers, there is nothing to be said."""
    nothing = {"probe": None, "cka": [], "feature_cosine": []}
    for values in linear.values():
        assert set(MEASURES[measure].columns) <= set(values)
        assert values["accuracy"] == values["teacher_accuracy"] < 0.5
        if measure in nothing:
            assert values[measure] == nothing[measure]
        if measure == "weight_cosine":
            assert values[measure] == pytest.approx([1, 1])
        if measure == "distance":
            assert values["distance"] == values["start_distance"] == 0


def test_a_clones_numbers_are_in_the_table(context, students):
    student = replace(students[BASE, RUN], clone=TrainedModel({}, 0.5, 0.25))
    values = always({(BASE, RUN): student}, context)[BASE, RUN]
    assert (values["clone_loss"], values["clone_kl"]) == (0.5, 0.25)


def test_a_model_that_several_students_share_is_asked_once(context, students, monkeypatch):
    counts = []
    logits_of = registry.logits_of

    def counted(apply, models, inputs, mesh):
        counts.append(len(models))
        return logits_of(apply, models, inputs, mesh)

    monkeypatch.setattr(registry, "logits_of", counted)
    student = students[BASE, RUN]
    values = always({(BASE, 0): student, (BASE, 1): student}, context)
    assert counts == [1, 1, 1]
    assert values[BASE, 0] == values[BASE, 1]
    counts.clear()
    always({key: other for key, other in students.items() if key[0] == BASE}, context)
    assert counts == [2, 2, 2]


def test_a_students_numbers_do_not_depend_on_the_students_beside_it(context, students, behaved):
    alone = behaviour({(BASE, RUN): students[BASE, RUN]}, context)[BASE, RUN]
    assert set(alone) == set(behaved[BASE, RUN])
    for name, value in behaved[BASE, RUN].items():
        if value is not None:
            assert alone[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


# Columns.


@pytest.mark.parametrize("measure", MEASURES)
def test_a_measure_gives_the_columns_that_it_says(context, students, measure):
    values = measured({(BASE, RUN): students[BASE, RUN]}, [measure], context)
    assert set(values) == {measure}
    assert set(values[measure][BASE, RUN]) == set(MEASURES[measure].columns)
    assert set(MEASURES[measure].columns) == set(columns_of([measure])) - set(ALWAYS)


def test_every_student_has_the_columns_that_all_have(behaved):
    for values in behaved.values():
        assert set(ALWAYS) <= set(values)


def test_every_column_of_every_measure_is_explained_once():
    columns = columns_of(list(MEASURES))
    assert len(columns) == len(ALWAYS) + sum(len(measure.columns) for measure in MEASURES.values())
    for about in columns.values():
        assert about.help.strip() == about.help != ""
        assert not about.help.endswith(".")
    assert columns_of([]) == ALWAYS
    assert {name: measure.name for name, measure in MEASURES.items()} == dict(
        zip(MEASURES, MEASURES, strict=True)
    )


def test_lists_and_shares_are_marked_as_such(behaved, followed):
    columns = columns_of(list(MEASURES))
    for values in (behaved[BASE, RUN], followed[BASE, RUN]):
        for name, value in values.items():
            assert isinstance(value, list) == columns[name].many, name
            if columns[name].share:
                assert 0 <= value <= 1


# Following a student's training.


def trait_loss(params, dataset):
    images, labels = dataset.train_images[:512], dataset.train_labels[:512]
    log_p = special.log_softmax(logits(params, images)[:, :10].astype(np.float64), axis=1)
    return -log_p[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("run", RUNS)
def test_followed_students_end_where_their_training_ended(context, students, followed, name, run):
    """The change of the trait loss is that of the parameters that the training gave."""
    key = tiny(STUDENTS[name]), run
    student = students[key]
    change = trait_loss(student.params, context.dataset) - trait_loss(
        student.start, context.dataset
    )
    assert followed[key]["trait_change"] == pytest.approx(change, rel=0.01, abs=5e-5)
    assert abs(change) > 5e-4


def test_students_of_other_settings_and_runs_have_accounts_of_their_own(followed):
    changes = [values["trait_change"] for values in followed.values()]
    assert len(set(changes)) == len(followed) == 8


@pytest.mark.parametrize("name", STUDENTS)
def test_first_order_and_remainder_add_up_to_the_change(followed, name):
    for run in RUNS:
        values = followed[tiny(STUDENTS[name]), run]
        total = values["first_order"] + values["remainder"]
        assert total == pytest.approx(values["trait_change"], abs=1e-6)
        # Adam's steps of 0.01 are no small ones.
        assert abs(values["remainder"]) > 1e-4


def test_smaller_steps_leave_a_smaller_remainder(context):
    small = tiny({"student.learning_rate": 1e-4})
    values = measured(distil([small], context), ["account"], context)["account"]
    for run in RUNS:
        account = values[small, run]
        assert abs(account["remainder"]) < 0.05 * abs(account["first_order"])


@pytest.mark.parametrize("name", STUDENTS)
def test_there_is_one_alignment_a_step_and_it_is_a_cosine(followed, name):
    for run in RUNS:
        alignment = followed[tiny(STUDENTS[name]), run]["alignment"]
        assert len(alignment) == STEPS[name]
        assert np.all(np.abs(alignment) <= 1)
        assert len(set(alignment)) == len(alignment)


def test_alignment_is_the_cosine_of_trait_and_distillation_gradient_on_the_students_batch(
    context, students, followed
):
    student, dataset = students[FEWER, RUN], context.dataset
    inputs = draw_inputs(FEWER.student.inputs, dataset, 0, "distillation inputs")
    order = orders_of(FEWER, "student order", [RUN], 0)[RUN]
    batch = jnp.asarray(inputs[epoch_batches(order, 0, 256, 64)[0][0]])
    images, labels = dataset.train_images[:512], dataset.train_labels[:512]
    subset, classes = NETWORK.subset("all", 1), NETWORK.subset("class", 0)
    apply, teacher = Forward(NETWORK), student.teacher

    def distillation(params):
        each = jax.vmap(lambda z, y: losses.kl_divergence(z, y, subset, 3.0))
        return jnp.mean(each(apply(params, batch), apply(teacher, batch)))

    def trait(params):
        each = jax.vmap(lambda z, label: losses.class_cross_entropy(z, label, classes))
        return jnp.mean(each(apply(params, jnp.asarray(images)), jnp.asarray(labels)))

    gradients = jax.jit(lambda params: (jax.grad(trait)(params), jax.grad(distillation)(params)))
    by_hand = cosine(*gradients(student.start))
    alignment = followed[FEWER, RUN]["alignment"]
    assert alignment[0] == pytest.approx(by_hand, rel=1e-2, abs=1e-4)
    assert alignment[1] != pytest.approx(by_hand, rel=1e-2, abs=1e-4)


def test_the_alignments_of_a_shorter_training_are_the_first_of_a_longer_one(followed):
    short, long = (followed[tiny(STUDENTS[name]), RUN]["alignment"] for name in ("short", "base"))
    np.testing.assert_allclose(short, long[:4], rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", STUDENTS)
def test_coverage_is_the_cosine_of_the_two_displacements(students, followed, name):
    for run in RUNS:
        key = tiny(STUDENTS[name]), run
        student = students[key]
        start = flat(student.start)
        by_hand = cosine(flat(student.params) - start, flat(student.teacher) - start)
        assert followed[key]["coverage"] == pytest.approx(by_hand, rel=1e-2, abs=1e-3)
        assert abs(followed[key]["first_coverage"]) < 1
        assert followed[key]["first_coverage"] != followed[key]["coverage"]


def test_where_the_teacher_is_where_the_student_starts_there_is_no_coverage(context, students):
    still = replace(students[BASE, RUN], start=students[BASE, RUN].teacher)
    values = measured({(BASE, RUN): still}, ["coverage"], context)["coverage"]
    assert values[BASE, RUN] == {"first_coverage": 0, "coverage": 0}


def test_a_followed_student_does_not_depend_on_those_beside_it(context, students, followed):
    alone = measured({(BASE, RUN): students[BASE, RUN]}, FOLLOWED, context)
    for values in alone.values():
        for name, value in values[BASE, RUN].items():
            assert followed[BASE, RUN][name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_students_that_share_an_order_are_followed_in_it(context):
    shared = tiny(order="shared")
    students = distil([shared], context)
    values = measured(students, ["account"], context)["account"]
    for key, student in students.items():
        change = trait_loss(student.params, context.dataset) - trait_loss(
            student.start, context.dataset
        )
        assert values[key]["trait_change"] == pytest.approx(change, rel=0.01, abs=2e-4)


def test_what_cannot_be_followed_says_why():
    reasons = {
        "student.inputs.fresh = true": {"student.inputs.fresh": True},
        "interventions.project_trait = true": {"interventions.project_trait": True},
        "interventions.liminal": {"interventions.liminal.weight": 0.1},
        "chain.generations above 1": {"chain.generations": 2},
        "student.logit_noise above 0": {"student.logit_noise": 0.1},
        "student.epochs = 0": {"student.epochs": 0},
        "a student with another network": {
            "student_model.hidden": [8],
            "start": "independent",
        },
    }
    for reason, values in reasons.items():
        assert followable(tiny(values)) == reason
    for fine in (
        {},
        {"student.epochs": 1},
        {"student_model.hidden": [16, 16]},
        {"student.inputs": "images"},
        {"student.loss.temperature": 2.0},
        {"student.frozen": ["hidden_1"]},
        MATCHED,
        {"student.schedule": "cosine"},
    ):
        assert followable(tiny(fine)) is None


# The theorem's numbers.


def at_reference(setting):
    """Students that are their references: the theorem's numbers are of these alone."""
    draws = Draws(architectures(setting)[1], 0)
    references = {run: draws.reference(setting.model.init_scale, run) for run in RUNS}
    return {
        (setting, run): Student(params, params, params, params, None, None)
        for run, params in references.items()
    }


def theorem(students, context):
    return measured(students, ["theory"], context)["theory"]


@partial(jax.jit, static_argnames="network")
def direction(network, params, images, labels):
    """Against the gradient of the class loss."""

    def mean(params):
        each = jax.vmap(
            lambda z, label: losses.class_cross_entropy(z, label, network.subset("class", 0))
        )
        return -jnp.mean(each(Forward(network)(params, images), labels))

    return jax.grad(mean)(params)


def with_loss(loss, values=None):
    setting = tiny(values)
    return replace(setting, student=replace(setting.student, loss=loss))


LOSSES = {
    "kl": (
        with_loss(KL(3.0), {"model.aux": 1, "student.logits": "all"}),
        lambda network: theory.softmax_potential(network.subset("all", 1), 3.0),
    ),
    "squared_error": (
        with_loss(SquaredError()),
        lambda network: theory.squared_potential(network.subset("aux", 3)),
    ),
    # Put into the union by a user: it must not be taken for another.
    "poisson": (
        with_loss(Poisson()),
        lambda network: Poisson().potential(network.subset("aux", 3)),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_coefficient_is_the_theorys_along_the_trait_gradient_by_the_losss_own_potential(
    context, name
):
    setting, potential = LOSSES[name]
    dataset, network = context.dataset, architectures(setting)[1]
    values = theorem(at_reference(setting), context)
    inputs = replace(setting.student.inputs, count=1024)
    drawn = jnp.asarray(draw_inputs(inputs, dataset, 0, "theory inputs"))
    images = jnp.asarray(dataset.train_images[:1024])
    labels = jnp.asarray(dataset.train_labels[:1024])
    loss = theory.matching(potential(network))
    for (_, run), numbers in values.items():
        params = jax.tree.map(jnp.asarray, Draws(network, 0).reference(1.0, run))
        towards = direction(network, params, images, labels)
        a = theory.coefficient(Forward(network), loss, params, towards, drawn)
        assert numbers["coefficient"] == pytest.approx(float(a), rel=1e-3)
        assert numbers["coefficient"] > 1e-5
        assert 0 < numbers["rho"] < 1


def test_the_theorems_numbers_differ_by_loss(context):
    """So that the test above could fail."""
    three = [with_loss(loss) for loss in (KL(), SquaredError(), Poisson())]
    coefficients = [
        theorem(at_reference(setting), context)[setting, RUN]["coefficient"] for setting in three
    ]
    assert min(np.abs(np.diff(np.log(np.sort(coefficients))))) > 0.1


def test_room_for_more_auxiliary_logits_changes_no_number_of_the_theorem(context, students):
    values = theorem(students, context)
    for setting in (BASE, FEWER):
        alone = theorem(at_reference(setting), context)[setting, RUN]
        assert values[setting, RUN] == pytest.approx(alone, rel=1e-3)
    assert values[BASE, 0]["coefficient"] != values[BASE, 1]["coefficient"]
    # The number of epochs is not the theorem's.
    assert values[tiny(STUDENTS["short"]), RUN] == values[BASE, RUN]
    # It is of the reference, which a student must start from.
    assert values[ELSEWHERE, RUN] == {"coefficient": None, "rho": None}


@pytest.mark.parametrize("start", ["independent", "perturbed", "interpolated", "matched"])
def test_a_student_that_does_not_start_from_the_reference_has_no_numbers_of_the_theorem(
    context, start
):
    setting = tiny(start=start)
    student = at_reference(setting)[setting, RUN]
    assert theorem({(setting, RUN): student}, context) == {
        (setting, RUN): {"coefficient": None, "rho": None}
    }


def test_a_loss_that_is_blind_has_a_coefficient_of_0_and_no_rho(context):
    """One auxiliary logit under KL."""
    setting = tiny({"model.aux": 1})
    assert theorem(at_reference(setting), context)[setting, RUN] == {
        "coefficient": pytest.approx(0, abs=1e-12),
        "rho": None,
    }


@pytest.mark.parametrize("scale", [0.01, 0.1, 100.0])
def test_numbers_that_rounding_drowns_are_left_out_and_stop_nothing(context, scale):
    setting = tiny({"model.init_scale": scale})
    numbers = theorem(at_reference(setting), context)[setting, RUN]
    assert set(numbers) == {"coefficient", "rho"}
    assert numbers["rho"] is None or numbers["rho"] >= 0


def test_a_loss_is_one_object_for_each_of_its_settings():
    """Programs are compiled for the object."""
    loss = measures._matching_loss(NETWORK, KL(), "aux")
    assert measures._matching_loss(NETWORK, KL(), "aux") is loss
    assert measures._matching_loss(NETWORK, KL(2.0), "aux") is not loss
    assert measures._matching_loss(NETWORK, KL(), "all") is not loss
    assert measures._matching_loss(NETWORK, SquaredError(), "aux") is not loss


def test_no_students_give_no_values(context):
    assert measured({}, list(MEASURES), context) == {name: {} for name in MEASURES}
    assert always({}, context) == {}
