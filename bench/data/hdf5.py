"""Images in an HDF5 file, with the optional package h5py: an array of images, one of labels, optionally of splits and
patients.

Labels (N,) are classes, as texts or numbers; a negative one or NaN means that nobody labelled the image. Labels (N, F)
are findings: 1 present, 0 absent, -1 uncertain, -2 or NaN unknown. Their attribute ``class_names`` names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.card import Capability, DatasetCard
from bench.data.assignment import assembled, assign, offered
from bench.data.dataset import FULL_SCALE, ImageDataset, Pixels, Rows
from bench.data.files import depends_on, existing_folder, unreadable
from bench.data.imaging import check_window
from bench.data.label_table import LabelTable, from_columns
from bench.data.splits import check_shares
from bench.errors import DataError
from bench.registry import register_dataset

SUFFIXES = (".h5", ".hdf5", ".hdf")
LAYOUTS = ("NHWC", "NCHW")
OPTIONAL = ("split", "patient")


@dataclass(frozen=True, kw_only=True)
class Hdf5Images:
    """Images (N, H, W, C) of one array of a file, read when asked for; the file is open only meanwhile.

    Attributes:
        file, array: the file and the name of the array in it, (N, H, W), (N, H, W, C) or (N, C, H, W).
        shape: (N, H, W, C).
        dtype: uint8 or uint16.
        planar: the channels come before the rows.
        window: (low, high) that is mapped to the full range; empty keeps stored values.
    """

    file: Path
    array: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    planar: bool
    window: tuple[float, ...] = ()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> Pixels:
        chosen = np.arange(len(self))[rows]
        ordered, back = np.unique(chosen, return_inverse=True)  # h5py wants increasing rows, each once
        with opened(self.file) as content:
            try:
                stored = np.asarray(content[self.array][ordered])[back]
            except OSError as error:
                raise unreadable(self.file, f"its images cannot be decoded ({error})") from error
        if stored.ndim == 3:
            stored = stored[..., None]
        elif self.planar:
            stored = stored.transpose(0, 2, 3, 1)
        if not self.window:
            return np.ascontiguousarray(stored)
        low, high = self.window
        levels = np.clip((stored.astype(np.float64) - low) / (high - low), 0, 1) * FULL_SCALE[self.dtype]
        return np.rint(levels).astype(self.dtype)

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def opened(file: Path) -> Any:
    """The file, for reading; a context manager.

    Raises:
        DataError: h5py is missing, or it is no HDF5 file.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f'{file} is an HDF5 file, and h5py is not installed. Run pip install "jointbench[hdf5]".'
        ) from error
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise unreadable(file, f"it is truncated or no HDF5 file ({error})") from error


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The file that ``path`` names, else the only HDF5 file of the folder.

    Raises:
        DataError: there is none, or there are several.
    """
    if params["path"]:
        return [root / str(params["path"])]
    found = sorted(file for file in existing_folder(root).iterdir() if file.suffix.lower() in SUFFIXES)
    if len(found) != 1:
        listing = ", ".join(file.name for file in found[:5]) or "none"
        raise DataError(
            f"{len(found)} HDF5 files ({', '.join(SUFFIXES)}) in {root}: {listing}. Name the one that is meant with "
            "the parameter `path`."
        )
    return found


def read_table(file: Path, *, labels: str, split: str, patient: str) -> LabelTable:
    """The labels, splits and patients of a file.

    Raises:
        DataError: an array is missing, or they do not belong to each other.
    """
    with opened(file) as content:
        _require(file, content, labels)
        stored = _numbers_or_texts(content[labels])
        names = [_text(name) for name in content[labels].attrs.get("class_names", ())]
        further = {}
        for role, array in (("split", split), ("patient", patient)):
            if array in content or array not in OPTIONAL:
                _require(file, content, array)
                further[role] = tuple(_text(value) for value in _numbers_or_texts(content[array]))
    for role, values in further.items():
        if len(values) != len(stored):
            raise unreadable(file, f"it has {len(values)} values of {role} but {len(stored)} labels")
    if stored.ndim == 2:
        names = names or [f"finding {number}" for number in range(stored.shape[1])]
        if len(names) != stored.shape[1]:
            raise unreadable(file, f"{labels} has {stored.shape[1]} findings and {len(names)} class_names")
        columns = {name: tuple(map(_finding, stored[:, number])) for number, name in enumerate(names)}
        chosen: dict[str, Any] = {"findings": names}
    else:
        columns, chosen = {labels: tuple(_class(file, value, names) for value in stored)}, {"label": labels}
    rows = [f"row {row}" for row in range(len(stored))]
    return from_columns(file, {**columns, **further}, names=rows, **chosen)


def _require(file: Path, content: Any, name: str) -> None:
    if name not in content or not hasattr(content[name], "shape"):
        raise DataError(f"{file} has no array {name!r}; it has {', '.join(content)}. Name it with a parameter.")


def _numbers_or_texts(array: Any) -> NDArray[Any]:
    values = np.asarray(array[()])
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _class(file: Path, value: Any, names: Sequence[str]) -> str:
    if isinstance(value, bytes | str):
        return _text(value)
    if not value >= 0:  # NaN, too
        return ""
    number = int(value)
    if number != value:
        raise unreadable(file, f"a label is {value}, which is no whole number of a class")
    if names and number >= len(names):
        raise unreadable(file, f"a label is {number}, and class_names has {len(names)} names")
    return names[number] if names else str(number)


def _finding(value: Any) -> str:
    return "" if value == -2 else _text(value)


def images_of(file: Path, array: str, *, layout: str, window: Sequence[float]) -> Hdf5Images:
    """The images of a file.

    Raises:
        DataError: the array is missing, or no array of images in 8 or 16 bits; other numbers need a window.
    """
    check_window(window)
    if layout not in LAYOUTS:
        raise DataError(f"layout is one of {', '.join(LAYOUTS)}, got {layout!r}. Change it.")
    with opened(file) as content:
        _require(file, content, array)
        shape, dtype = tuple(content[array].shape), content[array].dtype
    if len(shape) not in (3, 4) or 0 in shape or dtype.kind not in "iuf":
        raise unreadable(file, f"{array} is {dtype} {shape}; images (N, H, W), (N, H, W, C) or (N, C, H, W) are needed")
    if dtype not in FULL_SCALE and not window:
        raise DataError(
            f"{file}: {array} holds {dtype}, which has no full range. Give the values that are black and white with "
            "the parameter `window`, for instance window=[0, 1]."
        )
    planar = len(shape) == 4 and layout == "NCHW"
    sizes = (*shape, 1) if len(shape) == 3 else ((shape[0], *shape[2:], shape[1]) if planar else shape)
    return Hdf5Images(
        file=file,
        array=array,
        shape=sizes,
        dtype=np.dtype(np.uint8 if dtype == np.uint8 else np.uint16),
        planar=planar,
        window=tuple(map(float, window)),
    )


def offers(root: Path, params: Mapping[str, Any]) -> tuple[Capability, ...]:
    """What the file's labels are, and whether patients are known."""
    (file,) = find_files(root, params)
    return offered(read_table(file, labels=params["labels"], split=params["split"], patient=params["patient"]))


