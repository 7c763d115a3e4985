"""What a protocol evaluates: a backbone with its input contract and its origin."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.training.precision import true_float32


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A module from normalized images to pooled features.

    Attributes:
        module: maps (B, C, H, W) to (B, ``feature_dim``).
        feature_dim: width of the pooled features.
        channels: input channels C.
        image_size: input height and width in pixels.
        mean, std: per channel, on the [0, 1] scale.
        origin: where the weights come from, in words.
        identity: digest of the pre-training's spec, code and data.
        projector: the pre-training's head, (B, ``feature_dim``) to embeddings (B, P); None where there is none.
    """

    module: nn.Module
    feature_dim: int
    channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str
    identity: str
    projector: nn.Module | None = None

    def normalize(self, images: NDArray[np.uint8] | Tensor) -> Tensor:
        """Images (B, H, W, C) uint8 to normalized float32 (B, C, H, W)."""
        pixels = torch.as_tensor(images).permute(0, 3, 1, 2).to(torch.float32).div(255.0)
        mean = torch.tensor(self.mean, device=pixels.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(-1, 1, 1)
        return (pixels - mean) / std

    @torch.inference_mode()
    @true_float32()
    def features(self, images: NDArray[np.uint8], *, device: str = "cpu", batch_size: int = 512) -> Tensor:
        """Pooled features (N, D) float32 of images (N, H, W, C) uint8, on the CPU, in evaluation mode."""
        module = self.module.to(device).eval()
        parts = [
            module(self.normalize(torch.as_tensor(images[start : start + batch_size]).to(device))).float().cpu()
            for start in range(0, len(images), batch_size)
        ]
        return torch.cat(parts)

    @torch.inference_mode()
    @true_float32()
    def embeddings(self, features: Tensor, *, device: str = "cpu", batch_size: int = 8192) -> Tensor | None:
        """What the projector makes of pooled features (N, D): (N, P) float32 on the CPU, in evaluation mode."""
        if self.projector is None:
            return None
        projector = self.projector.to(device).eval()
        kind = next((p.dtype for p in projector.parameters()), torch.float32)
        parts = [features[start : start + batch_size] for start in range(0, len(features), batch_size)]
        return torch.cat([projector(part.to(device, kind)).float().cpu() for part in parts])

    @property
    def networks(self) -> nn.ModuleDict:
        """Backbone and projector under these names: what the store keeps."""
        parts = {"backbone": self.module, "projector": self.projector}
        return nn.ModuleDict({name: part for name, part in parts.items() if part is not None})

    def clone(self) -> Encoder:
        """A copy with its own weights, for fine-tuning."""
        return replace(self, module=copy.deepcopy(self.module), projector=copy.deepcopy(self.projector))
