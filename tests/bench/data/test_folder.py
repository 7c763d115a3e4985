from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.dataset import ImageDataset
from bench.data.folder import find_files, folder, list_samples
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.spec import DataSpec

from .tiny import write_class_folders, write_image


def sizes(dataset: ImageDataset) -> dict[str, int]:
    return {name: len(index) for name, index in dataset.splits.items()}


def test_class_folders_are_read_with_stratified_splits(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    dataset = folder(tmp_path, image_size=8)
    assert dataset.images.shape == (20, 8, 8, 3)
    assert dataset.class_names == ("cat", "dog")
    assert np.asarray(dataset.images)[:, 4, 4, 1].tolist() == [20 * n for n in range(10)] + [
        20 * n + 1 for n in range(10)
    ]
    assert dataset.labels.tolist() == [0] * 10 + [1] * 10
    assert sizes(dataset) == {"train": 14, "validation": 2, "test": 4}
    for index in dataset.splits.values():
        assert len(set(np.bincount(dataset.labels[index]).tolist())) == 1


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("train", "valid", "test"), ("training", "validation", "testing")],
)
def test_the_folders_own_splits_are_kept(tmp_path: Path, train: str, validation: str, test: str) -> None:
    for name, count in ((train, 6), (validation, 2), (test, 3)):
        write_class_folders(tmp_path / name, per_class=count)
    dataset = folder(tmp_path, image_size=8)
    assert sizes(dataset) == {"train": 12, "validation": 4, "test": 6}
    assert np.concatenate(list(dataset.splits.values())).tolist() == list(range(22))


def test_a_missing_validation_split_is_taken_from_train(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", per_class=10)
    write_class_folders(tmp_path / "test", per_class=3)
    dataset = folder(tmp_path, image_size=8, validation=0.2)
    assert sizes(dataset) == {"train": 16, "validation": 4, "test": 6}
    assert dataset.splits["test"].tolist() == list(range(20, 26))
    assert np.bincount(dataset.split("validation").labels).tolist() == [2, 2]


def test_a_missing_test_split_is_taken_from_train(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", per_class=10)
    write_class_folders(tmp_path / "val", per_class=3)
    dataset = folder(tmp_path, image_size=8, test=0.3)
    assert sizes(dataset) == {"train": 14, "validation": 6, "test": 6}
    assert dataset.splits["validation"].tolist() == list(range(20, 26))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_class_folders(tmp_path, classes=("plane", "train"))
    assert folder(tmp_path, image_size=8).class_names == ("plane", "train")


def test_a_path_below_the_root_is_read(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "sets" / "animals")
    dataset = folder(tmp_path, path="sets/animals", image_size=8)
    assert dataset.title == "animals"
    assert len(dataset.labels) == 20


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/2.png", "b/10.PNG", "b/sub/1.png", "a/z.png", "a/Z.png", "a/ä.png", "C/1.png"):
        write_image(tmp_path / name)
    names, samples = list_samples(tmp_path)
    order = [sample.file.relative_to(tmp_path).as_posix() for sample in samples]
    assert names == ("C", "a", "b")
    assert order == ["C/1.png", "a/Z.png", "a/z.png", "a/ä.png", "b/10.PNG", "b/2.png", "b/sub/1.png"]
    iterdir, walk = Path.iterdir, os.walk
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(list(iterdir(self))[::-1]))
    monkeypatch.setattr(os, "walk", lambda *args, **options: list(walk(*args, **options))[::-1])
    assert list_samples(tmp_path) == (names, samples)


def test_hidden_files_and_files_that_are_no_images_are_left_out(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=1)
    for name in ("notes.txt", "cat/._0.png", "cat/Thumbs.db", "cat/.cache/0.png", ".git/a.png", "__MACOSX/cat/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"junk")
    assert [file.relative_to(tmp_path).as_posix() for file in find_files(tmp_path, {"path": ""})] == [
        "cat/0.png",
        "dog/0.png",
    ]


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp"])
def test_a_truncated_image_is_named_with_what_to_do(tmp_path: Path, suffix: str) -> None:
    write_class_folders(tmp_path)
    file = tmp_path / "dog" / f"broken.{suffix}"
    write_image(file, size=(64, 64))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"broken.{suffix} is (truncated|no image).*Replace or remove it"):
        np.asarray(folder(tmp_path).images)


def test_a_file_that_is_no_image_is_named_with_what_to_do(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    (tmp_path / "cat" / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"cat.text.png is no image that can be decoded\. Replace or remove it\."):
        np.asarray(folder(tmp_path).images)


def test_without_a_number_of_channels_one_color_image_makes_the_set_color(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / "a" / f"{number}.png", mode="L")
        write_image(tmp_path / "b" / f"{number}.png", mode="L")
    assert folder(tmp_path, channels=0, image_size=8).channels == 1
    write_image(tmp_path / "b" / "photo.png")
    assert folder(tmp_path, channels=0, image_size=8).channels == 3


def test_one_deep_image_makes_the_set_deep_and_stretches_the_others(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=3)
    Image.fromarray(np.full((9, 9), 1000, dtype=np.uint16)).save(tmp_path / "cat" / "scan.png")
    pixels = np.asarray(folder(tmp_path, image_size=8).images)
    assert pixels.dtype == np.uint16
    assert pixels[:, 0, 0, 0].tolist() == [0, 20 * 257, 40 * 257, 1000, 257, 21 * 257, 41 * 257]


def test_a_window_maps_raw_values_to_the_full_range(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=4)
    pixels = np.asarray(folder(tmp_path, image_size=8, window=(20, 60)).images)
    assert pixels[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 0, 6, 134, 255]


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    (tmp_path / "fish").mkdir()
    with pytest.raises(DataError, match=r"class folder .*fish has no image \(.bmp, .* Add images, or remove"):
        folder(tmp_path)


def test_a_single_class_is_an_error(tmp_path: Path) -> None:
    write_class_folders(tmp_path, classes=("cat",))
    with pytest.raises(DataError, match=r"has 1 class folders, at least 2 are needed"):
        folder(tmp_path)


def test_images_without_class_folders_are_an_error(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"has 0 class folders.* Put the images of each class into a folder"):
        folder(tmp_path)


def test_a_missing_folder_and_a_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The data folder .*nowhere does not exist\. Give an existing folder"):
        folder(tmp_path, path="nowhere")
    write_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png is a file, a folder is needed"):
        folder(tmp_path, path="a.png")


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)\. Check its permissions"):
        folder(tmp_path)


def test_a_class_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path)
    scandir = os.scandir

    def refuse(path: str | Path) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"dog cannot be read \(Permission denied\)\. Check its permissions"):
        folder(tmp_path)


