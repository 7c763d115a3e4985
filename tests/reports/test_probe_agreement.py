"""The two forms of the linear probe side by side: differences paired by encoder and image, and the order of methods."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from bench.metric import AUROC, BALANCED_ACCURACY, TOP1, TOP5
from bench.plan import Plan
from bench.table import Cell
from reports.contest import Loader
from reports.measured import Measured, companion_table
from reports.probe_agreement import agreement_table, rank_correlation
from reports.results import collect

from .synthetic import METHODS, PROTOCOLS, make_plan, make_rows

IMAGES = 1000


def both(plan: Plan, *, change: float = -2.0) -> tuple[Plan, pd.DataFrame]:
    """The plan with an augmented linear probe beside the cached one, and its rows, ``change`` points higher."""
    linear = [cell for cell in plan.cells if cell.spec.protocol == "linear_probe"]
    further = []
    for cell in linear:
        update = {"variant": "augmented", "protocol_params": {"mode": "augmented", "recipe": "common"}}
        address = cell.address.replace("linear_probe", "linear_probe[augmented]")
        own = replace(cell.identity, spec=f"augmented-{cell.address}")
        further.append(
            replace(cell, spec=cell.spec.model_copy(update=update), address=address, identity=own, stored=own.digest)
        )
    rows = make_rows(plan)
    copies = []
    for cell, other in zip(linear, further, strict=True):
        found = rows[(rows["identity"] == cell.identity.digest) & (rows["kind"] == "evaluation")]
        copies.append(found.assign(identity=other.identity.digest, variant="augmented", value=found["value"] + change))
    return replace(plan, cells=(*plan.cells, *further)), pd.concat([rows, *copies], ignore_index=True)


def measured_of(plan: Plan, rows: pd.DataFrame) -> Measured:
    return Measured(results=collect(plan, rows, METHODS), methods=METHODS, protocols=PROTOCOLS)


def loader(measured: Measured, *, switched: int = 20) -> Loader:
    """Predictions for the stored accuracies: the augmented form misses ``switched`` images that the cached one has."""
    frames = {}
    for result in measured.results:
        spec = result.planned.spec
        if spec.protocol == "linear_probe" and result.metrics:
            hits = round(10 * float(result.metrics["top1"]["value"]))
            correct = np.arange(IMAGES) < hits
            if spec.variant == "augmented":
                correct = np.arange(IMAGES) < hits + switched
                correct[:switched] = False
            labels = np.arange(IMAGES) % 10
            frames[str(result.metrics["top1"]["identity"])] = pd.DataFrame(
                {"sample": np.arange(IMAGES), "label": labels, "top1": np.where(correct, labels, -1)}
            )[:: 1 if spec.variant else -1]  # the order of the rows does not matter
    return frames.get


def cell_of(measured: Measured, method: str, predictions: Loader | None = None) -> Cell:
    table = agreement_table(measured, predictions)
    assert table is not None
    (row,) = [row for row in table.rows if row.key == method]
    return row.cells[6]


def test_without_both_forms_there_is_no_table() -> None:
    plan = make_plan(states={})
    assert agreement_table(measured_of(plan, make_rows(plan)), None) is None


def test_the_difference_is_cached_minus_augmented() -> None:
    measured = measured_of(*both(make_plan(states={}), change=-2.0))
    table = agreement_table(measured, None)
    assert table is not None and [column.title for column in table.columns[4:]] == [
        "top-1",
        "top-1",
        "cached − augmented",
    ]
    cell = cell_of(measured, "simclr")
    assert (cell.value, cell.low, cell.interval) == (pytest.approx(2.0), None, "")
    assert [c.value for c in table.rows[0].cells[4:6]] == pytest.approx([94.1, 92.1])


def test_stored_predictions_give_an_interval_paired_by_image() -> None:
    measured = measured_of(*both(make_plan(states={}), change=-2.0))
    cell = cell_of(measured, "simclr", loader(measured))
    assert cell.value == pytest.approx(2.0) and cell.low is not None and cell.high is not None
    # 20 images are lost and none is gained: the standard error of the paired difference is that of 20 of 1000.
    half = 1.96 * 100 * math.sqrt(0.02 * 0.98 / IMAGES)
    assert (cell.high - cell.low) / 2 == pytest.approx(half, rel=0.1)
    assert (cell.interval, cell.covers, cell.n, cell.seeds) == ("paired bootstrap 95%", "test images", 1000, 1)


def test_seeds_are_paired_too() -> None:
    measured = measured_of(*both(make_plan(states={}, seeds=3), change=-2.0))
    cell = cell_of(measured, "simclr", loader(measured))
    assert cell.value == pytest.approx(2.0) and cell.seeds == 3 and cell.covers == "test images and seeds"
    one = cell_of(measured_of(*both(make_plan(states={}), change=-2.0)), "simclr", loader(measured))
    # The seeds' accuracies differ by 0.4 points, their differences not at all: no variance of seeds is added.
    assert cell.low is not None and one.low is not None and cell.low == pytest.approx(one.low, abs=0.05)


def test_predictions_of_other_images_give_no_interval() -> None:
    measured = measured_of(*both(make_plan(states={})))
    sound = loader(measured)
    calls: list[str] = []

    def shifted(identity: str) -> pd.DataFrame | None:
        frame = sound(identity)
        calls.append(identity)
        return frame if frame is None or len(calls) % 2 else frame.assign(sample=frame["sample"] + 1)

    assert cell_of(measured, "simclr", shifted).low is None


def test_a_cell_that_was_not_run_says_so_in_the_difference() -> None:
    plan, rows = both(make_plan(states={("simclr", "linear_probe"): "failed"}))
    cell = cell_of(measured_of(plan, rows), "simclr")
    assert cell.state == "failed" and cell.value is None and "DivergenceError" in cell.reason


def test_the_order_of_the_methods_is_compared_in_words() -> None:
    table = agreement_table(measured_of(*both(make_plan(states={}))), None)
    trained = [key for key, card in METHODS.items() if card.family != "baseline"]
    assert table is not None and table.notes == (
        f"Linear evaluation, cached and Linear evaluation, augmented: rank correlation (Spearman) 1.00 over "
        f"{len(trained)} methods; 1 means the same order.",
    )
    few = agreement_table(measured_of(*both(make_plan(states={}, methods=("simclr", "vicreg")))), None)
    assert few is not None and "fewer than 3 methods" in few.notes[0]


def test_the_rank_correlation_is_that_of_scipy_with_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 12)).astype(float)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert math.isnan(rank_correlation(a, np.ones(12)))


def test_metrics_without_a_column_in_table_1_stand_in_the_companion() -> None:
    plan = make_plan(states={})
    card = replace(PROTOCOLS["linear_probe"], metrics=(TOP1, TOP5, BALANCED_ACCURACY, AUROC))
    measured = replace(measured_of(plan, make_rows(plan)), protocols={**PROTOCOLS, "linear_probe": card})
    table = companion_table(measured)
    assert table is not None
    paths = [column.path for column in table.columns[4:]]
    assert paths[:2] == ["Linear evaluation · balanced accuracy (%)", "Linear evaluation · AUROC (%)"]
    assert "Linear evaluation · top-1 (%)" not in paths
