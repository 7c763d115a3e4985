"""Published numbers of medical imaging, table by table as their sources print them.

What belongs to one question stands in one table, also where a source splits it; every cell leads to the printed table
that it comes from. Standard deviations over draws of the labels and intervals over test images are different things
and never share a column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.metric import Metric
from bench.published import CONFIDENCE_WORDS, load_papers
from bench.table import QUOTED, RECOMPUTED, SECONDARY, Cell, Column, Row, Table
from reports.medical_layouts import LAYOUTS, PROTOCOLS, Layout, Place, Record, is_difference, share
from reports.panels import Fact, Panel, Run, Section
from reports.places import slug
from reports.published_rows import short_name
from reports.results import number

if TYPE_CHECKING:
    import pandas as pd

AUROC = Metric(key="auroc_fraction", title="AUROC", decimals=3, lower=0.0, upper=1.0)
DIFFERENCE = Metric(key="auroc_difference", title="difference", decimals=3)
SPREAD = Metric(key="label_split_spread", title="std", higher_is_better=None, decimals=3, lower=0.0)
"""Units of the sources: AUROC as a fraction, not in percent as this harness measures it."""

NATURAL = "huynh2022fnc"
"""The file also holds what FNC's authors report on ImageNet; that is no medical imaging and belongs to Table 1."""

STD = re.compile(r"\bstd[ =](\d*\.?\d+)")
RECOMPUTED_NOTE = "recomputed for this project"


def medical_values(published: pd.DataFrame) -> tuple[Record, ...]:
    """The published values of medical imaging, with None for what is missing."""
    here = published[
        (published["benchmark"] == "medical")
        & (published["paper"] != NATURAL)
        & published["confidence"].isin(["read", "secondary"])
    ]
    return tuple(_plain(record) for record in here.to_dict("records"))


def _plain(record: Mapping[Any, Any]) -> Record:
    plain = {str(name): value for name, value in record.items()}
    return plain | {name: number(plain[name]) for name in ("value", "low", "high", "label_fraction")}


def printed_tables(records: Sequence[Record]) -> tuple[Table, ...]:
    """MedAug's and MoCo-CXR's tables, complete."""
    return tuple(_table(layout, records) for layout in LAYOUTS)


def records_of(layout: Layout, records: Sequence[Record]) -> tuple[Record, ...]:
    """The values that a table shows."""
    return tuple(
        record
        for record in records
        if record["paper"] == layout.paper and record["source_table"] in layout.tables and layout.wanted(record)
    )


def _table(layout: Layout, records: Sequence[Record]) -> Table:
    ordered = sorted(records_of(layout, records), key=layout.order)
    mine = {layout.place(record): record for record in ordered}
    rows = dict.fromkeys(place.row for place in mine)
    columns = sorted(dict.fromkeys(place.column for place in mine), key=_column_order(mine.values()))
    return Table(
        key=f"medical-{layout.key}",
        title=layout.title,
        caption=layout.caption,
        stub=layout.stub,
        columns=tuple(made for column in columns for made in _columns(layout, column, mine)),
        rows=tuple(
            Row(
                title=row,
                cells=tuple(
                    cell
                    for column in columns
                    for cell in _cells(layout, mine.get(Place(row=row, column=column)), _metric(mine, column))
                ),
            )
            for row in rows
        ),
        notes=layout.notes,
        rules=(SOURCE_RULE.format(source=short_name(layout.paper)),),
        citations=(layout.paper,),
    )


SOURCE_RULE = (
    "Every value is as printed in {source}; each leads to the printed table, how it was checked and its remarks. "
    "Nothing is converted, averaged or marked as best."
)


def _column_order(records: Any) -> Callable[[tuple[str, ...]], tuple[int, ...]]:
    """Linear before end to end, few labels before many; everything else as it comes."""
    seen: dict[str, int] = {}
    for record in sorted(records, key=lambda record: record["label_fraction"]):
        seen.setdefault(share(record), len(seen))
    protocols = {title: index for index, title in enumerate(PROTOCOLS.values())}
    return lambda column: tuple(protocols.get(part, seen.get(part, 0)) for part in column)


