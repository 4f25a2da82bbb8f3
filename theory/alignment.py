"""The gradient-alignment theorem as functions: directions, inner product, leading order.

The setting (Cloud et al. 2025, arXiv:2507.14805, section 6.1 and appendix C): a teacher moves from
theta_0 by eps * teacher_direction and labels inputs x with its logits y = f(theta_T, x); a student
that starts at theta_0 too takes a step along

    student_direction = -grad E_x[ L(f(theta, x), y) ]  at theta_0, with y held fixed.

Lemma 1: for a loss L that meets `theory.conditions` and small eps > 0,

    g(eps) = <student_direction, teacher_direction> >= 0.

In the functions below `apply(params, inputs) -> logits` takes a batch; logits may have position
axes between the batch and the outputs, and E_x is the mean over rows: examples and positions, each
with its weight where there are `weights` (0 for padding and for a prompt's tokens). A Loss takes
one row's logits and the teacher's. Each function compiles once for an (apply, loss) pair: hand in
the same objects again. All work in the precision of `params`, float32 or float64. The model must
treat each example by itself: what couples a batch (batch statistics in training mode) would make
the answer depend on `chunk`.

Memory: a few vectors of the size of params, and the activations of one `chunk` of inputs. No
Jacobian is formed.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from theory.checks import check_finite_number, check_params, check_scalar, row_weights
from theory.conditions import mixed_hessian_product
from theory.losses import Loss
from theory.passes import (
    Apply,
    Inputs,
    Params,
    TraitLoss,
    Weights,
    full_precision,
    inner,
    mean_over_rows,
    norm,
    rows,
    scramble,
    weighed,
)

# How much of a movement of logits is rounding, in units in the last place of its terms.
_NO_MOVEMENT = 100.0


@full_precision
def teacher_direction(trait_loss: TraitLoss, params: Params) -> Params:
    """-grad L_T(theta_0), the teacher's direction in Theorem 1 (Lemma 1 allows any).

    Args:
        trait_loss: L_T, from params to a scalar, differentiable.
        params: theta_0.

    Raises:
        ValueError: params are not floating point, or they or the gradient are not finite.
    """
    check_params(params)
    check_scalar(trait_loss, params, "trait_loss")
    direction = jax.tree.map(jnp.negative, jax.grad(trait_loss)(params))
    for leaf in jax.tree.leaves(direction):
        check_finite_number(leaf, "trait_loss", "its gradient at params is NaN or infinite")
    return direction


@full_precision
def student_direction(
    apply: Apply,
    loss: Loss,
    params: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Params:
    """-grad_theta E_x[L(f(theta, x), f(theta_T, x))] at the student's start, the labels held fixed.

    One forward pass of the teacher and one reverse pass of the student, chunk by chunk.

    Args:
        apply: the model, apply(params, inputs) -> logits.
        loss: the distillation loss L(z, y) of one example.
        params: the student's start theta_S0 (theta_0 in Lemma 1, another one in its control).
        teacher: theta_T, the teacher after its step.
        inputs: the data D_S, a pytree with a leading examples axis.
        weights: how much each row counts, 0 or more: one number an example, or one a position of
            each; None for 1.
        chunk: the number of examples a pass; None for all.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, teacher=teacher)
    return _known(_student_direction(apply, loss, params, teacher, inputs, weights, chunk))


@full_precision
def inner_product_reverse(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """<student_direction, direction> by its definition: the student's gradient, then the product.

    Args:
        direction: the teacher's direction, a pytree like `params`.
        apply, loss, params, teacher, inputs, weights, chunk: what they are for
            `student_direction`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(
        apply, params, inputs, chunk, weights, loss=loss, direction=direction, teacher=teacher
    )
    student = _student_direction(apply, loss, params, teacher, inputs, weights, chunk)
    return _known(inner(student, direction))


@full_precision
def inner_product(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    teacher: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """<student_direction, direction> by the exact identity, without a student's gradient.

        g = -E_x < dL/dz (f(theta_S0, x), f(theta_T, x)),  J direction >,

    which for a matching loss is E_x <grad A(f_T) - grad A(f_0), J direction>: no remainder, at
    every eps. One forward-mode derivative at the student's start and one forward pass of the
    teacher. (An extension of the paper; `inner_product_reverse` is the independent check.)

    Args and errors: as for `inner_product_reverse`.
    """
    weights = row_weights(
        apply, params, inputs, chunk, weights, loss=loss, direction=direction, teacher=teacher
    )
    return _known(_inner_product(apply, loss, params, direction, teacher, inputs, weights, chunk))


@full_precision
def coefficient(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """a = E_x[(J d)^T M (J d)] >= 0, the leading order: g(eps) = eps a + O(eps^2).

    M = -d2L/dydz at z = y = f(theta_0, x). Where the null space of M is the same at every point
    (`theory.conditions`), it is 0 only if g(eps) = 0 for every eps. One forward-mode derivative.

    Args and errors: as for `inner_product_reverse`.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, loss=loss, direction=direction)
    return _known(_coefficient(apply, loss, params, direction, inputs, weights, chunk))


