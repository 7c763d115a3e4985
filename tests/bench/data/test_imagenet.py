from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from bench.data.dataset import ImageDataset
from bench.data.imagenet import WNID, find_files, imagenet
from bench.data.imagenet100 import CMC_CLASSES, imagenet100, read_classes
from bench.data.tiny_imagenet import tiny_imagenet
from bench.errors import DataError

from .tiny import write_image

WNIDS = ("n02012849", "n01440764", "n03126707")
IN_ORDER = ("n01440764", "n02012849", "n03126707")
WORDS = {"n01440764": "tench, Tinca tinca", "n02012849": "crane", "n03126707": "crane"}
PLACE = {"path": ""}


def write_train(home: Path, *, per_class: int = 6) -> None:
    """Each image has the value 10 · class + number, of the class in sorted order."""
    for label, wnid in enumerate(IN_ORDER):
        for number in range(per_class):
            write_image(home / "train" / wnid / f"{wnid}_{number}.JPEG", size=(9, 9), value=10 * label + number)


def write_folders(home: Path) -> None:
    write_train(home)
    for label, wnid in enumerate(IN_ORDER):
        write_image(home / "val" / wnid / f"ILSVRC2012_val_0000000{label + 1}.JPEG", size=(9, 9), value=100 + label)


def write_flat(home: Path) -> None:
    """Validation images 1, 2, 3 of the classes 2, 0, 1."""
    write_train(home)
    for number, label in enumerate((2, 0, 1), start=1):
        write_image(home / "val" / f"ILSVRC2012_val_{number:08d}.JPEG", size=(9, 9), value=100 + label)


def values(dataset: ImageDataset, split: str) -> list[int]:
    return np.asarray(dataset.split(split).images)[:, 4, 4, 1].tolist()


