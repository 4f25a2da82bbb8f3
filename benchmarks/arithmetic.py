"""Counting the matrix-product arithmetic of a program."""

from collections.abc import Iterator
from math import prod
from typing import Any


def product_operations(program: Any) -> int:
    """Floating-point operations of all matrix products that `program` executes.

    Follows scans (times their length), nested calls, and shard_map (times its devices).

    Args:
        program: a closed jaxpr, as `jax.make_jaxpr` gives.

    Raises:
        ValueError: a loop of unknown length holds a matrix product.
    """
    return _count(getattr(program, "jaxpr", program))


def _count(jaxpr: Any) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> int:
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * prod(equation.outvars[0].aval.shape) * prod(left[axis] for axis in contracted)
    inside = sum(_count(jaxpr) for jaxpr in _inner(equation.params))
    match equation.primitive.name:
        case "scan":
            return inside * equation.params["length"]
        case "shard_map":
            return inside * equation.params["mesh"].size
        case "while" if inside:
            raise ValueError("a loop of unknown length holds a matrix product")
    return inside


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            jaxpr = getattr(item, "jaxpr", item)
            if hasattr(jaxpr, "eqns"):
                yield jaxpr
