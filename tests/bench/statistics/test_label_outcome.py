"""The verdict on curves of accuracy against labels: each outcome from curves drawn for it, and each reason for none."""

from __future__ import annotations

import numpy as np
import pytest

from bench.statistics.label_outcome import LabelOutcome, Rule, judge
from bench.statistics.utility import Curve, compare

BUDGETS = (10, 30, 100, 300, 1000, 3000)
SCRATCH = (30.0, 50.0, 70.0, 85.0, 90.0, 90.2)  # level from 1000 on
RISING = (30.0, 45.0, 60.0, 70.0, 80.0, 88.0)


def drawn(means: tuple[float, ...], *, spread: float = 0.1, own: float = 0.05, seed: int = 0) -> np.ndarray:
    """Four draws around the means: what all curves share, and what is the curve's own."""
    shared = np.random.default_rng(7).normal(size=(len(means), 4)) * spread
    return np.array(means)[:, None] + shared + np.random.default_rng(seed).normal(size=shared.shape) * own


def outcome(gains: tuple[float, ...], *, scratch: tuple[float, ...] = SCRATCH, own: float = 0.05) -> LabelOutcome:
    base = Curve(budgets=BUDGETS, accuracies=drawn(scratch, own=own, seed=1))
    tuned = tuple(a + gain for a, gain in zip(scratch, gains, strict=True))
    return judge(compare(Curve(budgets=BUDGETS, accuracies=drawn(tuned, own=own, seed=2)), base))


def test_a_gain_everywhere_above_a_level_curve_is_an_improvement() -> None:
    found = outcome((20, 15, 10, 6, 4, 3))
    assert found.verdict == "improvement"
    assert "with 3,000 labels, where the curve from scratch is level" in found.because


def test_a_gain_everywhere_under_a_rising_curve_cannot_be_told() -> None:
    found = outcome((20, 15, 10, 6, 4, 3), scratch=RISING)
    assert found.verdict == "cannot be told" and "still rises there (by 7." in found.because


def test_curves_that_meet_on_the_plateau_share_it() -> None:
    found = outcome((20, 15, 10, 5, 0.1, 0.0))
    assert found == LabelOutcome(
        verdict="same plateau", because="the gain ends at 1,000 labels, where the curve from scratch is level"
    )


def test_curves_that_meet_while_that_from_scratch_rises_converge() -> None:
    found = outcome((20, 10, 0.2, 0.1, 0.0, 0.1), scratch=RISING)
    assert found.verdict == "convergence"
    assert found.because.startswith("the gain ends at 100 labels, where the curve from scratch still rises by 27.")


def test_curves_that_meet_well_before_a_plateau_converge_however_long_it_is() -> None:
    assert outcome((20, 10, 0.2, 0.1, 0.0, 0.1)).verdict == "convergence"


def test_curves_that_meet_at_the_last_number_of_labels_are_judged_by_the_last_step() -> None:
    assert outcome((20, 15, 10, 5, 4, 0.0)).verdict == "same plateau"
    assert outcome((20, 15, 10, 5, 4, 0.0), scratch=RISING).verdict == "convergence"


def test_a_curve_that_crosses_the_other_has_met_it() -> None:
    assert outcome((20, 10, 0, -2, -3, -3), scratch=RISING).verdict == "convergence"


def test_no_gain_anywhere_and_a_loss_are_no_gain() -> None:
    assert outcome((0, 0.1, 0, -0.1, 0, 0.1)).verdict == "no gain"
    assert outcome((-9, -5, -4, -3, -2, -2)).verdict == "no gain"


def test_wide_intervals_of_the_first_budgets_leave_the_gain_open() -> None:
    found = outcome((2, 2, 2, 1, 0, 0), own=5.0)
    assert found.verdict == "cannot be told" and "the gain with few labels" in found.because


def test_a_gain_that_may_last_or_not_leaves_the_end_open() -> None:
    base = np.tile(np.array(SCRATCH)[:, None], 4)
    tuned = base + np.array([20, 15, 10, 5, 4, 1])[:, None] * np.array([1, 1, 1, 1])
    tuned[-1] = base[-1] + np.array([-4, 0, 2, 6])
    found = judge(compare(Curve(budgets=BUDGETS, accuracies=tuned), Curve(budgets=BUDGETS, accuracies=base)))
    assert found.verdict == "cannot be told" and "but with 3,000 it is -" in found.because


def test_a_curve_that_may_be_level_leaves_the_plateau_open() -> None:
    base = np.tile(np.array(SCRATCH)[:, None], 4)
    base[-1] = [88, 90, 92, 94]
    tuned = base + np.array([20, 15, 10, 5, 0, 0])[:, None]
    found = judge(compare(Curve(budgets=BUDGETS, accuracies=tuned), Curve(budgets=BUDGETS, accuracies=base)))
    assert (
        found.verdict == "cannot be told" and "whether the curve from scratch is level there is open" in found.because
    )


@pytest.mark.parametrize(
    ("budgets", "other", "draws", "because"),
    [
        (BUDGETS, BUDGETS[:-1], 4, "different numbers of labels"),
        (BUDGETS[:2], BUDGETS[:2], 4, "fewer than 3 numbers of labels"),
        (BUDGETS, BUDGETS, 2, "fewer than 3 draws"),
    ],
)
def test_what_a_verdict_lacks_is_said(
    budgets: tuple[int, ...], other: tuple[int, ...], draws: int, because: str
) -> None:
    tuned, scratch = (Curve(budgets=b, accuracies=np.ones((len(b), draws))) for b in (budgets, other))
    found = judge(compare(tuned, scratch))
    assert found.verdict == "cannot be told" and because in found.because


def test_the_rules_name_their_own_numbers() -> None:
    words = " ".join(Rule(margin=0.7, plateau=2.5).sentences())
    assert "ends at 0.7 points" in words and "rises by 2.5 points" in words


def test_a_wider_margin_lets_curves_meet_earlier() -> None:
    base = Curve(budgets=BUDGETS, accuracies=drawn(SCRATCH, seed=1))
    gains = (20, 15, 10, 5, 2.5, 0.0)
    tuned = Curve(budgets=BUDGETS, accuracies=drawn(tuple(np.add(SCRATCH, gains)), seed=2))
    narrow, wide = (judge(compare(tuned, base), Rule(margin=margin)) for margin in (1.0, 4.0))
    assert "ends at 3,000 labels" in narrow.because and "ends at 1,000 labels" in wide.because
