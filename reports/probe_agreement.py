"""The two forms of the linear probe side by side: what the fast one says of an encoder against the published one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.metric import TOP1, Metric
from bench.statistics.paired import compare
from bench.statistics.ranking import Reals
from bench.statistics.weighted import Accuracy, Statistic
from bench.table import Cell, CellState, Column, Row, Table
from reports.contest import Loader
from reports.measured import Measured, context_cells, method_citations, protocol_title
from reports.places import method_path
from reports.results import Result, row_key, summarize

if TYPE_CHECKING:
    import pandas as pd

PROTOCOL = "linear_probe"
DIFFERENCE = Metric(key="difference", title="cached − augmented", unit="points", higher_is_better=None)
SEED = 20_002
FEWEST = 3
"""A rank correlation of fewer methods says nothing."""


def agreement_table(measured: Measured, predictions: Loader | None) -> Table | None:
    """Top-1 of the cached probe and of each augmented one, and their difference on the same test images.

    None where the plan does not have both. The difference has a paired interval where the store has predictions.

    Args:
        measured: the results.
        predictions: of an evaluation by its identity.
    """
    measured = measured.without_detection
    cached, augmented = _variants(measured)
    if cached is None or not augmented:
        return None
    columns = [Column(title=title) for title in ("data", "backbone", "epochs", "seeds")]
    columns.append(Column(title=TOP1.title, groups=(_heading(measured, cached),), metric=TOP1))
    for variant in augmented:
        heading = (_heading(measured, variant),)
        columns += [Column(title=metric.title, groups=heading, metric=metric) for metric in (TOP1, DIFFERENCE)]
    rows = []
    for key, group in measured.groups().items():
        fast = _of(group, cached)
        cells = [*context_cells(measured, group), summarize(fast, TOP1)]
        for variant in augmented:
            slow = _of(group, variant)
            cells += [summarize(slow, TOP1), _difference(fast, slow, predictions)]
        title = measured.method_title(key[0])
        rows.append(Row(title=title, key=key[0], href=method_path(key[0]), cells=tuple(cells)))
    return Table(
        key="probe-agreement",
        title="Agreement of the two forms of the linear probe",
        caption="Cached: features once, many settings of the classifier. Augmented: random crops pass the frozen "
        "encoder in every epoch, as in papers. Same encoders, same test images; the validation split chose the "
        "settings of both.",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(_correlation(measured, cached, variant) for variant in augmented),
        citations=method_citations(measured),
    )


def _variants(measured: Measured) -> tuple[str | None, list[str]]:
    """The cached variant that stands in Table 1, else the first; and all augmented ones."""
    modes: dict[str, str] = {}
    for spec in (result.planned.spec for result in measured.results):
        if spec.protocol == PROTOCOL:
            modes.setdefault(spec.variant, str(spec.protocol_params.get("mode", "cached")))
    shown = measured.shown.get((PROTOCOL, 1.0))
    cached = [variant for variant, mode in modes.items() if mode == "cached"]
    chosen = shown if shown in cached else next(iter(cached), None)
    return chosen, [variant for variant, mode in modes.items() if mode == "augmented"]


def _heading(measured: Measured, variant: str) -> str:
    return protocol_title(measured.protocols, PROTOCOL, variant or "cached")


def _of(group: Sequence[Result], variant: str) -> list[Result]:
    found = [r for r in group if (r.planned.spec.protocol, r.planned.spec.variant) == (PROTOCOL, variant)]
    return sorted(found, key=lambda result: result.seed)


def _difference(fast: Sequence[Result], slow: Sequence[Result], predictions: Loader | None) -> Cell:
    """Cached minus augmented top-1, paired by encoder and test image."""
    cells = [summarize(results, TOP1) for results in (fast, slow)]
    lacking = [cell for cell in cells if cell.value is None]
    if lacking:
        return Cell(state=lacking[0].state, metric=DIFFERENCE, reason=lacking[0].reason)
    if [result.seed for result in fast] != [result.seed for result in slow]:
        return Cell(state="undefined", metric=DIFFERENCE, reason="the two forms were run with different seeds")
    one, other = (cell.value for cell in cells)
    assert one is not None and other is not None
    state: CellState = "stale" if "stale" in {cell.state for cell in cells} else "measured"
    common: dict[str, Any] = {"metric": DIFFERENCE, "seeds": len(fast), "n": cells[0].n}
    common["reason"] = next((cell.reason for cell in cells if cell.state == "stale"), "")
    frames = _frames(fast, slow, predictions)
    if not frames:
        return Cell(state=state, value=one - other, **common)
    patients = frames[0][0]["patient"].to_numpy(dtype=str) if "patient" in frames[0][0] else None
    found = compare(
        [[_gap(*pair) for pair in frames]],
        images=len(frames[0][0]),
        clusters=patients,
        generator=np.random.default_rng(SEED),
    )
    low, high = found.intervals[0] or (None, None)
    covers = "patients" if found.clusters < found.images else "test images"
    covers += " and seeds" if len(fast) > 1 else ""
    if low is None:
        return Cell(state=state, value=found.values[0], **common)
    method = "paired bootstrap 95%"
    return Cell(state=state, value=found.values[0], low=low, high=high, interval=method, covers=covers, **common)


def _frames(
    fast: Sequence[Result], slow: Sequence[Result], predictions: Loader | None
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """For each seed the predictions of both forms, by sample; nothing unless all are there for the same images."""
    pairs: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    for results in zip(fast, slow, strict=True) if predictions else ():
        assert predictions is not None
        found = [predictions(str(result.metrics[TOP1.key]["identity"])) for result in results]
        one, other = (None if frame is None else frame.sort_values("sample", kind="stable") for frame in found)
        if one is None or other is None:
            return []
        pairs.append((one.reset_index(drop=True), other.reset_index(drop=True)))
    images = [frame[["sample", "label"]] for pair in pairs for frame in pair]
    return pairs if all(frame.equals(images[0]) for frame in images) and len(images[0] if images else ()) > 1 else []


def _gap(one: pd.DataFrame, other: pd.DataFrame) -> Statistic:
    """Difference of the two accuracies under weights of the images."""
    first, second = (Accuracy((frame["top1"] == frame["label"]).to_numpy()) for frame in (one, other))

    def gap(weights: Reals) -> Reals:
        return first(weights) - second(weights)

    return gap


def _correlation(measured: Measured, cached: str, augmented: str) -> str:
    """How alike the two forms rank the methods of each context, in words; baselines do not count."""
    contexts: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for key, group in measured.groups().items():
        values = [summarize(_of(group, variant), TOP1).value for variant in (cached, augmented)]
        if values[0] is not None and values[1] is not None and not measured.is_baseline(key[0]):
            contexts.setdefault(row_key(group[0].planned.spec)[1:], []).append((values[0], values[1]))
    names = f"{_heading(measured, cached)} and {_heading(measured, augmented)}"
    told = {key: pairs for key, pairs in contexts.items() if len(pairs) >= FEWEST}
    if not told:
        return f"{names}: fewer than {FEWEST} methods have both values, too few to compare how they are ranked."
    parts = []
    for pairs in told.values():
        rho = rank_correlation(*np.array(pairs).T)
        words = "not defined, because all values are equal" if np.isnan(rho) else f"{rho:.2f}"
        parts.append(f"{words} over {len(pairs)} methods")
    return f"{names}: rank correlation (Spearman) {'; '.join(parts)}; 1 means the same order."


def rank_correlation(a: Reals, b: Reals) -> float:
    """Spearman's rank correlation of a and b (n,), ties by their mean rank; NaN where one of them is constant.

    Source: Spearman 1904, doi:10.2307/1412159.
    """
    x, y = (_ranks(values) - (len(values) - 1) / 2 for values in (a, b))
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else float("nan")


def _ranks(values: Reals) -> Reals:
    """Ranks from 0, the mean of their places for equal values."""
    ordered = np.sort(values)
    first, last = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    ranks: Reals = (first + last - 1) / 2
    return ranks
