"""Numbers of labels to measure at, and the mean of a curve over them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

STEP_FACTOR = 3
"""Neighboring budgets of the default grid differ by this factor at most."""


def default_budgets(num_classes: int, available: int, *, points: int = 0) -> tuple[int, ...]:
    """Numbers of labels from one per class to all that are available, in equal factors.

    Args:
        num_classes: the smallest budget.
        available: the largest one.
        points: how many, at least 2; 0 takes as many as factors of at most 3 need.
    """
    if available <= num_classes:
        return (available,)
    steps = points - 1 if points else math.ceil(math.log(available / num_classes) / math.log(STEP_FACTOR) - 1e-9)
    factors = [(available / num_classes) ** (step / steps) for step in range(steps + 1)]
    return tuple(sorted({round(num_classes * factor) for factor in factors}))


def log_mean(budgets: tuple[int, ...], accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,) mean of each draw's curve (B, R) over the logarithm of the number of labels (trapezoids)."""
    if len(budgets) == 1:
        only: NDArray[np.float64] = accuracies[0]
        return only
    places = np.log(budgets)
    areas = (accuracies[1:] + accuracies[:-1]) / 2 * np.diff(places)[:, None]
    mean: NDArray[np.float64] = areas.sum(axis=0) / (places[-1] - places[0])
    return mean
