"""The one pass over the pixels of a set that is decoded when it is read: what it is, and whether it fits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from bench.data.dataset import BLOCK, FULL_SCALE, ImageDataset, Pixels, level_counts, level_statistics
from bench.data.reading import Reader


@dataclass(frozen=True)
class _Counted:
    """For a reader: pixels as they are stored, and the values of those that are counted.

    Attributes:
        counted: (N,) which images of the set are.
    """

    counted: NDArray[np.bool_]

    def __call__(self, stored: Pixels, rows: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        return from_numpy(np.ascontiguousarray(stored)), level_counts(stored[self.counted[rows]])


def read_through(dataset: ImageDataset, *, keep: bool) -> ImageDataset:
    """The dataset with known fingerprint and channel statistics, its images decoded once by worker processes.

    Args:
        dataset: with images that are decoded when they are read.
        keep: whether its images become an array; otherwise they stay as they are.

    Raises:
        DataError: an image cannot be read; the message names the file.
    """
    count, training = len(dataset.labels), np.zeros(len(dataset.labels), dtype=np.bool_)
    training[dataset.splits["train"]] = True
    kept = np.empty(dataset.images.shape if keep else (0,), dtype=dataset.images.dtype)
    counts = np.zeros((dataset.channels, FULL_SCALE[dataset.images.dtype] + 1), dtype=np.int64)
    blocks = [np.arange(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]

    def pixels(reader: Reader[tuple[Tensor, NDArray[np.int64]]]) -> Iterator[Pixels]:
        for rows in blocks:
            done = int(rows[0])
            for piece, levels in reader.take(len(rows)):
                np.add(counts, levels, out=counts)
                if keep:
                    kept[done : done + len(piece)] = piece.numpy()
                done += len(piece)
                yield piece.numpy()

    with Reader(dataset.images, blocks, _Counted(training), ahead=2 * BLOCK) as reader:
        fingerprint = dataset.digest(pixels(reader))
    images = kept if keep else dataset.images
    return dataset.known(images, fingerprint=fingerprint, statistics=level_statistics(counts))


def outline(dataset: ImageDataset) -> str:
    """SHA-256 over everything but the pixels: whether a set that was opened again is the one on record."""
    digest = hashlib.sha256(dataset.digest((), whole=False).encode())
    digest.update("\0".join((dataset.key, dataset.title)).encode())
    return digest.hexdigest()
