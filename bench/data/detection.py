"""A dataset of scenes: images of any size with objects in them, that is boxes, classes and, where known, masks.

It is an :class:`~bench.data.dataset.ImageDataset` too: its ``images`` are the scenes as squares of one size, on which
methods pre-train, and its labels are findings: which classes occur in a scene.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import UNCERTAIN, ImageDataset, Pixels, Subset
from bench.data.imaging import read_scene

Layout = Literal["voc", "coco"]


@dataclass(frozen=True, kw_only=True)
class Objects:
    """Objects of many scenes, one row each, in the order of their scenes.

    Attributes:
        scene: (M,) int64, ascending: the index of each object's scene.
        boxes: (M, 4) float64: left, top, right, bottom in pixels of the scene; pixel i covers the interval [i, i + 1].
        labels: (M,) int64 classes.
        crowd: (M,) bool: a region of many objects. It trains nothing, and what is found in it does not count.
        difficult: (M,) bool: trains like others; finding it does not count, nor does missing it.
        areas: (M,) float64 in square pixels: of the mask where there is one, else of the box.
        masks: M segmentations in the form of COCO, as JSON: polygons ``[[x, y, x, y, …], …]``, or run lengths
            ``{"size": [height, width], "counts": …}``; empty where the set has no masks.
    """

    scene: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    areas: NDArray[np.float64]
    masks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Objects:
        """These objects, with the scene indices that they have."""
        chosen = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.arange(len(self))[rows]
        return Objects(
            scene=self.scene[chosen],
            boxes=self.boxes[chosen],
            labels=self.labels[chosen],
            crowd=self.crowd[chosen],
            difficult=self.difficult[chosen],
            areas=self.areas[chosen],
            masks=tuple(self.masks[row] for row in chosen) if self.masks else (),
        )

    def of(self, scene: int) -> Objects:
        """Those of one scene."""
        first, last = np.searchsorted(self.scene, [scene, scene + 1])
        return self[slice(int(first), int(last))]

    def of_scenes(self, scenes: NDArray[np.int64]) -> Objects:
        """Those of some scenes, which are numbered 0, 1, … in this order."""
        first, last = np.searchsorted(self.scene, scenes), np.searchsorted(self.scene, scenes, side="right")
        ranges = [np.arange(a, b) for a, b in zip(first, last, strict=True)]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *ranges])
        return replace(self[rows], scene=np.repeat(np.arange(len(scenes)), last - first))

    def digest(self) -> str:
        """SHA-256 over everything."""
        digest = hashlib.sha256("\0".join(self.masks).encode())
        for array in (self.scene, self.boxes, self.labels, self.crowd, self.difficult, self.areas):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class Scenes(Protocol):
    """Images of any sizes, read one at a time."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N, 2): height and width of each in pixels."""

    @property
    def names(self) -> tuple[str, ...]:
        """What messages and pages call each: the path of its file below the folder of data, or its number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Pixels:
        """One scene (H, W, C), uint8 or uint16."""

    def contents(self) -> Iterator[bytes]:
        """What decides the pixels, for a fingerprint; nothing where these scenes are the dataset's ``images``."""


@dataclass(frozen=True)
class ArrayScenes:
    """Scenes of one size in memory, which are the dataset's ``images`` at the same time."""

    images: Pixels

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.tile(np.array(self.images.shape[1:3], dtype=np.int64), (len(self.images), 1))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"scene {index}" for index in range(len(self.images)))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pixels:
        pixels: Pixels = self.images[index]
        return pixels

    def contents(self) -> Iterator[bytes]:
        return iter(())


@dataclass(frozen=True)
class SceneFiles:
    """Scenes that stay in their files until they are read.

    Attributes:
        root: the folder below which the files are.
        names: their paths below it.
        sizes: (N, 2) height and width of each, as its annotation tells; an image of another size is an error.
        channels: 1 or 3, to which every file is converted.
    """

    root: Path
    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    channels: int

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Pixels:
        height, width = self.sizes[index].tolist()
        return read_scene(self.root / self.names[index], self.channels, (height, width))

    def contents(self) -> Iterator[bytes]:
        return ((self.root / name).read_bytes() for name in self.names)


