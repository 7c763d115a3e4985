from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bench.metric import TOP1, TOP5
from reports.results import Result, collect, image_interval, panel_id, summarize

from .synthetic import EVALUATIONS, identity, make_plan, make_rows, run_spec

LINEAR, KNN, ONE_PERCENT, TEN_PERCENT = EVALUATIONS


def results(method: str, protocol: str, *, seeds: int = 1, states: Any = None) -> list[Result]:
    plan = make_plan(seeds=seeds, methods=(method,), states=states or {})
    name = {"linear_probe": LINEAR, "knn": KNN}[protocol]
    return [r for r in collect(plan, make_rows(plan)) if r.planned.spec.protocol == name.protocol]


def test_one_seed_keeps_the_stored_interval() -> None:
    cell = summarize(results("simclr", "linear_probe"), TOP1)
    assert (cell.state, cell.value, cell.seeds, cell.n) == ("measured", 94.1, 1, 1000)
    assert cell.interval == "Wilson 95%" and cell.covers == "test images"
    assert cell.low is not None and cell.low < 94.1


def test_two_seeds_show_their_range() -> None:
    cell = summarize(results("simclr", "linear_probe", seeds=2), TOP1)
    assert (cell.value, cell.low, cell.high) == (pytest.approx(94.3), pytest.approx(94.1), pytest.approx(94.5))
    assert (cell.interval, cell.covers, cell.seeds) == ("range of 2 seeds", "seeds", 2)


def test_three_seeds_show_students_interval_of_the_mean() -> None:
    cell = summarize(results("simclr", "linear_probe", seeds=3), TOP1)
    # values 94.1, 94.5, 94.9: mean 94.5, sd 0.4, t(0.975, 2) = 4.302653, half width 4.302653 * 0.4 / sqrt(3)
    assert cell.value == pytest.approx(94.5)
    assert cell.low == pytest.approx(94.5 - 0.993655, abs=1e-5)
    assert cell.high == pytest.approx(94.5 + 0.993655, abs=1e-5)


def with_values(values: list[float]) -> list[Result]:
    """Results of as many seeds with these values of top-1."""
    plan = make_plan(seeds=len(values), methods=("simclr",), states={})
    rows = make_rows(plan)
    top1 = (rows["kind"] == "evaluation") & (rows["metric"] == "top1")
    rows.loc[top1, "value"] = rows.loc[top1, "seed"].map(dict(enumerate(values)))
    return [r for r in collect(plan, rows) if r.planned.spec.protocol == "knn"]


def test_students_interval_of_a_percentage_ends_at_its_bounds() -> None:
    # mean 99.5, sd 0.5, half width 4.302653 * 0.5 / sqrt(3) = 1.2421
    cell = summarize(with_values([99.0, 99.5, 100.0]), TOP1)
    assert (cell.low, cell.high) == (pytest.approx(98.2579, abs=1e-4), 100.0)
    cell = summarize(with_values([0.0, 0.5, 1.0]), TOP1)
    assert (cell.low, cell.high) == (0.0, pytest.approx(1.7421, abs=1e-4))
    unbounded = summarize(with_values([99.0, 99.5, 100.0]), replace(TOP1, lower=None, upper=None))
    assert unbounded.high == pytest.approx(100.7421, abs=1e-4)


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_that_agree_show_no_interval(seeds: int) -> None:
    cell = summarize(with_values([94.1] * seeds), TOP1)
    assert (cell.value, cell.low, cell.high, cell.span) == (pytest.approx(94.1), None, None, "")
    assert (cell.interval, cell.covers) == (f"no spread between {seeds} seeds", "")


def test_no_mean_is_formed_over_the_seeds_that_happen_to_be_there() -> None:
    states = {("simclr", "linear_probe", 1): "failed", ("simclr", "linear_probe", 2): "missing"}
    cell = summarize(results("simclr", "linear_probe", seeds=3, states=states), TOP1)
    assert (cell.state, cell.value) == ("partial", None)
    assert cell.reason.startswith("1 of 3 seeds have a value. Seed 1: DivergenceError")
    assert "Seed 2: Never computed." in cell.reason


def test_a_stale_value_is_shown_from_the_stored_job_and_marked() -> None:
    plan = make_plan(methods=("vicreg",))
    rows = make_rows(plan)
    found = [r for r in collect(plan, rows) if r.planned.spec.protocol == "knn"]
    assert found[0].metrics["top1"]["identity"] == identity(f"old-{found[0].planned.address}").digest
    cell = summarize(found, TOP1)
    assert cell.state == "stale" and cell.value is not None
    assert cell.reason == "Code changed since 2026-11-20 09:00."


def test_one_stale_seed_marks_the_mean() -> None:
    states = {("simclr", "linear_probe", 1): "stale"}
    cell = summarize(results("simclr", "linear_probe", seeds=2, states=states), TOP1)
    assert cell.state == "stale"
    assert cell.reason == "Seed 1: Code changed since 2026-11-20 09:00."


def test_failed_missing_and_unplanned_are_three_different_blanks() -> None:
    for state in ("failed", "missing"):
        cell = summarize(results("simclr", "knn", states={("simclr", "knn"): state}), TOP1)
        assert (cell.state, cell.value) == (state, None)
        assert cell.reason
    assert summarize([], TOP1).state == "unplanned"


def test_a_metric_that_the_protocol_could_not_define_says_why() -> None:
    plan = make_plan(methods=("simclr",), states={})
    rows = make_rows(plan)
    rows["details"] = json.dumps({"undefined": {"top5": "top-5 needs at least 5 classes, the dataset has 3"}})
    rows = rows[rows["metric"] != "top5"]
    found = [r for r in collect(plan, rows) if r.planned.spec.protocol == "knn"]
    cell = summarize(found, TOP5)
    assert (cell.state, cell.value) == ("undefined", None)
    assert cell.reason == "top-5 needs at least 5 classes, the dataset has 3"
    assert summarize(found, TOP1).state == "measured"


def test_the_order_of_the_rows_does_not_matter() -> None:
    plan = make_plan(seeds=2)
    rows = make_rows(plan)
    shuffled = rows.sample(frac=1, random_state=3)
    ordered = [{k: dict(v) for k, v in r.metrics.items()} for r in collect(plan, rows)]
    again = [{k: dict(v) for k, v in r.metrics.items()} for r in collect(plan, shuffled)]
    assert [str(item) for item in ordered] == [str(item) for item in again]


def test_the_interval_over_images_is_the_mean_of_the_seeds_intervals() -> None:
    found = results("simclr", "linear_probe", seeds=2)
    lows, highs = ([float(result.metrics["top1"][end]) for result in found] for end in ("low", "high"))
    assert image_interval(found, TOP1) == (pytest.approx(sum(lows) / 2), pytest.approx(sum(highs) / 2))
    assert sum(highs) > sum(lows)


def test_panel_ids_differ_by_variant_and_not_by_seed() -> None:
    ids = {panel_id(run_spec("byol", evaluation)) for evaluation in EVALUATIONS}
    assert len(ids) == 4
    assert panel_id(run_spec("byol", ONE_PERCENT, seed=1)) == panel_id(run_spec("byol", ONE_PERCENT, seed=0))
    assert panel_id(run_spec("byol", TEN_PERCENT)).startswith("cell-byol-semi-supervised-10-mnist5k-")
