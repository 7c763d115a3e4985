"""Areas and average precisions against scikit-learn; resampling of whole patients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from bench.metric import AUROC
from bench.statistics import ranking
from bench.statistics.ranking import (
    Interval,
    Units,
    average_precisions,
    bias_corrected,
    curves,
    percentiles,
    recalls,
    resample,
    roc_areas,
)

Reals = NDArray[np.float64]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=2, max_size=40).filter(
        lambda rows: {y for _, y, w in rows if w} == {True, False}
    )
)
@settings(max_examples=60, deadline=None)
def test_weighted_values_with_ties_are_those_of_scikit_learn(rows: list[tuple[int, bool, int]]) -> None:
    scores, positive, weights = (np.array(column) for column in zip(*rows, strict=True))
    scores, weights = scores.astype(float), weights.astype(float)
    lines = np.stack([weights, (weights > 0).astype(float)])
    areas, precisions = (curve(scores, positive, lines) for curve in (roc_areas, average_precisions))
    for line, area, precision in zip(lines, areas, precisions, strict=True):
        used = line > 0
        assert area == pytest.approx(100 * roc_auc_score(positive[used], scores[used], sample_weight=line[used]))
        expected = average_precision_score(positive[used], scores[used], sample_weight=line[used])
        assert precision == pytest.approx(100 * expected)


def test_weights_count_like_repeated_images() -> None:
    scores, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])
    weights = np.array([[2.0, 1.0, 0.0, 3.0]])
    repeated = np.array([0, 0, 1, 3, 3, 3])
    for curve in (roc_areas, average_precisions):
        one = curve(scores, positive, weights)[0]
        assert one == pytest.approx(curve(scores[repeated], positive[repeated], np.ones((1, 6)))[0])


@pytest.mark.parametrize("positive", [True, False])
def test_images_of_one_kind_only_have_no_value(positive: bool) -> None:
    for curve in (roc_areas, average_precisions):
        assert np.isnan(curve(np.arange(3.0), np.full(3, positive), np.ones((1, 3))))[0]


def test_constant_scores_are_chance() -> None:
    positive = np.array([True, False, False, False])
    assert roc_areas(np.zeros(4), positive, np.ones((1, 4)))[0] == 50.0
    assert average_precisions(np.zeros(4), positive, np.ones((1, 4)))[0] == 25.0


def test_other_labels_do_not_count() -> None:
    scores, labels = np.array([[0.9], [0.8], [0.1], [0.5]]), np.array([[1], [-1], [0], [-2]])
    assert curves(roc_areas, scores, labels, np.ones((1, 4))).tolist() == [[100.0]]


def test_recalls_are_shares_of_each_class() -> None:
    correct, labels = np.array([True, False, True, True]), np.array([0, 0, 2, 2])
    found = recalls(correct, labels, np.array([0, 2]), np.array([[1.0, 1, 1, 1], [3.0, 1, 0, 0]]))
    np.testing.assert_allclose(found, [[50.0, 75.0], [100.0, np.nan]])


def test_patients_are_drawn_whole_and_images_without_one_alone() -> None:
    units = Units.of(5, np.array(["a", "b", "a", "", ""]))
    assert units.count == 4 and units.covers == "patients"
    assert units.members[0] == units.members[2] and len(set(units.members.tolist())) == 4
    assert Units.of(3).covers == Units.of(3, np.array(["", "", ""])).covers == "test images"


def test_an_interval_over_patients_is_wider_than_over_their_equal_images() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=40), 10)
    patients = np.repeat([f"p{index}" for index in range(40)], 10)

    def mean(weights: Reals) -> Reals:
        return ((weights @ values) / weights.sum(axis=1))[None]

    widths = []
    for units in (Units.of(400, patients), Units.of(400)):
        found = resample(mean, units, generator=np.random.default_rng(0))
        assert found.mean == pytest.approx(values.mean())
        assert found.mean_interval.low is not None and found.mean_interval.high is not None
        widths.append(found.mean_interval.high - found.mean_interval.low)
    normal = 2 * 1.96 * np.std(values[::10]) / math.sqrt(40)
    assert widths[0] == pytest.approx(normal, rel=0.1)
    assert widths[0] > 2.5 * widths[1]


def test_parts_without_a_value_are_left_out_of_the_mean_and_blocks_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(60, 3)), rng.integers(0, 2, (60, 3))
    labels[:, 1] = 0

    def areas(weights: Reals) -> Reals:
        return curves(roc_areas, scores, labels, weights)

    whole = resample(areas, Units.of(60), generator=np.random.default_rng(1))
    assert math.isnan(whole.values[1]) and whole.intervals[1].low is None
    assert whole.mean == pytest.approx((whole.values[0] + whole.values[2]) / 2)
    monkeypatch.setattr(ranking, "VALUES_PER_BLOCK", 60 * 7)
    blocks = resample(areas, Units.of(60), generator=np.random.default_rng(1))
    assert blocks.mean_interval == whole.mean_interval and blocks.intervals[0] == whole.intervals[0]
    score = whole.score(AUROC, n=60, covers="test images")
    assert score.low is not None and score.high is not None and score.low < score.value < score.high
    assert score.method == "bootstrap 95%"


def test_a_resample_without_a_rare_part_is_averaged_over_the_others() -> None:
    labels = np.zeros((30, 3), dtype=np.int64)
    labels[27, 0] = labels[28, 1] = labels[29, 2] = 1  # each in 63 % of the resamples, all three in about 25 %
    scores = np.tile(np.arange(30.0)[:, None], 3)
    drawn: list[Reals] = []

    def areas(weights: Reals) -> Reals:
        drawn.append(curves(roc_areas, scores, labels, weights))
        return drawn[-1]

    found = resample(areas, Units.of(30), generator=np.random.default_rng(0))
    kept = [
        column[~np.isnan(column)].mean() for column in np.concatenate(drawn[1:], axis=1).T if not np.isnan(column).all()
    ]
    assert len(kept) < ranking.RESAMPLES  # some have none of the three
    low, high = np.quantile(kept, [0.025, 0.975])
    assert (found.mean_interval.low, found.mean_interval.high) == (pytest.approx(low), pytest.approx(high))


def test_a_mean_that_too_few_resamples_define_has_no_interval() -> None:
    values = np.array([[1.0], [2.0]])

    def rarely(weights: Reals) -> Reals:
        """Defined for all images alike, and where the first one was drawn exactly three times."""
        wanted = (weights == 1).all(axis=1) | (weights[:, 0] == 3)
        return np.where(wanted, values, np.nan)

    found = resample(rarely, Units.of(30), generator=np.random.default_rng(0))
    assert found.mean == 1.5 and found.mean_interval.low is found.mean_interval.high is None
    score = found.score(AUROC, n=30, covers="test images")
    assert (score.low, score.high, score.covers, score.method) == (None, None, "", "")


def test_without_any_part_there_is_no_value() -> None:
    labels = np.ones((5, 2), dtype=np.int64)
    found = resample(
        lambda w: curves(roc_areas, np.zeros((5, 2)), labels, w), Units.of(5), generator=np.random.default_rng(0)
    )
    assert math.isnan(found.mean) and found.mean_interval.low is None


def test_a_corrected_interval_is_moved_against_the_bias_of_the_resamples() -> None:
    draws = norm.ppf((np.arange(20000) + 0.5) / 20000)  # a normal distribution around 0
    for value in (0.0, 0.4, -0.5):
        interval = bias_corrected(draws, value, 0.95)  # is then normal around twice the value
        assert (interval.low, interval.high) == pytest.approx((2 * value - 1.96, 2 * value + 1.96), abs=0.02)
    plain = percentiles(draws, 0.4, 0.95)
    assert (plain.low, plain.high) == pytest.approx((-1.96, 1.96), abs=0.01)


def test_a_corrected_interval_of_equal_or_undefined_values_and_far_from_the_value() -> None:
    assert bias_corrected(np.zeros(100), 0.0, 0.95) == Interval(0.0, 0.0)
    assert bias_corrected(np.full(100, np.nan), 1.0, 0.95) == Interval(None, None)
    assert bias_corrected(np.array([1.0] * 40 + [np.nan] * 60), 1.0, 0.95) == Interval(None, None)
    beyond = bias_corrected(np.arange(100.0), 200.0, 0.95)
    assert beyond.low is not None and beyond.low > 90 and beyond.high == 200


def test_the_kind_of_interval_is_the_callers() -> None:
    scores = np.random.default_rng(0).random(30)

    def skewed(weights: Reals) -> Reals:
        return (weights @ scores)[None] ** 4

    both = [
        resample(skewed, Units.of(30), generator=np.random.default_rng(1), interval=interval).mean_interval
        for interval in (percentiles, bias_corrected)
    ]
    assert both[0] != both[1]
