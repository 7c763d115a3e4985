"""Which row of a table of labels is in which split: as the table says, by patient (by study where the patient is
unknown), or stratified.

Rows whose label is blank are ``unlabelled``: they serve pre-training only. What could tell a method about the
evaluation is left out of the set: unlabelled rows of an evaluation split, and unlabelled images of patients and
studies that have images in one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.card import Capability
from bench.data.dataset import SPLITS, UNLABELLED, ImageDataset, Images, select
from bench.data.folder import SPLIT_NAMES
from bench.data.label_table import METADATA, LabelTable
from bench.data.leakage import number_of
from bench.data.splits import grouped_splits, stratified_splits, train_and_validation
from bench.errors import DataError

SPLIT_WORDS = {**SPLIT_NAMES, "unlabelled": UNLABELLED, "unlabeled": UNLABELLED}
EVALUATION = ("validation", "test")
LEFT_OUT = ""
UNITS = {"patient": "patients", "study": "studies"}
"""What is split instead of single images, by the column that knows it."""
Words = NDArray[np.str_]


def assign(
    table: LabelTable, *, validation: float, test: float, use_splits: bool = True, allow_leakage: bool = False
) -> Words:
    """The split of each row; empty for rows that are left out.

    Args:
        table: the rows.
        validation, test: shares of the labelled images for a split that the CSV does not give.
        use_splits: take the CSV's column ``split`` where it has one.
        allow_leakage: accept a column ``split`` that has a patient on two sides.

    Raises:
        DataError: an unknown word, a patient on two sides, or a class that is too small to be cut.
    """
    patients = np.array(table.columns.get("patient", ("",) * len(table.names)))
    groups = np.where(patients == "", _studies_or_images(table), patients)
    given = use_splits and "split" in table.columns
    split = _given_splits(table) if given else np.full(len(table.names), "train", dtype="<U10")
    split[~table.labelled & np.isin(split, EVALUATION)] = LEFT_OUT
    split[~table.labelled & (split == "train")] = UNLABELLED
    if given and not allow_leakage:
        _refuse_shared(table.file, patients, split)
    _cut(table, groups, split, {"validation": validation, "test": test})
    _refuse_untrained(table, split)
    if not (given and allow_leakage):
        evaluated = groups[np.isin(split, EVALUATION)]
        split[(split == UNLABELLED) & np.isin(groups, evaluated)] = LEFT_OUT
    return split


def _studies_or_images(table: LabelTable) -> Words:
    """What stays together where the patient is unknown; no patient is called so."""
    studies = table.columns.get("study", ("",) * len(table.names))
    return np.array([f"\0\0{s}" if s else f"\0{n}" for s, n in zip(studies, table.names, strict=True)])


def _given_splits(table: LabelTable) -> Words:
    words = [word.casefold() for word in table.columns["split"]]
    for row, (word, labelled) in enumerate(zip(words, table.labelled, strict=True)):
        if word not in SPLIT_WORDS and (word or labelled):
            raise DataError(
                f"{table.file}, row {row + table.first_row}: the split {word!r} is none of {', '.join(SPLIT_WORDS)}. "
                "Correct it, or set use_splits to false to have the images split anew."
            )
    split = np.array([SPLIT_WORDS.get(word, UNLABELLED) for word in words], dtype="<U10")
    if not ((split == "train") & table.labelled).any():
        raise DataError(f"{table.file}: no labelled row is of the split train. Add some, or set use_splits to false.")
    return split


def _refuse_shared(file: Path, patients: Words, split: Words) -> None:
    sides: dict[str, set[str]] = defaultdict(set)
    for patient, side in zip(patients.tolist(), split.tolist(), strict=True):
        if patient and side in SPLITS:
            sides[patient].add(side)
    shared = [patient for patient in sorted(sides) if len(sides[patient]) > 1]
    if shared:
        listing = ", ".join(f"{name} ({', '.join(s for s in SPLITS if s in sides[name])})" for name in shared[:5])
        raise DataError(
            f"{file}: {number_of(len(shared), 'patient')} with images in more than one split: "
            f"{listing}{' …' if shared[5:] else ''}."
            " --data-param use_splits=false splits by patient anew, allow_leakage=true measures on this split "
            "nevertheless; `jointbench data doctor` tells more."
        )


def _cut(table: LabelTable, groups: Words, split: Words, shares: Mapping[str, float]) -> None:
    """Take the evaluation splits that nothing gives from the training rows; in place."""
    missing = [name for name in EVALUATION if not (split == name).any()]
    if not missing:
        return
    rows = np.flatnonzero(split == "train")
    labels, known = table.labels[rows], groups[rows]
    if labels.ndim == 1:
        _refuse_small_classes(table, labels, known, needed=1 + len(missing))
    if labels.ndim == 2 or len(set(known.tolist())) < len(known):
        wanted = {name: shares[name] for name in missing}
        cut: Mapping[str, NDArray[np.int64]] = grouped_splits(
            labels, known.tolist(), {"train": 1 - sum(wanted.values()), **wanted}
        )
    else:
        sizes = {name: max(len(table.class_names), round(shares[name] * len(rows))) for name in missing}
        cut = _stratified(labels, sizes)
    for name in missing:
        split[rows[cut[name]]] = name


def _stratified(labels: NDArray[np.int64], sizes: Mapping[str, int]) -> Mapping[str, NDArray[np.int64]]:
    if len(sizes) == 2:
        return stratified_splits(labels, validation=sizes["validation"], test=sizes["test"])
    ((name, size),) = sizes.items()
    cut = train_and_validation(labels, np.arange(len(labels)), validation=size)
    return {name: cut["validation"]}


def _refuse_small_classes(table: LabelTable, labels: NDArray[np.int64], groups: Words, *, needed: int) -> None:
    """A class needs an image, and where patients or studies are known one of these, for each split."""
    for number, name in enumerate(table.class_names):
        own = groups[labels == number]
        if (found := len(set(own.tolist()))) < needed:
            unit = next((words for role, words in UNITS.items() if role in table.columns), "images")
            raise DataError(
                f"{table.file}: the class {name!r} has {found} {unit} to be split, at least {needed} are needed. Add "
                "some, or remove its rows."
            )


def _refuse_untrained(table: LabelTable, split: Words) -> None:
    if table.labels.ndim == 1:
        missing = np.setdiff1d(np.arange(len(table.class_names)), table.labels[split == "train"])
        if len(missing):
            raise DataError(
                f"{table.file}: no training image is of the class {table.class_names[missing[0]]!r}. Add images of "
                "it to the split train, or remove its rows."
            )


def assembled(key: str, title: str, *, images: Images, table: LabelTable, split: Words) -> ImageDataset:
    """The dataset of these rows, without those that are left out.

    Args:
        key, title: of the dataset.
        images: one for each row.
        table: the rows.
        split: their splits, from :func:`assign`.
    """
    kept = np.flatnonzero(split != LEFT_OUT)
    sides = split[kept]
    return ImageDataset(
        key=key,
        title=title,
        images=images if len(kept) == len(split) else select(images, kept),
        labels=table.labels[kept],
        class_names=table.class_names,
        splits={side: np.flatnonzero(sides == side) for side in (*SPLITS, UNLABELLED) if side in sides},
        metadata={role: np.array(table.columns[role])[kept] for role in METADATA if role in table.columns},
    )


def offered(table: LabelTable) -> tuple[Capability, ...]:
    """One class per image or findings, and whether anything is known about patient, study, laterality or view."""
    kind: Capability = "labels" if table.labels.ndim == 1 else "multilabel"
    return (kind, "metadata") if set(METADATA) & set(table.columns) else (kind,)
