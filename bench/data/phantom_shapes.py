"""Soft shapes on a pixel grid, for the phantom radiographs.

Only what IEEE 754 rounds correctly is used, element by element: + - × ÷ √, comparison, floor. There is no sum over an
axis, no matrix product, no power and no function of a mathematical library, whose last bit depends on the machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import Draws

Field = NDArray[np.float64]
STEPS = 65535


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the pixels of an image lie: both sides of the field reach from -1 to 1.

    Attributes:
        x, y: (S, S) position of each pixel, to the right and down.
        pixel: length of a pixel: no edge is sharper.
    """

    x: Field
    y: Field
    pixel: float


def uniform(draws: Draws, low: float, high: float) -> float:
    """A number from low to high in ``STEPS`` equal steps."""
    return low + (high - low) * (draws.between(0, STEPS) / STEPS)


def chance(draws: Draws, share: float) -> bool:
    """True with this probability."""
    return draws.between(0, STEPS - 1) < share * STEPS


def frame(side: int, *, shift: tuple[float, float], turn: float, zoom: float) -> Frame:
    """The pixels of a field of ``side`` pixels in the patient's coordinates.

    Args:
        side: S, height and width.
        shift: of the patient, to the right and down.
        turn: tangent of half the angle by which the patient is turned clockwise.
        zoom: of the patient.
    """
    centers = (2 * np.arange(side) + 1) / side - 1.0
    x = (np.broadcast_to(centers[None, :], (side, side)) - shift[0]) / zoom
    y = (np.broadcast_to(centers[:, None], (side, side)) - shift[1]) / zoom
    whole = 1.0 + turn * turn
    cosine, sine = (1.0 - turn * turn) / whole, 2.0 * turn / whole
    return Frame(x=x * cosine + y * sine, y=y * cosine - x * sine, pixel=2.0 / (side * zoom))


def smooth(t: Field) -> Field:
    """0 up to 0, 1 from 1, and a cubic in between."""
    inside = np.clip(t, 0.0, 1.0)
    return inside * inside * (3.0 - 2.0 * inside)


def inside(distance: Field, width: float) -> Field:
    """1 where the distance to a border is positive, 0 where it is negative, soft over ``width``."""
    return smooth(distance / width + 0.5)


def bump(squared: Field) -> Field:
    """A hill (1 - r²)² of the squared distance r², 0 from r = 1."""
    rest = np.maximum(0.0, 1.0 - squared)
    return rest * rest


def dome(squared: Field) -> Field:
    """Half a sphere's thickness √(1 - r²) of the squared distance r², 0 from r = 1."""
    return np.sqrt(np.maximum(0.0, 1.0 - squared))


def ellipse(x: Field, y: Field, radius: tuple[float, float], lean: float = 0.0) -> Field:
    """Squared distance from 0 in units of the radii, leaning to the right as it goes down."""
    across, down = (x - lean * y) / radius[0], y / radius[1]
    return across * across + down * down


def stripes(at: Field, share: float) -> Field:
    """Bands at whole numbers, as wide as ``share`` of their distance, with edges as dense as cortical bone."""
    off = np.abs(at - np.floor(at + 0.5)) / (0.5 * share)
    return bump(off * off) * (0.7 + 0.9 * off * off)


def strand(x: Field, y: Field, begin: tuple[float, float], end: tuple[float, float], width: float) -> Field:
    """A line from one point to another that becomes thinner and fainter."""
    dx, dy = end[0] - begin[0], end[1] - begin[1]
    along = np.clip(((x - begin[0]) * dx + (y - begin[1]) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    off_x, off_y = x - begin[0] - along * dx, y - begin[1] - along * dy
    radius = width * (1.0 - 0.6 * along)
    return bump((off_x * off_x + off_y * off_y) / (radius * radius)) * (1.0 - 0.7 * along)


def clouds(x: Field, y: Field, values: Field, cell: float) -> Field:
    """Smooth noise of -1 … 1: ``values`` (n, n) at the corners of square cells, over and over."""
    n = len(values)
    column, row = np.floor(x / cell), np.floor(y / cell)
    right, down = smooth(x / cell - column), smooth(y / cell - row)
    i, j = row.astype(np.int64) % n, column.astype(np.int64) % n
    below, beside = (i + 1) % n, (j + 1) % n
    upper = values[i, j] * (1.0 - right) + values[i, beside] * right
    lower = values[below, j] * (1.0 - right) + values[below, beside] * right
    return upper * (1.0 - down) + lower * down


def blurred(image: Field, share: float) -> Field:
    """Mixed with the mean of weights 1, 2, 1 along both axes; the border repeats."""
    wide = np.pad(image, 1, mode="edge")
    across = (wide[:, :-2] + 2.0 * wide[:, 1:-1] + wide[:, 2:]) * 0.25
    both = (across[:-2] + 2.0 * across[1:-1] + across[2:]) * 0.25
    return image * (1.0 - share) + both * share
