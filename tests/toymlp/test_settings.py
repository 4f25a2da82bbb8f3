"""Claims about the settings: their types, ranges and words."""

import json
import math
import re
from dataclasses import FrozenInstanceError, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublab.errors import InputError
from toymlp import rules
from toymlp.settings import (
    DEFAULTS,
    FIELDS,
    TYPES,
    Knobs,
    Setting,
    Shape,
    allowed,
    checked_value,
    from_dict,
)

NAMES = sorted(FIELDS)
# What is a value of no setting.
NEVER: tuple[Any, ...] = ({}, b"aux", 1j, object())


def kind_of(name: str) -> tuple[Any, bool, bool]:
    """The type of one value, whether there are many in a list, whether it can be left out."""
    kind, optional = TYPES[name], False
    if get_origin(kind) in (Union, UnionType):
        (kind,), optional = [a for a in get_args(kind) if a is not type(None)], True
    many = get_origin(kind) is tuple
    return (get_args(kind)[0] if many else kind), many, optional


def ends_of(name: str) -> tuple[Any, Any]:
    """The smallest and the largest number that is allowed."""
    limits = FIELDS[name].metadata
    low = limits["low"] if limits["above"] is None else math.nextafter(limits["above"], math.inf)
    return low, limits["high"]


def values_of(name: str) -> st.SearchStrategy[Any]:
    """Everything that the metadata of the setting `name` allow."""
    kind, many, optional = kind_of(name)
    if get_origin(kind) is Literal:
        one = st.sampled_from(get_args(kind))
    elif kind is bool:
        one = st.booleans()
    elif kind is str:
        one = st.sampled_from(["hidden_1", "hidden_2", "hidden_3", "class_head", "aux_head", "x"])
    else:
        low, high = ends_of(name)
        one = st.integers(low, high) if kind is int else st.floats(low, high)
    if many:
        one = st.lists(
            one, min_size=0 if name == "hidden" or kind is str else 1, max_size=4,
            unique=kind is str,
        )  # fmt: skip
    return st.none() | one if optional else one


SETTINGS = st.fixed_dictionaries({}, optional={name: values_of(name) for name in NAMES})


def too_small(name: str) -> Any:
    low, _ = ends_of(name)
    return low - 1 if kind_of(name)[0] is int else math.nextafter(low, -math.inf)


def too_large(name: str) -> Any:
    _, high = ends_of(name)
    return high + 1 if kind_of(name)[0] is int else math.nextafter(high, math.inf)


def wrong_values(name: str) -> list[Any]:
    kind, many, optional = kind_of(name)
    if get_origin(kind) is Literal:
        wrong = ["nonsense", "", 1, True, ["relu"]]
    elif kind is bool:
        wrong = [0, 1, 0.0, "true", "", [True]]
    elif kind is str:
        wrong = [1, True, None, ["hidden_1"]]
    elif kind is int:
        wrong = [True, 1.0, 1.5, "1", math.nan, too_small(name), too_large(name), [1]]
    else:
        wrong = [True, "1", math.nan, math.inf, -math.inf, too_small(name), too_large(name), [0.5]]
    if many:
        # Beside an element that is right, too.
        right = [DEFAULTS["hidden"][0]] if kind is int else ["class_head"]
        wrong = [[item] for item in wrong] + [[*right, item] for item in wrong] + [*right, 5, "ab"]
    return wrong + list(NEVER) + ([] if optional else [None])


@given(SETTINGS)
def test_a_setting_is_the_same_after_json(values):
    setting = from_dict(values)
    again = from_dict(json.loads(json.dumps(setting.as_dict())))
    assert again == setting
    assert hash(again) == hash(setting)
    given_ = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    for part in (setting.shape, setting.knobs):
        for item in fields(part):
            assert getattr(part, item.name) == given_.get(item.name, DEFAULTS[item.name])


@given(SETTINGS)
def test_every_setting_of_allowed_values_can_be_judged_by_the_rules(values):
    setting = from_dict(values)
    for found in rules.contradictions(setting):
        assert found.names
        assert set(found.names) <= set(FIELDS)
        assert found.message
        assert "\n" not in found.message


def test_the_empty_dictionary_is_the_default_setting():
    assert from_dict({}) == Setting() == from_dict(Setting().as_dict())
    assert from_dict({"aux": 4}) != Setting()
    assert from_dict({"aux": 4}) == Setting(knobs=Knobs(aux=4))
    assert from_dict({"images": 5}) == Setting(shape=Shape(images=5))


def test_a_setting_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Setting().knobs.aux = 4  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", NAMES)
def test_every_wrong_type_and_every_value_out_of_range_is_refused_by_name(name):
    for value in wrong_values(name):
        with pytest.raises(InputError) as raised:
            from_dict({name: value})
        message = str(raised.value)
        assert message.startswith(f"{name} = {value!r} is not allowed: it must be "), value
        assert message.endswith(allowed(name)), value
        assert "\n" not in message


