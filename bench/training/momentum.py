"""Momentum encoders: a slow copy of a network, averaged over the steps (BYOL, arXiv:2006.07733; MoCo, 1911.05722)."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy whose parameters receive no gradient.

    It starts with the same weights and buffers. Like its source it follows ``train()`` and ``eval()`` and keeps
    batch statistics of its own.
    """
    target = copy.deepcopy(module)
    target.requires_grad_(False)
    return target


def update_momentum(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target = tau * target + (1 - tau) * online, in place, for every parameter.

    Buffers are not averaged: the target's batch normalization counts its own batches, as in the authors' code.

    Args:
        target: made by :func:`momentum_copy` of ``online``.
        online: the trained network.
        tau: share of the target that is kept, in [0, 1].

    Raises:
        ValueError: ``tau`` is outside [0, 1], or the networks differ in their parameters.
    """
    if not 0.0 <= tau <= 1.0:
        raise ValueError(f"tau must be in [0, 1], got {tau}")
    slow, fast = dict(target.named_parameters()), dict(online.named_parameters())
    if slow.keys() != fast.keys():
        raise ValueError(f"target and online differ in these parameters: {sorted(slow.keys() ^ fast.keys())}")
    average = get_ema_multi_avg_fn(tau)  # type: ignore[no-untyped-call]
    average(list(slow.values()), [fast[name] for name in slow], None)


def cosine_tau(tau_base: float, step: int, total_steps: int) -> float:
    """tau = 1 - (1 - tau_base) (cos(pi step / total_steps) + 1) / 2, BYOL's equation in section 3.3.

    It rises from ``tau_base`` at step 0 to 1 at ``total_steps``.
    """
    return 1.0 - (1.0 - tau_base) * (math.cos(math.pi * step / total_steps) + 1.0) / 2.0
