"""Stored predictions for the synthetic request: who is right on which test image, by method and seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.card import ProtocolCard
from bench.metric import AUROC, AVERAGE_PRECISION
from bench.plan import Plan
from bench.suite import Evaluation
from reports.contest import Contest, Loader, contests
from reports.measured import Measured

from .synthetic import METHODS, PROTOCOLS, TITLES, common_fields, make_plan, make_rows, planned_cell

IMAGES = 400
SHARES = {"simclr": 0.85, "byol": 0.84, "vicreg": 0.60, "supervised": 0.95, "random_init": 0.40}
FINDINGS = ("Effusion", "Hernia")
FACTS: dict[str, Any] = {
    "image_size": [64, 48],
    "channels": 1,
    "bits": 8,
    "multilabel": False,
    "classes": ["normal", "pneumonia"],
    "class_count": 2,
    "splits": {
        "train": {"images": 700, "patients": 90, "without_patient": 0, "counts": [350, 350], "known": [700, 700]},
        "validation": {"images": 100, "patients": 10, "without_patient": 0, "counts": [50, 50], "known": [100, 100]},
        "test": {"images": IMAGES, "patients": 40, "without_patient": 0, "counts": [200, 200], "known": [400, 400]},
    },
    "shared_patients": 0,
}
PROTOCOLS_WITH_FINDINGS = PROTOCOLS | {
    "multilabel_probe": ProtocolCard(
        title="Probe for findings",
        summary="Ranks images.",
        metrics=(AUROC, AVERAGE_PRECISION),
        requires=("multilabel",),
    )
}


def measured_of(plan: Plan, rows: pd.DataFrame) -> Measured:
    return Measured.of(plan, rows, methods=METHODS, protocols=PROTOCOLS_WITH_FINDINGS, titles=TITLES)


def with_facts(rows: pd.DataFrame, facts: Mapping[str, Any] = FACTS) -> pd.DataFrame:
    """The rows with the facts of the images in their details."""
    details = [json.dumps({**json.loads(text), "data": facts}) for text in rows["details"]]
    return rows.assign(details=details)


def predictions_of(
    plan: Plan,
    *,
    shares: Mapping[str, float] = SHARES,
    labels: np.ndarray[Any, Any] | None = None,
    patients: list[str] | None = None,
) -> Loader:
    """Predictions of classes, right with the method's share; images that are hard are hard for every method."""
    truth = np.arange(IMAGES) % 2 if labels is None else labels
    hard = np.random.default_rng(0).random(len(truth))
    frames = {}
    for cell in plan.cells:
        method, seed = cell.spec.pretrain.method, cell.spec.pretrain.seed
        noise = np.random.default_rng([seed, *method.encode()]).normal(0, 0.03, len(truth))
        right = hard + noise < shares[method]
        frame = pd.DataFrame(
            {"sample": np.arange(len(truth)) + 5, "label": truth, "top1": np.where(right, truth, 1 - truth)}
        )
        frames[cell.identity.digest] = frame if patients is None else frame.assign(patient=patients)
    return frames.get


def contest_of_classes(
    *, seeds: int = 1, states: Any = None, facts: Mapping[str, Any] | None = FACTS, **options: Any
) -> Contest:
    plan = make_plan(seeds=seeds, states=states or {})
    rows = make_rows(plan)
    measured = measured_of(plan, rows if facts is None else with_facts(rows, facts))
    (contest,) = contests(measured, predictions_of(plan, **options))
    return contest


def findings_request(
    *, seeds: int = 1, few: bool = False, not_learned: tuple[str, ...] = ()
) -> tuple[Plan, pd.DataFrame, Loader]:
    """A plan of the probe for findings with its rows and predictions: SimCLR ranks best, Hernia is rare.

    With few labels, the findings ``not_learned`` had training images of one kind only.
    """
    evaluations = [Evaluation(protocol="multilabel_probe")]
    if few:
        evaluations.append(Evaluation(protocol="multilabel_probe", variant="10%", params={"fraction": 0.1}))
    cells = [
        planned_cell(method, evaluation, seed=seed)
        for method in ("simclr", "byol", "random_init")
        for seed in range(seeds)
        for evaluation in evaluations
    ]
    plan = Plan(suite="synthetic", content=make_plan().content, cells=tuple(cells))
    draw = np.random.default_rng(1)
    labels = np.stack([np.arange(IMAGES) % 4 == 0, np.arange(IMAGES) % 100 == 0], axis=1).astype(int)
    rows, frames = [], {}
    for cell in cells:
        method, seed = cell.spec.pretrain.method, cell.spec.pretrain.seed
        signal = {"simclr": 2.5, "byol": 2.4, "random_init": 0.2}[method]
        scores = labels * signal + draw.normal(0, 1, labels.shape)
        columns: dict[str, Any] = {"sample": np.arange(IMAGES)}
        for index, name in enumerate(FINDINGS):
            columns[f"label {name}"] = labels[:, index]
            columns[f"probability {name}"] = scores[:, index]
        frames[cell.identity.digest] = pd.DataFrame(columns)
        findings = [
            {"finding": "Effusion", "positive": 100, "negative": 300, "auroc": 80.0 + seed, "auroc_interval": [75, 85]},
            {"finding": "Hernia", "positive": 4, "negative": 396, "auroc": None, "auroc_interval": None},
        ]
        lost = list(not_learned) if cell.spec.variant else []
        details = json.dumps({"measured": {"findings": findings}, "not_learned": lost})
        base = common_fields(cell) | {
            "kind": "evaluation", "status": "ok", "identity": cell.identity.digest, "cell": cell.address,
            "protocol": "multilabel_probe", "variant": cell.spec.variant, "eval_data": "mnist5k", "n": IMAGES,
            "label_fraction": 1.0, "spec_hash": "", "code_hash": "", "data_hash": "", "details": details,
            "spec": cell.spec.canonical_json(), "seconds_evaluation": 1.0,
        }  # fmt: skip
        rows += [
            base | {"metric": "auroc", "value": 80.0 + seed},
            base | {"metric": "average_precision", "value": 50.0},
        ]
    return plan, pd.DataFrame(rows), frames.get
