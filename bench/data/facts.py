"""What a result keeps of the images behind it: sizes, patients and labels of each split, for the report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import ImageDataset
from bench.data.detection import DetectionDataset
from bench.data.object_counts import KINDS, ObjectCount, count_objects

MOST_CLASSES = 200
"""With more classes the counts of single ones are left out: nobody reads them, and every result keeps them."""


def facts_of(data: ImageDataset) -> dict[str, Any]:
    """Counts of a dataset, JSON-serializable; no pixels are read.

    Returns:
        ``dataset`` (its key), ``image_size`` (height, width), ``channels``, ``bits``, ``multilabel``, ``classes``
        (names) and for each of ``splits``: ``images``, ``patients`` (None where none is known), ``without_patient``
        (images), ``counts`` (images of each class, or with each finding) and ``known`` (images whose class or finding
        is known); of scenes with objects also ``objects`` (those of each class whose detection counts) and
        ``object_kinds`` (numbers by :data:`bench.data.object_counts.KINDS`, ``dropped`` among them).
        ``shared_patients`` counts those in more than one of the splits that must not share any.
    """
    patients = data.metadata.get("patient")
    few = data.num_classes <= MOST_CLASSES
    objects = count_objects(data) if isinstance(data, DetectionDataset) else {}
    return {
        "dataset": data.key,
        "image_size": list(data.image_size),
        "channels": data.channels,
        "bits": 8 * data.images.dtype.itemsize,
        "multilabel": data.multilabel,
        "classes": list(data.class_names) if few else [],
        "class_count": data.num_classes,
        "splits": {
            name: {
                "images": len(index),
                **_patients(None if patients is None else patients[index]),
                **(_labels(data.labels[index], data.num_classes) if few else {}),
                **(_objects(objects[name], classes=few) if objects else {}),
            }
            for name, index in data.splits.items()
        },
        "shared_patients": None if patients is None else _shared(data, patients),
    }


def _patients(names: NDArray[np.str_] | None) -> dict[str, int | None]:
    if names is None or not np.any(names != ""):
        return {"patients": None, "without_patient": None}
    return {"patients": len(set(names[names != ""])), "without_patient": int((names == "").sum())}


def _labels(labels: NDArray[np.int64], num_classes: int) -> dict[str, list[int]]:
    """Images of each class, or with each finding, and how many are labelled at all."""
    if labels.ndim == 2:
        return {"counts": (labels == 1).sum(axis=0).tolist(), "known": (labels >= 0).sum(axis=0).tolist()}
    known = labels[labels >= 0]
    return {"counts": np.bincount(known, minlength=num_classes).tolist(), "known": [len(known)] * num_classes}


def _objects(count: ObjectCount, *, classes: bool) -> dict[str, Any]:
    kinds = {kind: getattr(count, kind) for kind in KINDS}
    return {"objects": list(count.counting) if classes else [], "object_kinds": kinds}


def _shared(data: ImageDataset, patients: NDArray[np.str_]) -> int:
    """Patients in more than one of the splits."""
    seen = [set(patients[index]) - {""} for index in data.splits.values()]
    return sum(sum(name in group for group in seen) > 1 for name in set().union(*seen))
