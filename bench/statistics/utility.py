"""What pre-training is worth in labels: the utility of Newell and Deng, with intervals and censoring.

With a(n) the accuracy from scratch and a_ft(n) that after pre-training, both with n labels, n^ solves a(n^) = a_ft(n)
and the utility is U(n) = n^ / n - 1: 0 where pre-training saves nothing, 1 where it equals twice the labels.

The scratch curve is made monotone (isotonic regression of the mean over draws) and interpolated in log n. Where it
never reaches a_ft(n) all that is known is n^ > n_max, so that U > n_max / n - 1; where it starts above, n^ < n_min.
Such values are censored and stay on the scale of all others. (The authors' code leaves out the -1 of the first kind
and returns -1 for the second.)

Source: Newell and Deng 2020, arXiv 2003.14323; repository princeton-vl/selfstudy @d18ab26c.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError

Floats = NDArray[np.float64]
Kind = Literal["exact", "at least", "at most"]

RESAMPLES = 4000
LEVEL = 0.95
FEWEST_DRAWS = 3
"""With fewer draws there is no interval."""

TOLERANCE = 1e-9
"""Accuracies closer than this are equal: averages of equal values may differ in their last bit."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy against the number of labels.

    Attributes:
        budgets: (B,) ascending numbers of labels, all above 0; any unit will do, such as shares of a training split.
        accuracies: (B, R), one column per draw of the labels; higher is better.
        draws: (R,) what tells the draws apart; two curves with equal draws were measured on the same labels.
        seeds: (R,) the pre-training behind each draw.
    """

    budgets: tuple[float, ...]
    accuracies: Floats
    draws: tuple[Hashable, ...] = ()
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        accuracies = np.asarray(self.accuracies, dtype=np.float64)
        object.__setattr__(self, "accuracies", accuracies)
        ascends = all(low < high for low, high in zip((0.0, *self.budgets), self.budgets, strict=False))
        if not self.budgets or not ascends or accuracies.ndim != 2 or accuracies.shape[0] != len(self.budgets):
            raise DataError(
                f"A curve needs ascending budgets above 0 and a row of accuracies for each, got {self.budgets} and an "
                f"array of shape {accuracies.shape}. Sort the budgets and give an array of (budgets, draws)."
            )
        count = accuracies.shape[1]
        if not count or not np.isfinite(accuracies).all():
            raise DataError("A curve needs a finite accuracy for every budget and draw. Leave the method out.")
        object.__setattr__(self, "draws", self.draws or tuple(range(count)))
        object.__setattr__(self, "seeds", self.seeds or (0,) * count)
        if len(self.draws) != count or len(self.seeds) != count:
            raise DataError(
                f"A curve of {count} draws has {len(self.draws)} names and {len(self.seeds)} seeds of them."
            )

    @property
    def mean(self) -> Floats:
        """(B,) mean accuracy over the draws."""
        average: Floats = self.accuracies.mean(axis=1)
        return average

    @cached_property
    def units(self) -> Floats:
        """(B, U) independent observations: the draws, or the seeds' means where there are three seeds or more.

        Draws of one pre-training share its encoder. Three seeds are enough to let its variance count; two are not.
        """
        distinct = sorted(set(self.seeds))
        if len(distinct) < FEWEST_DRAWS:
            return self.accuracies
        of = np.asarray(self.seeds)
        return np.stack([self.accuracies[:, of == seed].mean(axis=1) for seed in distinct], axis=1)

    @property
    def covers(self) -> str:
        """The source of variance that an interval covers."""
        return "pre-training and label draws" if len(set(self.seeds)) >= FEWEST_DRAWS else "label draws"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A number that is known, or known from one side only."""

    value: float
    kind: Kind = "exact"


