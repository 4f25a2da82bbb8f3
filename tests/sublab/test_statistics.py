"""Claims about intervals and verdicts."""

import subprocess
import sys
import time
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sublab import statistics
from sublab.statistics import (
    ENOUGH,
    Published,
    above_p,
    compare,
    equivalent,
    holm,
    mean_interval,
    summarise,
)

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
    verdict = compare(RNG.normal(0.9, 0.05, 20), Published(0.5284, 0.0221))
    assert verdict is not None
    assert not verdict.agrees
    assert verdict.difference > verdict.allowed


def test_under_ten_runs_there_is_no_verdict():
    sample = RNG.normal(0.5, 0.1, ENOUGH)
    assert ENOUGH == 10
    assert compare(sample[:-1], Published(0.5, 0.1)) is None
    assert compare(sample, Published(0.5, 0.1)) is not None


# --- shares -------------------------------------------------------------------------------------


def test_the_interval_of_a_share_is_the_delta_methods_on_the_logit_scale():
    sample = RNG.beta(2, 5, 12)
    mean, half = sample.mean(), stats.t.ppf(0.975, 11) * stats.sem(sample)
    ends = [
        1 / (1 + np.exp(-(np.log(mean / (1 - mean)) + sign * half / (mean * (1 - mean)))))
        for sign in (-1, 1)
    ]
    ours = mean_interval(sample, share=True)
    assert (ours.low, ours.high) == pytest.approx(tuple(ends), rel=1e-12)
    assert (ours.mean, ours.std) == pytest.approx((mean, stats.tstd(sample)))


@pytest.mark.parametrize(
    "sample", [[0.0, 0.9], [1.0, 0.99, 1.0], [0.0, 0.0, 1e-9], [0.0, 1.0]], ids=str
)
def test_the_interval_of_a_share_lies_within_its_range_where_students_does_not(sample):
    plain, share = (mean_interval(np.array(sample), share) for share in (False, True))
    assert plain.low is not None
    assert plain.high is not None
    assert plain.low < 0 or plain.high > 1
    assert share.low is not None
    assert share.high is not None
    assert 0 <= share.low <= share.mean <= share.high <= 1


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_share_of_nothing_or_all_in_every_run_is_a_point(value):
    ours = mean_interval(np.full(5, value), share=True)
    assert (ours.low, ours.high) == (value, value)


def test_the_interval_of_a_share_covers_it_about_as_often_as_it_says():
    draws, n = 2000, 20
    covered = 0
    for sample in RNG.beta(8, 2, (draws, n)):
        ours = mean_interval(sample, share=True)
        assert ours.low is not None
        assert ours.high is not None
        covered += ours.low <= 0.8 <= ours.high
    assert 0.935 < covered / draws < 0.965


def test_what_is_no_share_is_refused():
    with pytest.raises(ValueError, match="outside"):
        mean_interval(np.array([0.5, 1.5]), share=True)


# --- claims -------------------------------------------------------------------------------------


def test_above_is_students_one_sided_test_of_the_differences():
    for shift in (-0.3, 0.0, 0.02, 0.3):
        differences = RNG.normal(shift, 0.1, 12)
        test: Any = stats.ttest_1samp(differences, 0, alternative="greater")
        assert above_p(differences) == pytest.approx(test.pvalue)


def test_differences_below_0_are_not_above_it():
    differences = RNG.normal(0.3, 0.1, 12)
    assert above_p(differences) < 0.001
    assert above_p(-differences) == pytest.approx(1 - above_p(differences))


@pytest.mark.parametrize(("value", "p"), [(0.2, 0.0), (0.0, 1.0), (-0.2, 1.0)])
def test_differences_that_are_all_equal_are_judged_by_their_sign(value, p):
    assert above_p(np.full(5, value)) == p


def test_where_nothing_is_above_one_in_twenty_draws_seems_so():
    few = sum(above_p(sample) < 0.05 for sample in RNG.normal(size=(2000, 10)))
    assert stats.binomtest(few, 2000, 0.05).pvalue > 1e-3


