"""Distillation losses from a convex potential, and the class loss that trains the teacher.

For a convex potential A: R^n -> R the *matching loss* is its Bregman divergence

    L_A(z, y) = A(z) - A(y) - <grad A(y), z - y>,

with z the student's logits and y the teacher's. It is zero, and stationary in z, at z = y;
dL/dz = grad A(z) - grad A(y); and -d2L/dydz = hess A(y) is positive semi-definite: what the
gradient-alignment theorem asks of a distillation loss (Cloud et al. 2025, arXiv:2507.14805,
appendix C; the family itself is an extension).

Every function here works on ONE example; `jax.vmap` gives batches.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Potential = Callable[[Float[Array, " outputs"]], Float[Array, ""]]


def softmax_potential(subset: Bool[Array, " outputs"]) -> Potential:
    """A(z) = logsumexp over the logits in `subset`.

    Its matching loss is KL(teacher || student) of the softmax over those logits alone, in nats;
    logits outside `subset` have no influence and get no gradient.

    Args:
        subset: which outputs take part, at least one.
    """
    return lambda logits: jax.nn.logsumexp(logits, where=subset)


def squared_potential(subset: Bool[Array, " outputs"]) -> Potential:
    """A(z) = 1/2 sum of z_i^2 over `subset`; its matching loss is 1/2 sum (z_i - y_i)^2 there.

    Args:
        subset: which outputs take part.
    """
    return lambda logits: 0.5 * jnp.sum(jnp.square(logits), where=subset)


def matching_loss(
    potential: Potential,
    logits: Float[Array, " outputs"],
    teacher_logits: Float[Array, " outputs"],
) -> Float[Array, ""]:
    """L_A(logits, teacher_logits), the Bregman divergence of `potential`.

    Args:
        potential: a convex, differentiable A.
        logits: the student's z.
        teacher_logits: the teacher's y, held fixed.

    Returns:
        A non-negative scalar, 0 where the two agree.

    >>> import jax.numpy as jnp
    >>> everything = jnp.array([True, True])
    >>> y = jnp.array([0.0, 2.0])
    >>> float(matching_loss(squared_potential(everything), jnp.array([1.0, 0.0]), y))
    2.5
    """
    value, gradient = jax.value_and_grad(potential)(teacher_logits)
    return potential(logits) - value - jnp.vdot(gradient, logits - teacher_logits)


def kl_divergence(
    logits: Float[Array, " outputs"],
    teacher_logits: Float[Array, " outputs"],
    subset: Bool[Array, " outputs"],
) -> Float[Array, ""]:
    """KL(teacher || student) of the softmax over the logits in `subset`, in nats."""
    return matching_loss(softmax_potential(subset), logits, teacher_logits)


def squared_error(
    logits: Float[Array, " outputs"],
    teacher_logits: Float[Array, " outputs"],
    subset: Bool[Array, " outputs"],
) -> Float[Array, ""]:
    """1/2 sum over `subset` of (student - teacher)^2."""
    return matching_loss(squared_potential(subset), logits, teacher_logits)


def class_cross_entropy(
    logits: Float[Array, " outputs"],
    label: Int[Array, ""],
    subset: Bool[Array, " outputs"],
) -> Float[Array, ""]:
    """-log softmax(logits over `subset`)[label], in nats: the teacher's loss on true classes.

    Args:
        logits: all outputs, class and auxiliary.
        label: the index, among all outputs, of the true class; it must lie in `subset`.
        subset: the class logits.
    """
    # A one-hot product, not an index: the gradient of an index is a scatter, which XLA runs
    # serially on a CPU.
    truth = jax.nn.one_hot(label, logits.shape[0], dtype=logits.dtype)
    return softmax_potential(subset)(logits) - jnp.vdot(truth, logits)
