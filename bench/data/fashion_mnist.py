"""Fashion-MNIST from the user's copy: four IDX files, gzipped or plain."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.card import DatasetCard, PublishedSizes
from bench.data.dataset import ImageDataset
from bench.data.files import depends_on, existing_folder, read_bytes, unreadable
from bench.data.official import Portion, with_validation
from bench.errors import DataError
from bench.registry import register_dataset

FOLDERS = ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST", "raw", ".")
"""Looked through in this order below the root; ``.`` is last because MNIST's files have the same names."""
STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
UNSIGNED_BYTES = 8
"""The IDX code of the only element type that is read here."""


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The four files, in the order of ``STEMS``.

    Raises:
        DataError: no folder has any of them, or one has not all.
    """
    existing_folder(root)
    for name in FOLDERS:
        folder = root / name
        found = {stem: file for stem in STEMS if (file := _find(folder, stem)) is not None}
        if len(found) == len(STEMS):
            return list(found.values())
        if found:
            missing = ", ".join(stem for stem in STEMS if stem not in found)
            raise DataError(f"{folder} lacks {missing} (.gz or plain). Put all four Fashion-MNIST files into it.")
    raise DataError(
        f"No Fashion-MNIST below {root}: looked for {STEMS[0]}[.gz] there and in {', '.join(FOLDERS[:-1])}. "
        "Put the four IDX files into one of these folders, or give their folder with --data."
    )


def _find(folder: Path, stem: str) -> Path | None:
    """The plain file before the gzipped one; some programs write a dot for the hyphen before ``idx``."""
    names = (stem, stem.replace("-idx", ".idx"))
    candidates = [folder / f"{name}{suffix}" for suffix in ("", ".gz") for name in names]
    return next((file for file in candidates if file.is_file()), None)


def read_idx(file: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX array of unsigned bytes.

    Raises:
        DataError: truncated, damaged, or another kind of array.
    """
    content = read_bytes(file)
    if file.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise unreadable(file, f"it is truncated or no gzip file ({error})") from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, UNSIGNED_BYTES, dimensions)) or len(content) < header:
        raise unreadable(file, f"it is no IDX file of bytes with {dimensions} dimensions (starts {content[:4].hex()})")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected, found = int(np.prod(shape, dtype=np.int64)), len(content) - header
    if found != expected:
        raise unreadable(
            file, f"its header promises {expected} bytes {shape}, it holds {found}: it is truncated or damaged"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


@register_dataset(
    "fashion_mnist",
    card=DatasetCard(
        title="Fashion-MNIST",
        summary="Articles of clothing, 10 classes, 28×28 pixels; the official test split, and a stratified tenth of "
        "the training images for validation.",
        license="MIT (Zalando SE)",
        source="IDX files in the folder of data (Xiao, Rasul and Vollgraf, 2017)",
        published=PublishedSizes(train=54_000, validation=6_000, test=10_000, classes=10, image_size=28, channels=1),
    ),
)
@depends_on(files=find_files)
def fashion_mnist(root: Path) -> ImageDataset:
    """Load Fashion-MNIST from ``root`` or one of its usual subfolders."""
    arrays = [(file, read_idx(file, dimensions=1 if "labels" in file.name else 3)) for file in find_files(root, {})]
    portions = [
        Portion(images=images[..., None], labels=labels.astype(np.int64), file=file)
        for (_, images), (file, labels) in zip(arrays[::2], arrays[1::2], strict=True)
    ]
    return with_validation(
        "fashion_mnist", "Fashion-MNIST", train=portions[:1], test=portions[1], class_names=CLASS_NAMES
    )
