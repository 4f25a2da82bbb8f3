"""What alignment does to the trait: Theorem 1, and how far the student may step."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from theory.alignment import student_direction, teacher_direction
from theory.certificate import curve
from theory.checks import (
    check_finite_number,
    check_params,
    check_positive,
    check_same_tree,
    check_sizes,
    row_weights,
)
from theory.conditions import require_conditions_near
from theory.losses import Loss, off_null_space
from theory.passes import (
    Apply,
    Inputs,
    Params,
    TraitLoss,
    Weights,
    float_type,
    full_precision,
    inner,
    nudge,
    rows,
    step,
)

# Pairs of logits at which Theorem 1 checks its loss.
_POINTS = 32
# Of a blind direction: how many times what rounding is estimated to do to g, g may be.
_NOTHING = 10.0
# What rounding does to a trait loss: units in its last place, and times what it does when each
# parameter moves by a unit in its own last place.
_OF_VALUE, _OF_PARAMS = 8.0, 4.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SafeStep:
    """How far the student may step before curvature can undo the fall of the trait loss.

    Attributes:
        alpha: every step in (0, alpha) lowers L_T; 0 where it is not downhill at first, or
            nothing is guaranteed.
        slope: dL_T/dalpha at 0; where the teacher stepped along -grad L_T, that is -g, with
            g = <student_direction, teacher_direction>.
        curvature: beta |student_direction|^2, the largest second derivative of L_T along the
            step, up to each of the alphas looked at, and what it may reach between them.
    """

    alpha: Float[Array, "*batch"]
    slope: Float[Array, "*batch"]
    curvature: Float[Array, "*batch alphas"]


@dataclass(frozen=True)
class Theorem1:
    """Which branch of Theorem 1 a case is in, and whether it holds there.

    Attributes:
        blind: the first branch: the loss sees nothing of the trait, and g = 0 (`Curve.blind`).
        holds: for `blind`, whether g = 0 to rounding at every eps; else, whether L_T falls at the
            smallest eps at which rounding does not hide what it does. None where rounding hides it
            at every eps: undecided, for which larger eps or alpha, or float64, are a remedy.
        eps: the teacher's step sizes, ascending.
        inner_product: g at each of `eps`.
        change: L_T(theta_0 + alpha student_direction) - L_T(theta_0) at each of `eps`.
        rounding: how much of `change` may be rounding, roughly.
        eps_falls: the largest of `eps` at which L_T falls and up to which it rises at none; 0
            where it falls at none of those.
    """

    blind: bool
    holds: bool | None
    eps: Float[Array, " eps"]
    inner_product: Float[Array, " eps"]
    change: Float[Array, " eps"]
    rounding: float
    eps_falls: float


@full_precision
def trait_change(
    apply: Apply,
    loss: Loss,
    trait_loss: TraitLoss,
    params: Params,
    eps: Float[Array, " eps"] | Float[np.ndarray, " eps"],
    alpha: Float[Array, " alpha"] | Float[np.ndarray, " alpha"],
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, "eps alpha"]:
    """L_T(theta_0 + alpha student_direction(eps)) - L_T(theta_0) for every pair (eps, alpha).

    One student gradient for each eps, one evaluation of L_T for each pair.

    Args:
        trait_loss: L_T; the teacher steps along its negative gradient.
        params: theta_0, the start of teacher and student.
        eps: the teacher's step sizes, above 0.
        alpha: the student's step sizes, above 0.
        apply, loss, inputs, weights, chunk: what they are for `theory.certificate.curve`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    direction = teacher_direction(trait_loss, params)
    check_sizes(eps, "eps")
    check_sizes(alpha, "alpha")
    row_weights(apply, params, inputs, chunk, weights, loss=loss)
    eps, alpha = (jnp.asarray(sizes, float_type(params)) for sizes in (eps, alpha))
    return _trait_change(
        apply, loss, trait_loss, params, direction, eps, alpha, inputs, weights, chunk
    )


