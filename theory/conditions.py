"""What the theorem asks of a distillation loss L(z, y), checked numerically at given points.

For every teacher's y, L has a minimum over z at z = y; M(y) = -d2L/dydz at z = y is symmetric and
positive semi-definite; and the null space of M is the same at every y, and orthogonal to dL/dz
(Cloud et al. 2025, arXiv:2507.14805, appendix C, where squared error and softmax cross-entropy
are shown to have all of it). The matching loss of a convex potential (`theory.losses`) has the
first two; the third is one more condition on the potential, which is declared
(`Potential.off_null_space`), or checked here.
"""

from dataclasses import dataclass, fields
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from theory.losses import Loss, off_null_space
from theory.passes import full_precision

# Eigenvalues of M below this share of the largest count as zero.
_RANK = 1e-13
# Logits nearer to 0 than this are measured as if they were this large: rounding is not.
_NEAR = 1e-3
# Logits up to which an M is looked at.
_REACH = 6.0
# Outputs beyond which a matrix of their square at each point is too much.
_MOST_OUTPUTS = 512

_MEANING = {
    "stationary": "dL/dz is not 0 at z = y",
    "minimum": "L(z, y) is below L(y, y) for some z",
    "symmetric": "-d2L/dydz is not symmetric at z = y",
    "positive": "-d2L/dydz has a negative eigenvalue at z = y",
    "null_constant": "the null space of -d2L/dydz is not the same at every y",
    "null_orthogonal": "dL/dz is not orthogonal to the null space of -d2L/dydz",
}


