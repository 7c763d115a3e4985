"""A synthetic request: five methods under four protocols, with one failed, one stale and one missing cell."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pandas as pd

from bench.card import Deviation, MethodCard, ProtocolCard
from bench.identity import Identity
from bench.metric import TOP1, TOP5
from bench.plan import Plan, PlannedCell, address_of
from bench.published import load_published
from bench.spec import DataSpec, PretrainSpec, RunSpec, TrainingSpec, ViewSpec
from bench.statistics.proportion import wilson_interval
from bench.suite import Component, Evaluation, Suite

ODD_TITLE = r"Sim<CLR> & 100%_\"quoted\" ~ #1"
TEST_IMAGES = 1000
TERMS = {
    "vicreg": ("invariance", "variance", "covariance"),
    "simclr": ("nt_xent",),
    "byol": ("regression",),
    "supervised": ("cross_entropy",),
}
TOP1_VALUES = {"simclr": 94.1, "byol": 93.8, "vicreg": 90.2, "supervised": 96.3, "random_init": 81.2}
PENALTY = {"linear_probe": 0.0, "knn": 1.1, "semi_supervised[1%]": 33.4, "semi_supervised[10%]": 8.2}
TITLES = {"mnist5k": "MNIST-5k", "convnet": "small ConvNet"}

METHODS = {
    "simclr": MethodCard(
        title="SimCLR",
        family="contrastive",
        paper="chen2020simclr",
        year=2020,
        summary="Tells each image's two views apart from the views of all other images in the batch.",
        loss="l(i, j) = −log exp(sim(z_i, z_j) / τ) / Σ_{k≠i} exp(sim(z_i, z_k) / τ)",
        complete_collapse="negatives push embeddings apart",
        dimensional_collapse="none in the loss; the projector absorbs it",
        negatives="batch",
        batch_dependence="negatives come from the batch",
        deviations=(Deviation(what="AdamW in place of LARS", reason="small batches need no layer-wise rates"),),
    ),
    "byol": MethodCard(
        title="BYOL",
        family="asymmetric",
        paper="grill2020byol",
        year=2020,
        summary="Predicts a slowly moving average of itself.",
        loss="l = 2 − 2 ⟨q(z1), z2'⟩ / (‖q(z1)‖ ‖z2'‖), symmetrized",
        complete_collapse="predictor with stop-gradient",
        branches="momentum",
        predictor=True,
        stop_gradient=True,
    ),
    "vicreg": MethodCard(
        title="VICReg",
        family="information maximization",
        paper="bardes2022vicreg",
        year=2022,
        summary="Pulls two views together while every embedding dimension keeps its spread and stays uncorrelated.",
        loss="l = λ s(Z, Z') + μ [v(Z) + v(Z')] + ν [c(Z) + c(Z')]",
        complete_collapse="the variance term keeps each dimension's standard deviation above γ = 1",
        dimensional_collapse="the covariance term decorrelates the dimensions",
    ),
    "supervised": MethodCard(
        title="Supervised",
        family="baseline",
        summary="Cross-entropy on all labels: an upper reference.",
        uses_labels=True,
        views=1,
        gradient_views=(0,),
    ),
    "random_init": MethodCard(
        title="Random init", family="baseline", summary="No training: the lower reference.", trains=False
    ),
}
PROTOCOLS = {
    "linear_probe": ProtocolCard(title="Linear evaluation", summary="A linear classifier.", metrics=(TOP1, TOP5)),
    "knn": ProtocolCard(title="k-NN", summary="A weighted vote of neighbors.", metrics=(TOP1, TOP5)),
    "semi_supervised": ProtocolCard(title="Semi-supervised", summary="Fine-tuning.", metrics=(TOP1, TOP5)),
}
EVALUATIONS = (
    Evaluation(protocol="linear_probe"),
    Evaluation(protocol="knn"),
    Evaluation(protocol="semi_supervised", variant="1%", params={"fraction": 0.01}),
    Evaluation(protocol="semi_supervised", variant="10%", params={"fraction": 0.1}),
)
SUITE = Suite(
    title="Synthetic",
    summary="Table 1 from invented numbers.",
    data=DataSpec(key="mnist5k"),
    backbone=Component(key="convnet"),
    training=TrainingSpec(epochs=20),
    protocols=EVALUATIONS,
)
STATES = {
    ("byol", "semi_supervised[1%]"): "failed",
    ("vicreg", "knn"): "stale",
    ("supervised", "semi_supervised[10%]"): "missing",
}


@cache
def published_values() -> pd.DataFrame:
    """The published values, read once; nobody changes them."""
    return load_published()


def identity(name: str) -> Identity:
    """An identity made of readable words instead of hashes."""
    return Identity(spec=f"spec-{name}", code=f"code-{name}", data="data-mnist5k", manifest={})


def run_spec(method: str, evaluation: Evaluation, *, seed: int = 0) -> RunSpec:
    card = METHODS[method]
    view = ViewSpec(crop_scale=(0.3, 1.0), flip=0.0, rotation=15.0)
    pretrain = PretrainSpec(
        method=method,
        backbone="convnet",
        data=SUITE.data,
        views=(view,) * card.view_count({}) if card.trains else (),
        training=SUITE.training if card.trains else None,
        seed=seed,
    )
    return RunSpec(
        pretrain=pretrain,
        protocol=evaluation.protocol,
        variant=evaluation.variant,
        protocol_params=evaluation.params,
        data=SUITE.data,
    )


def planned_cell(method: str, evaluation: Evaluation, *, seed: int = 0, state: str = "fresh") -> PlannedCell:
    spec = run_spec(method, evaluation, seed=seed)
    address = address_of(spec)
    now = identity(address)
    reasons = {
        "fresh": "spec, code and data are those of the stored result",
        "stale": "code changed since 2026-11-20 09:00",
        "missing": "never computed",
        "failed": "DivergenceError: the loss became NaN at step 17 & stopped. Lower the learning rate.",
    }
    cell = PlannedCell(
        address=address,
        spec=spec,
        identity=now,
        pretraining=identity(f"{method}-{seed}"),
        fingerprint=now.data,
        state="fresh",
        reason=reasons[state],
        command=f"jointbench run synthetic --methods {method} --protocols '{evaluation.name}'",
    )
    if state == "stale":
        return replace(
            cell,
            state="stale",
            stale=("code",),
            changes=("methods.vicreg: covariance changed",),
            stored=identity(f"old-{address}").digest,
        )
    if state == "fresh":
        return replace(cell, stored=now.digest)
    return replace(cell, state=state)


def make_plan(*, seeds: int = 1, methods: tuple[str, ...] = tuple(METHODS), states: Any = None) -> Plan:
    """The plan; ``states`` maps (method, protocol name) or (method, protocol name, seed) to a state."""
    wanted = STATES if states is None else states
    cells = []
    for method in methods:
        for seed in range(seeds):
            for evaluation in EVALUATIONS:
                name = evaluation.name
                state = wanted.get((method, name, seed), wanted.get((method, name), "fresh"))
                cells.append(planned_cell(method, evaluation, seed=seed, state=state))
    return Plan(suite="synthetic", content=SUITE, cells=tuple(cells))


def make_rows(plan: Plan) -> pd.DataFrame:
    """The store's rows behind the plan."""
    rows: list[dict[str, Any]] = []
    trained: set[str] = set()
    for cell in plan.cells:
        if cell.pretraining.digest not in trained:
            trained.add(cell.pretraining.digest)
            rows.append(_pretraining_row(cell))
        rows += _evaluation_rows(cell)
    return pd.DataFrame(rows)


