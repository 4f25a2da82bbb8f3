"""The score test: does this data carry the trait?

With p_theta(y|x) the model's own sampling distribution and v = -grad L_trait(theta_0), the score

    s_i = d/dt log p_{theta_0 + t v}(y_i | x_i)  at t = 0

has mean exactly 0 if y_i was sampled from theta_0. If it was sampled from a teacher
theta_T = theta_0 + eps v, its mean is the alignment itself, at every eps and without a remainder:

    E[s] = E_x <p_T - p_0, J v> = g(eps) of the softmax matching loss

(`theory.inner_product`), times the number of sampled positions for sequences on the teacher's own
contexts; and the Fisher information along v is `theory.coefficient`, so that E[s] is about
eps a > 0. A student that trains on such labels has <student_direction, v> = mean(s): Lemma 1 for
sampled labels holds with probability `power`. (All of it extends the paper.)

The null, "no trait", is a statement about the model's own distribution. It needs y sampled at
temperature 1, without top-p, top-k or any other truncation, and the sum over sampled tokens only:
a prompt's tokens and padding get weight 0. A filter that drops examples shifts the null; then
compare with data that theta_0 itself produced under the same filter and from the same prompts
(`two_sample`, or `paired`, which has more power where prompts differ).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import betainc
from jaxtyping import Array, Float, Int

from theory.checks import check_positive, row_weights
from theory.passes import (
    Apply,
    Inputs,
    Params,
    Weights,
    full_precision,
    gathered,
    inner,
    rows,
    weighed,
)

# A spread of scores up to this many units in the last place of the largest is rounding.
_SAME = 8.0
# log p(y|x) of one row: its logits and its outcome.
LogProb = Callable[[Array, Array], Float[Array, ""]]
Scores = Float[Array, " n"] | Float[np.ndarray, " n"]
OtherScores = Float[Array, " m"] | Float[np.ndarray, " m"]


@dataclass(frozen=True)
class ScoreTest:
    """A test of "the data carries no trait".

    Attributes:
        z: mean / standard_error; large where there is a trait.
        mean: the mean of the scores; for two samples, the difference of the means.
        standard_error: the standard error of `mean`.
        n: the number of scores in all; for a paired test, of pairs.
        degrees_of_freedom: of Student's t, which z follows where there is no trait: exactly for
            normal scores, and well from about 30 scores on. Infinity: standard normal.
    """

    z: float
    mean: float
    standard_error: float
    n: int
    degrees_of_freedom: float

    @property
    def p_value(self) -> float:
        """P(T >= z), one-sided: against a step toward the trait."""
        return _upper_tail(self.z, self.degrees_of_freedom)

    @property
    def p_value_two_sided(self) -> float:
        """P(|T| >= |z|), two-sided: against a step toward the trait or away from it."""
        return min(1.0, 2 * _upper_tail(abs(self.z), self.degrees_of_freedom))


@dataclass(frozen=True)
class Forecast:
    """What training on the data is expected to do to L_trait, to first order.

    Attributes:
        change: the change of L_trait; negative where the data teaches the trait. For the data at
            hand it is not random.
        standard_error: of `change` as a forecast for a fresh data set of the same size, from the
            spread of the scores over examples.
    """

    change: float
    standard_error: float


def categorical(
    logits: Float[Array, " outputs"], outcome: Int[Array, ""] | Int[np.ndarray, ""]
) -> Float[Array, ""]:
    """log p(y|x) of one row whose outputs are a softmax; NaN for an outcome that is none of them.

    >>> categorical(jnp.zeros(4), jnp.array(3)), categorical(jnp.zeros(4), jnp.array(-1))
    (Array(-1.3862944, dtype=float32), Array(nan, dtype=float32))
    """
    outputs = logits.shape[0]
    known = (outcome >= 0) & (outcome < outputs)
    # A factor, so that the derivatives are NaN too.
    return jax.nn.log_softmax(logits)[jnp.clip(outcome, 0, outputs - 1)] * jnp.where(
        known, 1, jnp.nan
    ).astype(logits.dtype)


@full_precision
def scores(
    apply: Apply,
    params: Params,
    direction: Params,
    inputs: Inputs,
    outcomes: Array | np.ndarray,
    *,
    weights: Weights | None = None,
    log_prob: LogProb = categorical,
    chunk: int | None = None,
) -> Float[Array, " examples"]:
    """s_i of every example: one forward-mode derivative a chunk, no gradient per example.

    The score of an example with positions is the sum over them, each times its weight.

    Args:
        apply: the model, apply(params, inputs) -> logits.
        params: theta_0.
        direction: v, for instance `theory.teacher_direction(L_trait, theta_0)`.
        inputs: the x_i, a pytree with a leading examples axis.
        outcomes: the y_i, one a row of the logits: [examples, *positions]; integers from 0 to
            outputs - 1 for `categorical`. Where the weight is 0 it may be anything, such as -100;
            elsewhere an outcome that is none of them is refused where it is known, and gives NaN
            where it is traced.
        weights: 1 for sampled positions, 0 for a prompt's tokens and padding: one number a
            position of each example, or one an example; None for 1. An example without any
            weight has score 0: leave it out of a test.
        log_prob: log p(y|x), as a function of one row's logits and outcome.
        chunk: the number of examples a pass; None for all.

    Raises:
        ValueError: names the argument that is not usable.
    """
    counted = row_weights(apply, params, inputs, chunk, weights, direction=direction)
    _check_outcomes(apply, params, inputs, outcomes, weights, log_prob)

    def score(log_likelihood):
        return jax.jvp(log_likelihood, (params,), (direction,))[1]

    return _of_every_example(score, apply, inputs, outcomes, counted, log_prob, chunk)


@full_precision
def scores_along(
    apply: Apply,
    params: Params,
    directions: Params,
    inputs: Inputs,
    outcomes: Array | np.ndarray,
    *,
    weights: Weights | None = None,
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
        inputs, outcomes, weights, log_prob, chunk: what they are for `scores`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    first = jax.tree.map(lambda leaf: leaf[0], directions)
    counted = row_weights(apply, params, inputs, chunk, weights, directions=first)
    _check_outcomes(apply, params, inputs, outcomes, weights, log_prob)

    def along(log_likelihood):
        gradient = jax.grad(log_likelihood)(params)
        return jax.vmap(lambda direction: inner(direction, gradient))(directions)

    return _of_every_example(along, apply, inputs, outcomes, counted, log_prob, chunk).T


@full_precision
def fisher_information(
    apply: Apply,
    params: Params,
    direction: Params,
    inputs: Inputs,
    *,
    weights: Weights | None = None,
    chunk: int | None = None,
) -> Float[Array, " examples"]:
    """The variance of each example's score under the model itself: no outcome is sampled.

    For softmax outputs, the sum over positions of w^2 (J v)^T M (J v), M the softmax's Hessian.
    For sequences it is taken on the contexts at hand. With weights of 0 and 1, its sum over
    examples is the sum of the weights times `theory.coefficient` of the softmax matching loss.

    Args:
        apply, params, direction, inputs, weights, chunk: what they are for `scores`.

    Raises:
        ValueError: names the argument that is not usable.
    """
    weights = row_weights(apply, params, inputs, chunk, weights, direction=direction)

    def information(example):
        x, weight = example

        def logits_of(params):
            return rows(apply(params, jax.tree.map(lambda leaf: leaf[None], x)))

        logits, change = jax.jvp(logits_of, (params,), (direction,))
        p = jax.nn.softmax(logits)
        centred = change - jnp.sum(p * change, axis=1, keepdims=True)
        return weighed(jnp.square(weight.reshape(-1)), jnp.sum(p * jnp.square(centred), axis=1))

    return _over_examples(information, (inputs, weights), chunk)


def one_sample(sample: Scores, information: OtherScores | None = None) -> ScoreTest:
    """Is the mean score above 0, that of the model's own samples?

    Without `information` it is the studentised score test, z = sqrt(n) mean(s) / sd(s) against
    Student's t. With it, Rao's, locally the most powerful (Neyman): z = sum(s) / sqrt(sum of the
    information) against the normal, whose denominator is exact and has no spread of its own.

    Args:
        sample: scores of independent examples, at least 2, or 1 with `information`.
        information: the Fisher information of each example (`fisher_information`); for data that
            no filter touched, since it knows of none.

    Raises:
        ValueError: too few scores, or scores that are not finite or all the same (to rounding), or
            information that is not one number 0 or more for each and above 0 in all.
    """
    if information is None:
        mean, square = _mean_and_square(sample, "sample")
        _check_spread(square * len(sample), sample)
        return _test(mean, square, len(sample), float(len(sample) - 1))
    scores = _checked(sample, "sample", 1)
    known = np.asarray(information, np.float64)
    if known.shape != scores.shape:
        raise ValueError(
            f"information: needs one number a score, {len(scores)}, has shape {list(known.shape)}"
        )
    if not (np.all(np.isfinite(known) & (known >= 0)) and np.sum(known) > 0):
        raise ValueError("information: must be finite, 0 or more, and above 0 for some score")
    square = float(np.sum(known)) / len(scores) ** 2
    return _test(float(np.mean(scores)), square, len(scores), math.inf)


def two_sample(sample: Scores, null: OtherScores) -> ScoreTest:
    """Is the mean score above that of data made by theta_0 itself, in the same way?

    Welch's test: the spreads may differ. The two must have the same prompts, or prompts drawn from
    one population: what a filter does to the null differs from prompt to prompt. For the same
    prompts on both sides `paired` has more power.

    Args:
        sample: scores of the data in question, at least 2.
        null: scores of data that theta_0 produced under the same prompts and filter, at least 2.

    Raises:
        ValueError: too few scores, or scores that are not finite, or on both sides all the same (to
            rounding).
    """
    mean, square = _mean_and_square(sample, "sample")
    null_mean, null_square = _mean_and_square(null, "null")
    _check_spread(square * len(sample) + null_square * len(null), sample, null)
    each = square**2 / (len(sample) - 1) + null_square**2 / (len(null) - 1)
    freedom = (square + null_square) ** 2 / each if each > 0 else math.inf
    return _test(mean - null_mean, square + null_square, len(sample) + len(null), freedom)


def paired(
    sample: Scores, null: OtherScores, prompts: np.ndarray, null_prompts: np.ndarray
) -> ScoreTest:
    """As `two_sample`, with the two sides compared prompt by prompt.

    What the scores of one prompt have in common, as a filter's effect on that prompt, cancels. A
    prompt's scores on one side are first averaged; prompts that a filter has left on one side
    alone are left out.

    Args:
        sample: scores of the data in question.
        null: scores of data that theta_0 produced under the same prompts and filter.
        prompts: which prompt each score of `sample` belongs to, as numbers or names.
        null_prompts: the same for `null`.

    Raises:
        ValueError: fewer than 2 prompts on both sides, scores that are not finite, or differences
            that are all the same (to rounding).
    """
    first, means = _means_by_prompt(sample, prompts, "sample", "prompts")
    second, null_means = _means_by_prompt(null, null_prompts, "null", "null_prompts")
    shared, left, right = np.intersect1d(first, second, return_indices=True)
    if len(shared) < 2:
        raise ValueError(f"prompts: needs at least 2 that both sides have, got {len(shared)}")
    mean, square = _mean_and_square(means[left] - null_means[right], "sample")
    _check_spread(square * len(shared), sample, null)
    return _test(mean, square, len(shared), float(len(shared) - 1))


def power(
    eps: float, information: float | Float[Array, ""], n: int | float, *, level: float = 0.5
) -> float:
    """The probability that n examples of a teacher theta_0 + eps v show it, to leading order.

    Phi(eps sqrt(n a) - z), with z the normal quantile that `level` leaves above it. At the default
    level z is 0: the probability that the mean score is above 0, which is that of
    <student_direction, v> > 0 for a student trained on the n sampled labels.

    Args:
        eps: the teacher's step along v, above 0.
        information: a, the Fisher information along v of one example: the mean of
            `fisher_information`, or `theory.coefficient` of the softmax loss times the sampled
            positions of an example.
        n: the number of examples, at least 1.
        level: the probability of a false alarm of the one-sided test, between 0 and 1.

    Raises:
        ValueError: names the argument that is not usable.

    >>> round(power(eps=0.1, information=1.0, n=200), 3)
    0.921
    """
    for value, name in ((eps, "eps"), (information, "information"), (n, "n")):
        check_positive(value, name)
    if n < 1:
        raise ValueError(f"n: must be at least 1, got {n:g}")
    _check_probability(level, "level")
    return _normal_below(eps * math.sqrt(n * float(information)) - _normal_above(level))


def sample_size(
    eps: float,
    information: float | Float[Array, ""],
    confidence: float,
    *,
    level: float = 0.5,
) -> int:
    """The least n at which `power` is the confidence: ((z_confidence + z) / eps)^2 / a.

    Args:
        eps, information, level: what they are for `power`.
        confidence: the wanted power, above `level` and below 1.

    Raises:
        ValueError: names the argument that is not usable.

    >>> sample_size(eps=0.1, information=1.0, confidence=0.95)
    271
    """
    check_positive(eps, "eps")
    check_positive(information, "information")
    _check_probability(level, "level")
    _check_probability(confidence, "confidence")
    if confidence <= level:
        raise ValueError(f"confidence: must be above the level {level:g}, got {confidence:g}")
    z = _normal_above(level) - _normal_above(confidence)
    with np.errstate(over="ignore", divide="ignore"):
        needed = np.square(z / np.sqrt(np.float64(information)) / np.float64(eps))
    if not np.isfinite(needed):
        raise ValueError(f"eps: {float(eps):g} needs more examples than a number can say")
    return math.ceil(needed)


def forecast(sample: Scores, learning_rate: float, batch: int) -> Forecast:
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


def _of_every_example(
    function: Callable[[Callable[[Params], Array]], Array],
    apply: Apply,
    inputs: Inputs,
    outcomes: Array | np.ndarray,
    weights: Float[Array, "examples *positions"],
    log_prob: LogProb,
    chunk: int | None,
) -> Float[Array, "examples *results"]:
    """What `function` gives for the log likelihood of each example, as one of the parameters."""

    def part(example):
        x, y, weight = example
        weight = weight.reshape(-1)
        y = y.reshape(*weight.shape, *y.shape[weights.ndim - 1 :])

        def log_likelihood(params):
            # One example as a batch of one, so that the caller decides how many run at once.
            logits = rows(apply(params, jax.tree.map(lambda leaf: leaf[None], x)))
            # What does not count is never looked at, not by a gradient either: it might be NaN.
            logits = jnp.where(weight[:, None] > 0, logits, 0)
            return weighed(weight, jax.vmap(log_prob)(logits, y))

        return jnp.where(jnp.any(weight > 0), function(log_likelihood), 0)

    return _over_examples(part, (inputs, jnp.asarray(outcomes), weights), chunk)


def _over_examples(
    function: Callable[[tuple], Array], arrays: tuple, chunk: int | None
) -> Float[Array, "examples *results"]:
    arrays = jax.tree.map(lambda leaf: gathered(jnp.asarray(leaf)), arrays)
    if chunk is None:
        return jax.vmap(function)(arrays)
    return jax.lax.map(function, arrays, batch_size=chunk)


def _check_outcomes(
    apply: Apply,
    params: Params,
    inputs: Inputs,
    outcomes: Array | np.ndarray,
    weights: Weights | None,
    log_prob: LogProb,
) -> None:
    """Refuses outcomes that are no row's, or known, counted, and none of a categorical's."""
    *axes, outputs = jax.eval_shape(apply, params, inputs).shape
    shape = jnp.shape(outcomes)
    if shape[: len(axes)] != tuple(axes):
        raise ValueError(
            f"outcomes: needs one a row of the logits, shape {axes}, has shape {list(shape)}"
        )
    if log_prob is not categorical:
        return
    if shape != tuple(axes) or not jnp.issubdtype(jnp.result_type(outcomes), jnp.integer):
        raise ValueError(
            f"outcomes: must be integers of shape {axes}, are {jnp.result_type(outcomes)} of "
            f"shape {list(shape)}"
        )
    if isinstance(outcomes, Tracer) or isinstance(weights, Tracer):
        return
    known = np.asarray(outcomes)
    counted = np.ones(shape, bool)
    if weights is not None:
        positive = np.asarray(weights) > 0
        counted &= positive.reshape(positive.shape + (1,) * (len(shape) - positive.ndim))
    wrong = np.argwhere(counted & ((known < 0) | (known >= outputs)))
    if len(wrong):
        place = tuple(int(index) for index in wrong[0])
        raise ValueError(
            f"outcomes: must be from 0 to {outputs - 1} where the weight is above 0, is "
            f"{known[place]} at {list(place)}"
        )


def _checked(sample: Scores, name: str, least: int) -> Float[np.ndarray, " n"]:
    scores = np.asarray(sample, np.float64)
    if scores.ndim != 1 or len(scores) < least:
        raise ValueError(
            f"{name}: needs a row of at least {least} scores, has shape {list(scores.shape)}"
        )
    if not np.all(np.isfinite(scores)):
        raise ValueError(f"{name}: holds NaN or infinity")
    return scores


def _means_by_prompt(
    sample: Scores, prompts: np.ndarray, name: str, prompts_name: str
) -> tuple[np.ndarray, Float[np.ndarray, " prompts"]]:
    """The prompts, each once and in order, and the mean score of each."""
    scores, names = _checked(sample, name, 1), np.asarray(prompts)
    if names.shape != scores.shape:
        raise ValueError(
            f"{prompts_name}: needs one a score, {len(scores)}, has shape {list(names.shape)}"
        )
    unique, of = np.unique(names, return_inverse=True)
    return unique, np.bincount(of, scores) / np.bincount(of)


def _mean_and_square(sample: Scores, name: str) -> tuple[float, float]:
    """The mean, and the square of its standard error."""
    scores = _checked(sample, name, 2)
    return float(np.mean(scores)), float(np.var(scores, ddof=1) / len(scores))


def _check_spread(variance: float, *samples: Scores | OtherScores) -> None:
    """Refuses a variance of scores that is no more than their rounding."""
    known = [np.asarray(sample) for sample in samples]
    precision = max(
        float(jnp.finfo(each.dtype if jnp.issubdtype(each.dtype, jnp.floating) else float).eps)
        for each in known
    )
    rounding = precision * max(float(np.max(np.abs(each.astype(np.float64)))) for each in known)
    if variance <= (_SAME * rounding) ** 2:
        raise ValueError("sample: all scores are the same, so that they have no spread to test by")


def _test(mean: float, square: float, n: int, degrees_of_freedom: float) -> ScoreTest:
    return ScoreTest(mean / square**0.5, mean, square**0.5, n, degrees_of_freedom)


def _upper_tail(z: float, degrees_of_freedom: float) -> float:
    """P(T >= z) of Student's t, or of the standard normal."""
    if math.isinf(degrees_of_freedom):
        return _normal_below(-z)
    # The incomplete beta function is needed in float64: p-values are small.
    with jax.enable_x64(True):
        share = degrees_of_freedom / (degrees_of_freedom + z * z)
        beyond = 0.5 * float(betainc(0.5 * degrees_of_freedom, 0.5, share))
    return beyond if z > 0 else 1 - beyond


def _normal_below(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _normal_above(probability: float) -> float:
    """The normal quantile that the probability is above; that below, 1 - probability, rounds."""
    return -NormalDist().inv_cdf(probability)


def _check_probability(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}: must be between 0 and 1, got {value:g}")
