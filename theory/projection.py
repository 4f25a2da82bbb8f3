"""How much passes, near the start: a student ends at the teacher's displacement, projected.

Where the logits are linear in the parameters, f = f_0 + J (theta - theta_0), let a teacher lie at
theta_0 + delta, after training of any length. A student that starts at theta_0 and imitates it on
D_S by a matching loss moves within R, the row space of {C J_x : x in D_S}, C the projection off the
loss's constant null space; and it is at rest only where C J (theta - theta_T) = 0. So gradient
descent with small enough steps ends, for EVERY such loss with the same null space, at

    theta_0 + P_R delta,    P_R the orthogonal projection onto R,

and a teacher of one step delta = -eps grad L_T leaves it with <grad L_T, theta_S - theta_0> =
-eps |P_R grad L_T|^2 <= 0: Theorem 1 for training to the end. (An extension of the paper.)

In a network, which is not linear, theta_0 + P_R delta is a forecast of the student and no theorem.
`nonlinearity` is its warning light. Where that is large, the other forecast is the linear student
of the teacher's own labels, `project_labels` and `descend_labels`, which errs to the other side.

Nothing here forms J. A product with it is one forward-mode derivative, a product with its
transpose one reverse pass, `chunk` inputs at a time. Memory: the activations of one chunk, a few
vectors of the size of params and of all the logits on D_S.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Shaped

from theory.checks import (
    check_finite_number,
    check_params,
    check_positive,
    check_same_tree,
    row_weights,
)
from theory.conditions import mixed_hessian_product
from theory.losses import Loss, MatchingLoss, off_null_space
from theory.passes import (
    Apply,
    Inputs,
    Params,
    TraitLoss,
    Weights,
    float_type,
    full_precision,
    gathered,
    in_parts,
    inner,
    mean_over_rows,
    norm,
    rows,
    scramble,
    step,
    weighed,
)

# Logits, or changes of them, of every example or position.
Logits = Float[Array, "examples *positions outputs"]

# How much of C J delta may be rounding, in units in the last place of J delta, and of what it would
# be if its terms did not cancel; and how much of a difference of logits, in units of theirs.
_BLIND = 100.0
_LOGIT_ROUNDING = 10.0
# How far above the largest eigenvalue of K `largest_rate` may lie, and how likely it is below it.
_SLACK = 0.1
_UNLUCKY = 1e-6
# What a model gives where the loss looks, and must not.
_NOT_FINITE = (
    "its logits, or their derivatives, are not finite where the loss looks; leave entries that are "
    "never sampled out of the loss: softmax_potential(allowed)"
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearStudent:
    """A linearised student, on its way from theta_0 to where it is at rest.

    Attributes:
        displacement: theta - theta_0 where the computation ended.
        iterations: how many iterations it took.
        relative_residual: |C (J (theta - theta_0) - target)| / |C target| at the start and after
            each iteration, root mean squares over D_S; the target is J delta or f_T - f_0. It
            never grows. After the last iteration the value stays. Where C target is no more than
            rounding it is 0 from the start, and nothing passes.
        share: |theta - theta_0|^2 / |delta|^2, likewise. Of the target J delta it is the share of
            the teacher's displacement that passes, between 0 and 1.
        recomputed: the last relative residual, computed anew from `displacement`. Conjugate
            gradients carry their residual along: where `recomputed` is well above the last of
            `relative_residual`, rounding has come between the two, and further iterations are in
            vain.
        at: theta - theta_0 after each number of iterations that was asked for.
        reaching: theta - theta_0 at the first iteration at which the relative residual was no
            larger than each one that was asked for; where none was, the last.
    """

    displacement: Params
    iterations: Int[Array, "*batch"]
    relative_residual: Float[Array, "*batch iterations_and_one"]
    share: Float[Array, "*batch iterations_and_one"]
    recomputed: Float[Array, "*batch"]
    at: tuple[Params, ...]
    reaching: tuple[Params, ...]


@full_precision
def project(
    apply: Apply,
    loss: Loss,
    params: Params,
    displacement: Params,
    inputs: Inputs,
    *,
    iterations: int,
    tolerance: float | Float[Array, ""] = 0.0,
    at: Sequence[int] = (),
    reaching: Sequence[float | Float[Array, ""]] = (),
    weights: Weights | None = None,
    chunk: int | None = None,
) -> LinearStudent:
    """P_R delta: what of the teacher's displacement can pass through D_S and the loss.

    The least-squares solution of min_v E_x |C J_x (v - delta)|^2 from v = 0, by conjugate gradients
    (CGLS: Hestenes and Stiefel 1952; Bjorck 1996, section 7.4): one product with J and one with its
    transpose an iteration. Few iterations damp small singular values, as few steps of training do.
    In exact arithmetic as many iterations as C J has distinct singular values are enough; rounding
    makes it more. It ends by itself where rounding allows no progress. Of a displacement that the
    loss does not see on D_S, of which C J delta is no more than rounding, nothing passes: 0.

    The declared null space must be that of the loss at the model's own logits. A softmax over all
    outputs, some of which are masked (at -1e9, say), declares that it sees these too, and does not
    train as the projection says: leave outputs that are never sampled out of the loss, by
    `softmax_potential(allowed)`. Logits of minus infinity in the loss are refused, and so is an
    output at which the loss has no curvature in any row. Where each row masks outputs of its own,
    none can be left out of all, and nothing tells: this forecast is not for such a model.

    Args:
        apply: the model, apply(params, inputs) -> logits.
        loss: a matching loss that declares its null space (`Potential.off_null_space`); nothing
            else about it matters.
        params: theta_0, where J is taken.
        displacement: delta = theta_T - theta_0, a pytree like `params`.
        inputs: the data D_S, a pytree with a leading examples axis.
        iterations: the largest number of iterations.
        tolerance: the relative residual at which it ends; 0 for as far as it goes.
        at: numbers of iterations, from 1 to `iterations`, after which to keep the displacement.
        reaching: relative residuals, between 0 and 1, at which to keep it; for instance the one
            that a student of finite training has.
        weights: how much each row counts: one number an example, or one a position; None for 1.
            P_R depends on which are 0; early iterations depend on all. What the model gives for an
            example of weight 0 may be no number.
        chunk: the number of examples a pass; None for all.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(
        apply, params, inputs, chunk, weights, loss=loss, displacement=displacement
    )
    centre = _declared(loss)
    _check_stops(iterations, tolerance, at, reaching)
    inputs = _counted(inputs, weights)
    target = _first_order_target(apply, centre, params, displacement, inputs, weights, chunk)
    _check_sight(apply, loss, centre, params, inputs, weights, chunk, target)
    stops = _stops(params, iterations, tolerance, at, reaching)
    length = inner(displacement, displacement)
    rest = (inputs, weights, chunk, iterations, len(at), stops)
    return _finite(_solve(apply, centre, params, target.change, length, *rest))


