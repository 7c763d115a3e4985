"""Lists of the training images that keep their labels, such as SimCLR's 1 % and 10 % of ImageNet.

A list is a text file with one image file name a line. A loader of image files turns each into a column of the dataset's
metadata, so that the content of a list is part of what a result's data hash is made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import ImageDataset, Subset
from bench.data.files import read_bytes, unreadable
from bench.errors import DataError

LISTED = "yes"
NAMED = 3
"""Unknown names that an error shows."""


def column_of(name: str) -> str:
    """The metadata column of the list ``name``."""
    return f"in {name}"


def label_list_files(root: Path, names: Sequence[str]) -> list[Path]:
    """The files of the lists, for what a loader declares to read."""
    return [root / name for name in names]


def label_list_columns(root: Path, names: Sequence[str], files: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """One metadata column for each list: ``yes`` for the images that it names, else empty.

    A line names an image by as much of the end of its path as it takes: ``n01440764_10183.JPEG`` or
    ``n01440764/n01440764_10183.JPEG``.

    Args:
        root: the folder of data.
        names: file names of the lists, relative to ``root``.
        files: of every image of the dataset, in its order: the path relative to ``root``, with ``/``.

    Raises:
        DataError: a list cannot be read, is empty, names an image twice, or one that is not there or is there twice.
    """
    return {column_of(name): _column(root / name, files) for name in names}


def _column(file: Path, files: Sequence[str]) -> NDArray[np.str_]:
    try:
        lines = [line.strip() for line in read_bytes(file).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise unreadable(file, "it is no text in UTF-8") from error
    entries = [line for line in lines if line]
    if not entries:
        raise unreadable(file, "it names no image")
    known: Mapping[int, dict[str, list[int]]] = {
        depth: _by_ending(files, depth) for depth in {entry.count("/") + 1 for entry in entries}
    }
    found = [known[entry.count("/") + 1].get(entry, []) for entry in entries]
    for problem, wrong in (
        ("are not among the images", [e for e, rows in zip(entries, found, strict=True) if not rows]),
        ("fit several images", [e for e, rows in zip(entries, found, strict=True) if len(rows) > 1]),
    ):
        if wrong:
            shown = ", ".join(wrong[:NAMED]) + (" …" if len(wrong) > NAMED else "")
            raise DataError(
                f"{file}: {len(wrong)} of its {len(entries)} names {problem}: {shown}. Name files of this dataset, "
                "with their folder where the name alone is not enough."
            )
    rows = [row for (row,) in found]
    if len(set(rows)) < len(rows):
        raise DataError(f"{file}: {len(rows) - len(set(rows))} images are named twice. Remove the repeated lines.")
    column = np.full(len(files), "", dtype=f"<U{len(LISTED)}")
    column[rows] = LISTED
    return column


def _by_ending(files: Sequence[str], depth: int) -> dict[str, list[int]]:
    """Positions of the files by the last ``depth`` parts of their path."""
    places: dict[str, list[int]] = {}
    for position, file in enumerate(files):
        places.setdefault("/".join(file.split("/")[-depth:]), []).append(position)
    return places


def listed_rows(data: ImageDataset, subset: Subset, name: str) -> NDArray[np.int64]:
    """Positions in ``subset`` of the images that the list ``name`` names.

    Raises:
        DataError: the dataset has no such list, or it names a test image.
    """
    column = column_of(name)
    if column not in data.metadata:
        raise DataError(
            f"{data.key} has no label list {name!r}. Name the file in the dataset's parameter label_lists, or leave "
            "the protocol's label_list empty to draw a stratified subset by seed."
        )
    tested = int((data.metadata[column][data.splits["test"]] == LISTED).sum())
    if tested:
        raise DataError(f"The label list {name!r} names {tested} test images of {data.key}. Take them out of it.")
    return np.flatnonzero(subset.metadata[column] == LISTED)
