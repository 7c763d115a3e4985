"""CIFAR-10 and CIFAR-100 from the user's copy, in the layouts in which they are passed around.

* python: pickled batches (``data_batch_1`` …, ``test_batch``; ``train``, ``test``)
* binary: ``data_batch_1.bin`` …, ``test_batch.bin``; ``train.bin``, ``test.bin``
* npz: one file with ``x_train y_train x_test y_test`` and perhaps ``class_names``
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.card import DatasetCard, PublishedSizes
from bench.data.dataset import ImageDataset
from bench.data.files import depends_on, existing_folder, read_bytes, unreadable
from bench.data.official import Portion, with_validation
from bench.data.pickles import read_pickle
from bench.errors import DataError
from bench.registry import register_dataset

SIZE = 32
PIXELS = 3 * SIZE * SIZE
NPZ_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True, kw_only=True)
class Family:
    """What differs between the two datasets.

    Attributes:
        pattern: matches the names of its folders and ``.npz`` files.
        batches: training files of the python layout, then the test file; ``.bin`` is added for the binary layout.
        label_bytes: per record of the binary layout; the last one is the label.
        label_key, names_key: in the pickled batches and in the pickled names.
        names_pickle, names_text: files with the class names.
        class_names: used when no file names the classes.
    """

    key: str
    title: str
    pattern: re.Pattern[str]
    batches: tuple[str, ...]
    label_bytes: int
    label_key: str
    names_key: str
    names_pickle: str
    names_text: str
    class_names: tuple[str, ...]


CIFAR10 = Family(
    key="cifar10",
    title="CIFAR-10",
    pattern=re.compile(r"cifar[-_ ]?10(?!0)", re.IGNORECASE),
    batches=(*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"),
    label_bytes=1,
    label_key="labels",
    names_key="label_names",
    names_pickle="batches.meta",
    names_text="batches.meta.txt",
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
CIFAR100 = Family(
    key="cifar100",
    title="CIFAR-100",
    pattern=re.compile(r"cifar[-_ ]?100", re.IGNORECASE),
    batches=("train", "test"),
    label_bytes=2,
    label_key="fine_labels",
    names_key="fine_label_names",
    names_pickle="meta",
    names_text="fine_label_names.txt",
    class_names=tuple(f"class {number}" for number in range(100)),
)
FAMILIES = {family.key: family for family in (CIFAR10, CIFAR100)}


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One copy of a dataset on disk: its layout, image files (the test file last) and the file of class names."""

    layout: Literal["python", "binary", "npz"]
    files: tuple[Path, ...]
    names: Path | None = None


def find_copy(root: Path, family: Family) -> Copy:
    """The one copy in ``root`` or in a subfolder with the dataset's name.

    Raises:
        DataError: there is none, more than one, or one lacks files.
    """
    existing_folder(root)
    inside = sorted(path for path in root.iterdir() if path.is_dir() and family.pattern.search(path.name))
    copies = [copy for folder in (root, *inside) for copy in _copies_in(folder, family)]
    if len(copies) > 1:
        found = ", ".join(str(copy.files[0]) for copy in copies)
        raise DataError(f"Several copies of {family.title} below {root}: {found}. Give the folder of one with --data.")
    if copies:
        return copies[0]
    packed = sorted(path.name for path in root.glob("*.tar*") if family.pattern.search(path.name))
    hint = f" Unpack {packed[0]} first." if packed else ""
    raise DataError(
        f"No {family.title} below {root}: looked for {family.batches[0]}, {family.batches[0]}.bin and a .npz named "
        f"{family.key}, there and in subfolders of that name.{hint} Give the folder that holds it with --data."
    )


def _copies_in(folder: Path, family: Family) -> Iterable[Copy]:
    for layout, suffix, names in (("python", "", family.names_pickle), ("binary", ".bin", family.names_text)):
        files = tuple(folder / f"{batch}{suffix}" for batch in family.batches)
        present = [file for file in files if file.is_file()]
        # `train` and `test` are common names: only together with `meta` are they CIFAR-100's pickles.
        if not present or (family is CIFAR100 and layout == "python" and not (folder / names).is_file()):
            continue
        if len(present) < len(files):
            missing = ", ".join(file.name for file in files if file not in present)
            raise DataError(f"{folder} holds a part of {family.title} only; missing: {missing}. Add these files.")
        yield Copy(
            layout="python" if layout == "python" else "binary",
            files=files,
            names=folder / names if (folder / names).is_file() else None,
        )
    named = family.pattern.search(folder.resolve().name)
    for file in sorted(folder.glob("*.npz")):
        if named or family.pattern.search(file.name):
            yield Copy(layout="npz", files=(file,))


