"""COCO's average precision equals that of pycocotools."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import pytest

from bench.statistics.coco_precision import MOST, OVERLAPS, SIZES, CocoEvaluation, coco_evaluation
from bench.statistics.detection_frames import detections_in, objects_in, sizes_in

from .scenes import by_pycocotools, drawn_frame, frame_of

Kind = Literal["box", "mask"]


def evaluated(frame: pd.DataFrame, classes: int, kind: Kind = "box") -> CocoEvaluation:
    return coco_evaluation(objects_in(frame), detections_in(frame), sizes_in(frame), classes=classes, kind=kind)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("kind", "name"), [("box", "bbox"), ("mask", "segm")])
@pytest.mark.parametrize("seed", range(4))
def test_precision_and_recall_equal_those_of_pycocotools(kind: Kind, name: str, seed: int, ties: bool) -> None:
    frame = drawn_frame(seed, ties=ties, masks=kind == "mask")
    ours, (precision, recall) = evaluated(frame, 5, kind), by_pycocotools(frame, 5, name)
    assert 0.1 < precision[0, :, :4, 0].mean() < 0.95  # the draw is neither hopeless nor trivial
    np.testing.assert_allclose(ours.precision, precision[..., -1], atol=1e-6)
    np.testing.assert_allclose(ours.recall, recall, atol=1e-6)
    assert (ours.precision[:, :, 4] == -1).all()  # a class without objects


def test_means_are_over_the_classes_that_have_objects() -> None:
    frame = drawn_frame(7)
    ours, (precision, recall) = evaluated(frame, 6), by_pycocotools(frame, 6, "bbox")
    assert ours.average_precision() == pytest.approx(100 * precision[:, :, :4, 0, -1].mean())
    assert ours.average_precision(overlap=0.75) == pytest.approx(100 * precision[5, :, :4, 0, -1].mean())
    assert ours.average_precision(overlap=0.5, label=2) == pytest.approx(100 * precision[0, :, 2, 0, -1].mean())
    assert np.isnan(ours.average_precision(label=5))
    for place, size in enumerate(SIZES, start=1):
        own = precision[:, :, :4, place, -1]
        assert ours.average_precision(size=size) == pytest.approx(100 * own[own > -1].mean())
    for place, most in enumerate(MOST):
        assert ours.average_recall(most=most) == pytest.approx(100 * recall[:, :4, 0, place].mean())
    assert len({round(ours.average_recall(most=most), 6) for most in MOST}) > 1


def test_the_100_best_of_a_class_in_a_scene_count() -> None:
    wrong = [((150, 150, 160, 160), 0, 0.9 - place / 1000) for place in range(100)]
    object_, late = ((10, 10, 50, 50), 0), ((10, 10, 50, 50), 0, 0.1)
    assert evaluated(frame_of([[object_]], [[*wrong[1:], late]]), 1).average_precision() == pytest.approx(1.0)
    assert evaluated(frame_of([[object_]], [[*wrong, late]]), 1).average_precision() == 0.0


def test_a_difficult_object_neither_rewards_nor_punishes_its_first_detection() -> None:
    sure, hard = ((10, 10, 50, 50), 0), ((100, 100, 150, 150), 0)
    on_hard, on_sure = ((100, 100, 150, 150), 0, 0.9), ((10, 10, 50, 50), 0, 0.8)
    alone = frame_of([[sure, hard]], [[on_sure]], difficult=[(0, 1)])
    both = frame_of([[sure, hard]], [[on_hard, on_sure]], difficult=[(0, 1)])
    twice = frame_of([[sure, hard]], [[on_hard, on_hard, on_sure]], difficult=[(0, 1)])
    assert evaluated(alone, 1).average_precision() == pytest.approx(100)
    assert evaluated(both, 1).average_precision() == pytest.approx(100)
    assert evaluated(twice, 1).average_precision() == pytest.approx(50)  # the second is one too many
    assert evaluated(frame_of([[sure, hard]], [[on_hard, on_sure]]), 1).average_precision() == pytest.approx(100)
    assert evaluated(frame_of([[sure, hard]], [[on_sure]]), 1).average_precision() == pytest.approx(100 * 51 / 101)


def test_a_crowd_is_ignored_however_often_it_is_found() -> None:
    sure, many = ((10, 10, 50, 50), 0), ((60, 60, 190, 190), 0)
    inside = [((70 + shift, 70, 100 + shift, 100), 0, 0.9) for shift in (0, 20, 40)]
    frame = frame_of([[sure, many]], [[*inside, ((10, 10, 50, 50), 0, 0.5)]], crowd=[(0, 1)])
    assert evaluated(frame, 1).average_precision() == pytest.approx(100)
    plain = frame_of([[sure, many]], [[*inside, ((10, 10, 50, 50), 0, 0.5)]])
    assert evaluated(plain, 1).average_precision() < 30


def test_nothing_found_is_zero_and_no_object_has_no_value() -> None:
    thing = ((10, 10, 50, 50), 0)
    assert evaluated(frame_of([[thing], []], [[], []]), 2).average_precision() == 0.0
    assert np.isnan(evaluated(frame_of([[], []], [[((1, 1, 9, 9), 0, 0.5)], []]), 2).average_precision())


def test_overlaps_are_those_of_pycocotools() -> None:
    from pycocotools.cocoeval import Params

    assert OVERLAPS.tolist() == Params(iouType="bbox").iouThrs.tolist()
