"""Average precision under weights of the scenes: what resampling evaluates thousands of times.

Which detection hits which object does not depend on the other scenes. It is decided once, for every overlap; what
remains for each resample is a ranking of hits in which every detection has the weight of its scene. With weights of 1
this is the average precision of COCO; with whole numbers it is that of a set in which each scene occurs so often.
Detections with the same score keep the order of the scenes, as in COCO.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.statistics.ranking import Reals, mean_of_defined

VALUES_PER_BLOCK = 2**19  # 4 MB of weights: they stay in the processor's cache


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The detections of one class in all scenes, by falling score, at T overlaps.

    Attributes:
        scene: (D,) of each detection.
        scores: (D,) falling.
        hit: (T, D) whether it found an object that counts and that nothing before it had found.
        ignored: (T, D) whether it is neither right nor wrong.
        objects: (n,) how many objects of each scene count.
    """

    scene: NDArray[np.int64]
    scores: Reals
    hit: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.float64]

    def average_precisions(self, weights: Reals, recalls: Reals) -> Reals:
        """AP in percent at each overlap.

        Args:
            weights: (r, n) of the scenes.
            recalls: (R,) ascending from 0: where the precision is read, each time the highest one at that recall or
                beyond.

        Returns:
            (T, r); NaN where no object has a weight.
        """
        block = max(1, VALUES_PER_BLOCK // max(1, len(self.scene)))
        parts = [self._block(weights[start : start + block], recalls) for start in range(0, len(weights), block)]
        return np.concatenate(parts, axis=1)

    def curve(self, overlap: int) -> tuple[Reals, Reals, Reals]:
        """Recall and precision in [0, 1] after each detection that counts, and its score; at one overlap's index.

        Raises:
            ValueError: no object counts, so that there is no recall.
        """
        total = self.objects.sum()
        if not total:
            raise ValueError("A class without an object that counts has no precision and recall.")
        counts = ~self.ignored[overlap]
        hits = np.cumsum(self.hit[overlap][counts])
        return hits / total, hits / np.arange(1, len(hits) + 1), self.scores[counts]

    def _block(self, weights: Reals, recalls: Reals) -> Reals:
        total = weights @ self.objects  # (r,)
        own = np.ascontiguousarray(weights.T)[self.scene]  # (D, r)
        seen = np.cumsum(own, axis=0)
        values = np.full((len(self.hit), len(weights)), np.nan)
        for index, (hit, ignored) in enumerate(zip(self.hit, self.ignored, strict=True)):
            places = np.flatnonzero(hit)
            counted = seen[places]
            if ignored.any():
                counted = counted - _before(own, np.flatnonzero(ignored), places)
            values[index] = _interpolated(np.cumsum(own[places], axis=0), counted, total, recalls)
        return np.where(total > 0, 100 * values, np.nan)


def _before(own: Reals, ignored: NDArray[np.int64], places: NDArray[np.int64]) -> Reals:
    """(P, r) weight of the ignored detections that rank before each place."""
    sums = np.concatenate([np.zeros((1, own.shape[1])), np.cumsum(own[ignored], axis=0)])
    before: Reals = sums[np.searchsorted(ignored, places)]
    return before


def _interpolated(hits: Reals, counted: Reals, total: Reals, recalls: Reals) -> Reals:
    """Mean precision at the recalls, from the cumulated hits (P, r) and detections (P, r) at every hit."""
    if not len(hits):
        return np.zeros(len(total))
    # Between two hits precision only falls, so that the highest one at a recall or beyond is that at a hit.
    precision = hits / np.maximum(counted, np.finfo(np.float64).tiny)
    highest = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = hits / np.maximum(total, np.finfo(np.float64).tiny)
    reached = np.searchsorted(recalls, recall, side="right")  # how many of the recalls each hit has reached
    gained = np.diff(reached, axis=0, prepend=0)
    mean: Reals = (highest * gained).sum(axis=0) / len(recalls)
    return mean


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedPrecision:
    """Average precision of fixed detections, as a :data:`bench.statistics.weighted.Statistic`.

    Attributes:
        classes: K rankings at the same T overlaps.
        recalls: (R,) where the precision is read.
    """

    classes: tuple[Ranking, ...]
    recalls: Reals

    def by_class(self, weights: Reals) -> Reals:
        """(K, T, r) AP in percent under weights (r, n); NaN for a class without an object."""
        return np.stack([ranking.average_precisions(weights, self.recalls) for ranking in self.classes])

    def by_overlap(self, weights: Reals) -> Reals:
        """(T, r): the mean over the classes that have objects; NaN where none has."""
        every = self.by_class(weights)
        return mean_of_defined(every.reshape(len(every), -1)).reshape(every.shape[1:])

    def __call__(self, weights: Reals) -> Reals:
        """(r,): the mean over classes and overlaps."""
        mean: Reals = self.by_overlap(weights).mean(axis=0)
        return mean
