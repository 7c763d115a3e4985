"""Batches of scenes for a detector: which scenes, at which size, mirrored or not, by (seed, iteration) alone.

Scenes with nothing to learn from (no object, or crowds only) are left out. Batches hold scenes of one orientation as
far as possible, so that little is padded. Each of several processes draws for the whole batch and reads its own part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.dataset import Pixels
from bench.data.detection import ArrayScenes, DetectionSubset, Scenes, SomeScenes
from bench.data.pixels import planes, unit
from bench.detection.detector import Scene
from bench.detection.recipes import DetectionRecipe
from bench.detection.resizing import (
    Mask,
    Size,
    factors,
    flip_boxes,
    flip_mask,
    read_mask,
    resize_mask,
    resize_pixels,
    resized_size,
)
from bench.errors import DataError, SpecError
from bench.training.distributed import process_count, process_rank
from bench.training.randomness import stream

THREADS = 4
"""That decode files; Pillow lets others run meanwhile."""
BATCHES_AHEAD = 2
HELD_BYTES = 2**30
"""Scenes of files are kept in memory after the first reading, up to this size: each is read in every epoch."""

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Draw:
    """What becomes of one scene of a batch: its row, its shorter side (0: as it is), whether it is mirrored."""

    row: int
    side: int
    flip: bool


@dataclass(frozen=True)
class Prepared:
    """A scene on the CPU as it will be seen: pixels (H, W, C) as stored, boxes (n, 4), labels (n,), masks."""

    pixels: Pixels
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: tuple[Mask, ...]

    def to(self, device: str) -> Scene:
        """The same for a detector; the pixels travel as they are stored."""
        return Scene(
            pixels=unit(planes(self.pixels[None]).to(device))[0],
            boxes=torch.from_numpy(self.boxes).to(device, torch.float32),
            labels=torch.from_numpy(self.labels).to(device),
            masks=self.masks,
        )


class SceneReader:
    """Pixels of the scenes of a split, decoded ahead of their use and kept where they are few."""

    def __init__(self, scenes: Scenes) -> None:
        self.scenes = scenes
        self.sizes = scenes.sizes
        self.resident = isinstance(_origin(scenes), ArrayScenes)
        # Three channels at most, as far as this has to know before anything is read.
        self.keep = not self.resident and 3 * int(self.sizes.prod(axis=1).sum()) <= HELD_BYTES
        self.held: dict[int, Pixels] = {}

    def __getitem__(self, row: int) -> Pixels:
        """One scene (H, W, C)."""
        if row in self.held:
            return self.held[row]
        pixels = self.scenes[row]
        if self.keep:
            self.held[row] = pixels
        return pixels

    def each(self, make: Callable[[T], S], items: Iterable[T], *, waiting: int) -> Generator[S]:
        """``make`` of every item in order; files are decoded by threads, up to ``waiting`` items ahead."""
        if self.resident:
            yield from map(make, items)
        else:
            yield from _ahead(make, items, waiting=waiting)


def _origin(scenes: Scenes) -> Scenes:
    while isinstance(scenes, SomeScenes):
        scenes = scenes.scenes
    return scenes


def _ahead(make: Callable[[T], S], items: Iterable[T], *, waiting: int) -> Generator[S]:
    queue: deque[Future[S]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="scenes") as pool:
        try:
            for item in items:
                queue.append(pool.submit(make, item))
                if len(queue) > waiting:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            for future in queue:
                future.cancel()


def index_batches(wide: NDArray[np.bool_], size: int, *, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows (size,) of one batch after the other, without end.

    Every epoch permutes all rows. Wide and other scenes fill batches of their own; what is left of both at the end of
    an epoch is joined, and begins a mixed batch of the next one where it does not fill one.

    Args:
        wide: (n,) whether each scene is wider than high.
        size: of the whole batch.
        seed: of the permutations.
    """
    rest: list[int] = []
    epoch = 0
    while True:
        groups: dict[bool, list[int]] = {True: [], False: []}
        for row in torch.randperm(len(wide), generator=stream("detection order", seed, epoch)).tolist():
            group = groups[bool(wide[row])]
            group.append(row)
            if len(group) == size:
                yield np.array(group)
                group.clear()
        rest += groups[True] + groups[False]
        while len(rest) >= size:
            yield np.array(rest[:size])
            del rest[:size]
        epoch += 1


