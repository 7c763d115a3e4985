"""What a method's page says: its card, its results under every protocol, its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.card import MethodCard
from bench.metric import Metric
from bench.published import load_papers
from bench.table import Cell, Column, Row, Table
from reports.measured import Measured, context_cells, protocol_title
from reports.panels import Fact
from reports.places import DETECTION, OWN_TABLES, slug
from reports.published_rows import short_name
from reports.results import Result, metric_of, row_key, summarize
from reports.table2_measured import detection_metrics


def card_facts(card: MethodCard) -> tuple[Fact, ...]:
    """The card as lines; what a baseline does not have is left out."""
    papers = load_papers()
    paper = papers.get(card.paper)
    source = f"{short_name(paper.key)}. {paper.title}" if paper else card.paper
    carrying = "all" if card.gradient_views == "all" else len(card.gradient_views)
    views = f"{card.views}, of which {carrying} carry a gradient".replace("_", " ")
    pairs = [
        ("family", card.family),
        ("branches", card.branches),
        ("predictor", "yes" if card.predictor else "no"),
        ("stop-gradient", "yes" if card.stop_gradient else "no"),
        ("symmetric", "yes" if card.symmetric else "no, one direction only"),
        ("negatives", card.negatives),
        ("embeddings before the loss", ", then ".join(card.normalization)),
        ("views", views if card.trains else ""),
        ("labels", "unknown" if card.imported else f"{'used' if card.uses_labels else 'not used'} in pre-training"),
        ("needs of the batch", card.batch_dependence),
        ("cost", card.cost),
    ]
    facts = [Fact(label="source", value=source, href=paper.link if paper else "")] if source else []
    return (*facts, *(Fact(label=label, value=value) for label, value in pairs if value))


def collapse_facts(card: MethodCard) -> tuple[Fact, ...]:
    """What keeps the embeddings from collapsing."""
    pairs = (
        ("to a single vector", card.complete_collapse),
        ("to a subspace", card.dimensional_collapse),
    )
    return tuple(Fact(label=label, value=value) for label, value in pairs if value)


def results_table(measured: Measured, method: str) -> Table:
    """Every protocol of the plan that scores one method: a row per protocol, dataset, backbone and number of epochs."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in measured.results:
        spec = result.planned.spec
        if spec.pretrain.name == method and (spec.protocol not in OWN_TABLES or spec.protocol == DETECTION):
            groups.setdefault((*row_key(spec), spec.protocol, spec.variant), []).append(result)
    metrics = _metrics(measured, groups)
    context = ("data", "backbone", "epochs", "seeds", "interval")
    return Table(
        key=f"{slug(method)}-results",
        title=f"Results of {measured.method_title(method)}",
        caption="Every protocol of the suite, on the test split.",
        stub="Protocol",
        columns=(
            *(Column(title=title) for title in context[:4]),
            *(Column(title=_heading(metric), metric=metric) for metric in metrics),
            Column(title=context[4]),
        ),
        rows=tuple(_row(measured, group, metrics) for group in groups.values()),
    )


def _heading(metric: Metric) -> str:
    return f"{metric.title}, {metric.unit}" if metric.unit else metric.title


def _metrics(measured: Measured, groups: Mapping[tuple[str, ...], Sequence[Result]]) -> tuple[Metric, ...]:
    found: dict[str, Metric] = {}
    for group in groups.values():
        protocol = group[0].planned.spec.protocol
        card = measured.protocols.get(protocol)
        stored = sorted({key for result in group for key in result.metrics})
        defined = detection_metrics(group) if protocol == DETECTION else None
        for metric in card.metrics if card else map(metric_of, stored):
            if defined is None or metric in defined:
                found.setdefault(metric.key, metric)
    return tuple(found.values())


def _row(measured: Measured, group: Sequence[Result], metrics: Sequence[Metric]) -> Row:
    spec = group[0].planned.spec
    card = measured.protocols.get(spec.protocol)
    measures = {metric.key for metric in card.metrics} if card else {key for r in group for key in r.metrics}
    cells = [
        summarize(group, metric) if metric.key in measures else Cell(state="unplanned", reason="not of this protocol")
        for metric in metrics
    ]
    intervals = dict.fromkeys(cell.interval for cell in cells if cell.interval)
    return Row(
        title=protocol_title(measured.protocols, spec.protocol, spec.variant),
        key=spec.protocol,
        cells=(*context_cells(measured, group), *cells, Cell(text="; ".join(intervals))),
    )


def encoders(measured: Measured, method: str) -> dict[str, int]:
    """Seed by pre-training identity, for the encoders behind the values shown, in the order of the plan."""
    found: dict[str, int] = {}
    for result in measured.results:
        if result.planned.spec.pretrain.name == method:
            shown = next(iter(result.metrics.values()), result.failure)
            identity = str(shown["pretrain_identity"]) if shown else result.planned.pretraining.digest
            found.setdefault(identity, result.seed)
    return found
