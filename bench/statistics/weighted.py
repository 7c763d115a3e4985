"""Metrics of fixed predictions under weights of the images: what resampling evaluates thousands of times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.statistics.ranking import Reals, curves, mean_of_defined, recalls, roc_areas

Statistic = Callable[[Reals], Reals]
"""A metric of fixed predictions: weights (r, n) of the images, one line a resample, to values (r,); NaN where a
resample leaves the metric undefined."""


@dataclass(frozen=True)
class Accuracy:
    """Share of correct images in percent, from ``correct`` (n,)."""

    correct: NDArray[np.bool_]

    def __call__(self, weights: Reals) -> Reals:
        share: Reals = (weights @ self.correct.astype(np.float64)) / weights.sum(axis=1)
        return 100 * share


@dataclass(frozen=True)
class BalancedAccuracy:
    """Mean over the classes in ``labels`` (n,) of the share of correct images, in percent."""

    correct: NDArray[np.bool_]
    labels: NDArray[np.int64]

    def __call__(self, weights: Reals) -> Reals:
        return mean_of_defined(recalls(self.correct, self.labels, np.unique(self.labels), weights))


@dataclass(frozen=True)
class Auroc:
    """Mean over findings of the area under the ROC curve, in percent.

    Attributes:
        scores: (n, F), higher is likelier.
        labels: (n, F) 1 or 0; images with another label do not count for that finding. A finding without images of
            both kinds is left out.
    """

    scores: Reals
    labels: NDArray[np.int64]

    def __call__(self, weights: Reals) -> Reals:
        return mean_of_defined(curves(roc_areas, self.scores, self.labels, weights))