@full_precision
def project_labels(
    apply: Apply,
    loss: Loss,
    params: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    iterations: int,
    tolerance: float | Float[Array, ""] = 0.0,
    at: Sequence[int] = (),
    reaching: Sequence[float | Float[Array, ""]] = (),
    weights: Weights | None = None,
    chunk: int | None = None,
) -> LinearStudent:
    """J^+ (f_T - f_0): where a linearised student of the teacher's true labels ends.

    The shortest solution of min_v E_x |C (J_x v - (f_T - f_0))|^2, as `project` finds its own: it
    is P_R delta for a linear model. Its relative residual ends above 0 where the linearised student
    cannot fit what the teacher says, and its `share` may be above 1. Where C (f_T - f_0) is no more
    than rounding of the logits, there is nothing to fit, and all is 0.

    Args:
        teacher: theta_T, a pytree like `params`.
        apply, loss, params, inputs: what they are for `project`.
        iterations, tolerance, at, reaching, weights, chunk: likewise.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, teacher=teacher)
    centre = _declared(loss)
    _check_stops(iterations, tolerance, at, reaching)
    inputs = _counted(inputs, weights)
    target = _label_target(apply, centre, params, teacher, inputs, weights, chunk)
    _check_sight(apply, loss, centre, params, inputs, weights, chunk, target)
    stops = _stops(params, iterations, tolerance, at, reaching)
    length = _square_distance(params, teacher)
    rest = (inputs, weights, chunk, iterations, len(at), stops)
    return _finite(_solve(apply, centre, params, target.change, length, *rest))


@full_precision
def descend(
    apply: Apply,
    loss: Loss,
    params: Params,
    displacement: Params,
    inputs: Inputs,
    *,
    rate: float | Float[Array, ""] | None = None,
    steps: int,
    at: Sequence[int] = (),
    weights: Weights | None = None,
    chunk: int | None = None,
) -> LinearStudent:
    """K_n delta, K_n = I - (I - eta K)^n: n steps of gradient descent of the linearised student.

    K = E_x[J^T M J] at theta_0. Exact for (weighted) squared error; for another loss it is what the
    training does while the logits are near f_0. With eta at most 1 over the largest eigenvalue of K
    (`largest_rate`), 0 <= K_n <= P_R, and more passes with every step.

    Args:
        rate: eta, the student's learning rate; None for 1 / `largest_rate`.
        steps: n, the number of steps, each on all of D_S: one pass of each kind.
        at: numbers of steps, from 1 to `steps`, after which to keep the displacement.
        apply, loss, params, displacement, inputs, weights, chunk: what they are for `project`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(
        apply, params, inputs, chunk, weights, loss=loss, displacement=displacement
    )
    centre = _declared(loss)
    _check_stops(steps, 0.0, at, (), "steps")
    inputs = _counted(inputs, weights)
    rate = _rate(apply, loss, params, inputs, weights, chunk, rate)
    target = _first_order_target(apply, centre, params, displacement, inputs, weights, chunk)
    _check_target(target)
    length = inner(displacement, displacement)
    rest = (inputs, weights, chunk, rate, steps, tuple(at))
    return _finite(_descend(apply, loss, centre, params, target.change, length, *rest))


