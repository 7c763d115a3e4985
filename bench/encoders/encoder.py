"""What a protocol evaluates: a backbone with its input contract and its origin."""

from __future__ import annotations

import copy
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bench.data.dataset import Images
from bench.data.pixels import unit
from bench.data.reading import read_planes
from bench.training.distributed import gather_blocks, own_blocks, process_count, take_from_first
from bench.training.precision import true_float32


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A module from normalized images to pooled features.

    Attributes:
        module: maps (B, C, H, W) to (B, ``feature_dim``).
        feature_dim: width of the pooled features.
        channels: input channels C.
        image_size: input height and width in pixels; other sizes are resized to it.
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

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C', H', W') in [0, 1] to what the module takes: (B, C, H, W), normalized.

        Another size than ``image_size`` is resized, bilinear and antialiased. Gray images get the channels of a module
        that takes color, equal but for the normalization.
        """
        if tuple(pixels.shape[2:]) != self.image_size:
            pixels = interpolate(pixels, size=self.image_size, mode="bilinear", antialias=True)
        return self.standardize(pixels)

    def standardize(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C', H, W) in [0, 1] of any size, normalized by ``mean`` and ``std``: (B, C, H, W)."""
        mean, std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    @torch.inference_mode()
    @true_float32()
    def features(self, images: Images, *, device: str = "cpu", batch_size: int = 512) -> Tensor:
        """Pooled features (N, D) float32 of images (N, H, W, C) uint8 or uint16, on the CPU, in evaluation mode.

        Images that are decoded when they are read are read ahead. Several processes that evaluate together share the
        batches; a batch stays whole and comes from the weights of the first process, so all get what one would compute.
        """
        if process_count() > 1:
            take_from_first(self.module.to(device).state_dict().values())
        sizes = [min(batch_size, len(images) - start) for start in range(0, len(images), batch_size)]
        batches = read_planes(images, batch_size, own_blocks(len(sizes)))
        own = (self.pooled(unit(pixels.to(device))) for pixels in batches)
        with closing(batches):
            return torch.cat([part.cpu() for part in gather_blocks(own, sizes, width=self.feature_dim, device=device)])

    @torch.inference_mode()
    @true_float32()
    def pooled(self, pixels: Tensor) -> Tensor:
        """Pooled features (B, D) float32 of one batch of pixels (B, C, H, W) in [0, 1], on their device, in evaluation
        mode: of views, for example."""
        module = self.module.to(pixels.device).eval()
        features: Tensor = module(self.normalize(pixels)).float()
        return features

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
