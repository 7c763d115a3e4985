"""STL-10 from the user's copy of the binary files, with its 100,000 unlabelled images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.card import DatasetCard, PublishedSizes
from bench.data.dataset import UNKNOWN, UNLABELLED, ImageDataset, Pixels, Rows
from bench.data.files import depends_on, existing_folder, read_bytes, unreadable
from bench.data.joined import Joined
from bench.data.official import Portion, with_validation
from bench.errors import DataError
from bench.registry import register_dataset

FOLDERS = ("stl10_binary", "stl10/stl10_binary", "stl10", "STL10", ".")
LABELLED = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
WITHOUT_LABELS = "unlabeled_X.bin"
SIDE = 96
BYTES = 3 * SIDE * SIDE
CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


@dataclass(frozen=True)
class PlaneFile:
    """Images (N, 96, 96, 3) of one file, mapped into memory while they are read.

    The file holds a red, a green and a blue plane for each image, column after column.
    """

    file: Path
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, SIDE, SIDE, 3)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: Rows) -> Pixels:
        mapped = np.memmap(self.file, dtype=np.uint8, mode="r", shape=(self.count, 3, SIDE, SIDE))
        return np.ascontiguousarray(mapped[rows].transpose(0, 3, 2, 1))

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def _plane_file(file: Path) -> PlaneFile:
    size = file.stat().st_size
    if size == 0 or size % BYTES:
        raise unreadable(file, f"its {size} bytes are no whole number of images of {BYTES} bytes: it is truncated")
    return PlaneFile(file, size // BYTES)


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The binary files, those with labels first, in the order of ``LABELLED``.

    Raises:
        DataError: no folder has them, or one lacks some.
    """
    existing_folder(root)
    wanted = (*LABELLED, WITHOUT_LABELS) if params["unlabelled"] else LABELLED
    for folder in (root / name for name in FOLDERS):
        missing = [name for name in wanted if not (folder / name).is_file()]
        if not missing:
            return [folder / name for name in wanted]
        if missing == [WITHOUT_LABELS]:
            raise DataError(
                f"{folder} lacks {WITHOUT_LABELS}. Add it, or set unlabelled to false to pre-train on the 4,500 "
                "training images only."
            )
        if len(missing) < len(wanted):
            raise DataError(f"{folder} lacks {', '.join(missing)}. Put all binary STL-10 files into it.")
    raise DataError(
        f"No STL-10 below {root}: looked for {LABELLED[0]} there and in {', '.join(FOLDERS[:-1])}. Put the binary "
        "files into one of these folders, or give their folder with --data."
    )


@register_dataset(
    "stl10",
    card=DatasetCard(
        title="STL-10",
        summary="Photographs of 10 classes, 96×96 pixels; the official test split, a stratified tenth of the 5,000 "
        "training images for validation, and 100,000 unlabelled images for pre-training.",
        license="research use; the images are from ImageNet",
        source="binary files in the folder of data (Coates, Lee and Ng, 2011)",
        published=PublishedSizes(
            train=4_500,
            validation=500,
            test=8_000,
            unlabelled=100_000,
            classes=10,
            image_size=96,
        ),
    ),
)
@depends_on(files=find_files)
def stl10(root: Path, *, unlabelled: bool = True) -> ImageDataset:
    """Load STL-10.

    Args:
        root: the folder of data.
        unlabelled: with the unlabelled images, which stay in their file until they are read.
    """
    files = list(find_files(root, {"unlabelled": unlabelled}))
    portions = [
        Portion(
            images=_plane_file(images)[:].astype(np.uint8, copy=False),
            labels=np.frombuffer(read_bytes(labels), dtype=np.uint8).astype(np.int64) - 1,  # stored from 1
            file=labels,
        )
        for images, labels in (files[:2], files[2:4])
    ]
    labelled = with_validation("stl10", "STL-10", train=portions[:1], test=portions[1], class_names=CLASS_NAMES)
    if not unlabelled:
        return labelled
    further = _plane_file(files[4])
    start = len(labelled.labels)
    return ImageDataset(
        key=labelled.key,
        title=labelled.title,
        images=Joined((labelled.images, further)),
        labels=np.concatenate([labelled.labels, np.full(len(further), UNKNOWN, dtype=np.int64)]),
        class_names=labelled.class_names,
        splits={**labelled.splits, UNLABELLED: np.arange(start, start + len(further))},
    )