@register_dataset(
    "hdf5",
    card=DatasetCard(
        title="Images in HDF5",
        summary="An array of images of any number of channels with classes or findings; the file's own splits, or "
        "split by patient where patients are known, stratified.",
        license="the user's own",
        source="an HDF5 file in the folder of data",
        capabilities=("labels", "multilabel", "metadata"),
        checked=True,
    ),
)
@depends_on(files=find_files, offers=offers)
def hdf5(
    root: Path,
    *,
    name: str = "",
    path: str = "",
    images: str = "images",
    labels: str = "labels",
    split: str = "split",
    patient: str = "patient",
    layout: str = "NHWC",
    window: tuple[float, ...] = (),
    validation: float = 0.1,
    test: float = 0.2,
    use_splits: bool = True,
    allow_leakage: bool = False,
) -> ImageDataset:
    """Load an HDF5 file; its images stay there until they are read.

    Args:
        root: the folder of data.
        name: what addresses and tables call these images; empty takes the name of the file.
        path: the file, relative to ``root``; empty takes the only one in it.
        images, labels: names of the arrays.
        split, patient: names of arrays of N texts or numbers; those of the defaults are read where they exist.
        layout: NHWC, or NCHW when the channels come before the rows.
        window: (low, high) in stored units, mapped to the full range; 8- and 16-bit images need none.
        validation, test: shares of the labelled images for a split that the file does not give.
        use_splits: take the file's splits; false splits anew.
        allow_leakage: accept splits of the file that have a patient on two sides.
    """
    check_shares(validation, test)
    (file,) = find_files(root, {"path": path})
    stored = images_of(file, images, layout=layout, window=window)
    table = read_table(file, labels=labels, split=split, patient=patient)
    if len(table.names) != len(stored):
        raise unreadable(file, f"it has {len(stored)} images but {len(table.names)} labels")
    sides = assign(table, validation=validation, test=test, use_splits=use_splits, allow_leakage=allow_leakage)
    return assembled("hdf5", name or file.stem, images=stored, table=table, split=sides)