def check(dataset: ImageDataset) -> None:
    """Images and labels belong together, and the official validation images are the test split."""
    assert values(dataset, "test") == [100, 101, 102]
    assert dataset.split("test").labels.tolist() == [0, 1, 2]
    for split, count in (("train", 5), ("validation", 1)):
        part = dataset.split(split)
        assert np.bincount(part.labels).tolist() == [count] * 3
        assert [value // 10 for value in values(dataset, split)] == part.labels.tolist()


@pytest.mark.parametrize("place", ["", "imagenet", "ILSVRC/Data/CLS-LOC"])
def test_class_folders_are_read_in_the_order_of_their_identifiers(tmp_path: Path, place: str) -> None:
    write_folders(tmp_path / place)
    dataset = imagenet(tmp_path, image_size=8)
    check(dataset)
    assert dataset.class_names == IN_ORDER and dataset.images.shape == (21, 8, 8, 3)


def test_flat_validation_images_are_sorted_by_the_solution(tmp_path: Path) -> None:
    write_flat(tmp_path / "ILSVRC" / "Data" / "CLS-LOC")
    rows = [f"ILSVRC2012_val_{n:08d},{IN_ORDER[c]} 1 2 3 4 {IN_ORDER[c]} 5 6 7 8 " for n, c in ((3, 1), (1, 2), (2, 0))]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    check(imagenet(tmp_path, image_size=8))


def test_flat_validation_images_are_sorted_by_the_development_kit(tmp_path: Path) -> None:
    write_flat(tmp_path)
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n")
    synsets = np.zeros(3, dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    for row, label in enumerate((2, 0, 1)):  # the kit's numbers are not the identifiers' order
        synsets[row] = (float(row + 1), IN_ORDER[label])
    savemat(kit / "meta.mat", {"synsets": synsets})
    check(imagenet(tmp_path, image_size=8))
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n9\n")
    with pytest.raises(DataError, match=r"'9' is no number of a class of meta.mat"):
        imagenet(tmp_path)


@pytest.mark.parametrize(("file", "blank"), [("LOC_synset_mapping.txt", " "), ("words.txt", "\t")])
def test_synsets_are_named_and_namesakes_told_apart(tmp_path: Path, file: str, blank: str) -> None:
    write_folders(tmp_path)
    (tmp_path / file).write_text("".join(f"{wnid}{blank}{words}\n" for wnid, words in WORDS.items()))
    assert imagenet(tmp_path).class_names == ("tench", "crane (n02012849)", "crane (n03126707)")


def test_folders_and_lists_decide_the_content_not_a_million_files(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "words.txt").write_text("n01440764\ttench\n")
    names = [file.relative_to(tmp_path.resolve()).as_posix() for file in map(Path.resolve, find_files(tmp_path, PLACE))]
    assert names == [*(f"train/{w}" for w in IN_ORDER), *(f"val/{w}" for w in IN_ORDER), "words.txt"]


def test_a_share_of_the_training_images_is_validation(tmp_path: Path) -> None:
    write_folders(tmp_path)
    dataset = imagenet(tmp_path, image_size=8, validation=0.5)
    assert np.bincount(dataset.split("validation").labels).tolist() == [3, 3, 3]
    with pytest.raises(DataError, match=r"between 0 and 1, got 1\.0"):
        imagenet(tmp_path, validation=1.0)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No ImageNet below .* `path`"):
        imagenet(tmp_path)
    write_train(tmp_path)
    with pytest.raises(DataError, match=r"has no folder val\. Put the official validation images"):
        imagenet(tmp_path)
    write_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataError, match=r"nothing says their classes\. Put LOC_val_solution.csv, or"):
        imagenet(tmp_path)
    (tmp_path / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\nother,{WNIDS[0]} 1 2 3 4\n")
    with pytest.raises(DataError, match=r"val_00000001.JPEG is in no list of validation images"):
        imagenet(tmp_path)
    (tmp_path / "LOC_val_solution.csv").write_text(f"I,P\nILSVRC2012_val_00000001,{WNIDS[0]} 1 2 3 4\n")
    with pytest.raises(DataError, match=r"val has no image of class n01440764"):
        imagenet(tmp_path)


def test_imagenet100_takes_the_classes_of_a_list(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "mine.txt").write_text("# two classes\nn03126707\nn01440764  # fish\n")
    dataset = imagenet100(tmp_path, classes="mine.txt", image_size=8)
    assert dataset.class_names == ("n01440764", "n03126707")
    assert values(dataset, "test") == [100, 102] and dataset.split("test").labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"train lacks 100 of 100 classes: n01558993, .*\. Add them"):
        imagenet100(tmp_path)


def test_the_usual_list_has_one_hundred_classes() -> None:
    found = read_classes(CMC_CLASSES)
    assert len(set(found)) == 100 and found[0] == "n02869837" and found[-1] == "n02090622"
    assert all(WNID.fullmatch(wnid) for wnid in found)


@pytest.mark.parametrize(
    ("text", "message"), [("n0144\nn01440764", "'n0144' is no"), ("n01440764\n" * 2, "1 different")]
)
def test_a_wrong_list_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(DataError, match=rf"mine.txt: {message}.* Write one identifier"):
        read_classes(tmp_path / "mine.txt")


def write_tiny(home: Path) -> None:
    for label, wnid in enumerate(IN_ORDER):
        for number in range(10):
            write_image(
                home / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", size=(64, 64), value=10 * label + number
            )
        (home / "train" / wnid / f"{wnid}_boxes.txt").write_text("boxes")
    rows: list[Any] = []
    for number, label in enumerate((2, 0, 1)):
        write_image(home / "val" / "images" / f"val_{number}.JPEG", size=(64, 64), value=100 + label)
        rows.append(f"val_{number}.JPEG\t{IN_ORDER[label]}\t0\t0\t62\t62")
    (home / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    (home / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (home / "words.txt").write_text("".join(f"{wnid}\t{words}\n" for wnid, words in WORDS.items()))
    write_image(home / "test" / "images" / "test_0.JPEG", size=(64, 64))


def test_tiny_imagenet_is_read_in_its_official_layout(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny-imagenet-200")
    dataset = tiny_imagenet(tmp_path)
    assert dataset.images.shape == (33, 64, 64, 3)
    assert dataset.class_names == ("tench", "crane (n02012849)", "crane (n03126707)")
    assert values(dataset, "test") == [102, 100, 101] and dataset.split("test").labels.tolist() == [2, 0, 1]
    assert np.bincount(dataset.split("validation").labels).tolist() == [1, 1, 1]
    part = dataset.split("train")
    assert [value // 10 for value in values(dataset, "train")] == part.labels.tolist()


def test_what_tiny_imagenet_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No Tiny ImageNet below"):
        tiny_imagenet(tmp_path)
    write_tiny(tmp_path)
    (tmp_path / "val" / "images" / "val_1.JPEG").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 3 images of val_annotations.txt: val/images/val_1.JPEG"):
        tiny_imagenet(tmp_path)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn99999999\t0\t0\t1\t1\n")
    with pytest.raises(DataError, match=r"row 1 names 'n99999999', which is no class of wnids.txt"):
        tiny_imagenet(tmp_path)
