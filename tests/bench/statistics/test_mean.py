from __future__ import annotations

import numpy as np
import pytest

from bench.statistics.mean import normal_interval, student_interval


def test_the_interval_of_four_values() -> None:
    # mean 3, sample variance (4 + 1 + 1 + 4) / 3, z = 1.959964
    low, high = normal_interval(np.array([1.0, 2.0, 4.0, 5.0]))
    half = 1.959964 * (10 / 3) ** 0.5 / 2
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=1e-6)


def test_it_covers_the_mean_of_skewed_values_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.exponential(size=(2000, 300))
    covered = [low <= 1 <= high for low, high in map(normal_interval, samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(("count", "level"), [(1, 0.95), (5, 1.0), (5, 0.0)])
def test_an_interval_without_meaning_is_refused(count: int, level: float) -> None:
    with pytest.raises(ValueError, match=f"got {count} and {level}"):
        normal_interval(np.ones(count), level=level)


def test_the_interval_of_three_values_by_student() -> None:
    low, high = student_interval(np.array([1.0, 2.0, 3.0]))  # t(2) at 97.5 % is 4.302653
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), rel=1e-6)


@pytest.mark.parametrize(("count", "level"), [(1, 0.95), (5, 1.0)])
def test_an_interval_by_student_without_meaning_is_refused(count: int, level: float) -> None:
    with pytest.raises(ValueError, match=f"got {count} and {level}"):
        student_interval(np.ones(count), level=level)
