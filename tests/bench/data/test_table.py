from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.dataset import UNCERTAIN, UNKNOWN, ImageDataset
from bench.data.leakage import find_leakage
from bench.data.sources import DataSource
from bench.data.table import find_files, offers, table
from bench.errors import DataError
from bench.registry import Registry
from bench.spec import DataSpec

from .tiny import write_image

DEFAULTS: dict[str, Any] = {"path": "", "labels": "labels.csv", "label": "", "findings": ()}


def write_set(folder: Path, text: str, *, images: int = 12, suffix: str = "") -> None:
    """``images`` gray images 0.png … in a subfolder, each of the value of its number, and labels.csv."""
    for number in range(images):
        write_image(folder / "images" / f"{number}.png", mode="L", size=(6, 6), value=number)
    (folder / "labels.csv").write_text(text, encoding="utf-8")


def rows(header: str, *lines: str) -> str:
    return "\n".join((header, *lines)) + "\n"


def shown(dataset: ImageDataset, split: str) -> list[int]:
    """The numbers of the images of a split: their gray values."""
    return sorted(np.asarray(dataset.split(split).images)[:, 0, 0, 0].tolist())


CLASSES = rows("file,label", *(f"{n}.png,{'cat' if n % 2 else 'dog'}" for n in range(12)))


def test_classes_are_read_and_images_stay_with_their_labels(tmp_path: Path) -> None:
    write_set(tmp_path, CLASSES)
    dataset = table(tmp_path, image_size=6)
    assert dataset.class_names == ("cat", "dog") and dataset.images.shape == (12, 6, 6, 1)
    assert {name: len(index) for name, index in dataset.splits.items()} == {"train": 8, "validation": 2, "test": 2}
    values = np.asarray(dataset.images)[:, 0, 0, 0]
    assert dataset.labels.tolist() == [1 - value % 2 for value in values.tolist()]
    assert offers(tmp_path, DEFAULTS) == ("labels",)


def test_findings_are_every_column_of_ones_zeros_minus_ones_and_blanks(tmp_path: Path) -> None:
    text = rows(
        "Image Index;Age;Edema;Mass;Sex", *(f"{n}.png;{n};{n % 2};{['1.0', '', '-1', '0'][n % 4]};F" for n in range(12))
    )
    write_set(tmp_path, text)
    dataset = table(tmp_path, image_size=6)
    assert dataset.multilabel and dataset.class_names == ("Edema", "Mass")
    values = np.asarray(dataset.images)[:, 0, 0, 0].tolist()
    assert dataset.labels.tolist() == [[n % 2, [1, UNKNOWN, UNCERTAIN, 0][n % 4]] for n in values]
    assert offers(tmp_path, DEFAULTS) == ("multilabel",)
    assert table(tmp_path, image_size=6, findings=("Mass",)).class_names == ("Mass",)


def test_blank_labels_and_unlisted_images_serve_pretraining_only(tmp_path: Path) -> None:
    write_set(tmp_path, CLASSES.replace("11.png,cat", "11.png,"), images=14)
    dataset = table(tmp_path, image_size=6)
    assert shown(dataset, "unlabelled") == [11, 12, 13]
    assert dataset.split("unlabelled").labels.tolist() == [UNKNOWN] * 3
    assert sorted(np.asarray(dataset.pretraining.images)[:, 0, 0, 0].tolist()) == sorted(
        [*shown(dataset, "train"), 11, 12, 13]
    )


PATIENTS = rows(
    "image,Patient ID,label,laterality",
    *(f"images/{n}.png,p{n // 2},{'sick' if n // 2 % 2 else 'well'},{'LR'[n % 2]}" for n in range(24)),
)


def test_patients_stay_on_one_side_and_metadata_follow(tmp_path: Path) -> None:
    write_set(tmp_path, PATIENTS, images=24)
    dataset = table(tmp_path, image_size=6)
    sides = {name: set(dataset.split(name).metadata["patient"].tolist()) for name in dataset.splits}
    assert len(set.union(*sides.values())) == sum(map(len, sides.values())) == 12
    assert [len(sides[name]) for name in ("train", "validation", "test")] == [8, 2, 2]
    for name in dataset.splits:
        part = dataset.split(name)
        numbers = np.asarray(part.images)[:, 0, 0, 0].tolist()
        assert part.metadata["laterality"].tolist() == ["LR"[n % 2] for n in numbers]
        assert part.metadata["patient"].tolist() == [f"p{n // 2}" for n in numbers]
    assert offers(tmp_path, DEFAULTS) == ("labels", "metadata")


def test_unlabelled_images_of_an_evaluated_patient_are_left_out(tmp_path: Path) -> None:
    unlabelled = [f"images/{n}.png,p{n - 24},,L" for n in range(24, 36)]  # one more image of each patient
    write_set(tmp_path, PATIENTS + "\n".join(unlabelled), images=36)
    dataset = table(tmp_path, image_size=6)
    training = set(dataset.split("train").metadata["patient"].tolist())
    assert set(dataset.split("unlabelled").metadata["patient"].tolist()) == training
    assert len(dataset.labels) == 24 + len(training)


