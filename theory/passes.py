"""What the rooms of the theory share: types, precision, passes in chunks, checks of arguments."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

# A model's parameters: a pytree of floating-point arrays.
Params = Any
# Examples: a pytree of arrays, each with a leading examples axis.
Inputs = Any
# A model, as the theory knows it: logits of every example, or of every position of every example.
Apply = Callable[[Params, Inputs], Float[Array, "batch *positions outputs"]]
TraitLoss = Callable[[Params], Float[Array, ""]]
Sums = TypeVar("Sums")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Precision of matrix products and convolutions inside the public functions.
_PRODUCTS = "highest"


def full_precision(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, with every product in it taken in the full precision of its factors.

    Left to itself, a GPU rounds the factors of a float32 product to TF32, 10 bits of mantissa: a
    difference of two nearly equal logits is then mostly rounding, and `theory.curve`'s bound on
    rounding, which is one for float32, does not hold. Every function of the theory that multiplies
    is decorated with this. It reaches what the caller hands in as well (a model, a loss), unless
    that names another precision itself; on a CPU it changes nothing.

    Args:
        function: anything that traces or runs JAX operations while it is called.
    """

    @wraps(function)
    def exact(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        with jax.default_matmul_precision(_PRODUCTS):
            return function(*arguments, **keywords)

    return exact


def inner(first: Params, second: Params) -> Float[Array, ""]:
    """<first, second> of two pytrees of one structure."""
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), first, second)
    return jax.tree.reduce(jnp.add, products)


def norm(params: Params) -> Float[Array, ""]:
    """The Euclidean length of a pytree."""
    return jnp.sqrt(inner(params, params))


def cosine(first: Params, second: Params) -> Float[Array, ""]:
    """The cosine of the angle between two pytrees; 0 where one of them is 0."""
    lengths = norm(first) * norm(second)
    return jnp.where(lengths > 0, inner(first, second) / jnp.where(lengths > 0, lengths, 1), 0)


def step(
    params: Params, direction: Params, size: float | Float[Array, ""] | Float[np.ndarray, ""]
) -> Params:
    """params + size * direction, in the precision of params."""
    return jax.tree.map(lambda p, d: p + jnp.asarray(size, p.dtype) * d, params, direction)


def mean_over_rows(
    function: Callable[[Inputs], tuple[int, Sums]], inputs: Inputs, chunk: int | None
) -> Sums:
    """E_x over examples and positions, from consecutive parts of `inputs`, `chunk` examples each.

    Memory is that of one part and of one result, however many examples there are.

    Args:
        function: a function from a part of the inputs to how many rows it has, and a pytree of
            sums over them.
        inputs: a pytree whose leaves have a leading examples axis.
        chunk: the number of examples a part; None takes all at once. What is left over is one
            smaller part.
    """
    examples = jax.tree.leaves(inputs)[0].shape[0]
    size = examples if chunk is None else min(chunk, examples)
    whole = examples // size
    if size == examples:
        count, total = function(inputs)
        return _divide(total, count)
    parts = jax.tree.map(
        lambda leaf: leaf[: whole * size].reshape(whole, size, *leaf.shape[1:]), inputs
    )
    first = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], parts))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
    (count, total), _ = jax.lax.scan(
        lambda sums, part: (jax.tree.map(jnp.add, sums, function(part)), None), zero, parts
    )
    if whole * size < examples:
        remainder = jax.tree.map(lambda leaf: leaf[whole * size :], inputs)
        count, total = jax.tree.map(jnp.add, (count, total), function(remainder))
    return _divide(total, count)


