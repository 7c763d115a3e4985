"""The verdict in words: who leads, what that rests on, what to do next, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.metric import AP, AUROC, BALANCED_ACCURACY, TOP1, Metric
from bench.statistics.paired import Difference
from bench.table import Cell, Column, Row, Table
from reports.cautions import Advice, advice, warnings
from reports.contest import POINTS, Contest, Entrant, Loader, contest_of, contests, point_words, span_words, value_words
from reports.diagnostics import collapse_flags
from reports.findings import not_learned
from reports.forest import forest
from reports.label_efficiency import VERDICTS, Worth
from reports.label_efficiency import worth as label_worth
from reports.measured import Measured
from reports.results import Result
from reports.words import counted, listed

P_VALUE = Metric(key="p", title="p, corrected", higher_is_better=None, decimals=3)

OPEN = VERDICTS["cannot be told"]
CALLED = {
    TOP1.key: "accuracy",
    BALANCED_ACCURACY.key: "balanced accuracy",
    AUROC.key: "AUROC",
    AP.key: "average precision (AP)",
}
EXPLAINED = {
    TOP1.key: "Accuracy is the share of test images whose class is named correctly.",
    BALANCED_ACCURACY.key: "Balanced accuracy is the share of correctly named images, taken for each class and then "
    "averaged, because the classes differ much in size: a large class cannot hide a small one.",
    AUROC.key: "AUROC is the probability that an image with a finding gets a higher score than one without it, "
    "averaged over the findings: 50 % is guessing, 100 % is perfect.",
    AP.key: "Average precision is high when a detector finds the objects, frames them tightly, and is surer of its "
    "right boxes than of its wrong ones: 100 % is perfect, and boxes at random places have nearly 0 %. A box is right "
    "when it and an object of its class overlap by 50 % of their joint area, then 55 %, and so on up to 95 %; AP is "
    "the mean over these demands and over the classes.",
}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A question of the reader and the answer, in sentences."""

    question: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the first page says before any table.

    Attributes:
        title: the images it is about.
        headline: the answer in one sentence.
        answers: the questions behind it, in the order of reading.
        advice: what to do next.
        warnings: what may make the answer wrong.
        figure: every method's value with its interval, as an ``<svg>`` element.
        pairs: every pair's difference; None with one method.
        objects: it is about finding objects.
    """

    title: str
    headline: str
    answers: tuple[Answer, ...]
    advice: tuple[Advice, ...]
    warnings: tuple[str, ...]
    figure: str
    pairs: Table | None
    objects: bool = False


def verdicts(measured: Measured, predictions: Loader) -> tuple[Verdict, ...]:
    """One verdict for each set of test images; none where nothing with stored predictions was measured."""
    found = contests(measured, predictions)
    worth = worth_words(tuple(label_worth(measured).values()))
    flags = [flag.title for flag in collapse_flags(measured)]
    return tuple(
        Verdict(
            title=contest.data,
            headline=_lead(contest)[0],
            answers=tuple(answer for answer in _answers(measured, contest, worth, predictions) if answer.sentences),
            advice=tuple(advice(contest)),
            warnings=tuple(warnings(contest, flags)),
            figure=forest(contest),
            pairs=_pairs(contest, key="pairs" if index == 0 else f"pairs-{index + 1}"),
            objects=contest.objects is not None,
        )
        for index, contest in enumerate(found)
    )


def _answers(measured: Measured, contest: Contest, worth: Sequence[str], predictions: Loader) -> Iterable[Answer]:
    yield Answer(question="Which method leads?", sentences=_lead(contest)[1:])
    yield Answer(question="Is pre-training worth it at all?", sentences=tuple(_against_baselines(contest)))
    if worth and contest.objects is None:
        yield Answer(question="How many labels is it worth?", sentences=tuple(worth))
    else:
        yield Answer(question="What with few labels?", sentences=tuple(_with_few(measured, contest, predictions)))
    yield Answer(question="What does this rest on?", sentences=tuple(_grounds(measured, contest)))


def worth_words(items: Sequence[Worth]) -> tuple[str, ...]:
    """What the labels are worth with each method, and then what becomes of the gain with more of them."""
    outcomes: dict[str, list[str]] = {}
    for item in items:
        outcomes.setdefault(item.verdict, []).append(item.title)
    told = [f"{verdict.rstrip('.')} ({listed(titles)})." for verdict, titles in outcomes.items() if verdict != OPEN]
    if OPEN in outcomes:
        open_for = listed(outcomes[OPEN])
        told.append(f"Whether that is a lasting gain, one that ends, or none cannot be told for {open_for}.")
    return (*(item.sentence for item in items), *told)


# --- who leads --------------------------------------------------------------------------------------------------


def _gap(item: Difference) -> str:
    """``3.1 points (0.4 to 5.8)``, of the first over the second."""
    return f"{point_words(item.value)} points{span_words(POINTS, item.low, item.high)}"


def _lead(contest: Contest) -> tuple[str, ...]:
    """The headline, then the sentences that explain it."""
    entrants, indices = contest.entrants, contest.methods
    if not indices:
        return ("No self-supervised method has a value yet.",)
    called = CALLED[contest.metric.key]
    if len(indices) == 1 or contest.comparison is None:
        only = entrants[indices[0]]
        return (
            f"{only.title} is the only self-supervised method that has a value.",
            f"Its {called} is {value_words(contest, only)}; brackets hold the 95 % interval.",
        )
    leaders = contest.comparison.leaders(indices)
    worse = sorted(set(indices) - set(leaders), key=lambda index: -entrants[index].value)
    best, titles = entrants[leaders[0]], [entrants[index].title for index in leaders]
    first = f"{best.title} has the highest {called}, {value_words(contest, best)}; brackets hold the 95 % interval."
    losses = [
        f"{entrants[index].title} is worse than {best.title} by {_gap(contest.comparison.between(leaders[0], index))}."
        for index in worse
    ]
    if len(leaders) == 1:
        return (f"{best.title} leads: {_better(contest)} every other self-supervised method.", first, *losses)
    ties = [
        f"{entrants[index].title} lies {_gap(contest.comparison.between(leaders[0], index))} behind"
        for index in leaders[1:]
    ]
    told = f"{listed(ties)}: so small a difference may be chance." if ties else ""
    caution = "That is no proof that they are equal."
    finding = "" if contest.objects is None else " in finding objects"
    if not worse:
        headline = f"No winner can be named{finding}: {listed(titles)} cannot be told apart."
    else:
        headline = f"{listed(titles)} lead{finding} and cannot be told apart."
    return (headline, first, f"{told} {caution}", *losses)


def _better(contest: Contest) -> str:
    """What leading means here."""
    return "it is better than" if contest.objects is None else "detectors built on it find objects better than those of"


def _against_baselines(contest: Contest) -> Iterable[str]:
    """For each baseline which methods beat it, which do not, and which cannot be told apart from it."""
    if contest.comparison is None or not contest.methods:
        return
    baselines = [(index, entrant) for index, entrant in enumerate(contest.entrants) if entrant.baseline]
    for index, entrant in sorted(baselines, key=lambda pair: not _untrained(pair[1])):
        gaps = [(other, contest.comparison.between(other, index)) for other in contest.methods]
        ranked = sorted(gaps, key=lambda pair: -pair[1].value)
        better = [(contest.entrants[i].title, d) for i, d in ranked if d.separated and d.value > 0]
        worse = [(contest.entrants[i].title, _turned(contest, d)) for i, d in ranked if d.separated and d.value < 0]
        alike = [(contest.entrants[i].title, d) for i, d in ranked if not d.separated]
        if _untrained(entrant):
            yield _worth_it([title for title, _ in better], [title for title, _ in worse], of=len(gaps))
        what = f"{_what(entrant)} ({entrant.title}, {value_words(contest, entrant)})"
        if not better and not worse:
            yield _undecided(what, alike)
            continue
        for word, members in (("Better", better), ("Worse", worse)):
            if members:
                yield f"{word} than {what}: {listed([f'{title} by {_gap(item)}' for title, item in members])}."
                what = "it"
        if alike:
            yield f"Not told apart from it: {listed([f'{title} ({_gap(item)})' for title, item in alike])}."


def _untrained(entrant: Entrant) -> bool:
    """Whether the baseline is what pre-training starts from."""
    return not (entrant.learns_labels or entrant.imported or entrant.epochs)


def _worth_it(better: Sequence[str], worse: Sequence[str], *, of: int) -> str:
    """The short answer, from the comparison with the untrained network alone."""
    if better:
        return "Yes." if len(better) == of else f"Yes, with {listed(better)}."
    return "No." if len(worse) == of else "These values do not show it."


def _undecided(what: str, alike: Sequence[tuple[str, Difference]]) -> str:
    """No method can be told apart from the baseline."""
    title, item = max(alike, key=lambda pair: abs(pair[1].value))
    if len(alike) == 1:
        return f"{title} cannot be told apart from {what}: the difference is {_gap(item)}."
    return (
        f"No self-supervised method can be told apart from {what}: the largest difference, that of {title}, is "
        f"{_gap(item)}."
    )


def _turned(contest: Contest, item: Difference) -> Difference:
    assert contest.comparison is not None
    return contest.comparison.between(item.second, item.first)


def _what(entrant: Entrant) -> str:
    if entrant.imported:
        return "a checkpoint from a file"
    if entrant.learns_labels:
        return "the same network trained on all labels of the training images"
    return "the same network without any training" if _untrained(entrant) else "the baseline"


def _with_few(measured: Measured, contest: Contest, predictions: Loader) -> Iterable[str]:
    """The deciding protocol with fewer labels, where no curve of label efficiency was measured."""
    few: dict[str, list[Result]] = {}
    for result in measured.results:
        spec = result.planned.spec
        fewer = float(spec.protocol_params.get("fraction", 1.0)) < 1
        if fewer and spec.protocol == contest.protocol_key and measured.data_title(spec.data) == contest.data:
            few.setdefault(spec.variant, []).append(result)
    for results in few.values():
        found = contest_of(measured, results, predictions)
        if found is None or not found.methods or found.comparison is None:
            continue
        fraction = float(results[0].planned.spec.protocol_params["fraction"])
        best = max(found.methods, key=lambda index: found.entrants[index].value)
        whose = "patients" if contest.patient_count else "images"
        words = f"With the labels of {100 * fraction:g} % of the training {whose} only, "
        words += f"{found.entrants[best].title} has the highest value, {value_words(found, found.entrants[best])}"
        for index, entrant in enumerate(found.entrants):
            if entrant.baseline and _untrained(entrant):
                gap = found.comparison.between(best, index)
                told = "better than" if gap.separated and gap.value > 0 else "not told apart from"
                told = "worse than" if gap.separated and gap.value < 0 else told
                words += f", {told} {_what(entrant)} ({value_words(found, entrant)}; difference {_gap(gap)})"
        yield f"{words}."
        if lost := not_learned(results):
            yield (
                f"{counted(len(lost), 'finding')} of {len(found.names)} could not be learned from so few labels and "
                f"{'counts' if len(lost) == 1 else 'count'} as guessing (50 %): {listed(lost)}."
            )


# --- what it rests on -------------------------------------------------------------------------------------------


def _grounds(measured: Measured, contest: Contest) -> Iterable[str]:
    of = f" of {counted(contest.patient_count, 'patient')}" if contest.patient_count else ""
    card = measured.protocols.get(contest.protocol_key)
    shown = "" if contest.objects is None else f" with {counted(contest.objects, 'object')}"
    yield f"It rests on {counted(contest.images, 'test image')}{of}{shown}, which no method saw in training."
    yield f"{contest.protocol}: {card.summary}" if card else f"The protocol is {contest.protocol}."
    yield EXPLAINED[contest.metric.key]
    if contest.objects is not None:
        yield "The detectors differ in the encoder that they start from; the page “Detection” has their settings."
    drawn = "patients" if contest.clustered else "images"
    if contest.seeds == 1:
        yield (
            f"Methods were trained only once (one seed): the intervals say how much another choice of test "
            f"{drawn} could change the values, not how much chance in the training could."
        )
    else:
        yield (
            f"Each method was trained {contest.seeds} times (seeds); the intervals cover both the choice of test "
            f"{drawn} and chance in the training."
        )
    if contest.comparison is not None:
        pairs = contest.comparison.differences
        test = "McNemar's exact test" if pairs[0].test == "exact McNemar" else f"a paired bootstrap of {drawn}"
        yield (
            f"Methods are compared image by image, by {test}; the results of {counted(len(pairs), 'pair')} are "
            "corrected together (Holm, 5 %), so an interval may exclude zero where two methods still count as not "
            "told apart."
        )


# --- every pair -------------------------------------------------------------------------------------------------


def _pairs(contest: Contest, *, key: str) -> Table | None:
    if contest.comparison is None:
        return None
    rows = []
    for item in sorted(contest.comparison.differences, key=lambda item: -abs(item.value)):
        turned = item if item.value >= 0 else contest.comparison.between(item.second, item.first)
        first, second = contest.entrants[turned.first], contest.entrants[turned.second]
        difference = Cell(
            state="measured", metric=POINTS, value=turned.value, low=turned.low, high=turned.high, best=turned.separated
        )
        told = Cell(text="told apart" if turned.separated else "not told apart")
        p = Cell(state="measured", metric=P_VALUE, value=turned.adjusted)
        rows.append(Row(title=f"{first.title} over {second.title}", cells=(difference, p, told)))
    return Table(
        key=key,
        title="Every pair",
        caption=f"Differences in {CALLED[contest.metric.key]} on {contest.data}, in points, with the 95 % interval of "
        "each pair alone.",
        columns=(
            Column(title=POINTS.title, metric=POINTS),
            Column(title=P_VALUE.title, metric=P_VALUE),
            Column(title="after correction"),
        ),
        rows=tuple(rows),
        stub="Pair",
        rules=(
            f"p is that of {contest.comparison.differences[0].test}, corrected for all pairs (Holm); below 0.05 the "
            "two can be told apart. Bold marks these.",
        ),
    )
