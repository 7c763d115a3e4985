"""ImageNet (ILSVRC 2012) from the user's copy: class folders of training images, validation images in either layout.

The official validation images are the test split, as in the literature; a stratified part of the training images is
the validation split on which choices are made. Validation images lie in class folders, or flat with a list of their
classes: ``LOC_val_solution.csv``, or the development kit's ground truth with its ``meta.mat``.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.card import DatasetCard, PublishedSizes
from bench.data.dataset import ImageDataset
from bench.data.files import depends_on, existing_folder, unreadable
from bench.data.image_files import ImageFiles
from bench.data.imaging import SUFFIXES, Form
from bench.data.label_lists import label_list_columns, label_list_files
from bench.data.splits import train_and_validation
from bench.errors import DataError
from bench.registry import register_dataset

PLACES = (
    ".",
    "imagenet",
    "ImageNet",
    "imagenet1k",
    "ILSVRC2012",
    "ILSVRC/Data/CLS-LOC",
    "imagenet/ILSVRC/Data/CLS-LOC",
)
WNID = re.compile(r"n\d{8}")
SOLUTION = "LOC_val_solution.csv"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
NAMES = ("LOC_synset_mapping.txt", "words.txt")
LISTS = (SOLUTION, GROUND_TRUTH, META, *NAMES)
AROUND = (".", "data", "ILSVRC2012_devkit_t12/data", "devkit/data", "..", "../..", "../../..")
"""Where the lists are looked for, from the folder that holds ``train``."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the parts of a copy of ImageNet are.

    Attributes:
        home: the folder that holds ``train`` and ``val``.
        wnids: sorted synset identifiers: the names of the training folders.
        flat: the validation images lie in one folder, not in class folders.
        lists: the files of ``LISTS`` that were found.
    """

    home: Path
    wnids: tuple[str, ...]
    flat: bool
    lists: Mapping[str, Path]


def layout(root: Path, path: str) -> Layout:
    """Find the parts.

    Raises:
        DataError: there is no ImageNet below ``root``, or its validation images are missing.
    """
    existing_folder(root)
    for home in (root / place for place in ((path,) if path else PLACES)):
        wnids = _class_folders(home / "train")
        if wnids:
            break
    else:
        raise DataError(
            f"No ImageNet below {root}: looked for train/n01440764 and the like in {path or ', '.join(PLACES)}. Name "
            "the folder that holds train and val with the parameter `path`."
        )
    if not (home / "val").is_dir():
        raise DataError(
            f"{home} has no folder val. Put the official validation images into it: they are the test split."
        )
    around = [(home / place).resolve() for place in AROUND]
    found = {name: next((at / name for at in around if (at / name).is_file()), None) for name in LISTS}
    lists = {name: file for name, file in found.items() if file is not None}
    return Layout(home=home, wnids=wnids, flat=not _class_folders(home / "val"), lists=lists)


def _class_folders(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        return tuple(sorted(entry.name for entry in entries if WNID.fullmatch(entry.name) and entry.is_dir()))


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The class folders and the lists. Not the 1.3 million images: a folder's time tells that files came or went, and
    the images of a published set are not edited in place."""
    place = layout(root, str(params["path"]))
    folders = [place.home / "train" / wnid for wnid in place.wnids]
    folders += [place.home / "val"] if place.flat else [place.home / "val" / wnid for wnid in place.wnids]
    label_lists = label_list_files(root, params.get("label_lists", ()))
    return [*(folder for folder in folders if folder.exists()), *place.lists.values(), *label_lists]


def read_imagenet(
    key: str, title: str, place: Layout, *, wnids: Sequence[str], image_size: int, validation: float
) -> ImageDataset:
    """The classes ``wnids``, in their sorted order.

    Args:
        key, title: of the dataset.
        place: from :func:`layout`.
        wnids: the classes.
        image_size: height and width of the loaded images in pixels.
        validation: share of the training images that are the validation split; at least one of each class.

    Raises:
        DataError: a class has no training folder, or no test images.
    """
    if not 0 < validation < 1:
        raise DataError(f"validation is a share of the training images between 0 and 1, got {validation}. Change it.")
    wnids = sorted(wnids)
    if lacking := [wnid for wnid in wnids if wnid not in set(place.wnids)]:
        raise DataError(
            f"{place.home / 'train'} lacks {len(lacking)} of {len(wnids)} classes: {', '.join(lacking[:5])}. Add them."
        )
    train = [_listed(place.home, f"train/{wnid}") for wnid in wnids]
    test = _validation_images(place, wnids)
    for wnid, images in zip(wnids, test, strict=True):
        if not images:
            raise DataError(f"{place.home / 'val'} has no image of class {wnid}. Complete the validation images.")
    names = tuple(name for images in (*train, *test) for name in images)
    labels = np.repeat(np.tile(np.arange(len(wnids)), 2), [len(images) for images in (*train, *test)])
    count = sum(map(len, train))
    size = max(len(wnids), round(validation * count))
    return ImageDataset(
        key=key,
        title=title,
        images=ImageFiles(root=place.home, names=names, form=Form(size=image_size, channels=3)),
        labels=labels,
        class_names=_synset_names(place, wnids),
        splits={
            **train_and_validation(labels, np.arange(count), validation=size),
            "test": np.arange(count, len(names)),
        },
    )


