"""Collapse diagnostics: how far representations and embeddings spread, and how many dimensions they fill.

The representation (the backbone's features) and the embedding (what the pre-training's projector makes of them) are
measured apart, because they disagree by design: the projector takes the loss's pressure off the representation.

Spread, ranks and uniformity are measured on the test images as they are. Alignment needs positive pairs: two random
views of each image, by the protocol's own settings, so that all methods are compared on the same pairs. An image's
views depend on the seed and on its index in the dataset, not on which other images are in the split.

Alignment is a mean over images and gets the normal interval of one. The others are no means over images, and get none:
resampling images with replacement repeats some of them, which lowers every rank and uniformity by itself, so that a
bootstrap interval need not even hold the value.

A rank is a necessary condition, not a sufficient one, and finite N pulls it down: compare methods of equal width on the
same images. Labels are not used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from bench.card import ProtocolCard
from bench.data.dataset import ImageDataset, Subset
from bench.data.pixels import unit
from bench.data.reading import read_planes
from bench.data.views import apply, draw
from bench.encoders.encoder import Encoder
from bench.errors import DivergenceError, SpecError, describe
from bench.metric import Metric
from bench.protocol import Outcome, Protocol, Score, Work
from bench.registry import register_protocol
from bench.spec import ViewSpec
from bench.statistics.collapse import Ranks, covariance_spectrum, direction_std, pair_distances, uniformity
from bench.statistics.mean import normal_interval
from bench.training.randomness import stream

BLOCK = 512  # images whose views are held as pixels at a time
DIGITS = 6
SPECTRA = 3  # of each kind of vectors: as they are, centered, and of their directions
NO_PROJECTOR = "the encoder has no projector: baselines have none, and imported weights come without one"


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured of one kind of vectors; ``pairs`` (N,) are the distances behind the alignment."""

    ranks: Ranks
    std: float
    alignment: float
    uniformity: float
    pairs: NDArray[np.float64]
    spectrum: list[float]

    @classmethod
    def of(cls, vectors: Tensor, first: Tensor, second: Tensor) -> Measures:
        """Of vectors (N, D) of the images, and of those of their two views, (N, D) each."""
        pairs = pair_distances(first, second).cpu().numpy()
        return cls(
            ranks=Ranks.of(vectors),
            std=direction_std(vectors),
            alignment=float(pairs.mean()),
            uniformity=uniformity(vectors),
            pairs=pairs,
            spectrum=[float(f"{value:.{DIGITS}g}") for value in covariance_spectrum(vectors).tolist()],
        )

    @property
    def values(self) -> tuple[float, ...]:
        """In the order of the card's metrics."""
        ranks = self.ranks
        spread = (self.std, ranks.rankme, ranks.rankme_centered, ranks.participation_ratio)
        return (*spread, self.alignment, self.uniformity)


