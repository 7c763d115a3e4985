"""How many objects of which class and size the scenes of each split have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.detection import DetectionDataset

SMALL, LARGE = 32.0**2, 96.0**2
"""COCO's bounds of an object's area in square pixels: smaller is small, larger is large."""
KINDS = ("total", "small", "medium", "large", "difficult", "crowd", "empty", "dropped")
"""Fields of :class:`ObjectCount` that are one number."""


@dataclass(frozen=True, kw_only=True)
class ObjectCount:
    """The objects of one split.

    Attributes:
        total: all of them.
        classes: those of each class.
        counting: of these, the ones whose detection counts: neither difficult nor a crowd.
        small, medium, large: by COCO's bounds of the area.
        difficult, crowd: those that are marked so.
        empty: scenes without an object.
        dropped: objects that were left out, because nothing can be learned from them.
    """

    total: int
    classes: tuple[int, ...]
    counting: tuple[int, ...]
    small: int
    medium: int
    large: int
    difficult: int
    crowd: int
    empty: int
    dropped: int


def count_objects(data: DetectionDataset) -> dict[str, ObjectCount]:
    """The objects of each split."""
    dropped = np.bincount([item.scene for item in data.dropped], minlength=len(data.labels))
    counts = {}
    for split, rows in data.splits.items():
        objects = data.objects.of_scenes(rows)
        counting = ~(objects.difficult | objects.crowd)
        small, large = int((objects.areas < SMALL).sum()), int((objects.areas > LARGE).sum())
        counts[split] = ObjectCount(
            total=len(objects),
            classes=tuple(np.bincount(objects.labels, minlength=data.num_classes).tolist()),
            counting=tuple(np.bincount(objects.labels[counting], minlength=data.num_classes).tolist()),
            small=small,
            medium=len(objects) - small - large,
            large=large,
            difficult=int(objects.difficult.sum()),
            crowd=int(objects.crowd.sum()),
            empty=len(rows) - len(np.unique(objects.scene)),
            dropped=int(dropped[rows].sum()),
        )
    return counts
