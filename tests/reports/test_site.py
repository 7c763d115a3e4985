from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from bench.spec import DataSpec
from reports.site import build_site

from .synthetic import METHODS, ODD_TITLE, PROTOCOLS, TITLES, make_history, make_plan, make_rows, published_values

VOID = frozenset(("meta", "br", "input", "link", "hr", "img"))
WORDS = ("methods.html", "errata.html", "table3.html", "medical.html")
ODD_METHODS = METHODS | {"simclr": replace(METHODS["simclr"], title=ODD_TITLE)}


class Page(HTMLParser):
    """Ids, links, tables and resource loads of one page; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.cell_links: list[str] = []
        self.links: list[str] = []
        self.tables = 0
        self.captions = 0
        self.unscoped = 0
        self.loads: list[str] = []
        self.nodes = 0
        self.open: list[str] = []
        self.feed(text)
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.nodes += 1
        if tag not in VOID:
            self.open.append(tag)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if tag == "a":
            (self.cell_links if "td" in self.open else self.links).append(str(values["href"]))
        self.tables += tag == "table"
        self.captions += tag == "caption"
        self.unscoped += tag == "th" and values.get("scope") not in ("row", "col", "colgroup")
        if values.get("src") or tag in ("link", "iframe", "object", "base") or "style" in values:
            self.loads.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def build(out: Path, *, seeds: int = 1, shuffle: bool = False) -> Path:
    plan = make_plan(seeds=seeds)
    rows, history = make_rows(plan), make_history(plan)
    if shuffle:
        rows = rows.sample(frac=1, random_state=1)
    return build_site(
        out,
        plan=plan,
        rows=rows,
        history=history,
        published=published_values(),
        methods=ODD_METHODS,
        protocols=PROTOCOLS,
        suite="synthetic",
        titles=TITLES,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("a folder with spaces") / "report").parent


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, str]:
    return {path.relative_to(site).as_posix(): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def test_every_page_is_there(pages: dict[str, str]) -> None:
    methods = {f"methods/{key}.html" for key in METHODS}
    assert set(pages) == {"index.html", "table1.html", "table2.html", "breakdown.html", "about.html", *WORDS} | methods


def test_equal_inputs_give_equal_bytes(site: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "other", shuffle=True).parent
    assert dict(files(again)) == dict(files(site))


def test_every_cell_link_leads_to_a_panel_on_the_same_page(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        page = Page(text)
        ids = set(page.ids)
        assert len(ids) == len(page.ids), f"{name}: an id occurs twice"
        targets = {link[1:] for link in page.cell_links if link.startswith("#")}
        assert targets <= ids
        if name in ("index.html", "table1.html"):
            assert len(targets) > 60


def test_every_other_link_leads_to_a_file_or_an_id(site: Path, pages: dict[str, str]) -> None:
    for name, text in pages.items():
        page = Page(text)
        for link in [*page.links, *page.cell_links]:
            if link.startswith("#"):
                assert link[1:] in page.ids, f"{name}: {link}"
            elif not link.startswith("https://"):
                path, _, part = link.partition("#")
                target = (site / name).parent / path
                assert target.is_file(), f"{name}: {link}"
                assert not part or part in Page(target.read_text(encoding="utf-8")).ids, f"{name}: {link}"


def test_nothing_is_loaded_from_elsewhere(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        assert Page(text).loads == [], name
        assert "default-src &#39;none&#39;" in text
        without_links = re.sub(r'<a [^>]*href="https://[^"]*"', "", text)
        without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", without_links)
        assert not re.search(r"https?://|url\((?!#)|@import", without_namespaces), name


def test_the_content_policy_allows_exactly_the_inlined_style_and_script(pages: dict[str, str]) -> None:
    for text in pages.values():
        for tag, rule in (("style", "style-src"), ("script", "script-src")):
            blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
            assert len(blocks) == 1
            digest = base64.b64encode(hashlib.sha256(blocks[0].encode()).digest()).decode()
            policy = text.split('content="', 1)[1].split('"', 1)[0]
            assert f"{rule} &#39;sha256-{digest}&#39;" in policy


def test_every_table_has_a_caption_and_every_header_a_scope(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        page = Page(text)
        assert page.tables == page.captions, name
        assert page.unscoped == 0, name
    assert Page(pages["table1.html"]).tables == 4


def test_pages_stay_within_their_budget(pages: dict[str, str]) -> None:
    for name, text in pages.items():
        assert len(text.encode()) < 500_000, name
        assert Page(text).nodes < 5000, name


def test_states_are_visible_with_words_and_reasons(pages: dict[str, str]) -> None:
    index = pages["index.html"]
    for words in ("✕ </span>failed", "○ </span>not run"):
        assert words in index
    assert "↻ </span>stale" in pages["table1.html"] and "↻ </span>stale" in pages["methods/vicreg.html"]
    assert "DivergenceError: the loss became NaN at step 17 &amp; stopped. Lower the learning rate." in index
    assert "methods.vicreg: covariance changed" in index
    assert "jointbench run synthetic --methods byol --protocols &#39;semi_supervised[1%]&#39;" in index
    assert '<span class="number">17</span>' in index


def test_a_panel_tells_where_a_measured_value_comes_from(pages: dict[str, str]) -> None:
    text = pages["methods/byol.html"]
    for words in (
        "Wilson 95%: ",
        "(covers test images), n = 1000",
        "spec-mnist5k/convnet/byol/linear_probe/mnist5k/seed0",
        "0123456789abcdef0123456789abcdef01234567, clean",
        "numpy 2.1.0, torch 2.6.0",
        "Example CPU @ 2.0 GHz",
        "4.25 s",
        "26.50 s",
        "2346 images/s",
        "812 MB",
        "40 entries, in the store",
        "logs/0123abcd.log",
    ):
        assert words in text, words


def test_a_panel_tells_where_a_published_value_comes_from(pages: dict[str, str]) -> None:
    text = pages["table1.html"]
    assert "quoted: this source took the value from elsewhere" in text
    assert "read: read in the paper or in the authors&#39; repository" in text
    assert "bardes2022vicreg, Table 1 (quoted)" in text
    assert 'href="https://arxiv.org/abs/2006.07733"' in text
    assert text.count("800 epochs (not printed in this source, taken from others)") == 4


def test_every_page_names_a_source_with_the_same_letter(pages: dict[str, str]) -> None:
    assert "Chen et al. 2020b. A Simple Framework" in pages["methods/simclr.html"]
    assert "Chen et al. 2020b. A Simple Framework" in pages["table1.html"]
    for letter in "ab":
        assert f"Chen et al. 2020{letter}" in pages["about.html"]
    assert not any("Chen et al. 2020," in text or "Chen et al. 2020." in text for text in pages.values())


def test_the_note_on_labels_stands_in_the_open(pages: dict[str, str]) -> None:
    for name in ("index.html", "table1.html"):
        without_folded = re.sub(r"<details.*?</details>", "", pages[name], flags=re.DOTALL)
        assert "Supervised was trained with all labels of the training split;" in without_folded


def test_the_headline_and_a_method_page_name_the_users_folder(tmp_path: Path) -> None:
    plan = make_plan(methods=("vicreg",), states={})
    rows = make_rows(plan)
    named = DataSpec(key="folder", params={"name": "birds"})
    cells = []
    for cell in plan.cells:
        data = named if cell.spec.protocol == "knn" else DataSpec(key="folder", params={"name": "fish"})
        spec = cell.spec.model_copy(
            update={"pretrain": cell.spec.pretrain.model_copy(update={"data": named}), "data": data}
        )
        cells.append(replace(cell, spec=spec))
    index = build_site(
        tmp_path,
        plan=replace(plan, cells=tuple(cells)),
        rows=rows,
        history=make_history(plan),
        published=published_values(),
        methods=METHODS,
        protocols=PROTOCOLS,
        suite="synthetic",
    )
    assert "under 4 evaluations on fish, birds, backbone" in index.read_text(encoding="utf-8")
    page = (tmp_path / "methods/vicreg.html").read_text(encoding="utf-8")
    assert "birds, tested on fish" in page and "k-NN on birds" in page


def test_seeds_that_agree_say_so_in_the_panel(tmp_path: Path) -> None:
    plan = make_plan(seeds=2, methods=("vicreg",), states={})
    rows = make_rows(plan)
    rows.loc[rows["metric"] == "top1", "value"] = 91.0
    build_site(
        tmp_path,
        plan=plan,
        rows=rows,
        history=make_history(plan),
        published=published_values(),
        methods=METHODS,
        protocols=PROTOCOLS,
        suite="synthetic",
    )
    page = (tmp_path / "methods/vicreg.html").read_text(encoding="utf-8")
    assert "mean of 2 seeds 91.0000 %, no spread between 2 seeds<" in page
    assert "no spread between 2 seeds; range of 2 seeds" in page


def test_titles_are_escaped_everywhere(site: Path, pages: dict[str, str]) -> None:
    for text in pages.values():
        assert "Sim<CLR>" not in text
    assert "Sim&lt;CLR&gt; &amp; 100%_" in pages["index.html"]
    assert r"Sim\textless{}CLR\textgreater{} \& 100\%\_" in (site / "downloads/table1-measured.tex").read_text()


def test_each_table_is_offered_in_five_formats(site: Path, pages: dict[str, str]) -> None:
    for origin in ("published", "measured", "both"):
        for suffix in ("csv", "md", "tex", "json", "bib"):
            assert f'href="downloads/table1-{origin}.{suffix}"' in pages["table1.html"]
            assert (site / f"downloads/table1-{origin}.{suffix}").stat().st_size > 100


def test_a_method_page_shows_card_curves_and_results(pages: dict[str, str]) -> None:
    text = pages["methods/vicreg.html"]
    assert "l = λ s(Z, Z&#39;) + μ [v(Z) + v(Z&#39;)]" in text
    assert text.count('<svg class="architecture"') == 1
    assert text.count("<svg ") == 3 and "covariance from 1.33 to 0.221" in text
    assert "the covariance term decorrelates the dimensions" in text
    assert "AdamW in place of LARS" in pages["methods/simclr.html"]
    assert pages["methods/random_init.html"].count("<svg ") == 1


def test_figures_take_their_colors_from_the_page(pages: dict[str, str]) -> None:
    drawings = re.findall(r"<svg (?!class=.architecture).*?</svg>", pages["methods/vicreg.html"], flags=re.DOTALL)
    for drawing in drawings:
        assert not re.search(r"#[0-9a-f]{6}\b|<style|<metadata|font-family", drawing)
        assert re.search(r'class="(s0-fill )?s0-stroke"', drawing) and "<text" in drawing
        assert 'role="img"' in drawing and 'aria-label="' in drawing


def test_the_methods_page_shows_every_figure_and_the_comparison_with_its_downloads(
    site: Path, pages: dict[str, str]
) -> None:
    text = pages["methods.html"]
    assert text.count('<svg class="architecture"') == len(METHODS)
    for key in METHODS:
        assert f'<a href="methods/{key}.html">' in text
    for suffix in ("csv", "md", "tex", "json", "bib"):
        assert f'href="downloads/comparison.{suffix}"' in text
    assert "what prevents dimensional collapse" in (site / "downloads/comparison.csv").read_text(encoding="utf-8")


def test_the_errata_page_lists_every_item_with_its_severity_its_test_and_the_methods_at_hand(
    site: Path, pages: dict[str, str]
) -> None:
    text = pages["errata.html"]
    rows = re.findall(r'<tr id="item-(\d+)">.*?</tr>', text, flags=re.DOTALL)
    assert rows == [str(number) for number in range(1, 37)]
    plain = text.replace("\u200b", "")
    assert "methods/test_vicreg.py::test_only_the_variance_term_punishes_a_constant_embedding" in plain
    eleventh = plain.split('id="item-11"')[1].split("</tr>")[0]
    assert '<a href="methods/vicreg.html">VICReg</a>.' in eleventh and "error" in eleventh
    assert "barlow" not in eleventh.replace("Barlow", "")  # a method without a page here has no link
    assert (site / "downloads/errata.csv").read_text(encoding="utf-8").count("\n") == 37


def test_several_seeds_show_their_mean_and_each_run(tmp_path: Path) -> None:
    text = build(tmp_path, seeds=3).with_name("table1.html").read_text(encoding="utf-8")
    assert "3 seeds" in text and "mean of 3 seeds 94.5000 %" in text
    assert len(re.findall(r"<summary>Seed 2 ", text)) == 20


def test_a_page_of_an_earlier_build_does_not_stay(tmp_path: Path) -> None:
    build(tmp_path)
    kept = tmp_path / "notes.txt"
    kept.write_text("mine")
    plan = make_plan(methods=("vicreg",))
    build_site(
        tmp_path,
        plan=plan,
        rows=make_rows(plan),
        history=make_history(plan),
        published=published_values(),
        methods=METHODS,
        protocols=PROTOCOLS,
        suite="synthetic",
    )
    assert not (tmp_path / "methods/byol.html").exists()
    assert (tmp_path / "methods/vicreg.html").exists() and kept.exists()


def test_an_empty_store_gives_a_report_that_says_so(tmp_path: Path) -> None:
    plan = make_plan(states={(method, name): "missing" for method in METHODS for name in _names()})
    columns = make_rows(make_plan()).columns
    index = build_site(
        tmp_path,
        plan=plan,
        rows=pd.DataFrame(columns=columns),
        history=pd.DataFrame(columns=["pretrain_identity", "method", "seed", "epoch", "term", "value", "kind"]),
        published=published_values(),
        methods=METHODS,
        protocols=PROTOCOLS,
        suite="synthetic",
    )
    text = index.read_text(encoding="utf-8")
    assert '<span class="number">20</span>' in text
    assert text.count("Never computed") >= 20
    assert "No methods can be compared in words yet" in text


def _names() -> list[str]:
    return ["linear_probe", "knn", "semi_supervised[1%]", "semi_supervised[10%]"]


def test_importing_the_reports_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, reports.site, reports.table1; "
        "print(sorted({'torch', 'matplotlib', 'jinja2', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