@pytest.mark.parametrize("name", [n for n in NAMES if kind_of(n)[0] in (int, float)])
def test_both_ends_of_a_range_are_allowed(name):
    kind, many, _ = kind_of(name)
    for end in ends_of(name):
        value = checked_value(name, [end] if many else end)
        assert value == ((end,) if many else end)
        assert type(value[0] if many else value) is kind


@pytest.mark.parametrize("name", [n for n in NAMES if kind_of(n)[0] is float])
def test_a_whole_number_is_taken_for_a_number(name):
    whole = max(1, math.ceil(ends_of(name)[0]))
    assert type(checked_value(name, whole)) is float
    assert from_dict({name: whole}) == from_dict({name: float(whole)})


@pytest.mark.parametrize("name", ["alpha", "aux", "hidden"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_whole_number_beyond_all_floats_is_refused_like_any_other(name, sign):
    huge = sign * 10**400
    with pytest.raises(InputError, match=f"^{name} = "):
        from_dict({name: [huge] if name == "hidden" else huge})


@pytest.mark.parametrize("name", NAMES)
def test_what_is_allowed_is_said_in_words_and_numbers_exactly(name):
    kind, many, optional = kind_of(name)
    words = allowed(name)
    assert words.endswith(", or left out") == optional
    assert words.startswith("a list of ") == many
    if get_origin(kind) is Literal:
        assert f"one of {', '.join(get_args(kind))}" in words
    elif kind is bool:
        assert words.startswith("true or false")
    elif kind in (int, float):
        limits = FIELDS[name].metadata
        numbers = re.findall(r"\d[\d.,]*(?:e[+-]?\d+)?", words)
        said = [float(number.replace(",", "")) for number in numbers]
        least = limits["low"] if limits["above"] is None else limits["above"]
        assert said == [least, limits["high"]]
        assert ("above" in words) == (limits["above"] is not None)
        assert ("whole" in words) == (kind is int)


def test_an_empty_list_is_allowed_where_it_means_something():
    assert from_dict({"hidden": []}).shape.hidden == ()
    for name in ("redrawn", "shared", "frozen"):
        assert checked_value(name, []) == ()
    with pytest.raises(InputError, match=r"^student_hidden = "):
        from_dict({"student_hidden": []})
    assert from_dict({"student_hidden": None}).shape.student_hidden is None


def test_a_part_that_is_named_twice_is_refused():
    with pytest.raises(InputError, match="each once"):
        from_dict({"frozen": ["hidden_1", "hidden_1"]})
    assert from_dict({"frozen": ["hidden_1", "hidden_2"]}).knobs.frozen == ("hidden_1", "hidden_2")
    # Widths may well be the same twice.
    assert from_dict({"hidden": [16, 16]}).shape.hidden == (16, 16)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("student_epoch", "student_epochs"),
        ("aus", "aux"),
        ("generation", "generations"),
        ("clone_epoches", "clone_epochs"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name, near):
    with pytest.raises(InputError) as raised:
        from_dict({"aux": 3, name: 1})
    assert str(raised.value) == f"unknown setting {name!r}; did you mean {near!r}?"


def test_an_unknown_name_like_no_other_is_refused_with_all_that_are_known():
    with pytest.raises(InputError) as raised:
        checked_value("zzzzzz", 1)
    assert str(raised.value) == f"unknown setting 'zzzzzz'; known are {', '.join(NAMES)}"


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_help_text(name):
    text = FIELDS[name].metadata["help"]
    assert text.strip() == text != ""
    assert "\n" not in text
    assert not text.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_one_lower_bound_and_an_upper_one_and_nothing_else_has_any(name):
    kind, many, _ = kind_of(name)
    limits = {end: FIELDS[name].metadata[end] for end in ("low", "high", "above")}
    if kind not in (int, float):
        assert limits == {"low": None, "high": None, "above": None}
        return
    assert (limits["low"] is None) != (limits["above"] is None)
    assert limits["high"] is not None
    low, high = ends_of(name)
    assert low < high
    assert all(type(end) is kind for end in limits.values() if end is not None)
    default = DEFAULTS[name]
    for value in default or () if many else [default]:
        assert low <= value <= high


def test_shape_and_knobs_share_no_name_and_every_default_is_allowed():
    shape, knobs = ({item.name for item in fields(part)} for part in (Shape, Knobs))
    assert not shape & knobs
    assert shape | knobs == set(FIELDS) == set(TYPES) == set(DEFAULTS)
    for name, default in DEFAULTS.items():
        assert checked_value(name, default) == default
