"""A certificate of alignment over an interval: g > 0 on all of (0, eps), from bounds known before.

Along theta_0 + s d, let kappa_x bound |d^2/ds^2 f(theta_0 + s d, x)|_M, with M = hess A(f_0), and
let the mean of hess A between f_0 and f_s lie between h- M and h+ M, for all s <= eps and each x
with its own bounds. By Taylor, |f_s - f_0 - s J d|_M <= s^2 kappa_x / 2, so that by Cauchy-Schwarz
(as for `Curve.rho`, whose norm is compared with that of M)

    g(s) > 0 for all s in (0, eps)   if   eps < 2 sqrt(E[h- |J d|_M^2] / E[h+ kappa_x^2]).

The bounds must hold at EVERY s up to eps. Taken at eps alone, as rho is, they say no more than the
sign of g there. Where the velocity d/ds f leaps by e_i at s_i (a kink, as a ReLU's), the residual
gains at most e_i (s - s_i), so that with c_x = sum of e_i (1 - s_i / eps) over s_i < eps

    g(s) > 0 for all s in (0, eps)   if
    eps < 2 (sqrt(E[h- |J d|_M^2]) - sqrt(E[h+ c_x^2])) / sqrt(E[h+ kappa_x^2]).

(An extension of the paper; for matching losses only.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theory.alignment import linearise
from theory.checks import check_positive, row_weights
from theory.conditions import mixed_hessian_product
from theory.losses import Loss, MatchingLoss, Potential, Subset, off_null_space
from theory.passes import (
    Apply,
    Inputs,
    Params,
    Weights,
    float_type,
    full_precision,
    mean_over_rows,
    rows,
    scramble,
    step,
    unit_quadrature,
    weighed,
)

# A bound w of a displacement u of the logits: exp(-t w) H <= hess A(z + t u) <= exp(t w) H for
# H = hess A(z), every z, and t from 0 to 1.
Drift = Callable[[Float[Array, " outputs"]], Float[Array, ""]]

# Nodes of the Gauss-Legendre rule for the mean Hessian, where no drift is declared.
_NODES = 8
# How much of J d may lie off the loss's null space and still be rounding, in units in the last
# place of J d, and of what J d would be if its terms did not cancel.
_BLIND = 100.0
# The share of a step of the grid by which its points stray from even spacing.
_STRAY = 0.5


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class IntervalCertificate:
    """Up to where g > 0 is certified throughout.

    Attributes:
        reach: g > 0 on all of (0, reach); at most the largest size looked at, and 0 for a
            direction that the loss does not see, to rounding.
        sizes: the s of the grid, ascending, 0 left out.
        bound: the eps below which the bounds on (0, s] certify; it counts up to s only.
    """

    reach: Float[Array, "*batch"]
    sizes: Float[Array, "*batch points"]
    bound: Float[Array, "*batch points"]


def softmax_drift(subset: Subset, temperature: float | Float[Array, ""] = 1.0) -> Drift:
    """The drift of `softmax_potential(subset, temperature)`: the range of u / tau on the subset.

    Probabilities change by factors within exp(range) of each other, and so does every variance.
    """

    def drift(displacement: Float[Array, " outputs"]) -> Float[Array, ""]:
        high = jnp.max(displacement, where=subset, initial=-jnp.inf)
        low = jnp.min(displacement, where=subset, initial=jnp.inf)
        return (high - low) / temperature

    return drift


def coordinate_drift(displacement: Float[Array, " outputs"]) -> Float[Array, ""]:
    """The drift of `bernoulli_potential` and `poisson_potential`: the largest |u_i|."""
    return jnp.max(jnp.abs(displacement))


def constant_drift(displacement: Float[Array, " outputs"]) -> Float[Array, ""]:
    """The drift of `squared_potential`, whose Hessian is the same everywhere: 0."""
    return jnp.zeros((), displacement.dtype)


@full_precision
def interval_certificate(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    largest: float | Float[Array, ""],
    points: int = 32,
    drift: Drift | None = None,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> IntervalCertificate:
    """The eps up to which g > 0 throughout is certified by curvature, without a look at g.

    Curvature and Hessian are looked at on a grid of s and raised by their largest change between
    neighbours up to there. What the velocity of the logits changes by between neighbours, and the
    curvature at both does not explain, is taken for a kink at the smaller s. This is a numerical
    bound, as that of `theory.safe_step`, not interval arithmetic: what comes and goes between two
    points of the grid, such as two kinks that undo each other, is not seen, and nothing is
    certified about it. A forward pass with two forward-mode derivatives for each point.

    Args:
        loss: a matching loss whose potential declares its null space (`theory.losses`).
        direction: the teacher's direction d.
        largest: the largest s looked at, above 0.
        points: the number of s looked at, at least 2: spaced without a period, so that no wave has
            its zeros at all of them.
        drift: a bound on how the loss's Hessian changes: `softmax_drift`, `coordinate_drift`,
            `constant_drift`, or an own one. None compares the mean Hessians themselves by their
            extreme generalised eigenvalues, which is tighter; of outputs x outputs, for small ones.
        apply, params, inputs, weights, chunk: what they are for `theory.inner_product_reverse`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    check_positive(largest, "largest")
    if points < 2:
        raise ValueError(f"points: must be at least 2, got {points}")
    project = off_null_space(loss)
    if not isinstance(loss, MatchingLoss) or project is None:
        raise ValueError(
            "loss: must be a matching loss whose potential declares a constant null space"
        )
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, direction=direction)
    largest = jnp.asarray(largest, float_type(params))
    rest = (largest, points, drift, project, chunk)
    return _interval(apply, loss, params, direction, inputs, weights, *rest)


