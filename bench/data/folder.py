"""A folder of class folders of images: the user's own data.

Either ``root/<class>/…`` or ``root/train/<class>/…`` with, optionally, ``validation`` (or ``val``, ``valid``) and
``test`` beside it. A split that has no folder is taken from the training images, stratified.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.card import DatasetCard
from bench.data.dataset import SPLITS, ImageDataset
from bench.data.files import depends_on, existing_folder
from bench.data.image_files import HIDDEN, ImageFiles, common_form, images_below
from bench.data.imaging import SUFFIXES
from bench.data.label_lists import label_list_columns, label_list_files
from bench.data.splits import check_shares, stratified_choice, train_and_validation
from bench.errors import DataError
from bench.registry import register_dataset

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Sample:
    """One image file with its class and the split whose folder it lies in."""

    file: Path
    label: int
    split: str


def list_samples(root: Path) -> tuple[tuple[str, ...], list[Sample]]:
    """Class names and image files, in an order that no file system decides.

    Raises:
        DataError: no class folders, one class only, an empty class, or folders that mix both layouts.
    """
    existing_folder(root)
    splits = _split_folders(root)
    class_names = tuple(child.name for child in _folders(splits["train"]))
    if len(class_names) < 2:
        raise DataError(
            f"{splits['train']} has {len(class_names)} class folders, at least 2 are needed. Put the images of each "
            "class into a folder with the name of the class."
        )
    for folder in (child for parent in splits.values() for child in _folders(parent)):
        if folder.name not in class_names:
            raise DataError(f"{folder} has no counterpart in {splits['train']}. Add training images, or remove it.")
    return class_names, [
        Sample(file, class_names.index(folder.name), split)
        for split, parent in splits.items()
        for folder in _folders(parent)
        for file in _images(folder)
    ]


def _split_folders(root: Path) -> dict[str, Path]:
    """Folder of each split that has one; ``root`` itself when it holds the class folders."""
    named = [(child, SPLIT_NAMES.get(child.name)) for child in _folders(root)]
    # Without folders of its own, a folder `train` is a class: trains.
    nested = {child for child, split in named if split and _folders(child)}
    if not nested:
        return {"train": root}
    found: dict[str, Path] = {}
    for child, split in named:
        if split is None or split in found:
            reason = f"a second {split} folder" if split else "neither train, validation nor test"
            raise DataError(f"{child} is {reason}, but {root} is laid out by split. Move it elsewhere.")
        found[split] = child
    if "train" not in found:
        raise DataError(f"{root} has {min(nested).name}, but no train folder. Add one with a folder for each class.")
    return {split: found[split] for split in SPLITS if split in found}


def _folders(parent: Path) -> list[Path]:
    existing_folder(parent)
    inside = [child for child in parent.iterdir() if child.is_dir() and not child.name.startswith(HIDDEN)]
    return sorted(inside, key=lambda child: child.name)


def _images(folder: Path) -> list[Path]:
    found = images_below(folder)
    if not found:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"The class folder {folder} has no image ({kinds}). Add images, or remove the folder.")
    return [folder / name for name in found]


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The image files and the lists that the loader reads."""
    images = [sample.file for sample in list_samples(root / str(params["path"]))[1]]
    return [*images, *label_list_files(root, params.get("label_lists", ()))]


def _refuse_small_classes(samples: list[Sample], class_names: tuple[str, ...]) -> None:
    """A class needs a training image, and one more for each split that has no folder of its own.

    Raises:
        DataError: with the folder of the first class that has too few.
    """
    needed = 1 + len(set(SPLITS) - {sample.split for sample in samples})
    for label, name in enumerate(class_names):
        files = [sample.file for sample in samples if sample.label == label and sample.split == "train"]
        if len(files) < needed:
            count = f"{len(files)} image" + ("" if len(files) == 1 else "s")
            raise DataError(
                f"The class {name!r} has {count} to be split ({files[0].parent}), at least {needed} are needed. Add "
                "some, or remove the class."
            )


def _splits(samples: list[Sample], labels: NDArray[np.int64], *, validation: float, test: float) -> dict[str, Any]:
    """Indices of each split: the folder's own splits, and stratified ones from the training images for the others."""
    groups = np.array([sample.split for sample in samples])
    splits = {split: np.flatnonzero(groups == split) for split in SPLITS}
    num_classes = len(np.unique(labels))
    count = len(splits["train"])
    if not len(splits["test"]):
        chosen = stratified_choice(labels[splits["train"]], max(num_classes, round(test * count)), seed=0)
        splits["test"] = splits["train"][chosen]
        splits["train"] = np.setdiff1d(splits["train"], splits["test"])
    if not len(splits["validation"]):
        size = max(num_classes, round(validation * count))
        splits |= train_and_validation(labels, splits["train"], validation=size)
    return splits


@register_dataset(
    "folder",
    card=DatasetCard(
        title="Folder of images",
        summary="Class folders of images, resized and cropped to squares; splits without a folder are taken from the "
        "training images, stratified.",
        license="the user's own",
        source="PNG, JPEG, TIFF, DICOM and other images of 8 or 16 bits in the folder of data",
        checked=True,
    ),
)
@depends_on(packages=("Pillow",), files=find_files)
def folder(
    root: Path,
    *,
    name: str = "",
    path: str = "",
    image_size: int = 32,
    channels: int = 3,
    window: tuple[float, ...] = (),
    validation: float = 0.1,
    test: float = 0.2,
    allow_leakage: bool = False,
    label_lists: tuple[str, ...] = (),
) -> ImageDataset:
    """Load class folders of images.

    Args:
        root: the folder of data.
        name: what addresses and tables call these images; empty takes the name of their folder.
        path: where the class folders are, relative to ``root``; empty when they are in it.
        image_size: height and width of the loaded images in pixels.
        channels: 1 (gray), 3 (color) or the number of bands; 0 finds it: color when any file is in color.
        window: (low, high) in the files' units, mapped to the full range; empty keeps the range of their type.
        validation, test: shares of the training images for a split that has no folder of its own.
        allow_leakage: accept identical images in more than one split; otherwise they are refused before anything runs.
        label_lists: files of image names, relative to ``root``: whose labels a semi-supervised protocol may use.
    """
    check_shares(validation, test)
    place = root / path
    class_names, samples = list_samples(place)
    names = tuple(sample.file.relative_to(place).as_posix() for sample in samples)
    _refuse_small_classes(samples, class_names)
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    return ImageDataset(
        key="folder",
        title=name or place.resolve().name,
        images=ImageFiles(
            root=place,
            names=names,
            form=common_form(place, names, size=image_size, channels=channels, window=window),
        ),
        labels=labels,
        class_names=class_names,
        splits=_splits(samples, labels, validation=validation, test=test),
        metadata=label_list_columns(root, label_lists, names),
    )
