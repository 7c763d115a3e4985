"""From what annotation files say to a dataset: image sizes, splits, and objects inside their images.

Splits that nothing gives are drawn from the training scenes, so that each has its share of the scenes with each class;
files with the same bytes stay on one side.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.card import Capability
from bench.data.annotations import Annotation, Complaint, Complaints, settle
from bench.data.dataset import SPLITS
from bench.data.detection import DetectionDataset, Dropped, Layout, Objects, SceneFiles, presence
from bench.data.files import read_bytes
from bench.data.image_files import ImageFiles, common_form, in_threads
from bench.data.imaging import Form, Size, scene_size
from bench.data.splits import SPLIT_SEED, grouped_splits, stratified_choice
from bench.errors import DataError

OTHER_SIZE = Complaint(
    "images that are not those that were annotated, or damaged",
    "Bring back the files that were annotated, or correct their annotations.",
)
Splits = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the annotation files of a set say.

    Attributes:
        root: the folder below which the images are.
        names: their paths below it.
        sizes: (height, width) as the annotations tell; None where they do not.
        sides: the split of each scene.
        annotations: the objects of all scenes.
        class_names: one per class.
        published: whether it is a benchmark that is taken as it is; its images are not opened before they are read.
        remarks: what was left out, in words.
    """

    root: Path
    names: tuple[str, ...]
    sizes: tuple[Size | None, ...]
    sides: tuple[str, ...]
    annotations: Sequence[Annotation]
    class_names: tuple[str, ...]
    published: bool = False
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Settled:
    """A listing with its sizes (N, 2), splits, objects, and findings (N, K)."""

    listing: Listing
    sizes: NDArray[np.int64]
    splits: Splits
    objects: Objects
    labels: NDArray[np.int64]
    dropped: tuple[Dropped, ...] = field(default=())


def settled(
    listing: Listing,
    complaints: Complaints,
    *,
    validation: float,
    test: float,
    flawed: str,
    slack: tuple[float, float],
) -> Settled:
    """Measure, validate and split.

    Args:
        listing: what the files say.
        complaints: what was wrong so far.
        validation, test: shares of the training scenes for a split that nothing gives; with ``validation`` 0 there is
            no validation split, and the scenes of one that is given are trained on.
        flawed, slack: as in :func:`bench.data.annotations.settle`.

    Raises:
        DataError: something is wrong; the message names files and objects.
    """
    if not (validation >= 0 and test > 0 and validation + test < 1):
        raise DataError(f"validation is a share from 0, test one above 0, together below 1; got {validation}, {test}.")
    sizes = _sizes(listing, complaints)
    objects, dropped = settle(listing.annotations, listing.names, sizes, complaints, flawed=flawed, slack=slack)
    labels = presence(objects, scenes=len(listing.names), classes=len(listing.class_names))
    splits = _splits(listing, labels, {"validation": validation, "test": test}, title=complaints.title)
    return Settled(listing=listing, sizes=sizes, splits=splits, objects=objects, labels=labels, dropped=dropped)


def dataset_of(
    found: Settled, key: str, title: str, *, layout: Layout, image_size: int, channels: int
) -> DetectionDataset:
    """The dataset, whose scenes stay in their files until they are read.

    Args:
        found: what was settled.
        key, title, layout: of the dataset.
        image_size: side in pixels of the squares for pre-training.
        channels: 1 (gray) or 3 (color); 0 finds it: color when any file is in color.
    """
    if channels not in (0, 1, 3):
        raise DataError(f"{title}: channels is 1 (gray), 3 (color) or 0 (found), got {channels}. Change it.")
    listing = found.listing
    if listing.published:
        form = Form(size=image_size, channels=channels or 3)
    else:
        form = common_form(listing.root, listing.names, size=image_size, channels=channels)
    if form.depth != 8 or form.channels not in (1, 3):
        raise DataError(
            f"{title}: scenes with objects are gray or in color, with 8 bits; these have {form.channels} channels with "
            f"{form.depth} bits. Convert them."
        )
    return DetectionDataset(
        key=key,
        title=title,
        images=ImageFiles(root=listing.root, names=listing.names, form=form),
        labels=found.labels,
        class_names=listing.class_names,
        splits=found.splits,
        scenes=SceneFiles(root=listing.root, names=listing.names, sizes=found.sizes, channels=form.channels),
        objects=found.objects,
        layout=layout,
        dropped=found.dropped,
        remarks=listing.remarks,
    )


