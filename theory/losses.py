"""Distillation losses from a convex potential, and the class loss that trains the teacher.

For a convex potential A: R^n -> R the *matching loss* is its Bregman divergence

    L_A(z, y) = A(z) - A(y) - <grad A(y), z - y>,

with z the student's logits and y the teacher's. It is zero, and stationary in z, at z = y;
dL/dz = grad A(z) - grad A(y); and -d2L/dydz = hess A(y) is positive semi-definite. That is most of
what the gradient-alignment theorem asks of a distillation loss (Cloud et al. 2025,
arXiv:2507.14805, appendix C; the family itself is an extension). The rest is that THE NULL SPACE OF
hess A IS THE SAME AT EVERY POINT, which convexity does not give: of A(z) = sum of z_i^4 / 4 it is
everything at 0 and nothing elsewhere, and there the theorem fails. A `Potential` says its null
space; the five below have one that is constant. `theory.conditions` checks it for any loss.

Every function here works on ONE example; `jax.vmap` gives batches.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from theory.passes import Loss, full_precision

__all__ = [
    "Loss",
    "MatchingLoss",
    "Potential",
    "bernoulli_potential",
    "class_cross_entropy",
    "kl_divergence",
    "matching",
    "matching_loss",
    "poisson_potential",
    "softmax_potential",
    "squared_error",
    "squared_potential",
]

Subset = Bool[Array, " outputs"] | Bool[np.ndarray, " outputs"]
Scalar = Float[Array, ""]
Vector = Float[Array, " outputs"]


@dataclass(frozen=True, eq=False)
class Potential:
    """A convex function A of one row's logits, and what its Hessian does not see.

    Called with logits it gives A(logits). Two are equal only if they are the same object: programs
    are compiled for it.

    Attributes:
        value: A, convex and twice differentiable.
        off_null_space: the orthogonal projection of a vector off the null space of hess A. To give
            it is to declare that this null space is the same at every point, and is that; None
            declares nothing. `theory.conditions` puts the declaration to the test.
    """

    value: Callable[[Vector], Scalar]
    off_null_space: Callable[[Vector], Vector] | None = None

    def __call__(self, logits: Vector) -> Scalar:
        return self.value(logits)


@dataclass(frozen=True, eq=False)
class MatchingLoss:
    """The Bregman divergence of a potential, as loss(logits, teacher_logits): see `matching_loss`.

    Attributes:
        potential: the convex A. A loss of this class is declared to be a matching loss: what holds
            for those alone (`Curve.certified`) is claimed of no other.
    """

    potential: Potential

    def __call__(self, logits: Vector, teacher_logits: Vector) -> Scalar:
        return matching_loss(self.potential, logits, teacher_logits)


def off_null_space(loss: Loss) -> Callable[[Vector], Vector] | None:
    """The projection off the constant null space that a loss declares; None where it declares none.

    >>> everything = jnp.array([True, True])
    >>> off_null_space(matching(softmax_potential(everything)))(jnp.array([3.0, 1.0]))
    Array([ 1., -1.], dtype=float32)
    >>> off_null_space(lambda z, y: jnp.sum((z - y) ** 2)) is None
    True
    """
    return loss.potential.off_null_space if isinstance(loss, MatchingLoss) else None


def softmax_potential(subset: Subset, temperature: float | Float[Array, ""] = 1.0) -> Potential:
    """A(z) = tau^2 logsumexp(z_S / tau), the logsumexp over the logits in `subset`.

    Its matching loss is tau^2 KL(teacher || student) of the softmax of z / tau over those logits
    alone, in nats; logits outside `subset` have no influence and get no gradient. The null space
    of hess A is the all-ones vector on the subset, and every coordinate off it.

    Args:
        subset: which outputs take part, at least one.
        temperature: tau > 0.

    Raises:
        ValueError: names the argument that is not usable, where its value is known.
    """
    _check_one_axis(subset, "subset")
    if not jnp.issubdtype(jnp.result_type(subset), jnp.bool_):
        raise ValueError(
            f"subset: must say of each output whether it takes part, is {jnp.result_type(subset)}"
        )
    if not isinstance(subset, Tracer) and not np.any(np.asarray(subset)):
        raise ValueError("subset: no output takes part")
    if not isinstance(temperature, Tracer) and not (
        np.all(np.isfinite(np.asarray(temperature))) and np.all(np.asarray(temperature) > 0)
    ):
        raise ValueError(f"temperature: must be finite and above 0, got {temperature}")

    def value(logits: Vector) -> Scalar:
        _check_length(subset, logits, "subset")
        return temperature**2 * jax.nn.logsumexp(logits / temperature, where=subset)

    def centre(vector: Vector) -> Vector:
        return jnp.where(subset, vector - jnp.mean(vector, where=subset), 0)

    return Potential(value, centre)


def squared_potential(
    weights: Subset | Float[Array, " outputs"] | Float[np.ndarray, " outputs"],
) -> Potential:
    """A(z) = 1/2 sum of w_i z_i^2; its matching loss is 1/2 sum of w_i (z_i - y_i)^2.

    The null space of hess A is the coordinates with w_i = 0.

    Args:
        weights: w_i >= 0, or which outputs take part.

    Raises:
        ValueError: names the argument that is not usable, where its value is known.
    """
    _check_one_axis(weights, "weights")
    if not isinstance(weights, Tracer):
        known = np.asarray(weights, np.float64)
        if not np.all(np.isfinite(known) & (known >= 0)):
            raise ValueError("weights: must be finite and 0 or more")
        if not np.any(known > 0):
            raise ValueError("weights: no output takes part")

    def value(logits: Vector) -> Scalar:
        _check_length(weights, logits, "weights")
        # What has no weight may be infinite.
        seen = jnp.where(weights != 0, logits, 0)
        return 0.5 * jnp.sum(jnp.asarray(weights, logits.dtype) * jnp.square(seen))

    return Potential(value, lambda vector: jnp.where(weights != 0, vector, 0))


# A(z) = sum of softplus(z_i): independent yes/no outputs with log odds z_i. Its matching loss is
# the sum of KL(teacher || student) over the outputs, in nats; hess A has no null space.
bernoulli_potential = Potential(lambda z: jnp.sum(jax.nn.softplus(z)), lambda vector: vector)

# A(z) = sum of exp(z_i): independent counts with log rates z_i. Its matching loss is the sum of
# KL(teacher || student) over the outputs, in nats; hess A has no null space.
poisson_potential = Potential(lambda z: jnp.sum(jnp.exp(z)), lambda vector: vector)


@full_precision
def matching_loss(
    potential: Callable[[Vector], Scalar],
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
    # A logit of minus infinity on both sides is an output that neither ever gives.
    never = jnp.isneginf(logits) & jnp.isneginf(teacher_logits)
    apart = jnp.where(never, 0, logits - teacher_logits)
    return potential(logits) - value - jnp.vdot(gradient, apart)


def matching(
    potential: Callable[[Vector], Scalar],
    off_null_space: Callable[[Vector], Vector] | None = None,
) -> MatchingLoss:
    """`matching_loss` of one potential, as loss(logits, teacher_logits).

    Make it once and use it often: programs are compiled for the object.

    Args:
        potential: a `Potential`, or any convex, twice differentiable function of one row's logits.
        off_null_space: for a function that is no `Potential`, what it declares of its null space
            (`Potential.off_null_space`). Where nothing is declared, `theorem_1` checks it at the
            model's logits, and refuses where there are too many outputs for that.

    >>> loss = matching(bernoulli_potential)
    >>> float(loss(jnp.zeros(3), jnp.zeros(3)))
    0.0
    """
    if isinstance(potential, Potential):
        return MatchingLoss(potential)
    return MatchingLoss(Potential(potential, off_null_space))


def kl_divergence(
    logits: Float[Array, " outputs"],
    teacher_logits: Float[Array, " outputs"],
    subset: Subset,
    temperature: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """tau^2 KL(teacher || student) of the softmax of z / tau over `subset`, in nats."""
    return matching_loss(softmax_potential(subset, temperature), logits, teacher_logits)


def squared_error(
    logits: Float[Array, " outputs"],
    teacher_logits: Float[Array, " outputs"],
    subset: Subset,
) -> Float[Array, ""]:
    """1/2 sum over `subset` of (student - teacher)^2."""
    return matching_loss(squared_potential(subset), logits, teacher_logits)


@full_precision
def class_cross_entropy(
    logits: Float[Array, " outputs"],
    label: Int[Array, ""],
    subset: Subset,
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


def _check_one_axis(value: Array | np.ndarray, name: str) -> None:
    if len(np.shape(value)) != 1:
        raise ValueError(f"{name}: needs one number an output, has shape {list(np.shape(value))}")


def _check_length(value: Array | np.ndarray, logits: Vector, name: str) -> None:
    if np.shape(value) != jnp.shape(logits):
        raise ValueError(
            f"{name}: is for {np.shape(value)[0]} outputs, and the logits have shape "
            f"{list(jnp.shape(logits))}"
        )
