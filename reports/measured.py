"""Measured tables: Table 1 from the store, and its companion with every other protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from bench.card import MethodCard, ProtocolCard
from bench.metric import AUROC, AVERAGE_PRECISION, Metric
from bench.spec import IMPORTED
from bench.table import Cell, Column, Row, Table
from reports.places import DETECTION, OWN_TABLES, PLACES, WHAT, method_path, value_columns
from reports.results import Result, collect, image_interval, metric_of, row_key, summarize
from reports.ties import RULE, Contender, mark_best
from reports.words import counted, listed

if TYPE_CHECKING:
    import pandas as pd

    from bench.plan import Plan
    from bench.spec import DataSpec

MEASURED_NOTE = (
    "Intervals: over test images, or patients where they are known, for one seed (Wilson for top-1 and top-5, else "
    "bootstrap), the range of two seeds, Student's t over three or more, "
    "none where all seeds agree. "
    "Values compete within one dataset, backbone and number of epochs; baselines, imported checkpoints and stale "
    "values do not compete."
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything that measured tables are made of.

    Attributes:
        results: one per planned cell.
        methods: cards by name; ``vicreg[no variance]`` has the card of ``vicreg`` under a title of its own.
        protocols: cards by key.
        titles: printed names of datasets and backbones by key; a key without one stands for itself.
    """

    results: tuple[Result, ...]
    methods: Mapping[str, MethodCard]
    protocols: Mapping[str, ProtocolCard]
    titles: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        plan: Plan,
        rows: pd.DataFrame,
        *,
        methods: Mapping[str, MethodCard],
        protocols: Mapping[str, ProtocolCard],
        titles: Mapping[str, str],
    ) -> Measured:
        """What the store's rows hold for the plan's cells; the cards are those of the catalog, by key."""
        cards = dict(methods)
        for spec in (cell.spec.pretrain for cell in plan.cells):
            if spec.variant and spec.method in methods:
                card = methods[spec.method]
                title = spec.variant if card.imported else f"{card.title}, {spec.variant}"
                cards[spec.name] = replace(card, title=title)
        return cls(results=collect(plan, rows, cards), methods=cards, protocols=protocols, titles=titles)

    def method_title(self, key: str) -> str:
        return self.methods[key].title if key in self.methods else key

    def is_baseline(self, key: str) -> bool:
        return key in self.methods and self.methods[key].family == "baseline"

    def title(self, key: str) -> str:
        return self.titles.get(key, key)

    def data_title(self, data: DataSpec) -> str:
        """The user's own name for the images where there is one, else the title of the dataset."""
        return data.label if data.params.get("name") else self.title(data.key)

    @cached_property
    def shown(self) -> dict[tuple[str, float], str]:
        """The variant that stands in each column of Table 1: the plain one, else the first of the plan."""
        variants: dict[tuple[str, float], list[str]] = {}
        for result in self.results:
            variants.setdefault(place_of(result), []).append(result.planned.spec.variant)
        places = {(protocol, fraction) for protocol, fraction, _ in PLACES}
        return {place: "" if "" in found else found[0] for place, found in variants.items() if place in places}

    def at(self, group: Sequence[Result], protocol: str, fraction: float) -> list[Result]:
        """The results of one row in one column of Table 1."""
        place = (protocol, fraction)
        return [r for r in group if place_of(r) == place and r.planned.spec.variant == self.shown[place]]

    @cached_property
    def without_detection(self) -> Measured:
        """What Table 1 and its companion are made of. Detection has scenes of its own: its cells would open rows here
        that have no value in any column."""
        kept = tuple(result for result in self.results if result.planned.spec.protocol != DETECTION)
        return self if len(kept) == len(self.results) else replace(self, results=kept)

    def groups(self) -> dict[tuple[str, ...], list[Result]]:
        """Results by table row, in the order of the plan."""
        rows: dict[tuple[str, ...], list[Result]] = {}
        for result in self.results:
            rows.setdefault(row_key(result.planned.spec), []).append(result)
        return rows


def measured_table(measured: Measured) -> Table:
    """Table 1 as measured: one row per method, dataset, backbone and number of epochs."""
    measured = measured.without_detection
    context = (Column(title="data"), Column(title="backbone"), Column(title="epochs"), Column(title="seeds"))
    groups = measured.groups()
    table = Table(
        key="table1-measured",
        title="Table 1, as measured",
        caption=f"{WHAT} Data, backbone, epochs and seeds stand in each row.",
        columns=(*context, *value_columns()),
        rows=tuple(
            _measured_row(measured, key, (*context_cells(measured, group), *measured_cells(measured, group)))
            for key, group in groups.items()
        ),
        notes=(*label_notes(measured), *import_notes(measured)),
        rules=(RULE, MEASURED_NOTE),
        citations=method_citations(measured),
    )
    return mark_contexts(table, measured, list(groups.values()), start=len(context))


