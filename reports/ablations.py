"""Ablations: what became of each method without one of its parts, as published and as measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from bench.metric import TOP1, Metric
from bench.published.ablations import PublishedAblation, load_ablations
from bench.table import QUOTED, SECONDARY, Cell, Column, Row, Table
from reports.measured import Measured
from reports.places import method_path
from reports.published_rows import short_name
from reports.results import Result, metric_of, parsed, summarize, written

Outcome = Literal[
    "complete collapse",
    "complete in some seeds",
    "incomplete",
    "dimensional collapse",
    "none",
    "no complete",
    "unknown",
]
Answer = Literal["yes", "no", "in part", "cannot be told", "", "not published"]
Direction = Literal["lower", "higher", "not separable", ""]

LINEAR, DIAGNOSTICS = "linear_probe", "diagnostics"
STD = "embedding_std"
EMBEDDING_RANK, REPRESENTATION_RANK = "embedding_rankme_centered", "representation_rankme_centered"
RANK_SHARE = 0.5
STD_SHARE = 0.25
OUTCOME_WORDS: dict[Outcome, str] = {
    "complete collapse": "complete collapse",
    "complete in some seeds": "complete collapse in some seeds",
    "incomplete": "incomplete collapse",
    "dimensional collapse": "dimensional collapse",
    "none": "no collapse",
    "no complete": "no complete collapse",
    "unknown": "not measured",
}
RULES = (
    "Complete collapse: the training itself recorded that the embeddings of all images had become one vector; its "
    "evidence stands below the table.",
    "Incomplete collapse: short of the training's threshold, but the std of the embeddings is under a quarter of that "
    "of the reference, the method's first row. A published collapse is then reproduced in part.",
    "Dimensional collapse: neither of these, and the rank of the embeddings is under half of that of the "
    "reference. Rank means centered RankMe, that of the vectors less their mean: it counts "
    "the dimensions in which they vary, and never exceeds the number of images. Only settings of one method and width "
    "compare.",
    "Std is that of the directions, 1 when they are even. Std and rank are blind to length: embeddings that shrank to "
    "one point can still point everywhere. The training's own evidence counts their length.",
    "The two shares, a quarter and a half, and the centered rank were settled after first results of the suite had "
    "been seen. They are no tests: read the numbers.",
    "A published collapse is a complete one. Chance means that the paper prints an accuracy at chance and does not say "
    "whether the embeddings were constant.",
    "The accuracies agree when both lie on the same side of the reference: as printed, and as measured with intervals "
    "that do not overlap. A published collapse counts as lower.",
    "A collapse of the embeddings need not destroy the representation before the projector, which the linear "
    "classifier reads: compare its accuracy with that of the random initialization.",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting of one method with all of its results."""

    name: str
    results: tuple[Result, ...]
    published: PublishedAblation | None
    expected: str = ""

    @property
    def variant(self) -> str:
        return self.results[0].planned.spec.pretrain.variant

    @cached_property
    def evidence(self) -> dict[int, str | None]:
        """By seed: why its training counts as collapsed; empty when it does not, None when the store cannot tell."""
        found: dict[int, str | None] = {}
        for result in self.results:
            found[result.seed] = found.get(result.seed) or _evidence(result)
        return found

    def cell(self, protocol: str, metric: Metric) -> Cell:
        """What the protocol measured, without a link."""
        chosen = [result for result in self.results if result.planned.spec.protocol == protocol]
        return replace(summarize(chosen, metric), anchor="")


@dataclass(frozen=True, kw_only=True)
class Family:
    """The settings of one method on the same data with the same backbone; the first is the reference.

    Attributes:
        baselines: methods without training or with labels, on the same data and backbone.
    """

    method: str
    cases: tuple[Case, ...]
    baselines: tuple[Case, ...]

    @property
    def reference(self) -> Case:
        return self.cases[0]


def families(measured: Measured, expected: Mapping[str, str]) -> tuple[Family, ...]:
    """The methods of the plan that have variants, in its order; the setting without a variant comes first.

    Args:
        measured: the results.
        expected: what each setting is to show, by name.
    """
    groups: dict[tuple[str, ...], dict[str, list[Result]]] = {}
    for result in measured.results:
        spec = result.planned.spec.pretrain
        place = (spec.method, spec.data.canonical_json(), spec.backbone)
        groups.setdefault(place, {}).setdefault(spec.name, []).append(result)
    published = load_ablations()
    cases = {
        place: tuple(
            Case(
                name=name,
                results=tuple(results),
                published=published.get((place[0], results[0].planned.spec.pretrain.variant)),
                expected=expected.get(name, ""),
            )
            for name, results in sorted(names.items(), key=lambda item: item[0] != place[0])
        )
        for place, names in groups.items()
    }
    return tuple(
        Family(
            method=place[0],
            cases=found,
            baselines=tuple(
                other[0]
                for where, other in cases.items()
                if measured.is_baseline(where[0]) and where[1:] == place[1:] and len(other) == 1
            ),
        )
        for place, found in cases.items()
        if any(case.variant for case in found)
    )


