"""Claims about settings in general, on small classes made up for it."""

import json
import math
from dataclasses import FrozenInstanceError, replace
from typing import Any, ClassVar, Literal

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublab.settings import (
    SettingError,
    allowed,
    applicable,
    build,
    checked,
    differences,
    flatten,
    in_words,
    key_of,
    known,
    nested,
    setting,
    static,
    title_of,
    traced,
)


@setting
class Square:
    kind: ClassVar[str] = "square"

    side: float = traced("length of a side", default=1.0, low=0.0, high=10.0)


@setting
class Circle:
    kind: ClassVar[str] = "circle"

    radius: float = traced("distance from the centre", default=2.0, above=0.0, high=5.0)
    corners: int = static("corners that it is drawn with", default=64, low=3, high=1000)


@setting
class Ring:
    kind: ClassVar[str] = "ring"

    radius: float = traced("distance from the centre", default=2.0, above=0.0, high=5.0)
    width: float = traced("width of the ring", default=0.5, above=0.0, high=1.0)


@setting
class Frame:
    thickness: int = static("thickness of the frame", default=1, low=1, high=9)
    shadow: float = traced("length of its shadow", default=0.0, low=-1.0, high=1.0)


@setting
class Paper:
    grammage: int = static("grams per square metre", default=80, low=1, high=500)


@setting
class Drawing:
    name: str = static("what is drawn", default="plan", choices=("plan", "view"))
    shape: Square | Circle | Ring = nested(
        "shape that is drawn", default=Circle(radius=3.0), phrase="a {}"
    )
    frame: Frame | None = nested("frame around it", default=None)
    paper: Paper = nested("what it is drawn on", default=Paper(grammage=120))
    colour: Literal["red", "blue"] = traced("colour of the lines", default="red")
    filled: bool = static("whether the shape is filled", default=False, title="filling")
    copies: int | None = static("number of copies", default=None, low=1, high=100)
    weights: tuple[float, ...] = static(
        "weights of the lines", default=(1.0,), low=0.0, high=1.0, least=1, phrase="weights {}"
    )
    layers: tuple[str, ...] = static("layers that are shown", default=(), words="layers, each once")
    scale: float = traced("scale of the drawing", default=1.0, above=0.0, high=1e3)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high)


LITTLE = math.nextafter(0, 1)
SHAPES = (
    st.builds(Square, side=numbers(0, 10))
    | st.builds(Circle, radius=numbers(LITTLE, 5), corners=st.integers(3, 1000))
    | st.builds(Ring, radius=numbers(LITTLE, 5), width=numbers(LITTLE, 1))
)
DRAWINGS = st.builds(
    Drawing,
    name=st.sampled_from(["plan", "view"]),
    shape=SHAPES,
    frame=st.none() | st.builds(Frame, thickness=st.integers(1, 9), shadow=numbers(-1, 1)),
    paper=st.builds(Paper, grammage=st.integers(1, 500)),
    colour=st.sampled_from(["red", "blue"]),
    filled=st.booleans(),
    copies=st.none() | st.integers(1, 100),
    weights=st.lists(numbers(0, 1), min_size=1, max_size=3).map(tuple),
    layers=st.lists(st.sampled_from(["walls", "doors", "trees"]), unique=True).map(tuple),
    scale=numbers(LITTLE, 1e3),
)


def refusal(values: dict[str, Any], default: Any = None) -> SettingError:
    with pytest.raises(SettingError) as raised:
        build(Drawing, values, default)
    assert "\n" not in str(raised.value)
    return raised.value


# Tables.


@given(DRAWINGS)
def test_a_setting_is_the_same_after_a_table_and_json(drawing):
    again = build(Drawing, json.loads(json.dumps(flatten(drawing))))
    assert again == drawing
    assert hash(again) == hash(drawing)


@given(DRAWINGS, DRAWINGS)
def test_two_settings_have_one_table_only_if_they_are_equal(first, second):
    assert (flatten(first) == flatten(second)) == (first == second)


