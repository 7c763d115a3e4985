"""Precision against recall as the mean over the classes, which is what AP averages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.statistics.coco_precision import RECALLS
from bench.statistics.detection_frames import detections_in, objects_in, sizes_in
from bench.statistics.matching import coco_rankings
from bench.statistics.ranking import Reals, mean_of_defined

if TYPE_CHECKING:
    import pandas as pd


def mean_precision(frame: pd.DataFrame, classes: int, overlaps: Sequence[float]) -> Reals:
    """Precision of boxes in percent at COCO's 101 recalls, the highest at each or beyond; its mean over these is AP.

    Args:
        frame: of :func:`bench.statistics.detection.detection_frame`.
        classes: K.
        overlaps: T least overlaps.

    Returns:
        (T, 101), the mean over the classes that have objects; NaN where none has.
    """
    found, truth, least = detections_in(frame), objects_in(frame), np.asarray(overlaps, dtype=np.float64)
    rankings = coco_rankings(truth, found, sizes_in(frame), classes=classes, overlaps=least, kind="box")
    values = np.full((classes, len(least), len(RECALLS)), np.nan)
    for label, ranking in enumerate(rankings):
        if not ranking.objects.sum():
            continue
        for index in range(len(least)):
            recall, precision, _ = ranking.curve(index)
            highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
            values[label, index] = 100 * highest[np.searchsorted(recall, RECALLS)]
    return mean_of_defined(values.reshape(classes, -1)).reshape(len(least), len(RECALLS))