class SceneBatches:
    """The training scenes of a split, as batches.

    Args:
        subset: of training scenes.
        recipe: sizes, flips and the batch.
        seed: of every draw.
        device: holds the pixels of a batch.

    Attributes:
        rows: (n,) scenes that have an object to learn from.
        own: scenes of a batch that this process reads.

    Raises:
        SpecError: the batch cannot be divided over the processes.
        DataError: no scene has an object to learn from.
    """

    def __init__(self, subset: DetectionSubset, recipe: DetectionRecipe, *, seed: int, device: str) -> None:
        if recipe.batch_size % process_count():
            raise SpecError(
                f"detection: {process_count()} processes cannot share batches of {recipe.batch_size} scenes equally. "
                f"Choose a batch_size that is a multiple of {process_count()}."
            )
        self.recipe, self.seed, self.device = recipe, seed, device
        self.own = recipe.batch_size // process_count()
        self.reader = SceneReader(subset.scenes)
        objects = subset.objects
        limits = np.tile(self.reader.sizes[objects.scene][:, ::-1], 2)  # (M, 4): width, height, width, height
        boxes = np.clip(objects.boxes, 0, limits)
        area = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
        self.objects = objects[~objects.crowd & (area > 0)]
        self.rows = np.unique(self.objects.scene)
        if not len(self.rows):
            raise DataError(
                f"detection: none of the {len(subset)} training scenes has an object to learn from. "
                "Add annotations, or choose another dataset."
            )

    def starting_at(self, iteration: int) -> Generator[list[Scene]]:
        """This process's part of every batch from ``iteration`` on, counted from 0, on the device, without end.

        Close the generator to end the threads that decode ahead.

        Raises:
            DataError: a file cannot be read; the message names it.
        """
        made = self.reader.each(self.prepare, self._draws(iteration), waiting=BATCHES_AHEAD * self.own)
        try:
            while batch := list(islice(made, self.own)):
                yield [scene.to(self.device) for scene in batch]
        finally:
            made.close()

    def _draws(self, start: int) -> Iterator[Draw]:
        sizes = self.reader.sizes[self.rows]
        batches = index_batches(sizes[:, 1] > sizes[:, 0], self.recipe.batch_size, seed=self.seed)
        for iteration, batch in enumerate(islice(batches, start, None), start):
            sides, flips = self._chances(iteration)
            own = slice(process_rank() * self.own, (process_rank() + 1) * self.own)
            for row, side, flip in zip(self.rows[batch][own], sides[own], flips[own], strict=True):
                yield Draw(int(row), side, flip)

    def _chances(self, iteration: int) -> tuple[list[int], list[bool]]:
        """Shorter sides and flips of the whole batch."""
        recipe, count = self.recipe, self.recipe.batch_size
        generator = stream("detection scenes", self.seed, iteration)
        flips = (torch.rand(count, generator=generator) < recipe.flip).tolist()
        if not recipe.sides:
            return [0] * count, flips
        if recipe.side_sampling == "range":
            low, high = min(recipe.sides), max(recipe.sides)
            return torch.randint(low, high + 1, (count,), generator=generator).tolist(), flips
        drawn = torch.randint(len(recipe.sides), (count,), generator=generator).tolist()
        return [recipe.sides[index] for index in drawn], flips

    def prepare(self, draw: Draw) -> Prepared:
        """One scene as drawn."""
        pixels = self.reader[draw.row]
        objects = self.objects.of(draw.row)
        before: Size = pixels.shape[0], pixels.shape[1]
        after = resized_size(before, side=draw.side, longest=self.recipe.longest)
        height, width = before
        boxes = np.clip(objects.boxes, 0, [width, height, width, height]) * factors(before, after)
        pixels = resize_pixels(pixels, after)
        masks: tuple[Mask, ...] = ()
        if self.recipe.masks:
            masks = tuple(resize_mask(read_mask(text), before, after) for text in objects.masks)
        if draw.flip:
            pixels, boxes = pixels[:, ::-1], flip_boxes(boxes, after[1])
            masks = tuple(flip_mask(mask, after[1]) for mask in masks)
        return Prepared(pixels, boxes, objects.labels, masks)


def evaluation_scenes(
    subset: DetectionSubset, recipe: DetectionRecipe, rows: Iterable[int], *, device: str
) -> Generator[tuple[Scene, Size]]:
    """Scenes of a split one by one at the size of evaluation, without their objects, each with its original size."""
    reader = SceneReader(subset.scenes)
    nothing = np.empty((0, 4)), np.empty(0, dtype=np.int64)

    def make(row: int) -> tuple[Prepared, Size]:
        pixels = subset.scenes[row]
        original: Size = pixels.shape[0], pixels.shape[1]
        size = resized_size(original, side=recipe.test_side, longest=recipe.test_longest)
        return Prepared(resize_pixels(pixels, size), *nothing, ()), original

    made = reader.each(make, rows, waiting=2 * THREADS)
    try:
        for prepared, original in made:
            yield prepared.to(device), original
    finally:
        made.close()
