"""Batch normalization over the batch of all processes, or over fixed parts of it.

Both replace ``forward`` on the batch norms of a network and leave the modules, their parameters and their state alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import SpecError
from bench.training.distributed import gather, process_count, summed


def synchronize_batch_norm(module: nn.Module, device: str) -> None:
    """Let every batch norm of ``module`` see the batch of all processes, in place; nothing happens with one process.

    The names of parameters and buffers stay, and so does what eval mode does. On a CUDA device torch's own
    ``SyncBatchNorm`` takes the place of each batch norm; it refuses to run on a CPU.

    Args:
        module: not itself a batch norm.
        device: ``cpu`` or ``cuda``, where it will run.

    Raises:
        ValueError: ``module`` is itself a batch norm, which cannot be replaced in place.
    """
    if process_count() == 1:
        return
    if isinstance(module, _BatchNorm):
        raise ValueError("synchronize_batch_norm works on a network, not on a single batch norm. Wrap it in a module.")
    if device == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return
    for norm in _batch_norms(module):
        _replace_forward(norm, MethodType(_synchronized, norm))


@contextmanager
def grouped_batch_norm(module: nn.Module, groups: int) -> Iterator[None]:
    """Inside, in training mode, the batch norms of ``module`` normalize each of ``groups`` parts of the batch alone.

    The parts are contiguous and equal, over the batch of all processes in the order of their ranks: W processes with
    ``groups`` parts do what one process does with as many. In one process parts may differ by one row. The running
    statistics move once per call, by the mean over all parts of their mean and unbiased variance. (In MoCo,
    arXiv:1911.05722, section 3.3, a part is what one GPU holds.)

    Args:
        module: its batch norms take (B, C, …).
        groups: 1 changes nothing.

    Raises:
        SpecError: ``groups`` is no multiple of the processes; in a call, the batch cannot be divided into the parts.
    """
    processes = process_count()
    if groups < 1 or (groups > 1 and groups % processes):
        raise SpecError(
            f"Batch norm over {groups} groups of the batch with {processes} processes: every process must hold the "
            f"same number of whole groups. Choose a multiple of {processes}, or 1 for the whole batch."
        )
    norms = _batch_norms(module) if groups > 1 else []
    before = [norm.__dict__.get("forward") for norm in norms]
    try:
        for norm in norms:
            _replace_forward(norm, partial(_grouped, norm, groups // processes, norm.forward))
        yield
    finally:
        for norm, forward in zip(norms, before, strict=True):
            _replace_forward(norm, forward)


def _batch_norms(module: nn.Module) -> list[_BatchNorm]:
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


def _replace_forward(norm: _BatchNorm, forward: Callable[..., Any] | None) -> None:
    """Set ``forward`` on the instance; None uncovers that of the class."""
    if forward is None:
        norm.__dict__.pop("forward", None)
    else:
        norm.__dict__["forward"] = forward


def _synchronized(norm: _BatchNorm, x: Tensor) -> Tensor:
    """``norm.forward`` by the mean and biased variance over all processes' x, (B, C, …) in each."""
    if not norm.training or process_count() == 1:
        return type(norm).forward(norm, x)
    norm._check_input_dim(x)  # type: ignore[no-untyped-call]
    halves = (torch.float16, torch.bfloat16)
    precise = x.float() if x.dtype in halves else x
    others = [d for d in range(x.ndim) if d != 1]
    var, mean = torch.var_mean(precise, dim=others, correction=0)  # (C,), (C,) of this process
    means, variances = gather(torch.stack([mean, var])[None]).unbind(dim=1)  # (W, C), (W, C), of as many values each
    mean = means.mean(dim=0)  # (C,)
    var = variances.mean(dim=0) + (means - mean).square().mean(dim=0)  # (C,)
    count = x.numel() // x.shape[1] * process_count()
    _track(norm, mean, var * count / (count - 1))
    scale = (var + norm.eps).rsqrt()  # (C,)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift: Tensor = torch.zeros_like(mean) if norm.bias is None else norm.bias  # (C,)
    center, scale, shift = (t.view(-1, *(1 for _ in others[1:])) for t in (mean, scale, shift))  # (C, 1, …)
    return torch.addcmul(shift, precise - center, scale).to(x.dtype)


def _grouped(norm: _BatchNorm, parts: int, otherwise: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``norm.forward`` with each of ``parts`` equal parts of this process's x, (B, C, …), normalized alone."""
    if not norm.training:
        return otherwise(x)
    norm._check_input_dim(x)  # type: ignore[no-untyped-call]
    if len(x) < parts or (len(x) % parts and process_count() > 1):
        raise SpecError(
            f"Batch norm over groups: {len(x)} rows in a process cannot be divided into {parts} equal groups. "
            "Choose a number of groups that divides the batch."
        )
    running = norm.running_mean
    # With momentum 1 torch writes each part's mean and unbiased variance into these.
    statistics = None if running is None else running.new_zeros(2, parts, x.shape[1])
    normalized = []
    for number, part in enumerate(x.tensor_split(parts)):
        mean, var = (None, None) if statistics is None else statistics[:, number]
        normalized.append(batch_norm(part, mean, var, norm.weight, norm.bias, True, 1.0, norm.eps))
    if statistics is not None:
        mean, var = summed(statistics.mean(dim=1)) / process_count()  # (C,), (C,)
        _track(norm, mean, var)
    return torch.cat(normalized)


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, unbiased_var: Tensor) -> None:
    """Move the running statistics as torch's batch norm does, by its momentum or, without one, as a plain average."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return  # track_running_stats=False
    norm.num_batches_tracked.add_(1)
    share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.mul_(1 - share).add_(mean, alpha=share)
    norm.running_var.mul_(1 - share).add_(unbiased_var, alpha=share)
