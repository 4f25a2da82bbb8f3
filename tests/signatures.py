"""Signatures that are checked at run time, each as thoroughly as what it says needs."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ForwardRef, TypeVar, get_args

import jaxtyping
from beartype import beartype

_with_shapes = jaxtyping.jaxtyped


def check_signatures(packages: Sequence[str]) -> None:
    """Checks every call of the functions and dataclasses of `packages`, imported after this.

    jaxtyping gives each call a memory of its own of the sizes that were seen, so that one name of a
    signature is one size. That costs twenty times what a check without it does, and where nothing
    is said of an array there is nothing to remember: beartype alone checks the same there.
    """
    # The decorator that the import hook writes above every definition.
    jaxtyping.jaxtyped = _checked
    jaxtyping.install_import_hook(packages, "beartype.beartype")


def _checked(what: Any = None, *, typechecker: Any) -> Any:
    if what is None:
        return lambda definition: _checked(definition, typechecker=typechecker)
    if inspect.isfunction(what) and not _names_arrays(what):
        return beartype(what)
    if dataclasses.is_dataclass(what) and inspect.isclass(what) and "__init__" in vars(what):
        init = what.__init__
        # One that is written out is decorated by itself.
        if not hasattr(init, "__wrapped__"):
            what.__init__ = _checked(init, typechecker=typechecker)
        return what
    return _with_shapes(what, typechecker=typechecker)


def _names_arrays(function: Callable) -> bool:
    """Whether a function's signature or body speaks of arrays, or may."""
    named = (function.__globals__.get(name) for name in function.__code__.co_names)
    return any(map(_is_of_arrays, (*function.__annotations__.values(), *named)))


def _is_of_arrays(hint: Any) -> bool:
    if isinstance(hint, str | ForwardRef | TypeVar):
        # What stands behind it is not known here.
        return True
    if isinstance(hint, list | tuple):
        return any(map(_is_of_arrays, hint))
    # jaxtyping's types have metaclasses of its own.
    return type(hint).__module__.startswith("jaxtyping") or any(map(_is_of_arrays, get_args(hint)))
