"""The frame of detections holds scenes, objects and what was found, survives the store, and refuses nonsense."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.dataset import Pixels
from bench.data.detection import ArrayScenes, DetectionSubset, objects_of, presence
from bench.detection.detector import Found
from bench.errors import JobError
from bench.statistics.detection import breakdown, detection_frame, detection_scores
from bench.statistics.detection_frames import detections_in, objects_in, patients_in, sizes_in
from bench.store import Store

from .scenes import drawn_frame, lengths

BOX = (2.0, 3.0, 12.0, 13.0)
SQUARE = [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]]


def subset_of(images: Pixels, *, masks: bool = False, patients: tuple[str, ...] = ()) -> DetectionSubset:
    """Three scenes: with two objects, with none, with a difficult one and a crowd."""
    objects = objects_of(
        [0, 0, 2, 2],
        [BOX, (0, 0, 8, 4), (1, 1, 5, 5), (5.25, 5, 9, 9)],
        [0, 1, 1, 0],
        crowd=[False, False, False, True],
        difficult=[False, False, True, False],
        masks=[f"{SQUARE}"] * 4 if masks else [],
    )
    return DetectionSubset(
        images=images,
        labels=presence(objects, scenes=3, classes=2),
        samples=np.array([7, 8, 9]),
        metadata={"patient": np.array(patients)} if patients else {},
        scenes=ArrayScenes(images),
        objects=objects,
    )


def found_of(*, masks: bool = False) -> list[Found]:
    own = Found(
        boxes=np.array([BOX, (0.1, 0.2, 8.3, 4.4)], dtype=np.float32),
        scores=np.array([0.9, 0.3], dtype=np.float32),
        labels=np.array([0, 1]),
        masks=("{}",) * 2 if masks else (),
    )
    nothing = Found(
        boxes=np.empty((0, 4), dtype=np.float32),
        scores=np.empty(0, dtype=np.float32),
        labels=np.empty(0, dtype=np.int64),
    )
    return [own, nothing, nothing]


GRAY = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 1), dtype=np.uint8)


def test_a_frame_has_a_row_for_each_scene_with_its_objects_and_what_was_found() -> None:
    frame = detection_frame(subset_of(GRAY), found_of(), pictures=0)
    assert frame["sample"].tolist() == [7, 8, 9]
    assert frame["name"].tolist() == ["scene 0", "scene 1", "scene 2"]
    assert sizes_in(frame).tolist() == [[20, 30]] * 3
    assert frame["found_boxes"][0] == [float(np.float32(side)) for side in (*BOX, 0.1, 0.2, 8.3, 4.4)]
    assert frame["found_labels"].tolist() == [[0, 1], [], []]
    assert all(isinstance(own, list) for own in frame["found_scores"])
    assert frame["true_boxes"].tolist() == [[*BOX, 0, 0, 8, 4], [], [1, 1, 5, 5, 5.25, 5, 9, 9]]
    assert frame["true_difficult"].tolist() == [[False, False], [], [True, False]]
    assert frame["true_crowd"].tolist() == [[False, False], [], [False, True]]
    assert frame["true_areas"].tolist() == [[100, 32], [], [16, 15]]
    assert not {"found_masks", "true_masks", "patient"} & set(frame)
    assert frame["picture"].isna().all()


def test_what_is_read_from_a_frame_is_what_was_written() -> None:
    subset, found = subset_of(GRAY, masks=True, patients=("p", "p", "")), found_of(masks=True)
    frame = detection_frame(subset, found, pictures=0)
    assert objects_in(frame).digest() == subset.objects.digest()
    read = detections_in(frame)
    assert (read.scene.tolist(), read.labels.tolist(), read.masks) == ([0, 0], [0, 1], found[0].masks)
    np.testing.assert_array_equal(read.boxes, found[0].boxes.astype(np.float64))
    np.testing.assert_array_equal(read.scores, found[0].scores.astype(np.float64))
    patients = patients_in(frame)
    assert patients is not None and patients.tolist() == ["p", "p", ""]


def test_the_store_gives_back_a_frame_with_the_same_scores(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for name, frame in {"drawn": drawn_frame(0, masks=True), "bare": drawn_frame(1)}.items():
        store.write_predictions(name, frame)
        back = store.predictions(name)
        assert back is not None and isinstance(back["found_boxes"][0], np.ndarray)
        scores = [detection_scores(own, "abcd", layout="voc", seed=3) for own in (frame, back)]
        assert repr(scores[0]) == repr(scores[1])
        assert breakdown(frame, "abcd") == breakdown(back, "abcd")


def test_frames_without_a_single_detection_or_object_survive_the_store(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    frame = detection_frame(subset_of(GRAY), [found_of()[1]] * 3, pictures=1)
    store.write_predictions("nothing", frame)
    back = store.predictions("nothing")
    assert back is not None and len(detections_in(back)) == 0
    assert detection_scores(back, "ab", layout="coco", seed=0)[0][0].value == 0.0


@pytest.mark.parametrize(
    ("pixels", "mode", "size"),
    [
        (GRAY, "L", (30, 20)),
        (np.repeat(GRAY, 3, axis=3), "RGB", (30, 20)),
        (np.repeat(np.repeat(GRAY, 20, axis=1), 20, axis=2), "L", (256, 171)),
    ],
)
def test_pictures_are_kept_of_the_first_scenes_and_are_not_large(
    pixels: Pixels, mode: str, size: tuple[int, int]
) -> None:
    frame = detection_frame(subset_of(pixels), found_of(), pictures=2)
    assert [picture is None for picture in frame["picture"]] == [False, False, True]
    picture = Image.open(io.BytesIO(frame["picture"][1]))
    assert (picture.format, picture.mode, picture.size) == ("PNG", mode, size)
    if size == (30, 20):
        np.testing.assert_array_equal(np.asarray(picture).reshape(pixels[1].shape), pixels[1])


def test_pictures_of_16_bits_keep_their_brightness() -> None:
    frame = detection_frame(subset_of(GRAY.astype(np.uint16) * 257), found_of(), pictures=1)
    picture = np.asarray(Image.open(io.BytesIO(frame["picture"][0])))
    np.testing.assert_array_equal(picture, GRAY[0, :, :, 0])


@pytest.mark.parametrize(
    ("boxes", "score", "label", "message"),
    [
        ((2, 3, np.nan, 13), 0.5, 0, "scene 0: a box or score that was found is no number"),
        ((2, 3, 1, 13), 0.5, 0, "a box ends before it begins"),
        (BOX, np.inf, 0, "a box or score that was found is no number"),
        (BOX, 0.5, 2, "found class 2, but there are 2, counted from 0"),
        (BOX, 0.5, -1, "found class -1"),
    ],
)
def test_what_no_detector_can_find_is_refused(boxes: tuple[float, ...], score: float, label: int, message: str) -> None:
    wrong = Found(
        boxes=np.array([boxes], dtype=np.float32), scores=np.array([score], dtype=np.float32), labels=np.array([label])
    )
    with pytest.raises(JobError, match=message):
        detection_frame(subset_of(GRAY), [wrong, *found_of()[1:]], pictures=0)


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="3 scenes need what was found in each, got 2"):
        detection_frame(subset_of(GRAY), found_of()[:2], pictures=0)
    one = Found(boxes=np.ones((2, 4), dtype=np.float32), scores=np.ones(1, dtype=np.float32), labels=np.zeros(2, int))
    with pytest.raises(JobError, match="scene 0: 2 boxes, 1 scores, 2 labels and 0 masks"):
        detection_frame(subset_of(GRAY), [one, *found_of()[1:]], pictures=0)
    masked = Found(boxes=one.boxes, scores=np.ones(2, dtype=np.float32), labels=one.labels, masks=("{}",))
    with pytest.raises(JobError, match="2 labels and 1 masks"):
        detection_frame(subset_of(GRAY), [masked, *found_of()[1:]], pictures=0)


def test_polygons_and_run_lengths_of_either_kind_are_the_same_mask() -> None:
    from bench.statistics.detection_frames import run_lengths

    counted = {"size": [20, 30], "counts": [43, 10, 10, 10, 10, 10, 507]}
    polygon = "[[2.0, 3.0, 5.0, 3.0, 5.0, 13.0, 2.0, 13.0]]"
    sizes = np.array([[20, 30]] * 2)

    one, other = run_lengths([polygon, json.dumps(counted)], sizes)
    assert one == other
    assert run_lengths([json.dumps(lengths(SQUARE[0], 30))], np.array([[30, 30]]))[0]["size"] == [30, 30]