def _evidence(result: Result) -> str | None:
    row = result.pretraining
    if row is None:
        return None
    if row["status"] == "failed":
        return str(row["error_message"]) if row["error_type"] == "CollapseError" else None
    collapse = parsed(row["details"]).get("collapse")
    return None if collapse is None else str(collapse)


def measured_outcome(case: Case, reference: Case) -> Outcome:
    """By the rules that ``RULES`` states."""
    found = tuple(case.evidence.values())
    if not found or any(text is None for text in found):
        return "unknown"
    if any(found):
        return "complete collapse" if all(found) else "complete in some seeds"
    (std, full_std), (rank, full_rank) = (
        [item.cell(DIAGNOSTICS, metric_of(key)).value for item in (case, reference)] for key in (STD, EMBEDDING_RANK)
    )
    if std is None or full_std is None or rank is None or full_rank is None:
        return "no complete"
    if std < STD_SHARE * full_std:
        return "incomplete"
    return "dimensional collapse" if rank < RANK_SHARE * full_rank else "none"


def collapse_agrees(case: Case, outcome: Outcome) -> Answer:
    """Whether the published and the measured outcome agree on complete collapse."""
    if case.published is None:
        return "not published"
    if case.published.outcome == "chance" or outcome in ("unknown", "complete in some seeds"):
        return "cannot be told"
    if outcome == "incomplete":
        return "in part" if case.published.outcome == "collapse" else "cannot be told"
    return "yes" if (case.published.outcome == "collapse") == (outcome == "complete collapse") else "no"


def published_direction(case: Case, reference: Case) -> Direction:
    """On which side of the reference the printed accuracy lies."""
    here, full = case.published, reference.published
    if here is None or full is None:
        return ""
    if here.outcome == "collapse":
        return "lower"
    if here.paper != full.paper or here.value is None or full.value is None:
        return ""
    return "lower" if here.value < full.value else "higher"


def measured_direction(case: Case, reference: Case) -> Direction:
    """On which side of the reference the measured accuracy lies, if the intervals keep them apart."""
    here, full = case.cell(LINEAR, TOP1), reference.cell(LINEAR, TOP1)
    if here.low is None or here.high is None or full.low is None or full.high is None:
        return ""
    if here.high < full.low:
        return "lower"
    return "higher" if here.low > full.high else "not separable"


def accuracy_agrees(case: Case, reference: Case) -> Answer:
    """Whether the accuracies lie on the same side of the reference."""
    if case is reference:
        return ""
    printed, found = published_direction(case, reference), measured_direction(case, reference)
    if not printed:
        return "not published"
    if found in ("", "not separable"):
        return "cannot be told"
    return "yes" if printed == found else "no"


def ablation_table(measured: Measured, family: Family) -> Table:
    """One row per setting, and the baselines below."""
    metrics = {key: _metric(measured, key) for key in (STD, EMBEDDING_RANK, REPRESENTATION_RANK)}
    published = ("published",)
    here = ("measured",)
    title = measured.method_title(family.method)
    sources = [case.published.paper for case in family.cases if case.published]
    return Table(
        key=f"ablations-{family.method}",
        title=f"Ablations of {title}",
        caption=f"{title} without one of its parts. {_context(measured, family)}",
        stub="Setting",
        columns=(
            Column(title="what is changed"),
            Column(title="outcome", groups=published),
            Column(title="top-1", groups=published, metric=TOP1),
            Column(title="source", groups=published),
            Column(title="outcome", groups=here),
            Column(title="top-1", groups=here, metric=TOP1),
            Column(title="std", groups=(*here, "embedding"), metric=metrics[STD]),
            Column(title="rank", groups=(*here, "embedding"), metric=metrics[EMBEDDING_RANK]),
            Column(title="rank", groups=(*here, "representation"), metric=metrics[REPRESENTATION_RANK]),
            Column(title="collapse", groups=("agree",)),
            Column(title="accuracy", groups=("agree",)),
        ),
        rows=(
            *(_row(measured, family, case, metrics.values()) for case in family.cases),
            *(_baseline_row(measured, case, metrics.values()) for case in family.baselines),
        ),
        notes=(*_sizes(family), *filter(None, (_note(measured, family, case) for case in family.cases))),
        rules=RULES,
        citations=tuple(dict.fromkeys(sources)),
    )


def _metric(measured: Measured, key: str) -> Metric:
    card = measured.protocols.get(DIAGNOSTICS)
    return metric_of(key, card.metrics if card else ())


def _context(measured: Measured, family: Family) -> str:
    spec = family.reference.results[0].planned.spec.pretrain
    epochs = f", {spec.training.epochs} epochs" if spec.training else ""
    return (
        f"Published: linear evaluation of a ResNet-50 on ImageNet-1k. Measured: {measured.data_title(spec.data)}, "
        f"backbone {measured.title(spec.backbone)}{epochs}."
    )


def _title(measured: Measured, case: Case) -> str:
    return case.variant or measured.method_title(case.name)


