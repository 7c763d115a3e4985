"""Table 2: transfer to object detection, as published, as measured, and side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.card import MethodCard, ProtocolCard
from bench.errors import RequestError
from bench.metric import VOC_AP, VOC_AP50, VOC_AP75, Metric
from bench.table import Cell, Column, Row, Table
from reports.measured import Measured
from reports.published_rows import citations, source_line
from reports.table1 import Origin
from reports.table2_beside import SETTINGS_NOTE, printed_cell, printed_epochs, side_by_side
from reports.table2_measured import measured_table
from reports.table2_published import (
    BASELINES,
    SETTINGS,
    DetectionRow,
    Printed,
    detection_rows,
    disagreements,
    printed_detectors,
)
from reports.ties import RULE, Contender, mark_best

if TYPE_CHECKING:
    import pandas as pd

    from bench.plan import Plan

ROWS_NOTE = (
    "Rows: ResNet-50, pre-trained on ImageNet-1k without labels (the baselines with them, or not at all), as sources "
    "tell method, variant and epochs apart; ablations and pre-training on other images are left out. A value that "
    "several sources print stands once, under the source that measured it; the panel of a cell lists the others. "
    "Values known from memory only are left out, so a dash may stand where a paper prints a value."
)
NO_SPREAD_NOTE = "The sources print no spread for these columns, so none of their values is marked as best."
SPREAD_NOTE = (
    "Bold needs a spread: the authors of MoCo print standard deviations over trials for trainval 07+12 (0.2 AP, "
    "0.2 AP50, 0.4 AP75), and ± 1.96 of these decides the best group there. Other columns have none and mark nothing."
)
SPREAD: Mapping[str, float] = {VOC_AP.key: 0.2, VOC_AP50.key: 0.2, VOC_AP75.key: 0.4}
"""Standard deviation over trials, from the detection README of MoCo's repository."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of the published tables.

    Attributes:
        notes: what a reader must know of its columns.
    """

    key: str
    title: str
    caption: str
    notes: tuple[str, ...]


PARTS = (
    Part(
        key="voc",
        title="PASCAL VOC",
        caption="Faster R-CNN R50-C4, fine-tuned, tested on VOC07 test. AP by the 11 recalls of VOC 2007, as "
        "Detectron2's evaluator computes it, in %.",
        notes=(
            "AP50 is AP at an overlap (IoU) of 0.5. All three read precision at 11 recalls: they are no AP of COCO.",
            "“repro” and “repro+” are runs of the authors of SimSiam, “+” an improved one; they searched the learning "
            "rate of fine-tuning for each method and report means of 5 trials.",
            "SimSiam: “base” is the configuration of its paper; later papers quote “optimal” only.",
            "BYOL: its authors trained on trainval 07 alone, with a detector that the appendix calls frozen and the "
            "main text fine-tuned; the values on 07+12 are a run by the authors of SimSiam with 200 epochs.",
            "The supervised values of both first trainval 07 columns are the same, so they may be one schedule; "
            "SimSiam does not print it.",
        ),
    ),
    Part(
        key="coco_c4",
        title="COCO, C4",
        caption="Mask R-CNN R50-C4, fine-tuned for one or two schedules (1×, 2×) on train2017, tested on val2017, "
        "in %.",
        notes=(
            "The mask values of random init lie above those of its boxes, as printed.",
            "MoCo v2 is quoted by Barlow Twins without its epochs.",
            "BYOL is a run by the authors of SimSiam with 200 epochs.",
        ),
    ),
    Part(
        key="coco_fpn",
        title="COCO, FPN",
        caption="Mask R-CNN R50-FPN, fine-tuned for one or two schedules (1×, 2×) on train2017, tested on val2017, "
        "in %.",
        notes=(
            "BYOL and Barlow Twins were run by the authors of VICReg.",
            "Sources differ by up to a point for the same weights, also for the supervised ones: compare a method with "
            "the baseline of its own source.",
        ),
    ),
)


def build_tables(
    origin: Origin,
    *,
    plan: Plan | None = None,
    rows: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
    methods: Mapping[str, MethodCard] | None = None,
    protocols: Mapping[str, ProtocolCard] | None = None,
    titles: Mapping[str, str] | None = None,
) -> tuple[Table, ...]:
    """Table 2 in one of its forms: the published one has a table for each kind of detector.

    Args:
        origin: ``published`` needs ``published``; ``measured`` needs ``plan`` and ``rows``; ``both`` needs all three.
        titles: printed names of datasets and backbones by key.

    Returns:
        The tables. Where the plan has no detection, ``both`` gives the published ones and ``measured`` none.

    Raises:
        RequestError: there is no such origin, or an input is missing.
    """
    if origin not in ("published", "measured", "both"):
        raise RequestError(f"There is no origin {origin!r}. Known: published, measured, both.")
    printed: tuple[Printed, ...] = ()
    if origin != "measured":
        if published is None:
            raise RequestError(f"Table 2 with origin {origin!r} needs the published values.")
        printed = printed_detectors(published)
        if origin == "published":
            return published_tables(printed)
    if plan is None or rows is None:
        raise RequestError(f"Table 2 with origin {origin!r} needs a plan and the store's rows.")
    measured = Measured.of(plan, rows, methods=methods or {}, protocols=protocols or {}, titles=titles or {})
    found = measured_table(measured) if origin == "measured" else side_by_side(printed, measured)
    return (found,) if found else published_tables(printed) if printed else ()


# --- published --------------------------------------------------------------------------------------------------


def published_tables(printed: Sequence[Printed]) -> tuple[Table, ...]:
    """Table 2 as published: VOC, COCO with C4, COCO with FPN."""
    return tuple(_published_table(printed, part) for part in PARTS)


def _published_table(printed: Sequence[Printed], part: Part) -> Table:
    rows = detection_rows(printed, part.key)
    settings = [setting for setting in SETTINGS if setting.part == part.key]
    places = [(setting, metric) for setting in settings for metric in setting.metrics.values()]
    table = Table(
        key=f"table2-{part.key.replace('_', '-')}",
        title=f"Table 2, as published: {part.title}",
        caption=part.caption,
        columns=(
            Column(title="epochs"),
            *(
                Column(title=_leaf(metric), groups=_above(setting.heading, metric), metric=metric)
                for setting, metric in places
            ),
            Column(title="source"),
        ),
        rows=tuple(
            Row(
                title=row.title,
                key=row.method,
                cells=(
                    printed_epochs(row.epochs, baseline=row.method in BASELINES),
                    *(printed_cell(row.printed.get(setting.key), metric) for setting, metric in places),
                    Cell(text=_sources(row)),
                ),
            )
            for row in rows
        ),
        notes=(*part.notes, *disagreements(printed, part.key)),
        rules=(ROWS_NOTE, SETTINGS_NOTE, *((SPREAD_NOTE, RULE) if part.key == "voc" else (NO_SPREAD_NOTE,))),
        citations=citations(tuple(row.as_published() for row in rows)),
    )
    contenders = [
        _contenders(table, index) if setting.key == "voc0712" else ()
        for index, (setting, _) in enumerate(places, start=1)
    ]
    return mark_best(table, [(), *contenders, ()])


def _leaf(metric: Metric) -> str:
    """``AP50`` for all of its kinds: what kind it is stands above."""
    return metric.title.removeprefix("mask ").removeprefix("VOC ")


def _above(heading: str, metric: Metric) -> tuple[str, ...]:
    if metric.title.startswith("VOC "):
        return (heading,)
    return heading, "mask" if metric.title.startswith("mask ") else "box"


def _sources(row: DetectionRow) -> str:
    """The sources in short: a remark in brackets after a place stays in the panel."""
    return source_line(row.as_published()).replace(" (= paper Table 2b / MoCo v2 Table 1)", "")


def _contenders(table: Table, column: int) -> tuple[Contender, ...]:
    metric = table.columns[column].metric
    assert metric is not None
    half = 1.96 * SPREAD[metric.key]
    values = [(index, row.cells[column].value) for index, row in enumerate(table.rows) if row.key not in BASELINES]
    return tuple(
        Contender(row=index, value=value, low=value - half, high=value + half)
        for index, value in values
        if value is not None
    )
