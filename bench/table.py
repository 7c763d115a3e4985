"""Cells and tables: one object that renders as HTML, CSV, Markdown, LaTeX and JSON.

A table never computes. It places values that were computed before, formats every number with its metric's own
formatter, and says in words why a cell has no number.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.metric import Metric

CellState = Literal[
    "text", "measured", "published", "stale", "partial", "failed", "missing", "undefined", "unplanned", "absent",
    "unverified",
]  # fmt: skip
Format = Literal["md", "csv", "latex", "json", "html"]


@dataclass(frozen=True, kw_only=True)
class StateMark:
    """How a state is told apart without color.

    Attributes:
        glyph, word: shown together in the cell; both empty where a plain number speaks for itself.
        meaning: for the legend.
    """

    glyph: str
    word: str
    meaning: str


STATES: dict[CellState, StateMark] = {
    "text": StateMark(glyph="", word="", meaning=""),
    "measured": StateMark(glyph="", word="", meaning="measured here with the present code, data and settings"),
    "published": StateMark(glyph="", word="", meaning="printed in the paper named in the row"),
    "stale": StateMark(glyph="↻", word="stale", meaning="measured before the code, the data or the settings changed"),
    "partial": StateMark(glyph="◐", word="partial", meaning="some seeds have no value, so no mean is formed"),
    "failed": StateMark(glyph="✕", word="failed", meaning="the run ended with an error"),
    "missing": StateMark(glyph="○", word="not run", meaning="planned, not computed yet"),
    "undefined": StateMark(glyph="n/d", word="", meaning="not defined for these data"),
    "unplanned": StateMark(glyph="·", word="", meaning="not part of this suite"),
    "absent": StateMark(glyph="–", word="", meaning="no value is printed in the sources"),
    "unverified": StateMark(glyph="?", word="", meaning="known from memory only, so it is left out"),
}

QUOTED = "†"
SECONDARY = "‡"
RECOMPUTED = "§"
ABOVE, BELOW, OPEN_ABOVE, OPEN_BELOW = "↑", "↓", "⇡", "⇣"
MARKS = {
    QUOTED: "quoted: the cited source took the value from elsewhere",
    SECONDARY: "read in a source that repeats the paper, not in the paper itself",
    RECOMPUTED: "computed for this harness from predictions that the authors released; no source prints it",
    ABOVE: "a lower bound: the curve of the reference does not reach this accuracy",
    BELOW: "an upper bound: the curve of the reference starts above this accuracy",
    OPEN_ABOVE: "the interval is open above: its upper end is such a lower bound",
    OPEN_BELOW: "the interval is open below: its lower end is such an upper bound",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        state: where the value comes from, or why there is none.
        metric: formats ``value``; absent for text cells.
        value: in the metric's unit; absent where there is none.
        text: what a text cell shows.
        low, high: ends of the interval, absent where there is none.
        interval: how the interval was computed, for example ``Wilson 95%``.
        covers: the source of variance that the interval covers.
        n: number of test samples.
        seeds: number of seeds behind the value.
        marks: footnote marks, keys of ``MARKS``.
        reason: one sentence on the state.
        anchor: id of the panel that tells where the value comes from.
        best: the value belongs to the best group of its column.
    """

    state: CellState = "text"
    metric: Metric | None = None
    value: float | None = None
    text: str = ""
    low: float | None = None
    high: float | None = None
    interval: str = ""
    covers: str = ""
    n: int | None = None
    seeds: int | None = None
    marks: tuple[str, ...] = ()
    reason: str = ""
    anchor: str = ""
    best: bool = False

    def __post_init__(self) -> None:
        if self.value is not None and self.metric is None:
            raise ValueError(f"A cell with the value {self.value} needs the metric that formats it.")

    @property
    def number(self) -> str:
        """The value as printed, the text of a text cell, or nothing."""
        return self.metric.format(self.value) if self.metric is not None else self.text

    @property
    def span(self) -> str:
        """The interval as printed, for example ``93.1–94.8``; empty where there is none."""
        if self.metric is None or self.value is None or self.low is None or self.high is None:
            return ""
        dash = "–" if self.low >= 0 else " to "
        return f"{self.metric.format(self.low)}{dash}{self.metric.format(self.high)}"

    @property
    def tag(self) -> str:
        """Glyph and word of the state; empty for a plain number."""
        mark = STATES[self.state]
        return f"{mark.glyph} {mark.word}".strip()

    @property
    def plain(self) -> str:
        """Everything the cell says, on one line without markup."""
        number = self.number + "".join(self.marks)
        span = f"[{self.span}]" if self.span else ""
        return " ".join(part for part in (number, span, self.tag) if part)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its title, the spanning headers above it from the outermost in, and its metric when it has one."""

    title: str
    groups: tuple[str, ...] = ()
    metric: Metric | None = None

    @property
    def path(self) -> str:
        """All headers on one line, with the unit."""
        unit = f" ({self.metric.unit})" if self.metric and self.metric.unit else ""
        return " · ".join((*self.groups, self.title)) + unit


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row: header, cells, the key of what it shows and a link relative to the site's root."""

    title: str
    cells: tuple[Cell, ...]
    key: str = ""
    href: str = ""


