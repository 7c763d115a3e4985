"""Detections drawn on test scenes: SVG over an embedded picture, which the page holds once for all methods."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.statistics.detection_frames import objects_in
from reports.detection_matches import Box, Kind, judged, true_boxes
from reports.drawing import text_width
from reports.words import counted, listed

if TYPE_CHECKING:
    import pandas as pd

WIDTH, HIGHEST = 160.0, 200.0
"""Width of a drawn scene and its greatest height, in units of the view box."""
TEXT, CROWDED = 9.0, 9
"""Size of the text on a scene; with more boxes only what is wrong or missed has its name there."""
DRAWN: tuple[Kind, ...] = ("aside", "true", "missed", "wrong", "right")
LEGEND: tuple[tuple[Kind, str, str], ...] = (
    ("right", "solid", "found: a box of the right class that overlaps an object by at least half of their joint area"),
    ("wrong", "dotted, “✕”", "wrong: a box that finds no object, or one that a better box found already"),
    ("missed", "long dashes, “?”", "missed: an object that no box finds"),
    ("true", "short dashes", "an object as it was annotated, where a box found it"),
    ("aside", "dashes and dots", "does not count: a difficult object, a region of many, or a box on these"),
)
"""Kind, how its line looks, what it is."""


Place = tuple[float, float, float, float]
"""Left, top, right and bottom of a text."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One scene as one method sees it.

    Attributes:
        svg: element of the page.
        counts: a few words to stand below it.
    """

    svg: str
    counts: str


@dataclass(frozen=True, kw_only=True)
class SceneRow:
    """One scene: its name, the annotated objects, and what each method found."""

    name: str
    pictures: tuple[Picture, ...]


def pictured(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The stored scenes that have a picture, in the order of the samples."""
    if "picture" not in frame:
        return []
    rows = frame.sort_values("sample", kind="stable").to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows if isinstance(row["picture"], bytes)]


def surest(frame: pd.DataFrame) -> float:
    """The score from which on a method's boxes are drawn: all its test scenes together then show as many boxes as they
    have objects that count.

    Scores of different detectors mean different things, so no fixed one would treat them alike. Average precision needs
    none: it counts every box, by its rank.
    """
    objects = objects_in(frame)
    count = int((~objects.crowd & ~objects.difficult).sum())
    scores = np.sort(np.concatenate([np.asarray(own, dtype=np.float64) for own in frame["found_scores"]]))[::-1]
    return float(scores[min(count, len(scores)) - 1]) if count and len(scores) else math.inf


def scene_id(row: Mapping[str, Any]) -> str:
    """Id of the embedded picture; equal pictures share it."""
    return f"scene-{hashlib.sha256(row['picture']).hexdigest()[:12]}"