@dataclass(frozen=True, kw_only=True)
class Utility:
    """What a number of labels is worth after pre-training.

    Attributes:
        n: number of labels.
        worth: n^, the number of labels from scratch with the same accuracy.
        low, high: ends of its interval; None with fewer than three draws.
        covers: the source of variance that the interval covers.
    """

    n: float
    worth: Bound
    low: Bound | None = None
    high: Bound | None = None
    covers: str = ""

    @property
    def utility(self) -> Bound:
        """U(n) = n^ / n - 1, or the bound on it."""
        return self.share(self.worth)

    def share(self, labels: Bound) -> Bound:
        """A number of labels from scratch as a utility."""
        return Bound(value=labels.value / self.n - 1, kind=labels.kind)

    @property
    def span(self) -> str:
        """The interval in numbers of labels, such as ``190–410`` or ``2,900 to more than 3,500``; empty without one."""
        if self.low is None or self.high is None:
            return ""
        if self.low.kind == self.high.kind != "exact":
            return _labels(self.low)
        return f"{_labels(self.low)}{'–' if self.low.kind == self.high.kind else ' to '}{_labels(self.high)}"

    def sentence(self, name: str, *, reference: str = "from scratch") -> str:
        """``100 labels with VICReg are worth 270 (190–410) labels from scratch``, without a full stop.

        Args:
            name: of the method.
            reference: what the curve it is compared with started from.
        """
        what = "label" if self.n == 1 else "labels"
        worth = f"{counted(self.n)} {what} with {name} {'is' if self.n == 1 else 'are'} worth {_labels(self.worth)}"
        inside = "" if self.span == _labels(self.worth) else self.span
        span = f" ({inside})" if inside else ""
        last = {"at least": ", the most that were tried", "at most": ", the fewest that were tried", "exact": ""}
        return f"{worth}{span} labels {reference}{last[self.worth.kind]}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A pre-trained curve beside one from scratch.

    Attributes:
        pretrained, scratch: as measured.
        utilities: one for each budget of ``pretrained``.
        tuned, risen: resampled means (S, B) of the pre-trained curve and of that from scratch; None with fewer than
            three draws.
    """

    pretrained: Curve
    scratch: Curve
    utilities: tuple[Utility, ...]
    tuned: Floats | None = None
    risen: Floats | None = None


def compare(pretrained: Curve, scratch: Curve, *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Utilities of a pre-trained curve over one from scratch, with intervals over the draws.

    Intervals: multiplier bootstrap. The draws' deviations from their mean, weighted by normal random numbers, are
    added to the mean, and a chi-square factor widens them as Student's t demands of so few draws. Curves of the same
    draws are resampled with the same weights, so that what a draw does to both cancels.

    Args:
        pretrained, scratch: the two curves; their budgets may differ.
        resamples: number of resamples S.
        seed: of the resamples.
    """
    measured = _worth(pretrained.mean[None], pretrained.budgets, isotonic(scratch.mean[None]), scratch.budgets)[0]
    utilities = [
        Utility(n=n, worth=_bound(labels, scratch.budgets))
        for n, labels in zip(pretrained.budgets, measured, strict=True)
    ]
    if min(pretrained.units.shape[1], scratch.units.shape[1]) < FEWEST_DRAWS:
        return Comparison(pretrained=pretrained, scratch=scratch, utilities=tuple(utilities))
    tuned, risen = _resample(pretrained, scratch, resamples, np.random.default_rng(seed))
    worth = _worth(tuned, pretrained.budgets, isotonic(risen), scratch.budgets)  # (S, B)
    tail = (1 - LEVEL) / 2
    lows = np.quantile(worth, tail, axis=0, method="lower")  # a resample's own value: censored ones have no average
    highs = np.quantile(worth, 1 - tail, axis=0, method="higher")
    utilities = [
        replace(
            utility,
            low=_bound(low, scratch.budgets),
            high=_bound(high, scratch.budgets),
            covers=pretrained.covers,
        )
        for utility, low, high in zip(utilities, lows, highs, strict=True)
    ]
    return Comparison(pretrained=pretrained, scratch=scratch, utilities=tuple(utilities), tuned=tuned, risen=risen)


def isotonic(values: Floats) -> Floats:
    """The nearest non-decreasing curves, by least squares.

    Args:
        values: (S, B), one curve per row.

    Source: the min-max formula in Robertson, Wright and Dykstra, Order Restricted Statistical Inference, 1988, ch. 1.
    """
    count = values.shape[1]
    sums = np.concatenate([np.zeros((len(values), 1)), values.cumsum(axis=1)], axis=1)
    fitted = np.empty_like(values)
    for i in range(count):
        starts = [
            np.min([(sums[:, k + 1] - sums[:, j]) / (k + 1 - j) for k in range(i, count)], axis=0) for j in range(i + 1)
        ]
        fitted[:, i] = np.max(starts, axis=0)
    return fitted


