from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data.dataset import UNCERTAIN
from bench.data.detection import (
    ArrayScenes,
    DetectionDataset,
    Dropped,
    SceneFiles,
    SomeScenes,
    objects_of,
    presence,
)
from bench.data.facts import facts_of
from bench.data.imaging import read_scene, scene_size
from bench.data.packing import pack, unpack
from bench.data.passes import outline
from bench.data.sources import DataSource
from bench.data.voc import voc
from bench.errors import DataError
from bench.registry import Registry
from bench.spec import DataSpec

from .annotated import many_scenes, thing_xml, write_turned, write_voc, write_xml
from .tiny import write_image

OBJECTS = objects_of(
    [2, 0, 2, 1],
    [[0, 0, 4, 4], [1, 1, 3, 3], [2, 2, 8, 8], [0, 0, 1, 9]],
    [1, 0, 0, 1],
    crowd=[False, True, False, False],
    difficult=[True, False, False, False],
    masks=["two a", "zero", "two b", "one"],
)
PIXELS = np.arange(3 * 10 * 10 * 3, dtype=np.uint8).reshape(3, 10, 10, 3)


def arrays(**changes: Any) -> DetectionDataset:
    parts: dict[str, Any] = {
        "key": "s", "title": "S", "images": PIXELS, "labels": presence(OBJECTS, scenes=3, classes=2),
        "class_names": ("cat", "dog"), "scenes": ArrayScenes(PIXELS), "objects": OBJECTS, "layout": "coco",
        "splits": {name: np.array([row]) for row, name in enumerate(("train", "validation", "test"))},
        "dropped": (Dropped(1, "a.xml, object 1: without area"),), "remarks": ("3 images left out",),
    }  # fmt: skip
    return DetectionDataset(**parts | changes)


def files(folder: Path, **changes: Any) -> DetectionDataset:
    for row in range(3):
        write_image(folder / f"{row}.png", size=(10, 10), value=row)
    scenes = SceneFiles(root=folder, names=("0.png", "1.png", "2.png"), sizes=np.full((3, 2), 10), channels=3)
    return arrays(scenes=scenes, **changes)


def kept(data: DetectionDataset) -> DetectionDataset:
    """Written and read like the cache does."""
    file = io.BytesIO()
    np.savez(file, **pack(data))
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        found = unpack(archive)
    assert isinstance(found, DetectionDataset)
    return found


def test_objects_are_sorted_by_scene_with_everything_that_belongs_to_them() -> None:
    assert OBJECTS.scene.tolist() == [0, 1, 2, 2] and OBJECTS.masks == ("zero", "one", "two a", "two b")
    assert OBJECTS.labels.tolist() == [0, 1, 1, 0] and OBJECTS.areas.tolist() == [4, 9, 16, 36]
    assert OBJECTS.crowd.tolist() == [True, False, False, False]
    assert OBJECTS.difficult.tolist() == [False, False, True, False]


def test_the_objects_of_scenes_are_numbered_in_the_order_asked_for() -> None:
    chosen = OBJECTS.of_scenes(np.array([2, 0]))
    assert chosen.scene.tolist() == [0, 0, 1] and chosen.masks == ("two a", "two b", "zero")
    assert OBJECTS.of(1).masks == ("one",) and len(OBJECTS.of(7)) == 0
    assert len(OBJECTS.of_scenes(np.array([], dtype=np.int64))) == 0


def test_a_class_of_difficult_objects_only_is_uncertain() -> None:
    assert presence(OBJECTS, scenes=4, classes=2).tolist() == [[1, 0], [0, 1], [1, UNCERTAIN], [0, 0]]


def test_a_split_and_a_part_of_it_have_their_scenes_and_objects(tmp_path: Path) -> None:
    data = files(tmp_path, splits={"train": np.array([0, 2]), "validation": np.array([1]), "test": np.array([], int)})
    subset = data.split("train")
    assert subset.scenes.names == ("0.png", "2.png") and subset.objects.masks == ("zero", "two a", "two b")
    last = subset[np.array([1])]
    assert last.scenes.names == ("2.png",) and last.objects.scene.tolist() == [0, 0]
    assert (last.scenes[0] == 2).all() and last.samples.tolist() == [2] and len(last.scenes.sizes) == 1
    assert isinstance(last.scenes, SomeScenes) and len(data.split("test").objects) == 0


