"""Claims about intervals and verdicts."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from sublab.paper import FIGURE_10B, Published
from sublab.statistics import compare, mean_interval

RNG = np.random.default_rng(0)


def test_the_interval_is_students():
    sample = RNG.normal(0.5, 0.1, 20)
    low, high = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    ours = mean_interval(sample)
    assert (ours.low, ours.high) == pytest.approx((low, high))
    assert ours.std == pytest.approx(stats.tstd(sample))
    assert (ours.n, ours.mean) == (20, pytest.approx(sample.mean()))


def test_one_run_has_a_mean_and_no_interval_and_no_verdict():
    ours = mean_interval(np.array([0.3]))
    assert (ours.n, ours.mean, ours.std, ours.low, ours.high) == (1, 0.3, None, None, None)
    assert compare(np.array([0.3]), Published(0.3, 0.1)) is None


def test_the_verdict_is_welchs_test_at_99_percent():
    """Against scipy's Welch test of a sample that has the published mean and interval."""
    paper = RNG.normal(size=100)
    half = float(stats.t.ppf(0.975, 99)) * 0.11 / 10
    paper = 0.5284 + (paper - paper.mean()) / stats.tstd(paper) * 0.11
    for shift in (0.0, 0.05, 0.07, 0.2):
        sample = 0.5284 + shift + RNG.normal(0, 0.09, 20)
        verdict = compare(sample, Published(0.5284, half))
        test: Any = stats.ttest_ind(sample, paper, equal_var=False)
        assert verdict is not None
        assert verdict.agrees == (test.pvalue >= 0.01)
        low, high = test.confidence_interval(0.99)
        assert verdict.allowed == pytest.approx((high - low) / 2, rel=1e-6)
        assert verdict.difference == pytest.approx((high + low) / 2, rel=1e-6)


def test_a_mean_that_is_the_papers_fails_in_about_one_of_a_hundred_draws():
    paper_std, n = 0.11, 20
    failures = 0
    for _ in range(2000):
        paper = RNG.normal(0.5, paper_std, 100)
        half = float(stats.t.ppf(0.975, 99) * stats.tstd(paper) / 10)
        verdict = compare(RNG.normal(0.5, paper_std, n), Published(float(paper.mean()), half))
        failures += verdict is not None and not verdict.agrees
    assert stats.binomtest(failures, 2000, 0.01).pvalue > 1e-3


def test_a_mean_far_from_the_papers_is_told():
    verdict = compare(RNG.normal(0.9, 0.05, 20), FIGURE_10B["student_aux"])
    assert verdict is not None
    assert not verdict.agrees
    assert verdict.difference > verdict.allowed
