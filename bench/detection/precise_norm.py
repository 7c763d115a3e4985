"""Running statistics of batch normalization, computed anew under the final weights.

Source: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm (arXiv:2105.07576), section 3: a plain mean over batches
instead of the moving one, which remembers weights that are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")


def batch_norms(module: nn.Module) -> Iterator[_BatchNorm]:
    """Those inside of a module."""
    return (part for part in module.modules() if isinstance(part, _BatchNorm))


@torch.no_grad()
def recompute_statistics(module: nn.Module, batches: Iterable[T], forward: Callable[[T], object]) -> None:
    """Replace the running statistics of the batch norms that are in training mode by means over batches.

    Args:
        forward: passes a batch through the module.
    """
    norms = [norm for norm in batch_norms(module) if norm.training]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
    for batch in batches:
        forward(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
