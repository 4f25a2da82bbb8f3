"""Claims about the setting of the experiment: its fields, and what teachers and clones depend on.

What holds for settings of any kind is in tests/sublab/test_settings.py.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublab import settings
from sublab.settings import SettingError, allowed, build, checked, flatten
from tests.toymlp.trials import (
    KEYS,
    MATCHED,
    another,
    is_optional_setting,
    kinds_in,
    neighbours,
    tiny,
)
from toymlp import checks
from toymlp.objective import Interventions, Liminal
from toymlp.settings import (
    LOGITS,
    PREPRINT,
    CloneSetting,
    Matched,
    Model,
    Setting,
    TeacherSetting,
    Training,
    clone_of,
    teacher_of,
    whole,
)

PLAIN = [name for name, key in KEYS.items() if key.metadata["mark"] != "nested"]
KINDS = [name for name, key in KEYS.items() if key.is_kind]
# What is a value of no setting.
NEVER: tuple[Any, ...] = ({}, b"aux", 1j, object())
NUMBERS = (int, float)


def bare(hint: Any) -> tuple[Any, bool]:
    """A type without its None, and whether it had one."""
    if get_origin(hint) in (Union, UnionType):
        (kind,) = [item for item in get_args(hint) if item is not type(None)]
        return kind, True
    return hint, False


def kind_of(name: str) -> tuple[Any, bool, bool]:
    """The type of one value, whether there are many in a list, whether it can be left out."""
    kind, optional = bare(KEYS[name].type)
    many = get_origin(kind) is tuple
    return (get_args(kind)[0] if many else kind), many, optional


def ends_of(name: str) -> tuple[Any, Any]:
    """The smallest and the largest number that is allowed."""
    limits = KEYS[name].metadata
    low = math.nextafter(limits["above"], math.inf) if "above" in limits else limits["low"]
    return low, limits["high"]


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Everything that a key allows, as a table has it."""
    if KEYS[name].is_kind:
        return st.sampled_from(kinds_in(KEYS[name]))
    kind, many, optional = kind_of(name)
    if get_origin(kind) is Literal:
        value = st.sampled_from(get_args(kind))
    elif kind is bool:
        value = st.booleans()
    elif kind is str:
        value = st.sampled_from(KEYS[name].metadata.get("choices", ["hidden_1", "aux_head", "x"]))
    else:
        low, high = ends_of(name)
        value = st.integers(low, high) if kind is int else st.floats(low, high)
    if many:
        least = KEYS[name].metadata.get("least", 0)
        value = st.lists(value, min_size=least, max_size=4, unique=kind is str)
    return st.none() | value if optional else value


TABLES = st.fixed_dictionaries(
    {},
    optional={name: values_of(name) for name in KEYS if not is_optional_setting(KEYS[name])},
)


def of_table(values: dict[str, Any]) -> Setting:
    """The setting of those values that exist beside the kinds among them."""
    there = settings.applicable(Setting, values)
    return build(Setting, {name: value for name, value in values.items() if name in there})


def setting_classes(cls: type) -> Iterator[type]:
    """A setting's class and all those inside it."""
    yield cls
    for hint in get_type_hints(cls).values():
        for part in (hint, *get_args(hint)):
            if is_dataclass(part) and isinstance(part, type):
                yield from setting_classes(part)


CLASSES = list(dict.fromkeys(setting_classes(Setting)))


# Fields.


@pytest.mark.parametrize("cls", CLASSES)
def test_every_field_of_every_class_has_a_mark_a_help_text_and_if_a_number_a_range(cls):
    hints = get_type_hints(cls)
    for field in fields(cls):
        about = field.metadata
        assert about["mark"] in ("static", "traced", "nested")
        text = about["help"]
        assert text.strip() == text != ""
        assert "\n" not in text
        assert not text.endswith(".")
        kind, _ = bare(hints[field.name]) if about["mark"] != "nested" else (None, False)
        element = get_args(kind)[0] if get_origin(kind) is tuple else kind
        ends = {"low", "high", "above"} & about.keys()
        if element in NUMBERS:
            assert ends in ({"low", "high"}, {"above", "high"}), field.name
            assert about.get("low", about.get("above")) < about["high"]
            assert {type(about[end]) for end in ends} == {element}
        else:
            assert ends == set()


def test_all_classes_were_looked_at():
    """So that the test above is about all of them."""
    assert {Setting, Model, Training, Matched, Interventions, Liminal} <= set(CLASSES)
    assert len(CLASSES) == 30
    kinds = [cls for cls in CLASSES if hasattr(cls, "kind")]
    assert len({cls.kind for cls in kinds}) == len(kinds)
    assert all((cls.__doc__ or "").strip() for cls in CLASSES)