@full_precision
def descend_labels(
    apply: Apply,
    loss: Loss,
    params: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    rate: float | Float[Array, ""] | None = None,
    steps: int,
    at: Sequence[int] = (),
    weights: Weights | None = None,
    chunk: int | None = None,
) -> LinearStudent:
    """K_n J^+ (f_T - f_0): n steps of the linearised student on the teacher's true labels.

    Args:
        teacher: theta_T, a pytree like `params`.
        apply, loss, params, inputs, rate, steps, at, weights, chunk: what they are for `descend`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, teacher=teacher)
    centre = _declared(loss)
    _check_stops(steps, 0.0, at, (), "steps")
    inputs = _counted(inputs, weights)
    rate = _rate(apply, loss, params, inputs, weights, chunk, rate)
    target = _label_target(apply, centre, params, teacher, inputs, weights, chunk)
    _check_target(target)
    length = _square_distance(params, teacher)
    rest = (inputs, weights, chunk, rate, steps, tuple(at))
    return _finite(_descend(apply, loss, centre, params, target.change, length, *rest))


@full_precision
def nonlinearity(
    apply: Apply,
    loss: Loss,
    params: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """|C r| / |C (f_T - f_0)|, r = f_T - f_0 - J delta: the warning light of the forecasts.

    Root mean squares over D_S. 0 for a linear model; near 1, P_R delta says little. Infinity where
    f_T - f_0 is no more than rounding of the logits, and J delta is more; where J delta is not
    either, NaN, unless the loss does not see delta at all, which is 0.

    Args and errors: as for `project_labels`.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, teacher=teacher)
    centre = _declared(loss)
    inputs = _counted(inputs, weights)
    light, finite = _nonlinearity(apply, centre, params, teacher, inputs, weights, chunk)
    check_finite_number(jnp.where(finite, 0, jnp.nan), "apply", _NOT_FINITE)
    return light


@full_precision
def transferred_gain(
    trait_loss: TraitLoss, params: Params, displacement: Params, student: Params
) -> Float[Array, ""]:
    """<grad L_T, student> / <grad L_T, delta>: the share of the teacher's gain that passes.

    To first order. With a teacher of one step and student = P_R delta it lies between 0 and 1;
    with a teacher of many steps it may not.

    Args:
        trait_loss: L_T, from params to a scalar.
        params: theta_0.
        displacement: delta = theta_T - theta_0, the teacher's.
        student: theta_S - theta_0, for instance `project(...).displacement`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    check_params(params)
    check_same_tree(params, displacement, "displacement")
    check_same_tree(params, student, "student")
    gradient = jax.grad(trait_loss)(params)
    return inner(gradient, student) / inner(gradient, displacement)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spectrum:
    """Where in the spectrum of K a direction d lies: <d, h(K) d> is sum of squares * h(rates).

    A quadrature: exact for a polynomial h of degree below twice the number of rates.

    Attributes:
        rates: at which the student learns, 0 or more, in ascending order. All are below the largest
            eigenvalue of K, and the largest is near it only where d has a part along its
            eigenvector: for a learning rate, take `largest_rate`.
        squares: how much of |d|^2 is learnt at each.
    """

    rates: Float[Array, "*batch products"]
    squares: Float[Array, "*batch products"]

    def after_time(
        self, times: Float[Array, " times"] | Float[np.ndarray, " times"]
    ) -> Float[Array, "*batch times"]:
        """<d, (1 - e^{-tK}) d> at each time t: rising in t, from 0 to |P_R d|^2.

        For d = grad L_T and a teacher of one step eps, L_T has fallen by eps times this, to first
        order, after gradient flow of (weighted) squared error for t.
        """
        done = -jnp.expm1(-self.rates[..., None, :] * jnp.asarray(times)[:, None])
        return jnp.sum(self.squares[..., None, :] * done, axis=-1)

    def after_steps(
        self,
        rate: float | Float[Array, ""],
        steps: Shaped[Array, " counts"] | Shaped[np.ndarray, " counts"],
    ) -> Float[Array, "*batch counts"]:
        """<d, K_n d> after each number n of steps of gradient descent at a learning rate.

        Raises:
            ValueError: `steps` are not whole numbers, or known and below 0.
        """
        if not jnp.issubdtype(jnp.result_type(steps), jnp.integer):
            raise ValueError(f"steps: must be whole numbers, are {jnp.result_type(steps)}")
        if not isinstance(steps, Tracer) and np.any(np.asarray(steps) < 0):
            raise ValueError("steps: must be 0 or more")
        left = (1 - rate * self.rates)[..., None, :] ** jnp.asarray(steps)[:, None]
        return jnp.sum(self.squares[..., None, :] * (1 - left), axis=-1)


@full_precision
def spectrum(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    products: int,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Spectrum:
    """The spectrum of K = E_x[J^T M J] at theta_0 as a direction sees it, by Lanczos quadrature.

    (Golub and Meurant 1994.) `products` products with K give transfer at every time and after
    every number of steps, for (weighted) squared error; for another loss, near the start.

    Args:
        direction: d, for instance grad L_T.
        products: the number of products with K: 20 to 50 are enough for smooth h.
        apply, loss, params, inputs, weights, chunk: what they are for `project`; the loss need
            declare nothing.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, direction=direction)
    _check_count(products, "products")
    inputs = _counted(inputs, weights)
    found = _spectrum(apply, loss, params, direction, inputs, weights, chunk, products)
    check_finite_number(found.rates, "apply", _NOT_FINITE)
    return found


