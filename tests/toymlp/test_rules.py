"""Claims about the settings that go together, and those that do not."""

from typing import Any

import pytest

from toymlp import rules
from toymlp.rules import ContradictionError, contradictions
from toymlp.settings import FIELDS, Setting, from_dict

DIGITS = {"dataset": "digits", "hidden": [16, 16]}
# hidden_1 and aux_head fit the teacher's, hidden_2 does not.
OTHER = {"student_hidden": [16, 8, 16], "start": "matched"}
CNN = {"student_network": "cnn", "student_hidden": [16], "start": "matched"}
EVERY_PART = ["hidden_1", "hidden_2", "class_head", "aux_head"]


def names_of(values: dict[str, Any]) -> list[tuple[str, ...]]:
    return [found.names for found in contradictions(from_dict(DIGITS | values))]


# What contradicts itself, the settings to be named, and near misses that are fine.
CONTRADICTIONS: dict[str, tuple[dict, tuple[str, ...], list[dict]]] = {
    "one class": ({"classes": 1}, ("classes",), [{"classes": 2}, {"classes": 0}]),
    "more classes than there are": ({"classes": 11}, ("classes",), [{"classes": 10}]),
    "more classes than letters": (
        {"dataset": "mnist", "classes": 47}, ("classes",),
        [{"dataset": "emnist_balanced", "classes": 47}],
    ),
    "one auxiliary logit under KL": (
        {"aux": 1}, ("aux", "loss"),
        [{"aux": 2}, {"aux": 1, "loss": "squared_error"}, {"aux": 1, "logits": "all"},
         {"aux": 1, "logits": "class"}],
    ),
    "a CNN without a dense layer": (
        {"hidden": [], "student_network": "cnn", "start": "independent"}, ("student_hidden",),
        [{"hidden": [], "student_network": "cnn", "student_hidden": [16], "start": "independent"},
         {"student_network": "cnn", "start": "independent"}, {"hidden": []}],
    ),
    **{
        f"{start} with {name}": (
            {"start": start, name: value} | more, ("start",),
            [{"start": "independent", name: value}, {"start": "matched", name: value},
             {"start": start, name: same} | more],
        )
        for start, more in (
            ("reference", {}), ("interpolated", {}), ("perturbed", {}),
            ("layerwise", {"redrawn": ["class_head"]}),
        )
        for name, value, same in (
            ("student_network", "cnn", "mlp"), ("student_hidden", [16, 8], [16, 16]),
            ("student_activation", "tanh", "relu"), ("student_biases", False, True),
        )
    },
    "redrawing a part that is not there": (
        {"start": "layerwise", "redrawn": ["hidden_2", "hidden_3"]}, ("redrawn",),
        [{"start": "layerwise", "redrawn": ["hidden_2"]},
         {"hidden": [16, 16, 16], "start": "layerwise", "redrawn": ["hidden_3"]}],
    ),
    "sharing a part that is not there": (
        {"start": "matched", "shared": ["hidden_3"]}, ("shared",),
        [{"start": "matched", "shared": ["hidden_2"]}],
    ),
    "freezing a part that is not there": (
        {"frozen": ["head"]}, ("frozen",), [{"frozen": ["class_head"]}],
    ),
    "sharing a part of another width": (
        OTHER | {"shared": ["hidden_2"]}, ("shared",),
        [OTHER | {"shared": ["hidden_1"]}, OTHER | {"shared": ["class_head", "aux_head"]}],
    ),
    "sharing a layer that only the student has": (
        OTHER | {"shared": ["hidden_3"]}, ("shared",),
        [{"student_hidden": [16, 16, 16], "start": "matched", "shared": ["hidden_2"]}],
    ),
    "sharing a head behind another width": (
        {"student_hidden": [16, 8], "start": "independent", "shared": ["aux_head"]}, ("shared",),
        [{"student_hidden": [8, 16], "start": "independent", "shared": ["aux_head"]},
         {"student_hidden": [16], "start": "independent", "shared": ["class_head"]}],
    ),
    "sharing a convolution with a perceptron": (
        CNN | {"shared": ["hidden_1"]}, ("shared",), [CNN | {"shared": ["aux_head"]}],
    ),
    "sharing a part that has biases in one of the two": (
        {"student_biases": False, "start": "matched", "shared": ["hidden_1"]}, ("shared",),
        [{"student_activation": "tanh", "start": "matched", "shared": ["hidden_1"]},
         {"student_biases": False, "biases": False, "start": "matched", "shared": ["hidden_1"]}],
    ),
    "a layerwise start with nothing redrawn": (
        {"start": "layerwise"}, ("redrawn", "start"),
        [{"start": "layerwise", "redrawn": ["aux_head"]}],
    ),
    "everything frozen": (
        {"frozen": EVERY_PART}, ("frozen",), [{"frozen": EVERY_PART[1:]}],
    ),
    "a subspace of more dimensions than pixels": (
        {"inputs": "subspace", "subspace": 65}, ("subspace",),
        [{"inputs": "subspace", "subspace": 64}, {"inputs": "subspace", "subspace": 1},
         {"dataset": "mnist", "inputs": "subspace", "subspace": 784}],
    ),
    "fresh images": (
        {"inputs": "images", "fresh": True}, ("fresh", "inputs"),
        [{"inputs": "images"}, {"inputs": "shuffled", "fresh": True}, {"fresh": True}],
    ),
    "cloning one auxiliary logit": (
        {"start": "matched", "aux": 1, "loss": "squared_error"}, ("aux", "clone_logits"),
        [{"start": "matched", "aux": 1, "loss": "squared_error", "clone_logits": "all"},
         {"start": "matched", "aux": 2, "loss": "squared_error"},
         {"start": "independent", "aux": 1, "loss": "squared_error"}],
    ),
    "cloning with every part shared": (
        {"start": "matched", "shared": EVERY_PART}, ("shared",),
        [{"start": "matched", "shared": EVERY_PART[:3]}],
    ),
    "fresh images to clone on": (
        {"start": "matched", "clone_inputs": "images"}, ("clone_fresh", "clone_inputs"),
        [{"start": "matched", "clone_inputs": "images", "clone_fresh": False},
         {"start": "matched", "clone_inputs": "normal"}],
    ),
    "cloning beyond the end of its cosine decay": (
        {"start": "matched", "clone_schedule": "cosine", "clone_epochs": 101},
        ("clone_epochs", "clone_horizon"),
        [{"start": "matched", "clone_schedule": "cosine", "clone_epochs": 100},
         {"start": "matched", "clone_schedule": "cosine", "clone_epochs": 101,
          "clone_horizon": 101},
         {"start": "matched", "clone_epochs": 101}],
    ),
    "a chain from a matched start": (
        {"start": "matched", "generations": 2}, ("generations", "start"),
        [{"start": "independent", "generations": 2}, {"start": "matched", "generations": 1}],
    ),
}  # fmt: skip