def symbols(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Every picture once, by its id, as a ``<symbol>``."""
    found = {}
    for row in rows:
        width, height = _size(row)
        size = f'width="{_n(width)}" height="{_n(height)}"'
        data = base64.b64encode(row["picture"]).decode()
        found[scene_id(row)] = (
            f'<symbol id="{scene_id(row)}" viewBox="0 0 {_n(width)} {_n(height)}" preserveAspectRatio="none">'
            f'<image {size} preserveAspectRatio="none" href="data:image/png;base64,{data}"/></symbol>'
        )
    return found


def sheet(pictures: Mapping[str, str]) -> str:
    """An invisible ``<svg>`` that holds the symbols of a page."""
    return "\n".join(('<svg class="sr" aria-hidden="true">', *pictures.values(), "</svg>")) if pictures else ""


def scene_row(rows: Sequence[Mapping[str, Any]], methods: Mapping[str, float], classes: Sequence[str]) -> SceneRow:
    """One scene: the objects first, then what each method found.

    Args:
        rows: the scene as each method's predictions store it.
        methods: least score of a box that is drawn, by the title of the method.
        classes: names.
    """
    first = rows[0]
    objects = true_boxes(first)
    pictures = [Picture(svg=_truth(first, objects, classes), counts=_object_words(objects))]
    for row, (title, threshold) in zip(rows, methods.items(), strict=True):
        boxes = judged(row, threshold=threshold)
        label = f"{title} on {first['name']}: {_sentence(boxes, classes)}"
        pictures.append(Picture(svg=_drawn(first, boxes, classes, label), counts=count_words(boxes)))
    return SceneRow(name=str(first["name"]), pictures=tuple(pictures))


def count_words(boxes: Sequence[Box]) -> str:
    """``3 of 4 found, 1 wrong``."""
    kinds = Counter(box.kind for box in boxes)
    objects = kinds["right"] + kinds["missed"]
    found = f"{kinds['right']} of {objects} found" if objects else "nothing to find"
    return f"{found}, {kinds['wrong']} wrong"


def _object_words(objects: Sequence[Box]) -> str:
    aside = sum(box.kind == "aside" for box in objects)
    return counted(len(objects) - aside, "object") + (f", {aside} not counted" if aside else "")


def _sentence(boxes: Sequence[Box], classes: Sequence[str]) -> str:
    """What was found, is wrong and was missed, by name."""
    parts = [count_words(boxes)]
    words: tuple[tuple[Kind, str], ...] = (("right", "found"), ("wrong", "wrong"), ("missed", "missed"))
    for kind, word in words:
        names = [_name(box, classes) for box in boxes if box.kind == kind]
        if names:
            parts.append(f"{word}: {listed(names)}")
    return ". ".join(parts) + "."


def _truth(row: Mapping[str, Any], objects: Sequence[Box], classes: Sequence[str]) -> str:
    shown = [
        Box(corners=box.corners, label=box.label, kind="true" if box.kind == "missed" else "aside") for box in objects
    ]
    names = Counter(_name(box, classes) for box in objects)
    what = listed([f"{count} {name}" if count > 1 else name for name, count in names.items()]) if names else "nothing"
    return _drawn(row, shown, classes, f"Objects of {row['name']}: {what}.", named=("true", "aside"))


def _drawn(
    row: Mapping[str, Any],
    boxes: Sequence[Box],
    classes: Sequence[str],
    label: str,
    *,
    named: Sequence[Kind] = ("right", "wrong", "missed"),
) -> str:
    """The scene with its boxes; what matters most is drawn last."""
    width, height = _size(row)
    scale = width / float(row["width"])
    crowded = sum(box.kind in named for box in boxes) > CROWDED
    texts: tuple[Kind, ...] = ("wrong", "missed") if crowded else tuple(named)
    ordered = sorted(boxes, key=lambda box: DRAWN.index(box.kind))
    parts = [_rectangle(box, scale, classes) for box in ordered]
    taken: list[Place] = []
    parts += [_text(box, scale, classes, (width, height), taken) for box in reversed(ordered) if box.kind in texts]
    head = f'<svg class="scene" viewBox="0 0 {_n(width)} {_n(height)}" role="img" aria-label="{escape(label)}">'
    use = f'<use href="#{scene_id(row)}" width="{_n(width)}" height="{_n(height)}"/>'
    return "".join((head, use, *parts, "</svg>"))


def _rectangle(box: Box, scale: float, classes: Sequence[str]) -> str:
    left, top, right, bottom = (value * scale for value in box.corners)
    shape = f'x="{_n(left)}" y="{_n(top)}" width="{_n(right - left)}" height="{_n(bottom - top)}"'
    title = f"<title>{escape(_title(box, classes))}</title>"
    return f'<rect class="casing" {shape}/><rect class="{box.kind}" {shape}>{title}</rect>'


def _title(box: Box, classes: Sequence[str]) -> str:
    words = {"true": "object", "right": "found", "wrong": "wrong", "missed": "missed", "aside": "does not count"}
    return f"{words[box.kind]}: {_name(box, classes)}"


def _name(box: Box, classes: Sequence[str]) -> str:
    name = classes[box.label] if 0 <= box.label < len(classes) else f"class {box.label}"
    return name if box.score is None else f"{name} {box.score:.2f}"


def _text(box: Box, scale: float, classes: Sequence[str], size: tuple[float, float], taken: list[Place]) -> str:
    """The name above the box where there is room, else inside it or below; never beyond the right edge, nor over
    another name: two scores on each other would read as one. Without any room the line alone tells the kind."""
    left, top, _, bottom = (value * scale for value in box.corners)
    sign = {"wrong": "✕ ", "missed": "? "}.get(box.kind, "")
    text = sign + _name(box, classes)
    width = text_width(text, TEXT)
    x = max(1.0, min(left, size[0] - width - 1))
    inside = min(top + TEXT + 1, size[1] - 2)
    for y in (top - 2.5 if top > TEXT + 2 else inside, bottom + TEXT, inside, bottom - 2.5):
        place = (x, y - TEXT, x + width, y)
        if y <= size[1] - 2 and not any(_meet(place, other) for other in taken):
            taken.append(place)
            return f'<text class="{box.kind}" x="{_n(x)}" y="{_n(y)}" font-size="{_n(TEXT)}">{escape(text)}</text>'
    return ""


def _meet(one: Place, other: Place) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _size(row: Mapping[str, Any]) -> tuple[float, float]:
    """Width and height of the drawn scene."""
    scale = min(WIDTH / float(row["width"]), HIGHEST / float(row["height"]))
    return float(row["width"]) * scale, float(row["height"]) * scale


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
