"""Intervals for proportions."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


def wilson_interval(successes: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, in percent.

    It stays inside [0, 100] and keeps its width at 0 and n successes, where the normal approximation has none.

    Args:
        successes: number of successes, 0 … n.
        n: number of trials, at least 1; an effective number need not be whole.
        level: coverage.

    Returns:
        Low and high end, in percent.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"A proportion needs 0 <= successes <= n and n >= 1, got {successes} of {n}.")
    if not 0 < level < 1:
        raise ValueError(f"level is a coverage between 0 and 1, got {level}.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == n else min(1.0, center + half)
    return 100 * low, 100 * high


def effective_trials(success: NDArray[np.bool_], members: NDArray[np.int64]) -> float:
    """How many independent trials tell as much about a share as these trials in clusters, such as images of patients.

    The number of trials over the design effect, which is the variance of the share over clusters, as a ratio of sums,
    relative to that of independent trials; never more than there are trials. Where all trials agree nothing shows how
    alike those of a cluster are: then each cluster counts once.

    Args:
        success: (n,).
        members: (n,) cluster of each trial, 0 … C - 1.

    Source: Rao and Scott 1992, A simple method for the analysis of clustered binary data, doi:10.2307/2532311.
    """
    n, count = len(success), int(members.max()) + 1
    share = float(success.mean())
    if count < 2 or share in (0.0, 1.0):
        return float(count)
    surplus = np.bincount(members, weights=success - share)  # (C,)
    variance = count / (count - 1) * float(surplus @ surplus) / n**2
    return min(float(n), share * (1 - share) / variance) if variance > 0 else float(n)
