"""The paired comparison against hand-worked cases, scipy, scikit-learn, DeLong's variance, and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, ttest_rel
from sklearn.metrics import roc_auc_score

from bench.statistics.paired import Comparison, Difference, compare, holm, mcnemar, needed
from bench.statistics.weighted import Accuracy, Auroc, Statistic


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def accuracies(*rows: str) -> list[list[Statistic]]:
    """Methods with one seed each, from strings of 1 (correct) and 0."""
    return [[Accuracy(np.array([sign == "1" for sign in row]))] for row in rows]


# --- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 1), (12, 3), (30, 30), (0, 9), (41, 17)])
def test_mcnemar_is_the_binomial_test_of_the_images_that_only_one_method_gets_right(b: int, c: int) -> None:
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(b, c) == mcnemar(c, b)


def test_mcnemar_by_hand() -> None:
    # 5 against 1: twice the chance of at most one head in six tosses, 2 * (1 + 6) / 64.
    assert mcnemar(5, 1) == pytest.approx(14 / 64)


def test_holm_by_hand() -> None:
    # 4 * 0.005, 3 * 0.01, max(0.03, 2 * 0.02) and max(0.04, 0.5)
    assert holm([0.01, 0.5, 0.005, 0.02]) == pytest.approx([0.03, 0.5, 0.02, 0.04])
    # The last would fall below the one before it and does not: max(2 * 0.03, 0.031).
    assert holm([0.031, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


# --- the comparison -------------------------------------------------------------------------------------------------


def test_a_comparison_by_hand() -> None:
    methods = accuracies("1111110000", "1111100010", "0000000000")
    found = compare(methods, images=10, generator=rng())
    assert found.values == pytest.approx((60.0, 60.0, 0.0))
    pair = found.between(0, 2)
    assert (pair.value, pair.test) == (pytest.approx(60.0), "exact McNemar")
    assert pair.p == pytest.approx(2 / 64)  # six to nothing
    assert pair.adjusted == pytest.approx(3 * 2 / 64)
    assert found.between(2, 0).value == pytest.approx(-60.0)
    assert found.between(2, 0).low == pytest.approx(-pair.high)  # type: ignore[operator]
    assert found.leaders([0, 1, 2]) == (0, 1, 2), "three against nothing cannot be told apart after correction"


def test_the_interval_of_independent_images_is_that_of_the_paired_t_test() -> None:
    draw = rng(3)
    a, b = draw.random(400) < 0.8, draw.random(400) < 0.7
    pair = compare([[Accuracy(a)], [Accuracy(b)]], images=400, generator=rng(4), resamples=8000).differences[0]
    low, high = ttest_rel(100.0 * a, 100.0 * b).confidence_interval(0.95)
    assert (pair.low, pair.high) == (pytest.approx(low, abs=0.2), pytest.approx(high, abs=0.2))


def test_the_interval_of_one_value_is_that_of_a_mean() -> None:
    draw = rng(3)
    a = draw.random(400) < 0.8
    found = compare([[Accuracy(a)], [Accuracy(~a)]], images=400, generator=rng(4), resamples=8000)
    low, high = found.intervals[0]  # type: ignore[misc]
    half = 1.966 * 100 * a.std(ddof=1) / 20
    assert (low, high) == (
        pytest.approx(found.values[0] - half, abs=0.2),
        pytest.approx(found.values[0] + half, abs=0.2),
    )
    assert compare(accuracies("1111"), images=4, generator=rng()).intervals == (None,)


def test_images_of_one_patient_count_once() -> None:
    """Every image four times under one patient's name: the interval is that of the images without copies."""
    draw = rng(5)
    a, b = draw.random(100) < 0.8, draw.random(100) < 0.6
    alone = compare([[Accuracy(a)], [Accuracy(b)]], images=100, generator=rng(6), resamples=6000).differences[0]
    patients = np.repeat([f"p{index}" for index in range(100)], 4)
    methods: list[list[Statistic]] = [[Accuracy(np.repeat(a, 4))], [Accuracy(np.repeat(b, 4))]]
    clustered = compare(methods, images=400, clusters=patients, generator=rng(7), resamples=6000)
    pair = clustered.differences[0]
    assert (clustered.images, clustered.clusters) == (400, 100)
    assert pair.test == "paired bootstrap"
    assert (pair.low, pair.high) == (pytest.approx(alone.low, abs=0.6), pytest.approx(alone.high, abs=0.6))
    naive = compare(methods, images=400, generator=rng(7)).differences[0]
    assert naive.high - naive.low < 0.6 * (pair.high - pair.low)  # type: ignore[operator]


