"""Which of three things pre-training does to the curve of accuracy against labels, decided by intervals.

Improvement: a gain at every number of labels, and a higher plateau. Same plateau: a gain with few labels, and the same
plateau, reached with fewer labels. Convergence: a gain with few labels only; the curves meet before the plateau.

Source: Newell and Deng 2020, arXiv 2003.14323; the rules that decide are those of ``Rule``, not theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.statistics.utility import FEWEST_DRAWS, Comparison, Floats, counted, interval

Verdict = Literal["improvement", "same plateau", "convergence", "no gain", "cannot be told"]
FEWEST_BUDGETS = 3


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Where the lines are drawn, in units of accuracy.

    Attributes:
        margin: a gain that is surely smaller than this counts as none: the curves have met.
        plateau: a curve that surely rises by less than this from some number of labels to the largest is level there.
    """

    margin: float = 1.0
    plateau: float = 1.0

    def sentences(self, unit: str = "points") -> tuple[str, ...]:
        """The rules in words."""
        return (
            "Gain: accuracy after pre-training less accuracy from scratch with as many labels. Few labels means the "
            "smaller half of the budgets, whose mean gain decides. A gain is told where the 95 % interval lies above "
            "0.",
            f"The curves have met at the number of labels from which on every interval of the gain ends at "
            f"{self.margin:g} {unit} or less.",
            "The curve from scratch is level, on its plateau, from the number of labels from which it rises by "
            f"{self.plateau:g} {unit} or less to the largest number, by the whole interval; where it surely rises by "
            "more, it is not. At the end of the curve, the last step counts.",
            "Improvement: a gain at every budget, and the curve from scratch is level at the end. Same plateau: a gain "
            "with few labels, and the curves meet where that from scratch is level. Convergence: a gain with few "
            "labels, and the curves meet where it is not level yet. No gain: the intervals of all budgets end within "
            "that margin, and not all lie above 0. Everything else cannot be told.",
        )


@dataclass(frozen=True, kw_only=True)
class LabelOutcome:
    """The verdict on a method.

    Attributes:
        because: what decided it, or why nothing could, as a clause.
    """

    verdict: Verdict
    because: str


DEFAULT_RULE = Rule()


def judge(comparison: Comparison, rule: Rule = DEFAULT_RULE) -> LabelOutcome:
    """The verdict, by the rules of ``Rule.sentences``."""
    budgets = comparison.pretrained.budgets
    missing = _missing(comparison)
    if missing or comparison.tuned is None or comparison.risen is None:
        return LabelOutcome(verdict="cannot be told", because=missing)
    gains = comparison.tuned - comparison.risen  # (S, B)
    spans = [interval(gains[:, i]) for i in range(len(budgets))]
    few = interval(gains[:, : len(budgets) // 2].mean(axis=1))
    if all(low > 0 for low, _ in spans):
        return _gain_everywhere(spans, budgets, _rise(comparison.risen, at=len(budgets) - 1), rule)
    if all(high <= rule.margin for _, high in spans):
        largest = max(high for _, high in spans)
        return LabelOutcome(verdict="no gain", because=f"with any number of labels it is at most {largest:.1f} points")
    if few[0] <= 0:
        return LabelOutcome(verdict="cannot be told", because=f"the gain with few labels, {_range(few)}, may be none")
    met = _met(spans, rule)
    if met is None:
        return LabelOutcome(
            verdict="cannot be told",
            because=f"there is a gain with few labels, but with {counted(budgets[-1])} it is {_range(spans[-1])}",
        )
    return _gain_that_ends(counted(budgets[met]), _rise(comparison.risen, at=met), rule)


def _missing(comparison: Comparison) -> str:
    """What a verdict lacks; empty when nothing."""
    if comparison.pretrained.budgets != comparison.scratch.budgets:
        return "the two curves have different numbers of labels"
    if len(comparison.pretrained.budgets) < FEWEST_BUDGETS:
        return f"fewer than {FEWEST_BUDGETS} numbers of labels have no shape"
    if comparison.tuned is None or comparison.risen is None:
        return f"fewer than {FEWEST_DRAWS} draws of the labels have no interval"
    return ""


def _met(spans: list[tuple[float, float]], rule: Rule) -> int | None:
    """The budget from which on no gain is above the margin; None where there is none."""
    above = [i for i, (_, high) in enumerate(spans) if high > rule.margin]
    return above[-1] + 1 if above[-1] + 1 < len(spans) else None


def _rise(risen: Floats, *, at: int) -> tuple[float, float]:
    """Interval of the scratch curve's rise from this budget to the last, or over the last step."""
    return interval(risen[:, -1] - risen[:, min(at, risen.shape[1] - 2)])


def _gain_everywhere(
    spans: list[tuple[float, float]], budgets: tuple[float, ...], rise: tuple[float, float], rule: Rule
) -> LabelOutcome:
    gain = f"the gain is still {_range(spans[-1])} with {counted(budgets[-1])} labels"
    if rise[1] <= rule.plateau:
        return LabelOutcome(verdict="improvement", because=f"{gain}, where the curve from scratch is level")
    unknown = "still rises" if rise[0] > rule.plateau else "may still rise"
    return LabelOutcome(
        verdict="cannot be told",
        because=f"{gain}, but the curve from scratch {unknown} there (by {_range(rise)} over its last step)",
    )


def _gain_that_ends(where: str, rise: tuple[float, float], rule: Rule) -> LabelOutcome:
    meet = f"the gain ends at {where} labels"
    if rise[1] <= rule.plateau:
        return LabelOutcome(verdict="same plateau", because=f"{meet}, where the curve from scratch is level")
    rising = f"rises by {_range(rise)}"
    if rise[0] > rule.plateau:
        return LabelOutcome(verdict="convergence", because=f"{meet}, where the curve from scratch still {rising}")
    return LabelOutcome(
        verdict="cannot be told",
        because=f"{meet}, but whether the curve from scratch is level there is open: it {rising}",
    )


def _range(span: tuple[float, float]) -> str:
    return f"{span[0]:.1f} to {span[1]:.1f} points"
