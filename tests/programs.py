"""Looking into programs: every operation of one, however deep inside."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn

HIGHEST = jax.lax.Precision.HIGHEST


def equations(program: Jaxpr) -> Iterator[JaxprEqn]:
    """The operations of a program and of all programs inside it: loops, branches, calls."""
    for equation in program.eqns:
        yield equation
        inside = jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")
        )
        for value in inside:
            deeper = getattr(value, "jaxpr", value)
            if hasattr(deeper, "eqns"):
                yield from equations(deeper)


def precisions(function: Callable, *arguments: Any) -> list[set]:
    """What precision each matrix product and convolution of function(*arguments) asks for."""
    found = []
    for equation in equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            precision = equation.params["precision"]
            found.append(set(precision) if isinstance(precision, tuple) else {precision})
    return found
