"""The lateral view of the phantom patients: how much each pixel's ray is absorbed.

The patient looks to the left; both lungs lie over each other. Heights are those of the frontal view, so that the
diaphragm, the heart and every finding stand as high in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.phantom_patients import Anatomy, Lesion, Study
from bench.data.phantom_shapes import Field, Frame, bump, clouds, dome, ellipse, inside, smooth, strand, stripes


@dataclass(frozen=True, kw_only=True)
class Chest:
    """The space of the lungs in this view.

    Attributes:
        front, back: place of its borders at each height, (S, S).
        top: height of its upper border at each place.
        shares: of a pixel that lies in the right and in the left lung.
        level: of the top of the left dome.
        air: how much less each lung absorbs.
    """

    front: Field
    back: Field
    top: Field
    shares: dict[int, Field]
    level: float
    air: dict[int, Field]


def lateral(a: Anatomy, study: Study, f: Frame) -> Field:
    """Absorption (S, S).

    Args:
        a: the patient.
        study: with its findings.
        f: where the pixels are.
    """
    chest = _chest(a, study, f)
    heart = _heart(a, study, f)
    total = _body(a, chest, f) + _skeleton(a, chest, f) + 0.34 * heart
    trachea = f.x - 0.02 - 0.12 * f.y
    arch = ellipse(f.x - 0.06, f.y + 0.36, (1.9 * a.aorta, 1.2 * a.aorta))
    total = total + 0.12 * bump(arch) - 0.16 * inside(0.05 - np.abs(trachea), 0.04) * inside(-0.2 - f.y, 0.1)
    for side, share in chest.shares.items():
        total = total - chest.air[side] * (1.0 - 0.5 * heart)
        total = total + share * _markings(a, study, side, chest, f)
        total = total + _opacities(a, study, side, chest, f) * (1.0 - 0.5 * heart)
    return total


def _chest(a: Anatomy, study: Study, f: Frame) -> Chest:
    fall = smooth((f.y - a.apex) / 1.3)
    front = -0.20 - (a.depth - 0.16) * fall
    bulge = (f.y + 0.12) / 0.85
    back = 0.94 * a.depth + 0.12 - a.hunch * bulge * bulge
    tip = (f.x - 0.5 * (back - 0.22)) / (0.5 * (back + 0.3))
    top = a.apex + 0.04 + 0.30 * tip * tip
    level = a.floor + study.breath
    edge = max(0.03, 1.5 * f.pixel)
    shares, air = {}, {}
    for side in (-1, 1):
        behind = np.maximum(0.0, f.x + 0.12) / (a.depth + 0.1)
        floor = (
            level
            - (a.raised if side < 0 else 0.0)
            + (0.22 + a.curvature) * behind * behind
            + 0.10 * smooth((-0.25 - f.x) / 0.4)
        )
        cover = inside(f.x - front, edge) * inside(back - f.x, edge) * inside(floor - f.y, edge)
        shares[side] = cover * inside(f.y - top, 0.10)
        middle = (f.x - 0.04) / (1.25 * a.depth)
        air[side] = 0.36 * a.lung * a.stout * shares[side] * dome(np.minimum(0.8, middle * middle))
    return Chest(front=front, back=back, top=top, shares=shares, level=level, air=air)


def _body(a: Anatomy, chest: Chest, f: Frame) -> Field:
    """Trunk and neck, the raised arms' shoulders, and breasts."""
    front, back = chest.front - 0.04 - 0.7 * a.wall, chest.back + 0.15 + 0.6 * a.wall
    if a.breast:
        front = front - 0.55 * a.breast * bump((f.y - 0.3) * (f.y - 0.3) / (a.breast * a.breast))
    middle, half = (front + back) * 0.5, (back - front) * 0.5
    across = (f.x - middle) / half
    thick = 1.05 * a.stout * dome(0.8 * across * across) * inside(half - np.abs(f.x - middle), 2 * f.pixel)
    arms = bump(ellipse(f.x - 0.06, f.y + 1.0, (0.75, 0.5)))
    return thick * (1.0 + 0.12 * smooth((f.y - 0.4) / 0.4)) * (1.0 - 0.25 * smooth((-f.y - 0.5) / 0.4)) + 0.4 * arms


def _skeleton(a: Anatomy, chest: Chest, f: Frame) -> Field:
    column = chest.back - 0.06 - f.x
    spine = inside(0.10 - np.abs(column), 0.05) * (0.10 + 0.11 * stripes((f.y + 0.2 * f.x) / a.vertebra, 0.8))
    spine = spine * inside(f.y + 0.95, 0.2)
    fall = (f.y - (0.35 + a.slope) * (0.3 - f.x)) / a.rib + a.rib_start
    ribs = stripes(fall, 0.36) + 0.7 * stripes(fall + 0.37, 0.36)
    there = inside(f.x - chest.front, 0.05) * inside(chest.back - f.x + 0.1, 0.1) * inside(0.62 - f.y, 0.2)
    there = there * inside(f.y - a.apex - 0.1, 0.1)
    breastbone = chest.front - 0.02 - f.x
    sternum = bump(breastbone * breastbone / 0.0025) * inside(0.35 - f.y, 0.1) * inside(f.y - a.apex - 0.1, 0.1)
    return spine + a.bone * (0.07 * ribs * there + 0.10 * sternum)


