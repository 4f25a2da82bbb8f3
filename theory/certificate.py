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
from theory.losses import Loss
from theory.passes import (
    Apply,
    Inputs,
    Params,
    Weights,
    float_type,
    full_precision,
    mean_over_rows,
    rows,
    step,
    unit_quadrature,
)

# Nodes of the Gauss-Legendre rule for the mean of M between the start's logits and the teacher's.
_NODES = 8
# Below this, rho^2 is taken from the quadrature of |r|^2, and is at most this.
_CANCELS = 0.01
# A relative rounding error above this is refused: the answer would be noise.
_DROWNED = 0.01
# What rounding may leave of an a that is 0, in units in the last place of the terms it sums.
_BLIND = 100.0
# Bisections of a bracket: 2^-30 of its width is left.
_HALVINGS = 30
# What rounding does to a logit, in units in the last place of the row's typical size.
_LOGIT_ROUNDING = 4.0


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
        certified: whether rho(eps) < 1, decided without a quadrature whose error could certify
            anything: it is the same as 2 eps g > E<grad A(f_T) - grad A(f_0), f_T - f_0>. For a
            blind direction both sides are 0, and it is False.
        rounding: what rounding may do to g, roughly, in absolute terms.
        blind: whether a = 0 to rounding: the loss sees nothing of the direction.
    """

    eps: Float[Array, "*batch eps"]
    inner_product: Float[Array, "*batch eps"]
    coefficient: Float[Array, "*batch"]
    remainder: Float[Array, "*batch eps"]
    rho: Float[Array, "*batch eps"]
    certified: Bool[Array, "*batch eps"]
    rounding: Float[Array, "*batch"]
    blind: Bool[Array, "*batch"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Horizon:
    """How far alignment reaches.

    Attributes:
        eps_star: sup of the eps up to which g > 0 throughout; infinity where g stays positive up
            to `largest`, and 0 where it is not positive at the smallest eps looked at.
        eps_certified: the same for rho < 1.
        largest: the largest eps looked at.
    """

    eps_star: Float[Array, "*batch"]
    eps_certified: Float[Array, "*batch"]
    largest: Float[Array, "*batch"]


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
        loss: the distillation loss L(z, y) of one example, meeting `theory.conditions`.
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
    check_finite_number(result.inner_product, "eps", "the model's logits overflow at the largest")
    if not isinstance(result.blind, Tracer) and not result.blind:
        least = smallest_eps(result)
        if np.any(np.asarray(eps) < least):
            raise ValueError(
                f"eps: {float(jnp.min(eps)):.3g} is drowned by rounding in {eps.dtype}; it must "
                f"be at least {float(least):.1g} here"
                + (", or use float64" if eps.dtype == jnp.float32 else "")
            )
    return result


def smallest_eps(result: Curve) -> Float[Array, "*batch"]:
    """The eps at which rounding may reach 1 % of g(eps)."""
    return result.rounding / (_DROWNED * result.coefficient)


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
        smallest: the smallest eps looked at; by default a millionth of the largest.
        points: the number of eps looked at, at least 2.
        apply, loss, params, direction, inputs, weights, chunk: what they are for `curve`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    check_positive(largest, "largest")
    smallest = largest * 1e-6 if smallest is None else smallest
    check_positive(smallest, "smallest")
    if points < 2:
        raise ValueError(f"points: must be at least 2, got {points}")
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, direction=direction)
    ends = [jnp.asarray(end, float_type(params)) for end in (smallest, largest)]
    return _horizon(apply, loss, params, direction, inputs, weights, *ends, points, chunk)


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
    nodes, weights = unit_quadrature(_NODES)

    def total(part, weights):
        start, change = linearise(apply, params, direction, part)

        def at(eps):
            shift = rows(apply(step(params, direction, eps), part)) - start
            push = -gradient(start, start + shift)
            residual = shift - eps * change

            def squares(node):
                pair = jnp.stack([residual, eps * change])
                images = jax.vmap(lambda v: product(start, start + node * shift, v))(pair)
                return jnp.sum(images * pair, axis=2) @ weights

            # One node after the other: memory for one.
            by_node = jax.lax.map(squares, jnp.asarray(nodes, start.dtype))
            return (
                weights @ jnp.sum(push * change, axis=1),
                weights @ jnp.sum(push * shift, axis=1),
                *(jnp.asarray(weights, start.dtype) @ by_node),
            )

        ulp = jnp.finfo(start.dtype).eps
        signs = jnp.where(jnp.arange(start.shape[1]) % 2, -1, 1).astype(start.dtype)
        size = jnp.abs(start) + jnp.sqrt(jnp.mean(start**2, axis=1, keepdims=True))
        length = jnp.linalg.norm(change, axis=1)
        # The loss's gradient is a difference of two terms of about this size.
        terms = jnp.linalg.norm(gradient(start, start[:, ::-1]), axis=1)
        disturbance = gradient(start, start + _LOGIT_ROUNDING * ulp * signs * size)
        noise = jnp.linalg.norm(disturbance, axis=1) + ulp * terms
        # J d, and the same with signs that lie in no null space.
        pair = jnp.stack([change, signs * jnp.abs(change)])
        image, visible = jax.vmap(lambda v: product(start, start, v))(pair)
        visible = jnp.linalg.norm(visible, axis=1) + terms * length
        return {
            "coefficient": weights @ jnp.sum(image * change, axis=1),
            "visible": weights @ (visible * length),
            "rounding": weights @ (noise * length),
            "by_eps": jax.lax.map(at, eps),
        }

    mean = mean_over_rows(total, inputs, weights, chunk)
    inner_product, gap, residual, linear = mean["by_eps"]
    linear = jnp.where(linear > 0, linear, 1)
    # |r|^2 = gap - 2 eps g + |eps J d|^2, of which only the last is a quadrature. Where the three
    # cancel, the quadrature of |r|^2 itself is the better one.
    exact = 1 + (gap - 2 * eps * inner_product) / linear
    rho = jnp.sqrt(jnp.where(exact > _CANCELS, exact, jnp.minimum(residual / linear, _CANCELS)))
    return Curve(
        eps=eps,
        inner_product=inner_product,
        coefficient=mean["coefficient"],
        remainder=inner_product - eps * mean["coefficient"],
        rho=rho,
        certified=2 * eps * inner_product > gap,
        rounding=mean["rounding"],
        blind=mean["coefficient"] <= _BLIND * jnp.finfo(eps.dtype).eps * mean["visible"],
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
) -> Horizon:
    def holds(eps):
        result = _curve(apply, loss, params, direction, eps, inputs, weights, chunk)
        return jnp.stack([result.inner_product > 0, result.certified & (result.inner_product > 0)])

    grid = jnp.geomspace(smallest, largest, points, dtype=smallest.dtype)
    good = holds(grid)
    first = jnp.argmin(good, axis=1)
    low, high = grid[jnp.maximum(first - 1, 0)], grid[first]

    def halve(_, bracket):
        low, high = bracket
        middle = jnp.sqrt(low * high)
        good = jnp.diagonal(holds(middle))
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    low, _ = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))
    reach = jnp.where(good.all(axis=1), jnp.inf, jnp.where(first == 0, 0.0, low))
    return Horizon(eps_star=reach[0], eps_certified=reach[1], largest=largest)
