"""Random whole numbers with the same bits on every machine, for images that are drawn and not read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Draws:
    """Whole numbers from a bit generator, whose raw output is the same in every version of NumPy."""

    def __init__(self, bits: np.random.PCG64) -> None:
        self.bits = bits

    def between(self, low: int, high: int) -> int:
        """One of low … high, each as likely but for 1 part in 2^58."""
        return low + (int(self.bits.random_raw()) * (high - low + 1) >> 64)

    def levels(self, height: int, width: int, most: int) -> NDArray[np.int64]:
        """(H, W) numbers of -most … most."""
        raw = self.bits.random_raw(height * width).reshape(height, width) >> np.uint64(32)
        return (raw * np.uint64(2 * most + 1) >> np.uint64(32)).astype(np.int64) - most