@full_precision
@partial(jax.jit, static_argnames="trait_loss")
def curvature_along(
    trait_loss: TraitLoss, params: Params, direction: Params, alphas: Float[Array, " alphas"]
) -> Float[Array, " alphas"]:
    """d2/dalpha2 L_T(params + alpha direction) at each alpha, forward over forward mode."""

    def along(alpha):
        return trait_loss(step(params, direction, alpha))

    def slope(alpha):
        return jax.jvp(along, (alpha,), (jnp.ones_like(alpha),))[1]

    return jax.lax.map(lambda alpha: jax.jvp(slope, (alpha,), (jnp.ones_like(alpha),))[1], alphas)


@full_precision
def safe_step(
    trait_loss: TraitLoss,
    params: Params,
    student: Params,
    alphas: Float[Array, " alphas"] | Float[np.ndarray, " alphas"],
) -> SafeStep:
    """The step up to which L_T is guaranteed to fall:

        L_T(theta_0 + alpha d) - L_T(theta_0) <= -alpha g + 1/2 beta alpha^2 |d|^2,  d = student,

    with -g the slope of L_T along the step, so any alpha below 2 g / (beta |d|^2), with beta the
    largest curvature of L_T along it. The curvature is looked up at 0 and the `alphas`, and raised
    by its largest change from one to the next: they must be close enough that it has no spike
    between two of them. A kink of L_T (ReLU) is such a spike, and what lies beyond one is not
    guaranteed. L_T itself is evaluated at the `alphas` too, and no step is called safe from the
    first on at which it does not lie below its start. (An extension of the paper.)

    Args:
        trait_loss: L_T, twice differentiable along the step.
        params: theta_0.
        student: the student's direction, a pytree like `params`.
        alphas: steps to look at, above 0, ascending; the last is the longest that can come out.

    Raises:
        ValueError: names the argument that is not usable.
    """
    check_params(params)
    check_same_tree(params, student, "student")
    check_sizes(alphas, "alphas", ascending=True)
    alphas = jnp.asarray(alphas, float_type(params))
    zero = jnp.zeros(1, alphas.dtype)
    second = curvature_along(trait_loss, params, student, jnp.concatenate([zero, alphas]))
    check_finite_number(second, "trait_loss", "its curvature along the step is NaN or infinite")
    start, gradient = jax.value_and_grad(trait_loss)(params)
    values = jax.lax.map(lambda alpha: trait_loss(step(params, student, alpha)), alphas)
    fall = -inner(gradient, student)
    # Between two of the alphas the curvature may exceed both; allow for as much again as it was
    # seen to vary from one to the next.
    between = jnp.abs(jnp.diff(second))
    worst = jax.lax.cummax(second)[1:] + jax.lax.cummax(between)
    reach = jnp.where(worst > 0, 2 * fall / jnp.where(worst > 0, worst, 1), jnp.inf)
    # Nothing is guaranteed by, or beyond, a number that is not one.
    known = jnp.isfinite(worst) & jnp.isfinite(fall) & (fall > 0)
    reach = jnp.max(jnp.where(known, jnp.minimum(reach, alphas), 0.0))
    rises = ~(values <= start + trait_rounding(trait_loss, params, start))
    first = jnp.argmax(rises)
    seen = jnp.where(rises.any(), jnp.concatenate([zero, alphas])[first], jnp.inf)
    return SafeStep(alpha=jnp.minimum(reach, seen), slope=-fall, curvature=worst)


@full_precision
def trait_rounding(
    trait_loss: TraitLoss, params: Params, value: Float[Array, ""]
) -> Float[Array, ""]:
    """What rounding may do to a difference of two values of L_T near params, roughly."""
    ulp = jnp.finfo(value.dtype).eps
    return _OF_VALUE * ulp * jnp.abs(value) + _OF_PARAMS * jnp.abs(
        trait_loss(nudge(params)) - value
    )


