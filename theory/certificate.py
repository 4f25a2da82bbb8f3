"""The curve g(eps) at finite steps: remainder, certificate, and how far alignment reaches.

Setting, symbols and conventions are those of `theory.alignment`.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from theory.alignment import linearise
from theory.checks import check_finite_number, check_positive, check_sizes, row_weights
from theory.conditions import mixed_hessian_product
from theory.losses import Loss, MatchingLoss, off_null_space
from theory.passes import (
    Apply,
    Inputs,
    Params,
    Weights,
    float_type,
    full_precision,
    mean_over_rows,
    nudge,
    rows,
    scramble,
    step,
    unit_quadrature,
    weighed,
)

# Nodes of the Gauss-Legendre rule for the mean of M between the start's logits and the teacher's.
_NODES = 8
# Below this, rho^2 is taken from the quadrature of |r|^2, and is at most this.
_CANCELS = 0.01
# A relative rounding error above this is refused: the answer would be noise.
_DROWNED = 0.01
# How much of J d may lie off the loss's null space and still be rounding, in units in the last
# place of J d, and of what J d would be if its terms did not cancel.
_BLIND = 16.0
# Of an inner product that is 0: how many times what rounding is estimated to do to it, it may be.
_NOTHING = 10.0
# Bisections of a bracket: 2^-30 of its width is left.
_HALVINGS = 30
# What rounding does to a logit, in units in its last place.
_LOGIT_ROUNDING = 4.0
# What rounding of the parameters does to g, in terms of what one pattern of it does.
_PARAM_ROUNDING = 4.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Curve:
    """g(eps) and what the theory says of it. E_x is the mean over inputs; J = df/dtheta at theta_0.

    Attributes:
        eps: the teacher's step sizes.
        inner_product: g(eps) = <student_direction, teacher_direction>.
        coefficient: a = E_x[(J d)^T M (J d)], so that g(eps) = eps a + O(eps^2).
        remainder: g(eps) - eps a.
        rho: the ratio |r| / (eps |J d|) in the norm of the mean M between f_0 and f_T, where
            r = f_T - f_0 - eps J d is what linearising the model leaves out. Below 1, g > 0.
        certified: whether rho(eps) < 1 proves that g > 0: of a `MatchingLoss`, and not for a blind
            direction. It is decided without a quadrature whose error could certify anything: it
            is the same as 2 eps g > E<grad A(f_T) - grad A(f_0), f_T - f_0>. It is a statement
            about this eps alone, which says no more than the sign of g there; that no sign
            changes below it, `theory.interval` certifies.
        rounding: what rounding may do to g, roughly, in absolute terms: that of the logits, and
            that of the parameters, by moving each by a unit in its last place.
        rounding_of_derivative: what rounding of J d, whose terms may cancel, may do to g at each
            eps.
        blind: whether the loss sees nothing of the direction. For a loss that declares its null
            space: whether J d lies in it, to rounding of J d; g is then 0 for every eps. For
            another: whether a, and g at each of `eps`, are 0 to rounding, which says nothing of
            other eps.
    """

    eps: Float[Array, "*batch eps"]
    inner_product: Float[Array, "*batch eps"]
    coefficient: Float[Array, "*batch"]
    remainder: Float[Array, "*batch eps"]
    rho: Float[Array, "*batch eps"]
    certified: Bool[Array, "*batch eps"]
    rounding: Float[Array, "*batch"]
    rounding_of_derivative: Float[Array, "*batch eps"]
    blind: Bool[Array, "*batch"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Horizon:
    """How far alignment reaches.

    Attributes:
        eps_star: sup of the eps up to which g > 0 throughout; infinity where g stays positive up
            to `largest`, and 0 where it is not positive at the smallest eps looked at. NaN for a
            blind direction, whose g has no sign, and where rounding or overflow hides it.
        eps_certified: the same for `Curve.certified`; 0 for a loss that is no `MatchingLoss`.
        smallest: the smallest eps looked at.
        largest: the largest eps looked at.
        blind: `Curve.blind`.
    """

    eps_star: Float[Array, "*batch"]
    eps_certified: Float[Array, "*batch"]
    smallest: Float[Array, "*batch"]
    largest: Float[Array, "*batch"]
    blind: Bool[Array, "*batch"]


@full_precision
def curve(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    eps: Float[Array, " eps"] | Float[np.ndarray, " eps"],
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Curve:
    """The whole curve g(eps), its leading coefficient, remainder and certificate.

    One forward-mode derivative at theta_0, shared by all eps, and one forward pass for each.

    Args:
        apply: the model, apply(params, inputs) -> logits.
        loss: the distillation loss L(z, y) of one row, meeting `theory.conditions`.
        params: theta_0, the start of teacher and student alike.
        direction: the teacher's direction, any pytree like `params`.
        eps: the teacher's step sizes, all above 0.
        inputs: the data D_S, a pytree with a leading examples axis.
        weights: how much each row counts, 0 or more: one number an example, or one a position of
            each; None for 1.
        chunk: the number of examples a pass; None for all.

    Raises:
        ValueError: names the argument that is not usable; for `eps`, also where rounding in the
            precision of params would drown g(eps), with the smallest eps that it would not.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, direction=direction)
    check_sizes(eps, "eps")
    eps = jnp.asarray(eps, float_type(params))
    result = _curve(apply, loss, params, direction, eps, inputs, weights, chunk)
    check_finite_number(
        result.coefficient, "apply", "its logits at params, or the loss of them, are no number"
    )
    check_finite_number(result.inner_product, "eps", "the model's logits overflow at the largest")
    if not isinstance(result.inner_product, Tracer) and not result.blind:
        # Where g is about to change its sign, eps a says of what size it is.
        size = jnp.maximum(result.eps * result.coefficient, jnp.abs(result.inner_product))
        for each in np.asarray(result.eps)[np.asarray(~(result.rounding <= _DROWNED * size))]:
            _refuse_drowned("eps", float(each), result)
    return result