@dataclass(frozen=True, kw_only=True)
class HeaderCell:
    """One cell of the header rows, for the renderers: ``column`` is its leftmost column, counted from 0."""

    title: str
    column: int
    width: int
    height: int
    leaf: bool


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        key: identifier, used for ids and file names.
        title: short name, for example ``Table 1, measured``.
        caption: what is shown, on what, in which unit.
        stub: heading of the row headers.
        notes: what the table shows, in sentences below it.
        rules: how it was made: what stands in it, what the intervals are, what bold means.
        citations: citation keys of what the table shows, for BibTeX.
    """

    key: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    stub: str = "Method"
    notes: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    citations: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(
                    f"Row {row.title!r} of table {self.key!r} has {len(row.cells)} cells "
                    f"for {len(self.columns)} columns."
                )

    def cells(self) -> Iterator[tuple[Row, Column, Cell]]:
        """Every cell with its row and column, row by row."""
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                yield row, column, cell

    def header(self) -> list[list[HeaderCell]]:
        """The header rows, top to bottom; a column with fewer spanners than the others reaches up."""
        depth = max((len(column.groups) for column in self.columns), default=0)
        levels: list[list[HeaderCell]] = []
        for level in range(depth + 1):
            line: list[HeaderCell] = []
            index = 0
            while index < len(self.columns):
                column = self.columns[index]
                width = 1
                if len(column.groups) > level:
                    prefix = column.groups[: level + 1]
                    while (
                        index + width < len(self.columns) and self.columns[index + width].groups[: level + 1] == prefix
                    ):
                        width += 1
                    line.append(HeaderCell(title=prefix[-1], column=index, width=width, height=1, leaf=False))
                elif len(column.groups) == level:
                    height = depth + 1 - level
                    line.append(HeaderCell(title=column.title, column=index, width=1, height=height, leaf=True))
                index += width
            levels.append(line)
        return levels

    def reasons(self) -> tuple[str, ...]:
        """One sentence for each distinct reason of a cell that is stale, partial, failed or missing."""
        told: dict[str, None] = {}
        for row, column, cell in self.cells():
            if cell.state in ("stale", "partial", "failed", "missing") and cell.reason:
                where = ", ".join((row.title, *column.groups[-1:]))
                told[f"{where}: {STATES[cell.state].word}. {cell.reason}"] = None
        return tuple(told)

    def legend(self) -> tuple[tuple[str, str], ...]:
        """Glyphs and marks that occur in this table, with what they mean."""
        states = {cell.state for _, _, cell in self.cells()}
        marks = {mark for _, _, cell in self.cells() for mark in cell.marks}
        entries = [
            (f"{mark.glyph} {mark.word}".strip(), mark.meaning)
            for state, mark in STATES.items()
            if state in states and mark.glyph
        ]
        return (*entries, *((mark, MARKS[mark]) for mark in MARKS if mark in marks))

    def render(self, form: Format) -> str:
        """The table as text in one of the formats."""
        return RENDERERS[form](self)


def to_csv(table: Table) -> str:
    """Comma-separated values: numbers in full precision, each followed by interval, seeds, state and marks."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header = [table.stub]
    for column in table.columns:
        header.append(column.path)
        if column.metric is not None:
            header += [f"{column.path}, {part}" for part in ("low", "high", "seeds", "state", "best group", "marks")]
    writer.writerow(header)
    for row in table.rows:
        line: list[str] = [row.title]
        for column, cell in zip(table.columns, row.cells, strict=True):
            line += _csv_fields(column, cell)
        writer.writerow(line)
    return stream.getvalue()


