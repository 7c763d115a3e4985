"""Several processes that train one model on parts of one batch, or evaluate it on shared blocks of images.

Every process computes its loss from the embeddings of the whole batch and gets the gradient with respect to its own
rows; averaging the gradients over the processes, as data parallel training does, then gives the gradient that one
process would compute. With a single process everything here returns its input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    """Processes that train together, W; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """This process's number, 0 … W - 1."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(local: Tensor, *, from_all: bool = True) -> Tensor:
    """The rows of all processes in the order of their ranks, (B, …) to (W B, …), with a gradient.

    Args:
        local: the same shape in every process.
        from_all: this process's rows get the gradient of all processes' losses, which is exact once the gradients are
            averaged. False takes that of its own loss alone: where all compute the same loss, the averaged gradient is
            1/W of the exact one.
    """
    if process_count() == 1:
        return local
    gathered: Tensor = _Gather.apply(local, from_all)
    return gathered


def summed(local: Tensor) -> Tensor:
    """The sum over processes, in every one of them; its gradient is the sum over processes too."""
    if process_count() == 1:
        return local
    total: Tensor = _Sum.apply(local)
    return total


def own_rows(whole: Tensor) -> Tensor:
    """This process's part of gathered rows, (W B, …) to (B, …)."""
    rows = len(whole) // process_count()
    return whole[process_rank() * rows :][:rows]


@torch.no_grad()
def averaged(local: Tensor) -> Tensor:
    """The mean over processes of tensors of one shape, without a gradient; the same bits in every one of them."""
    return summed(local) / process_count()


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients by their means over the processes, in one exchange for each type of numbers.

    Args:
        parameters: the same in every process, with gradients at the same places.
    """
    if process_count() == 1:
        return
    gradients = sorted((p.grad for p in parameters if p.grad is not None), key=lambda g: str(g.dtype))
    for _, group in groupby(gradients, key=lambda g: g.dtype):
        alike = list(group)
        means = averaged(torch.cat([g.reshape(-1) for g in alike]))
        for gradient, mean in zip(alike, means.split_with_sizes([g.numel() for g in alike]), strict=True):
            gradient.copy_(mean.view(gradient.shape))


@torch.no_grad()
def equal_everywhere(tensors: Iterable[Tensor]) -> bool:
    """Whether every process holds the same values, by the sum and the largest magnitude of each tensor."""
    if process_count() == 1:
        return True
    marks = [mark for t in tensors if t.numel() for mark in (t.double().sum(), t.double().abs().amax())]
    everywhere = gather(torch.stack(marks).nan_to_num()[None])  # (W, 2 tensors)
    return bool((everywhere == everywhere[:1]).all())


@torch.no_grad()
def take_from_first(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values, in place, where they differ."""
    held = list(tensors)
    if not equal_everywhere(held):
        for tensor in held:
            dist.broadcast(tensor, src=0)


def wait_for_all(device: str) -> None:
    """Return when all processes are here."""
    averaged(torch.zeros((), device=device))


def own_blocks(count: int) -> range:
    """Which of ``count`` blocks this process makes: block i belongs to process i mod W."""
    return range(process_rank(), count, process_count())


@torch.no_grad()
def gather_blocks(own: Iterator[Tensor], sizes: Sequence[int], *, width: int, device: str) -> Iterator[Tensor]:
    """All blocks in order, in every process.

    Args:
        own: this process's blocks, (n, D) each, in the order of :func:`own_blocks`.
        sizes: n of every block.
        width: D.
        device: holds the blocks.
    """
    count = process_count()
    if count == 1:
        yield from own
        return
    for first in range(0, len(sizes), count):
        together = sizes[first : first + count]
        padded = torch.zeros(1, max(together), width, device=device)
        if process_rank() < len(together):
            block = next(own)
            padded[0, : len(block)] = block
        for block, size in zip(gather(padded), together, strict=False):
            yield block[:size]


def draw_permutations(rows: Tensor, *, count: int) -> Tensor:
    """Random orders of the batch of all processes, (count, W B), from torch's global generator on the CPU.

    Every process draws and the first one's draw counts, so that all order the batch alike.

    Args:
        rows: (B, …), those of this process.
        count: how many.
    """
    drawn = torch.stack([torch.randperm(process_count() * len(rows)) for _ in range(count)])  # (count, W B)
    return gather(drawn.to(rows.device))[:count]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, from_all: bool) -> Tensor:  # noqa: FBT001 (autograd passes by position)
        ctx.from_all = from_all
        parts = [torch.empty_like(local, memory_format=torch.contiguous_format) for _ in range(process_count())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        if ctx.from_all:
            gradient = gradient.contiguous().clone()
            dist.all_reduce(gradient)
        return own_rows(gradient), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total