# A value of each setting that can be without effect, and settings beside which it has one.
IDLE: dict[str, tuple[Any, list[dict]]] = {
    "interpolation": (0.25, [{"start": "interpolated"}]),
    "perturbation": (0.25, [{"start": "perturbed"}]),
    "redrawn": (["hidden_1"], [{"start": "layerwise"}]),
    "shared": (["hidden_1"], [{"start": "matched"}, {"start": "independent"}]),
    "clone_inputs": ("normal", [{"start": "matched"}]),
    "clone_images": (256, [{"start": "matched"}]),
    "clone_fresh": (False, [{"start": "matched"}]),
    "clone_batch": (64, [{"start": "matched"}]),
    "clone_optimiser": ("sgd", [{"start": "matched"}]),
    "clone_schedule": ("cosine", [{"start": "matched"}]),
    "clone_epochs": (7, [{"start": "matched"}]),
    "clone_learning_rate": (1e-2, [{"start": "matched"}]),
    "clone_logits": ("all", [{"start": "matched"}]),
    "clone_horizon": (200, [{"start": "matched", "clone_schedule": "cosine"}]),
    "alpha": (0.5, [{"inputs": "mixture"}]),
    "blur": (1.0, [{"inputs": "blurred"}]),
    "subspace": (8, [{"inputs": "subspace"}]),
    "temperature": (2.0, [{"loss": "kl"}]),
    "liminal_epochs": (3, [{"liminal_weight": 1e-3}]),
    "teacher_weight_decay": (1e-2, [{"teacher_optimiser": "adamw"}]),
    "student_weight_decay": (1e-2, [{"student_optimiser": "adamw"}]),
}
# Beside which others they have none, where that is not the default setting.
WITHOUT: dict[str, list[dict]] = {
    "temperature": [{"loss": "squared_error"}],
    "redrawn": [{}, {"start": "matched"}],
    "shared": [{}, {"start": "perturbed"}, {"start": "layerwise", "redrawn": ["hidden_2"]}],
    "clone_epochs": [{}, {"start": "independent"}],
    "clone_horizon": [{}, {"start": "matched"}],
    "alpha": [{}, {"inputs": "images"}],
    "student_weight_decay": [{}, {"student_optimiser": "adam", "teacher_optimiser": "adamw"}],
    "teacher_weight_decay": [{}, {"student_optimiser": "adamw"}],
}