@full_precision
def unit_of_eps(
    apply: Apply,
    params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """The eps that moves a logit by 1, root mean square, to first order: a natural unit of eps.

    All logits count alike, also those that a loss does not see. Where the direction moves no
    logit, the eps that moves theta by 1. (An extension.)

    Args and errors: as for `inner_product_reverse`.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, direction=direction)
    square, uncancelled = _known(_mean_squares(apply, params, direction, inputs, weights, chunk))
    # A movement that is no more than what rounding leaves of terms that cancel is none.
    moves = jnp.sqrt(square) > _NO_MOVEMENT * jnp.finfo(square.dtype).eps * jnp.sqrt(uncancelled)
    return 1 / jnp.where(moves, jnp.sqrt(square), norm(direction))


def _known(result: Params) -> Params:
    """The result; refused where it is no number."""
    for leaf in jax.tree.leaves(result):
        check_finite_number(
            leaf,
            "apply",
            "its logits, or the loss of them, are NaN or infinite at params or teacher",
        )
    return result


@partial(jax.jit, static_argnames=("apply", "loss", "chunk"))
def _student_direction(
    apply: Apply,
    loss: Loss,
    params: Params,
    teacher: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> Params:
    def total(params, part, weights):
        labels = jax.lax.stop_gradient(rows(apply(teacher, part)))
        logits = rows(apply(params, part))
        # A row that does not count may be no number, and its gradient must not be one either.
        logits, labels = (jnp.where(weights[:, None] > 0, side, 0) for side in (logits, labels))
        return weighed(weights, jax.vmap(loss)(logits, labels))

    def descend(part, weights):
        return jax.tree.map(jnp.negative, jax.grad(total)(params, part, weights))

    return mean_over_rows(descend, inputs, weights, chunk)


@partial(jax.jit, static_argnames=("apply", "loss", "chunk"))
def _inner_product(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    teacher: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> Float[Array, ""]:
    def total(part, weights):
        logits, change = linearise(apply, params, direction, part)
        gradient = jax.vmap(jax.grad(loss))(logits, rows(apply(teacher, part)))
        return -weighed(weights, jnp.sum(gradient * change, axis=1))

    return mean_over_rows(total, inputs, weights, chunk)


@partial(jax.jit, static_argnames=("apply", "loss", "chunk"))
def _coefficient(
    apply: Apply,
    loss: Loss,
    params: Params,
    direction: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> Float[Array, ""]:
    def total(part, weights):
        logits, change = linearise(apply, params, direction, part)
        image = jax.vmap(partial(mixed_hessian_product, loss))(logits, logits, change)
        return weighed(weights, jnp.sum(image * change, axis=1))

    return mean_over_rows(total, inputs, weights, chunk)


@partial(jax.jit, static_argnames=("apply", "chunk"))
def _mean_squares(
    apply: Apply,
    params: Params,
    direction: Params,
    inputs: Inputs,
    weights: Float[Array, "examples *positions"],
    chunk: int | None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Of J d, and of J times the same direction with signs that do not cancel."""

    def total(part, weights):
        plain, uncancelled = (
            weighed(weights, jnp.mean(linearise(apply, params, way, part)[1] ** 2, axis=1))
            for way in (direction, scramble(direction))
        )
        return plain, uncancelled

    return mean_over_rows(total, inputs, weights, chunk)


@full_precision
def linearise(
    apply: Apply, params: Params, direction: Params, inputs: Inputs
) -> tuple[Float[Array, "rows outputs"], Float[Array, "rows outputs"]]:
    """f_0 and J d, one row an example or position: one forward-mode derivative."""
    logits, change = jax.jvp(lambda params: apply(params, inputs), (params,), (direction,))
    return rows(logits), rows(change)
