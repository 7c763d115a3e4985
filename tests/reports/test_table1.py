from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import RequestError
from bench.plan import Plan, PlannedCell
from bench.spec import DataSpec
from bench.table import Table
from reports.measured import Measured, companion_table
from reports.results import collect
from reports.table1 import build_table

from .synthetic import METHODS, ODD_TITLE, PROTOCOLS, TITLES, make_plan, make_rows, published_values


def table(origin: Any, **plan_options: Any) -> Table:
    plan = make_plan(**plan_options)
    return build_table(
        origin,
        plan=plan,
        rows=make_rows(plan),
        published=published_values(),
        methods=METHODS,
        protocols=PROTOCOLS,
        titles=TITLES,
    )


def by_title(found: Table) -> dict[str, tuple[Any, ...]]:
    return {row.title: row.cells for row in found.rows}


def test_measured_rows_show_data_backbone_epochs_and_seeds() -> None:
    rows = by_title(table("measured"))
    assert [cell.text for cell in rows["SimCLR"][:4]] == ["MNIST-5k", "small ConvNet", "20", "1 seed"]
    assert [cell.text for cell in rows["Random init"][:4]] == ["MNIST-5k", "small ConvNet", "0", "1 seed"]
    assert by_title(table("measured", seeds=3))["BYOL"][3].text == "3 seeds"


def test_measured_cells_show_value_interval_and_state() -> None:
    rows = by_title(table("measured"))
    linear = rows["SimCLR"][4]
    assert (linear.number, linear.span) == ("94.1", "92.5–95.4")
    assert [cell.state for cell in rows["BYOL"][4:]] == ["measured"] * 2 + ["failed"] * 2 + ["measured"] * 2
    assert rows["BYOL"][6].reason.startswith("DivergenceError: the loss became NaN")
    assert [cell.state for cell in rows["Supervised"][8:]] == ["missing"] * 2


def test_protocols_outside_table_1_stand_in_the_companion() -> None:
    plan = make_plan()
    measured = Measured(results=collect(plan, make_rows(plan)), methods=METHODS, protocols=PROTOCOLS, titles=TITLES)
    companion = companion_table(measured)
    assert companion is not None
    assert [column.path for column in companion.columns[4:]] == ["k-NN · top-1 (%)", "k-NN · top-5 (%)"]
    assert by_title(companion)["VICReg"][4].plain == "89.1 [87.0–90.9] ↻ stale"
    no_knn = replace(plan, cells=tuple(cell for cell in plan.cells if cell.spec.protocol != "knn"))
    rest = Measured(results=collect(no_knn, make_rows(no_knn)), methods=METHODS, protocols=PROTOCOLS)
    assert companion_table(rest) is None


def test_two_variants_of_one_setting_are_never_averaged_as_seeds() -> None:
    plan = make_plan(methods=("simclr",), states={})
    tuned = [
        replace(
            cell,
            spec=cell.spec.model_copy(update={"variant": "tuned"}),
            address=cell.address.replace("linear_probe", "linear_probe[tuned]"),
        )
        for cell in plan.cells
        if cell.spec.protocol == "linear_probe"
    ]
    rows = make_rows(plan)
    both = replace(plan, cells=(*tuned, *plan.cells))
    measured = Measured(results=collect(both, rows), methods=METHODS, protocols=PROTOCOLS)
    assert measured.shown["linear_probe", 1.0] == ""
    cell = build_table("measured", plan=both, rows=rows, methods=METHODS).rows[0].cells[4]
    assert (cell.value, cell.seeds) == (94.1, 1)


def test_baselines_and_stale_values_do_not_compete() -> None:
    rows = by_title(table("measured"))
    assert rows["Supervised"][4].value > rows["SimCLR"][4].value
    assert not rows["Supervised"][4].best
    assert rows["SimCLR"][4].best and rows["BYOL"][4].best and not rows["VICReg"][4].best
    stale = table("measured", states={("simclr", "linear_probe"): "stale"})
    assert not by_title(stale)["SimCLR"][4].best


def test_ties_are_said_in_words() -> None:
    assert (
        "By top-1 (linear), the 95 % interval of BYOL overlaps that of SimCLR, the best of the competing values."
        in table("measured").notes
    )


def moved(plan: Plan, pretrain: DataSpec, tested: DataSpec) -> tuple[PlannedCell, ...]:
    """The plan's cells on other data, with the stored values that they had."""
    cells = []
    for cell in plan.cells:
        spec = cell.spec.model_copy(
            update={"pretrain": cell.spec.pretrain.model_copy(update={"data": pretrain}), "data": tested}
        )
        cells.append(replace(cell, spec=spec, address=f"moved/{cell.address}"))
    return tuple(cells)


def folder(name: str) -> DataSpec:
    return DataSpec(key="folder", params={"name": name, "image_size": 32})


