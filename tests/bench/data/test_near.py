from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench.data import near
from bench.data.near import Looks, looks_of, near_pairs

APART = ~np.eye(2, dtype=bool)


def pictures(count: int, *, size: int = 32, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth random pictures with a little noise, as photographs are."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(20, 180, (count, 6, 6, channels), dtype=np.uint8)
    smooth = [
        np.asarray(Image.fromarray(image.squeeze()).resize((size, size), Image.Resampling.BICUBIC)) for image in coarse
    ]
    noisy = np.stack(smooth).reshape(count, size, size, channels) + draw.normal(0, 2, (count, size, size, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def recompressed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=60)
    return np.asarray(Image.open(buffer))


def resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    smaller = Image.fromarray(image).resize((22, 22), Image.Resampling.BILINEAR)
    return np.asarray(smaller.resize((32, 32), Image.Resampling.BILINEAR))


def brightened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.clip(image * 1.2 + 15, 0, 255).astype(np.uint8)


def pairs_of(images: NDArray[Any], held_out: int) -> list[tuple[int, int]]:
    """Pairs that look alike between the first images and the last ``held_out``."""
    groups = np.zeros(len(images), dtype=np.int64)
    groups[len(images) - held_out :] = 1
    pairs, similarities = near_pairs(looks_of(images), groups, APART)
    assert (similarities >= near.SIMILAR).all()
    return [(int(a), int(b)) for a, b in pairs]


@pytest.mark.parametrize("change", [recompressed, resized, brightened])
def test_a_changed_copy_is_found_among_pictures_that_are_not(change: Any) -> None:
    images = pictures(60)
    copies = np.stack([change(images[row]) for row in (3, 40)])
    assert not (copies == images[[3, 40]]).all()
    assert pairs_of(np.concatenate([images, copies]), 2) == [(3, 60), (40, 61)]


def test_sixteen_bit_gray_images_are_compared_like_others() -> None:
    images = pictures(40, channels=1).astype(np.uint16) * 128
    darker = (images[[7]] // 2 + 100).astype(np.uint16)
    assert pairs_of(np.concatenate([images, darker]), 1) == [(7, 40)]


def test_flat_and_dark_images_are_no_near_duplicates() -> None:
    draw = np.random.default_rng(1)
    flat = np.broadcast_to(draw.integers(0, 255, (10, 1, 1, 1)), (10, 32, 32, 1)).astype(np.uint8)
    dark = draw.integers(0, 4, (10, 32, 32, 1)).astype(np.uint8)
    noise = draw.integers(0, 12, (10, 32, 32, 1)).astype(np.uint8)
    images = np.concatenate([flat, dark, noise])
    assert pairs_of(images[draw.permutation(len(images))], 10) == []


def test_the_same_faint_shading_makes_no_near_duplicates_of_dark_images() -> None:
    shading = np.broadcast_to(np.linspace(0, 3, 32).round()[:, None, None], (4, 32, 32, 1)).astype(np.uint8)
    dark = shading.copy()
    dark[np.arange(4), np.arange(4), 0] += 1
    assert len(np.unique(dark, axis=0)) == 4
    assert pairs_of(dark, 2) == []
    assert pairs_of(dark * 40, 2) == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_noise_in_a_black_border_hides_no_copy() -> None:
    images = np.zeros((20, 32, 32, 1), dtype=np.uint8)
    images[:, 12:20, 12:20] = pictures(20, size=8, channels=1)
    noise = np.abs(np.random.default_rng(3).normal(0, 4, (5, 32, 32, 1))).astype(np.uint8)
    copies = np.clip(images[:5].astype(int) + noise, 0, 255).astype(np.uint8)
    assert set(pairs_of(np.concatenate([images, copies]), 5)) >= {(row, 20 + row) for row in range(5)}


def test_only_groups_that_must_be_apart_are_compared() -> None:
    images = np.concatenate([pictures(5), pictures(5)])
    groups = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    assert near_pairs(looks_of(images), groups, APART)[0].tolist() == [[4, 9]]
    assert near_pairs(looks_of(images), groups, np.zeros((2, 2), dtype=bool))[0].shape == (0, 2)


def test_banding_finds_exactly_what_comparing_all_pairs_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(2)
    bits = np.repeat(draw.random((40, 64)) < 0.5, 5, axis=0)
    bits ^= draw.random(bits.shape) < 0.05  # about six bits of difference within each five
    ones = np.ones((len(bits), 1), dtype=np.float16)
    looks = Looks(bits=bits, thumbnails=ones, shows=np.ones(len(bits), dtype=bool))
    groups = draw.integers(0, 2, len(bits))
    distance = (bits[:, None] != bits[None]).sum(axis=2)
    apart = groups[:, None] != groups[None]
    expected = np.argwhere(np.triu((distance <= near.RADIUS) & apart, k=1)).tolist()
    assert len(expected) > 20
    monkeypatch.setattr(near, "GROUP_ROWS", 7)
    assert near_pairs(looks, groups, APART)[0].tolist() == expected


def test_cells_are_means_over_their_pixels() -> None:
    image = np.arange(6, dtype=np.float32).reshape(1, 1, 6)
    assert near._resized(image, 1, 4)[0, 0].tolist() == pytest.approx([1 / 3, 5 / 3, 10 / 3, 14 / 3])
