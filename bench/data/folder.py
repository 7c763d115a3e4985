"""A folder of class folders of images: the user's own data.

Either ``root/<class>/…`` or ``root/train/<class>/…`` with, optionally, ``validation`` (or ``val``, ``valid``) and
``test`` beside it. A split that has no folder is taken from the training images, stratified.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.card import DatasetCard
from bench.data.dataset import SPLITS, ImageDataset
from bench.data.files import depends_on, existing_folder
from bench.data.splits import stratified_choice, train_and_validation
from bench.errors import DataError
from bench.registry import register_dataset

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
HIDDEN = (".", "__")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
CHUNK = 1024
"""Images decoded at a time: as many as are worth a queue."""


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


def _fail(error: OSError) -> None:
    raise DataError(f"The folder {error.filename} cannot be read ({error.strerror}). Check its permissions.") from error


def _images(folder: Path) -> list[Path]:
    """All images below ``folder``, sorted by their portable relative path."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=_fail):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        images = (name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(HIDDEN))
        found += [f"{parent}{os.sep}{name}" for name in images]
    if not found:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"The class folder {folder} has no image ({kinds}). Add images, or remove the folder.")
    return [Path(name) for name in sorted(found, key=lambda name: name.replace(os.sep, "/"))]


def read_image(file: Path, *, size: int, channels: int) -> NDArray[np.uint8]:
    """Decode one image, resize its shorter side and cut out the center: (size, size, channels) uint8.

    Raises:
        DataError: it cannot be decoded, or has more than 8 bits per channel.
    """
    from PIL import Image, UnidentifiedImageError  # lazily: a warm cache does not need it

    try:
        with Image.open(file) as opened:
            if opened.mode not in EIGHT_BIT_MODES:
                raise DataError(
                    f"{file}: pixels of type {opened.mode!r}, 8 bits per channel are needed. Convert the image first, "
                    "with the intensity window that matters."
                )
            image = _resized(opened.convert("L" if channels == 1 else "RGB"), size)
    except UnidentifiedImageError as error:
        raise DataError(f"{file} is no image that can be decoded. Replace or remove it.") from error
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is truncated or damaged ({error}). Replace or remove it.") from error
    return np.asarray(image, dtype=np.uint8).reshape(size, size, channels)


def _resized(image: Image, size: int) -> Image:
    """Shorter side to ``size``, antialiased bilinear, then the central square."""
    from PIL.Image import Resampling

    width, height = image.size
    scale = size / min(width, height)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    if (wide, high) != (width, height):
        image = image.resize((wide, high), Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return image.crop((left, top, left + size, top + size))


def _decode(samples: list[Sample], *, size: int, channels: int) -> NDArray[np.uint8]:
    images = np.empty((len(samples), size, size, channels), dtype=np.uint8)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes outside the GIL
        for start in range(0, len(samples), CHUNK):
            files = [sample.file for sample in samples[start : start + CHUNK]]
            decoded = pool.map(lambda file: read_image(file, size=size, channels=channels), files)
            for offset, image in enumerate(decoded):
                images[start + offset] = image
    return images


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The image files that the loader reads."""
    return [sample.file for sample in list_samples(root / str(params["path"]))[1]]


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
        source="PNG, JPEG and other 8-bit images in the folder of data",
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
    validation: float = 0.1,
    test: float = 0.2,
) -> ImageDataset:
    """Load class folders of images.

    Args:
        root: the folder of data.
        name: what addresses and tables call these images; empty takes the name of their folder.
        path: where the class folders are, relative to ``root``; empty when they are in it.
        image_size: height and width of the loaded images in pixels.
        channels: 1 (gray) or 3 (color).
        validation, test: shares of the training images for a split that has no folder of its own.
    """
    if channels not in (1, 3) or image_size < 1:
        raise DataError(
            f"channels must be 1 or 3 and image_size positive, got {channels} and {image_size}. Change them."
        )
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise DataError(f"validation and test are shares above 0, together below 1; got {validation} and {test}.")
    place = root / path
    class_names, samples = list_samples(place)
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    return ImageDataset(
        key="folder",
        title=name or place.resolve().name,
        images=_decode(samples, size=image_size, channels=channels),
        labels=labels,
        class_names=class_names,
        splits=_splits(samples, labels, validation=validation, test=test),
    )
