"""Arguments that no function of the theory can use, refused by name before anything is computed.

Values that are traced (inside `jax.jit`, `vmap`, `grad`) cannot be looked at and are let through;
structures, shapes and types are checked always.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Jaxpr, JaxprEqn
from jaxtyping import Array, Float

from theory.losses import Potential
from theory.passes import Apply, Inputs, Loss, Params, full_precision

# What a leaf that is no parameter usually comes from.
_WHOLE_MODEL = (
    " (of a whole model, give the parameters alone: nnx.split(model, nnx.Param, ...), or "
    "eqx.partition(model, eqx.is_inexact_array))"
)


@full_precision
def row_weights(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    chunk: int | None,
    weights: Any = None,
    *,
    loss: Loss | None = None,
    **like_params: Params,
) -> Float[Array, "examples *positions"]:
    """Refuses what no mean over a model's rows can use; gives the weight of each row.

    Args:
        apply: the model; traced for the shape of its logits, not run.
        params: theta_0, or another start.
        inputs: the data.
        chunk: the number of examples a pass; None for all.
        weights: how much each row counts, one number an example or one a position; None for 1.
        loss: a loss of one row's logits and the teacher's, where one is used.
        like_params: the arguments that must have the tree of `params`, by their names.

    Returns:
        The weights, in the precision and with the leading axes of the logits.

    Raises:
        ValueError: names the argument.
    """
    check_params(params)
    for name, other in like_params.items():
        check_same_tree(params, other, name)
    check_inputs(inputs, chunk)
    logits = _logits_of(apply, params, inputs)
    if loss is not None:
        _check_loss(loss, logits)
    rows = logits.shape[:-1]
    if weights is None:
        return jnp.ones(rows, logits.dtype)
    shape = np.shape(weights)
    if shape not in (rows, rows[:1]):
        raise ValueError(
            f"weights: needs one number a row of the logits, shape {list(rows)}, or one an "
            f"example, has shape {list(shape)}"
        )
    if not isinstance(weights, Tracer):
        known = np.asarray(weights).astype(logits.dtype)
        if not np.all(known >= 0) or not 0 < np.sum(known) < np.inf:
            raise ValueError("weights: must be finite, 0 or more, and above 0 in at least one row")
    weights = jnp.asarray(weights, logits.dtype)
    return jnp.broadcast_to(weights.reshape(shape + (1,) * (len(rows) - len(shape))), rows)


def _logits_of(apply: Apply, params: Params, inputs: Inputs) -> jax.ShapeDtypeStruct:
    """Shape and type of a model's logits; refuses a model that the theory cannot use."""
    _check_hashable(apply, "apply")
    traced = jax.jit(apply).trace(params, inputs)
    logits = traced.out_info
    examples = jax.tree.leaves(inputs)[0].shape[0]
    if not hasattr(logits, "ndim"):
        raise ValueError(f"apply: must give one array of logits, gives a {type(logits).__name__}")
    if logits.ndim < 2 or logits.shape[0] != examples:
        hint = "; for one output an example, give [examples, 1]" if logits.ndim == 1 else ""
        raise ValueError(
            f"apply: logits need the axes [examples, outputs], with positions between them where "
            f"there are any; from {examples} examples it gives {list(logits.shape)}{hint}"
        )
    _check_precise(logits.dtype, "apply: its logits")
    for operation in operations(traced.jaxpr.jaxpr):
        for dtype in (getattr(output.aval, "dtype", None) for output in operation.outvars):
            if dtype is not None and _is_imprecise(dtype):
                raise ValueError(
                    f"apply: computes in {dtype}, whose rounding would pass for what it computes; "
                    "make it compute in float32 or float64"
                )
    return logits


def _check_loss(loss: Loss, logits: jax.ShapeDtypeStruct) -> None:
    _check_hashable(loss, "loss")
    if isinstance(loss, Potential):
        raise ValueError("loss: is a potential; its loss is theory.matching(potential)")
    row = jax.ShapeDtypeStruct(logits.shape[-1:], logits.dtype)
    value = jax.eval_shape(loss, row, row)
    if getattr(value, "shape", None) != ():
        raise ValueError(
            "loss: must give one number for one row's logits and the teacher's, gives "
            f"{getattr(value, 'shape', type(value).__name__)}"
        )


def operations(program: Jaxpr) -> Iterator[JaxprEqn]:
    """The operations of a program and of all programs inside it: loops, branches, calls."""
    for equation in program.eqns:
        yield equation
        inside = jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")
        )
        for value in inside:
            deeper = getattr(value, "jaxpr", value)
            if hasattr(deeper, "eqns"):
                yield from operations(deeper)


