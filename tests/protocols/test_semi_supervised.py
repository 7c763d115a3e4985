"""Fine-tuning with few labels: which labels, what is trained, what is chosen where."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import protocols.semi_supervised
from bench.data.splits import stratified_subset
from bench.data.views import make_view
from bench.errors import DataError, DivergenceError, SpecError
from bench.protocol import Outcome
from bench.spec import ViewSpec
from bench.training.linear import Standardizer
from bench.training.randomness import stream
from protocols.semi_supervised import SemiSupervised, _batch_rows

from .images import ReadLog, digits, encoder_of, pixel_encoder, small_encoder, with_test_labels

QUICK = {"fraction": 0.1, "steps": 15, "backbone_lrs": (1e-3,), "copies": 2, "rotation": 5.0}


def evaluate(data: ReadLog, *, seed: int = 0, **settings: object) -> Outcome:
    return SemiSupervised(**{**QUICK, **settings}).evaluate(small_encoder(data), data, seed=seed, device="cpu")  # type: ignore[arg-type]


def test_the_labelled_subset_is_stratified_recorded_and_drawn_by_the_seed() -> None:
    data = digits()
    first, other = (evaluate(data, seed=seed).details["labelled_samples"] for seed in (0, 1))
    train = data.split("train")
    assert first == train.samples[stratified_subset(train.labels, 0.1, 0)].tolist()
    assert len(first) == 60
    assert first != other
    counts = np.bincount(data.labels[first], minlength=10)
    assert counts.min() >= 5 and counts.max() <= 7


def test_images_outside_the_subset_change_nothing() -> None:
    data = digits()
    before = evaluate(data)
    images = data.images.copy()
    unused = np.setdiff1d(data.splits["train"], before.details["labelled_samples"])
    images[unused] = 255 - images[unused]
    changed = replace(data, images=images, reads=[])
    # The encoder brings its own normalization, so that nothing else can carry the change over.
    encoder = small_encoder(data)
    after = SemiSupervised(**QUICK).evaluate(encoder, changed, seed=0, device="cpu")  # type: ignore[arg-type]
    assert before.predictions.equals(after.predictions)


def test_fine_tuning_beats_the_frozen_head_of_a_random_backbone() -> None:
    data = digits()
    outcome = evaluate(data, steps=150, backbone_lrs=(3e-3,), crop_scale=(0.9, 1.0))
    assert outcome.details["validation_top1"] > outcome.details["frozen_head"]["validation_top1"] + 5
    assert outcome.scores[0].value > 75


def test_one_label_per_class_is_far_above_chance() -> None:
    data = digits()
    outcome = evaluate(data, fraction=10 / 600, steps=60, crop_scale=(0.9, 1.0))
    assert len(outcome.details["labelled_samples"]) == 10
    assert outcome.scores[0].value > 35  # chance is 10


def test_a_budget_below_one_image_per_class_is_refused() -> None:
    with pytest.raises(DataError, match=r"6 labels, fewer than the 10 classes.*Take a label fraction of at least"):
        evaluate(digits(), fraction=0.01)


def test_the_validation_split_chooses_among_the_learning_rates() -> None:
    data = digits()
    details = evaluate(data, backbone_lrs=(1e-6, 3e-3), head_lrs=(1e-3, 1e-2), steps=40).details
    assert [(row["backbone_lr"], row["head_lr"]) for row in details["grid"]] == [
        (1e-6, 1e-3),
        (1e-6, 1e-2),
        (3e-3, 1e-3),
        (3e-3, 1e-2),
    ]
    best = max(details["grid"], key=lambda row: row["validation_top1"])
    assert details["validation_top1"] == best["validation_top1"]
    assert {"backbone_lr": details["backbone_lr"], "head_lr": details["head_lr"]}.items() <= best.items()
    assert len({row["validation_top1"] for row in details["grid"]}) > 1


def test_the_test_split_is_read_last_and_its_labels_change_no_prediction() -> None:
    data = digits()
    shuffled = with_test_labels(data, np.roll(data.labels[data.splits["test"]], 1))
    honest, other = evaluate(data), evaluate(shuffled)
    assert data.reads == ["train", "validation", "test"]
    assert honest.details == other.details
    assert honest.predictions["top1"].equals(other.predictions["top1"])


def test_the_encoder_is_left_as_it_was_and_random_states_too() -> None:
    data = digits()
    encoder = small_encoder(data)
    before = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    state = torch.get_rng_state()
    SemiSupervised(**QUICK).evaluate(encoder, data, seed=0, device="cpu")  # type: ignore[arg-type]
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_the_seed_decides_everything_even_dropout() -> None:
    data = digits()
    torch.manual_seed(1)
    first = evaluate(data, seed=3)
    torch.manual_seed(2)
    assert first.predictions.equals(evaluate(data, seed=3).predictions)
    assert not first.predictions.equals(evaluate(data, seed=4).predictions)


def test_a_frozen_encoder_is_fine_tuned_all_the_same() -> None:
    data = digits()
    encoder = small_encoder(data)
    encoder.module.requires_grad_(False)
    free = evaluate(data)
    frozen = SemiSupervised(**QUICK).evaluate(encoder, data, seed=0, device="cpu")  # type: ignore[arg-type]
    assert free.predictions.equals(frozen.predictions)
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 16},
        {"batch_size": 32},
        {"label_smoothing": 0.0},
        {"copies": 3},
        {"batch_norm": "frozen"},
        {"crop_scale": (0.5, 0.6)},
        {"rotation": 90.0},
        {"flip": 1.0},
        {"backbone_lrs": (2e-3,)},
        {"head_lrs": (2e-3,)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_setting_reaches_the_predictions(change: dict[str, object]) -> None:
    data = digits(test=50)
    assert not evaluate(data).predictions.equals(evaluate(data, **change).predictions)


def test_a_small_subset_fills_the_batch_by_whole_repetitions() -> None:
    generator = torch.Generator().manual_seed(0)
    assert _batch_rows(5, 15, generator).bincount().tolist() == [3] * 5
    counts = _batch_rows(5, 12, generator).bincount(minlength=5)
    assert int(counts.sum()) == 12 and set(counts.tolist()) == {2, 3}
    assert len(_batch_rows(50, 12, generator).unique()) == 12


def test_rates_that_all_diverge_end_the_job_with_a_reason() -> None:
    with pytest.raises(DivergenceError, match=r"diverged at every .*\(1e\+30, 0\.001\).*smaller backbone_lrs"):
        evaluate(digits(), backbone_lrs=(1e30,))


def test_an_encoder_without_weights_still_gets_its_head_trained() -> None:
    data = digits()
    protocol = SemiSupervised(**QUICK)  # type: ignore[arg-type]
    assert protocol.evaluate(pixel_encoder(data), data, seed=0, device="cpu").scores[0].value > 70


def test_top5_of_three_classes_is_undefined_and_says_so() -> None:
    data = digits(train=200, validation=60, test=100, classes=3)
    outcome = evaluate(data)
    assert math.isnan(outcome.scores[1].value) and "top5" in outcome.details["undefined"]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SpecError, match=r"'batch' or 'frozen', got 'eval'"):
        SemiSupervised(batch_norm="eval")
    with pytest.raises(SpecError, match="a learning rate of each kind"):
        SemiSupervised(backbone_lrs=())


def test_fine_tuning_starts_from_the_frozen_head_with_its_standardization() -> None:
    data = digits()
    still = {"steps": 1, "backbone_lrs": (1e-12,), "head_lrs": (1e-12,), "batch_norm": "frozen"}
    details = evaluate(data, **still).details
    assert details["validation_top1"] == details["frozen_head"]["validation_top1"] > 40


def test_copies_are_made_batch_by_batch_with_the_features_of_whole_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    data = digits(train=1100)
    encoder = small_encoder(data)
    protocol = SemiSupervised(**QUICK)  # type: ignore[arg-type]
    images = torch.as_tensor(data.split("train").images).permute(0, 3, 1, 2)
    held: list[int] = []
    features: list[torch.Tensor] = []

    def watched(pixels: torch.Tensor, view: ViewSpec, generator: torch.Generator) -> torch.Tensor:
        held.append(len(pixels))
        return make_view(pixels, view, generator)

    def fit(x: torch.Tensor) -> Standardizer:
        features.append(x)
        return Standardizer(x.mean(dim=0), torch.ones(x.shape[1]))

    monkeypatch.setattr(protocols.semi_supervised, "make_view", watched)
    monkeypatch.setattr(protocols.semi_supervised.Standardizer, "fit", fit)
    labels = torch.as_tensor(data.split("train").labels)
    protocol._first_fit(encoder, images, labels, data.split("validation"), num_classes=10, seed=0, device="cpu")
    assert held == [512, 512, 76] * 2
    pixels, generator = images.float() / 255, stream("semi_supervised copies", 0)
    versions = [pixels, *(make_view(pixels, protocol.view, generator) for _ in range(2))]
    with torch.no_grad():
        parts = [part for version in versions for part in version.split(512)]
        mean, std = torch.tensor(encoder.mean), torch.tensor(encoder.std)
        expected = torch.cat([encoder.module((part - mean) / std) for part in parts])
    assert torch.equal(features[0], expected)


def test_a_backbone_with_convolutions_in_3d_is_fine_tuned() -> None:
    data = digits(test=50)

    class Volumes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv3d(1, 4, 3, padding=1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps: torch.Tensor = self.convolution(images[:, :, None])
            return maps.flatten(1)

    encoder = encoder_of(Volumes(), data, feature_dim=256)
    outcome = SemiSupervised(**QUICK).evaluate(encoder, data, seed=0, device="cpu")  # type: ignore[arg-type]
    assert outcome.scores[0].value > 50


def test_the_card_says_that_validation_labels_choose_the_head_and_the_rates() -> None:
    summary = SemiSupervised.card.summary
    assert "head that it starts from and the learning rates are chosen with all labels of the validation" in summary