def offered(found: Settled) -> tuple[Capability, ...]:
    """Boxes, masks where there are any, and findings where a split has scenes with and without one."""
    chosen = [found.labels[found.splits[split]] for split in SPLITS]
    both = np.all([(labels == 1).any(axis=0) & (labels == 0).any(axis=0) for labels in chosen], axis=0)
    findings: tuple[Capability, ...] = ("multilabel",) if both.any() else ()
    return ("boxes", *findings, *(("masks",) if found.objects.masks else ()))


def twins(root: Path, names: Sequence[str]) -> list[str]:
    """For each file a name that it shares with those of the same bytes; only files of one length are read."""
    lengths: dict[int, list[str]] = defaultdict(list)
    for name in names:
        lengths[(root / name).stat().st_size].append(name)
    digests = {
        name: hashlib.sha256(read_bytes(root / name)).hexdigest()
        for same in lengths.values()
        if len(same) > 1
        for name in same
    }
    return [digests.get(name, name) for name in names]


def _sizes(listing: Listing, complaints: Complaints) -> NDArray[np.int64]:
    """(N, 2) from the annotations, compared with the files unless these are published."""
    if listing.published and None not in listing.sizes:
        return np.array(listing.sizes, dtype=np.int64).reshape(-1, 2)

    def measured(scene: int) -> Size:
        if not os.path.lexists(listing.root / listing.names[scene]):  # the loader has complained about it
            return listing.sizes[scene] or (1, 1)
        try:
            return scene_size(listing.root / listing.names[scene], listing.sizes[scene])
        except DataError as error:
            complaints.add(OTHER_SIZE, str(error).rpartition(". ")[0])  # without its remedy
            return listing.sizes[scene] or (1, 1)

    return np.array(list(in_threads(measured, range(len(listing.names)))), dtype=np.int64).reshape(-1, 2)


def _splits(listing: Listing, labels: NDArray[np.int64], shares: Mapping[str, float], *, title: str) -> Splits:
    sides = np.array(listing.sides, dtype="<U10")
    if not shares["validation"]:
        sides[sides == "validation"] = "train"
    rows = np.flatnonzero(sides == "train")
    missing = {split: share for split, share in shares.items() if share and not (sides == split).any()}
    if len(rows) <= len(missing):
        raise DataError(f"{title}: {len(rows)} training scenes are too few to draw {' and '.join(missing)} from them.")
    if missing:
        wanted = {"train": 1 - sum(missing.values()), **missing}
        for split, chosen in _drawn(listing, labels, rows, wanted, title=title):
            sides[rows[chosen]] = split
    return {split: np.flatnonzero(sides == split) for split in SPLITS}


def _drawn(
    listing: Listing, labels: NDArray[np.int64], rows: NDArray[np.int64], shares: Mapping[str, float], *, title: str
) -> Iterable[tuple[str, NDArray[np.int64]]]:
    """Split and positions in ``rows``."""
    if listing.published:  # all classes are frequent, and duplicates are as published
        left = np.arange(len(rows))
        for split in list(shares)[1:]:
            count = round(shares[split] * len(rows))
            chosen = left[stratified_choice(np.zeros(len(left), dtype=np.int64), count, seed=SPLIT_SEED)]
            left = np.setdiff1d(left, chosen)
            yield split, chosen
        return
    groups = twins(listing.root, [listing.names[row] for row in rows])
    if len(set(groups)) < len(shares):
        raise DataError(
            f"{title}: {len(set(groups))} different images cannot be divided into {' and '.join(shares)}. Add images."
        )
    yield from grouped_splits(labels[rows], groups, shares).items()
