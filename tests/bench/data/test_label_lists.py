"""Lists of labelled images: which images they name, and that their content is part of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.label_lists import column_of, label_list_columns, listed_rows
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.registry import discover
from bench.spec import DataSpec

FILES = ("train/n1/n1_1.JPEG", "train/n1/n1_2.JPEG", "train/n2/n2_1.JPEG", "train/n2/twice.JPEG", "val/n2/twice.JPEG")


def column(folder: Path, text: str) -> list[str]:
    (folder / "list.txt").write_text(text)
    found = label_list_columns(folder, ["list.txt"], FILES)
    assert set(found) == {column_of("list.txt")}
    return found[column_of("list.txt")].tolist()


def test_a_line_names_an_image_by_its_file_or_by_more_of_its_path(tmp_path: Path) -> None:
    text = "n1_2.JPEG\n\nn2/n2_1.JPEG \r\nval/n2/twice.JPEG\n"
    assert column(tmp_path, text) == ["", "yes", "yes", "", "yes"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n1_1.JPEG\nn9_1.JPEG\n", r"list.txt: 1 of its 2 names are not among the images: n9_1.JPEG"),
        ("twice.JPEG\n", "1 of its 1 names fit several images: twice.JPEG.*with their folder"),
        ("n1_1.JPEG\nn1/n1_1.JPEG\n", "1 images are named twice"),
        ("\n", "it names no image"),
    ],
)
def test_a_wrong_list_says_which_names_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        column(tmp_path, text)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.txt"):
        label_list_columns(tmp_path, ["absent.txt"], FILES)


def images(root: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for label in ("a", "b"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (8, 8), color=10 * number + 100 * (label == "b")).save(
                    folder / f"{split}{label}{number}.png"
                )


def test_a_folder_knows_its_lists_and_another_list_is_other_data(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    images(root)
    spec = DataSpec(key="folder", params={"image_size": 8, "channels": 1, "label_lists": ["few.txt"]})
    catalog = discover()

    def load(text: str) -> tuple[list[str], str]:
        (root / "few.txt").write_text(text)
        source = DataSource(catalog.datasets, root=root, cache=tmp_path / "cache")
        again = DataSource(catalog.datasets, root=root, cache=tmp_path / "cache")
        data = source.load(spec)
        train = data.split("train")
        rows = listed_rows(data, train, "few.txt")
        values = [int(np.asarray(train[rows].images)[i].mean()) for i in range(len(rows))]
        assert again.fingerprint(spec) == data.fingerprint == again.load(spec).fingerprint
        return [str(value) for value in values], data.fingerprint

    held_out = {0, 10, 20, 30, 100, 110, 120, 130}
    listed, first = load("\n".join(f"train{c}{n}.png" for c in "ab" for n in range(4)))
    assert {int(value) for value in listed} <= held_out and len(listed) == 6  # one of each class validates
    _, second = load("traina1.png\n")
    assert first != second
