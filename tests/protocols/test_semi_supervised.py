"""Fine-tuning with few labels: which labels, what is trained, what is chosen where."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import bench.training.starts
from bench.check import check_protocol
from bench.data.label_lists import LISTED, column_of
from bench.data.splits import stratified_subset
from bench.data.views import make_view
from bench.errors import DataError, DivergenceError, SpecError
from bench.protocol import Outcome
from bench.registry import discover
from bench.spec import ViewSpec
from bench.training.finetuning import Material
from bench.training.finetuning_recipes import RECIPES
from bench.training.heads import mlp
from bench.training.linear import Standardizer
from bench.training.randomness import stream
from bench.training.starts import first_layer, prepare_start
from protocols.semi_supervised import SemiSupervised

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
    outcome = evaluate(data, seed=1, steps=150, backbone_lrs=(3e-3,), crop_scale=(0.9, 1.0))
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


def test_labels_are_drawn_patient_by_patient() -> None:
    data = digits()
    patients = np.array([f"p{index // 5}" for index in range(len(data.labels))])
    data = replace(data, metadata={"patient": patients}, labels=np.arange(len(data.labels)) // 5 % 10, reads=[])
    labelled = evaluate(data).details["labelled_samples"]
    assert len(labelled) == 60 and len(set(patients[labelled])) == 20  # one or two of each class's six images


def test_the_validation_split_chooses_among_heads_and_learning_rates() -> None:
    data = digits()
    details = evaluate(data, backbone_lrs=(1e-6, 3e-3), head_lrs=(1e-3, 1e-2), steps=40).details
    assert [(row["start"], row["backbone_lr"], row["head_lr"]) for row in details["grid"]] == [
        ("fitted", 1e-6, 1e-3),
        ("fitted", 1e-6, 1e-2),
        ("fitted", 3e-3, 1e-3),
        ("fitted", 3e-3, 1e-2),
        ("fresh", 1e-6, 1e-3),
        ("fresh", 1e-6, 1e-2),
        ("fresh", 3e-3, 1e-3),
        ("fresh", 3e-3, 1e-2),
    ]
    best = max(details["grid"], key=lambda row: row["validation_top1"])
    assert details["validation_top1"] == best["validation_top1"]
    assert {"backbone_lr": details["backbone_lr"], "head_lr": details["head_lr"]}.items() <= best.items()
    assert len({row["validation_top1"] for row in details["grid"]}) > 1


def test_every_start_is_used_as_named() -> None:
    """Without a step that moves anything, a fitted head knows the digits and a fresh one guesses."""
    settings = {"backbone_lrs": (1e-12,), "head_lrs": (1e-12,), "steps": 1}
    fitted, fresh = (evaluate(digits(), starts=(start,), **settings).details for start in ("fitted", "fresh"))
    assert fitted["start"] == "fitted" and "frozen_head" in fitted and fitted["validation_top1"] > 50
    assert fresh["start"] == "fresh" and "frozen_head" not in fresh and fresh["validation_top1"] < 25


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
    train = data.split("train")
    recipe = replace(RECIPES["common"], copies=2, rotation=5.0)
    held: list[int] = []
    features: list[torch.Tensor] = []

    def watched(pixels: torch.Tensor, view: ViewSpec, generator: torch.Generator) -> torch.Tensor:
        held.append(len(pixels))
        return make_view(pixels, view, generator)

    def fit(x: torch.Tensor) -> Standardizer:
        features.append(x)
        return Standardizer(x.mean(dim=0), torch.ones(x.shape[1]))

    monkeypatch.setattr(bench.training.starts, "make_view", watched)
    monkeypatch.setattr(bench.training.starts.Standardizer, "fit", fit)
    material = Material(images=train.images, labels=torch.as_tensor(train.labels))
    prepare_start("fitted", encoder, recipe, material, data.split("validation"), num_classes=10, seed=0)
    assert held == [512, 512, 76] * 2
    pixels = torch.as_tensor(train.images).permute(0, 3, 1, 2).float() / 255
    generator = stream("semi_supervised copies", 0)
    versions = [pixels, *(make_view(pixels, recipe.view, generator) for _ in range(2))]
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


def test_it_keeps_the_contract_of_protocols() -> None:
    entry = discover().protocols["semi_supervised"]
    assert [f"{r.name}\n    {r.message}" for r in check_protocol(entry) if not r.ok] == []


# --- published recipes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "common"])
def test_every_published_recipe_trains_and_names_its_source_and_departures(recipe: str) -> None:
    data = digits(test=50)
    settings = {"recipe": recipe, "fraction": 0.1, "epochs": 2, "flip": 0.0}
    outcome = SemiSupervised(**settings).evaluate(small_encoder(data), data, seed=0, device="cpu")  # type: ignore[arg-type]
    details = outcome.details
    assert details["recipe"] == recipe and details["source"] and "frozen_head" not in details
    assert details["steps"] == 2 and details["batch_size"] == 60
    said = " | ".join(details["departures"])
    assert "epochs are 2, published" in said and "flip is 0.0, published 0.5" in said and "batches are of 60" in said
    assert len(details["grid"]) == (5 if recipe == "byol" else 1)
    assert "source" not in evaluate(data).details


def test_byols_sweep_over_epochs_and_rates_is_decided_on_validation() -> None:
    data = digits(test=50)
    protocol = SemiSupervised(recipe="byol", fraction=0.1, flip=0.0, batch_size=60)
    details = protocol.evaluate(small_encoder(data), data, seed=0, device="cpu").details
    assert [row["steps"] for row in details["grid"]] == [30] * 5 + [50] * 5
    assert details["validation_top1"] == max(row["validation_top1"] for row in details["grid"])
    assert "epochs" not in " ".join(details["departures"])


def test_a_published_head_starts_small_on_the_features_as_they_are() -> None:
    data = digits()
    encoder = small_encoder(data)
    material = Material(images=data.images[:50], labels=torch.as_tensor(data.labels[:50]))
    validation = data.split("validation")
    start = prepare_start("fresh", encoder, RECIPES["vicreg"], material, validation, num_classes=10, seed=0)
    assert float(start.head.weight.detach().std()) == pytest.approx(0.01, rel=0.1) and not start.head.bias.any()
    features = torch.randn(3, 32)
    assert torch.equal(start.standardize(features), features)


def test_simclr_v2_starts_from_the_first_layer_of_the_projector() -> None:
    data = digits()
    projector = mlp((32, 24, 24, 8))
    layer = first_layer(projector)
    assert layer is not None and [type(part).__name__ for part in layer] == ["Linear", "BatchNorm1d", "ReLU"]
    assert first_layer(mlp((32, 8))) is None and first_layer(None) is None
    encoder = replace(small_encoder(data), projector=projector.eval())
    material = Material(images=data.images[:50], labels=torch.as_tensor(data.labels[:50]))
    recipe, validation = RECIPES["simclr_v2"], data.split("validation")
    start = prepare_start("projector", encoder, recipe, material, validation, num_classes=10, seed=0)
    assert start.head.in_features == 24 and start.departures == ()
    pixels = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(start.backbone(pixels), layer(encoder.module(pixels)))
    bare = prepare_start("projector", small_encoder(data), recipe, material, validation, num_classes=10, seed=0)
    assert bare.head.in_features == 32 and "no projector with a hidden layer" in bare.departures[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "vicregg"}, "no recipe 'vicregg'"),
        ({"recipe": "vicreg", "steps": 100}, "published ones count epochs"),
        ({"recipe": "vicreg", "copies": 3}, "published ones count epochs"),
        ({"epochs": 3}, "The common recipe counts steps"),
        ({"starts": ("fited",)}, "starts are of fitted, fresh, projector, got .'fited'."),
        ({"starts": ()}, "starts are of fitted, fresh, projector"),
        ({"pseudo_weight": 3.0, "pseudo_ramp": (0.6, 0.1)}, "two ascending shares"),
    ],
)
def test_settings_of_another_recipe_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        SemiSupervised(**settings)  # type: ignore[arg-type]


# --- lists of labelled images -----------------------------------------------------------------------------------------


def listed(data: ReadLog, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> ReadLog:
    """``data`` with a list ``ten.txt`` of the images ``rows``."""
    column = np.full(len(data.labels), "", dtype="<U3")
    column[rows] = LISTED
    return replace(data, metadata={column_of("ten.txt"): column}, reads=[])


CHOSEN = np.arange(0, 600, 10)
PSEUDO = {"pseudo_weight": 3.0, "pseudo_ramp": (0.2, 0.6), "pseudo_batch": 32}


def test_exactly_the_images_of_a_list_are_used() -> None:
    data, encoder = digits(test=50), small_encoder(digits())

    def tuned(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Outcome:
        changed = listed(replace(data, images=images), CHOSEN)
        protocol = SemiSupervised(**QUICK, label_list="ten.txt")  # type: ignore[arg-type]
        return protocol.evaluate(encoder, changed, seed=0, device="cpu")

    before = tuned(data.images)
    assert before.details["labelled_samples"] == CHOSEN.tolist() and before.details["label_list"] == "ten.txt"
    noise = data.images.copy()
    outside = np.setdiff1d(data.splits["train"], CHOSEN)
    noise[outside] = np.random.default_rng(0).integers(0, 256, noise[outside].shape)
    after = tuned(noise)
    assert before.predictions.equals(after.predictions) and before.details == after.details
    inside = data.images.copy()
    inside[CHOSEN[3]] = 255 - inside[CHOSEN[3]]
    assert not before.predictions.equals(tuned(inside).predictions)


def test_listed_images_that_validate_are_left_out_and_counted() -> None:
    data = digits(test=50)
    marked = listed(data, np.concatenate([CHOSEN, data.splits["validation"][:3]]))
    details = evaluate(marked, label_list="ten.txt").details
    assert details["labelled_samples"] == CHOSEN.tolist() and details["listed_but_in_validation"] == 3


def test_a_list_that_is_missing_names_test_images_or_does_not_fit_the_fraction_is_refused() -> None:
    data = digits()
    with pytest.raises(DataError, match=r"digits has no label list 'ten.txt'.*label_lists"):
        evaluate(data, label_list="ten.txt")
    with pytest.raises(DataError, match="names 1 test images of digits"):
        evaluate(listed(data, np.append(CHOSEN, data.splits["test"][0])), label_list="ten.txt")
    with pytest.raises(DataError, match=r"names 60 of the 600 training images .*fraction says 0.01"):
        evaluate(listed(data, CHOSEN), label_list="ten.txt", fraction=0.01)


# --- pseudo-labels ----------------------------------------------------------------------------------------------------


def test_labels_of_pseudo_labelled_images_are_never_read_but_their_pixels_are() -> None:
    data = digits(test=50)
    others = np.setdiff1d(data.splits["train"], CHOSEN)
    labels, images = data.labels.copy(), data.images.copy()
    labels[others] = np.random.default_rng(0).integers(0, 10, len(others))
    images[others] = 255 - images[others]
    encoder = small_encoder(data)
    plain, corrupted, inverted = (
        SemiSupervised(**QUICK, **PSEUDO, label_list="ten.txt").evaluate(
            encoder, listed(d, CHOSEN), seed=0, device="cpu"
        )  # type: ignore[arg-type]
        for d in (data, replace(data, labels=labels), replace(data, images=images))
    )
    assert plain.predictions.equals(corrupted.predictions)
    assert not plain.predictions.equals(inverted.predictions)
    assert plain.details["pseudo_labels"]["images"] == 540


def test_pseudo_labels_count_only_from_the_start_of_their_ramp() -> None:
    data = digits(test=50)
    without, late, early = (
        evaluate(data, **settings).predictions
        for settings in ({}, {**PSEUDO, "pseudo_ramp": (1.0, 1.0)}, {**PSEUDO, "pseudo_ramp": (0.0, 0.0)})
    )
    assert without.equals(late) and not without.equals(early)


def test_unlabelled_images_of_the_dataset_are_pseudo_labelled_too() -> None:
    data = digits(test=50)
    more = replace(data, splits={**data.splits, "unlabelled": np.arange(1500, 1600)}, reads=[])
    assert evaluate(more, **PSEUDO).details["pseudo_labels"]["images"] == 640


def test_pseudo_labels_without_an_unlabelled_image_are_refused() -> None:
    with pytest.raises(DataError, match="pseudo-labels need training images without a label"):
        evaluate(digits(), fraction=1.0, **PSEUDO)
