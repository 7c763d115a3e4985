from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from bench.data.dataset import select
from bench.data.image_files import ImageFiles, common_form, images_below
from bench.data.imaging import Form
from bench.data.joined import Joined
from bench.errors import DataError

from .tiny import write_image


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    for number in range(7):
        write_image(tmp_path / "a" / f"{number}.png", value=10 * number)
    names = tuple(images_below(tmp_path))
    return ImageFiles(root=tmp_path, names=names, form=Form(size=4, channels=3))


def values(images: object) -> list[int]:
    return np.asarray(images)[:, 0, 0, 0].tolist()


def total(images: ImageFiles) -> int:
    return int(np.asarray(images).sum())


def test_files_look_like_an_array(files: ImageFiles) -> None:
    assert files.shape == (7, 4, 4, 3) and files.dtype == np.uint8 and len(files) == 7
    assert values(files) == [0, 10, 20, 30, 40, 50, 60]
    assert values(files[2:4]) == [20, 30]
    assert values(files[np.array([5, 0, 5])]) == [50, 0, 50]
    assert files[np.array([], dtype=np.int64)].shape == (0, 4, 4, 3)


def test_only_what_is_asked_for_is_decoded(files: ImageFiles) -> None:
    (files.root / files.names[3]).write_bytes(b"broken")
    chosen = select(files, np.array([1, 5]))
    assert values(chosen) == [10, 50]
    with pytest.raises(DataError, match=r"3\.png is no image"):
        np.asarray(files)


def test_files_travel_to_other_processes(files: ImageFiles) -> None:
    assert pickle.loads(pickle.dumps(files)) == files
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(total, files).result() == total(files) == 210 * 48


def test_hidden_files_are_left_out_and_names_are_portable(tmp_path: Path) -> None:
    for name in ("b.png", "a/x.JPG", "a/.x.png", "__MACOSX/b.png", ".git/c.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert images_below(tmp_path) == ["a/x.JPG", "b.png"]


def test_images_that_differ_in_their_bands_are_named(tmp_path: Path) -> None:
    from PIL import Image

    write_image(tmp_path / "a.png")
    page = Image.new("L", (6, 6))
    page.save(tmp_path / "b.tif", save_all=True, append_images=[page] * 4)
    with pytest.raises(DataError, match=r"a.png has 3, b.tif has 5\. Make them alike, or set channels"):
        common_form(tmp_path, ["a.png", "b.tif"], size=4)


def test_joined_images_are_read_in_the_order_asked_for(files: ImageFiles) -> None:
    joined = Joined((files, np.full((2, 4, 4, 3), 99, dtype=np.uint8), files))
    assert joined.shape == (16, 4, 4, 3)
    assert values(joined[np.array([8, 9, 0, 15, 7])]) == [99, 0, 0, 60, 99]
    assert values(joined[6:10]) == [60, 99, 99, 0]
    assert np.asarray(joined).shape == joined.shape
