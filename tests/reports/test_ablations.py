from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.metric import TOP1, Metric
from bench.plan import Plan, PlannedCell, address_of
from bench.published.ablations import load_ablations
from bench.registry import discover
from bench.suite import Candidate, Evaluation, expand, find_suite
from reports.ablations import (
    Case,
    Family,
    ablation_table,
    accuracy_agrees,
    changed,
    collapse_agrees,
    families,
    headline,
    measured_outcome,
)
from reports.measured import Measured
from reports.site import build_site

from .synthetic import (
    METHODS,
    PROTOCOLS,
    common_fields,
    identity,
    make_history,
    make_plan,
    make_rows,
    planned_cell,
    published_values,
)

EVIDENCE = "Training collapsed at epoch 6 of 6: the embeddings shrank to one point."
LINEAR, DIAGNOSTICS = Evaluation(protocol="linear_probe"), Evaluation(protocol="diagnostics")
RANK = "embedding_rankme_centered"
NAMES = ("", "no variance", "no covariance")
KNOCKED_OUT = {"no variance": {"std_coeff": 0.0}, "no covariance": {"cov_coeff": 0.0}}
EXPECTED = {"vicreg[no variance]": "one point is the best answer."}


def planned(variant: str, evaluation: Evaluation, *, seed: int = 0, state: str = "fresh") -> PlannedCell:
    cell = planned_cell("vicreg", evaluation, seed=seed)
    params = {"std_coeff": 25.0, "cov_coeff": 1.0} | KNOCKED_OUT.get(variant, {})
    pretrain = cell.spec.pretrain.model_copy(update={"variant": variant, "method_params": params})
    spec = cell.spec.model_copy(update={"pretrain": pretrain})
    now = identity(address_of(spec))
    trained = identity(f"vicreg-{variant}-{seed}")
    stored = now.digest if state == "fresh" else ""
    return replace(
        cell, spec=spec, identity=now, pretraining=trained, address=address_of(spec), stored=stored, state=state
    )


def store(
    *,
    top1: dict[str, float],
    rank: dict[str, float],
    std: dict[str, float] | None = None,
    collapsed: dict[tuple[str, int], str] | None = None,
    seeds: int = 1,
    state: str = "fresh",
) -> tuple[Plan, pd.DataFrame]:
    """A plan of three settings of VICReg and the store's rows behind it; values by variant, evidence by seed too."""
    cells = [
        planned(variant, evaluation, seed=seed, state=state)
        for variant in NAMES
        for seed in range(seeds)
        for evaluation in (LINEAR, DIAGNOSTICS)
    ]
    plan = replace(make_plan(methods=("vicreg",), states={}), cells=tuple(cells))
    rows = []
    for cell in cells:
        pretrain = cell.spec.pretrain
        common = common_fields(cell) | {
            "status": "ok",
            "spec_hash": "a",
            "code_hash": "b",
            "data_hash": "c",
            "spec": "{}",
        }
        text = (collapsed or {}).get((pretrain.variant, pretrain.seed), "")
        trained = common | {"identity": cell.pretraining.digest, "kind": "pretraining", "metric": "training_loss"}
        rows.append(trained | {"value": 0.5, "details": json.dumps({"collapse": text})})
        evaluated = common | {"identity": cell.identity.digest, "kind": "evaluation", "n": 1000}
        if cell.spec.protocol == "linear_probe":
            value = top1[pretrain.variant]
            rows.append(evaluated | {"metric": "top1", "value": value, "low": value - 1, "high": value + 1})
        else:
            rows.append(evaluated | {"metric": "embedding_std", "value": (std or {}).get(pretrain.variant, 1.0)})
            details = json.dumps({"n": 1000, "d": {"embedding": 512, "representation": 96}})
            rows.append(evaluated | {"metric": RANK, "value": rank[pretrain.variant], "details": details})
    return plan, pd.DataFrame(rows)


