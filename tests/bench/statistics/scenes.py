"""Frames of detections: written by hand, or drawn; and what pycocotools makes of them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Box = Sequence[float]


def frame_of(
    true: Sequence[Sequence[tuple[Box, int]]],
    found: Sequence[Sequence[tuple[Box, int, float]]],
    *,
    crowd: Sequence[tuple[int, int]] = (),
    difficult: Sequence[tuple[int, int]] = (),
) -> pd.DataFrame:
    """One row per scene of 200 x 200 pixels.

    Args:
        true: (box, class) of each object of each scene.
        found: (box, class, score) of each detection of each scene.
        crowd, difficult: (scene, object) of those that are.
    """
    rows: list[dict[str, Any]] = []
    for scene, (objects, detections) in enumerate(zip(true, found, strict=True)):
        rows.append(
            {
                "sample": scene,
                "name": f"scene {scene}",
                "height": 200,
                "width": 200,
                "found_boxes": [float(np.float32(side)) for box, _, _ in detections for side in box],
                "found_scores": [float(np.float32(score)) for _, _, score in detections],
                "found_labels": [label for _, label, _ in detections],
                "true_boxes": [float(side) for box, _ in objects for side in box],
                "true_labels": [label for _, label in objects],
                "true_crowd": [(scene, place) in crowd for place in range(len(objects))],
                "true_difficult": [(scene, place) in difficult for place in range(len(objects))],
                "true_areas": [float((box[2] - box[0]) * (box[3] - box[1])) for box, _ in objects],
                "picture": None,
            }
        )
    return pd.DataFrame(rows)


def drawn_frame(
    seed: int, *, scenes: int = 40, classes: int = 4, ties: bool = False, masks: bool = False, side: int = 300
) -> pd.DataFrame:
    """Objects of all sizes, some crowds and difficult ones, some scenes empty; detections near them and elsewhere.

    Args:
        ties: scores have one decimal.
        masks: objects are ellipses in their boxes, as polygons or run lengths; so are detections.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for scene in range(scenes):
        count = int(rng.poisson(4)) if scene % 7 else 0
        true, labels = _boxes(rng, count, side), rng.integers(0, classes, count)
        near = np.repeat(np.arange(count), rng.integers(0, 3, count))
        extent = np.tile(true[near, 2:] - true[near, :2], 2)
        boxes = np.concatenate([true[near] + rng.normal(0, 0.08, (len(near), 4)) * extent, _boxes(rng, 3, side)])
        boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
        guessed = np.concatenate([labels[near], rng.integers(0, classes, 3)])
        scores = np.concatenate([rng.beta(4, 2, len(near)), rng.beta(2, 4, 3)])
        order = rng.permutation(len(scores))
        boxes = boxes[order].astype(np.float32)
        row = {
            "sample": scene,
            "name": f"scene {scene}",
            "height": side,
            "width": side,
            "found_boxes": boxes.ravel().tolist(),
            "found_scores": (scores.round(1) if ties else scores)[order].astype(np.float32).tolist(),
            "found_labels": guessed[order].tolist(),
            "true_boxes": true.ravel().tolist(),
            "true_labels": labels.tolist(),
            "true_crowd": (rng.random(count) < 0.08).tolist(),
            "true_difficult": (rng.random(count) < 0.1).tolist(),
            "true_areas": (true[:, 2:] - true[:, :2]).prod(axis=1).tolist(),
            "picture": None,
        }
        if masks:
            polygons = [_ellipse(box) for box in true]
            written = [[polygon] if place % 2 else lengths(polygon, side) for place, polygon in enumerate(polygons)]
            row["true_masks"] = [json.dumps(item) for item in written]
            row["true_areas"] = (np.array(row["true_areas"]) * np.pi / 4).tolist()
            row["found_masks"] = [json.dumps(lengths(_ellipse(box), side)) for box in boxes]
        rows.append(row)
    return pd.DataFrame(rows)


def _boxes(rng: np.random.Generator, count: int, side: int) -> NDArray[np.float64]:
    extent = np.exp(rng.uniform(np.log(8), np.log(0.8 * side), (count, 2)))
    corner = rng.uniform(0, side - extent)
    return np.concatenate([corner, corner + extent], axis=1)


def _ellipse(box: NDArray[Any]) -> list[float]:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    center, radius = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    points = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [float(value) for value in points.ravel()]


def lengths(polygon: list[float], side: int) -> dict[str, Any]:
    """Run lengths of a polygon in a square scene, by pycocotools."""
    from pycocotools import mask

    (own,) = mask.frPyObjects([polygon], side, side)
    return {"size": [side, side], "counts": own["counts"].decode()}


def repeated(frame: pd.DataFrame, times: NDArray[np.int64]) -> pd.DataFrame:
    """Each scene as often as it says, as scenes of their own."""
    return frame.iloc[np.repeat(np.arange(len(frame)), times)].reset_index(drop=True)


def by_pycocotools(frame: pd.DataFrame, classes: int, kind: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Precision (T, R, K, A, M) and recall (T, K, A, M); a difficult object has a size that is never asked for."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known, results = COCO(), []
    known.dataset = {
        "images": [{"id": i + 1, "height": int(row.height), "width": int(row.width)} for i, row in _rows(frame)],
        "categories": [{"id": label + 1, "name": str(label)} for label in range(classes)],
        "annotations": [],
    }
    for i, row in _rows(frame):
        for place, label in enumerate(row.true_labels):
            left, top, right, bottom = row.true_boxes[4 * place : 4 * place + 4]
            known.dataset["annotations"].append(
                {
                    "id": len(known.dataset["annotations"]) + 1,
                    "image_id": i + 1,
                    "category_id": label + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": -5.0 if row.true_difficult[place] else row.true_areas[place],
                    "iscrowd": int(row.true_crowd[place]),
                    **({"segmentation": json.loads(row.true_masks[place])} if kind == "segm" else {}),
                }
            )
        for place, label in enumerate(row.found_labels):
            left, top, right, bottom = row.found_boxes[4 * place : 4 * place + 4]
            own = {"image_id": i + 1, "category_id": label + 1, "score": row.found_scores[place]}
            shape = {"bbox": [left, top, right - left, bottom - top]}
            if kind == "segm":
                shape = {"segmentation": json.loads(row.found_masks[place])}
            results.append(own | shape)
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _rows(frame: pd.DataFrame) -> list[tuple[int, Any]]:
    return list(enumerate(frame.itertuples()))
