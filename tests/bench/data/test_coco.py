from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data import coco_layout
from bench.data.coco import coco, is_own, offers
from bench.data.coco_layout import find_home, side_of
from bench.data.detection import DetectionDataset
from bench.data.recognize import recognize
from bench.data.segmentation import checked_mask, polygon_area, run_lengths
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.registry import Registry
from bench.spec import DataSpec

from .annotated import SIZE, coco_json, entry, write_coco, write_json
from .tiny import write_image

DEFAULTS = {
    "name": "", "path": "", "annotations": "", "year": 0, "validation": 0.1, "test": 0.2, "flawed": "drop",
}  # fmt: skip
SQUARE = [[1, 2, 11, 2, 11, 10, 1, 10]]


def written(folder: Path, *annotations: dict[str, Any], **changes: Any) -> Path:
    """Ten scenes; the annotations given and, so that there is one, a cat in the last."""
    images = {k: f"s{k}.png" for k in range(10)}
    for name in images.values():
        write_image(folder / name, size=SIZE)
    write_json(folder / "boxes.json", coco_json(images, [*annotations, entry(999, 9, 3, (0, 0, 4, 4))]) | changes)
    return folder


def names_of(data: DetectionDataset, split: str) -> list[str]:
    return [Path(name).stem for name in data.split(split).scenes.names]


def test_boxes_are_left_top_width_height_and_categories_in_the_order_of_their_ids(tmp_path: Path) -> None:
    first = entry(1, 0, 7, (1.5, 2, 10.25, 8))
    data = coco(written(tmp_path, first, entry(2, 0, 3, (0, 0, 30, 20), iscrowd=1)))
    assert data.objects.boxes[:2].tolist() == [[1.5, 2, 11.75, 10], [0, 0, 30, 20]] and data.layout == "coco"
    assert data.class_names == ("cat", "dog") and data.objects.labels.tolist() == [1, 0, 0]
    assert data.objects.crowd.tolist() == [False, True, False] and not data.objects.difficult.any()
    assert data.objects.areas[:2].tolist() == [82, 600] and not data.objects.masks
    assert data.scenes[0].shape == (20, 30, 3) and len(data.labels) == 10


def test_the_area_that_is_told_is_kept_else_that_of_the_mask_else_of_the_box(tmp_path: Path) -> None:
    bare = entry(1, 0, 3, (1, 2, 10, 8)) | {"area": None}
    data = coco(written(tmp_path, entry(2, 1, 3, (1, 2, 10, 8)) | {"area": 7}, bare))
    assert data.objects.areas[:2].tolist() == [80, 7]
    half = bare | {"segmentation": [[1, 2, 11, 2, 11, 10]], "image_id": 9, "id": 999}
    assert coco(written(tmp_path / "b", annotations=[half])).objects.areas.tolist() == [40]


def test_polygons_and_run_lengths_are_masks(tmp_path: Path) -> None:
    reference = pytest.importorskip("pycocotools.mask")

    pixels = np.zeros((SIZE[1], SIZE[0]), dtype=np.uint8, order="F")
    pixels[3:9, 4:17] = 1
    compressed = reference.encode(pixels)
    counts = compressed["counts"].decode()
    forms: list[Any] = [SQUARE, {"size": [20, 30], "counts": counts}, {"size": [20, 30], "counts": run_lengths(counts)}]
    things = [
        entry(k, k, 3, (1, 2, 20, 15), segmentation=form) | {"area": None} for k, form in enumerate(forms, start=0)
    ]
    data = coco(written(tmp_path, annotations=things))
    assert [json.loads(mask) for mask in data.objects.masks] == forms
    assert data.objects.areas.tolist() == [80, 78, 78]
    assert "masks" in offers(tmp_path, DEFAULTS)


def test_masks_of_some_objects_only_are_not_used_and_that_is_told(tmp_path: Path) -> None:
    data = coco(written(tmp_path, entry(1, 0, 3, (1, 2, 10, 8), segmentation=SQUARE)))
    assert not data.objects.masks and "1 of 2 objects have no segmentation" in data.remarks[0]
    assert "masks" not in offers(tmp_path, DEFAULTS)


