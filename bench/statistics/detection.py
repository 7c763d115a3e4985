"""Scores of detectors from what they found: average precision with intervals, by class, by size, and its curves.

Everything is computed from a frame of :func:`detection_frame`, as it was made or as the store gives it back, so that
scores can be computed again without data or detector.

- AP, AP50 and AP75 are COCO's (:mod:`bench.statistics.coco_precision`): AP50 is AP at an overlap of 0.5, no median.
  Mask AP is the same with masks, where the objects and the detector have some.
- VOC AP, AP50 and AP75 read the precision at the 11 recalls 0, 0.1, …, 1, as the VOC challenge did until 2009, at
  overlaps above 0.5, 0.55, …, 0.95, as published values on VOC are computed. They exist in sets of VOC's layout.
- Difficult objects and crowds count in none of them. A class without an object that counts is left out of the mean.
- Nothing found is an AP of 0. Without any object that counts, AP is undefined.
- Intervals are bias-corrected percentiles of 1000 bootstrap resamples of the scenes, of whole patients where they are
  known. Plain percentiles lie too high, since precision is interpolated, which shows in the mean over many classes: in
  a simulation of 20 classes with 120 objects each they held the true AP in 88 % of 150 cases, corrected ones in 95 %;
  of one class, both in 94 to 96 %.

Sources: Lin et al. 2014, arXiv:1405.0312; Everingham et al. 2010, doi:10.1007/s11263-009-0275-4; Efron and Tibshirani,
An Introduction to the Bootstrap, 1993, chapters 13 and 14.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.detection import Layout
from bench.metric import AP, AP50, AP75, MASK_AP, MASK_AP50, MASK_AP75, VOC_AP, VOC_AP50, VOC_AP75, Metric
from bench.protocol import Score
from bench.statistics.average_precision import WeightedPrecision
from bench.statistics.coco_precision import MOST, OVERLAPS, RECALLS, SIZES, CocoEvaluation, Kind, coco_evaluation
from bench.statistics.detection_frames import (
    detection_frame,
    detections_in,
    objects_in,
    patients_in,
    sizes_in,
)
from bench.statistics.matching import coco_rankings, voc_rankings
from bench.statistics.ranking import LEVEL, Reals, Resampled, Units, bias_corrected, resample

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PrecisionRecall",
    "average_precision_statistic",
    "breakdown",
    "detection_frame",
    "detection_scores",
    "precision_recall",
]

Rule = Literal["box", "mask", "voc"]

RULES: dict[Rule, tuple[Metric, Metric, Metric]] = {
    "box": (AP, AP50, AP75),
    "mask": (MASK_AP, MASK_AP50, MASK_AP75),
    "voc": (VOC_AP, VOC_AP50, VOC_AP75),
}
"""The mean over all overlaps, and the values at 0.5 and at 0.75."""
PLACES = {0: slice(None), 1: slice(0, 1), 2: slice(5, 6)}
"""Which overlaps each of the three takes."""
VOC_OVERLAPS: Reals = np.arange(50, 100, 5) / 100
VOC_RECALLS: Reals = np.arange(0.0, 1.1, 0.1)


def detection_scores(
    frame: pd.DataFrame, class_names: Sequence[str], *, layout: Layout, seed: int
) -> tuple[tuple[Score, ...], dict[str, str]]:
    """The nine metrics of detection, in the order box, mask, VOC and of each AP, AP50, AP75.

    Args:
        frame: of :func:`detection_frame`.
        class_names: K names.
        layout: whose rules the set knows.
        seed: of the resamples.

    Returns:
        Scores in percent, NaN where undefined, and the reason for each metric that is.
    """
    truth, found, sizes = objects_in(frame), detections_in(frame), sizes_in(frame)
    scores: list[Score] = []
    undefined: dict[str, str] = {}
    for number, (rule, metrics) in enumerate(RULES.items()):
        if reason := _undefined(rule, frame, layout):
            scores += [Score(metric=metric, value=math.nan, n=len(frame)) for metric in metrics]
            undefined |= {metric.key: reason for metric in metrics}
            continue
        statistic = _precision(frame, len(class_names), rule, slice(None))
        resampled = _resample(statistic, frame, np.random.default_rng([seed, number]))
        values = resampled.values
        if rule != "voc":  # the reported values are those of faster-coco-eval
            evaluation = coco_evaluation(truth, found, sizes, classes=len(class_names), kind=rule)
            values = np.array([evaluation.average_precision(overlap=overlap) for overlap in (None, 0.5, 0.75)])
        scores += _scored(metrics, values, resampled, frame)
    return tuple(scores), undefined


def average_precision_statistic(frame: pd.DataFrame, classes: int, *, metric_key: str) -> WeightedPrecision:
    """One of the metrics as a function of weights (r, n) of the scenes, for paired comparisons.

    Args:
        frame: of :func:`detection_frame`.
        classes: K.
        metric_key: ``ap50``, ``mask_ap``, ``voc_ap75`` …

    Raises:
        ValueError: this is no such metric, or masks are needed that the frame does not have.
    """
    for rule, metrics in RULES.items():
        for place, metric in enumerate(metrics):
            if metric.key == metric_key:
                if rule == "mask" and (reason := _undefined(rule, frame, "coco")):
                    raise ValueError(f"{metric_key} is undefined: {reason}")
                return _precision(frame, classes, rule, PLACES[place])
    known = ", ".join(metric.key for metrics in RULES.values() for metric in metrics)
    raise ValueError(f"{metric_key!r} is no metric of detection. Choose one of {known}.")


def _precision(frame: pd.DataFrame, classes: int, rule: Rule, overlaps: slice) -> WeightedPrecision:
    truth, found = objects_in(frame), detections_in(frame)
    if rule == "voc":
        least = VOC_OVERLAPS[overlaps]
        rankings = voc_rankings(truth, found, scenes=len(frame), classes=classes, overlaps=least)
        return WeightedPrecision(classes=rankings, recalls=VOC_RECALLS)
    least = OVERLAPS[overlaps]
    rankings = coco_rankings(truth, found, sizes_in(frame), classes=classes, overlaps=least, kind=rule)
    return WeightedPrecision(classes=rankings, recalls=RECALLS)


def _undefined(rule: Rule, frame: pd.DataFrame, layout: Layout) -> str:
    """Why the metrics of a rule have no value, or nothing."""
    truth = objects_in(frame)
    if not (~truth.crowd & ~truth.difficult).any():
        return "no object of the test split counts"
    if rule == "voc" and layout != "voc":
        return "the rules of VOC are for sets in VOC's layout"
    if rule == "mask" and not truth.masks:
        return "the objects have no masks"
    if rule == "mask" and "found_masks" not in frame:
        return "the detector found no masks"
    return ""


def _resample(statistic: WeightedPrecision, frame: pd.DataFrame, generator: np.random.Generator) -> Resampled:
    def three(weights: Reals) -> Reals:
        every = statistic.by_overlap(weights)
        return np.stack([every[overlaps].mean(axis=0) for overlaps in PLACES.values()])

    units = Units.of(len(frame), patients_in(frame))
    return resample(three, units, generator=generator, interval=bias_corrected)


def _scored(metrics: Sequence[Metric], values: Reals, resampled: Resampled, frame: pd.DataFrame) -> list[Score]:
    scores = []
    units = Units.of(len(frame), patients_in(frame))
    method = f"bias-corrected bootstrap {LEVEL:.0%}"
    for metric, value, interval in zip(metrics, values.tolist(), resampled.intervals, strict=True):
        score = Score(metric=metric, value=value, n=len(frame))
        # Where all resamples agree, as when nothing is found, a span of no width would claim certainty.
        if interval.low is not None and interval.high is not None and interval.low < interval.high:
            low, high = min(interval.low, value), max(interval.high, value)
            score = Score(
                metric=metric, value=value, n=len(frame), low=low, high=high, covers=units.covers, method=method
            )
        scores.append(score)
    return scores


@dataclass(frozen=True, kw_only=True, eq=False)
class PrecisionRecall:
    """A curve, all values in percent.

    Attributes:
        recall, precision: (m,) after each detection that counts, by falling score.
        scores: (m,) of these detections.
        recalls, interpolated: (101,) recalls 0, 1, …, 100, and the highest precision at each or beyond.
        objects: how many objects count.
        average_precision: mean of ``interpolated``; NaN without an object.
    """

    recall: Reals
    precision: Reals
    scores: Reals
    recalls: Reals
    interpolated: Reals
    objects: int
    average_precision: float


def precision_recall(frame: pd.DataFrame, *, label: int, iou: float = 0.5, rule: Rule = "box") -> PrecisionRecall:
    """The curve of one class.

    Args:
        frame: of :func:`detection_frame`.
        label: of the class.
        iou: least overlap of a hit.
        rule: ``box``, ``mask`` or ``voc``, whose curve is interpolated at 11 recalls only.
    """
    truth, found = objects_in(frame), detections_in(frame)
    least, classes = np.array([iou]), label + 1
    if rule == "voc":
        ranking = voc_rankings(truth, found, scenes=len(frame), classes=classes, overlaps=least)[label]
    else:
        ranking = coco_rankings(truth, found, sizes_in(frame), classes=classes, overlaps=least, kind=rule)[label]
    recalls, objects, nothing = VOC_RECALLS if rule == "voc" else RECALLS, int(ranking.objects.sum()), np.empty(0)
    if not objects:
        return PrecisionRecall(
            recall=nothing,
            precision=nothing,
            scores=nothing,
            recalls=100 * recalls,
            interpolated=np.full(len(recalls), np.nan),
            objects=0,
            average_precision=math.nan,
        )
    recall, precision, scores = ranking.curve(0)
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    interpolated = 100 * highest[np.searchsorted(recall, recalls)]
    return PrecisionRecall(
        recall=100 * recall,
        precision=100 * precision,
        scores=scores,
        recalls=100 * recalls,
        interpolated=interpolated,
        objects=objects,
        average_precision=float(interpolated.mean()),
    )


def breakdown(frame: pd.DataFrame, class_names: Sequence[str]) -> dict[str, Any]:
    """AP in percent by class and by size, and average recall, JSON-serializable; None where nothing counts.

    Returns:
        ``classes``: for each ``name``, ``objects`` (that count), ``difficult``, ``crowd``, ``found``, ``ap``, ``ap50``
        and ``ap75``. ``sizes``: for ``small``, ``medium`` and ``large`` the same of ``name``, ``least`` and ``most``
        area in square pixels, ``objects``, ``ap`` and ``ar``. ``recall``: by 1, 10 and 100 detections of a class in a
        scene. ``scenes``, and ``empty``: of these, without an object. With masks also ``mask_ap`` and so on, and
        ``mask_recall``.
    """
    truth, found, sizes = objects_in(frame), detections_in(frame), sizes_in(frame)
    counts = ~truth.crowd & ~truth.difficult
    result: dict[str, Any] = {
        "scenes": len(frame),
        "empty": len(frame) - len(np.unique(truth.scene)),
        "classes": [
            {
                "name": name,
                "objects": int((counts & (truth.labels == label)).sum()),
                "difficult": int((truth.difficult & (truth.labels == label)).sum()),
                "crowd": int((truth.crowd & (truth.labels == label)).sum()),
                "found": int((found.labels == label).sum()),
            }
            for label, name in enumerate(class_names)
        ],
        "sizes": [
            {"name": name, "least": least, "most": most, "objects": int((counts & _between(truth.areas, span)).sum())}
            for name, span in SIZES.items()
            for least, most in (span,)
        ],
    }
    kinds: tuple[tuple[Kind, str], ...] = (("box", ""), ("mask", "mask_"))
    for kind, prefix in kinds:
        if not counts.any():
            _add(result, None, prefix) if kind == "box" else None
        elif not _undefined(kind, frame, "coco"):
            _add(result, coco_evaluation(truth, found, sizes, classes=len(class_names), kind=kind), prefix)
    return result


def _between(areas: Reals, span: tuple[float, float]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (areas >= span[0]) & (areas <= span[1])
    return inside


def _add(result: dict[str, Any], evaluation: CocoEvaluation | None, prefix: str) -> None:
    """Write the values of one kind into the breakdown."""

    def defined(value: float) -> float | None:
        return None if math.isnan(value) else value

    for label, own in enumerate(result["classes"]):
        for key, overlap in (("ap", None), ("ap50", 0.5), ("ap75", 0.75)):
            value = evaluation.average_precision(overlap=overlap, label=label) if evaluation else math.nan
            own[prefix + key] = defined(value)
    for own in result["sizes"]:
        size = own["name"]
        own[f"{prefix}ap"] = defined(evaluation.average_precision(size=size)) if evaluation else None
        own[f"{prefix}ar"] = defined(evaluation.average_recall(size=size)) if evaluation else None
    result[f"{prefix}recall"] = {
        str(most): defined(evaluation.average_recall(most=most)) if evaluation else None for most in MOST
    }
