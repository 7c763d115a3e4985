from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.dataset import UNCERTAIN, UNKNOWN
from bench.data.hdf5 import hdf5, offers
from bench.errors import DataError

h5py = pytest.importorskip("h5py")
RNG = np.random.default_rng(0)
NAMES = {"path": "", "labels": "labels", "split": "split", "patient": "patient"}


def write(file: Path, *, class_names: tuple[str, ...] = (), **arrays: Any) -> None:
    with h5py.File(file, "w") as content:
        for name, array in arrays.items():
            texts = np.asarray(array).dtype.kind in "UO"
            content.create_dataset(name, data=np.asarray(array, dtype="S") if texts else array)
        if class_names:
            content["labels"].attrs["class_names"] = class_names


def numbered(*shape: int, dtype: type = np.uint8) -> Any:
    """30 images of noise, whose first value is their number."""
    images = RNG.integers(0, 256, (30, *shape)).astype(dtype)
    images.reshape(30, -1)[:, 0] = np.arange(30)
    return images


def test_images_of_any_number_of_channels_stay_with_their_labels(tmp_path: Path) -> None:
    images = numbered(8, 8, 5, dtype=np.uint16)
    write(tmp_path / "scans.h5", images=images, labels=np.arange(30) % 3, class_names=("a", "b", "c"))
    dataset = hdf5(tmp_path)
    assert dataset.title == "scans" and dataset.channels == 5 and dataset.images.dtype == np.uint16
    assert np.array_equal(np.asarray(dataset.images), images)
    assert [dataset.class_names[label] for label in dataset.labels[:4]] == ["a", "b", "c", "a"]
    assert {name: len(index) for name, index in dataset.splits.items()} == {"train": 21, "validation": 3, "test": 6}
    assert offers(tmp_path, NAMES) == ("labels",)


def test_rows_are_read_in_any_order_and_after_travelling(tmp_path: Path) -> None:
    images = numbered(8, 8)
    write(tmp_path / "a.hdf5", images=images, labels=np.arange(30) % 2)
    lazy = pickle.loads(pickle.dumps(hdf5(tmp_path).images))
    rows = np.array([7, 3, 29, 3])
    assert np.array_equal(lazy[rows], images[rows][..., None])
    assert np.array_equal(lazy[4:6], images[4:6][..., None])


def test_planar_images_are_turned(tmp_path: Path) -> None:
    images = numbered(3, 8, 9)
    write(tmp_path / "a.h5", images=images, labels=np.arange(30) % 2)
    dataset = hdf5(tmp_path, layout="NCHW")
    assert dataset.images.shape == (30, 8, 9, 3)
    assert np.array_equal(np.asarray(dataset.images), images.transpose(0, 2, 3, 1))


def test_other_numbers_need_a_window(tmp_path: Path) -> None:
    images = np.zeros((30, 4, 4), dtype=np.int16) + np.arange(-1000, 2000, 100, dtype=np.int16)[:, None, None]
    write(tmp_path / "ct.h5", images=images, labels=np.arange(30) % 2)
    with pytest.raises(DataError, match=r"images holds int16, which has no full range\. Give .* `window`"):
        hdf5(tmp_path)
    pixels = np.asarray(hdf5(tmp_path, window=(-100, 300)).images)[:, 0, 0, 0]
    assert pixels.dtype == np.uint16
    assert pixels.tolist() == [0] * 10 + [16384, 32768, 49151] + [65535] * 17


def test_text_labels_splits_and_patients_are_read(tmp_path: Path) -> None:
    words = ["train"] * 20 + ["val"] * 4 + ["test"] * 6
    write(
        tmp_path / "a.h5",
        images=numbered(4, 4),
        labels=["well", "sick", ""] * 10,
        split=words,
        patient=np.arange(30) // 2,
    )
    dataset = hdf5(tmp_path)
    assert dataset.class_names == ("sick", "well")
    assert np.asarray(dataset.split("test").images)[:, 0, 0, 0].tolist() == [24, 25, 27, 28]  # 26 and 29 are blank
    assert dataset.split("test").metadata["patient"].tolist() == ["12", "12", "13", "14"]
    assert np.asarray(dataset.split("unlabelled").images)[:, 0, 0, 0].tolist() == [2, 5, 8, 11, 14, 17]
    assert offers(tmp_path, NAMES) == ("labels", "metadata")
    anew = hdf5(tmp_path, use_splits=False)
    sides = [set(anew.split(name).metadata["patient"].tolist()) for name in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides))


def test_findings_know_uncertain_and_unknown(tmp_path: Path) -> None:
    findings = np.tile(np.array([[1.0, 0.0], [0.0, -1.0], [1.0, np.nan], [0.0, -2.0]]), (8, 1))[:30]
    write(tmp_path / "a.h5", images=numbered(4, 4), labels=findings, class_names=("Edema", "Mass"))
    with pytest.raises(DataError, match=r"no array 'diagnoses'; it has images, labels\. Name it"):
        hdf5(tmp_path, labels="diagnoses")
    dataset = hdf5(tmp_path)
    assert dataset.class_names == ("Edema", "Mass") and offers(tmp_path, NAMES) == ("multilabel",)
    expected = [[1, 0], [0, UNCERTAIN], [1, UNKNOWN], [0, UNKNOWN]]
    assert dataset.labels[:4].tolist() == expected


def test_numbers_of_classes_may_be_floating_point_but_not_between_two(tmp_path: Path) -> None:
    labels = np.arange(30) % 2 + 0.0
    labels[3] = np.nan
    write(tmp_path / "a.h5", images=numbered(4, 4), labels=labels)
    dataset = hdf5(tmp_path, path="a.h5")
    assert dataset.class_names == ("0", "1") and dataset.splits["unlabelled"].tolist() == [3]
    write(tmp_path / "b.h5", images=numbered(4, 4), labels=np.nan_to_num(labels) + 0.5)
    with pytest.raises(DataError, match=r"b\.h5: a label is 0\.5, which is no whole number of a class"):
        hdf5(tmp_path, path="b.h5")


def test_what_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"0 HDF5 files .*: none\. Name the one that is meant"):
        hdf5(tmp_path)
    file = tmp_path / "a.h5"
    write(file, images=numbered(4, 4), labels=np.arange(29) % 2)
    with pytest.raises(DataError, match=r"a.h5: it has 30 images but 29 labels"):
        hdf5(tmp_path)
    write(file, images=numbered(4, 4), labels=np.arange(30) % 3, class_names=("a", "b"))
    with pytest.raises(DataError, match=r"a label is 2, and class_names has 2 names"):
        hdf5(tmp_path)
    with pytest.raises(DataError, match=r"layout is one of NHWC, NCHW, got 'CHW'"):
        hdf5(tmp_path, layout="CHW")
    with pytest.raises(DataError, match=r"no array 'group'"):
        hdf5(tmp_path, patient="group")
    write(file, images=numbered(4), labels=np.arange(30) % 2)
    with pytest.raises(DataError, match=r"images is uint8 \(30, 4\); images \(N, H, W\)"):
        hdf5(tmp_path)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match=r"a.h5: it is truncated or no HDF5 file"):
        hdf5(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r'h5py is not installed\. Run pip install "jointbench\[hdf5\]"'):
        hdf5(tmp_path)
