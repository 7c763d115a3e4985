from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.recognize import labels_below, recognize
from bench.errors import DataError
from bench.registry import discover

from .annotated import many_scenes, write_coco, write_voc, write_xml
from .tiny import write_class_folders, write_image


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def npz(file: Path, *arrays: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, **dict.fromkeys(arrays, np.zeros(1)))
    return file


def found(path: Path, labels: Path | None = None) -> tuple[Path, str, dict[str, Any]]:
    root, spec = recognize(path, labels=labels)
    return root, spec.key, spec.params


def test_class_folders_with_and_without_splits(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", per_class=1)
    write_class_folders(tmp_path / "split/train", per_class=1)
    for name in ("photos", "split"):
        assert found(tmp_path / name) == (tmp_path / name, "folder", {"name": name})


def test_a_table_of_labels_inside_or_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "cxr/images"
    write_image(images / "1.png")
    touch(images / "labels.csv", tmp_path / "cxr/metadata.csv")
    assert found(images) == (images, "table", {"name": "images"})
    table = (images, "table", {"name": "images", "labels": "../metadata.csv"})
    assert found(images, tmp_path / "cxr/metadata.csv") == table
    monkeypatch.chdir(tmp_path / "cxr")
    assert found(Path("images"), Path("metadata.csv"))[2] == table[2]
    assert found(images, Path("labels.csv"))[2]["labels"] == "labels.csv"  # in the folder of data
    assert found(images / "labels.csv") == (images, "table", {"name": "images", "labels": "labels.csv"})


def test_a_table_wins_over_class_folders(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=1)
    touch(tmp_path / "labels.csv")
    assert found(tmp_path)[1] == "table"


@pytest.mark.parametrize(("name", "key"), [("a.h5", "hdf5"), ("a.HDF5", "hdf5"), ("a.parquet", "parquet")])
def test_a_file_that_holds_a_whole_set_alone_in_its_folder_or_named(tmp_path: Path, name: str, key: str) -> None:
    touch(tmp_path / name, tmp_path / "README.md")
    expected = (tmp_path, key, {"name": "a", "path": name})
    assert found(tmp_path / name) == expected and found(tmp_path) == expected


def test_npz_files_are_told_apart_by_their_arrays(tmp_path: Path) -> None:
    medical = npz(tmp_path / "m/bloodmnist.npz", "train_images", "train_labels")
    assert found(medical) == (medical.parent, "medmnist", {"name": "bloodmnist", "path": "bloodmnist.npz"})
    assert found(npz(tmp_path / "c/my_cifar-10.npz", "x_train"))[1:] == ("cifar10", {})
    assert found(npz(tmp_path / "cifar100/a.npz", "x_train"))[1:] == ("cifar100", {})
    with pytest.raises(DataError, match="neither its name nor its folder's says which"):
        recognize(npz(tmp_path / "d/photos.npz", "x_train"))
    with pytest.raises(DataError, match="holds the arrays other; train_images"):
        recognize(npz(tmp_path / "e/a.npz", "other"))


def test_published_sets_are_known_by_their_marks(tmp_path: Path) -> None:
    touch(tmp_path / "tin/wnids.txt", tmp_path / "up/tiny-imagenet-200/wnids.txt", tmp_path / "stl/train_X.bin")
    assert [found(tmp_path / name)[1] for name in ("tin", "up", "stl")] == ["tiny_imagenet", "tiny_imagenet", "stl10"]


def test_boxes_in_xml_are_known_by_their_layout(tmp_path: Path) -> None:
    write_voc(tmp_path / "plain", many_scenes(2))
    write_voc(tmp_path / "repository/BLOOD", many_scenes(2))
    touch(tmp_path / "repository/scripts/plot.py")
    write_voc(tmp_path / "kits/VOCdevkit/VOC2007", many_scenes(2))
    for folder in (tmp_path / "beside", tmp_path / "split/train", tmp_path / "split/valid"):
        write_image(folder / "a.jpg")
        write_xml(folder / "a.xml", [("cat", 1, 1, 5, 5)])
    for name in ("plain", "repository", "kits", "beside", "split"):
        assert found(tmp_path / name) == (tmp_path / name, "voc", {"name": name})
    assert found(tmp_path / "kits/VOCdevkit/VOC2007")[1] == "voc"


def test_boxes_in_json_are_known_by_their_content_and_by_the_file(tmp_path: Path) -> None:
    write_coco(tmp_path / "one", 2)
    write_coco(tmp_path / "repository/inner", 2, file="annotations/instances_default.json")
    for split in ("train", "valid"):
        write_coco(tmp_path / "split", 2, file=f"{split}/_annotations.coco.json", images=split)
    for name in ("one", "repository", "split"):
        assert found(tmp_path / name) == (tmp_path / name, "coco", {"name": name})
    file = tmp_path / "one/annotations.json"
    assert found(file) == (file.parent, "coco", {"name": "one", "annotations": "annotations.json"})
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(
        DataError, match="no annotation file of COCO: it has no list of images, annotations, categories"
    ):
        recognize(tmp_path / "other.json")


def test_one_set_with_boxes_among_others_is_not_taken_for_all(tmp_path: Path) -> None:
    write_voc(tmp_path / "boxes", many_scenes(2))
    write_class_folders(tmp_path / "photos", per_class=1)
    assert found(tmp_path)[1] == "folder"
    write_coco(tmp_path / "more", 2)
    assert found(tmp_path)[1] == "folder"


def test_other_xml_and_json_files_make_no_set_with_boxes(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=1)
    (tmp_path / "camera.xml").write_text("<settings/>")
    (tmp_path / "cat/0.xml").write_text("<annotation/>")
    (tmp_path / "notes.json").write_text('{"images": []}')
    assert found(tmp_path)[1] == "folder"


def test_every_key_that_is_recognized_is_registered_with_its_parameters() -> None:
    datasets = discover().datasets
    for key, names in {
        "folder": {"name"},
        "table": {"name", "labels"},
        "hdf5": {"name", "path"},
        "parquet": {"name", "path"},
        "medmnist": {"name", "path"},
        "tiny_imagenet": set(),
        "stl10": set(),
        "voc": {"name"},
        "coco": {"name", "annotations"},
        "cifar10": set(),
        "cifar100": set(),
    }.items():
        assert names <= set(datasets[key].parameters), key


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "it holds nothing. Known layouts: class folders"),
        (["a.png", "b.png", "notes.txt"], r"it holds 2 images and notes.txt. Nothing says the classes"),
        (["cat/a.png", "cat/b.png"], r"it holds cat/. Nothing says the classes of these images: two or more are nee"),
        (["images/a.png", "metadata.csv"], r"images/, metadata.csv. If metadata.csv has the labels, give it with --la"),
        (["one.h5", "two.h5"], r"Give --data one of these files: one.h5, two.h5\."),
    ],
)
def test_what_is_not_recognized_is_told_with_what_was_found(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        write_image(tmp_path / name) if name.endswith(".png") else touch(tmp_path / name)
    with pytest.raises(DataError, match=message):
        recognize(tmp_path)


def test_wrong_paths_are_errors(tmp_path: Path) -> None:
    touch(tmp_path / "a.txt", tmp_path / "a.h5", tmp_path / "l.csv")
    (tmp_path / "b.npz").write_bytes(b"nothing")
    for path, labels, message in (
        ("absent", None, "there is no such folder or file"),
        ("a.txt", None, "no file of a known layout"),
        ("a.h5", tmp_path / "l.csv", "holds its labels itself"),
        (".", tmp_path / "absent.csv", "there is no such file, here or in"),
        ("b.npz", None, "truncated or no .npz"),
    ):
        with pytest.raises(DataError, match=message):
            recognize(tmp_path / path, labels=labels)


def test_labels_are_never_an_absolute_path(tmp_path: Path) -> None:
    touch(tmp_path / "far/away/l.csv")
    relative = labels_below(tmp_path / "images/deep", tmp_path / "far/away/l.csv")
    assert relative == "../../far/away/l.csv" and not os.path.isabs(relative)  # noqa: PTH117