@pytest.mark.parametrize("name", PLAIN)
def test_every_default_is_allowed_and_is_that_of_the_preprint(name):
    key = KEYS[name]
    value = checked(Setting, name, key.default)
    assert (list(value) if isinstance(value, tuple) else value) == key.default
    # Such as all images for a teacher, though noise has 60,000.
    assert flatten(PREPRINT).get(name, key.default) == key.default


@pytest.mark.parametrize("name", [name for name in PLAIN if kind_of(name)[0] in NUMBERS])
def test_both_ends_of_a_range_are_allowed_and_nothing_beyond(name):
    kind, many, _ = kind_of(name)
    low, high = ends_of(name)
    for end in (low, high):
        value = checked(Setting, name, [end] if many else end)
        assert value == ((end,) if many else end)
        assert type(value[0] if many else value) is kind
    if kind is int:
        beyond = (low - 1, high + 1)
    else:
        beyond = (math.nextafter(low, -math.inf), math.nextafter(high, math.inf))
    for value in (*beyond, 10**400, -(10**400)):
        with pytest.raises(SettingError, match=f"^{re.escape(name)} = "):
            checked(Setting, name, [value] if many else value)


def wrong_values(name: str) -> list[Any]:
    kind, many, optional = kind_of(name)
    if get_origin(kind) is Literal:
        wrong = ["nonsense", "", 1, True, ["relu"]]
    elif kind is bool:
        wrong = [0, 1, 0.0, "true", "", [True]]
    elif kind is str:
        wrong = [1, True, None, ["hidden_1"]]
    elif kind is int:
        wrong = [True, 1.0, 1.5, "1", math.nan, [1]]
    else:
        wrong = [True, "1", math.nan, math.inf, -math.inf, [0.5]]
    if many:
        # Beside an element that is right, too.
        right = [16] if kind is int else ["class_head"]
        wrong = [[item] for item in wrong] + [[*right, item] for item in wrong] + [*right, 5, "ab"]
    return wrong + list(NEVER) + ([] if optional else [None])


@pytest.mark.parametrize("name", PLAIN)
def test_every_wrong_type_is_refused_by_name(name):
    for value in wrong_values(name):
        with pytest.raises(SettingError) as raised:
            checked(Setting, name, value)
        message = str(raised.value)
        assert message.startswith(f"{name} = {value!r} is not allowed: it must be "), value
        assert message.endswith(allowed(KEYS[name])), value
        assert "\n" not in message


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_allowed_and_no_other(name):
    for kind in kinds_in(KEYS[name]):
        assert checked(Setting, name, kind) == kind
    for value in ("nonsense", 1, None, ["kl"]):
        with pytest.raises(SettingError, match=f"^{re.escape(name)} = .* must be one of "):
            checked(Setting, name, value)


@pytest.mark.parametrize("name", [name for name in PLAIN if kind_of(name)[0] is float])
def test_a_whole_number_is_taken_for_a_number(name):
    number = max(1, math.ceil(ends_of(name)[0]))
    assert type(checked(Setting, name, number)) is float


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_allowed_is_said_in_words_and_numbers_exactly(name):
    kind, many, optional = kind_of(name)
    words = allowed(KEYS[name])
    assert words.endswith(", or left out") == optional
    assert words.startswith("a list of ") == many
    if get_origin(kind) is Literal:
        assert f"one of {', '.join(get_args(kind))}" in words
    elif kind is bool:
        assert words.startswith("true or false")
    elif kind in NUMBERS:
        limits = KEYS[name].metadata
        numbers = re.findall(r"\d[\d.,]*(?:e[+-]?\d+)?", words)
        said = [float(number.replace(",", "")) for number in numbers]
        assert said == [limits.get("low", limits.get("above")), limits["high"]]
        assert ("above" in words) == ("above" in limits)
        assert ("whole" in words) == (kind is int)


def test_a_key_of_several_kinds_is_the_same_thing_in_all_of_them():
    """Its limits are looked up by the key alone."""
    meanings: dict[str, list[Any]] = {}
    for key in settings._known(Setting, settings._defaults(Setting), "", {}):
        limits = {name: key.metadata.get(name) for name in ("low", "high", "above", "least")}
        meanings.setdefault(key.name, []).append((key.type, limits))
    several = {name: means for name, means in meanings.items() if len(means) > 1}
    assert {"student.inputs.count", "start.shared"} <= set(several)
    for means in several.values():
        assert all(meaning == means[0] for meaning in means)


def test_an_empty_list_is_allowed_where_it_means_something():
    assert build(Setting, {"model.hidden": []}).model.hidden == ()
    assert build(Setting, {"student.frozen": []}) == PREPRINT
    with pytest.raises(SettingError, match=r"^student_model\.hidden = .* one or more"):
        build(Setting, {"student_model.hidden": []})
    assert build(Setting, {"student_model.hidden": None}) == PREPRINT


