"""The statistics hold their published values, and agree with statsmodels wherever it has the method."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from rtls_analysis.analysis.intervals import cluster_rate, kish, newcombe, wilson

WILSON = [  # numerator, denominator, limits in percent, decimals that are told
    (0, 10, 0, 27.7533, 4),
    (1, 10, 1.7876, 40.4150, 4),
    (5, 10, 23.6593, 76.3407, 4),
    (10, 10, 72.2467, 100, 4),
    (0, 500, 0, 0.7624, 4),
    (3, 500, 0.2043, 1.7490, 4),
    (82, 100, 73.3326, 88.2998, 4),
    (2975, 1_000_000, 0.2870, 0.3084, 4),
    (5155, 1_000_000, 0.5017, 0.5297, 4),
    (7377, 1_000_000, 0.7211, 0.7547, 4),
]
NEWCOMBE = [
    ((7377, 1_000_000), (5155, 1_000_000), (0.2222, 0.2003, 0.2441)),
    ((74_256, 90_938), (62_885, 94_037), (14.7830, 14.3906, 15.1748)),
]
SIZES = [1000, 400, 100, 50, 20, 10, 5, 5, 5, 5]
HAVING = [1000, 0, 90, 50, 10, 10, 0, 5, 5, 0]


@pytest.mark.parametrize(("yes", "trials", "low", "high", "decimals"), WILSON)
def test_wilson(yes: int, trials: int, low: float, high: float, decimals: int) -> None:
    """The interval of one rate is the published one."""
    found = wilson(yes, trials)
    assert [round(100 * float(limit), decimals) for limit in found] == [low, high]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**7), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson_agrees_with_statsmodels(trials: int, share: float, confidence: float) -> None:
    """For any rate and any confidence, within [0, 1] and around the rate."""
    yes = round(share * trials)
    low, high = wilson(yes, trials, confidence=confidence)
    assert (low, high) == pytest.approx(
        proportion_confint(yes, trials, alpha=1 - confidence, method="wilson"), abs=1e-9
    )
    assert 0 <= low <= yes / trials <= high <= 1


def test_wilson_of_arrays_and_of_nothing() -> None:
    """Arrays go element by element; without a trial there is no interval."""
    low, high = wilson(np.array([0, 1]), np.array([0, 10]))
    assert math.isnan(low[0])
    assert math.isnan(high[0])
    assert (low[1], high[1]) == wilson(1, 10)


def test_a_confidence_that_is_none_is_refused() -> None:
    """95 instead of 0.95 is a mistake of the caller."""
    with pytest.raises(ValueError, match=r"confidence is 95; give a number between 0 and 1"):
        wilson(1, 10, confidence=95)


@pytest.mark.parametrize(("first", "second", "points"), NEWCOMBE)
def test_newcombe(
    first: tuple[int, int], second: tuple[int, int], points: tuple[float, float, float]
) -> None:
    """The difference of two independent rates, in percentage points, is the published one."""
    assert tuple(round(100 * value, 4) for value in newcombe(first, second)) == points


counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(max_examples=100, deadline=None)
@given(counts, counts)
def test_newcombe_agrees_with_statsmodels(first: tuple[int, int], second: tuple[int, int]) -> None:
    """And is the same, with its sign turned, the other way round."""
    gap, low, high = newcombe(first, second)
    expected = confint_proportions_2indep(*first, *second, method="newcomb", compare="diff")
    assert (low, high) == pytest.approx(expected, abs=1e-9)
    assert newcombe(second, first) == pytest.approx((-gap, -high, -low), abs=1e-12)


def test_clusters() -> None:
    """The published example: one provider decides for most, so sixteen hundred domains tell as much as three."""
    found = cluster_rate(HAVING, SIZES)
    assert found.rate == 0.73125
    assert sum(y / m for y, m in zip(HAVING, SIZES, strict=True)) / len(SIZES) == pytest.approx(0.64)
    assert round(found.standard_error, 4) == 0.2621
    assert round(found.design_effect, 1) == 559.4
    assert found.clusters == 10
    assert found.effective_trials == pytest.approx(1600 / found.design_effect)
    naive = [round(float(limit), 4) for limit in wilson(sum(HAVING), sum(SIZES))]
    assert naive == [0.7090, 0.7524]
    assert round(kish(SIZES), 2) == 2.18


clusters = st.lists(
    st.integers(1, 60).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m))), min_size=2, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(clusters)
def test_clusters_agree_with_statsmodels(rows: list[tuple[int, int]]) -> None:
    """The standard error is the cluster-robust one of a regression on a constant."""
    successes, sizes = zip(*rows, strict=True)
    found = cluster_rate(successes, sizes)
    y = np.concatenate([[1.0] * s + [0.0] * (m - s) for s, m in rows])
    groups = np.repeat(np.arange(len(rows)), sizes)
    fit = sm.OLS(y, np.ones(len(y))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    assert found.rate == pytest.approx(fit.params[0])
    assert found.standard_error == pytest.approx(math.sqrt(fit.cov_params()[0, 0]), abs=1e-9)


def test_clusters_that_all_agree_count_one_decision_each() -> None:
    """Where the spread cannot be had, the effective trials are Kish's number of the sizes, at most the clusters."""
    agreed = cluster_rate([0, 0, 0], [50, 50, 50])
    assert (agreed.rate, agreed.standard_error, agreed.effective_trials) == (0, 0, 3)
    assert math.isnan(agreed.design_effect)
    alone = cluster_rate([3, 0], [10, 0])
    assert (alone.rate, alone.clusters, alone.effective_trials) == (0.3, 1, 1)
    assert math.isnan(alone.standard_error)
    nobody = cluster_rate([], [])
    assert (nobody.clusters, nobody.effective_trials) == (0, 0)
    assert math.isnan(nobody.rate)


def test_a_small_design_effect_makes_no_trials() -> None:
    """Clusters that balance out tell no more than their trials."""
    assert cluster_rate([5, 5, 5], [10, 10, 10]).effective_trials == 30


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40))
def test_kish(weights: list[int]) -> None:
    """Between one and the number of weights, and that where they are equal."""
    assert 1 - 1e-9 <= kish(weights) <= len(weights) + 1e-9
    assert kish([7.0] * len(weights)) == pytest.approx(len(weights))
    assert kish([]) == kish([0, 0]) == 0