def _metric(mine: Mapping[Place, Record], column: tuple[str, ...]) -> Metric:
    """Of a column: a difference only where everything in it is one."""
    here = [record for place, record in mine.items() if place.column == column]
    return DIFFERENCE if all(map(is_difference, here)) else AUROC


def _columns(layout: Layout, column: tuple[str, ...], mine: Mapping[Place, Record]) -> tuple[Column, ...]:
    if layout.spread:
        return tuple(Column(title=metric.title, groups=column, metric=metric) for metric in (AUROC, SPREAD))
    return (Column(title=column[-1], groups=column[:-1], metric=_metric(mine, column)),)


def _cells(layout: Layout, record: Record | None, metric: Metric) -> tuple[Cell, ...]:
    value = value_cell(record, metric)
    if not layout.spread:
        return (value,)
    std = spread_of(record) if record else None
    if record is None or std is None:
        return value, Cell(state="absent", metric=SPREAD, reason="no spread is printed")
    return value, Cell(state="published", metric=SPREAD, value=std, anchor=table_panel_id(record))


def value_cell(record: Record | None, metric: Metric) -> Cell:
    """A printed value; its interval is the source's own."""
    if record is None:
        return Cell(state="absent", metric=metric, reason="no value is printed in the sources")
    holds = {
        QUOTED: record["quoted"],
        SECONDARY: record["confidence"] == "secondary",
        RECOMPUTED: RECOMPUTED_NOTE in record["notes"],
    }
    return Cell(
        state="published",
        metric=DIFFERENCE if is_difference(record) else metric,
        value=record["value"],
        low=record["low"],
        high=record["high"],
        interval=str(record["interval"]),
        marks=tuple(mark for mark, marked in holds.items() if marked),
        anchor=table_panel_id(record),
    )


def spread_of(record: Record) -> float | None:
    """The standard deviation that the notes of a value state; None where they state none."""
    found = STD.search(record["notes"])
    return float(found[1]) if found else None


# --- panels -----------------------------------------------------------------------------------------------------


def table_panel_id(record: Record) -> str:
    return f"printed-{slug(record['paper'] + ' ' + record['source_table'])}"


def source_panels(records: Sequence[Record]) -> tuple[Panel, ...]:
    """One panel for each printed table of a source, with how its values were checked and what is to be known."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(table_panel_id(record), []).append(record)
    return tuple(_source_panel(key, group) for key, group in groups.items())


def _source_panel(key: str, records: Sequence[Record]) -> Panel:
    first = records[0]
    paper = load_papers()[first["paper"]]
    quoted = sum(bool(record["quoted"]) for record in records)
    origin = "the source's own results"
    if quoted:
        origin = f"{quoted} of {len(records)} values are quoted from elsewhere (†), the others the source's own"
    pairs = [
        ("place", first["source_table"]),
        ("values", str(len(records))),
        ("origin", origin),
        ("confidence", "; ".join(f"{name}: {CONFIDENCE_WORDS[name]}" for name in _distinct(records, "confidence"))),
        ("tested on", "; ".join(_distinct(records, "eval_data"))),
        ("protocols", "; ".join(_distinct(records, "protocol"))),
        ("backbones", "; ".join(_distinct(records, "backbone"))),
        ("pre-trained on", "; ".join(_distinct(records, "pretrain_data"))),
        ("remarks", "; ".join(remarks(records))),
    ]
    facts = (
        Fact(label="source", value=f"{short_name(paper.key)}. {paper.title}", href=paper.link),
        *(Fact(label=label, value=value) for label, value in pairs if value),
    )
    run = Run(title="Published values", state="published", sections=(Section(title="Source", facts=facts),))
    return Panel(id=key, title=f"{short_name(paper.key)}: {first['source_table']}", runs=(run,))


def _distinct(records: Sequence[Record], name: str) -> list[str]:
    return [str(value) for value in dict.fromkeys(record[name] for record in records) if value]


def remarks(records: Sequence[Record]) -> list[str]:
    """What the notes say beyond the spread, which has a column of its own."""
    parts = (part.strip() for record in records for part in str(record["notes"]).split(";"))
    return [part for part in dict.fromkeys(parts) if part and not STD.match(part) and part != "not a CI"]
