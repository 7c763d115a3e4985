"""Several images after each other, some in memory, some read when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import Images, Pixels, Rows


@dataclass(frozen=True)
class Joined:
    """Images of one shape and type, as one sequence."""

    parts: tuple[Images, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.parts[0].dtype

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, rows: Rows) -> Pixels:
        chosen = np.arange(len(self))[rows]
        images = np.empty((len(chosen), *self.shape[1:]), dtype=self.dtype)
        start = 0
        for part in self.parts:
            own = (chosen >= start) & (chosen < start + len(part))
            if own.any():
                images[own] = part[chosen[own] - start]
            start += len(part)
        return images

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)
