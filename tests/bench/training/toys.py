"""Small methods, images and recipes for the tests of the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from bench.card import MethodCard
from bench.encoders.convnet import ConvNet
from bench.spec import DataSpec, PretrainSpec, TrainingSpec, ViewSpec
from bench.training.heads import mlp
from bench.training.history import TrainingResult
from bench.training.loop import pretrain
from bench.training.method import Method
from bench.training.momentum import cosine_tau, momentum_copy, update_momentum
from bench.training.randomness import isolated_rng

GRAY_VIEW = ViewSpec(saturation=0.0, hue=0.0, grayscale=0.0, crop_scale=(0.5, 1.0), rotation=10.0)


def toy_images(count: int = 50, size: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, size=(count, size, size, 1), dtype=np.uint8)


def toy_labels(count: int = 50) -> NDArray[np.int64]:
    return np.arange(count, dtype=np.int64) % 3


class Contrast(Method):
    """Contrasts a batch of views; draws from the global generators too, as third-party losses do."""

    card = MethodCard(title="Contrast", family="contrastive", summary="toy", complete_collapse="negatives")

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.projector = nn.Sequential(mlp((backbone.feature_dim, 16, 8)), nn.Dropout(0.1))

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        z1, z2 = (normalize(self.projector(self.backbone(x)), dim=1) for x in views)
        noise = float(np.random.standard_normal()) * 1e-2  # noqa: NPY002 (the global state is the point)
        return {
            "agreement": 0.5 * (z1 - z2).square().mean() * (1 + noise),
            "contrast": cross_entropy(z1 @ z2.T / 0.5, torch.arange(len(z1))),
        }


class Momentum(Contrast):
    """The same against a momentum encoder, with a queue."""

    queue: Tensor
    taus: list[float]

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.target = momentum_copy(nn.Sequential(self.backbone, self.projector))
        self.register_buffer("queue", normalize(torch.randn(32, 8), dim=1))
        self.taus = []

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        x1, x2 = views
        z = normalize(self.projector(self.backbone(x1)), dim=1)
        with torch.no_grad():
            keys = normalize(self.target(x2), dim=1)
        logits = torch.cat([(z * keys).sum(dim=1, keepdim=True), z @ self.queue.T], dim=1) / 0.5
        self.queue = torch.cat([keys, self.queue])[: len(self.queue)]
        return {"info_nce": cross_entropy(logits, torch.zeros(len(z), dtype=torch.int64))}

    def after_step(self, step: int, total_steps: int) -> None:
        tau = cosine_tau(0.9, step, total_steps)
        self.taus.append(tau)
        update_momentum(self.target, nn.Sequential(self.backbone, self.projector), tau)


class Classifier(Method):
    """Learns from labels."""

    card = MethodCard(title="Classifier", family="baseline", summary="toy", uses_labels=True, views=1)

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)
        self.head = nn.Linear(backbone.feature_dim, 3)
        self.seen: list[Tensor] = []

    def forward(self, views: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        self.seen.append(labels)
        return {"cross_entropy": cross_entropy(self.head(self.backbone(views[0])), labels)}


def make(kind: type[Method], *, seed: int = 0) -> Any:
    """A method on a tiny backbone, the same for the same seed."""
    with isolated_rng(seed, "backbone"):
        return kind(ConvNet(1, 4))


def toy_spec(*, seed: int = 0, views: tuple[ViewSpec, ...] = (GRAY_VIEW,), **training: Any) -> PretrainSpec:
    """Three steps per epoch on 50 images, one left over for every other three."""
    recipe = TrainingSpec(**{"epochs": 4, "batch_size": 16, "lr": 2e-3, **training})
    data = DataSpec(key="toys")
    return PretrainSpec(method="toy", backbone="convnet", data=data, views=views, training=recipe, seed=seed)


def train(method: Method, spec: PretrainSpec, **options: Any) -> TrainingResult:
    """Pre-train on the toy images."""
    labels = options.pop("labels", None)
    return pretrain(method, spec, toy_images(), labels, mean=(0.5,), std=(0.25,), **options)
