"""Intervals, paired differences, and the comparison of a mean with a published one.

The unit is the run. Everything is two-sided.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import polars as pl

LEVEL = 0.95
VERDICT_LEVEL = 0.99
# Fewer runs than this give intervals, and no verdict: "n too small".
ENOUGH = 10


@dataclass(frozen=True)
class Published:
    """A published mean over `n` runs and the half width of its 95 % t-interval."""

    mean: float
    half_width: float
    n: int = 100


@dataclass(frozen=True)
class Mean:
    """A sample's mean, its standard deviation and its t-interval at `LEVEL`.

    Attributes:
        n: size of the sample.
        mean: mean of the sample.
        std: standard deviation (n - 1 in the denominator); None for n = 1.
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
        agrees: whether the difference lies within that interval.
    """

    difference: float
    allowed: float
    agrees: bool


def mean_interval(sample: Float[np.ndarray, " n"], share: bool = False) -> Mean:
    """Mean, standard deviation and two-sided 95 % interval of `sample`, one value a run.

    Args:
        sample: one value a run.
        share: whether the values are shares, whose mean has an interval within [0, 1]: see
            `intervals`.

    Raises:
        ValueError: a share lies outside [0, 1].
    """
    n, mean = len(sample), float(np.mean(sample))
    if share:
        _check_shares(sample, "the sample")
    if n < 2:
        return Mean(n, mean, None, None, None)
    std = float(np.std(sample, ddof=1))
    low, high = intervals(
        np.array([mean]), np.array([std]), np.array([float(n)]), np.array([share])
    )
    return Mean(n, mean, std, float(low[0]), float(high[0]))


def intervals(
    mean: Float[np.ndarray, " groups"],
    std: Float[np.ndarray, " groups"],
    n: Float[np.ndarray, " groups"],
    share: np.ndarray,
) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
    r"""Ends of the two-sided 95 % intervals of many means at once.

    Student's $m \pm t\,s/\sqrt n$; for a share the same on the logit scale, by the delta method,
    so that it lies within [0, 1]: $\sigma(\operatorname{logit} m \pm t\,s/(\sqrt n\,m(1-m)))$. A
    share of 0 or 1 in every run has no logit and no spread: its interval is that point.

    Args:
        mean: means.
        std: standard deviations, n - 1 in the denominator.
        n: sizes of the samples, 2 at least.
        share: whether each is the mean of shares, shape (groups,).

    Returns:
        Lower and upper ends.
    """
    from scipy import special

    sizes, place = np.unique(n, return_inverse=True)
    # Not scipy.stats, here and below: of a command of seconds its import alone would be a part.
    half = special.stdtrit(sizes - 1, (1 + LEVEL) / 2)[place] * std / np.sqrt(n)
    low, high = mean - half, mean + half
    inner = share & (mean > 0) & (mean < 1)
    centre = special.logit(mean[inner])
    half_logit = half[inner] / (mean[inner] * (1 - mean[inner]))
    low[inner], high[inner] = special.expit(centre - half_logit), special.expit(centre + half_logit)
    return low, high


def compare(sample: Float[np.ndarray, " n"], published: Published) -> Verdict | None:
    """Whether a sample's mean is the published one, by Welch's interval of the difference.

    The paper's standard error is read back from its 95 % t-interval. Returns None for fewer than
    `ENOUGH` runs: n is too small for a verdict.
    """
    from scipy import special

    ours = mean_interval(sample)
    if ours.n < ENOUGH or ours.std is None:
        return None
    ours_square = ours.std**2 / ours.n
    paper_square = (published.half_width / special.stdtrit(published.n - 1, (1 + LEVEL) / 2)) ** 2
    square = ours_square + paper_square
    freedom = square**2 / (ours_square**2 / (ours.n - 1) + paper_square**2 / (published.n - 1))
    allowed = float(special.stdtrit(freedom, (1 + VERDICT_LEVEL) / 2) * square**0.5)
    difference = ours.mean - published.mean
    return Verdict(difference, allowed, abs(difference) <= allowed)


def proportion_interval(positive: int, n: int) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval at `LEVEL` of a share, from `positive` of `n`."""
    from scipy import stats

    interval = stats.binomtest(positive, n).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)