def test_an_object_whose_polygons_have_no_area_is_left_out(tmp_path: Path) -> None:
    line, square = ({"segmentation": form} for form in ([[1, 2, 3, 4]], SQUARE))
    things = [entry(1, 0, 3, (1, 2, 10, 8)) | line, entry(2, 1, 3, (1, 2, 10, 8)) | square]
    data = coco(written(tmp_path, annotations=things))
    assert len(data.objects) == len(data.objects.masks) == 1
    assert data.dropped[0].text.startswith("boxes.json, annotation 1 (cat): (1, 2, 11, 10) in s0.png, 30×20")


@pytest.mark.parametrize("seed", range(5))
def test_compressed_run_lengths_are_those_of_the_reference(seed: int) -> None:
    reference = pytest.importorskip("pycocotools.mask")

    rng = np.random.default_rng(seed)
    pixels = np.asfortranarray(rng.random((53, 71)) < rng.random(71) ** 3, dtype=np.uint8)
    runs = run_lengths(reference.encode(pixels)["counts"].decode())
    column = pixels.ravel(order="F")
    edges = np.flatnonzero(np.diff(column)) + 1
    expected = np.diff([0, *edges, column.size]).tolist()
    assert runs == ([0, *expected] if column[0] else expected)
    assert checked_mask({"size": [53, 71], "counts": runs}, (53, 71))[1] == column.sum()


