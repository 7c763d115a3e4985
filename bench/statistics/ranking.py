"""How well scores rank positives above negatives: area under the ROC curve, average precision, bootstrap intervals.

Every function takes weights of the images, one line for each resample, so that thousands of resamples share one sort.
Patients are resampled whole: images of one patient are not independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.metric import Metric
from bench.protocol import Score

Reals = NDArray[np.float64]
Curve = Callable[[Reals, NDArray[np.bool_], Reals], Reals]
"""From scores (n,), positives (n,) and weights (R, n) to values (R,), NaN where a kind has no weight."""

VALUES_PER_BLOCK = 2**22  # 32 MB of weights
RESAMPLES = 1000
LEVEL = 0.95
DEFINED = 0.5
"""An interval needs this share of the resamples to have images of both kinds of everything that is averaged."""


def roc_areas(scores: Reals, positive: NDArray[np.bool_], weights: Reals) -> Reals:
    """Area under the ROC curve in percent: the share of (positive, negative) pairs in order, ties count half.

    Args:
        scores: (n,), higher is likelier.
        positive: (n,).
        weights: (R, n) not negative; ones for the plain area.

    Returns:
        (R,); NaN where either kind has no weight.

    Source: Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    positive, weights, first, last = _sorted(scores, positive, weights)
    below = _summed(np.where(positive, 0.0, weights))  # (R, n + 1) weight of the negatives before each place
    pairs = (weights[:, positive] * (below[:, first[positive]] + below[:, last[positive]]) / 2).sum(axis=1)
    return 100 * _share(pairs, weights[:, positive].sum(axis=1) * below[:, -1])


def average_precisions(scores: Reals, positive: NDArray[np.bool_], weights: Reals) -> Reals:
    """Average precision in percent: Σ (R_i - R_{i-1}) P_i over the thresholds, without interpolation.

    Args:
        scores: (n,), higher is likelier.
        positive: (n,).
        weights: (R, n) not negative.

    Returns:
        (R,); NaN without a positive, and without a negative, which every ranking would rank perfectly.
    """
    positive, weights, first, _ = _sorted(scores, positive, weights)
    hits = weights[:, positive]  # (R, p)
    start = first[positive]  # the place from which on the score is at least that of the positive
    every, found = _summed(weights), _summed(np.where(positive, weights, 0.0))  # (R, n + 1)
    precision = _share(found[:, -1:] - found[:, start], every[:, -1:] - every[:, start])  # (R, p)
    value = _share((hits * np.nan_to_num(precision)).sum(axis=1), hits.sum(axis=1))
    return np.where(weights[:, ~positive].sum(axis=1) > 0, 100 * value, np.nan)


