from __future__ import annotations

import csv
import io
import json
import math
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bench.metric import TOP1, TOP5, Metric
from bench.table import Cell, Column, Row, Table
from bench.table_html import to_html
from bench.table_latex import escape_latex, to_latex

ODD = "Sim<CLR> & 100%_x | $5 ~ #1 {a} \\b^2 \"q\" 'p' λ é † 日"
LOSS = Metric(key="loss", title="loss", higher_is_better=False, decimals=3)


def make_table() -> Table:
    columns = (
        Column(title="data"),
        Column(title="top-1", groups=("Measured", "Linear"), metric=TOP1),
        Column(title="top-5", groups=("Measured", "Linear"), metric=TOP5),
        Column(title="loss", groups=("Measured",), metric=LOSS),
    )
    first = (
        Cell(text=ODD),
        Cell(
            state="measured",
            metric=TOP1,
            value=94.0 + 1 / 3,
            low=93.06,
            high=95.04,
            interval="Wilson 95%",
            covers="test images",
            n=1000,
            seeds=1,
            anchor="cell-a",
            best=True,
        ),
        Cell(state="failed", metric=TOP5, reason="ValueError: a < b & c.", anchor="cell-b"),
        Cell(state="published", metric=LOSS, value=-1.23456, low=-2.0, high=-0.5, marks=("†",)),
    )
    second = (
        Cell(text="plain"),
        Cell(state="stale", metric=TOP1, value=70.05, reason="Code changed.", anchor="cell-c"),
        Cell(state="missing", metric=TOP5, reason="Never computed."),
        Cell(state="absent", metric=LOSS),
    )
    return Table(
        key="odd",
        title="Table X",
        caption="Caption with <angle> & 5 %.",
        columns=columns,
        rows=(Row(title=ODD, cells=first, href="methods/a.html"), Row(title="B", cells=second)),
        notes=("A note_with & signs.",),
        rules=("A rule.",),
    )


class Page(HTMLParser):
    """Collects what a test asks about: cells with attributes and text, and the nesting of the tags."""

    VOID = frozenset(("meta", "br", "input", "link", "hr", "img"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, dict[str, str | None], str]] = []
        self.open: list[str] = []
        self.captions = 0
        self.feed(text)
        assert self.open == [], f"unclosed tags: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append((tag, dict(attrs), ""))
        self.captions += tag == "caption"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            tag, attrs, text = self.cells[-1]
            self.cells[-1] = (tag, attrs, text + data)


def test_a_cell_with_a_value_but_no_metric_is_refused() -> None:
    with pytest.raises(ValueError, match=r"value 1\.0 needs the metric"):
        Cell(state="measured", value=1.0)


def test_a_row_that_does_not_fit_the_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="Row 'A' of table 'k' has 1 cells for 2 columns"):
        Table(
            key="k",
            title="T",
            caption="C",
            columns=(Column(title="x"), Column(title="y")),
            rows=(Row(title="A", cells=(Cell(text="1"),)),),
        )


def test_numbers_and_intervals_are_formatted_by_the_metric() -> None:
    cells = make_table().rows[0].cells
    assert (cells[1].number, cells[1].span) == ("94.3", "93.1–95.0")
    assert (cells[3].number, cells[3].span) == ("-1.235", "-2.000 to -0.500")


def test_every_state_without_a_plain_number_has_a_glyph_and_says_what_it_is() -> None:
    table = make_table()
    assert table.rows[0].cells[2].plain == "✕ failed"
    assert table.rows[1].cells[1].plain == "70.0 ↻ stale"
    assert table.rows[1].cells[2].plain == "○ not run"
    meanings = dict(table.legend())
    assert set(meanings) == {"↻ stale", "✕ failed", "○ not run", "–", "†"}
    assert meanings["†"].startswith("quoted")


def test_reasons_name_the_row_and_the_group_once() -> None:
    table = make_table()
    assert table.reasons() == (
        f"{ODD}, Linear: failed. ValueError: a < b & c.",
        "B, Linear: stale. Code changed.",
        "B, Linear: not run. Never computed.",
    )


def test_a_long_list_of_reasons_is_folded_away_and_a_short_one_is_not() -> None:
    table = make_table()
    assert "no fresh value" not in to_html(table)
    rows = tuple(replace(table.rows[1], title=f"B{index}") for index in range(9))
    text = to_html(replace(table, rows=rows))
    assert "<summary>Why cells have no fresh value: 18 reasons</summary>" in text and "B8, Linear: not run." in text


def test_header_rows_cover_every_column_exactly_once() -> None:
    table = make_table()
    covered = [[0] * len(table.columns) for _ in range(3)]
    for level, line in enumerate(table.header()):
        for cell in line:
            for row in range(level, level + cell.height):
                for column in range(cell.column, cell.column + cell.width):
                    covered[row][column] += 1
    assert covered == [[1] * 4] * 3
    leaves = [cell.title for line in table.header() for cell in line if cell.leaf]
    assert sorted(leaves) == sorted(column.title for column in table.columns)


