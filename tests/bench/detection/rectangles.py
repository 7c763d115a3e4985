"""Scenes with colored rectangles, and detectors small enough to follow by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bench.data.detection import ArrayScenes, DetectionDataset, Objects, Scenes, objects_of, presence
from bench.detection.detector import Built, Detector, Found, Scene, Task
from bench.detection.recipes import DetectionRecipe, find_recipe
from bench.encoders.convnet import convnet
from bench.encoders.encoder import Encoder

COLORS = np.array([[220, 40, 40], [40, 200, 60], [50, 60, 230]], dtype=np.uint8)
CLASSES = ("red", "green", "blue")


def rectangles(count: int, *, side: int = 64, seed: int = 0) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Objects]:
    """Noisy gray scenes (n, side, side, 3), each with a rectangle or two."""
    draw = np.random.default_rng(seed)
    images = draw.integers(90, 130, (count, side, side, 3)).astype(np.uint8)
    scenes, boxes, labels = [], [], []
    for index in range(count):
        for _ in range(draw.integers(1, 3)):
            label = int(draw.integers(3))
            height, width = draw.integers(side // 4, side // 2, 2)
            top, left = draw.integers(0, side - height), draw.integers(0, side - width)
            images[index, top : top + height, left : left + width] = COLORS[label]
            scenes.append(index)
            boxes.append([left, top, left + width, top + height])
            labels.append(label)
    return images, objects_of(scenes, boxes, labels)


def dataset(
    sizes: tuple[int, int, int] = (12, 4, 4),
    *,
    objects: Objects | None = None,
    scenes: Scenes | None = None,
    **how: Any,
) -> DetectionDataset:
    """The rectangles as a dataset, or other scenes and objects, split by these sizes."""
    ends = np.cumsum([0, *sizes])
    images, own = rectangles(int(ends[-1]), **how)
    own = own if objects is None else objects
    return DetectionDataset(
        key="rectangles",
        title="Rectangles",
        images=images,
        labels=presence(own, scenes=len(images), classes=3),
        class_names=CLASSES,
        splits={name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(("train", "validation", "test"))},
        scenes=ArrayScenes(images) if scenes is None else scenes,
        objects=own,
        layout="coco",
    )


def encoder_of(module: nn.Module | None = None, *, channels: int = 3, width: int = 32) -> Encoder:
    """A small convolutional network, with the same weights each time, or another module."""
    if module is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = convnet(channels, width=8)
    return Encoder(
        module=module.eval(),
        feature_dim=width,
        channels=channels,
        image_size=(64, 64),
        mean=(0.45,) * channels,
        std=(0.25,) * channels,
        origin="a test",
        identity="0",
    )


def recipe(**changes: Any) -> DetectionRecipe:
    """A short one with a rate of 0.01 for batches of 4."""
    own: dict[str, Any] = {"iterations": 12, "batch_size": 4, "reference_batch": 4, "lr": 0.01, "warmup": 0}
    return replace(find_recipe("small"), **(own | changes))


def task(given: DetectionRecipe | None = None, *, frozen: bool = False, encoder: Encoder | None = None) -> Task:
    return Task(
        encoder=encoder or encoder_of(),
        class_names=CLASSES,
        recipe=given or recipe(),
        frozen=frozen,
        device="cpu",
    )


class Toy(Detector):
    """One convolution that says which colors occur; its loss is a mean over scenes. It finds one box per scene.

    Attributes:
        steps: losses that were asked for.
        watch: called with every batch.
    """

    def __init__(self, *, norm: bool = True, dropout: float = 0.3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.ReLU(), nn.Dropout(dropout)
            )
            self.head = nn.Linear(6, 3)
        self.steps = 0
        self.finished_with: list[Sequence[Scene]] = []
        self.watch: Callable[[Sequence[Scene]], None] = lambda scenes: None

    def logits(self, scenes: Sequence[Scene]) -> Tensor:
        images = torch.cat([interpolate(scene.pixels[None], size=(16, 16)) for scene in scenes])
        logits: Tensor = self.head(self.layers(images.to(self.head.weight.dtype)).mean(dim=(2, 3)))
        return logits

    def losses(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        assert self.training
        self.steps += 1
        self.watch(scenes)
        logits = self.logits(scenes)
        there = torch.zeros_like(logits)
        for row, scene in enumerate(scenes):
            there[row, scene.labels] = 1
        return {
            "presence": nn.functional.binary_cross_entropy_with_logits(logits, there),
            "size": 0.1 * logits.square().mean(),
        }

    def detect(self, scenes: Sequence[Scene]) -> list[Found]:
        assert not self.training and not torch.is_grad_enabled()
        found = []
        for scene in scenes:
            height, width = scene.pixels.shape[1:]
            score, label = self.logits([scene])[0].sigmoid().max(dim=0)
            found.append(
                Found(
                    boxes=np.array([[0, 0, width, height]], dtype=np.float32),
                    scores=np.array([score], dtype=np.float32),
                    labels=np.array([label], dtype=np.int64),
                )
            )
        return found

    def finish(self, batches: Callable[[int], Iterable[Sequence[Scene]]]) -> None:
        self.finished_with = list(batches(2))


def built(detector: Detector) -> Built:
    return Built(detector=detector, details={"made_by": "a test"})
