"""Classification: from class scores to ranked predictions, and from those to scores with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import DivergenceError
from bench.metric import AUROC, BALANCED_ACCURACY, TOP1, TOP5, Metric
from bench.protocol import Score
from bench.statistics.proportion import effective_trials, wilson_interval
from bench.statistics.ranking import Units, curves, recalls, resample, roc_areas

RANKS = 5
AUROC_CLASSES = 20
"""The area under the ROC curve is measured up to this many classes; predictions then carry all log-probabilities."""


def ranked_predictions(
    class_scores: Tensor, labels: NDArray[np.int64], samples: NDArray[np.int64], *, block: int = 8192
) -> pd.DataFrame:
    """One row per sample: ``sample``, ``label``, ``top1`` … ``top5`` (fewer with fewer classes), ``label_log_score``.

    Equal scores rank by class index, so the order does not depend on the device. A class with the score -inf is not
    ranked: where fewer classes than ranks are left, the last ranks hold -1, which is a miss.

    Args:
        class_scores: (n, K), higher is likelier; log-probabilities by convention.
        labels: (n,) true classes.
        samples: (n,) indices into the dataset.
        block: rows that are sorted at a time.

    Raises:
        DivergenceError: a score is NaN or +inf, or no class of a sample is ranked.
    """
    sound = class_scores.amax(dim=1).isfinite()  # amax passes NaN on
    if not bool(sound.all()):
        raise DivergenceError(
            f"The class scores of {int((~sound).sum())} of {len(sound)} test images are NaN or infinite. The encoder's "
            "features overflow, or what was fitted on them diverged: use smaller learning rates."
        )
    parts = []
    for start in range(0, len(class_scores), block):
        ordered, classes = class_scores[start : start + block].sort(dim=1, descending=True, stable=True)
        parts.append(classes.masked_fill(ordered.isneginf(), -1)[:, :RANKS].cpu())
    ranked = torch.cat(parts).numpy()  # (n, min(5, K))
    own = class_scores.gather(1, torch.as_tensor(labels, device=class_scores.device)[:, None])[:, 0]
    return pd.DataFrame(
        {
            "sample": samples,
            "label": labels,
            **{f"top{rank + 1}": ranked[:, rank] for rank in range(ranked.shape[1])},
            "label_log_score": own.cpu().numpy(),
        }
    )


def top_k_scores(
    predictions: pd.DataFrame, *, num_classes: int, patients: NDArray[np.str_] | None = None
) -> tuple[Score, Score]:
    """Top-1 and top-5 accuracy in percent with Wilson 95 % intervals over the test images.

    Where patients are known the intervals are over patients: images of one patient count for as many independent ones
    as they are worth (Rao and Scott). With fewer than five classes top-5 is not defined: its value is NaN without an
    interval.

    Args:
        predictions: as :func:`ranked_predictions` returns them.
        num_classes: number of classes K.
        patients: (n,) patient of each image; without, images count as independent.
    """
    n = len(predictions)
    units = Units.of(n, patients)
    label = predictions["label"].to_numpy()
    first = predictions["top1"].to_numpy() == label
    top1 = _accuracy(TOP1, first, units)
    if num_classes < RANKS:
        return top1, Score(metric=TOP5, value=math.nan, n=n)
    ranked = predictions[[f"top{rank}" for rank in range(1, RANKS + 1)]].to_numpy()  # (n, 5)
    return top1, _accuracy(TOP5, (ranked == label[:, None]).any(axis=1), units)


def undefined_metrics(num_classes: int) -> dict[str, str]:
    """Reasons, by metric key, for the metrics that :func:`top_k_scores` leaves undefined."""
    if num_classes >= RANKS:
        return {}
    return {TOP5.key: f"top-5 needs at least 5 classes, the dataset has {num_classes}"}


def _accuracy(metric: Metric, correct: NDArray[np.bool_], units: Units) -> Score:
    """The share of ``correct`` (n,) with its interval over the units."""
    n, hits = len(correct), int(correct.sum())
    trials = n if units.count == n else effective_trials(correct, units.members)
    low, high = wilson_interval(hits * (trials / n) if hits < n else trials, trials)
    return Score(metric=metric, value=100 * hits / n, n=n, low=low, high=high, covers=units.covers, method="Wilson 95%")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a classifier scores on the test split.

    Attributes:
        scores: top-1, top-5, balanced accuracy, macro AUROC.
        predictions: as of :func:`ranked_predictions`, with a column ``log_p0`` … of each class where there are at most
            ``AUROC_CLASSES``.
        undefined: reason for each metric that is NaN, by its key.
        absent: names of the classes without a test image; balanced accuracy and AUROC are means over the others.
    """

    scores: tuple[Score, ...]
    predictions: pd.DataFrame
    undefined: dict[str, str]
    absent: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """``undefined``, and ``measured`` where classes are absent."""
        found: dict[str, Any] = {"undefined": self.undefined}
        return {**found, "measured": {"classes_without_test_images": list(self.absent)}} if self.absent else found


def judge(
    log_p: Tensor,
    labels: NDArray[np.int64],
    samples: NDArray[np.int64],
    *,
    class_names: tuple[str, ...],
    patients: NDArray[np.str_] | None,
    generator: np.random.Generator,
) -> Judgement:
    """Scores of a classifier: top-1 and top-5 with Wilson intervals, balanced accuracy and AUROC by the bootstrap.

    The AUROC of a class is that of its probability against all other classes. Patients are resampled whole where they
    are known.

    Args:
        log_p: (n, C) log-probabilities.
        labels: (n,) classes.
        samples: (n,) indices into the dataset.
        class_names: C names.
        patients: (n,) patient of each image, or None.
        generator: source of the resamples.
    """
    num_classes = len(class_names)
    predictions = ranked_predictions(log_p, labels, samples)
    present = np.unique(labels)
    units = Units.of(len(labels), patients)
    correct = (predictions["top1"] == predictions["label"]).to_numpy()
    balanced = resample(lambda w: recalls(correct, labels, present, w), units, generator=generator)
    scores = [*top_k_scores(predictions, num_classes=num_classes, patients=patients)]
    scores.append(balanced.score(BALANCED_ACCURACY, n=len(labels), covers=units.covers))
    undefined = undefined_metrics(num_classes)
    if num_classes > AUROC_CLASSES or len(present) < 2:
        undefined[AUROC.key] = (
            f"AUROC needs images of two classes at least; all test images are {class_names[present[0]]!r}"
            if len(present) < 2
            else f"AUROC is measured for at most {AUROC_CLASSES} classes, the dataset has {num_classes}"
        )
        scores.append(Score(metric=AUROC, value=math.nan, n=len(labels)))
    else:
        wide = log_p.double().cpu().numpy()
        own = (labels[:, None] == present).astype(np.int64)  # (n, P)
        areas = resample(lambda w: curves(roc_areas, wide[:, present], own, w), units, generator=generator)
        scores.append(areas.score(AUROC, n=len(labels), covers=units.covers))
    if num_classes <= AUROC_CLASSES:
        columns = log_p.cpu().numpy()
        predictions = predictions.assign(**{f"log_p{c}": columns[:, c] for c in range(num_classes)})
    absent = tuple(name for index, name in enumerate(class_names) if index not in present)
    return Judgement(scores=tuple(scores), predictions=predictions, undefined=undefined, absent=absent)