def common_fields(cell: PlannedCell) -> dict[str, Any]:
    pretrain = cell.spec.pretrain
    provenance = {
        "jointbench": "0.1.0",
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": False,
        "python": "3.11.2",
        "libraries": {"torch": "2.6.0", "numpy": "2.1.0"},
        "system": "Linux x86_64",
        "processor": "Example CPU @ 2.0 GHz",
        "cores": 2,
        "memory_gib": 7.8,
        "device": "cpu",
        "threads": 2,
    }
    return {
        "schema_version": 1,
        "origin": "measured",
        "suite": "synthetic",
        "method": pretrain.method,
        "backbone": pretrain.backbone,
        "pretrain_data": pretrain.data.key,
        "pretrain_epochs": pretrain.training.epochs if pretrain.training else 0,
        "seed": pretrain.seed,
        "metric": "",
        "value": float("nan"),
        "low": None,
        "high": None,
        "n": None,
        "interval": "",
        "covers": "",
        "error_type": "",
        "error_message": "",
        "log": "",
        "pretrain_identity": cell.pretraining.digest,
        "provenance": json.dumps(provenance),
        "details": "{}",
        "started_at": "2026-11-20T10:00:00.000000+00:00",
        "finished_at": "2026-11-20T10:00:07.000000+00:00",
        "seconds_total": 7.0,
        "seconds_data": None,
        "seconds_compute": None,
        "seconds_evaluation": None,
        "peak_memory_mb": 812.4,
        "images_per_second": None,
    }


