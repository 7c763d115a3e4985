"""The linear probe: right on a known problem, chosen on validation, blind to the test labels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from bench.errors import DivergenceError, SpecError
from bench.metric import TOP1, TOP5
from protocols.linear_probe import LinearProbe

from .images import digits, encoder_of, pixel_encoder, with_test_labels


def test_accuracy_on_digit_pixels_is_that_of_logistic_regression() -> None:
    data = digits()
    outcome = LinearProbe().evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    train, test = data.split("train"), data.split("test")
    x, x_test = (subset.images.reshape(len(subset), -1) / 255.0 for subset in (train, test))
    reference = LogisticRegression(C=10.0, max_iter=2000).fit(x, train.labels)
    assert outcome.scores[0].value == pytest.approx(100 * reference.score(x_test, test.labels), abs=3.0)
    assert outcome.scores[0].value > 88


def test_the_chosen_candidate_is_the_best_of_the_validation_split() -> None:
    data = digits()
    protocol = LinearProbe(lrs=(1e-6, 0.1), weight_decays=(0.0, 10.0), epochs=20)
    details = protocol.evaluate(pixel_encoder(data), data, seed=0, device="cpu").details
    assert [(row["lr"], row["weight_decay"]) for row in details["grid"]] == [
        (1e-6, 0.0),
        (1e-6, 10.0),
        (0.1, 0.0),
        (0.1, 10.0),
    ]
    best = max(details["grid"], key=lambda row: row["validation_top1"])
    assert (details["lr"], details["weight_decay"]) == (best["lr"], best["weight_decay"]) == (0.1, 0.0)
    assert details["validation_top1"] == best["validation_top1"] > 75


def test_the_test_split_is_read_once_after_the_choice() -> None:
    data = digits()
    LinearProbe(epochs=2).evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    assert data.reads == ["train", "validation", "test"]


def test_test_labels_change_neither_the_choice_nor_the_predictions() -> None:
    data = digits()
    shuffled = with_test_labels(data, np.roll(data.labels[data.splits["test"]], 1))
    encoder = pixel_encoder(data)
    honest, other = (LinearProbe(epochs=5).evaluate(encoder, d, seed=0, device="cpu") for d in (data, shuffled))
    assert honest.details == other.details
    ranks = ["top1", "top2", "top3", "top4", "top5"]
    assert honest.predictions[ranks].equals(other.predictions[ranks])
    assert honest.scores[0].value > other.scores[0].value + 30


def test_validation_labels_do_decide() -> None:
    data = digits()
    labels = data.labels.copy()
    labels[data.splits["validation"]] = 0
    constant = replace(data, labels=labels, reads=[])
    protocol = LinearProbe(lrs=(1e-6, 0.1), weight_decays=(0.0,), epochs=10)
    honest, misled = (protocol.evaluate(pixel_encoder(d), d, seed=0, device="cpu") for d in (data, constant))
    assert honest.details["validation_top1"] > misled.details["validation_top1"] + 30


def test_metrics_intervals_and_predictions_are_complete() -> None:
    data = digits()
    outcome = LinearProbe(epochs=5).evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    assert [score.metric for score in outcome.scores] == [TOP1, TOP5]
    for score in outcome.scores:
        assert score.n == 300 and score.covers == "test images"
        assert score.low is not None and score.high is not None and score.low < score.value <= score.high
    assert outcome.predictions["sample"].tolist() == data.splits["test"].tolist()
    assert (outcome.predictions["label_log_score"] <= 0).all()
    assert set(outcome.seconds) == {"features", "fit", "test"}


def test_the_same_seed_gives_the_same_result_and_another_seed_another() -> None:
    data = digits()
    first, again, other = (
        LinearProbe(epochs=3).evaluate(pixel_encoder(data), data, seed=seed, device="cpu") for seed in (1, 1, 2)
    )
    assert first.predictions.equals(again.predictions) and first.details == again.details
    assert not first.predictions["label_log_score"].equals(other.predictions["label_log_score"])


def test_standardization_makes_the_probe_indifferent_to_the_scale_of_the_features() -> None:
    data = digits()

    class Tiny(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 1e-3 * images.flatten(1)

    tiny = encoder_of(Tiny(), data, feature_dim=64)
    settings = {"lrs": (0.03,), "weight_decays": (1e-3,), "epochs": 10}
    values = {
        standardize: [
            LinearProbe(**settings, standardize=standardize)  # type: ignore[arg-type]
            .evaluate(encoder, data, seed=0, device="cpu")
            .scores[0]
            .value
            for encoder in (pixel_encoder(data), tiny)
        ]
        for standardize in (True, False)
    }
    assert values[True][0] == pytest.approx(values[True][1], abs=0.5)
    assert values[False][1] < values[False][0] - 5


def test_top5_of_three_classes_is_undefined_and_says_so() -> None:
    data = digits(train=200, validation=60, test=100, classes=3)
    outcome = LinearProbe(epochs=5).evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    assert outcome.scores[0].value > 90
    assert math.isnan(outcome.scores[1].value)
    assert "at least 5 classes" in outcome.details["undefined"]["top5"]


def test_features_that_are_not_finite_end_the_job_with_a_reason() -> None:
    data = digits()

    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) * math.nan

    with pytest.raises(DivergenceError, match="candidates diverged"):
        LinearProbe(epochs=1).evaluate(encoder_of(Broken(), data, feature_dim=64), data, seed=0, device="cpu")


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(SpecError, match="one value each"):
        LinearProbe(lrs=())


def test_half_of_the_test_images_are_classified_as_among_all() -> None:
    data = digits()
    encoder = pixel_encoder(data)
    kept = data.splits["test"][data.labels[data.splits["test"]] < 5]  # unlike the whole split
    half = replace(data, splits={**data.splits, "test": kept}, reads=[])
    whole, part = (LinearProbe(epochs=5).evaluate(encoder, d, seed=0, device="cpu").predictions for d in (data, half))
    rest = whole.set_index("sample").loc[kept]
    ranks = [f"top{rank}" for rank in range(1, 6)]
    assert 100 < len(kept) < 200
    assert rest[ranks].equals(part.set_index("sample")[ranks])
    np.testing.assert_allclose(rest["label_log_score"], part["label_log_score"], rtol=1e-4, atol=1e-6)


def test_test_features_that_are_not_finite_end_the_job_with_a_reason() -> None:
    data = digits()
    images = data.images.copy()
    images[: data.splits["test"][0], 0, 0] = 0
    images[data.splits["test"][:7], 0, 0] = 255  # a white corner, which only test images have

    class Fragile(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) / (images[:, 0, 0, :1] == images.max()).logical_not()

    changed = replace(data, images=images, reads=[])
    encoder = replace(encoder_of(Fragile(), data, feature_dim=64), mean=(0.0,), std=(1.0,))
    with pytest.raises(DivergenceError, match=r"scores of 7 of 300 test images are NaN or infinite"):
        LinearProbe(epochs=1).evaluate(encoder, changed, seed=0, device="cpu")
