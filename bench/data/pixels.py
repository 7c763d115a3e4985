"""Pixel values: from stored whole numbers to the [0, 1] scale on which views and normalization are defined."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.data.dataset import Pixels


def planes(images: Pixels) -> Tensor:
    """Stored images (B, H, W, C) as a tensor (B, C, H, W) on the same scale; uint16 becomes int32, which torch indexes
    everywhere."""
    stored = np.asarray(images)
    wide = stored.astype(np.int32) if stored.dtype == np.uint16 else stored
    return torch.from_numpy(np.ascontiguousarray(wide.transpose(0, 3, 1, 2)))


def unit(pixels: Tensor) -> Tensor:
    """Stored pixels as float32 in [0, 1].

    Args:
        pixels: of any shape, as :func:`planes` makes them: uint8, or int32 with 16-bit values.
    """
    return pixels.to(torch.float32).div_(255.0 if pixels.dtype == torch.uint8 else 65535.0)
