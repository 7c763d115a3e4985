"""Table 2 side by side: published and measured values in one row per method, each under its own setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.metric import AP, MASK_AP, VOC_AP, VOC_AP50, VOC_AP75, Metric
from bench.table import QUOTED, SECONDARY, Cell, Column, Row, Table
from reports.measured import Measured, import_notes, method_citations
from reports.places import method_path
from reports.published_rows import OWN_PAPER
from reports.table2_measured import (
    MEASURED_NOTE,
    NOTE,
    Transfer,
    context_of,
    encoder_key,
    mark_transfers,
    only_detection,
    transfer_cells,
    transfers,
)
from reports.table2_published import BASELINES, BY_KEY, METHODS, Printed
from reports.ties import RULE

SETTINGS_NOTE = (
    "Detector, training scenes and schedule make a setting; only values of one setting may be compared. Settings of "
    "one name whose sources do not print the same schedule have columns of their own."
)
SHOWN: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    ("voc0712", (VOC_AP, VOC_AP50, VOC_AP75)),
    ("c4_1x", (AP, MASK_AP)),
    ("fpn_1x", (AP, MASK_AP)),
)
"""Published settings and metrics that stand beside measured values; the published tables have all."""
QUOTED_VARIANT = {"simsiam": "optimal"}
"""Where a method's own paper prints several variants, how the one begins that later papers quote."""
CHOICE_NOTE = (
    "Of several published configurations of a method, that of its own authors stands here, also where another paper "
    "quotes it, before a run by others; then the longest pre-training; of SimSiam, “optimal”. The published tables "
    "have all of them, and the other settings."
)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Measured columns: one setting, one pre-training set and backbone.

    Attributes:
        rows: key of the encoder by method.
    """

    heading: str
    transfer: Transfer
    rows: Mapping[str, tuple[str, ...]]


def side_by_side(printed: Sequence[Printed], measured: Measured) -> Table | None:
    """Published and measured values in one row per method, never in one column; None without detection."""
    contexts = _contexts(measured)
    if not contexts:
        return None
    planned = dict.fromkeys(method for context in contexts for method in context.rows)
    known = {item.method for item in printed if item.setting.key in dict(SHOWN)}
    order = [*planned, *(method for method in METHODS if method in known and method not in planned)]
    chosen = {(method, key): chosen_print(printed, method, key) for method in order for key, _ in SHOWN}
    shown = [item for item in chosen.values() if item]
    titles = {item.method: item.title for item in shown}
    table = Table(
        key="table2-both",
        title="Table 2, published beside measured",
        caption="Transfer to object detection, average precision in %. The halves differ in data, backbone, detector "
        "and schedule: compare orders, not values.",
        columns=(*_published_columns(), *_measured_columns(contexts)),
        rows=tuple(
            Row(
                title=measured.method_title(method) if method in planned else titles.get(method, method),
                key=method,
                href=method_path(method) if method in planned else "",
                cells=(
                    *(c for key, metrics in SHOWN for c in _published_cells(chosen[method, key], method, metrics)),
                    *(cell for context in contexts for cell in _measured_cells(context, method)),
                ),
            )
            for method in order
        ),
        notes=import_notes(only_detection(measured)),
        rules=(CHOICE_NOTE, SETTINGS_NOTE, NOTE, RULE, MEASURED_NOTE),
        citations=tuple(dict.fromkeys([item.paper for item in shown] + [*method_citations(only_detection(measured))])),
    )
    start = len(_published_columns())
    for context in contexts:
        keys = [context.rows.get(method) for method in order]
        setting = f"{context.heading}; {context.transfer.data}, {context.transfer.how}"
        where = "Measured" if len(contexts) == 1 else setting
        table = mark_transfers(table, measured, [context.transfer], keys, start=start + 1, where=where)
        start += 1 + len(context.transfer.metrics)
    return table


def _contexts(measured: Measured) -> tuple[Context, ...]:
    """A second number of epochs of one method opens a new context, so that no two values share a cell."""
    found: list[Context] = []
    for transfer in transfers(measured):
        layers: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
        for row in dict.fromkeys(encoder_key(result.planned.spec) for result in transfer.results):
            method, *where = row
            key = tuple(where[:2])
            while method in layers.get(key, {}):
                key = (*key, row[3])
            layers.setdefault(key, {})[method] = row
        for rows in layers.values():
            pretrained, backbone, _, seeds = context_of(measured, transfer.of(next(iter(rows.values()))))
            heading = f"Measured: {pretrained.text}, {backbone.text}, {seeds.text}"
            found.append(Context(heading=heading, transfer=transfer, rows=rows))
    return tuple(found)


def chosen_print(printed: Sequence[Printed], method: str, setting: str) -> Printed | None:
    """The one configuration of a method that stands beside measured values under a published setting."""
    mine = [item for item in printed if item.method == method and item.setting.key == setting]
    if not mine:
        return None

    def rank(item: Printed) -> tuple[bool, bool, bool, int]:
        others = not (item.quoted or method in BASELINES or item.paper == OWN_PAPER.get(method))
        secondary = any(record["confidence"] == "secondary" for record in item.records.values())
        unquoted = not item.variant.startswith(QUOTED_VARIANT.get(method, ""))
        return others, unquoted, secondary and method in BASELINES, -(item.epochs or 0)

    return min(mine, key=rank)


def _published_columns() -> list[Column]:
    columns: list[Column] = []
    for key, metrics in SHOWN:
        above = ("Published: ImageNet-1k, ResNet-50", BY_KEY[key].title)
        columns += [Column(title="epochs", groups=above)]
        columns += [Column(title=metric.title, groups=above, metric=metric) for metric in metrics]
    return columns


def _measured_columns(contexts: Sequence[Context]) -> list[Column]:
    columns: list[Column] = []
    for context in contexts:
        above = (context.heading, f"{context.transfer.data}, {context.transfer.how}")
        columns += [Column(title="epochs", groups=above)]
        columns += [Column(title=m.title, groups=above, metric=m) for m in context.transfer.metrics]
    return columns


def _published_cells(item: Printed | None, method: str, metrics: Sequence[Metric]) -> list[Cell]:
    baseline = item is None or method in BASELINES
    return [
        printed_epochs(item.epochs if item else None, baseline=baseline),
        *(printed_cell(item, metric) for metric in metrics),
    ]


def _measured_cells(context: Context, method: str) -> list[Cell]:
    row = context.rows.get(method)
    if row is None:
        return [Cell(state="unplanned"), *(Cell(state="unplanned", metric=m) for m in context.transfer.metrics)]
    return [Cell(text=row[3]), *transfer_cells([context.transfer], row)]


def printed_epochs(epochs: int | None, *, baseline: bool) -> Cell:
    """Epochs of pre-training as the sources print them; a baseline has none to print."""
    if epochs:
        return Cell(text=str(epochs))
    return Cell(text="") if baseline else Cell(state="absent", reason="not printed in the sources")


def printed_cell(item: Printed | None, metric: Metric) -> Cell:
    """The table cell of one printed value; blank where nothing is printed."""
    record = item.records.get(metric.key) if item else None
    if item is None or record is None:
        return Cell(state="absent", metric=metric, reason="no value is printed in the sources")
    marks = ((QUOTED, item.quoted), (SECONDARY, record["confidence"] == "secondary"))
    return Cell(
        state="published",
        metric=metric,
        value=float(record["value"]),
        marks=tuple(mark for mark, holds in marks if holds),
        anchor=item.panel,
    )
