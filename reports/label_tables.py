"""Label efficiency in numbers: utilities with their bounds, and the accuracies behind them."""

from __future__ import annotations

from collections.abc import Iterable

from bench.metric import Metric
from bench.statistics.label_outcome import Rule
from bench.statistics.utility import Bound, Utility, counted
from bench.table import ABOVE, BELOW, OPEN_ABOVE, OPEN_BELOW, Cell, CellState, Column, Row, Table
from reports.label_efficiency import ACCURACY, SCRATCH, Entry, Study, band
from reports.measured import Measured, method_citations
from reports.places import LABELS, method_path
from reports.results import metric_of, summarize

UTILITY = Metric(key="utility", title="U", decimals=2)
INTERVAL = "multiplier bootstrap, 95%"
NOTE = (
    "U(n): what n labels are worth after pre-training, as a share of n: 0 saves nothing, 1 equals twice the labels. It "
    "is read off the reference's curve, made monotone, between its budgets on a logarithmic scale of labels."
)
RULES = (
    "Where the reference's curve never reaches the accuracy, U is at least n_max / n − 1; where it starts above, at "
    "most n_min / n − 1. Such values are marked and stay on the scale of the others. (The code of Newell and Deng "
    "leaves the −1 out of the first kind and returns −1 for the second.)",
    "Intervals: 95 %, multiplier bootstrap over the draws of the labels with the width of Student's t; the same draws "
    "on both curves, so that what a draw does to both cancels. They cover the choice of the labels and the "
    "fine-tuning; the pre-training only with three seeds or more, and the choice of the test images not.",
    "The reference is the same network with random weights, trained by the same recipe on the same labels. U of a "
    "linear classifier and U of fine-tuning have different references: never compare them.",
    "After Newell and Deng 2020. Their three outcomes are told by the rules that follow, which are ours.",
    *Rule().sentences(),
)


def utility_table(measured: Measured, study: Study) -> Table:
    """Verdict and U(n) of each method."""
    over = f"U(n) {study.reference.replace('from', 'over')}"
    columns = [Column(title="outcome"), Column(title="draws")]
    columns += [Column(title=f"n = {counted(n)}", groups=(over,), metric=UTILITY) for n in study.budgets]
    rows = []
    for entry in study.entries:
        outcome = entry.outcome.verdict if entry.outcome else ""
        cells = [_utility_cell(study, entry, n) for n in study.budgets]
        rows.append(_row(entry, (Cell(text=outcome), _draws(entry), *cells)))
    return Table(
        key=f"{study.key}-utility",
        title=f"{study.title}: utility",
        caption=f"What labels are worth after pre-training. {study.where}.",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(NOTE, *_notes(study)),
        rules=RULES,
        citations=(*_paper(measured), *method_citations(measured)),
    )


def accuracy_table(measured: Measured, study: Study) -> Table:
    """The curves in numbers, with the protocol's own scores, which lead to their provenance."""
    card = measured.protocols.get(LABELS)
    metrics = card.metrics if card else (metric_of("mean_top1"), metric_of(ACCURACY.key))
    columns = [Column(title="draws")]
    columns += [
        Column(title=f"n = {counted(n)}", groups=("top-1 with n labels",), metric=ACCURACY) for n in study.budgets
    ]
    columns += [
        Column(
            title="mean over n" if metric.key == "mean_top1" else "largest n, first draw",
            groups=("scores",),
            metric=metric,
        )
        for metric in metrics
    ]
    rows = []
    for entry in (*study.entries, *((study.scratch,) if study.scratch else ())):
        cells = [_accuracy_cell(entry, n) for n in study.budgets]
        rows.append(_row(entry, (_draws(entry), *cells, *(summarize(entry.results, metric) for metric in metrics))))
    return Table(
        key=f"{study.key}-accuracy",
        title=f"{study.title}: accuracy",
        caption=f"Top-1 in % against the number of labels, mean over draws. {study.where}.",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(f"{_recipe(study)} {_validated(study)}".strip(),),
        citations=(*_paper(measured), *method_citations(measured)),
    )


def _row(entry: Entry, cells: Iterable[Cell]) -> Row:
    return Row(title=entry.title, key=entry.name, href=method_path(entry.name), cells=tuple(cells))