def check_params(params: Params, name: str = "params") -> None:
    """Refuses parameters that are not arrays of float32 or float64, or not finite where known.

    Below float32 the theorem's differences of nearly equal logits are rounding, and sums over
    examples lose what they add: cast the parameters up.

    Raises:
        ValueError: names the argument and the leaf.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError(f"{name}: has no arrays")
    for path, leaf in leaves:
        where = f"{name}{jax.tree_util.keystr(path)}"
        if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
            raise ValueError(f"{where}: must be an array, is a {type(leaf).__name__}{_WHOLE_MODEL}")
        _check_precise(leaf.dtype, f"{where}:", _WHOLE_MODEL)
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
        detail = ""
        if apart:
            owner = "params" if apart[0] in paths[0] else name
            detail = f"; only {owner} has {apart[0]}"
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
    leaves = jax.tree_util.tree_leaves_with_path(inputs)
    lengths = [np.shape(leaf)[:1] for _, leaf in leaves]
    if len(set(lengths)) != 1 or lengths[0] in ((), (0,)):
        usual = max(set(lengths), key=lengths.count, default=())
        odd = usual if usual in ((), (0,)) else next(each for each in lengths if each != usual)
        where = (
            f"inputs{jax.tree_util.keystr(leaves[lengths.index(odd)][0])}" if leaves else "inputs"
        )
        raise ValueError(
            "inputs: every array needs a leading axis of the same 1 or more examples"
            + (f"; {where} has {odd[0] if odd else 'none'}" if leaves else "")
        )
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: must be at least 1, got {chunk}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(inputs):
        _check_finite(leaf, f"inputs{jax.tree_util.keystr(path)}")


def check_positive(value: Any, name: str) -> None:
    """Refuses a size that is no single number, or known and not finite and above 0.

    Raises:
        ValueError: names the argument.
    """
    if np.shape(value) != ():
        raise ValueError(f"{name}: must be one number, has shape {list(np.shape(value))}")
    if not isinstance(value, Tracer) and not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name}: must be finite and above 0, got {float(value):g}")


def check_sizes(value: Any, name: str, *, ascending: bool = False) -> None:
    """Refuses step sizes that are no row of numbers, or known and not finite and above 0.

    Args:
        value: the step sizes.
        name: the argument's name.
        ascending: whether each must be above the one before it.

    Raises:
        ValueError: names the argument.
    """
    shape = np.shape(value)
    if len(shape) != 1 or shape == (0,):
        raise ValueError(f"{name}: must be a row of 1 or more numbers, has shape {list(shape)}")
    if isinstance(value, Tracer):
        return
    sizes = np.asarray(value)
    for number in sizes:
        if not (np.isfinite(number) and number > 0):
            raise ValueError(f"{name}: must be finite and above 0, got {number:g}")
    if ascending and not np.all(sizes[1:] > sizes[:-1]):
        raise ValueError(f"{name}: must ascend")


def check_finite_number(value: Any, name: str, cause: str) -> None:
    """Refuses a result that is known and not finite.

    Raises:
        ValueError: names what gave it.
    """
    if not isinstance(value, Tracer) and not np.all(np.isfinite(value)):
        raise ValueError(f"{name}: {cause}")


def check_scalar(function: Any, argument: Any, name: str) -> None:
    """Refuses a function of `argument` that does not give one number.

    Raises:
        ValueError: names the argument.
    """
    value = jax.eval_shape(function, argument)
    if getattr(value, "shape", None) != ():
        shape = getattr(value, "shape", type(value).__name__)
        raise ValueError(f"{name}: must give one number, gives {shape}")


def _check_precise(dtype: Any, where: str, hint: str = "") -> None:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{where} must be floating point, is {dtype}{hint}")
    if _is_imprecise(dtype):
        raise ValueError(f"{where} must be float32 or float64, is {dtype}; cast it up")


def _is_imprecise(dtype: Any) -> bool:
    return bool(
        jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).eps > jnp.finfo(jnp.float32).eps
    )


def _check_hashable(function: Any, name: str) -> None:
    try:
        hash(function)
    except TypeError:
        raise ValueError(
            f"{name}: must be hashable, since programs are compiled for the object"
        ) from None


def _check_finite(leaf: Any, where: str) -> None:
    if isinstance(leaf, Tracer) or not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
        return
    # Known values are looked at also while some outer function is traced.
    with jax.ensure_compile_time_eval():
        finite = bool(jnp.all(jnp.isfinite(leaf)))
    if not finite:
        raise ValueError(f"{where}: holds NaN or infinity")
