"""Semi-supervised classification: fine-tuning the whole network with the labels of a few training images.

A stratified subset of the training split, drawn by seed, keeps its labels; no other training image is used. The recipe:

1. A linear head is fitted on frozen features of the labelled images and of ``copies`` light augmentations of each; all
   learning rate x weight decay candidates are trained together and the validation split chooses one. With three or
   four labels per class, starting from a head that fits is worth more than any setting of the fine-tuning.
2. Backbone and head are fine-tuned together, each with its own learning rate, on lightly augmented batches with
   smoothed labels. AdamW, warm-up and cosine: the rates of SGD that suit a pre-trained backbone diverge on a random
   one, and one recipe has to serve both. Batch norm uses the batch's statistics: with frozen ones it diverges.
3. The validation split chooses among the learning rates; then the test split is read, once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.card import ProtocolCard
from bench.data.dataset import ImageDataset, Subset
from bench.data.pixels import planes, unit
from bench.data.splits import stratified_subset
from bench.data.views import make_view
from bench.encoders.encoder import Encoder
from bench.errors import DivergenceError, SpecError
from bench.metric import TOP1, TOP5
from bench.protocol import Outcome, Protocol
from bench.registry import register_protocol
from bench.spec import ViewSpec
from bench.statistics.classification import ranked_predictions, top_k_scores, undefined_metrics
from bench.training.layout import to_channels_last
from bench.training.linear import Standardizer, fit_linear
from bench.training.precision import true_float32
from bench.training.randomness import isolated_rng, stream

FIRST_FIT_GRID = tuple(product((0.03, 0.1), (1e-3, 1e-2, 3e-2, 1e-1, 3e-1)))  # (learning rate, weight decay)
FIRST_FIT_STEPS = 400
FIRST_FIT_BATCH = 256
WEIGHT_DECAY = 0.01
WARMUP_SHARE = 0.1


class Classifier(nn.Module):
    """A backbone, the fixed standardization of its features, and a linear head."""

    def __init__(self, backbone: nn.Module, standardize: Standardizer, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.standardize = standardize
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Normalized images (B, C, H, W) to logits (B, K)."""
        logits: Tensor = self.head(self.standardize(self.backbone(images)))
        return logits


@dataclass(frozen=True)
class Trial:
    """A fine-tuned classifier (an encoder whose features are logits) and how it did on the validation split."""

    backbone_lr: float
    head_lr: float
    validation_top1: float
    validation_loss: float
    classifier: Encoder

    def record(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in ("backbone_lr", "head_lr", "validation_top1")}