def interval(resamples: Floats) -> tuple[float, float]:
    """Percentile interval of resampled numbers (S,)."""
    low, high = np.quantile(resamples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _resample(
    pretrained: Curve, scratch: Curve, resamples: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Means of both curves (S, B) under resampled draws."""
    weights = _weights(pretrained.units.shape[1], resamples, generator)
    paired = pretrained.draws == scratch.draws and pretrained.seeds == scratch.seeds
    others = weights if paired else _weights(scratch.units.shape[1], resamples, generator)
    return _means(pretrained, weights), _means(scratch, others)


def _weights(count: int, resamples: int, generator: np.random.Generator) -> Floats:
    """(S, U) such that the weighted deviations of U observations are distributed as the mean's Student t."""
    normal = generator.standard_normal((resamples, count))
    freedom = count - 1
    widths = np.sqrt(freedom / generator.chisquare(freedom, size=(resamples, 1)))
    scaled: Floats = normal * widths / np.sqrt(count * freedom)
    return scaled


def _means(curve: Curve, weights: Floats) -> Floats:
    center = curve.units.mean(axis=1)
    resampled: Floats = center + weights @ (curve.units - center[:, None]).T
    return resampled


def _worth(tuned: Floats, budgets: tuple[float, ...], curves: Floats, scratch_budgets: tuple[float, ...]) -> Floats:
    """n^ of each pre-trained accuracy: -inf before the first budget of the scratch curve, inf after the last.

    Args:
        tuned: (S, B) accuracies after pre-training with ``budgets`` labels.
        curves: (S, B') non-decreasing accuracies from scratch with ``scratch_budgets`` labels.
    """
    labels = np.asarray(scratch_budgets)
    return np.stack([_solve(tuned[:, i], n, curves, labels) for i, n in enumerate(budgets)], axis=1)


def _solve(targets: Floats, n: float, curves: Floats, labels: Floats) -> Floats:
    """Where each curve (S, B') has the accuracy ``targets`` (S,).

    On a plateau of just that accuracy it is the number of labels nearest to ``n``: neither saved nor lost.
    """
    last = len(labels) - 1
    first = (curves < targets[:, None] - TOLERANCE).sum(axis=1)  # the first budget that reaches the target
    after = (curves <= targets[:, None] + TOLERANCE).sum(axis=1)  # the first that exceeds it
    low, high = np.clip(first - 1, 0, last), np.clip(first, 0, last)
    rows = np.arange(len(targets))
    step = curves[rows, high] - curves[rows, low]
    share = (targets - curves[rows, low]) / np.where(step > TOLERANCE, step, 1.0)
    between = np.exp(np.log(labels[low]) + share * np.log(labels[high] / labels[low]))
    met = np.clip(n, labels[high], labels[np.clip(after - 1, 0, last)])
    solved = np.where(first < after, met, between)
    solved = np.where(first > last, np.inf, solved)
    return np.where(after == 0, -np.inf, solved)


def _bound(labels: float, budgets: tuple[float, ...]) -> Bound:
    if labels == np.inf:
        return Bound(value=budgets[-1], kind="at least")
    if labels == -np.inf:
        return Bound(value=budgets[0], kind="at most")
    return Bound(value=float(labels))


def _labels(bound: Bound) -> str:
    """A number of labels in words: two digits of an estimate, all of a bound, which was measured at."""
    if bound.kind == "at least":
        return f"more than {counted(bound.value)}"
    if bound.kind == "at most":
        return f"fewer than {counted(bound.value)}"
    return counted(float(f"{bound.value:.2g}"))


def counted(labels: float) -> str:
    """A number of labels as it was asked for: ``3,500``, or a share of a training split."""
    return f"{labels:,.0f}" if labels == round(labels) else f"{labels:,.6g}"
