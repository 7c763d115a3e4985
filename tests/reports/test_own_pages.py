"""The pages of a report on findings: they open, link, and show no columns that nothing was measured for."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bench.plan import Plan
from reports.contest import Loader
from reports.site import build_site

from .predicted import FACTS, PROTOCOLS_WITH_FINDINGS, findings_request, predictions_of, with_facts
from .synthetic import METHODS, TITLES, make_history, make_plan, make_rows, published_values
from .test_site import Page


def site(out: Path, plan: Plan, rows: pd.DataFrame, predictions: Loader) -> dict[str, str]:
    index = build_site(
        out,
        plan=plan,
        rows=rows,
        history=make_history(plan),
        published=published_values(),
        methods=METHODS,
        protocols=PROTOCOLS_WITH_FINDINGS,
        suite="own",
        titles=TITLES,
        predictions=predictions,
    )
    folder = index.parent
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    plan, rows, predictions = findings_request(few=True)
    return site(tmp_path_factory.mktemp("findings"), plan, with_facts(rows, {**FACTS, "multilabel": True}), predictions)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    plan = make_plan(states={})
    return site(tmp_path_factory.mktemp("classes"), plan, with_facts(make_rows(plan)), predictions_of(plan))


def test_the_verdict_is_the_first_thing_on_the_first_page(findings: dict[str, str], classes: dict[str, str]) -> None:
    for pages in (findings, classes):
        index = pages["index.html"]
        assert 0 < index.index(">In words<") < index.index('class="counts"') < index.index('id="gaps"')
    assert "SimCLR and BYOL lead and cannot be told apart." in classes["index.html"]
    assert "--seeds 3</code>" in classes["index.html"]


def test_findings_and_images_have_pages_and_are_linked(findings: dict[str, str], classes: dict[str, str]) -> None:
    assert "findings.html" in findings and "images.html" in findings
    assert "findings.html" not in classes and "images.html" in classes
    assert 'href="findings.html"' in findings["index.html"] and 'href="findings.html"' not in classes["index.html"]
    assert "Effusion" in findings["findings.html"] and "1200 images" in findings["images.html"]


def test_table_1_has_no_columns_that_the_suite_measures_nothing_for(
    findings: dict[str, str], classes: dict[str, str]
) -> None:
    assert "published beside measured" not in findings["index.html"] + findings["table1.html"]
    assert "Table 1, as published" in findings["table1.html"]
    assert "it stands here as published" in findings["table1.html"]
    assert "Probe for findings" in findings["index.html"]
    assert "published beside measured" in classes["index.html"]
    assert "it stands here as published" not in classes["table1.html"]


def test_the_new_pages_nest_link_and_load_nothing(findings: dict[str, str], classes: dict[str, str]) -> None:
    for pages in (findings, classes):
        for name, text in pages.items():
            page = Page(text)
            assert page.loads == [] and page.unscoped == 0, name
            assert len(set(page.ids)) == len(page.ids), name
            for link in (*page.links, *page.cell_links):
                path, _, fragment = link.partition("#")
                if link.startswith("https://") or path.startswith(("downloads/", "../")) or "/" in name:
                    continue
                assert not path or path in pages, f"{name}: {link}"
                assert not fragment or fragment in Page(pages[path or name]).ids, f"{name}: {link}"


def test_every_word_that_the_verdict_uses_is_explained(findings: dict[str, str]) -> None:
    about = findings["about.html"]
    assert 'id="glossary"' in about
    for word in ("AUROC", "balanced accuracy", "seed", "95 % interval", "cannot be told apart", "baseline", "collapse"):
        assert f"<dt>{word}</dt>" in about
