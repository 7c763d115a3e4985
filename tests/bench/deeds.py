"""What the processes of a test do; it imports little, since each of them has to."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist


def exchange(times: int) -> float:
    """The ranks, added up again and again."""
    total = torch.zeros(())
    for _ in range(times):
        total = torch.tensor(float(dist.get_rank()))
        dist.all_reduce(total)
    return float(total)


def member(deed: str, rank: int) -> Callable[[], object]:
    """What the other processes do: the one of that rank does its deed, the rest work on."""
    if deed == "fails at once":
        raise ValueError("there is no such method")
    return partial(act, deed, rank)


def act(deed: str, rank: int) -> None:
    exchange(3)
    if dist.get_rank() == rank:
        if deed == "raises":
            raise ValueError("the second view is upside down")
        if deed == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
    if deed == "all raise":
        raise RuntimeError("the same everywhere")
    exchange(1000)
