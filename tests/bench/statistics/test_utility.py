"""What labels are worth: known answers from published curves, hand-worked ones, censoring, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from bench.errors import DataError
from bench.published import load_published
from bench.statistics.utility import Bound, Curve, Utility, compare, isotonic

TOY_BUDGETS = (10, 100, 1000)


def curve(
    *rows: float | tuple[float, ...], budgets: tuple[float, ...] = TOY_BUDGETS, seeds: tuple[int, ...] = ()
) -> Curve:
    accuracies = np.array([row if isinstance(row, tuple) else (row,) for row in rows], dtype=float)
    return Curve(budgets=budgets, accuracies=accuracies, seeds=seeds)


def worth(pretrained: Curve, scratch: Curve) -> list[Bound]:
    return [utility.worth for utility in compare(pretrained, scratch).utilities]


# Newell and Deng's utility of MoCo-CXR's curves over ImageNet initialization, not over random weights: the numbers of
# labels that its effusion AUROC saves, by linear interpolation in log n of the ImageNet curve.
MOCO_CXR = {
    ("ResNet-18", "end-to-end fine-tune"): [("exact", 1.87), ("exact", 3.73), ("exact", 1.43), ("exact", 0.0)],
    ("ResNet-18", "linear probe"): [("exact", 19.09), ("at least", 99.0), ("at least", 9.0), ("at least", 0.0)],
    ("DenseNet-121", "end-to-end fine-tune"): [("exact", 1.73), ("exact", 1.47), ("exact", 0.96), ("at least", 0.0)],
    ("DenseNet-121", "linear probe"): [("exact", 198.53), ("at least", 99.0), ("at least", 9.0), ("at least", 0.0)],
}


@pytest.mark.parametrize(("backbone", "protocol"), MOCO_CXR, ids=" ".join)
def test_the_published_curves_of_moco_cxr_have_the_utilities_worked_out_from_them(backbone: str, protocol: str) -> None:
    table = load_published().query("paper == 'sowrirajan2021mococxr' and source_table == 'App. Table 1'")
    chosen = table[(table["backbone"] == backbone) & (table["protocol"] == protocol)]
    chosen = chosen[chosen["metric"] == "AUROC pleural effusion"]
    moco, imagenet = (
        Curve(budgets=tuple(part["label_fraction"]), accuracies=part["value"].to_numpy()[:, None])
        for part in (chosen[chosen["method_title"] == title] for title in ("MoCo-CXR", "ImageNet baseline"))
    )
    assert moco.budgets == (0.001, 0.01, 0.1, 1.0)
    found = [utility.utility for utility in compare(moco, imagenet).utilities]
    assert [(bound.kind, round(bound.value, 2)) for bound in found] == MOCO_CXR[backbone, protocol]


def test_a_toy_curve_worked_by_hand() -> None:
    scratch = curve(20, 60, 80)
    # 40 lies half way between 10 and 100 on the log scale, 70 between 100 and 1000, 80 is reached at 1000.
    found = compare(curve(40, 70, 80), scratch).utilities
    assert [u.worth.value for u in found] == pytest.approx([10**1.5, 10**2.5, 1000])
    assert [u.utility.value for u in found] == pytest.approx([10**0.5 - 1, 10**0.5 - 1, 0])
    assert {u.worth.kind for u in found} == {"exact"}


def test_a_scratch_curve_that_falls_is_made_monotone_first() -> None:
    # 60 and 50 are pooled to 55 at 100 and 1000 labels: half of the rise from 35 to 55 is at 10 ** 1.5.
    assert worth(curve(45, 55, 55), curve(35, 60, 50))[0].value == pytest.approx(10**1.5)
    assert worth(curve(45, 55.1, 55), curve(35, 60, 50))[1] == Bound(value=1000, kind="at least")


def test_on_a_plateau_of_the_scratch_curve_no_label_is_saved_or_lost() -> None:
    scratch = curve(20, 60, 60)
    assert [bound.value for bound in worth(curve(60, 60, 60), scratch)] == [100, 100, 1000]


def test_what_lies_above_and_below_the_curve_is_censored_on_the_same_scale() -> None:
    found = compare(curve(90, 10, 90), curve(20, 60, 80)).utilities
    above, below = Bound(value=1000, kind="at least"), Bound(value=10, kind="at most")
    assert [u.worth for u in found] == [above, below, above]
    assert [u.utility.value for u in found] == pytest.approx([99, -0.9, 0])  # with the -1, whatever the kind
    assert [u.utility.kind for u in found] == ["at least", "at most", "at least"]


def test_a_method_that_is_always_better_has_nothing_but_bounds() -> None:
    draws = ((90, 91, 92), (93, 93, 94), (95, 95, 96))
    found = compare(curve(*draws), curve((20, 21, 22), (40, 41, 42), (60, 61, 62))).utilities
    for utility in found:
        assert utility.worth == utility.low == utility.high == Bound(value=1000, kind="at least")


def test_a_single_budget_tells_on_which_side_it_lies_and_no_more() -> None:
    one = (100,)
    assert worth(curve(50, budgets=one), curve(40, budgets=one)) == [Bound(value=100, kind="at least")]
    assert worth(curve(30, budgets=one), curve(40, budgets=one)) == [Bound(value=100, kind="at most")]
    assert worth(curve(40, budgets=one), curve(40, budgets=one)) == [Bound(value=100)]


def test_the_budgets_of_the_two_curves_may_differ() -> None:
    found = compare(curve(40, 60, budgets=(5, 30)), curve(20, 60, 80))
    assert [u.worth.value for u in found.utilities] == pytest.approx([10**1.5, 100])


def test_fewer_than_three_draws_have_no_interval() -> None:
    found = compare(curve((40, 41), (70, 71), (80, 81)), curve((20, 21), (60, 61), (80, 81)))
    assert all(u.low is None and u.high is None and u.span == "" for u in found.utilities)
    assert found.tuned is None and found.risen is None


# A straight line in log n: 20 points per factor 10. A shift of all accuracies by t points is a factor 10 ** (t / 20).
LINE = curve((20, 20, 20), (40, 40, 40), (60, 60, 60))


def test_the_interval_is_that_of_student_for_the_mean_of_the_draws() -> None:
    draws = np.array([29.0, 30.0, 31.0])  # mean 30, standard error 1 / sqrt(3), t(2) at 97.5 % 4.303
    found = compare(curve(tuple(draws), (45, 45, 45), (60, 60, 60)), LINE, resamples=40000).utilities[0]
    half = 4.303 / np.sqrt(3)
    assert found.worth.value == pytest.approx(10**1.5)
    assert found.low is not None and found.high is not None
    assert np.log10(found.low.value) == pytest.approx(1.5 - half / 20, abs=0.01)
    assert np.log10(found.high.value) == pytest.approx(1.5 + half / 20, abs=0.01)


def test_what_a_draw_does_to_both_curves_cancels() -> None:
    luck = np.array([-4.0, 0.0, 4.0])
    line = np.array([[20.0], [40.0], [60.0]])
    found = compare(
        Curve(budgets=TOY_BUDGETS, accuracies=line + 5 + luck), Curve(budgets=TOY_BUDGETS, accuracies=line + luck)
    ).utilities[0]
    assert found.low is not None and found.high is not None
    assert found.low.value == pytest.approx(found.high.value) == pytest.approx(10**1.25)
    other = Curve(budgets=TOY_BUDGETS, accuracies=line + luck, draws=("x", "y", "z"))
    apart = compare(Curve(budgets=TOY_BUDGETS, accuracies=line + 5 + luck), other).utilities[0]
    assert apart.low is not None and apart.low.kind == "at most"
    assert apart.high is not None and apart.high.value > 20


def test_an_interval_whose_draws_are_partly_censored_is_open_at_that_end() -> None:
    found = compare(curve((20, 20, 20), (40, 40, 40), (57, 60, 62)), LINE).utilities[-1]
    assert found.worth.kind == "exact" and found.worth.value == pytest.approx(10 ** (2 + (179 / 3 - 40) / 20))
    assert found.low is not None and found.low.kind == "exact" and found.low.value < 900
    assert found.high == Bound(value=1000, kind="at least")


def test_three_seeds_make_their_means_the_observations_and_two_do_not() -> None:
    rows = ((1.0, 3.0, 5.0, 7.0, 9.0, 11.0),)
    three = Curve(budgets=(10,), accuracies=np.array(rows), seeds=(0, 0, 1, 1, 2, 2))
    assert three.units.tolist() == [[2, 6, 10]] and three.covers == "pre-training and label draws"
    two = Curve(budgets=(10,), accuracies=np.array(rows), seeds=(0, 0, 0, 1, 1, 1))
    assert two.units.shape == (1, 6) and two.covers == "label draws"


def test_the_resamples_depend_on_their_seed_alone() -> None:
    tuned = curve((40, 44, 41), (70, 71, 74), (80, 79, 81))
    first, again, other = (compare(tuned, LINE, seed=seed).utilities for seed in (1, 1, 2))
    assert first == again != other


def test_the_isotonic_fit_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(size=(50, 6))
    expected = np.stack([isotonic_regression(row).x for row in values])
    assert np.allclose(isotonic(values), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("budgets", "accuracies"),
    [((10, 5), [[1.0], [2.0]]), ((0, 5), [[1.0], [2.0]]), ((5, 10), [[1.0]]), ((5,), [[np.nan]]), ((), [[]])],
)
def test_a_curve_that_is_none_is_refused(budgets: tuple[float, ...], accuracies: list[list[float]]) -> None:
    with pytest.raises(DataError, match="A curve needs"):
        Curve(budgets=budgets, accuracies=np.array(accuracies))


@pytest.mark.parametrize(
    ("utility", "words"),
    [
        (
            Utility(n=100, worth=Bound(value=271.3), low=Bound(value=189.6), high=Bound(value=412)),
            "100 labels with VICReg are worth 270 (190–410) labels from scratch",
        ),
        (Utility(n=1, worth=Bound(value=3.21)), "1 label with VICReg is worth 3.2 labels from scratch"),
        (
            Utility(n=100, worth=Bound(value=1234), low=Bound(value=189), high=Bound(value=3497, kind="at least")),
            "100 labels with VICReg are worth 1,200 (190 to more than 3,497) labels from scratch",
        ),
        (
            Utility(
                n=1000,
                worth=Bound(value=3497, kind="at least"),
                low=Bound(value=3497, kind="at least"),
                high=Bound(value=3497, kind="at least"),
            ),
            "1,000 labels with VICReg are worth more than 3,497 labels from scratch, the most that were tried",
        ),
        (
            Utility(
                n=40,
                worth=Bound(value=10, kind="at most"),
                low=Bound(value=10, kind="at most"),
                high=Bound(value=33),
            ),
            "40 labels with VICReg are worth fewer than 10 (fewer than 10 to 33) labels from scratch, "
            "the fewest that were tried",
        ),
        (Utility(n=0.001, worth=Bound(value=0.00287)), "0.001 labels with VICReg are worth 0.0029 labels from scratch"),
    ],
)  # fmt: skip
def test_a_utility_in_words(utility: Utility, words: str) -> None:
    assert utility.sentence("VICReg") == words


accuracies = st.lists(st.integers(0, 100), min_size=4, max_size=4)
BUDGETS = (10, 30, 100, 300)


def _curve(values: list[int], shift: int = 0) -> Curve:
    return curve(*(float(value + shift) for value in values), budgets=BUDGETS)


@given(accuracies, accuracies, st.integers(-50, 50))
def test_shifting_both_curves_keeps_every_utility(tuned: list[int], scratch: list[int], shift: int) -> None:
    before = worth(_curve(tuned), _curve(scratch))
    after = worth(_curve(tuned, shift), _curve(scratch, shift))
    assert [bound.kind for bound in before] == [bound.kind for bound in after]
    assert [bound.value for bound in before] == pytest.approx([bound.value for bound in after])


@given(accuracies, accuracies, st.integers(0, 3), st.integers(0, 30))
def test_a_better_accuracy_is_never_worth_less(tuned: list[int], scratch: list[int], place: int, more: int) -> None:
    order = {"at most": -1, "exact": 0, "at least": 1}
    better = [*tuned[:place], tuned[place] + more, *tuned[place + 1 :]]
    for before, after in zip(
        worth(_curve(tuned), _curve(scratch)), worth(_curve(better), _curve(scratch)), strict=True
    ):
        assert (order[before.kind], before.value) <= (order[after.kind], after.value + 1e-9)
