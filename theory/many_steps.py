"""Many steps near the start: what holds at every step, in any order of the data.

Let f be linear in the parameters, delta = theta_T - theta_0, and let the student take steps
theta_{k+1} = theta_k - eta_k grad l_k(theta_k) from theta_0, each l_k a matching loss on the
teacher's logits: another batch, temperature or subset at each step, if you like. Let L_k bound
the Hessian of l_k where |theta - theta_T| <= |delta|, and eta_k <= 2 / L_k. With u_k =
theta_k - theta_0:

(a) |theta_k - theta_T| never grows; hence <u_k, delta> >= 1/2 |u_k|^2 at EVERY step.
    Proof. grad l_k = H (theta_k - theta_T), H the mean Hessian between, and H^2 <= L_k H; so
    <grad l_k, theta_k - theta_T> >= |grad l_k|^2 / L_k; expand |theta_{k+1} - theta_T|^2.
(b) If the teacher took one step, delta = -eps grad L_T(theta_0), and L_T is beta-smooth (convex or
    not) with eps < 1 / beta, then at EVERY step
    L_T(theta_k) - L_T(theta_0) <= -1/2 (1 / eps - beta) |u_k|^2 <= 0.
    Proof. L_T(theta_k) - L_T(theta_0) <= <grad L_T, u_k> + 1/2 beta |u_k|^2, and (a).

For any model, and gradient descent on any losses, without remainder:

(c) <u_K, delta> = 1/2 |u_K|^2 + sum of (eta_k g_k - 1/2 eta_k^2 |grad l_k|^2),
    g_k = <-grad l_k, theta_T - theta_k>: `Approach.inner_product`.

(An extension of the paper, whose theorem is about one small step.) (b) fails for a teacher of many
steps, for one that steps by the gradient's signs, and for a student that trains with Adam.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from theory.checks import check_positive
from theory.passes import full_precision
from theory.trajectory import Account

# The learning rate of each step.
Rates = Float[Array, "*batch steps"] | Float[np.ndarray, "*batch steps"] | Sequence[float]

# How many units of rounding a statement may be off by. Sums over parameters round less.
_ROUNDINGS = 100


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ManySteps:
    """By how much a run met (a), (b) and (c).

    Attributes:
        receding: (a): the largest |theta_{k+1} - theta_T| - |theta_k - theta_T|, over |delta|.
        margin: (a): the least <u_k, delta> - 1/2 |u_k|^2, over |delta|^2.
        excess: (b): the largest amount by which L_T(theta_k) is above its bound, over
            1 / eps times |delta|^2, the first-order fall of the teacher's own L_T. None where the
            teacher's step was not given.
        excess_rounding: what rounding of L_T itself may do to `excess`.
        gap: (c): the largest difference of the two sides at any step, over the sum of the sizes of
            all their terms. None where no rates were given.
    """

    receding: Float[Array, "*batch"]
    margin: Float[Array, "*batch"]
    excess: Float[Array, "*batch"] | None
    excess_rounding: Float[Array, "*batch"] | None
    gap: Float[Array, "*batch"] | None

    @property
    def nearer(self) -> Bool[Array, "*batch"]:
        """(a): whether the student never moved away from the teacher, but for rounding."""
        slack = _ROUNDINGS * jnp.finfo(self.receding.dtype).eps
        return (self.receding <= slack) & (self.margin >= -slack)

    @property
    def trait_falls(self) -> Bool[Array, "*batch"] | None:
        """(b): whether L_T was never above its bound, but for rounding."""
        if self.excess is None or self.excess_rounding is None:
            return None
        return self.excess <= self.excess_rounding

    @property
    def adds_up(self) -> Bool[Array, "*batch"] | None:
        """(c): whether the account adds up, as that of gradient descent must, but for rounding."""
        return None if self.gap is None else self.gap <= _ROUNDINGS * jnp.finfo(self.gap.dtype).eps


@full_precision
def many_steps(
    account: Account,
    *,
    rates: Rates | None = None,
    eps: float | Float[Array, "*batch"] | None = None,
    smoothness: float | Float[Array, "*batch"] | None = None,
) -> ManySteps:
    """What (a), (b) and (c) say of a run.

    Args:
        account: of `theory.follow`, with the teacher given.
        rates: eta_k, the learning rate of each step of gradient descent, for (c).
        eps: the teacher's one step, for (b).
        smoothness: beta, a bound on the absolute curvature of L_T, for (b); below 1 / eps.

    Raises:
        ValueError: names the argument that is not usable.
    """
    approach = account.approach
    if approach is None:
        raise ValueError("account: knows no teacher; hand one to `follow`")
    if (eps is None) != (smoothness is None):
        raise ValueError("eps, smoothness: (b) needs both of them")
    square, along, trait = approach.moved_square, approach.moved_along, account.trait_loss
    length = approach.distance[..., 0] ** 2
    length = jnp.where(length > 0, length, 1)
    ulp = jnp.finfo(trait.dtype).eps
    excess = rounding = gap = None
    if eps is not None and smoothness is not None:
        if jnp.ndim(eps) == 0:
            check_positive(eps, "eps")
        elif not isinstance(eps, Tracer) and not np.all(np.isfinite(eps) & (np.asarray(eps) > 0)):
            raise ValueError("eps: must be finite and above 0, in every run")
        if not isinstance(eps, Tracer) and not isinstance(smoothness, Tracer):
            product = np.asarray(eps) * np.asarray(smoothness)
            if not np.all((product >= 0) & (product < 1)):
                raise ValueError("smoothness: (b) is claimed for 0 <= smoothness < 1 / eps")
        slope = jnp.asarray(1 / jnp.asarray(eps) - smoothness, trait.dtype)
        above = trait - trait[..., :1] + 0.5 * slope[..., None] * square
        fall = length / jnp.asarray(eps, trait.dtype)
        excess = jnp.max(above[..., 1:], axis=-1) / fall
        rounding = _ROUNDINGS * ulp * (1 + jnp.max(jnp.abs(trait), axis=-1) / fall)
    if rates is not None:
        gradients, toward = account.gradient_square, approach.inner_product
        rates = jnp.asarray(rates, gradients.dtype)
        if jnp.shape(rates) != jnp.shape(gradients):
            raise ValueError(
                f"rates: needs one a step, shape {list(jnp.shape(gradients))}, has shape "
                f"{list(jnp.shape(rates))}"
            )
        steps = jnp.stack([rates * toward, -0.5 * rates**2 * gradients])
        total = 0.5 * square[..., 1:] + jnp.cumsum(jnp.sum(steps, axis=0), axis=-1)
        size = (
            jnp.abs(along[..., 1:])
            + 0.5 * square[..., 1:]
            + jnp.cumsum(jnp.sum(jnp.abs(steps), axis=0), axis=-1)
        )
        gap = jnp.max(jnp.abs(along[..., 1:] - total) / jnp.where(size > 0, size, 1), axis=-1)
    return ManySteps(
        receding=jnp.max(jnp.diff(approach.distance, axis=-1), axis=-1) / jnp.sqrt(length),
        margin=jnp.min((along - 0.5 * square)[..., 1:], axis=-1) / length,
        excess=excess,
        excess_rounding=rounding,
        gap=gap,
    )