def load(root: Path, family: Family) -> ImageDataset:
    """Load the copy below ``root``."""
    copy = find_copy(root, family)
    if copy.layout == "npz":
        train, test, names = _read_npz(copy.files[0])
        portions, class_names = [train, test], names or family.class_names
    else:
        read = _read_python if copy.layout == "python" else _read_binary
        portions = [read(file, family) for file in copy.files]
        class_names = _read_names(copy, family)
    return with_validation(
        family.key, family.title, train=portions[:-1], test=portions[-1], class_names=tuple(class_names)
    )


def _planes(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rows of red, green and blue planes (n, 3072) to images (n, 32, 32, 3)."""
    return np.ascontiguousarray(values.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))


def _read_python(file: Path, family: Family) -> Portion:
    batch = read_pickle(file)
    data, labels = batch.get("data"), batch.get(family.label_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS:
        raise unreadable(file, f"'data' is not an array of bytes with {PIXELS} columns")
    return Portion(images=_planes(data), labels=_as_labels(labels, file), file=file)


def _read_binary(file: Path, family: Family) -> Portion:
    content = np.frombuffer(read_bytes(file), dtype=np.uint8)
    record = family.label_bytes + PIXELS
    if len(content) % record:
        raise unreadable(
            file, f"{len(content)} bytes are no multiple of {record}: it is truncated or no {family.title}"
        )
    records = content.reshape(-1, record)
    labels = records[:, family.label_bytes - 1].astype(np.int64)
    return Portion(images=_planes(records[:, family.label_bytes :]), labels=labels, file=file)


def _read_npz(file: Path) -> tuple[Portion, Portion, tuple[str, ...]]:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            missing = [name for name in NPZ_ARRAYS if name not in archive]
            if missing:
                raise unreadable(file, f"it lacks {', '.join(missing)} (it holds {', '.join(archive.files)})")
            x_train, y_train, x_test, y_test = (archive[name] for name in NPZ_ARRAYS)
            names = tuple(str(name) for name in archive["class_names"]) if "class_names" in archive else ()
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(file, f"it is truncated or no .npz file of plain arrays ({error})") from error
    for images in (x_train, x_test):
        if images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE, 3):
            raise unreadable(file, f"images must be bytes (n, {SIZE}, {SIZE}, 3), found {images.dtype} {images.shape}")
    train = Portion(images=x_train, labels=_as_labels(y_train, file), file=file)
    return train, Portion(images=x_test, labels=_as_labels(y_test, file), file=file), names


def _as_labels(values: Any, file: Path) -> NDArray[np.int64]:
    labels = np.asarray(values if values is not None else [])
    if labels.size == 0 or labels.dtype.kind not in "iu":
        raise unreadable(file, "it holds no list of whole-numbered labels")
    return labels.reshape(-1).astype(np.int64)


def _read_names(copy: Copy, family: Family) -> tuple[str, ...]:
    if copy.names is None:
        return family.class_names
    if copy.layout == "binary":
        names = copy.names.read_text(encoding="utf-8", errors="replace").split("\n")
        return tuple(name.strip() for name in names if name.strip())
    pickled = read_pickle(copy.names).get(family.names_key)
    if not isinstance(pickled, list):
        raise unreadable(copy.names, f"it holds no list {family.names_key!r}")
    return tuple(name.decode("latin1") if isinstance(name, bytes) else str(name) for name in pickled)


def _files_of(family: Family) -> Any:
    def files(root: Path, params: Mapping[str, Any]) -> list[Path]:
        copy = find_copy(root, family)
        return [*copy.files, *([copy.names] if copy.names else [])]

    return files


@register_dataset(
    "cifar10",
    card=DatasetCard(
        title="CIFAR-10",
        summary="Photographs of 10 classes, 32×32 pixels in color; the official test split, and a stratified tenth of "
        "the training images for validation.",
        license="none stated (Krizhevsky, 2009; cite the technical report)",
        source="binary, python or .npz files in the folder of data",
        published=PublishedSizes(train=45_000, validation=5_000, test=10_000, classes=10, image_size=SIZE),
    ),
)
@depends_on(files=_files_of(CIFAR10))
def cifar10(root: Path) -> ImageDataset:
    """Load CIFAR-10 from ``root`` or a subfolder named after it."""
    return load(root, CIFAR10)


@register_dataset(
    "cifar100",
    card=DatasetCard(
        title="CIFAR-100",
        summary="Photographs of 100 fine classes, 32×32 pixels in color; the official test split, and a stratified "
        "tenth of the training images for validation.",
        license="none stated (Krizhevsky, 2009; cite the technical report)",
        source="binary, python or .npz files in the folder of data",
        published=PublishedSizes(train=45_000, validation=5_000, test=10_000, classes=100, image_size=SIZE),
    ),
)
@depends_on(files=_files_of(CIFAR100))
def cifar100(root: Path) -> ImageDataset:
    """Load CIFAR-100, fine labels, from ``root`` or a subfolder named after it."""
    return load(root, CIFAR100)
