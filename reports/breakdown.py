"""The loss of every method, broken down into its weighted terms over the training: figures, table, values per epoch."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.card import MethodCard
from bench.metric import Metric
from bench.table import Cell, CellState, Column, Row, Table
from reports.curves import Figure, Series
from reports.measured import Measured, method_citations
from reports.method_page import encoders
from reports.places import method_path, slug

if TYPE_CHECKING:
    import pandas as pd

TOTAL = "total"
TERM = Metric(key="loss_term", title="weighted term", higher_is_better=False, decimals=4)
SHARE = Metric(key="loss_share", title="share", unit="%", higher_is_better=False, lower=0.0, upper=100.0)
ROUNDING = 1e-4
"""The terms add up to the total within this share of it; the stored means are those of float32 sums."""


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """The weighted terms of one method's loss over the training, as means over its seeds.

    Attributes:
        name: the method's name.
        epochs: those that every seed has.
        terms: the values of each term at these epochs, in the paper's order.
        total: the stored total at these epochs.
        seeds: behind the means.
        planned: whether all of them are trainings of the plan itself, not of an earlier form of it.
    """

    name: str
    epochs: tuple[float, ...]
    terms: Mapping[str, tuple[float, ...]]
    total: tuple[float, ...]
    seeds: tuple[int, ...]
    planned: bool = True

    @property
    def adds_up(self) -> bool:
        """No term is ever negative and they sum to the total, so that they can be stacked and have shares."""
        sums = [math.fsum(values) for values in zip(*self.terms.values(), strict=True)]
        close = all(
            abs(found - total) <= ROUNDING * max(abs(total), ROUNDING)
            for found, total in zip(sums, self.total, strict=True)
        )
        return close and min(map(min, self.terms.values())) >= 0

    @property
    def silent(self) -> tuple[str, ...]:
        """The terms that are zero throughout, such as one of weight zero."""
        return tuple(term for term, values in self.terms.items() if not any(values))


def loss_breakdown(
    history: pd.DataFrame, identities: Mapping[str, int], *, name: str, card: MethodCard, planned: bool = True
) -> Breakdown | None:
    """The breakdown of one method; None when no training of it is stored.

    Args:
        history: the store's history frame.
        identities: seed by pre-training identity; other pre-trainings are left out.
        name: the method's name.
        card: gives the order of the terms; terms that it does not name follow.
        planned: see :class:`Breakdown`.
    """
    if history.empty:
        return None
    mine = history[(history["kind"] == "term") & history["pretrain_identity"].isin(list(identities))]
    if mine.empty:
        return None
    wide = mine.pivot_table(index="epoch", columns=["term", "pretrain_identity"], values="value", aggfunc="last")
    wide = wide.dropna().sort_index()  # an epoch or a term that a seed lacks has no mean over the seeds
    stored = dict.fromkeys(str(term) for term in mine["term"])
    order = [term.name for term in card.terms if term.name in stored]
    mean = wide.T.groupby(level="term").mean().T  # over the seeds
    means = {term: tuple(map(float, mean[term])) for term in dict.fromkeys([*order, *stored])}
    found = set(mine["pretrain_identity"])
    return Breakdown(
        name=name,
        epochs=tuple(map(float, wide.index)),
        total=means.pop(TOTAL),
        terms=means,
        seeds=tuple(sorted(seed for identity, seed in identities.items() if identity in found)),
        planned=planned,
    )


def breakdowns(measured: Measured, history: pd.DataFrame) -> tuple[Breakdown, ...]:
    """The breakdown of every trained method of the plan, in its order."""
    found = []
    planned = {result.planned.pretraining.digest for result in measured.results}
    for name in dict.fromkeys(result.planned.spec.pretrain.name for result in measured.results):
        if name in measured.methods:
            identities = encoders(measured, name)
            card = measured.methods[name]
            found.append(loss_breakdown(history, identities, name=name, card=card, planned=planned >= set(identities)))
    return tuple(item for item in found if item is not None)


def breakdown_figure(item: Breakdown, *, title: str) -> Figure:
    """Stacked areas where the terms add up, else lines; the total is a line in both."""
    stacked = item.adds_up and len(item.epochs) > 1
    drawn = [term for term in item.terms if term not in item.silent]
    series = [
        Series(
            name=term.replace("_", " "),
            slot=slot,
            seed=item.seeds[0],
            epochs=item.epochs,
            values=item.terms[term],
            form="area" if stacked else "line",
        )
        for slot, term in enumerate(drawn)
    ]
    if len(series) != 1:  # the total of a single term is that term
        total = Series(
            name=TOTAL, slot=len(drawn), seed=item.seeds[0], epochs=item.epochs, values=item.total, form="total"
        )
        series.append(total)
    return Figure(
        key=f"{slug(item.name)}-loss",
        title=title,
        x_label="epoch",
        y_label="weighted term",
        series=tuple(series),
        summary=_summary(item, stacked=stacked),
        equal_axes=True,
    )


def _summary(item: Breakdown, *, stacked: bool) -> str:
    ends = []
    for term, values in ((TOTAL, item.total), *item.terms.items()):
        if term not in item.silent:
            ends.append(f"{term.replace('_', ' ')} from {values[0]:.3g} to {values[-1]:.3g}")
    sentences = [f"Loss terms up to epoch {item.epochs[-1]:g}: {'; '.join(ends)}."]
    if item.silent:
        words = ", ".join(term.replace("_", " ") for term in item.silent)
        sentences.append(f"Zero throughout: {words}.")
    if len(item.seeds) > 1:
        sentences.append(f"Means over {len(item.seeds)} seeds.")
    if len(item.terms) > len(item.silent) + 1:
        stack = "Stacked: the terms add up to the total." if stacked else f"Lines: {_why_lines(item)}."
        sentences.append(stack)
    return " ".join(sentences)


def _why_lines(item: Breakdown) -> str:
    if min(map(min, item.terms.values())) < 0:
        return "a term is negative, so the terms do not stack"
    return "a single epoch" if item.adds_up else "the stored terms do not add up to the stored total"


def breakdown_table(measured: Measured, items: tuple[Breakdown, ...]) -> Table:
    """One row per method and term, and one for the total."""
    rows = [row for item in items for row in _rows(measured, item)]
    several = sorted({len(item.seeds) for item in items} - {1})
    seeds = (f"Values of several seeds ({', '.join(map(str, several))}) are means.",) if several else ()
    return Table(
        key="breakdown",
        title="Loss terms",
        caption="Each weighted term of the loss, averaged over the steps of the first and of the last epoch.",
        columns=(
            Column(title="term"),
            Column(title="what it does"),
            Column(title="first epoch", groups=("weighted term",), metric=TERM),
            Column(title="last epoch", groups=("weighted term",), metric=TERM),
            Column(title="share of the total at the end", metric=SHARE),
        ),
        rows=tuple(rows),
        notes=seeds,
        rules=(
            "Losses of different methods are different quantities: compare the course of the terms, not their size.",
            "Shares stand only where no term is ever negative and the terms sum to the total.",
        ),
        citations=method_citations(measured),
    )


def _rows(measured: Measured, item: Breakdown) -> list[Row]:
    roles = {term.name: term.role for term in measured.methods[item.name].terms}
    rows = []
    for term, values in (*item.terms.items(), (TOTAL, item.total)):
        what = "sum of the terms" if term == TOTAL else roles.get(term, "")
        cells = (Cell(text=term.replace("_", " ")), Cell(text=what), _cell(item, values[0]), _cell(item, values[-1]))
        share = Cell() if term == TOTAL else _share(item, values[-1])
        title, href = measured.method_title(item.name), method_path(item.name)
        rows.append(Row(title=title, key=item.name, href=href, cells=(*cells, share)))
    return rows


def _cell(item: Breakdown, value: float) -> Cell:
    if item.planned:
        return Cell(state="measured", metric=TERM, value=value, seeds=len(item.seeds))
    why = "The code, the data or the settings of the training changed since."
    return Cell(state="stale", metric=TERM, value=value, seeds=len(item.seeds), reason=why)


def _share(item: Breakdown, value: float) -> Cell:
    if not item.adds_up or not item.total[-1]:
        why = _why_lines(item) if not item.adds_up else "the total is zero"
        return Cell(state="undefined", metric=SHARE, reason=f"no shares: {why}")
    state: CellState = "measured" if item.planned else "stale"
    return Cell(state=state, metric=SHARE, value=100 * value / item.total[-1], seeds=len(item.seeds))


def epochs_csv(measured: Measured, history: pd.DataFrame) -> str:
    """Every stored value behind the figures, one line per method, seed, epoch and term."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["method", "seed", "epoch", "term", "value"])
    for name in dict.fromkeys(result.planned.spec.pretrain.name for result in measured.results):
        for identity, seed in ({} if history.empty else encoders(measured, name)).items():
            mine = history[(history["pretrain_identity"] == identity) & (history["kind"] == "term")]
            for line in mine.sort_values("epoch", kind="stable").to_dict("records"):
                writer.writerow([name, seed, line["epoch"], line["term"], repr(float(line["value"]))])
    return stream.getvalue()
