"""Which detections find which objects: by the rules of COCO, and by those of VOC 2007.

Both go through a class by falling score and give every object to one detection.

COCO: a detection takes, of the objects that are still free, the one that it overlaps most, if by the threshold or more;
one that is ignored (a crowd, a difficult object) only when no other is left. Crowds are never taken, and overlap with a
crowd is the part of the detection that lies in it. 100 detections of a class in a scene count.

VOC 2007 (Everingham et al. 2010, doi:10.1007/s11263-009-0275-4, section 4.2, and its development kit): a detection
belongs to the object that it overlaps most, free or not, if by more than the threshold. If that is difficult, it is
ignored; if it is taken, the detection is wrong. The kit counts pixels, so that a box from 1 to 3 is 3 wide; boxes here
are continuous, left = first pixel - 1, right = last pixel, and have the same widths and overlaps without the kit's + 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bench.data.detection import Objects
from bench.statistics.average_precision import Ranking
from bench.statistics.coco_precision import MOST, Kind, sides
from bench.statistics.detection_frames import Detections, run_lengths

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64]
Reals = NDArray[np.float64]


def coco_rankings(
    truth: Objects,
    found: Detections,
    sizes: NDArray[np.int64],
    *,
    classes: int,
    overlaps: Reals,
    kind: Kind,
) -> tuple[Ranking, ...]:
    """Of each class, by COCO's rules.

    Args:
        truth: objects of n scenes.
        found: detections in them.
        sizes: (n, 2) height and width of the scenes.
        classes: K.
        overlaps: (T,) least overlaps.
        kind: whether boxes or masks are compared.
    """
    shapes = _Shapes(truth, found, sizes, kind)
    ignore = truth.crowd | truth.difficult
    rankings = []
    for label in range(classes):
        own, objects = np.flatnonzero(found.labels == label), np.flatnonzero(truth.labels == label)
        own = _best_of_each_scene(own, found)
        hit, ignored = np.zeros((2, len(overlaps), len(own)), dtype=np.bool_)
        for at, rows in _scenes(found.scene[own], truth.scene[objects]):
            pair = objects[rows]
            pair = pair[np.argsort(ignore[pair], kind="stable")]  # those that count come first
            taken = _take(shapes.overlaps(own[at], pair), ignore[pair], truth.crowd[pair], overlaps)
            hit[:, at], ignored[:, at] = taken
        rankings.append(_ranked(own, hit, ignored, found, truth.scene[objects[~ignore[objects]]], len(sizes)))
    return tuple(rankings)


def voc_rankings(
    truth: Objects, found: Detections, *, scenes: int, classes: int, overlaps: Reals
) -> tuple[Ranking, ...]:
    """Of each class, by VOC's rules; arguments as of :func:`coco_rankings`."""
    ignore = truth.crowd | truth.difficult
    rankings = []
    for label in range(classes):
        own, objects = np.flatnonzero(found.labels == label), np.flatnonzero(truth.labels == label)
        own = own[np.lexsort((-found.scores[own], found.scene[own]))]
        hit, ignored = np.zeros((2, len(overlaps), len(own)), dtype=np.bool_)
        for at, rows in _scenes(found.scene[own], truth.scene[objects]):
            shared = box_overlaps(found.boxes[own[at]], truth.boxes[objects[rows]])
            nearest = shared.argmax(axis=1)
            near = shared.max(axis=1) > overlaps[:, None]  # (T, d)
            ignored[:, at] = near & ignore[objects[rows]][nearest]
            for index in np.unique(nearest[~ignore[objects[rows]][nearest]]):
                close = near & (nearest == index)
                first = np.cumsum(close, axis=1) == 1  # the first detection of the object, not a later one
                hit[:, at] |= close & first
        rankings.append(_ranked(own, hit, ignored, found, truth.scene[objects[~ignore[objects]]], scenes))
    return tuple(rankings)


def box_overlaps(one: Reals, other: Reals) -> Reals:
    """(m, k) intersection over union of boxes (m, 4) and (k, 4)."""
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    shared = (np.minimum(one[:, None, 2:], other[None, :, 2:]) - corner).clip(min=0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    overlaps: Reals = np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
    return overlaps


class _Shapes:
    """Overlaps of detections with objects as faster-coco-eval computes them, to the last bit."""

    def __init__(self, truth: Objects, found: Detections, sizes: NDArray[np.int64], kind: Kind) -> None:
        self.crowd = truth.crowd
        self.kind = kind
        if kind == "box":
            self.found, self.true = sides(found.boxes), sides(truth.boxes)
        else:
            self.found_masks = run_lengths(found.masks, sizes[found.scene])
            self.true_masks = run_lengths(truth.masks, sizes[truth.scene])

    def overlaps(self, detections: Rows, objects: Rows) -> Reals:
        from faster_coco_eval import mask  # imported late: plans and pages without detection skip it

        crowd = self.crowd[objects].astype(int).tolist()
        if self.kind == "box":
            return np.asarray(mask.iou(self.found[detections], self.true[objects], crowd), dtype=np.float64)
        found, true = [self.found_masks[row] for row in detections], [self.true_masks[row] for row in objects]
        return np.asarray(mask.iou(found, true, crowd), dtype=np.float64)


def _best_of_each_scene(rows: Rows, found: Detections) -> Rows:
    """The detections that count, by scene and falling score."""
    ordered = rows[np.lexsort((-found.scores[rows], found.scene[rows]))]
    scene = found.scene[ordered]
    place = np.arange(len(ordered)) - np.searchsorted(scene, scene)  # in its scene
    return ordered[place < MOST[-1]]


def _scenes(found: Rows, true: Rows) -> Iterator[tuple[slice, slice]]:
    """The detections and the objects of each scene that has both, from their scenes in ascending order."""
    both = np.intersect1d(found, true)
    edges = [np.searchsorted(rows, both, side=side) for rows in (found, true) for side in ("left", "right")]
    for a, b, c, d in zip(*edges, strict=True):
        yield slice(int(a), int(b)), slice(int(c), int(d))


def _take(shared: Reals, ignore: Bools, crowd: Bools, overlaps: Reals) -> tuple[Bools, Bools]:
    """Hits and ignored (T, d) of one scene's detections by falling score; ``shared`` (d, g), ignored objects last."""
    least = np.minimum(overlaps, 1 - 1e-10)[:, None]
    counting = int((~ignore).sum())
    free = np.ones((len(overlaps), len(ignore)), dtype=np.bool_)
    hit, ignored = np.zeros((2, len(overlaps), len(shared)), dtype=np.bool_)
    for index in np.flatnonzero((shared >= least[0]).any(axis=1)):
        open_ = np.where(free & (shared[index] >= least), shared[index], -1.0)  # (T, g)
        for first, last, marked in ((0, counting, hit), (counting, len(ignore), ignored)):
            if first == last:
                continue
            # Of equal overlaps the last one, as in COCO.
            best = last - 1 - open_[:, first:last][:, ::-1].argmax(axis=1)
            rows = np.flatnonzero((open_[np.arange(len(overlaps)), best] >= 0) & ~hit[:, index])
            marked[rows, index] = True
            free[rows, best[rows]] = crowd[best[rows]]
    return hit, ignored


def _ranked(own: Rows, hit: Bools, ignored: Bools, found: Detections, objects: Rows, scenes: int) -> Ranking:
    order = np.argsort(-found.scores[own], kind="stable")
    return Ranking(
        scene=found.scene[own][order],
        scores=found.scores[own][order],
        hit=hit[:, order],
        ignored=ignored[:, order],
        objects=np.bincount(objects, minlength=scenes).astype(np.float64),
    )