@partial(jax.jit, static_argnames=("apply", "loss", "points", "drift", "project", "chunk"))
def _interval(
    apply: Apply,
    loss: MatchingLoss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    largest: Float[Array, ""],
    points: int,
    drift: Drift | None,
    project: Callable[[Array], Array],
    chunk: int | None,
) -> IntervalCertificate:
    grid = largest * _grid(points, largest.dtype)
    ulp = jnp.finfo(largest.dtype).eps
    scrambled = scramble(direction)
    product = jax.vmap(partial(mixed_hessian_product, loss))
    eigenvalues = partial(_by_eigenvalues, loss.potential, project)
    compare = jax.vmap(eigenvalues if drift is None else partial(_within, drift))

    def total(part, weights):
        start, change = linearise(apply, params, direction, part)
        _, uncancelled = linearise(apply, params, scrambled, part)
        length, visible = (
            jnp.linalg.norm(each, axis=1) for each in (change, jax.vmap(project)(change))
        )
        noise = _BLIND * ulp * (length + jnp.linalg.norm(uncancelled, axis=1))

        def square(vector):
            return jnp.maximum(jnp.sum(vector * product(start, start, vector), axis=1), 0)

        def at(last, size):
            def logits(size):
                return rows(apply(step(params, direction, size), part))

            def logits_and_velocity(size):
                return jax.jvp(logits, (size,), (jnp.ones_like(size),))

            (moved, velocity), (_, acceleration) = jax.jvp(
                logits_and_velocity, (size,), (jnp.ones_like(size),)
            )
            # A logit of minus infinity that stays there has not moved.
            shift = jnp.where(moved == start, 0, moved - start)
            below, above = compare(start, shift)
            last_size, last_velocity, last_acceleration = last
            explained = 0.5 * (size - last_size) * (acceleration + last_acceleration)
            leap = jnp.sqrt(square(velocity - last_velocity - explained))
            seen = jnp.stack([jnp.sqrt(square(acceleration)), below, above])
            return (size, velocity, acceleration), (seen, leap)

        at_rest = grid[0], change, jnp.zeros_like(change)
        _, (seen, leaps) = jax.lax.scan(at, at_rest, grid)
        curvature, below, above = jnp.moveaxis(_supremum(seen), 1, 0)
        kinks = _kinks(grid, leaps[1:])

        def widened(length):
            return jnp.where(length == 0, 0, jnp.exp(above) * length**2)

        def mean(terms):
            return jax.vmap(partial(weighed, weights))(terms)

        return {
            "linear": mean(jnp.exp(-below) * square(change)),
            "residual": mean(widened(curvature)),
            "kinks": mean(widened(kinks)),
            "seen": weighed(weights, jnp.maximum(visible - noise, 0)),
        }

    mean = mean_over_rows(total, inputs, weights, chunk)
    residual = jnp.sqrt(mean["residual"])
    left = jnp.sqrt(mean["linear"]) - jnp.sqrt(mean["kinks"])
    flat = jnp.where(left > 0, jnp.inf, 0)
    curved = 2 * jnp.maximum(left, 0) / jnp.where(residual == 0, 1, residual)
    # NaN, where the model overflows, certifies nothing.
    bound = jnp.where(residual == 0, flat, jnp.nan_to_num(curved, posinf=jnp.inf))
    bound = jnp.where(mean["seen"] > 0, bound, 0)
    sizes = grid[1:]
    return IntervalCertificate(jnp.max(jnp.minimum(sizes, bound)), sizes, bound)