def summarise(
    table: "pl.DataFrame",
    by: Sequence[str],
    unit: str = "run",
    shares: Collection[str] = (),
    baseline: Mapping[tuple[Any, ...], tuple[Any, ...]] | None = None,
) -> "pl.DataFrame":
    """Means over units, with intervals, and paired differences to a baseline.

    Values that are null or not finite are not counted; a group that has no other has no row.

    Args:
        table: long table with the columns `by`, `unit`, `metric`, `index` (place in a metric that
            is a list, else null) and `value`, a row a measured number.
        by: columns that name a group, such as the axes of a sweep, or trait and condition.
        unit: column that says which rows are independent and, across groups, belong together.
        shares: metrics that are shares; intervals of their means lie within [0, 1].
        baseline: group by group the one to compare it with, each as the tuple of its values of
            `by`; groups that are not there are compared with none.

    Returns:
        A row a group, metric and index, in the order of `table`: the columns `by`, `metric`,
        `index`, then `n`, `mean`, `std`, `low`, `high` and `difference`, `difference_low`,
        `difference_high`. Differences are of each unit with the same unit of the baseline, with
        Student's interval. What a single unit cannot give is null.

    Raises:
        ValueError: a unit has a metric twice in a group, or a share lies outside [0, 1].

    Example:
        >>> import polars as pl
        >>> runs = {"aux": [1, 1, 3, 3], "run": [0, 1, 0, 1], "value": [0.1, 0.2, 0.5, 0.7]}
        >>> table = pl.DataFrame(runs).with_columns(metric=pl.lit("accuracy"), index=pl.lit(None))
        >>> summary = summarise(table, ["aux"], baseline={(3,): (1,)})
        >>> [round(value, 6) for value in summary["mean"]], round(summary["difference"][1], 6)
        ([0.15, 0.6], 0.45)
    """
    import polars as pl

    by, keys = list(by), [*by, "metric", "index"]
    values = table.select(*keys, unit, pl.col("value").cast(pl.Float64))
    values = values.with_columns(pl.col("index").cast(pl.Int64))
    if values.select(*keys, unit).is_duplicated().any():
        twice = values.filter(values.select(*keys, unit).is_duplicated()).row(0, named=True)
        raise ValueError(f"a {unit} has a metric twice: {twice}")
    values = values.filter(pl.col("value").is_finite())
    for metric in shares:
        _check_shares(values.filter(metric=metric)["value"].to_numpy(), metric)
    summary = _means(values, keys, shares)
    pairs = dict(baseline or {})
    base = pl.DataFrame(
        {name: [group[place] for group in pairs] for place, name in enumerate(by)}
        | {
            f"{name} (base)": [group[place] for group in pairs.values()]
            for place, name in enumerate(by)
        },
        schema={name: values.schema[name] for name in by}
        | {f"{name} (base)": values.schema[name] for name in by},
    )
    others = values.rename({name: f"{name} (base)" for name in by} | {"value": "value (base)"})
    on = [*(f"{name} (base)" for name in by), "metric", "index", unit]
    paired = values.join(base, on=by, nulls_equal=True).join(others, on=on, nulls_equal=True)
    apart = paired.select(*keys, value=pl.col("value") - pl.col("value (base)"))
    differences = _means(apart, keys, ()).select(
        *keys,
        difference="mean",
        difference_low="low",
        difference_high="high",
    )
    return summary.join(differences, on=keys, how="left", nulls_equal=True, maintain_order="left")


def _means(values: "pl.DataFrame", keys: Sequence[str], shares: Collection[str]) -> "pl.DataFrame":
    """n, mean, standard deviation and interval of `value`, a row for every value of `keys`."""
    import polars as pl

    value = pl.col("value")
    means = values.group_by(keys, maintain_order=True).agg(
        n=value.count().cast(pl.Int64), mean=value.mean(), std=value.std()
    )
    several = (means["n"] >= 2).to_numpy()
    ends = np.full((2, means.height), np.nan)
    some = means.filter(several)
    ends[:, several] = intervals(
        some["mean"].to_numpy(),
        some["std"].to_numpy(),
        some["n"].cast(pl.Float64).to_numpy(),
        some["metric"].is_in(list(shares)).to_numpy(),
    )
    return means.with_columns(
        low=pl.Series(ends[0]).fill_nan(None), high=pl.Series(ends[1]).fill_nan(None)
    )


def _check_shares(values: np.ndarray, what: str) -> None:
    if np.any((values < 0) | (values > 1)):
        raise ValueError(f"{what}: a share lies outside [0, 1]")


def above_p(differences: Float[np.ndarray, " n"]) -> float:
    """One-sided p of Student's test that the mean of paired differences is not above 0.

    Args:
        differences: one a run, two at least. Where all are equal, p is 0 or 1 by their sign.
    """
    from scipy import special

    if np.ptp(differences) == 0:
        return 0.0 if differences[0] > 0 else 1.0
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    return float(special.stdtr(len(differences) - 1, -np.mean(differences) / error))


def equivalent(differences: Float[np.ndarray, " n"], margin: float) -> bool:
    """Whether the mean of paired differences surely lies within a margin around 0.

    Two one-sided Student's tests, each at 1 - `LEVEL` (TOST; Schuirmann 1987): whether the 90 %
    interval of the mean lies within (-margin, margin).

    Args:
        differences: one a run, two at least.
        margin: said beforehand, above 0.
    """
    level = 1 - LEVEL
    return above_p(differences + margin) < level and above_p(margin - differences) < level


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, so that any false one is as rare as one alone.

    Holm's step-down: in ascending order each is multiplied by how many are left, and none is
    smaller than the one before (Holm 1979).

    Raises:
        ValueError: one is no number: what was not measured has no p.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    if np.any(np.isnan(p_values)):
        raise ValueError("a p-value is no number")
    order = np.argsort(p_values, kind="stable")
    adjusted, least = [0.0] * len(order), 0.0
    for place, index in enumerate(order):
        least = min(1.0, max(least, (len(order) - place) * p_values[index]))
        adjusted[index] = least
    return adjusted
