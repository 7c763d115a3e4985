"""Label efficiency drawn as in the survey's Figure 3: accuracy against labels, with pre-training and from scratch."""

from __future__ import annotations

from collections.abc import Sequence

from bench.statistics.utility import Curve, Utility, counted
from reports.curves import Arrow, Figure, Series
from reports.label_efficiency import ACCURACY, Entry, Study, band, telling
from reports.places import slug

PRETRAINED, SCRATCH = 0, 5  # slots, which decide color and dash
Y_LABEL = "top-1, %"
X_LABEL = "number of labels"


def method_figure(study: Study, entry: Entry) -> Figure | None:
    """One method beside the curve from scratch, with an arrow for the labels saved."""
    if entry.curve is None:
        return None
    series = [_series("pre-trained", PRETRAINED, entry.curve)]
    if study.scratch and study.scratch.curve:
        series.append(_series(study.reference, SCRATCH, study.scratch.curve))
    arrows = (_arrow(entry, telling(entry)),) if entry.comparison else ()
    return Figure(
        key=f"{study.key}-{slug(entry.name)}",
        title=entry.title,
        x_label=X_LABEL,
        y_label=Y_LABEL,
        series=tuple(series),
        summary=_summary(study, entry),
        equal_axes=True,
        ticks=entry.curve.budgets,
        arrows=arrows,
    )


def whole_figure(study: Study, figures: Sequence[Figure]) -> Figure:
    """Title, axes and summary of all methods' panels together."""
    verdicts = [f"{entry.title}: {entry.outcome.verdict}" for entry in study.entries if entry.outcome]
    lines = "solid: pre-trained" + (f", dashed: {study.reference}" if study.scratch and study.scratch.curve else "")
    return Figure(
        key=f"{study.key}-all",
        title=study.title,
        x_label=X_LABEL,
        y_label=Y_LABEL,
        series=(),
        summary=f"Top-1 against the number of labels, {len(figures)} panels on common axes; {lines}."
        + (f" {'; '.join(verdicts)}." if verdicts else ""),
    )


def _series(name: str, slot: int, curve: Curve) -> Series:
    span = [(ACCURACY.clip(low), ACCURACY.clip(high)) for low, high in band(curve)]
    return Series(
        name=name,
        slot=slot,
        seed=0,
        epochs=curve.budgets,
        values=tuple(map(float, curve.mean)),
        low=tuple(low for low, _ in span),
        high=tuple(high for _, high in span),
    )


def _arrow(entry: Entry, utility: Utility) -> Arrow:
    """From the pre-trained curve to where the curve from scratch is as high, or to its end."""
    assert entry.curve is not None
    height = float(entry.curve.mean[entry.curve.budgets.index(utility.n)])
    share = utility.worth.value / utility.n
    text = {"exact": f"× {share:.2g}", "at least": f"> × {share:.2g}", "at most": f"< × {share:.2g}"}[
        utility.worth.kind
    ]
    return Arrow(start=utility.n, end=utility.worth.value, height=height, text=text)


def _summary(study: Study, entry: Entry) -> str:
    assert entry.curve is not None
    curves = [("pre-trained", entry.curve)]
    if study.scratch and study.scratch.curve:
        curves.append((study.reference, study.scratch.curve))
    ends = "; ".join(
        f"{name} from {curve.mean[0]:.1f} % with {counted(curve.budgets[0])} labels to {curve.mean[-1]:.1f} % with "
        f"{counted(curve.budgets[-1])}"
        for name, curve in curves
    )
    draws = (
        f"mean and 95 % interval over {entry.curve.units.shape[1]} draws" if band(entry.curve) else "mean over draws"
    )
    if entry.outcome is None:
        return f"Top-1, {draws}: {ends}."
    sentence = telling(entry).sentence(entry.title, reference=study.reference)
    return f"{sentence}. Top-1, {draws}: {ends}."
