"""A table as an HTML fragment: a real ``<table>`` with caption, scopes, and full precision in ``data-value``."""

from __future__ import annotations

from html import escape

from bench.table import STATES, Cell, HeaderCell, Row, Table

MOST_REASONS = 8
"""Longer lists of reasons are folded away; every cell has its own as a tooltip, too."""


def to_html(table: Table, *, base: str = "", link_cells: bool = True) -> str:
    """Render a ``<figure>`` that holds the table and its notes.

    Args:
        table: what to render.
        base: relative path from the page to the site's root, for example ``../``.
        link_cells: link every cell to its panel, which must then be on the same page.
    """
    key = escape(table.key)
    caption = f'<span class="title">{escape(table.title)}.</span> {escape(table.caption)}'
    parts = [
        f'<figure class="table" id="table-{key}">',
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="caption-{key}">',
        "<table>",
        f'<caption id="caption-{key}">{caption}</caption>',
        *_head(table),
        "<tbody>",
        *(_row(table, row, base=base, link_cells=link_cells) for row in table.rows),
        "</tbody>",
        "</table>",
        "</div>",
        *_notes(table),
        "</figure>",
    ]
    return "\n".join(parts) + "\n"


def _head(table: Table) -> list[str]:
    levels = table.header()
    lines = ["<thead>"]
    starts = _group_starts(table)
    for number, level in enumerate(levels):
        cells = "".join(_header_cell(table, cell, starts=starts) for cell in level)
        if number == 0:
            rowspan = _span("rowspan", len(levels))
            cells = f'<th scope="col" class="stub"{rowspan} data-column="0">{escape(table.stub)}</th>{cells}'
        lines.append(f"<tr>{cells}</tr>")
    lines.append("</thead>")
    return lines


def _header_cell(table: Table, cell: HeaderCell, *, starts: frozenset[int]) -> str:
    classes = [] if cell.leaf and table.columns[cell.column].metric is None else ["num"]
    if cell.column in starts:
        classes.append("start")
    scope = "col" if cell.leaf else "colgroup"
    css = f' class="{" ".join(classes)}"' if classes else ""
    spans = _span("colspan", cell.width) + _span("rowspan", cell.height)
    place = f' data-column="{cell.column + 1}"' if cell.leaf else ""
    return f'<th scope="{scope}"{css}{spans}{place}>{escape(cell.title)}</th>'


def _span(name: str, size: int) -> str:
    return f' {name}="{size}"' if size > 1 else ""


def _group_starts(table: Table) -> frozenset[int]:
    """Columns at which another outermost group begins: they carry the vertical rule."""
    outer = [column.groups[:1] for column in table.columns]
    return frozenset(index for index in range(1, len(outer)) if outer[index] != outer[index - 1])


def _row(table: Table, row: Row, *, base: str, link_cells: bool) -> str:
    title = escape(row.title)
    if row.href:
        title = f'<a href="{escape(base + row.href)}">{title}</a>'
    starts = _group_starts(table)
    cells = "".join(
        _cell(cell, start=index in starts, numeric=table.columns[index].metric is not None, link=link_cells)
        for index, cell in enumerate(row.cells)
    )
    return f'<tr><th scope="row">{title}</th>{cells}</tr>'


def _cell(cell: Cell, *, start: bool, numeric: bool, link: bool) -> str:
    classes: list[str] = [cell.state]
    classes += [name for name, holds in (("num", numeric), ("best", cell.best), ("start", start)) if holds]
    content = _content(cell)
    if link and cell.anchor and content:
        content = f'<a href="#{escape(cell.anchor)}">{content}</a>'
    value = "" if cell.value is None else f' data-value="{float(cell.value)!r}"'
    title = f' title="{escape(cell.reason)}"' if cell.reason and STATES[cell.state].word else ""
    return f'<td class="{" ".join(classes)}"{value}{title}>{content}</td>'


def _content(cell: Cell) -> str:
    parts = []
    if cell.number:
        number = escape(cell.number)
        hidden = '<span class="sr"> (best group)</span>' if cell.best else ""
        marks = f"<sup>{escape(''.join(cell.marks))}</sup>" if cell.marks else ""
        tag = "strong" if cell.best else "b"
        parts.append((f"<{tag}>{number}</{tag}>" if cell.value is not None else number) + hidden + marks)
    if cell.span:
        parts.append(f'<span class="span">{escape(cell.span)}</span>')
    mark = STATES[cell.state]
    if mark.word:
        parts.append(f'<span class="tag"><span aria-hidden="true">{mark.glyph} </span>{escape(mark.word)}</span>')
    elif mark.glyph:
        parts.append(f'<abbr title="{escape(cell.reason or mark.meaning)}">{mark.glyph}</abbr>')
    return " ".join(parts)


def _notes(table: Table) -> list[str]:
    lines = [f"<p>{escape(note)}</p>" for note in table.notes]
    reasons = table.reasons()
    if reasons:
        listed = '<ul class="reasons">' + "".join(f"<li>{escape(reason)}</li>" for reason in reasons) + "</ul>"
        if len(reasons) > MOST_REASONS:
            title = f"Why cells have no fresh value: {len(reasons)} reasons"
            listed = f'<details class="rules"><summary>{title}</summary>{listed}</details>'
        lines.append(listed)
    legend = table.legend()
    if any(cell.best for _, _, cell in table.cells()):
        legend = (("bold", "in the best group of its column"), *legend)
    if legend:
        entries = "".join(f"<div><dt>{escape(sign)}</dt><dd>{escape(meaning)}</dd></div>" for sign, meaning in legend)
        lines.append(f'<dl class="legend">{entries}</dl>')
    if table.rules:
        rules = "".join(f"<p>{escape(rule)}</p>" for rule in table.rules)
        lines.append(f'<details class="rules"><summary>How this table was made</summary>{rules}</details>')
    return ["<figcaption>", *lines, "</figcaption>"] if lines else []
