"""Which detection finds which object: VOC's rules against a walk through them, and where COCO's differ."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from bench.statistics.average_precision import Ranking, WeightedPrecision
from bench.statistics.detection_frames import detections_in, objects_in, sizes_in
from bench.statistics.matching import box_overlaps, coco_rankings, voc_rankings

from .scenes import drawn_frame, frame_of, repeated

RECALLS = np.arange(0.0, 1.1, 0.1)
BOX, OFF = (10, 10, 50, 50), (100, 100, 150, 150)


def voc(frame: pd.DataFrame, overlap: float = 0.5, classes: int = 1) -> tuple[Ranking, ...]:
    return voc_rankings(
        objects_in(frame), detections_in(frame), scenes=len(frame), classes=classes, overlaps=np.array([overlap])
    )


def coco(frame: pd.DataFrame, overlap: float = 0.5, classes: int = 1) -> tuple[Ranking, ...]:
    found, least = detections_in(frame), np.array([overlap])
    return coco_rankings(objects_in(frame), found, sizes_in(frame), classes=classes, overlaps=least, kind="box")


def walked(frame: pd.DataFrame, label: int, overlap: float) -> float:
    """VOC 2007's average precision of a class, one detection after the other, in the kit's pixels from 1 on."""
    objects = [
        (scene, _pixels(row.true_boxes, place), row.true_difficult[place] or row.true_crowd[place])
        for scene, row in enumerate(frame.itertuples())
        for place in np.flatnonzero(np.array(row.true_labels) == label)
    ]
    lines = [
        (row.found_scores[place], scene, _pixels(row.found_boxes, place))
        for scene, row in enumerate(frame.itertuples())
        for place in np.flatnonzero(np.array(row.found_labels) == label)
    ]
    taken, right, counted, points = set[int](), 0, 0, []
    total = sum(not hard for _, _, hard in objects)
    for _, scene, box in sorted(lines, key=lambda line: -line[0]):
        best, nearest = -1.0, -1
        for index, (where, other, _) in enumerate(objects):
            if where == scene and _kit(box, other) > best:
                best, nearest = _kit(box, other), index
        if best > overlap:
            if objects[nearest][2]:
                continue
            right += nearest not in taken
            taken.add(nearest)
        counted += 1
        points.append((right / total, right / counted))
    return 100 * sum(max((p for r, p in points if r >= level), default=0) for level in RECALLS) / 11


def _pixels(boxes: list[float], place: int) -> NDArray[np.float64]:
    """First column, first row, last column, last row, counted from 1."""
    left, top, right, bottom = boxes[4 * place : 4 * place + 4]
    return np.array([left + 1, top + 1, right, bottom])


def _kit(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Overlap of boxes in pixels, both ends included."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + 1
    height = min(one[3], other[3]) - max(one[1], other[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return float(width * height / (sum(areas) - width * height))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_vocs_average_precision_is_that_of_a_walk_through_the_detections(seed: int, ties: bool) -> None:
    frame = drawn_frame(seed, ties=ties)
    for overlap in (0.5, 0.75):
        for label, ranking in enumerate(voc(frame, overlap, 4)):
            expected = walked(frame, label, overlap)
            assert ranking.average_precisions(np.ones((1, len(frame))), RECALLS) == pytest.approx(expected, abs=1e-9)


def test_vocs_resamples_are_those_of_the_set_with_copies() -> None:
    frame = drawn_frame(2, scenes=30)
    times = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=2)
    ours = WeightedPrecision(classes=voc(frame, 0.5, 4), recalls=RECALLS).by_class(times.astype(np.float64))
    for place, own in enumerate(times):
        copies = repeated(frame, own)
        assert ours[:, 0, place] == pytest.approx([walked(copies, label, 0.5) for label in range(4)], abs=1e-9)


def test_voc_wants_more_than_the_overlap_and_coco_the_overlap() -> None:
    half = (10, 10, 50, 30)
    frame = frame_of([[(BOX, 0)]], [[(half, 0, 0.9)]])
    assert box_overlaps(np.array([half]), np.array([BOX])) == 0.5
    assert not voc(frame)[0].hit.any() and coco(frame)[0].hit.all()


def test_voc_gives_a_detection_to_the_nearest_object_even_if_that_is_taken_and_coco_to_the_next() -> None:
    beside = (14, 10, 54, 50)
    frame = frame_of([[(BOX, 0), (beside, 0)]], [[(BOX, 0, 0.9), ((11, 10, 51, 50), 0, 0.8)]])
    assert voc(frame)[0].hit[0].tolist() == [True, False]
    assert coco(frame)[0].hit[0].tolist() == [True, True]


def test_voc_ignores_every_detection_of_a_difficult_object_and_coco_the_first() -> None:
    twice = [(OFF, 0, 0.9), (OFF, 0, 0.8), (BOX, 0, 0.7)]
    frame = frame_of([[(BOX, 0), (OFF, 0)]], [twice], difficult=[(0, 1)])
    assert voc(frame)[0].ignored[0].tolist() == [True, True, False]
    assert coco(frame)[0].ignored[0].tolist() == [True, False, False]
    assert voc(frame)[0].objects.tolist() == coco(frame)[0].objects.tolist() == [1.0]


def test_boxes_without_an_area_overlap_nothing() -> None:
    flat = np.array([[5.0, 5.0, 5.0, 9.0]])
    assert box_overlaps(flat, flat) == 0.0
    assert box_overlaps(np.array([BOX]), np.array([OFF])) == 0.0
