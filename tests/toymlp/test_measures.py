"""Claims about what is measured of a student."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from toymlp import measures
from toymlp.distillation import Student, students
from toymlp.jobs import Context
from toymlp.measures import (
    ALWAYS,
    COLUMNS,
    FOLLOWED,
    MEASURES,
    behaviour,
    columns_of,
    linear_cka,
    mean_cosine,
)
from toymlp.networks import Apply, split_parts
from toymlp.rules import plans
from toymlp.settings import from_dict
from toymlp.stages import Made, masked_kl, teacher_setting, teachers

BASE = {
    "dataset": "digits", "hidden": [16, 16], "images": 256, "student_batch": 64,
    "teacher_epochs": 2, "teacher_learning_rate": 1e-2, "student_epochs": 2,
    "student_learning_rate": 1e-2,
}  # fmt: skip
RUNS = (1, 2)
RANDOM = np.random.default_rng(0)
BEHAVIOUR = [name for name in MEASURES if name not in FOLLOWED and name != "theory"]


@pytest.fixture(scope="module")
def context(digits, mesh):
    return Context(digits, 0, mesh)


def distilled(context, *settings):
    made = teachers(list(dict.fromkeys(map(teacher_setting, settings))), RUNS, context)
    return students(settings, RUNS, made, {}, context)


@pytest.fixture(scope="module")
def found(context):
    """Students of the reference, and students that start elsewhere."""
    base, other = from_dict(BASE), from_dict(BASE | {"start": "independent", "aux": 2})
    return base, other, distilled(context, base, other)


@pytest.fixture(scope="module")
def measured(context, found):
    return behaviour(found[2], BEHAVIOUR, context)


def same_as_teacher(student):
    return replace(student, params=student.teacher, start=student.reference)


def cka(x, y) -> float:
    found = linear_cka(x, y)
    assert found is not None
    return found


def logits(plan, params, images):
    return np.asarray(Apply(plan)(params, jnp.asarray(images)))


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
    k, l = (centre @ some @ some.T @ centre for some in (x, y))  # noqa: E741
    assert cka(x, y) == pytest.approx(np.sum(k * l) / (np.linalg.norm(k) * np.linalg.norm(l)))


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
    mine, its = (RANDOM.normal(size=(20, 6)).astype(np.float32) for _ in range(2))
    subset = np.array([True, False, True, True, False, False])
    p, q = (special.softmax(some[:, subset].astype(float), axis=1) for some in (its, mine))
    by_scipy = special.rel_entr(p, q).sum(1).mean()
    assert masked_kl(mine, its, subset) == pytest.approx(by_scipy)
    assert masked_kl(its, mine, subset) != pytest.approx(by_scipy)
    # What is outside the subset is not looked at, and a shift of all within it changes nothing.
    other = mine + np.where(subset, 5, RANDOM.normal(size=6)).astype(np.float32)
    assert masked_kl(other, its, subset) == pytest.approx(by_scipy, rel=1e-5)
    assert masked_kl(its, its, subset) == 0
    # Logits that overflow exp.
    assert np.isfinite(masked_kl(1e4 * mine, 1e4 * its, subset))


def test_a_linear_probe_finds_separable_classes_and_nothing_in_random_labels():
    labels = RANDOM.integers(0, 4, 800)
    features = 3 * np.eye(4)[labels] @ RANDOM.normal(size=(4, 10)) + 100
    features += 0.1 * RANDOM.normal(size=features.shape)

    def probe(truth):
        fitted = measures._ridge(features[:600], np.eye(4)[truth[:600]], features[600:])
        return measures._accuracy(fitted, truth[600:], 4)

    assert probe(labels) > 0.99
    assert abs(probe(RANDOM.permutation(labels)) - 0.25) < 0.15


def test_a_probe_of_features_without_variance_guesses_the_commonest_class():
    labels = np.array([0] * 10 + [1] * 30)
    found = measures._ridge(np.ones((40, 3)), np.eye(2)[labels], np.ones((5, 3)))
    np.testing.assert_allclose(found, [[0.25, 0.75]] * 5)


# Of students.


def test_a_student_that_is_its_teacher_agrees_with_it_in_everything(context, found):
    base, _, all_of_them = found
    mine = {row: same_as_teacher(one) for row, one in all_of_them.items() if row[0] == base}
    for values in behaviour(mine, BEHAVIOUR, context).values():
        assert values["agreement"] == 1
        assert values["aux_kl"] == 0
        assert values["distance"] == values["start_distance"] == 0
        assert values["accuracy"] == values["teacher_accuracy"] > 0.7
        assert values["cka"] == pytest.approx([1, 1])
        for name in ("feature_cosine", "start_feature_cosine"):
            assert values[name] == pytest.approx([1, 1])
        assert values["weight_cosine"] == pytest.approx([1, 1, 1, 1])


def test_a_student_of_the_reference_is_nearer_to_its_teacher_than_one_that_starts_elsewhere(
    found, measured
):
    base, other, _ = found
    for run in RUNS:
        mine, its = measured[base, run], measured[other, run]
        assert mine["distance"] < its["distance"]
        assert 0 == mine["start_distance"] < its["start_distance"]
        assert mine["start_feature_cosine"] == pytest.approx([1, 1])
        for name in ("cka", "feature_cosine"):
            assert all(a > b for a, b in zip(mine[name], its[name], strict=True))
        assert all(a > b for a, b in zip(mine["weight_cosine"], its["weight_cosine"], strict=True))
        assert max(abs(cosine) for cosine in its["weight_cosine"]) < 0.6
        assert mine["start_accuracy"] < mine["teacher_accuracy"] > 0.7
        assert its["agreement"] < 0.6


def test_accuracies_losses_and_agreement_are_those_of_the_test_images(context, found, measured):
    _, _, all_of_them = found
    images, labels = context.dataset.test_images, context.dataset.test_labels
    for (some, run), one in all_of_them.items():
        plan = plans(some, 3)[1]
        scores = {
            name: logits(plan, getattr(one, name), images)[:, :10]
            for name in ("params", "start", "teacher")
        }
        values = measured[some, run]
        classes = {name: score.argmax(1) for name, score in scores.items()}
        # A class or two may be a tie to rounding.
        for name, column in (("params", "accuracy"), ("start", "start_accuracy"),
                             ("teacher", "teacher_accuracy")):  # fmt: skip
            assert values[column] == pytest.approx(np.mean(classes[name] == labels), abs=0.006)
        same = np.mean(classes["params"] == classes["teacher"])
        assert values["agreement"] == pytest.approx(same, abs=0.006)
        chosen = special.log_softmax(scores["params"], axis=1)[np.arange(len(labels)), labels]
        assert values["trait_loss"] == pytest.approx(-chosen.mean(), rel=1e-3)
        assert values["final_loss"] == one.loss
        assert values["clone_loss"] is values["clone_kl"] is None


def test_aux_kl_is_over_a_models_own_auxiliary_logits_on_inputs_it_was_not_trained_on(
    context, found, measured
):
    from toymlp.inputs import distillation_kind, held_out_inputs

    base, other, all_of_them = found
    unseen = held_out_inputs(
        distillation_kind(base.shape), context.dataset, 0, "distillation inputs"
    )
    for some, aux in ((base, 3), (other, 2)):
        one, plan = all_of_them[some, 1], plans(some, 3)[1]
        mine, its = (logits(plan, params, unseen) for params in (one.params, one.teacher))
        subset = np.arange(13) >= 10
        subset[10 + aux :] = False
        expected = masked_kl(mine, its, subset)
        assert measured[some, 1]["aux_kl"] == pytest.approx(expected, rel=1e-3)
    assert measured[base, 1]["aux_kl"] > 0


def test_a_probe_of_a_trained_network_reads_the_classes_off_its_last_layer(context, found):
    base, _, all_of_them = found
    rows = {
        (base, 1): same_as_teacher(all_of_them[base, 1]),
        (base, 2): replace(all_of_them[base, 2], params=dead(all_of_them[base, 2].params)),
    }
    values = behaviour(rows, ["probe"], context)
    assert values[base, 1]["probe"] > 0.8
    # Of a network whose last layer is dead there is nothing to be read: all are the same class.
    commonest = np.bincount(context.dataset.train_labels).argmax()
    guess = np.mean(context.dataset.test_labels == commonest)
    assert values[base, 2]["probe"] == pytest.approx(guess)


def dead(params):
    hidden = {index: dict(layer) for index, layer in params["hidden"].items()}
    hidden[1] |= {"bias": hidden[1]["bias"] - 1000}
    return params | {"hidden": hidden}


def test_cka_of_a_dead_layer_is_none_and_its_cosine_0(context, found):
    base, _, all_of_them = found
    rows = {(base, 1): replace(all_of_them[base, 1], params=dead(all_of_them[base, 1].params))}
    values = behaviour(rows, ["cka", "feature_cosine"], context)[base, 1]
    assert values["cka"][0] > 0.3
    assert values["cka"][1] is None
    assert values["feature_cosine"][1] == 0


def test_weight_cosine_and_distance_are_those_of_the_arrays(context, found, measured):
    base, _, all_of_them = found
    one = all_of_them[base, 1]

    def flat(part):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(part)])

    for name, cosine in zip(
        ("hidden_1", "hidden_2", "class_head", "aux_head"),
        measured[base, 1]["weight_cosine"], strict=True,
    ):  # fmt: skip
        mine, its = (flat(split_parts(tree)[name]) for tree in (one.params, one.teacher))
        by_hand = mine @ its / np.linalg.norm(mine) / np.linalg.norm(its)
        assert cosine == pytest.approx(by_hand, rel=1e-4)
    apart = np.linalg.norm(flat(one.params) - flat(one.teacher))
    assert measured[base, 1]["distance"] == pytest.approx(apart, rel=1e-4)
    # Known trees: a step of 3 along one weight and 4 along another.
    moved = jax.tree.map(np.copy, one.teacher)
    moved["class_head"]["kernel"][0, 0] += 3
    moved["hidden"][0]["bias"][5] += 4
    opposite = moved | {"aux_head": jax.tree.map(np.negative, moved["aux_head"])}
    values = behaviour(
        {(base, 1): replace(one, params=moved), (base, 2): replace(one, params=opposite)},
        ["distance", "weight_cosine"], context,
    )  # fmt: skip
    assert values[base, 1]["distance"] == pytest.approx(5)
    assert values[base, 1]["weight_cosine"][1::2] == pytest.approx([1, 1])
    assert values[base, 1]["weight_cosine"][0] < 0.99
    assert values[base, 2]["weight_cosine"][3] == pytest.approx(-1)


def test_there_is_no_distance_to_a_teacher_of_another_size_and_no_cosine_of_such_parts(context):
    """A CNN, which has three hidden layers, and a perceptron with two."""
    some = from_dict(
        BASE | {"student_network": "cnn", "student_hidden": [16], "start": "independent",
                "student_epochs": 1}
    )  # fmt: skip
    found = distilled(context, some)
    for values in behaviour(found, BEHAVIOUR, context).values():
        assert values["distance"] is values["start_distance"] is None
        assert values["weight_cosine"][:3] == [None] * 3
        assert all(-1 < cosine < 1 for cosine in values["weight_cosine"][3:])
        assert len(values["weight_cosine"]) == 5
        # As many layers as both have, whatever their widths.
        assert values["feature_cosine"] == values["start_feature_cosine"] == [None, None]
        assert len(values["cka"]) == 2
        assert all(0 < cka < 1 for cka in values["cka"])
        assert 0.1 < values["probe"] < 1
        assert 0 <= values["agreement"] < 1
        assert values["aux_kl"] > 0


@pytest.fixture(scope="module")
def linear(context):
    """Students that are their references, and have no hidden layer."""
    some = from_dict(BASE | {"hidden": []})
    found = {}
    for run in RUNS:
        heads = {
            name: {
                "kernel": RANDOM.normal(size=(64, outputs)).astype(np.float32),
                "bias": RANDOM.normal(size=outputs).astype(np.float32),
            }
            for name, outputs in (("class_head", 10), ("aux_head", 3))
        }
        found[some, run] = Student(heads, heads, heads, heads, None, None)
    return found


@pytest.mark.parametrize("measure", BEHAVIOUR)
def test_a_linear_model_can_be_measured_in_every_way(context, linear, measure):
    """Where a measure is about hidden layers, there is nothing to be said."""
    nothing = {"probe": (None,), "cka": ([], None), "feature_cosine": ([], None)}
    for values in behaviour(linear, [measure], context).values():
        assert set(values) == set(columns_of([measure]))
        assert values["accuracy"] == values["teacher_accuracy"] < 0.5
        if measure in nothing:
            assert values[measure] in nothing[measure]
        if measure == "weight_cosine":
            assert values[measure] == pytest.approx([1, 1])
        if measure == "distance":
            assert values["distance"] == values["start_distance"] == 0


def test_a_clones_numbers_are_in_the_table(context, found):
    base, _, all_of_them = found
    one = replace(all_of_them[base, 1], clone=Made({}, 0.5, 0.25))
    values = behaviour({(base, 1): one}, [], context)[base, 1]
    assert (values["clone_loss"], values["clone_kl"]) == (0.5, 0.25)


def test_a_model_that_several_students_share_is_asked_once(context, found, monkeypatch):
    asked = []
    logits_of = measures.logits_of

    def counted(apply, models, inputs, mesh):
        asked.append(len(models))
        return logits_of(apply, models, inputs, mesh)

    monkeypatch.setattr(measures, "logits_of", counted)
    base, _, all_of_them = found
    again = {(base, 1): all_of_them[base, 1], (base, 2): all_of_them[base, 1]}
    values = behaviour(again, [], context)
    assert asked == [1, 1, 1]
    assert values[base, 1] == values[base, 2]
    asked.clear()
    behaviour({row: one for row, one in all_of_them.items() if row[0] == base}, [], context)
    assert asked == [2, 2, 2]


def test_a_row_does_not_depend_on_the_rows_beside_it(context, found, measured):
    base, _, all_of_them = found
    alone = behaviour({(base, 1): all_of_them[base, 1]}, BEHAVIOUR, context)[base, 1]
    assert set(alone) == set(measured[base, 1])
    for name, value in measured[base, 1].items():
        if value is not None:
            assert alone[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


def test_no_students_give_no_values(context):
    assert behaviour({}, BEHAVIOUR, context) == {}


# Columns.


@pytest.mark.parametrize("measure", BEHAVIOUR)
def test_a_measure_gives_the_columns_that_it_says(context, found, measure):
    base, _, all_of_them = found
    values = behaviour({(base, 1): all_of_them[base, 1]}, [measure], context)[base, 1]
    assert set(values) == set(columns_of([measure]))
    assert set(values) > set(ALWAYS)


def test_every_column_of_every_measure_is_explained_once():
    columns = columns_of(MEASURES)
    assert len(set(columns)) == len(columns)
    assert set(columns) == set(COLUMNS)
    assert all(text.strip() == text != "" and not text.endswith(".") for text in COLUMNS.values())
    assert columns_of([]) == ALWAYS
    assert set(MEASURES) >= FOLLOWED
