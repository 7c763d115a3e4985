"""Probe for findings: one logistic regression per finding on frozen features, scored by how it ranks the images.

The features of every image are computed once. For each L2 coefficient of the grid a regression of each finding is
solved to its optimum, all as one batched problem; the validation split chooses one coefficient for all findings, by
the mean area under the ROC curve; then the test split is read, once.

Entries that are not known never count. Uncertain ones do not count either, unless ``uncertain`` takes them for
positive or negative in training (the U-Ones and U-Zeros of Irvin et al., CheXpert, arXiv:1901.07031, section 3.2); in
validation and test they never count. A finding with images of one kind only in a split has no area there: it is left
out of that split's mean, for every method alike, and named.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from bench.card import ProtocolCard
from bench.data.dataset import UNCERTAIN, ImageDataset, Subset
from bench.encoders.encoder import Encoder
from bench.errors import DataError, DivergenceError, SpecError
from bench.metric import AUROC, AVERAGE_PRECISION
from bench.protocol import Outcome, Protocol, Score, Work
from bench.registry import register_protocol
from bench.statistics.ranking import Interval, Resampled, Units, average_precisions, curves, resample, roc_areas
from bench.training.linear import Standardizer
from bench.training.randomness import stream
from bench.training.regression import TOLERANCE, fit_findings, l2_grid

UNCERTAIN_AS = {"ignore": UNCERTAIN, "positive": 1, "negative": 0}
LBFGS_PASSES = 75
"""Evaluations of the loss that a problem takes on average, for estimates of the cost."""


@register_protocol(
    "multilabel_probe",
    card=ProtocolCard(
        title="Probe for findings",
        summary="Ranking of the test images by one logistic regression per finding on frozen features; one L2 "
        "coefficient for all findings is chosen on the validation split.",
        metrics=(AUROC, AVERAGE_PRECISION),
        requires=("multilabel",),
        chance="50 % AUROC; average precision is the share of images with the finding",
    ),
)
class MultilabelProbe(Protocol):
    """Batched logistic regression on cached features.

    Args:
        l2_range, l2_count: the grid, ``l2_count`` coefficients evenly spaced in the logarithm; λ/2 ‖w‖² is added to
            the mean loss over the known labels of a finding.
        standardize: shift and scale each feature by the labelled images' mean and standard deviation.
        uncertain: ``ignore``, ``positive`` or ``negative``: what an uncertain finding counts as in training.
        fraction: share of the training split's patients whose images keep their labels; images count where no patient
            is known. The same for every method and seed.
    """

    def __init__(
        self,
        *,
        l2_range: tuple[float, float] = (1e-6, 1e5),
        l2_count: int = 12,
        standardize: bool = True,
        uncertain: str = "ignore",
        fraction: float = 1.0,
    ) -> None:
        if uncertain not in UNCERTAIN_AS:
            raise SpecError(f"multilabel_probe: uncertain is one of {', '.join(UNCERTAIN_AS)}, got {uncertain!r}.")
        if not 0 < fraction <= 1 or l2_count < 1 or not 0 < l2_range[0] <= l2_range[1]:
            raise SpecError(
                "multilabel_probe: fraction lies above 0 up to 1, l2_count is 1 or more, and l2_range ascends from "
                f"above 0, got {fraction}, {l2_count} and {l2_range}."
            )
        self.l2 = l2_grid(l2_range[0], l2_range[1], l2_count)
        self.standardize = standardize
        self.uncertain = uncertain
        self.fraction = fraction

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        labelled, validation = labelled_by_patient(data.split("train"), self.fraction), data.split("validation")
        x, y = _features(encoder, labelled, device), self._targets(labelled.labels)
        x_val = _features(encoder, validation, device)
        featured = time.perf_counter()
        standardize = Standardizer.fit(x) if self.standardize else torch.nn.Identity()
        l2 = torch.tensor(self.l2, dtype=torch.float64)
        candidates, ends = fit_findings(standardize(x), torch.as_tensor(y, device=device), l2=l2)
        choice = choose(candidates.logits(standardize(x_val)), validation.labels, data)
        fitted = time.perf_counter()
        test = data.split("test")
        logits = candidates.logits(standardize(_features(encoder, test, device)))[:, choice.best]  # (n, F)
        verdict = rate(logits, test, data.class_names, seed=seed)
        finished = time.perf_counter()
        slopes = ends.slopes.view(len(self.l2), -1).amax(dim=1).tolist()
        rows = [
            {"l2": value, "validation_auroc": area, "validation_loss": loss, "largest_gradient": slope}
            for value, area, loss, slope in zip(self.l2, choice.areas, choice.losses, slopes, strict=True)
        ]
        return Outcome(
            scores=verdict.scores,
            predictions=verdict.predictions,
            details={
                "l2": self.l2[choice.best],
                "validation_auroc": choice.areas[choice.best],
                "grid": rows,
                "converged": bool(ends.converged(TOLERANCE).all()),
                "labelled": len(labelled),
                "labelled_samples": labelled.samples.tolist(),
                "not_learned": _one_kind(y, data.class_names),
                "not_in_validation": _one_kind(validation.labels, data.class_names),
                "measured": verdict.measured,
                "undefined": verdict.undefined,
            },
            seconds={"features": featured - started, "fit": fitted - featured, "test": finished - fitted},
        )

    def _targets(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The labels (N, F) that the fit sees: a finding of one kind only is not learned, its weights stay zero."""
        y = np.where(labels == UNCERTAIN, UNCERTAIN_AS[self.uncertain], labels)
        return np.where(_both_kinds(y), y, UNCERTAIN)

    def work(self, sizes: Mapping[str, int], *, num_classes: int, feature_dim: int) -> Work:
        train = self.fraction * sizes["train"]
        products = 2e-9 * LBFGS_PASSES * train * feature_dim * len(self.l2) * num_classes
        return Work(forward=train + sizes["validation"] + sizes["test"], products=products)


