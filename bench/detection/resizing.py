"""Scenes at another size: pixels, boxes and masks by the same factors, those of the size that really came out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import FULL_SCALE, Pixels
from bench.detection.detector import Found

Size = tuple[int, int]
"""Height and width in pixels."""
Mask = list[NDArray[np.float64]] | NDArray[np.bool_]
"""Polygons (2 m,) of x, y, x, y, … or an array (H, W)."""


def resized_size(size: Size, *, side: int, longest: int) -> Size:
    """The size whose shorter side is ``side``, or less where the longer one would exceed ``longest``.

    Args:
        size: of the scene.
        side: 0 keeps the size.
        longest: 0 sets no limit.
    """
    scale = side / min(size) if side else 1.0
    if longest:
        scale = min(scale, longest / max(size))
    if scale == 1.0:
        return size
    height, width = (max(1, int(scale * length + 0.5)) for length in size)
    return height, width


def resize_pixels(pixels: Pixels, size: Size) -> Pixels:
    """A scene (H, W, C) at another size, by Pillow's bilinear filter, which averages over what it shrinks."""
    from PIL import Image
    from PIL.Image import Resampling

    if pixels.shape[:2] == size:
        return pixels
    to = size[::-1]
    if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return np.asarray(image.resize(to, Resampling.BILINEAR)).reshape(*size, -1)
    planes = [
        np.asarray(Image.fromarray(pixels[..., c].astype(np.float32)).resize(to, Resampling.BILINEAR))
        for c in range(pixels.shape[2])
    ]
    rounded: Pixels = np.clip(np.rint(np.stack(planes, axis=-1)), 0, FULL_SCALE[pixels.dtype]).astype(pixels.dtype)
    return rounded


def factors(before: Size, after: Size) -> NDArray[np.float64]:
    """(4,): what left, top, right and bottom are multiplied by."""
    vertical, horizontal = after[0] / before[0], after[1] / before[1]
    return np.array([horizontal, vertical, horizontal, vertical])


def flip_boxes(boxes: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Boxes (n, 4) in the scene's mirror image."""
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)


def read_mask(text: str) -> Mask:
    """A segmentation in the form of COCO, from its JSON: polygons as they are, run lengths decoded."""
    form = json.loads(text)
    if isinstance(form, list):
        return [np.asarray(polygon, dtype=np.float64) for polygon in form]
    return decoded(form)


def decoded(form: dict[str, Any]) -> NDArray[np.bool_]:
    """Run lengths, packed or as a list, as an array (H, W)."""
    from faster_coco_eval.core import mask

    packed = mask.frPyObjects(form, *form["size"]) if isinstance(form["counts"], list) else form
    return np.asarray(mask.decode(packed), dtype=np.bool_)


def encoded(array: NDArray[np.bool_]) -> str:
    """An array (H, W) as packed run lengths in JSON."""
    from faster_coco_eval.core import mask

    runs = mask.encode(np.asfortranarray(array, dtype=np.uint8))
    counts = runs["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return json.dumps({"size": [int(length) for length in runs["size"]], "counts": text})


def resize_array(array: NDArray[np.bool_], size: Size) -> NDArray[np.bool_]:
    """A mask (H, W) at another size: set where at least half of what a pixel averages over is."""
    if array.shape == size:
        return array
    levels = resize_pixels(array[..., None].astype(np.uint8) * np.uint8(255), size)
    return np.asarray(levels[..., 0] >= 128)


def resize_mask(mask: Mask, before: Size, after: Size) -> Mask:
    """A mask of a scene at the scene's other size."""
    if not isinstance(mask, list):
        return resize_array(mask, after)
    horizontal, vertical = factors(before, after)[:2]
    return [polygon * np.tile([horizontal, vertical], len(polygon) // 2) for polygon in mask]


def flip_mask(mask: Mask, width: int) -> Mask:
    """A mask in the scene's mirror image."""
    if not isinstance(mask, list):
        return np.ascontiguousarray(mask[:, ::-1])
    flipped = [polygon.copy() for polygon in mask]
    for polygon in flipped:
        polygon[0::2] = width - polygon[0::2]
    return flipped


def found_at(found: Found, given: Size, original: Size) -> Found:
    """What was found in a scene of one size, in the pixels of another and within it."""
    height, width = original
    boxes = found.boxes.reshape(-1, 4) * factors(given, original)
    limits = np.array([width, height, width, height], dtype=np.float64)
    masks = found.masks
    if given != original:
        masks = tuple(encoded(resize_array(decoded(json.loads(text)), original)) for text in found.masks)
    return Found(
        boxes=np.clip(boxes, 0, limits).astype(np.float32), scores=found.scores, labels=found.labels, masks=masks
    )