def test_a_table_has_every_field_that_there_is_in_the_order_of_the_classes():
    assert flatten(Drawing()) == {
        "name": "plan",
        "shape": "circle",
        "shape.radius": 3.0,
        "shape.corners": 64,
        "paper.grammage": 120,
        "colour": "red",
        "filled": False,
        "copies": None,
        "weights": [1.0],
        "layers": [],
        "scale": 1.0,
    }
    assert list(flatten(Drawing(frame=Frame())))[:6] == [
        *("name", "shape", "shape.radius", "shape.corners"),
        *("frame.thickness", "frame.shadow"),
    ]


def test_an_empty_table_is_the_default_and_a_value_changes_one_thing():
    assert build(Drawing, {}) == Drawing()
    assert build(Drawing, {"scale": 2.0}) == Drawing(scale=2.0)
    assert build(Drawing, {"paper.grammage": 90}) == Drawing(paper=Paper(90))
    other = Drawing(scale=5.0, filled=True)
    assert build(Drawing, {"scale": 2.0}, other) == replace(other, scale=2.0)


def test_a_setting_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Drawing().scale = 2.0  # pyright: ignore[reportAttributeAccessIssue]


# Kinds.


def test_a_kind_is_named_by_its_union_with_or_without_the_word_kind():
    for key in ("shape", "shape.kind"):
        assert build(Drawing, {key: "square", "shape.side": 2.0}).shape == Square(2.0)


def test_another_kind_has_its_own_defaults_and_the_same_kind_what_was_said_before():
    # The drawing's circle is larger than circles are.
    assert build(Drawing, {"shape": "circle"}).shape == Circle(radius=3.0)
    assert build(Drawing, {"shape.corners": 5}).shape == Circle(3.0, 5)
    assert build(Drawing, {"shape": "ring"}).shape == Ring(2.0, 0.5)
    assert build(Drawing, {"shape": "circle"}, Drawing(shape=Ring())).shape == Circle()


def test_an_unknown_kind_is_refused_with_those_that_there_are():
    for value in ("triangle", 3, None):
        error = refusal({"shape": value})
        assert str(error) == (
            f"shape = {value!r} is not allowed: it must be one of square, circle, ring"
        )
        assert error.keys == ("shape",)


def test_a_number_exists_beside_its_kind_alone():
    error = refusal({"shape.side": 2.0})
    assert str(error) == (
        "shape.side has no effect: it is for shape = square, which is circle here"
    )
    assert error.keys == ("shape.side",)
    error = refusal({"shape": "square", "shape.radius": 2.0})
    assert "it is for shape = circle or ring, which is square here" in str(error)
    for kind in ("circle", "ring"):
        drawing = build(Drawing, {"shape": kind, "shape.radius": 1.0})
        assert flatten(drawing)["shape.radius"] == 1.0


def test_an_optional_setting_is_there_once_something_is_said_of_it():
    assert Drawing().frame is None
    assert build(Drawing, {"frame.thickness": 3}).frame == Frame(3)
    framed = Drawing(frame=Frame(3))
    assert build(Drawing, {"frame.shadow": 0.5}, framed).frame == Frame(3, 0.5)
    assert build(Drawing, {"frame": None}, framed) == Drawing()
    error = refusal({"frame": "golden"})
    assert str(error) == "frame is set by what it consists of, such as frame.thickness"


def test_the_keys_that_exist_beside_the_kinds_that_are_chosen():
    values = {
        "shape.side": 1.0,
        "shape.radius": 1.0,
        "shape.width": 0.5,
        "frame.thickness": 2,
        "scale": 2.0,
    }
    always = {"frame.thickness", "scale"}
    assert applicable(Drawing, values) == always | {"shape.radius"}
    assert applicable(Drawing, values | {"shape": "square"}) == always | {"shape", "shape.side"}
    assert applicable(Drawing, values | {"shape.kind": "ring"}) == always | {
        *("shape", "shape.radius", "shape.width")
    }
    assert applicable(Drawing, values, Drawing(shape=Square())) == always | {"shape.side"}


# Values.