def with_splits(*words: str, patients: str = "") -> str:
    names = patients or "abcdefghijkl"
    lines = (f"{n}.png,{'xy'[n % 2]},{names[n]},{words[n]}" for n in range(12))
    return rows("filename,label,patient,Split", *lines)


GIVEN = ("train", "Train") * 3 + ("val", "val", "TEST", "test", "test", "test")


def test_the_given_splits_are_kept(tmp_path: Path) -> None:
    write_set(tmp_path, with_splits(*GIVEN))
    dataset = table(tmp_path, image_size=6)
    assert [shown(dataset, name) for name in ("train", "validation", "test")] == [
        [0, 1, 2, 3, 4, 5],
        [6, 7],
        [8, 9, 10, 11],
    ]
    anew = table(tmp_path, image_size=6, use_splits=False, test=0.3)
    assert shown(anew, "test") != [8, 9, 10, 11]


def test_unlabelled_rows_of_an_evaluation_split_are_left_out(tmp_path: Path) -> None:
    write_set(tmp_path, with_splits(*GIVEN).replace("10.png,x", "10.png,").replace("\n0.png,x", "\n0.png,"))
    dataset = table(tmp_path, image_size=6)
    assert shown(dataset, "test") == [8, 9, 11]
    assert shown(dataset, "unlabelled") == [0]
    assert len(dataset.labels) == 11


def test_a_missing_validation_split_is_taken_from_the_training_patients(tmp_path: Path) -> None:
    write_set(tmp_path, with_splits(*["train"] * 8, *["test"] * 4, patients="aaccbbddefgh"))
    dataset = table(tmp_path, image_size=6, validation=0.25)
    assert shown(dataset, "test") == [8, 9, 10, 11]
    assert shown(dataset, "validation") in ([0, 1], [2, 3], [4, 5], [6, 7])