def labelled_by_patient(train: Subset, fraction: float) -> Subset:
    """The images of a share of the patients, in the order of the SHA-256 of their names; of images without patients.

    A smaller share is a part of a larger one.

    Raises:
        DataError: the share is not one patient.
    """
    if fraction == 1.0:
        return train
    patients = train.metadata.get("patient")
    known = patients if patients is not None else np.full(len(train), "")
    units = np.array([name or f"image {sample}" for name, sample in zip(known, train.samples, strict=True)])
    names = sorted(set(units.tolist()), key=lambda name: hashlib.sha256(name.encode()).digest())
    count = round(fraction * len(names))
    if count < 1:
        raise DataError(
            f"multilabel_probe: {fraction:.3g} of {len(names)} patients is none. Take a fraction of at least "
            f"{1 / len(names):.3g}, or more patients."
        )
    return train[np.flatnonzero(np.isin(units, names[:count]))]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The candidate that the validation split chose, and what each candidate reached there.

    Attributes:
        areas: mean AUROC in percent over the findings with both kinds of images.
        losses: mean cross entropy over the same findings' known labels.
    """

    best: int
    areas: list[float]
    losses: list[float]


def choose(logits: Tensor, labels: NDArray[np.int64], data: ImageDataset) -> Choice:
    """The highest mean AUROC wins; a tie goes to the lower cross entropy, then to the earlier candidate.

    Args:
        logits: (n, K, F) of the validation images.
        labels: (n, F).
        data: named in errors.

    Raises:
        DataError: no finding has images of both kinds.
        DivergenceError: the logits are not finite.
    """
    usable = np.flatnonzero(_both_kinds(labels))
    if not len(usable):
        raise DataError(
            f"multilabel_probe: in the validation split of {data.key} no finding has images with and without it. "
            "Choose another split, with more patients for validation."
        )
    if not bool(logits.isfinite().all()):
        raise DivergenceError(
            f"multilabel_probe: the features of {data.key} are not finite or very large. Check the encoder, or "
            "standardize the features."
        )
    y = labels[:, usable]
    ones = np.ones((1, len(y)))
    areas = [
        float(curves(roc_areas, z[:, usable], y, ones).mean()) for z in logits.double().cpu().numpy().transpose(1, 0, 2)
    ]
    known = torch.as_tensor((y == 0) | (y == 1), device=logits.device)[:, None]
    z, t = logits[:, :, torch.as_tensor(usable, device=logits.device)], torch.as_tensor(y == 1, device=logits.device)
    loss = ((softplus(z) - t[:, None] * z) * known).sum(dim=0, dtype=torch.float64) / known.sum(dim=0)  # (K, F)
    losses = loss.mean(dim=1).tolist()
    best = min(range(len(areas)), key=lambda k: (-areas[k], losses[k], k))
    return Choice(best=best, areas=areas, losses=losses)


@dataclass(frozen=True, kw_only=True)
class Rating:
    """Scores on the test split with what they are made of."""

    scores: tuple[Score, Score]
    predictions: pd.DataFrame
    measured: dict[str, Any]
    undefined: dict[str, str]


def rate(logits: Tensor, test: Subset, names: tuple[str, ...], *, seed: int) -> Rating:
    """Macro AUROC and average precision with intervals over patients, and the same of each finding.

    Args:
        logits: (n, F) log-odds.
        test: images with findings.
        names: F findings.
        seed: of the resamples.
    """
    scores, y = logits.double().cpu().numpy(), test.labels
    units = Units.of(len(test), test.metadata.get("patient"))
    generator = np.random.default_rng(stream("multilabel_probe resamples", seed).initial_seed())
    areas = resample(lambda w: curves(roc_areas, scores, y, w), units, generator=generator)
    precisions = resample(lambda w: curves(average_precisions, scores, y, w), units, generator=generator)
    probabilities = logits.sigmoid().cpu().numpy()
    columns: dict[str, Any] = {"sample": test.samples}
    for index, name in enumerate(names):
        columns[f"label {name}"] = y[:, index]
        columns[f"probability {name}"] = probabilities[:, index]
    missing = _one_kind(y, names)
    undefined = {}
    if len(missing) == len(names):
        reason = "no finding has test images both with and without it"
        undefined = {AUROC.key: reason, AVERAGE_PRECISION.key: reason}
    return Rating(
        scores=(
            areas.score(AUROC, n=len(test), covers=units.covers),
            precisions.score(AVERAGE_PRECISION, n=len(test), covers=units.covers),
        ),
        predictions=pd.DataFrame(columns),
        measured={
            "resampled": f"{units.count} {units.covers}",
            "not_in_test": missing,
            "findings": [_finding(name, y[:, f], f, areas, precisions) for f, name in enumerate(names)],
        },
        undefined=undefined,
    )


def _finding(name: str, y: NDArray[np.int64], f: int, areas: Resampled, precisions: Resampled) -> dict[str, Any]:
    """One finding's row: how often it was seen, and how well it was ranked."""
    row: dict[str, Any] = {"finding": name, "positive": int((y == 1).sum()), "negative": int((y == 0).sum())}
    for key, found in ((AUROC.key, areas), (AVERAGE_PRECISION.key, precisions)):
        value, interval = float(found.values[f]), found.intervals[f]
        row[key] = None if np.isnan(value) else value
        row[f"{key}_interval"] = _ends(interval)
    return row


def _ends(interval: Interval) -> list[float] | None:
    return None if interval.low is None or interval.high is None else [interval.low, interval.high]


def _both_kinds(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(F,): the finding has images with and without it."""
    return np.asarray((labels == 0).any(axis=0) & (labels == 1).any(axis=0))


def _one_kind(labels: NDArray[np.int64], names: tuple[str, ...]) -> list[str]:
    return [name for name, both in zip(names, _both_kinds(labels), strict=True) if not both]


def _features(encoder: Encoder, subset: Subset, device: str) -> Tensor:
    """Features (N, D) of a split, on the device."""
    return encoder.features(subset.images, device=device).to(device)
