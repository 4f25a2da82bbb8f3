"""Claims about the settings that go together, those that do not, and those that are one."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublab.settings import SettingError, build, flatten
from tests.toymlp.test_settings import TABLES, of_table
from tests.toymlp.trials import BASE, GROUP, KEYS, another, kinds_in, kinds_of, tiny
from toymlp import checks
from toymlp.checks import blind_reason, canonical, contradictions
from toymlp.data import size_of
from toymlp.networks import architectures
from toymlp.settings import PREPRINT, Setting
from toymlp.sources import DATASETS

SMALL = {"dataset": "digits", "model.hidden": [16, 16]}
# hidden_1 and aux_head fit the teacher's, hidden_2 does not.
OTHER = {"student_model.hidden": [16, 8, 16], "start": "matched"}
NETWORK = ("network", "hidden", "activation", "biases")
CNN = {"student_model.network": "cnn", "student_model.hidden": [16], "start": "matched"}
CNNS = {"model.network": "cnn", "model.hidden": [16]}
EVERY_PART = ["hidden_1", "hidden_2", "class_head", "aux_head"]
CLONED = {"start": "matched"}
CLONED_AUX = CLONED | {"start.clone.logits": "aux"}
SQUARED = {"student.loss": "squared_error"}
IMAGES = 1437


def of(values: dict[str, Any]) -> Setting:
    return build(Setting, SMALL | values)


def keys_of(values: dict[str, Any]) -> list[tuple[str, ...]]:
    return [error.keys for error in contradictions(of(values))]


# What contradicts itself, the keys to be changed, and near misses that are fine.
CONTRADICTIONS: dict[str, tuple[dict, tuple[str, ...], list[dict]]] = {
    "one class": ({"classes": 1}, ("classes",), [{"classes": 2}, {"classes": 0}]),
    "more classes than there are": ({"classes": 11}, ("classes",), [{"classes": 10}]),
    "more classes than letters": (
        {"dataset": "mnist", "classes": 47},
        ("classes",),
        [{"dataset": "emnist_balanced", "classes": 47}],
    ),
    "one auxiliary logit under KL": (
        {"model.aux": 1},
        ("model.aux", "student.loss", "student.logits"),
        [
            {"model.aux": 2},
            {"model.aux": 1} | SQUARED,
            {"model.aux": 1, "student.logits": "all"},
            {"model.aux": 1, "student.logits": "class"},
        ],
    ),
    "cloning one auxiliary logit under KL": (
        CLONED_AUX | SQUARED | {"model.aux": 1},
        ("model.aux", "start.clone.loss", "start.clone.logits"),
        [
            CLONED | SQUARED | {"model.aux": 1},
            CLONED_AUX | SQUARED | {"model.aux": 1, "start.clone.loss": "squared_error"},
            CLONED_AUX | SQUARED | {"model.aux": 2},
            SQUARED | {"start": "independent", "model.aux": 1},
        ],
    ),
    "a CNN without a dense layer": (
        {"model.hidden": [], "student_model.network": "cnn", "start": "independent"},
        ("student_model.hidden",),
        [
            {
                "model.hidden": [],
                "student_model.network": "cnn",
                "student_model.hidden": [16],
                "start": "independent",
            },
            {"student_model.network": "cnn", "start": "independent"},
            {"model.hidden": []},
        ],
    ),
    **{
        f"{start} with {name}": (
            {"start": start, name: value},
            ("start", *(f"student_model.{part}" for part in NETWORK)),
            [
                {"start": "independent", name: value},
                {"start": "matched", name: value},
                {"start": start, name: same},
            ],
        )
        for start in ("reference", "interpolated", "perturbed")
        for name, value, same in (
            ("student_model.network", "cnn", "mlp"),
            ("student_model.hidden", [16, 8], [16, 16]),
            ("student_model.activation", "tanh", "relu"),
            ("student_model.biases", False, True),
        )
    },
    "sharing a part that is not there": (
        CLONED | {"start.shared": ["hidden_3"]},
        ("start.shared",),
        [
            CLONED | {"start.shared": ["hidden_2"]},
            CLONED | {"model.hidden": [16, 16, 16], "start.shared": ["hidden_3"]},
        ],
    ),
    "sharing a part that an independent student has not": (
        {"start": "independent", "start.shared": ["hidden_2", "hidden_3"]},
        ("start.shared",),
        [{"start": "independent", "start.shared": ["hidden_2"]}],
    ),
    "freezing a part that is not there": (
        {"student.frozen": ["head"]},
        ("student.frozen",),
        [{"student.frozen": ["class_head"]}],
    ),
    "sharing a part of another width": (
        OTHER | {"start.shared": ["hidden_2"]},
        ("start.shared",),
        [
            OTHER | {"start.shared": ["hidden_1"]},
            OTHER | {"start.shared": ["class_head", "aux_head"]},
        ],
    ),
    "sharing a layer that only the student has": (
        OTHER | {"start.shared": ["hidden_3"]},
        ("start.shared",),
        [CLONED | {"student_model.hidden": [16, 16, 16], "start.shared": ["hidden_2"]}],
    ),
    "sharing a head behind another width": (
        {
            "student_model.hidden": [16, 8],
            "start": "independent",
            "start.shared": ["aux_head"],
        },
        ("start.shared",),
        [
            {
                "student_model.hidden": [8, 16],
                "start": "independent",
                "start.shared": ["aux_head"],
            },
            {
                "student_model.hidden": [16],
                "start": "independent",
                "start.shared": ["class_head"],
            },
        ],
    ),
    "sharing a convolution with a perceptron": (
        CNN | {"start.shared": ["hidden_1"]},
        ("start.shared",),
        [CNN | {"start.shared": ["aux_head"]}],
    ),
    "sharing a part that has biases in one of the two": (
        CLONED | {"student_model.biases": False, "start.shared": ["hidden_1"]},
        ("start.shared",),
        [
            CLONED | {"student_model.activation": "tanh", "start.shared": ["hidden_1"]},
            CLONED
            | {
                "student_model.biases": False,
                "model.biases": False,
                "start.shared": ["hidden_1"],
            },
        ],
    ),
    "everything frozen": (
        {"student.frozen": EVERY_PART},
        ("student.frozen",),
        [{"student.frozen": EVERY_PART[1:]}],
    ),
    "cloning with every part shared": (
        CLONED | {"start.shared": EVERY_PART},
        ("start.shared", "start.clone.frozen"),
        [
            CLONED | {"start.shared": EVERY_PART[:3]},
            {"start": "independent", "start.shared": EVERY_PART},
        ],
    ),
    "a subspace of more dimensions than pixels": (
        {"student.inputs": "subspace", "student.inputs.dimension": 65},
        ("student.inputs.dimension",),
        [
            {"student.inputs": "subspace", "student.inputs.dimension": 64},
            {"student.inputs": "subspace", "student.inputs.dimension": 1},
            {"dataset": "mnist", "student.inputs": "subspace", "student.inputs.dimension": 784},
        ],
    ),
    "cloning in a subspace of more dimensions than pixels": (
        CLONED | {"start.clone.inputs": "subspace", "start.clone.inputs.dimension": 65},
        ("start.clone.inputs.dimension",),
        [CLONED | {"start.clone.inputs": "subspace", "start.clone.inputs.dimension": 64}],
    ),
    "cloning with every part shared or frozen": (
        CLONED | {"start.shared": EVERY_PART[:2], "start.clone.frozen": EVERY_PART[2:]},
        ("start.shared", "start.clone.frozen"),
        [CLONED | {"start.shared": EVERY_PART[:2], "start.clone.frozen": EVERY_PART[2:3]}],
    ),
    "a student of which the loss trains nothing": (
        {"student.frozen": ["hidden_1", "hidden_2", "aux_head"]},
        ("student.frozen",),
        [
            {"student.frozen": ["hidden_1", "hidden_2"]},
            {"student.frozen": ["hidden_1", "hidden_2", "aux_head"], "student.logits": "all"},
            {"student.frozen": ["hidden_1", "hidden_2", "aux_head"], "student.optimiser": "adamw"},
        ],
    ),
    "a trained part that the teacher leaves alone": (
        {"start.trained": ["hidden_1"], "teacher.frozen": ["hidden_1"]},
        ("start.trained", "teacher.frozen"),
        [{"start.trained": ["hidden_2"], "teacher.frozen": ["hidden_1"]}],
    ),
    "a teacher of which nothing is trained": (
        {"teacher.frozen": EVERY_PART[:3]},
        ("teacher.frozen",),
        [{"teacher.frozen": EVERY_PART[:2]}, {"student.frozen": EVERY_PART[:2]}],
    ),
    "a part that a teacher does not train anyway": (
        {"teacher.frozen": ["aux_head"]},
        ("teacher.frozen",),
        [{"teacher.frozen": ["class_head"]}, {"student.frozen": ["aux_head"]}],
    ),
    "a trained part that a teacher does not train": (
        {"start.trained": ["aux_head"]},
        ("start.trained",),
        [{"start.trained": ["class_head"]}],
    ),
    "a part that is shared and trained": (
        {"start": "independent", "start.shared": ["hidden_1"], "start.trained": ["hidden_1"]},
        ("start.trained", "start.shared"),
        [{"start": "independent", "start.shared": ["hidden_1"], "start.trained": ["hidden_2"]}],
    ),
    "a trained part of another size": (
        OTHER | {"start": "independent", "start.trained": ["hidden_2"]},
        ("start.trained",),
        [OTHER | {"start": "independent", "start.trained": ["hidden_1", "class_head"]}],
    ),
    "a CNN teacher of two dense layers": (
        {"model.network": "cnn"},
        ("model.hidden", "model.network"),
        [{"model.network": "cnn", "model.hidden": [16]}],
    ),
    "a convolution that a perceptron has not": (
        {
            "model.network": "cnn",
            "model.hidden": [16],
            "student_model.network": "mlp",
            "student_model.hidden": [16, 16],
            "start": "independent",
            "start.shared": ["hidden_1"],
        },
        ("start.shared",),
        [
            {
                "model.network": "cnn",
                "model.hidden": [16],
                "student_model.activation": "tanh",
                "start": "independent",
                "start.shared": ["hidden_1", "hidden_2", "hidden_3"],
            }
        ],
    ),
    **{
        f"{name} beyond the end of its cosine decay": (
            more | {f"{name}.schedule.horizon": 100, f"{name}.epochs": 101},
            (f"{name}.epochs", f"{name}.schedule.horizon"),
            [
                more | {f"{name}.schedule.horizon": 100, f"{name}.epochs": 100},
                more | {f"{name}.schedule.horizon": 101, f"{name}.epochs": 101},
                more | {f"{name}.epochs": 101},
            ],
        )
        for name, more in (
            ("teacher", {"teacher.schedule": "cosine"}),
            ("student", {"student.schedule": "cosine"}),
            ("start.clone", CLONED | {"start.clone.schedule": "cosine"}),
        )
    },
    "a chain from a matched start": (
        CLONED | {"chain.generations": 2},
        ("chain.generations", "start"),
        [{"start": "independent", "chain.generations": 2}, CLONED | {"chain.generations": 1}],
    ),
    "the same inputs for a chain of one": (
        {"chain.inputs": "same"},
        ("chain.inputs",),
        [{"chain.inputs": "same", "chain.generations": 2}, {"chain.inputs": "new"}],
    ),
    "a teacher that imitates": (
        {"teacher.loss": "kl"},
        ("teacher.loss",),
        [{"teacher.loss": "cross_entropy"}, {"student.loss": "squared_error"}],
    ),
    "a student of labels": (
        {"student.loss": "cross_entropy"},
        ("student.loss",),
        [{"student.loss": "kl"}],
    ),
    "a clone of labels": (
        CLONED | {"start.clone.loss": "cross_entropy"},
        ("start.clone.loss",),
        [CLONED | {"start.clone.loss": "squared_error"}],
    ),
    "labels of auxiliary logits": (
        {"teacher.logits": "all"},
        ("teacher.logits",),
        [{"teacher.logits": "class"}, {"student.logits": "all"}],
    ),
    "labels of noise": (
        {"teacher.inputs": "uniform", "teacher.inputs.count": 60_000},
        ("teacher.inputs",),
        [{"teacher.inputs": "images", "teacher.inputs.count": 100}],
    ),
    "noise on labels": (
        {"teacher.logit_noise": 0.5},
        ("teacher.logit_noise",),
        [{"student.logit_noise": 0.5}, CLONED | {"start.clone.logit_noise": 0.5}],
    ),
}


def test_the_preprint_is_fine_and_so_it_is_on_every_data_set():
    checks.check(PREPRINT)
    for name in DATASETS:
        checks.check(build(Setting, {"dataset": name}))


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_raised_with_the_keys_to_change(case):
    values, keys, _ = CONTRADICTIONS[case]
    assert keys_of(values) == [keys]
    with pytest.raises(SettingError) as raised:
        checks.check(of(values))
    assert raised.value.keys == keys
    assert set(keys) <= set(KEYS)
    message = str(raised.value)
    # Its words name the first of them, too.
    assert keys[0] in message
    assert "\n" not in message


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_near_miss_is_fine(case):
    _, _, near = CONTRADICTIONS[case]
    assert near
    for values in near:
        assert keys_of(values) == [], values


def test_all_contradictions_are_found_and_the_first_is_raised():
    values = {"teacher.logits": "aux", "model.aux": 1, "student.frozen": ["head"]}
    assert keys_of(values) == [
        ("student.frozen",),
        ("teacher.logits",),
        ("model.aux", "student.loss", "student.logits"),
    ]
    with pytest.raises(SettingError, match="no part 'head'"):
        checks.check(of(values))


def without_effect(name: str) -> dict[str, str] | None:
    """Kinds beside which a key does not exist, the nearest above it; None where it always does."""
    for union, kinds in reversed(list(KEYS[name].kinds.items())):
        if other := [kind for kind in kinds_in(KEYS[union]) if kind not in kinds]:
            return kinds_of(KEYS[union]) | {union: other[0]}
    return None


@pytest.mark.parametrize("name", [name for name in KEYS if without_effect(name)])
def test_a_value_without_effect_is_refused_and_the_same_value_with_one_is_not(name):
    """A number exists beside its kind alone."""
    key, value = KEYS[name], another(KEYS[name])
    elsewhere = without_effect(name) or {}
    *_, (union, kind) = elsewhere.items()
    said = f"^{name} has no effect: it is for {union} = .*, which is {kind} here$"
    with pytest.raises(SettingError, match=said):
        build(Setting, elsewhere | {name: value})
    assert flatten(build(Setting, kinds_of(key) | {name: value}))[name] == value


@pytest.mark.parametrize(
    ("values", "aux", "blind"),
    [
        ({}, 1, True),
        ({}, 2, False),
        ({"student.logits": "all"}, 1, False),
        ({"student.logits": "class"}, 1, False),
        (SQUARED, 1, False),
    ],
)
def test_a_loss_is_blind_to_a_single_logit_where_it_is_of_a_softmax(values, aux, blind):
    reason = blind_reason(of(values).student, aux, 10)
    assert (reason is not None) == blind
    assert blind_reason(of({"student.logits": "class"}).student, 3, 1) is not None
    if reason:
        assert "a softmax over one logit is constant" in reason


# Spellings.

SCALED = {"student.inputs.count": 3000, "student.batch": 51}
# Tables of one experiment each.
SPELLINGS: dict[str, list[dict[str, Any]]] = {
    "the teacher's hidden layers": [{}, {"student_model.hidden": [16, 16]}],
    "the teacher's network": [{}, {"student_model.network": "mlp"}],
    "the teacher's network, a CNN": [CNNS, CNNS | {"student_model.network": "cnn"}],
    "as much noise as there are images": [
        {"student.inputs.count": count, "student.batch": 51} for count in (0, 1437)
    ],
    "a frozen head that the loss does not see": [{}, {"student.frozen": ["class_head"]}],
    "a last width of a CNN in a list": [
        CNNS | {"student_model.hidden": hidden, "start": "independent"} for hidden in ([8], [16, 8])
    ],
    "all parts shared or trained": [
        {"start.trained": ["class_head"]},
        {
            "start": "independent",
            "start.shared": ["hidden_1", "hidden_2", "aux_head"],
            "start.trained": ["class_head"],
        },
    ],
    "what is shared is not cloned": [
        CLONED | {"start.shared": ["hidden_1"]},
        CLONED | {"start.shared": ["hidden_1"], "start.clone.frozen": ["hidden_1"]},
    ],
    "Adam without a penalty": [
        {},
        {"student.optimiser": "adam_l2", "student.optimiser.weight_decay": 0.0},
    ],
    "the teacher's activation": [
        {"model.activation": "tanh"},
        {"model.activation": "tanh", "student_model.activation": "tanh"},
    ],
    "the teacher's biases": [{}, {"student_model.biases": True}],
    "the last width of a CNN": [
        CNN,
        CNN | {"student_model.hidden": [8, 16]},
        {"student_model.network": "cnn", "start": "matched"},
    ],
    "a teacher's batch of 0": [{}, {"teacher.batch": 25}],
    "a student's batch of 0": [SCALED, SCALED | {"student.batch": 0}],
    "a clone's batch of 0": [
        CLONED | {"start.clone.inputs.count": 3000, "start.clone.batch": batch} for batch in (0, 51)
    ],
    "all classes": [{}, {"classes": 10}],
    "a count above what there is": [
        {"student.inputs": "images", "student.inputs.count": count} for count in (0, 1437, 60_000)
    ],
    "a teacher's count above what there is": [
        {"teacher.inputs.count": count} for count in (0, 1437, 60_000)
    ],
    "an interpolation of weight 0": [{}, {"start": "interpolated", "start.weight": 0.0}],
    "an interpolation of weight 1": [
        {"start": "independent"},
        {"start": "interpolated", "start.weight": 1.0},
    ],
    "a perturbation of size 0": [{}, {"start": "perturbed", "start.size": 0.0}],
    "all parts shared": [{}, {"start": "independent", "start.shared": EVERY_PART}],
    "parts in another order": [
        {"start": "independent", "start.shared": parts}
        for parts in (["hidden_1", "aux_head"], ["aux_head", "hidden_1"])
    ],
    "frozen parts in another order": [
        {"student.frozen": parts} for parts in (["hidden_1", "aux_head"], ["aux_head", "hidden_1"])
    ],
    "AdamW without decay": [
        {},
        {"student.optimiser": "adamw", "student.optimiser.weight_decay": 0.0},
    ],
    "a teacher's AdamW without decay": [
        {},
        {"teacher.optimiser": "adamw", "teacher.optimiser.weight_decay": 0.0},
    ],
    "a liminal term without weight": [{}, {"interventions.liminal.weight": 0.0}],
    "a liminal term for no epochs": [{}, {"interventions.liminal.epochs": 0}],
    "generations on the same images": [
        {"student.inputs": "images", "chain.generations": 2, "chain.inputs": inputs}
        for inputs in ("new", "same")
    ],
    "a horizon at the last epoch": [
        {"student.schedule": "cosine", "student.schedule.horizon": horizon} for horizon in (0, 5)
    ],
    "a mixture without noise": [
        {"student.inputs": "images"},
        {"student.inputs": "mixture", "student.inputs.alpha": 0.0},
        {"student.inputs": "mixture", "student.inputs.alpha": 0.0, "student.inputs.fresh": True},
    ],
}
# Near them, what is another experiment.
OTHERS: dict[str, dict[str, Any]] = {
    "the teacher's hidden layers": {"student_model.hidden": [16, 8], "start": "independent"},
    "the teacher's network": CNN,
    "the teacher's network, a CNN": CNNS
    | {"student_model.network": "mlp", "student_model.hidden": [16], "start": "independent"},
    "as much noise as there are images": {"student.inputs.count": 1436, "student.batch": 51},
    "a frozen head that the loss does not see": {"student.frozen": ["aux_head"]},
    "a last width of a CNN in a list": CNNS
    | {"student_model.hidden": [8, 16], "start": "independent"},
    "all parts shared or trained": {"start": "independent", "start.trained": ["class_head"]},
    "what is shared is not cloned": CLONED
    | {"start.shared": ["hidden_1"], "start.clone.frozen": ["hidden_2"]},
    "Adam without a penalty": {
        "student.optimiser": "adam_l2",
        "student.optimiser.weight_decay": 1e-6,
    },
    "the teacher's activation": {"model.activation": "tanh", "student_model.activation": "relu"},
    "the teacher's biases": {"student_model.biases": False},
    "the last width of a CNN": CNN | {"student_model.hidden": [16, 8]},
    "a teacher's batch of 0": {"teacher.batch": 26},
    "a student's batch of 0": SCALED | {"student.batch": 52},
    "a clone's batch of 0": CLONED | {"start.clone.inputs.count": 3000, "start.clone.batch": 52},
    "all classes": {"classes": 9},
    "a count above what there is": {"student.inputs": "images", "student.inputs.count": 1436},
    "a teacher's count above what there is": {"teacher.inputs.count": 1436},
    "an interpolation of weight 0": {"start": "interpolated", "start.weight": 0.01},
    "an interpolation of weight 1": {"start": "interpolated", "start.weight": 0.99},
    "a perturbation of size 0": {"start": "perturbed", "start.size": 0.01},
    "all parts shared": {"start": "independent", "start.shared": EVERY_PART[1:]},
    "parts in another order": {"start": "independent", "start.shared": ["hidden_1"]},
    "frozen parts in another order": {"student.frozen": ["hidden_1"]},
    "AdamW without decay": {
        "student.optimiser": "adamw",
        "student.optimiser.weight_decay": 1e-6,
    },
    "a teacher's AdamW without decay": {"teacher.optimiser": "adamw"},
    "a liminal term without weight": {"interventions.liminal.weight": 1e-6},
    "a liminal term for no epochs": {"interventions.liminal.epochs": 1},
    "generations on the same images": {"student.inputs": "images", "chain.generations": 3},
    "a horizon at the last epoch": {
        "student.schedule": "cosine",
        "student.schedule.horizon": 6,
    },
    "a mixture without noise": {"student.inputs": "mixture", "student.inputs.alpha": 0.01},
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_spellings_of_one_experiment_have_one_canonical_spelling(case):
    first, *others = (of(values) for values in SPELLINGS[case])
    assert others
    for other in others:
        assert other != first
        assert canonical(other, IMAGES) == canonical(first, IMAGES)
        assert hash(canonical(other, IMAGES)) == hash(canonical(first, IMAGES))
    assert canonical(of(OTHERS[case]), IMAGES) != canonical(first, IMAGES)


def test_generations_on_other_noise_are_another_experiment():
    new, same = (of({"chain.generations": 2, "chain.inputs": inputs}) for inputs in ("new", "same"))
    assert canonical(new, IMAGES) != canonical(same, IMAGES)


def test_a_canonical_setting_has_no_number_that_stands_for_another():
    setting = canonical(build(Setting, {"start": "matched", "start.clone.batch": 0}), 60_000)
    assert (setting.teacher.batch, setting.teacher.inputs.count) == (1024, 60_000)
    table = flatten(setting)
    assert not [name for name, value in table.items() if value == 0 and name.endswith("batch")]
    assert table["start.clone.batch"] == 1024
    # As large a share of few images as the paper's of 60,000, and at least one.
    for images, batch in ((1437, 25), (10, 1), (60_000, 1024)):
        assert canonical(PREPRINT, images).teacher.batch == batch
    assert canonical(build(Setting, {"teacher.batch": 7}), 60_000).teacher.batch == 7


@given(TABLES)
def test_what_is_canonical_stays_as_it_is(values):
    setting = of_table(values)
    if setting.student_model.network == "cnn" and not (
        setting.student_model.hidden or setting.model.hidden
    ):
        # It cannot be built.
        setting = replace(setting, model=replace(setting.model, hidden=(16,)))
    first = canonical(setting, 1000)
    assert canonical(first, 1000) == first


@given(
    st.sampled_from(
        [*GROUP.values(), *(table for tables in SPELLINGS.values() for table in tables)]
    )
)
def test_a_setting_that_is_fine_stays_fine_and_keeps_its_networks(values):
    setting = tiny(values) if values in GROUP.values() else of(values)
    checks.check(setting)
    again = canonical(setting, IMAGES)
    checks.check(again)
    for before, after in zip(architectures(setting), architectures(again), strict=True):
        assert before.parts == after.parts
        assert before.widths == after.widths
        assert before.parameters == after.parameters


def test_the_tiny_setting_is_fine():
    checks.check(tiny())
    assert size_of(BASE["dataset"]).train == IMAGES
