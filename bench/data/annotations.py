"""What annotation files say about objects, validated, for every layout.

An error refuses the set and names the file and the object: an unknown class, a number that is none, corners in the
wrong order, a box that reaches beyond its image. An object without area, or one that lies outside its image, teaches
nothing and cannot be mended by guessing: it is left out, counted and listed, or refused like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.detection import Dropped, Objects, objects_of
from bench.data.leakage import listing
from bench.errors import DataError, SpecError

FLAWED = ("drop", "clip", "refuse")
"""What becomes of objects that cannot be used: without those without area; with boxes cut at the border, too; not at
all."""
NO_MASK = "[]"
"""A segmentation of which nothing has an area."""
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Complaint:
    """A kind of error, and what to do about it."""

    what: str
    remedy: str


NO_AREA = Complaint("objects without area", "Draw them anew or remove them; --data-param flawed=drop leaves them out.")
OUTSIDE = Complaint("objects outside their image", NO_AREA.remedy)
BEYOND = Complaint(
    "boxes that reach beyond their image", "Correct them; --data-param flawed=clip cuts them at the border."
)
REVERSED = Complaint("boxes whose right or lower end comes before the other", "Exchange the ends, or correct the box.")


class Complaints:
    """Errors of one set, collected, so that one message tells all kinds.

    Args:
        title: of the set.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._found: dict[Complaint, list[str]] = {}

    def add(self, complaint: Complaint, where: str) -> None:
        self._found.setdefault(complaint, []).append(where)

    def refuse(self) -> None:
        """End here when anything was found.

        Raises:
            DataError: for each kind how many there are, the first by name, and the remedy.
        """
        told = [f"{kind.what} ({len(at)}): {listing(at)}. {kind.remedy}" for kind, at in self._found.items()]
        if told:
            raise DataError(f"{self.title}: {' '.join(told)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """One object as its file describes it.

    Attributes:
        scene: index of its scene.
        where: file and object, as messages call it.
        box: left, top, right, bottom; pixel i covers the interval [i, i + 1].
        label: its class.
        area: in square pixels; None takes the box's.
        mask: segmentation as JSON, or empty.
    """

    scene: int
    where: str
    box: Box
    label: int
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    mask: str = ""


def check_flawed(flawed: str) -> None:
    """Refuse an unknown word.

    Raises:
        SpecError: with the known ones.
    """
    if flawed not in FLAWED:
        raise SpecError(f"flawed is one of {', '.join(FLAWED)}, got {flawed!r}. Choose one.")


def settle(
    found: Sequence[Annotation],
    names: Sequence[str],
    sizes: NDArray[np.int64],
    complaints: Complaints,
    *,
    flawed: str,
    slack: tuple[float, float],
) -> tuple[Objects, tuple[Dropped, ...]]:
    """The objects inside their images, and those that were left out.

    Args:
        found: objects of all scenes; either all of them have a mask or none.
        names: of the scenes.
        sizes: (N, 2) height and width of each scene.
        complaints: takes the errors.
        flawed: one of ``FLAWED``.
        slack: pixels by which a box may begin before its image and end after it, because its format explains them;
            what is beyond the border is cut off.

    Raises:
        DataError: something was complained about, here or before.
    """
    check_flawed(flawed)
    boxes = np.array([item.box for item in found], dtype=np.float64).reshape(-1, 4)
    scenes = np.array([item.scene for item in found], dtype=np.int64)
    ends = sizes[scenes][:, [1, 0, 1, 0]].astype(np.float64)  # (M, 4) width, height, width, height
    first, last = boxes[:, :2], boxes[:, 2:]
    turned = (last < first).any(axis=1)
    flat = ((last == first).any(axis=1) | np.array([item.mask == NO_MASK for item in found], dtype=bool)) & ~turned
    outside = ((last <= 0) | (first >= ends[:, :2])).any(axis=1) & ~turned & ~flat
    reach = (first < -slack[0]).any(axis=1) | (last > ends[:, 2:] + slack[1]).any(axis=1)
    reasons = [(NO_AREA, flat, flawed == "refuse"), (OUTSIDE, outside, flawed == "refuse")]
    reasons += [(REVERSED, turned, True), (BEYOND, reach & ~turned & ~flat & ~outside, flawed != "clip")]
    dropped = []
    for kind, rows, refused in reasons:
        for row in np.flatnonzero(rows).tolist():
            text = _described(found[row], names, sizes)
            if refused:
                complaints.add(kind, text)
            elif kind is not BEYOND:
                dropped.append(
                    Dropped(found[row].scene, f"{text}: {'outside the image' if outside[row] else 'without area'}")
                )
    complaints.refuse()
    kept = [item for item, left_out in zip(found, flat | outside, strict=True) if not left_out]
    inside = np.clip(boxes, 0, ends)[~(flat | outside)]
    return _objects(kept, inside), tuple(sorted(dropped, key=lambda item: item.scene))


def _described(item: Annotation, names: Sequence[str], sizes: NDArray[np.int64]) -> str:
    corners, (height, width) = ", ".join(f"{value:g}" for value in item.box), sizes[item.scene]
    return f"{item.where}: ({corners}) in {names[item.scene].rpartition('/')[2]}, {width}×{height} pixels"


def _objects(kept: Sequence[Annotation], boxes: NDArray[np.float64]) -> Objects:
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return objects_of(
        [item.scene for item in kept],
        boxes.tolist(),
        [item.label for item in kept],
        crowd=[item.crowd for item in kept],
        difficult=[item.difficult for item in kept],
        areas=[area if item.area is None else item.area for item, area in zip(kept, areas.tolist(), strict=True)],
        masks=[item.mask for item in kept] if kept and kept[0].mask else (),
    )