def _csv_fields(column: Column, cell: Cell) -> list[str]:
    if column.metric is None:
        return [cell.plain]
    numbers = [_exact(number) for number in (cell.value, cell.low, cell.high)]
    seeds = "" if cell.seeds is None else str(cell.seeds)
    words = ", ".join(MARKS[mark].split(":")[0] for mark in cell.marks)
    return [*numbers, seeds, STATES[cell.state].word or cell.state, "yes" if cell.best else "", words]


def _exact(number: float | None) -> str:
    return "" if number is None else repr(float(number))


def to_json(table: Table) -> str:
    """JSON with everything the table knows, numbers in full precision."""
    content: dict[str, Any] = {
        "key": table.key,
        "title": table.title,
        "caption": table.caption,
        "stub": table.stub,
        "columns": [_json_column(column) for column in table.columns],
        "rows": [
            {"title": row.title, "key": row.key, "cells": [_json_cell(cell) for cell in row.cells]}
            for row in table.rows
        ],
        "notes": [*table.notes, *table.reasons()],
        "rules": list(table.rules),
        "legend": dict(table.legend()),
        "citations": list(table.citations),
    }
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _json_column(column: Column) -> dict[str, Any]:
    metric = column.metric
    return {
        "title": column.title,
        "groups": list(column.groups),
        "metric": metric.key if metric else None,
        "unit": metric.unit if metric else None,
        "higher_is_better": metric.higher_is_better if metric else None,
    }


def _json_cell(cell: Cell) -> dict[str, Any]:
    fields = {
        "state": cell.state,
        "value": cell.value,
        "display": cell.plain,
        "low": cell.low,
        "high": cell.high,
        "interval": cell.interval,
        "covers": cell.covers,
        "n": cell.n,
        "seeds": cell.seeds,
        "best_group": cell.best,
        "marks": list(cell.marks),
        "reason": cell.reason,
        "source": cell.anchor,
    }
    return {name: value for name, value in fields.items() if value not in (None, "", False, [])}


def to_markdown(table: Table) -> str:
    """A pipe table with caption, notes and legend; the best group is bold."""
    header = [table.stub, *(column.path for column in table.columns)]
    rule = ["---", *("---:" if column.metric else "---" for column in table.columns)]
    lines = [f"**{_markdown(table.title)}.** {_markdown(table.caption)}", ""]
    lines += [_pipes(_markdown(title) for title in header), _pipes(rule)]
    lines += [_pipes([_markdown(row.title), *(_markdown_cell(cell) for cell in row.cells)]) for row in table.rows]
    told = [*table.notes, *table.reasons(), *(f"{mark}: {meaning}" for mark, meaning in table.legend()), *table.rules]
    if told:
        lines += ["", *(f"- {_markdown(sentence)}" for sentence in told)]
    return "\n".join(lines) + "\n"


def _pipes(cells: Iterator[str] | list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown(text: str) -> str:
    for sign in "\\`*_|<[":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _markdown_cell(cell: Cell) -> str:
    number = _markdown(cell.number)
    if cell.best and number:
        number = f"**{number}**"
    span = f"({cell.span})" if cell.span else ""
    return " ".join(part for part in (number + "".join(cell.marks), span, cell.tag) if part)


def _to_html(table: Table) -> str:
    from bench.table_html import to_html

    return to_html(table, base="", link_cells=False)


def _to_latex(table: Table) -> str:
    from bench.table_latex import to_latex

    return to_latex(table)


RENDERERS: dict[Format, Callable[[Table], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "latex": _to_latex,
    "json": to_json,
    "html": _to_html,
}