def test_two_folders_keep_their_own_names() -> None:
    plan = make_plan(methods=("simclr", "byol"), states={})
    rows = make_rows(plan)
    cells = (*moved(plan, folder("birds"), folder("birds")), *moved(plan, folder("birds"), folder("fish")))
    both = build_table("measured", plan=replace(plan, cells=cells), rows=rows, methods=METHODS, titles=TITLES)
    assert [row.cells[0].text for row in both.rows] == [
        "birds",
        "birds",
        "birds, tested on fish",
        "birds, tested on fish",
    ]


def test_ties_name_their_context_when_there_are_several() -> None:
    plan = make_plan(methods=("simclr", "byol", "random_init"), states={})
    other = moved(make_plan(methods=("simclr", "byol"), states={}), folder("birds"), folder("birds"))
    rows = make_rows(plan)
    plan = replace(plan, cells=tuple(cell for cell in plan.cells if cell.spec.protocol == "linear_probe"))
    two = replace(plan, cells=(*plan.cells, *(cell for cell in other if cell.spec.protocol == "linear_probe")))
    tie = (
        "y top-1 (linear) and top-5 (linear), the 95 % interval of BYOL overlaps that of SimCLR, "
        "the best of the competing values."
    )
    measured = build_table("measured", plan=two, rows=rows, methods=METHODS, titles=TITLES)
    assert f"MNIST-5k, small ConvNet, 20 epochs: b{tie}" in measured.notes
    assert f"birds, small ConvNet, 20 epochs: b{tie}" in measured.notes
    both = build_table(
        "both", plan=two, rows=rows, published=published_values(), methods=METHODS, protocols=PROTOCOLS, titles=TITLES
    )
    assert f"Measured, MNIST-5k, small ConvNet, 20 epochs: b{tie}" in both.notes
    assert f"Measured, birds, small ConvNet, 20 epochs: b{tie}" in both.notes
    alone = build_table("measured", plan=plan, rows=rows, methods=METHODS, titles=TITLES)
    assert f"B{tie}" in alone.notes  # the baseline's zero epochs are no context of their own


def compared(method_values: dict[str, list[float]], *, half: float) -> dict[str, bool]:
    """Which methods stand in the best group of linear top-1, given each seed's value and half the image interval."""
    seeds = len(next(iter(method_values.values())))
    plan = make_plan(seeds=seeds, methods=tuple(method_values), states={})
    rows = make_rows(plan)
    for method, values in method_values.items():
        for seed, value in enumerate(values):
            of_seed = (rows["kind"] == "evaluation") & (rows["method"] == method) & (rows["seed"] == seed)
            rows.loc[of_seed, ["value", "low", "high"]] = [value, value - half, value + half]
    found = by_title(build_table("measured", plan=plan, rows=rows, methods=METHODS))
    return {title: cells[4].best for title, cells in found.items()}


def test_the_sampling_of_test_images_counts_in_the_comparison_of_several_seeds() -> None:
    # Student's half widths are 4.302653 * 0.1 / sqrt(3) = 0.25: without the images, 0.5 apart at most
    values = {"simclr": [90.0, 90.1, 90.2], "byol": [88.0, 88.1, 88.2]}
    assert compared(values, half=1.5) == {"SimCLR": True, "BYOL": True}
    assert compared(values, half=0.5) == {"SimCLR": True, "BYOL": False}
    agreeing = {"simclr": [90.0, 90.0], "byol": [88.0, 88.0]}
    assert compared(agreeing, half=1.5) == {"SimCLR": True, "BYOL": True}


def test_the_spread_of_seeds_counts_in_the_comparison() -> None:
    # Student's half widths are 4.302653 / sqrt(3) = 2.48
    values = {"simclr": [89.0, 90.0, 91.0], "byol": [85.5, 86.5, 87.5]}
    assert compared(values, half=0.1) == {"SimCLR": True, "BYOL": True}


def test_independent_intervals_are_combined_in_quadrature() -> None:
    # ranges of half width 3, images of half width 4: together 5, neither 4 nor 7
    assert compared({"simclr": [87.0, 93.0], "byol": [77.1, 83.1]}, half=4.0) == {"SimCLR": True, "BYOL": True}
    assert compared({"simclr": [87.0, 93.0], "byol": [76.9, 82.9]}, half=4.0) == {"SimCLR": True, "BYOL": False}


def test_the_interval_of_a_single_seed_counts_once() -> None:
    assert compared({"simclr": [90.0], "byol": [81.9]}, half=4.0) == {"SimCLR": True, "BYOL": False}
    assert compared({"simclr": [90.0], "byol": [82.1]}, half=4.0) == {"SimCLR": True, "BYOL": True}


