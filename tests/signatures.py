"""Signatures that are checked at run time, each as thoroughly as what it says needs."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ForwardRef, TypeVar, get_args

import jax
import jaxtyping
from beartype import beartype

_jaxtyped = jaxtyping.jaxtyped
# What a pytree holds in place of arrays where a program is compiled for such arrays.
_DESCRIPTIONS = (jax.ShapeDtypeStruct, jax.stages.ArgInfo)


def check_signatures(packages: Sequence[str]) -> None:
    """Checks every call of the functions and dataclasses of `packages`, imported after this.

    By itself the import hook of jaxtyping checks arguments twice, before a call and after it, and
    gives each call a memory of the sizes that were seen, so that one name is one size. Once is
    enough, and where nothing is said of an array there is nothing to remember: beartype alone takes
    a small part of the time there.
    """
    # The decorator that the hook writes above every definition.
    jaxtyping.jaxtyped = _checked
    jaxtyping.install_import_hook(packages, "beartype.beartype")


def _checked(what: Any = None, *, typechecker: Any) -> Any:
    if what is None:
        return lambda definition: _checked(definition, typechecker=typechecker)
    if inspect.isfunction(what):
        hints = [*what.__annotations__.values()]
        if not any(map(_is_unknown, hints)):
            body = map(what.__globals__.get, what.__code__.co_names)
            of_arrays = any(map(_is_of_arrays, [*hints, *body]))
            return _with_shapes(what) if of_arrays else beartype(what)
    elif inspect.isclass(what) and dataclasses.is_dataclass(what) and "__init__" in vars(what):
        # One that is written out is decorated by itself.
        if not hasattr(what.__init__, "__wrapped__"):
            what.__init__ = _checked(what.__init__, typechecker=typechecker)
        return what
    return _jaxtyped(what, typechecker=typechecker)


def _with_shapes(function: Callable) -> Callable:
    checked = _jaxtyped(beartype(function), typechecker=None)

    fields = function.__name__ == "__init__"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Tests of what a function says by itself of bad arguments switch this off.
        unchecked = jaxtyping.config.jaxtyping_disable or (
            fields and any(isinstance(value, _DESCRIPTIONS) for value in (*args, *kwargs.values()))
        )
        chosen = function if unchecked else checked
        return chosen(*args, **kwargs)

    return call


def _any_part(hint: Any, holds: Callable[[Any], bool]) -> bool:
    """Whether it holds of a hint, or of one inside it."""
    if isinstance(hint, list | tuple):
        return any(_any_part(part, holds) for part in hint)
    return holds(hint) or any(_any_part(part, holds) for part in get_args(hint))


def _is_unknown(hint: Any) -> bool:
    """Whether it can only be told later what a hint stands for."""
    return _any_part(hint, lambda part: isinstance(part, str | ForwardRef | TypeVar))


def _is_of_arrays(hint: Any) -> bool:
    # jaxtyping's types have metaclasses of its own.
    return _any_part(hint, lambda part: type(part).__module__.startswith("jaxtyping"))
