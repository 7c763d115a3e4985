"""The linear probe: right on a known problem, chosen on validation, blind to the test labels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from torch import nn

from bench.data.dataset import ImageDataset
from bench.encoders.encoder import Encoder
from bench.errors import DivergenceError, SpecError, UnknownNameError
from bench.metric import AUROC, BALANCED_ACCURACY, TOP1, TOP5
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
    assert [score.metric for score in outcome.scores] == [TOP1, TOP5, BALANCED_ACCURACY, AUROC]
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "fast"}, "'cached' or 'augmented'"),
        ({"optimizer": "adam"}, "'recipe' or 'lbfgs'"),
        ({"mode": "augmented", "optimizer": "lbfgs"}, "set mode to 'cached'"),
        ({"mode": "augmented", "views": 2}, "set mode to 'cached'"),
        ({"optimizer": "lbfgs", "epochs": 3}, "its grid is l2_range"),
        ({"optimizer": "lbfgs", "lrs": (0.1,)}, "its grid is l2_range"),
        ({"l2_range": (1.0, 0.1)}, "l2_range ascends"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LinearProbe(**settings)  # type: ignore[arg-type]


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="barlow_twins, byol, common, moco, simclr, simsiam, vicreg"):
        LinearProbe(recipe="swav")


class RandomFeatures(nn.Module):
    """One random layer: more features than pixels, as an encoder has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 256)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.layer(images.flatten(1)).relu()
        return features


def random_encoder(data: ImageDataset) -> Encoder:
    torch.manual_seed(0)
    return encoder_of(RandomFeatures(), data, feature_dim=256)


@pytest.mark.parametrize("optimizer", ["recipe", "lbfgs"])
def test_accuracy_is_that_of_scikit_learn_on_the_same_features_within_the_interval(optimizer: str) -> None:
    data = digits()
    encoder = random_encoder(data)
    top1 = LinearProbe(optimizer=optimizer).evaluate(encoder, data, seed=0, device="cpu").scores[0]
    train, test = data.split("train"), data.split("test")
    x, x_test = (encoder.features(subset.images).numpy() for subset in (train, test))
    mean, std = x.mean(axis=0), x.std(axis=0)
    x, x_test = ((part - mean) / std for part in (x, x_test))
    assert top1.low is not None and top1.high is not None
    for model in (LogisticRegression(C=0.1, max_iter=3000), RidgeClassifier(alpha=100.0)):
        reference = 100 * model.fit(x, train.labels).score(x_test, test.labels)
        assert top1.low <= reference <= top1.high
        assert top1.value == pytest.approx(reference, abs=3.0)


def test_lbfgs_solves_the_whole_grid_and_the_validation_split_chooses() -> None:
    data = digits()
    outcome = LinearProbe(optimizer="lbfgs").evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    grid = outcome.details["grid"]
    assert [row["l2"] for row in grid][:: len(grid) - 1] == pytest.approx([1e-6, 1e5]) and len(grid) == 45
    assert all(row["converged"] and row["largest_gradient"] <= 1e-4 for row in grid)
    best = max(row["validation_top1"] for row in grid)
    assert outcome.details["validation_top1"] == best > 88
    assert outcome.details["l2"] in [row["l2"] for row in grid if row["validation_top1"] == best]
    assert outcome.details["settings"]["optimizer"] == "lbfgs"


def test_lbfgs_does_not_depend_on_the_seed() -> None:
    data = digits()
    protocol = LinearProbe(optimizer="lbfgs", l2_count=5)
    one, other = (protocol.evaluate(pixel_encoder(data), data, seed=seed, device="cpu") for seed in (0, 1))
    assert one.predictions.equals(other.predictions)


def test_views_beside_the_images_help_where_labels_are_few() -> None:
    data = digits(train=80, validation=500, test=500)
    settings = {"optimizer": "lbfgs", "l2_count": 12, "crop_scale": (0.8, 1.0), "flip": 0.0}
    values = [
        LinearProbe(views=views, **settings).evaluate(pixel_encoder(data), data, seed=0, device="cpu").scores[0].value  # type: ignore[arg-type]
        for views in (0, 8)
    ]
    assert values[1] > values[0] + 1


