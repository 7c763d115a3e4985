"""Positions of feature maps in the image, and what a single-stage detector is to predict at each (FCOS,
arXiv:1904.01355, section 3.1 and 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

REACH = 8
"""The farthest side of an object lies up to so many strides from a position of a level (64 pixels at stride 8)."""
RADIUS = 1.5
"""Positions up to so many strides from the middle of an object learn to find it (FCOS, its later center sampling)."""
BACKGROUND = -1


@dataclass(frozen=True, kw_only=True)
class Locations:
    """The P positions of all levels, the finest level first, row by row.

    Attributes:
        points: (P, 2) x and y in pixels of the image: the middle of the square that a position stands for.
        strides: (P,) pixels between neighbors.
        levels: (P,) int64 number of the level.
        reach: (P, 2) the least and the greatest distance to the farthest side of an object that is found there.
    """

    points: Tensor
    strides: Tensor
    levels: Tensor
    reach: Tensor


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What to predict in one scene: labels (P,), -1 where nothing is; distances (P, 4) to the sides, else 0."""

    labels: Tensor
    distances: Tensor


def locations(size: tuple[int, ...], strides: Sequence[int], *, device: torch.device | str = "cpu") -> Locations:
    """The positions in an image of this height and width, both multiples of every stride."""
    points, counts = [], []
    for stride in strides:
        rows, columns = (torch.arange(length // stride, device=device) for length in size)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        points.append((torch.stack([x, y], dim=-1).view(-1, 2) + 0.5) * stride)
        counts.append(len(points[-1]))
    each = torch.tensor(counts, device=device)
    far = torch.tensor([REACH * stride for stride in strides[:-1]], dtype=torch.float32, device=device)
    bounds = torch.cat([far.new_zeros(1), far, far.new_full((1,), torch.inf)])
    return Locations(
        points=torch.cat(points),
        strides=torch.tensor(strides, dtype=torch.float32, device=device).repeat_interleave(each),
        levels=torch.arange(len(strides), device=device).repeat_interleave(each),
        reach=torch.stack([bounds[:-1], bounds[1:]], dim=1).repeat_interleave(each, dim=0),
    )


def targets_of(where: Locations, boxes: Tensor, labels: Tensor) -> Targets:
    """Targets of one scene.

    A position stands for an object when it is inside of the box, at most ``RADIUS`` strides from its middle, and the
    object is of the level's size; for the smallest one of several.

    Args:
        where: P positions.
        boxes: (n, 4) left, top, right, bottom.
        labels: (n,).
    """
    count = len(where.points)
    if not len(boxes):
        empty = torch.full((count,), BACKGROUND, dtype=torch.int64, device=boxes.device)
        return Targets(labels=empty, distances=boxes.new_zeros(count, 4))
    x, y = where.points[:, 0, None], where.points[:, 1, None]  # (P, 1)
    left, top, right, bottom = boxes.unbind(dim=1)  # (n,)
    distances = torch.stack([x - left, y - top, right - x, bottom - y], dim=2)  # (P, n, 4)
    farthest = distances.amax(dim=2)
    off_x, off_y = (x - (left + right) / 2).abs(), (y - (top + bottom) / 2).abs()
    stands = (
        (distances.amin(dim=2) > 0)
        & (torch.maximum(off_x, off_y) < RADIUS * where.strides[:, None])
        & (farthest > where.reach[:, :1])
        & (farthest <= where.reach[:, 1:])
    )
    areas = ((right - left) * (bottom - top)).expand(count, -1).masked_fill(~stands, torch.inf)
    smallest, chosen = areas.min(dim=1)
    positive = smallest < torch.inf
    own = distances[torch.arange(count, device=boxes.device), chosen]
    return Targets(
        labels=torch.where(positive, labels[chosen], BACKGROUND),
        distances=torch.where(positive[:, None], own, 0.0),
    )