def test_the_variance_over_few_patients_is_that_of_the_mean_of_their_differences() -> None:
    a, b = np.array([1, 1, 1, 1, 0, 1, 1, 1]) > 0, np.array([0, 0, 1, 0, 1, 1, 1, 0]) > 0
    patients = np.repeat(["p0", "p1", "p2", "p3"], 2)
    found = compare([[Accuracy(a)], [Accuracy(b)]], images=8, clusters=patients, generator=rng(), resamples=20_000)
    of_patients = 100 * (a.astype(float) - b).reshape(4, 2).mean(axis=1)
    assert found.differences[0].image_variance == pytest.approx(of_patients.var(ddof=1) / 4, rel=0.04)


def test_two_seeds_are_enough_for_their_spread_to_count() -> None:
    ones = np.arange(40) < 30
    methods: list[list[Statistic]] = [
        [Accuracy(ones), Accuracy(np.arange(40) < 34)],
        [Accuracy(np.arange(40) < 20)],
    ]
    pair = compare(methods, images=40, generator=rng()).differences[0]
    assert pair.seed_variance == pytest.approx(np.var([75.0, 85.0], ddof=1) / 2)
    assert pair.test == "paired bootstrap"


def test_an_image_without_a_patient_stands_for_itself() -> None:
    methods = accuracies("11110000", "10101010")
    assert compare(methods, images=8, clusters=["a", "a", "", "", "", "", "b", "b"], generator=rng()).clusters == 6
    alone = compare(methods, images=8, clusters=[""] * 8, generator=rng())
    assert alone.clusters == 8
    assert alone.differences[0].test == "exact McNemar"


def test_the_interval_of_two_aurocs_has_the_width_that_delong_gives() -> None:
    draw = rng(8)
    labels = draw.integers(0, 2, 300)
    common = labels + draw.normal(0, 1.2, 300)
    first, second = common + draw.normal(0, 0.5, 300), common + draw.normal(0, 1.5, 300)
    methods: list[list[Statistic]] = [[Auroc(s[:, None], labels[:, None])] for s in (first, second)]
    pair = compare(methods, images=300, generator=rng(9), resamples=4000).differences[0]
    half = norm.ppf(0.975) * 100 * math.sqrt(delong_variance(first, second, labels))
    expected = 100 * (roc_auc_score(labels, first) - roc_auc_score(labels, second))
    assert pair.value == pytest.approx(expected)
    assert pair.high - pair.low == pytest.approx(2 * half, rel=0.05)  # type: ignore[operator]


