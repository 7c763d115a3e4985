"""Bootstrap intervals of a ratio of sums."""

from __future__ import annotations

import numpy as np
import pytest

import bench.statistics.bootstrap
from bench.statistics.bootstrap import ratio_interval


def interval(above: list[int], below: list[int], *, seed: int = 0, **settings: float) -> tuple[float, float]:
    generator = np.random.default_rng(seed)
    return ratio_interval(np.array(above), np.array(below), generator=generator, **settings)  # type: ignore[arg-type]


def test_a_proportions_interval_is_close_to_the_binomial_one() -> None:
    hits = [1] * 300 + [0] * 700
    low, high = interval(hits, [1] * 1000, resamples=4000)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=3e-3)


def test_both_sums_come_from_the_same_resample() -> None:
    # Independent resamples would give 2 an interval of some width.
    assert interval([2, 4, 6, 8], [1, 2, 3, 4]) == (2.0, 2.0)


def test_two_samples_worked_by_hand() -> None:
    # Resamples: 0/1 with a quarter, 1/2 with a half, 1/1 with a quarter.
    assert interval([0, 1], [1, 1], level=0.4, resamples=5000) == (0.5, 0.5)
    assert interval([0, 1], [1, 1], level=0.9, resamples=5000) == (0.0, 1.0)


def test_resamples_without_a_ratio_are_left_out() -> None:
    assert interval([1, 0, 0], [2, 0, 0]) == (0.5, 0.5)


def test_the_generator_decides_and_blocks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    above, below = [1, 2, 0, 5, 3, 1], [4, 2, 7, 5, 3, 9]
    whole = interval(above, below, resamples=10)
    assert interval(above, below, resamples=10) == whole != interval(above, below, resamples=10, seed=1)
    monkeypatch.setattr(bench.statistics.bootstrap, "VALUES_PER_BLOCK", 6 * 3)
    assert interval(above, below, resamples=10) == whole


@pytest.mark.parametrize(("above", "below"), [([], []), ([1, 2], [1]), ([0, 0], [0, 0])])
def test_sums_without_a_ratio_are_refused(above: list[int], below: list[int]) -> None:
    with pytest.raises(ValueError, match="as many numerators as denominators, not all 0"):
        interval(above, below)


def test_a_level_that_is_no_coverage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1, got 95\."):
        interval([1], [1], level=95.0)
