from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from bench.data import digit_scenes
from bench.data.dataset import SPLITS, ImageDataset
from bench.data.detection import DetectionDataset
from bench.data.digit_scenes import DIGIT_SIDE, DIGITS, HIDDEN, SMALLEST_SIDE, compose, resized, run_lengths
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.spec import DataSpec

COUNTS = {"train": 30, "validation": 10, "test": 20}


@pytest.fixture(scope="module")
def made(mnist5k: ImageDataset) -> DetectionDataset:
    return compose(mnist5k, COUNTS, side=80, seed=0)


def mask_of(text: str) -> np.ndarray:
    """The pixels (H, W) of run lengths."""
    told = json.loads(text)
    inside = np.arange(len(told["counts"])) % 2 == 1
    return np.repeat(inside, told["counts"]).reshape(told["size"][::-1]).T


def test_scenes_hold_one_to_six_digits_with_boxes_tight_around_their_masks(made: DetectionDataset) -> None:
    assert made.images.shape == (60, 80, 80, 1) and made.images.dtype == np.uint8
    assert {name: len(rows) for name, rows in made.splits.items()} == COUNTS
    counts = np.bincount(made.objects.scene, minlength=60)
    assert (counts.min(), counts.max()) == DIGITS
    assert set(made.objects.labels.tolist()) == set(range(10))
    for box, area, text in zip(made.objects.boxes, made.objects.areas, made.objects.masks, strict=True):
        mask = mask_of(text)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert area == mask.sum() > 0
        assert max(box[2:] - box[:2]) <= DIGIT_SIDE[1]


def test_masks_lie_on_light_ink_and_share_no_pixel(made: DetectionDataset) -> None:
    for scene in range(len(made.labels)):
        masks = [mask_of(text) for text in made.objects.of(scene).masks]
        assert np.sum(masks, axis=0).max() == 1
        pixels = made.images[scene, :, :, 0].astype(int)
        for mask in masks:
            assert pixels[mask].mean() > np.median(pixels) + 30


def test_labels_tell_which_digits_occur(made: DetectionDataset) -> None:
    for scene in range(len(made.labels)):
        assert np.flatnonzero(made.labels[scene]).tolist() == sorted(set(made.objects.of(scene).labels.tolist()))
    assert made.class_names == tuple("0123456789")


def test_the_digits_of_a_split_are_those_of_the_same_split(mnist5k: ImageDataset, made: DetectionDataset) -> None:
    """Other images in one split change each of its scenes and no other."""
    for name in SPLITS:
        images = mnist5k.images.copy()
        images[mnist5k.splits[name]] = 255 - images[mnist5k.splits[name]]
        other = compose(replace(mnist5k, images=images), COUNTS, side=80, seed=0)
        for split, rows in made.splits.items():
            same = (made.images[rows] == other.images[rows]).all(axis=(1, 2, 3))
            assert not same.any() if split == name else same.all()


def test_a_mask_on_a_clean_ground_is_the_digit_of_its_label(mnist5k: ImageDataset) -> None:
    """The nearest class mean tells most of the digits that the boxes cut out."""
    train = mnist5k.split("train")
    cut = np.stack([resized(_ink(image[..., 0].astype(np.int64)), 20, 20).ravel() for image in train.images[::3]])
    means = np.stack([cut[train.labels[::3] == digit].mean(axis=0) for digit in range(10)])
    found = compose(mnist5k, {"test": 60}, side=96, seed=1).objects
    right = 0
    for box, label, text in zip(found.boxes.astype(int), found.labels, found.masks, strict=True):
        mask = mask_of(text)[box[1] : box[3], box[0] : box[2]]
        shown = resized(255 * mask.astype(np.int64), 20, 20).ravel()
        right += int(((means - shown) ** 2).sum(axis=1).argmin() == label)
    assert right / len(found) > 0.6


def _ink(image: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero((image >= 96).any(1)), np.flatnonzero((image >= 96).any(0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def test_digits_hide_each_other_but_never_by_more_than_the_limit(mnist5k: ImageDataset) -> None:
    shares = []
    for seed in range(40):
        shown: list[np.ndarray] = []
        fits = digit_scenes._fits

        def watched(mask: np.ndarray, whole: list, remaining: list, shown: list = shown, fits: object = fits) -> bool:
            accepted = bool(fits(mask, whole, remaining))  # type: ignore[operator]
            if accepted:
                shown.append(mask)
            return accepted

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digit_scenes, "_fits", watched)
            objects = compose(mnist5k, {"train": 1}, side=64, seed=seed).objects
        shares += [1 - area / mask.sum() for area, mask in zip(objects.areas.tolist(), shown, strict=True)]
    assert 0.05 < max(shares) <= HIDDEN / 100


def test_a_scene_depends_on_seed_and_number_alone(mnist5k: ImageDataset, made: DetectionDataset) -> None:
    fewer = compose(mnist5k, {"train": 3, "test": 5}, side=80, seed=0)
    assert (fewer.images[:3] == made.images[:3]).all()
    assert (fewer.images[3:] == made.images[40:45]).all()
    assert fewer.objects.of(4).masks == made.objects.of(41).masks
    assert (compose(mnist5k, {"train": 3}, side=80, seed=1).images != made.images[:3]).any(axis=(1, 2, 3)).all()


def test_the_bits_are_the_same_on_every_machine(made: DetectionDataset) -> None:
    """As recorded when the generator was written; with other bits, stored results are of other scenes."""
    assert hashlib.sha256(made.images.tobytes()).hexdigest()[:16] == "58649a537eaf1b76"
    assert hashlib.sha256("".join(made.objects.masks).encode()).hexdigest()[:16] == "cc8d733bfb577195"


def test_the_cache_returns_the_same_scenes_and_objects(embedded: DataSource) -> None:
    spec = DataSpec(key="digit_scenes", params={"scenes_train": 2, "scenes_validation": 1, "scenes_test": 1})
    fresh = embedded.load(spec)
    cached = DataSource(embedded.datasets, root=None, cache=embedded.cache).load(spec)
    assert isinstance(fresh, DetectionDataset) and isinstance(cached, DetectionDataset)
    assert cached.objects.digest() == fresh.objects.digest()
    assert embedded.offers(spec) == ("multilabel", "boxes", "masks")


@pytest.mark.parametrize(
    "wrong", [{"scenes_test": 0}, {"side": SMALLEST_SIDE - 1}, {"seed": -1}], ids=["count", "side", "seed"]
)
def test_unfit_parameters_are_refused(embedded: DataSource, wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match=f"digit_scenes needs .*got .*{next(iter(wrong.values()))}"):
        embedded.load(DataSpec(key="digit_scenes", params=wrong))


def test_resizing_is_bilinear_and_antialiased() -> None:
    image = np.array([[0, 255]])
    assert resized(image, 1, 4).tolist() == [[0, 64, 191, 255]]
    # Twice as small: triangles of four pixels, 1 3 3 1, cut off and renormalized at the border.
    assert resized(np.array([[7, 0, 0, 0, 0, 0]]), 1, 3).tolist() == [[3, 0, 0]]
    same = np.arange(12).reshape(3, 4)
    assert (resized(same, 3, 4) == same).all()


@pytest.mark.parametrize("corner", [False, True])
def test_run_lengths_go_down_the_columns_and_begin_outside(corner: bool) -> None:
    mask = np.array([[corner, True], [False, True], [False, False]])
    counts = [0, 1, 2, 2, 1] if corner else [3, 2, 1]
    assert run_lengths(mask) == {"size": [3, 2], "counts": counts}