def test_the_default_setting_is_fine_and_so_it_is_on_every_data_set():
    rules.check(Setting())
    assert rules.idle(Setting()) == {}
    for name in ("mnist", "fashion_mnist", "kmnist", "emnist_balanced", "digits"):
        rules.check(from_dict({"dataset": name}))


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_raised_with_the_settings_to_change(case):
    values, names, _ = CONTRADICTIONS[case]
    assert names_of(values) == [names]
    with pytest.raises(ContradictionError) as raised:
        rules.check(from_dict(DIGITS | values))
    assert raised.value.names == names
    assert set(names) <= set(FIELDS)
    message = str(raised.value)
    # Its words name the first of them, too.
    assert names[0] in message
    assert "\n" not in message


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_near_miss_is_fine(case):
    _, _, near = CONTRADICTIONS[case]
    assert near
    for values in near:
        assert names_of(values) == [], values


def test_all_contradictions_are_found_and_the_first_is_raised():
    values = {"classes": 1, "aux": 1, "start": "layerwise", "blur": 1.0}
    assert names_of(values) == [("classes",), ("aux", "loss"), ("redrawn", "start"), ("blur",)]
    with pytest.raises(ContradictionError, match="classes = 1"):
        rules.check(from_dict(DIGITS | values))


def test_every_setting_that_can_be_idle_is_tried_below():
    assert set(rules._MATTERS) == set(IDLE)
    assert set(WITHOUT) <= set(IDLE)


@pytest.mark.parametrize("name", IDLE)
def test_a_value_without_effect_is_refused_and_the_same_value_with_one_is_not(name):
    value, contexts = IDLE[name]
    for context in WITHOUT.get(name, [{}]):
        alone = from_dict(DIGITS | context | {name: value})
        assert set(rules.idle(alone)) == {name}
        assert not rules.matters(alone, name)
        with pytest.raises(ContradictionError, match=f"^{name} = .* has no effect: ") as raised:
            rules.check(alone)
        assert raised.value.names == (name,)
        assert rules.idle(alone)[name] in str(raised.value)
        # At its default it says nothing, and still does not matter.
        silent = from_dict(DIGITS | context)
        assert name not in rules.idle(silent)
        assert not rules.matters(silent, name)
    for context in contexts:
        together = from_dict(DIGITS | context | {name: value})
        assert rules.idle(together) == {}
        assert rules.matters(together, name)
        rules.check(together)


def test_a_setting_without_a_condition_always_matters():
    for name in set(FIELDS) - set(IDLE):
        assert rules.matters(Setting(), name)


def test_plans_have_the_data_sets_sizes_and_the_number_of_auxiliary_logits_asked_for():
    setting = from_dict({"dataset": "digits", "classes": 4, "aux": 7, "student_hidden": [8]})
    teacher, student = rules.plans(setting)
    assert (teacher.pixels, teacher.classes, teacher.aux) == (64, 4, 7)
    assert (teacher.hidden, student.hidden) == ((256, 256), (8,))
    assert {plan.aux for plan in rules.plans(setting, aux=9)} == {9}
    assert rules.pixels_and_classes(from_dict({})) == (784, 10)
    assert rules.pixels_and_classes(from_dict({"dataset": "emnist_balanced"})) == (784, 47)
    one, other = rules.plans(from_dict(DIGITS))
    assert one == other
