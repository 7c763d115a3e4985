"""Label efficiency: accuracy against the number of labels, from one label per class up to all.

For each budget of labels and each of several draws of the labelled images (stratified, the smaller among the larger up
to the rounding of class shares, patient by patient where patients are known) a linear head is fitted on frozen
features; in mode ``finetune`` backbone and head are then trained together. Settings are chosen on the validation split.
At the end the test split is read, once, for all of them.

The curve of ``random_init`` under the same settings is the one from scratch. What a number of labels is worth after
pre-training is read off both curves (``bench.statistics.utility``).

Source: Newell and Deng 2020, arXiv 2003.14323. The recipe is that of ``semi_supervised``, not theirs.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.card import ProtocolCard
from bench.data.dataset import ImageDataset, Subset
from bench.data.splits import stratified_choice
from bench.encoders.encoder import Encoder
from bench.errors import DataError, DivergenceError, SpecError
from bench.metric import TOP1, Metric
from bench.protocol import Outcome, Protocol, Score, Work
from bench.registry import register_protocol
from bench.spec import ViewSpec
from bench.statistics.budgets import default_budgets, log_mean
from bench.statistics.classification import ranked_predictions, top_k_scores
from bench.statistics.mean import student_interval
from bench.training.finetuning import FineTuning, Material, fine_tune, held, validated
from bench.training.linear import LinearCandidates, Standardizer, fit_linear
from bench.training.precision import true_float32
from bench.training.randomness import isolated_rng, stream
from bench.training.starts import Start

HEAD_GRID = tuple(product((0.03, 0.1), (1e-3, 1e-2, 3e-2, 1e-1, 3e-1)))  # (learning rate, weight decay)
HEAD_BATCH = 256
WEIGHT_DECAY = 0.01
WARMUP = 0.1
DRAWS_PER_SEED = 1000
"""The draws of one seed are numbered below this, so that no two seeds share a draw."""

MEAN_TOP1 = Metric(key="mean_top1", title="mean top-1 over budgets", unit="%", lower=0.0, upper=100.0)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A classifier fitted with one budget and one draw.

    Attributes:
        head: the linear head on frozen features, standardized by ``standardize``.
        tuned: the fine-tuned network, an encoder whose features are logits; None in mode ``linear``.
        record: what was chosen, and how it did on the validation images.
    """

    standardize: Standardizer
    head: LinearCandidates
    tuned: Encoder | None
    record: Mapping[str, Any]

    def log_probabilities(self, test: Subset, features: Tensor | None, device: str) -> Tensor:
        """(n, K) for the test images; ``features`` (n, D) are theirs in mode ``linear``."""
        if self.tuned is not None:
            return self.tuned.features(test.images, device=device).log_softmax(dim=1)
        assert features is not None
        return self.head.log_probabilities(self.standardize(features))[:, 0].cpu()


@dataclass(frozen=True, kw_only=True)
class Known:
    """Everything known before the first budget.

    Attributes:
        x, x_val: frozen features (N, D) and (V, D) of the training and the validation split, on the device.
    """

    encoder: Encoder
    train: Subset
    validation: Subset
    x: Tensor
    x_val: Tensor
    num_classes: int
    device: str


