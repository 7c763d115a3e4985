"""Intervals for proportions."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, in percent.

    It stays inside [0, 100] and keeps its width at 0 and n successes, where the normal approximation has none.

    Args:
        successes: number of successes, 0 … n.
        n: number of trials, at least 1.
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
