"""The rows that jobs leave in the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bench.plan import PlannedCell, training_address_of
from bench.provenance import provenance
from bench.spec import RunSpec

if TYPE_CHECKING:
    from bench.job import Bundle, Workshop
    from bench.protocol import Outcome


def base_row(bundle: Bundle, cell: PlannedCell | None, shop: Workshop) -> dict[str, Any]:
    """The columns that are known before a job runs."""
    spec = bundle.spec
    identity = cell.identity if cell else bundle.identity
    row: dict[str, Any] = {
        "origin": "measured",
        "kind": "evaluation" if cell else "pretraining",
        "identity": identity.digest,
        "cell": cell.address if cell else training_address_of(spec),
        "suite": bundle.suite,
        "method": spec.method,
        "backbone": spec.backbone,
        "pretrain_data": spec.trained_on,
        "pretrain_epochs": None if spec.imported else spec.training.epochs if spec.training else 0,
        "seed": spec.seed,
        "spec_hash": identity.spec,
        "code_hash": identity.code,
        "data_hash": identity.data,
        "pretrain_identity": bundle.identity.digest,
        "spec": (cell.spec if cell else spec).canonical_json(),
        "code": json_text(identity.manifest),
        "provenance": json_text(provenance(device=shop.device, devices=shop.devices, threads=shop.threads)),
        "started_at": now(),
    }
    return row | (_evaluation_columns(cell.spec) if cell else {})


def _evaluation_columns(spec: RunSpec) -> dict[str, Any]:
    fraction = spec.protocol_params.get("fraction")
    return {
        "protocol": spec.protocol,
        "variant": spec.variant,
        "eval_data": spec.data.label,
        "label_fraction": fraction if isinstance(fraction, float) else 1.0,
    }


def score_rows(row: dict[str, Any], outcome: Outcome) -> list[dict[str, Any]]:
    """One row for each score, with the columns of ``row``."""
    return [
        row
        | {
            "metric": score.metric.key,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "n": score.n,
            "interval": score.method,
            "covers": score.covers,
        }
        for score in outcome.scores
    ]


def json_text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