def _heart(a: Anatomy, study: Study, f: Frame) -> Field:
    half = a.heart
    if (lesion := study.present.get("cardiomegaly")) is not None:
        half = half * (1.10 + 0.14 * lesion.strength)
    center = a.floor + study.breath - 0.02 - 0.75 * half
    r2 = ellipse(f.x + 0.20, f.y - center, (0.98 * half, 0.92 * half), -0.3)
    return dome(r2) * inside(1.0 - r2, 0.3) * inside(a.floor + study.breath + 0.12 - f.y, 0.2)


def _markings(a: Anatomy, study: Study, side: int, chest: Chest, f: Frame) -> Field:
    root = chest.level * 0.5 + a.apex * 0.5 + 0.04
    total = 0.07 * bump(ellipse(f.x - 0.05, f.y - root, (0.14, 0.18))) + 0.03 * clouds(f.x, f.y, a.texture, 0.09)
    for other, outward, down in a.vessels:
        if other == side:
            end = (a.depth * (1.5 * outward - 0.85), a.apex + (chest.level + 0.1 - a.apex) * down)
            begin = (0.05 + 0.2 * end[0], root + 0.25 * (end[1] - root))
            total = total + 0.04 * strand(f.x, f.y, begin, end, 0.032)
    if (lesion := study.lesion("pneumothorax", side)) is not None:
        total = total * (1.0 - collapse(a, lesion, chest, f))
    return total


def collapse(a: Anatomy, lesion: Lesion, chest: Chest, f: Frame) -> Field:
    """How far a pixel lies between the wall and the lung, which has sunk away from it: at the apex and in front."""
    gap = 0.14 + 0.20 * lesion.size
    high = smooth(1.0 - (f.y - a.apex - 0.25) / (0.9 + 0.4 * lesion.size))
    before = inside(chest.front + gap * (0.25 + high) - f.x, 0.07)
    above = inside(chest.top + 0.5 * gap - f.y, 0.04)
    return (1.0 - (1.0 - before) * (1.0 - above)) * high


def _opacities(a: Anatomy, study: Study, side: int, chest: Chest, f: Frame) -> Field:
    """What the findings add within a lung."""
    total = np.zeros_like(f.x)
    air, share = chest.air[side], chest.shares[side]
    if (lesion := study.lesion("effusion", side)) is not None:
        rising = np.clip((f.x + 0.1) / (a.depth + 0.1), 0.0, 1.2)
        surface = chest.level + 0.08 - 0.26 * lesion.size - (0.02 + 0.1 * lesion.size) * rising * rising * rising
        total = total + (0.40 + 0.35 * lesion.strength) * air * inside(f.y - surface, 0.10)
    if (lesion := study.lesion("edema", side)) is not None:
        root = chest.level * 0.5 + a.apex * 0.5 + 0.08
        near = bump(ellipse(f.x - 0.05, f.y - root, (0.6, 0.62)))
        net = 1.0 + 0.7 * clouds(f.x, f.y, lesion.texture, 0.06)
        total = total + (0.18 + 0.24 * lesion.strength) * air * near * net
    for name in ("consolidation", "nodule"):
        if (lesion := study.lesion(name, side)) is not None:
            total = total + share * _spot(name, a, lesion, chest, f)
    if (lesion := study.lesion("pneumothorax", side)) is not None:
        gone = collapse(a, lesion, chest, f)
        line = 4.0 * gone * (1.0 - gone)
        total = total + share * ((0.08 + 0.05 * lesion.strength) * line - (0.08 + 0.07 * lesion.strength) * gone)
    return total


def _spot(name: str, a: Anatomy, lesion: Lesion, chest: Chest, f: Frame) -> Field:
    y = a.apex + (chest.level - a.apex) * lesion.down
    x = -0.75 * a.depth + 1.6 * a.depth * lesion.back
    if name == "nodule":
        radius = 0.06 + 0.05 * lesion.size
        return (0.16 + 0.14 * lesion.strength) * dome(ellipse(f.x - x, f.y - y, (radius, radius)))
    radius = 0.20 + 0.14 * lesion.size
    r2 = ellipse(f.x - x, f.y - y, (radius, 0.85 * radius))
    uneven = r2 + 0.3 * clouds(f.x, f.y, lesion.texture, 0.13)
    patch = inside(0.66 - uneven, 0.7) * inside(1.3 - r2, 0.4)
    return (0.12 + 0.20 * lesion.strength) * patch * (1.0 + 0.3 * clouds(f.x, f.y, lesion.texture, 0.07))
