"""AP of each class and of small, medium and large objects, for all methods side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bench.metric import AP, Metric
from bench.table import Cell, Column, Row, Table
from reports.detection_page import Entry, Setting
from reports.measured import Measured, method_citations
from reports.results import number
from reports.words import listed

FEW = 10
AREAS = {"small": "under 32² pixels", "medium": "32² to 96² pixels", "large": "over 96² pixels"}
RULES = (
    "AP is the mean over overlaps from 50 % to 95 %, of boxes, as in COCO. Several seeds show their mean.",
    "Neither classes nor sizes are compared with each other, and no best value is marked: with so many values one is "
    "the highest by chance.",
)


def class_table(measured: Measured, setting: Setting) -> Table | None:
    """A row for each class of the data; None before anything ran."""
    found = _recorded(setting, "classes")
    if not found:
        return None
    few = [f"{item['name']} ({item['objects']})" for item in found.values() if 0 < item["objects"] < FEW]
    note = f"Fewer than {FEW} objects of the test scenes are of {listed(few)}: these values say little." if few else ""
    return _table(
        measured,
        setting,
        "classes",
        title="AP by class",
        caption=f"AP in % for each class of the test scenes of {setting.data}.",
        stub="Class",
        named={name: name for name in found},
        notes=tuple(filter(None, (note,))),
    )


def size_table(measured: Measured, setting: Setting) -> Table | None:
    """A row for small, medium and large objects, by the bounds of COCO; None before anything ran."""
    found = _recorded(setting, "sizes")
    if not found:
        return None
    return _table(
        measured,
        setting,
        "sizes",
        title="AP by size",
        caption=f"AP in % for objects of each size, by their area in the test scenes of {setting.data}.",
        stub="Size",
        named={name: f"{name}, {AREAS[name]}" if name in AREAS else name for name in found},
        notes=(),
    )


def _recorded(setting: Setting, part: str) -> dict[str, Mapping[str, Any]]:
    """The classes or sizes by name, as the first evaluation with a value recorded them."""
    for entry in setting.entries:
        for details in entry.details:
            if items := (details.get("measured") or {}).get(part):
                return {str(item["name"]): item for item in items}
    return {}


def _table(
    measured: Measured,
    setting: Setting,
    part: str,
    *,
    title: str,
    caption: str,
    stub: str,
    named: Mapping[str, str],
    notes: tuple[str, ...],
) -> Table:
    counts = _recorded(setting, part)
    rows = []
    for name, shown in named.items():
        cells = (_cell(entry, part, name, AP) for entry in setting.entries)
        rows.append(Row(title=shown, cells=(Cell(text=_count(counts[name])), *cells)))
    return Table(
        key=f"{setting.key}-{part}",
        title=title,
        caption=caption,
        stub=stub,
        columns=(
            Column(title="objects"),
            *(Column(title=entry.title, groups=("AP",), metric=AP) for entry in setting.entries),
        ),
        rows=tuple(rows),
        notes=notes,
        rules=RULES,
        citations=method_citations(measured),
    )


def _count(item: Mapping[str, Any]) -> str:
    """How many objects count, and how many do not."""
    aside = int(item.get("difficult") or 0) + int(item.get("crowd") or 0)
    return f"{item['objects']}" + (f" and {aside} that do not count" if aside else "")


def _cell(entry: Entry, part: str, name: str, metric: Metric) -> Cell:
    """The mean over all planned seeds, or why there is none."""
    if entry.ap is None:
        return Cell(state="missing", metric=metric, reason=entry.results[0].planned.reason or "not every seed has run")
    own = [
        item
        for details in entry.details
        for item in (details.get("measured") or {}).get(part, ())
        if str(item["name"]) == name
    ]
    values = [value for item in own if (value := number(item.get(metric.key))) is not None]
    if not values or len(values) < len(entry.details):
        return Cell(state="undefined", metric=metric, reason="no object of the test scenes counts here")
    stale = any(result.planned.state == "stale" for result in entry.results)
    return Cell(
        state="stale" if stale else "measured",
        metric=metric,
        value=math.fsum(values) / len(values),
        seeds=len(values),
        reason=next((result.planned.reason for result in entry.results if stale), ""),
    )
