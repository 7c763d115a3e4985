"""Segmentations in COCO's form: polygons, or the lengths of runs of background and object, column by column."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from bench.data.imaging import Size

FEWEST = 6
"""Coordinates of a polygon that has an area."""


def checked_mask(segmentation: Any, size: Size) -> tuple[str, float]:
    """The segmentation as JSON, and its area in square pixels; without polygons that have none.

    Args:
        segmentation: as the file has it: ``[[x, y, x, y, …], …]`` or ``{"size": …, "counts": …}``.
        size: height and width of the scene.

    Raises:
        ValueError: it is neither, or does not fit the scene; the message says why.
    """
    if isinstance(segmentation, dict):
        return _checked_runs(segmentation, size)
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        raise ValueError("the segmentation is neither polygons nor run lengths")
    for polygon in segmentation:
        if len(polygon) % 2 or not all(isinstance(v, int | float) and math.isfinite(v) for v in polygon):
            raise ValueError("a polygon is no list of pairs of numbers")
    polygons = [polygon for polygon in segmentation if len(polygon) >= FEWEST]
    return json.dumps(polygons, separators=(",", ":")), sum(map(polygon_area, polygons))


def _checked_runs(segmentation: dict[str, Any], size: Size) -> tuple[str, float]:
    told, counts = segmentation.get("size"), segmentation.get("counts")
    if told != list(size):
        raise ValueError(f"its run lengths are for {told} (height, width), the image has {list(size)}")
    if not isinstance(counts, str | list):
        raise ValueError("its run lengths have no counts")
    runs = run_lengths(counts) if isinstance(counts, str) else counts
    if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != size[0] * size[1]:
        raise ValueError(f"its run lengths do not add up to the {size[0] * size[1]} pixels of the image")
    kept = {"size": told, "counts": counts}
    return json.dumps(kept, separators=(",", ":")), float(sum(runs[1::2]))


def run_lengths(text: str) -> list[int]:
    """The run lengths that COCO's compressed form stands for.

    Each is written in groups of five bits, the lowest first, as characters from ``0`` on; a sixth bit says that another
    group follows, and the last group's highest bit is the sign. From the fourth on, the difference from the run two
    before is written.

    Raises:
        ValueError: a character is none of these, or the text ends within a number.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"its compressed run lengths have the character {character!r}")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("its compressed run lengths end within a number")
    return runs


def polygon_area(polygon: Sequence[float]) -> float:
    """Area in square pixels by the shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    pairs = zip(x, y, [*x[1:], x[0]], [*y[1:], y[0]], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in pairs)) / 2
