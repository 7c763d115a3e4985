"""The frontal view of the phantom patients: how much each pixel's ray is absorbed.

Absorption adds up along a ray, hence the structures are summed; soft tissue of a body's full depth counts 1. The
image's left is the patient's right, x = 0 his midline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.data.phantom_patients import Anatomy, Lesion, Study
from bench.data.phantom_shapes import Field, Frame, bump, clouds, dome, ellipse, inside, smooth, strand, stripes

SIDES = (-1, 1)
AP_HEART = 1.08
"""In an AP view the heart is farther from the detector and larger."""


@dataclass(frozen=True, kw_only=True)
class Lung:
    """One lung in this view.

    Attributes:
        side: -1 the patient's right one.
        out: distance from the midline, (S, S).
        inner, outer: the same of its borders at each height; outer is 0 or less above the apex.
        floor: height of the diaphragm at each distance.
        level: of the top of the dome.
        share: of a pixel that lies in the lung.
        air: how much less is absorbed there.
    """

    side: int
    out: Field
    inner: Field
    outer: Field
    floor: Field
    level: float
    share: Field
    air: Field


def frontal(a: Anatomy, study: Study, view: str, f: Frame) -> Field:
    """Absorption (S, S).

    Args:
        a: the patient.
        study: with its findings.
        view: ``PA`` or ``AP``.
        f: where the pixels are.
    """
    middle = f.x - a.bend * (1.0 - f.y * f.y)
    lungs = [_lung(a, study, side, f) for side in SIDES]
    heart = _heart(a, study, view, f)
    total = _body(a, f) + _skeleton(a, view, f, middle) + _mediastinum(a, f, middle) + 0.26 * heart
    gas = ellipse(f.x - 0.38, f.y - (a.floor + study.breath + 0.19), (study.gas * 1.3 + 0.01, study.gas + 0.01))
    total = total - 0.3 * dome(gas) * inside(0.9 - gas, 0.4)
    for lung in lungs:
        total = total - lung.air * (1.0 - 0.7 * np.minimum(1.0, 1.6 * heart))
        total = total + lung.share * _markings(a, study, lung, f)
        total = total + _opacities(a, study, lung, f) * (1.0 - 0.7 * np.minimum(1.0, 1.6 * heart))
    return total


def _body(a: Anatomy, f: Frame) -> Field:
    """Neck, shoulders and trunk; denser below the diaphragm; breasts."""
    trunk = a.width + a.wall
    half = 0.27 + 1.0 * smooth((f.y + 1.03) / 0.34) - (1.27 - trunk) * smooth((f.y + 0.62) / 0.5)
    across = f.x / half
    body = 0.9 * a.stout * dome(across * across) * inside(half - np.abs(f.x), 2 * f.pixel)
    total = body * (1.0 + 0.16 * smooth((f.y - 0.3) / 0.4))
    if a.breast:
        for side in SIDES:
            r2 = ellipse(side * f.x - 0.52 * a.width - 0.02, f.y - 0.28, (a.breast, 0.85 * a.breast))
            total = total + 0.11 * a.stout * dome(r2) * inside(1.0 - r2, 0.3)
    return total


def _lung(a: Anatomy, study: Study, side: int, f: Frame) -> Lung:
    out = side * (f.x - 0.4 * a.bend)
    rest = 1.0 - np.clip((f.y - a.apex) / 0.95, 0.0, 1.0)
    outer = 0.13 + (a.width - 0.13) * dome(rest * rest) - 0.2 * inside(a.apex - f.y, 2 * f.pixel)
    inner = a.mediastinum * (0.85 + 0.35 * smooth((f.y + 0.2) / 0.8)) + 0.08 * rest * rest
    level = a.floor + study.breath - (a.raised if side < 0 else 0.0)
    off = (out - 0.5 * a.width) / (0.5 * a.width)
    floor = level + a.curvature * off * off * (1.0 + 0.9 * smooth(off))
    edge = max(0.03, 1.5 * f.pixel)
    share = inside(outer - out, edge) * inside(out - inner, 0.05) * inside(floor - f.y, edge)
    deep = (out - 0.45 * a.width) / (0.75 * a.width)
    air = 0.54 * a.lung * a.stout * share * dome(np.minimum(0.85, deep * deep)) * (1.0 - 0.25 * rest * rest)
    return Lung(side=side, out=out, inner=inner, outer=outer, floor=floor, level=level, share=share, air=air)


def _heart(a: Anatomy, study: Study, view: str, f: Frame) -> Field:
    """Its thickness: 1 at the center, 0 outside."""
    half = a.heart * (AP_HEART if view == "AP" else 1.0)
    if (lesion := study.present.get("cardiomegaly")) is not None:
        half = half * (1.10 + 0.14 * lesion.strength)
    center = a.floor + study.breath - 0.02 - 0.62 * half
    r2 = ellipse(f.x - 0.32 * half, f.y - center, (half, 0.92 * half), a.lean)
    upper = ellipse(f.x - 0.02, f.y - (center - 0.75 * half), (0.55 * half, 0.8 * half))
    thick = np.maximum(dome(r2) * inside(1.0 - r2, 0.3), 0.7 * dome(upper))
    return thick * inside(a.floor + study.breath + 0.12 - f.y, 0.2)


def _mediastinum(a: Anatomy, f: Frame, middle: Field) -> Field:
    """The vessels above the heart, the arch of the aorta on the left, and the air in the trachea."""
    half = a.mediastinum * (0.8 + 0.3 * smooth((f.y + 0.75) / 0.4))
    total = 0.12 * inside(half - np.abs(f.x), 0.10) * inside(f.y + 0.9, 0.3)
    knob = ellipse(f.x - 0.75 * a.mediastinum - 0.02, f.y + 0.38, (a.aorta, a.aorta))
    trachea = inside(0.05 - np.abs(middle + 0.01), 0.04) * inside(-0.22 - f.y, 0.1)
    return total + 0.17 * dome(knob) - 0.16 * trachea


def _skeleton(a: Anatomy, view: str, f: Frame, middle: Field) -> Field:
    spine = inside(0.085 - np.abs(middle), 0.04) * (0.12 + 0.07 * stripes(f.y / a.vertebra, 0.75))
    out = np.abs(middle)
    rest = 1.0 - np.clip((f.y - a.apex) / 0.95, 0.0, 1.0)
    wall = 0.16 + (a.width - 0.12) * dome(rest * rest)
    rising = out / a.width
    # Behind they leave the spine nearly level and fall at the side; in front they come back to the middle, lower.
    behind = stripes(
        (f.y - a.slope * rising * rising * rising + 0.06 * dome(rising * rising)) / a.rib + a.rib_start, 0.42
    )
    before = stripes((f.y + (a.slope + 0.3) * (1.0 - rising) * 0.9) / a.rib + a.rib_start + 0.4, 0.5)
    there = inside(wall - out, 0.04) * inside(0.62 - f.y, 0.2) * inside(f.y - a.apex - 0.02, 0.08)
    ribs = there * (0.115 * behind * inside(out - 0.06, 0.06) + 0.065 * before * inside(out - 0.34, 0.15))
    rim = 0.07 * bump((wall - out) * (wall - out) / 0.0025) * inside(0.6 - f.y, 0.2) * inside(f.y - a.apex - 0.1, 0.2)
    total = spine + a.bone * (ribs + rim)
    lift = f.y - a.apex - 0.14 + a.clavicle * (out - 0.3)
    total = total + 0.13 * a.bone * bump(lift * lift / 0.0016) * inside(out - 0.09, 0.05) * inside(0.82 - out, 0.1)
    if view == "AP":  # the arms are not turned forward: the shoulder blades stay over the lungs
        blade = ellipse(out - a.width + 0.04, f.y + 0.34, (0.16, 0.36), -0.25)
        total = total + 0.07 * a.bone * inside(1.0 - blade, 0.4)
    return total


def _markings(a: Anatomy, study: Study, lung: Lung, f: Frame) -> Field:
    """Hilum, vessels and fine structure; none where the lung has collapsed."""
    root = lung.level * 0.5 + a.apex * 0.5 + 0.06
    hilum = ellipse(lung.out - 0.19, f.y - root, (0.10, 0.16))
    total = 0.11 * bump(hilum) + 0.045 * clouds(f.x, f.y, a.texture, 0.09)
    for side, outward, down in a.vessels:
        if side == lung.side:
            end = (0.2 + (a.width - 0.2) * outward, a.apex + (lung.level + 0.05 - a.apex) * down)
            begin = root + 0.25 * (end[1] - root)
            total = total + 0.075 * strand(lung.out, f.y, (0.15, begin), end, 0.032)
    if (lesion := study.lesion("pneumothorax", lung.side)) is not None:
        total = total * (1.0 - collapse(a, lesion, lung, f))
    return total


def collapse(a: Anatomy, lesion: Lesion, lung: Lung, f: Frame) -> Field:
    """How far a pixel lies between the chest wall and the lung, which has sunk away from it."""
    gap = 0.14 + 0.20 * lesion.size
    high = smooth(1.0 - (f.y - a.apex - 0.25) / (0.9 + 0.4 * lesion.size))
    return inside(lung.out - lung.outer + gap * (0.25 + high), 0.07) * high


def _opacities(a: Anatomy, study: Study, lung: Lung, f: Frame) -> Field:
    """What the findings add within a lung."""
    total = np.zeros_like(f.x)
    if (lesion := study.lesion("effusion", lung.side)) is not None:
        total = total + _fluid(a, lesion, lung, f)
    if (lesion := study.lesion("edema", lung.side)) is not None:
        total = total + _haze(a, lesion, lung, f)
    for name in ("consolidation", "nodule"):
        if (lesion := study.lesion(name, lung.side)) is not None:
            total = total + _spot(name, a, lesion, lung, f)
    if (lesion := study.lesion("pneumothorax", lung.side)) is not None:
        gone = collapse(a, lesion, lung, f)
        line = 4.0 * gone * (1.0 - gone)
        total = total + lung.share * ((0.12 + 0.06 * lesion.strength) * line - (0.11 + 0.08 * lesion.strength) * gone)
    return total


def _fluid(a: Anatomy, lesion: Lesion, lung: Lung, f: Frame) -> Field:
    """Fluid takes the place of air at the base and rises along the wall."""
    rising = np.clip(lung.out / a.width, 0.0, 1.1)
    climb = rising * rising * rising * rising
    surface = lung.level + 0.06 - 0.26 * lesion.size - (0.04 + 0.1 * lesion.size) * climb
    return (0.40 + 0.35 * lesion.strength) * lung.air * inside(f.y - surface, 0.10)


def _haze(a: Anatomy, lesion: Lesion, lung: Lung, f: Frame) -> Field:
    """Around the hilum, with a coarse net."""
    root = lung.level * 0.5 + a.apex * 0.5 + 0.10
    near = bump(ellipse(lung.out - 0.24, f.y - root, (0.5, 0.62)))
    net = 1.0 + 0.7 * clouds(f.x, f.y, lesion.texture, 0.06)
    return (0.18 + 0.24 * lesion.strength) * lung.air * near * net


def _spot(name: str, a: Anatomy, lesion: Lesion, lung: Lung, f: Frame) -> Field:
    """A round nodule, or a patch with an uneven border."""
    y = a.apex + (lung.level - a.apex) * lesion.down
    out = 0.2 + (a.width - 0.3) * lesion.outward
    if name == "nodule":
        radius = 0.06 + 0.05 * lesion.size
        r2 = ellipse(lung.out - out, f.y - y, (radius, radius))
        return (0.16 + 0.14 * lesion.strength) * lung.share * dome(r2)
    radius = 0.20 + 0.14 * lesion.size
    r2 = ellipse(lung.out - out, f.y - y, (radius, 0.85 * radius))
    uneven = r2 + 0.3 * clouds(f.x, f.y, lesion.texture, 0.13)
    patch = inside(0.66 - uneven, 0.7) * inside(1.3 - r2, 0.4)
    return (0.12 + 0.20 * lesion.strength) * lung.share * patch * (1.0 + 0.3 * clouds(f.x, f.y, lesion.texture, 0.07))