def test_the_area_of_a_polygon_does_not_depend_on_its_direction() -> None:
    assert polygon_area([0, 0, 4, 0, 4, 3]) == polygon_area([4, 3, 4, 0, 0, 0]) == 6


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (entry(1, 0, 5, (1, 1, 4, 4)), r"unknown category \(1\): boxes.json, annotation 1 \(category 5\)"),
        (entry(1, 0, 3, (1, 1, 4, 4)) | {"category_id": [3]}, r"annotation 1 \(category \[3\]\)"),
        (entry(1, 0, 3, (1, 1, 4, 4)) | {"image_id": [0]}, r"annotation 1 \(image \[0\]\)"),
        (entry(1, 0, 3, (1, 1, 4, 4)) | {"id": [1]}, r"annotation number 1 \(no id\)"),
        (entry(1, 77, 3, (1, 1, 4, 4)), r"unknown image \(1\): boxes.json, annotation 1 \(image 77\)"),
        (entry(999, 0, 3, (1, 1, 4, 4)), r"share their id with another \(1\): boxes.json, annotation 999\."),
        (
            entry(1, 0, 3, (1, 1, 31, 4)),
            r"reach beyond .*annotation 1 \(cat\): \(1, 1, 32, 5\) in s0.png, 30×20 .*clip",
        ),
        (entry(1, 0, 3, (5, 5, -2, 4)), r"right or lower end comes before .*annotation 1 \(cat\)"),
        (entry(1, 0, 3, (5, 5, 2)), r"annotation 1 \(cat\): bbox \[5, 5, 2\]"),
        (entry(1, 0, 3, (5, 5, 2, float("nan"))), r"annotation 1 \(cat\): bbox"),
        ({"image_id": 0, "category_id": 3, "bbox": [0, 0, 3, 3]}, r"annotation number 1 \(no id\)"),
        (entry(1, 0, 3, (1, 1, 4, 4), segmentation="x"), r"annotation 1 \(cat\): the segmentation is neither polygons"),
        (entry(1, 0, 3, (1, 1, 4, 4), segmentation=[[1, 2, 3]]), r"a polygon is no list of pairs"),
        (
            entry(1, 0, 3, (1, 1, 4, 4), segmentation={"size": [30, 20], "counts": [600]}),
            r"run lengths are for \[30, 20\] \(height, width\), the image has \[20, 30\]",
        ),
        (
            entry(1, 0, 3, (1, 1, 4, 4), segmentation={"size": [20, 30], "counts": [9, 9]}),
            "do not add up to the 600 pi",
        ),
        (entry(1, 0, 3, (1, 1, 4, 4), segmentation={"size": [20, 30], "counts": "P"}), "end within a number"),
        (entry(1, 0, 3, (1, 1, 4, 4), segmentation={"size": [20, 30], "counts": "\t"}), "have the character"),
    ],
)
def test_errors_name_the_file_and_the_annotation(tmp_path: Path, annotation: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        coco(written(tmp_path, annotation))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 1}, r"images that share their id or file with another \(1\): boxes.json, image 1 \(s1.png\)"),
        ({"file_name": "s1.png"}, r"images that share their id or file with another \(1\): boxes.json, image 1 \(s1"),
        ({"file_name": "absent.png"}, r"not there \(1\): boxes.json, image 0 \(absent.png\)\. Add [^(]*annotations\.$"),
        ({"file_name": "../s0.png"}, r"images that are not there \(1\): boxes.json, image 0 \(../s0.png\)"),
        ({"width": None}, r"image 0 \(s0.png\): no whole width and height above 0\. Correct or remove them\.$"),
        ({"width": 31}, r"s0.png has 30×20 pixels, its annotation says 31×20"),
        ({"id": [1]}, r"image number 1 \(no id or no file_name\)"),
        ({"id": None}, r"image number 1 \(no id or no file_name\)"),
    ],
)
def test_errors_name_the_image(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = json.loads((written(tmp_path) / "boxes.json").read_text())
    content["images"][0] |= change
    write_json(tmp_path / "boxes.json", content)
    with pytest.raises(DataError, match=message):
        coco(tmp_path)


def test_a_category_may_be_there_once(tmp_path: Path) -> None:
    twice = [{"id": 3, "name": "cat"}, {"id": 4, "name": "cat"}]
    with pytest.raises(DataError, match=r"categories that share .*: boxes.json, category 4 \(cat\)"):
        coco(written(tmp_path, categories=twice))


def test_what_reaches_less_than_a_pixel_beyond_is_rounding(tmp_path: Path) -> None:
    data = coco(written(tmp_path, entry(1, 0, 3, (-0.4, 0, 30.9, 20.2))))
    assert data.objects.boxes[0].tolist() == [0, 0, 30, 20]


def test_boxes_without_area_are_left_out_and_told(tmp_path: Path) -> None:
    data = coco(written(tmp_path, entry(5, 2, 3, (4, 4, 3, 0)), entry(6, 2, 3, (40, 4, 3, 3))))
    assert [item.text.rpartition(": ")[2] for item in data.dropped] == ["without area", "outside the image"]
    assert [item.scene for item in data.dropped] == [2, 2] and len(data.objects) == 1


def write_splits(folder: Path, pattern: str, images: str) -> None:
    for number, word in enumerate(("train", "valid", "test")):
        named = {k: f"{word}{k}.png" for k in range(3)}  # identifiers begin anew in each file
        for name in named.values():
            write_image(folder / images.format(word) / name, size=SIZE)
        content = coco_json(named, [entry(1, 0, 3, (1, 1, 4, 4 + number)), entry(2, 1, 7, (1, 1, 4, 4))])
        write_json(folder / pattern.format(word), content)


@pytest.mark.parametrize(
    ("pattern", "images"),
    [
        ("{}/_annotations.coco.json", "{}"),
        ("annotations/instances_{}.json", "{}"),
        ("annotations/instances_{}.json", "images/{}"),
        ("annotations/{}.json", "images"),
        ("{}.json", "."),
        ("inner/annotations/instances_{}2017.json", "inner/{}2017"),
    ],
)
def test_files_and_folders_tell_the_splits(tmp_path: Path, pattern: str, images: str) -> None:
    write_splits(tmp_path, pattern, images)
    data = coco(tmp_path)
    for split, word in (("train", "train"), ("validation", "valid"), ("test", "test")):
        assert names_of(data, split) == [f"{word}{k}" for k in range(3)]
    assert data.split("test").objects.boxes[0].tolist() == [1, 1, 5, 7]
    assert names_of(coco(tmp_path, validation=0.0), "train") == [
        f"{w}{k}" for w in ("train", "valid") for k in range(3)
    ]


def test_files_of_one_set_have_the_same_categories(tmp_path: Path) -> None:
    write_splits(tmp_path, "{}.json", ".")
    content = json.loads((tmp_path / "valid.json").read_text())
    content["categories"][1]["name"] = "wolf"
    write_json(tmp_path / "valid.json", content)
    with pytest.raises(DataError, match=r"differ between files \(1\): valid.json, category 7"):
        coco(tmp_path)


@pytest.mark.parametrize("broken", ["train", "valid"])
def test_a_damaged_file_of_a_split_is_named_and_not_left_out(tmp_path: Path, broken: str) -> None:
    write_splits(tmp_path, "{}.json", ".")
    file = tmp_path / f"{broken}.json"
    file.write_text(file.read_text()[:50])
    write_json(tmp_path / "package.json", {})
    (tmp_path / "notes.json").write_text("{")  # serves no split
    with pytest.raises(DataError, match=rf"{broken}\.json: it is no JSON \(.*intact copy"):
        coco(tmp_path)


def test_the_one_damaged_file_is_named(tmp_path: Path) -> None:
    write_coco(tmp_path, 12)
    (tmp_path / "annotations.json").write_text("{")
    with pytest.raises(DataError, match=r"annotations\.json: it is no JSON"):
        coco(tmp_path)
    with pytest.raises(DataError, match=r"annotations\.json: it is no JSON .* known layouts are"):
        recognize(tmp_path)


def test_a_file_is_read_once_to_find_out_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_coco(tmp_path, 12)
    read: list[Path] = []
    real = coco_layout.read_json
    monkeypatch.setattr(coco_layout, "read_json", lambda file: read.append(file) or real(file))
    assert [part.side for _ in range(3) for part in find_home(tmp_path).parts] == ["train"] * 3 and len(read) == 1
    write_json(tmp_path / "annotations.json", {**content, "images": None})
    with pytest.raises(DataError, match="no annotations in COCO's layout"):
        find_home(tmp_path)


def test_an_image_in_two_files_is_refused(tmp_path: Path) -> None:
    write_splits(tmp_path, "{}.json", ".")
    content = json.loads((tmp_path / "valid.json").read_text())
    content["images"][0]["file_name"] = "train1.png"
    write_json(tmp_path / "valid.json", content)
    with pytest.raises(DataError, match=r"share their id or file with another \(1\): train1.png"):
        coco(tmp_path)


def test_two_files_for_one_split_and_none_for_training_are_refused(tmp_path: Path) -> None:
    write_splits(tmp_path, "{}.json", ".")
    (tmp_path / "val.json").write_text((tmp_path / "valid.json").read_text())
    with pytest.raises(DataError, match=r"both serve the split validation.*`annotations`"):
        coco(tmp_path)
    for name in ("train", "val"):
        (tmp_path / f"{name}.json").unlink()
    with pytest.raises(DataError, match="none to train on"):
        coco(tmp_path)
    with pytest.raises(DataError, match=r"no annotation file absent\.json"):
        coco(tmp_path, annotations="absent.json")


def test_one_file_is_split_and_can_be_named(tmp_path: Path) -> None:
    write_coco(tmp_path, 40)
    write_image(tmp_path / "images/unlisted.png")
    data = coco(tmp_path)
    assert sum(len(rows) for rows in data.splits.values()) == 40 and 6 <= len(data.splits["test"]) <= 10
    assert data.remarks == ("1 image that no annotation file names, left out",)
    assert offers(tmp_path, DEFAULTS) == ("boxes", "multilabel")
    write_splits(tmp_path, "{}.json", ".")
    named = coco(tmp_path, annotations="annotations.json")
    assert named.scenes.names == data.scenes.names


def test_a_group_of_categories_without_objects_is_no_class(tmp_path: Path) -> None:
    """Roboflow writes the name of the project as the first category, the parent of all others."""
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "pets"},
        {"id": 7, "name": "dog", "supercategory": "pets"},
    ]
    data = coco(written(tmp_path, categories=categories))
    assert data.class_names == ("cat", "dog") and data.remarks[0].startswith("pets: a group of categories")
    used = coco(written(tmp_path / "b", entry(1, 0, 0, (1, 1, 4, 4)), categories=categories))
    assert used.class_names == ("pets", "cat", "dog")


