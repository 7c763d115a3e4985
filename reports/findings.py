"""Each finding for itself: how well every method's features rank the images with it above those without."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.metric import AUROC
from bench.table import Cell, Column, Row, Table
from reports.measured import Measured, method_citations, protocol_title
from reports.results import Result, parsed, row_key
from reports.words import listed

PROBE = "multilabel_probe"
FEW = 10
RULES = (
    "AUROC is the probability that an image with the finding gets a higher score than one without it: 50 % is "
    "guessing, 100 % is perfect.",
    "Intervals: 95 %, bootstrap over test patients where they are known, over test images otherwise. Several seeds "
    "show their mean, and the mean ends of their intervals; those do not cover chance in the training.",
    "Findings are not compared with each other, and no best value is marked: with so many values one is the highest by "
    "chance.",
)


def finding_tables(measured: Measured) -> tuple[Table, ...]:
    """One table for each dataset and setting of the protocol that has values."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in measured.results:
        spec = result.planned.spec
        if spec.protocol == PROBE:
            groups.setdefault((spec.data.canonical_json(), spec.variant), []).append(result)
    tables = (_table(measured, group, number) for number, group in enumerate(groups.values()))
    return tuple(table for table in tables if table is not None)


def _table(measured: Measured, group: Sequence[Result], number: int) -> Table | None:
    by_method: dict[tuple[str, ...], list[Result]] = {}
    for result in group:
        by_method.setdefault(row_key(result.planned.spec), []).append(result)
    measurements = {key: [_measured(result) for result in results] for key, results in by_method.items()}
    complete = {key: seeds for key, seeds in measurements.items() if all(seeds)}
    if not complete:
        return None
    first = next(iter(complete.values()))[0]
    spec = group[0].planned.spec
    names = [measured.method_title(key[0]) for key in by_method]
    titles = [
        f"{name} ({key[3]} epochs)" if names.count(name) > 1 else name
        for name, key in zip(names, by_method, strict=True)
    ]
    rows = []
    for name, found in first.items():
        counts = Cell(text=f"{found['positive']} of {found['positive'] + found['negative']}")
        cells = [_cell(name, [seed.get(name) for seed in measurements[key]], by_method[key]) for key in by_method]
        rows.append(Row(title=name, cells=(counts, *cells)))
    return Table(
        key=f"findings-{number + 1}" if number else "findings",
        title=protocol_title(measured.protocols, PROBE, spec.variant),
        caption=f"AUROC in % for each finding on the test images of {measured.data_title(spec.data)}.",
        stub="Finding",
        columns=(
            Column(title="test images with it"),
            *(Column(title=title, groups=("AUROC",), metric=AUROC) for title in titles),
        ),
        rows=tuple(rows),
        notes=tuple(_notes(first, not_learned(group))),
        rules=RULES,
        citations=method_citations(measured),
    )


def _measured(result: Result) -> dict[str, Mapping[str, Any]]:
    """What one evaluation recorded of each finding, by name; empty without a value."""
    row = result.metrics.get(AUROC.key)
    found = parsed(row["details"]).get("measured", {}).get("findings", []) if row else []
    return {str(item["finding"]): item for item in found}


def not_learned(results: Sequence[Result]) -> list[str]:
    """The findings of which the labelled training images, the same for all these results, were all of one kind."""
    rows = (next(iter(result.metrics.values())) for result in results if result.metrics)
    return list(dict.fromkeys(str(name) for row in rows for name in parsed(row["details"]).get("not_learned", ())))


def _notes(found: Mapping[str, Mapping[str, Any]], lost: Sequence[str]) -> Iterable[str]:
    """Which rows say little or nothing."""
    rare = {name: item["positive"] for name, item in found.items() if 0 < item["positive"] < FEW and name not in lost}
    few = [f"{name} ({count})" for name, count in rare.items()]
    if few:
        yield (
            f"Fewer than {FEW} test images show {listed(few)}: these values say little, and their intervals are too "
            "narrow, because resampling shows no images that are not there."
        )
    if lost:
        yield (
            f"Not learned, because the labelled training images were all with the finding or all without it: "
            f"{listed(lost)}. The mean over all findings counts these as guessing, 50 %."
        )


def _cell(name: str, seeds: Sequence[Mapping[str, Any] | None], results: Sequence[Result]) -> Cell:
    present = [seed for seed in seeds if seed is not None]
    if len(present) < len(seeds):
        return Cell(state="missing", metric=AUROC, reason=results[0].planned.reason)
    values = [seed[AUROC.key] for seed in present]
    if any(value is None for value in values):
        return Cell(state="undefined", metric=AUROC, reason="the test images do not show it, or all show it")
    if name in not_learned(results):
        return Cell(state="undefined", metric=AUROC, reason="not learned: the labelled images were all of one kind")
    spans = [seed[f"{AUROC.key}_interval"] for seed in present]
    known = [span for span in spans if span]
    complete = len(known) == len(spans)
    return Cell(
        state="stale" if any(result.planned.state == "stale" for result in results) else "measured",
        metric=AUROC,
        value=math.fsum(values) / len(values),
        low=math.fsum(low for low, _ in known) / len(known) if complete else None,
        high=math.fsum(high for _, high in known) / len(known) if complete else None,
        interval="bootstrap 95%" if complete else "",
        covers="test patients or images" if complete else "",
        seeds=len(values),
    )
