"""Collapse made visible: the diagnostics of all methods side by side, one method's in full, and who collapsed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.metric import Metric
from bench.table import Cell, Column, Row, Table
from reports.measured import Measured, context_cells, method_citations, protocol_title
from reports.places import AUDIT, DESCRIBED, DIAGNOSTICS, OWN_TABLES, method_path, slug
from reports.places import DETECTION as DETECTOR
from reports.results import Result, metric_of, parsed, row_key, summarize, written

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"representation": "Representation", "embedding": "Embedding"}
VALUE = Metric(key="value", title="value", higher_is_better=None)
REMEDY = "What should prevent it:"
CONTEXT = ("data", "backbone", "epochs", "seeds")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One measured quantity in words: what it is, what is healthy, and how it misleads."""

    key: str
    title: str
    what: str
    healthy: str
    trap: str


QUANTITIES = (
    Quantity(
        key="std",
        title="std",
        what="the standard deviation of each dimension of the unit-length vectors, averaged, times √D",
        healthy="about 1; 0 when all vectors point the same way (complete collapse)",
        trap="it misses dimensional collapse: vectors that fill only a few dimensions reach 1 too, once rotated",
    ),
    Quantity(
        key="rankme",
        title="RankMe",
        what="the exponential of the entropy of the singular values, of the vectors as they are",
        healthy="a large part of D, where N is well above D",
        trap="the mean direction is a dimension too, and a large one hides the rest: a constant plus noise reads 1",
    ),
    Quantity(
        key="rankme_centered",
        title="centered RankMe",
        what="the same, of the vectors less their mean: the dimensions in which they vary",
        healthy="a large part of D",
        trap="it does not see how little the vectors vary: pure noise around one point has full rank",
    ),
    Quantity(
        key="participation_ratio",
        title="part. ratio",
        what="(Σ λ)² / Σ λ² over the eigenvalues λ of the covariance: how many dimensions share the variance",
        healthy="a large part of D; it weighs large eigenvalues more than centered RankMe does and is never above it",
        trap="a few strong dimensions make it small although the others carry information",
    ),
    Quantity(
        key="alignment",
        title="alignment",
        what="the mean squared distance between the unit-length vectors of two random views of an image",
        healthy="near 0 in the embedding, against 2 for unrelated directions",
        trap="collapse has the perfect alignment of 0: read it beside the uniformity",
    ),
    Quantity(
        key="uniformity",
        title="uniformity",
        what="log of the mean of exp(−2 distance²) over pairs of different images, unit-length vectors",
        healthy="near −4, its value for directions spread evenly over many dimensions; 0 for a constant",
        trap="its best value is −4 and not minus infinity, and a few dozen dimensions suffice to come near",
    ),
)
NOTES = (
    "No value is better than another: rank is necessary for good features, not sufficient. Compare methods of one "
    "width, measured on the same images.",
    "N pulls every rank down well before N = D, and caps it at N.",
    "No number here depends on the length of the vectors. Embeddings that shrink to one point with directions of their "
    "own are told by the training, which watches the length too: see the column “collapse”.",
)


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A training that collapsed.

    Attributes:
        seeds: those that show it, in words.
        how: what became of the training.
        evidence: what was seen, and what should have prevented it.
    """

    title: str
    href: str
    seeds: str
    how: str
    evidence: str

    @property
    def short(self) -> str:
        """What was seen, without the advice that follows it."""
        seen, advice, _ = self.evidence.partition(REMEDY)
        return seen.rstrip() if advice else self.evidence


def collapse_flags(measured: Measured, *, method: str | None = None) -> tuple[Flag, ...]:
    """Every collapsed training behind the plan's cells, in the order of the plan."""
    found: dict[str, Flag] = {}
    for result in measured.results:
        name, row = result.planned.spec.pretrain.name, result.pretraining
        if row is None or str(row["identity"]) in found or method not in (None, name):
            continue
        how, evidence = _collapse(row)
        if evidence:
            found[str(row["identity"])] = Flag(
                title=measured.method_title(name),
                href=method_path(name),
                seeds=f"seed {result.seed}",
                how=how,
                evidence=evidence,
            )
    return tuple(found.values())


def _collapse(row: Mapping[str, Any]) -> tuple[str, str]:
    """What became of a collapsed training, and the evidence; empty texts for any other."""
    if row["status"] == "failed" and row["error_type"] == "CollapseError":
        return "the training was ended", str(row["error_message"])
    evidence = str(parsed(row["details"]).get("collapse", ""))
    return ("recorded, and the training went on", evidence) if evidence else ("", "")