class ConditionError(ValueError):
    """A loss does not meet a condition of the theorem; the message names it."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Conditions:
    """By how much a loss misses each condition, at worst over the points; 0 is not at all.

    Attributes:
        stationary: |dL/dz| at z = y, as a share of the largest |dL/dz| at the pairs (z, y), or of
            |M| times the largest logit.
        minimum: L(y, y) - L(z, y) where positive, as a share of the largest loss, or of |M| times
            the square of the largest logit.
        symmetric: |M - M^T| as a share of |M|.
        positive: minus the least eigenvalue of M where negative, as a share of |M|.
        null_constant: the share of points y at which M loses rank that it has elsewhere; or, if
            more, the largest share of |M| with which an M acts on the null space that the loss
            declares.
        null_orthogonal: |N^T dL/dz|, with N the common null space of all M, as a share like that
            of `stationary`.
    """

    stationary: Float[Array, "*batch"]
    minimum: Float[Array, "*batch"]
    symmetric: Float[Array, "*batch"]
    positive: Float[Array, "*batch"]
    null_constant: Float[Array, "*batch"]
    null_orthogonal: Float[Array, "*batch"]


@full_precision
def mixed_hessian_product(
    loss: Loss,
    logits: Float[Array, " outputs"],
    teacher_logits: Float[Array, " outputs"],
    vector: Float[Array, " outputs"],
) -> Float[Array, " outputs"]:
    """M v with M = -d2L/dydz at (z, y), for one example; M itself is not formed."""
    return -jax.jvp(partial(jax.grad(loss), logits), (teacher_logits,), (vector,))[1]


@full_precision
def conditions(
    loss: Loss,
    logits: Float[Array, "points outputs"],
    teacher_logits: Float[Array, "points outputs"],
) -> Conditions:
    """By how much `loss` misses each condition at the pairs (z, y) of the rows.

    Forms M, of outputs x outputs, at every point: a check for small outputs, not for a
    vocabulary. Call it in float64: a rank cannot be told in float32.

    Args:
        loss: the distillation loss L(z, y) of one example.
        logits: the students' logits z.
        teacher_logits: the teachers' logits y.
    """
    return _conditions(loss, logits, teacher_logits)


@partial(jax.jit, static_argnames="loss")
def _conditions(
    loss: Loss,
    logits: Float[Array, "points outputs"],
    teacher_logits: Float[Array, "points outputs"],
) -> Conditions:
    gradient = jax.vmap(jax.grad(loss))(logits, teacher_logits)
    at_teacher = jax.vmap(jax.grad(loss))(teacher_logits, teacher_logits)
    value = jax.vmap(loss)(logits, teacher_logits)
    least = jax.vmap(loss)(teacher_logits, teacher_logits)

    unit = jnp.eye(logits.shape[1], dtype=logits.dtype)
    columns = jax.vmap(lambda y: jax.vmap(lambda v: mixed_hessian_product(loss, y, y, v))(unit))(
        teacher_logits
    )
    matrix = jnp.swapaxes(columns, 1, 2)
    size = jnp.linalg.norm(matrix, axis=(1, 2), keepdims=True)
    matrix = matrix / jnp.where(size > 0, size, 1)
    # What a gradient and a loss may be here; not only what they are, which is nothing at z = y.
    reach = jnp.max(jnp.abs(jnp.stack([logits, teacher_logits])), initial=_NEAR)
    largest = jnp.maximum(jnp.max(jnp.linalg.norm(gradient, axis=1)), jnp.max(size) * reach)
    highest = jnp.maximum(jnp.max(jnp.abs(value)), jnp.max(size) * reach**2)
    symmetric = 0.5 * (matrix + jnp.swapaxes(matrix, 1, 2))
    eigenvalues = jnp.linalg.eigvalsh(symmetric)
    rank = jnp.sum(eigenvalues > _RANK, axis=1)
    # For positive semi-definite matrices, the null space of a sum is what all null spaces share.
    common_values, common_vectors = jnp.linalg.eigh(jnp.mean(symmetric, axis=0))
    null = common_vectors * (common_values <= _RANK)
    along_null = jnp.linalg.norm(gradient @ null, axis=1)
    loses_rank = jnp.mean(rank < jnp.sum(common_values > _RANK))
    if declared := off_null_space(loss):
        seen = jax.vmap(declared)(unit)
        loses_rank = jnp.maximum(
            jnp.mean(rank < jnp.round(jnp.trace(seen))),
            jnp.max(jnp.linalg.norm(symmetric @ (unit - seen), axis=(1, 2))),
        )
    return Conditions(
        stationary=_share(jnp.max(jnp.linalg.norm(at_teacher, axis=1)), largest),
        minimum=_share(jnp.max(least - value, initial=0.0), highest),
        symmetric=jnp.max(jnp.linalg.norm(matrix - jnp.swapaxes(matrix, 1, 2), axis=(1, 2))),
        positive=jnp.max(-eigenvalues, initial=0.0),
        null_constant=loses_rank,
        null_orthogonal=_share(jnp.max(along_null), largest),
    )


def within_reach(logits: Float[Array, "points outputs"]) -> Float[Array, "points outputs"]:
    """The logits, each row shrunk so that none is beyond +-6: there a rank of M can be told.

    The conditions are about a loss, not about a model; a confident model's logits saturate a
    softmax, whose M then loses rank to rounding.
    """
    largest = jnp.max(jnp.abs(logits), axis=1, keepdims=True)
    return logits * jnp.minimum(1.0, _REACH / jnp.where(largest > 0, largest, 1.0))


def require_conditions_near(
    loss: Loss,
    logits: Float[Array, "points outputs"],
    teacher_logits: Float[Array, "points outputs"],
) -> None:
    """Refuses a loss that misses a condition at these logits, or about them.

    Looked at are the pairs that are given; the same shrunk to +-6, where a confident model's logits
    do not hide what the loss is elsewhere; what both are with the opposite sign; and no logits
    at all: a potential may be flat at 0, or on the side that a model does not show. What it is
    beyond all of these is not seen.

    Raises:
        ConditionError: the condition that the loss misses.
        ValueError: too many outputs for a check.
    """
    outputs = logits.shape[1]
    if outputs > _MOST_OUTPUTS:
        raise ValueError(
            f"loss: to check its conditions takes a matrix of {outputs} x {outputs} at each of "
            f"{4 * len(logits) + 1} points; hand in a matching loss that declares its null space: "
            "theory.matching(potential, off_null_space)"
        )
    none = jnp.zeros((1, outputs), logits.dtype)
    z, y = (
        jnp.concatenate([side, -side, within_reach(side), -within_reach(side), none])
        for side in (logits, teacher_logits)
    )
    try:
        require_conditions(loss, z, y)
    except ConditionError as error:
        raise ConditionError(
            f"{error}, at logits up to {float(jnp.max(jnp.abs(z))):.3g}; where that is rounding, "
            "of a loss that saturates there, declare its null space: "
            "theory.matching(potential, off_null_space)"
        ) from error


@full_precision
def require_conditions(
    loss: Loss,
    logits: Float[Array, "points outputs"] | Float[np.ndarray, "points outputs"],
    teacher_logits: Float[Array, "points outputs"] | Float[np.ndarray, "points outputs"],
    *,
    tolerance: float = 1e-8,
) -> Conditions:
    """As `conditions`, in float64 whatever the default, and an error where one is missed.

    Args:
        loss, logits, teacher_logits: what they are for `conditions`; where M loses rank to
            rounding, that cannot be told from a null space that changes (`within_reach`).
        tolerance: the largest share that counts as rounding.

    Raises:
        ConditionError: names the first condition that is missed, and by how much.

    >>> from theory.losses import bernoulli_potential, matching
    >>> z, y = np.linspace(-2, 2, 12).reshape(2, 4, 3)
    >>> float(require_conditions(matching(bernoulli_potential), z, y).null_constant)
    0.0
    >>> require_conditions(lambda z, y: jnp.sum(jnp.square(z + y)), z, y)
    Traceback (most recent call last):
        ...
    theory.conditions.ConditionError: loss: dL/dz is not 0 at z = y (stationary: 1)
    """
    with jax.enable_x64(True):
        z, y = (jnp.asarray(np.asarray(points, np.float64)) for points in (logits, teacher_logits))
        misses = conditions(loss, z, y)
        for field in fields(misses):
            amount = float(getattr(misses, field.name))
            if not amount <= tolerance:
                raise ConditionError(f"loss: {_MEANING[field.name]} ({field.name}: {amount:.3g})")
        return misses


def _share(part: Float[Array, ""], whole: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), part)
