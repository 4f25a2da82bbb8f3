"""What must be shared: a readout that nobody touched knows nothing.

A model reads its K answers off rows (w_k, b_k) of a layer. If the law of its start does not change
when the rows are permuted, all else given, and if training commutes with permuting them, then after
any training each logit is the largest with probability 1/K, on every input. Expected accuracy is
exactly 1/K, whatever the hidden layers have learnt. (An extension of the paper.)

What is to be shown of a training is that it commutes (`commutation`). It does where no loss sees
the rows (`ignores_readout`) and the optimiser treats all rows alike. One that works by element does
so bit for bit, and so do those to whose sums the answers add zeros alone, as a clip by the global
norm or a whitening of the gradient. Where the answers' own parameters are summed over, as in the
norms of LAMB, LARS and Adafactor where answers and other outputs share an array, another order of
the rows is another order of the summands: these commute but for rounding. One that treats a row by
its place does not commute.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key

from theory.checks import check_inputs, check_params
from theory.passes import Inputs, Params, TraitLoss, full_precision

# How many probes may be drawn for each that is finite.
_DRAWS = 20


@dataclass(frozen=True)
class Readout:
    """Which parameters a model's answers are read off.

    Attributes:
        axes: a pytree like the parameters, or its upper part: where an array holds one row an
            answer, the axis that numbers them; None where parameters are no part of the readout.
        answers: places of the answers on that axis, the first answer's first. Other places, those
            of other outputs that share an array with the answers, are no part of the readout.
    """

    axes: Any
    answers: tuple[int, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Commutation:
    """How far a training is from commuting with a permutation of the readout.

    Attributes:
        others: largest difference of a parameter outside the readout, between training from the
            start and training from the permuted start. 0 where it commutes, or rounding
            (`commutation`).
        rows: largest difference of a parameter of the readout, the permutation undone.
        change: largest change that training made to any parameter.
    """

    others: Float[Array, ""]
    rows: Float[Array, ""]
    change: Float[Array, ""]

    @property
    def residual(self) -> Float[Array, ""]:
        """The larger of the two differences in units of `change`; NaN where one is not finite."""
        apart = jnp.maximum(self.others, self.rows)
        # Where training changed nothing, a difference is one of the starts.
        return jnp.where(apart == 0, 0, apart / self.change)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PermutedAccuracy:
    """The accuracy of a model whose answers are put in a random order.

    Attributes:
        mean: its mean over all K! orders: 1/K, for any logits whatever.
        std: its standard deviation over them: how far from 1/K one run of a readout that nobody
            touched comes out.
    """

    mean: Float[Array, ""]
    std: Float[Array, ""]


def permute_readout(params: Params, readout: Readout, permutation: Sequence[int]) -> Params:
    """The parameters with row `permutation[k]` of the readout in place of row k.

    Args:
        params: a model's parameters.
        readout: which of them the answers are read off.
        permutation: the numbers from 0 to K - 1, each once.

    Raises:
        ValueError: names the argument that is not usable.

    >>> readout = Readout({"head": 0, "body": None}, answers=(1, 2))
    >>> params = {"head": jnp.array([5.0, 6.0, 7.0]), "body": jnp.ones(1)}
    >>> permute_readout(params, readout, [1, 0])["head"].tolist()
    [5.0, 7.0, 6.0]
    """
    check_params(params)
    return _permuted(params, readout, permutation)


def in_readout(params: Params, readout: Readout) -> Any:
    """By leaf, which parameters are of the readout: a pytree of arrays of booleans.

    Args:
        params: a model's parameters.
        readout: which of them the answers are read off.

    Raises:
        ValueError: names the argument that is not usable.
    """

    def places(leaf: Array | np.ndarray, axis: int) -> Bool[Array, "..."]:
        chosen = np.isin(np.arange(leaf.shape[axis]), readout.answers)
        shape = [1] * leaf.ndim
        shape[axis] = -1
        return jnp.broadcast_to(chosen.reshape(shape), leaf.shape)

    return _over_readout(places, lambda leaf: jnp.zeros(jnp.shape(leaf), bool), params, readout)


@full_precision
def untouched(loss: TraitLoss, params: Params) -> Any:
    """By leaf, which parameters a loss leaves alone on its own data: those with gradient exactly 0.

    It shows what one step does. A unit that is off on all of these data has gradient 0 as well, and
    a loss may depend on a row whose gradient happens to be 0 here: `ignores_readout` tells.

    Args:
        loss: from params to a scalar; the data are its own.
        params: where the gradient is taken.

    Returns:
        A pytree of arrays of booleans.

    Raises:
        ValueError: `params` is not usable.
    """
    check_params(params)
    return jax.tree.map(lambda gradient: gradient == 0, jax.grad(loss)(params))


@full_precision
def ignores_readout(
    loss: Callable[[Params, Inputs], Float[Array, ""]],
    params: Params,
    readout: Readout,
    inputs: Inputs,
    key: Key[Array, ""],
    *,
    probes: int = 8,
) -> bool:
    """Whether a loss cannot see the readout, as far as random probes tell.

    Each probe draws parameters and inputs anew, and two readouts. A loss that ignores the readout
    has on both, bit for bit, the same value and the same gradient by every other parameter, and
    gradient 0 by the readout.

    A probe at which the loss or its gradient is not finite (the logarithm of a scale that was
    redrawn below 0) tells nothing: it is skipped and another drawn, up to 20 for each asked for.

    False is a proof: two points were found at which the loss tells the readouts apart. True is none
    by itself. A loss that depends on the readout analytically shows it at almost every point, so
    that one probe tells; of one with kinks or branches only the regions that were drawn are known,
    and what is smaller than rounding is not seen. (The loss's jaxpr would tell less: where answers
    and other outputs share an array, or a mask is traced, every row appears to be used. And a NaN
    put into the readout comes out of the gradient of a masked product, where 0 times it is taken.)

    Args:
        loss: from params and inputs to a scalar; targets are part of the inputs.
        params: parameters of the sizes that are usual there: each array is redrawn from a normal
            distribution of its own root mean square, or 1 where that is 0.
        readout: which of them the answers are read off.
        inputs: a pytree of arrays with a leading examples axis; those of floats are redrawn,
            standard normal, and others (labels) stay.
        key: key of the draws.
        probes: how many.

    Raises:
        ValueError: names the argument that is not usable; of the loss, that it was finite at no
            probe.
    """
    check_params(params)
    check_inputs(inputs, None)
    if probes < 1:
        raise ValueError(f"probes: must be at least 1, got {probes}")
    rows = in_readout(params, readout)

    # One program for both readouts: two copies in one could be compiled to other roundings.
    graded = jax.jit(jax.value_and_grad(loss))

    def tells(key: Key[Array, ""]) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        """Whether a probe tells the readouts apart, and whether all that it looks at is finite."""
        of_model, of_readout, of_inputs = jax.random.split(key, 3)
        drawn = _redrawn(params, of_model, scaled=True)
        other = jax.tree.map(jnp.where, rows, _redrawn(params, of_readout, scaled=True), drawn)
        given = _redrawn(inputs, of_inputs, scaled=False)
        (value, gradient), (other_value, other_gradient) = (
            graded(start, given) for start in (drawn, other)
        )
        seen = jax.tree.map(
            lambda row, a, b: jnp.any(jnp.where(row, (a != 0) | (b != 0), a != b)),
            rows,
            gradient,
            other_gradient,
        )
        found = value, other_value, gradient, other_gradient
        finite = jax.tree.map(lambda leaf: jnp.all(jnp.isfinite(leaf)), found)
        return (
            jax.tree.reduce(jnp.logical_or, seen, value != other_value),
            jax.tree.reduce(jnp.logical_and, finite),
        )

    told = 0
    for number in range(_DRAWS * probes):
        apart, finite = tells(jax.random.fold_in(key, number))
        if finite and apart:
            return False
        told += bool(finite)
        if told == probes:
            break
    if not told:
        raise ValueError(
            f"loss: it or its gradient is not finite at any of {_DRAWS * probes} random probes; "
            "where a parameter must be above 0, make its logarithm the parameter"
        )
    return True


@full_precision
def commutation(
    train: Callable[[Params], Params],
    params: Params,
    readout: Readout,
    permutation: Sequence[int],
) -> Commutation:
    """How far a training is from commuting with a permutation of the readout.

    What depends on the rows besides the start must be inside `train`: of a student whose readout is
    its teacher's own, training the teacher is part of it. On one device, a training that commutes
    does so bit for bit where each element is computed by itself. Where an array that holds the
    answers is summed over (its norm, in LAMB, LARS and Adafactor), the residual is rounding, not 0:
    in one array with other outputs it reaches all the rest.

    Args:
        train: from a start to the trained parameters; it must give the same result when it is
            called again (data, orders and noise are its own).
        params: the start.
        readout: which of its parameters the answers are read off.
        permutation: the numbers from 0 to K - 1, each once.

    Raises:
        ValueError: names the argument that is not usable.
    """
    permuted = permute_readout(params, readout, permutation)
    return compare_trainings(params, train(params), train(permuted), readout, permutation)


def compare_trainings(
    params: Params,
    trained: Params,
    of_permuted: Params,
    readout: Readout,
    permutation: Sequence[int],
) -> Commutation:
    """The `Commutation` of two trainings that were run elsewhere; they may have diverged.

    Args:
        params: the start.
        trained: what training made of it.
        of_permuted: what training made of the permuted start.
        readout: which of the parameters the answers are read off.
        permutation: the numbers from 0 to K - 1, each once.

    Raises:
        ValueError: names the argument that is not usable.
    """
    check_params(params)
    rows = in_readout(params, readout)
    shapes = jax.tree.map(jnp.shape, params)
    for name, tree in (("trained", trained), ("of_permuted", of_permuted)):
        if jax.tree.map(jnp.shape, tree) != shapes:
            raise ValueError(f"{name}: must have the arrays of params, and has not")
    other = _permuted(of_permuted, readout, np.argsort(permutation))

    def largest(first: Params, second: Params, where: Any) -> Float[Array, ""]:
        gaps = jax.tree.map(
            lambda a, b, chosen: jnp.max(jnp.where(chosen, jnp.abs(a - b), 0), initial=0),
            first,
            second,
            where,
        )
        return jax.tree.reduce(jnp.maximum, gaps)

    return Commutation(
        others=largest(trained, other, jax.tree.map(jnp.logical_not, rows)),
        rows=largest(trained, other, rows),
        change=largest(trained, params, jax.tree.map(jnp.ones_like, rows)),
    )


def permuted_accuracy(
    logits: Float[Array, "examples answers"], labels: Int[Array, " examples"]
) -> PermutedAccuracy:
    """Mean and standard deviation of the accuracy over all orders of the answers.

    An example whose largest logit is shared by several answers counts 1 / their number. (A plain
    argmax takes the first of them: a readout without biases is tied everywhere that the hidden
    layer is 0.) The mean is 1/K for any logits, so that it says nothing of training; for a readout
    that nobody touched, all orders are equally likely, and the two are the law of its accuracy
    given all else. The variance is Hoeffding's: sum d^2 / (K - 1), d the table of labels against
    answers, in shares, less the means of its rows and columns.

    Args:
        logits: the K answers' on examples.
        labels: the right answer of each.

    Raises:
        ValueError: names the argument that is not usable.
    """
    count, answers = logits.shape
    if count < 1 or answers < 2:
        raise ValueError(f"logits: needs examples and 2 answers at least, has {logits.shape}")
    if not isinstance(logits, Tracer) and np.any(np.isnan(logits)):
        raise ValueError("logits: holds NaN")
    if not isinstance(labels, Tracer):
        known = np.asarray(labels)
        if np.any((known < 0) | (known >= answers)):
            raise ValueError(
                f"labels: must be from 0 to {answers - 1}, are from {known.min()} to {known.max()}"
            )
    tied = logits == jnp.max(logits, axis=-1, keepdims=True)
    credit = tied / jnp.sum(tied, axis=-1, keepdims=True)
    truth = jax.nn.one_hot(labels, answers, dtype=credit.dtype)
    table = jnp.einsum("ey,ek->yk", truth, credit, precision="highest") / count
    apart = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return PermutedAccuracy(jnp.sum(table) / answers, jnp.sqrt(jnp.sum(apart**2) / (answers - 1)))


def _permuted(
    params: Params, readout: Readout, permutation: Sequence[int] | Int[np.ndarray, " answers"]
) -> Params:
    answers = np.asarray(readout.answers)
    order = np.asarray(permutation)
    if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(len(answers))):
        raise ValueError(
            f"permutation: must be the numbers from 0 to {len(answers) - 1}, each once"
        )

    def permuted(leaf: Array | np.ndarray, axis: int) -> Array | np.ndarray:
        places = np.arange(leaf.shape[axis])
        places[answers] = answers[order]
        return leaf.take(places, axis)

    return _over_readout(permuted, lambda leaf: leaf, params, readout)


def _redrawn(tree: Any, key: Key[Array, ""], *, scaled: bool) -> Any:
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, tree))
    keys = jax.random.split(key, len(leaves))

    def redrawn(leaf: Array, key: Key[Array, ""]) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        size = jnp.sqrt(jnp.mean(leaf**2)) if scaled else jnp.ones((), leaf.dtype)
        return jnp.where(size > 0, size, 1) * jax.random.normal(key, leaf.shape, leaf.dtype)

    return jax.tree.unflatten(structure, list(map(redrawn, leaves, keys)))


def _over_readout(
    inside: Callable[[Any, int], Any],
    outside: Callable[[Any], Any],
    params: Params,
    readout: Readout,
) -> Any:
    """`inside` of every array that holds rows, with the axis; `outside` of all others."""
    answers = readout.answers
    if len(set(answers)) != len(answers) or len(answers) < 2:
        raise ValueError(f"readout.answers: must be 2 or more places, each once, are {answers}")

    def part(axis: int | None, below: Any) -> Any:
        if axis is None:
            return jax.tree.map(outside, below)
        shape = jnp.shape(below) if jax.tree_util.all_leaves([below]) else ()
        if not 0 <= axis < len(shape):
            raise ValueError(f"readout.axes: there is no axis {axis} in a shape of {shape}")
        if not 0 <= min(answers) <= max(answers) < shape[axis]:
            raise ValueError(
                f"readout.answers: axis {axis} has {shape[axis]} places, not {answers}"
            )
        return inside(below, axis)

    if not jax.tree.leaves(readout.axes):
        raise ValueError("readout.axes: names no axis")
    try:
        jax.tree.map(lambda *pair: pair, readout.axes, params, is_leaf=_is_none)
    except ValueError as error:
        raise ValueError(f"readout.axes: must be like params: {error}") from None
    return jax.tree.map(part, readout.axes, params, is_leaf=_is_none)


def _is_none(axis: Any) -> bool:
    return axis is None
