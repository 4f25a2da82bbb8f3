"""Settings: nested frozen dataclasses whose fields say for themselves what they are.

    @setting
    class Adam:
        kind: ClassVar[str] = "adam"

    @setting
    class AdamW:
        kind: ClassVar[str] = "adamw"
        weight_decay: float = traced("weight decay", default=1e-4, low=0.0, high=10.0)

    @setting
    class Training:
        batch: int = static("inputs a step", default=1024, low=1, high=2**24)
        learning_rate: float = traced("learning rate", default=3e-4, above=0.0, high=1e3)
        optimiser: Adam | AdamW = nested("optimiser", default=Adam())

Every class is a pytree. A *static* field belongs to its structure: another value is another
compiled program. A *traced* field is a leaf: another value is another row of a population. A
*nested* field holds another setting; where its type is a union, the class that it holds is its
*kind*, which belongs to the structure too, so that a number exists only where it means something.

Outside Python a setting is a flat table of dotted keys, `{"optimiser": "adamw",
"optimiser.weight_decay": 1e-3, "batch": 64}`: `build` makes a setting of it and `flatten` the
table of a setting. Everything that has to know all fields (ranges, help texts, tables of the
documents, columns of records) derives it from the classes with `known`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from math import isfinite
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import jax

from sublab.errors import InputError

T = TypeVar("T")
# In a file a kind may be named by the key of its union, or by that key with this at the end.
KIND = "kind"


class SettingError(InputError):
    """A setting that cannot be; `keys` are the dotted keys to change, the likeliest first."""

    def __init__(self, message: str, *keys: str):
        super().__init__(message)
        self.keys = keys


def static(help: str, *, default: Any, **limits: Any) -> Any:
    """A field that is compiled in: it belongs to the structure of the pytree.

    Args:
        help: what it is, in a phrase that stands without the field's name.
        default: its default, hashable.
        limits: `low` and `high` (both allowed) or `above` (not allowed) for numbers; `title`, what
            an axis of a figure calls it; `phrase`, how a title says its value; `choices` of a
            text; `least`, how many entries a list has at least; `words`, what the entries of a list
            of texts are.
    """
    return _field(help, default, "static", limits)


def traced(help: str, *, default: Any, **limits: Any) -> Any:
    """A field that is a leaf of the pytree; arguments as those of `static`."""
    return _field(help, default, "traced", limits)


def nested(help: str, *, default: Any, **limits: Any) -> Any:
    """A field that holds another setting, one of several kinds where its type is a union."""
    return _field(help, default, "nested", limits)


def _field(help: str, default: Any, mark: str, limits: Mapping[str, Any]) -> Any:
    return field(default=default, metadata={"help": help, "mark": mark, **limits})


@dataclass_transform(frozen_default=True, field_specifiers=(static, traced, nested, field))
def setting(cls: type[T]) -> type[T]:
    """A frozen dataclass that is a pytree as its fields are marked.

    Raises:
        TypeError: a field has no mark.
    """
    made: Any = dataclass(frozen=True)(cls)
    marks = {item.name: item.metadata.get("mark") for item in fields(made)}
    if unmarked := [name for name, mark in marks.items() if mark is None]:
        raise TypeError(f"{cls.__name__}: {', '.join(unmarked)} must be static, traced or nested")
    inside = tuple(name for name, mark in marks.items() if mark != "static")
    outside = tuple(name for name, mark in marks.items() if mark == "static")

    def structure_of(value: Any) -> tuple[Any, ...]:
        return tuple(getattr(value, name) for name in outside)

    def parts(value: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(value, name) for name in inside], structure_of(value)

    def named_parts(value: Any) -> tuple[list[Any], tuple[Any, ...]]:
        named = [(jax.tree_util.GetAttrKey(name), getattr(value, name)) for name in inside]
        return named, structure_of(value)

    def whole(structure: tuple[Any, ...], leaves: Iterable[Any]) -> Any:
        # Past `__init__`: in a computation arrays and tracers stand where a setting has numbers.
        value = object.__new__(made)
        for name, item in zip((*inside, *outside), (*leaves, *structure), strict=True):
            object.__setattr__(value, name, item)
        return value

    jax.tree_util.register_pytree_with_keys(made, named_parts, whole, parts)
    return made


@dataclass(frozen=True)
class Key:
    """What a dotted key stands for.

    Attributes:
        name: the dotted key.
        type: of its value, with None where it may be left out; a union of settings for a kind.
        default: where nothing else is said.
        help: what it is.
        metadata: limits and title, as the field has them.
        kinds: of every union above it, the kinds in which it exists: {} where it always does.
    """

    name: str
    type: Any
    default: Any
    help: str
    metadata: Mapping[str, Any]
    kinds: Mapping[str, tuple[str, ...]]

    @property
    def is_kind(self) -> bool:
        """Whether its value names a kind."""
        return bool(_settings_in(self.type)) and not _is_optional_setting(self.type)


def flatten(value: Any) -> dict[str, Any]:
    """The table of a setting: every field that it has by its dotted key, as JSON has it."""
    return {name: _plain(item) for name, item in _flat(value, "")}


def build(cls: type[T], values: Mapping[str, Any], default: T | None = None) -> T:
    """The setting with `values` in place of what `default` has.

    Args:
        cls: class of the setting.
        values: by dotted key; kinds by the key of their union, with or without `.kind`.
        default: what is not named (default: the class's own defaults).

    Raises:
        SettingError: a key that is unknown or of another kind, a wrong type, a value out of range;
            it says what is allowed.
    """
    named = spelt(values)
    for name in named:
        key_of(cls, name)
    made = _built(cls if default is None else default, named, "", cls)
    there = flatten(made)
    for name in named:
        if name not in there and not _is_optional_setting(known(cls)[name].type):
            raise SettingError(_misplaced(cls, name, there), name)
    return made


def applicable(cls: type, values: Mapping[str, Any], default: Any = None) -> frozenset[str]:
    """The keys among `values` that exist beside the kinds that `values` choose."""
    named = spelt(values)
    kinds = {name: value for name, value in named.items() if known(cls)[name].is_kind}
    optional = [
        name
        for name in named
        if any(_is_optional_setting(known(cls)[above].type) for above in _above(cls, name))
    ]
    chosen = {name: value for name, value in kinds.items() if _reached(cls, name, kinds, default)}
    there = flatten(_built(cls if default is None else default, chosen, "", cls))
    return frozenset(name for name in named if name in there or name in optional)


def spelt(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with every kind under the key of its union."""
    return {name.removesuffix(f".{KIND}"): value for name, value in values.items()}


def checked(cls: type, name: str, value: Any) -> Any:
    """`value` of the key `name` in that key's type.

    Raises:
        SettingError: unknown key, wrong type, out of range.
    """
    name = name.removesuffix(f".{KIND}")
    key = key_of(cls, name)
    if key.is_kind:
        kinds = [item.kind for item in _settings_in(key.type)]
        if value not in kinds:
            raise SettingError(_refused(key, value), name)
        return value
    return _checked(key, value)


def allowed(key: Key) -> str:
    """What values a key may have, in words."""
    if key.is_kind:
        return "one of " + ", ".join(item.kind for item in _settings_in(key.type))
    kind, optional = _bare(key.type)
    limits = key.metadata
    many = get_origin(kind) is tuple
    element = get_args(kind)[0] if many else kind
    if get_origin(element) is Literal:
        words = "one of " + ", ".join(get_args(element))
    elif element is bool:
        words = "true or false"
    elif element is str and limits.get("choices"):
        words = "one of " + ", ".join(limits["choices"])
    elif element is str:
        words = limits.get("words", "texts")
    else:
        noun = "whole number" if element is int else "number"
        if limits.get("above") is not None:
            reach = f"above {limits['above']:g} and at most {limits['high']:,g}"
        else:
            reach = f"from {limits['low']:g} to {_number(limits['high'])}"
        some = "one or more " if limits.get("least") else ""
        words = f"{some}{noun}s {reach}" if many else f"a {noun} {reach}"
    words = f"a list of {words}" if many else words
    return f"{words}, or left out" if optional else words


def key_of(cls: type, name: str) -> Key:
    """What `name` stands for.

    Raises:
        SettingError: nothing of that name; it names the nearest.
    """
    keys = known(cls)
    if name in keys:
        return keys[name]
    near = get_close_matches(name, keys, n=1)
    last = [key for key in keys if key.rpartition(".")[2] == name.rpartition(".")[2]]
    hint = f"; did you mean {' or '.join(last[:3] or near)}?" if last or near else ""
    raise SettingError(f"unknown setting {name!r}{hint}", name)


@cache
def known(cls: type) -> dict[str, Key]:
    """Every dotted key that a setting of `cls` may have, in the order of the fields."""
    keys: dict[str, Key] = {}
    for key in _known(cls, _defaults(cls), "", {}):
        if key.name in keys:
            # Several kinds have it: it exists in all of them.
            first = keys[key.name]
            kinds = {
                union: tuple(dict.fromkeys((*first.kinds[union], *key.kinds.get(union, ()))))
                for union in first.kinds
            }
            key = replace(first, kinds=kinds)  # noqa: PLW2901
        keys[key.name] = key
    # Where several kinds have a key, the default's own says what is there if nothing is said.
    there = flatten(cls())
    return {name: replace(key, default=there.get(name, key.default)) for name, key in keys.items()}


def differences(value: Any, default: Any) -> dict[str, Any]:
    """By dotted key, what `value` has that `default` has not, or has otherwise."""
    before = flatten(default)
    return {
        name: item
        for name, item in flatten(value).items()
        if name not in before or before[name] != item
    }


def in_words(cls: type, name: str, value: Any) -> str:
    """A key and its value as a phrase: the key's `phrase` where it has one, else `key = value`."""
    phrase = known(cls)[name].metadata.get("phrase")
    if phrase is not None:
        return phrase.format(_shown(value))
    return f"{name} = {_shown(value)}"


def title_of(cls: type, name: str) -> str:
    """What an axis of a figure calls a key."""
    return known(cls)[name].metadata.get("title") or name.replace("_", " ")


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _defaults(cls: type) -> dict[str, Any]:
    return {item.name: item.default for item in fields(cls)}


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = _hints(type(value))
    for item in fields(value):
        name, inside = f"{prefix}{item.name}", getattr(value, item.name)
        if not _settings_in(hints[item.name]):
            yield name, inside
            continue
        if _is_union(hints[item.name]):
            yield name, inside.kind
        if inside is not None:
            yield from _flat(inside, f"{name}.")


def _built(origin: Any, values: Mapping[str, Any], prefix: str, cls: type) -> Any:
    """The setting that `origin` (one, or a class) becomes with the `values` below `prefix`."""
    owner = origin if isinstance(origin, type) else type(origin)
    hints, changes = _hints(owner), {}
    for item in fields(owner):
        name = f"{prefix}{item.name}"
        now = item.default if isinstance(origin, type) else getattr(origin, item.name)
        assert now is not MISSING
        below = [key for key in values if key.startswith(f"{name}.")]
        choices = _settings_in(hints[item.name])
        if not choices:
            if name in values:
                changes[item.name] = _checked(known(cls)[name], values[name])
            else:
                changes[item.name] = now
            continue
        if name in values and not _is_union(hints[item.name]):
            # Nothing may be said of it as a whole, but that it is left out.
            now = _checked(known(cls)[name], values[name])
        elif name in values:
            by_name = {choice.kind: choice for choice in choices}
            if values[name] not in by_name:
                raise SettingError(_refused(known(cls)[name], values[name]), name)
            if now.kind != values[name]:
                now = by_name[values[name]]
        if now is None and below:
            (now,) = choices
        changes[item.name] = None if now is None else _built(now, values, f"{name}.", cls)
    return owner(**changes)


def _known(cls: type, defaults: Mapping[str, Any], prefix: str, kinds: Any) -> Iterator[Key]:
    hints = _hints(cls)
    for item in fields(cls):
        hint, name = hints[item.name], f"{prefix}{item.name}"
        default = defaults.get(item.name, item.default)
        choices = _settings_in(hint)
        if not choices:
            yield _key(item, name, hint, default, kinds)
            continue
        if _is_union(hint):
            yield _key(item, name, hint, default.kind, kinds)
        elif _is_optional_setting(hint):
            yield _key(item, name, hint, None, kinds)
        for choice in choices:
            here = _defaults(choice)
            if type(default) is choice:
                here = {part.name: getattr(default, part.name) for part in fields(choice)}
            mine = kinds | {name: (choice.kind,)} if _is_union(hint) else kinds
            yield from _known(choice, here, f"{name}.", mine)


def _key(item: Field, name: str, hint: Any, default: Any, kinds: Any) -> Key:
    return Key(name, hint, _plain(default), item.metadata["help"], item.metadata, kinds)


def _above(cls: type, name: str) -> list[str]:
    """The known keys above `name`."""
    parts = name.split(".")
    names = [".".join(parts[:end]) for end in range(1, len(parts))]
    return [above for above in names if above in known(cls)]


def _reached(cls: type, name: str, kinds: Mapping[str, Any], default: Any) -> bool:
    """Whether the unions above `name` have the kinds in which it exists."""
    before = {} if default is None else flatten(default)
    for union, of in known(cls)[name].kinds.items():
        if kinds.get(union, before.get(union, known(cls)[union].default)) not in of:
            return False
    return True


def _misplaced(cls: type, name: str, there: Mapping[str, Any]) -> str:
    for union, kinds in known(cls)[name].kinds.items():
        if there.get(union) not in kinds:
            return (
                f"{name} has no effect: it is for {union} = {' or '.join(kinds)}, "
                f"which is {there.get(union)} here"
            )
    raise AssertionError(name)


def _refused(key: Key, value: Any) -> str:
    return f"{key.name} = {value!r} is not allowed: it must be {allowed(key)}"


def _checked(key: Key, value: Any) -> Any:
    kind, optional = _bare(key.type)
    if value is None and optional:
        return None
    if _settings_in(kind):
        raise SettingError(
            f"{key.name} is set by what it consists of, such as {key.name}."
            f"{fields(_settings_in(kind)[0])[0].name}",
            key.name,
        )
    refusal = SettingError(_refused(key, value), key.name)
    many = get_origin(kind) is tuple
    element = get_args(kind)[0] if many else kind
    if many != isinstance(value, list | tuple):
        raise refusal
    listed = list(value) if isinstance(value, list | tuple) else [value]
    if many and len(listed) < key.metadata.get("least", 0):
        raise refusal
    values = [_element(element, item) for item in listed]
    choices = key.metadata.get("choices")
    if choices and any(item not in choices for item in values):
        raise refusal
    if any(item is None or not _inside(item, key.metadata) for item in values):
        raise refusal
    if many and element is str and len(set(values)) < len(values):
        raise refusal
    return tuple(values) if many else values[0]


def _element(kind: Any, value: Any) -> Any:
    """`value` as `kind`, or None where it is no such thing."""
    if get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else None
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value) if isfinite(value) else None
        except OverflowError:
            return None
    # bool is an int to Python, but not to a reader.
    return value if type(value) is kind else None


def _inside(value: Any, limits: Mapping[str, Any]) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return True
    low, high, above = (limits.get(name) for name in ("low", "high", "above"))
    return not (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
    )


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _bare(hint: Any) -> tuple[Any, bool]:
    """A type without its None, and whether it had one."""
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        rest = tuple(item for item in get_args(hint) if item is not NoneType)
        return (rest[0] if len(rest) == 1 else Union[rest]), True  # noqa: UP007
    return hint, False


@cache
def _settings_in(hint: Any) -> list[type]:
    """The settings that a type stands for; none for a plain value."""
    bare, _ = _bare(hint)
    parts = get_args(bare) if get_origin(bare) in (Union, UnionType) else (bare,)
    return [part for part in parts if isinstance(part, type) and is_dataclass(part)]


@cache
def _is_union(hint: Any) -> bool:
    return len(_settings_in(hint)) > 1


def _is_optional_setting(hint: Any) -> bool:
    return bool(_settings_in(hint)) and _bare(hint)[1]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _number(number: float | int) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