@full_precision
def largest_rate(
    apply: Apply,
    loss: Loss,
    params: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """A bound on the largest eigenvalue of K = E_x[J^T M J] at theta_0, at most a ninth above it.

    Gradient descent of the linearised student is stable below 2 over it. Lanczos from a random
    start: with k products in n dimensions the largest rate is below 1 - e of the eigenvalue with a
    probability of at most 1.648 sqrt(n) exp(-(2k - 1) sqrt(e)) (Kuczynski and Wozniakowski 1992,
    theorem 4.2), in exact arithmetic. So many products are taken (34 for a million parameters)
    that for e = 1/10 this is 1e-6, and the rate is divided by 1 - e. The start is the same in
    every call.

    Args:
        loss: a matching loss; it need declare nothing.
        apply, params, inputs, weights, chunk: what they are for `project`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss)
    if not isinstance(loss, MatchingLoss):
        raise ValueError("loss: must be a matching loss, of whose K no eigenvalue is below 0")
    return _largest_rate(apply, loss, params, _counted(inputs, weights), weights, chunk)


def _largest_rate(
    apply: Apply,
    loss: Loss,
    params: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> Float[Array, ""]:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    start = structure.unflatten(
        [
            jax.random.normal(key, jnp.shape(leaf), leaf.dtype)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
    )
    size = sum(int(np.prod(jnp.shape(leaf))) for leaf in leaves)
    products = 0.5 + np.log(1.648 * np.sqrt(size) / _UNLUCKY) / (2 * np.sqrt(_SLACK))
    found = _spectrum(apply, loss, params, start, inputs, weights, chunk, int(np.ceil(products)))
    check_finite_number(found.rates, "apply", _NOT_FINITE)
    return found.rates[-1] / (1 - _SLACK)


def _rate(
    apply: Apply,
    loss: Loss,
    params: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
    rate: float | Array | None,
) -> float | Array:
    if rate is not None:
        check_positive(rate, "rate")
        return rate
    largest = _largest_rate(apply, loss, params, inputs, weights, chunk)
    # Where the loss sees nothing of the parameters, any rate leaves them where they are.
    return 1 / jnp.where(largest > 0, largest, 1)


def _counted(inputs: Inputs, weights: Float[Array, "examples *positions"]) -> Inputs:
    """The inputs, an example that counts in the place of each that does not.

    To multiply by 0 is not enough: where a model gives no number, neither does its derivative,
    times whatever it is taken.
    """
    counts = jnp.any(weights > 0, axis=tuple(range(1, weights.ndim)))
    if not isinstance(counts, Tracer) and bool(jnp.all(counts)):
        return inputs
    first = jnp.argmax(counts)

    def counted(leaf: Array | np.ndarray) -> Array:
        leaf = gathered(jnp.asarray(leaf))
        return jnp.where(counts.reshape(-1, *(1 for _ in leaf.shape[1:])), leaf, leaf[first])

    return jax.tree.map(counted, inputs)


def _finite(student: LinearStudent) -> LinearStudent:
    check_finite_number(student.recomputed, "apply", _NOT_FINITE)
    return student


def _declared(loss: Loss) -> Callable[[Array], Array]:
    centre = off_null_space(loss)
    if centre is None:
        raise ValueError(
            "loss: declares no null space, on which the projection depends; make it by "
            "`matching(potential, off_null_space)`, with the projection of one row's logits off "
            "the null space of the potential's Hessian (the identity, where it has none)"
        )
    return centre


def _check_count(count: Any, name: str) -> None:
    if not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"{name}: must be a whole number of at least 1, got {count}")


def _check_stops(
    iterations: int,
    tolerance: float | Array,
    at: Sequence[int],
    reaching: Sequence[float | Array],
    name: str = "iterations",
) -> None:
    _check_count(iterations, name)
    if not isinstance(tolerance, Tracer) and not 0 <= tolerance < 1:
        raise ValueError(f"tolerance: must be at least 0 and below 1, got {tolerance}")
    for count in at:
        _check_count(count, "at")
        if count > iterations:
            raise ValueError(f"at: {count} is more than the {iterations} {name}")
    for level in reaching:
        if not isinstance(level, Tracer) and not 0 < level < 1:
            raise ValueError(f"reaching: must be between 0 and 1, got {level}")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Stops:
    """When to keep the displacement, and when to end.

    Attributes:
        counts: the iteration at which each copy is kept at the latest.
        levels: the relative residual at which it is kept, if that comes first.
        tolerance: the relative residual at which all ends.
    """

    counts: Int[Array, " copies"]
    levels: Float[Array, " copies"]
    tolerance: Float[Array, ""]


def _stops(
    params: Params,
    iterations: int,
    tolerance: float | Array,
    at: Sequence[int],
    reaching: Sequence[float | Array],
) -> _Stops:
    dtype = float_type(params)
    levels = [jnp.asarray(level, dtype) for level in (*(0.0 for _ in at), *reaching)]
    return _Stops(
        jnp.array([*at, *(iterations for _ in reaching)], jnp.int32),
        jnp.stack(levels) if levels else jnp.zeros(0, dtype),
        jnp.asarray(tolerance, dtype),
    )


def _over_parts(function: Callable[[Inputs], Any], inputs: Inputs, chunk: int | None) -> Any:
    """function(inputs), a pytree of arrays by example, `chunk` examples at a time."""
    parts, rest = in_parts(inputs, chunk)
    if parts is None:
        return function(rest)
    found = jax.lax.map(function, parts)
    found = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found)
    if rest is None:
        return found
    return jax.tree.map(lambda *both: jnp.concatenate(both), found, function(rest))


def _push(apply: Apply, params: Params, direction: Params, part: Inputs) -> tuple[Logits, Logits]:
    """f_0 and J d of one part."""
    return jax.jvp(lambda p: apply(p, part), (params,), (direction,))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Target:
    """What a student is to fit.

    Attributes:
        change: a change of the logits; 0 where the loss sees no more of it than rounding.
        seen: whether it sees more, in any row that counts.
        finite: whether it, and the logits that it starts from, are finite where the loss looks.
        limit: what of it may be rounding, by row.
    """

    change: Logits
    seen: Bool[Array, ""]
    finite: Bool[Array, ""]
    limit: Float[Array, "examples *positions"]


def _target(
    centre: Callable[[Array], Array],
    change: Logits,
    limit: Float[Array, "examples *positions"],
    finite: Bool[Array, "examples *positions"],
    weights: Float[Array, "examples *positions"],
) -> _Target:
    whole = jnp.all(finite | (weights <= 0))
    # What is not finite has no length, and must not pass for what is not seen.
    seen = _visible(centre, change, limit, weights) | ~whole
    change = jnp.where((weights > 0)[..., None] & seen, change, 0)
    return _Target(jnp.where(whole, change, jnp.nan), seen, whole, limit)


def _visible(
    centre: Callable[[Array], Array],
    change: Logits,
    limit: Float[Array, "examples *positions"],
    weights: Float[Array, "examples *positions"],
) -> Bool[Array, ""]:
    return jnp.any((weights > 0) & (_lengths(_by_row(centre, change)) > limit))


def _lengths(logits: Logits) -> Float[Array, "examples *positions"]:
    """The length of each row; what is not finite is of no length."""
    return jnp.linalg.norm(jnp.where(jnp.isfinite(logits), logits, 0), axis=-1)


def _all_finite(
    centre: Callable[[Array], Array], *logits: Logits
) -> Bool[Array, "examples *positions"]:
    """Whether each row is finite where the loss looks."""
    looks = [jnp.all(jnp.isfinite(_by_row(centre, each)), axis=-1) for each in logits]
    return jnp.all(jnp.stack(looks), axis=0)


@partial(jax.jit, static_argnames=("apply", "centre", "chunk"))
def _first_order_target(
    apply: Apply,
    centre: Callable[[Array], Array],
    params: Params,
    displacement: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> _Target:
    """J delta. What its terms would be, if they did not cancel, is J of the scrambled delta."""
    scrambled = scramble(displacement)

    def of_part(part: Inputs) -> tuple[Array, Array, Array]:
        logits, change = _push(apply, params, displacement, part)
        scale = _lengths(change) + _lengths(_push(apply, params, scrambled, part)[1])
        limit = _BLIND * jnp.finfo(change.dtype).eps * scale
        return change, limit, _all_finite(centre, logits, change)

    return _target(centre, *_over_parts(of_part, inputs, chunk), weights=weights)


@partial(jax.jit, static_argnames=("apply", "centre", "chunk"))
def _label_target(
    apply: Apply,
    centre: Callable[[Array], Array],
    params: Params,
    teacher: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> _Target:
    """f_T - f_0. Rounding is that of the logits, and of their terms before they cancel."""
    ends = [(end, scramble(end)) for end in (params, teacher)]

    def of_part(part: Inputs) -> tuple[Array, Array, Array]:
        (start, first), (there, last) = (_push(apply, *end, part) for end in ends)
        # A logit of minus infinity that stays there has not moved.
        change = jnp.where(there == start, 0, there - start)
        scale = sum(map(_lengths, (first, there, last)), _lengths(start))
        limit = _LOGIT_ROUNDING * jnp.finfo(change.dtype).eps * scale
        return change, limit, _all_finite(centre, start, change)

    return _target(centre, *_over_parts(of_part, inputs, chunk), weights=weights)


@partial(jax.jit, static_argnames=("apply", "centre", "chunk"))
def _nonlinearity(
    apply: Apply,
    centre: Callable[[Array], Array],
    params: Params,
    teacher: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The warning light, and whether all that it looked at was finite."""
    displacement = jax.tree.map(jnp.subtract, teacher, params)
    labels = _label_target(apply, centre, params, teacher, inputs, weights, chunk)
    linear = _first_order_target(apply, centre, params, displacement, inputs, weights, chunk)
    rest, size = (
        jnp.sqrt(_mean_square(_by_row(centre, part), weights))
        for part in (labels.change - linear.change, labels.change)
    )
    expected = _visible(centre, linear.change, labels.limit, weights)
    unseen = jnp.where(expected, jnp.inf, jnp.where(linear.seen, jnp.nan, 0))
    light = jnp.where(labels.seen, rest / jnp.where(labels.seen, size, 1), unseen)
    return light, labels.finite & linear.finite


def _check_target(target: _Target) -> None:
    check_finite_number(jnp.where(target.finite, 0, jnp.nan), "apply", _NOT_FINITE)


def _check_sight(
    apply: Apply,
    loss: Loss,
    centre: Callable[[Array], Array],
    params: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
    target: _Target,
) -> None:
    """Refuses logits that are not finite, or at which the loss sees less than it declares."""
    _check_target(target)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((params, inputs, weights))):
        return
    output, unseen = _least_seen(apply, loss, centre, params, inputs, weights, chunk)
    if unseen:
        raise ValueError(
            f"loss: declares that it sees output {output}, and at the model's logits it has no "
            "curvature there in any row; leave entries that are never sampled out of the loss: "
            "softmax_potential(allowed)"
        )