def _pretraining_row(cell: PlannedCell) -> dict[str, Any]:
    return common_fields(cell) | {
        "kind": "pretraining",
        "status": "ok",
        "identity": cell.pretraining.digest,
        "cell": f"mnist5k/convnet/{cell.spec.pretrain.method}/seed{cell.spec.pretrain.seed}",
        "metric": "training_loss",
        "value": 0.5,
        "seconds_total": 31.5,
        "seconds_data": 4.25,
        "seconds_compute": 26.5,
        "images_per_second": 2345.6,
        "spec_hash": cell.pretraining.spec,
        "code_hash": cell.pretraining.code,
        "data_hash": cell.pretraining.data,
        "spec": cell.spec.pretrain.canonical_json(),
    }


def _evaluation_rows(cell: PlannedCell) -> list[dict[str, Any]]:
    spec = cell.spec
    name = f"{spec.protocol}[{spec.variant}]" if spec.variant else spec.protocol
    stored = identity(f"old-{cell.address}") if cell.state == "stale" else cell.identity
    base = common_fields(cell) | {
        "kind": "evaluation",
        "identity": stored.digest,
        "cell": cell.address,
        "protocol": spec.protocol,
        "variant": spec.variant,
        "eval_data": spec.data.key,
        "label_fraction": spec.protocol_params.get("fraction", 1.0),
        "spec_hash": stored.spec,
        "code_hash": stored.code,
        "data_hash": stored.data,
        "spec": spec.canonical_json(),
        "seconds_evaluation": 7.0,
    }
    if cell.state == "missing":
        return []
    if cell.state == "failed":
        kind, _, message = cell.reason.partition(": ")
        failure = {"status": "failed", "error_type": kind, "error_message": message, "log": "logs/0123abcd.log"}
        return [base | failure]
    top1 = TOP1_VALUES[spec.pretrain.method] - PENALTY[name] + 0.4 * spec.pretrain.seed
    details = json.dumps({"lr": 0.1, "labelled_samples": list(range(40))})
    return [
        base | {"status": "ok", "metric": metric, "details": details} | _score(value)
        for metric, value in (("top1", top1), ("top5", 100 - (100 - top1) / 8))
    ]


def _score(value: float) -> dict[str, Any]:
    hits = round(value / 100 * TEST_IMAGES)
    low, high = wilson_interval(hits, TEST_IMAGES)
    return {
        "value": 100 * hits / TEST_IMAGES,
        "low": low,
        "high": high,
        "n": TEST_IMAGES,
        "interval": "Wilson 95%",
        "covers": "test images",
    }


def make_history(plan: Plan) -> pd.DataFrame:
    """Loss terms and diagnostics that decay smoothly."""
    rows = []
    for cell in {cell.pretraining.digest: cell for cell in plan.cells}.values():
        method, seed = cell.spec.pretrain.method, cell.spec.pretrain.seed
        terms = TERMS.get(method, ())
        for epoch in range(1, 21):
            shares = {term: 4.0 / (slot + 1) / epoch**0.6 + 0.02 * seed for slot, term in enumerate(terms)}
            lines = [("term", term, value) for term, value in shares.items()]
            lines += [("term", "total", sum(shares.values()))] if terms else []
            lines += [("diagnostic", "embedding_std", 1 - 0.5 / epoch)] if terms else []
            lines += [("diagnostic", "representation_std", 0.4 + 0.2 / epoch)] if terms else []
            lines += [("schedule", "lr", 1e-3)] if terms else []
            rows += [
                {
                    "pretrain_identity": cell.pretraining.digest,
                    "method": method,
                    "seed": seed,
                    "epoch": epoch,
                    "term": term,
                    "value": value,
                    "kind": kind,
                }
                for kind, term, value in lines
            ]
    return pd.DataFrame(rows)