@dataclass(frozen=True)
class Dropped:
    """An object that its file describes and the set leaves out.

    Attributes:
        scene: index of its scene.
        text: file, object and reason.
    """

    scene: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class SomeScenes:
    """Some of the scenes of a set."""

    scenes: Scenes
    rows: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        return self.scenes.sizes[self.rows]

    @property
    def names(self) -> tuple[str, ...]:
        every = self.scenes.names
        return tuple(every[row] for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Pixels:
        return self.scenes[int(self.rows[index])]

    def contents(self) -> Iterator[bytes]:
        raise NotImplementedError("Only a whole set has a fingerprint.")


@dataclass(frozen=True, kw_only=True)
class DetectionSubset(Subset):
    """The scenes of one split.

    Attributes:
        scenes: n images of any size.
        objects: their objects; ``objects.scene`` counts the scenes of this split from 0.
    """

    scenes: Scenes
    objects: Objects

    def __getitem__(self, rows: NDArray[np.int64]) -> DetectionSubset:
        chosen = super().__getitem__(rows)
        return DetectionSubset(
            images=chosen.images,
            labels=chosen.labels,
            samples=chosen.samples,
            metadata=chosen.metadata,
            scenes=SomeScenes(self.scenes, rows),
            objects=self.objects.of_scenes(rows),
        )


@dataclass(frozen=True, kw_only=True)
class DetectionDataset(ImageDataset):
    """Scenes with objects and fixed splits.

    Attributes:
        scenes: N images of any size, in the order of ``images``.
        objects: of all scenes.
        layout: whose rules of evaluation the set knows: VOC's ``difficult`` and 11 points, or COCO's.
        dropped: objects that were left out because nothing can be learned from them.
        remarks: what else the loader left out, in words.
    """

    scenes: Scenes
    objects: Objects
    layout: Layout
    dropped: tuple[Dropped, ...] = ()
    remarks: tuple[str, ...] = ()

    def _subset(self, index: NDArray[np.int64]) -> DetectionSubset:
        plain = super()._subset(index)
        return DetectionSubset(
            images=plain.images,
            labels=plain.labels,
            samples=plain.samples,
            metadata=plain.metadata,
            scenes=SomeScenes(self.scenes, index),
            objects=self.objects.of_scenes(index),
        )

    def split(self, name: str) -> DetectionSubset:
        """The scenes of ``train``, ``validation`` or ``test``."""
        return self._subset(self.splits[name])

    @cached_property
    def kept_digest(self) -> str:
        return self.digest(self._blocks(np.arange(len(self.labels))), whole=False)

    def digest(self, blocks: Iterable[Pixels], *, whole: bool = True) -> str:
        digest = hashlib.sha256(f"{super().digest(blocks)} {self.objects.digest()} {self.layout}".encode())
        digest.update(np.ascontiguousarray(self.scenes.sizes).data)
        for content in self.scenes.contents() if whole else ():
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()


def presence(objects: Objects, *, scenes: int, classes: int) -> NDArray[np.int64]:
    """Findings (N, K) of scenes: 1 where an object of the class is, uncertain where all such are difficult, else 0."""
    labels = np.zeros((scenes, classes), dtype=np.int64)
    labels[objects.scene[objects.difficult], objects.labels[objects.difficult]] = UNCERTAIN
    sure = ~objects.difficult
    labels[objects.scene[sure], objects.labels[sure]] = 1
    return labels


def objects_of(
    scenes: Sequence[int],
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    crowd: Sequence[bool] = (),
    difficult: Sequence[bool] = (),
    areas: Sequence[float] = (),
    masks: Sequence[str] = (),
) -> Objects:
    """Objects from lists, in any order of scenes; what is left out is False, the box's area, or no mask."""
    order = np.argsort(np.asarray(scenes, dtype=np.int64), kind="stable")
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    count = len(order)
    sizes = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return Objects(
        scene=np.asarray(scenes, dtype=np.int64)[order],
        boxes=corners[order],
        labels=np.asarray(labels, dtype=np.int64).reshape(count)[order],
        crowd=np.asarray(crowd or [False] * count, dtype=np.bool_)[order],
        difficult=np.asarray(difficult or [False] * count, dtype=np.bool_)[order],
        areas=np.asarray(areas or sizes, dtype=np.float64)[order],
        masks=tuple(masks[row] for row in order) if masks else (),
    )
