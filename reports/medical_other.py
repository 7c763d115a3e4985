"""What else is published on medical images: lesion tracking, and pairs by metadata without negatives."""

from __future__ import annotations

from collections.abc import Sequence

from bench.metric import Metric
from bench.table import RECOMPUTED, Cell, Column, Row, Table
from reports.medical_layouts import Record
from reports.medical_tables import RECOMPUTED_NOTE, spread_of, table_panel_id, value_cell

TRACKING = ("cai2021dlt", "bai2023uae", "tang2022tlt", "yan2022sam")
OCT = "shurrab_oct_repository"

SAME_RULE = {"CPM@10mm official": "CPM@10mm official (d<=min(r,10))", "CPM@10mm plain": "CPM@10mm plain (d<=10)"}
"""Rules that the file names in short where a row stands under the one that it writes out."""

METHODS = ("affine initialization", "DLT", "UAE-S", "TLT", "SAM")
"""Columns: floor first, then trackers; UAE-S extends SAM's embeddings."""


def tracking_table(records: Sequence[Record]) -> Table:
    """Distances, hit rates and times of lesion tracking; each rule of a hit has a row of its own."""
    mine = {
        (SAME_RULE.get(str(r["metric"]), str(r["metric"])), str(r["method_title"])): r
        for r in sorted((r for r in records if r["paper"] in TRACKING), key=lambda r: TRACKING.index(str(r["paper"])))
    }
    measures = dict.fromkeys(measure for measure, _ in mine)
    return Table(
        key="medical-lesion-tracking",
        title="Lesion tracking",
        caption="DeepLesion: the position of a lesion in a follow-up scan, from its position in the first.",
        stub="Measure",
        columns=tuple(Column(title=title, metric=_metric("", 2.5, title=title)) for title in METHODS),
        rows=tuple(row for measure in measures for row in _rows(measure, mine)),
        notes=(
            "MED: mean Euclidean distance; x, y, z along one axis. Its standard deviation is over lesions. Intervals "
            "are computed for this harness over patients (2000 resamples); no source prints them.",
            "Published hit rates follow different rules under two names, and the choice of the rule moves DLT from "
            "78.85 to 99.79 %: compare along a row only.",
            "SAM: only the abstract was read; which rule its 91 % counts was not seen, and its time is for 19 "
            "landmarks in a CT of the chest. TLT: rounded in the abstract.",
        ),
        citations=TRACKING,
    )


def _rows(measure: str, mine: dict[tuple[str, str], Record]) -> tuple[Row, ...]:
    here = {method: mine.get((measure, method)) for method in METHODS}
    unit = next(str(r["unit"]) for r in here.values() if r)
    title = f"{measure}, {unit}" if not measure.startswith("seconds") else measure
    cells = tuple(value_cell(record, _metric(unit, record["value"] if record else 0.0)) for record in here.values())
    spreads = {method: spread_of(record) if record else None for method, record in here.items()}
    rows = [Row(title=title, cells=cells)]
    if any(std is not None for std in spreads.values()):
        stds = tuple(_spread_cell(here[method], std) for method, std in spreads.items())
        rows.append(Row(title=f"{measure}, std, {unit}", cells=stds))
    return tuple(rows)


def _spread_cell(record: Record | None, std: float | None) -> Cell:
    metric = _metric("mm", 2.5)
    if record is None or std is None:
        return Cell(state="absent", metric=metric, reason="no spread is printed in the sources")
    marks = (RECOMPUTED,) if RECOMPUTED_NOTE in record["notes"] else ()
    return Cell(state="published", metric=metric, value=std, marks=marks, anchor=table_panel_id(record))


def _metric(unit: str, value: float, *, title: str = "value") -> Metric:
    """Two decimals, none for a value that its source prints as a whole number."""
    decimals = 0 if value == int(value) else 2
    return Metric(key="tracking", title=title, unit=unit, higher_is_better=None, decimals=decimals)


def oct_table(records: Sequence[Record]) -> Table:
    """Pairs by metadata with methods that need no negatives, on OCT scans."""
    mine = [record for record in records if record["paper"] == OCT]
    accuracy = Metric(key="accuracy", title="accuracy", unit="%", decimals=2)
    return Table(
        key="medical-oct-pairs",
        title="Pairs by metadata without negatives",
        caption="BYOL and SimSiam on OCT scans of the eye: the best pairs for each task, accuracy in %.",
        stub="Task",
        columns=(Column(title="best pairs"), Column(title=accuracy.title, metric=accuracy)),
        rows=tuple(
            Row(
                title=str(record["metric"]).removesuffix(" accuracy"),
                cells=(Cell(text=str(record["variant"])), value_cell(record, accuracy)),
            )
            for record in mine
        ),
        notes=(
            "Pairs across visits are best for one task, unlike in MedAug's Table 1: whether they help is a question of "
            "the task.",
            "The comparison mixes the choice of pairs with the strength of the augmentations: pairs by metadata were "
            "only resized and normalized, the others rotated and sheared. Baselines and the method are not stated.",
        ),
        citations=(OCT,),
    )