@partial(jax.jit, static_argnames=("apply", "loss", "centre", "chunk"))
def _least_seen(
    apply: Apply,
    loss: Loss,
    centre: Callable[[Array], Array],
    params: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """The output with the lowest logits of those at which the loss seems to see nothing, if any."""

    def images(logits: Array, vector: Array) -> Array:
        product = partial(mixed_hessian_product, loss)
        return jnp.abs(jax.vmap(lambda z: product(z, z, vector))(logits))

    def mean(function: Callable[[Array], Any]) -> Any:
        def of_part(part: Inputs, weights: Array) -> Any:
            found = function(rows(apply(params, part)))
            return jax.tree.map(partial(weighed, weights), found)

        return mean_over_rows(of_part, inputs, weights, chunk)

    def first(logits: Array) -> tuple[Array, Array]:
        signs = scramble(jnp.ones(logits.shape[1], logits.dtype))
        declared = jnp.abs(centre(signs)) > 0
        found = images(logits, signs)
        return logits, jnp.where(declared, found, 1)

    level, image = mean(first)
    candidates = image == 0
    output = jnp.argmin(jnp.where(candidates, level, jnp.inf))
    # A sure winner has p (1 - p) of 0 too, and moves the others.
    alone = (jnp.arange(len(level)) == output).astype(level.dtype)
    moved = jnp.sum(mean(lambda logits: images(logits, alone)))
    return output, jnp.any(candidates) & (moved == 0)


def _square_distance(params: Params, teacher: Params) -> Float[Array, ""]:
    displacement = jax.tree.map(jnp.subtract, teacher, params)
    return inner(displacement, displacement)


def _by_row(function: Callable[[Array], Array], logits: Logits) -> Logits:
    return jax.vmap(function)(rows(logits)).reshape(logits.shape)


def _mean_square(logits: Logits, weights: Float[Array, "examples *positions"]) -> Float[Array, ""]:
    return _mean_product(logits, logits, weights)


def _mean_product(
    first: Logits, second: Logits, weights: Float[Array, "examples *positions"]
) -> Float[Array, ""]:
    products = jnp.sum(first * second, axis=-1)
    return weighed(weights.reshape(-1), products.reshape(-1)) / jnp.sum(weights)


def _weighted(weights: Float[Array, " rows"], logits: Float[Array, "rows outputs"]) -> Array:
    """Each row times its weight; a row of weight 0 may be no number."""
    counts = weights[:, None]
    return jnp.where(counts > 0, counts * logits, 0)


def _keep(copies: Params, current: Params, open_: Bool[Array, " copies"]) -> Params:
    """The copies, those that are still open replaced by `current`."""

    def replace(kept: Array, leaf: Array) -> Array:
        return jnp.where(open_.reshape(-1, *(1 for _ in leaf.shape)), leaf, kept)

    return jax.tree.map(replace, copies, current)


def _unstack(copies: Params, first: int, last: int) -> tuple[Params, ...]:
    return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], copies) for i in range(first, last))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Search:
    """Conjugate gradients after some iterations.

    Attributes:
        solution: v.
        residual: C (target - J v), carried along.
        gradient: J^T of the residual, whose square length is `square`.
        direction: of the next iteration.
        scale: the largest stretch |C J p| / |p| that was met, an estimate of |C J|.
        exhausted: whether rounding allows no more progress.
    """

    solution: Params
    residual: Array
    direction: Params
    square: Array
    scale: Array
    exhausted: Array
    iterations: Array
    relative_residual: Array
    share: Array
    copies: Params
    open: Array


