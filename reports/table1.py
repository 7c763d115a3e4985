"""Table 1: linear and semi-supervised evaluation, as published, as measured, and side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from bench.card import MethodCard, ProtocolCard
from bench.errors import RequestError
from bench.table import Cell, Column, Row, Table
from reports.measured import (
    MEASURED_NOTE,
    Measured,
    context_cells,
    epochs_cell,
    import_notes,
    label_notes,
    mark_contexts,
    measured_cells,
    measured_table,
    method_citations,
)
from reports.places import PLACES, WHAT, method_path, value_columns
from reports.published_rows import (
    BACKBONE,
    DATA,
    PublishedRow,
    citations,
    epochs_notes,
    published_cell,
    published_rows,
    sampling_interval,
    source_line,
)
from reports.results import Result
from reports.ties import RULE, Contender, mark_best

if TYPE_CHECKING:
    import pandas as pd

    from bench.plan import Plan

Origin = Literal["published", "measured", "both"]
SUPERVISED_NOTE = (
    "Published supervised rows are trained end to end: under “Linear” with all labels, "
    "elsewhere from scratch on the subset."
)
PUBLISHED_NOTE = (
    "Published rows are those of Bardes et al. 2022, Table 1; a value that they quote is cited from the method's own "
    "paper where that paper prints the same value for the same epochs. FNC and W-MSE, which that table lacks, come "
    "from their own sources; FNC's semi-supervised values start from a layer of the projector, as no other row's do, "
    "and are left out. Epochs, crops and numbers of views differ between rows."
)
LOWER_BOUND_NOTE = (
    "Papers print no spread: published values are compared by the Wilson interval of 50 000 validation images, "
    "a lower bound of their uncertainty. Supervised rows do not compete."
)


def build_table(
    origin: Origin,
    *,
    plan: Plan | None = None,
    rows: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
    methods: Mapping[str, MethodCard] | None = None,
    protocols: Mapping[str, ProtocolCard] | None = None,
    titles: Mapping[str, str] | None = None,
) -> Table:
    """Table 1 in one of its three forms.

    Args:
        origin: ``published`` needs ``published``; ``measured`` needs ``plan`` and ``rows``; ``both`` needs all three.
        titles: printed names of datasets and backbones by key.

    Raises:
        RequestError: there is no such origin, or an input is missing.
    """
    if origin not in ("published", "measured", "both"):
        raise RequestError(f"There is no origin {origin!r}. Known: published, measured, both.")
    printed: tuple[PublishedRow, ...] = ()
    if origin != "measured":
        if published is None:
            raise RequestError(f"Table 1 with origin {origin!r} needs the published values.")
        printed = published_rows(published)
        if origin == "published":
            return published_table(printed)
    if plan is None or rows is None:
        raise RequestError(f"Table 1 with origin {origin!r} needs a plan and the store's rows.")
    measured = Measured.of(plan, rows, methods=methods or {}, protocols=protocols or {}, titles=titles or {})
    return measured_table(measured) if origin == "measured" else side_by_side(printed, measured)


# --- published --------------------------------------------------------------------------------------------------


def published_table(printed: Sequence[PublishedRow]) -> Table:
    """Table 1 as published."""
    columns = (Column(title="epochs"), *value_columns(), Column(title="source"))
    table = Table(
        key="table1-published",
        title="Table 1, as published",
        caption=f"{WHAT} {DATA} (validation split), {BACKBONE}.",
        columns=columns,
        rows=tuple(
            Row(
                title=row.title,
                key=row.method,
                cells=(_epochs(row.epochs), *_published_cells(row), Cell(text=source_line(row))),
            )
            for row in printed
        ),
        rules=(PUBLISHED_NOTE, *epochs_notes(printed), SUPERVISED_NOTE, RULE, LOWER_BOUND_NOTE),
        citations=citations(tuple(printed)),
    )
    return mark_best(table, [(), *_published_contenders(table, printed, start=1), ()])


def _epochs(epochs: int | None) -> Cell:
    return Cell(text=str(epochs)) if epochs else Cell(state="absent", reason="not printed in the sources")


def _published_cells(row: PublishedRow | None) -> tuple[Cell, ...]:
    values = row.values if row else {}
    return tuple(published_cell(values.get((protocol, fraction, m.key)), m) for protocol, fraction, m in PLACES)


def _published_contenders(
    table: Table, printed: Sequence[PublishedRow | None], *, start: int
) -> list[tuple[Contender, ...]]:
    """For each of the six columns that begin at ``start``, the printed values that compete."""
    columns: list[tuple[Contender, ...]] = []
    for offset in range(len(PLACES)):
        members = []
        for index, (row, source) in enumerate(zip(table.rows, printed, strict=True)):
            value = row.cells[start + offset].value
            if value is not None and source is not None and source.method != "supervised":
                low, high = sampling_interval(value)
                members.append(Contender(row=index, value=value, low=low, high=high))
        columns.append(tuple(members))
    return columns


# --- side by side -----------------------------------------------------------------------------------------------


def side_by_side(printed: Sequence[PublishedRow], measured: Measured) -> Table:
    """Table 1 with published and measured values in one row per method; the contexts stand in the header."""
    measured = measured.without_detection
    contexts = _contexts(measured)
    order = _paired(printed, measured)
    columns = [Column(title="epochs", groups=(f"Published: {DATA}, {BACKBONE}",))]
    columns += value_columns(f"Published: {DATA}, {BACKBONE}")
    for members in contexts.values():
        heading = _heading(measured, next(iter(members.values())))
        columns += [Column(title="epochs", groups=(heading,)), *value_columns(heading)]
    rows = []
    for method, source in order:
        cells = [_published_epochs(source), *_published_cells(source)]
        for members in contexts.values():
            group = members.get(method, []) if method else []
            cells += [epochs_cell(group) if group else Cell(state="unplanned"), *measured_cells(measured, group)]
        rows.append(_paired_row(measured, method, source, tuple(cells)))
    table = Table(
        key="table1-both",
        title="Table 1, published beside measured",
        caption=f"{WHAT} The two halves differ in data, backbone and epochs: compare orders, not values.",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(*label_notes(measured), *import_notes(measured)),
        rules=(PUBLISHED_NOTE, *epochs_notes(printed), SUPERVISED_NOTE, RULE, LOWER_BOUND_NOTE, MEASURED_NOTE),
        citations=tuple(dict.fromkeys((*citations(tuple(printed)), *method_citations(measured)))),
    )
    width = 1 + len(PLACES)
    left = _published_contenders(table, [source for _, source in order], start=1)
    blank = [()] * (len(columns) - width)
    table = mark_best(table, [(), *left, *blank], where="Published")
    for number, members in enumerate(contexts.values(), start=1):
        groups = [members.get(method, []) if method else [] for method, _ in order]
        table = mark_contexts(table, measured, groups, start=number * width + 1, where="Measured")
    return table


def _contexts(measured: Measured) -> dict[tuple[str, ...], dict[str, list[Result]]]:
    """Results by data and backbone, then by method; a second number of epochs of one method opens a new context."""
    contexts: dict[tuple[str, ...], dict[str, list[Result]]] = {}
    for (method, data, backbone, epochs, tested), group in measured.groups().items():
        key: tuple[str, ...] = (data, backbone, tested)
        while method in contexts.get(key, {}):
            key = (*key, epochs)
        contexts.setdefault(key, {})[method] = group
    return contexts


def _heading(measured: Measured, group: Sequence[Result]) -> str:
    data, backbone, _, seeds = (cell.text for cell in context_cells(measured, group))
    return f"Measured: {data}, {backbone}, {seeds}"


def _published_epochs(source: PublishedRow | None) -> Cell:
    return _epochs(source.epochs if source else None)


def _paired(printed: Sequence[PublishedRow], measured: Measured) -> list[tuple[str, PublishedRow | None]]:
    """Rows in order: the plan's methods with the one published row of the same key, then the other published rows.

    A method with several published variants keeps a row of its own, because none of them is its counterpart.
    """
    by_method: dict[str, list[PublishedRow]] = {}
    for row in printed:
        by_method.setdefault(row.method, []).append(row)
    methods = dict.fromkeys(result.planned.spec.pretrain.name for result in measured.results)
    order: list[tuple[str, PublishedRow | None]] = []
    for method in methods:
        found = by_method.get(method, [])
        order.append((method, found[0] if len(found) == 1 else None))
    taken = [source for _, source in order]
    order += [("", row) for row in printed if row not in taken]
    return order


def _paired_row(measured: Measured, method: str, source: PublishedRow | None, cells: tuple[Cell, ...]) -> Row:
    if method:
        return Row(title=measured.method_title(method), key=method, href=method_path(method), cells=cells)
    assert source is not None
    return Row(title=source.title, key=source.method, cells=cells)
