"""Looking into programs: every operation of one, however deep inside."""

from collections.abc import Callable
from typing import Any

import jax

from theory.checks import operations

HIGHEST = jax.lax.Precision.HIGHEST


def precisions(function: Callable, *arguments: Any) -> list[set]:
    """What precision each matrix product and convolution of function(*arguments) asks for."""
    found = []
    for equation in operations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            precision = equation.params["precision"]
            found.append(set(precision) if isinstance(precision, tuple) else {precision})
    return found
