"""A table as LaTeX with booktabs rules; every text is escaped, so that pdflatex compiles it as it is."""

from __future__ import annotations

import textwrap
import unicodedata

from bench.table import Cell, HeaderCell, Table

HEADING = 14
"""Signs of a heading above one column; a longer one goes on in a second line, else it would widen its last column."""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": "'",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "\u00a0": "~",
    "\u202f": r"\,",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "→": r"$\to$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "§": r"\S{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "⇡": r"$\Uparrow$",
    "⇣": r"$\Downarrow$",
    "↻": r"$\circlearrowright$",
    "◐": r"$\odot$",
    "✕": r"$\times$",
    "○": r"$\circ$",
    "²": r"$^{2}$",
    "³": r"$^{3}$",
    "°": r"$^{\circ}$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ν": r"$\nu$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}

ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}

PACKAGES = "booktabs, amssymb and textcomp, with fontenc T1"


def to_latex(table: Table) -> str:
    """A ``table`` environment for a document that loads the packages named in its first line."""
    columns = "l" + "".join("r" if column.metric else "l" for column in table.columns)
    size = r"\footnotesize" if len(table.columns) <= 8 else r"\scriptsize"
    lines = [
        f"% needs {PACKAGES}",
        r"\begin{table}",
        r"\centering" + size,
        r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape_latex(table.title)}. {escape_latex(table.caption)}}}",
        rf"\label{{tab:{''.join(sign for sign in table.key if sign.isalnum() or sign == '-')}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_head(table),
        r"\midrule",
        *(" & ".join([escape_latex(row.title), *map(_cell, row.cells)]) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *_notes(table),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text as LaTeX source; a sign that pdflatex cannot set appears as its code point."""
    return "".join(_sign(sign) for sign in " ".join(text.split(" ")))


def _sign(sign: str) -> str:
    if sign in SPECIAL:
        return SPECIAL[sign]
    if sign.isascii():
        return sign if sign.isprintable() else " "
    base = unicodedata.normalize("NFD", sign)
    if len(base) == 2 and base[0].isascii() and base[1] in ACCENTS:
        letter = {"i": r"\i", "j": r"\j"}.get(base[0], base[0])
        return rf"\{ACCENTS[base[1]]}{{{letter}}}"
    return rf"\texttt{{U+{ord(sign):04X}}}"


def _head(table: Table) -> list[str]:
    levels = table.header()
    placed: list[dict[int, HeaderCell]] = [{} for _ in levels]
    for number, level in enumerate(levels):
        for cell in level:
            # A leaf that reaches up over empty spanners stands on the bottom line, next to the rule.
            placed[len(levels) - 1 if cell.leaf else number][cell.column] = cell
    lines = []
    for number, line in enumerate(placed):
        last = number == len(placed) - 1
        fields = [escape_latex(table.stub) if last else ""]
        index = 0
        while index < len(table.columns):
            found = line.get(index)
            fields.append(_header_field(found, numeric=table.columns[index].metric is not None))
            index += found.width if found else 1
        lines.append(" & ".join(fields) + r" \\")
        if not last:
            rules = (f"\\cmidrule(lr){{{cell.column + 2}-{cell.column + 1 + cell.width}}}" for cell in line.values())
            lines.append(" ".join(rules))
    return lines


def _header_field(cell: HeaderCell | None, *, numeric: bool) -> str:
    if cell is None:
        return ""
    if cell.leaf and not numeric:
        return escape_latex(cell.title)
    lines = textwrap.wrap(cell.title, HEADING * cell.width, break_long_words=False) or [""]
    heading = r" \\ ".join(map(escape_latex, lines))
    if len(lines) > 1:
        heading = rf"\shortstack{{{heading}}}"
    return rf"\multicolumn{{{cell.width}}}{{c}}{{{heading}}}"


def _cell(cell: Cell) -> str:
    number = escape_latex(cell.number)
    if cell.best and number:
        number = rf"\textbf{{{number}}}"
    number += "".join(escape_latex(mark) for mark in cell.marks)
    small = [rf"{{\tiny {escape_latex(part)}}}" for part in (cell.span, cell.tag) if part]
    stacked = [part for part in (number, *small) if part]
    if len(stacked) < 2:
        return "".join(stacked)
    lines = r" \\ ".join(stacked)
    return rf"\shortstack[r]{{{lines}}}"


def _notes(table: Table) -> list[str]:
    told = [*table.notes, *table.reasons(), *(f"{mark}: {meaning}." for mark, meaning in table.legend()), *table.rules]
    if not told:
        return []
    text = " ".join(escape_latex(sentence) for sentence in told)
    return [r"\par\smallskip", rf"\parbox{{0.95\linewidth}}{{\footnotesize {text}}}"]
