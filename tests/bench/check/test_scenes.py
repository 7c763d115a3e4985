"""The protocol battery on scenes with boxes: what is sound passes, and each breach is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from faster_coco_eval import mask

from bench.check.agreement import close_columns, equal_frames, lasting
from bench.check.scenes import other_objects, synthetic_scenes
from bench.data.detection import presence
from bench.statistics.detection_frames import run_lengths

from .plugins import SCENES, broken_source, protocol_results


def test_a_sound_protocol_of_boxes_passes_and_prints_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = protocol_results(tmp_path, SCENES)
    assert [result for result in results if not result.ok] == [] and len(results) == 12
    assert capsys.readouterr() == ("", "")


BREACHES = {
    "a test split that is read first": (
        "        train, validation = data",
        '        data.split("test")\n        train, validation = data',
        "read once",
        r"\['test', 'train', 'validation', 'test'\]",
    ),
    "boxes of the test split that are handed out": (
        "        frame = detection_frame",
        "        found = [\n"
        "            Found(boxes=own.boxes.astype(np.float32), scores=np.ones(len(own)), labels=own.labels)\n"
        "            for own in (test.objects.of(index) for index in range(len(test)))\n"
        "        ]\n        frame = detection_frame",
        "change neither",
        "the predicted classes differ: they were used in the fit",
    ),
    "the most frequent class of the test split": (
        "        found = [around",
        "        label = int(np.bincount(test.objects.labels).argmax())\n        found = [around",
        "change neither",
        "the predicted classes differ",
    ),
    "a choice on the test split": (
        '            "level": level,',
        '            "level": level, "best": float(scores[0].value),',
        "change neither",
        "the details differ",
    ),
    "a level that follows from how many scenes are tested": (
        "        found = [around",
        "        level = 4.0 * len(test)\n        found = [around",
        "does not depend on which others",
        "with half of the test images, 'found_(boxes|scores)' of the others changes",
    ),
    "scores that the frame does not give": (
        "        details =",
        "        from dataclasses import replace\n"
        "        scores = (replace(scores[0], value=99.0, high=100.0), *scores[1:])\n        details =",
        "follow from the predictions",
        "ap is 99.0, the predictions give",
    ),
    "frames without what was found": (
        "predictions=frame,",
        'predictions=frame.drop(columns="found_scores"),',
        "every test sample once",
        r"lack \['found_scores'\], so average precision cannot be recomputed",
    ),
    "frames that leave objects out": (
        "predictions=frame,",
        "predictions=frame.assign(true_difficult=[[True for _ in own] for own in frame['true_labels']]),",
        "every test sample once",
        "other objects than those of the test split",
    ),
    "frames that move objects": (
        "predictions=frame,",
        "predictions=frame.assign(true_boxes=[[v + 1 for v in own] for own in frame['true_boxes']]),",
        "every test sample once",
        "other objects than those of the test split",
    ),
    "NaN without a reason": (
        "if key in undefined}",
        "if key in undefined and False}",
        "interval",
        "'mask_ap' is NaN. Say why",
    ),
    "a draw that no seed decides": (
        "    score = [len(rows) / pixels.size]",
        "    score = [np.random.default_rng().random()]",
        "same seed",
        "two evaluations with one seed",
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_found(breach: str, tmp_path: Path) -> None:
    old, new, name, message = BREACHES[breach]
    failures = [result for result in protocol_results(tmp_path, broken_source(SCENES, old, new)) if not result.ok]
    found = [result for result in failures if name in result.name]
    assert found, failures
    assert re.search(message, found[0].message), found[0].message


def test_the_scenes_hold_shapes_of_both_classes_and_some_scenes_none() -> None:
    data = synthetic_scenes()
    objects, total = data.objects, len(data.labels)
    assert data.images.shape == (104, 32, 32, 1) and set(objects.labels.tolist()) == {0, 1}
    assert 0 < total - len(np.unique(objects.scene)) < total / 2 and objects.difficult.any()
    bright = [
        data.images[scene, int(top) : int(bottom), int(left) : int(right)].mean()
        for scene, (left, top, right, bottom) in zip(objects.scene, objects.boxes, strict=True)
    ]
    assert np.mean(bright) > data.images[:].mean() + 40
    areas = {0: 1.0, 1: 0.5}
    sizes = np.tile([32, 32], (len(objects), 1))
    for label, box, own in zip(objects.labels, objects.boxes, run_lengths(objects.masks, sizes), strict=True):
        extent = float((box[2:] - box[:2]).prod())
        assert mask.area(own) == pytest.approx(areas[int(label)] * extent, rel=0.15)


def test_other_objects_of_the_test_split_are_elsewhere_of_another_class_and_the_rest_stay() -> None:
    data = synthetic_scenes()
    other = other_objects(data)
    for name in ("train", "validation"):
        assert data.split(name).objects.digest() == other.split(name).objects.digest()
    before, after = data.split("test").objects, other.split("test").objects
    assert (before.labels != after.labels).all() and (before.boxes != after.boxes).any(axis=1).mean() > 0.9
    assert (after.boxes >= 0).all() and (after.boxes <= 32).all()
    assert (after.boxes[:, 2:] - after.boxes[:, :2] == before.boxes[:, 2:] - before.boxes[:, :2]).all()
    np.testing.assert_array_equal(other.labels, presence(other.objects, scenes=104, classes=2))
    np.testing.assert_array_equal(other.images, data.images)
    assert other.reads == ["train", "validation", "test"]


def test_times_and_memory_of_any_depth_are_no_details_that_last() -> None:
    details = {"lr": 1, "seconds": 2.0, "curve": [{"loss": 3, "seconds": 4.0, "memory_mb": 5.0}], "pair": (6, 7)}
    assert lasting(details) == {"lr": 1, "curve": [{"loss": 3}], "pair": [6, 7]}


def test_lists_of_numbers_agree_up_to_rounding_and_everything_else_exactly() -> None:
    frame = pd.DataFrame({"boxes": [[1.0, 2.0], []], "labels": [[1, 2], []], "name": ["a", "b"], "number": [0.5, 1.5]})
    assert equal_frames(frame, frame.assign(boxes=[[1.0, 2.0 + 1e-6], []]))
    for change in (
        {"boxes": [[1.0, 2.1], []]},
        {"boxes": [[1.0], []]},
        {"boxes": [[1.0, 2.0], [5.0]]},
        {"labels": [[1, 3], []]},
        {"name": ["a", "c"]},
        {"number": [0.5, 1.5 + 1e-9]},
    ):
        assert not equal_frames(frame, frame.assign(**change)), change
    assert not equal_frames(frame, frame[:1])
    assert close_columns(frame["number"], frame["number"] + 1e-6)
