"""How much memory decoded images may take."""

from __future__ import annotations

import math
import os
from pathlib import Path

from bench.errors import RequestError

VARIABLE = "JOINTBENCH_MEMORY"
SHARE = 0.5
"""Of the available memory: the rest is for copies of batches, features and the network."""

GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_budget(*, sharers: int = 1) -> int:
    """Bytes that the decoded images of one process may take.

    ``JOINTBENCH_MEMORY`` says it in GiB for all processes together; otherwise it is half of what is available. What
    does not fit is decoded when it is read, with the same result, so the budget is no part of any identity.

    Args:
        sharers: processes that hold the images at the same time.

    Raises:
        RequestError: the variable is no number above 0.
    """
    if text := os.environ.get(VARIABLE, "").strip():
        return int(_gibibytes(text) * 2**30 / sharers)
    return int(SHARE * _available() / sharers)


def _gibibytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise RequestError(f"{VARIABLE}={text}: it is the memory for decoded images in GiB, such as 16 or 0.5.")
    return value


def _available() -> int:
    """Bytes that this process may still take; a container has a limit that the machine's figures do not show."""
    import psutil

    available = int(psutil.virtual_memory().available)
    try:
        limit = int(GROUP_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no control groups, or the word "max"
        return available
    return min(available, limit)
