from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.card import MethodCard, Term
from reports.breakdown import Breakdown, breakdown_figure, breakdown_table, breakdowns, epochs_csv, loss_breakdown
from reports.measured import Measured
from reports.plots import draw

from .synthetic import METHODS, PROTOCOLS, identity, make_history, make_plan, make_rows
from .test_site import build

CARD = replace(
    METHODS["vicreg"],
    terms=(
        Term(name="covariance", acts="on each branch", role="decorrelates the dimensions"),
        Term(name="invariance", acts="between the branches", role="pulls two views together"),
    ),
)


def measured_of(*, seeds: int = 1, methods: tuple[str, ...] = tuple(METHODS)) -> tuple[Measured, pd.DataFrame]:
    plan = make_plan(seeds=seeds, methods=methods, states={})
    measured = Measured.of(plan, make_rows(plan), methods=METHODS, protocols=PROTOCOLS, titles={})
    return measured, make_history(plan)


def history_of(terms: dict[str, list[float]], *, total: list[float] | None = None, seed: int = 0) -> pd.DataFrame:
    totals = total or [sum(values) for values in zip(*terms.values(), strict=True)]
    lines = [
        {"pretrain_identity": f"id{seed}", "epoch": epoch, "term": term, "value": value, "kind": "term"}
        for term, values in {**terms, "total": totals}.items()
        for epoch, value in enumerate(values, start=1)
    ]
    return pd.DataFrame(lines)


def broken_down(history: pd.DataFrame, *, seeds: int = 1, card: MethodCard = METHODS["vicreg"]) -> Breakdown:
    found = loss_breakdown(history, {f"id{seed}": seed for seed in range(seeds)}, name="vicreg", card=card)
    assert found is not None
    return found


def test_terms_stand_in_the_order_of_the_card_and_the_others_follow() -> None:
    history = make_history(make_plan(methods=("vicreg",)))
    item = loss_breakdown(history, {identity("vicreg-0").digest: 0}, name="vicreg", card=CARD)
    assert item is not None and list(item.terms) == ["covariance", "invariance", "variance"]
    assert item.epochs == tuple(range(1, 21)) and item.total[0] == pytest.approx(4 + 2 + 4 / 3)


def test_terms_that_are_never_negative_and_sum_to_the_total_are_stacked() -> None:
    item = broken_down(history_of({"a": [3.0, 1.0], "b": [1.0, 0.5]}))
    assert item.adds_up
    figure = breakdown_figure(item, title="VICReg")
    assert [series.form for series in figure.series] == ["area", "area", "total"]
    assert figure.series[-1].values == (4.0, 1.5) and "the terms add up to the total" in figure.summary


@pytest.mark.parametrize(
    ("terms", "total", "why"),
    [
        ({"a": [-3.0, -4.0], "b": [5.0, 4.5]}, None, "a term is negative"),
        ({"a": [3.0, 1.0], "b": [1.0, 0.5]}, [4.0, 1.6], "do not add up to the stored total"),
    ],
)
def test_other_terms_are_lines_and_have_no_shares(
    terms: dict[str, list[float]], total: list[float] | None, why: str
) -> None:
    measured, _ = measured_of(methods=("vicreg",))
    item = broken_down(history_of(terms, total=total))
    figure = breakdown_figure(item, title="VICReg")
    assert [series.form for series in figure.series] == ["line", "line", "total"]
    assert why in figure.summary
    shares = [row.cells[-1] for row in breakdown_table(measured, (item,)).rows]
    assert [cell.value for cell in shares] == [None, None, None]
    assert shares[0].state == "undefined" and why in shares[0].reason


def test_several_seeds_are_drawn_as_their_mean_and_say_so() -> None:
    both = pd.concat([history_of({"a": [3.0, 1.0]}), history_of({"a": [5.0, 2.0]}, seed=1)])
    item = broken_down(both, seeds=2)
    assert item.terms["a"] == (4.0, 1.5) and item.total == (4.0, 1.5) and item.seeds == (0, 1)
    assert "Means over 2 seeds." in breakdown_figure(item, title="VICReg").summary


def test_an_epoch_that_a_seed_lacks_has_no_mean() -> None:
    both = pd.concat([history_of({"a": [3.0, 1.0, 0.5]}), history_of({"a": [5.0, 2.0]}, seed=1)])
    assert broken_down(both, seeds=2).epochs == (1.0, 2.0)


def test_a_term_that_is_zero_throughout_is_told_and_not_drawn() -> None:
    figure = breakdown_figure(broken_down(history_of({"a": [3.0, 1.0], "b": [0.0, 0.0]})), title="VICReg")
    assert [series.name for series in figure.series] == ["a"]
    assert "Zero throughout: b." in figure.summary


def test_a_single_epoch_is_drawn_as_points() -> None:
    figure = breakdown_figure(broken_down(history_of({"a": [3.0], "b": [1.0]})), title="VICReg")
    assert [series.form for series in figure.series] == ["line", "line", "total"]
    assert "<svg" in draw(figure)


