"""Top-k accuracies and the predictions that they are recomputed from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, top_k_accuracy_score

from bench.errors import DivergenceError
from bench.metric import AUROC, BALANCED_ACCURACY, TOP1, TOP5
from bench.statistics.classification import Judgement, judge, ranked_predictions, top_k_scores, undefined_metrics
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


def judged(classes: int, labels: np.ndarray[tuple[int], np.dtype[np.int64]], **settings: object) -> Judgement:
    generator = torch.Generator().manual_seed(0)
    log_p = torch.randn(len(labels), classes, generator=generator).log_softmax(dim=1)
    log_p[torch.arange(len(labels)), torch.as_tensor(labels)] += 0.5
    return judge(
        log_p,
        labels,
        np.arange(len(labels)),
        class_names=tuple(f"class {c}" for c in range(classes)),
        patients=settings.get("patients"),  # type: ignore[arg-type]
        generator=np.random.default_rng(0),
    )


def test_balanced_accuracy_and_auroc_are_those_of_scikit_learn() -> None:
    labels = np.array([0] * 90 + [1] * 20 + [2] * 10)
    found = judged(3, labels)
    assert [score.metric for score in found.scores] == [TOP1, TOP5, BALANCED_ACCURACY, AUROC]
    columns = found.predictions[["log_p0", "log_p1", "log_p2"]].to_numpy(dtype=np.float64)
    balanced, area = found.scores[2:]
    assert balanced.value == pytest.approx(100 * balanced_accuracy_score(labels, found.predictions["top1"]))
    one_against_rest = [roc_auc_score(labels == c, columns[:, c]) for c in range(3)]
    assert area.value == pytest.approx(100 * float(np.mean(one_against_rest)))
    for score in (balanced, area):
        assert score.low is not None and score.high is not None and score.low < score.value < score.high
        assert (score.n, score.covers, score.method) == (120, "test images", "bootstrap 95%")
    assert found.details() == {"undefined": undefined_metrics(3)}


def test_intervals_are_over_patients_where_they_are_known() -> None:
    labels = np.repeat(np.arange(40) % 2, 6)
    patients = np.repeat([f"p{index}" for index in range(40)], 6)
    by_patient, by_image = judged(2, labels, patients=patients), judged(2, labels)
    assert [score.covers for score in by_patient.scores if score.low is not None] == ["patients"] * 3
    assert [score.value for score in by_patient.scores if score.low is not None] == [
        score.value for score in by_image.scores if score.low is not None
    ]
    assert by_patient.scores[2].low != by_image.scores[2].low


def test_accuracies_of_patients_with_many_alike_images_have_wide_intervals() -> None:
    patients = np.repeat([f"p{index}" for index in range(20)], 10)
    labels = np.repeat(np.arange(20) % 7, 10)
    scores = torch.randn(20, 7, generator=torch.Generator().manual_seed(1)).repeat_interleave(10, dim=0)
    frame = ranked_predictions(scores, labels, np.arange(200))
    once = ranked_predictions(scores[::10], labels[::10], np.arange(20))
    found = top_k_scores(frame, num_classes=7, patients=patients)
    for score, plain in zip(found, top_k_scores(once, num_classes=7), strict=True):
        assert score.value == pytest.approx(plain.value) and 0 < score.value < 100
        low, high = wilson_interval(score.value / 100 * 19, 19)  # 20 patients, one lost to the mean
        assert (score.low, score.high) == pytest.approx((low, high))
        assert (score.n, score.covers, score.method) == (200, "patients", "Wilson 95%")


def test_a_class_without_test_images_is_left_out_and_named() -> None:
    labels = np.array([0, 2] * 20)
    found = judged(3, labels)
    assert found.details()["measured"] == {"classes_without_test_images": ["class 1"]}
    area = np.mean([roc_auc_score(labels == c, found.predictions[f"log_p{c}"]) for c in (0, 2)])
    assert found.scores[3].value == pytest.approx(100 * float(area))


def test_auroc_of_one_class_or_of_many_is_undefined_and_says_why() -> None:
    one = judged(2, np.zeros(10, dtype=np.int64))
    assert math.isnan(one.scores[3].value) and "all test images are 'class 0'" in one.undefined["auroc"]
    many = judged(21, np.arange(42) % 21)
    assert math.isnan(many.scores[3].value) and "at most 20 classes, the dataset has 21" in many.undefined["auroc"]
    assert "log_p0" not in many.predictions and not math.isnan(many.scores[2].value)
