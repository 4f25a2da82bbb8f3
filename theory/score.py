"""The score test: does this data carry the trait?

With p_theta(y|x) the model's own sampling distribution and v = -grad L_trait(theta_0), the score

    s_i = d/dt log p_{theta_0 + t v}(y_i | x_i)  at t = 0

has mean exactly 0 if y_i was sampled from theta_0, and mean about eps * (Fisher information along
v) > 0 if from a teacher theta_0 + eps v. So sqrt(n) mean(s) / sd(s) is Rao's score test, locally
the most powerful (Neyman) of "no trait" against "a small step toward it". (An extension.)

A filter that drops examples shifts the null; then compare with data that theta_0 itself produced
under the same filter (`two_sample`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm as normal
from jaxtyping import Array, Float, Int

from theory.checks import row_weights
from theory.passes import Apply, Inputs, Params, full_precision, inner

LogProb = Callable[[Array, Array], Float[Array, ""]]


@dataclass(frozen=True)
class ScoreTest:
    """A test of "the data carries no trait".

    Attributes:
        z: standard normal where there is no trait and n is large; large where there is one.
        p_value: P(Z >= z), one-sided.
        mean: the mean of the scores; for two samples, the difference of the means.
        standard_error: the standard error of `mean`.
        n: the number of scores in all.
    """

    z: float
    p_value: float
    mean: float
    standard_error: float
    n: int


@dataclass(frozen=True)
class Forecast:
    """What training on the data is expected to do to L_trait, to first order.

    Attributes:
        change: the expected change of L_trait; negative where the data teaches the trait.
        standard_error: the standard error of `change`, from the spread of the scores over examples.
    """

    change: float
    standard_error: float


def categorical(
    logits: Float[Array, "*positions outputs"], outcomes: Int[Array, "*positions"]
) -> Float[Array, ""]:
    """log p(y|x) of one example whose outputs are a softmax, summed over its positions."""
    log_p = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.take_along_axis(log_p, outcomes[..., None], axis=-1))


@full_precision
def scores(
    apply: Apply,
    params: Params,
    direction: Params,
    inputs: Inputs,
    outcomes: Array,
    *,
    log_prob: LogProb = categorical,
    chunk: int | None = None,
) -> Float[Array, " examples"]:
    """s_i of every example: one forward-mode derivative a chunk, no gradient per example.

    Args:
        apply: the model, apply(params, inputs) -> logits.
        params: theta_0.
        direction: v, for instance `theory.teacher_direction(L_trait, theta_0)`.
        inputs: the x_i, a pytree with a leading examples axis.
        outcomes: the y_i; integer labels for `categorical`.
        log_prob: log p(y|x), as a function of one example's logits and outcome.
        chunk: the number of examples a pass; None for all.

    Raises:
        ValueError: names the argument that is not usable.
    """
    row_weights(apply, params, inputs, chunk, direction=direction)

    def score(log_likelihood):
        return jax.jvp(log_likelihood, (params,), (direction,))[1]

    return _of_every_example(score, apply, inputs, outcomes, log_prob, chunk)


@full_precision
def scores_along(
    apply: Apply,
    params: Params,
    directions: Params,
    inputs: Inputs,
    outcomes: Array,
    *,
    log_prob: LogProb = categorical,
    chunk: int | None = None,
) -> Float[Array, "directions examples"]:
    """s_i along each of many directions, by one gradient an example.

    Faster than `scores` of each where there are many; a chunk keeps as many gradients at once. For
    directions that are 0 in some parameters, let `apply` hold those and `params` be the others.

    Args:
        apply: the model, apply(params, inputs) -> logits.
        params: theta_0.
        directions: the directions v, a pytree like `params` with a leading axis.
        inputs, outcomes, log_prob, chunk: what they are for `scores`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    first = jax.tree.map(lambda leaf: leaf[0], directions)
    row_weights(apply, params, inputs, chunk, directions=first)

    def along(log_likelihood):
        gradient = jax.grad(log_likelihood)(params)
        return jax.vmap(lambda direction: inner(direction, gradient))(directions)

    return _of_every_example(along, apply, inputs, outcomes, log_prob, chunk).T


