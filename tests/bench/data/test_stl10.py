from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from bench.data.stl10 import SIDE, WITHOUT_LABELS, PlaneFile, find_files, stl10
from bench.errors import DataError

from .tiny import labels_of, pixels_of


def write_stl10(folder: Path) -> dict[str, np.ndarray]:
    """Two images of each class for training, one for testing, five without a label; red, green and blue planes."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, labels in (("train", labels_of(10, 2)), ("test", labels_of(10, 1)), ("unlabeled", labels_of(5, 1))):
        written[name] = pixels_of(labels, 3, SIDE, SIDE)
        (folder / f"{name}_X.bin").write_bytes(written[name].tobytes())
        if name != "unlabeled":
            (folder / f"{name}_y.bin").write_bytes((labels + 1).tobytes())
    return written


def test_columns_become_rows_and_unlabelled_images_serve_pretraining(tmp_path: Path) -> None:
    written = write_stl10(tmp_path / "stl10_binary")
    dataset = stl10(tmp_path)
    assert {name: len(index) for name, index in dataset.splits.items()} == {
        "train": 10,
        "validation": 10,
        "test": 10,
        "unlabelled": 5,
    }
    test = np.asarray(dataset.split("test").images)
    assert test[3, 20, 70].tolist() == written["test"][3, :, 70, 20].tolist()  # the file goes down the columns
    assert test[:, 0, 0, 0].tolist() == dataset.split("test").labels.tolist() == list(range(10))
    assert np.array_equal(np.asarray(dataset.split("unlabelled").images), written["unlabeled"].transpose(0, 3, 2, 1))
    assert dataset.split("unlabelled").labels.tolist() == [-2] * 5
    assert len(dataset.pretraining.images) == 15
    assert dataset.class_names[0] == "airplane" and dataset.class_names[9] == "truck"


def test_the_unlabelled_images_stay_in_their_file(tmp_path: Path) -> None:
    written = write_stl10(tmp_path)
    images = PlaneFile(tmp_path / WITHOUT_LABELS, 5)
    assert len(pickle.dumps(images)) < 1000
    assert np.array_equal(images[np.array([4, 1])], written["unlabeled"][[4, 1]].transpose(0, 3, 2, 1))
    assert not isinstance(stl10(tmp_path).images, np.ndarray)


def test_they_may_be_left_out_but_are_not_missed_silently(tmp_path: Path) -> None:
    write_stl10(tmp_path)
    (tmp_path / WITHOUT_LABELS).unlink()
    with pytest.raises(DataError, match=r"lacks unlabeled_X.bin\. Add it, or set unlabelled to false"):
        stl10(tmp_path)
    dataset = stl10(tmp_path, unlabelled=False)
    assert set(dataset.splits) == {"train", "validation", "test"} and len(dataset.labels) == 30
    assert len(list(find_files(tmp_path, {"unlabelled": False}))) == 4


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No STL-10 below .*: looked for train_X.bin there and in stl10_binary"):
        stl10(tmp_path)
    write_stl10(tmp_path)
    content = (tmp_path / "train_X.bin").read_bytes()
    (tmp_path / "train_X.bin").write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"train_X.bin: its \d+ bytes are no whole number of images of 27648 bytes"):
        stl10(tmp_path)
    (tmp_path / "train_X.bin").write_bytes(content[:-27648])
    with pytest.raises(DataError, match=r"train_y.bin: 19 images but 20 labels"):
        stl10(tmp_path)
    (tmp_path / "test_y.bin").unlink()
    with pytest.raises(DataError, match=r"lacks test_y.bin\. Put all binary STL-10 files"):
        stl10(tmp_path)
