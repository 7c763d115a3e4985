from __future__ import annotations

from dataclasses import replace

from reports.comparison import caption, comparison_table, gallery, page_of
from reports.measured import Measured

from .synthetic import METHODS, PROTOCOLS, TITLES, make_plan, make_rows


def measured(*, seeds: int = 1, methods: tuple[str, ...] = tuple(METHODS)) -> Measured:
    plan = make_plan(seeds=seeds, methods=methods)
    return Measured.of(plan, make_rows(plan), methods=METHODS, protocols=PROTOCOLS, titles=TITLES)


def test_figures_stand_by_family_in_the_order_of_the_families() -> None:
    found = {family: [item.title for item in items] for family, items in gallery(measured())}
    assert list(found) == ["information maximization", "contrastive", "asymmetric", "baseline"]
    assert found["contrastive"] == ["SimCLR"] and found["baseline"] == ["Supervised", "Random init"]


def test_only_methods_of_the_plan_are_shown() -> None:
    assert [family for family, _ in gallery(measured(methods=("byol",)))] == ["asymmetric"]
    assert [row.title for row in comparison_table(measured(methods=("byol",))).rows] == ["BYOL"]
    assert page_of(measured(methods=("byol",)), "vicreg") == ""


def test_the_table_says_what_the_cards_say() -> None:
    table = comparison_table(measured())
    columns = [column.title for column in table.columns]
    rows = {row.key: dict(zip(columns, (cell.plain for cell in row.cells), strict=True)) for row in table.rows}
    assert (
        rows["byol"]
        | {
            "family": "asymmetric",
            "year": "2020",
            "negatives": "none",
            "predictor": "yes",
            "stop-gradient": "yes",
            "branches": "momentum",
            "embeddings before the loss": "as they are",
            "what prevents complete collapse": "predictor with stop-gradient",
        }
        == rows["byol"]
    )
    assert rows["simclr"]["negatives"] == "batch" and rows["simclr"]["needs of the batch"] != ""
    assert rows["vicreg"]["what prevents dimensional collapse"] == METHODS["vicreg"].dimensional_collapse
    assert set(table.citations) == {"chen2020simclr", "grill2020byol", "bardes2022vicreg"}


def test_times_are_the_means_of_the_stored_pretrainings() -> None:
    plan = make_plan(seeds=2, methods=("vicreg", "random_init"), states={})
    rows = make_rows(plan)
    trained = rows["kind"] == "pretraining"
    rows.loc[trained & (rows["seed"] == 1), "seconds_total"] = 41.5
    found = Measured.of(plan, rows, methods=METHODS, protocols=PROTOCOLS, titles=TITLES)
    vicreg, untrained = comparison_table(found).rows
    assert [cell.value for cell in vicreg.cells[-2:]] == [36.5, 2345.6] and vicreg.cells[-1].seeds == 2
    assert [cell.value for cell in untrained.cells[-2:]] == [None, None]
    rows.loc[trained & (rows["seed"] == 1), "images_per_second"] = float("nan")
    found = Measured.of(plan, rows, methods=METHODS, protocols=PROTOCOLS, titles=TITLES)
    assert comparison_table(found).rows[0].cells[-1].value is None  # no mean over what happens to be there


def test_a_method_that_runs_in_variants_only_is_shown_once_with_the_page_of_the_first() -> None:
    plan = make_plan(methods=("vicreg",), states={})
    cells = []
    for cell in plan.cells:
        pretrain = cell.spec.pretrain.model_copy(update={"variant": "no variance"})
        cells.append(replace(cell, spec=cell.spec.model_copy(update={"pretrain": pretrain})))
    plan = replace(plan, cells=tuple(cells))
    found = Measured.of(plan, make_rows(plan), methods=METHODS, protocols=PROTOCOLS, titles=TITLES)
    ((family, items),) = gallery(found)
    assert family == "information maximization" and [item.title for item in items] == ["VICReg"]
    assert items[0].href == "methods/vicreg-no-variance.html"
    assert comparison_table(found).rows[0].cells[-1].value is None  # a variant's time is not the method's
    note = "The figure shows the method without the change named 'no variance'."
    assert caption(found, "vicreg[no variance]").endswith(note) and note not in caption(measured(), "vicreg")
