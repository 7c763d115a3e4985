from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.card import MethodCard
from bench.errors import RequestError
from bench.plan import Plan
from bench.published.works import load_works
from bench.registry import discover
from bench.spec import PairingSpec
from bench.table import Table
from reports.bibtex import bibtex
from reports.measured import Measured
from reports.site import build_site
from reports.table3 import build_tables
from reports.table3_measured import measured_tables
from reports.table3_published import card_properties, family_table, published_tables, work_panels, work_tables

from .cards import BYOL, MOCO_V2, SIMCLR, SIMSIAM, VICREG, WMSE
from .synthetic import METHODS, PROTOCOLS, TITLES, make_history, make_plan, make_rows, published_values
from .test_site import Page

EVERY_CELL = ("authors", "pretext method", "downstream tasks", "task type", "modality")


@cache
def catalog() -> dict[str, MethodCard]:
    return {entry.key: entry.card for entry in discover().methods if isinstance(entry.card, MethodCard)}


def line(table: Table, title: str) -> dict[str, str]:
    row = next(row for row in table.rows if row.title.startswith(title))
    return {column.title: cell.plain for column, cell in zip(table.columns, row.cells, strict=True)}


def with_pairs(plan: Plan, *methods: str) -> Plan:
    """The plan with pairs by metadata for these methods."""
    cells = []
    for cell in plan.cells:
        pretrain = cell.spec.pretrain
        if pretrain.method in methods:
            pretrain = pretrain.model_copy(update={"pairing": PairingSpec(study="distinct", other_image=True)})
        cells.append(replace(cell, spec=cell.spec.model_copy(update={"pretrain": pretrain})))
    return replace(plan, cells=tuple(cells))


def measure(plan: Plan, methods: dict[str, MethodCard] | None = None) -> Measured:
    return Measured.of(plan, make_rows(plan), methods=methods or METHODS, protocols=PROTOCOLS, titles=TITLES)


# --- published --------------------------------------------------------------------------------------------------


def test_pretext_methods_are_counted_and_told_apart_by_three_properties() -> None:
    table = family_table(catalog())
    counts = {row.title: row.cells[0].value for row in table.rows}
    assert counts == {
        "MoCo": 4, "SimCLR": 2, "CPC": 2, "BYOL": 1, "Longitudinal pairs": 1, "Softmax embedding": 1,
        "SimSiam": 0, "Barlow Twins": 0, "VICReg": 0, "W-MSE": 0,
    }  # fmt: skip
    assert list(counts.values()) == sorted(counts.values(), key=lambda count: -(count or 0))
    properties = ("uses negatives", "teacher with stop-gradient", "explicit decorrelation")
    told = {row.title: tuple(line(table, row.title)[name] for name in properties) for row in table.rows}
    assert told["MoCo"] == ("yes, queue", "yes", "no")
    assert told["SimCLR"] == ("yes, batch", "no", "no")
    assert told["CPC"] == told["Longitudinal pairs"] == ("yes", "no", "no")
    assert told["BYOL"] == ("no", "yes", "no")
    assert told["SimSiam"] == ("no", "stop-gradient, no teacher", "no")
    assert told["VICReg"] == told["Barlow Twins"] == ("no", "no", "yes")
    assert told["W-MSE"] == ("no", "no", "yes, whitening")
    byol = line(table, "BYOL")
    assert (byol["by the review"], byol["here"]) == ("contrastive", "asymmetric")
    assert "9 have tasks of classification and 2 have tasks of segmentation" in table.notes[0]


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (SIMCLR, ("yes, batch", "no", "no")),
        (MOCO_V2, ("yes, queue", "yes", "no")),
        (BYOL, ("no", "yes", "no")),
        (SIMSIAM, ("no", "stop-gradient, no teacher", "no")),
        (VICREG, ("no", "no", "yes")),
        (WMSE, ("no", "no", "yes, whitening")),
    ],
)
def test_properties_follow_from_the_card(card: MethodCard, words: tuple[str, ...]) -> None:
    assert tuple(cell.plain for cell in card_properties(card)) == words


