"""Near duplicates: an image that was resized, recompressed or brightened is still the same image.

Two stages. A difference hash of 64 bits (is the next cell brighter than this one, on a grid of 8 by 9 cells) finds
candidates: hashes that differ in at most ``RADIUS`` bits agree in at least one of ``RADIUS + 1`` bands of bits, so
only images that share a band are compared, never all pairs. The pixels decide: the candidates' thumbnails must
correlate at ``SIMILAR`` or above, which neither brightness nor contrast changes.

The constants were measured on chest radiographs, MNIST, MedMNIST and CIFAR-10: at 0.99 no two different images of the
first three are alike, JPEG of quality 75, noise and a brighter copy are found always, JPEG of quality 50 nearly so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import FULL_SCALE, Pixels

ROWS, COLUMNS = 8, 8
RADIUS = 5
SIMILAR = 0.99
THUMBNAIL = 24
"""Height and width of the pixels that are compared; smaller images are compared as they are."""
DEAD_ZONE = 0.1  # of the image's own contrast: the noise of a dark border must not decide bits
LEAST_CONTRAST = 2 / 255
"""Standard deviation below which an image shows nothing that could be recognized: it has no near duplicates."""
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue (ITU-R BT.601): JPEG keeps this brightness and halves the resolution of the rest."""
GROUP_ROWS = 1024

Floats = NDArray[np.float32]
Pairs = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What images look like.

    Attributes:
        bits: (n, 64) bool, their difference hashes.
        thumbnails: (n, P) float16, of mean 0 and norm 1; the product of two is their correlation.
        shows: (n,) bool, False where the contrast is too low to recognize anything.
    """

    bits: NDArray[np.bool_]
    thumbnails: NDArray[np.float16]
    shows: NDArray[np.bool_]

    @staticmethod
    def joined(parts: list[Looks]) -> Looks:
        return Looks(
            bits=np.concatenate([part.bits for part in parts]),
            thumbnails=np.concatenate([part.thumbnails for part in parts]),
            shows=np.concatenate([part.shows for part in parts]),
        )

    def __getitem__(self, rows: NDArray[np.int64]) -> Looks:
        return Looks(bits=self.bits[rows], thumbnails=self.thumbnails[rows], shows=self.shows[rows])


def looks_of(pixels: Pixels) -> Looks:
    """Hashes and thumbnails of images (n, H, W, C)."""
    weights = LUMA if pixels.shape[3] == 3 else np.full(pixels.shape[3], 1 / pixels.shape[3], dtype=np.float32)
    gray = np.asarray(pixels @ weights, dtype=np.float32) / np.float32(FULL_SCALE[pixels.dtype])  # (n, H, W)
    contrast = gray.std(axis=(1, 2))
    steps = np.diff(_resized(gray, ROWS, COLUMNS + 1), axis=2)
    height, width = (min(THUMBNAIL, extent) for extent in gray.shape[1:])
    flat = _resized(gray, height, width).reshape(len(gray), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return Looks(
        bits=(steps > DEAD_ZONE * contrast[:, None, None]).reshape(len(gray), -1),
        thumbnails=(flat / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float16),
        shows=(contrast >= LEAST_CONTRAST) & (norms[:, 0] > 0),
    )


def _resized(gray: Floats, height: int, width: int) -> Floats:
    """Means over cells: (n, H, W) to (n, height, width)."""
    return np.asarray(_cells(gray.shape[1], height) @ gray @ _cells(gray.shape[2], width).T, dtype=np.float32)


def _cells(pixels: int, cells: int) -> Floats:
    """(cells, pixels): the share that each pixel has in each cell."""
    edges = np.linspace(0, pixels, cells + 1)
    first = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], first + 1) - np.maximum(edges[:-1, None], first)
    weights = np.clip(overlap, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def near_pairs(looks: Looks, groups: NDArray[np.int64], separate: NDArray[np.bool_]) -> tuple[Pairs, Floats]:
    """Pairs of images that look the same and belong to groups that must be kept apart.

    Args:
        looks: of n images.
        groups: (n,) group of each image.
        separate: (G, G) symmetric; True where images of the two groups must not be alike.

    Returns:
        (m, 2) positions of the images, the lower one first, and (m,) their similarities, at least ``SIMILAR``.
    """
    rows = np.flatnonzero(looks.shows & separate[groups].any(axis=1))
    signs = np.where(looks.bits[rows], np.float32(1), np.float32(-1))
    keys = _bands(looks.bits[rows])
    found: list[Pairs] = []
    similarities: list[Floats] = []
    for band, key in enumerate(keys):
        for group in _sharing(key):
            for pair in _close(signs, group, groups[rows], separate):
                pair = pair[~(keys[:band, pair[:, 0]] == keys[:band, pair[:, 1]]).any(axis=0)]  # found before
                similarity = _similarity(looks.thumbnails, rows[pair])
                found.append(rows[pair][similarity >= SIMILAR])
                similarities.append(similarity[similarity >= SIMILAR])
    if not found:
        return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
    pairs = np.sort(np.concatenate(found), axis=1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], np.concatenate(similarities)[order]


def _bands(bits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(RADIUS + 1, n): the value of each band; bits that divide the images well are dealt out evenly."""
    balance = np.abs(bits.mean(axis=0) - 0.5) if len(bits) else np.zeros(bits.shape[1])
    order = np.argsort(balance, kind="stable")
    return np.stack(
        [
            bits[:, band] @ (1 << np.arange(len(band), dtype=np.int64))
            for band in (order[start :: RADIUS + 1] for start in range(RADIUS + 1))
        ]
    )


def _sharing(key: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Positions of equal keys, two or more together."""
    order = np.argsort(key, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        if len(group) > 1:
            yield group


def _close(
    signs: Floats, group: NDArray[np.int64], groups: NDArray[np.int64], separate: NDArray[np.bool_]
) -> Iterator[Pairs]:
    """Pairs of ``group`` whose hashes differ in at most ``RADIUS`` bits and that must be kept apart, in blocks."""
    kinds = groups[group]
    if not separate[np.ix_(np.unique(kinds), np.unique(kinds))].any():
        return
    least = signs.shape[1] - 2 * RADIUS  # the product of two sign vectors is 64 minus twice the differing bits
    for start in range(0, len(group), GROUP_ROWS):
        chosen, rest = group[start : start + GROUP_ROWS], group[start:]
        apart = separate[np.ix_(kinds[start : start + GROUP_ROWS], kinds[start:])]
        close = (signs[chosen] @ signs[rest].T >= least) & apart
        left, right = np.nonzero(np.triu(close, k=1))
        yield np.stack([chosen[left], rest[right]], axis=1)


def _similarity(thumbnails: NDArray[np.float16], pairs: Pairs) -> Floats:
    blocks = [pairs[start : start + GROUP_ROWS] for start in range(0, len(pairs), GROUP_ROWS)]
    products = [
        np.einsum("np,np->n", *(thumbnails[block[:, side]].astype(np.float32) for side in (0, 1))) for block in blocks
    ]
    return np.concatenate(products) if products else np.empty(0, dtype=np.float32)
