"""What stored predictions of a setting show: the first test scenes with their boxes, and precision against recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.statistics.coco_precision import RECALLS
from bench.statistics.detection_curves import mean_precision
from reports.contest import Loader
from reports.detection_page import Entry, Setting
from reports.detection_pictures import SceneRow, pictured, scene_row, surest, symbols

if TYPE_CHECKING:
    import pandas as pd

IOUS = (0.5, 0.75)
MOST_SCENES, MOST_METHODS = 6, 7
"""Drawn scenes, and methods beside the truth: more makes a page heavy and its pictures small."""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Precision in percent by recall in percent at one overlap, mean over the classes with objects and over seeds.

    Attributes:
        precision: by the title of the method.
    """

    iou: float
    recall: tuple[float, ...]
    precision: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What stored predictions show.

    Attributes:
        methods: the columns of pictures, beside the truth: least score of a box that is drawn, by title.
        scenes: rows of pictures.
        symbols: the pictures themselves by their ids, for the page to hold once.
        left_out: methods for whose pictures there is no room.
        curves: one for each overlap.
    """

    methods: Mapping[str, float] = field(default_factory=dict)
    scenes: tuple[SceneRow, ...] = ()
    symbols: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    curves: tuple[Curves, ...] = ()


def seen(setting: Setting, predictions: Loader | None) -> Seen:
    """Pictures and curves of a setting; the predictions of one method are in memory at a time."""
    pictures: dict[str, list[dict[str, Any]]] = {}
    thresholds: dict[str, float] = {}
    precision: dict[float, dict[str, tuple[float, ...]]] = {iou: {} for iou in IOUS}
    recall = tuple((100 * RECALLS).tolist())
    for entry in setting.entries:
        frames = _frames(entry, predictions) if predictions else []
        if not frames:
            continue
        pictures[entry.title] = pictured(frames[0])[:MOST_SCENES]
        thresholds[entry.title] = surest(frames[0])
        mean = np.mean([mean_precision(frame, len(setting.classes), IOUS) for frame in frames], axis=0)  # (T, 101)
        for iou, line in zip(IOUS, mean, strict=True):
            if not np.isnan(line).any():
                precision[iou][entry.title] = tuple(line.tolist())
    shown = _columns(setting, [title for title, rows in pictures.items() if rows])
    columns = {title: thresholds[title] for title in shown}
    scenes = _common([pictures[title] for title in columns])
    return Seen(
        methods=columns if scenes else {},
        scenes=tuple(scene_row(rows, columns, setting.classes) for rows in scenes),
        symbols=symbols([rows[0] for rows in scenes]),
        left_out=tuple(title for title in pictures if title not in columns) if scenes else (),
        curves=tuple(Curves(iou=iou, recall=recall, precision=found) for iou, found in precision.items() if found),
    )


def _frames(entry: Entry, predictions: Loader) -> list[pd.DataFrame]:
    """Every seed's predictions; nothing unless all have a value and predictions."""
    if entry.ap is None:
        return []
    rows = [next(iter(result.metrics.values())) for result in entry.results]
    frames = [predictions(str(row["identity"])) for row in rows]
    found = [frame for frame in frames if frame is not None]
    return found if len(found) == len(frames) else []


def _columns(setting: Setting, titles: Sequence[str]) -> list[str]:
    """The methods whose pictures are shown, in the order of the plan: baselines, then the best of the others."""
    entries = [entry for entry in setting.entries if entry.title in titles]
    ranked = sorted(entries, key=lambda entry: (not entry.baseline, -(entry.ap or 0.0)))
    chosen = {entry.title for entry in ranked[:MOST_METHODS]}
    return [title for title in titles if title in chosen]


def _common(pictures: Sequence[Sequence[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """The scenes that all methods have, each with one row of every method."""
    if not pictures:
        return []
    by_sample = [{row["sample"]: row for row in rows} for rows in pictures]
    samples = [sample for sample in by_sample[0] if all(sample in rows for rows in by_sample)]
    return [[rows[sample] for rows in by_sample] for sample in samples]
