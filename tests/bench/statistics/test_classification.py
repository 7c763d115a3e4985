"""Top-k accuracies and the predictions that they are recomputed from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from bench.errors import DivergenceError
from bench.metric import TOP1, TOP5
from bench.statistics.classification import ranked_predictions, top_k_scores, undefined_metrics
from bench.statistics.proportion import wilson_interval


def test_classes_are_ranked_by_score_with_the_label_and_the_sample_beside_them() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.2, 0.0, -1.0], [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
    frame = ranked_predictions(scores, np.array([2, 5]), np.array([40, 7]))
    assert list(frame.columns) == ["sample", "label", "top1", "top2", "top3", "top4", "top5", "label_log_score"]
    assert frame["sample"].tolist() == [40, 7]
    assert frame[[f"top{k}" for k in range(1, 6)]].to_numpy().tolist() == [[1, 2, 3, 0, 4], [0, 1, 2, 3, 4]]
    np.testing.assert_allclose(frame["label_log_score"], [0.3, 0.0], rtol=1e-6)


def test_equal_scores_rank_by_class_index() -> None:
    frame = ranked_predictions(torch.zeros(3, 6), np.zeros(3, dtype=np.int64), np.arange(3))
    assert (frame[["top1", "top2", "top3", "top4", "top5"]].to_numpy() == np.arange(5)).all()


def test_blocks_do_not_change_the_ranking() -> None:
    scores = torch.randn(23, 8, generator=torch.Generator().manual_seed(0))
    labels, samples = np.arange(23) % 8, np.arange(23)
    whole, blocks = (ranked_predictions(scores, labels, samples, block=size) for size in (1000, 5))
    assert whole.equals(blocks)


def test_scores_agree_with_scikit_learn_and_carry_wilson_intervals() -> None:
    scores = torch.randn(200, 9, generator=torch.Generator().manual_seed(0))
    labels = np.arange(200) % 9
    top1, top5 = top_k_scores(ranked_predictions(scores, labels, np.arange(200)), num_classes=9)
    for score, metric, k in ((top1, TOP1, 1), (top5, TOP5, 5)):
        share = top_k_accuracy_score(labels, scores.numpy(), k=k)
        assert score.metric is metric
        assert math.isclose(score.value, 100 * share, rel_tol=1e-12)
        assert (score.low, score.high) == wilson_interval(round(200 * share), 200)
        assert (score.n, score.covers, score.method) == (200, "test images", "Wilson 95%")


def test_top5_of_fewer_than_five_classes_is_not_a_number_and_says_why() -> None:
    frame = ranked_predictions(torch.randn(10, 4), np.zeros(10, dtype=np.int64), np.arange(10))
    assert [name for name in frame if name.startswith("top")] == ["top1", "top2", "top3", "top4"]
    top1, top5 = top_k_scores(frame, num_classes=4)
    assert not math.isnan(top1.value)
    assert math.isnan(top5.value) and top5.low is None and top5.high is None
    assert undefined_metrics(4) == {"top5": "top-5 needs at least 5 classes, the dataset has 4"}


def test_top5_of_five_classes_is_defined() -> None:
    frame = ranked_predictions(torch.randn(10, 5), np.zeros(10, dtype=np.int64), np.arange(10))
    assert top_k_scores(frame, num_classes=5)[1].value == 100.0
    assert undefined_metrics(5) == {}


def test_classes_without_a_score_are_misses() -> None:
    scores = torch.full((1, 7), -torch.inf)
    scores[0, 3], scores[0, 6] = -2.0, -1.0
    frame = ranked_predictions(scores, np.array([0]), np.array([0]))
    assert frame[[f"top{rank}" for rank in range(1, 6)]].to_numpy().tolist() == [[6, 3, -1, -1, -1]]
    assert [score.value for score in top_k_scores(frame, num_classes=7)] == [0.0, 0.0]


@pytest.mark.parametrize("row", [[0.0, math.nan, 1.0], [0.0, math.inf, 1.0], [-math.inf] * 3])
def test_scores_that_are_not_finite_end_the_job_with_a_reason(row: list[float]) -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0], row])
    with pytest.raises(DivergenceError, match=r"scores of 1 of 2 test images are NaN or infinite.*learning rates"):
        ranked_predictions(scores, np.array([0, 1]), np.array([0, 1]))