def test_a_pretext_method_without_a_card_or_a_page_says_so() -> None:
    table = family_table({}, page_of=lambda key: f"methods/{key}.html" if key == "byol" else "")
    moco = line(table, "MoCo")
    assert (moco["uses negatives"], moco["settled by"]) == ("not known", "not registered here")
    assert line(table, "CPC")["uses negatives"] == "yes"
    assert {row.title: row.href for row in table.rows if row.href} == {"BYOL": "methods/byol.html"}


def test_every_work_stands_once_under_its_category() -> None:
    tables = {table.key: table for table in work_tables()}
    assert {key: len(table.rows) for key, table in tables.items()} == {
        "table3-works-contrastive": 11, "table3-works-predictive": 8, "table3-works-generative": 12,
        "table3-works-multi-self-supervised": 12,
    }  # fmt: skip
    keys = [row.key for table in tables.values() for row in table.rows]
    assert sorted(keys) == sorted(work.paper for work in load_works())
    medaug = line(tables["table3-works-contrastive"], "MedAug")
    assert medaug == {
        "authors": "Vu et al.", "year": "2021", "venue": "Machine Learning for Healthcare Conference",
        "pretext method": "MoCo", "downstream tasks": "pleural effusion classification",
        "task type": "classification", "modality": "X-ray",
    }  # fmt: skip


def test_nothing_that_is_known_from_memory_only_is_shown() -> None:
    told = [cell for work in load_works() for cell in work.cells if cell.text]
    secret = {cell.text for cell in told if not cell.shown} - {cell.shown for cell in told}
    assert len(secret) > 60
    shown = {cell.plain for table in work_tables() for _, _, cell in table.cells()}
    shown |= {
        fact.value
        for panel in work_panels()
        for fact in panel.runs[0].sections[0].facts
        if fact.label in (*EVERY_CELL, "notes")
    }
    texts = {value.split(" (")[0].rstrip("‡") for value in shown} | {value.rstrip("‡") for value in shown}
    assert not secret & texts


def test_cells_left_out_are_blank_and_counted_in_the_open() -> None:
    for table in work_tables():
        columns = {column.title: index for index, column in enumerate(table.columns)}
        lost = {
            title: sum(row.cells[columns[title]].state == "unverified" for row in table.rows) for title in EVERY_CELL
        }
        total = sum(lost.values())
        assert table.notes[0].startswith(f"{total} of ")
        assert all(f"{count} of {title}" in table.notes[0] for title, count in lost.items() if count)
        assert ("?", "known from memory only, so it is left out") in table.legend()
    predictive = next(table for table in work_tables() if table.key.endswith("predictive"))
    assert predictive.notes == (
        "36 of 40 cells are known from memory only and left out: 8 of authors, 6 of pretext method, 7 of downstream "
        "tasks, 7 of task type and 8 of modality.",
    )


def test_a_cell_from_a_source_that_repeats_the_paper_is_marked() -> None:
    predictive = next(table for table in work_tables() if table.key.endswith("predictive"))
    cube = line(predictive, "Self-supervised Feature Learning for 3D")
    assert cube["pretext method"] == "Rubik's cube (rearrangement + rotation)‡"
    assert cube["authors"] == cube["modality"] == "?"


def test_each_title_leads_to_a_panel_that_tells_how_each_cell_was_checked() -> None:
    panels = {panel.id: panel for panel in work_panels()}
    for table in work_tables(linked=True):
        assert {row.href.removeprefix("#") for row in table.rows} <= set(panels)
    assert not any(row.href for table in work_tables() for row in table.rows)
    facts = {fact.label: fact.value for fact in panels["work-chaitanya2020global"].runs[0].sections[0].facts}
    assert facts["modality"] == "left out (memory: from memory, not verified)"
    assert facts["pretext method"].startswith("SimCLR (read: ")
    assert facts["listed by"] == "Shurrab and Duwairi 2022, as contrastive"