def test_equivalent_is_the_90_percent_interval_within_the_margin():
    found = set()
    for shift in np.linspace(-0.4, 0.4, 41):
        differences = shift + RNG.normal(0, 0.2, 10)
        low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.9)
        inside = -0.25 < low < high < 0.25
        assert equivalent(differences, 0.25) == inside
        found.add(inside)
    assert found == {True, False}


def test_scattered_differences_are_not_equivalent_though_none_is_shown_to_be_above_0():
    scattered = np.array([2.0, -2.0] * 5)
    assert above_p(scattered) > 0.05
    assert not equivalent(scattered, 0.7)
    assert equivalent(scattered / 20, 0.7)


def test_a_steady_difference_beyond_the_margin_is_not_equivalent():
    assert not equivalent(np.full(10, 0.8), 0.7)
    assert not equivalent(np.full(10, -0.8), 0.7)
    assert equivalent(np.full(10, 0.6), 0.7)


def test_holm_multiplies_by_how_many_are_left_and_never_falls():
    # Ascending: 4 * 0.01, 3 * 0.02, 2 * 0.03, 1 * 0.04, of which the last must not fall below.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_what_was_not_measured_has_no_corrected_p():
    with pytest.raises(ValueError, match="no number"):
        holm([0.01, float("nan")])


def test_a_p_below_the_level_may_be_above_it_among_others():
    (first, *_) = holm([0.03, 0.5, 0.6])
    assert first == pytest.approx(0.09)


p_values = st.lists(st.floats(0, 1), max_size=12)


@given(p_values)
def test_holm_never_falls_below_the_p_nor_rises_above_bonferronis(values):
    adjusted = holm(values)
    assert len(adjusted) == len(values)
    for p, corrected in zip(values, adjusted, strict=True):
        assert p <= corrected <= min(1, p * len(values))


@given(p_values, st.randoms(use_true_random=False))
def test_holm_keeps_the_order_of_the_ps_and_does_not_depend_on_it(values, random):
    places = list(range(len(values)))
    random.shuffle(places)
    adjusted = holm(values)
    assert holm([values[place] for place in places]) == [adjusted[place] for place in places]
    by_size = [corrected for _, corrected in sorted(zip(values, adjusted, strict=True))]
    assert by_size == sorted(by_size)


# --- the summary --------------------------------------------------------------------------------


def long_table(**columns: list) -> pl.DataFrame:
    table = pl.DataFrame(columns)
    if "index" not in columns:
        table = table.with_columns(index=pl.lit(None, dtype=pl.Int64))
    return table


def drawn(groups: list, runs: int, metric: str = "accuracy") -> pl.DataFrame:
    shape = (len(groups), runs)
    return long_table(
        condition=[group for group in groups for _ in range(runs)],
        run=[run for _ in groups for run in range(runs)],
        metric=[metric] * len(groups) * runs,
        value=RNG.uniform(0.2, 0.8, shape).ravel().tolist(),
    )


def test_a_summary_is_the_mean_interval_of_every_group():
    table = drawn(["student", "teacher"], 7)
    for shares in ((), ("accuracy",)):
        summary = summarise(table, ["condition"], shares=shares)
        assert summary.columns == [
            *("condition", "metric", "index", "n", "mean", "std", "low", "high"),
            *("difference", "difference_low", "difference_high"),
        ]
        for row in summary.iter_rows(named=True):
            sample = table.filter(condition=row["condition"])["value"].to_numpy()
            ours = mean_interval(sample, share=bool(shares))
            for name in ("n", "mean", "std", "low", "high"):
                assert row[name] == pytest.approx(getattr(ours, name), rel=1e-12)
            assert row["difference"] is None


def test_differences_are_paired_by_unit_also_where_the_runs_lie_in_another_order():
    table = drawn(["student", "control"], 9)
    shuffled = table.sample(fraction=1, shuffle=True, seed=1)
    summary = summarise(shuffled, ["condition"], baseline={("student",): ("control",)})
    student, control = (
        table.filter(condition=name).sort("run")["value"].to_numpy()
        for name in ("student", "control")
    )
    test: Any = stats.ttest_rel(student, control)
    low, high = test.confidence_interval(0.95)
    row = summary.row(by_predicate=pl.col("condition") == "student", named=True)
    assert row["difference"] == pytest.approx((student - control).mean())
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((low, high))
    assert summary.filter(condition="control")["difference"].to_list() == [None]


