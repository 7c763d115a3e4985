"""From absorption to a gray image: exposure, window, blur, noise, collimator, markers, electrodes.

All of it is drawn for every image by itself and knows neither the patient nor the findings; nothing is adapted to what
the image shows, so that a finding changes the pixels that it covers (and the next one or two, by blur) and no others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import Draws
from bench.data.phantom_shapes import Field, blurred, chance, inside, smooth, strand, uniform

GLYPHS = {"R": ("110", "101", "110", "101", "101"), "L": ("100", "100", "100", "100", "111")}
WIRED = {"PA": 0.0, "AP": 0.4, "LATERAL": 0.0}
"""Share of images with electrodes."""
MARKED = 0.7
COLLIMATED = 0.4


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """A machine and its processing.

    Attributes:
        dark, light: absorption that is black, and white.
        bow: how much the tones in the middle are spread at the cost of those at the ends.
        blur: share of a mean over three pixels.
        noise: largest deviation of a pixel, of full scale.
    """

    dark: float
    light: float
    bow: float
    blur: float
    noise: float


SCANNERS = (
    Scanner(dark=0.02, light=1.55, bow=0.2, blur=0.15, noise=0.04),
    Scanner(dark=0.06, light=1.45, bow=0.5, blur=0.00, noise=0.06),
    Scanner(dark=-0.05, light=1.65, bow=0.0, blur=0.50, noise=0.03),
    Scanner(dark=0.08, light=1.50, bow=0.7, blur=0.30, noise=0.08),
)


def exposed(absorption: Field, draws: Draws, view: str) -> NDArray[np.uint8]:
    """(S, S) gray levels: what absorbs is light.

    Args:
        absorption: (S, S), see :mod:`bench.data.phantom_frontal`.
        draws: of this image.
        view: ``PA``, ``AP`` or ``LATERAL``.
    """
    scanner = SCANNERS[draws.between(0, len(SCANNERS) - 1)]
    exposure, contrast = uniform(draws, -0.08, 0.08), uniform(draws, 0.88, 1.12)
    side = len(absorption)
    film = blurred(absorption, scanner.blur)
    film = film + _wires(draws, view, side)
    middle, half = 0.5 * (scanner.dark + scanner.light), 0.5 * (scanner.light - scanner.dark)
    tone = 0.5 + 0.5 * (film - middle - exposure) * contrast / half
    tone = np.clip(tone, 0.0, 1.0) * (1.0 - scanner.bow) + smooth(tone) * scanner.bow
    tone = _collimated(0.04 + 0.9 * tone, draws)
    tone = _marked(tone, draws)
    noise = (draws.levels(side, side, 1000) + draws.levels(side, side, 1000)) / 2000.0
    return np.floor(np.clip(tone + scanner.noise * noise, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _wires(draws: Draws, view: str, side: int) -> Field:
    """Electrodes with wires that leave the image at its upper border."""
    total = np.zeros((side, side))
    if not chance(draws, WIRED[view]):
        return total
    centers = (2 * np.arange(side) + 1) / side - 1.0
    x, y = np.broadcast_to(centers[None, :], (side, side)), np.broadcast_to(centers[:, None], (side, side))
    for _ in range(draws.between(1, 3)):
        at = (uniform(draws, -0.7, 0.7), uniform(draws, -0.5, 0.6))
        r2 = (x - at[0]) * (x - at[0]) + (y - at[1]) * (y - at[1])
        wire = strand(x, y, at, (uniform(draws, -0.9, 0.9), -1.3), 1.2 / side + 0.012)
        total = total + 0.25 * inside(0.0016 - r2, 0.0016) + 0.14 * wire
    return total


def _collimated(tone: Field, draws: Draws) -> Field:
    """Black borders where the beam was narrowed."""
    side = len(tone)
    if not chance(draws, COLLIMATED):
        return tone
    most = max(1, side // 16)
    top, bottom, left, right = (draws.between(0, most) for _ in range(4))
    kept = tone.copy()
    kept[:top], kept[side - bottom :] = 0.02, 0.02
    kept[:, :left], kept[:, side - right :] = 0.02, 0.02
    return kept


def _marked(tone: Field, draws: Draws) -> Field:
    """A lead letter in an upper corner."""
    if not chance(draws, MARKED):
        return tone
    letter = "RL"[draws.between(0, 1)]
    glyph = np.array([[int(bit) for bit in row] for row in GLYPHS[letter]], dtype=np.bool_)
    size = max(1, len(tone) // 48)
    glyph = glyph.repeat(size, axis=0).repeat(size, axis=1)
    height, width = glyph.shape
    top, border = draws.between(size, 6 * size), draws.between(size, 6 * size)
    left = border if letter == "R" else len(tone) - border - width
    marked = tone.copy()
    marked[top : top + height, left : left + width][glyph] = 0.97
    return marked
