"""Memory layout: channels last, where images and convolutions have two spatial dimensions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def channels_last(tensor: Tensor) -> Tensor:
    """The tensor in the layout (B, H, W, C) if it has four dimensions, which volumes and vectors do not have."""
    # `contiguous` would leave a first layer of one channel as it is, and with it the layout of all that follows.
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def to_channels_last(module: nn.Module) -> None:
    """Lay out every parameter and buffer by :func:`channels_last`; ``Module.to`` refuses five dimensions."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = channels_last(tensor.data)
