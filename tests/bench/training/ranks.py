"""Several processes for a test: this one is the first, the others are started for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.processes import process_group


def in_group(count: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """Run the importable ``work(*arguments)`` in each of ``count`` processes; returns what the first one's returns."""
    with process_group(count, "cpu", prepare, (work, arguments)):
        return work(*arguments)


def prepare(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[[], Any]:
    torch.set_num_threads(1)
    return partial(work, *arguments)
