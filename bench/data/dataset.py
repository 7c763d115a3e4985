"""A dataset: images in memory or decoded when they are read, labels, fixed splits, metadata, fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")
UNLABELLED = "unlabelled"
"""A further split that some datasets have: images for pre-training, without labels."""

UNKNOWN = -2
"""Label of an image that nobody labelled: of one without a class, and of a finding that is not mentioned."""
UNCERTAIN = -1
"""A finding that the reader could neither confirm nor exclude."""

FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
"""The stored value that stands for 1.0, by the type of the stored pixels."""

BLOCK = 1024  # images whose pixels are read at a time

COPIED_BYTES = 2**30
"""A choice of more pixels than this is not copied: the memory that holds all images may not hold them twice."""

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Rows = slice | NDArray[np.int64]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class Images(Protocol):
    """Images of one size: an array, or anything that reads them when they are asked for.

    ``images[rows]`` with a slice or an array of indices gives a new array (n, H, W, C), uint8 or uint16;
    ``np.asarray(images)`` gives all.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any) -> Any: ...
    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Selection:
    """Some of the images of a set that is read when asked for."""

    images: Images
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.images.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows) -> Pixels:
        chosen: Pixels = self.images[self.rows[rows]]
        return chosen

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def select(images: Images, rows: NDArray[np.int64]) -> Images:
    """The images ``rows``: a copy where they are in memory and few, otherwise a view that reads them when asked for."""
    if isinstance(images, np.ndarray) and len(rows) * images[:1].nbytes <= COPIED_BYTES:
        return images[rows]
    return Selection(images, rows)


def in_memory(images: Images) -> bool:
    """Whether all pixels are in memory, so that nothing is decoded when they are read."""
    return in_memory(images.images) if isinstance(images, Selection) else isinstance(images, np.ndarray)


def level_counts(pixels: Pixels) -> NDArray[np.int64]:
    """How often each stored value occurs in each channel of images (n, H, W, C): (C, values)."""
    values, channels = FULL_SCALE[pixels.dtype] + 1, pixels.shape[3]
    flat = pixels.reshape(-1, channels)
    return np.stack([np.bincount(flat[:, c], minlength=values) for c in range(channels)])


def level_statistics(counts: NDArray[np.int64]) -> Statistics:
    """Mean and standard deviation of each channel on the [0, 1] scale, from :func:`level_counts`."""
    levels = np.arange(counts.shape[1]) / (counts.shape[1] - 1)
    total = counts[0].sum()
    mean = counts @ levels / total
    variance = counts @ levels**2 / total - mean**2
    std = np.sqrt(np.maximum(variance, 0.0))
    return tuple(map(float, mean)), tuple(float(s) if s > 0 else 1.0 for s in std)


@dataclass(frozen=True, kw_only=True)
class Subset:
    """The samples of one split.

    Attributes:
        images: (n, H, W, C) uint8 or uint16; read them in blocks, they may not fit into memory.
        labels: (n,) int64 classes, or (n, F) int64 findings.
        samples: (n,) int64, each sample's index in the whole dataset.
        metadata: columns of n strings, such as ``patient``.
    """

    images: Images
    labels: NDArray[np.int64]
    samples: NDArray[np.int64]
    metadata: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: NDArray[np.int64]) -> Subset:
        """The samples at these positions."""
        return Subset(
            images=select(self.images, rows),
            labels=self.labels[rows],
            samples=self.samples[rows],
            metadata={name: column[rows] for name, column in self.metadata.items()},
        )


@dataclass(frozen=True, kw_only=True)
class ImageDataset:
    """Images of one size with labels and fixed train, validation and test splits.

    Attributes:
        key: registry key.
        title: name as printed.
        images: (N, H, W, C) uint8 or uint16, where the whole range of the type stands for [0, 1].
        labels: (N,) int64, indices into ``class_names``; or (N, F) int64, where each of F findings is 1 present,
            0 absent, ``UNCERTAIN`` or ``UNKNOWN``. An image without a class is ``UNKNOWN``.
        class_names: one per class or finding.
        splits: sorted, disjoint indices for each of ``train``, ``validation``, ``test``, whose images are labelled;
            and, for images that serve pre-training only, ``unlabelled``.
        metadata: columns of N strings: ``patient``, ``study``, ``laterality``, ``view`` … as far as they are known;
            an empty string where they are not.
    """

    key: str
    title: str
    images: Images
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    splits: Mapping[str, NDArray[np.int64]]
    metadata: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes, or of findings."""
        return len(self.class_names)

    @property
    def multilabel(self) -> bool:
        """Whether an image has findings, any number of them, and not one class."""
        return self.labels.ndim == 2

    @property
    def channels(self) -> int:
        return int(self.images.shape[3])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    def split(self, name: str) -> Subset:
        """The samples of ``train``, ``validation`` or ``test``, or of ``unlabelled`` where there are such."""
        return self._subset(self.splits[name])

    @property
    def pretraining(self) -> Subset:
        """What self-supervised methods see: the training split and the unlabelled images, never an evaluation image."""
        if UNLABELLED not in self.splits:
            return self.split("train")
        return self._subset(np.sort(np.concatenate([self.splits["train"], self.splits[UNLABELLED]])))

    def _subset(self, index: NDArray[np.int64]) -> Subset:
        return Subset(
            images=select(self.images, index),
            labels=self.labels[index],
            samples=index,
            metadata={name: column[index] for name, column in self.metadata.items()},
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels, names, splits and metadata: what a result's data hash is made of."""
        return self.digest(self._blocks(np.arange(len(self.labels))))

    @property
    def kept_digest(self) -> str:
        """SHA-256 over what a cache keeps of this set: everything but files that are read whenever they are needed."""
        return self.fingerprint

    def digest(self, blocks: Iterable[Pixels], *, whole: bool = True) -> str:
        """The fingerprint of this set with the pixels of ``blocks``, which are all images in their order.

        Args:
            whole: with the content of further files that a kind of dataset reads; False opens none.
        """
        digest = hashlib.sha256()
        digest.update(f"{self.images.dtype.str}{tuple(self.images.shape)}".encode())
        for block in blocks:
            digest.update(np.ascontiguousarray(block).data)  # a view: the pixels are not copied
        for array in (self.labels, *(self.splits[name] for name in sorted(self.splits))):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        for name in sorted(self.metadata):
            digest.update("\0".join((name, *self.metadata[name].tolist())).encode())
        digest.update("\0".join((*sorted(self.splits), *self.class_names)).encode())
        return digest.hexdigest()

    @cached_property
    def channel_statistics(self) -> Statistics:
        """Mean and standard deviation of each channel over the training split, on the [0, 1] scale."""
        none = np.zeros((self.channels, FULL_SCALE[self.images.dtype] + 1), dtype=np.int64)
        return level_statistics(sum(map(level_counts, self._blocks(self.splits["train"])), start=none))

    def known(self, images: Images, *, fingerprint: str, statistics: Statistics) -> ImageDataset:
        """The same set with its images in another form, of which fingerprint and channel statistics are known."""
        found = replace(self, images=images)
        found.__dict__.update(fingerprint=fingerprint, channel_statistics=statistics)
        return found

    def _blocks(self, index: NDArray[np.int64]) -> Iterator[Pixels]:
        for start in range(0, len(index), BLOCK):
            yield self.images[index[start : start + BLOCK]]