def study(plan: Plan, rows: pd.DataFrame) -> tuple[Measured, Family]:
    measured = Measured.of(plan, rows, methods=METHODS, protocols=PROTOCOLS, titles={})
    (family,) = families(measured, EXPECTED)
    return measured, family


def typical(**changes: Any) -> tuple[Measured, Family]:
    settings: dict[str, Any] = {
        "top1": {"": 90.0, "no variance": 60.0, "no covariance": 80.0},
        "rank": {"": 100.0, "no variance": 2.0, "no covariance": 49.0},
        "collapsed": {("no variance", 0): EVIDENCE},
    }
    return study(*store(**(settings | changes)))


def outcomes(family: Family) -> list[str]:
    return [measured_outcome(case, family.reference) for case in family.cases]


def test_each_setting_is_told_by_the_trainings_evidence_and_by_the_rank() -> None:
    _, family = typical()
    assert [case.variant for case in family.cases] == list(NAMES)
    assert outcomes(family) == ["none", "complete collapse", "dimensional collapse"]


def test_half_of_the_references_rank_is_no_dimensional_collapse() -> None:
    _, family = typical(rank={"": 100.0, "no variance": 2.0, "no covariance": 50.0})
    assert outcomes(family)[2] == "none"


def test_a_low_rank_is_no_complete_collapse() -> None:
    _, family = typical(collapsed={})
    assert outcomes(family) == ["none", "dimensional collapse", "dimensional collapse"]
    assert collapse_agrees(family.cases[1], "dimensional collapse") == "no"


@pytest.mark.parametrize(
    ("std", "outcome", "answer"), [(0.24, "incomplete", "in part"), (0.25, "dimensional collapse", "no")]
)
def test_a_spread_under_a_quarter_is_an_incomplete_collapse(std: float, outcome: str, answer: str) -> None:
    _, family = typical(collapsed={}, std={"no variance": std})
    assert outcomes(family)[1] == outcome
    assert collapse_agrees(family.cases[1], outcome) == answer
    assert collapse_agrees(family.cases[2], "incomplete") == "cannot be told"


def test_without_diagnostics_only_complete_collapse_can_be_told() -> None:
    plan, rows = store(top1=dict.fromkeys(NAMES, 90.0), rank=dict.fromkeys(NAMES, 9.0))
    plan = replace(plan, cells=tuple(cell for cell in plan.cells if cell.spec.protocol == "linear_probe"))
    assert outcomes(study(plan, rows)[1]) == ["no complete"] * 3


def test_a_collapse_in_some_seeds_only_cannot_be_told() -> None:
    _, family = typical(seeds=2)
    assert outcomes(family)[1] == "complete in some seeds"
    assert collapse_agrees(family.cases[1], "complete in some seeds") == "cannot be told"
    _, family = typical(seeds=2, collapsed={("no variance", seed): EVIDENCE for seed in range(2)})
    assert outcomes(family)[1] == "complete collapse"


def test_a_training_that_was_stopped_for_its_collapse_counts() -> None:
    plan, rows = store(top1=dict.fromkeys(NAMES, 90.0), rank=dict.fromkeys(NAMES, 9.0))
    stopped = {cell.pretraining.digest for cell in plan.cells if cell.spec.pretrain.variant == "no variance"}
    trained = rows["identity"].isin(stopped)
    rows.loc[trained, ["status", "error_type", "error_message"]] = ["failed", "CollapseError", EVIDENCE]
    _, family = study(plan, rows)
    assert outcomes(family)[1] == "complete collapse" and family.cases[1].evidence == {0: EVIDENCE}
    rows.loc[trained, "error_type"] = "DivergenceError"
    assert outcomes(study(plan, rows)[1])[1] == "unknown"


