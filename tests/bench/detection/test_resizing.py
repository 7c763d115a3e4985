"""Sizes, boxes and masks of scenes that are made larger or smaller."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from bench.detection.detector import Found
from bench.detection.resizing import (
    decoded,
    encoded,
    factors,
    flip_boxes,
    flip_mask,
    found_at,
    read_mask,
    resize_mask,
    resize_pixels,
    resized_size,
)


@pytest.mark.parametrize(
    ("size", "side", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((375, 500), 800, 1333, (800, 1067)),
        ((300, 900), 800, 1333, (444, 1333)),
        ((640, 480), 240, 0, (320, 240)),
        ((480, 640), 0, 0, (480, 640)),
        ((480, 640), 0, 320, (240, 320)),
        ((480, 640), 0, 1333, (480, 640)),
        ((2, 1000), 0, 100, (1, 100)),
    ],
)
def test_the_shorter_side_is_as_asked_unless_the_longer_one_exceeds_its_limit(
    size: tuple[int, int], side: int, longest: int, expected: tuple[int, int]
) -> None:
    assert resized_size(size, side=side, longest=longest) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_resized_by_pillow(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels)).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).resize((11, 9), Image.Resampling.BILINEAR)
    found = resize_pixels(pixels, (9, 11))
    assert found.shape == (9, 11, channels) and np.array_equal(found.squeeze(), np.asarray(image))
    assert resize_pixels(pixels, (20, 30)) is pixels


def test_sixteen_bits_stay_sixteen_bits() -> None:
    pixels = np.full((8, 8, 1), 40_000, dtype=np.uint16)
    found = resize_pixels(pixels, (4, 6))
    assert found.dtype == np.uint16 and found.shape == (4, 6, 1) and (found == 40_000).all()


def test_factors_are_those_of_the_real_sizes() -> None:
    assert factors((375, 500), (800, 1067)).tolist() == [1067 / 500, 800 / 375] * 2


def test_boxes_are_mirrored_about_the_middle() -> None:
    assert flip_boxes(np.array([[1.0, 2.0, 4.0, 9.0]]), 10).tolist() == [[6.0, 2.0, 9.0, 9.0]]


def rectangle_mask() -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros((6, 10), dtype=np.bool_)
    mask[1:3, 2:5] = True
    return mask


def test_run_lengths_are_read_packed_and_as_lists_and_written() -> None:
    mask = rectangle_mask()
    columns = mask.T.ravel()
    changes = np.flatnonzero(np.diff(columns.astype(int))) + 1
    counts = np.diff([0, *changes, columns.size]).tolist()
    assert np.array_equal(read_mask(json.dumps({"size": [6, 10], "counts": counts})), mask)
    text = encoded(mask)
    assert isinstance(json.loads(text)["counts"], str) and json.loads(text)["size"] == [6, 10]
    assert np.array_equal(read_mask(text), mask)


def test_masks_scale_and_flip_along_with_their_boxes() -> None:
    large = resize_mask(rectangle_mask(), (6, 10), (12, 30))
    assert isinstance(large, np.ndarray)
    rows, columns = np.nonzero(large)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (2, 6, 6, 15)
    flipped = flip_mask(large, 30)
    assert isinstance(flipped, np.ndarray)
    assert (np.nonzero(flipped)[1].min(), np.nonzero(flipped)[1].max() + 1) == (15, 24)


def test_polygons_scale_and_flip_exactly() -> None:
    polygons = read_mask("[[2, 1, 5, 1, 5, 3]]")
    scaled = resize_mask(polygons, (6, 10), (12, 30))
    assert [polygon.tolist() for polygon in scaled] == [[6, 2, 15, 2, 15, 6]]
    assert [polygon.tolist() for polygon in flip_mask(scaled, 30)] == [[24, 2, 15, 2, 15, 6]]
    assert [polygon.tolist() for polygon in scaled] == [[6, 2, 15, 2, 15, 6]]


def test_what_was_found_goes_back_to_the_original_pixels_and_stays_inside() -> None:
    given = Found(
        boxes=np.array([[6, 2, 15, 6], [-3, 0, 31, 13]], dtype=np.float32),
        scores=np.array([0.9, 0.8], dtype=np.float32),
        labels=np.array([1, 0]),
        masks=tuple(encoded(np.kron(rectangle_mask(), np.ones((2, 3), dtype=np.bool_))) for _ in range(2)),
    )
    found = found_at(given, (12, 30), (6, 10))
    assert found.boxes.tolist() == [[2, 1, 5, 3], [0, 0, 10, 6]] and found.boxes.dtype == np.float32
    assert np.array_equal(decoded(json.loads(found.masks[0])), rectangle_mask())
    assert found.labels.tolist() == [1, 0] and found.scores is given.scores


def test_nothing_found_stays_nothing() -> None:
    empty = Found(boxes=np.empty((0, 4), np.float32), scores=np.empty(0, np.float32), labels=np.empty(0, np.int64))
    assert found_at(empty, (8, 8), (4, 4)).boxes.shape == (0, 4)