def _grid(points: int, dtype: jnp.dtype) -> Float[Array, " points_and_one"]:
    """From 0 to 1, between neighbours half a step to one and a half."""
    number = np.arange(points + 1)
    # The fractional parts of the squares' multiples of an irrational number have no period.
    stray = _STRAY * np.modf(number**2 * (0.5 * 5**0.5))[0]
    stray[[0, -1]] = 0
    return jnp.asarray((number - stray) / points, dtype)


def _kinks(
    grid: Float[Array, " points_and_one"], leaps: Float[Array, "points rows"]
) -> Float[Array, "points rows"]:
    """Of each point but the first: what leaps of the velocity up to there add to |f_s - f_0| / s.

    Each leap counts from the start of the step in which it happens.
    """
    before = grid[:-1, None]
    since = jnp.cumsum(leaps, axis=0) - jnp.cumsum(before * leaps, axis=0) / grid[1:, None]
    return jnp.maximum(since, 0)


def _supremum(values: Float[Array, "points_and_one *rest"]) -> Float[Array, "points *rest"]:
    """Of each point but the first: a bound on the values up to there, also between the points.

    From where the model overflows on it is infinity or NaN.
    """
    jumps = jnp.abs(jnp.diff(values, axis=0))
    return jax.lax.cummax(values)[1:] + jax.lax.cummax(jumps)


def _within(
    drift: Drift, logits: Float[Array, " outputs"], displacement: Float[Array, " outputs"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """-log h- and log h+ of the mean Hessian over the displacement, from a declared drift."""
    width = drift(displacement)
    safe = jnp.where(width > 0, width, 1)
    # The means of exp(-t w) and exp(t w) over t from 0 to 1.
    below = jnp.where(width > 0, -jnp.log(-jnp.expm1(-safe) / safe), 0)
    return below, width - below


def _by_eigenvalues(
    potential: Potential,
    project: Callable[[Array], Array],
    logits: Float[Array, " outputs"],
    displacement: Float[Array, " outputs"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """-log h- and log h+ of the mean Hessian over the displacement, by generalised eigenvalues."""
    unit = jnp.eye(logits.shape[0], dtype=logits.dtype)
    # The null space is given eigenvalue 1 on both sides, which only widens the bounds.
    unseen = unit - jax.vmap(project)(unit)
    hessian = jax.hessian(potential)
    nodes, shares = (jnp.asarray(part, logits.dtype) for part in unit_quadrature(_NODES))
    between = jax.vmap(lambda node: hessian(logits + node * displacement))(nodes)
    mean = jnp.tensordot(shares, between, 1) + unseen
    root = jnp.linalg.cholesky(hessian(logits) + unseen)
    half = jax.scipy.linalg.solve_triangular(root, mean, lower=True)
    whole = jax.scipy.linalg.solve_triangular(root, half.T, lower=True)
    ratios = jnp.linalg.eigvalsh(0.5 * (whole + whole.T))
    return -jnp.log(ratios[0]), jnp.log(ratios[-1])
