"""A dataset in memory: images, labels, fixed splits, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
BLOCK = 1024  # images whose pixels are counted at a time


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The samples of one split.

    Attributes:
        images: (n, H, W, C) uint8.
        labels: (n,) int64.
        samples: (n,) int64, each sample's index in the whole dataset.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    samples: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Labelled images of one size with fixed train, validation and test splits.

    Attributes:
        key: registry key.
        title: name as printed.
        images: (N, H, W, C) uint8.
        labels: (N,) int64, indices into ``class_names``.
        class_names: one per class.
        splits: sorted, disjoint indices for each of ``train``, ``validation``, ``test``.
    """

    key: str
    title: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    splits: Mapping[str, NDArray[np.int64]]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return int(self.images.shape[3])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    def split(self, name: str) -> Subset:
        """The samples of ``train``, ``validation`` or ``test``."""
        index = self.splits[name]
        return Subset(images=self.images[index], labels=self.labels[index], samples=index)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels, class names and splits: what a result's data hash is made of."""
        digest = hashlib.sha256()
        arrays: list[NDArray[Any]] = [self.images, self.labels, *(self.splits[name] for name in SPLITS)]
        for array in arrays:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)  # a view: the pixels are not copied
        digest.update("\0".join(self.class_names).encode())
        return digest.hexdigest()

    @cached_property
    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over the training split, on the [0, 1] scale."""
        train = self.splits["train"]
        counts = np.zeros((self.channels, 256), dtype=np.int64)
        for start in range(0, len(train), BLOCK):  # bincount casts what it counts to int64
            pixels = self.images[train[start : start + BLOCK]].reshape(-1, self.channels)
            counts += np.stack([np.bincount(pixels[:, c], minlength=256) for c in range(self.channels)])
        levels = np.arange(256) / 255.0
        total = counts[0].sum()
        mean = counts @ levels / total
        variance = counts @ levels**2 / total - mean**2
        std = np.sqrt(np.maximum(variance, 0.0))
        return tuple(map(float, mean)), tuple(float(s) if s > 0 else 1.0 for s in std)
