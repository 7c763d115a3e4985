from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.cifar import CIFAR10, cifar10, cifar100, find_copy
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.spec import DataSpec

from .tiny import (
    labels_of,
    pixels_of,
    python2_pickle,
    write_cifar10_binary,
    write_cifar10_python,
    write_cifar100_binary,
    write_cifar100_python,
)


def write_npz(file: Path, **changes: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    train, test = labels_of(10, 5), labels_of(10, 2)
    arrays: dict[str, Any] = {
        "x_train": pixels_of(train, 32, 32, 3),
        "y_train": train,
        "x_test": pixels_of(test, 32, 32, 3),
        "y_test": test,
    }
    arrays |= changes
    np.savez_compressed(file, **{name: array for name, array in arrays.items() if array is not None})


def test_binary_batches_are_read_as_red_green_and_blue_planes(tmp_path: Path) -> None:
    planes = write_cifar10_binary(tmp_path)
    dataset = cifar10(tmp_path)
    assert dataset.images.shape == (120, 32, 32, 3)
    assert dataset.images[:20].tolist() == planes["data_batch_1.bin"].transpose(0, 2, 3, 1).tolist()
    assert dataset.images[:, 0, 0, 0].tolist() == dataset.labels.tolist()
    assert dataset.class_names[:2] == ("airplane", "automobile")
    assert {name: len(index) for name, index in dataset.splits.items()} == {"train": 90, "validation": 10, "test": 20}
    assert dataset.splits["test"].tolist() == list(range(100, 120))


def test_class_names_beside_binary_batches_are_used(tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path)
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"thing {i}" for i in range(10)) + "\n\n")
    assert cifar10(tmp_path).class_names[3] == "thing 3"


@pytest.mark.parametrize("folder", [".", "cifar-10-batches-py", "CIFAR10", "my cifar_10 copy"])
def test_pickled_batches_are_found_in_the_root_and_in_folders_of_that_name(tmp_path: Path, folder: str) -> None:
    write_cifar10_python(tmp_path / folder)
    dataset = cifar10(tmp_path)
    assert dataset.images[:, 0, 0, 0].tolist() == dataset.labels.tolist()
    assert dataset.class_names[3] == "thing 3"


def test_batches_pickled_by_python_2_are_read(tmp_path: Path) -> None:
    write_cifar10_python(tmp_path)
    labels = labels_of(10, 2)
    (tmp_path / "test_batch").write_bytes(python2_pickle(pixels_of(labels, 3072), labels.tolist()))
    dataset = cifar10(tmp_path)
    assert dataset.split("test").images[:, 0, 0, 0].tolist() == labels.tolist()


@pytest.mark.parametrize("write", [write_cifar100_python, write_cifar100_binary])
def test_the_fine_labels_of_cifar100_are_read(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "cifar-100")
    dataset = cifar100(tmp_path)
    assert dataset.images[:, 0, 0, 0].tolist() == dataset.labels.tolist()
    assert dataset.class_names[42] == "thing 42"
    assert [len(dataset.splits[name]) for name in ("train", "validation", "test")] == [200, 100, 100]


def test_cifar100_is_not_taken_for_cifar10(tmp_path: Path) -> None:
    write_cifar100_python(tmp_path / "cifar-100-python")
    write_npz(tmp_path / "cifar100.npz")
    with pytest.raises(DataError, match=r"No CIFAR-10 below"):
        cifar10(tmp_path)


def test_an_npz_archive_is_read_with_its_class_names(tmp_path: Path) -> None:
    names = np.array([f"thing {i}" for i in range(10)])
    write_npz(tmp_path / "cifar10-subset" / "any name.npz", class_names=names, y_train=labels_of(10, 5)[:, None])
    dataset = cifar10(tmp_path)
    assert dataset.images.shape == (70, 32, 32, 3)
    assert dataset.images[:, 0, 0, 0].tolist() == dataset.labels.tolist()
    assert dataset.class_names[3] == "thing 3"
    assert find_copy(tmp_path / "cifar10-subset", CIFAR10).layout == "npz"


def test_an_npz_archive_without_class_names_gets_the_usual_ones(tmp_path: Path) -> None:
    write_npz(tmp_path / "cifar10.npz")
    assert cifar10(tmp_path).class_names[9] == "truck"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, r"cifar10.npz: it lacks y_test \(it holds x_train, y_train, x_test\)"),
        ({"x_test": np.zeros((20, 3, 32, 32), np.uint8)}, r"must be bytes \(n, 32, 32, 3\), found uint8 \(20, 3, 32"),
        ({"x_test": np.zeros((20, 32, 32, 3), np.float32)}, r"must be bytes \(n, 32, 32, 3\), found float32"),
        ({"y_test": np.array(["a"] * 20)}, r"it holds no list of whole-numbered labels"),
        ({"y_test": np.zeros(19, np.int64)}, r"20 images but 19 labels"),
        ({"y_test": np.array([{}] * 20)}, r"it is truncated or no .npz file of plain arrays \(Object arrays cannot"),
    ],
)
def test_an_unfit_npz_archive_is_an_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_npz(tmp_path / "cifar10.npz", **changes)
    with pytest.raises(DataError, match=message):
        cifar10(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_npz_archive_is_an_error(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "cifar10.npz"
    write_npz(file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"cifar10.npz: it is truncated or no .npz file"):
        cifar10(tmp_path)


def test_a_truncated_binary_batch_is_named(tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path)
    file = tmp_path / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"data_batch_3.bin: 61455 bytes are no multiple of 3073: it is trunc"):
        cifar10(tmp_path)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"holds a part of CIFAR-10 only; missing: data_batch_4.bin"):
        cifar10(tmp_path)


def test_a_pickled_batch_without_images_is_named(tmp_path: Path) -> None:
    write_cifar10_python(tmp_path)
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps({"data": [1, 2], "labels": [0, 1]}))
    with pytest.raises(DataError, match=r"data_batch_2: 'data' is not an array of bytes with 3072 columns"):
        cifar10(tmp_path)


def test_a_malicious_batch_is_refused(tmp_path: Path) -> None:
    write_cifar10_python(tmp_path)
    (tmp_path / "data_batch_2").write_bytes(b"cbuiltins\neval\n(S'1'\ntR.")
    with pytest.raises(DataError, match=r"data_batch_2: not read.* unsafe: it asks for builtins\.eval"):
        cifar10(tmp_path)


def test_two_copies_are_an_error_that_names_both(tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path / "cifar-10-batches-bin")
    write_npz(tmp_path / "cifar10.npz")
    with pytest.raises(DataError, match=r"Several copies of CIFAR-10 .*cifar10.npz, .*data_batch_1.bin\. Give"):
        cifar10(tmp_path)


def test_a_packed_copy_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"No CIFAR-10 below .* Unpack cifar-10-python.tar.gz first\. Give the folder"):
        cifar10(tmp_path)


def test_real_cifar10_is_read(real_source: DataSource) -> None:
    dataset = real_source.load(DataSpec(key="cifar10"))
    assert dataset.class_names == CIFAR10.class_names
    assert len(set(np.bincount(dataset.split("test").labels).tolist())) == 1
    assert len(dataset.splits["validation"]) * 9 == len(dataset.splits["train"])
    mean, std = dataset.channel_statistics
    assert mean == pytest.approx((0.491, 0.482, 0.447), abs=0.01)
    assert std == pytest.approx((0.247, 0.243, 0.262), abs=0.01)