def smallest_eps(result: Curve) -> Float[Array, "*batch"]:
    """The eps at which rounding may reach 1 % of g(eps)."""
    seen = result.coefficient > 0
    least = result.rounding / (_DROWNED * jnp.where(seen, result.coefficient, 1))
    return jnp.where(seen, least, jnp.inf)


def _refuse_drowned(name: str, eps: float, result: Curve) -> None:
    dtype, least = result.eps.dtype, float(smallest_eps(result))
    remedy = f"; it must be at least {1.06 * least:.2g} here" if np.isfinite(least) else ""
    remedy += ", or use float64" if dtype == jnp.float32 else ""
    raise ValueError(f"{name}: {eps:.3g} is drowned by rounding in {dtype}{remedy}")


@full_precision
def horizon(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    largest: float | Float[Array, ""],
    smallest: float | Float[Array, ""] | None = None,
    points: int = 32,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Horizon:
    """The alignment horizon eps* = sup{eps : g > 0 on (0, eps]}, and how far rho < 1 reaches.

    Looks at `points` eps in geometric order, and halves the bracket of the first that fails; a
    crossing and recrossing between two neighbours goes unseen. (An extension of the paper.)

    Args:
        largest: the largest eps looked at.
        smallest: the smallest eps looked at; by default a millionth of the largest, or the
            smallest that rounding does not drown (`smallest_eps`), whichever is larger.
        points: the number of eps looked at, at least 2.
        apply, loss, params, direction, inputs, weights, chunk: what they are for `curve`.

    Raises:
        ValueError: names the argument that is not usable: also where rounding drowns what is to
            be looked at, and where the logits overflow before g changes its sign.
    """
    check_positive(largest, "largest")
    if smallest is not None:
        check_positive(smallest, "smallest")
        known = not isinstance(smallest, Tracer) and not isinstance(largest, Tracer)
        if known and not smallest < largest:
            raise ValueError(
                f"smallest: must be below largest, {float(largest):g}, is {float(smallest):g}"
            )
    if points < 2:
        raise ValueError(f"points: must be at least 2, got {points}")
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, direction=direction)
    dtype = float_type(params)
    least = jnp.asarray(0.0 if smallest is None else smallest, dtype)
    far = jnp.asarray(largest, dtype)
    arguments = (apply, loss, params, direction, inputs, weights)
    result, at_least, overflows = _horizon(*arguments, least, far, points, chunk)
    if not isinstance(result.eps_star, Tracer) and not result.blind:
        ends = {"largest": largest} | ({} if smallest is None else {"smallest": smallest})
        for name, end in ends.items():
            if end < smallest_eps(at_least):
                _refuse_drowned(name, float(end), at_least)
        if np.isfinite(overflows):
            raise ValueError(
                f"largest: the model's logits overflow at eps = {float(overflows):.3g}, and up to "
                "there g keeps its sign; look less far"
            )
    return result