@partial(jax.jit, static_argnames=("apply", "centre", "chunk", "iterations", "counted"))
def _solve(
    apply: Apply,
    centre: Callable[[Array], Array],
    params: Params,
    target: Logits,
    length: Float[Array, ""],
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
    iterations: int,
    counted: int,
    stops: _Stops,
) -> LinearStudent:
    """min_v E |C (target - J v)|^2 from v = 0, by CGLS."""

    def image(direction: Params) -> Logits:
        return _by_row(
            centre,
            _over_parts(lambda part: _push(apply, params, direction, part)[1], inputs, chunk),
        )

    def transposed(logits: Logits) -> Params:
        def of_part(part: tuple[Inputs, Logits], weights: Array) -> Params:
            pull = jax.vjp(lambda p: rows(apply(p, part[0])), params)[1]
            return pull(_weighted(weights, rows(part[1])))[0]

        return mean_over_rows(of_part, (inputs, logits), weights, chunk)

    target = _by_row(centre, target)
    size = jnp.sqrt(_mean_square(target, weights))
    ulp = jnp.finfo(target.dtype).eps
    # A target of 0 is met at the start.
    unit = jnp.where(size > 0, size, 1)
    length = jnp.where(length > 0, length, 1)

    def advance(search: _Search) -> _Search:
        push = image(search.direction)
        stretch = _mean_square(push, weights)
        # The exact line search: <residual, push> is `square` but for rounding, and with it the
        # residual cannot grow, also where rounding has made the directions not quite conjugate.
        along = _mean_product(search.residual, push, weights)
        size_of_step = jnp.where(stretch > 0, along / jnp.where(stretch > 0, stretch, 1), 0)
        solution = step(search.solution, search.direction, size_of_step)
        residual = search.residual - size_of_step * push
        gradient = transposed(residual)
        square = inner(gradient, gradient)
        ratio = square / jnp.where(search.square > 0, search.square, 1)
        scale = jnp.maximum(
            search.scale, jnp.sqrt(stretch / inner(search.direction, search.direction))
        )
        left = jnp.sqrt(_mean_square(residual, weights))
        count = search.iterations + 1
        relative = left / unit
        return _Search(
            solution=solution,
            residual=residual,
            direction=step(gradient, search.direction, ratio),
            square=square,
            scale=scale,
            exhausted=(stretch == 0) | _spent(square, scale, left),
            iterations=count,
            relative_residual=search.relative_residual.at[count].set(relative),
            share=search.share.at[count].set(inner(solution, solution) / length),
            copies=_keep(search.copies, solution, search.open),
            open=search.open & (count < stops.counts) & (relative > stops.levels),
        )

    def _spent(square: Array, scale: Array, left: Array) -> Array:
        """Whether gradient or residual is down to rounding."""
        return (jnp.sqrt(square) <= 10 * ulp * scale * left) | (left <= ulp * size)

    def goes_on(search: _Search) -> Array:
        last = search.relative_residual[search.iterations]
        return (search.iterations < iterations) & (last > stops.tolerance) & ~search.exhausted

    gradient = transposed(target)
    square = inner(gradient, gradient)
    scale = jnp.sqrt(square) / unit
    # Of a target that is no number, neither is the answer.
    nothing = jnp.where(jnp.isfinite(size), 0, jnp.nan).astype(size.dtype)
    zero = jax.tree.map(lambda leaf: jnp.full_like(leaf, nothing), params)
    copies = len(stops.counts)
    search = jax.lax.while_loop(
        goes_on,
        advance,
        _Search(
            solution=zero,
            residual=target,
            direction=gradient,
            square=square,
            scale=scale,
            exhausted=square == 0,
            iterations=jnp.int32(0),
            relative_residual=jnp.zeros(iterations + 1, size.dtype).at[0].set(size / unit),
            share=jnp.full(iterations + 1, nothing),
            copies=jax.tree.map(lambda leaf: jnp.zeros((copies, *leaf.shape), leaf.dtype), zero),
            open=jnp.ones(copies, bool),
        ),
    )
    anew = jnp.sqrt(_mean_square(target - image(search.solution), weights)) / unit
    reached = jnp.minimum(jnp.arange(iterations + 1), search.iterations)
    return LinearStudent(
        displacement=search.solution,
        iterations=search.iterations,
        relative_residual=search.relative_residual[reached],
        share=search.share[reached],
        recomputed=anew,
        at=_unstack(search.copies, 0, counted),
        reaching=_unstack(search.copies, counted, copies),
    )


