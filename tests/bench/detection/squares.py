"""Scenes with bright squares on a dark ground, for detectors that are to learn something within seconds."""

from __future__ import annotations

import json

import numpy as np
import torch

from bench.data.detection import ArrayScenes, DetectionDataset, objects_of, presence
from bench.detection.detector import Scene

SIDE, WIDTH = 64, 24
COLORS = ((230, 60, 60), (60, 90, 230))


def squares(count: int = 10, *, channels: int = 3, layout: str = "coco") -> DetectionDataset:
    """``count`` scenes of 64 pixels for training, two for validation, four for the test; each has a red and a blue
    square, with masks."""
    rng = np.random.default_rng(0)
    total = count + 6
    images = rng.integers(0, 40, size=(total, SIDE, SIDE, 3), dtype=np.uint8)
    scenes, boxes, labels, masks = [], [], [], []
    for scene in range(total):
        for label, color in enumerate(COLORS):
            left, top = (int(at) for at in rng.integers(0, SIDE - WIDTH, size=2))
            images[scene, top : top + WIDTH, left : left + WIDTH] = color
            corners = [left, top, left + WIDTH, top, left + WIDTH, top + WIDTH, left, top + WIDTH]
            scenes.append(scene)
            boxes.append([left, top, left + WIDTH, top + WIDTH])
            labels.append(label)
            masks.append(json.dumps([corners]))
    objects = objects_of(scenes, boxes, labels, masks=masks)
    shown = images if channels == 3 else images.mean(axis=3, keepdims=True).astype(np.uint8)
    return DetectionDataset(
        key="squares",
        title="Squares",
        images=shown,
        labels=presence(objects, scenes=total, classes=2),
        class_names=("red", "blue"),
        splits={
            "train": np.arange(count),
            "validation": np.arange(count, count + 2),
            "test": np.arange(count + 2, total),
        },
        scenes=ArrayScenes(shown),
        objects=objects,
        layout=layout,  # type: ignore[arg-type]
    )


def as_scenes(data: DetectionDataset, split: str = "train") -> list[Scene]:
    """The scenes of a split as a detector gets them."""
    subset = data.split(split)
    found = []
    for index in range(len(subset)):
        own = subset.objects.of(index)
        found.append(
            Scene(
                pixels=torch.from_numpy(subset.scenes[index].transpose(2, 0, 1).copy()).float() / 255,
                boxes=torch.from_numpy(own.boxes).float(),
                labels=torch.from_numpy(own.labels),
                masks=tuple([np.array(polygon) for polygon in json.loads(mask)] for mask in own.masks),
            )
        )
    return found
