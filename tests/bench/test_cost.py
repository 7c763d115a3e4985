from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from bench.cost import Costs, Estimate, duration, plan_costs
from bench.plan import Plan, training_address_of
from bench.registry import Catalog
from bench.spec import PretrainSpec, RunSpec

from .test_plan import PER_METHOD, catalog, nothing, plan_of

__all__ = ["catalog"]


def row(address: str, identity: str, seconds: float, **changes: Any) -> dict[str, Any]:
    filled = {
        "status": "ok",
        "cell": address,
        "identity": identity,
        "seconds_total": seconds,
        "finished_at": "2026-01-01",
    }
    return filled | changes


def stored(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.concat([nothing(), pd.DataFrame(list(rows))], ignore_index=True) if rows else nothing()


def training_of(plan: Plan, method: str) -> str:
    return next(training_address_of(c.spec.pretrain) for c in plan.cells if c.spec.pretrain.method == method)


def test_the_last_run_of_a_job_tells_its_cost_before_any_calibration(catalog: Catalog) -> None:
    plan = plan_of(catalog, nothing())
    cell = plan.cells[0]
    rows = stored(
        row(cell.address, "old", 9.0),
        row(cell.address, "new", 4.0, finished_at="2026-02-01"),
        row(cell.address, "broken", 70.0, finished_at="2026-03-01", status="failed"),
    )
    asked: list[PretrainSpec | RunSpec] = []

    def calibrated(spec: PretrainSpec | RunSpec) -> float | None:
        asked.append(spec)
        return 2.0

    costs = plan_costs(plan, rows, calibrated)
    assert costs.cells[cell.address] == Estimate(seconds=4.0, source="last run")
    assert cell.spec not in asked and len(asked) == 2 * PER_METHOD - 1 + 1  # the other cells, and one training
    assert costs.seconds == 4.0 + 2.0 * len(asked)


def test_an_encoder_is_trained_once_and_only_if_the_store_lacks_it(catalog: Catalog) -> None:
    plan = plan_of(catalog, nothing())
    training = training_of(plan, "vicreg")
    assert list(plan_costs(plan, nothing(), None).trainings) == [training]  # random_init has nothing to train
    encoder = plan.cells[0].pretraining.digest
    assert not plan_costs(plan, stored(row(training, encoder, 5.0)), None).trainings


def test_what_nothing_tells_is_unknown_and_counted(catalog: Catalog) -> None:
    costs = plan_costs(
        plan_of(catalog, nothing()), nothing(), lambda spec: 3600 if isinstance(spec, PretrainSpec) else None
    )
    assert {estimate.words for estimate in costs.cells.values()} == {"?"}
    assert costs.sentence(workers=2) == (
        "About 60 min of computing, 30 min with 2 workers (jobs estimated: 0 by their last run, 1 by calibration, "
        f"{2 * PER_METHOD} not)."
    )
    assert (
        plan_costs(plan_of(catalog, nothing()), nothing(), None).sentence(workers=2) == "No earlier run tells the cost."
    )


def test_nothing_to_run_needs_no_sentence() -> None:
    assert Costs(trainings={}, cells={}).sentence(workers=1) == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (99.4, "99 s"),
        (100, "1.7 min"),
        (5990, "100 min"),
        (6000, "1.7 h"),
        (7e5, "8.1 days"),
        (6.3e7, "729 days"),
        (6.4e7, "2.0 years"),
        (7.2e9, "228 years"),
    ],
)
def test_a_duration_has_the_unit_that_a_reader_thinks_in(seconds: float, words: str) -> None:
    assert duration(seconds) == words