def test_a_part_that_is_named_twice_is_refused_and_a_width_is_not():
    with pytest.raises(SettingError, match="each once"):
        build(Setting, {"student.frozen": ["hidden_1", "hidden_1"]})
    assert build(Setting, {"model.hidden": [16, 16]}).model.hidden == (16, 16)


def test_the_number_of_a_choice_of_logits_is_its_place():
    assert get_args(get_type_hints(Training)["logits"]) == LOGITS


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("student.epoch", "student.epochs"),
        ("generations", "chain.generations"),
        ("aux", "model.aux"),
        ("dataset_", "dataset"),
        ("start.clone.epoches", "start.clone.epochs"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name, near):
    with pytest.raises(SettingError) as raised:
        build(Setting, {"model.aux": 3, name: 1})
    assert str(raised.value) == f"unknown setting {name!r}; did you mean {near}?"


# Tables.


@given(TABLES)
def test_a_setting_is_the_same_after_json(values):
    setting = of_table(values)
    again = build(Setting, json.loads(json.dumps(flatten(setting))))
    assert again == setting
    assert hash(again) == hash(setting)
    table = flatten(setting)
    for name in settings.applicable(Setting, values):
        assert table[name] == values[name]


@given(TABLES)
def test_every_setting_of_allowed_values_can_be_judged(values):
    for error in checks.contradictions(of_table(values)):
        assert error.keys
        assert set(error.keys) <= set(KEYS)
        assert str(error)
        assert "\n" not in str(error)


def test_the_empty_table_is_the_preprints_setting():
    assert build(Setting, {}) == Setting() == PREPRINT
    assert (
        flatten(PREPRINT).items()
        >= {
            "dataset": "mnist",
            "model.hidden": [256, 256],
            "model.aux": 3,
            "teacher.inputs": "images",
            "teacher.loss": "cross_entropy",
            "teacher.logits": "class",
            "student.inputs": "uniform",
            "student.inputs.count": 60_000,
            "student.batch": 1024,
            "student.epochs": 5,
            "student.loss": "kl",
            "student.logits": "aux",
            "student.optimiser": "adam",
            "student.learning_rate": 3e-4,
            "start": "reference",
            "chain.generations": 1,
            "order": "own",
        }.items()
    )


# What teachers and clones depend on.


def of_top(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("name", [name for name in KEYS if not is_optional_setting(KEYS[name])])
def test_a_teacher_is_shared_by_settings_that_differ_in_nothing_of_its_own(name):
    before, after = neighbours(name)
    own = {
        "teacher" if field.name == "training" else field.name for field in fields(TeacherSetting)
    }
    # The auxiliary head stays as it is drawn: one teacher serves every m.
    depends = of_top(name) in own and name != "model.aux"
    assert (teacher_of(before) != teacher_of(after)) == depends


@pytest.mark.parametrize("name", [name for name in KEYS if not is_optional_setting(KEYS[name])])
def test_a_clone_is_shared_by_settings_that_differ_in_nothing_of_its_own(name):
    cloned = {key: value for key, value in MATCHED.items() if key == "start"}
    kinds = {union: kind[0] for union, kind in KEYS[name].kinds.items()} | cloned
    if "start" in KEYS[name].kinds and "matched" not in KEYS[name].kinds["start"]:
        # It is of another start, of which there is no clone.
        assert clone_of(neighbours(name)[0]) is None
        return
    if name == "start":
        assert clone_of(build(Setting, cloned)) is not None
        assert clone_of(PREPRINT) is None
        return
    present = {name: KEYS[name].default} if name.startswith("interventions.liminal.") else {}
    before = build(Setting, kinds | present)
    after = build(Setting, kinds | {name: another(KEYS[name])})
    assert before != after
    depends = of_top(name) in {field.name for field in fields(CloneSetting)}
    assert (clone_of(before) != clone_of(after)) == depends


@given(TABLES)
def test_the_whole_of_what_a_model_depends_on_depends_on_the_same(values):
    setting = of_table(values)
    assert teacher_of(whole(teacher_of(setting))) == teacher_of(setting)
    clone = clone_of(setting)
    assert (clone is None) == (not isinstance(setting.start, Matched))
    if clone is not None:
        assert clone_of(whole(clone)) == clone


def test_the_whole_has_the_default_of_everything_else():
    setting = tiny(MATCHED | {"student.epochs": 9, "interventions.project_trait": True})
    clone = clone_of(setting)
    assert clone is not None
    assert whole(clone) == replace(
        PREPRINT, dataset="digits", model=setting.model, start=setting.start
    )
    assert whole(teacher_of(setting)) == replace(
        PREPRINT, dataset="digits", model=replace(setting.model, aux=1), teacher=setting.teacher
    )
