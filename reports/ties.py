"""Best groups: which values of a column cannot be told apart from the best one, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.metric import Metric
from bench.table import Cell, Column, Row, Table

RULE = (
    "Bold marks the best group of a column: every value whose 95 % interval overlaps that of the best. "
    "This is a cautious reading, not a test."
)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One value that takes part in the comparison of its column.

    Attributes:
        row: index of its row.
        low, high: the interval used for the comparison; equal to the value where there is none.
    """

    row: int
    value: float
    low: float
    high: float


def best_group(contenders: Sequence[Contender], metric: Metric) -> frozenset[int]:
    """Rows whose interval overlaps that of the best value; empty when fewer than two values compete."""
    if len(contenders) < 2:
        return frozenset()
    direction = 1 if metric.higher_is_better else -1
    best = max(contenders, key=lambda contender: direction * contender.value)
    return frozenset(c.row for c in contenders if c.low <= best.high and c.high >= best.low)


def mark_best(table: Table, contenders: Sequence[Sequence[Contender]], *, where: str = "") -> Table:
    """Mark the best group of every column and add a note for the columns that cannot separate their methods.

    Args:
        table: the table.
        contenders: for each column, who competes in it; empty for a column of text.
        where: what the compared columns have in common, for the notes of a table that holds several comparisons.
    """
    groups = [
        best_group(members, column.metric) if column.metric else frozenset()
        for members, column in zip(contenders, table.columns, strict=True)
    ]
    if not any(groups):
        return table
    rows = tuple(_marked(row, index, groups) for index, row in enumerate(table.rows))
    notes = [sentence for sentence in (_sentences(table, groups, where)) if sentence not in table.notes]
    return replace(table, rows=rows, notes=(*table.notes, *notes))


def _marked(row: Row, index: int, groups: Sequence[frozenset[int]]) -> Row:
    cells: list[Cell] = [
        replace(cell, best=True) if index in group else cell for cell, group in zip(row.cells, groups, strict=True)
    ]
    return replace(row, cells=tuple(cells))


def _sentences(table: Table, groups: Sequence[frozenset[int]], where: str) -> list[str]:
    """One sentence for each set of methods that ties for the best place, with the columns in which it does."""
    ties: dict[frozenset[int], list[Column]] = {}
    for group, column in zip(groups, table.columns, strict=True):
        if len(group) > 1:
            ties.setdefault(group, []).append(column)
    prefix = f"{where}: " if where else ""
    sentences = []
    for group, columns in ties.items():
        names = _listed([table.rows[index].title for index in sorted(group)])
        sentences.append(f"{prefix}{names} cannot be told apart in {_listed([_short(column) for column in columns])}.")
    return sentences


def _short(column: Column) -> str:
    return f"{column.groups[-1].lower()} {column.title}" if column.groups else column.title


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
