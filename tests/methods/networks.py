"""Tiny backbones for tests of methods."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Recorder(nn.Module):
    """A linear backbone on flattened pixels that notes the size of every batch."""

    def __init__(self, pixels: int = 16, feature_dim: int = 6) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.linear = nn.Linear(pixels, feature_dim)
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        features: Tensor = self.linear(images.flatten(1))
        return features


def two_views(batch: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 1, 4, 4, generator=generator) for _ in range(2)]