def _pull_back(
    apply: Apply, loss: Loss, params: Params, part: Inputs, direction: Params
) -> tuple[Float[Array, "rows outputs"], Callable[[Array, Array], Params]]:
    """J d of one part, and (weights, u) -> sum of weights * J^T M u: one linearisation of both."""
    logits, push = jax.linearize(lambda p: rows(apply(p, part)), params)
    transpose = jax.linear_transpose(push, params)

    def pull(weights: Array, change: Array) -> Params:
        seen = jax.vmap(partial(mixed_hessian_product, loss))(logits, logits, change)
        return transpose(_weighted(weights, seen))[0]

    return push(direction), pull


@partial(jax.jit, static_argnames=("apply", "loss", "centre", "chunk", "steps", "at"))
def _descend(
    apply: Apply,
    loss: Loss,
    centre: Callable[[Array], Array],
    params: Params,
    target: Logits,
    length: Float[Array, ""],
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
    rate: float | Float[Array, ""],
    steps: int,
    at: tuple[int, ...],
) -> LinearStudent:
    """n steps of v <- v + eta E J^T M (target - J v), from v = 0."""
    size = jnp.sqrt(_mean_square(_by_row(centre, target), weights))
    unit = jnp.where(size > 0, size, 1)
    length = jnp.where(length > 0, length, 1)
    counts = jnp.array(at, jnp.int32)

    def look(solution: Params) -> tuple[Params, Array]:
        """E J^T M (target - J v), and the relative residual, at v."""

        def of_part(part: tuple[Inputs, Logits], weights: Array) -> tuple[Params, Array]:
            change, pull = _pull_back(apply, loss, params, part[0], solution)
            left = rows(part[1]) - change
            squares = jnp.sum(jax.vmap(centre)(left) ** 2, 1)
            return pull(weights, left), weighed(weights, squares)

        way, square = mean_over_rows(of_part, (inputs, target), weights, chunk)
        return way, jnp.sqrt(square) / unit

    def advance(carry: tuple[Params, Params], count: Array) -> tuple[Any, tuple[Array, Array]]:
        solution, copies = carry
        way, relative = look(solution)
        share = inner(solution, solution) / length
        solution = step(solution, way, rate)
        return (solution, _keep(copies, solution, counts == count + 1)), (relative, share)

    zero = jax.tree.map(jnp.zeros_like, params)
    copies = jax.tree.map(lambda leaf: jnp.zeros((len(at), *leaf.shape), leaf.dtype), zero)
    (solution, copies), (relative, share) = jax.lax.scan(
        advance, (zero, copies), jnp.arange(steps, dtype=jnp.int32)
    )
    last = look(solution)[1]
    return LinearStudent(
        displacement=solution,
        iterations=jnp.int32(steps),
        relative_residual=jnp.append(relative, last),
        share=jnp.append(share, inner(solution, solution) / length),
        recomputed=last,
        at=_unstack(copies, 0, len(at)),
        reaching=(),
    )