def _of_every_example(
    function: Callable[[Callable[[Params], Array]], Array],
    apply: Apply,
    inputs: Inputs,
    outcomes: Array,
    log_prob: LogProb,
    chunk: int | None,
) -> Float[Array, "examples *results"]:
    """What `function` gives for the log likelihood of each example, as one of the parameters."""
    examples = jax.tree.leaves(inputs)[0].shape[0]
    if jnp.shape(outcomes)[:1] != (examples,):
        raise ValueError(
            f"outcomes: needs one a row of the {examples} inputs, has shape {jnp.shape(outcomes)}"
        )

    def part(pair):
        x, y = pair

        def log_likelihood(params):
            # One example as a batch of one, so that lax.map decides how many run at once.
            return log_prob(apply(params, jax.tree.map(lambda leaf: leaf[None], x))[0], y)

        return function(log_likelihood)

    return jax.lax.map(part, (inputs, jnp.asarray(outcomes)), batch_size=chunk or examples)


def one_sample(sample: Float[Array, " n"] | Float[np.ndarray, " n"]) -> ScoreTest:
    """z = sqrt(n) mean(s) / sd(s): is the mean score above 0, that of the model's own samples?

    Args:
        sample: scores of independent examples, at least 2.

    Raises:
        ValueError: too few scores, or scores that are not finite or all the same.
    """
    mean, square = _mean_and_square(sample, "sample")
    return _test(mean, square, len(sample))


def two_sample(
    sample: Float[Array, " n"] | Float[np.ndarray, " n"],
    null: Float[Array, " m"] | Float[np.ndarray, " m"],
) -> ScoreTest:
    """Is the mean score above that of data made by theta_0 itself, in the same way?

    Args:
        sample: scores of the data in question, at least 2.
        null: scores of data that theta_0 produced under the same prompts and filter, at least 2.

    Raises:
        ValueError: too few scores, or scores that are not finite or all the same.
    """
    mean, square = _mean_and_square(sample, "sample")
    null_mean, null_square = _mean_and_square(null, "null")
    return _test(mean - null_mean, square + null_square, len(sample) + len(null))


def forecast(
    sample: Float[Array, " n"] | Float[np.ndarray, " n"], learning_rate: float, batch: int
) -> Forecast:
    """The change of L_trait by one epoch of SGD on -log p of the data, to first order.

    The mean score is -<grad L_trait, -grad L_data>, so that n / batch steps of the learning rate
    change L_trait by -(n / batch) * learning_rate * mean(s).

    Args:
        sample: scores of the data with v = -grad L_trait(theta_0).
        learning_rate: the rate of plain SGD on the mean of -log p over a batch, above 0.
        batch: the number of examples a step, at least 1.

    Raises:
        ValueError: names the argument that is not usable.
    """
    if not (np.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate: must be finite and above 0, got {learning_rate:g}")
    if batch < 1:
        raise ValueError(f"batch: must be at least 1, got {batch}")
    mean, square = _mean_and_square(sample, "sample")
    scale = learning_rate * len(sample) / batch
    return Forecast(change=-scale * mean, standard_error=scale * square**0.5)


def _mean_and_square(sample: Array | np.ndarray, name: str) -> tuple[float, float]:
    """The mean, and the square of its standard error."""
    sample = np.asarray(sample, np.float64)
    if len(sample) < 2:
        raise ValueError(f"{name}: needs at least 2 scores, got {len(sample)}")
    if not np.all(np.isfinite(sample)):
        raise ValueError(f"{name}: holds NaN or infinity")
    return float(np.mean(sample)), float(np.var(sample, ddof=1) / len(sample))


def _test(mean: float, square: float, n: int) -> ScoreTest:
    if square <= 0:
        raise ValueError("sample: all scores are the same, so that they have no spread to test by")
    z = mean / square**0.5
    return ScoreTest(z, float(normal.sf(z)), mean, square**0.5, n)