def write_official(folder: Path) -> None:
    for word, count in (("train", 12), ("val", 4)):
        write_coco(folder, count, file=f"annotations/instances_{word}2017.json", images=f"{word}2017")
    write_json(folder / "annotations/captions_train2017.json", {"images": [], "annotations": []})


def test_the_official_validation_images_are_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_official(tmp_path / "coco")
    own = coco(tmp_path)
    assert len(own.splits["validation"]) == 4 and is_own(tmp_path, DEFAULTS)
    monkeypatch.setattr(coco_layout, "TEST_IMAGES", {"2014": 40_504, "2017": 4})
    data = coco(tmp_path, validation=0.25)
    assert [len(data.splits[name]) for name in ("train", "validation", "test")] == [9, 3, 4]
    assert all("/val2017/" in name for name in data.split("test").scenes.names)
    assert data.title == "COCO 2017" and not is_own(tmp_path, DEFAULTS)
    write_image(tmp_path / "imagenet/train/n01440764/a.jpg", size=SIZE)
    assert len(coco(tmp_path, validation=0.0).splits["train"]) == 12  # the official set beside another one
    assert offers(tmp_path, DEFAULTS) == ("boxes", "masks", "multilabel")
    with pytest.raises(DataError, match="not the official COCO 2014"):
        find_home(tmp_path, year=2014)


