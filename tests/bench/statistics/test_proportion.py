"""Wilson's interval against its equation, SciPy, and values worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from bench.statistics.proportion import effective_trials, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 17), (941, 1000), (35_000, 50_000)]
)
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_interval_is_that_of_scipy_in_percent(successes: int, n: int, level: float) -> None:
    reference = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    expected = (100 * reference.low, 100 * reference.high)
    assert wilson_interval(successes, n, level=level) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_half_of_four_worked_by_hand() -> None:
    # share 1/2, z = 1.959964: center 1/2, half width z sqrt(1/16 + z²/64) / (1 + z²/4)
    z = 1.959963984540054
    half = z * math.sqrt(1 / 16 + z**2 / 64) / (1 + z**2 / 4)
    assert wilson_interval(2, 4) == pytest.approx((50 - 100 * half, 50 + 100 * half), rel=1e-12)
    assert wilson_interval(2, 4) == pytest.approx((15.0, 85.0), abs=0.01)


def test_ends_are_exact_where_every_or_no_trial_succeeds() -> None:
    low, high = wilson_interval(0, 10)
    assert low == 0.0 and 20 < high < 35
    low, high = wilson_interval(10, 10)
    assert high == 100.0 and 65 < low < 80


def test_points_are_the_ends_of_a_score_test() -> None:
    for end in wilson_interval(30, 40):
        p = end / 100
        assert abs(30 / 40 - p) / math.sqrt(p * (1 - p) / 40) == pytest.approx(1.959963984540054, rel=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=rf"got {successes} of {n}"):
        wilson_interval(successes, n)


def test_an_impossible_level_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got 95"):
        wilson_interval(1, 2, level=95)


def test_trials_that_agree_within_their_cluster_count_for_little_more_than_one() -> None:
    # 3 clusters of 4, shares 1, 1, 0 around 2/3: variance 3/2 · (2 (4/3)² + (8/3)²) / 144 = 1/9, and 2/9 / (1/9) = 2
    success = np.repeat([True, True, False], 4)
    assert effective_trials(success, np.repeat([0, 1, 2], 4)) == pytest.approx(2.0, rel=1e-12)


def test_clusters_of_one_cost_only_the_correction_for_few_and_there_are_never_more_than_all() -> None:
    success = np.arange(40) % 4 > 0
    assert effective_trials(success, np.arange(40)) == pytest.approx(39.0, rel=1e-12)
    assert effective_trials(success, np.arange(40) // 4) == 40.0  # every cluster has the same share


@pytest.mark.parametrize("value", [True, False])
def test_where_all_trials_agree_each_cluster_counts_once(value: bool) -> None:
    assert effective_trials(np.full(12, value), np.repeat([0, 1, 2], 4)) == 3.0


def test_an_interval_over_clusters_covers_the_truth_where_that_over_trials_does_not() -> None:
    generator, truth, repeats = np.random.default_rng(0), 0.7, 600
    members = np.repeat(np.arange(50), 5)
    covered = np.zeros(2)
    for _ in range(repeats):
        success = generator.random(250) < generator.beta(truth, 1 - truth, 50)[members]
        for index, trials in enumerate((250.0, effective_trials(success, members))):
            low, high = wilson_interval(success.mean() * trials, trials)
            covered[index] += low <= 100 * truth <= high
    assert covered[0] / repeats < 0.85
    assert 0.92 < covered[1] / repeats < 0.98