@register_protocol(
    "semi_supervised",
    card=ProtocolCard(
        title="Semi-supervised",
        summary="Accuracy after fine-tuning with a few labels per class; the head that it starts from and the learning "
        "rates are chosen with all labels of the validation split.",
        metrics=(TOP1, TOP5),
        chance="100/K % top-1 and 500/K % top-5 for K balanced classes; top-5 is not defined below 5 classes",
    ),
)
class SemiSupervised(Protocol):
    """Fine-tuning on a stratified subset.

    Args:
        fraction: share of the training split that keeps its labels.
        steps: optimizer steps of the fine-tuning, whatever the size of the subset.
        batch_size: images of a step; a smaller subset is repeated within the batch, each time in another view.
        backbone_lrs: learning rates of the backbone; the validation split chooses.
        head_lrs: learning rates of the head; the validation split chooses.
        label_smoothing: share of the target that is spread evenly over the classes.
        copies: augmented copies of each labelled image for the first fit of the head.
        batch_norm: ``batch`` (statistics of the batch; the running ones follow) or ``frozen``.
        crop_scale: share of the image's area that a crop covers, (low, high).
        rotation: largest rotation in degrees.
        flip: probability of a horizontal flip.
    """

    def __init__(
        self,
        *,
        fraction: float = 0.01,
        steps: int = 200,
        batch_size: int = 64,
        backbone_lrs: tuple[float, ...] = (1e-3, 3e-3),
        head_lrs: tuple[float, ...] = (1e-3,),
        label_smoothing: float = 0.1,
        copies: int = 10,
        batch_norm: str = "batch",
        crop_scale: tuple[float, float] = (0.6, 1.0),
        rotation: float = 15.0,
        flip: float = 0.0,
    ) -> None:
        if batch_norm not in ("batch", "frozen"):
            raise SpecError(f"semi_supervised: batch_norm must be 'batch' or 'frozen', got {batch_norm!r}.")
        if not backbone_lrs or not head_lrs or steps < 1 or batch_size < 2:
            raise SpecError("semi_supervised: needs a learning rate of each kind, a step, and two images in a batch.")
        self.fraction = fraction
        self.steps = steps
        self.batch_size = batch_size
        self.rates = list(product(backbone_lrs, head_lrs))
        self.label_smoothing = label_smoothing
        self.copies = copies
        self.batch_norm = batch_norm
        self.view = ViewSpec(crop_scale=crop_scale, rotation=rotation, flip=flip, jitter=0.0, grayscale=0.0)

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        labelled = _labelled(data, self.fraction, seed)
        validation = data.split("validation")
        with isolated_rng(seed, "semi_supervised", device=device), true_float32():
            images = planes(np.asarray(labelled.images)).to(device)  # (N, C, H, W) as stored
            labels = torch.as_tensor(labelled.labels, device=device)
            standardize, head, first_fit = self._first_fit(
                encoder, images, labels, validation, num_classes=data.num_classes, seed=seed, device=device
            )
            fitted_first = time.perf_counter()
            trials = []
            for backbone_lr, head_lr in self.rates:
                start = _fresh_classifier(encoder, standardize, head)
                self._fine_tune(start, encoder, images, labels, backbone_lr=backbone_lr, head_lr=head_lr, seed=seed)
                tuned = replace(encoder, module=start, feature_dim=data.num_classes)
                trials.append(Trial(backbone_lr, head_lr, *_validate(tuned, validation, device), tuned))
        best = _choose(trials)
        chosen = time.perf_counter()
        test = data.split("test")
        log_p = best.classifier.features(test.images, device=device).log_softmax(dim=1)  # (n, K)
        predictions = ranked_predictions(log_p, test.labels, test.samples)
        finished = time.perf_counter()
        return Outcome(
            scores=top_k_scores(predictions, num_classes=data.num_classes),
            predictions=predictions,
            details={
                **best.record(),
                "grid": [trial.record() for trial in trials],
                "frozen_head": first_fit,
                "labelled": len(labelled),
                "labelled_samples": labelled.samples.tolist(),
                "validation_images": len(validation),
                "undefined": undefined_metrics(data.num_classes),
            },
            seconds={"features": fitted_first - started, "fit": chosen - fitted_first, "test": finished - chosen},
        )

    def _first_fit(
        self,
        encoder: Encoder,
        images: Tensor,
        labels: Tensor,
        validation: Subset,
        *,
        num_classes: int,
        seed: int,
        device: str,
    ) -> tuple[Standardizer, nn.Linear, dict[str, Any]]:
        """A linear head on frozen features of the labelled images and their augmented copies."""
        generator = stream("semi_supervised copies", seed)

        def seen(pixels: Tensor) -> Tensor:
            return make_view(pixels, self.view, generator)

        copies = (_frozen_features(encoder, images, seen) for _ in range(self.copies))
        x = torch.cat([_frozen_features(encoder, images), *copies])  # (N (1 + copies), D)
        standardize = Standardizer.fit(x)
        lrs, weight_decays = torch.tensor(FIRST_FIT_GRID, dtype=torch.float64).T
        candidates = fit_linear(
            standardize(x),
            labels.repeat(1 + self.copies),
            num_classes=num_classes,
            lrs=lrs,
            weight_decays=weight_decays,
            epochs=math.ceil(FIRST_FIT_STEPS / max(1, len(x) // FIRST_FIT_BATCH)),
            batch_size=FIRST_FIT_BATCH,
            generator=stream("semi_supervised rows", seed),
        )
        x_val = standardize(encoder.features(validation.images, device=device).to(device))
        best, accuracies = candidates.choose(x_val, torch.as_tensor(validation.labels, device=device))
        head = nn.Linear(x.shape[1], num_classes, device=x.device)
        with torch.no_grad():
            head.weight.copy_(candidates.weight[:, best].T)
            head.bias.copy_(candidates.bias[best])
        lr, weight_decay = FIRST_FIT_GRID[best]
        return standardize, head, {"lr": lr, "weight_decay": weight_decay, "validation_top1": accuracies[best]}

    def _fine_tune(
        self,
        classifier: Classifier,
        encoder: Encoder,
        images: Tensor,
        labels: Tensor,
        *,
        backbone_lr: float,
        head_lr: float,
        seed: int,
    ) -> None:
        """Train the classifier in place; every candidate sees the same batches and views."""
        groups = [
            {"params": list(classifier.backbone.parameters()), "lr": backbone_lr},
            {"params": list(classifier.head.parameters()), "lr": head_lr},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        order, views = (stream(f"semi_supervised {purpose}", seed) for purpose in ("order", "views"))
        classifier.train(self.batch_norm == "batch")
        for _ in range(self.steps):
            rows = _batch_rows(len(labels), self.batch_size, order).to(labels.device)
            seen = make_view(unit(images[rows]), self.view, views)  # (B, C, H, W)
            loss = cross_entropy(
                classifier(encoder.normalize(seen)), labels[rows], label_smoothing=self.label_smoothing
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    def _lr_factor(self, step: int) -> float:
        """Linear warm-up over the first tenth of the steps, times a cosine to 0."""
        warmup = min(1.0, (step + 1) / max(1.0, WARMUP_SHARE * self.steps))
        return warmup * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def _labelled(data: ImageDataset, fraction: float, seed: int) -> Subset:
    """The training images that keep their labels."""
    train = data.split("train")
    rows = stratified_subset(train.labels, fraction, seed, num_classes=data.num_classes)
    return train[rows]


@torch.no_grad()
def _frozen_features(
    encoder: Encoder, images: Tensor, change: Callable[[Tensor], Tensor] | None = None, *, batch_size: int = 512
) -> Tensor:
    """Features (N, D) of stored images (N, C, H, W) in evaluation mode; ``change`` is applied to the pixels before.

    Only one batch is ever held as pixels: in float32 a tenth of ImageNet takes 77 GB.
    """
    module = encoder.module.to(images.device).eval()
    batches = (unit(part) for part in images.split(batch_size))
    return torch.cat([module(encoder.normalize(change(x) if change else x)).float() for x in batches])


def _fresh_classifier(encoder: Encoder, standardize: Standardizer, head: nn.Linear) -> Classifier:
    """The start of every candidate: an own copy of the pre-trained backbone and of the fitted head."""
    # Convolutions are faster in this layout on a CPU.
    backbone = encoder.clone().module.requires_grad_(True)
    to_channels_last(backbone)
    own = nn.Linear(head.in_features, head.out_features, device=head.weight.device)
    own.load_state_dict(head.state_dict())
    return Classifier(backbone, standardize, own)


def _batch_rows(n: int, batch_size: int, generator: torch.Generator) -> Tensor:
    """Rows of one batch: a random choice, or all rows again and again where there are fewer than the batch takes."""
    passes = -(-batch_size // n)
    return torch.cat([torch.randperm(n, generator=generator) for _ in range(passes)])[:batch_size]


def _validate(tuned: Encoder, validation: Subset, device: str) -> tuple[float, float]:
    """Top-1 in percent and cross entropy on the validation split."""
    logits = tuned.features(validation.images, device=device)
    labels = torch.as_tensor(validation.labels)
    hits = int((logits.argmax(dim=1) == labels).sum())
    return 100 * hits / len(labels), cross_entropy(logits, labels).item()


def _choose(trials: list[Trial]) -> Trial:
    """Highest validation top-1; a tie goes to the lower cross entropy, then to the earlier in the grid."""
    finite = [trial for trial in trials if math.isfinite(trial.validation_loss)]
    if not finite:
        tried = ", ".join(f"({trial.backbone_lr}, {trial.head_lr})" for trial in trials)
        raise DivergenceError(
            f"semi_supervised: fine-tuning diverged at every (backbone, head) learning rate: {tried}. "
            "Offer smaller backbone_lrs."
        )
    return min(finite, key=lambda trial: (-trial.validation_top1, trial.validation_loss))
