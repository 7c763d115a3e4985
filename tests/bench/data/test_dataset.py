from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from bench.data.dataset import ImageDataset


def dataset() -> ImageDataset:
    images = np.arange(6 * 2 * 2, dtype=np.uint8).reshape(6, 2, 2, 1)
    splits = {"train": np.array([0, 1, 2, 3]), "validation": np.array([4]), "test": np.array([5])}
    labels = np.array([0, 1, 0, 1, 0, 1])
    return ImageDataset(key="d", title="D", images=images, labels=labels, class_names=("a", "b"), splits=splits)


def test_one_pixel_changes_the_fingerprint() -> None:
    images = dataset().images.copy()
    images[3, 1, 0, 0] ^= 1
    assert replace(dataset(), images=images).fingerprint != dataset().fingerprint


def test_labels_class_names_and_splits_change_the_fingerprint() -> None:
    original = dataset()
    labels = original.labels[::-1].copy()
    splits = {**original.splits, "validation": np.array([5]), "test": np.array([4])}
    changed = [
        replace(original, labels=labels),
        replace(original, class_names=("a", "c")),
        replace(original, splits=splits),
        replace(original, images=original.images.reshape(6, 4, 1, 1)),
        replace(original, images=original.images.astype(np.uint16)),
        replace(original, metadata={"patient": np.array(list("aabbcc"))}),
        replace(original, metadata={"patient": np.array(list("aabbcd"))}),
        replace(original, metadata={"study": np.array(list("aabbcc"))}),
        replace(original, splits={**original.splits, "train": np.array([0, 1]), "unlabelled": np.array([2, 3])}),
    ]
    assert len({original.fingerprint, *(other.fingerprint for other in changed)}) == 10


def test_names_memory_layout_and_title_leave_the_fingerprint() -> None:
    original = dataset()
    moved = np.asfortranarray(original.images)
    assert replace(original, images=moved, title="other", key="other").fingerprint == original.fingerprint


def test_the_fingerprint_is_the_hash_of_the_content_in_order() -> None:
    original, digest = dataset(), hashlib.sha256()
    for array in (original.images, original.labels, *(original.splits[n] for n in ("test", "train", "validation"))):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    digest.update(b"test\0train\0validation\0a\0b")
    assert original.fingerprint == digest.hexdigest()


def test_a_split_keeps_images_labels_and_positions_together() -> None:
    part = dataset().split("train")
    assert len(part) == 4
    assert part.samples.tolist() == [0, 1, 2, 3]
    assert part.labels.tolist() == [0, 1, 0, 1]
    assert part.images[2].tolist() == dataset().images[2].tolist()


def test_channel_statistics_cover_the_training_split_alone() -> None:
    (mean,), (std,) = dataset().channel_statistics
    pixels = np.arange(16) / 255
    assert mean == pytest.approx(pixels.mean())
    assert std == pytest.approx(pixels.std())


def test_a_constant_channel_is_divided_by_one() -> None:
    constant = replace(dataset(), images=np.full((6, 2, 2, 1), 51, dtype=np.uint8))
    (mean,), (std,) = constant.channel_statistics
    assert (mean, std) == (pytest.approx(0.2), 1.0)


def test_channel_statistics_add_up_over_blocks_and_copy_few_pixels_at_a_time() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(6000, 16, 16, 3), dtype=np.uint8)
    images[:, :, :, 1] //= 3
    images[5500:] = 255  # outside the training split
    splits = {"train": np.arange(5500)[::-1], "validation": np.array([5998]), "test": np.array([5999])}
    labels = np.zeros(6000, dtype=np.int64)
    many = ImageDataset(key="d", title="D", images=images, labels=labels, class_names=("a",), splits=splits)
    tracemalloc.start()
    mean, std = many.channel_statistics
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes
    pixels = images[:5500].reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=0, atol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=0), rtol=0, atol=1e-12)


class ReadLater:
    """Images that keep which rows were asked for, and hand out copies."""

    def __init__(self, images: np.ndarray) -> None:
        self.images, self.asked = images, []
        self.shape, self.dtype = images.shape, images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        self.asked.append(np.arange(len(self.images))[rows].tolist())
        return self.images[rows].copy()

    def __array__(self, dtype: object = None, *, copy: bool | None = None) -> np.ndarray:
        return self[:]


def test_images_that_are_read_later_are_the_same_dataset_and_read_only_when_asked() -> None:
    original = dataset()
    later = ReadLater(np.asarray(original.images))
    lazy = replace(original, images=later)
    part = lazy.split("train")[np.array([3, 1])]
    assert later.asked == [] and part.images.shape == (2, 2, 2, 1) and len(part.images) == 2
    assert np.array_equal(part.images[1:], original.images[[1]]) and later.asked == [[1]]
    assert np.array_equal(np.asarray(part.images), original.images[[3, 1]])
    assert lazy.fingerprint == original.fingerprint
    assert lazy.channel_statistics == original.channel_statistics


def test_pretraining_sees_unlabelled_images_but_none_of_an_evaluation_split() -> None:
    splits = {
        "train": np.array([3]),
        "validation": np.array([1]),
        "test": np.array([5]),
        "unlabelled": np.array([0, 4]),
    }
    patients = {"patient": np.array(list("abcdef"))}
    seen = replace(dataset(), splits=splits, metadata=patients).pretraining
    assert seen.samples.tolist() == [0, 3, 4] and seen.metadata["patient"].tolist() == ["a", "d", "e"]
    assert np.array_equal(seen.images, dataset().images[[0, 3, 4]])
    assert dataset().pretraining.samples.tolist() == [0, 1, 2, 3]


def test_findings_make_a_dataset_multilabel() -> None:
    findings = replace(dataset(), labels=np.zeros((6, 2), dtype=np.int64))
    assert findings.multilabel and not dataset().multilabel
    assert findings.split("train").labels.shape == (4, 2)


def test_sixteen_bits_use_their_whole_range() -> None:
    images = np.array([0, 65535, 65535, 65535], dtype=np.uint16).reshape(4, 1, 1, 1)
    splits = {"train": np.arange(4), "validation": np.arange(0), "test": np.arange(0)}
    deep = ImageDataset(
        key="d", title="D", images=images, labels=np.zeros(4, dtype=np.int64), class_names=("a",), splits=splits
    )
    (mean,), (std,) = deep.channel_statistics
    assert (mean, std) == (pytest.approx(0.75), pytest.approx(0.75**0.5 / 2))
