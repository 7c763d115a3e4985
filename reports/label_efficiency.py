"""What pre-training is worth in labels: every method's curve against that from scratch, judged and put into words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bench.metric import Metric
from bench.statistics.label_outcome import LabelOutcome, judge
from bench.statistics.utility import Comparison, Curve, Utility, compare, interval
from reports.measured import Measured, context_cells, protocol_title
from reports.places import LABELS
from reports.results import Result, parsed

SCRATCH = "random_init"
"""The method whose curve is the one from scratch."""

ACCURACY = Metric(key="top1", title="top-1", unit="%", lower=0.0, upper=100.0)
REFERENCES = {"finetune": "from scratch", "linear": "on random features"}
"""What the reference is called, by the protocol's mode."""

VERDICTS = {
    "improvement": "Improvement: a gain at every number of labels, and a higher plateau.",
    "same plateau": "Same plateau, reached with fewer labels.",
    "convergence": "Convergence: a gain with few labels only.",
    "no gain": "No gain.",
    "cannot be told": "Cannot be told.",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One method of a study.

    Attributes:
        saw_labels: its training saw the labels of all training images, whatever their number here.
        curve: over the draws of all seeds; None while a seed is missing.
        comparison, outcome: absent without both curves, and for a method whose training saw all labels.
    """

    name: str
    title: str
    results: tuple[Result, ...]
    saw_labels: bool
    curve: Curve | None
    comparison: Comparison | None = None
    outcome: LabelOutcome | None = None

    @property
    def headline(self) -> str:
        """The verdict in a sentence, or why there is none."""
        if self.outcome is not None:
            return VERDICTS[self.outcome.verdict]
        return "Not judged: its training saw the labels of all training images." if self.saw_labels else "Not judged."

    @property
    def utilities(self) -> tuple[Utility, ...]:
        return self.comparison.utilities if self.comparison else ()


@dataclass(frozen=True, kw_only=True)
class Study:
    """All methods under one setting of the protocol, on the same data and backbone.

    Attributes:
        key: for ids and file names.
        where: data, backbone and epochs in words.
        mode: ``finetune`` or ``linear``.
        scratch: the method from scratch; None where the suite has none.
    """

    key: str
    title: str
    where: str
    mode: str
    validation: str
    entries: tuple[Entry, ...]
    scratch: Entry | None

    @property
    def reference(self) -> str:
        return REFERENCES.get(self.mode, "from scratch")

    @cached_property
    def judged(self) -> tuple[Entry, ...]:
        """The methods that are compared with the curve from scratch."""
        return tuple(entry for entry in self.entries if entry.comparison is not None)

    @cached_property
    def budgets(self) -> tuple[float, ...]:
        known = [entry.curve.budgets for entry in (*self.entries, self.scratch) if entry and entry.curve]
        return tuple(sorted({budget for budgets in known for budget in budgets}))


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What pre-training with a method is worth, for a page of conclusions.

    Attributes:
        sentence: ``100 labels with VICReg are worth 270 (190–410) labels from scratch.``
        verdict: which of the outcomes, in a sentence.
        because: what decided it, as a sentence.
        utility: what the sentence is made of.
    """

    name: str
    title: str
    sentence: str
    verdict: str
    because: str
    utility: Utility


def worth(measured: Measured) -> dict[str, Worth]:
    """By name of the method, in the order of the plan; fine-tuning comes before linear classifiers.

    Methods without a curve, without one from scratch beside it, or with all labels in their training have none.
    """
    found: dict[str, Worth] = {}
    for study in sorted(studies(measured), key=lambda study: study.mode != "finetune"):
        for entry in study.judged:
            found.setdefault(entry.name, _worth(entry, study))
    return found


def _worth(entry: Entry, study: Study) -> Worth:
    assert entry.outcome is not None
    utility = telling(entry)
    return Worth(
        name=entry.name,
        title=entry.title,
        sentence=f"{utility.sentence(entry.title, reference=study.reference)}.",
        verdict=VERDICTS[entry.outcome.verdict],
        because=f"{entry.outcome.because[:1].upper()}{entry.outcome.because[1:]}.",
        utility=utility,
    )


def telling(entry: Entry) -> Utility:
    """The utility that a sentence is made of: known best, then nearest to the middle of the curve.

    Known from both sides comes before known with an open interval, that before a bound; the largest number of labels is
    taken only if there is no other.
    """
    middle = math.sqrt(entry.utilities[0].n * entry.utilities[-1].n)

    def rank(utility: Utility) -> tuple[int, float]:
        kinds = [bound.kind for bound in (utility.worth, utility.low, utility.high) if bound is not None]
        unknown = 2 * (utility.worth.kind != "exact") + any(kind != "exact" for kind in kinds)
        return unknown, abs(math.log(utility.n / middle))

    return min(entry.utilities[:-1] or entry.utilities, key=rank)


def studies(measured: Measured) -> tuple[Study, ...]:
    """One study for each dataset, backbone, number of epochs and setting of the protocol, in the order of the plan."""
    groups: dict[tuple[str, ...], dict[str, list[Result]]] = {}
    for result in measured.results:
        spec = result.planned.spec
        if spec.protocol == LABELS:
            data = (spec.pretrain.data.canonical_json(), spec.data.canonical_json())
            place = (*data, spec.pretrain.backbone, spec.variant)
            groups.setdefault(place, {}).setdefault(spec.pretrain.name, []).append(result)
    return tuple(_study(measured, methods, number) for number, methods in enumerate(groups.values()))


def budgeted(measured: Measured) -> Measured:
    """What is measured under the protocol of this page."""
    kept = tuple(result for result in measured.results if result.planned.spec.protocol == LABELS)
    return replace(measured, results=kept)


def _study(measured: Measured, methods: Mapping[str, Sequence[Result]], number: int) -> Study:
    entries = {
        name: Entry(
            name=name,
            title=measured.method_title(name),
            results=tuple(results),
            saw_labels=name in measured.methods and measured.methods[name].uses_labels,
            curve=curve_of(results),
        )
        for name, results in methods.items()
    }
    scratch = entries.pop(SCRATCH, None)
    first = next(iter(methods.values()))
    spec = first[0].planned.spec
    cells = context_cells(measured, first)
    settings = next((_details(result) for results in methods.values() for result in results if result.metrics), {})
    return Study(
        key=f"labels-{number}" if number else "labels",
        title=protocol_title(measured.protocols, LABELS, spec.variant),
        where=f"{cells[0].text}, backbone {cells[1].text}",
        mode=str(settings.get("mode", spec.protocol_params.get("mode", "finetune"))),
        validation=str(settings.get("validation", "")),
        entries=tuple(_compared(entry, scratch) for entry in entries.values()),
        scratch=scratch,
    )


def _compared(entry: Entry, scratch: Entry | None) -> Entry:
    if entry.curve is None or scratch is None or scratch.curve is None or entry.saw_labels:
        return entry
    comparison = compare(entry.curve, scratch.curve)
    return replace(entry, comparison=comparison, outcome=judge(comparison))


def _details(result: Result) -> Mapping[str, object]:
    return parsed(next(iter(result.metrics.values()))["details"])


def curve_of(results: Sequence[Result]) -> Curve | None:
    """The stored curves of all seeds as one; None while one is missing or has other budgets."""
    columns, draws, seeds = [], [], []
    budgets: tuple[float, ...] = ()
    for result in results:
        if not result.metrics:
            return None
        stored = parsed(next(iter(result.metrics.values()))["details"]).get("measured", {}).get("curve", {})
        own = tuple(map(float, stored.get("budgets", ())))
        if not own or (budgets and own != budgets):
            return None
        budgets = own
        accuracies = np.asarray(stored[ACCURACY.key], dtype=np.float64)  # (B, draws)
        columns.append(accuracies)
        draws += [(result.seed, draw) for draw in range(accuracies.shape[1])]
        seeds += [result.seed] * accuracies.shape[1]
    return Curve(budgets=budgets, accuracies=np.concatenate(columns, axis=1), draws=tuple(draws), seeds=tuple(seeds))


def band(curve: Curve) -> tuple[tuple[float, float], ...]:
    """The interval of the mean accuracy at each budget; empty with fewer than three draws."""
    tuned = compare(curve, curve).tuned
    return () if tuned is None else tuple(interval(tuned[:, i]) for i in range(tuned.shape[1]))
