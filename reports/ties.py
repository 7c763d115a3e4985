"""Best groups: whose intervals overlap that of the best value of a column, and the sentence that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.metric import Metric
from bench.table import Cell, Column, Row, Table
from reports.words import listed

RULE = (
    "Bold marks the best group of a column: every value whose 95 % interval overlaps that of the best. "
    "Over several seeds, the half-widths of the intervals over seeds and over test images are added in quadrature, "
    "because the two are independent. Two seeds have only their range, which misses the expected value about half of "
    "the time and makes the group too small. Otherwise this is a cautious reading; it is never a test."
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


@dataclass(frozen=True, kw_only=True)
class Group:
    """The best group of one column: the row of the best value, and all rows of the group with it."""

    best: int
    rows: frozenset[int]


def best_group(contenders: Sequence[Contender], metric: Metric) -> Group | None:
    """The rows whose interval overlaps that of the best value; None when fewer than two values compete, or none can
    be the best because the metric has no direction."""
    if len(contenders) < 2 or metric.higher_is_better is None:
        return None
    direction = 1 if metric.higher_is_better else -1
    best = max(contenders, key=lambda contender: direction * contender.value)
    overlapping = (c.row for c in contenders if c.low <= best.high and c.high >= best.low)
    return Group(best=best.row, rows=frozenset(overlapping))


def mark_best(table: Table, contenders: Sequence[Sequence[Contender]], *, where: str = "") -> Table:
    """Mark the best group of every column and say in a note which methods it cannot separate.

    Args:
        table: the table.
        contenders: for each column, who competes in it; empty for a column of text.
        where: what the compared columns have in common, for the notes of a table that holds several comparisons.
    """
    groups = [
        best_group(members, column.metric) if column.metric else None
        for members, column in zip(contenders, table.columns, strict=True)
    ]
    if not any(groups):
        return table
    rows = tuple(_marked(row, index, groups) for index, row in enumerate(table.rows))
    return replace(table, rows=rows, notes=(*table.notes, *_sentences(table, groups, where)))


def _marked(row: Row, index: int, groups: Sequence[Group | None]) -> Row:
    cells: list[Cell] = [
        replace(cell, best=True) if group and index in group.rows else cell
        for cell, group in zip(row.cells, groups, strict=True)
    ]
    return replace(row, cells=tuple(cells))


def _sentences(table: Table, groups: Sequence[Group | None], where: str) -> list[str]:
    """One sentence for each group of several methods, with the columns in which it occurs."""
    ties: dict[Group, list[Column]] = {}
    for group, column in zip(groups, table.columns, strict=True):
        if group and len(group.rows) > 1:
            ties.setdefault(group, []).append(column)
    prefix = f"{where}: by" if where else "By"
    sentences = []
    for group, columns in ties.items():
        titles = [table.rows[index].title for index in sorted(group.rows - {group.best})]
        others = f"interval of {titles[0]} overlaps" if len(titles) == 1 else f"intervals of {listed(titles)} overlap"
        what = listed([_short(column) for column in columns])
        sentences.append(
            f"{prefix} {what}, the 95 % {others} that of {table.rows[group.best].title}, "
            "the best of the competing values."
        )
    return sentences


def _short(column: Column) -> str:
    return f"{column.title} ({column.groups[-1].lower()})" if column.groups else column.title