def _listed(home: Path, folder: str) -> list[str]:
    try:
        with os.scandir(home / folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES))
    except OSError as error:
        raise DataError(
            f"{home / folder} cannot be read ({error.strerror}). Add it, or check its permissions."
        ) from error
    if not names:
        raise DataError(f"{home / folder} has no image. Unpack its images into it.")
    return [f"{folder}/{name}" for name in names]


def _validation_images(place: Layout, wnids: Sequence[str]) -> list[list[str]]:
    """The official validation images of each class."""
    if not place.flat:
        return [_listed(place.home, f"val/{wnid}") for wnid in wnids]
    classes = _flat_classes(place)
    found: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    for name in _listed(place.home, "val"):
        wnid = classes.get(Path(name).stem)
        if wnid is None:
            raise DataError(f"{place.home / name} is in no list of validation images. Remove it, or complete the list.")
        if wnid in found:
            found[wnid].append(name)
    return list(found.values())


def _flat_classes(place: Layout) -> dict[str, str]:
    """Class of each validation image by the stem of its name."""
    if SOLUTION in place.lists:
        with place.lists[SOLUTION].open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))[1:]
        if not all(len(row) == 2 and WNID.match(row[1]) for row in rows):
            raise unreadable(place.lists[SOLUTION], "its rows are not an image and a class with boxes")
        return {name: boxes.split()[0] for name, boxes in rows}  # all boxes of an image are of its class
    if GROUND_TRUTH in place.lists and META in place.lists:
        numbers = place.lists[GROUND_TRUTH].read_text(encoding="utf-8").split()
        wnids = _numbered_wnids(place.lists[META])
        if unknown := [number for number in numbers if number not in wnids]:
            raise unreadable(place.lists[GROUND_TRUTH], f"{unknown[0]!r} is no number of a class of {META}")
        return {f"ILSVRC2012_val_{row:08d}": wnids[number] for row, number in enumerate(numbers, start=1)}
    raise DataError(
        f"{place.home / 'val'} holds the validation images in one folder, and nothing says their classes. Put "
        f"{SOLUTION}, or {GROUND_TRUTH} with {META}, into {place.home}, or sort the images into class folders."
    )


def _numbered_wnids(file: Path) -> dict[str, str]:
    """The development kit numbers the classes in an order of its own."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(file, squeeze_me=True)["synsets"]
        return {str(int(row["ILSVRC2012_ID"])): str(row["WNID"]) for row in synsets}
    except (KeyError, TypeError, ValueError, OSError, NotImplementedError) as error:
        raise unreadable(file, f"it is not the development kit's table of classes ({error})") from error


def read_words(file: Path) -> dict[str, str]:
    """First synonym of each synset, from lines of an identifier and names that commas separate."""
    lines = (line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines())
    return {parts[0]: parts[1].split(",")[0].strip() for parts in lines if len(parts) == 2}


def synset_names(words: Mapping[str, str], wnids: Sequence[str]) -> tuple[str, ...]:
    """A name for each class: two cranes, bird and machine, are told apart by their identifiers."""
    names = [words.get(wnid, wnid) for wnid in wnids]
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True))


def _synset_names(place: Layout, wnids: Sequence[str]) -> tuple[str, ...]:
    file = next((place.lists[name] for name in NAMES if name in place.lists), None)
    return synset_names(read_words(file) if file else {}, wnids)


@register_dataset(
    "imagenet",
    card=DatasetCard(
        title="ImageNet",
        summary="Photographs of 1,000 classes, resized and cropped to squares; the official validation images are the "
        "test split, a stratified hundredth of the training images is for validation.",
        license="research use (ImageNet terms of access)",
        source="ILSVRC 2012 in the folder of data (Russakovsky et al., 2015)",
        published=PublishedSizes(
            train=1_281_167 - 12_812,
            validation=12_812,
            test=50_000,
            classes=1_000,
            image_size=224,
        ),
    ),
)
@depends_on(packages=("Pillow",), files=find_files)
def imagenet(
    root: Path, *, path: str = "", image_size: int = 224, validation: float = 0.01, label_lists: tuple[str, ...] = ()
) -> ImageDataset:
    """Load ImageNet; the images stay in their files until they are read.

    Args:
        root: the folder of data.
        path: the folder that holds ``train`` and ``val``, relative to ``root``; empty looks in the usual places.
        image_size: height and width of the loaded images in pixels.
        validation: share of the training images that are the validation split.
        label_lists: files of image names, relative to ``root``, such as SimCLR's ``1percent.txt``: whose labels a
            semi-supervised protocol may use.
    """
    place = layout(root, path)
    dataset = read_imagenet(
        "imagenet", "ImageNet", place, wnids=place.wnids, image_size=image_size, validation=validation
    )
    assert isinstance(dataset.images, ImageFiles)
    return replace(dataset, metadata=label_list_columns(root, label_lists, dataset.images.names))
