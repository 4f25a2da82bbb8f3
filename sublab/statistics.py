"""Intervals, and the comparison of a mean with a published one."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from sublab.paper import Published

LEVEL = 0.95
VERDICT_LEVEL = 0.99


@dataclass(frozen=True)
class Mean:
    """A sample's mean, its standard deviation and its t-interval at `LEVEL`.

    Attributes:
        n: size of the sample.
        mean: its mean.
        std: its standard deviation (n - 1 in the denominator); None for n = 1.
        low, high: ends of the interval; None for n = 1.
    """

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Verdict:
    """A mean against a published one.

    Attributes:
        difference: ours minus the paper's.
        allowed: half width of the `VERDICT_LEVEL` interval of the difference.
        agrees: whether the difference lies within it.
    """

    difference: float
    allowed: float
    agrees: bool


def mean_interval(sample: Float[np.ndarray, " n"]) -> Mean:
    """Mean, standard deviation and two-sided 95 % t-interval of `sample`, one value a run."""
    n, mean = len(sample), float(np.mean(sample))
    if n < 2:
        return Mean(n, mean, None, None, None)
    std = float(np.std(sample, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * std / n**0.5
    return Mean(n, mean, std, mean - half, mean + half)


def compare(sample: Float[np.ndarray, " n"], published: Published) -> Verdict | None:
    """Whether a sample's mean is the published one, by Welch's interval of the difference.

    The paper's standard error is read back from its 95 % t-interval. Returns None for n = 1,
    which has no standard error.
    """
    ours = mean_interval(sample)
    if ours.std is None:
        return None
    ours_square = ours.std**2 / ours.n
    paper_square = (published.half_width / stats.t.ppf((1 + LEVEL) / 2, published.n - 1)) ** 2
    square = ours_square + paper_square
    freedom = square**2 / (ours_square**2 / (ours.n - 1) + paper_square**2 / (published.n - 1))
    allowed = float(stats.t.ppf((1 + VERDICT_LEVEL) / 2, freedom) * square**0.5)
    difference = ours.mean - published.mean
    return Verdict(difference, allowed, abs(difference) <= allowed)


def proportion_interval(positive: int, n: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval at `LEVEL` of a share, from `positive` of `n`."""
    interval = stats.binomtest(positive, n).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)