def test_html_is_a_real_table_with_caption_scopes_and_full_precision() -> None:
    page = Page(to_html(make_table()))
    assert page.captions == 1
    heads = [attrs for tag, attrs, _ in page.cells if tag == "th"]
    assert {attrs["scope"] for attrs in heads} == {"col", "colgroup", "row"}
    values = [attrs.get("data-value") for tag, attrs, _ in page.cells if tag == "td"]
    assert values[1] == repr(94.0 + 1 / 3)
    assert float(str(values[3])) == -1.23456
    assert [value for value in values if value is None] == [None] * 5


def test_html_escapes_text_and_says_best_group_in_words() -> None:
    text = to_html(make_table())
    assert "<CLR>" not in text and "Sim&lt;CLR&gt; &amp; 100%_x" in text
    cells = [content for tag, _, content in Page(text).cells if tag == "td"]
    assert "94.3 (best group)" in cells[1]
    assert "✕ failed" in cells[2]


def test_html_links_cells_only_when_the_panels_are_on_the_page() -> None:
    table = make_table()
    assert to_html(table).count('<a href="#cell-') == 3
    assert 'href="#cell-' not in table.render("html")
    assert 'href="../methods/a.html"' in to_html(table, base="../")


def test_html_without_any_value_keeps_the_glyph_and_its_meaning() -> None:
    cells = [content for tag, _, content in Page(to_html(make_table())).cells if tag == "td"]
    assert cells[-1] == "–"
    assert '<abbr title="no value is printed in the sources">–</abbr>' in to_html(make_table())


def test_csv_keeps_full_precision_and_the_state_beside_each_number() -> None:
    header, first, second = csv.reader(io.StringIO(make_table().render("csv")))
    assert header[:4] == ["Method", "data", "Measured · Linear · top-1 (%)", "Measured · Linear · top-1 (%), low"]
    assert len(header) == len(first) == len(second) == 2 + 3 * 7
    row = dict(zip(header, first, strict=True))
    assert row["Method"] == ODD
    assert float(row["Measured · Linear · top-1 (%)"]) == 94.0 + 1 / 3
    assert row["Measured · Linear · top-1 (%), best group"] == "yes"
    assert row["Measured · Linear · top-5 (%)"] == ""
    assert row["Measured · Linear · top-5 (%), state"] == "failed"
    assert row["Measured · loss, marks"] == "quoted"


def test_json_holds_everything_and_no_undefined_number() -> None:
    content = json.loads(make_table().render("json"), parse_constant=lambda name: pytest.fail(name))
    cell = content["rows"][0]["cells"][1]
    assert cell["value"] == 94.0 + 1 / 3
    assert (cell["n"], cell["seeds"], cell["interval"], cell["best_group"]) == (1000, 1, "Wilson 95%", True)
    assert "value" not in content["rows"][0]["cells"][2]
    assert content["columns"][3]["higher_is_better"] is False
    assert content["rules"] == ["A rule."]


def test_markdown_has_the_same_number_of_columns_on_every_line() -> None:
    text = make_table().render("md")
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {6}
    assert "**94.3** (93.1–95.0)" in text
    assert "- ✕ failed: the run ended with an error" in text


def test_latex_escapes_every_special_sign() -> None:
    assert escape_latex("a_b & 5% $x #1 {y} ~^\\") == (
        r"a\_b \& 5\% \$x \#1 \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )
    assert escape_latex("Altché λ † 日") == r"Altch\'{e} $\lambda$ $^{\dagger}$ \texttt{U+65E5}"


def test_latex_has_booktabs_rules_and_spanning_headers() -> None:
    text = to_latex(make_table())
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\multicolumn{3}{c}{Measured}", r"\cmidrule(lr){3-5}"):
        assert command in text
    assert r"\cmidrule(lr){3-4}" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "shortstack" not in line]
    assert all(len(line.replace(r"\&", "").split("&")) <= 5 for line in body)


def test_a_heading_too_long_for_its_columns_goes_on_in_a_second_line_of_latex() -> None:
    long = replace(make_table(), columns=tuple(
        replace(column, groups=("Measured & compared, " * 4,)) if column.groups else column
        for column in make_table().columns
    ))  # fmt: skip
    line = next(line for line in to_latex(long).splitlines() if "compared" in line)
    heading = line.partition(r"\shortstack{")[2]
    assert heading and max(map(len, heading.split(r" \\ "))) <= 3 * 14 + 8


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_as_it_is(tmp_path: Path) -> None:
    document = (
        "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs,amssymb,textcomp}\n"
        f"\\begin{{document}}\n{to_latex(make_table())}\\end{{document}}\n"
    )
    (tmp_path / "table.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Missing character" not in done.stdout


def test_a_missing_value_never_prints_as_nan() -> None:
    cell = Cell(state="measured", metric=TOP1, value=math.nan)
    assert cell.number == ""


def test_a_metric_clips_to_the_bounds_that_it_has() -> None:
    assert [TOP1.clip(value) for value in (-0.1, 50.0, 100.2)] == [0.0, 50.0, 100.0]
    assert [TOP5.clip(value) for value in (-0.1, 50.0, 100.2)] == [0.0, 50.0, 100.0]
    assert [LOSS.clip(value) for value in (-0.1, 100.2)] == [-0.1, 100.2]
