from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.medmnist import find_files, medmnist, offers
from bench.data.medmnist_names import PUBLISHED
from bench.errors import DataError

PARTS = ("train", "val", "test")
RNG = np.random.default_rng(0)


def arrays(*shape: int, classes: int = 2, findings: int = 0, dtype: type = np.uint8) -> dict[str, Any]:
    """20, 6 and 10 images of a shape, with labels."""
    found: dict[str, Any] = {}
    for part, count in zip(PARTS, (20, 6, 10), strict=True):
        found[f"{part}_images"] = RNG.integers(0, 256, (count, *shape)).astype(dtype)
        labels = RNG.integers(0, 2, (count, findings)) if findings else (np.arange(count) % classes)[:, None]
        found[f"{part}_labels"] = labels.astype(np.uint8)
    return found


def write(file: Path, content: dict[str, Any]) -> None:
    np.savez(file, **content)


def test_gray_images_keep_their_splits_and_get_the_published_names(tmp_path: Path) -> None:
    content = arrays(28, 28)
    write(tmp_path / "pneumoniamnist.npz", content)
    dataset = medmnist(tmp_path)
    assert dataset.title == "PneumoniaMNIST" and dataset.class_names == ("normal", "pneumonia")
    for split, part in zip(("train", "validation", "test"), PARTS, strict=True):
        assert np.array_equal(dataset.split(split).images[..., 0], content[f"{part}_images"])
        assert dataset.split(split).labels.tolist() == content[f"{part}_labels"][:, 0].tolist()
    assert offers(tmp_path, {"path": ""}) == ("labels",)


def test_color_and_larger_sizes_are_read(tmp_path: Path) -> None:
    content = arrays(64, 64, 3, classes=8)
    write(tmp_path / "bloodmnist_64.npz", content)
    dataset = medmnist(tmp_path)
    assert dataset.title == "BloodMNIST" and dataset.num_classes == 8
    assert np.array_equal(dataset.split("test").images, content["test_images"])


def test_several_findings_are_multilabel(tmp_path: Path) -> None:
    content = arrays(28, 28, findings=14)
    write(tmp_path / "chestmnist.npz", content)
    dataset = medmnist(tmp_path)
    assert dataset.multilabel and dataset.class_names[1] == "cardiomegaly"
    assert dataset.split("validation").labels.tolist() == content["val_labels"].tolist()
    assert offers(tmp_path, {"path": ""}) == ("multilabel",)


def test_volumes_become_their_three_central_slices(tmp_path: Path) -> None:
    content = arrays(8, 8, 8, classes=11)
    write(tmp_path / "organmnist3d.npz", content)
    dataset = medmnist(tmp_path)
    assert dataset.title == "OrganMNIST3D (three central slices)" and dataset.images.shape == (36, 8, 8, 3)
    volume, image = content["val_images"][2], np.asarray(dataset.split("validation").images)[2]
    for axis in range(3):
        assert np.array_equal(image[..., axis], np.take(volume, 4, axis=axis))
    write(tmp_path / "organmnist3d.npz", arrays(8, 8, 9, classes=11))
    with pytest.raises(DataError, match=r"its volumes are 8×8×9; only cubes"):
        medmnist(tmp_path)


def test_an_unknown_archive_gets_numbers_for_names(tmp_path: Path) -> None:
    write(tmp_path / "ours.npz", arrays(8, 8, classes=3, dtype=np.uint16))
    dataset = medmnist(tmp_path, name="Ours")
    assert dataset.class_names == ("0", "1", "2") and dataset.title == "Ours" and dataset.images.dtype == np.uint16


def test_the_archive_is_found_or_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0 MedMNIST archives below .*: none\. Name the one"):
        medmnist(tmp_path)
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "one.npz", arrays(8, 8))
    np.savez(tmp_path / "other.npz", x_train=np.zeros(3))
    assert list(find_files(tmp_path, {"path": ""})) == [tmp_path / "a" / "one.npz"]
    write(tmp_path / "two.npz", arrays(8, 8))
    with pytest.raises(DataError, match=r"2 MedMNIST archives below .*: two.npz, a/one.npz\. Name the one"):
        medmnist(tmp_path)
    assert medmnist(tmp_path, path="two.npz").title == "two"


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "lacks": ({"val_labels": None}, "it lacks val_labels"),
    "count": ({"val_labels": np.zeros((5, 1), np.uint8)}, r"val_labels is uint8 \(5, 1\) for 6 validation images"),
    "float": ({"test_images": np.zeros((10, 28, 28))}, r"test_images is float64 \(10, 28, 28\); images"),
    "shape": ({"test_images": np.zeros((10, 9, 9), np.uint8)}, "its splits have images of different shapes"),
    "range": ({"test_labels": np.full((10, 1), 7, np.uint8)}, "labels run from 0 to 7, but from 0 to 1 is possible"),
    "class": ({"train_labels": np.zeros((20, 1), np.uint8)}, "no training image is of class 'pneumonia'"),
    "mixed": ({"test_labels": np.zeros((10, 2), np.uint8)}, "its splits have labels of different shapes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_archive_is_named_with_its_defect(tmp_path: Path, case: str) -> None:
    change, message = BROKEN[case]
    content = {name: array for name, array in {**arrays(28, 28), **change}.items() if array is not None}
    write(tmp_path / "pneumoniamnist.npz", content)
    with pytest.raises(DataError, match=rf"pneumoniamnist.npz: .*{message}"):
        medmnist(tmp_path, path="pneumoniamnist.npz")


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    write(file, arrays(28, 28))
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"a.npz: it is truncated or no .npz archive"):
        medmnist(tmp_path, path="a.npz")


def test_the_published_sets_have_their_numbers_of_classes() -> None:
    counts = {key: len(names) for key, (_, names) in PUBLISHED.items()}
    assert len(counts) == 18 and counts["pathmnist"] == 9 and counts["chestmnist"] == 14
    assert counts["tissuemnist"] == 8 and counts["retinamnist"] == 5
    assert [counts[f"organ{plane}mnist"] for plane in "acs"] + [counts["organmnist3d"]] == [11] * 4


def test_the_real_archive_is_read(data_root: Path) -> None:
    if not (data_root / "pneumoniamnist").is_dir():
        pytest.skip(f"{data_root} has no pneumoniamnist folder")
    dataset = medmnist(data_root, path="pneumoniamnist/pneumoniamnist.npz")
    assert [np.bincount(dataset.split(name).labels).tolist() for name in ("train", "validation", "test")] == [
        [388, 3494],
        [135, 389],
        [234, 390],
    ]
