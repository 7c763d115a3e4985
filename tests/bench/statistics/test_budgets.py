from __future__ import annotations

import numpy as np
import pytest

from bench.statistics.budgets import default_budgets, log_mean


def test_the_mean_weighs_the_budgets_by_their_logarithm() -> None:
    # between 10 and 100 the mean is 50, over twice that distance it is 80: (50 + 2 * 80) / 3
    assert log_mean((10, 100, 10000), np.array([[40.0], [60.0], [100.0]])) == pytest.approx([70.0])
    assert log_mean((10,), np.array([[40.0, 50.0]])) == pytest.approx([40.0, 50.0])


@pytest.mark.parametrize(
    ("classes", "available", "expected"),
    [
        (10, 3500, (10, 27, 70, 187, 497, 1318, 3500)),
        (10, 90, (10, 30, 90)),
        (10, 91, (10, 21, 44, 91)),
        (10, 10, (10,)),
        (2, 5, (2, 5)),
    ],
)
def test_the_default_budgets_run_from_one_per_class_to_all(
    classes: int, available: int, expected: tuple[int, ...]
) -> None:
    assert default_budgets(classes, available) == expected


def test_a_number_of_points_spreads_that_many_budgets_in_equal_factors() -> None:
    assert default_budgets(2, 2000, points=4) == (2, 20, 200, 2000)
    assert default_budgets(2, 2000, points=2) == (2, 2000)
