from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from bench.data.fashion_mnist import FOLDERS, STEMS, fashion_mnist, read_idx
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.spec import DataSpec

from .tiny import idx_bytes, write_fashion_mnist


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_it_is_found_in_the_root_and_in_its_usual_subfolders(tmp_path: Path, folder: str, suffix: str) -> None:
    write_fashion_mnist(tmp_path / folder, suffix=suffix)
    dataset = fashion_mnist(tmp_path)
    assert dataset.images.shape == (60, 28, 28, 1)
    assert dataset.images[:, 0, 0, 0].tolist() == dataset.labels.tolist()
    assert dataset.class_names[9] == "Ankle boot"


def test_the_official_test_split_is_kept_and_validation_is_taken_from_train(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, train=20, test=2)
    dataset = fashion_mnist(tmp_path)
    assert dataset.splits["test"].tolist() == list(range(200, 220))
    parts = [dataset.splits["train"], dataset.splits["validation"]]
    assert np.sort(np.concatenate(parts)).tolist() == list(range(200))
    assert [np.bincount(dataset.labels[part]).tolist() for part in parts] == [[18] * 10, [2] * 10]


def test_names_with_a_dot_before_idx_are_read(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, suffix="")
    for stem in STEMS:
        (tmp_path / stem).rename(tmp_path / stem.replace("-idx", ".idx"))
    assert len(fashion_mnist(tmp_path).labels) == 60


def test_a_folder_without_it_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No Fashion-MNIST below .*: looked for train-images-idx3-ubyte.* --data"):
        fashion_mnist(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"lacks t10k-labels-idx1-ubyte \(.gz or plain\)\. Put all four"):
        fashion_mnist(tmp_path)


def test_a_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: it is truncated or no gzip file .* Replace it"):
        fashion_mnist(tmp_path)


def test_flipped_bytes_in_a_gzip_file_are_noticed(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: it is truncated or no gzip file"):
        fashion_mnist(tmp_path)


@pytest.mark.parametrize("change", [-1, 1])
def test_an_array_shorter_or_longer_than_its_header_says_is_named(tmp_path: Path, change: int) -> None:
    write_fashion_mnist(tmp_path, suffix="")
    file = tmp_path / "t10k-images-idx3-ubyte"
    content = file.read_bytes()
    file.write_bytes(content[:-1] if change < 0 else content + b"x")
    with pytest.raises(DataError, match=rf"promises 15680 bytes \(20, 28, 28\), it holds {15680 + change}: "):
        fashion_mnist(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0\0", b"\0\0\x0d\x03" + bytes(12), b"hello world, this is text"])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "array"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"array: it is no IDX file of bytes with 3 dimensions"):
        read_idx(file, dimensions=3)


def test_images_and_labels_of_different_number_are_an_error(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path, suffix="")
    (tmp_path / STEMS[1]).write_bytes(idx_bytes(np.zeros(7, dtype=np.uint8)))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: 40 images but 7 labels"):
        fashion_mnist(tmp_path)


def test_labels_out_of_range_are_an_error(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    labels = np.tile(np.arange(1, 11, dtype=np.uint8), 4)
    (tmp_path / f"{STEMS[1]}.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    with pytest.raises(DataError, match=r"labels run from 1 to 10, but the classes from 0 to 9"):
        fashion_mnist(tmp_path)


def test_a_class_without_training_image_is_an_error(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path)
    labels = np.tile(np.arange(10, dtype=np.uint8), 4)
    labels[labels == 3] = 4
    (tmp_path / f"{STEMS[1]}.gz").write_bytes(gzip.compress(idx_bytes(labels)))
    with pytest.raises(DataError, match=r"no training image is of class 'Dress' \(3\)"):
        fashion_mnist(tmp_path)


def test_real_fashion_mnist_is_read(real_source: DataSource) -> None:
    dataset = real_source.load(DataSpec(key="fashion_mnist"))
    assert len(dataset.splits["test"]) == 10_000
    assert np.bincount(dataset.split("test").labels).tolist() == [1000] * 10
    assert len(dataset.splits["validation"]) * 9 == len(dataset.splits["train"])
    (mean,), (std,) = dataset.channel_statistics
    assert (mean, std) == (pytest.approx(0.286, abs=2e-3), pytest.approx(0.353, abs=2e-3))
