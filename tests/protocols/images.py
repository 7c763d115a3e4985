"""Small datasets and encoders for tests of protocols."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from bench.data.dataset import ImageDataset, Subset
from bench.encoders.encoder import Encoder


@dataclass(frozen=True, kw_only=True)
class ReadLog(ImageDataset):
    """Notes which splits are read, in order."""

    reads: list[str] = field(default_factory=list)

    def split(self, name: str) -> Subset:
        self.reads.append(name)
        return super().split(name)


def digits(*, train: int = 600, validation: int = 200, test: int = 300, classes: int = 10) -> ReadLog:
    """The 8x8 digits of scikit-learn, in their order; only the first ``classes`` of them."""
    bunch = load_digits()
    keep = bunch.target < classes
    images = (bunch.images[keep] * 15.9).astype(np.uint8)[..., None]
    ends = np.cumsum([0, train, validation, test])
    names = ("train", "validation", "test")
    return ReadLog(
        key="digits",
        title="Digits",
        images=images,
        labels=bunch.target[keep].astype(np.int64),
        class_names=tuple("0123456789"[:classes]),
        splits={name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(names)},
    )


def with_test_labels(data: ReadLog, labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> ReadLog:
    changed = data.labels.copy()
    changed[data.splits["test"]] = labels
    return replace(data, labels=changed, reads=[])


class Pixels(nn.Module):
    """The pixels themselves as features."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


class SmallNet(nn.Module):
    """One convolution with batch norm, and dropout, whose draws have to be seeded too."""

    def __init__(self, feature_dim: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(128, feature_dim),
            nn.ReLU(),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layers(images)
        return features


def encoder_of(module: nn.Module, data: ImageDataset, *, feature_dim: int) -> Encoder:
    mean, std = data.channel_statistics
    return Encoder(
        module=module.eval(),
        feature_dim=feature_dim,
        channels=1,
        image_size=data.image_size,
        mean=mean,
        std=std,
        origin="a test",
        identity="",
    )


def pixel_encoder(data: ImageDataset) -> Encoder:
    return encoder_of(Pixels(), data, feature_dim=64)


def small_encoder(data: ImageDataset) -> Encoder:
    torch.manual_seed(0)
    return encoder_of(SmallNet(), data, feature_dim=32)