@partial(jax.jit, static_argnames=("apply", "loss", "chunk"))
def _curve(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    eps: Float[Array, " eps"],
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> Curve:
    product = jax.vmap(partial(mixed_hessian_product, loss))
    gradient = jax.vmap(jax.grad(loss))
    nodes, node_weights = unit_quadrature(_NODES)
    visible_part = off_null_space(loss)
    ulp = jnp.finfo(eps.dtype).eps
    nudged, scrambled = nudge(params), scramble(direction)

    def total(part, weights):
        start, change = linearise(apply, params, direction, part)
        # What rounding does: to the parameters, by moving each; to a sum whose terms cancel, by
        # what it is when they do not.
        moved, uncancelled = linearise(apply, nudged, scrambled, part)
        length = jnp.linalg.norm(change, axis=1)
        scale = length + jnp.linalg.norm(uncancelled, axis=1)

        def at(eps):
            there = rows(apply(step(params, direction, eps), part))
            # A logit of minus infinity that stays there has not moved.
            shift = jnp.where(there == start, 0, there - start)
            push = -gradient(start, there)
            residual = shift - eps * change

            def squares(node):
                pair = jnp.stack([residual, eps * change])
                images = jax.vmap(lambda v: product(start, start + node * shift, v))(pair)
                return jax.vmap(partial(weighed, weights))(jnp.sum(images * pair, axis=2))

            # One node after the other: memory for one.
            by_node = jax.lax.map(squares, jnp.asarray(nodes, start.dtype))
            return (
                weighed(weights, jnp.sum(push * change, axis=1)),
                weighed(weights, jnp.sum(push * shift, axis=1)),
                weighed(weights, _BLIND * ulp * scale * jnp.linalg.norm(push, axis=1)),
                *(jnp.asarray(node_weights, start.dtype) @ by_node),
            )

        signs = jnp.where(jnp.arange(start.shape[1]) % 2, -1, 1).astype(start.dtype)
        size = jnp.where(jnp.isfinite(start), jnp.abs(start), 0)
        # The loss's gradient is a difference of two terms of this size: grad A of a matching loss.
        each = (
            jax.vmap(jax.grad(loss.potential))(start)
            if isinstance(loss, MatchingLoss)
            else gradient(start, start[:, ::-1])
        )
        terms = jnp.linalg.norm(each, axis=1)
        disturbance = gradient(start, start + _LOGIT_ROUNDING * ulp * signs * size)
        noise = jnp.linalg.norm(disturbance, axis=1) + ulp * terms
        image = product(start, start, change)
        if visible_part is None:
            # The same with signs that lie in no null space.
            apart = jnp.linalg.norm(product(start, start, signs * jnp.abs(change)), axis=1)
            seen = jnp.sum(image * change, axis=1) - _BLIND * ulp * length * (
                apart + terms * length
            )
        else:
            of_change = jnp.linalg.norm(jax.vmap(visible_part)(change), axis=1)
            seen = jnp.maximum(of_change - _BLIND * ulp * scale, 0)
        return {
            "coefficient": weighed(weights, jnp.sum(image * change, axis=1)),
            "seen": weighed(weights, seen),
            "of_logits": weighed(weights, noise * length),
            "of_params": weighed(weights, jnp.sum(gradient(start, moved) * change, axis=1)),
            "by_eps": jax.lax.map(at, eps),
        }

    mean = mean_over_rows(total, inputs, weights, chunk)
    inner_product, gap, of_derivative, residual, linear = mean["by_eps"]
    linear = jnp.where(linear > 0, linear, 1)
    # |r|^2 = gap - 2 eps g + |eps J d|^2, of which only the last is a quadrature. Where the three
    # cancel, the quadrature of |r|^2 itself is the better one.
    exact = 1 + (gap - 2 * eps * inner_product) / linear
    rho = jnp.sqrt(jnp.where(exact > _CANCELS, exact, jnp.minimum(residual / linear, _CANCELS)))
    # Rounding of a logit differs from row to row; that of a parameter is the same in all rows.
    rounding = mean["of_logits"] + _PARAM_ROUNDING * jnp.abs(mean["of_params"])
    blind = mean["seen"] <= 0
    if visible_part is None:
        blind &= jnp.all(jnp.abs(inner_product) <= _NOTHING * rounding)
    proved = (2 * eps * inner_product > gap) & (gap >= 0) & (inner_product > 0) & ~blind
    return Curve(
        eps=eps,
        inner_product=inner_product,
        coefficient=mean["coefficient"],
        remainder=inner_product - eps * mean["coefficient"],
        rho=rho,
        certified=proved & isinstance(loss, MatchingLoss),
        rounding=rounding,
        rounding_of_derivative=of_derivative,
        blind=blind,
    )


@partial(jax.jit, static_argnames=("apply", "loss", "points", "chunk"))
def _horizon(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    smallest: Float[Array, ""],
    largest: Float[Array, ""],
    points: int,
    chunk: int | None,
) -> tuple[Horizon, Curve, Float[Array, ""]]:
    """The horizon; a curve that knows rounding; and the eps of an overflow that hides the end."""

    def look(eps: Float[Array, " eps"]) -> Curve:
        return _curve(apply, loss, params, direction, eps, inputs, weights, chunk)

    def holds(result: Curve) -> Bool[Array, "2 eps"]:
        positive = (result.inner_product > 0) & jnp.isfinite(result.inner_product)
        return jnp.stack([positive, result.certified & positive])

    # Rounding is that of the start: any two eps tell it.
    rounding = look(jnp.stack([largest, largest]))
    least = jnp.minimum(jnp.maximum(1e-6 * largest, 1.01 * smallest_eps(rounding)), largest)
    smallest = jnp.where(smallest > 0, smallest, least)
    grid = jnp.geomspace(smallest, largest, points, dtype=smallest.dtype)
    on_grid = look(grid)
    good = holds(on_grid)
    first = jnp.argmin(good, axis=1)
    low, high = grid[jnp.maximum(first - 1, 0)], grid[first]

    def halve(_, bracket):
        low, high = bracket
        middle = jnp.sqrt(low * high)
        good = jnp.diagonal(holds(look(middle)))
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))
    reach = jnp.where(good.all(axis=1), jnp.inf, jnp.where(first == 0, 0.0, low))
    hidden = ~good[0].all() & ~jnp.isfinite(on_grid.inner_product[first[0]])
    drowned = smallest < smallest_eps(rounding)
    reach = jnp.where(on_grid.blind | hidden | drowned, jnp.nan, reach)
    found = Horizon(reach[0], reach[1], smallest, largest, on_grid.blind)
    return found, rounding, jnp.where(hidden, grid[first[0]], jnp.inf)
