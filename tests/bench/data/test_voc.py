from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data import voc_layout
from bench.data.detection import DetectionDataset
from bench.data.scenes import twins
from bench.data.sources import DataSource
from bench.data.voc import OFFICIAL, is_own, offers, voc
from bench.errors import DataError
from bench.registry import Registry
from bench.spec import DataSpec

from .annotated import SIZE, many_scenes, thing_xml, write_turned, write_voc, write_xml
from .tiny import write_image

DEFAULTS = {
    "name": "", "path": "", "years": (), "classes": (), "validation": 0.1, "test": 0.2, "flawed": "drop",
}  # fmt: skip
LISTS = {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c"]}
THREE: dict[str, list[Any]] = {"a": [("cat", 1, 1, 4, 5)], "b": [], "c": [("dog", 2, 2, 30, 20)]}


def names_of(data: DetectionDataset, split: str) -> list[str]:
    return [Path(name).stem for name in data.split(split).scenes.names]


def test_boxes_count_from_one_and_include_their_last_pixel(tmp_path: Path) -> None:
    data = voc(write_voc(tmp_path, THREE, LISTS))
    assert data.objects.boxes.tolist() == [[0, 0, 4, 5], [1, 1, 30, 20]] and data.layout == "voc"
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert data.scenes.sizes.tolist() == [[SIZE[1], SIZE[0]]] * 3
    assert data.scenes[0].shape == (SIZE[1], SIZE[0], 3) and data.images.shape == (3, 64, 64, 3)


def test_a_box_that_counts_from_zero_loses_the_pixel_before_its_image(tmp_path: Path) -> None:
    data = voc(write_voc(tmp_path, THREE | {"a": [("cat", 0, 0, 4, 5)]}, LISTS))
    assert data.objects.boxes[0].tolist() == [0, 0, 4, 5]


def test_difficult_objects_are_marked_and_make_a_finding_uncertain(tmp_path: Path) -> None:
    data = voc(write_voc(tmp_path, THREE | {"a": [thing_xml(("cat", 1, 1, 4, 5), difficult=1)]}, LISTS))
    assert data.objects.difficult.tolist() == [True, False] and data.labels[0].tolist() == [-1, 0]


@pytest.mark.parametrize("below", ["", "VOC"])
def test_lists_give_the_splits_at_the_root_and_one_level_below(tmp_path: Path, below: str) -> None:
    write_voc(tmp_path / below, THREE, LISTS)
    data = voc(tmp_path)
    assert [names_of(data, split) for split in ("train", "validation", "test")] == [["a"], ["b"], ["c"]]
    assert data.scenes.names[0] == f"{below}/JPEGImages/a.png".lstrip("/")


def test_without_validation_its_list_is_trained_on(tmp_path: Path) -> None:
    data = voc(write_voc(tmp_path, THREE, LISTS), validation=0.0)
    assert names_of(data, "train") == ["a", "b"] and names_of(data, "test") == ["c"]
    assert len(data.split("validation")) == 0 and len(data.split("validation").objects) == 0


def test_trainval_alone_is_cut_and_leaves_the_test_list_alone(tmp_path: Path) -> None:
    scenes = many_scenes(40)
    stems = list(scenes)
    data = voc(write_voc(tmp_path, scenes, {"trainval": stems[:30], "test": stems[30:]}), validation=0.2)
    assert names_of(data, "test") == stems[30:] and 4 <= len(data.splits["validation"]) <= 8


def test_without_lists_splits_are_drawn_with_their_share_of_each_class(tmp_path: Path) -> None:
    data = voc(write_voc(tmp_path, many_scenes(60)), validation=0.2, test=0.3)
    rows = np.concatenate(list(data.splits.values()))
    assert sorted(rows.tolist()) == list(range(60))
    for split, share in (("train", 0.5), ("validation", 0.2), ("test", 0.3)):
        found = (data.split(split).labels == 1).sum(axis=0)
        assert abs(found[0] - 30 * share) <= 2 and abs(found[1] - 20 * share) <= 2, (split, found)
    again = voc(tmp_path, validation=0.2, test=0.3)
    assert all((again.splits[name] == rows).all() for name, rows in data.splits.items())


def test_files_with_the_same_bytes_stay_on_one_side_of_drawn_splits(tmp_path: Path, datasets: Registry) -> None:
    write_voc(tmp_path, many_scenes(20))
    for k in range(10, 20):
        (tmp_path / f"JPEGImages/s{k:03d}.png").write_bytes((tmp_path / f"JPEGImages/s{k - 10:03d}.png").read_bytes())
    source = DataSource(datasets, root=tmp_path, cache=tmp_path / "../cache", loaders=1)
    data = source.load(DataSpec(key="voc", params={"image_size": 8}))  # identical images in two splits are refused
    groups = np.array(twins(tmp_path, data.scenes.names))  # type: ignore[attr-defined]
    assert len(set(groups)) == 10 and len(data.splits["test"]) > 0
    sides = [set(groups[rows]) for rows in data.splits.values()]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_identical_images_in_listed_splits_are_refused(tmp_path: Path, datasets: Registry) -> None:
    write_voc(tmp_path, THREE, LISTS)
    (tmp_path / "JPEGImages/c.png").write_bytes((tmp_path / "JPEGImages/a.png").read_bytes())
    source = DataSource(datasets, root=tmp_path, cache=tmp_path / "../cache", loaders=1)
    with pytest.raises(DataError, match=r"1 image \(JPEGImages/a.png \(train\) = JPEGImages/c.png \(test\)\)"):
        source.load(DataSpec(key="voc"))
    assert source.load(DataSpec(key="voc", params={"allow_leakage": True}))


def test_annotations_beside_their_images_in_one_folder_or_one_for_each_split(tmp_path: Path) -> None:
    for k, (stem, things) in enumerate(many_scenes(12).items()):
        for folder in (tmp_path / "one", tmp_path / "split" / ("train", "valid", "test")[k % 3]):
            write_image(folder / f"{stem}.jpg", size=SIZE)
            write_xml(folder / f"{stem}.xml", things)
    write_image(tmp_path / "one/bare.jpg", size=SIZE)
    one, split = voc(tmp_path / "one"), voc(tmp_path / "split")
    assert len(one.labels) == 12 and one.remarks == ("1 image without an annotation, left out",)
    assert [len(split.splits[name]) for name in ("train", "validation", "test")] == [4, 4, 4]
    assert all(name.startswith("valid/") for name in split.split("validation").scenes.names)


def write_kit(root: Path) -> None:
    scenes = {year: {f"{year}_{k}": [("cow", 1, 1, 9, 9)] for k in range(8)} for year in (2007, 2012)}
    for year, own in scenes.items():
        stems = list(own)
        lists = {"train": stems[:3], "val": stems[3:6], "trainval": stems[:6]} | (
            {"test": stems[6:]} if year == 2007 else {}
        )
        write_voc(root / f"VOCdevkit/VOC{year}", own, lists)


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A development kit whose official lists are said to be as short as its own."""
    write_kit(tmp_path)
    sizes = {("VOC2007", "trainval"): 6, ("VOC2007", "test"): 2, ("VOC2012", "trainval"): 6}
    monkeypatch.setattr(voc_layout, "OFFICIAL_SIZES", sizes)
    return tmp_path


@pytest.mark.parametrize("path", ["", "VOCdevkit"])
def test_the_development_kits_train_on_both_trainvals_and_test_on_2007(kit: Path, path: str) -> None:
    data = voc(kit, path=path, validation=0.0)
    assert data.class_names == OFFICIAL and data.objects.labels.tolist() == [9] * 14
    assert names_of(data, "train") == [f"{year}_{k}" for year in (2007, 2012) for k in range(6)]
    assert names_of(data, "test") == ["2007_6", "2007_7"] and data.title == "PASCAL VOC 2007+2012"
    assert not len(data.splits["validation"]) and not is_own(kit, {**DEFAULTS, "path": path})


def test_the_development_kits_are_found_beside_imagenet(kit: Path) -> None:
    write_image(kit / "imagenet/train/n01440764/a.jpg", size=SIZE)
    assert len(names_of(voc(kit, validation=0.0), "train")) == 12


def test_one_year_of_the_development_kits_can_be_chosen(kit: Path) -> None:
    data = voc(kit, years=(2007,), validation=0.0)
    assert names_of(data, "train") == [f"2007_{k}" for k in range(6)] and names_of(data, "test") == ["2007_6", "2007_7"]
    assert data.title == "PASCAL VOC 2007"
    assert names_of(voc(kit, years=(2012,), validation=0.0), "train")[0] == "2012_0"


def test_a_validation_split_of_the_kits_is_an_exact_share_of_their_trainval(kit: Path) -> None:
    data = voc(kit, validation=0.25)
    assert [len(data.splits[name]) for name in ("train", "validation", "test")] == [9, 3, 2]
    assert offers(kit, DEFAULTS) == ("boxes", "multilabel")
    assert offers(kit, DEFAULTS | {"validation": 0.0}) == ("boxes",)


def test_own_scenes_in_folders_named_like_the_kits_are_own(tmp_path: Path) -> None:
    write_kit(tmp_path)
    assert is_own(tmp_path, DEFAULTS)
    data = voc(tmp_path, validation=0.0)
    assert data.class_names == ("cow",) and len(data.splits["train"]) == 12 and len(data.splits["test"]) == 2
    for file in (tmp_path / "VOCdevkit/VOC2012").rglob("*.xml"):
        file.unlink()
    alone = voc(tmp_path)
    assert names_of(alone, "train") == [f"2007_{k}" for k in range(3)]
    assert names_of(alone, "validation") == [f"2007_{k}" for k in range(3, 6)]


def test_the_files_of_the_kits_are_folders_and_those_of_own_scenes_are_single(kit: Path, tmp_path: Path) -> None:
    found = {file.name for file in voc_layout.find_home(kit).files}
    assert {"trainval.txt", "test.txt", "JPEGImages", "Annotations"} == found
    own = write_voc(tmp_path / "own", THREE, LISTS)
    assert {"a.png", "b.xml", "train.txt"} <= {file.name for file in voc_layout.find_home(own).files}


def test_a_kit_without_what_is_asked_for_says_so(kit: Path) -> None:
    (kit / "VOCdevkit/VOC2007/ImageSets/Main/test.txt").unlink()
    with pytest.raises(DataError, match=r"test.txt is not there: .* Unpack its archive"):
        voc(kit)
    shutil.rmtree(kit / "VOCdevkit/VOC2012")
    with pytest.raises(DataError, match=r"test.txt is not there"):  # no test split of the user's own instead
        voc(kit, years=(2007,))
    assert is_own(kit, DEFAULTS)
    with pytest.raises(DataError, match=r"no folders VOC2007 or VOC2012.*Leave it out"):
        voc(write_voc(kit / "own", THREE, LISTS), years=(2007,))


def test_masks_and_findings_are_offered_as_far_as_the_scenes_have_them(tmp_path: Path) -> None:
    assert offers(write_voc(tmp_path / "a", many_scenes(40)), DEFAULTS) == ("boxes", "multilabel")
    everywhere = {stem: [("cat", 1, 1, 9, 9)] for stem in many_scenes(40)}
    assert offers(write_voc(tmp_path / "b", everywhere), DEFAULTS) == ("boxes",)
    assert offers(tmp_path / "a", DEFAULTS | {"validation": 0.0}) == ("boxes",)


def test_two_boxes_of_no_width_are_left_out_and_told_with_file_and_object(tmp_path: Path) -> None:
    flat = {"a": [("cat", 1, 1, 4, 5), ("cat", 9, 3, 9, 3)], "c": [("dog", 2, 2, 2, 9), ("dog", 2, 2, 9, 9)]}
    data = voc(write_voc(tmp_path, THREE | flat, LISTS))
    assert [str(item) for item in data.dropped] == [
        "Annotations/a.xml, object 2 (cat): (9, 3, 9, 3) in a.png, 30×20 pixels: without area",
        "Annotations/c.xml, object 1 (dog): (2, 1, 2, 9) in c.png, 30×20 pixels: without area",
    ]
    assert len(data.objects) == 2
    with pytest.raises(DataError, match=r"objects without area \(2\): Annotations/a.xml, object 2"):
        voc(tmp_path, flawed="refuse")


@pytest.mark.parametrize(
    ("things", "message"),
    [
        (
            [("cat", 1, 1, 31, 5)],
            r"reach beyond their image \(1\): Annotations/a.xml, object 1 \(cat\): .* flawed=clip",
        ),
        ([("cat", 9, 1, 3, 5)], r"right or lower end .*Annotations/a.xml, object 1"),
        ([("cat", 1, 1, 3, 5), ("cow", 1, 1, 3, 5)], r"unknown class \(1\): Annotations/a.xml, object 2 \(cow\)"),
        ([thing_xml(("cat", 1, 1, 3, 5), difficult="maybe")], r"Annotations/a.xml, object 1 \(cat\): .*'maybe'"),
        (["<object><name>cat</name></object>"], r"object 1 \(cat\): xmin, ymin, xmax, ymax are None, None"),
        ([("cat", "nan", 1, 3, 5)], r"object 1 \(cat\): xmin, ymin, xmax, ymax are nan, 1"),
        ([("", 1, 1, 3, 5)], r"object 1 \(\): no name"),
        (["<object>"], r"annotations that cannot be read \(1\): Annotations/a.xml \(mismatched tag"),
    ],
)
def test_errors_name_the_file_and_the_object(tmp_path: Path, things: list[Any], message: str) -> None:
    write_voc(tmp_path, THREE | {"a": things}, LISTS)
    with pytest.raises(DataError, match=message):
        voc(tmp_path, classes=("cat", "dog"))


def test_listed_classes_decide_their_order(tmp_path: Path) -> None:
    data = voc(write_voc(tmp_path, THREE, LISTS), classes=("dog", "bird", "cat"))
    assert data.class_names == ("dog", "bird", "cat") and data.objects.labels.tolist() == [2, 0]


def test_files_that_do_not_belong_together_are_errors(tmp_path: Path) -> None:
    def fresh(name: str, lists: dict[str, list[str]] | None = None) -> Path:
        return write_voc(tmp_path / name, THREE, lists)

    (fresh("image") / "JPEGImages/b.png").unlink()
    (fresh("xml", LISTS) / "Annotations/b.xml").unlink()
    write_image(fresh("two") / "JPEGImages/b.jpg")
    fresh("both", LISTS | {"test": ["b", "c"]})
    fresh("twice", LISTS | {"train": ["a", "a"]})
    fresh("untrained", {"test": ["c"]})
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("image", r"1 scene without an image below .*JPEGImages: b\. Add the files"),
        ("xml", r"Annotations: 1 scene without an annotation: b"),
        ("two", r"b.jpg and JPEGImages/b.png could both be the image of b.xml"),
        ("both", r"test.txt and val.txt both list 1 scene: b"),
        ("twice", r"train.txt lists a twice"),
        ("untrained", r"lists no scene to train on"),
        ("empty", r"no annotations in VOC's layout"),
    ):
        with pytest.raises(DataError, match=message):
            voc(tmp_path / name)


def test_an_image_of_another_size_than_its_annotation_is_refused(tmp_path: Path) -> None:
    write_voc(tmp_path, THREE, LISTS)
    write_xml(tmp_path / "Annotations/b.xml", size=(SIZE[0] + 1, SIZE[1]))
    with pytest.raises(DataError, match=r"b.png has 30×20 pixels, its annotation says 31×20"):
        voc(tmp_path)
    for size in (None, (0, 0)):  # nothing is told
        write_xml(tmp_path / "Annotations/b.xml", size=size)
        assert voc(tmp_path).scenes.sizes[1].tolist() == [20, 30]


def test_shares_that_leave_nothing_and_too_few_images_are_refused(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": [("cat", 1, 1, 4, 5)], "b": []})
    with pytest.raises(DataError, match=r"together below 1; got 0\.5, 0\.5"):
        voc(tmp_path, validation=0.5, test=0.5)
    with pytest.raises(DataError, match="2 training scenes are too few to draw validation and test"):
        voc(tmp_path)
    with pytest.raises(DataError, match=r"channels is 1 .*got 4"):
        voc(write_voc(tmp_path / "three", THREE, LISTS), channels=4)


@pytest.mark.parametrize("orientation", [6, 8])
def test_boxes_refer_to_the_pixels_that_have_the_size_of_the_annotation(tmp_path: Path, orientation: int) -> None:
    """Stored 40×20, left half black, right half white; turned upright it is 20×40 with black above or below."""
    write_voc(tmp_path, THREE, LISTS)
    (tmp_path / "JPEGImages/a.png").unlink()
    write_turned(tmp_path / "JPEGImages/a.jpg", size=(40, 20), orientation=orientation)
    for size in ((40, 20), (20, 40)):
        write_xml(tmp_path / "Annotations/a.xml", [("cat", 1, 1, 20, 20)], size=size)
        data = voc(tmp_path)
        scene = data.scenes[0]
        assert scene.shape[:2] == size[::-1] == tuple(data.scenes.sizes[0])
        marked = scene[:20, :20].mean()  # what the box holds
        upright_black_above = orientation == 6
        assert marked < 20 if size == (40, 20) or upright_black_above else marked > 235
    write_xml(tmp_path / "Annotations/a.xml", [("cat", 1, 1, 20, 20)], size=None)
    assert voc(tmp_path).scenes[0].shape == (40, 20, 3)


def test_the_real_blood_smears_are_read_with_their_two_flaws(data_root: Path) -> None:
    if not (data_root / "bccd").is_dir():
        pytest.skip(f"{data_root} has no bccd folder")
    data = voc(data_root / "bccd")
    assert [len(data.splits[name]) for name in ("train", "validation", "test")] == [205, 87, 72]
    assert dict(zip(data.class_names, np.bincount(data.objects.labels).tolist(), strict=True)) == {
        "Platelets": 361, "RBC": 4153, "WBC": 372
    }  # fmt: skip
    assert [item.text.split("/")[-1].split(":")[0] for item in data.dropped] == [
        "BloodImage_00338.xml, object 13 (RBC)", "BloodImage_00343.xml, object 4 (RBC)"
    ]  # fmt: skip


def test_the_real_raccoons_are_split_without_parting_duplicates(data_root: Path) -> None:
    if not (data_root / "raccoon-voc").is_dir():
        pytest.skip(f"{data_root} has no raccoon-voc folder")
    data = voc(data_root / "raccoon-voc")
    groups = np.array(twins(data_root / "raccoon-voc", data.scenes.names))
    assert len(data.objects) == 217 and len(set(groups)) == 196
    assert sum(len(set(groups[rows])) for rows in data.splits.values()) == 196
