"""Which layout a path has: from a folder or a file of the user's to the dataset that reads it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

from bench.data import coco_layout, stl10, tiny_imagenet
from bench.data.cifar import CIFAR10, CIFAR100
from bench.data.files import existing_folder
from bench.data.folder import SPLIT_NAMES
from bench.data.image_files import HIDDEN, has_image
from bench.data.imaging import SUFFIXES
from bench.data.voc_layout import kind_of_home
from bench.errors import DataError
from bench.spec import DataSpec

LABELS = "labels.csv"
SINGLE_FILES = {".h5": "hdf5", ".hdf5": "hdf5", ".parquet": "parquet"}
"""Files that hold a whole set, besides ``.npz``, and the datasets that read them."""
PUBLISHED = (("tiny_imagenet", tiny_imagenet.FOLDERS, "wnids.txt"), ("stl10", stl10.FOLDERS, stl10.LABELLED[0]))
"""Published sets: key, the folders in which they may be, and a file that only they have."""
LAYOUTS = (
    "class folders (cat/1.png, dog/2.png, or both below train, validation and test); images with labels.csv (or "
    "--labels CSV); boxes in XML (VOC: Annotations and JPEGImages) or JSON (COCO); one .npz (MedMNIST, CIFAR), .h5, "
    ".hdf5 or .parquet file; Tiny ImageNet (wnids.txt); STL-10 (train_X.bin)"
)


def recognize(path: Path, *, labels: Path | None = None) -> tuple[Path, DataSpec]:
    """The root folder, and the dataset that reads what is there.

    Args:
        path: a folder, or a file that holds the whole set.
        labels: a CSV with the labels of the images below ``path``, if it is given.

    Returns:
        The parameters that say where in the root folder the data are, and ``name``, after the folder or file.

    Raises:
        DataError: there is nothing, or nothing of a known layout; the message says what was found.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such folder or file. Check --data or JOINTBENCH_DATA.")
    if path.is_dir():
        return _folder(existing_folder(path), labels)
    if path.suffix.lower() == ".csv" and labels is None:
        return path.parent, DataSpec(key="table", params={"name": _name(path.parent), "labels": path.name})
    if path.suffix.lower() == ".json":
        coco_layout.read_json(path)
        return path.parent, DataSpec(key="coco", params={"name": _name(path.parent), "annotations": path.name})
    found = _file(path)
    if found is None:
        raise DataError(f"{path} is no file of a known layout. Known are: {LAYOUTS}.")
    if labels is not None:
        raise DataError(f"{path} holds its labels itself; --labels belongs to a folder of images. Leave it out.")
    return path.parent, found


def labels_below(root: Path, labels: Path) -> str:
    """The labels file relative to the root folder: a spec holds no absolute path.

    Raises:
        DataError: it is not where it is looked for.
    """
    found = next((place for place in (labels, root / labels) if place.is_file()), None)
    if found is None:
        raise DataError(f"{labels}: there is no such file, here or in {root}. Give --labels the CSV with the labels.")
    return Path(os.path.relpath(found.resolve(), root.resolve())).as_posix()


def _folder(root: Path, labels: Path | None) -> tuple[Path, DataSpec]:
    if labels is not None or (root / LABELS).is_file():
        given = {} if labels is None else {"labels": labels_below(root, labels)}
        return root, DataSpec(key="table", params={"name": _name(root), **given})
    for key, subfolders, mark in PUBLISHED:
        if any((root / name / mark).is_file() for name in subfolders):
            return root, DataSpec(key=key)
    if (boxes := _with_boxes(root)) is not None:
        return root, boxes
    folders, files = _inside(root)
    if _has_classes(folders):
        return root, DataSpec(key="folder", params={"name": _name(root)})
    whole = [file for file in files if file.suffix.lower() in (".npz", *SINGLE_FILES)]
    if len(whole) == 1 and (found := _file(whole[0])) is not None:
        return root, found
    advice = _advice(folders, files, whole)
    if damaged := coco_layout.damaged_annotations(root):
        raise DataError(f"{damaged} If it has nothing to do with these images: known layouts are {LAYOUTS}.")
    raise DataError(f"{root} has no layout that is known: it holds {_listing(folders, files)}. {advice}")


def _with_boxes(root: Path) -> DataSpec | None:
    """Annotations of objects; looked for before class folders, which the folders of splits look like."""
    for key, found in (("voc", kind_of_home(root) is not None), ("coco", coco_layout.is_home(root))):
        if found:
            return DataSpec(key=key, params={"name": _name(root)})
    return None


def _name(folder: Path) -> str:
    return folder.resolve().name


def _file(file: Path) -> DataSpec | None:
    suffix = file.suffix.lower()
    params = {"name": file.stem, "path": file.name}
    if suffix in SINGLE_FILES:
        return DataSpec(key=SINGLE_FILES[suffix], params=params)
    if suffix != ".npz":
        return None
    arrays = _arrays(file)
    if "train_images" in arrays:
        return DataSpec(key="medmnist", params=params)
    if "x_train" in arrays:
        return _cifar(file)
    raise DataError(
        f"{file} holds the arrays {', '.join(sorted(arrays)) or 'none'}; train_images … (MedMNIST) or x_train … "
        "(CIFAR) are needed. Rename them, or write the images as class folders."
    )


def _cifar(file: Path) -> DataSpec:
    for family in (CIFAR100, CIFAR10):
        if family.pattern.search(file.name) or family.pattern.search(_name(file.parent)):
            return DataSpec(key=family.key)
    raise DataError(
        f"{file} has the arrays of CIFAR, but neither its name nor its folder's says which. Put cifar10 or cifar100 "
        "into the name; name the arrays train_images … when the images are others."
    )


def _arrays(file: Path) -> set[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is truncated or no .npz file ({error}). Replace it with an intact copy.") from error


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    visible = sorted(child for child in folder.iterdir() if not child.name.startswith(HIDDEN))
    return [child for child in visible if child.is_dir()], [child for child in visible if not child.is_dir()]


def _has_classes(folders: list[Path]) -> bool:
    """Two folders with images, or a folder of a split with such; a single folder of images has no classes."""
    by_split = [folder for folder in folders if folder.name in SPLIT_NAMES and _inside(folder)[0]]
    return bool(by_split) or sum(map(has_image, folders)) >= 2


def _listing(folders: Iterable[Path], files: list[Path]) -> str:
    images = sum(file.suffix.lower() in SUFFIXES for file in files)
    others = [file.name for file in files if file.suffix.lower() not in SUFFIXES]
    names = [f"{folder.name}/" for folder in folders] + others
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    counted = f"{images} image{'' if images == 1 else 's'}" if images else ""
    return " and ".join(part for part in (counted, shown) if part) or "nothing"


def _advice(folders: list[Path], files: list[Path], whole: list[Path]) -> str:
    tables = [file.name for file in files if file.suffix.lower() == ".csv"]
    if tables:
        return f"If {tables[0]} has the labels, give it with --labels. Known layouts: {LAYOUTS}."
    if len(whole) > 1:
        return f"Give --data one of these files: {', '.join(file.name for file in whole)}."
    if any(map(has_image, folders)) or any(file.suffix.lower() in SUFFIXES for file in files):
        return f"Nothing says the classes of these images: two or more are needed. Known layouts: {LAYOUTS}."
    return f"Known layouts: {LAYOUTS}. Another data set is named with --dataset KEY."
