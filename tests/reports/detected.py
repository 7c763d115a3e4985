"""A synthetic request of the protocol for detection: scenes with boxes, what every method found, and its training."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from bench.card import ProtocolCard
from bench.metric import AP, AP50, AP75
from bench.plan import Plan
from bench.protocol import Score
from bench.statistics.detection import breakdown, detection_scores
from bench.suite import Evaluation
from reports.contest import Loader
from reports.measured import Measured

from .synthetic import METHODS, PROTOCOLS, TITLES, common_fields, make_plan, planned_cell

SCENES, HEIGHT, WIDTH = 40, 90, 120
CLASSES = ("cat", "dog")
SKILL = {"simclr": 0.9, "byol": 0.88, "vicreg": 0.6, "supervised": 0.95, "random_init": 0.3}
"""Probability that a method finds an object."""
SMALL: dict[str, Any] = {"engine": "torchvision", "recipe": "small", "frozen": False, "trials": 4, "pictures": 6}
"""Parameters as a plan completes them."""
PUBLISHED: dict[str, Any] = {"engine": "detectron2", "recipe": "voc07+12", "frozen": False, "iterations": 0}
PROTOCOLS_WITH_DETECTION = PROTOCOLS | {
    "detection": ProtocolCard(
        title="Object detection", summary="Average precision of a detector.", metrics=(AP, AP50, AP75)
    )
}


def scene(**changes: Any) -> dict[str, Any]:
    """A scene of 100 x 80 pixels with a cat at the left and a dog at the right; nothing was found."""
    return {
        "sample": 0,
        "name": "a.png",
        "height": 80,
        "width": 100,
        "found_boxes": [],
        "found_scores": [],
        "found_labels": [],
        "true_boxes": [10.0, 10.0, 40.0, 50.0, 60.0, 20.0, 90.0, 70.0],
        "true_labels": [0, 1],
        "true_crowd": [False, False],
        "true_difficult": [False, False],
        "true_areas": [1200.0, 1500.0],
        "picture": png(0),
    } | changes


def png(seed: int, *, width: int = 40, height: int = 30) -> bytes:
    """A picture of a scene."""
    pixels = np.random.default_rng(seed).integers(60, 160, (height // 5, width // 5), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(content, format="PNG")
    return content.getvalue()


def detections(method: str, seed: int = 0, *, scenes: int = SCENES, pictures: int = 3) -> pd.DataFrame:
    """The stored predictions of one method: objects are hard for all methods alike."""
    world, own = np.random.default_rng(0), np.random.default_rng([seed, *method.encode()])
    rows = []
    for index in range(scenes):
        count = int(world.integers(0, 4)) if index else 3
        corner = world.uniform(0, 60, (count, 2))
        boxes = np.concatenate([corner, corner + world.uniform(15, 28, (count, 2))], axis=1)
        labels, hard = world.integers(0, len(CLASSES), count), world.random(count)
        seen = hard + own.normal(0, 0.05, count) < SKILL[method]
        found = (boxes + own.normal(0, 1.0, boxes.shape))[seen]
        stray = own.uniform(0, 60, (2, 2))
        found = np.concatenate([found, np.concatenate([stray, stray + 20], axis=1)]).astype(np.float32)
        scores = np.concatenate([own.uniform(0.5, 1.0, seen.sum()), own.uniform(0.0, 0.6, 2)])
        order = np.argsort(-scores)
        rows.append(
            scene(
                sample=index + 5,
                name=f"scene {index}",
                height=HEIGHT,
                width=WIDTH,
                found_boxes=found[order].ravel().tolist(),
                found_scores=scores[order].tolist(),
                found_labels=np.append(labels[seen], [0, 1])[order].tolist(),
                true_boxes=boxes.ravel().tolist(),
                true_labels=labels.tolist(),
                true_crowd=[False] * count,
                true_difficult=[False] * count,
                true_areas=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1).tolist(),
                picture=png(index) if index < pictures else None,
            )
        )
    return pd.DataFrame(rows)


def curve(ap: float) -> list[dict[str, Any]]:
    """The rows of a training of 300 iterations, tried three times."""
    rows: list[dict[str, Any]] = []
    for at in range(50, 301, 50):
        losses = {"classes": 100 / at, "boxes": 50 / at}
        row = {
            "iteration": at,
            "lr": 0.002,
            "losses": losses,
            "total": 150 / at,
            "seconds": at / 50,
            "memory_mb": 900.0,
        }
        rows.append(row | ({"ap": ap * at / 300, "ap50": ap * at / 250} if at % 100 == 0 else {}))
    return rows


@cache
def outcome(method: str, seed: int) -> tuple[pd.DataFrame, tuple[Score, ...], dict[str, Any]]:
    """Predictions, box scores and values by class; nobody changes them."""
    frame = detections(method, seed)
    scores, _ = detection_scores(frame, CLASSES, layout="coco", seed=seed)
    return frame, scores[:3], breakdown(frame, CLASSES)


def detection_request(
    *,
    seeds: int = 1,
    states: Mapping[tuple[str, int], str] | None = None,
    params: Mapping[str, Any] | None = None,
    variants: tuple[str, ...] = ("",),
    details: Mapping[str, Any] | None = None,
    patients: list[str] | None = None,
    backbone: str = "convnet",
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Plan, pd.DataFrame, Loader]:
    """The plan, its rows and its stored predictions.

    Args:
        states: by method and seed; ``fresh`` where not given.
        params, details: of the protocol, and what its evaluations recorded.
        overrides: parameters that differ, by method.
    """
    cells = []
    for method in SKILL:
        for seed in range(seeds):
            for variant in variants:
                own = {**SMALL, **(params or {}), **(overrides or {}).get(method, {})}
                evaluation = Evaluation(protocol="detection", variant=variant, params=own)
                state = (states or {}).get((method, seed), "fresh")
                cell = planned_cell(method, evaluation, seed=seed, state=state)
                pretrain = cell.spec.pretrain.model_copy(update={"backbone": backbone})
                cells.append(replace(cell, spec=cell.spec.model_copy(update={"pretrain": pretrain})))
    plan = Plan(suite="synthetic", content=make_plan().content, cells=tuple(cells))
    rows: list[dict[str, Any]] = []
    frames: dict[str, pd.DataFrame] = {}
    for cell in cells:
        if cell.state != "fresh":
            continue
        method, seed = cell.spec.pretrain.method, cell.spec.pretrain.seed
        frame, scores, measured = outcome(method, seed)
        frames[cell.identity.digest] = frame if patients is None else frame.assign(patient=patients)
        recorded = {
            "engine": "torchvision", "recipe": "small", "classes": list(CLASSES), "layout": "coco",
            "curve": curve(scores[0].value), "measured": measured, "device": "cpu", "processes": 1,
            "scenes_per_process": 16, **(details or {}),
        }  # fmt: skip
        base = common_fields(cell) | {
            "kind": "evaluation", "status": "ok", "identity": cell.identity.digest, "cell": cell.address,
            "protocol": "detection", "variant": cell.spec.variant, "eval_data": "mnist5k", "n": SCENES,
            "label_fraction": 1.0, "spec_hash": "", "code_hash": "", "data_hash": "",
            "details": json.dumps(recorded), "spec": cell.spec.canonical_json(), "seconds_evaluation": 1.0,
        }  # fmt: skip
        for score in scores:
            span = {"low": score.low, "high": score.high, "interval": score.method, "covers": score.covers}
            rows.append(base | span | {"metric": score.metric.key, "value": score.value})
    columns = ["identity", "status", "kind", "metric", "finished_at", "pretrain_identity"]
    return plan, pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns), frames.get


def measured_detection(plan: Plan, rows: pd.DataFrame) -> Measured:
    return Measured.of(plan, rows, methods=METHODS, protocols=PROTOCOLS_WITH_DETECTION, titles=TITLES)
