"""Which objects of one scene a detector found, which it missed, and which of its boxes are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["true", "right", "wrong", "missed", "aside"]
"""An object that was found, a box that finds one, a box that finds none, an object not found, and what does not count:
difficult objects, regions of many, and boxes on these."""

OVERLAP = 0.5
"""Least intersection over union of a box with the object that it finds."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixels of the scene.

    Attributes:
        corners: left, top, right, bottom.
        score: None for an object.
    """

    corners: tuple[float, float, float, float]
    label: int
    kind: Kind
    score: float | None = None


def true_boxes(row: Mapping[str, Any]) -> tuple[Box, ...]:
    """The objects of a stored scene, as they are before anybody looked for them: to be found, or aside."""
    aside = np.asarray(row["true_crowd"], dtype=bool) | np.asarray(row["true_difficult"], dtype=bool)
    labels = np.asarray(row["true_labels"], dtype=np.int64)
    return tuple(
        Box(corners=_corners(box), label=int(label), kind="aside" if off else "missed")
        for box, label, off in zip(_boxes(row["true_boxes"]), labels, aside, strict=True)
    )


def judged(row: Mapping[str, Any], *, threshold: float) -> tuple[Box, ...]:
    """The objects of a stored scene and the boxes of at least ``threshold``, each with its kind.

    As in COCO's evaluation the best box comes first; each takes the object of its class that it overlaps most and that
    no better box took. One that finds none but lies on something that does not count, does not count either.

    Args:
        row: of the predictions of the protocol ``detection``.

    Source: the evaluation code of COCO (Lin et al. 2014, arXiv:1405.0312), at one overlap.
    """
    objects = true_boxes(row)
    corners = np.array([item.corners for item in objects]).reshape(-1, 4)
    crowd = np.asarray(row["true_crowd"], dtype=bool)
    scores, labels = np.asarray(row["found_scores"], dtype=np.float64), np.asarray(row["found_labels"], dtype=np.int64)
    boxes, taken, found = _boxes(row["found_boxes"]), set[int](), []
    for index in np.argsort(-scores, kind="stable"):
        if scores[index] < threshold:
            break
        shares = overlaps(boxes[index], corners, crowd)
        near = [
            place
            for place in np.argsort(-shares, kind="stable").tolist()
            if shares[place] >= OVERLAP and objects[place].label == labels[index]
        ]
        free = [place for place in near if objects[place].kind == "missed" and place not in taken]
        kind: Kind = "right" if free else "aside" if any(objects[p].kind == "aside" for p in near) else "wrong"
        taken.update(free[:1])
        found.append(
            Box(corners=_corners(boxes[index]), label=int(labels[index]), kind=kind, score=float(scores[index]))
        )
    seen = (
        Box(corners=item.corners, label=item.label, kind="true") if place in taken else item
        for place, item in enumerate(objects)
    )
    return (*seen, *found)


def overlaps(box: NDArray[np.float64], others: NDArray[np.float64], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union (n,) of a box (4,) with others (n, 4); over the box's own area where those are crowds."""
    corner, opposite = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(opposite - corner, 0, None).prod(axis=1)
    own, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1)
    whole = np.where(crowd, own, own + areas - shared)
    share: NDArray[np.float64] = np.divide(shared, whole, out=np.zeros(len(others)), where=whole > 0)
    return share


def _boxes(flat: Any) -> NDArray[np.float64]:
    return np.asarray(flat, dtype=np.float64).reshape(-1, 4)


def _corners(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in box)
    return left, top, right, bottom
