"""Scenes with squares and triangles on which protocols that need boxes are checked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.check.battery import ContractBrokenError
from bench.data.detection import ArrayScenes, DetectionDataset, DetectionSubset, Objects, objects_of, presence
from bench.statistics.detection import detection_scores
from bench.statistics.detection_frames import objects_in

SIDE = 32
CLASSES = ("square", "triangle")
SIZES = {"train": 64, "validation": 16, "test": 24}
FRAME = ("found_boxes", "found_scores", "found_labels", "true_boxes", "true_labels", "true_crowd", "true_difficult")


@dataclass(frozen=True, kw_only=True)
class RecordingScenes(DetectionDataset):
    """Scenes that note which splits were read, in order."""

    reads: list[str] = field(default_factory=list)

    def split(self, name: str) -> DetectionSubset:
        self.reads.append(name)
        return super().split(name)


def synthetic_scenes() -> RecordingScenes:
    """Up to three bright shapes on noise in each scene of 32 x 32 pixels, with masks; a few are difficult."""
    rng = np.random.default_rng(0)
    total = sum(SIZES.values())
    pixels = rng.normal(60, 15, (total, SIDE, SIDE))
    scenes, boxes, labels, masks = [], [], [], []
    for scene in range(total):
        for _ in range(int(rng.integers(0, 4))):
            side, label = int(rng.integers(8, 15)), int(rng.integers(0, len(CLASSES)))
            left, top = (int(rng.integers(0, SIDE - side)) for _ in range(2))
            # A triangle stands on its left and lower sides.
            shape = np.tri(side, dtype=bool) if label else np.ones((side, side), dtype=bool)
            pixels[scene, top : top + side, left : left + side][shape] = rng.uniform(150, 220)
            corners = [left, top, left, top + side, left + side, top + side, *([] if label else [left + side, top])]
            scenes.append(scene)
            boxes.append((left, top, left + side, top + side))
            labels.append(label)
            masks.append(json.dumps([corners]))
    difficult = (rng.random(len(scenes)) < 0.05).tolist()
    objects = objects_of(scenes, boxes, labels, difficult=difficult, masks=masks)
    images = pixels.clip(0, 255).astype(np.uint8)[..., None]
    ends = np.cumsum([0, *SIZES.values()])
    return RecordingScenes(
        key="synthetic",
        title="Synthetic scenes",
        images=images,
        labels=presence(objects, scenes=total, classes=len(CLASSES)),
        class_names=CLASSES,
        splits={name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(SIZES)},
        scenes=ArrayScenes(images),
        objects=objects,
        layout="voc",
    )


def other_objects(data: RecordingScenes) -> RecordingScenes:
    """The same scenes, with other objects in those of the test split: elsewhere, of the other class, without masks'
    shapes."""
    objects = data.objects
    moved = np.isin(objects.scene, data.splits["test"])
    boxes, labels = objects.boxes.copy(), objects.labels.copy()
    boxes[moved] = SIDE - boxes[moved][:, [2, 3, 0, 1]]  # turned by half
    labels[moved] = (labels[moved] + 1) % len(CLASSES)
    masks = tuple(
        json.dumps([[left, top, left, bottom, right, bottom, right, top]]) if is_moved else mask
        for mask, (left, top, right, bottom), is_moved in zip(objects.masks, boxes.tolist(), moved, strict=True)
    )
    others = replace(objects, boxes=boxes, labels=labels, masks=masks)
    found = presence(others, scenes=len(data.labels), classes=len(CLASSES))
    return replace(data, objects=others, labels=found, reads=[])


def check_frame(predictions: pd.DataFrame, truth: Objects, samples: NDArray[np.int64]) -> None:
    """Refuse predictions that lack a column, or that hold other objects than those of the test split.

    Args:
        predictions: of a protocol.
        truth: objects of the test split.
        samples: (n,) the index of each of its scenes in the dataset.
    """
    if missing := [name for name in FRAME if name not in predictions]:
        raise ContractBrokenError(
            f"the predictions lack {missing}, so average precision cannot be recomputed. Make them with "
            "bench.statistics.detection.detection_frame."
        )
    held = objects_in(predictions.set_index("sample").loc[samples].reset_index())
    same = (
        np.array_equal(held.scene, truth.scene)
        and np.array_equal(held.boxes, truth.boxes)
        and np.array_equal(held.labels, truth.labels)
        and np.array_equal(held.crowd | held.difficult, truth.crowd | truth.difficult)
    )
    if not same:
        raise ContractBrokenError("the predictions hold other objects than those of the test split. Keep all as is.")


def recomputed(predictions: pd.DataFrame, data: DetectionDataset, *, seed: int) -> dict[str, float]:
    """The nine metrics of detection, by key, from predictions alone."""
    scores, _ = detection_scores(predictions, data.class_names, layout=data.layout, seed=seed)
    return {score.metric.key: score.value for score in scores}