def unit_quadrature(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the Gauss-Legendre rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return 0.5 * (nodes + 1), 0.5 * weights


def float_type(params: Params) -> jnp.dtype:
    """The precision that params are computed in."""
    return jnp.result_type(*jax.tree.leaves(params))


def rows(logits: Float[Array, "*batch outputs"]) -> Float[Array, "rows outputs"]:
    """Every example, and every position of one, as a row: E_x is the mean over rows."""
    return logits.reshape(-1, logits.shape[-1])


def check_arguments(
    params: Params, inputs: Inputs, chunk: int | None, **like_params: Params
) -> None:
    """Refuses what no function of the theory can use: the three checks below, in one.

    Args:
        params: theta_0, or another start.
        inputs: the data.
        chunk: the number of examples a pass; None for all.
        like_params: the arguments that must have the tree of `params`, by their names.

    Raises:
        ValueError: names the argument.
    """
    check_params(params)
    for name, other in like_params.items():
        check_same_tree(params, other, name)
    check_inputs(inputs, chunk)


def check_params(params: Params, name: str = "params") -> None:
    """Refuses parameters that are not floating point, or not finite where they are known.

    Raises:
        ValueError: names the argument and the leaf.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError(f"{name}: has no arrays")
    for path, leaf in leaves:
        where = f"{name}{jax.tree_util.keystr(path)}"
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"{where}: must be floating point, is {jnp.result_type(leaf)}")
        _check_finite(leaf, where)


def check_same_tree(params: Params, other: Params, name: str) -> None:
    """Refuses `other` unless it has the structure, shapes and dtypes of `params`, and is finite.

    Raises:
        ValueError: names the argument, and the first leaf that differs.
    """
    (leaves, structure), (other_leaves, other_structure) = (
        jax.tree_util.tree_flatten_with_path(tree) for tree in (params, other)
    )
    if structure != other_structure:
        paths = [
            {jax.tree_util.keystr(path) for path, _ in side} for side in (leaves, other_leaves)
        ]
        apart = sorted(paths[0] ^ paths[1])
        detail = f"; only one of them has {apart[0]}" if apart else ""
        raise ValueError(f"{name}: must have the tree structure of params, and has not{detail}")
    for (path, leaf), (_, other_leaf) in zip(leaves, other_leaves, strict=True):
        where = f"{name}{jax.tree_util.keystr(path)}"
        shapes, dtypes = (
            [measure(side) for side in (other_leaf, leaf)]
            for measure in (jnp.shape, jnp.result_type)
        )
        if shapes[0] != shapes[1]:
            raise ValueError(f"{where}: shape {shapes[0]}, but params has {shapes[1]}")
        if dtypes[0] != dtypes[1]:
            raise ValueError(f"{where}: {dtypes[0]}, but params has {dtypes[1]}")
    check_params(other, name)


def check_inputs(inputs: Inputs, chunk: int | None) -> None:
    """Refuses inputs without examples, of unequal lengths, or not finite, and a chunk below 1.

    Raises:
        ValueError: names the argument.
    """
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    if len(lengths) != 1 or lengths in ({()}, {(0,)}):
        raise ValueError("inputs: every array needs a leading axis of the same 1 or more examples")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: must be at least 1, got {chunk}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(inputs):
        _check_finite(leaf, f"inputs{jax.tree_util.keystr(path)}")


def check_positive(value: Any, name: str) -> None:
    """Refuses a step size that is known and not a finite number above 0.

    Raises:
        ValueError: names the argument.
    """
    if isinstance(value, Tracer):
        return
    for number in np.ravel(value):
        if not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name}: must be finite and above 0, got {number:g}")


def check_ascending(value: Any, name: str) -> None:
    """Refuses step sizes that are known and do not ascend.

    Raises:
        ValueError: names the argument.
    """
    if isinstance(value, Tracer):
        return
    sizes = np.ravel(value)
    if not np.all(sizes[1:] > sizes[:-1]):
        raise ValueError(f"{name}: must ascend")


def check_finite_number(value: Any, name: str, cause: str) -> None:
    """Refuses a result that is known and not finite.

    Raises:
        ValueError: names what gave it.
    """
    if not isinstance(value, Tracer) and not np.all(np.isfinite(value)):
        raise ValueError(f"{name}: {cause}")


def _check_finite(leaf: Any, where: str) -> None:
    if isinstance(leaf, Tracer) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return
    # Known values are looked at also while some outer function is traced.
    with jax.ensure_compile_time_eval():
        finite = bool(jnp.all(jnp.isfinite(leaf)))
    if not finite:
        raise ValueError(f"{where}: holds NaN or infinity")


def _divide(sums: Sums, count: Array | int) -> Sums:
    return jax.tree.map(lambda leaf: leaf / jnp.asarray(count, leaf.dtype), sums)
