"""The methods side by side: their architectures as figures, and one table of what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from bench.card import Family, MethodCard
from bench.metric import Metric
from bench.table import Cell, Column, Row, Table
from reports.architecture import draw_architecture
from reports.architecture_words import describe
from reports.measured import Measured, context_cells
from reports.places import method_path
from reports.results import Result, number, row_key

SECONDS = Metric(key="training_seconds", title="seconds of pre-training", higher_is_better=False)
SPEED = Metric(key="images_per_second", title="images per second", decimals=0)

HEADINGS = (
    "family", "year", "negatives", "predictor", "stop-gradient", "branches", "embeddings before the loss",
    "what prevents complete collapse", "what prevents dimensional collapse", "needs of the batch", "cost",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A method's figure.

    Attributes:
        href: the method's page, relative to the site's root.
        svg: the figure.
        words: the figure in words.
    """

    title: str
    year: int | None
    href: str
    svg: str
    words: str


def gallery(measured: Measured) -> list[tuple[str, list[Drawn]]]:
    """The figures of the plan's methods by family, in the order of the families and of the plan."""
    families: dict[str, list[Drawn]] = {family: [] for family in get_args(Family)}
    for key in _by_method(measured):
        card = measured.methods[key]
        drawn = Drawn(
            title=card.title,
            year=card.year,
            href=method_path(page_of(measured, key)),
            svg=draw_architecture(card),
            words=describe(card),
        )
        families[card.family].append(drawn)
    return [(family, drawn) for family, drawn in families.items() if drawn]


def caption(measured: Measured, name: str) -> str:
    """The figure of a method's page in words; a variant's page says that the figure shows the method as it stands."""
    words = describe(measured.methods[name])
    variants = {result.planned.spec.pretrain.name: result.planned.spec.pretrain.variant for result in measured.results}
    changed = "" if measured.methods[name].imported else variants.get(name, "")
    return f"{words} The figure shows the method without the change named {changed!r}." if changed else words


def comparison_table(measured: Measured) -> Table:
    """One row for each method of the plan: what its card says, and what its pre-training took here."""
    methods = _by_method(measured)
    order = get_args(Family)
    keys = sorted(methods, key=lambda key: order.index(measured.methods[key].family))
    context = _context(measured)
    return Table(
        key="comparison",
        title="Methods side by side",
        caption="What each method's card says, and what its pre-training took here.",
        columns=(
            *(Column(title=heading) for heading in HEADINGS),
            Column(title=SECONDS.title, metric=SECONDS),
            Column(title=SPEED.title, metric=SPEED),
        ),
        rows=tuple(_row(measured, key, methods[key], context) for key in keys),
        notes=_notes(measured, context),
        citations=tuple(dict.fromkeys(measured.methods[key].paper for key in keys if measured.methods[key].paper)),
    )


def _by_method(measured: Measured) -> dict[str, list[Result]]:
    """The results of each method that has a card, variants included, in the order of the plan."""
    found: dict[str, list[Result]] = {}
    for result in measured.results:
        key = result.planned.spec.pretrain.method
        if key in measured.methods:
            found.setdefault(key, []).append(result)
    return found


def page_of(measured: Measured, key: str) -> str:
    """The name whose page shows a method: its own, or that of its first variant where it runs in variants only.

    Empty where the plan has neither.
    """
    names = [result.planned.spec.pretrain.name for result in _by_method(measured).get(key, ())]
    return key if key in names else next(iter(names), "")


def _context(measured: Measured) -> tuple[str, ...]:
    """Data and backbone of the plan's first result, which the timings are read for."""
    return row_key(measured.results[0].planned.spec)[1:3] if measured.results else ()


def _row(measured: Measured, key: str, results: Sequence[Result], context: tuple[str, ...]) -> Row:
    card = measured.methods[key]
    records = {
        str(result.pretraining["identity"]): result.pretraining
        for result in results
        if result.pretraining and not result.planned.spec.pretrain.variant
        if row_key(result.planned.spec)[1:3] == context
        if result.pretraining["status"] == "ok"
    }
    timed = list(records.values()) if card.trains else []
    cells = (
        *(Cell(text=text) for text in _card_words(card)),
        _mean(SECONDS, [number(record["seconds_total"]) for record in timed]),
        _mean(SPEED, [number(record["images_per_second"]) for record in timed]),
    )
    return Row(title=card.title, key=key, href=method_path(page_of(measured, key)), cells=cells)


def _card_words(card: MethodCard) -> tuple[str, ...]:
    if card.branches == "single":
        labels = "labels" if card.uses_labels else "trained by its protocol" if card.protocols else "nothing trained"
        labels = "weights from a file" if card.imported else labels
        lacking = ("none", "no", "no", f"single, {labels}", "")
    else:
        lacking = (
            card.negatives + (", false ones found" if card.support_views else ""),
            "yes" if card.predictor else "no",
            "yes" if card.stop_gradient else "no",
            card.branches,
            ", then ".join(card.normalization) or "as they are",
        )
    return (
        card.family,
        str(card.year or ""),
        *lacking,
        card.complete_collapse,
        card.dimensional_collapse,
        card.batch_dependence,
        card.cost,
    )


def _mean(metric: Metric, values: Sequence[float | None]) -> Cell:
    """The mean over the encoders; nothing where one of them has no value."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Cell(metric=metric, state="unplanned", reason="not measured for this method")
    return Cell(metric=metric, state="measured", value=sum(known) / len(known), seeds=len(known))


def _notes(measured: Measured, context: tuple[str, ...]) -> tuple[str, ...]:
    timed = [result for result in measured.results if row_key(result.planned.spec)[1:3] == context]
    if not timed:
        return ()
    cells = context_cells(measured, timed[:1])
    others = len({row_key(result.planned.spec)[1:3] for result in measured.results}) - 1
    more = " Timings on other data or backbones stand with each value of Table 1." if others else ""
    return (
        f"Times are means over the encoders on {cells[0].text} with the backbone {cells[1].text}; they depend on the "
        f"machine and on what else ran on it.{more}",
    )
