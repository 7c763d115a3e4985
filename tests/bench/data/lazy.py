"""Images that are read from a file when they are asked for, and that note who reads what."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import ImageDataset, Pixels, Rows
from bench.errors import DataError


@dataclass(frozen=True)
class FileImages:
    """Images in a NumPy file.

    Attributes:
        file: holds them.
        broken: an image that cannot be read.
        how: what happens at the broken one.
    """

    file: Path
    broken: int = -1
    how: str = "DataError"

    @property
    def stored(self) -> NDArray[Any]:
        return np.asarray(np.load(self.file, mmap_mode="r"))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> Pixels:
        chosen = np.arange(len(self))[rows]
        with self.log.open("a") as log:
            log.writelines(f"{os.getpid()} {row}\n" for row in chosen)
        if self.broken in chosen:
            if self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "DataError":
                raise DataError(f"scan {self.broken}.png is truncated. Replace it.")
            raise ZeroDivisionError("no rows")
        found: Pixels = np.array(self.stored[chosen])
        return found

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    @property
    def log(self) -> Path:
        return self.file.with_suffix(".log")

    def reads(self) -> Counter[int]:
        """How often each image was read."""
        return Counter(row for _, row in self._lines())

    def readers(self) -> dict[int, set[int]]:
        """The images that each process has read."""
        found: dict[int, set[int]] = {}
        for process, row in self._lines():
            found.setdefault(process, set()).add(row)
        return found

    def _lines(self) -> list[tuple[int, int]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(int(process), int(row)) for process, row in map(str.split, lines)]


def write_images(folder: Path, pixels: Pixels, **changes: Any) -> FileImages:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", pixels)
    return FileImages(folder / "images.npy", **changes)


def noise(count: int, size: int = 8, channels: int = 3, dtype: type = np.uint8) -> Pixels:
    top = np.iinfo(dtype).max + 1
    found: Pixels = np.random.default_rng(0).integers(0, top, size=(count, size, size, channels), dtype=dtype)
    return found


def lazily(data: ImageDataset, folder: Path) -> ImageDataset:
    """The same dataset with its images in a file."""
    from dataclasses import replace

    return replace(data, images=write_images(folder, np.asarray(data.images)))
