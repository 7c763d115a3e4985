from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from bench.statistics.weighted import Accuracy, Auroc, BalancedAccuracy, Statistic


def once(statistic: Statistic, weights: list[float]) -> float:
    return float(statistic(np.array([weights], dtype=np.float64))[0])


def test_the_metrics_are_those_of_scikit_learn_with_images_counted_as_often_as_they_were_drawn() -> None:
    draw = np.random.default_rng(1)
    labels, guesses = draw.integers(0, 3, 60), draw.integers(0, 3, 60)
    correct = labels == guesses
    weights = draw.integers(0, 4, 60).astype(float)
    assert once(Accuracy(correct), list(weights)) == pytest.approx(100 * np.average(correct, weights=weights))
    expected = 100 * balanced_accuracy_score(labels, guesses, sample_weight=weights)
    assert once(BalancedAccuracy(correct, labels), list(weights)) == pytest.approx(expected)


def test_auroc_is_that_of_scikit_learn_with_ties_weights_and_unknown_labels() -> None:
    draw = np.random.default_rng(2)
    labels = draw.integers(-2, 2, (80, 3))  # UNKNOWN and UNCERTAIN do not count
    scores = draw.integers(0, 6, (80, 3)).astype(float)  # many ties
    weights = draw.integers(0, 3, 80).astype(float)
    areas = []
    for y, s in zip(labels.T, scores.T, strict=True):
        known = y >= 0
        areas.append(roc_auc_score(y[known], s[known], sample_weight=weights[known]))
    assert once(Auroc(scores, labels), list(weights)) == pytest.approx(100 * np.mean(areas))


def test_a_finding_that_a_resample_lacks_is_left_out_of_its_mean() -> None:
    labels = np.array([[1, 1], [0, 0], [1, 0]])
    scores = np.array([[0.9, 0.1], [0.2, 0.7], [0.1, 0.3]])
    both = Auroc(scores, labels)
    assert once(both, [1, 1, 1]) == pytest.approx(100 * (0.5 + 0.0) / 2)
    assert once(both, [0, 1, 1]) == pytest.approx(0.0)  # only the first finding still has images of both kinds
    assert math.isnan(once(both, [0, 1, 0]))
