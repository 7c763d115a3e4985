"""Average precision under weights is that of a set in which scenes occur so often."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from bench.statistics import average_precision
from bench.statistics.average_precision import WeightedPrecision
from bench.statistics.coco_precision import OVERLAPS, RECALLS, coco_evaluation
from bench.statistics.detection_frames import detections_in, objects_in, sizes_in
from bench.statistics.matching import coco_rankings

from .scenes import drawn_frame, frame_of, repeated

Kind = Literal["box", "mask"]
CLASSES = 5


def weighted(frame: pd.DataFrame, kind: Kind = "box", overlaps: NDArray[np.float64] = OVERLAPS) -> WeightedPrecision:
    objects, found = objects_in(frame), detections_in(frame)
    rankings = coco_rankings(objects, found, sizes_in(frame), classes=CLASSES, overlaps=overlaps, kind=kind)
    return WeightedPrecision(classes=rankings, recalls=RECALLS)


def reported(frame: pd.DataFrame, kind: Kind = "box") -> list[list[float]]:
    """By class and overlap."""
    found = detections_in(frame)
    evaluation = coco_evaluation(objects_in(frame), found, sizes_in(frame), classes=CLASSES, kind=kind)
    labels = range(CLASSES)
    return [[evaluation.average_precision(overlap=least, label=label) for least in OVERLAPS] for label in labels]


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equal_weights_give_the_value_of_faster_coco_eval(kind: Kind, ties: bool, seed: int) -> None:
    frame = drawn_frame(seed, ties=ties, masks=kind == "mask", scenes=60)
    ours = weighted(frame, kind)
    every = ours.by_class(np.ones((1, 60)))[:, :, 0]
    assert np.isnan(every[4]).all() and np.isfinite(every[:4]).all()
    np.testing.assert_allclose(every, reported(frame, kind), atol=1e-9)
    assert ours(np.full((1, 60), 3.0))[0] == pytest.approx(ours(np.ones((1, 60)))[0], abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_resample_gives_the_value_of_the_set_with_copies(seed: int) -> None:
    frame = drawn_frame(seed, masks=seed == 3, scenes=30)
    kind: Kind = "mask" if seed == 3 else "box"
    times = np.random.default_rng(seed).multinomial(30, np.full(30, 1 / 30), size=3)
    values = weighted(frame, kind).by_class(times.astype(np.float64))
    assert (times == 0).any() and (times > 1).any()
    for place, own in enumerate(times):
        np.testing.assert_allclose(values[:, :, place], reported(repeated(frame, own), kind), atol=1e-9)


def test_a_class_without_objects_in_a_resample_is_left_out_of_its_mean() -> None:
    box = (10, 10, 50, 50)
    frame = frame_of([[(box, 0)], [(box, 1)]], [[(box, 0, 0.9)], [(box, 0, 0.8)]])
    ours = weighted(frame)
    assert ours(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])) == pytest.approx(
        [50, 100, 0, np.nan], nan_ok=True
    )


def test_equal_scores_keep_the_order_of_the_scenes() -> None:
    box, off = (10, 10, 50, 50), (100, 100, 150, 150)
    right_first = frame_of([[(box, 0)], []], [[(box, 0, 0.5)], [(off, 0, 0.5)]])
    wrong_first = frame_of([[], [(box, 0)]], [[(off, 0, 0.5)], [(box, 0, 0.5)]])
    one = np.ones((1, 2))
    assert (weighted(right_first)(one)[0], weighted(wrong_first)(one)[0]) == pytest.approx((100, 50))


def test_without_equal_scores_the_order_of_scenes_decides_nothing() -> None:
    frame = drawn_frame(11)
    order = np.random.default_rng(0).permutation(len(frame))
    shuffled = frame.iloc[order].reset_index(drop=True)
    weights = np.random.default_rng(1).integers(0, 4, (5, len(frame))).astype(np.float64)
    np.testing.assert_allclose(weighted(shuffled)(weights[:, order]), weighted(frame)(weights), atol=1e-9)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = drawn_frame(3)
    weights = np.random.default_rng(1).integers(0, 4, (50, len(frame))).astype(np.float64)
    whole = weighted(frame)(weights)
    monkeypatch.setattr(average_precision, "VALUES_PER_BLOCK", 500)
    np.testing.assert_array_equal(weighted(frame)(weights), whole)
    assert len(np.unique(whole)) > 40


def test_a_better_score_for_a_hit_never_lowers_the_value_and_for_a_mistake_never_raises_it() -> None:
    frame, half, one = drawn_frame(5), OVERLAPS[:1], np.ones((1, 40))
    (before,) = weighted(frame, overlaps=half)(one)
    ranked = weighted(frame, overlaps=half).classes[0]
    for marked, sign in ((ranked.hit[0], 1), (~ranked.hit[0] & ~ranked.ignored[0], -1)):
        place = int(np.flatnonzero(marked)[-1])
        scene, changed = int(ranked.scene[place]), frame.copy()
        score = ranked.scores[place]
        changed["found_scores"] = [
            [0.9999 if index == scene and own == score else own for own in row]
            for index, row in enumerate(frame["found_scores"])
        ]
        (after,) = weighted(changed, overlaps=half)(one)
        assert sign * (after - before) > 0


def test_scenes_without_objects_or_detections_pass_without_a_warning() -> None:
    nothing = weighted(frame_of([[], []], [[], []]))
    assert np.isnan(nothing(np.ones((2, 2)))).all()
    missed = weighted(frame_of([[((1, 1, 9, 9), 0)], []], [[], []]))
    assert missed(np.ones((2, 2))).tolist() == [0.0, 0.0]


def test_the_100_best_of_a_class_in_a_scene_count() -> None:
    box, off = (10, 10, 50, 50), (150, 150, 160, 160)
    wrong = [(off, 0, 0.9 - place / 1000) for place in range(100)]
    one = np.ones((1, 1))
    assert weighted(frame_of([[(box, 0)]], [[*wrong[1:], (box, 0, 0.1)]]))(one)[0] == pytest.approx(1.0)
    assert weighted(frame_of([[(box, 0)]], [[*wrong, (box, 0, 0.1)]]))(one)[0] == 0.0
