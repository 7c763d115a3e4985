from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data import leakage
from bench.data.dataset import UNKNOWN, ImageDataset, Images
from bench.data.leakage import Leakage, find_leakage, refuse_leakage
from bench.errors import DataError

from .test_near import brightened, pictures, resized

SPLITS = {
    "train": np.arange(0, 10),
    "validation": np.arange(10, 14),
    "test": np.arange(14, 18),
    "unlabelled": np.arange(18, 20),
}


def dataset(
    images: Images | NDArray[Any], *, labels: NDArray[np.int64] | None = None, splits: Any = None, **columns: list[str]
) -> ImageDataset:
    return ImageDataset(
        key="own",
        title="Own",
        images=images,
        labels=np.arange(len(images)) % 2 if labels is None else labels,
        class_names=("a", "b"),
        splits=SPLITS if splits is None else splits,
        metadata={name: np.array(values) for name, values in columns.items()},
    )


def names(found: Leakage) -> dict[str, list[list[int]]]:
    """The samples of everything that was found."""
    return {
        kind: [[place.sample for place in item.places] for item in getattr(found, kind)]
        for kind in ("duplicates", "near", "crossings", "repeated", "conflicts")
        if getattr(found, kind)
    }


def test_a_clean_set_has_no_findings() -> None:
    patients = [f"{index // 2}" for index in range(20)]
    found = find_leakage(dataset(pictures(20), patient=patients, study=["1"] * 20))
    assert not found and found == Leakage()


@pytest.mark.parametrize(
    ("copy", "original", "kind"),
    [
        (15, 3, "duplicates"),  # test and training
        (11, 3, "duplicates"),  # validation and training
        (15, 11, "duplicates"),  # test and validation
        (19, 15, "duplicates"),  # unlabelled and test
        (4, 3, "repeated"),  # both in training
        (19, 3, "repeated"),  # unlabelled and training: both are trained on
        (15, 16, "repeated"),  # both in test
    ],
)
def test_an_identical_image_is_a_leak_when_one_side_is_evaluated(copy: int, original: int, kind: str) -> None:
    images = pictures(20)
    images[copy] = images[original]
    labels = np.zeros(20, dtype=np.int64)
    found = find_leakage(dataset(images, labels=labels))
    (places,) = names(found)[kind]
    assert sorted(places) == sorted([copy, original]) and list(names(found)) == [kind]
    assert bool(found) == (kind == "duplicates")


def test_images_outside_of_all_splits_are_no_leak() -> None:
    images = pictures(20)
    images[19] = images[15]
    splits = {name: rows for name, rows in SPLITS.items() if name != "unlabelled"}
    assert not find_leakage(dataset(images, splits=splits))


def test_a_near_duplicate_is_told_once_for_the_evaluated_image_with_its_closest_counterpart() -> None:
    images = pictures(20)
    images[15] = resized(images[3])
    images[4] = np.clip(images[15].astype(int) + 1, 0, 255)  # closer to 15 than 3 is
    (found,) = find_leakage(dataset(images)).near
    assert [place.sample for place in found.places] == [4, 15]
    assert [str(place) for place in found.places] == ["image 4 (train)", "image 15 (test)"]
    assert 0.99 <= found.similarity < 1
    assert find_leakage(dataset(images), near=False) == Leakage()


def test_sixteen_bit_images_differ_by_their_low_bits() -> None:
    images = pictures(20, channels=1).astype(np.uint16) * 256
    images[15] = images[3]
    images[16] = images[5] + 1
    found = find_leakage(dataset(images), near=False)
    assert names(found)["duplicates"] == [[3, 15]]


def test_flat_images_are_listed_but_are_no_duplicates() -> None:
    images = pictures(20)
    images[[2, 15]] = 0
    images[[3, 16]] = 90
    found = find_leakage(dataset(images))
    assert not found and not found.conflicts
    assert [place.sample for place in found.flat] == [2, 3, 15, 16]


def test_identical_images_with_different_labels_are_a_conflict_and_unknown_labels_are_none() -> None:
    images = pictures(20)
    images[1], images[3], images[15] = images[0], images[2], images[4]
    labels = np.array([0, 1, 1, UNKNOWN, *[0] * 16])
    labels[15] = 1
    assert names(find_leakage(dataset(images, labels=labels)))["conflicts"] == [[0, 1], [4, 15]]
    findings = np.zeros((20, 2), dtype=np.int64)
    findings[0], findings[1] = (1, UNKNOWN), (1, 0)
    findings[2], findings[3] = (1, 0), (0, 0)
    assert names(find_leakage(dataset(images, labels=findings)))["conflicts"] == [[2, 3]]


def test_a_patient_on_both_sides_is_named_with_the_counts() -> None:
    patients = [f"p{index}" for index in range(20)]
    patients[15] = patients[16] = patients[3]
    patients[18] = patients[4]  # unlabelled and training may share
    (found,) = find_leakage(dataset(pictures(20), patient=patients), near=False).crossings
    assert (found.column, found.name, found.counts) == ("patient", "p3", {"train": 1, "test": 2})
    assert str(found) == "patient p3 in train (1) and test (2)"


def test_studies_count_where_the_patient_is_unknown() -> None:
    studies = [f"s{index}" for index in range(20)]
    studies[15], studies[16] = studies[3], studies[5]
    patients = ["" if index in (3, 15) else f"p{index}" for index in range(20)]
    (found,) = find_leakage(dataset(pictures(20), study=studies, patient=patients), near=False).crossings
    assert (found.column, found.name) == ("study", "s3")


@dataclass(frozen=True)
class Lazy:
    """Images that know their files, and count how many are read at a time."""

    pixels: NDArray[np.uint8]
    names: tuple[str, ...]
    read: list[int]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtype

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: Any) -> Any:
        chosen = self.pixels[rows]
        self.read.append(len(chosen))
        return chosen

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        raise AssertionError("all images at once")


def test_images_in_files_are_read_in_blocks_and_named_by_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(20)
    images[15] = images[3]
    lazy = Lazy(images, tuple(f"{index}.png" for index in range(20)), [])
    monkeypatch.setattr(leakage, "BLOCK_BYTES", 6 * images[0].nbytes)
    (found,) = find_leakage(dataset(lazy)).duplicates
    assert str(found) == "3.png (train) = 15.png (test)"
    assert lazy.read == [6, 6, 6, 2]


def test_a_refusal_names_the_first_offenders_the_counts_and_the_repair() -> None:
    images = pictures(20)
    images[14:18] = images[0:4]
    patients = [f"p{index}" for index in range(20)]
    patients[11] = "p5"
    files = [f"{index}.png" for index in range(20)]
    with pytest.raises(DataError) as error:
        refuse_leakage(dataset(images, patient=patients), repair="Do this.", files=files)
    assert str(error.value) == (
        "Own: in more than one split: 1 patient (patient p5 in train (1) and validation (1)) and 4 images "
        "(0.png (train) = 14.png (test); 1.png (train) = 15.png (test); 2.png (train) = 16.png (test); and 1 more). "
        "Do this."
    )


def test_near_duplicates_alone_are_not_refused() -> None:
    images = pictures(20)
    images[15] = brightened(images[3])
    assert find_leakage(dataset(images))
    refuse_leakage(dataset(images), repair="Do this.")