def test_a_method_that_saw_all_labels_says_that_its_columns_are_not_label_limited() -> None:
    renamed = METHODS | {"supervised": replace(METHODS["supervised"], title="Upper reference")}
    note = (
        "Upper reference was trained with all labels of the training split; its 1 % and 10 % columns start from that "
        "backbone and are not label-limited."
    )
    plan = make_plan()
    rows = make_rows(plan)
    for origin in ("measured", "both"):
        found = build_table(origin, plan=plan, rows=rows, published=published_values(), methods=renamed)
        assert [told for told in found.notes if "label-limited" in told] == [note]
    without = make_plan(methods=("simclr", "random_init"))
    assert "label-limited" not in build_table("measured", plan=without, rows=rows, methods=renamed).render("md")
    linear = replace(plan, cells=tuple(cell for cell in plan.cells if cell.spec.protocol != "semi_supervised"))
    assert "label-limited" not in build_table("measured", plan=linear, rows=rows, methods=renamed).render("md")


def test_published_rows_show_epochs_and_source() -> None:
    found = table("published")
    rows = by_title(found)
    assert (rows["VICReg"][0].text, rows["VICReg"][-1].text) == ("1000", "Bardes et al. 2022, Table 1")
    assert rows["PIRL"][0].state == "absent"
    assert "ImageNet-1k" in found.caption and "ResNet-50" in found.caption
    assert rows["SwAV (multi-crop)"][1].best and not rows["Supervised"][1].best
    assert rows["OBoW"][4].plain == "82.9†"
    assert rows["SwAV (multi-crop)"][0].text == "800"
    note = "SwAV (multi-crop): the source of 4 of the 5 values prints no epochs; 800 is taken from other sources."
    assert [rule for rule in found.rules if "prints no epochs" in rule] == [note]
    assert note in table("both").rules


def test_side_by_side_pairs_a_method_with_its_published_row() -> None:
    found = table("both")
    rows = by_title(found)
    assert [row.title for row in found.rows][:5] == ["SimCLR", "BYOL", "VICReg", "Supervised", "Random init"]
    simclr = rows["SimCLR"]
    assert (simclr[0].text, simclr[1].number, simclr[7].text, simclr[8].number) == ("1000", "69.3", "20", "94.1")
    assert {cell.state for cell in rows["Random init"][:7]} == {"absent"}
    assert {cell.state for cell in rows["Barlow Twins"][7:]} == {"unplanned"}
    outer = [cell.title for cell in found.header()[0]]
    assert outer == ["Published: ImageNet-1k, ResNet-50", "Measured: MNIST-5k, small ConvNet, 1 seed"]


def test_baselines_stand_below_the_methods_whatever_the_plan_says() -> None:
    found = table("measured", methods=("random_init", "byol", "supervised", "vicreg"))
    assert [row.title for row in found.rows] == ["BYOL", "VICReg", "Random init", "Supervised"]


def test_side_by_side_says_for_each_half_what_it_cannot_separate() -> None:
    notes = table("both").notes
    few = "Published: by top-1 (1 % of labels), the 95 % interval of VICReg overlaps that of Barlow Twins, "
    linear = "Measured: by top-1 (linear), the 95 % interval of BYOL overlaps that of SimCLR, "
    for start in (few, linear):
        assert f"{start}the best of the competing values." in notes


def test_published_and_measured_never_share_a_comparison() -> None:
    rows = by_title(table("both"))
    assert rows["SwAV (multi-crop)"][1].best and rows["SimCLR"][8].best
    assert rows["SwAV (multi-crop)"][1].value < rows["SimCLR"][8].value


def test_no_number_is_lost_between_the_forms() -> None:
    both, published, measured = (by_title(table(origin)) for origin in ("both", "published", "measured"))
    for title, cells in published.items():
        assert [cell.value for cell in both[title][1:7]] == [cell.value for cell in cells[1:7]]
    for title, cells in measured.items():
        assert [cell.value for cell in both[title][8:14]] == [cell.value for cell in cells[4:10]]


def test_a_missing_input_is_named() -> None:
    with pytest.raises(RequestError, match="origin 'both' needs the published values"):
        build_table("both")
    with pytest.raises(RequestError, match="origin 'measured' needs a plan and the store's rows"):
        build_table("measured")
    with pytest.raises(RequestError, match=r"no origin 'all'\. Known: published, measured, both"):
        build_table("all")  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_every_form_compiles_with_an_odd_title(tmp_path: Path) -> None:
    plan = make_plan(seeds=3)
    methods = METHODS | {"simclr": replace(METHODS["simclr"], title=ODD_TITLE)}
    parts = [
        build_table(origin, plan=plan, rows=make_rows(plan), published=published_values(), methods=methods).render(
            "latex"
        )
        for origin in ("published", "measured", "both")
    ]
    preamble = "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs,amssymb,textcomp}\n"
    document = preamble + "\\begin{document}\n" + "\n".join(parts) + "\\end{document}\n"
    (tmp_path / "table.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