@register_protocol(
    "label_efficiency",
    card=ProtocolCard(
        title="Label efficiency",
        summary="Accuracy against the number of labels, from one per class to all of the training split, each with "
        "several draws of the labelled images; settings are chosen on the validation split.",
        metrics=(MEAN_TOP1, TOP1),
        paper="newell2020useful",
        chance="100/K % for K balanced classes",
    ),
)
class LabelEfficiency(Protocol):
    """The curve of accuracy against labels.

    ``mean_top1`` is the curve's mean over the logarithm of the number of labels; ``top1`` is the first draw with the
    largest budget.

    Args:
        budgets: numbers of labels; empty for a grid from one per class to all, in equal factors of at most 3.
        points: number of budgets in that grid, from 2; 0 leaves it to the factors. Leave it out with ``budgets``.
        draws: draws of the labelled images at each budget.
        mode: ``finetune`` trains the whole network, ``linear`` only a head on frozen features.
        validation: ``all`` chooses on the whole validation split, which is generous where labels are few; ``budget``
            on at most as many validation images as there are labels.
        steps: optimizer steps of the fine-tuning, at least.
        epochs: passes over the labelled images, at least.
        batch_size: images of a step; a smaller budget is repeated within the batch, each time in another view.
        backbone_lrs: learning rates of the backbone; the validation images choose.
        head_lr: learning rate of the head.
        label_smoothing: share of the target that is spread evenly over the classes.
        head_steps: optimizer steps of the linear head.
        starts: heads that fine-tuning starts from; the validation images choose. ``fitted`` is the linear head on
            standardized features, ``fresh`` a random one on the features as they are. A random network needs the
            second: batch norm in training gives it other features than those that the head was fitted to.
        crop_scale: share of the image's area that a crop covers, (low, high).
        rotation: largest rotation in degrees.
        flip: probability of a horizontal flip.
    """

    def __init__(
        self,
        *,
        budgets: tuple[int, ...] = (),
        points: int = 0,
        draws: int = 3,
        mode: str = "finetune",
        validation: str = "all",
        steps: int = 200,
        epochs: int = 10,
        batch_size: int = 64,
        backbone_lrs: tuple[float, ...] = (1e-3, 3e-3),
        head_lr: float = 1e-3,
        label_smoothing: float = 0.1,
        head_steps: int = 300,
        starts: tuple[str, ...] = ("fitted", "fresh"),
        crop_scale: tuple[float, float] = (0.6, 1.0),
        rotation: float = 15.0,
        flip: float = 0.0,
    ) -> None:
        if mode not in ("finetune", "linear") or validation not in ("all", "budget"):
            raise SpecError(
                "label_efficiency: mode is 'finetune' or 'linear' and validation 'all' or 'budget', got "
                f"{mode!r} and {validation!r}."
            )
        if not starts or not set(starts) <= {"fitted", "fresh"}:
            raise SpecError(f"label_efficiency: starts are 'fitted', 'fresh' or both, got {list(starts)}.")
        if list(budgets) != sorted(set(budgets)) or any(budget < 1 for budget in budgets):
            raise SpecError(f"label_efficiency: budgets are numbers of labels that ascend, got {list(budgets)}.")
        if points < 0 or points == 1 or (points and budgets):
            raise SpecError(
                f"label_efficiency: points is a number of budgets from 2, without budgets; got points={points} and "
                f"budgets {list(budgets)}."
            )
        if (
            not 1 <= draws < DRAWS_PER_SEED
            or not backbone_lrs
            or min(steps, head_steps) < 1
            or epochs < 0
            or batch_size < 2
        ):
            raise SpecError("label_efficiency: needs a draw, a learning rate, a step, and two images in a batch.")
        self.budgets, self.points = tuple(budgets), points
        self.draws = draws
        self.mode = mode
        self.validation = validation
        self.steps, self.epochs, self.batch_size = steps, epochs, batch_size
        self.rates = backbone_lrs
        self.head_lr = head_lr
        self.label_smoothing = label_smoothing
        self.head_steps = head_steps
        self.starts = starts
        self.view = ViewSpec(crop_scale=crop_scale, rotation=rotation, flip=flip, jitter=0.0, grayscale=0.0)

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        known = _known(encoder, data, device)
        budgets = self._grid(known.train, data)
        featured = time.perf_counter()
        rows = [[_labelled(known.train, budget, seed, draw) for draw in range(self.draws)] for budget in budgets]
        fitted = [[self._fit(known, chosen, seed, draw) for draw, chosen in enumerate(line)] for line in rows]
        chosen = time.perf_counter()
        test = data.split("test")
        x_test = encoder.features(test.images, device=device).to(device) if self.mode == "linear" else None
        accuracies = np.empty((len(budgets), self.draws))
        for place, one in ((place, fitted[place[0]][place[1]]) for place in np.ndindex(accuracies.shape)):
            log_p = one.log_probabilities(test, x_test, device)  # (n, K)
            hits = int((log_p.argmax(dim=1).numpy() == test.labels).sum())
            accuracies[place] = 100 * hits / len(test)
            if place == (len(budgets) - 1, 0):
                predictions = ranked_predictions(log_p, test.labels, test.samples)
        patients = test.metadata.get("patient")
        top1, _ = top_k_scores(predictions, num_classes=data.num_classes, patients=patients)
        return Outcome(
            scores=(_mean_score(budgets, accuracies, n=len(test)), top1),
            predictions=predictions,
            details={
                "mode": self.mode,
                "validation": self.validation,
                "budgets": list(budgets),
                "labelled_digests": [[_digest(known.train, chosen) for chosen in line] for line in rows],
                "chosen": [dict(one.record) for line in fitted for one in line],
                "measured": {"curve": {"budgets": list(budgets), "top1": accuracies.tolist()}},
            },
            seconds={"features": featured - started, "fit": chosen - featured, "test": time.perf_counter() - chosen},
        )

    def work(self, sizes: Mapping[str, int], *, num_classes: int, feature_dim: int) -> Work:
        train, validation, test = (float(sizes[name]) for name in ("train", "validation", "test"))
        grid = self.budgets or default_budgets(num_classes, sizes["train"], points=self.points)
        budgets = [budget for budget in grid if budget <= train]
        fits, tried = self.draws * len(budgets), len(self.starts) * len(self.rates)
        seen = sum(self.draws * self.head_steps * min(budget, HEAD_BATCH) for budget in budgets)
        products = 2.0 * len(HEAD_GRID) * feature_dim * num_classes * (seen + fits * validation)
        if self.mode == "linear":
            return Work(forward=train + validation + test, products=products / 1e9)
        trained = sum(self.draws * self._steps(budget) * self.batch_size * tried for budget in budgets)
        forward = train + validation + fits * (tried * validation + test)
        return Work(forward=forward, trained=float(trained), products=products / 1e9)

    def _grid(self, train: Subset, data: ImageDataset) -> tuple[int, ...]:
        """The budgets that the data allow.

        Raises:
            DataError: a budget is smaller than the number of classes, larger than the training split, or a class has
                no training image.
        """
        present = len(np.unique(train.labels))
        if present < data.num_classes:
            raise DataError(
                f"label_efficiency: only {present} of {data.num_classes} classes have a training image. Add images, or "
                "change the split."
            )
        budgets = self.budgets or default_budgets(data.num_classes, len(train), points=self.points)
        if budgets[0] < present or budgets[-1] > len(train):
            raise DataError(
                f"label_efficiency: the budgets {list(budgets)} leave the range from {present} labels, one for each "
                f"class, to {len(train)}, the training split. Change them, or leave budgets empty."
            )
        return budgets

    def _fit(self, known: Known, rows: NDArray[np.int64], seed: int, draw: int) -> Fitted:
        """The best classifier for these labelled images."""
        own = seed * DRAWS_PER_SEED + draw
        val = self._validation_rows(known, len(rows), own)
        place = torch.as_tensor(rows, device=known.device)
        x, labels = known.x[place], torch.as_tensor(known.train.labels[rows], device=known.device)
        standardize = Standardizer.fit(x)
        lrs, decays = torch.tensor(HEAD_GRID, dtype=torch.float64).T
        candidates = fit_linear(
            standardize(x),
            labels,
            num_classes=known.num_classes,
            lrs=lrs,
            weight_decays=decays,
            epochs=math.ceil(self.head_steps / max(1, len(x) // HEAD_BATCH)),
            batch_size=HEAD_BATCH,
            generator=stream("label_efficiency rows", own),
        )
        x_val = standardize(known.x_val[torch.as_tensor(val, device=known.device)])
        y_val = torch.as_tensor(known.validation.labels[val], device=known.device)
        best, hits = candidates.choose(x_val, y_val)
        record: dict[str, Any] = {"labels": len(rows), "draw": draw, "validation_images": len(val)}
        record |= dict(zip(("head_fit_lr", "head_fit_weight_decay"), HEAD_GRID[best], strict=True))
        head = candidates.select(best)
        if self.mode == "linear":
            record["validation_top1"] = hits[best]
            return Fitted(standardize=standardize, head=head, tuned=None, record=record)
        tuned, tuning = self._tune(known, standardize, head, rows, known.validation[val], own)
        return Fitted(standardize=standardize, head=head, tuned=tuned, record=record | tuning)

    def _validation_rows(self, known: Known, budget: int, seed: int) -> NDArray[np.int64]:
        """Positions of the validation images that may choose."""
        labels = known.validation.labels
        if self.validation == "all" or budget >= len(labels):
            return np.arange(len(labels))
        return stratified_choice(labels, max(budget, len(np.unique(labels))), seed=seed)

    def _tune(
        self,
        known: Known,
        standardize: Standardizer,
        head: LinearCandidates,
        rows: NDArray[np.int64],
        validation: Subset,
        seed: int,
    ) -> tuple[Encoder, dict[str, Any]]:
        """The network fine-tuned at the learning rate that the validation images prefer, and what it was."""
        labelled = known.train[rows]
        material = Material(images=held(labelled.images), labels=torch.as_tensor(labelled.labels, device=known.device))
        with isolated_rng(seed, "label_efficiency head", device=known.device):
            starts = {"fitted": _fitted_start(known, standardize, head), "fresh": _fresh_start(known)}
        best: tuple[tuple[float, float], Encoder, dict[str, Any]] | None = None
        for name, rate in product(self.starts, self.rates):
            settings = self._settings(rate, len(rows))
            classifier = starts[name].classifier(known.device)
            with isolated_rng(seed, "label_efficiency", device=known.device), true_float32():
                fine_tune(classifier, known.encoder, material, settings, seed=seed)
            tuned = replace(known.encoder, module=classifier, feature_dim=known.num_classes, projector=None)
            top1, loss = validated(tuned, validation, known.device)
            classifier.to("cpu")  # budgets x draws networks wait for the test split
            if math.isfinite(loss) and (best is None or (-top1, loss) < best[0]):
                chosen = {"start": name, "backbone_lr": rate, "steps": settings.steps, "validation_top1": top1}
                best = ((-top1, loss), tuned, chosen)
        if best is None:
            raise DivergenceError(
                f"label_efficiency: with {len(rows)} labels fine-tuning diverged at every learning rate of the "
                f"backbone: {', '.join(map(str, self.rates))}. Offer smaller backbone_lrs."
            )
        return best[1], best[2]

    def _settings(self, rate: float, budget: int) -> FineTuning:
        return FineTuning(
            steps=self._steps(budget),
            batch_size=self.batch_size,
            backbone_lr=rate,
            head_lr=self.head_lr,
            optimizer="adamw",
            weight_decay=WEIGHT_DECAY,
            schedule="cosine",
            warmup=WARMUP,
            order="choices",
            label_smoothing=self.label_smoothing,
            view=self.view,
        )

    def _steps(self, budget: int) -> int:
        """Steps for a budget: a curve whose large budgets train too briefly would flatter pre-training."""
        return max(self.steps, math.ceil(self.epochs * budget / self.batch_size))


def _mean_score(budgets: tuple[int, ...], accuracies: NDArray[np.float64], *, n: int) -> Score:
    """The mean over budgets with an interval over draws, where there are three of them that differ."""
    values = log_mean(budgets, accuracies)
    value = float(values.mean())
    if len(values) < 3 or np.ptp(values) == 0:
        return Score(metric=MEAN_TOP1, value=value, n=n)
    low, high = (MEAN_TOP1.clip(end) for end in student_interval(values))
    method = f"t 95% over {len(values)} draws"
    return Score(metric=MEAN_TOP1, value=value, n=n, low=low, high=high, covers="label draws", method=method)


def _known(encoder: Encoder, data: ImageDataset, device: str) -> Known:
    train, validation = data.split("train"), data.split("validation")
    return Known(
        encoder=encoder,
        train=train,
        validation=validation,
        x=encoder.features(train.images, device=device).to(device),
        x_val=encoder.features(validation.images, device=device).to(device),
        num_classes=data.num_classes,
        device=device,
    )


def _labelled(train: Subset, budget: int, seed: int, draw: int) -> NDArray[np.int64]:
    """Positions in the training split of one draw; a smaller budget's are among a larger one's."""
    patients = train.metadata.get("patient")
    groups = None if patients is None else patients.tolist()
    return stratified_choice(train.labels, budget, seed=seed * DRAWS_PER_SEED + draw, groups=groups)


def _digest(train: Subset, rows: NDArray[np.int64]) -> str:
    """Which images were labelled, short enough to keep with the result: SHA-256 of their sorted indices, cut."""
    return hashlib.sha256(",".join(map(str, train.samples[rows].tolist())).encode()).hexdigest()[:16]


def _fitted_start(known: Known, standardize: Standardizer, head: LinearCandidates) -> Start:
    """The backbone below the fitted head."""
    linear = nn.Linear(head.weight.shape[0], known.num_classes, device=known.device)
    with torch.no_grad():
        linear.weight.copy_(head.weight[:, 0].T)
        linear.bias.copy_(head.bias[0])
    return Start(backbone=known.encoder.module, standardize=standardize, head=linear)


def _fresh_start(known: Known) -> Start:
    """The backbone below a random head on the features as they are."""
    width = known.x.shape[1]
    as_they_are = Standardizer(known.x.new_zeros(width), known.x.new_ones(width))
    head = nn.Linear(width, known.num_classes).to(known.device)
    return Start(backbone=known.encoder.module, standardize=as_they_are, head=head)