def test_a_class_that_training_lacks_is_an_error(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train")
    write_class_folders(tmp_path / "test", classes=("cat", "fish"))
    with pytest.raises(DataError, match=r"test.fish has no counterpart in .*train\. Add training images, or remove it"):
        folder(tmp_path)


@pytest.mark.parametrize(
    ("extra", "message"),
    [("fish", "neither train, validation nor test"), ("valid", "a second validation folder")],
)
def test_a_folder_beside_the_splits_is_an_error(tmp_path: Path, extra: str, message: str) -> None:
    for name in ("train", "val", extra):
        write_class_folders(tmp_path / name)
    with pytest.raises(DataError, match=rf"{message}.* laid out by split\. Move it elsewhere"):
        folder(tmp_path)


def test_splits_without_training_images_are_an_error(tmp_path: Path) -> None:
    for name in ("val", "test"):
        write_class_folders(tmp_path / name)
    with pytest.raises(DataError, match=r"has test, but no train folder\. Add one with a folder for each class"):
        folder(tmp_path)


def test_a_class_with_too_few_images_for_three_splits_is_an_error(tmp_path: Path) -> None:
    write_class_folders(tmp_path, per_class=2)
    with pytest.raises(DataError, match=r"The class 'cat' has 2 images to be split \(.*cat\), at least 3 are needed"):
        folder(tmp_path)


def test_unfit_parameters_are_errors(tmp_path: Path) -> None:
    write_class_folders(tmp_path)
    with pytest.raises(DataError, match=r"image_size must be positive and channels 1 or more, got 0 and 3"):
        folder(tmp_path, image_size=0)
    with pytest.raises(DataError, match=r"channels 1 or more, got 32 and -1"):
        folder(tmp_path, channels=-1)
    with pytest.raises(DataError, match=r"window must be empty or \(low, high\) with low below high, got \(5.0, 5.0\)"):
        folder(tmp_path, window=(5.0, 5.0))
    with pytest.raises(DataError, match=r"shares above 0, together below 1; got 0.5 and 0.5"):
        folder(tmp_path, validation=0.5, test=0.5)


def test_a_real_folder_of_medical_images_is_read(real_data: Path, real_source: DataSource) -> None:
    if not (real_data / "mednist").is_dir():
        pytest.skip(f"{real_data} has no mednist folder")
    spec = DataSpec(key="folder", params={"path": "mednist", "channels": 1, "image_size": 16})
    dataset = real_source.load(spec)
    assert dataset.class_names == ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")
    assert sizes(dataset) == {"train": 5400, "validation": 600, "test": 1200}
    assert np.bincount(dataset.split("validation").labels).tolist() == [100] * 6
    assert np.asarray(dataset.images).std() > 30
