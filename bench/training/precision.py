"""Full precision: losses in float32 at least, and float32 convolutions without TF32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def full_precision(loss: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    """Make a loss compute in float32 (or float64, if that is what it gets) under autocast.

    Exponentials of similarities, variances and covariances lose their meaning in 8 to 11 bits of mantissa, and autocast
    would run their matrix products in half precision even for float32 inputs.

    Args:
        loss: a function of embeddings (positional tensors) and keyword-only settings.
    """

    @wraps(loss)
    def run(*embeddings: Tensor, **settings: Any) -> dict[str, Tensor]:
        halves = (torch.float16, torch.bfloat16)
        with torch.autocast(device_type=embeddings[0].device.type, enabled=False):
            return loss(*(z.float() if z.dtype in halves else z for z in embeddings), **settings)

    return run


@contextmanager
def true_float32() -> Iterator[None]:
    """Keep float32 convolutions on a CUDA device in float32 for the body.

    Torch's default rounds their inputs to the 10 bits of mantissa of TF32; float32 matrix products it leaves alone.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
