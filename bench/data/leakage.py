"""Leakage: what an evaluation split shares with images that were trained on makes a result too good.

Looked for are identical images (by a digest of their pixels), near duplicates (:mod:`bench.data.near`), and patients
and studies with images on both sides. Training and unlabelled images may be alike: both are trained on. An image that
is one single value shows nothing, so that two of these are no duplicates; they are listed by themselves.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import SPLITS, UNKNOWN, UNLABELLED, ImageDataset, Images, Pixels, Selection
from bench.data.near import Looks, looks_of, near_pairs
from bench.errors import DataError

GROUPS = (*SPLITS, UNLABELLED)
"""Splits in the order of their numbers; images outside of any have the number after the last."""
OUTSIDE = len(GROUPS)
JUDGED = {"test": 2, "validation": 1}
"""Of two images that look the same, the one whose evaluation the other spoils."""
BLOCK_BYTES = 1 << 24
"""Stored pixels that are examined at a time."""
SHOWN = 3
"""Offenders that a message names."""
IDENTITIES = ("patient", "study")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an image is: its index in the dataset, its split, and its file where it has one of its own."""

    sample: int
    split: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.file or f'image {self.sample}'} ({self.split})"


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Images that are the same; ``similarity`` is 1 for identical pixels, otherwise the thumbnails' correlation."""

    places: tuple[Place, ...]
    similarity: float = 1.0

    def __str__(self) -> str:
        return " = ".join(map(str, self.places)) if self.similarity == 1 else " ~ ".join(map(str, self.places))


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A patient or study with images in splits that must not share any."""

    column: str
    name: str
    places: tuple[Place, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Images in each split."""
        return dict(Counter(place.split for place in self.places))

    def __str__(self) -> str:
        shares = " and ".join(f"{split} ({count})" for split, count in self.counts.items())
        return f"{self.column} {self.name} in {shares}"


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """What was found.

    Attributes:
        duplicates: identical images in splits that must not share any.
        near: for each such image of an evaluation split, the one elsewhere that looks most like it.
        crossings: patients and studies in splits that must not share any.
        repeated: identical images within what is trained on or within one split.
        conflicts: identical images with different labels, wherever they are.
        flat: images of one single value.
    """

    duplicates: tuple[Duplicate, ...] = ()
    near: tuple[Duplicate, ...] = ()
    crossings: tuple[Crossing, ...] = ()
    repeated: tuple[Duplicate, ...] = ()
    conflicts: tuple[Duplicate, ...] = ()
    flat: tuple[Place, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything leaks."""
        return bool(self.certain or self.near)

    @property
    def certain(self) -> tuple[Duplicate | Crossing, ...]:
        """Leaks beyond doubt: all but the near duplicates."""
        return (*self.crossings, *self.duplicates)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One look at all images: (N,) digests of their pixels, (N,) whether they are one value, and their looks."""

    digests: NDArray[np.void]
    flat: NDArray[np.bool_]
    looks: Looks | None


def find_leakage(dataset: ImageDataset, *, near: bool = True, files: Sequence[str] = ()) -> Leakage:
    """Examine all images, labels and metadata of the dataset.

    Args:
        files: of all images, where these are in memory and do not know them.
        near: look for near duplicates, too; with False identical pixels only, which takes no longer than reading.
    """
    where = _Where(dataset, files or file_names(dataset.images))
    seen = look_at(dataset.images, near=near)
    groups = _identical(seen)
    crossing = [rows for rows in groups if where.leaks(rows)]
    return Leakage(
        duplicates=tuple(where.duplicate(rows) for rows in crossing),
        near=_near(seen, where) if seen.looks is not None else (),
        crossings=tuple(_crossings(dataset, where)),
        repeated=tuple(where.duplicate(rows) for rows in groups if not where.leaks(rows)),
        conflicts=tuple(where.duplicate(rows) for rows in groups if _conflict(dataset.labels[rows])),
        flat=tuple(where.place(row) for row in np.flatnonzero(seen.flat)),
    )


def refuse_leakage(dataset: ImageDataset, *, repair: str, files: Sequence[str] = ()) -> None:
    """Refuse a dataset whose splits share images or patients.

    Args:
        repair: what to do about it, as sentences.
        files: of all images, where these are in memory and do not know them.

    Raises:
        DataError: the first offenders by name, how many there are, and ``repair``.
    """
    found = find_leakage(dataset, near=False, files=files)
    offenders: dict[str, Sequence[object]] = {
        column: [item for item in found.crossings if item.column == column] for column in IDENTITIES
    }
    told = [
        f"{number_of(len(items), noun)} ({listing(items)})"
        for noun, items in {**offenders, "image": found.duplicates}.items()
        if items
    ]
    if told:
        raise DataError(f"{dataset.title}: in more than one split: {' and '.join(told)}. {repair}")


def listing(offenders: Sequence[object], shown: int = SHOWN) -> str:
    """The first of them, and how many there are besides."""
    rest = len(offenders) - shown
    return "; ".join(map(str, offenders[:shown])) + (f"; and {rest} more" if rest > 0 else "")


def number_of(count: int, noun: str) -> str:
    """``2 studies``, ``1 patient``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def must_be_apart() -> NDArray[np.bool_]:
    """(G, G): True for two groups of which one is evaluated on; training and unlabelled images may be alike."""
    apart = ~np.eye(OUTSIDE + 1, dtype=bool)
    train, unlabelled = GROUPS.index("train"), GROUPS.index(UNLABELLED)
    apart[train, unlabelled] = apart[unlabelled, train] = False
    apart[OUTSIDE] = apart[:, OUTSIDE] = False
    return apart


def blocks(images: Images) -> Iterator[Pixels]:
    """All images in order, a few at a time."""
    size = max(1, BLOCK_BYTES // max(1, int(np.prod(images.shape[1:])) * images.dtype.itemsize))
    for start in range(0, len(images), size):
        yield images[np.arange(start, min(start + size, len(images)))]


def look_at(images: Images, *, near: bool) -> Seen:
    """Read all images once."""
    digests: list[bytes] = []
    flat: list[NDArray[np.bool_]] = []
    looks: list[Looks] = []
    for block in blocks(images):
        stored = np.ascontiguousarray(block).reshape(len(block), -1)
        digests += [hashlib.blake2b(row.data, digest_size=16).digest() for row in stored]
        flat.append((stored == stored[:, :1]).all(axis=1))
        if near:
            looks.append(looks_of(block))
    return Seen(
        digests=np.array(digests, dtype="V16"),
        flat=np.concatenate(flat) if flat else np.zeros(0, dtype=bool),
        looks=Looks.joined(looks) if looks else None,
    )


class _Where:
    """The places of all images."""

    def __init__(self, dataset: ImageDataset, files: Sequence[str]) -> None:
        self.groups = np.full(len(dataset.labels), OUTSIDE)
        for number, split in enumerate(GROUPS):
            self.groups[dataset.splits.get(split, np.empty(0, dtype=np.int64))] = number
        self.apart = must_be_apart()
        self.files = files

    def place(self, row: int | np.signedinteger[Any]) -> Place:
        split = (*GROUPS, "in no split")[self.groups[row]]
        return Place(sample=int(row), split=split, file=self.files[int(row)] if self.files else "")

    def places(self, rows: NDArray[np.int64]) -> tuple[Place, ...]:
        """In the order of the splits."""
        return tuple(self.place(row) for row in rows[np.argsort(self.groups[rows], kind="stable")])

    def duplicate(self, rows: NDArray[np.int64], similarity: float = 1.0) -> Duplicate:
        return Duplicate(places=self.places(rows), similarity=similarity)

    def leaks(self, rows: NDArray[np.int64]) -> bool:
        present = np.unique(self.groups[rows])
        return any(self.apart[first, second] for first, second in combinations(present, 2))


def file_names(images: Images) -> Sequence[str]:
    """The file of each image, where each has one; otherwise nothing."""
    if isinstance(images, Selection):
        names = file_names(images.images)
        return [names[row] for row in images.rows] if names else ()
    if (inside := getattr(images, "images", None)) is not None:
        return file_names(inside)
    found: Sequence[str] = getattr(images, "names", ())
    return found


def _identical(seen: Seen) -> list[NDArray[np.int64]]:
    """Groups of two or more rows with the same pixels, in order of their first one."""
    rows = np.flatnonzero(~seen.flat)
    return sorted(grouped(seen.digests[rows], rows), key=lambda group: int(group[0]))


def grouped(keys: NDArray[np.generic], rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows that share a key, each two or more, sorted."""
    _, numbers = np.unique(keys, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        if len(group) > 1:
            yield rows[group]


def _conflict(labels: NDArray[np.int64]) -> bool:
    """Whether known labels of one image differ."""
    return any(len(np.unique(column[column != UNKNOWN])) > 1 for column in labels.reshape(len(labels), -1).T)


def _near(seen: Seen, where: _Where) -> tuple[Duplicate, ...]:
    """For each image of an evaluation split the most similar one elsewhere, identical ones left out."""
    assert seen.looks is not None
    pairs, similarities = near_pairs(seen.looks, where.groups, where.apart)
    evaluated = np.array([JUDGED.get(group, 0) for group in (*GROUPS, "")])[where.groups]
    best: dict[int, tuple[float, NDArray[np.int64]]] = {}
    for pair, similarity in zip(pairs, similarities.tolist(), strict=True):
        if seen.digests[pair[0]] == seen.digests[pair[1]]:
            continue
        judged = int(pair[np.argmax(evaluated[pair])])
        if judged not in best or similarity > best[judged][0]:
            best[judged] = (similarity, pair)
    # Thumbnails may agree in every digit; only identical pixels are told to be so.
    return tuple(where.duplicate(pair, min(float(value), 0.9999)) for _, (value, pair) in sorted(best.items()))


def _crossings(dataset: ImageDataset, where: _Where) -> Iterator[Crossing]:
    """Patients, and studies of unknown patients: numbers of studies often start again with every patient."""
    unknown = np.ones(len(dataset.labels), dtype=bool)
    for column in IDENTITIES:
        if column not in dataset.metadata:
            continue
        names = dataset.metadata[column]
        rows = np.flatnonzero((names != "") & unknown)
        for group in grouped(names[rows], rows):
            if where.leaks(group):
                yield Crossing(column=column, name=str(names[group[0]]), places=where.places(group))
        unknown &= names == ""
