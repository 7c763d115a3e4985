"""What a data set consists of, and what is wrong with it: for ``jointbench data doctor``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import SPLITS, UNCERTAIN, UNKNOWN, ImageDataset, Images
from bench.data.detection import DetectionDataset
from bench.data.leakage import IDENTITIES, Leakage, blocks, file_names, find_leakage, number_of
from bench.data.object_counts import ObjectCount, count_objects

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class LabelCount:
    """How often a class or finding occurs in each split; ``uncertain`` and ``unknown`` are those of a finding."""

    name: str
    present: Mapping[str, int]
    uncertain: Mapping[str, int]
    unknown: Mapping[str, int]


@dataclass(frozen=True)
class Remark:
    """Something about the set, and the images, patients or labels that it is about."""

    text: str
    offenders: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found.

    Attributes:
        images: number of images in each split.
        identities: number of different patients and studies in each split, where any is known.
        unidentified: images without a known patient, where others have one.
        original_sizes: smallest and largest (width, height) of the files that the images come from, where known.
        gray: color images whose channels are all the same.
        objects: of each split, where these are scenes with objects.
        problems: what should be mended.
        notes: what is worth knowing.
    """

    title: str
    key: str
    multilabel: bool
    class_names: tuple[str, ...]
    images: Mapping[str, int]
    identities: Mapping[str, Mapping[str, int]]
    unidentified: int
    image_size: Size
    original_sizes: tuple[Size, Size] | None
    channels: int
    bits: int
    gray: int
    labels: tuple[LabelCount, ...]
    leakage: Leakage
    objects: Mapping[str, ObjectCount]
    problems: tuple[Remark, ...]
    notes: tuple[Remark, ...]


def examine(dataset: ImageDataset) -> Examination:
    """Examine labels, metadata and all images, which are read a few at a time."""
    leakage = find_leakage(dataset)
    labels = tuple(_label_counts(dataset))
    gray = _gray(dataset.images)
    missing = tuple(_missing(labels, dataset))
    return Examination(
        title=dataset.title,
        key=dataset.key,
        multilabel=dataset.multilabel,
        class_names=dataset.class_names,
        images={split: len(rows) for split, rows in dataset.splits.items()},
        identities=_identities(dataset),
        unidentified=_unidentified(dataset),
        image_size=dataset.image_size,
        original_sizes=_original_sizes(dataset.images),
        channels=dataset.channels,
        bits=8 * dataset.images.dtype.itemsize,
        gray=gray,
        labels=labels,
        leakage=leakage,
        objects=count_objects(dataset) if isinstance(dataset, DetectionDataset) else {},
        problems=(*_leaks(leakage), *_flaws(dataset), *(() if dataset.multilabel else missing)),
        notes=(
            *_notes(leakage, gray, len(dataset.labels)),
            *_left_out(dataset),
            *(missing if dataset.multilabel else ()),
        ),
    )


def _flaws(dataset: ImageDataset) -> Iterator[Remark]:
    if isinstance(dataset, DetectionDataset) and dataset.dropped:
        yield _remark(number_of(len(dataset.dropped), "object") + " left out", dataset.dropped)


def _left_out(dataset: ImageDataset) -> Iterator[Remark]:
    """What the loader remarked, and objects that are there twice, which count as two."""
    if not isinstance(dataset, DetectionDataset):
        return
    yield from map(Remark, dataset.remarks)
    objects = dataset.objects
    rows = np.column_stack([objects.scene, objects.labels, objects.boxes])
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    if (repeated := np.sort(first[counts > 1])).size:
        named = [
            f"{dataset.scenes.names[objects.scene[row]]}: {dataset.class_names[objects.labels[row]]} "
            f"({', '.join(f'{value:g}' for value in objects.boxes[row])})"
            for row in repeated
        ]
        yield _remark(number_of(len(named), "object") + " more than once with the same box", named)


def _label_counts(dataset: ImageDataset) -> Iterator[LabelCount]:
    def count(test: NDArray[np.bool_]) -> dict[str, int]:
        return {split: int(test[rows].sum()) for split, rows in dataset.splits.items()}

    for number, name in enumerate(dataset.class_names):
        column = dataset.labels[:, number] if dataset.multilabel else dataset.labels
        yield LabelCount(
            name=name,
            present=count(column == (1 if dataset.multilabel else number)),
            uncertain=count(column == UNCERTAIN),
            unknown=count(column == UNKNOWN),
        )


def _identities(dataset: ImageDataset) -> dict[str, dict[str, int]]:
    known = [column for column in IDENTITIES if (dataset.metadata.get(column, np.array("")) != "").any()]
    return {
        column: {split: len(set(dataset.metadata[column][rows]) - {""}) for split, rows in dataset.splits.items()}
        for column in known
    }


def _unidentified(dataset: ImageDataset) -> int:
    patients = dataset.metadata.get("patient", np.array([""]))
    return int((patients == "").sum()) if (patients != "").any() else 0


def _original_sizes(images: Images) -> tuple[Size, Size] | None:
    """Of the files that Pillow can read, from their headers."""
    from PIL import Image

    names, root = file_names(images), getattr(images, "root", None)
    if not (names and isinstance(root, Path)):
        return None
    sizes = []
    for name in names:
        try:
            with Image.open(root / name) as opened:
                sizes.append(opened.size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue  # DICOM, for example: what cannot be decoded at all has been refused before
    return (min(sizes, key=_area), max(sizes, key=_area)) if sizes else None


def _area(size: Size) -> int:
    return size[0] * size[1]


def _gray(images: Images) -> int:
    if images.shape[3] != 3:
        return 0
    return sum(int((block == block[..., :1]).all(axis=(1, 2, 3)).sum()) for block in blocks(images))


def _leaks(found: Leakage) -> Iterator[Remark]:
    for column in IDENTITIES:
        crossing = [item for item in found.crossings if item.column == column]
        if crossing:
            yield _remark(number_of(len(crossing), column) + " in more than one split", crossing)
    if found.duplicates:
        yield _remark(number_of(len(found.duplicates), "image") + " in more than one split", found.duplicates)
    if found.near:
        count = number_of(len(found.near), "evaluation image")
        yield _remark(f"{count} that look like an image of another split", found.near)
    if found.conflicts:
        yield _remark(number_of(len(found.conflicts), "image") + " with different labels", found.conflicts)


def _missing(labels: Sequence[LabelCount], dataset: ImageDataset) -> Iterator[Remark]:
    word = "with" if dataset.multilabel else "of"
    for split in SPLITS:
        if not len(dataset.splits[split]):  # of scenes that are all trained on
            continue
        absent = [count.name for count in labels if not count.present[split]]
        if absent:
            yield _remark(f"no {split} image {word}", absent)


def _notes(found: Leakage, gray: int, count: int) -> Iterator[Remark]:
    if found.repeated:
        yield _remark(number_of(len(found.repeated), "image") + " more than once in one split", found.repeated)
    if found.flat:
        yield _remark(number_of(len(found.flat), "image") + " of a single value", found.flat)
    if gray == count:
        yield Remark("all images are gray, stored in color: --data-param channels=1 reads a third")


def _remark(text: str, offenders: Sequence[object]) -> Remark:
    return Remark(text, tuple(map(str, offenders)))