BOUNDS = {
    "scale": (LITTLE, 1e3, float),
    "paper.grammage": (1, 500, int),
    "frame.shadow": (-1.0, 1.0, float),
    "shape.radius": (LITTLE, 5.0, float),
    "copies": (1, 100, int),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_both_ends_of_a_range_are_allowed_and_the_next_number_is_not(name):
    low, high, kind = BOUNDS[name]
    for end in (low, high):
        value = checked(Drawing, name, end)
        assert value == end
        assert type(value) is kind
        assert flatten(build(Drawing, {name: end}))[name] == end
    beyond = (
        (low - 1, high + 1)
        if kind is int
        else (math.nextafter(low, -math.inf), math.nextafter(high, math.inf))
    )
    for value in beyond:
        error = refusal({name: value})
        assert str(error).startswith(f"{name} = {value!r} is not allowed: it must be ")
        assert str(error).endswith(allowed(known(Drawing)[name]))
        assert error.keys == (name,)


WRONG = {
    "scale": [True, "1", None, [1.0], math.nan, math.inf, -math.inf, 10**400, -(10**400), {}],
    "paper.grammage": [True, 80.0, 80.5, "80", None, [80], math.nan, 10**400],
    "filled": [0, 1, "true", None, [True]],
    "colour": ["green", "", 1, None, ["red"]],
    "name": ["section", "", 1, None, ["plan"]],
    "copies": ["1", 1.0, True, [1]],
    "weights": [[], 1.0, [2.0], [0.5, -0.1], [True], ["1"], None, [[0.5]]],
    "layers": ["walls", [1], ["walls", "walls"], None, [None]],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_type_is_refused_in_words_that_say_what_is_allowed(name):
    for value in WRONG[name]:
        error = refusal({name: value})
        assert str(error) == (
            f"{name} = {value!r} is not allowed: it must be {allowed(known(Drawing)[name])}"
        )


def test_a_whole_number_is_taken_for_a_number():
    assert type(checked(Drawing, "scale", 2)) is float
    assert build(Drawing, {"scale": 2, "weights": [1, 0]}) == Drawing(scale=2.0, weights=(1.0, 0.0))


def test_lists_become_tuples_and_may_repeat_numbers_but_no_words():
    assert build(Drawing, {"weights": [0.5, 0.5]}).weights == (0.5, 0.5)
    assert build(Drawing, {"layers": ["walls", "doors"]}).layers == ("walls", "doors")
    assert build(Drawing, {"layers": []}).layers == ()


def test_what_is_allowed_in_words():
    words = {
        "scale": "a number above 0 and at most 1,000",
        "paper.grammage": "a whole number from 1 to 500",
        "frame.shadow": "a number from -1 to 1",
        "copies": "a whole number from 1 to 100, or left out",
        "weights": "a list of one or more numbers from 0 to 1",
        "layers": "a list of layers, each once",
        "filled": "true or false",
        "colour": "one of red, blue",
        "name": "one of plan, view",
        "shape": "one of square, circle, ring",
    }
    for name, phrase in words.items():
        assert allowed(known(Drawing)[name]) == phrase


# Names.


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("scales", "; did you mean scale?"),
        ("grammage", "; did you mean paper.grammage?"),
        ("radius", "; did you mean shape.radius?"),
        ("shape.raduis", "; did you mean shape.radius?"),
        ("zzzzzz", ""),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name, hint):
    error = refusal({"scale": 1.0, name: 1})
    assert str(error) == f"unknown setting {name!r}{hint}"
    assert error.keys == (name,)
    with pytest.raises(SettingError, match="unknown setting"):
        key_of(Drawing, name)


def test_the_known_keys_say_what_they_stand_for():
    keys = known(Drawing)
    assert list(keys) == [
        *("name", "shape", "shape.side", "shape.radius", "shape.corners", "shape.width"),
        *("frame", "frame.thickness", "frame.shadow", "paper.grammage"),
        *("colour", "filled", "copies", "weights", "layers", "scale"),
    ]
    assert [name for name, key in keys.items() if key.is_kind] == ["shape"]
    assert keys["scale"].kinds == {}
    assert keys["shape.side"].kinds == {"shape": ("square",)}
    assert keys["shape.radius"].kinds == {"shape": ("circle", "ring")}
    # Of a default's kind, what the default has.
    assert keys["shape.radius"].default == 3.0
    assert keys["shape.side"].default == 1.0
    assert keys["paper.grammage"].default == 120
    assert keys["shape"].default == "circle"
    assert keys["frame"].default is None
    assert keys["weights"].default == [1.0]
    assert keys["scale"].help == "scale of the drawing"


@setting
class Ringed:
    shape: Circle | Ring = nested("shape", default=Ring(radius=4.0))


def test_a_key_of_several_kinds_has_the_default_of_the_default():
    assert known(Ringed)["shape.radius"].default == 4.0


def test_keys_are_those_of_tables():
    everything = [Drawing(frame=Frame(), shape=shape) for shape in (Square(), Circle(), Ring())]
    in_tables = {name for drawing in everything for name in flatten(drawing)}
    assert in_tables == set(known(Drawing)) - {"frame"}


# Words.


def test_differences_are_what_a_setting_has_otherwise():
    assert differences(Drawing(), Drawing()) == {}
    other = Drawing(shape=Ring(width=0.1), frame=Frame(), filled=True)
    assert differences(other, Drawing()) == {
        "shape": "ring",
        "shape.radius": 2.0,
        "shape.width": 0.1,
        "frame.thickness": 1,
        "frame.shadow": 0.0,
        "filled": True,
    }


def test_a_key_and_its_value_in_words():
    assert in_words(Drawing, "shape", "ring") == "a ring"
    assert in_words(Drawing, "scale", 0.5) == "scale = 0.5"
    assert in_words(Drawing, "filled", True) == "filled = true"
    assert in_words(Drawing, "weights", [0.5, 1.0]) == "weights 0.5-1.0"
    assert in_words(Drawing, "layers", []) == "layers = none"
    assert in_words(Drawing, "paper.grammage", 1000) == "paper.grammage = 1,000"


def test_the_title_of_a_key_is_its_own_or_its_name():
    assert title_of(Drawing, "filled") == "filling"
    assert title_of(Drawing, "paper.grammage") == "paper.grammage"


# Structure.


def test_static_fields_are_the_structure_and_traced_ones_the_leaves():
    leaves, structure = jax.tree.flatten(Drawing())
    assert leaves == [3.0, "red", 1.0]
    for traced_alone in (
        Drawing(scale=2.0),
        Drawing(colour="blue"),
        Drawing(shape=Circle(radius=1.0)),
    ):
        assert jax.tree.structure(traced_alone) == structure
    for static_too in (
        Drawing(filled=True),
        Drawing(shape=Circle(3.0, corners=5)),
        Drawing(shape=Ring(3.0)),
        Drawing(paper=Paper()),
        Drawing(frame=Frame()),
        Drawing(weights=(0.5,)),
    ):
        assert jax.tree.structure(static_too) != structure
    assert jax.tree.structure(Drawing(frame=Frame(shadow=1.0))) == jax.tree.structure(
        Drawing(frame=Frame(shadow=0.5))
    )


def test_leaves_have_the_names_of_their_keys():
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(Drawing(frame=Frame()))]
    names = [jax.tree_util.keystr(path).removeprefix(".") for path in paths]
    assert names == ["shape.radius", "frame.shadow", "colour", "scale"]


def test_in_a_computation_arrays_may_stand_for_numbers():
    drawing = jax.tree.map(np.asarray, replace(Drawing(), colour="red"))
    assert isinstance(drawing.shape, Circle)
    assert np.shape(drawing.shape.radius) == ()
    assert isinstance(drawing.shape.radius, np.ndarray)
    assert drawing.filled is False
    twice = jax.jit(lambda some: 2 * some.radius)
    assert twice(Circle(radius=1.5)) == 3


def test_another_traced_number_compiles_nothing_and_another_static_one_does():
    traces = []

    @jax.jit
    def area(shape: Circle):
        traces.append(shape.corners)
        return shape.radius**2 * shape.corners

    for radius in (1.0, 2.0, 3.0):
        area(Circle(radius))
    assert traces == [64]
    area(Circle(1.0, corners=5))
    assert traces == [64, 5]


def test_a_field_without_a_mark_is_refused():
    with pytest.raises(TypeError, match="Bare: thing must be static, traced or nested"):

        @setting
        class Bare:
            thing: int = 3
            other: int = static("another thing", default=3, low=0, high=5)