@full_precision
def theorem_1(
    apply: Apply,
    loss: Loss,
    trait_loss: TraitLoss,
    params: Params,
    eps: Float[Array, " eps"] | Float[np.ndarray, " eps"],
    alpha: float,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Theorem1:
    """Theorem 1: either g(eps) = 0 for all eps > 0, or L_T(theta_S) < L_T(theta_0) for small eps.

    The teacher steps by -eps grad L_T(theta_0); the student by alpha student_direction, at any
    fixed alpha. "Small enough" is read off the eps handed in: the theorem says that the smallest
    of them shows the fall, if it is small enough; `eps_falls` says from where on.

    Args:
        loss: the distillation loss L(z, y). A matching loss that declares its null space (all that
            `theory.losses` offers do) is taken at its word; another is checked with
            `theory.conditions` at logits of the model's, and about them.
        trait_loss: L_T, differentiable.
        params: theta_0, the start of teacher and student.
        eps: the teacher's step sizes, above 0, ascending.
        alpha: the student's step size, above 0.
        apply, inputs, weights, chunk: what they are for `theory.certificate.curve`.

    Raises:
        ConditionError: the loss does not meet a condition; named.
        ValueError: names the argument that is not usable.
    """
    check_positive(alpha, "alpha")
    check_sizes(eps, "eps", ascending=True)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((params, inputs, eps, alpha))):
        raise ValueError("theorem_1: gives verdicts on known numbers; call it outside of jax.jit")
    direction = teacher_direction(trait_loss, params)
    if off_null_space(loss) is None:
        row_weights(apply, params, inputs, chunk, weights, loss=loss)
        sample = jax.tree.map(lambda leaf: leaf[:_POINTS], inputs)
        start = rows(apply(params, sample))[:_POINTS]
        teacher = rows(apply(step(params, direction, float(eps[-1])), sample))[:_POINTS]
        # The check needs pairs that differ, also where the teacher's step moves no logit.
        logits = jnp.concatenate([start, start])
        require_conditions_near(loss, logits, jnp.concatenate([teacher, start[::-1]]))
    result = curve(apply, loss, params, direction, eps, inputs, weights=weights, chunk=chunk)
    alphas = jnp.full(1, alpha, result.eps.dtype)
    change = np.asarray(
        _trait_change(
            apply, loss, trait_loss, params, direction, result.eps, alphas, inputs, weights, chunk
        )[:, 0]
    )
    rounding = float(trait_rounding(trait_loss, params, trait_loss(params)))
    blind = bool(result.blind)
    falls, rises = change < -rounding, ~(change <= rounding)
    decided = np.flatnonzero(falls | rises)
    if blind:
        nothing = _NOTHING * result.rounding + result.rounding_of_derivative
        is_rounding = np.abs(result.inner_product) <= np.asarray(nothing)
        holds = bool(is_rounding.all())
    else:
        holds = bool(falls[decided[0]]) if len(decided) else None
    before_a_rise = falls & (np.cumsum(rises) == 0)
    return Theorem1(
        blind=blind,
        holds=holds,
        eps=result.eps,
        inner_product=result.inner_product,
        change=jnp.asarray(change),
        rounding=rounding,
        eps_falls=float(np.max(np.asarray(result.eps), where=before_a_rise, initial=0.0)),
    )


@partial(jax.jit, static_argnames=("apply", "loss", "trait_loss", "chunk"))
def _trait_change(
    apply: Apply,
    loss: Loss,
    trait_loss: TraitLoss,
    params: Params,
    direction: Params,
    eps: Float[Array, " eps"],
    alpha: Float[Array, " alpha"],
    inputs: Inputs,
    weights: Weights | None,
    chunk: int | None,
) -> Float[Array, "eps alpha"]:
    start = trait_loss(params)

    def at(eps):
        teacher = step(params, direction, eps)
        student = student_direction(
            apply, loss, params, teacher, inputs, weights=weights, chunk=chunk
        )
        return jax.lax.map(lambda alpha: trait_loss(step(params, student, alpha)) - start, alpha)

    return jax.lax.map(at, eps)