def test_the_augmented_form_learns_and_reads_the_splits_like_the_cached_one() -> None:
    data = digits()
    protocol = LinearProbe(mode="augmented", epochs=12, batch_size=64, crop_scale=(0.9, 1.0), flip=0.0)
    outcome = protocol.evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    assert data.reads == ["train", "validation", "test"]
    assert outcome.scores[0].value > 80
    details = outcome.details
    assert (details["mode"], details["recipe"]) == ("augmented", "common")
    assert details["departures"] == [
        "epochs 12 instead of 100",
        "batch_size 64 instead of 256",
        "crop_scale (0.9, 1.0) instead of (0.08, 1.0)",
        "flip 0.0 instead of 0.5",
    ]
    assert details["settings"]["epochs"] == 12 and len(details["grid"]) == 20
    best = max(details["grid"], key=lambda row: row["validation_top1"])
    assert details["validation_top1"] == best["validation_top1"]
    again = protocol.evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    assert again.predictions.equals(outcome.predictions)


def test_crops_that_keep_everything_make_the_augmented_form_the_cached_one() -> None:
    data = digits(train=256)
    class_settings = {"epochs": 5, "flip": 0.0, "crop_scale": (1.0, 1.0), "standardize": False}
    # A crop of the whole area with another ratio does not fit, and the fallback of a square image is all of it.
    cached, augmented = (
        LinearProbe(mode=mode, **class_settings).evaluate(pixel_encoder(data), data, seed=0, device="cpu")  # type: ignore[arg-type]
        for mode in ("cached", "augmented")
    )
    ranks = ["sample", "label", "top1"]
    assert augmented.predictions[ranks].equals(cached.predictions[ranks])
    assert augmented.details["grid"] == cached.details["grid"]


@pytest.mark.parametrize("recipe", ["vicreg", "barlow_twins", "byol", "moco", "simsiam", "simclr"])
def test_a_published_recipe_trains_at_its_rate_and_says_what_a_small_set_changes(recipe: str) -> None:
    data = digits(train=128)
    protocol = LinearProbe(mode="augmented", recipe=recipe, epochs=2)
    details = protocol.evaluate(pixel_encoder(data), data, seed=0, device="cpu").details
    scaled = recipe in ("byol", "simsiam", "simclr")
    expected = [lr * (128 / 256 if scaled else 1) for lr in protocol.recipe.lrs]
    assert [row["lr"] for row in details["grid"]] == pytest.approx(expected)
    assert "batch_size 128, all training images, instead of" in details["departures"][-1]
    assert details["departures"][0].startswith("epochs 2 instead of")
    assert details["departures"][1] == "test images whole instead of the central 224 of 256 pixels"
    cut = replace(pixel_encoder(data), image_size=(7, 7), module=nn.Flatten(), feature_dim=49)
    assert len(protocol.evaluate(cut, data, seed=0, device="cpu").details["departures"]) == 2


def test_a_published_recipe_on_cached_features_says_that_its_crops_are_missing() -> None:
    data = digits()
    details = LinearProbe(recipe="vicreg").evaluate(pixel_encoder(data), data, seed=0, device="cpu").details
    assert details["departures"] == [
        "features of the image and 0 views of it, instead of a new crop in every epoch",
        "test images whole instead of the central 224 of 256 pixels",
    ]
    common = LinearProbe(epochs=100).evaluate(pixel_encoder(data), data, seed=0, device="cpu").details
    assert common["departures"] == []


def test_work_counts_every_image_that_passes_the_encoder() -> None:
    sizes = {"train": 1000, "validation": 100, "test": 200}
    cached = LinearProbe().work(sizes, num_classes=10, feature_dim=64)
    assert cached.forward == 1300 and cached.trained == 0
    assert cached.products == pytest.approx(2e-9 * 100 * 1000 * 64 * 20 * 10)
    assert LinearProbe(views=3).work(sizes, num_classes=10, feature_dim=64).forward == 4300
    augmented = LinearProbe(mode="augmented", epochs=7).work(sizes, num_classes=10, feature_dim=64)
    assert augmented.forward == 1000 + 7000 + 300  # the first pass is for the standardization
    published = LinearProbe(mode="augmented", recipe="moco").work(sizes, num_classes=10, feature_dim=64)
    assert published.forward == 100_300 and published.products == pytest.approx(2e-9 * 100 * 1000 * 64 * 10)
    lbfgs = LinearProbe(optimizer="lbfgs").work(sizes, num_classes=10, feature_dim=64)
    assert lbfgs.products == pytest.approx(2e-9 * 75 * 1000 * 64 * 45 * 10)


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