def test_packing_keeps_everything_for_scenes_in_memory_and_in_files(tmp_path: Path) -> None:
    for data in (arrays(), files(tmp_path), files(tmp_path, objects=replace(OBJECTS, masks=()))):
        found = kept(data)
        assert found.fingerprint == data.fingerprint and found.dropped == data.dropped
        assert found.remarks == data.remarks and found.objects.masks == data.objects.masks
        assert found.scenes.names == data.scenes.names and type(found.scenes) is type(data.scenes)
        assert all((found.scenes[row] == data.scenes[row]).all() for row in range(3))
        assert found.class_names == data.class_names and found.layout == "coco"


def shifted(data: DetectionDataset) -> DetectionDataset:
    return replace(data, objects=replace(data.objects, boxes=data.objects.boxes + 0.5))


CHANGES: dict[str, Callable[[DetectionDataset], DetectionDataset]] = {
    "a box": shifted,
    "a label": lambda d: replace(d, objects=replace(d.objects, labels=1 - d.objects.labels)),
    "a mask": lambda d: replace(d, objects=replace(d.objects, masks=("other", *d.objects.masks[1:]))),
    "difficult": lambda d: replace(d, objects=replace(d.objects, difficult=~d.objects.difficult)),
    "a crowd": lambda d: replace(d, objects=replace(d.objects, crowd=~d.objects.crowd)),
    "an area": lambda d: replace(d, objects=replace(d.objects, areas=d.objects.areas + 1)),
    "the layout": lambda d: replace(d, layout="voc"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_part_of_an_object_changes_fingerprint_and_outline(change: str) -> None:
    data, other = arrays(), CHANGES[change](arrays())
    assert data.fingerprint == arrays().fingerprint != other.fingerprint
    assert outline(data) != outline(other) and data.kept_digest != other.kept_digest


def test_the_bytes_of_a_file_change_the_fingerprint_and_its_folder_does_not(tmp_path: Path) -> None:
    data = files(tmp_path / "a")
    assert files(tmp_path / "b").fingerprint == data.fingerprint
    write_image(tmp_path / "b/1.png", size=(10, 10), value=200)
    other = replace(data, scenes=replace(data.scenes, root=tmp_path / "b"))
    assert other.fingerprint != data.fingerprint and other.kept_digest == data.kept_digest


def source(root: Path, datasets: Registry) -> DataSource:
    return DataSource(datasets, root=root, cache=root.parent / "cache", loaders=1)


SPEC = DataSpec(key="voc", params={"image_size": 8})


def test_a_warm_cache_reads_no_scene_and_a_changed_file_is_noticed(
    tmp_path: Path, datasets: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_voc(tmp_path / "set", many_scenes(12))
    first = source(root, datasets).load(SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(SceneFiles, "contents", lambda _: pytest.fail("a scene was read"))
        warm = source(root, datasets)
        again = warm.load(SPEC)
        assert again.fingerprint == warm.fingerprint(SPEC) == first.fingerprint
        assert isinstance(again, DetectionDataset) and isinstance(again.images, np.ndarray)
    write_xml(root / "Annotations/s001.xml", [("cat", 1, 1, 6, 6)])
    moved = source(root, datasets).load(SPEC)
    assert moved.fingerprint != first.fingerprint
    write_image(root / "JPEGImages/s001.png", size=(30, 20))
    assert source(root, datasets).load(SPEC).fingerprint not in (first.fingerprint, moved.fingerprint)


def test_beyond_the_memory_budget_squares_stay_in_files_with_the_same_fingerprint(
    tmp_path: Path, datasets: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_voc(tmp_path / "set", many_scenes(12))
    kept = source(root, datasets).load(SPEC)
    monkeypatch.setenv("JOINTBENCH_MEMORY", "1e-8")
    (tmp_path / "other").mkdir()
    for _ in range(2):  # the second time nothing is decoded
        lazy = DataSource(datasets, root=root, cache=tmp_path / "other/cache", loaders=1).load(SPEC)
        assert not isinstance(lazy.images, np.ndarray) and isinstance(lazy, DetectionDataset)
        assert lazy.fingerprint == kept.fingerprint and lazy.channel_statistics == kept.channel_statistics
        assert lazy.split("test").objects.digest() == kept.split("test").objects.digest()  # type: ignore[attr-defined]
    assert not list((tmp_path / "other/cache").glob("*.npz"))


def test_what_was_left_out_is_in_the_facts_of_a_result(tmp_path: Path) -> None:
    scenes: dict[str, list[Any]] = {
        "a": [("cat", 1, 1, 4, 5), ("cat", 9, 3, 9, 3), thing_xml(("dog", 1, 1, 9, 9), difficult=1)],
        "b": [("dog", 1, 1, 9, 9)],
        "c": [],
    }
    lists = {"train": ["a"], "val": ["b"], "test": ["c"]}
    facts = facts_of(voc(write_voc(tmp_path, scenes, lists)))["splits"]
    assert facts["train"]["objects"] == [1, 0] and facts["validation"]["objects"] == [0, 1]
    kinds = facts["train"]["object_kinds"]
    assert kinds == {
        "total": 2, "small": 2, "medium": 0, "large": 0, "difficult": 1, "crowd": 0, "empty": 0, "dropped": 1
    }  # fmt: skip
    assert facts["test"]["object_kinds"]["empty"] == 1 and facts["test"]["object_kinds"]["dropped"] == 0


def test_sizes_are_counted_by_the_bounds_of_coco() -> None:
    sides = [31.9, 32.0, 96.0, 96.1]
    objects = objects_of([0] * 4, [[0, 0, side, side] for side in sides], [0] * 4)
    kinds = facts_of(arrays(objects=objects))["splits"]["train"]["object_kinds"]
    assert [kinds[name] for name in ("small", "medium", "large")] == [1, 2, 1]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_scene_is_read_at_its_own_size_in_the_channels_asked_for(tmp_path: Path, mode: str) -> None:
    pixels = write_image(tmp_path / "a.png", size=(7, 5), mode=mode)
    assert read_scene(tmp_path / "a.png", 1).shape == (5, 7, 1)
    color = read_scene(tmp_path / "a.png", 3)
    assert color.shape == (5, 7, 3) and color.dtype == np.uint8
    if mode == "RGB":
        assert (color == pixels).all()


@pytest.mark.parametrize(("orientation", "sideways"), [(1, False), (3, False), (6, True), (8, True)])
def test_a_scene_is_upright_unless_its_annotation_has_the_stored_size(
    tmp_path: Path, orientation: int, sideways: bool
) -> None:
    file = tmp_path / "a.jpg"
    write_turned(file, size=(40, 20), orientation=orientation)
    upright = (40, 20) if sideways else (20, 40)
    assert read_scene(file, 3).shape[:2] == scene_size(file) == upright
    stored = read_scene(file, 3, (20, 40))
    assert scene_size(file, (20, 40)) == (20, 40) == stored.shape[:2]
    black_first = stored[:, :15].mean() < 20
    assert black_first == (orientation != 3)  # turned by half, the size tells nothing: upright
    for told in ((41, 20), (21, 40)):
        with pytest.raises(DataError, match=rf"has 40×20 pixels, its annotation says {told[1]}×{told[0]}"):
            read_scene(file, 3, told)
        with pytest.raises(DataError, match="its annotation says"):
            scene_size(file, told)


def test_a_scene_of_16_bits_or_no_image_is_an_error_with_its_name(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"deep.png has 16 bits"):
        read_scene(tmp_path / "deep.png", 3)
    for read in (lambda file: read_scene(file, 3), scene_size):
        with pytest.raises(DataError, match=r"text.png is no image"):
            read(tmp_path / "text.png")
