"""Fixed stratified splits and label budgets.

Within a class, samples stand in the order of the SHA-256 of ``"seed:index"``: no random number generator and no other
library takes part, so a split is the same on every machine and under every version. A smaller choice of the same seed
is a part of a larger one as far as the class counts allow it: the 1 % labels are among the 10 % labels.

Where patients are known they are what is split: all images of a patient stand on one side. Equal
ones are ordered by the SHA-256 of ``"seed:patient"``, so that the order of the rows changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError

SPLIT_SEED = 0
"""The built-in datasets' splits are fixed: they all use this seed."""

Indices = NDArray[np.int64]


def check_shares(validation: float, test: float) -> None:
    """Refuse shares of evaluation splits that leave no training images.

    Raises:
        DataError: with the values.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise DataError(f"validation and test are shares above 0, together below 1; got {validation} and {test}.")


def stratified_choice(labels: Indices, count: int, *, seed: int, groups: Sequence[str] | None = None) -> Indices:
    """Choose ``count`` samples so that classes keep their shares and each has at least one.

    Args:
        labels: (n,) class of each sample.
        count: number of samples to choose.
        seed: another seed chooses other samples.
        groups: n names, such as patients: within a class the samples of one name are taken before those of the next,
            so that few names are behind them; an empty name is a sample's own.

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
        _ordered(np.flatnonzero(labels == label), seed, groups)[:share]
        for label, share in zip(classes, _shares(sizes, count), strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _ordered(indices: Indices, seed: int, groups: Sequence[str] | None = None) -> Indices:
    own = [hashlib.sha256(f"{seed}:{index}".encode()).digest() for index in indices.tolist()]
    names = [str(groups[index]) for index in indices.tolist()] if groups is not None else [""] * len(own)
    shared = [
        hashlib.sha256(f"{seed}:{name}".encode()).digest() if name else key
        for name, key in zip(names, own, strict=True)
    ]
    return indices[sorted(range(len(own)), key=lambda place: (shared[place], own[place]))]


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


def grouped_splits(
    labels: Indices, groups: Sequence[str], shares: Mapping[str, float], *, seed: int = SPLIT_SEED
) -> dict[str, Indices]:
    """Cut whole groups of samples (patients) so that each split has its share of every class, as far as groups allow.

    Groups are taken one after the other, those with the rarest class and then the largest first; each goes where what
    is still owed of its classes, relative to their sizes, is greatest. At the end a split that lacks a class gets a
    group that another can spare.

    Args:
        labels: (n,) classes; or (n, F) findings, of which those that are present (1) are balanced.
        groups: n names; samples of one name stay together.
        shares: share of the samples of each split, together 1; the first split serves training.

    Returns:
        Sorted positions of each split, in the order of ``shares``.

    Raises:
        DataError: there are fewer groups than splits.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < len(shares):
        raise DataError(
            f"{len(names)} patients cannot be cut into {len(shares)} splits. Give images of more patients, or a split "
            "of your own."
        )
    columns = labels[:, None] == np.unique(labels) if labels.ndim == 1 else labels == 1
    counts = np.zeros((len(names), columns.shape[1] + 1), dtype=np.int64)
    np.add.at(counts, member, np.column_stack([columns, np.ones(len(labels), dtype=bool)]))
    order = _rarest_first(counts, _ordered_names(names.tolist(), seed))
    side = _dealt(counts, order, [round(share * SHARE_UNITS) for share in shares.values()])
    _lend(counts, order, side, len(shares))
    return {name: np.flatnonzero(side[member] == number) for number, name in enumerate(shares)}


SHARE_UNITS = 10_000  # shares are whole numbers of these: no rounding decides where a group goes


def _ordered_names(names: list[str], seed: int) -> Indices:
    keys = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def _rarest_first(counts: Indices, order: Indices) -> Indices:
    """The groups by how many groups share their rarest class, then the largest; in the order given where all is equal.

    Small groups of common classes come last: they even out what the others left.
    """
    sharing = (counts > 0).sum(axis=0)
    rarest = np.where(counts > 0, sharing, len(counts) + 1).min(axis=1)
    return order[np.lexsort((np.arange(len(order)), -counts[order, -1], rarest[order]))]


def _dealt(counts: Indices, order: Indices, shares: Sequence[int]) -> Indices:
    """The split of each group: (G,) from counts (G, classes + 1), whose last column counts the samples."""
    weights = 2**20 // np.maximum(counts.sum(axis=0), 1) + 1
    owed = np.zeros((len(shares), counts.shape[1]), dtype=np.int64)  # in 1 / SHARE_UNITS of a sample
    portions = np.array(shares, dtype=np.int64)[:, None]
    side = np.empty(len(counts), dtype=np.int64)
    for group in order:
        owed += portions * counts[group]
        side[group] = int(np.argmax((owed * (weights * counts[group])).sum(axis=1)))
        owed[side[group]] -= SHARE_UNITS * counts[group]
    return side


def _lend(counts: Indices, order: Indices, side: Indices, splits: int) -> None:
    """Give each split that lacks a class the smallest group that another split can spare; in place."""
    has = counts > 0
    for column in np.argsort(has.sum(axis=0), kind="stable"):
        for split in range(splits):
            if has[side == split, column].any():
                continue
            spare = [
                group
                for group in order[has[order, column]]
                if (has[side == side[group]].sum(axis=0) > has[group])[has[group]].all()
            ]
            if spare:
                side[min(spare, key=lambda group: (side[group], counts[group, -1]))] = split
    for split in set(range(splits)) - set(side.tolist()):  # with so few groups no class can be spared
        fullest = int(np.argmax(np.bincount(side, minlength=splits)))
        side[min(order[side[order] == fullest], key=lambda group: counts[group, -1])] = split


def _check_training(labels: Indices, train: Indices) -> None:
    missing = np.setdiff1d(labels, train)
    if len(missing):
        raise DataError(
            f"No training image is left of class {int(missing[0])} once the other splits have theirs. "
            "Give every class at least 3 images, or remove the class."
        )


def stratified_subset(
    labels: Indices,
    fraction: float,
    seed: int,
    *,
    num_classes: int | None = None,
    groups: Sequence[str] | None = None,
) -> Indices:
    """Choose the labelled samples of a label budget: ``fraction`` of all, at least one of each class.

    Args:
        labels: (n,) classes of the training split.
        fraction: share of the labels, above 0 up to 1.
        seed: another seed chooses other samples.
        num_classes: number of classes of the dataset, when ``labels`` might lack one.
        groups: as in :func:`stratified_choice`: who labels few patients has few patients.

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
    return stratified_choice(labels, count, seed=seed, groups=groups)