def _sorted(
    scores: Reals, positive: NDArray[np.bool_], weights: Reals
) -> tuple[NDArray[np.bool_], Reals, NDArray[np.int64], NDArray[np.int64]]:
    """Positives and weights by rising score, and the first place with the score of each and that after it."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    first, last = np.searchsorted(ranked, ranked, side="left"), np.searchsorted(ranked, ranked, side="right")
    return positive[order], weights[:, order], first, last


def _summed(values: Reals) -> Reals:
    """Sums (R, n + 1) over the places before each."""
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


def _share(part: Reals, whole: Reals) -> Reals:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def recalls(correct: NDArray[np.bool_], labels: NDArray[np.int64], classes: NDArray[np.int64], weights: Reals) -> Reals:
    """Share of correct images of each class in percent, (len(classes), R); NaN where a class has no weight."""
    values = []
    for label in classes:
        rows = labels == label
        total = weights[:, rows].sum(axis=1)
        values.append(100 * _share(weights[:, rows] @ correct[rows].astype(np.float64), total))
    return np.array(values).reshape(len(classes), len(weights))


def curves(curve: Curve, scores: Reals, labels: NDArray[np.int64], weights: Reals) -> Reals:
    """A curve's values for each column, (F, R).

    Args:
        curve: such as :func:`roc_areas`.
        scores: (n, F).
        labels: (n, F) 1 positive, 0 negative; images with any other label do not count for that column.
        weights: (R, n).
    """
    values = []
    for column, y in zip(scores.T, labels.T, strict=True):
        known = (y == 0) | (y == 1)
        values.append(curve(column[known], y[known] == 1, weights[:, known]))
    return np.array(values).reshape(scores.shape[1], len(weights))


@dataclass(frozen=True)
class Interval:
    """An interval of the bootstrap; None where too few resamples define the statistic."""

    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """Values of several parts, such as findings, and of their mean, with intervals.

    Attributes:
        values: (F,); NaN where the split has images of one kind only.
        intervals: F intervals.
        mean: of the parts that are defined; NaN without any.
        mean_interval: of the same parts.
    """

    values: Reals
    intervals: tuple[Interval, ...]
    mean: float
    mean_interval: Interval

    def score(self, metric: Metric, *, n: int, covers: str) -> Score:
        """The mean as a score.

        Args:
            metric: what was measured.
            n: images of the split.
            covers: what was resampled, see :class:`Units`.
        """
        interval = self.mean_interval
        if interval.low is None:
            return Score(metric=metric, value=self.mean, n=n)
        method = f"bootstrap {LEVEL:.0%}"
        return Score(
            metric=metric, value=self.mean, n=n, low=interval.low, high=interval.high, covers=covers, method=method
        )


@dataclass(frozen=True, eq=False)
class Units:
    """What the bootstrap draws: patients where they are known, otherwise images.

    Attributes:
        members: (n,) the unit of each image, 0 … count - 1.
        count: number of units.
        covers: in words, for a score.
    """

    members: NDArray[np.int64]
    count: int = field(default=0)
    covers: str = "test images"

    @classmethod
    def of(cls, n: int, patients: NDArray[np.str_] | None = None) -> Units:
        """The units of n images; an image whose patient is an empty string is a unit of its own."""
        if patients is None or not any(patients):
            return cls(np.arange(n), n)
        names = [f"p{name}" if name else f"i{index}" for index, name in enumerate(patients)]
        _, members = np.unique(names, return_inverse=True)
        return cls(members.astype(np.int64), int(members.max()) + 1, "patients")


def percentiles(values: Reals, value: float, level: float) -> Interval:
    """Percentile interval from resampled values, which holds the value itself; absent where too few are defined."""
    return _between(values, value, (1 - level) / 2, (1 + level) / 2)


def bias_corrected(values: Reals, value: float, level: float) -> Interval:
    """Percentile interval that is moved by how far the resampled values lie, in the median, from the value.

    A statistic that is too high on average in small samples, as interpolated average precision is, rises once more in
    resamples; plain percentiles then lie too high by about twice that.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 14.3, without acceleration.
    """
    from scipy.special import ndtr, ndtri  # imported late: only detection needs it

    kept = values[~np.isnan(values)]
    if not len(kept):
        return Interval(None, None)
    below = float((kept < value).mean() + (kept == value).mean() / 2)
    shift = 2 * ndtri(np.clip(below, 0.5 / len(kept), 1 - 0.5 / len(kept)))
    half = ndtri((1 + level) / 2)
    return _between(values, value, float(ndtr(shift - half)), float(ndtr(shift + half)))


def resample(
    statistic: Callable[[Reals], Reals],
    units: Units,
    *,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    interval: Callable[[Reals, float, float], Interval] = percentiles,
) -> Resampled:
    """Values and intervals of a statistic with several parts, and of the mean of the defined parts.

    A resample that leaves a part undefined, such as a rare finding without a patient who has it, does not count for
    that part; the mean is over the other parts there.

    Args:
        statistic: from weights (R, n) to values (F, R), NaN where undefined.
        units: what is drawn with replacement.
        generator: source of the resamples.
        resamples: number of resamples.
        level: coverage.
        interval: from resampled values, the value and ``level``: :func:`percentiles` or :func:`bias_corrected`.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; resampling of whole patients:
    Rutter 2000, doi:10.1016/S1076-6332(00)80381-5.
    """
    n = len(units.members)
    values = statistic(np.ones((1, n)))[:, 0]
    defined = ~np.isnan(values)
    block = max(1, VALUES_PER_BLOCK // max(1, n))
    shares = np.full(units.count, 1 / units.count)
    drawn = []
    for start in range(0, resamples, block):
        counts = generator.multinomial(units.count, shares, size=min(block, resamples - start))
        drawn.append(statistic(counts[:, units.members].astype(np.float64)))
    every = np.concatenate(drawn, axis=1)  # (F, resamples)
    means = mean_of_defined(every[defined])
    return Resampled(
        values=values,
        intervals=tuple(interval(part, value, level) for part, value in zip(every, values, strict=True)),
        mean=float(values[defined].mean()) if defined.any() else float("nan"),
        mean_interval=interval(means, float(values[defined].mean()) if defined.any() else float("nan"), level),
    )


def mean_of_defined(parts: Reals) -> Reals:
    """Mean of (F, R) over the parts that are not NaN, for each of R resamples; NaN where none is left."""
    defined = np.isfinite(parts)
    count = defined.sum(axis=0)
    mean: Reals = np.full(parts.shape[1], np.nan)
    np.divide(np.where(defined, parts, 0.0).sum(axis=0), count, out=mean, where=count > 0)
    return mean


def _between(values: Reals, value: float, lower: float, upper: float) -> Interval:
    """Two quantiles of the resampled values."""
    kept = values[~np.isnan(values)]
    if np.isnan(value) or len(kept) < DEFINED * len(values):
        return Interval(None, None)
    low, high = np.quantile(kept, [lower, upper])
    # The mean of few resamples of a skewed statistic may lie outside by a hair: the interval holds the value.
    return Interval(min(float(low), value), max(float(high), value))