def test_a_method_without_history_has_no_breakdown() -> None:
    measured, history = measured_of()
    assert [item.name for item in breakdowns(measured, history)] == ["simclr", "byol", "vicreg", "supervised"]
    assert breakdowns(measured, history.iloc[:0]) == ()


def test_the_table_has_the_first_and_the_last_epoch_and_the_share_at_the_end() -> None:
    measured, _ = measured_of(methods=("vicreg",))
    measured = replace(measured, methods={**METHODS, "vicreg": CARD})
    item = broken_down(history_of({"invariance": [3.0, 1.0], "variance": [1.0, 3.0]}), card=CARD)
    table = breakdown_table(measured, (item,))
    rows = [[cell.plain for cell in row.cells] for row in table.rows]
    assert rows == [
        ["invariance", "pulls two views together", "3.0000", "1.0000", "25.0"],
        ["variance", "", "1.0000", "3.0000", "75.0"],
        ["total", "sum of the terms", "4.0000", "4.0000", ""],
    ]


def test_values_of_a_training_before_a_change_are_stale() -> None:
    measured, history = measured_of(methods=("vicreg",))
    fresh = breakdowns(measured, history)[0]
    cells = breakdown_table(measured, (fresh,)).rows[0].cells
    assert (cells[2].state, cells[4].state) == ("measured", "measured")
    cells = breakdown_table(measured, (replace(fresh, planned=False),)).rows[0].cells
    assert (cells[2].state, cells[4].state) == ("stale", "stale")


def test_a_training_that_the_plan_no_longer_asks_for_is_not_planned() -> None:
    measured, history = measured_of(methods=("vicreg",))
    later = [
        replace(result, planned=replace(result.planned, pretraining=identity("vicreg-later")))
        for result in measured.results
    ]
    found = breakdowns(replace(measured, results=tuple(later)), history)
    assert [item.planned for item in found] == [False]


def test_every_epoch_of_every_seed_can_be_downloaded() -> None:
    measured, history = measured_of(seeds=2, methods=("vicreg", "random_init"))
    lines = list(csv.DictReader(io.StringIO(epochs_csv(measured, history))))
    assert len(lines) == 2 * 20 * 4
    chosen = [line for line in lines if (line["seed"], line["epoch"], line["term"]) == ("1", "20", "variance")]
    assert len(chosen) == 1 and float(chosen[0]["value"]) == pytest.approx(2 / 20**0.6 + 0.02)


def test_areas_are_stacked_with_the_total_on_top() -> None:
    """The areas' tops in the drawing, from the bottom up, are the running sums of the terms."""
    figure = breakdown_figure(broken_down(history_of({"a": [4.0, 2.0], "b": [4.0, 6.0]})), title="VICReg")
    text = draw(figure)
    assert 'class="s0-fill s0-stroke"' in text and 'class="s1-fill s1-stroke"' in text and "ink-stroke" in text
    corners = [
        {(float(x), float(y)) for x, y in re.findall(r"[ML] ([\d.-]+) ([\d.-]+)", path)}
        for path in re.findall(r'<path d="([^"]*)" [^>]*class="s\d-stroke" id=', text)
    ]
    everywhere = set.union(*corners)
    left, right = min(x for x, _ in everywhere), max(x for x, _ in everywhere)
    low, high = max(y for _, y in everywhere), min(y for _, y in everywhere)  # y grows downwards; 0 and 8 units
    units = [{(x, round(8 * (y - low) / (high - low), 3)) for x, y in area} for area in corners]
    assert units == [
        {(left, 0), (left, 4), (right, 0), (right, 2)},
        {(left, 4), (left, 8), (right, 2), (right, 8)},
    ]


def test_axes_of_all_breakdowns_have_the_same_place() -> None:
    long = breakdown_figure(broken_down(history_of({"a term with a long name": [1.0, 0.5]})), title="VICReg")
    short = breakdown_figure(broken_down(history_of({"a": [1000.0, 500.0]})), title="VICReg")
    clips = [re.findall(r"<clipPath.*?<rect ([^/]*)/>", draw(figure), flags=re.DOTALL) for figure in (long, short)]
    assert clips[0] == clips[1] and clips[0]


def test_the_page_sets_all_trained_methods_side_by_side(tmp_path: Path) -> None:
    index = build(tmp_path, seeds=2)
    page = index.with_name("breakdown.html").read_text(encoding="utf-8")
    assert page.count("<svg ") == 4 and "Means over 2 seeds." in page
    assert 'href="methods/vicreg.html"' in page and 'href="downloads/breakdown-epochs.csv"' in page
    assert (tmp_path / "downloads/breakdown-epochs.csv").is_file()
    for suffix in ("csv", "md", "tex", "json"):
        assert (tmp_path / f"downloads/breakdown.{suffix}").is_file()
    own = (tmp_path / "methods/vicreg.html").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    assert any(drawing.replace("VICReg. ", "Loss terms. ") in own for drawing in drawings)