def delong_variance(first: NDArray[np.float64], second: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Variance of the difference of two AUROCs: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44, 837-845."""

    def placements(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        above = np.sign(scores[labels == 1][:, None] - scores[labels == 0][None, :]) / 2 + 0.5
        return above.mean(axis=1), above.mean(axis=0)

    (v10a, v01a), (v10b, v01b) = placements(first), placements(second)
    return float((v10a - v10b).var(ddof=1) / len(v10a) + (v01a - v01b).var(ddof=1) / len(v01a))


def test_several_seeds_widen_the_interval_by_their_spread() -> None:
    draw = rng(10)
    n = 1000
    base = draw.random(n)
    levels = ((0.80, 0.84, 0.88), (0.70, 0.74, 0.78))
    methods: list[list[Statistic]] = [[Accuracy(base < level) for level in seeds] for seeds in levels]
    found = compare(methods, images=n, generator=rng(11))
    pair = found.differences[0]
    values = [[100 * float(np.mean(base < level)) for level in seeds] for seeds in levels]
    spread = sum(np.var(item, ddof=1) / 3 for item in values)
    assert pair.seed_variance == pytest.approx(spread)
    assert pair.value == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    assert pair.low is not None and pair.high is not None
    total = pair.image_variance + spread
    parts = [(pair.image_variance, n - 1)] + [(np.var(item, ddof=1) / 3, 2) for item in values]
    freedom = total**2 / sum(part**2 / df for part, df in parts)
    assert 3 < freedom < 60
    from scipy.stats import t

    assert pair.high - pair.low == pytest.approx(2 * t.ppf(0.975, freedom) * math.sqrt(total))
    low, high = found.intervals[0]  # type: ignore[misc]
    assert (low + high) / 2 == pytest.approx(np.mean(values[0]))
    assert high - low > 2 * t.ppf(0.975, 100) * math.sqrt(np.var(values[0], ddof=1) / 3 + 84 * 16 / n)
    single = compare([seeds[1:2] for seeds in methods], images=n, generator=rng(11)).differences[0]
    assert single.seed_variance is None


def test_equal_predictions_have_no_interval_and_total_disagreement_is_found() -> None:
    same = compare(accuracies("110010", "110010"), images=6, generator=rng()).differences[0]
    assert (same.value, same.low, same.high, same.p) == (0.0, None, None, 1.0)
    patients = [f"p{index // 2}" for index in range(20)]
    apart = compare(accuracies("1" * 20, "0" * 20), images=20, clusters=patients, generator=rng()).differences[0]
    assert apart.p == pytest.approx(2 / 2**10)


def test_leaders_are_the_best_and_those_that_are_not_significantly_worse() -> None:
    draw = rng(12)
    levels = (0.60, 0.90, 0.895, 0.70)
    base = draw.random(2000)
    noisy: list[list[Statistic]] = [[Accuracy((base + draw.normal(0, 0.06, 2000)) < level)] for level in levels]
    found = compare(noisy, images=2000, generator=rng(13))
    assert set(found.leaders(range(4))) == {1, 2}
    assert found.leaders(range(4))[0] == int(np.argmax(found.values))
    assert found.leaders([0, 3]) == (3,)
    assert found.leaders([0]) == (0,)


def test_equal_seeds_of_the_generator_give_equal_results() -> None:
    methods = accuracies("1101100111", "1010101010")
    first = compare(methods, images=10, generator=rng(3))
    assert first == compare(methods, images=10, generator=rng(3))


@pytest.mark.parametrize(
    ("methods", "images", "clusters", "message"),
    [
        ([], 4, None, "at least one seed"),
        ([[]], 4, None, "at least one seed"),
        (accuracies("10"), 2, ["a"], "as many patients"),
        (accuracies("10"), 2, ["a", "a"], "at least 2 patients"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    methods: list[list[Statistic]], images: int, clusters: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compare(methods, images=images, clusters=clusters, generator=rng())


# --- simulations ----------------------------------------------------------------------------------------------------


def simulated(draw: np.random.Generator, *, gap: float, patients: int = 60, each: int = 3) -> Comparison:
    """Two methods on patients whose images resemble each other: how hard a patient is differs by method, too."""
    hard = draw.normal(0, 1, patients)
    statistics: list[list[Statistic]] = []
    for offset in (0.0, gap):
        own = hard + draw.normal(0, 0.7, patients)
        images = np.repeat(own, each) + draw.normal(0, 0.7, patients * each)
        statistics.append([Accuracy(images < 0.8 + offset)])
    names = np.repeat([f"p{index}" for index in range(patients)], each)
    return compare(statistics, images=patients * each, clusters=names, generator=draw, resamples=200)


def rejections(gap: float, runs: int) -> float:
    draw = rng(2026)
    return float(np.mean([simulated(draw, gap=gap).differences[0].separated for _ in range(runs)]))


def test_equal_methods_are_told_apart_in_one_of_twenty_studies_and_unequal_ones_in_most() -> None:
    # 600 studies under the null: 5 % with a standard error of 0.9 points.
    assert 0.025 <= rejections(0.0, 600) <= 0.077
    assert rejections(0.8, 100) > 0.8


def test_ignoring_patients_would_find_differences_that_are_not_there() -> None:
    draw = rng(2027)
    found = []
    for _ in range(200):
        hard = [np.repeat(draw.normal(0, 1, 30), 10) for _ in range(2)]
        pair = compare([[Accuracy(own < 0.8)] for own in hard], images=300, generator=draw, resamples=20)
        found.append(pair.differences[0].separated)
    assert np.mean(found) > 0.2


def test_seeds_that_differ_are_no_difference_of_methods() -> None:
    """Both methods have the same expected accuracy; their seeds scatter by three points, images hardly at all."""
    draw = rng(2028)
    found = []
    for _ in range(300):
        base = draw.random(4000)
        methods: list[list[Statistic]] = [
            [Accuracy(base < level) for level in draw.normal(0.8, 0.03, 3)] for _ in range(2)
        ]
        found.append(compare(methods, images=4000, generator=draw, resamples=30).differences[0].separated)
    assert 0.01 <= np.mean(found) <= 0.08


# --- planning -------------------------------------------------------------------------------------------------------


def difference(value: float, *, images: float, seeds: float | None = None) -> Difference:
    return Difference(
        first=0, second=1, value=value, low=None, high=None, p=1.0, adjusted=1.0, test="", image_variance=images,
        seed_variance=seeds,
    )  # fmt: skip


def test_more_images_are_needed_by_the_square_of_what_is_lacking() -> None:
    # 1.96 + 0.84 standard errors are needed: with se = d / 1.4 the test split must be four times as large.
    found = needed(difference(2.8, images=4.0), seeds=1)
    assert found.images == pytest.approx(4.0, rel=0.01)
    assert found.seeds is None
    stricter = needed(difference(2.8, images=4.0), seeds=1, pairs=10)
    assert stricter.images == pytest.approx(4.0 * ((norm.ppf(1 - 0.0025) + 0.8416) / 2.8016) ** 2, rel=0.01)


def test_more_images_do_not_help_where_seeds_scatter_too_much_and_the_reverse() -> None:
    assert needed(difference(2.8, images=0.1, seeds=4.0), seeds=3).images is None
    assert needed(difference(2.8, images=0.1, seeds=4.0), seeds=3).seeds == 14  # 3 * 4 / 0.9, rounded up
    assert needed(difference(2.8, images=4.0, seeds=0.1), seeds=3).seeds is None
    assert needed(difference(0.0, images=4.0, seeds=0.1), seeds=3).images is None
