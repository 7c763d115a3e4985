"""Intervals for means."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def normal_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a mean by the central limit theorem: mean ± z s / sqrt(n), s the sample standard deviation.

    Args:
        values: (n,) independent values, n at least 2; for skewed ones let n be in the hundreds.
        level: coverage.
    """
    if len(values) < 2 or not 0 < level < 1:
        raise ValueError(f"A mean's interval needs n >= 2 and a level between 0 and 1, got {len(values)} and {level}.")
    mean = float(values.mean())
    half = NormalDist().inv_cdf((1 + level) / 2) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def student_interval(values: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Student's interval of a mean, for a few values that are about normal: mean ± t s / sqrt(n).

    Args:
        values: (n,) independent values, n at least 2.
        level: coverage.
    """
    from scipy.special import stdtrit  # imported late: planning has no need of it

    n = len(values)
    if n < 2 or not 0 < level < 1:
        raise ValueError(f"A mean's interval needs n >= 2 and a level between 0 and 1, got {n} and {level}.")
    mean = float(values.mean())
    half = float(stdtrit(n - 1, (1 + level) / 2)) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half