def _measured_row(measured: Measured, key: tuple[str, ...], cells: tuple[Cell, ...]) -> Row:
    return Row(title=measured.method_title(key[0]), key=key[0], href=method_path(key[0]), cells=cells)


def method_citations(measured: Measured) -> tuple[str, ...]:
    keys = dict.fromkeys(result.planned.spec.pretrain.name for result in measured.results)
    papers = [measured.methods[key].paper for key in keys if key in measured.methods]
    return tuple(dict.fromkeys(paper for paper in papers if paper))


def label_notes(measured: Measured) -> tuple[str, ...]:
    """One sentence for each method whose columns for few labels start from a backbone that saw all of them, or from
    none."""
    few = {r.planned.spec.pretrain.name: None for r in measured.results if place_of(r)[1] < 1}
    scratch = [measured.methods[key] for key in few if key in measured.methods and measured.methods[key].protocols]
    return tuple(f"{card.title}: {card.summary[0].lower()}{card.summary[1:]}" for card in scratch) + tuple(
        f"{measured.method_title(key)} was trained with all labels of the training split; its 1 % and 10 % columns "
        "start from that backbone and are not label-limited."
        for key in few
        if key in measured.methods and measured.methods[key].uses_labels
    )


def import_notes(measured: Measured) -> tuple[str, ...]:
    """One sentence about all imported checkpoints: why they stand beside the others and do not compete."""
    keys = {r.planned.spec.pretrain.name: None for r in measured.results if r.planned.spec.pretrain.imported}
    if not keys:
        return ()
    titles = [measured.method_title(key) for key in keys]
    were = "was imported from a file" if len(titles) == 1 else "were imported from files"
    return (
        f"{listed(titles)} {were}: on which images, with which labels and for how long such an encoder was trained "
        "is not known here, so it stands beside the methods and does not compete.",
    )


def context_cells(measured: Measured, group: Sequence[Result]) -> tuple[Cell, ...]:
    spec = group[0].planned.spec
    data = measured.data_title(spec.pretrain.data)
    if spec.pretrain.imported:
        data = f"{IMPORTED}, tested on {measured.data_title(spec.data)}"
    elif spec.data != spec.pretrain.data:
        data = f"{data}, tested on {measured.data_title(spec.data)}"
    seeds = len({result.seed for result in group})
    return (
        Cell(text=data),
        Cell(text=measured.title(spec.pretrain.backbone)),
        epochs_cell(group),
        Cell(text=counted(seeds, "seed")),
    )


def epochs_cell(group: Sequence[Result]) -> Cell:
    spec = group[0].planned.spec.pretrain
    if spec.imported:
        return Cell(text="unknown")
    return Cell(text=str(spec.training.epochs) if spec.training else "0")


def place_of(result: Result) -> tuple[str, float]:
    """Protocol and label fraction; a linear probe always uses all labels."""
    spec = result.planned.spec
    fraction = 1.0 if spec.protocol == "linear_probe" else float(spec.protocol_params.get("fraction", 1.0))
    return spec.protocol, round(fraction, 6)


def measured_cells(measured: Measured, group: Sequence[Result]) -> tuple[Cell, ...]:
    """The six cells of one row."""
    cells = []
    for protocol, fraction, metric in PLACES:
        cell = summarize(measured.at(group, protocol, fraction), metric)
        card = measured.methods.get(group[0].planned.spec.pretrain.name) if group else None
        if cell.state == "unplanned" and card and card.protocols and protocol not in card.protocols:
            cell = replace(cell, reason=f"not applicable: {card.title} has no pre-trained features to evaluate")
        cells.append(cell)
    return tuple(cells)


def mark_contexts(
    table: Table, measured: Measured, groups: Sequence[Sequence[Result]], *, start: int, where: str = ""
) -> Table:
    """Mark best groups among rows of the same data, backbone and epochs.

    Args:
        table: the table.
        measured: what it is made of; where methods compete in several contexts, the notes name theirs.
        groups: the results of each row.
        start: index of the first of the six columns.
        where: begins the notes.
    """
    contexts: dict[tuple[str, ...], list[int]] = {}
    for index, group in enumerate(groups):
        if group:
            contexts.setdefault(row_key(group[0].planned.spec)[1:], []).append(index)
    specs = [result.planned.spec for result in measured.results]
    several = len({row_key(spec)[1:] for spec in specs if not measured.is_baseline(spec.pretrain.name)}) > 1
    for indices in contexts.values():
        columns: list[tuple[Contender, ...]] = [() for _ in table.columns]
        for offset, (protocol, fraction, _) in enumerate(PLACES):
            columns[start + offset] = contenders(
                table, measured, start + offset, {i: measured.at(groups[i], protocol, fraction) for i in indices}
            )
        words = _context_words(measured, groups[indices[0]]) if several else ""
        table = mark_best(table, columns, where=", ".join(filter(None, (where, words))))
    return table