def test_a_patient_in_two_given_splits_is_refused_unless_allowed(tmp_path: Path) -> None:
    write_set(tmp_path, with_splits(*GIVEN, patients="abcdefghaklm"))
    message = r"1 patient with images in more than one split: a \(train, test\)\. .*use_splits"
    with pytest.raises(DataError, match=message):
        table(tmp_path)
    assert shown(table(tmp_path, image_size=6, allow_leakage=True), "test") == [8, 9, 10, 11]
    anew = table(tmp_path, image_size=6, use_splits=False)
    sides = [set(anew.split(name).metadata["patient"].tolist()) for name in ("train", "validation", "test")]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_studies_stay_on_one_side_where_no_patient_is_known(tmp_path: Path) -> None:
    lines = (f"{n}.png,{'xy'[n // 3 % 2] if n < 20 else ''},{'p' if n < 3 else ''},s{n // 3}" for n in range(24))
    write_set(tmp_path, rows("file,label,patient,study", *lines), images=24)
    dataset = table(tmp_path, image_size=6, test=0.3)
    assert not find_leakage(dataset, near=False)
    sides = {split: {n // 3 for n in shown(dataset, split)} for split in ("train", "validation", "test")}
    assert sorted(study for side in sides.values() for study in side) == list(range(7))
    # 20 has no label: it goes with its study 6, or is left out where that is evaluated
    assert set(shown(dataset, "unlabelled")) >= {21, 22, 23}
    assert (20 in shown(dataset, "unlabelled")) == (6 in sides["train"])
    few = (f"{n}.png,{'xy'[n // 6]},s{n // 6}" for n in range(12))
    write_set(tmp_path, rows("file,label,study", *few))
    with pytest.raises(DataError, match=r"the class 'x' has 1 studies to be split, at least 3"):
        table(tmp_path)


def test_files_are_found_below_other_leading_folders_and_by_unique_names(tmp_path: Path) -> None:
    text = CLASSES.replace("\n3.png", "\nCheXpert/images/3.png").replace("\n4.png", "\nelsewhere\\4.png")
    write_set(tmp_path, text)
    assert len(table(tmp_path, image_size=6).labels) == 12
    write_image(tmp_path / "other" / "4.png")
    with pytest.raises(DataError, match=r"lists elsewhere/4.png, and 2 images have that name: images/4.png, other/4.p"):
        table(tmp_path)


def test_the_csv_and_every_image_decide_the_content(tmp_path: Path) -> None:
    write_set(tmp_path, CLASSES)
    names = [file.relative_to(tmp_path).as_posix() for file in find_files(tmp_path, DEFAULTS)]
    assert names == ["labels.csv", *sorted(f"images/{n}.png" for n in range(12))]


def test_missing_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    write_set(tmp_path, CLASSES, images=5)
    with pytest.raises(DataError, match=r"lists 7 of 12 images that are not below .*: 5.png, .*, 9.png …\. Add the"):
        table(tmp_path)


MALFORMED = {
    "no header for files": (rows("name,label", "0.png,a"), r"no column of image files: looked for file, .* name, lab"),
    "no rows": ("file,label\n", r"have no rows\. Give a CSV"),
    "one class": (rows("file,label", "0.png,a", "1.png,a"), r"the column 'label' has only 'a'; two or more classes"),
    "blank": (rows("file,label", "0.png,", "1.png,"), r"the column 'label' has no value"),
    "twice": (CLASSES + "3.png,cat\n", r"lists 1 files more than once: 3.png\. Keep one row"),
    "two names": (CLASSES + "images/3.png,cat\n", r"lists .*3.png under more than one name"),
    "both": (rows("file,label,Mass", "0.png,a,1", "1.png,b,0"), r"and columns that look like findings \(Mass\)"),
    "neither": (rows("file,age", "0.png,33", "1.png,34"), r"neither a column `label` nor columns of only 1, 0, -1"),
    "ragged": (rows("file,label", "0.png,a", "1.png,b,c"), r"labels.csv, row 3 has 3 fields, the header 2"),
    "same column": (rows("file,label,label", "0.png,a,b"), r"has the column 'label' more than once"),
    "few": (CLASSES + "12.png,fish\n", r"the class 'fish' has 1 images to be split, at least 3 are needed"),
    "few patients": (
        PATIENTS.replace("p0,well", "p0,rare").replace("p2,well", "p2,rare"),
        r"the class 'rare' has 2 patients to be split, at least 3",
    ),
    "word": (with_splits(*GIVEN[:11], "holdout"), r"row 13: the split 'holdout' is none of train, .*use_splits"),
    "no train": (with_splits(*["test"] * 12), r"no labelled row is of the split train"),
    "untrained": (
        with_splits(*GIVEN).replace("1.png,y", "1.png,x").replace("3.png,y", "3.png,x").replace("5.png,y", "5.png,x"),
        r"no training image is of the class 'y'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_table_is_refused_with_what_to_do(tmp_path: Path, case: str) -> None:
    text, message = MALFORMED[case]
    write_set(tmp_path, text, images=24)
    with pytest.raises(DataError, match=message):
        table(tmp_path)


def test_an_unreadable_csv_and_wrong_parameters_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path, CLASSES)
    with pytest.raises(DataError, match=r"The labels .*absent.csv cannot be read .* as the parameter `labels`"):
        table(tmp_path, labels="absent.csv")
    with pytest.raises(DataError, match=r"has no column 'Edema'; it has file, label\. Correct the name"):
        table(tmp_path, findings=("Edema",))
    with pytest.raises(DataError, match=r"both `label` and `findings` are given"):
        table(tmp_path, findings=("label",), label="label")
    with pytest.raises(DataError, match=r"row 2: the finding 'label' is 'dog'; 1 \(present\), 0"):
        table(tmp_path, findings=("label",))
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,a\n")
    with pytest.raises(DataError, match=r"labels.csv cannot be read .*Give a CSV in UTF-8"):
        table(tmp_path)


def test_a_source_loads_a_table_with_its_metadata(tmp_path: Path, datasets: Registry) -> None:
    write_set(tmp_path / "data", PATIENTS, images=25)
    spec = DataSpec(key="table", params={"image_size": 6})
    for _ in range(2):  # from the files, then from the cache
        source = DataSource(datasets, root=tmp_path / "data", cache=tmp_path / "cache")
        dataset = source.load(spec)
        assert dataset.split("unlabelled").metadata["patient"].tolist() == [""]
        assert shown(dataset, "unlabelled") == [24]
        assert source.offers(spec) == ("labels", "metadata")


def test_real_radiographs_are_split_by_patient(data_root: Path) -> None:
    if not (data_root / "nih-cxr-1000").is_dir():
        pytest.skip(f"{data_root} has no nih-cxr-1000 folder")
    options: dict[str, Any] = {"path": "nih-cxr-1000", "labels": "metadata.csv", "image_size": 16}
    dataset = table(data_root, **options)
    assert dataset.multilabel and len(dataset.class_names) == 14 and dataset.channels == 1
    assert {name: len(index) for name, index in dataset.splits.items()} == {
        "train": 700,
        "validation": 100,
        "test": 200,
    }
    assert len(set(dataset.metadata["patient"].tolist())) == 264
    sides = [set(dataset.split(name).metadata["patient"].tolist()) for name in dataset.splits]
    assert sum(map(len, sides)) == 264
    totals = (dataset.labels == 1).sum(axis=0)
    assert totals[dataset.class_names.index("Effusion")] == 170
    assert np.abs((dataset.split("test").labels == 1).sum(axis=0) - 0.2 * totals).max() <= 5
    classes = table(data_root, **options, label="repo_class")
    assert [np.bincount(classes.labels[index]).tolist() for index in classes.splits.values()] == [
        [350, 350],
        [50, 50],
        [100, 100],
    ]
    assert np.asarray(dataset.split("test").images).std() > 30


def test_the_leak_in_the_real_splits_is_named(data_root: Path, tmp_path: Path) -> None:
    if not (data_root / "nih-cxr-1000").is_dir():
        pytest.skip(f"{data_root} has no nih-cxr-1000 folder")
    text = (data_root / "nih-cxr-1000" / "metadata.csv").read_text().replace("repo_split", "split", 1)
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=r"\d+ patients with images in more than one split"):
        table(data_root, path="nih-cxr-1000", labels=str(tmp_path / "metadata.csv"))