def test_what_was_not_trained_is_unknown() -> None:
    plan, rows = store(top1=dict.fromkeys(NAMES, 90.0), rank=dict.fromkeys(NAMES, 9.0), state="missing")
    measured, family = study(plan, rows.iloc[:0])
    assert outcomes(family) == ["unknown"] * 3
    assert "not measured" in ablation_table(measured, family).render("md")
    assert "0 collapse here" in headline((family,)) and "2 cannot be told" in headline((family,))


def test_published_and_measured_outcomes_are_compared() -> None:
    _, family = typical()
    agreed = [collapse_agrees(case, measured_outcome(case, family.reference)) for case in family.cases]
    assert agreed == ["yes", "yes", "yes"]
    words = "Of 1 settings that a source sees collapse or at chance, 1 collapse here, 0 in part, 0 not; of 1"
    assert words in headline((family,))
    _, family = typical(collapsed={("", 0): EVIDENCE})
    agreed = [collapse_agrees(case, measured_outcome(case, family.reference)) for case in family.cases]
    assert agreed == ["no", "no", "yes"]


def test_a_setting_that_nobody_published_is_not_compared() -> None:
    _, family = typical()
    unknown = replace(family.cases[1], published=None)
    assert collapse_agrees(unknown, "complete collapse") == "not published"
    assert accuracy_agrees(unknown, family.reference) == "not published"


def test_chance_in_print_tells_nothing_of_collapse() -> None:
    _, family = typical()
    case = family.cases[1]
    assert case.published is not None
    chance = replace(case, published=replace(case.published, outcome="chance", value=0.1))
    assert collapse_agrees(chance, "complete collapse") == "cannot be told"
    assert accuracy_agrees(chance, family.reference) == "yes"


@pytest.mark.parametrize(("value", "answer"), [(80.0, "yes"), (87.9, "yes"), (88.1, "cannot be told"), (92.1, "no")])
def test_accuracies_agree_when_the_intervals_keep_the_sides_apart(value: float, answer: str) -> None:
    _, family = typical(top1={"": 90.0, "no variance": 60.0, "no covariance": value})
    assert accuracy_agrees(family.cases[2], family.reference) == answer
    assert accuracy_agrees(family.reference, family.reference) == ""


def test_accuracies_of_two_papers_are_not_compared() -> None:
    _, family = typical()
    case: Case = family.cases[2]
    assert case.published is not None
    other = replace(case, published=replace(case.published, paper="chen2021simsiam"))
    assert accuracy_agrees(other, family.reference) == "not published"


def test_what_is_changed_is_read_from_the_settings() -> None:
    _, family = typical()
    assert changed(family.reference, family.reference) == "nothing: the reference"
    assert changed(family.cases[1], family.reference) == "std_coeff 25 → 0"


def test_the_table_shows_both_sides_with_their_numbers() -> None:
    measured, family = typical()
    table = ablation_table(measured, family)
    row = table.rows[2]
    cells = {column.path: cell.plain for column, cell in zip(table.columns, row.cells, strict=True)}
    assert row.title == "no covariance" and row.href == "methods/vicreg-no-covariance.html"
    assert cells["published · outcome"] == "no collapse" and cells["published · top-1 (%)"] == "57.5"
    assert cells["published · source"] == "Bardes et al. 2022, Table 7"
    assert cells["measured · outcome"] == "dimensional collapse"
    assert cells["measured · top-1 (%)"] == "80.0 [79.0–81.0]"
    assert "49.00" in cells.values()
    assert (cells["agree · collapse"], cells["agree · accuracy"]) == ("yes", "yes")
    assert table.notes[2] == (
        "no variance. One point is the best answer. Published for: λ = 25, μ = 0, ν = 1, 100 epochs; printed as the "
        f"word collapse. Here: {EVIDENCE}"
    )
    assert any("N = 1000" in note and "512" in note and "96" in note for note in table.notes)