@register_protocol(
    "diagnostics",
    card=ProtocolCard(
        title="Diagnostics",
        summary="Spread, ranks, alignment and uniformity of representations and embeddings on the test images; "
        "alignment between two random views of each. They describe; they do not score.",
        metrics=(
            Metric(key="representation_std", title="representation std", higher_is_better=None, decimals=3, lower=0.0),
            Metric(key="representation_rankme", title="representation RankMe", higher_is_better=None, lower=0.0),
            Metric(
                key="representation_rankme_centered",
                title="representation centered RankMe",
                higher_is_better=None,
                lower=0.0,
            ),
            Metric(
                key="representation_participation_ratio",
                title="representation participation ratio",
                higher_is_better=None,
                lower=0.0,
            ),
            Metric(
                key="representation_alignment",
                title="representation alignment",
                higher_is_better=None,
                decimals=3,
                lower=0.0,
                upper=4.0,
            ),
            Metric(
                key="representation_uniformity",
                title="representation uniformity",
                higher_is_better=None,
                decimals=2,
                upper=0.0,
            ),
            Metric(key="embedding_std", title="embedding std", higher_is_better=None, decimals=3, lower=0.0),
            Metric(key="embedding_rankme", title="embedding RankMe", higher_is_better=None, lower=0.0),
            Metric(
                key="embedding_rankme_centered",
                title="embedding centered RankMe",
                higher_is_better=None,
                lower=0.0,
            ),
            Metric(
                key="embedding_participation_ratio",
                title="embedding participation ratio",
                higher_is_better=None,
                lower=0.0,
            ),
            Metric(
                key="embedding_alignment",
                title="embedding alignment",
                higher_is_better=None,
                decimals=3,
                lower=0.0,
                upper=4.0,
            ),
            Metric(
                key="embedding_uniformity",
                title="embedding uniformity",
                higher_is_better=None,
                decimals=2,
                upper=0.0,
            ),
        ),
        requires=(),
        compares_images=True,
    ),
)
class Diagnostics(Protocol):
    """Six measures of the representation, and the same six of the embedding.

    The ranks and the participation ratio are those of the vectors themselves; std, alignment, uniformity and the
    spectra in the details are those of the l2-normalized ones, as published.

    Args:
        max_samples: most test images that are used; of more, a random choice by seed.
        crop_scale: share of the image's area that a crop covers, (low, high).
        flip: probability of a horizontal flip.
        rotation: largest rotation in degrees.
        brightness, contrast, saturation, hue: jitter strengths; the jitter is applied to ``jitter`` of the images.
        jitter: probability of the colour jitter.
        grayscale: probability of conversion to gray.
        blur: probability of a Gaussian blur.
        blur_sigma: standard deviation of the blur in pixels, (low, high).
    """

    def __init__(
        self,
        *,
        max_samples: int = 10000,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        flip: float = 0.5,
        rotation: float = 0.0,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        jitter: float = 0.8,
        grayscale: float = 0.2,
        blur: float = 0.0,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
    ) -> None:
        if max_samples < 2:
            raise SpecError(f"diagnostics: max_samples must be 2 or more, got {max_samples}. Spread needs two images.")
        self.max_samples = max_samples
        try:
            self.view = ViewSpec(
                crop_scale=crop_scale,
                flip=flip,
                rotation=rotation,
                brightness=brightness,
                contrast=contrast,
                saturation=saturation,
                hue=hue,
                jitter=jitter,
                grayscale=grayscale,
                blur=blur,
                blur_sigma=blur_sigma,
            )
        except ValidationError as error:
            raise SpecError(f"diagnostics: the views have a setting without meaning: {describe(error)}") from error

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        test = self._chosen(data.split("test"), seed)
        plain = encoder.features(test.images, device=device)  # (N, D)
        first, second = (self._view_features(encoder, test, seed, view, device) for view in (0, 1))
        representations = (plain, first, second)
        embeddings = [z for x in representations if (z := encoder.embeddings(x, device=device)) is not None]
        if not all(bool(vectors.isfinite().all()) for vectors in (*representations, *embeddings)):
            raise DivergenceError(
                f"diagnostics: the encoder ({encoder.origin}) gives features that are NaN or infinite on {data.key}. "
                "Pre-train it again with a smaller learning rate."
            )
        featured = time.perf_counter()
        found = {"representation": Measures.of(*(x.to(device) for x in representations))}
        if embeddings:
            found["embedding"] = Measures.of(*(z.to(device) for z in embeddings))
        return Outcome(
            scores=_scores(found, n=len(test)),
            predictions=_predictions(found, test),
            details=_details(found, self.view),
            seconds={"features": featured - started, "fit": 0.0, "test": time.perf_counter() - featured},
        )

    def work(self, sizes: Mapping[str, int], *, num_classes: int, feature_dim: int) -> Work:
        """The embedding is taken to be as wide as the representation."""
        n = min(self.max_samples, sizes["test"])
        small, large = sorted((n, feature_dim))
        each = SPECTRA * small * small * large + n * n * feature_dim / 2  # spectra, and pairs for the uniformity
        return Work(forward=3 * n, products=2 * each / 1e9)

    def _chosen(self, test: Subset, seed: int) -> Subset:
        """The whole split, or a random choice of ``max_samples`` from it in the split's order."""
        if len(test) <= self.max_samples:
            return test
        order = torch.randperm(len(test), generator=stream("diagnostics samples", seed))
        rows = order[: self.max_samples].sort().values.numpy()
        return test[rows]

    def _view_features(self, encoder: Encoder, test: Subset, seed: int, view: int, device: str) -> Tensor:
        """Features (N, D) of one random view of each image; an image's row of the draws is its index in the dataset."""
        generator = stream("diagnostics views", seed, view)
        size = (test.images.shape[1], test.images.shape[2])
        drawn = draw(self.view, int(test.samples.max()) + 1, size, generator)[torch.as_tensor(test.samples)]
        parts = []
        for number, stored in enumerate(read_planes(test.images, BLOCK)):
            pixels = unit(stored.to(device))  # (B, C, H, W)
            parts.append(encoder.pooled(apply(pixels, drawn[number * BLOCK :][: len(pixels)])).cpu())
        return torch.cat(parts)


def _scores(found: dict[str, Measures], *, n: int) -> tuple[Score, ...]:
    scores = []
    for kind in ("representation", "embedding"):
        metrics = [metric for metric in Diagnostics.card.metrics if metric.key.startswith(kind)]
        values = found[kind].values if kind in found else (math.nan,) * len(metrics)
        for metric, value in zip(metrics, values, strict=True):
            if metric.key.endswith("alignment") and kind in found:
                low, high = map(metric.clip, normal_interval(found[kind].pairs))
                interval = {"low": low, "high": high, "covers": "test images", "method": "normal 95%"}
                scores.append(Score(metric=metric, value=value, n=n, **interval))
            else:
                scores.append(Score(metric=metric, value=value, n=n))
    return tuple(scores)


def _predictions(found: dict[str, Measures], test: Subset) -> pd.DataFrame:
    """The alignment distance of every image, whose mean is the alignment."""
    nothing = np.full(len(test), np.nan)
    pairs = {kind: found[kind].pairs if kind in found else nothing for kind in ("representation", "embedding")}
    return pd.DataFrame({"sample": test.samples, **{f"{kind}_distance": values for kind, values in pairs.items()}})


def _details(found: dict[str, Measures], view: ViewSpec) -> dict[str, object]:
    """The spectra, N and D, the limit that N sets to the ranks, and why what is missing is missing."""
    metrics = [metric.key for metric in Diagnostics.card.metrics]
    limits = {
        kind: f"N = {m.ranks.n} is not above D = {m.ranks.d}: no rank can exceed N, and all are pulled down"
        for kind, m in found.items()
        if m.ranks.n <= m.ranks.d
    }
    return {
        "n": found["representation"].ranks.n,
        "d": {kind: measures.ranks.d for kind, measures in found.items()},
        "spectra": {kind: measures.spectrum for kind, measures in found.items()},
        "rank_limit": limits,
        "view": view.model_dump(mode="json"),
        "undefined": {key: NO_PROJECTOR for key in metrics if key.split("_")[0] not in found},
    }
