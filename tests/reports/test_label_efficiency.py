"""Label efficiency in the report: studies, the sentence of each method, tables with bounds, figures, the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from bench.table import ABOVE, BELOW, Table
from reports.diagnostics import described
from reports.label_efficiency import Study, curve_of, studies, telling, worth
from reports.label_figures import method_figure, whole_figure
from reports.label_tables import accuracy_table, utility_table
from reports.measured import companion_table
from reports.plots import draw, draw_multiples
from reports.site import build_site

from .label_curves import (
    BUDGETS,
    FINETUNE,
    LINEAR,
    PROTOCOLS,
    accuracies,
    label_measured,
    label_plan,
    label_rows,
)
from .synthetic import METHODS, TITLES, make_history, published_values


@pytest.fixture(scope="module")
def study() -> Study:
    (found,) = studies(label_measured())
    return found


def cell(table: Table, method: str, title: str) -> str:
    (row,) = (row for row in table.rows if row.key == method)
    return row.cells[[column.title for column in table.columns].index(title)].plain


def test_the_curve_from_scratch_is_that_of_the_random_initialization(study: Study) -> None:
    assert study.scratch is not None and study.scratch.curve is not None
    assert study.scratch.curve.accuracies.tolist() == accuracies("random_init", seed=0, draws=4)
    assert [entry.name for entry in study.entries] == ["simclr", "vicreg", "byol", "supervised"]


def test_each_method_has_its_outcome(study: Study) -> None:
    outcomes = {entry.name: entry.outcome.verdict if entry.outcome else None for entry in study.entries}
    assert outcomes == {
        "simclr": "same plateau",
        "vicreg": "improvement",
        "byol": "no gain",
        "supervised": None,
    }


def test_what_a_method_is_worth_is_a_sentence_with_its_interval() -> None:
    found = worth(label_measured())
    assert list(found) == ["simclr", "vicreg", "byol"]  # the supervised baseline saw all labels
    assert found["vicreg"].sentence.startswith("100 labels with VICReg are worth 220 (")
    assert found["vicreg"].sentence.endswith(") labels from scratch.")
    assert found["vicreg"].verdict.startswith("Improvement: a gain at every number of labels")
    assert found["vicreg"].because.startswith("The gain is still 3.")


def test_the_sentence_takes_the_best_known_utility_near_the_middle(study: Study) -> None:
    simclr, vicreg, _, _ = study.entries
    assert [telling(entry).n for entry in (simclr, vicreg)] == [300, 100]  # VICReg's 300 are beyond the curve's end
    assert next(u for u in vicreg.utilities if u.n == 300).worth.kind == "at least"


def test_linear_and_fine_tuned_curves_are_two_studies_and_fine_tuning_speaks() -> None:
    measured = label_measured(label_plan(evaluations=(LINEAR, FINETUNE)))
    linear, tuned = studies(measured)
    assert (linear.mode, tuned.mode) == ("linear", "finetune") and linear.key != tuned.key
    assert {item.sentence.split(" labels ")[-1] for item in worth(measured).values()} == {"from scratch."}
    alone = worth(label_measured(label_plan(evaluations=(LINEAR,))))
    assert alone["vicreg"].sentence.endswith("on random features.")


def test_the_draws_of_all_seeds_make_one_curve() -> None:
    measured = label_measured(label_plan(seeds=2), draws=3)
    curve = curve_of([r for r in measured.results if r.planned.spec.pretrain.name == "vicreg"])
    assert curve is not None and curve.draws == tuple((seed, draw) for seed in range(2) for draw in range(3))
    assert np.array_equal(curve.accuracies[:, 3:], np.array(accuracies("vicreg", seed=1, draws=3)))
    (study,) = studies(measured)
    assert cell(accuracy_table(measured, study), "vicreg", "draws") == "6 of 2 seeds"


def test_utilities_carry_intervals_and_marks_where_they_are_bounds(study: Study) -> None:
    table = utility_table(label_measured(), study)
    vicreg = dict(zip([column.title for column in table.columns], table.rows[1].cells, strict=True))
    assert vicreg["n = 300"].marks == (ABOVE,) and vicreg["n = 300"].value == pytest.approx(3500 / 300 - 1)
    assert vicreg["n = 100"].marks == () and vicreg["n = 100"].low is not None
    assert vicreg["n = 100"].low < vicreg["n = 100"].value < vicreg["n = 100"].high  # type: ignore[operator]
    byol = dict(zip([column.title for column in table.columns], table.rows[2].cells, strict=True))
    assert byol["n = 10"].marks == (BELOW,) and byol["n = 10"].value == 0
    assert cell(table, "simclr", "outcome") == "same plateau"
    assert cell(table, "supervised", "n = 10") == "n/d"


def test_the_accuracies_are_means_over_draws_and_lead_to_their_provenance(study: Study) -> None:
    table = accuracy_table(label_measured(), study)
    assert [row.key for row in table.rows][-1] == "random_init"
    first = table.rows[0].cells[1]
    assert first.value == pytest.approx(np.mean(accuracies("simclr", seed=0, draws=4)[0])) and first.low is not None
    assert table.rows[0].cells[-1].anchor and table.rows[0].cells[-2].anchor


@pytest.mark.parametrize(
    ("methods", "states", "method", "expected"),
    [
        (("vicreg", "random_init"), {"vicreg": "failed"}, "vicreg", "✕ failed"),
        (("vicreg", "random_init"), {"random_init": "missing"}, "vicreg", "○ not run"),
        (("vicreg",), {}, "vicreg", "○ not run"),
    ],
)
def test_without_both_curves_there_is_a_reason_and_no_verdict(
    methods: tuple[str, ...], states: dict[str, str], method: str, expected: str
) -> None:
    measured = label_measured(label_plan(methods=methods, states=states))
    (study,) = studies(measured)
    assert worth(measured) == {}
    if study.budgets:
        assert cell(utility_table(measured, study), method, "n = 100") == expected


def test_a_stale_curve_makes_stale_utilities() -> None:
    measured = label_measured(label_plan(methods=("vicreg", "random_init"), states={"random_init": "stale"}))
    (study,) = studies(measured)
    assert cell(utility_table(measured, study), "vicreg", "n = 100").endswith("↻ stale")


def test_fewer_than_three_draws_leave_values_without_intervals_or_verdict() -> None:
    measured = label_measured(draws=2)
    (study,) = studies(measured)
    assert study.entries[0].outcome is not None and study.entries[0].outcome.verdict == "cannot be told"
    assert "[" not in cell(utility_table(measured, study), "simclr", "n = 100")


def test_the_order_of_the_stored_rows_changes_nothing() -> None:
    plan = label_plan(seeds=2)
    rows = label_rows(plan)
    measured = label_measured(plan)
    shuffled = replace(
        measured,
        results=type(measured)
        .of(plan, rows.sample(frac=1, random_state=1), methods=METHODS, protocols=PROTOCOLS, titles=TITLES)
        .results,
    )
    assert worth(shuffled) == worth(measured)


def test_a_figure_has_both_curves_their_bands_and_an_arrow_over_the_labels_saved(study: Study) -> None:
    figure = method_figure(study, study.entries[1])
    assert figure is not None and [item.name for item in figure.series] == ["pre-trained", "from scratch"]
    assert figure.series[0].epochs == figure.ticks == BUDGETS
    for item in figure.series:
        assert all(np.array(item.low) < item.values) and all(np.array(item.high) > item.values)
    (arrow,) = figure.arrows
    assert arrow.start == 100 and 200 < arrow.end < 230 and arrow.text == "× 2.2"
    assert arrow.height == pytest.approx(figure.series[0].values[2])
    svg = draw(figure)
    ElementTree.fromstring(svg)
    assert "× 2.2" in svg and ">3,500<" in svg and "style=" not in svg


def test_small_multiples_share_one_picture(study: Study) -> None:
    figures = [figure for figure in (method_figure(study, entry) for entry in study.entries) if figure]
    whole = whole_figure(study, figures)
    svg = draw_multiples(figures, whole)
    ElementTree.fromstring(svg)
    assert all(f">{entry.title}<" in svg or entry.title == METHODS["simclr"].title for entry in study.entries)
    assert svg == draw_multiples(figures, whole) and "style=" not in svg
    assert "VICReg: improvement" in whole.summary and "dashed: from scratch." in whole.summary
    alone = replace(study, scratch=None, entries=tuple(replace(entry, outcome=None) for entry in study.entries))
    assert whole_figure(alone, figures).summary.endswith("solid: pre-trained.")
    assert ">100<" in draw(figures[0]) and ">100<" not in svg  # small panels label every other number


def test_the_protocol_has_its_own_page_and_no_other_table() -> None:
    measured = label_measured()
    assert companion_table(measured) is None
    assert described(measured).results == ()


def build(out: Path, plan: object, rows: pd.DataFrame) -> Path:
    build_site(
        out,
        plan=plan,  # type: ignore[arg-type]
        rows=rows,
        history=make_history(plan),  # type: ignore[arg-type]
        published=published_values(),
        methods=METHODS,
        protocols=PROTOCOLS,
        suite="synthetic",
        titles=TITLES,
    )
    return out / "label_efficiency.html"


def test_the_page_shows_verdicts_figures_tables_and_rules(tmp_path: Path) -> None:
    plan = label_plan()
    text = build(tmp_path, plan, label_rows(plan)).read_text()
    assert "100 labels with VICReg are worth 220 (" in text
    assert "Improvement: a gain at every number of labels, and a higher plateau." in text
    assert "Not judged: its training saw the labels of all training images." in text
    assert "Newell and Deng leaves the −1 out" in text and "ends at 1 points or less" in text
    assert text.count('class="plot"') == 5 and 'href="label_efficiency.html" aria-current="page"' in text
    assert (tmp_path / "downloads" / "labels-utility.csv").is_file()
    assert "diagnostics.html" not in text


def test_a_plan_without_results_still_has_a_page(tmp_path: Path) -> None:
    plan = label_plan(states=dict.fromkeys(METHODS, "missing"))
    plan = replace(plan, cells=tuple(cell for cell in plan.cells if cell.state == "missing"))
    text = build(tmp_path, plan, label_rows(label_plan()).iloc[:0]).read_text()
    assert "Label efficiency" in text and 'class="plot"' not in text
