"""Diagnostics in the report: a page of their own, the method's page, and trainings that collapsed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.card import ProtocolCard
from bench.metric import TOP1, Metric
from bench.plan import Plan
from bench.suite import Evaluation
from protocols.diagnostics import Diagnostics
from reports.curves import training_figures
from reports.diagnostics import audit_table, collapse_flags, diagnostics_table, method_tables, no_collapse
from reports.measured import Measured, companion_table
from reports.method_page import results_table
from reports.plots import draw
from reports.site import build_site
from reports.spectra import spectrum_figures

from .synthetic import (
    METHODS,
    PROTOCOLS,
    TITLES,
    common_fields,
    identity,
    make_history,
    make_plan,
    make_rows,
    planned_cell,
    published_values,
)

DIAGNOSTICS = Evaluation(protocol="diagnostics")
AUDIT = Evaluation(protocol="false_negative_audit")
CHANCE = Metric(key="chance", title="chance precision", unit="%", higher_is_better=None)
CARDS = PROTOCOLS | {
    "diagnostics": Diagnostics.card,
    "false_negative_audit": ProtocolCard(
        title="False negative audit", summary="Precision.", metrics=(TOP1, CHANCE), chance="about 100/K %"
    ),
}
EVIDENCE = "Training collapsed at epoch 3 of 20: all point the same way (std 0.01). What should prevent it: negatives."
SPECTRUM = [2.0**-k for k in range(64)]


def diagnosed_plan(*, seeds: int = 1) -> Plan:
    plan = make_plan(seeds=seeds, states={})
    cells = [planned_cell(m, e, seed=s) for m in METHODS for s in range(seeds) for e in (DIAGNOSTICS, AUDIT)]
    return replace(plan, cells=(*plan.cells, *cells))


def diagnosed_rows(plan: Plan, *, collapse: dict[str, dict[str, Any]] | None = None) -> pd.DataFrame:
    """The synthetic rows, those of both protocols, and changed columns of some pre-trainings by method."""
    rest = replace(plan, cells=tuple(c for c in plan.cells if c.spec.protocol not in ("diagnostics", AUDIT.protocol)))
    rows = make_rows(rest).to_dict("records")
    for row in rows:
        if row["kind"] == "pretraining":
            row |= (collapse or {}).get(row["method"], {})
    for cell in plan.cells:
        if cell not in rest.cells:
            rows += _evaluation(cell)
    return pd.DataFrame(rows)


def _evaluation(cell: Any) -> list[dict[str, Any]]:
    spec = cell.spec
    baseline = METHODS[spec.pretrain.method].family == "baseline"
    kinds = ("representation",) if baseline else ("representation", "embedding")
    metrics = CARDS[spec.protocol].metrics
    gone = {m.key: "no projector" for m in metrics if m.key.startswith("embedding") and baseline}
    details = {
        "n": 1000,
        "d": {kind: 64 if kind == "embedding" else 1536 for kind in kinds},
        "spectra": dict.fromkeys(kinds, SPECTRUM),
        "rank_limit": {"representation": "N = 1000 is not above D = 1536: no rank can exceed N"},
        "undefined": gone,
    }
    base = common_fields(cell) | {
        "kind": "evaluation",
        "status": "ok",
        "identity": cell.identity.digest,
        "cell": cell.address,
        "protocol": spec.protocol,
        "variant": spec.variant,
        "eval_data": spec.data.key,
        "label_fraction": 1.0,
        "spec_hash": cell.identity.spec,
        "code_hash": cell.identity.code,
        "data_hash": cell.identity.data,
        "spec": spec.canonical_json(),
        "details": json.dumps(details),
        "seconds_evaluation": 1.0,
        "n": 1000,
    }
    return [
        base | {"metric": metric.key, "value": float("nan") if metric.key in gone else 0.25 + number}
        for number, metric in enumerate(metrics)
    ]


def measured_of(plan: Plan, rows: pd.DataFrame) -> Measured:
    return Measured.of(plan, rows, methods=METHODS, protocols=CARDS, titles=TITLES)


@pytest.fixture(scope="module")
def measured() -> Measured:
    plan = diagnosed_plan()
    return measured_of(plan, diagnosed_rows(plan))


def history_of(plan: Plan) -> pd.DataFrame:
    """The synthetic history with further diagnostics, as constants."""
    history = make_history(plan)
    spreads = history[history["term"].isin(["embedding_std", "representation_std"])]
    extra = {"rankme": 20.0, "rankme_centered": 30.0, "participation_ratio": 10.0, "samples": 256.0}
    extra |= {"dimensions": 64.0, "alignment": 0.3, "uniformity": -2.0, "scale": 1.5}
    parts = [
        spreads.assign(term=spreads["term"].str.replace("_std", f"_{name}"), value=value)
        for name, value in extra.items()
    ]
    return pd.concat([history, *parts], ignore_index=True)


def encoders(method: str, *, seeds: int = 1) -> dict[str, int]:
    return {identity(f"{method}-{seed}").digest: seed for seed in range(seeds)}


# --- tables -----------------------------------------------------------------------------------------------------


def test_all_methods_stand_side_by_side_with_n_and_d(measured: Measured) -> None:
    table = diagnostics_table(measured)
    assert table is not None and [row.key for row in table.rows] == list(METHODS)
    assert [column.title for column in table.columns[:4]] == ["epochs", "collapse", "N", "D"]
    groups = [column.groups for column in table.columns]
    assert groups.count(("Representation",)) == groups.count(("Embedding",)) == 7
    first = {column.path: cell.number for column, cell in zip(table.columns, table.rows[0].cells, strict=True)}
    assert first["N"] == "1000" and first["Representation · D"] == "1536" and first["Embedding · D"] == "64"
    assert first["Representation · std"] == "0.250" and first["Embedding · std"] == "6.250"
    assert "All rows: MNIST-5k, backbone small ConvNet, 1 seed." in table.caption
    assert not any(cell.best for row in table.rows for cell in row.cells)


def test_what_a_baseline_lacks_is_undefined_and_not_missing(measured: Measured) -> None:
    table = diagnostics_table(measured)
    assert table is not None
    row = next(row for row in table.rows if row.key == "random_init")
    states = [c.state for column, c in zip(table.columns, row.cells, strict=True) if column.groups == ("Embedding",)]
    assert states == ["text"] + ["undefined"] * 6
    assert row.cells[1].text == "not trained"


def test_neither_protocol_stands_in_the_companion_or_among_the_results(measured: Measured) -> None:
    companion = companion_table(measured)
    assert companion is not None and {column.groups for column in companion.columns if column.metric} == {("k-NN",)}
    results = results_table(measured, "vicreg")
    assert [row.key for row in results.rows] == ["linear_probe", "knn", "semi_supervised", "semi_supervised"]
    assert not any("RankMe" in column.title for column in results.columns)


def test_a_methods_table_has_both_kinds_side_by_side(measured: Measured) -> None:
    (table,) = method_tables(measured, "vicreg")
    assert [row.title for row in table.rows][:3] == ["dimensions D", "std", "RankMe"]
    assert [cell.number for cell in table.rows[0].cells] == ["1536", "64"]
    assert [cell.number for cell in table.rows[1].cells] == ["0.250", "6.250"]
    assert "N = 1000 test images" in table.caption
    assert table.notes == ("Representation: N = 1000 is not above D = 1536: no rank can exceed N.",)


def test_the_audit_stands_beside_its_chance_level(measured: Measured) -> None:
    table = audit_table(measured)
    assert table is not None and [column.title for column in table.columns] == ["epochs", "top-1", "chance precision"]
    assert table.notes == ("Chance: about 100/K %.",)
    one = audit_table(measured, method="vicreg")
    assert one is not None and len(one.rows) == 1 and one.key != table.key


def test_a_suite_without_them_has_no_page(tmp_path: Path) -> None:
    plan = make_plan(methods=("vicreg",))
    assert diagnostics_table(measured_of(plan, make_rows(plan))) is None
    site(tmp_path, plan, make_rows(plan))
    assert not (tmp_path / "diagnostics.html").exists()
    assert "diagnostics.html" not in (tmp_path / "index.html").read_text(encoding="utf-8")


# --- collapse ---------------------------------------------------------------------------------------------------

RECORDED = {"details": json.dumps({"collapse": EVIDENCE})}
STOPPED = {"status": "failed", "error_type": "CollapseError", "error_message": EVIDENCE, "details": ""}
DIVERGED = STOPPED | {"error_type": "DivergenceError", "error_message": "NaN"}


def test_recorded_and_ended_collapses_are_flagged_once_and_other_failures_are_not() -> None:
    plan = diagnosed_plan()
    collapse = {"vicreg": RECORDED, "byol": STOPPED, "simclr": DIVERGED}
    measured = measured_of(plan, diagnosed_rows(plan, collapse=collapse))
    flags = {flag.title: flag for flag in collapse_flags(measured)}
    assert set(flags) == {"VICReg", "BYOL"}
    assert "went on" in flags["VICReg"].how and "ended" in flags["BYOL"].how
    assert flags["VICReg"].evidence == EVIDENCE and flags["VICReg"].short.endswith("(std 0.01).")
    assert [flag.title for flag in collapse_flags(measured, method="byol")] == ["BYOL"]
    table = diagnostics_table(measured)
    assert table is not None
    said = {row.key: row.cells[1].text for row in table.rows}
    assert said == {
        "simclr": "",
        "byol": "yes",
        "vicreg": "yes",
        "supervised": "none seen",
        "random_init": "not trained",
    }


def test_a_method_without_collapse_says_on_which_numbers_that_rests(measured: Measured) -> None:
    plan = diagnosed_plan()
    text = no_collapse(measured, history_of(plan), encoders("vicreg"), method="vicreg")
    assert text.startswith("No collapse was seen: on the last batch of N = 256 images")
    assert "the embeddings spread by 0.97" in text or "the embeddings spread by 0.98" in text
    assert "under 0.05 and under half" in text


@pytest.mark.parametrize("change", [RECORDED, STOPPED, DIVERGED])
def test_a_collapsed_or_failed_training_makes_no_such_statement(change: dict[str, Any]) -> None:
    plan = diagnosed_plan()
    measured = measured_of(plan, diagnosed_rows(plan, collapse={"vicreg": change}))
    assert no_collapse(measured, history_of(plan), encoders("vicreg"), method="vicreg") == ""


def test_an_untrained_method_makes_no_statement(measured: Measured) -> None:
    assert no_collapse(measured, history_of(diagnosed_plan()), encoders("random_init"), method="random_init") == ""


# --- figures ----------------------------------------------------------------------------------------------------


def test_a_training_has_curves_of_spread_ranks_alignment_and_uniformity_with_n() -> None:
    figures = training_figures(history_of(diagnosed_plan()), encoders("vicreg"), method="vicreg")
    assert [figure.key.removeprefix("vicreg-") for figure in figures] == [
        "spread",
        "scale",
        "embedding-ranks",
        "representation-ranks",
        "alignment",
        "uniformity",
    ]
    ranks = figures[2]
    assert [item.name for item in ranks.series] == ["RankMe", "centered RankMe", "participation ratio"]
    assert "N = 256 embeddings of 64 dimensions" in ranks.summary and "RankMe from 20 to 20" in ranks.summary


def test_the_spectra_are_drawn_on_a_log_scale_and_told_in_words(measured: Measured) -> None:
    (figure,) = spectrum_figures(measured, "vicreg")
    assert figure.y_scale == "log" and {item.name for item in figure.series} == {"representations", "embeddings"}
    embedding = next(item for item in figure.series if item.name == "embeddings")
    assert embedding.values[:3] == (2.0**0, 2.0**-1, 2.0**-2) and embedding.epochs[:3] == (1.0, 2.0, 3.0)
    assert len(embedding.values) == 30  # those under a billionth of the largest are rounding
    assert "N = 1000" in figure.summary
    assert (
        "30 of 64 eigenvalues above a billionth of the largest, the first 4 hold 90% of the variance" in figure.summary
    )
    assert "30 of 1536" in figure.summary
    assert draw(figure) == draw(figure) and "embeddings" in draw(figure)


def test_a_baseline_has_the_spectrum_of_its_representation_only(measured: Measured) -> None:
    (figure,) = spectrum_figures(measured, "random_init")
    assert [item.name for item in figure.series] == ["representations"]
    assert figure.series[0].slot == 1  # the color that representations have everywhere


# --- pages ------------------------------------------------------------------------------------------------------


def site(out: Path, plan: Plan, rows: pd.DataFrame) -> Path:
    return build_site(
        out,
        plan=plan,
        rows=rows,
        history=history_of(plan),
        published=published_values(),
        methods=METHODS,
        protocols=CARDS,
        suite="synthetic",
        titles=TITLES,
    )


def test_pages_show_flags_tables_figures_and_working_links(tmp_path: Path) -> None:
    plan = diagnosed_plan(seeds=2)
    site(tmp_path, plan, diagnosed_rows(plan, collapse={"byol": RECORDED}))
    pages = {p.relative_to(tmp_path).as_posix(): p.read_text(encoding="utf-8") for p in tmp_path.rglob("*.html")}
    for name in ("index.html", "diagnostics.html", "methods/byol.html"):
        assert "Collapsed in training" in pages[name] and "std 0.01" in pages[name], name
        assert 'class="flags"' in pages[name]
    assert "What should prevent it" not in pages["index.html"].split('id="table-1"')[0]
    assert "Collapsed in training" not in pages["methods/vicreg.html"]
    assert "No collapse was seen" in pages["methods/vicreg.html"] and "(2 seeds)" in pages["methods/vicreg.html"]
    assert "Covariance spectra" in pages["methods/vicreg.html"]
    assert "it misses dimensional collapse" in pages["diagnostics.html"]
    assert "Detected false negatives" in pages["diagnostics.html"]
    for name, text in pages.items():
        ids = re.findall(r' id="([^"]+)"', text)
        assert len(ids) == len(set(ids)), name
        links = re.findall(r'<td[^>]*>\s*<a href="#([^"]+)"', text)
        assert set(links) <= set(ids), name
        assert len(text.encode()) < 500_000, name
    assert "cell-vicreg-diagnostics" not in pages["index.html"]