def test_the_scenes_of_the_official_set_are_measured_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_official(tmp_path)
    monkeypatch.setattr(coco_layout, "TEST_IMAGES", {"2017": 4, "2014": 0})
    write_image(tmp_path / "train2017/s000.png", size=(7, 9))
    data = coco(tmp_path)
    row = data.scenes.names.index("train2017/s000.png")
    with pytest.raises(DataError, match=r"s000.png has 7×9 pixels, its annotation says 30×20"):
        data.scenes[row]


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("instances_val2017", "validation"),
        ("my-train", "train"),
        ("Test", "test"),
        ("instances_default", ""),
        ("training_set", "train"),
        ("trained", ""),
    ],
)
def test_the_split_that_a_name_tells(name: str, side: str) -> None:
    assert side_of(Path(f"{name}.json")) == side


def test_files_that_are_no_annotations_are_told(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    write_json(tmp_path / "list.json", [1])
    for name, message in (
        ("broken.json", "it is no JSON"),
        ("list.json", "no list of images, annotations, categories"),
    ):
        with pytest.raises(DataError, match=message):
            coco(tmp_path, annotations=name)
    (tmp_path / "broken.json").unlink()
    with pytest.raises(DataError, match="no annotations in COCO's layout"):
        coco(tmp_path)


def test_masks_survive_the_cache(tmp_path: Path, datasets: Registry) -> None:
    things = [entry(k, k, 3, (1, 2, 10, 8), segmentation=SQUARE) for k in range(10)]
    written(tmp_path / "set", annotations=things)
    spec = DataSpec(key="coco", params={"image_size": 8})
    first, second = (
        DataSource(datasets, root=tmp_path / "set", cache=tmp_path / "cache", loaders=1).load(spec) for _ in range(2)
    )
    assert isinstance(first, DetectionDataset) and isinstance(second, DetectionDataset)
    assert first.objects.masks == second.objects.masks and len(second.objects.masks) == 10
    assert first.fingerprint == second.fingerprint