def no_collapse(measured: Measured, history: pd.DataFrame, identities: Mapping[str, int], *, method: str) -> str:
    """The statement that a method's trainings did not collapse, with its numbers; empty where there are none."""
    done = [r.pretraining for r in measured.results if r.planned.spec.pretrain.name == method and r.pretraining]
    if history.empty or collapse_flags(measured, method=method) or any(row["status"] != "ok" for row in done):
        return ""
    mine = history[history["pretrain_identity"].isin(list(identities)) & (history["kind"] == "diagnostic")]
    for kind, plural in (("embedding", "embeddings"), ("representation", "representations")):
        seen = mine[mine["term"] == f"{kind}_std"].sort_values("epoch", kind="stable")
        if seen.empty:
            continue
        last = seen.groupby("pretrain_identity", sort=False)["value"].last()
        low, high = (f"{value:.2f}" for value in (last.min(), last.max()))
        seeds = f" ({len(last)} seeds)" if len(last) > 1 else ""
        vectors = mine.loc[mine["term"] == f"{kind}_samples", "value"]
        count = f" of N = {vectors.iloc[-1]:.0f} images" if len(vectors) else ""
        return (
            f"No collapse was seen: on the last batch{count} the directions of the {plural} spread by "
            f"{low if low == high else f'{low} to {high}'}{seeds}. Even directions have 1. Collapse means a spread "
            "under 0.05 and under half of the untrained network's, vectors on one line (centered RankMe under 1.5), or "
            "vectors that shrink to one point together with the loss. Whether they fill only a subspace is for the "
            "ranks and the spectrum to tell."
        )
    return ""


# --- tables -----------------------------------------------------------------------------------------------------


def groups_of(measured: Measured, protocol: str, *, method: str | None = None) -> list[list[Result]]:
    """The results under a protocol: one group of seeds for each row of its table."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in measured.results:
        spec = result.planned.spec
        if spec.protocol == protocol and method in (None, spec.pretrain.name):
            groups.setdefault((*row_key(spec), spec.variant), []).append(result)
    return list(groups.values())


def diagnostics_table(measured: Measured) -> Table | None:
    """All methods side by side; None when the suite has no diagnostics."""
    groups = groups_of(measured, DIAGNOSTICS)
    if not groups:
        return None
    varying, common = _contexts(measured, groups)
    flagged = {(flag.href, flag.seeds) for flag in collapse_flags(measured)}
    columns = [*(Column(title=title) for title in varying), Column(title="collapse"), Column(title="N")]
    for kind, heading in KINDS.items():
        columns.append(Column(title="D", groups=(heading,)))
        columns += [
            Column(title=quantity.title, groups=(heading,), metric=_metric(measured, kind, quantity))
            for quantity in QUANTITIES
        ]
    rows = []
    for group in groups:
        context = [
            cell for title, cell in zip(CONTEXT, context_cells(measured, group), strict=True) if title in varying
        ]
        cells = [*context, _collapse_cell(group, flagged), _counted(group, "n")]
        for kind in KINDS:
            cells.append(_counted(group, kind))
            cells += [summarize(group, _metric(measured, kind, quantity)) for quantity in QUANTITIES]
        rows.append(_row(measured, group, cells))
    return Table(
        key="diagnostics",
        title="Collapse diagnostics",
        caption=f"On N test images, D dimensions; alignment between two random views of each. {common}".strip(),
        columns=tuple(columns),
        rows=tuple(rows),
        notes=NOTES,
        citations=method_citations(measured),
    )


DETECTION = ("batch_size", "support_views", "aggregation", "top_k", "threshold")
"""Parameters of the audit that say what is detected among what."""


def audit_table(measured: Measured, *, method: str | None = None) -> Table | None:
    """The audit of detected false negatives, beside chance; None when it is not part of the suite."""
    groups = groups_of(measured, AUDIT, method=method)
    card = measured.protocols.get(AUDIT)
    if not groups or card is None:
        return None
    varying, common = _contexts(measured, groups)
    rows = []
    for group in groups:
        context = [
            cell for title, cell in zip(CONTEXT, context_cells(measured, group), strict=True) if title in varying
        ]
        rows.append(_row(measured, group, [*context, *(summarize(group, metric) for metric in card.metrics)]))
    chance = f"Chance: {card.chance.rstrip('.')}." if card.chance else ""
    return Table(
        key=f"{slug(method)}-audit" if method else "false-negative-audit",
        title=card.title,
        caption=" ".join(filter(None, (card.summary, common))),
        columns=(
            *(Column(title=title) for title in varying),
            *(Column(title=metric.title, metric=metric) for metric in card.metrics),
        ),
        rows=tuple(rows),
        notes=tuple(filter(None, (*_audit_settings(groups), chance))),
        citations=method_citations(measured),
    )


def _audit_settings(groups: Sequence[Sequence[Result]]) -> tuple[str, ...]:
    """What was detected among what: one sentence for each setting of the protocol."""
    found: dict[str, None] = {}
    for params in (result.planned.spec.protocol_params for group in groups for result in group):
        said = [f"{name.replace('_', ' ')} {written(params[name])}" for name in DETECTION if name in params]
        found[f"Detection: {', '.join(said)}. A small top k bounds the recall." if said else ""] = None
    return tuple(found)


def method_tables(measured: Measured, method: str) -> tuple[Table, ...]:
    """One method's diagnostics, a row per quantity; a table for each dataset, backbone and setting of the protocol."""
    tables = []
    groups = groups_of(measured, DIAGNOSTICS, method=method)
    for number, group in enumerate(groups):
        spec = group[0].planned.spec
        where = ", ".join(cell.text for cell in context_cells(measured, group)[:2])
        what = protocol_title(measured.protocols, DIAGNOSTICS, spec.variant)
        rows = [
            Row(title="dimensions D", key="d", cells=tuple(_counted(group, kind) for kind in KINDS)),
            *(
                Row(
                    title=quantity.title,
                    key=quantity.key,
                    cells=tuple(summarize(group, _metric(measured, kind, quantity)) for kind in KINDS),
                )
                for quantity in QUANTITIES
            ),
        ]
        tables.append(
            Table(
                key=f"{slug(method)}-diagnostics" + (f"-{number}" if number else ""),
                title=f"{what} of {measured.method_title(method)}",
                caption=f"{where}; N = {_counted(group, 'n').text or 'unknown'} test images.",
                stub="Quantity",
                columns=tuple(Column(title=kind, metric=VALUE) for kind in KINDS.values()),
                rows=tuple(rows),
                notes=_limits(group),
            )
        )
    return tuple(tables)


