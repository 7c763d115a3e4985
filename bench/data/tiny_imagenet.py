"""Tiny ImageNet from the user's copy, in its official layout.

The official test images have no public labels and are not read: the official validation images are the test split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.card import DatasetCard, PublishedSizes
from bench.data.dataset import ImageDataset
from bench.data.files import depends_on, existing_folder, read_bytes, unreadable
from bench.data.image_files import ImageFiles, images_below
from bench.data.imagenet import read_words, synset_names
from bench.data.imaging import Form
from bench.data.official import VALIDATION_FRACTION
from bench.data.splits import train_and_validation
from bench.errors import DataError
from bench.registry import register_dataset

FOLDERS = ("tiny-imagenet-200", "tiny_imagenet", "tiny-imagenet", ".")
SIDE = 64


def _home(root: Path) -> Path:
    existing_folder(root)
    for home in (root / name for name in FOLDERS):
        if (home / "wnids.txt").is_file() and (home / "val" / "val_annotations.txt").is_file():
            return home
    raise DataError(
        f"No Tiny ImageNet below {root}: looked for wnids.txt and val/val_annotations.txt there and in "
        f"{', '.join(FOLDERS[:-1])}. Put the unpacked folder there, or give it with --data."
    )


def _wnids(home: Path) -> list[str]:
    return sorted((home / "wnids.txt").read_text(encoding="utf-8").split())


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The class folders and the lists; a folder's time tells that images came or went."""
    home = _home(root)
    folders = [home / "train" / wnid / "images" for wnid in _wnids(home)]
    lists = [home / "wnids.txt", home / "words.txt", home / "val" / "val_annotations.txt", home / "val" / "images"]
    return [file for file in (*lists, *folders) if file.exists()]


def _test_images(home: Path, wnids: list[str]) -> list[tuple[str, int]]:
    """Name and class of the official validation images."""
    file = home / "val" / "val_annotations.txt"
    number = {wnid: index for index, wnid in enumerate(wnids)}
    found = []
    for row, line in enumerate(read_bytes(file).decode("utf-8", errors="replace").splitlines(), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in number:
            raise unreadable(file, f"row {row} names {wnid!r}, which is no class of wnids.txt")
        found.append((f"val/images/{name}", number[wnid]))
    present = {f"val/images/{name}" for name in images_below(home / "val" / "images")}
    missing = [name for name, _ in found if name not in present]
    if missing or not found:
        raise DataError(
            f"{home} lacks {len(missing)} of {len(found)} images of {file.name}: {', '.join(missing[:5])}. Unpack them."
        )
    return found


@register_dataset(
    "tiny_imagenet",
    card=DatasetCard(
        title="Tiny ImageNet",
        summary="Photographs of 200 ImageNet classes, 64×64 pixels; the official validation images are the test split, "
        "a stratified tenth of the training images is for validation.",
        license="research use (ImageNet terms of access)",
        source="tiny-imagenet-200 in the folder of data (Le and Yang, 2015)",
        published=PublishedSizes(train=90_000, validation=10_000, test=10_000, classes=200, image_size=64),
    ),
)
@depends_on(packages=("Pillow",), files=find_files)
def tiny_imagenet(root: Path) -> ImageDataset:
    """Load Tiny ImageNet from ``root`` or one of its usual subfolders."""
    home = _home(root)
    wnids = _wnids(home)
    train = [
        (f"train/{wnid}/images/{name}", label)
        for label, wnid in enumerate(wnids)
        for name in _training_names(home / "train" / wnid / "images")
    ]
    samples = [*train, *_test_images(home, wnids)]
    labels = np.array([label for _, label in samples], dtype=np.int64)
    words = home / "words.txt"
    size = max(len(wnids), round(VALIDATION_FRACTION * len(train)))
    return ImageDataset(
        key="tiny_imagenet",
        title="Tiny ImageNet",
        images=ImageFiles(root=home, names=tuple(name for name, _ in samples), form=Form(size=SIDE, channels=3)),
        labels=labels,
        class_names=synset_names(read_words(words) if words.is_file() else {}, wnids),
        splits={
            **train_and_validation(labels, np.arange(len(train)), validation=size),
            "test": np.arange(len(train), len(samples)),
        },
    )


def _training_names(folder: Path) -> list[str]:
    names = images_below(existing_folder(folder))
    if not names:
        raise DataError(f"{folder} has no image. Unpack the training images of its class into it.")
    return names
