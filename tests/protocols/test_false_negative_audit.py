"""The audit of false negative detection: what is counted, against which labels, and what is said about it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from bench.errors import DataError, DivergenceError, SpecError
from bench.protocol import Outcome, Score
from bench.training.false_negatives import detect
from protocols.false_negative_audit import COUNTS, FalseNegativeAudit, pair_counts

from .images import Pixels, ReadLog, digits, encoder_of, pixel_encoder, with_test_labels

STILL = {"crop_scale": (1.0, 1.0), "rotation": 0.0, "brightness": 0.0, "contrast": 0.0}


class OneHot(nn.Module):
    """Uniform images of gray level g to the g-th of 64 unit vectors."""

    def forward(self, images: Tensor) -> Tensor:
        levels = ((images.mean(dim=(1, 2, 3))) * 255).round().long()
        return nn.functional.one_hot(levels, 64).float()


def leveled(levels: list[int], labels: list[int]) -> ReadLog:
    """A test split of uniform images of these gray levels, with these labels."""
    n = len(levels)
    images = np.tile(np.array([0, 255, *levels], dtype=np.uint8)[:, None, None, None], (1, 8, 8, 1))
    return ReadLog(
        key="levels",
        title="Levels",
        images=images,
        labels=np.array([0, 1, *labels]),
        class_names=tuple("abcdefgh"),
        splits={"train": np.array([0]), "validation": np.array([1]), "test": np.arange(2, 2 + n)},
    )


def audit(data: ReadLog, module: nn.Module | None = None, *, seed: int = 0, **settings: object) -> Outcome:
    encoder = replace(encoder_of(module or OneHot(), data, feature_dim=64), mean=(0.0,), std=(1.0,))
    settings = {**STILL, "support_views": 2, **settings}
    return FalseNegativeAudit(**settings).evaluate(encoder, data, seed=seed, device="cpu")  # type: ignore[arg-type]


def values(outcome: Outcome) -> list[float]:
    return [score.value for score in outcome.scores]


def test_what_looks_alike_is_detected_and_judged_by_the_labels() -> None:
    # Levels 7 7 7 | 9 9 | 11; the third 7 is of another class, and the 11 is of the class of the 9s.
    outcome = audit(leveled([7, 7, 7, 9, 9, 11], [0, 0, 1, 2, 2, 2]))
    expected = pd.DataFrame(
        {
            "sample": [2, 3, 4, 5, 6, 7],
            "candidates": [5] * 6,
            "detected": [2, 2, 2, 1, 1, 0],
            "correct": [1, 1, 0, 1, 1, 0],
            "same_class": [1, 1, 0, 2, 2, 2],
        }
    )
    pd.testing.assert_frame_equal(outcome.predictions, expected)
    assert values(outcome) == pytest.approx([100 * 4 / 8, 100 * 4 / 8, 100 * 8 / 30, 8 / 6])
    assert [score.metric.title for score in outcome.scores] == [
        "precision",
        "recall",
        "chance precision",
        "detected per image",
    ]
    assert all(score.n == 6 and score.covers and score.method == "bootstrap 95%" for score in outcome.scores)


def test_top_k_limits_what_is_detected() -> None:
    outcome = audit(leveled([7] * 10, [0] * 10), top_k=3)
    assert values(outcome) == pytest.approx([100.0, 100 * 3 / 9, 100.0, 3.0])


def test_only_images_of_the_same_batch_are_candidates() -> None:
    outcome = audit(leveled([7] * 10, [0] * 10), top_k=0, batch_size=4)
    assert outcome.details["batches"] == 3 and outcome.details["images_per_batch"] == [3, 4]
    assert sorted(outcome.predictions["candidates"]) == [2] * 6 + [3] * 4
    assert (outcome.predictions["detected"] == outcome.predictions["candidates"]).all()


def test_a_batch_never_holds_a_single_image() -> None:
    outcome = audit(leveled([7] * 3, [0] * 3), batch_size=2)
    assert outcome.details["images_per_batch"] == [3]


def test_labels_that_say_nothing_leave_the_precision_at_chance() -> None:
    data = digits(test=300)
    rng = np.random.default_rng(0)
    shuffled = with_test_labels(data, rng.permutation(data.labels[data.splits["test"]]))
    honest, blind = (
        FalseNegativeAudit(batch_size=100, threshold=0.0).evaluate(pixel_encoder(d), d, seed=0, device="cpu").scores
        for d in (data, shuffled)
    )
    assert honest[0].value > 3 * honest[2].value
    assert blind[0].value == pytest.approx(blind[2].value, abs=3)
    assert honest[2].value == pytest.approx(10, abs=1)


def test_predictions_give_the_scores_and_do_not_follow_the_labels() -> None:
    data = digits(test=120)
    changed = with_test_labels(data, np.roll(data.labels[data.splits["test"]], 1))
    first, other = (
        FalseNegativeAudit(batch_size=50, support_views=3).evaluate(pixel_encoder(d), d, seed=0, device="cpu")
        for d in (data, changed)
    )
    sums = first.predictions.sum()
    assert values(first) == pytest.approx(
        [
            100 * sums["correct"] / sums["detected"],
            100 * sums["correct"] / sums["same_class"],
            100 * sums["same_class"] / sums["candidates"],
            sums["detected"] / 120,
        ]
    )
    assert first.predictions["detected"].equals(other.predictions["detected"])
    assert not first.predictions["correct"].equals(other.predictions["correct"])
    assert data.reads == ["test"]


def test_the_grid_holds_the_setting_of_the_scores_and_the_others() -> None:
    data = digits(test=60)
    settings = {"batch_size": 30, "support_views": 3}
    outcome = FalseNegativeAudit(**settings).evaluate(pixel_encoder(data), data, seed=0, device="cpu")  # type: ignore[arg-type]
    grid = outcome.details["measured"]["grid"]
    assert len(grid) == 2 * 3 * 5 * 3  # max and mean, 1, 2 and 3 views, five k, three thresholds
    for record in grid:
        chosen = {name: record[name] for name in ("aggregation", "support_views", "top_k", "threshold")}
        if record["support_views"] == 3 and record["top_k"] in (1, 0) and record["threshold"] != 0.7:
            same = FalseNegativeAudit(**{**settings, **chosen}).evaluate(
                pixel_encoder(data), data, seed=0, device="cpu"
            )  # type: ignore[arg-type]
            expected = [None if math.isnan(value) else value for value in values(same)]
            assert [record["precision"], record["recall"], record["detected"]] == pytest.approx(
                [expected[0], expected[1], expected[3]]
            )
        if chosen == {"aggregation": "max", "support_views": 3, "top_k": 10, "threshold": 0.7}:
            assert record["precision"] == pytest.approx(outcome.scores[0].value)


def test_counts_are_those_of_the_methods_detection() -> None:
    generator = torch.Generator().manual_seed(0)
    views, labels = torch.randn(4, 30, 5, generator=generator), torch.arange(30) % 3
    parts = list(torch.randperm(30, generator=generator).split(10))
    (counts,) = pair_counts(views, labels, parts, support=2, aggregation="mean", cuts=[(3, 0.3)])
    for part in parts:
        found = detect(
            views[0, part],
            views[1:3, part],
            excluded=torch.eye(10, dtype=torch.bool),
            aggregation="mean",
            top_k=3,
            threshold=0.3,
        )
        for anchor, row in enumerate(part):
            others = [int(part[m]) for m in range(10) if found[anchor, m]]
            right = sum(int(labels[m]) == int(labels[row]) for m in others)
            same = sum(int(labels[m]) == int(labels[row]) for m in part) - 1
            assert counts[row].tolist() == [9, len(others), right, same]
    assert len(COUNTS) == counts.shape[1]
    assert int(counts[:, 1].sum()) > 0


def test_embeddings_are_audited_where_there_is_a_projector() -> None:
    data = leveled([7, 7, 9, 9], [0, 0, 1, 1])
    encoder = replace(encoder_of(OneHot(), data, feature_dim=64), mean=(0.0,), std=(1.0,))
    merge = nn.Linear(64, 3, bias=False)
    nn.init.ones_(merge.weight)  # all embeddings are the same, though the representations are not
    by_space = {}
    for projector in (None, merge):
        outcome = FalseNegativeAudit(**STILL).evaluate(  # type: ignore[arg-type]
            replace(encoder, projector=projector), data, seed=0, device="cpu"
        )
        by_space[outcome.details["audited"]] = outcome.scores[0].value
    assert by_space == {"representations: there is no projector": 100.0, "embeddings": pytest.approx(100 / 3)}


def test_support_views_are_random_views_of_the_anchor_drawn_by_the_seed() -> None:
    data = digits(test=60)

    def detected(seed: int, **settings: object) -> list[int]:
        protocol = FalseNegativeAudit(batch_size=30, threshold=0.8, top_k=0, **settings)  # type: ignore[arg-type]
        outcome = protocol.evaluate(pixel_encoder(data), data, seed=seed, device="cpu")
        counts: list[int] = outcome.predictions["detected"].tolist()
        return counts

    assert detected(0) == detected(0) != detected(1)
    strong, weak = (
        {"crop_scale": scale, "rotation": angle} for scale, angle in (((0.1, 0.2), 90.0), ((0.9, 1.0), 0.0))
    )
    assert sum(detected(0, **strong)) != sum(detected(0, **weak))


def test_nothing_detected_is_undefined_and_says_so() -> None:
    outcome = audit(leveled([7, 9, 11, 13], [0, 0, 1, 1]))
    precision, recall, chance, detected = outcome.scores
    assert math.isnan(precision.value) and precision.low is None
    assert outcome.details["undefined"] == {
        "false_negative_precision": "nothing was detected: no candidate scored above the threshold"
    }
    assert (recall.value, chance.value, detected.value) == (0.0, pytest.approx(100 / 3), 0.0)


def test_classes_of_one_image_have_no_recall() -> None:
    outcome = audit(leveled([7, 7, 9], [0, 1, 2]))
    assert values(outcome)[0] == 0.0 and math.isnan(values(outcome)[1])
    assert outcome.details["undefined"] == {
        "false_negative_recall": "no batch of the test split holds two images of one class"
    }


def test_intervals_hold_the_values_and_shrink_with_the_number_of_images() -> None:
    widths = []
    for n in (60, 300):
        data = digits(test=n)
        scores = FalseNegativeAudit(batch_size=30).evaluate(pixel_encoder(data), data, seed=0, device="cpu").scores
        assert all(_span(score)[0] <= score.value <= _span(score)[1] for score in scores)
        widths.append(np.diff(_span(scores[0])).item())
    assert widths[1] < widths[0]


def _span(score: Score) -> tuple[float, float]:
    assert score.low is not None and score.high is not None
    return score.low, score.high


def test_features_that_are_not_finite_end_the_job_with_a_reason() -> None:
    class Broken(Pixels):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) / 0.0

    with pytest.raises(DivergenceError, match=r"a test.*NaN or infinite on levels"):
        audit(leveled([7, 7], [0, 0]), Broken())


def test_a_single_image_cannot_be_audited() -> None:
    with pytest.raises(DataError, match="levels has 1 images"):
        audit(leveled([7], [0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"support_views": 0}, "needs a support view and two images in a batch, got support_views=0"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"aggregation": "sum"}, "false_negative_audit: aggregation must be"),
        ({"top_k": -1}, "false_negative_audit: support_views and top_k"),
        ({"flip": 2.0}, "false_negative_audit: flip"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        FalseNegativeAudit(**settings)  # type: ignore[arg-type]