def _row(measured: Measured, family: Family, case: Case, metrics: Any) -> Row:
    outcome = measured_outcome(case, family.reference)
    cells = (
        Cell(text=changed(case, family.reference)),
        *_published_cells(case.published),
        Cell(text=OUTCOME_WORDS[outcome]),
        case.cell(LINEAR, TOP1),
        *(case.cell(DIAGNOSTICS, metric) for metric in metrics),
        Cell(text=collapse_agrees(case, outcome)),
        Cell(text=accuracy_agrees(case, family.reference)),
    )
    return Row(title=_title(measured, case), key=case.name, href=method_path(case.name), cells=cells)


def _baseline_row(measured: Measured, case: Case, metrics: Any) -> Row:
    values = (case.cell(LINEAR, TOP1), *(case.cell(DIAGNOSTICS, metric) for metric in metrics))
    cells = (Cell(text="a baseline"), Cell(), Cell(), Cell(), Cell(), *values, Cell(), Cell())
    return Row(title=measured.method_title(case.name), key=case.name, href=method_path(case.name), cells=cells)


def _published_cells(record: PublishedAblation | None) -> tuple[Cell, Cell, Cell]:
    if record is None:
        absent = Cell(state="absent", metric=TOP1, reason="no value is printed in the sources")
        return Cell(text="not published"), absent, Cell()
    marks = ((QUOTED, record.quoted), (SECONDARY, record.confidence == "secondary"))
    held = tuple(mark for mark, holds in marks if holds)
    value = Cell(state="absent", metric=TOP1, reason="the source prints the word, no number", marks=held)
    if record.value is not None:
        value = replace(value, state="published", value=record.value, reason="")
    source = f"{short_name(record.paper)}, {record.source_table}"
    return Cell(text=record.outcome), value, Cell(text=source)


def changed(case: Case, reference: Case) -> str:
    """The settings in which a case departs from its reference, as ``std_coeff 25 → 0``."""
    if case is reference:
        return "nothing: the reference"
    here, full = (item.results[0].planned.spec.pretrain for item in (case, reference))
    pairs = [(full.method_params, here.method_params)]
    if full.training and here.training:
        pairs.append((full.training.model_dump(), here.training.model_dump()))
    parts = [
        f"{key} {written(before.get(key))} → {written(after.get(key))}"
        for before, after in pairs
        for key in after
        if before.get(key) != after.get(key)
    ]
    return ", ".join(parts) or "nothing"


def _sizes(family: Family) -> tuple[str, ...]:
    """From how many images and dimensions the ranks are."""
    found: dict[str, None] = {}
    for result in (result for case in family.cases for result in case.results):
        row = result.metrics.get(EMBEDDING_RANK)
        sizes = parsed(row["details"]) if row else {}
        if "n" in sizes and "d" in sizes:
            parts = [f"{kind}s of {width} dimensions" for kind, width in sorted(sizes["d"].items())]
            found[f"Std and ranks: from N = {sizes['n']} test images, {' and '.join(parts)}."] = None
    return tuple(found)


def _note(measured: Measured, family: Family, case: Case) -> str:
    """What the setting is to show, what was published of it and what the training recorded."""
    parts = [case.expected[:1].upper() + case.expected[1:].strip().rstrip(".")] if case.expected else []
    if case.published:
        record = case.published
        extra = f"; {record.notes}" if record.notes else ""
        parts.append(f"Published for: {record.setting}, {record.epochs} epochs{extra}")
    several = len(case.evidence) > 1
    for seed, text in case.evidence.items():
        if text:
            parts.append(f"Here{f', seed {seed}' if several else ''}: {text.rstrip('.')}")
    outcome = measured_outcome(case, family.reference)
    if collapse_agrees(case, outcome) in ("no", "in part"):
        parts.append(f"Not reproduced in the small setting of this suite, which shows: {OUTCOME_WORDS[outcome]}")
    return f"{_title(measured, case)}. {'. '.join(parts)}." if parts else ""


def headline(found: Sequence[Family]) -> str:
    """How many published outcomes were reproduced, in a sentence."""
    cases = [(family, case) for family in found for case in family.cases]
    changed = [(family, case) for family, case in cases if case is not family.reference and case.published]
    answers: dict[bool, list[Answer]] = {True: [], False: []}
    for family, case in changed:
        assert case.published is not None
        answer = collapse_agrees(case, measured_outcome(case, family.reference))
        answers[case.published.outcome != "no collapse"].append(answer)
    collapsed, sound = answers[True], answers[False]
    unknown = sum(answer == "cannot be told" for answer in (*collapsed, *sound))
    return (
        f"{len(cases)} settings of {len(found)} methods. "
        f"Of {len(collapsed)} settings that a source sees collapse or at chance, "
        f"{collapsed.count('yes')} collapse here, {collapsed.count('in part')} in part, {collapsed.count('no')} not; "
        f"of {len(sound)} changed settings that a source sees hold, {sound.count('yes')} hold."
        + (f" {unknown} cannot be told." if unknown else "")
    )