def _context_words(measured: Measured, group: Sequence[Result]) -> str:
    cells = context_cells(measured, group)
    return f"{cells[0].text}, {cells[1].text}, {cells[2].text} epochs"


def contenders(
    table: Table, measured: Measured, column: int, groups: Mapping[int, Sequence[Result]]
) -> tuple[Contender, ...]:
    """Who competes in a column, among the rows with these results behind their cell; baselines do not."""
    competing = {row: g for row, g in groups.items() if g and not measured.is_baseline(g[0].planned.spec.pretrain.name)}
    found = [_contender(table, row, column, group) for row, group in competing.items()]
    return tuple(contender for contender in found if contender)


def _contender(table: Table, row: int, column: int, results: Sequence[Result]) -> Contender | None:
    """The value as a competitor; its intervals over seeds and over test images are combined in quadrature."""
    cell = table.rows[row].cells[column]
    if cell.value is None or cell.metric is None or cell.state != "measured":
        return None
    spans = [(cell.low, cell.high)]
    if cell.seeds != 1:  # the interval of a single seed is that over test images already
        spans.append(image_interval(results, cell.metric) or (None, None))
    below = math.hypot(*(cell.value - low for low, _ in spans if low is not None))
    above = math.hypot(*(high - cell.value for _, high in spans if high is not None))
    return Contender(row=row, value=cell.value, low=cell.value - below, high=cell.value + above)


def companion_table(measured: Measured) -> Table | None:
    """What has no column in Table 1 and no page: further protocols, such as kNN, and metrics; None without any."""
    taken = {(p, measured.shown.get((p, fraction)), metric.key) for p, fraction, metric in PLACES}
    measured = measured.without_detection
    others = {
        (result.planned.spec.protocol, result.planned.spec.variant): None
        for result in measured.results
        if result.planned.spec.protocol not in OWN_TABLES
    }
    places = [(p, v, m) for p, v in others for m in _metrics(measured, p, v) if (p, v, m.key) not in taken]
    if not places:
        return None
    titles = {(p, v): protocol_title(measured.protocols, p, v) for p, v in others}
    columns = [Column(title=metric.title, groups=(titles[p, v],), metric=metric) for p, v, metric in places]
    context = (Column(title="data"), Column(title="backbone"), Column(title="epochs"), Column(title="seeds"))
    rows = []
    for key, group in measured.groups().items():
        cells = tuple(
            summarize([r for r in group if (r.planned.spec.protocol, r.planned.spec.variant) == (p, v)], metric)
            for p, v, metric in places
        )
        rows.append(_measured_row(measured, key, (*context_cells(measured, group), *cells)))
    return Table(
        key="companion",
        title="Companion to Table 1" if measured.shown else "Results",
        caption=f"What {'else ' if measured.shown else ''}the suite measures, on the same encoders and the same test "
        "split.",
        columns=(*context, *columns),
        rows=tuple(rows),
        notes=(*import_notes(measured), *_interval_notes(rows)),
        citations=method_citations(measured),
    )


def _interval_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Why a mean over findings may have no interval."""
    cells = [cell for row in rows for cell in row.cells if cell.metric in (AUROC, AVERAGE_PRECISION)]
    if not any(cell.value is not None and cell.low is None and cell.seeds == 1 for cell in cells):
        return ()
    return (
        "A mean over findings has no interval here where some of them are so rare that half of the resamples of the "
        "test images lack one. Comparisons of methods average over the findings that a resample has.",
    )


def _metrics(measured: Measured, protocol: str, variant: str) -> tuple[Metric, ...]:
    card = measured.protocols.get(protocol)
    if card:
        return card.metrics
    keys = {
        key
        for result in measured.results
        if (result.planned.spec.protocol, result.planned.spec.variant) == (protocol, variant)
        for key in result.metrics
    }
    return tuple(metric_of(key) for key in sorted(keys))


def protocol_title(protocols: Mapping[str, ProtocolCard], protocol: str, variant: str) -> str:
    title = protocols[protocol].title if protocol in protocols else protocol
    return f"{title}, {variant}" if variant else title
