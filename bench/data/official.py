"""Datasets that come with a test split: validation is taken from their training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import ImageDataset
from bench.data.files import unreadable
from bench.data.splits import train_and_validation

VALIDATION_FRACTION = 0.1


@dataclass(frozen=True, kw_only=True)
class Portion:
    """The images of one file, or of a few.

    Attributes:
        images: (n, H, W, C) uint8.
        labels: (n,) int64.
        file: named in errors.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    file: Path


def with_validation(
    key: str, title: str, *, train: Sequence[Portion], test: Portion, class_names: tuple[str, ...]
) -> ImageDataset:
    """Join the portions into one dataset; a tenth of the training images, stratified, becomes validation.

    Raises:
        DataError: labels do not belong to the images, are out of range, or a class has no training image.
    """
    portions = [*train, test]
    for portion in portions:
        _check(portion, len(class_names))
    labels = np.concatenate([portion.labels for portion in portions])
    count = len(labels) - len(test.labels)
    missing = np.setdiff1d(np.arange(len(class_names)), labels[:count])
    if len(missing):
        raise unreadable(train[0].file, f"no training image is of class {class_names[missing[0]]!r} ({missing[0]})")
    validation = max(len(class_names), round(VALIDATION_FRACTION * count))
    return ImageDataset(
        key=key,
        title=title,
        images=np.concatenate([portion.images for portion in portions]),
        labels=labels,
        class_names=class_names,
        splits={
            **train_and_validation(labels, np.arange(count), validation=validation),
            "test": np.arange(count, len(labels)),
        },
    )


def _check(portion: Portion, num_classes: int) -> None:
    if not len(portion.images):
        raise unreadable(portion.file, "it holds no image")
    if len(portion.images) != len(portion.labels):
        raise unreadable(portion.file, f"{len(portion.images)} images but {len(portion.labels)} labels")
    low, high = int(portion.labels.min()), int(portion.labels.max())
    if low < 0 or high >= num_classes:
        raise unreadable(portion.file, f"labels run from {low} to {high}, but the classes from 0 to {num_classes - 1}")
