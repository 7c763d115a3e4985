"""A folder of images with a CSV of labels: classes or findings, patients, splits.

Images that no row names are ``unlabelled`` like those whose label is blank: they serve pre-training only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.card import Capability, DatasetCard
from bench.data.assignment import assembled, assign, offered
from bench.data.dataset import UNKNOWN, UNLABELLED, ImageDataset
from bench.data.files import depends_on, existing_folder
from bench.data.image_files import ImageFiles, common_form, images_below
from bench.data.label_table import LabelTable
from bench.data.labels_csv import read_labels
from bench.data.splits import check_shares
from bench.errors import DataError
from bench.registry import register_dataset


def _labels_file(root: Path, params: Mapping[str, Any]) -> Path:
    return root / str(params["path"]) / str(params["labels"])


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The CSV and all images of the folder, listed or not."""
    folder = existing_folder(root / str(params["path"]))
    return [_labels_file(root, params), *(folder / name for name in images_below(folder))]


def offers(root: Path, params: Mapping[str, Any]) -> tuple[Capability, ...]:
    """What the columns of the CSV offer."""
    return offered(read_labels(_labels_file(root, params), label=params["label"], findings=params["findings"]))


def locate(names: Sequence[str], images: Sequence[str], *, labels: Path, folder: Path) -> list[str]:
    """Each listed file's path below the folder: as listed, without its leading folders, or by a unique base name.

    Raises:
        DataError: files are missing, a base name is ambiguous, or two rows name the same file.
    """
    present = set(images)
    by_name: dict[str, list[str]] = defaultdict(list)
    for image in images:
        by_name[image.rpartition("/")[2]].append(image)
    found = [_find(name, present, by_name, labels) for name in names]
    missing = [name for name, image in zip(names, found, strict=True) if image is None]
    if missing:
        listing = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise DataError(
            f"{labels} lists {len(missing)} of {len(names)} images that are not below {folder}: {listing}. Add the "
            "files, or remove their rows."
        )
    located = [image for image in found if image is not None]
    twice = [image for image, count in Counter(located).items() if count > 1]
    if twice:
        raise DataError(f"{labels} lists {folder / twice[0]} under more than one name. Keep one row for each image.")
    return located


def extended(table: LabelTable, names: Sequence[str]) -> LabelTable:
    """The rows of the table under these names, followed by images of which nothing is known."""
    further = len(names) - len(table.names)
    unknown = np.full((further, *table.labels.shape[1:]), UNKNOWN, dtype=np.int64)
    return replace(
        table,
        names=tuple(names),
        labels=np.concatenate([table.labels, unknown]),
        columns={role: (*values, *[""] * further) for role, values in table.columns.items()},
    )


def _find(name: str, present: set[str], by_name: Mapping[str, list[str]], labels: Path) -> str | None:
    parts = name.removeprefix("./").split("/")
    for start in range(len(parts)):
        if (path := "/".join(parts[start:])) in present:
            return path
    candidates = by_name.get(parts[-1], [])
    if len(candidates) > 1:
        raise DataError(
            f"{labels} lists {name}, and {len(candidates)} images have that name: {', '.join(candidates[:3])}. Write "
            "the path below the folder into the CSV."
        )
    return candidates[0] if candidates else None


@register_dataset(
    "table",
    card=DatasetCard(
        title="Images with a table of labels",
        summary="A folder of images and a CSV of classes or findings; split by patient where patients are known, "
        "stratified. Images without a label serve pre-training only.",
        license="the user's own",
        source="PNG, JPEG, TIFF, DICOM and other images of 8 or 16 bits, and a labels.csv, in the folder of data",
        capabilities=("labels", "multilabel", "metadata"),
        checked=True,
    ),
)
@depends_on(packages=("Pillow",), files=find_files, offers=offers)
def table(
    root: Path,
    *,
    name: str = "",
    path: str = "",
    labels: str = "labels.csv",
    label: str = "",
    findings: tuple[str, ...] = (),
    image_size: int = 64,
    channels: int = 0,
    window: tuple[float, ...] = (),
    validation: float = 0.1,
    test: float = 0.2,
    use_splits: bool = True,
    allow_leakage: bool = False,
) -> ImageDataset:
    """Load a folder of images and its labels.

    Args:
        root: the folder of data.
        name: what addresses and tables call these images; empty takes the name of their folder.
        path: the folder of images, relative to ``root``.
        labels: the CSV, relative to that folder. Columns: file; label, or one per finding; optionally patient, study,
            laterality, view, split. Other columns are not read.
        label: the column of classes, when it is not called ``label``.
        findings: the columns of findings; empty takes all that hold only 1, 0, -1 and blanks.
        image_size: height and width of the loaded images in pixels.
        channels: 1 (gray), 3 (color) or the number of bands; 0 finds it: color when any file is in color.
        window: (low, high) in the files' units, mapped to the full range; empty keeps the range of their type.
        validation, test: shares of the labelled images for a split that the CSV does not give.
        use_splits: take the CSV's column ``split``; false splits anew.
        allow_leakage: accept a column ``split`` that has a patient on two sides.
    """
    check_shares(validation, test)
    folder = existing_folder(root / path)
    rows = read_labels(folder / labels, label=label, findings=findings)
    images = images_below(folder)
    located = np.array(locate(rows.names, images, labels=rows.file, folder=folder))
    split = assign(rows, validation=validation, test=test, use_splits=use_splits, allow_leakage=allow_leakage)
    listed = set(located.tolist())
    unlisted = [image for image in images if image not in listed]
    everything = extended(rows, located.tolist() + unlisted)
    split = np.concatenate([split, np.full(len(unlisted), UNLABELLED, dtype=split.dtype)])
    form = common_form(folder, everything.names, size=image_size, channels=channels, window=window)
    return assembled(
        "table",
        name or folder.resolve().name,
        images=ImageFiles(root=folder, names=everything.names, form=form),
        table=everything,
        split=split,
    )
