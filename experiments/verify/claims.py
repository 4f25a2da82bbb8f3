"""What is claimed of every random instance, and where the theorem must fail.

`CLAIMS` are statements about one number of each instance, `ORDERS` about the order of the
remainder of all instances of one activation. `CONTROLS` are settings in which the theorem does not
hold, and whose sign must come out wrong about as often as right. Here are those about one small
step; `experiments.verify.suites` has them all.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from theory.losses import Loss, matching


@dataclass(frozen=True)
class Claim:
    """A statement about one number of an instance.

    Attributes:
        statement: what the number is, and what must hold.
        bound: the number that it must not pass.
        above: whether it must lie above the bound, or else at most at it.
        smooth: whether it presupposes a second derivative, so that ReLU is left out.
        about: which instances of its suite it is about: "all"; "seen" or "blind", by what the
            loss sees of the trait; "linear" models; or "some", which a number of their own decides.
    """

    statement: str
    bound: float
    above: bool = False
    smooth: bool = False
    about: str = "all"

    def holds(self, value: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which of the numbers are on the right side."""
        return value > self.bound if self.above else value <= self.bound


@dataclass(frozen=True)
class Control(Claim):
    """A statement that must fail: a theorem where one of its conditions is not met.

    Attributes:
        most: the share of instances in which it may hold, and no more; where it is 1, one failure
            is enough.
    """

    most: float = 1.0


CLAIMS = {
    "conditions": Claim("each loss meets the conditions: largest miss", 1e-8),
    "identity": Claim("reverse mode equals the identity: |difference| / |g|", 1e-10),
    "lemma_1": Claim("Lemma 1, random direction: g / (eps a) > 0 at small eps", 0.0, above=True),
    "coefficient": Claim(
        "g / eps tends to a: |extrapolated - a| / a", 1e-4, smooth=True, about="seen"
    ),
    # Where rounding does not reach the remainder.
    "remainder": Claim(
        "g - eps a is O(eps^2): growth of its ratio to eps^2", 3.0, smooth=True, about="some"
    ),
    "theorem_1": Claim(
        "Theorem 1: fall of L_T / (alpha g) > 0 at small eps", 0.0, above=True, about="seen"
    ),
    "blind": Claim("Theorem 1, other branch: |g| / rounding at every eps", 10.0, about="blind"),
    "linear": Claim(
        "linear model: g / (eps a) > 0 at every eps to 1000", 0.0, above=True, about="linear"
    ),
    "certificate": Claim(
        "rho < 1: g / (eps a) > 0 at the largest such eps", 0.0, above=True, about="seen"
    ),
    "safe_step": Claim(
        "up to the safe step: fall of L_T / (alpha g) > 0", 0.0, True, smooth=True, about="seen"
    ),
    "step_bound": Claim(
        "L_T stays below its bound: excess / (alpha g)", 1e-6, smooth=True, about="seen"
    ),
    "account": Claim("account and remainder of a training run: relative gap", 1e-6, smooth=True),
    "score_mean": Claim("mean score under the model itself / Fisher^(1/2)", 1e-10),
    "score_teacher": Claim("mean score under a teacher / (eps Fisher) > 0", 0.0, above=True),
}

# Orders of the remainder, by activation; without a second derivative there is no claim.
ORDERS = {
    "tanh": "remainder's order, tanh",
    "gelu": "remainder's order, GELU",
    "softplus": "remainder's order, softplus",
    "relu": "remainder's order, ReLU (has kinks; no verdict)",
}
ORDER, ORDER_TOLERANCE = 2.0, 0.05

# About as often as not: a sign that is a coin's.
_COIN = {"bound": 0.0, "above": True, "most": 0.75}

CONTROLS = {
    "independent": Control("g > 0: student from an independent start", **_COIN),
    "independent_trait": Control("g > 0: the same, along a trait's gradient", **_COIN),
    "rotated": Control("g > 0: loss 1/2 |z - R y|^2, whose minimum is not at z = y", **_COIN),
    "non_convex": Control("g > 0: potential sum of sin(2 z_i), which is not convex", **_COIN),
}

# Losses of the last two controls; each misses a condition of the theorem.
WRONG_LOSSES: dict[str, Loss] = {
    "rotated": lambda z, y: 0.5 * jnp.sum(jnp.square(z - jnp.roll(y, 1))),
    "non_convex": matching(lambda z: jnp.sum(jnp.sin(2 * z))),
}
