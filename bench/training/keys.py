"""Keys of momentum contrast: encoded with shuffled batch norm, kept in a queue (MoCo, arXiv:1911.05722)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench.training.distributed import draw_permutations, gather, own_rows
from bench.training.norm import grouped_batch_norm


@torch.no_grad()
def encode_shuffled(encoder: nn.Module, images: Tensor, *, groups: int) -> Tensor:
    """What ``encoder`` makes of the images of all processes, in the order of the ranks, without a gradient.

    Batch norm normalizes ``groups`` parts of the whole batch alone, and chance decides which image is in which part: a
    query and its key then share no batch statistics by which they could be told apart from the rest (section 3.3).

    Args:
        encoder: (B, C, …) to (B, P).
        images: (B, C, …) of this process.
        groups: parts of the whole batch; 1 turns this off.

    Returns:
        (W B, P).
    """
    everyone = gather(images)  # (W B, C, …)
    (order,) = draw_permutations(images, count=1)  # (W B,), the same in every process
    with grouped_batch_norm(encoder, groups):
        shuffled = gather(encoder(own_rows(everyone[order])))  # (W B, P)
    return shuffled[order.argsort()]


@torch.no_grad()
def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Overwrite the oldest rows of a ring buffer with keys of unit length, in place.

    Args:
        queue: (K, P).
        pointer: () int64, the row that is overwritten next; it moves on and goes round.
        keys: (n, P) of any length, oldest first; of more than K the newest K stay.
    """
    newest = normalize(keys.to(queue.dtype), dim=1)[-len(queue) :]  # (min(n, K), P)
    rows = (pointer + torch.arange(len(newest), device=queue.device)) % len(queue)
    queue[rows] = newest
    pointer.add_(len(newest)).remainder_(len(queue))