def _draws(entry: Entry) -> Cell:
    if entry.curve is None:
        return Cell()
    count, seeds = len(entry.curve.draws), len(set(entry.curve.seeds))
    return Cell(text=f"{count}" if seeds == 1 else f"{count} of {seeds} seeds")


def _utility_cell(study: Study, entry: Entry, n: float) -> Cell:
    utility = next((utility for utility in entry.utilities if utility.n == n), None)
    if utility is not None:
        return _valued(utility, _state(entry, study))
    if entry.saw_labels:
        return Cell(state="undefined", metric=UTILITY, reason="its training saw the labels of all training images")
    lacking = entry if entry.curve is None else study.scratch
    if lacking is None:
        return Cell(state="missing", metric=UTILITY, reason=f"the suite has no {SCRATCH}, whose curve is the reference")
    return _without(lacking, UTILITY)


def _valued(utility: Utility, state: CellState) -> Cell:
    """U(n) with its interval; bounds are marked."""
    value, (low, high) = utility.utility, (bound and utility.share(bound) for bound in (utility.low, utility.high))
    marks = [{"at least": ABOVE, "at most": BELOW, "exact": ""}[value.kind]]
    if value.kind == "exact":
        marks += [OPEN_ABOVE * _is(high, "at least"), OPEN_BELOW * _is(low, "at most")]
    return Cell(
        state=state,
        metric=UTILITY,
        value=value.value,
        low=low.value if low else None,
        high=high.value if high else None,
        interval=INTERVAL if low else "",
        covers=utility.covers,
        marks=tuple(filter(None, marks)),
    )


def _is(bound: Bound | None, kind: str) -> bool:
    return bound is not None and bound.kind == kind


def _accuracy_cell(entry: Entry, n: float) -> Cell:
    curve = entry.curve
    if curve is None:
        return _without(entry, ACCURACY)
    if n not in curve.budgets:
        return Cell(state="unplanned", metric=ACCURACY, reason="not among this method's numbers of labels")
    place = curve.budgets.index(n)
    span = band(curve)
    return Cell(
        state=_state(entry),
        metric=ACCURACY,
        value=float(curve.mean[place]),
        low=ACCURACY.clip(span[place][0]) if span else None,
        high=ACCURACY.clip(span[place][1]) if span else None,
        interval=INTERVAL if span else "",
        covers=curve.covers if span else "",
    )


def _without(entry: Entry, metric: Metric) -> Cell:
    """Why there is no curve, in the words of the protocol's own scores."""
    own = summarize(entry.results, ACCURACY)
    reason = own.reason or "the seeds have different numbers of labels"
    return Cell(state=own.state if own.value is None else "missing", metric=metric, reason=reason)


def _state(entry: Entry, study: Study | None = None) -> CellState:
    results = (*entry.results, *(study.scratch.results if study and study.scratch else ()))
    return "stale" if any(result.planned.state == "stale" for result in results) else "measured"


def _notes(study: Study) -> tuple[str, ...]:
    notes = [
        f"{entry.title}: {entry.outcome.verdict}, because {entry.outcome.because}."
        for entry in study.entries
        if entry.outcome
    ]
    notes += [
        f"{entry.title} was trained with all labels of the training split: its curve is not label-limited."
        for entry in study.entries
        if entry.saw_labels
    ]
    if study.scratch is None:
        notes.append(f"There is no curve from scratch: add {SCRATCH} to the suite's methods.")
    return (*notes, *filter(None, (_validated(study),)))


def _recipe(study: Study) -> str:
    what = "A linear classifier on frozen features." if study.mode == "linear" else "Fine-tuning of the whole network."
    return f"{what} The curve of {SCRATCH} is the one {study.reference}."


def _validated(study: Study) -> str:
    return {
        "all": "Learning rates were chosen with all labels of the validation split, which is generous where there are "
        "fewer labels to train with.",
        "budget": "Learning rates were chosen on at most as many validation images as there are labels to train with.",
    }.get(study.validation, "")


def _paper(measured: Measured) -> tuple[str, ...]:
    card = measured.protocols.get(LABELS)
    return (card.paper,) if card and card.paper else ()