def _contexts(measured: Measured, groups: Sequence[Sequence[Result]]) -> tuple[tuple[str, ...], str]:
    """The parts of the context in which rows differ, and a sentence on the others."""
    values = {
        title: {context_cells(measured, group)[index].text for group in groups} for index, title in enumerate(CONTEXT)
    }
    same = {title: next(iter(found)) for title, found in values.items() if len(found) == 1}
    words = [
        same.get("data", ""),
        f"backbone {same['backbone']}" if "backbone" in same else "",
        f"{same['epochs']} epochs" if "epochs" in same else "",
        same.get("seeds", ""),
    ]
    common = ", ".join(filter(None, words))
    return tuple(title for title in CONTEXT if title not in same), f"All rows: {common}." if common else ""


def _metric(measured: Measured, kind: str, quantity: Quantity) -> Metric:
    card = measured.protocols.get(DIAGNOSTICS)
    return metric_of(f"{kind}_{quantity.key}", card.metrics if card else ())


def _row(measured: Measured, group: Sequence[Result], cells: Iterable[Cell]) -> Row:
    spec = group[0].planned.spec
    name = spec.pretrain.name
    title = ", ".join(filter(None, (measured.method_title(name), spec.variant)))
    return Row(title=title, key=name, href=method_path(name), cells=tuple(cells))


def _counted(group: Sequence[Result], what: str) -> Cell:
    """N (``n``), or D of one kind of vectors, as the protocol recorded it; all that occur among the seeds."""
    found = {}
    for result in group:
        details = parsed(next(iter(result.metrics.values()))["details"]) if result.metrics else {}
        number = details.get("n") if what == "n" else details.get("d", {}).get(what)
        if number is not None:
            found[number] = str(number)
    return Cell(text=", ".join(found.values()))


def _collapse_cell(group: Sequence[Result], flagged: set[tuple[str, str]]) -> Cell:
    pretrain = group[0].planned.spec.pretrain
    if pretrain.training is None:
        return Cell(text="not trained")
    seeds = [result.seed for result in group if (method_path(pretrain.name), f"seed {result.seed}") in flagged]
    if seeds:
        return Cell(text="yes" if len(group) == 1 else f"{len(seeds)} of {len(group)} seeds")
    trained = any(result.pretraining and result.pretraining["status"] == "ok" for result in group)
    return Cell(text="none seen" if trained else "")


def _limits(group: Sequence[Result]) -> tuple[str, ...]:
    """Where N does not exceed D."""
    told: dict[str, None] = {}
    for result in group:
        if result.metrics:
            limits = parsed(next(iter(result.metrics.values()))["details"]).get("rank_limit", {})
            told |= {f"{KINDS.get(kind, kind)}: {text}.": None for kind, text in limits.items()}
    return tuple(told)


# --- whose provenance stands on which page -----------------------------------------------------------------------


def scored(measured: Measured) -> Measured:
    """What is measured under the protocols of Table 1 and its companion."""
    return _kept(measured, lambda result: result.planned.spec.protocol not in OWN_TABLES)


def described(measured: Measured) -> Measured:
    """What is measured under the protocols of the page of diagnostics."""
    return _kept(measured, lambda result: result.planned.spec.protocol in DESCRIBED)


def linked_from_index(measured: Measured) -> Measured:
    """The cells that the first page links to: those of both tables, and every one without a fresh value."""
    away = [protocol for protocol in OWN_TABLES if protocol != DETECTOR]
    return _kept(measured, lambda r: r.planned.spec.protocol not in away or r.planned.state != "fresh")


def _kept(measured: Measured, keep: Callable[[Result], bool]) -> Measured:
    return replace(measured, results=tuple(result for result in measured.results if keep(result)))
