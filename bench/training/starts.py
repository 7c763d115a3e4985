"""Where fine-tuning starts: a head that was fitted on frozen features, or a fresh one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.dataset import Images, Subset
from bench.data.pixels import planes, unit
from bench.data.views import make_view
from bench.encoders.encoder import Encoder
from bench.training.finetuning import Classifier, Material
from bench.training.finetuning_recipes import Head, Recipe
from bench.training.layout import to_channels_last
from bench.training.linear import Standardizer, fit_linear
from bench.training.randomness import stream

FIRST_FIT_GRID = tuple(product((0.03, 0.1), (1e-3, 1e-2, 3e-2, 1e-1, 3e-1)))  # (learning rate, weight decay)
FIRST_FIT_STEPS = 400
FIRST_FIT_BATCH = 256
HEAD_STD = 0.01


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where candidates of the fine-tuning start.

    Attributes:
        name: which of the recipe's starts it is.
        backbone: the network below the head; candidates train copies of it.
        standardize: of its features.
        head: linear, on the device.
        details: how the head was fitted.
        departures: from a published recipe.
    """

    name: Head = "fresh"
    backbone: nn.Module
    standardize: Standardizer
    head: nn.Linear
    details: Mapping[str, Any] = field(default_factory=dict)
    departures: tuple[str, ...] = ()

    def classifier(self, device: str) -> Classifier:
        """An own copy of the backbone and of the head, to be trained."""
        # Convolutions are faster in this layout on a CPU.
        backbone = copy.deepcopy(self.backbone).to(device).requires_grad_(True)
        to_channels_last(backbone)
        return Classifier(backbone, self.standardize, copy.deepcopy(self.head))


def prepare_start(
    name: Head, encoder: Encoder, recipe: Recipe, material: Material, validation: Subset, *, num_classes: int, seed: int
) -> Start:
    """One of the recipe's starts; only a fitted one reads the images of ``material`` and ``validation``."""
    if name == "fitted":
        return _fitted(encoder, recipe, material, validation, num_classes=num_classes, seed=seed)
    layer = first_layer(encoder.projector) if name == "projector" else None
    backbone, width = encoder.module, encoder.feature_dim
    if layer is not None:
        backbone, width = nn.Sequential(backbone, layer), int(layer[0].out_features)  # type: ignore[arg-type]
    missing = name == "projector" and layer is None
    device = material.labels.device
    head = nn.Linear(width, num_classes)
    with torch.no_grad():
        head.weight.copy_(HEAD_STD * torch.randn(head.weight.shape, generator=stream("semi_supervised head", seed)))
        head.bias.zero_()
    return Start(
        name=name,
        backbone=backbone,
        standardize=Standardizer(torch.zeros(width, device=device), torch.ones(width, device=device)),
        head=head.to(device),
        departures=("there is no projector with a hidden layer: the head is on the representation",) * missing,
    )


def first_layer(projector: nn.Module | None) -> nn.Sequential | None:
    """The projector up to its first ReLU, where it begins with a linear layer that has one."""
    layers = list(projector) if isinstance(projector, nn.Sequential) else []
    ends = [index for index, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    return nn.Sequential(*layers[: ends[0] + 1]) if ends and isinstance(layers[0], nn.Linear) else None


def first_fit_products(seen: int, *, feature_dim: int, num_classes: int) -> float:
    """Multiplications of the first fit on ``seen`` images, in units of 1e9: forward, and again for the gradient."""
    rows = FIRST_FIT_STEPS * min(seen, FIRST_FIT_BATCH)
    return 2 * rows * feature_dim * num_classes * len(FIRST_FIT_GRID) / 1e9


def _fitted(
    encoder: Encoder, recipe: Recipe, material: Material, validation: Subset, *, num_classes: int, seed: int
) -> Start:
    """A linear head on frozen features of the labelled images and their augmented copies."""
    generator, device = stream("semi_supervised copies", seed), material.labels.device

    def seen(pixels: Tensor) -> Tensor:
        return make_view(pixels, recipe.view, generator)

    versions = (frozen_features(encoder, material.images, device, seen) for _ in range(recipe.copies))
    x = torch.cat([frozen_features(encoder, material.images, device), *versions])  # (N (1 + copies), D)
    standardize = Standardizer.fit(x)
    lrs, weight_decays = torch.tensor(FIRST_FIT_GRID, dtype=torch.float64).T
    candidates = fit_linear(
        standardize(x),
        material.labels.repeat(1 + recipe.copies),
        num_classes=num_classes,
        lrs=lrs,
        weight_decays=weight_decays,
        epochs=math.ceil(FIRST_FIT_STEPS / max(1, len(x) // FIRST_FIT_BATCH)),
        batch_size=FIRST_FIT_BATCH,
        generator=stream("semi_supervised rows", seed),
    )
    x_val = standardize(encoder.features(validation.images, device=device.type).to(device))
    best, accuracies = candidates.choose(x_val, torch.as_tensor(validation.labels, device=device))
    head = nn.Linear(x.shape[1], num_classes, device=x.device)
    with torch.no_grad():
        head.weight.copy_(candidates.weight[:, best].T)
        head.bias.copy_(candidates.bias[best])
    lr, weight_decay = FIRST_FIT_GRID[best]
    fitted = {"lr": lr, "weight_decay": weight_decay, "validation_top1": accuracies[best]}
    details = {"frozen_head": fitted}
    return Start(name="fitted", backbone=encoder.module, standardize=standardize, head=head, details=details)


@torch.no_grad()
def frozen_features(
    encoder: Encoder,
    images: Images,
    device: torch.device,
    change: Callable[[Tensor], Tensor] | None = None,
    *,
    batch_size: int = 512,
) -> Tensor:
    """Features (N, D) of stored images (N, H, W, C) in evaluation mode; ``change`` is applied to the pixels before.

    Only one batch is ever held as pixels: in float32 a tenth of ImageNet takes 77 GB.
    """
    module = encoder.module.to(device).eval()
    starts = range(0, len(images), batch_size)
    batches = (unit(planes(images[start : start + batch_size]).to(device)) for start in starts)
    return torch.cat([module(encoder.normalize(change(x) if change else x)).float() for x in batches])
