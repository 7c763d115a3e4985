"""Bootstrap intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

VALUES_PER_BLOCK = 2**24  # 128 MB of counts


def ratio_interval(
    numerators: NDArray[np.int64],
    denominators: NDArray[np.int64],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a ratio of sums, by resampling the samples behind both sums together.

    Resamples whose denominators add up to 0 have no ratio and are left out.

    Args:
        numerators, denominators: (n,), one pair per sample; the denominators do not all vanish.
        generator: source of the resamples.
        resamples: number of resamples.
        level: coverage.

    Returns:
        Low and high end.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    n = len(numerators)
    if n == 0 or len(denominators) != n or not np.any(denominators):
        raise ValueError(f"A ratio of sums needs as many numerators as denominators, not all 0, got {n} numerators.")
    if not 0 < level < 1:
        raise ValueError(f"level is a coverage between 0 and 1, got {level}.")
    pairs = np.stack([numerators, denominators], axis=1)  # (n, 2)
    block = max(1, VALUES_PER_BLOCK // n)
    sums = np.concatenate(
        [
            generator.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - start)) @ pairs
            for start in range(0, resamples, block)
        ]
    )  # (resamples, 2)
    above, below = sums[sums[:, 1] != 0].T
    low, high = np.quantile(above / below, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
