"""What the rooms of the theory share: types, precision, algebra of pytrees, passes in chunks."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

# A model's parameters: a pytree of floating-point arrays.
Params = Any
# Examples: a pytree of arrays, each with a leading examples axis.
Inputs = Any
# A model, as the theory knows it: logits of every example, or of every position of every example.
# Programs are compiled for the object: hand in the same one again, and do not let it read what
# changes, which a compiled program would not see.
Apply = Callable[[Params, Inputs], Float[Array, "batch *positions outputs"]]
TraitLoss = Callable[[Params], Float[Array, ""]]
# How much each row counts in a mean: one number an example, or one a position of each.
Weights = Shaped[Array, "examples *positions"] | Shaped[np.ndarray, "examples *positions"]
# A distillation loss of one row's logits, the student's and the teacher's.
Loss = Callable[[Float[Array, " outputs"], Float[Array, " outputs"]], Float[Array, ""]]
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


def scramble(params: Params) -> Params:
    """The same numbers, each with a sign that follows no pattern: what cancels in a sum of them
    does so no more.
    """

    def scrambled(index: int, leaf: Array) -> Array:
        # A hash of each place, mixed twice; one bit of it is the sign.
        place = jnp.arange(leaf.size, dtype=jnp.uint32) + jnp.uint32(7919 * index + 1)
        mixed = (place ^ (place >> 16)) * jnp.uint32(0x7FEB352D)
        mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x846CA68B)
        bit = (mixed >> 16) & 1
        return leaf * (1 - 2 * bit.astype(leaf.dtype)).reshape(leaf.shape)

    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten([scrambled(index, leaf) for index, leaf in enumerate(leaves)])


def nudge(params: Params) -> Params:
    """Each parameter moved by a unit in its last place, up or down without a pattern."""
    return jax.tree.map(
        lambda leaf, signed: leaf + jnp.finfo(leaf.dtype).eps * signed, params, scramble(params)
    )


def mean_over_rows(
    function: Callable[[Inputs, Float[Array, " rows"]], Sums],
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> Sums:
    """E_x over examples and positions, from consecutive parts of `inputs`, `chunk` examples each.

    Memory is that of one part and of one result, however many examples there are.

    Args:
        function: a function from a part of the inputs, and the weight of each of its rows, to a
            pytree of sums over the rows, each row's term times its weight.
        inputs: a pytree whose leaves have a leading examples axis.
        weights: how much each row counts (`theory.checks.row_weights`).
        chunk: the number of examples a part; None takes all at once, and keeps inputs that are
            spread over devices where they are. What is left over is one smaller part.
    """

    def of_part(part: tuple[Inputs, Array]) -> Sums:
        return function(part[0], part[1].reshape(-1))

    parts, rest = in_parts((inputs, weights), chunk)
    if parts is None:
        total = of_part(rest)
    else:
        first = jax.eval_shape(of_part, jax.tree.map(lambda leaf: leaf[0], parts))
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)
        total, _ = jax.lax.scan(
            lambda sums, part: (jax.tree.map(jnp.add, sums, of_part(part)), None), zero, parts
        )
        if rest is not None:
            total = jax.tree.map(jnp.add, total, of_part(rest))
    return jax.tree.map(lambda leaf: leaf / jnp.sum(weights).astype(leaf.dtype), total)


def in_parts(inputs: Inputs, chunk: int | None) -> tuple[Inputs, Inputs]:
    """Whole parts of `chunk` examples each, on a new leading axis, and what is left over.

    Either is None where there is none; without a chunk, or one for all, everything is left over.

    Args:
        inputs: a pytree whose leaves have a leading examples axis.
        chunk: the number of examples a part; None for all.
    """
    examples = jax.tree.leaves(inputs)[0].shape[0]
    if chunk is None or chunk >= examples:
        return None, inputs
    whole = examples // chunk
    inputs = jax.tree.map(gathered, inputs)
    parts = jax.tree.map(
        lambda leaf: leaf[: whole * chunk].reshape(whole, chunk, *leaf.shape[1:]), inputs
    )
    if whole * chunk == examples:
        return parts, None
    return parts, jax.tree.map(lambda leaf: leaf[whole * chunk :], inputs)


def weighed(
    weights: Float[Array, " rows"], terms: Float[Array, "rows *shape"]
) -> Float[Array, " *shape"]:
    """The sum of the rows' terms, each times its weight. What has weight 0 may be no number."""
    counts = weights.reshape(-1, *(1,) * (terms.ndim - 1))
    return jnp.sum(jnp.where(counts > 0, counts * terms, 0), axis=0)


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


def gathered(leaf: Array) -> Array:
    """The array on every device, where its type says that it is spread over them.

    An axis whose sharding is part of the type can be cut into parts in no general way.
    """
    sharding = jax.typeof(leaf).sharding
    if all(axis is None for axis in sharding.spec):
        return leaf
    everywhere = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.sharding.reshard(leaf, everywhere)
