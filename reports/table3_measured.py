"""The measured half of Table 3: what this harness measured for methods made for medical images.

These are the methods of the family medical and every other method whose views show several images of a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.metric import Metric
from bench.spec import PairingSpec
from bench.table import Cell, Column, Row, Table
from reports.measured import Measured, context_cells, method_citations, protocol_title
from reports.places import DESCRIBED, LABELS, method_path, slug
from reports.results import Result, metric_of, row_key, summarize

NOTE = "One row for each method, data, backbone and number of epochs; intervals as in the table of the method's page."


def medical(measured: Measured) -> Measured:
    """The part of the plan that is about methods for medical images and scores them."""
    kept = tuple(
        result
        for result in measured.results
        if _is_medical(measured, result) and result.planned.spec.protocol not in (*DESCRIBED, LABELS)
    )
    return replace(measured, results=kept)


def _is_medical(measured: Measured, result: Result) -> bool:
    pretrain = result.planned.spec.pretrain
    card = measured.methods.get(pretrain.name)
    return pretrain.pairing is not None or (card is not None and card.family == "medical")


def measured_tables(measured: Measured) -> tuple[Table, ...]:
    """One table for each protocol and variant of the plan, with its own metrics; none without such methods."""
    own = medical(measured)
    protocols: dict[tuple[str, str], list[Result]] = {}
    for result in own.results:
        spec = result.planned.spec
        protocols.setdefault((spec.protocol, spec.variant), []).append(result)
    return tuple(_table(own, name, variant, results) for (name, variant), results in protocols.items())


def _table(measured: Measured, protocol: str, variant: str, results: Sequence[Result]) -> Table:
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        groups.setdefault((*row_key(result.planned.spec), pairing_words(result)), []).append(result)
    metrics = _metrics(measured, protocol, results)
    context = ("pairs", "data", "backbone", "epochs", "seeds")
    return Table(
        key=f"table3-measured-{slug(' '.join(filter(None, (protocol, variant))))}",
        title=f"Table 3, as measured: {protocol_title(measured.protocols, protocol, variant)}",
        caption="Methods made for medical images or with pairs by metadata, on the test split.",
        columns=(
            *(Column(title=title) for title in context),
            *(Column(title=_heading(metric), metric=metric) for metric in metrics),
            Column(title="interval"),
        ),
        rows=tuple(_row(measured, group, metrics) for group in groups.values()),
        rules=(NOTE,),
        citations=method_citations(replace(measured, results=tuple(results))),
    )


def _heading(metric: Metric) -> str:
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def _metrics(measured: Measured, protocol: str, results: Sequence[Result]) -> tuple[Metric, ...]:
    card = measured.protocols.get(protocol)
    if card:
        return card.metrics
    return tuple(metric_of(key) for key in sorted({key for result in results for key in result.metrics}))


def _row(measured: Measured, group: Sequence[Result], metrics: Sequence[Metric]) -> Row:
    name = group[0].planned.spec.pretrain.name
    cells = [summarize(group, metric) for metric in metrics]
    intervals = dict.fromkeys(cell.interval for cell in cells if cell.interval)
    return Row(
        title=measured.method_title(name),
        key=name,
        href=method_path(name) if name in measured.methods else "",
        cells=(
            Cell(text=pairing_words(group[0])),
            *context_cells(measured, group),
            *cells,
            Cell(text="; ".join(intervals)),
        ),
    )


def pairing_words(result: Result) -> str:
    """``same study, all lateralities``: whose images its views show."""
    pairing = result.planned.spec.pretrain.pairing
    return _words(pairing) if pairing else "one image"


def _words(pairing: PairingSpec) -> str:
    study = "all studies" if pairing.study == "all" else f"{pairing.study} study"
    laterality = "all lateralities" if pairing.laterality == "all" else f"{pairing.laterality} laterality"
    return f"{study}, {laterality}" + (", another image" if pairing.other_image else "")
