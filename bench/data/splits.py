"""Fixed stratified splits and label budgets.

Within a class, samples stand in the order of the SHA-256 of ``"seed:index"``: no random number generator and no other
library takes part, so a split is the same on every machine and under every version. A smaller choice of the same seed
is a part of a larger one as far as the class counts allow it: the 1 % labels are among the 10 % labels.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError

SPLIT_SEED = 0
"""The built-in datasets' splits are fixed: they all use this seed."""

Indices = NDArray[np.int64]


def stratified_choice(labels: Indices, count: int, *, seed: int) -> Indices:
    """Choose ``count`` samples so that classes keep their shares and each has at least one.

    Args:
        labels: (n,) class of each sample.
        count: number of samples to choose.
        seed: another seed chooses other samples.

    Returns:
        (count,) sorted positions in ``labels``.

    Raises:
        DataError: fewer than one sample per class, or more than there are.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    if not len(classes) <= count <= len(labels):
        raise DataError(
            f"Cannot choose {count} of {len(labels)} images with at least one of each of {len(classes)} classes. "
            f"Ask for {len(classes)} to {len(labels)} images, or give more images."
        )
    chosen = [
        _ordered(np.flatnonzero(labels == label), seed)[:share]
        for label, share in zip(classes, _shares(sizes, count), strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _ordered(indices: Indices, seed: int) -> Indices:
    keys = [hashlib.sha256(f"{seed}:{index}".encode()).digest() for index in indices.tolist()]
    return indices[sorted(range(len(keys)), key=keys.__getitem__)]


def _shares(sizes: Indices, count: int) -> list[int]:
    """Largest remainders: how many of each class, at least one, ``count`` in all; the lower class wins a tie."""
    total = int(sizes.sum())
    exact = [int(size) * count for size in sizes]  # in units of 1 / total: integers, hence no rounding
    shares = [max(1, value // total) for value in exact]
    remainders = [value - share * total for value, share in zip(exact, shares, strict=True)]
    while (missing := count - sum(shares)) != 0:
        step = 1 if missing > 0 else -1
        free = [i for i, share in enumerate(shares) if (share < sizes[i] if missing > 0 else share > 1)]
        best = max(free, key=lambda i: (step * remainders[i], -i))
        shares[best] += step
        remainders[best] -= step * total
    return shares


def stratified_splits(labels: Indices, *, validation: int, test: int, seed: int = SPLIT_SEED) -> dict[str, Indices]:
    """Cut all samples into ``train``, ``validation`` and ``test``: disjoint, sorted, stratified.

    Args:
        labels: (n,) class of each sample.
        validation, test: number of samples in these splits; the rest is for training.
    """
    chosen = stratified_choice(labels, test, seed=seed)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    cut = {**train_and_validation(labels, rest, validation=validation, seed=seed), "test": chosen}
    _check_training(labels, labels[cut["train"]])
    return cut


def train_and_validation(
    labels: Indices, candidates: Indices, *, validation: int, seed: int = SPLIT_SEED
) -> dict[str, Indices]:
    """Cut the samples ``candidates`` into ``train`` and ``validation``; a test split exists already.

    Args:
        labels: (n,) class of each sample of the whole dataset.
        candidates: sorted indices into ``labels``.
        validation: number of samples in the validation split.
    """
    held_out = candidates[stratified_choice(labels[candidates], validation, seed=seed)]
    train = np.setdiff1d(candidates, held_out)
    _check_training(labels[candidates], labels[train])
    return {"train": train, "validation": held_out}


def _check_training(labels: Indices, train: Indices) -> None:
    missing = np.setdiff1d(labels, train)
    if len(missing):
        raise DataError(
            f"No training image is left of class {int(missing[0])} once the other splits have theirs. "
            "Give every class at least 3 images, or remove the class."
        )


def stratified_subset(labels: Indices, fraction: float, seed: int, *, num_classes: int | None = None) -> Indices:
    """Choose the labelled samples of a label budget: ``fraction`` of all, at least one of each class.

    Args:
        labels: (n,) classes of the training split.
        fraction: share of the labels, above 0 up to 1.
        seed: another seed chooses other samples.
        num_classes: number of classes of the dataset, when ``labels`` might lack one.

    Returns:
        Sorted positions in ``labels``, to be recorded with the result.

    Raises:
        DataError: the budget is smaller than the number of classes, or a class has no image.
    """
    if not 0 < fraction <= 1:
        raise DataError(f"A label fraction lies above 0 and is at most 1, got {fraction}. Write 0.01 for 1 %.")
    present = len(np.unique(labels))
    if num_classes is not None and present < num_classes:
        raise DataError(
            f"Only {present} of {num_classes} classes have a training image. Add images, or change the split."
        )
    count = round(fraction * len(labels))
    if count < present:
        raise DataError(
            f"{fraction:.3g} of {len(labels)} training images are {count} labels, fewer than the {present} classes. "
            f"Take a label fraction of at least {present / len(labels):.3g}, or more images."
        )
    return stratified_choice(labels, count, seed=seed)