def test_a_run_that_one_of_two_groups_lacks_is_in_no_difference():
    table = drawn(["student", "control"], 5)
    lacking = table.filter(~((pl.col("condition") == "control") & (pl.col("run") == 2)))
    summary = summarise(lacking, ["condition"], baseline={("student",): ("control",)})
    whole = table.filter(pl.col("run") != 2)
    expected = summarise(whole, ["condition"], baseline={("student",): ("control",)})
    assert summary["difference"][0] == pytest.approx(expected["difference"][0])
    assert summary["n"].to_list() == [5, 4]


def test_metrics_and_places_of_a_list_are_summed_up_apart():
    table = pl.concat(
        [
            drawn(["student"], 4),
            drawn(["student"], 4, "cka").with_columns(index=pl.lit(0, dtype=pl.Int64)),
            drawn(["student"], 4, "cka").with_columns(index=pl.lit(1, dtype=pl.Int64)),
        ]
    )
    summary = summarise(table, ["condition"], baseline={("student",): ("student",)})
    assert summary.select("metric", "index").rows() == [
        ("accuracy", None),
        ("cka", 0),
        ("cka", 1),
    ]
    assert summary["difference"].to_list() == [0.0, 0.0, 0.0]


def test_what_is_missing_or_not_finite_is_not_counted():
    values = [0.5, None, float("nan"), float("inf"), 0.7]
    table = long_table(aux=[1] * 5, run=list(range(5)), metric=["loss"] * 5, value=values)
    lost = long_table(aux=[2], run=[0], metric=["loss"], value=[float("nan")])
    summary = summarise(pl.concat([table, lost]), ["aux"])
    assert summary.select("aux", "n", "mean").rows() == [(1, 2, pytest.approx(0.6))]


def test_one_run_has_a_mean_and_nothing_else():
    summary = summarise(drawn(["a", "b"], 1), ["condition"], baseline={("a",): ("b",)})
    row = summary.row(0, named=True)
    assert (row["n"], row["std"], row["low"], row["high"]) == (1, None, None, None)
    assert row["difference"] is not None
    assert (row["difference_low"], row["difference_high"]) == (None, None)


def test_groups_of_several_columns_with_gaps_and_fractions_find_their_baselines():
    table = long_table(
        rate=[None, None, 0.1, 0.1],
        start=["same", "same", "other", "other"],
        run=[0, 1, 0, 1],
        metric=["accuracy"] * 4,
        value=[0.5, 0.6, 0.2, 0.4],
    )
    pairs = {(0.1, "other"): (None, "same"), (None, "same"): (0.1, "other")}
    summary = summarise(table, ["rate", "start"], baseline=pairs)
    assert summary["difference"].to_list() == pytest.approx([0.25, -0.25])


def test_a_run_counted_twice_is_refused():
    table = drawn(["student"], 3)
    with pytest.raises(ValueError, match="a run has a metric twice"):
        summarise(pl.concat([table, table[:1]]), ["condition"])


def test_a_share_out_of_range_is_refused_by_name():
    table = drawn(["student"], 3).with_columns(value=pl.col("value") + 1)
    with pytest.raises(ValueError, match="accuracy: a share lies outside"):
        summarise(table, ["condition"], shares={"accuracy"})


def test_nothing_gives_an_empty_summary_with_its_columns():
    table = drawn(["student"], 3)
    assert summarise(table[:0], ["condition"]).columns == summarise(table, ["condition"]).columns


def test_a_summary_of_a_large_sweep_takes_a_moment():
    groups = list(range(250))
    table = drawn(groups, 20)
    pairs = {(group,): (0,) for group in groups[1:]}
    start = time.process_time()
    summary = summarise(table, ["condition"], shares={"accuracy"}, baseline=pairs)
    # Two hundredths of a second here; group by group in Python it would take seconds.
    assert time.process_time() - start < 1
    assert summary.height == 250


def test_importing_statistics_brings_no_scipy():
    program = "import sublab.statistics, sys; print([m for m in sys.modules if m[:5] == 'scipy'])"
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert process.stdout == "[]\n"
    assert statistics.Published(0.5, 0.1).n == 100
