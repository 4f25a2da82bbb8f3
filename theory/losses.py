"""Distillation losses from a convex potential, and the class loss that trains the teacher.

For a convex potential A: R^n -> R the *matching loss* is its Bregman divergence

    L_A(z, y) = A(z) - A(y) - <grad A(y), z - y>,

with z the student's logits and y the teacher's. It is zero, and stationary in z, at z = y;
dL/dz = grad A(z) - grad A(y); and -d2L/dydz = hess A(y) is positive semi-definite: what the
gradient-alignment theorem asks of a distillation loss (Cloud et al. 2025, arXiv:2507.14805,
appendix C; the family itself is an extension). `theory.conditions` checks it for any loss.

Every function here works on ONE example; `jax.vmap` gives batches.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from theory.passes import full_precision

Potential = Callable[[Float[Array, " outputs"]], Float[Array, ""]]
Loss = Callable[[Float[Array, " outputs"], Float[Array, " outputs"]], Float[Array, ""]]


def softmax_potential(
    subset: Bool[Array, " outputs"], temperature: float | Float[Array, ""] = 1.0
) -> Potential:
    """A(z) = tau^2 logsumexp(z_S / tau), the logsumexp over the logits in `subset`.

    Its matching loss is tau^2 KL(teacher || student) of the softmax of z / tau over those logits
    alone, in nats; logits outside `subset` have no influence and get no gradient. The null space
    of hess A is the all-ones vector on the subset, and every coordinate off it.

    Args:
        subset: which outputs take part, at least one.
        temperature: tau > 0.
    """
    return lambda logits: temperature**2 * jax.nn.logsumexp(logits / temperature, where=subset)


def squared_potential(
    weights: Bool[Array, " outputs"] | Float[Array, " outputs"],
) -> Potential:
    """A(z) = 1/2 sum of w_i z_i^2; its matching loss is 1/2 sum of w_i (z_i - y_i)^2.

    The null space of hess A is the coordinates with w_i = 0.

    Args:
        weights: w_i >= 0, or which outputs take part.
    """
    return lambda logits: 0.5 * jnp.sum(weights * jnp.square(logits))


def bernoulli_potential(logits: Float[Array, " outputs"]) -> Float[Array, ""]:
    """A(z) = sum of softplus(z_i): independent yes/no outputs with log odds z_i.

    Its matching loss is the sum of KL(teacher || student) over the outputs, in nats; hess A has no
    null space.
    """
    return jnp.sum(jax.nn.softplus(logits))


def poisson_potential(logits: Float[Array, " outputs"]) -> Float[Array, ""]:
    """A(z) = sum of exp(z_i): independent counts with log rates z_i.

    Its matching loss is the sum of KL(teacher || student) over the outputs, in nats; hess A has no
    null space.
    """
    return jnp.sum(jnp.exp(logits))


@full_precision
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


def matching(potential: Potential) -> Loss:
    """`matching_loss` of one potential, as loss(logits, teacher_logits).

    Make it once and use it often: programs are compiled for the object.

    >>> loss = matching(bernoulli_potential)
    >>> float(loss(jnp.zeros(3), jnp.zeros(3)))
    0.0
    """
    return partial(matching_loss, potential)


def kl_divergence(
    logits: Float[Array, " outputs"],
    teacher_logits: Float[Array, " outputs"],
    subset: Bool[Array, " outputs"],
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """tau^2 KL(teacher || student) of the softmax of z / tau over `subset`, in nats."""
    return matching_loss(softmax_potential(subset, temperature), logits, teacher_logits)


def squared_error(
    logits: Float[Array, " outputs"],
    teacher_logits: Float[Array, " outputs"],
    subset: Bool[Array, " outputs"],
) -> Float[Array, ""]:
    """1/2 sum over `subset` of (student - teacher)^2."""
    return matching_loss(squared_potential(subset), logits, teacher_logits)


@full_precision
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