def test_bibtex_has_an_entry_for_every_work_and_the_review() -> None:
    text = "".join(bibtex(table.citations) for table in published_tables(catalog()))
    assert "not in papers.csv" not in text
    for key in (*(work.paper for work in load_works()), "shurrab2022survey", "oord2018cpc", "chen2020mocov2"):
        assert f"{{{key}," in text
    assert "author = {Azizi and others}" in text


# --- measured ---------------------------------------------------------------------------------------------------


def test_methods_with_pairs_by_metadata_are_shown_protocol_by_protocol() -> None:
    plan = with_pairs(make_plan(), "simclr", "byol")
    tables = {table.key.removeprefix("table3-measured-"): table for table in measured_tables(measure(plan))}
    assert list(tables) == ["linear_probe", "knn", "semi_supervised-1", "semi_supervised-10"]
    assert [row.title for row in tables["knn"].rows] == ["SimCLR", "BYOL"]
    simclr = line(tables["linear_probe"], "SimCLR")
    assert simclr["pairs"] == "distinct study, all lateralities, another image"
    assert simclr["top-1, %"].startswith("94.1") and simclr["interval"] == "Wilson 95%"
    assert tables["semi_supervised-1"].rows[1].cells[5].state == "failed"


def test_a_method_of_the_medical_family_is_shown_without_pairs_too() -> None:
    methods = METHODS | {"vicreg": replace(METHODS["vicreg"], family="medical")}
    first = measured_tables(measure(make_plan(states={}), methods))[0]
    assert [(row.title, row.cells[0].text) for row in first.rows] == [("VICReg", "one image")]


def test_a_plan_without_such_methods_measures_nothing_for_table_3() -> None:
    plan = make_plan()
    assert measured_tables(measure(plan)) == ()
    shared: dict[str, Any] = {"plan": plan, "rows": make_rows(plan), "methods": METHODS}
    assert build_tables("measured", **shared) == ()
    assert [table.key for table in build_tables("both", **shared)] == [
        table.key for table in build_tables("published", methods=METHODS)
    ]


def test_both_adds_what_was_measured_to_what_is_listed() -> None:
    plan = with_pairs(make_plan(), "vicreg")
    shared: dict[str, Any] = {"plan": plan, "rows": make_rows(plan), "methods": METHODS, "protocols": PROTOCOLS}
    keys = [table.key for table in build_tables("both", **shared)]
    assert len(keys) == 5 + 4 and keys[0] == "table3-pretext-methods" and keys[5] == "table3-measured-linear_probe"
    with pytest.raises(RequestError, match="Table 3 with origin 'both' needs a plan and the store's rows"):
        build_tables("both")
    with pytest.raises(RequestError, match="There is no origin 'printed'"):
        build_tables("printed")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["md", "csv", "latex", "json", "html"])
def test_every_form_renders(form: Any) -> None:
    for table in published_tables(catalog()):
        text = table.render(form)
        assert "MoCo" in text or "?" in text
        if form == "json":
            assert json.loads(text)["key"] == table.key


# --- the page ---------------------------------------------------------------------------------------------------


def page(out: Path, plan: Plan) -> str:
    build_site(
        out,
        plan=plan,
        rows=make_rows(plan),
        history=make_history(plan),
        published=published_values(),
        methods=METHODS,
        protocols=PROTOCOLS,
        suite="synthetic",
        titles=TITLES,
    )
    return (out / "table3.html").read_text(encoding="utf-8")


def test_the_page_shows_what_was_measured_or_says_that_nothing_was(tmp_path: Path) -> None:
    without = page(tmp_path / "without", make_plan())
    assert "no method that is made for medical images" in without and "as measured" not in without
    text = page(tmp_path / "with", with_pairs(make_plan(), "byol"))
    assert "no method that is made for medical images" not in text
    assert text.count("Table 3, as measured: ") == 2 * 4  # caption and downloads
    for shown in (without, text):
        found = Page(shown)
        links = {link[1:] for link in (*found.links, *found.cell_links) if link.startswith("#")}
        assert links <= set(found.ids) and found.loads == []
        assert {f"work-{work.paper}" for work in load_works()} <= links
        assert 'href="errata.html#item-32"' in shown
