"""Batches of scenes: order, sizes, flips, objects, and reading ahead."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bench.data.dataset import Pixels
from bench.data.detection import DetectionSubset, SceneFiles, objects_of
from bench.detection import batches
from bench.detection.batches import SceneBatches, index_batches
from bench.detection.detector import Scene
from bench.detection.resizing import encoded
from bench.errors import DataError, SpecError

from .rectangles import COLORS, dataset, recipe


def taken(subset: DetectionSubset, count: int, *, start: int = 0, seed: int = 0, **changes: Any) -> list[list[Scene]]:
    source = SceneBatches(subset, recipe(**changes), seed=seed, device="cpu").starting_at(start)
    found = list(islice(source, count))
    source.close()
    return found


def same(one: list[list[Scene]], other: list[list[Scene]]) -> bool:
    pairs = zip((s for b in one for s in b), (s for b in other for s in b), strict=True)
    return all(
        a.pixels.shape == b.pixels.shape and torch.equal(a.pixels, b.pixels) and torch.equal(a.boxes, b.boxes)
        for a, b in pairs
    )


def test_every_scene_comes_once_before_any_comes_again() -> None:
    wide = np.zeros(12, dtype=np.bool_)
    drawn = np.concatenate(list(islice(index_batches(wide, 4, seed=0), 6)))
    assert sorted(drawn[:12]) == sorted(drawn[12:]) == list(range(12))
    assert drawn[:12].tolist() != drawn[12:].tolist()
    uneven = np.concatenate(list(islice(index_batches(np.zeros(5, dtype=np.bool_), 4, seed=0), 5)))
    assert np.bincount(uneven).tolist() == [4] * 5
    few = np.stack(list(islice(index_batches(np.zeros(3, dtype=np.bool_), 8, seed=0), 3)))
    assert all(np.bincount(batch, minlength=3).min() >= 2 for batch in few)


def test_batches_hold_scenes_of_one_orientation_but_for_what_is_left_of_an_epoch() -> None:
    wide = np.arange(40) < 26
    drawn = list(islice(index_batches(wide, 4, seed=0), 10))
    mixed = [batch for batch in drawn if len(set(wide[batch])) > 1]
    assert len(mixed) == 1 and sorted(np.concatenate(drawn)) == list(range(40))
    assert {tuple(b) for b in drawn} != {tuple(b) for b in islice(index_batches(wide, 4, seed=1), 10)}


def test_a_batch_depends_on_seed_and_iteration_alone() -> None:
    train = dataset().split("train")
    how = {"sides": (32, 48, 64), "flip": 0.5}
    whole = taken(train, 6, **how)
    assert same(taken(train, 2, start=4, **how), whole[4:])
    assert not same(taken(train, 6, seed=1, **how), whole)


def colors_match(scene: Scene) -> None:
    """The middle of every box that nothing hides has its color, and its sides are where the color ends."""
    for box, label in zip(scene.boxes[-1:].round().int().tolist(), scene.labels[-1:].tolist(), strict=True):
        left, top, right, bottom = box
        color = torch.tensor(COLORS[label] / 255, dtype=torch.float32)[:, None, None]
        like = (scene.pixels - color).abs().amax(dim=0) < 0.1
        assert like[top + 2 : bottom - 2, left + 2 : right - 2].all()
        assert not like[:, left - 2 : left].any() if left > 2 else True


def single(**how: Any) -> DetectionSubset:
    """Scenes with one rectangle each, so that nothing touches anything."""
    data = dataset((16, 0, 0), **how)
    first = np.unique(data.objects.scene, return_index=True)[1]
    lone = data.objects[first]
    images = np.full_like(data.images, 110)
    for scene, box, label in zip(lone.scene, lone.boxes.astype(int), lone.labels, strict=True):
        images[scene, box[1] : box[3], box[0] : box[2]] = COLORS[label]
    return replace(data, images=images, scenes=type(data.scenes)(images), objects=lone).split("train")  # type: ignore[call-arg]


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("sides", [(), (96,), (41,)])
def test_boxes_follow_the_pixels(flip: float, sides: tuple[int, ...]) -> None:
    for scene in (scene for batch in taken(single(), 4, flip=flip, sides=sides) for scene in batch):
        assert scene.pixels.dtype == scene.boxes.dtype == torch.float32
        assert tuple(scene.pixels.shape) == (3, *(sides or (64,)) * 2)
        colors_match(scene)


def test_all_are_flipped_by_a_probability_of_1_and_about_half_by_one_half() -> None:
    train = single()
    straight, flipped, half = (taken(train, 8, flip=flip) for flip in (0.0, 1.0, 0.5))
    pairs = [scene for batches_ in (straight, flipped) for batch in batches_ for scene in batch]
    for a, b in zip(pairs[:32], pairs[32:], strict=True):
        assert torch.equal(a.pixels.flip(2), b.pixels)
    changed = [
        not torch.equal(a.pixels, b.pixels)
        for a, b in zip(pairs[:32], (scene for batch in half for scene in batch), strict=True)
    ]
    assert 8 <= sum(changed) <= 24


def test_sides_are_chosen_or_drawn_between_two() -> None:
    train = dataset().split("train")
    chosen = {s.pixels.shape[1] for b in taken(train, 20, sides=(32, 48)) for s in b}
    assert chosen == {32, 48}
    drawn = {s.pixels.shape[1] for b in taken(train, 40, sides=(32, 40), side_sampling="range") for s in b}
    assert drawn == set(range(32, 41))


def test_the_longest_side_is_a_limit() -> None:
    (scene, *_), *_ = taken(single(), 1, sides=(96,), longest=80)
    assert tuple(scene.pixels.shape[1:]) == (80, 80)
    colors_match(scene)


def test_crowds_train_nothing_and_scenes_without_objects_are_left_out() -> None:
    data = dataset((4, 0, 0))
    objects = objects_of(
        [0, 0, 1, 2, 3],
        [[0, 0, 9, 9], [5, 5, 20, 20], [0, 0, 9, 9], [70, 0, 90, 9], [10, 10, 90, 20]],
        [0, 1, 2, 0, 1],
        crowd=[True, False, True, False, False],
        difficult=[False, True, False, False, False],
    )
    train = replace(data, objects=objects).split("train")
    source = SceneBatches(train, recipe(batch_size=2), seed=0, device="cpu")
    assert source.rows.tolist() == [0, 3]
    (batch,) = taken(train, 1, batch_size=2)
    assert {tuple(scene.labels.tolist()) for scene in batch} == {(1,)}
    boxes = {tuple(scene.boxes[0].tolist()) for scene in batch}
    assert boxes == {(5, 5, 20, 20), (10, 10, 64, 20)}  # within the scene
    with pytest.raises(DataError, match="none of the 4 training scenes has an object to learn from"):
        SceneBatches(replace(train, objects=objects[objects.crowd]), recipe(), seed=0, device="cpu")


@pytest.mark.parametrize("form", ["polygon", "run lengths"])
def test_masks_follow_the_pixels_where_the_recipe_trains_them(form: str) -> None:
    train = single()
    masks = []
    for left, top, right, bottom in train.objects.boxes.astype(int).tolist():
        array = np.zeros((64, 64), dtype=np.bool_)
        array[top:bottom, left:right] = True
        corners = [left, top, right, top, right, bottom, left, bottom]
        masks.append(json.dumps([corners]) if form == "polygon" else encoded(array))
    train = replace(train, objects=replace(train.objects, masks=tuple(masks)))
    how = {"sides": (96, 128), "flip": 0.5}
    assert all(s.masks == () for b in taken(train, 1, **how) for s in b)
    for scene in (s for b in taken(train, 4, architecture="mask_rcnn_fpn", **how) for s in b):
        (mask,) = scene.masks
        if isinstance(mask, list):
            box = [*mask[0].reshape(-1, 2).min(axis=0), *mask[0].reshape(-1, 2).max(axis=0)]
            assert box == pytest.approx(scene.boxes[0].tolist())
        else:
            assert mask.shape == tuple(scene.pixels.shape[1:])
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box == pytest.approx(scene.boxes[0].tolist(), abs=1)


def as_files(folder: Path, images: Pixels) -> SceneFiles:
    names = tuple(f"{index}.png" for index in range(len(images)))
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(folder / name)
    return SceneFiles(folder, names, np.tile(images.shape[1:3], (len(images), 1)), 3)


def test_files_are_read_ahead_by_threads_and_give_the_same_batches(tmp_path: Path) -> None:
    data = dataset()
    files = replace(data, scenes=as_files(tmp_path, data.images))
    how = {"sides": (32, 48), "flip": 0.5}
    threads = threading.active_count()
    assert same(taken(files.split("train"), 6, **how), taken(data.split("train"), 6, **how))
    assert threading.active_count() == threads


def test_a_file_that_cannot_be_read_ends_the_training_with_its_name(tmp_path: Path) -> None:
    data = dataset()
    files = replace(data, scenes=as_files(tmp_path, data.images))
    (tmp_path / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"3\.png is no image"):
        taken(files.split("train"), 3)


@dataclass
class Counted:
    """Scenes that note what is read, and by which thread."""

    images: Pixels
    reads: list[int] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.tile(np.array(self.images.shape[1:3], dtype=np.int64), (len(self.images), 1))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(map(str, range(len(self.images))))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pixels:
        self.reads.append(index)
        self.threads.add(threading.current_thread().name)
        pixels: Pixels = self.images[index]
        return pixels

    def contents(self) -> Iterator[bytes]:
        return iter(())


def test_few_scenes_are_kept_in_memory_and_many_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset()
    kept = Counted(data.images)
    taken(replace(data, scenes=kept).split("train"), 12)
    assert len(kept.reads) <= 12 + 4  # four threads may read one scene at the same time
    assert all(name.startswith("scenes") for name in kept.threads)
    monkeypatch.setattr(batches, "HELD_BYTES", 1000)
    again = Counted(data.images)
    taken(replace(data, scenes=again).split("train"), 12)
    assert 48 <= len(again.reads) <= 48 + 3 * 4


def test_processes_read_their_parts_of_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    train = dataset().split("train")
    how = {"sides": (32, 48, 64), "flip": 0.5}
    whole = taken(train, 4, **how)
    monkeypatch.setattr(batches, "process_count", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(batches, "process_rank", lambda rank=rank: rank)
        parts.append(taken(train, 4, **how))
    assert [len(batch) for batch in parts[0]] == [2] * 4
    assert same([a + b for a, b in zip(*parts, strict=True)], whole)
    with pytest.raises(SpecError, match="2 processes cannot share batches of 3 scenes equally"):
        SceneBatches(train, recipe(batch_size=3), seed=0, device="cpu")
