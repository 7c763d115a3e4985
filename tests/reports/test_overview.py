from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bench.spec import TrainingSpec
from reports.measured import Measured
from reports.overview import recipe_table

from .synthetic import METHODS, PROTOCOLS, make_plan, make_rows


def recipe_of(**training: Any) -> dict[str, str]:
    """The line of SimCLR in the table of recipes, by column."""
    plan = make_plan(seeds=1, methods=("simclr",), states={})
    measured = Measured.of(plan, make_rows(plan), methods=METHODS, protocols=PROTOCOLS, titles={})
    first = measured.results[0]
    spec = first.planned.spec
    pretrain = spec.pretrain.model_copy(update={"training": TrainingSpec(**training)})
    planned = replace(first.planned, spec=spec.model_copy(update={"pretrain": pretrain}))
    table = recipe_table(replace(measured, results=(replace(first, planned=planned),)))
    (row,) = table.rows
    return {column.title: cell.text for column, cell in zip(table.columns, row.cells, strict=True)}


@pytest.mark.parametrize(
    ("training", "optimizer"),
    [
        ({"optimizer": "sgd"}, "SGD"),
        ({"optimizer": "adam", "lars_eta": 0.02}, "Adam"),
        ({"optimizer": "adamw"}, "AdamW"),
        ({"optimizer": "lars", "lars_eta": 0.02}, "LARS, η 0.02"),
    ],
)
def test_the_recipe_names_the_optimizer_and_the_trust_coefficient_of_lars(
    training: dict[str, Any], optimizer: str
) -> None:
    assert recipe_of(**training)["optimizer"] == optimizer


def test_the_schedule_is_said_where_it_is_no_cosine() -> None:
    rate = {"lr": 3e-3, "batch_size": 512, "lr_scaling": "linear"}
    assert recipe_of(**rate)["learning rate"] == "0.006"
    steps = recipe_of(**rate, epochs=1000, schedule="steps", milestones=(950, 975), decay=0.2)
    assert steps["learning rate"] == "0.006, × 0.2 at epoch 950, 975"
