"""Audit of false negative detection: are the detected images of the anchor's class?

Huynh, Kornblith, Walter, Maire and Khademi, WACV 2022, arXiv:2011.11765, detect false negatives without labels: support
views of an anchor score the other images, and the k best above a threshold count. Here labels, which training does not
have, tell how well that works on the test split, for the encoder as it is at the end of its pre-training:

    precision = share of the detected (anchor, candidate) pairs that are of one class
    recall    = share of the pairs of one class that are detected
    chance    = share of the pairs of one class among all pairs: the precision of a detection that is blind

As in training, the candidates of an anchor are the other images of its batch, here in one view each. A protocol has no
momentum encoder and no queue: for MoCo it audits the trained encoder on batches. Batch norm uses running statistics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError
from torch import Tensor

from bench.card import ProtocolCard
from bench.data.dataset import ImageDataset, Subset
from bench.data.pixels import unit
from bench.data.reading import read_planes
from bench.data.views import make_view
from bench.encoders.encoder import Encoder
from bench.errors import DataError, DivergenceError, SpecError, describe
from bench.metric import Metric
from bench.protocol import Outcome, Protocol, Score, Work
from bench.registry import register_protocol
from bench.spec import ViewSpec
from bench.statistics.bootstrap import ratio_interval
from bench.training.false_negatives import check_detection, highest, support_scores
from bench.training.randomness import stream

PRECISION = Metric(key="false_negative_precision", title="precision", unit="%", lower=0.0, upper=100.0)
RECALL = Metric(key="false_negative_recall", title="recall", unit="%", lower=0.0, upper=100.0)
CHANCE = Metric(
    key="false_negative_chance",
    title="chance precision",
    unit="%",
    higher_is_better=None,
    lower=0.0,
    upper=100.0,
)
DETECTED = Metric(
    key="false_negatives_detected", title="detected per image", higher_is_better=None, decimals=2, lower=0.0
)

GRID_AGGREGATIONS = ("max", "mean")
GRID_TOP_K = (1, 5, 10, 20, 0)
GRID_THRESHOLDS = (0.5, 0.7, 0.9)
GRID_SUPPORT = (1, 2, 4, 8)
COUNTS = ("candidates", "detected", "correct", "same_class")
RATIOS = {  # numerator, denominator (one per image if empty), factor
    PRECISION: ("correct", "detected", 100),
    RECALL: ("correct", "same_class", 100),
    CHANCE: ("same_class", "candidates", 100),
    DETECTED: ("detected", "", 1),
}
BLOCK = 512  # images whose views are held as pixels at a time


@register_protocol(
    "false_negative_audit",
    card=ProtocolCard(
        title="False negative audit",
        summary="Precision and recall, against the class labels, of the false negatives that support views of an image "
        "detect among the other images of a batch; labels serve the audit only.",
        metrics=(PRECISION, RECALL, CHANCE, DETECTED),
        paper="huynh2022fnc",
        chance="a blind detection has the chance precision, about 100/K % for K balanced classes",
        compares_images=True,
    ),
)
class FalseNegativeAudit(Protocol):
    """Detection in batches of the test split, by embeddings; by representations where there is no projector.

    Args:
        support_views: views of the anchor's image that score.
        top_k: largest number of false negatives of an anchor; 0 sets no limit.
        threshold: cosine similarity that a false negative exceeds.
        aggregation: ``max`` or ``mean`` over the support views.
        batch_size: images of a batch, as in training; the split is divided evenly, so that a batch may have fewer.
        crop_scale: share of the image's area that a view shows, (low, high).
        flip: probability of a horizontal flip.
        rotation: largest rotation in degrees.
        brightness, contrast, saturation, hue: jitter strengths.
        grayscale: probability of conversion to gray.
        blur: probability of a Gaussian blur.
    """

    def __init__(
        self,
        *,
        support_views: int = 8,
        top_k: int = 10,
        threshold: float = 0.7,
        aggregation: str = "max",
        batch_size: int = 128,
        crop_scale: tuple[float, float] = (0.3, 1.0),
        flip: float = 0.0,
        rotation: float = 15.0,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.0,
        hue: float = 0.0,
        grayscale: float = 0.0,
        blur: float = 0.0,
    ) -> None:
        check_detection("false_negative_audit", support_views=support_views, top_k=top_k, aggregation=aggregation)
        if support_views < 1 or batch_size < 2:
            raise SpecError(
                "false_negative_audit: needs a support view and two images in a batch, got "
                f"support_views={support_views}, batch_size={batch_size}."
            )
        self.support_views = support_views
        self.batch_size = batch_size
        self.aggregation = aggregation
        self.cut = (top_k, threshold)
        try:
            self.view = ViewSpec(
                crop_scale=crop_scale,
                flip=flip,
                rotation=rotation,
                brightness=brightness,
                contrast=contrast,
                saturation=saturation,
                hue=hue,
                grayscale=grayscale,
                blur=blur,
            )
        except ValidationError as error:
            raise SpecError(f"false_negative_audit: {describe(error)}") from error

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        test = data.split("test")
        if len(test) < 2:
            raise DataError(
                f"false_negative_audit: the test split of {data.key} has {len(test)} images; an audit needs two."
            )
        views = torch.stack(list(self._embedded_views(encoder, test, seed=seed, device=device)))  # (1 + S, n, P)
        if not views.isfinite().all():
            raise DivergenceError(
                f"false_negative_audit: the encoder ({encoder.origin}) gives embeddings that are NaN or infinite on "
                f"{data.key}. Pre-train it again with a smaller learning rate."
            )
        featured = time.perf_counter()
        views, labels = views.to(device), torch.as_tensor(test.labels, device=device)
        parts = self._batches(len(test), seed)
        (counts,) = pair_counts(
            views, labels, parts, support=self.support_views, aggregation=self.aggregation, cuts=[self.cut]
        )
        predictions = pd.DataFrame({"sample": test.samples, **dict(zip(COUNTS, counts.T.numpy(), strict=True))})
        grid = self._grid(views, labels, parts)
        finished = time.perf_counter()
        return Outcome(
            scores=tuple(_score(metric, predictions, seed) for metric in RATIOS),
            predictions=predictions,
            details={
                "audited": "representations: there is no projector" if encoder.projector is None else "embeddings",
                "batches": len(parts),
                "images_per_batch": sorted({len(part) for part in parts}),
                "measured": {"grid": grid},
                "undefined": _undefined(predictions),
            },
            seconds={"features": featured - started, "fit": 0.0, "test": finished - featured},
        )

    def work(self, sizes: Mapping[str, int], *, num_classes: int, feature_dim: int) -> Work:
        """The embedding is taken to be as wide as the representation."""
        n = sizes["test"]
        scored = self.support_views + len(GRID_AGGREGATIONS) * sum(self._grid_support())
        pairs = n * min(n, self.batch_size)
        return Work(forward=n * (1 + self.support_views), products=scored * pairs * feature_dim / 1e9)

    def _embedded_views(self, encoder: Encoder, test: Subset, *, seed: int, device: str) -> Iterator[Tensor]:
        """Embeddings (n, P) of a view of every image, for the candidates first and then for each support view."""
        for number in range(1 + self.support_views):
            generator = stream("false_negative_audit views", seed, number)
            embedded = []
            for stored in read_planes(test.images, BLOCK):
                pixels = unit(stored.to(device))  # (B, C, H, W)
                features = encoder.pooled(make_view(pixels, self.view, generator)).cpu()  # (B, D)
                embeddings = encoder.embeddings(features, device=device)
                embedded.append(features if embeddings is None else embeddings)
            yield torch.cat(embedded)

    def _batches(self, n: int, seed: int) -> list[Tensor]:
        """Rows of the batches: all images in a random order, in equal parts (up to one image) of two or more."""
        order = torch.randperm(n, generator=stream("false_negative_audit batches", seed))
        return list(order.tensor_split(min(math.ceil(n / self.batch_size), n // 2)))

    def _grid_support(self) -> list[int]:
        """Numbers of support views in the grid."""
        return sorted({*(size for size in GRID_SUPPORT if size < self.support_views), self.support_views})

    def _grid(self, views: Tensor, labels: Tensor, parts: list[Tensor]) -> list[dict[str, Any]]:
        """The same measured for other settings, with as many of the support views."""
        cuts = list(product(GRID_TOP_K, GRID_THRESHOLDS))
        records = []
        for aggregation, support in product(GRID_AGGREGATIONS, self._grid_support()):
            counts = pair_counts(views, labels, parts, support=support, aggregation=aggregation, cuts=cuts)
            for (top_k, threshold), (_, detected, correct, same) in zip(cuts, counts.sum(dim=1).tolist(), strict=True):
                records.append(
                    {
                        "aggregation": aggregation,
                        "support_views": support,
                        "top_k": top_k,
                        "threshold": threshold,
                        "precision": 100 * correct / detected if detected else None,
                        "recall": 100 * correct / same if same else None,
                        "detected": detected / len(labels),
                    }
                )
        return records


def pair_counts(
    views: Tensor,
    labels: Tensor,
    parts: list[Tensor],
    *,
    support: int,
    aggregation: str,
    cuts: Sequence[tuple[int, float]],
) -> Tensor:
    """How many candidates every anchor has, detects, detects rightly, and how many are of its class.

    Args:
        views: embeddings (1 + S, n, P), those of the candidates first, then of the support views.
        labels: (n,).
        parts: rows of each batch.
        support: number of support views that score.
        aggregation: ``max`` or ``mean``.
        cuts: pairs (top_k, threshold).

    Returns:
        (cuts, n, 4) int64 on the CPU, in the order of ``COUNTS``.
    """
    counts = torch.zeros(len(cuts), len(labels), len(COUNTS), dtype=torch.int64)
    for part in parts:
        scores = support_scores(views[0, part], views[1 : 1 + support, part], aggregation=aggregation)  # (B, B)
        itself = torch.eye(len(part), dtype=torch.bool, device=scores.device)
        same = (labels[part][:, None] == labels[part]) & ~itself  # (B, B)
        for number, (top_k, threshold) in enumerate(cuts):
            found = highest(scores, excluded=itself, top_k=top_k, threshold=threshold)  # (B, B)
            counts[number, part] = torch.stack(
                [p.sum(dim=1) for p in (~itself, found, found & same, same)], dim=1
            ).cpu()
    return counts


def _score(metric: Metric, predictions: pd.DataFrame, seed: int) -> Score:
    """The ratio of sums that the metric is, with a bootstrap interval over the anchors."""
    above, below, factor = RATIOS[metric]
    numerators = predictions[above].to_numpy()
    denominators = predictions[below].to_numpy() if below else np.ones_like(numerators)
    n, total = len(predictions), int(denominators.sum())
    if not total:
        return Score(metric=metric, value=math.nan, n=n)
    generator = np.random.default_rng(stream(f"false_negative_audit {metric.key}", seed).initial_seed())
    low, high = ratio_interval(numerators, denominators, generator=generator)
    return Score(
        metric=metric,
        value=factor * (int(numerators.sum()) / total),
        n=n,
        low=factor * low,
        high=factor * high,
        covers="test images as anchors",
        method="bootstrap 95%",
    )


def _undefined(predictions: pd.DataFrame) -> dict[str, str]:
    reasons = {}
    if not predictions["detected"].any():
        reasons[PRECISION.key] = "nothing was detected: no candidate scored above the threshold"
    if not predictions["same_class"].any():
        reasons[RECALL.key] = "no batch of the test split holds two images of one class"
    return reasons