def test_a_value_of_a_secondary_source_is_marked() -> None:
    measured, family = typical()
    case = family.cases[2]
    assert case.published is not None
    second = replace(case, published=replace(case.published, confidence="secondary"))
    table = ablation_table(measured, replace(family, cases=(family.reference, second)))
    assert table.rows[1].cells[2].marks == ("‡",)


def test_an_outcome_that_is_not_reproduced_is_said_in_words() -> None:
    measured, family = typical(collapsed={})
    notes = ablation_table(measured, family).notes
    found = [note.split(".")[0] for note in notes if "Not reproduced in the small setting" in note]
    assert found == ["no variance"]


def test_baselines_stand_below() -> None:
    plan, rows = store(top1=dict.fromkeys(NAMES, 90.0), rank=dict.fromkeys(NAMES, 9.0))
    baseline = make_plan(methods=("random_init",), states={})
    both = replace(plan, cells=(*baseline.cells, *plan.cells))
    measured, family = study(both, pd.concat([rows, make_rows(baseline)]))
    assert ablation_table(measured, family).rows[-1].cells[5].plain.startswith("81.2")
    assert [case.name for case in family.baselines] == ["random_init"]


def test_the_page_is_there_only_for_a_plan_with_variants(tmp_path: Path) -> None:
    plan, rows = store(top1=dict.fromkeys(NAMES, 90.0), rank=dict.fromkeys(NAMES, 9.0))
    listed = tuple(Candidate(method="vicreg", variant=name, expected="as & is") for name in NAMES)
    plan = replace(plan, content=plan.content.model_copy(update={"methods": listed}))
    inputs: dict[str, Any] = {"published": published_values(), "methods": METHODS, "protocols": PROTOCOLS}
    history = make_history(make_plan(methods=("vicreg",)))
    index = build_site(tmp_path, plan=plan, rows=rows, history=history, suite="ablations", **inputs)
    page = (tmp_path / "ablations.html").read_text(encoding="utf-8")
    assert 'id="table-ablations-vicreg"' in page and "no variance. As &amp; is." in page
    assert "Dimensional collapse: neither of these, and" in page
    assert 'href="ablations.html"' in index.read_text(encoding="utf-8")
    other = make_plan(methods=("vicreg",))
    build_site(tmp_path, plan=other, rows=make_rows(other), history=history, suite="x", **inputs)
    assert not (tmp_path / "ablations.html").exists()
    assert 'href="ablations.html"' not in index.read_text(encoding="utf-8")


def test_the_suite_expands_and_every_knock_out_is_on_record() -> None:
    catalog = discover()
    key, suite = find_suite("ablations", catalog)
    specs = expand(suite, catalog)
    assert key == "ablations" and suite.methods != "all"
    assert len({spec.digest() for spec in specs}) == len(suite.methods) * len(suite.protocols)
    by_name = {spec.pretrain.name: spec.pretrain for spec in specs}
    trainings = [pretrain.training for pretrain in by_name.values() if pretrain.training]
    assert {training.on_collapse for training in trainings} == {"record"}
    assert by_name["byol[no predictor]"].method_params["predictor"] == ()
    assert by_name["simclr_fnc[no false negatives]"].method_params["support_views"] == 0


def test_every_setting_of_the_suite_has_its_published_row_but_two_that_show_why() -> None:
    _, suite = find_suite("ablations", discover())
    assert suite.methods != "all"
    listed = {(item.method, item.variant) for item in suite.methods}
    unpublished = {("simsiam", f"no output norm or {part}") for part in ("predictor", "stop-gradient")}
    assert listed - {("random_init", "")} - set(load_ablations()) == unpublished


def test_a_metric_that_the_protocol_declares_is_printed_its_way() -> None:
    measured, family = typical()
    card = replace(PROTOCOLS["knn"], metrics=(Metric(key=RANK, title="rank of the embedding", decimals=0), TOP1))
    table = ablation_table(replace(measured, protocols={**PROTOCOLS, "diagnostics": card}), family)
    assert "49" in [cell.plain for cell in table.rows[2].cells]
