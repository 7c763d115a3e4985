"""MedMNIST archives (.npz): 2-D gray or RGB, one class or several findings per image, and 3-D volumes as 2.5-D images.

A volume (D, H, W) becomes an image of three channels, its central slices along the three axes: encoders here take
images. That is another task than MedMNIST's own 3-D benchmark, and the title says so.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.card import Capability, DatasetCard
from bench.data.dataset import FULL_SCALE, SPLITS, ImageDataset, Pixels
from bench.data.files import depends_on, existing_folder, unreadable
from bench.data.medmnist_names import PUBLISHED
from bench.errors import DataError
from bench.registry import register_dataset

PARTS = {"train": "train", "validation": "val", "test": "test"}
"""How the archive's arrays begin, by split."""
MEMBERS = tuple(f"{part}_{kind}" for part in PARTS.values() for kind in ("images", "labels"))


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The archive: the one that ``path`` names, else the only one in the folder or in a folder of it.

    Raises:
        DataError: there is none, or there are several.
    """
    if params["path"]:
        return [root / str(params["path"])]
    existing_folder(root)
    found = [file for pattern in ("*.npz", "*/*.npz") for file in sorted(root.glob(pattern)) if _is_archive(file)]
    if len(found) != 1:
        listing = ", ".join(file.relative_to(root).as_posix() for file in found[:5]) or "none"
        raise DataError(
            f"{len(found)} MedMNIST archives below {root}: {listing}. Name the one that is meant with the parameter "
            "`path`, for instance path=pneumoniamnist.npz."
        )
    return found


def own(root: Path, params: Mapping[str, Any]) -> bool:
    """Whether the archive is one of the user's own, by its file name."""
    (file,) = find_files(root, params)
    return _published_key(file) not in PUBLISHED


def _published_key(file: Path) -> str:
    return file.stem.split("_")[0].lower()


def _is_archive(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return {f"{member}.npy" for member in MEMBERS} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def offers(root: Path, params: Mapping[str, Any]) -> tuple[Capability, ...]:
    """One class per image, or findings: from the shape of the labels."""
    (file,) = find_files(root, params)
    labels = _read(file, ("train_labels",))["train_labels"]
    return ("multilabel",) if labels.ndim == 2 and labels.shape[1] > 1 else ("labels",)


def _read(file: Path, members: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Arrays of the archive.

    Raises:
        DataError: it is damaged, or lacks one of them.
    """
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            lacking = [name for name in members if name not in archive.files]
            if lacking:
                raise unreadable(file, f"it is no MedMNIST archive: it lacks {', '.join(lacking)}")
            return {name: archive[name] for name in members}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise unreadable(file, f"it is truncated or no .npz archive ({error})") from error


def _images(file: Path, array: NDArray[Any], name: str) -> Pixels:
    """(N, H, W, C) from gray (N, H, W), color (N, H, W, 3) or volumes (N, D, H, W)."""
    if array.dtype not in FULL_SCALE or array.ndim not in (3, 4) or not len(array):
        raise unreadable(file, f"{name} is {array.dtype} {array.shape}; images (N, H, W), (N, H, W, 3) or (N, D, H, W)")
    if array.ndim == 3:
        return array[..., None]
    return array if array.shape[-1] in (1, 3) else central_slices(file, array)


def central_slices(file: Path, volumes: NDArray[Any]) -> Pixels:
    """The central slices along the three axes as channels: (N, D, D, 3) from cubes (N, D, D, D).

    Raises:
        DataError: the volumes are no cubes.
    """
    depth, height, width = volumes.shape[1:]
    if not depth == height == width:
        raise unreadable(file, f"its volumes are {depth}×{height}×{width}; only cubes have slices of one size")
    middle = depth // 2
    return np.stack([volumes[:, middle], volumes[:, :, middle], volumes[:, :, :, middle]], axis=-1)


def _labels(file: Path, arrays: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> list[NDArray[np.int64]]:
    """Per split (n,) classes from (n, 1) or (n,), or (n, F) findings."""
    found = []
    for split, part in PARTS.items():
        labels, images = arrays[f"{part}_labels"], arrays[f"{part}_images"]
        if labels.ndim not in (1, 2) or labels.dtype.kind not in "iub" or len(labels) != len(images):
            raise unreadable(file, f"{part}_labels is {labels.dtype} {labels.shape} for {len(images)} {split} images")
        wide = labels.astype(np.int64)
        found.append(wide[:, 0] if wide.ndim == 2 and wide.shape[1] == 1 else wide)
    if len({labels.shape[1:] for labels in found}) > 1:
        raise unreadable(file, "its splits have labels of different shapes")
    highest = max(int(labels.max()) for labels in found)
    lowest = min(int(labels.min()) for labels in found)
    limit = 1 if found[0].ndim == 2 else (len(names) - 1 if names else highest)
    if lowest < 0 or highest > limit:
        raise unreadable(file, f"labels run from {lowest} to {highest}, but from 0 to {limit} is possible")
    return found


def _class_names(file: Path, labels: list[NDArray[np.int64]], known: tuple[str, ...]) -> tuple[str, ...]:
    if labels[0].ndim == 2:
        count = labels[0].shape[1]
        if known and len(known) != count:
            raise unreadable(file, f"it has {count} findings, the published set {len(known)}")
        return known or tuple(f"finding {number}" for number in range(count))
    names = known or tuple(str(number) for number in range(max(int(part.max()) for part in labels) + 1))
    missing = np.setdiff1d(np.arange(len(names)), labels[0])
    if len(missing) or len(names) < 2:
        lacking = f"no training image is of class {names[missing[0]]!r}" if len(missing) else "it has one class only"
        raise unreadable(file, lacking)
    return names


@register_dataset(
    "medmnist",
    card=DatasetCard(
        title="MedMNIST",
        summary="A MedMNIST archive with its own splits, one class or several findings per image; a 3-D volume "
        "becomes a 2.5-D image: its three orthogonal central slices as channels.",
        license="CC BY 4.0 for most sets (Yang et al., 2023); CC BY-NC 4.0 for DermaMNIST",
        source="MedMNIST .npz in the folder of data",
        capabilities=("labels", "multilabel"),
    ),
)
@depends_on(files=find_files, offers=offers, own=own)
def medmnist(root: Path, *, name: str = "", path: str = "", allow_leakage: bool = False) -> ImageDataset:
    """Load one archive.

    Args:
        root: the folder of data.
        name: what addresses and tables call these images; empty takes the published name of the archive.
        path: the archive, relative to ``root``; empty takes the only one below it.
        allow_leakage: take an archive of one's own as it is where its splits share images; published ones always are.
    """
    (file,) = find_files(root, {"path": path})
    arrays = _read(file, MEMBERS)
    title, known = PUBLISHED.get(_published_key(file), (file.stem, ()))
    labels = _labels(file, arrays, known)
    parts = [_images(file, arrays[f"{part}_images"], f"{part}_images") for part in PARTS.values()]
    if len({(images.shape[1:], images.dtype) for images in parts}) > 1:
        raise unreadable(file, "its splits have images of different shapes or types")
    ends = np.cumsum([len(images) for images in parts])
    volumes = arrays["train_images"].ndim == 4 and arrays["train_images"].shape[-1] not in (1, 3)
    return ImageDataset(
        key="medmnist",
        title=name or (f"{title} (three central slices)" if volumes else title),
        images=np.concatenate(parts),
        labels=np.concatenate(labels),
        class_names=_class_names(file, labels, known),
        splits={
            split: np.arange(end - len(images), end) for split, end, images in zip(SPLITS, ends, parts, strict=True)
        },
    )