@partial(jax.jit, static_argnames=("apply", "loss", "chunk", "products"))
def _spectrum(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
    products: int,
) -> Spectrum:
    def product(vector: Params) -> Params:
        def of_part(part: Inputs, weights: Array) -> Params:
            change, pull = _pull_back(apply, loss, params, part, vector)
            return pull(weights, change)

        return mean_over_rows(of_part, inputs, weights, chunk)

    def advance(
        carry: tuple[Params, Params, Array, Array], _: None
    ) -> tuple[tuple[Params, Params, Array, Array], tuple[Array, Array]]:
        before, current, link, scale = carry
        after = step(product(current), before, -link)
        diagonal = inner(after, current)
        after = step(after, current, -diagonal)
        length, scale = norm(after), jnp.maximum(scale, jnp.abs(diagonal) + link)
        # What is left where the direction has nothing more is rounding, and would start anew.
        goes_on = length > 100 * jnp.finfo(length.dtype).eps * scale
        link = jnp.where(goes_on, length, 0)
        after = step(jax.tree.map(jnp.zeros_like, after), after, jnp.where(goes_on, 1 / length, 0))
        return (current, after, link, scale), (diagonal, link)

    size = norm(direction)
    unit = jnp.where(size > 0, size, 1)
    zero = jax.tree.map(jnp.zeros_like, direction)
    start = step(zero, direction, 1 / unit)
    _, (diagonal, links) = jax.lax.scan(
        advance, (zero, start, jnp.zeros_like(size), jnp.zeros_like(size)), None, products
    )
    # Without reorthogonalisation eigenvalues come several times over, which share one weight: the
    # quadrature is right all the same (Greenbaum 1989).
    matrix = jnp.diag(diagonal) + jnp.diag(links[:-1], 1) + jnp.diag(links[:-1], -1)
    rates, vectors = jnp.linalg.eigh(matrix)
    return Spectrum(jnp.maximum(rates, 0), size**2 * vectors[0] ** 2)
