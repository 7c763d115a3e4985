"""Scores of detectors: an example worked by hand, what is undefined and why, intervals, curves and breakdowns."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest

from bench.metric import METRICS
from bench.protocol import Score
from bench.statistics.detection import (
    average_precision_statistic,
    breakdown,
    detection_scores,
    precision_recall,
)
from bench.statistics.paired import compare

from .scenes import drawn_frame, frame_of, repeated

KEYS = ("ap", "ap50", "ap75", "mask_ap", "mask_ap50", "mask_ap75", "voc_ap", "voc_ap50", "voc_ap75")
A, B, C, D = (0, 0, 10, 10), (20, 0, 30, 10), (0, 0, 10, 10), (20, 20, 30, 30)

# Four objects: A and B in the first scene, C and D in the second. By falling score:
#   0.9  exactly A                            overlap 1, right at every overlap
#   0.8  far from everything                  wrong
#   0.7  C but for the last 2.2 rows          7.8 · 10 / 100 = 0.78, right up to 0.75
#   0.6  B but for the last 3.8 columns       6.2 · 10 / 100 = 0.62, right up to 0.60
# and D is never found.
BY_HAND = frame_of(
    [[(A, 0), (B, 0)], [(C, 0), (D, 0)]],
    [[(A, 0, 0.9), ((100, 100, 120, 120), 0, 0.8), ((20, 0, 26.2, 10), 0, 0.6)], [((0, 0, 10, 7.8), 0, 0.7)]],
)
# Recall and highest precision from there on:
#   0.50, 0.55, 0.60: right wrong right right   ¼ at 1, ½ and ¾ at ¾
#   0.65, 0.70, 0.75: right wrong right wrong   ¼ at 1, ½ at ⅔
#   0.80 … 0.95:      right wrong wrong wrong   ¼ at 1
# Of the recalls 0, 0.01, …, 1, 26 are at most ¼, 25 more at most ½, 25 more at most ¾:
AT_50 = (26 + 50 * 3 / 4) / 101
AT_65 = (26 + 25 * 2 / 3) / 101
AT_80 = 26 / 101
# and of 0, 0.1, …, 1 these are 3, then 3 (0.3, 0.4, 0.5), then 2:
VOC_AT_50, VOC_AT_65, VOC_AT_80 = (3 + 5 * 3 / 4) / 11, (3 + 3 * 2 / 3) / 11, 3 / 11


def scored(frame: pd.DataFrame, names: str = "abcd", layout: str = "coco") -> dict[str, Score]:
    scores, _ = detection_scores(frame, tuple(names), layout=layout, seed=0)  # type: ignore[arg-type]
    return {score.metric.key: score for score in scores}


def test_an_example_has_the_values_that_are_worked_out_by_hand() -> None:
    scores = scored(BY_HAND, "a", "voc")
    assert scores["ap50"].value == pytest.approx(100 * AT_50, abs=1e-9) == pytest.approx(62.8713, abs=1e-4)
    assert scores["ap75"].value == pytest.approx(100 * AT_65, abs=1e-9) == pytest.approx(42.2442, abs=1e-4)
    assert scores["ap"].value == pytest.approx(10 * (3 * AT_50 + 3 * AT_65 + 4 * AT_80), abs=1e-9)
    assert scores["voc_ap50"].value == pytest.approx(100 * VOC_AT_50, abs=1e-9) == pytest.approx(61.3636, abs=1e-4)
    assert scores["voc_ap75"].value == pytest.approx(100 * VOC_AT_65, abs=1e-9)
    assert scores["voc_ap"].value == pytest.approx(10 * (3 * VOC_AT_50 + 3 * VOC_AT_65 + 4 * VOC_AT_80), abs=1e-9)


def test_ap50_is_the_precision_at_an_overlap_of_one_half_and_no_median() -> None:
    by_overlap = [AT_50] * 3 + [AT_65] * 3 + [AT_80] * 4
    assert 100 * np.median(by_overlap) == pytest.approx(42.2442, abs=1e-4)  # what a median would be
    assert scored(BY_HAND, "a")["ap50"].value == pytest.approx(62.8713, abs=1e-4)
    # Nor over classes: two are found, a third is not.
    frame = frame_of([[(A, 0), (B, 1), (D, 2)]], [[(A, 0, 0.9), (B, 1, 0.8)]])
    assert scored(frame, "abc")["ap50"].value == pytest.approx(200 / 3)


def test_the_scores_come_in_the_order_of_the_metrics_and_reasons_stand_for_what_is_missing() -> None:
    for layout, masks, missing in (
        ("coco", False, set(KEYS[3:])),
        ("voc", False, set(KEYS[3:6])),
        ("coco", True, set(KEYS[6:])),
    ):
        frame = drawn_frame(0, masks=masks)
        scores, undefined = detection_scores(frame, "abcd", layout=layout, seed=0)  # type: ignore[arg-type]
        assert tuple(score.metric for score in scores) == tuple(METRICS[key] for key in KEYS)
        assert {score.metric.key for score in scores if np.isnan(score.value)} == set(undefined) == missing
        assert all(score.n == 40 for score in scores)
    assert detection_scores(drawn_frame(0), "abcd", layout="coco", seed=0)[1] == {
        **dict.fromkeys(KEYS[3:6], "the objects have no masks"),
        **dict.fromkeys(KEYS[6:], "the rules of VOC are for sets in VOC's layout"),
    }
    unmasked = drawn_frame(0, masks=True).drop(columns="found_masks")
    assert detection_scores(unmasked, "abcd", layout="voc", seed=0)[1] == dict.fromkeys(
        KEYS[3:6], "the detector found no masks"
    )


@pytest.mark.parametrize("found", [[], [((1, 1, 9, 9), 0, 0.5)]])
def test_without_an_object_that_counts_nothing_has_a_value(found: list[tuple[tuple[int, ...], int, float]]) -> None:
    scores, undefined = detection_scores(frame_of([[], []], [found, []]), "ab", layout="voc", seed=0)
    assert np.isnan([score.value for score in scores]).all()
    assert undefined == dict.fromkeys(KEYS, "no object of the test split counts")
    difficult = frame_of([[(A, 0)]], [found], difficult=[(0, 0)])
    assert detection_scores(difficult, "ab", layout="voc", seed=0)[1] == undefined
    assert breakdown(difficult, "ab")["classes"][0] == {
        **{"name": "a", "objects": 0, "difficult": 1, "crowd": 0, "found": len(found)},
        **{"ap": None, "ap50": None, "ap75": None},
    }


def test_nothing_found_is_zero_without_a_span_that_would_claim_certainty() -> None:
    scores = scored(frame_of([[(A, 0)], [], [(B, 0)]], [[], [], []]), "ab", "voc")
    for key in ("ap", "ap50", "ap75", "voc_ap", "voc_ap50", "voc_ap75"):
        assert (scores[key].value, scores[key].low, scores[key].high) == (0.0, None, None)


def test_an_interval_holds_its_value_says_what_it_covers_and_shrinks_with_more_scenes() -> None:
    widths = []
    for scenes in (30, 480):
        scores = scored(drawn_frame(0, scenes=scenes), layout="voc")
        for key in ("ap", "ap50", "ap75", "voc_ap", "voc_ap50", "voc_ap75"):
            score = scores[key]
            assert score.low is not None and score.high is not None and score.low < score.value < score.high
            assert (score.covers, score.method) == ("test images", "bias-corrected bootstrap 95%")
        widths.append(scores["ap"].high - scores["ap"].low)  # type: ignore[operator]
    assert 2.5 < widths[0] / widths[1] < 7  # the square root of 16, more or less


def test_scenes_of_one_patient_are_drawn_together() -> None:
    frame = repeated(drawn_frame(1, scenes=30), np.full(30, 4))
    known = frame.assign(patient=[f"patient {index // 4}" for index in range(120)])
    alone, together = scored(frame)["ap"], scored(known)["ap"]
    assert together.covers == "patients" and together.value == alone.value
    widths = [score.high - score.low for score in (alone, together)]  # type: ignore[operator]
    assert widths[1] > 1.6 * widths[0]


def test_the_seed_decides_the_interval_and_nothing_else() -> None:
    frame = drawn_frame(2)
    one, again, other = (detection_scores(frame, "abcd", layout="coco", seed=seed)[0][0] for seed in (1, 1, 2))
    assert one == again and one.value == other.value and one.low != other.low


def test_one_scene_has_no_interval() -> None:
    assert scored(frame_of([[(A, 0)]], [[(A, 0, 0.5)]]), "a")["ap"].low is None


@pytest.mark.parametrize("key", KEYS)
def test_each_statistic_has_the_reported_value_and_compares_methods(key: str) -> None:
    frame = drawn_frame(4, masks=True)
    statistic = average_precision_statistic(frame, 4, metric_key=key)
    value = scored(frame, layout="voc")[key].value
    assert statistic(np.ones((1, len(frame))))[0] == pytest.approx(value, abs=1e-6)
    worse = frame.assign(found_labels=[[0 for _ in own] for own in frame["found_labels"]])
    comparison = compare(
        [[statistic], [average_precision_statistic(worse, 4, metric_key=key)], [statistic]],
        images=len(frame),
        generator=np.random.default_rng(0),
        resamples=200,
    )
    assert comparison.values[0] == pytest.approx(value, abs=1e-6)
    assert comparison.between(0, 1).separated and comparison.between(0, 1).value > 0
    assert comparison.between(0, 2).p == 1.0


def test_a_statistic_of_no_metric_or_without_its_masks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'top1' is no metric of detection\. Choose one of ap, ap50"):
        average_precision_statistic(BY_HAND, 1, metric_key="top1")
    with pytest.raises(ValueError, match="mask_ap is undefined: the objects have no masks"):
        average_precision_statistic(BY_HAND, 1, metric_key="mask_ap")


def test_a_curve_goes_through_every_detection_and_averages_to_ap() -> None:
    curve = precision_recall(BY_HAND, label=0)
    assert curve.recall.tolist() == [25, 25, 50, 75]
    assert curve.precision == pytest.approx([100, 50, 200 / 3, 75])
    assert curve.scores == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert curve.recalls == pytest.approx(np.arange(101))
    assert curve.interpolated == pytest.approx([100] * 26 + [75] * 50 + [0] * 25)
    assert (curve.objects, curve.average_precision) == (4, pytest.approx(100 * AT_50))
    assert precision_recall(BY_HAND, label=0, iou=0.75).average_precision == pytest.approx(100 * AT_65)
    assert precision_recall(BY_HAND, label=0, rule="voc").average_precision == pytest.approx(100 * VOC_AT_50)
    frame = drawn_frame(6)
    for label in range(4):
        own = breakdown(frame, "abcd")["classes"][label]
        assert precision_recall(frame, label=label).average_precision == pytest.approx(own["ap50"], abs=1e-6)


def test_a_curve_without_objects_is_empty() -> None:
    curve = precision_recall(BY_HAND, label=1)
    assert (len(curve.recall), curve.objects) == (0, 0) and np.isnan(curve.average_precision)
    missed = precision_recall(frame_of([[(A, 0)]], [[]]), label=0)
    assert (len(missed.recall), missed.average_precision) == (0, 0.0)


def test_a_breakdown_counts_and_names_classes_and_sizes_and_is_json() -> None:
    frame = drawn_frame(8, masks=True)
    parts = breakdown(frame, "abcde")
    assert json.loads(json.dumps(parts, allow_nan=False)) == parts
    assert (parts["scenes"], parts["empty"]) == (40, sum(not labels for labels in frame["true_labels"]))
    assert [own["name"] for own in parts["sizes"]] == ["small", "medium", "large"]
    counted = sum(own["objects"] for own in parts["classes"])
    assert counted == sum(own["objects"] for own in parts["sizes"]) > 50
    rare = parts["classes"][4]
    assert (rare["objects"], rare["ap"], rare["mask_ap75"]) == (0, None, None)
    scores = scored(frame, "abcde")
    for key in KEYS[:6]:  # the class without objects is left out of the mean
        values = [own[key] for own in parts["classes"][:4]]
        assert np.mean(values) == pytest.approx(scores[key].value, abs=1e-9)
    assert 0 < parts["recall"]["1"] < parts["recall"]["100"] <= 100
    assert parts["mask_recall"]["100"] > 0 and parts["sizes"][2]["mask_ap"] > 0 and parts["sizes"][2]["ar"] > 0


def test_300_scenes_are_scored_in_a_few_seconds() -> None:
    frame = drawn_frame(0, scenes=300, classes=10)
    start = time.process_time()
    scores = scored(frame, "abcdefghij", "voc")
    assert scores["ap"].low is not None and time.process_time() - start < 8
