"""Synthetic results of the label-efficiency protocol: invented curves of four methods, as the store keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.card import ProtocolCard
from bench.metric import TOP1, Metric
from bench.plan import Plan
from bench.suite import Evaluation
from reports.measured import Measured

from . import synthetic
from .synthetic import METHODS, SUITE, TITLES, common_fields, planned_cell

MEAN_TOP1 = Metric(key="mean_top1", title="mean top-1 over budgets", unit="%", lower=0.0, upper=100.0)
CARD = ProtocolCard(
    title="Label efficiency",
    summary="Accuracy against labels.",
    metrics=(MEAN_TOP1, TOP1),
    paper="newell2020useful",
    chance="10 %",
)
PROTOCOLS = {**synthetic.PROTOCOLS, "label_efficiency": CARD}
BUDGETS = (10, 30, 100, 300, 1000, 3500)
CURVES = {
    "random_init": (35.0, 55.0, 75.0, 88.0, 92.0, 92.1),
    "simclr": (60.0, 75.0, 85.0, 91.0, 92.0, 92.0),  # the same plateau
    "vicreg": (55.0, 74.0, 84.0, 93.0, 95.0, 96.0),  # an improvement
    "byol": (34.0, 55.0, 74.8, 88.1, 92.0, 92.2),  # no gain
    "supervised": (80.0, 85.0, 90.0, 92.0, 93.0, 94.0),
}
FINETUNE = Evaluation(protocol="label_efficiency")
LINEAR = Evaluation(protocol="label_efficiency", variant="linear", params={"mode": "linear"})


def accuracies(method: str, *, seed: int, draws: int, shift: float = 0.0) -> list[list[float]]:
    """(B, draws), noise of the draws that all methods share and a little of their own."""
    shared = np.random.default_rng(seed).normal(size=(len(BUDGETS), draws)) * 0.3
    own = np.random.default_rng([seed, *map(ord, method)]).normal(size=shared.shape) * 0.05
    values: list[list[float]] = (np.array(CURVES[method])[:, None] + shift + shared + own).tolist()
    return values


def label_plan(
    *,
    methods: Sequence[str] = tuple(CURVES),
    seeds: int = 1,
    states: Mapping[str, str] | None = None,
    evaluations: Sequence[Evaluation] = (FINETUNE,),
) -> Plan:
    cells = [
        planned_cell(method, evaluation, seed=seed, state=(states or {}).get(method, "fresh"))
        for method in methods
        for evaluation in evaluations
        for seed in range(seeds)
    ]
    return Plan(suite="synthetic", content=SUITE, cells=tuple(cells))


def label_rows(plan: Plan, *, draws: int = 4) -> pd.DataFrame:
    """The store's rows behind the plan; a cell that failed or was never computed has none."""
    rows: list[dict[str, Any]] = []
    for cell in plan.cells:
        if cell.stored is None:
            continue
        spec = cell.spec
        mode = spec.protocol_params.get("mode", "finetune")
        shift = -10.0 if mode == "linear" else 0.0
        values = accuracies(spec.pretrain.method, seed=spec.pretrain.seed, draws=draws, shift=shift)
        details = {
            "mode": mode,
            "validation": "all",
            "measured": {"curve": {"budgets": list(BUDGETS), "top1": values}},
        }
        base = common_fields(cell) | {
            "kind": "evaluation",
            "status": "ok",
            "identity": cell.stored,
            "cell": cell.address,
            "protocol": spec.protocol,
            "variant": spec.variant,
            "eval_data": spec.data.key,
            "label_fraction": 1.0,
            "spec_hash": "spec",
            "code_hash": "code",
            "data_hash": "data",
            "spec": spec.canonical_json(),
            "seconds_evaluation": 7.0,
            "details": json.dumps(details),
            "n": 1000,
        }
        rows += [base | {"metric": "mean_top1", "value": float(np.mean(values))}]
        rows += [base | {"metric": "top1", "value": values[-1][0], "low": values[-1][0] - 2, "high": values[-1][0] + 2}]
    return pd.DataFrame(rows)


def label_measured(plan: Plan | None = None, *, draws: int = 4) -> Measured:
    plan = plan or label_plan()
    return Measured.of(plan, label_rows(plan, draws=draws), methods=METHODS, protocols=PROTOCOLS, titles=TITLES)
