"""Fine-tuning of a whole classifier on few labelled images, with or without pseudo-labels of the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.data.dataset import Images, Subset, in_memory
from bench.data.pixels import planes, unit
from bench.data.views import make_view
from bench.encoders.encoder import Encoder
from bench.spec import ViewSpec
from bench.training.linear import Standardizer
from bench.training.optimizers import LARS
from bench.training.pseudo_labels import PseudoLabels, pseudo_label_loss
from bench.training.randomness import stream

HELD_BYTES = 4 * 2**30
"""Images that are decoded when asked for are kept in memory up to this size: each is read in every epoch."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """One way to fine-tune.

    Attributes:
        steps: optimizer steps.
        batch_size: labelled images of a step.
        backbone_lr, head_lr: peak learning rates, as they are applied.
        optimizer: ``adamw``, ``sgd``, ``nesterov`` or ``lars`` (SGD's momentum is 0.9; LARS does not adapt the head).
        weight_decay: of all parameters.
        schedule: ``cosine`` to 0, or ``steps``.
        warmup: share of the steps with a linear warm-up.
        milestones: shares of the steps after each of which ``steps`` multiplies the rates by ``decay``.
        order: ``choices`` draws every batch anew, ``passes`` takes every image once before any comes again.
        label_smoothing: share of the target that is spread evenly over the classes.
        batch_norm: ``batch`` (statistics of the batch; the running ones follow) or ``frozen``.
        view: random transforms of every image.
    """

    steps: int
    batch_size: int
    backbone_lr: float
    head_lr: float
    optimizer: Literal["adamw", "sgd", "nesterov", "lars"]
    weight_decay: float
    schedule: Literal["cosine", "steps"]
    warmup: float = 0.0
    milestones: tuple[float, ...] = ()
    decay: float = 1.0
    order: Literal["choices", "passes"] = "passes"
    label_smoothing: float = 0.0
    batch_norm: str = "batch"
    view: ViewSpec

    def lr_factor(self, step: int) -> float:
        """Factor on the peak learning rates at ``step``, counted from 0."""
        warmup = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        if self.schedule == "steps":
            return warmup * self.decay ** sum(step >= share * self.steps for share in self.milestones)
        return warmup * 0.5 * (1 + math.cos(math.pi * step / self.steps))


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


@dataclass(frozen=True, kw_only=True)
class Material:
    """What fine-tuning sees: images with labels, and images without any.

    Attributes:
        images: the labelled images, (n, H, W, C) as stored.
        labels: (n,) classes, on the device.
        others: images that may serve without labels, (m, H, W, C) as stored.
        unlabelled: positions in ``others`` of those that do.
    """

    images: Images
    labels: Tensor
    others: Images | None = None
    unlabelled: NDArray[np.int64] | None = None

    def batch(self, rows: Tensor) -> Tensor:
        """Labelled pixels (B, C, H, W) in [0, 1]."""
        return unit(planes(self.images[rows.numpy()]).to(self.labels.device))

    def unlabelled_batch(self, rows: Tensor) -> Tensor:
        """Unlabelled pixels (B, C, H, W) in [0, 1]."""
        assert self.others is not None and self.unlabelled is not None
        return unit(planes(self.others[self.unlabelled[rows.numpy()]]).to(self.labels.device))


def held(images: Images) -> Images:
    """The images in memory, if they fit there."""
    size = math.prod(images.shape) * images.dtype.itemsize
    return images if in_memory(images) or size > HELD_BYTES else np.asarray(images)


def fine_tune(
    classifier: Classifier,
    encoder: Encoder,
    material: Material,
    settings: FineTuning,
    *,
    seed: int,
    pseudo: PseudoLabels | None = None,
) -> None:
    """Train the classifier in place.

    The same seed gives every candidate of a grid the same batches and views; pseudo-labels do not change those of the
    labelled images.

    Args:
        encoder: normalizes the pixels.
        pseudo: adds the weighted loss on unlabelled images, of which the material then has some.
    """
    optimizers = _optimizers(classifier, settings)
    order, views, other_order, other_views = (
        stream(f"semi_supervised {purpose}", seed) for purpose in ("order", "views", "other order", "other views")
    )
    n = len(material.labels)
    batches = batch_rows(n, settings.batch_size, settings.order, order)
    others: Iterator[Tensor] = iter(())
    if pseudo is not None and material.unlabelled is not None:
        count = len(material.unlabelled)
        others = batch_rows(count, min(pseudo.batch_size, count), "passes", other_order)
    classifier.train(settings.batch_norm == "batch")
    for step in range(settings.steps):
        rows = next(batches)
        seen = make_view(material.batch(rows), settings.view, views)  # (B, C, H, W)
        alpha = pseudo.alpha(step, settings.steps) if pseudo else 0.0
        if alpha > 0:  # one forward pass: batch norm sees labelled and unlabelled images together
            other = make_view(material.unlabelled_batch(next(others)), settings.view, other_views)
            seen = torch.cat([seen, other])  # (B + B', C, H, W)
        logits = classifier(encoder.normalize(seen))
        targets = material.labels[rows.to(material.labels.device)]
        loss = cross_entropy(logits[: len(rows)], targets, label_smoothing=settings.label_smoothing)
        if alpha > 0:
            loss = loss + alpha * pseudo_label_loss(logits[len(rows) :])
        factor = settings.lr_factor(step)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()


def validated(tuned: Encoder, validation: Subset, device: str) -> tuple[float, float]:
    """Top-1 in percent and cross entropy on the validation images of an encoder whose features are logits."""
    logits = tuned.features(validation.images, device=device)
    labels = torch.as_tensor(validation.labels)
    hits = int((logits.argmax(dim=1) == labels).sum())
    return 100 * hits / len(labels), cross_entropy(logits, labels).item()


def batch_rows(n: int, batch_size: int, order: str, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of one batch after the other, without end.

    Args:
        n: number of images.
        batch_size: rows of a batch.
        order: ``choices``: a random choice, or all rows again and again where there are fewer than the batch takes;
            ``passes``: every row once before any comes again, so that a pass may end within a batch.
        generator: draws.
    """
    left = torch.empty(0, dtype=torch.int64)
    while True:
        if order == "choices":
            left = left[:0]
        while len(left) < batch_size:
            left = torch.cat([left, torch.randperm(n, generator=generator)])
        yield left[:batch_size]
        left = left[batch_size:]


def _optimizers(classifier: Classifier, settings: FineTuning) -> list[torch.optim.Optimizer]:
    """Optimizers whose groups keep their peak learning rate; a backbone without parameters has no group."""
    backbone = {"params": list(classifier.backbone.parameters()), "peak": settings.backbone_lr}
    head = {"params": list(classifier.head.parameters()), "peak": settings.head_lr}
    decay = settings.weight_decay
    groups = [group for group in (backbone, head) if group["params"]]
    if settings.optimizer == "adamw":
        return [torch.optim.AdamW(groups, lr=0.0, weight_decay=decay)]
    nesterov = settings.optimizer == "nesterov"
    if settings.optimizer == "lars" and len(groups) > 1:
        adapted = LARS([backbone], lr=0.0, momentum=0.9, weight_decay=decay)
        return [adapted, torch.optim.SGD([head], lr=0.0, momentum=0.9, weight_decay=decay)]
    return [torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=decay, nesterov=nesterov)]
