"""Fine-tuning: rates by step, batches, and the published recipes as printed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bench.encoders.encoder import Encoder
from bench.spec import ViewSpec
from bench.training.finetuning import Classifier, FineTuning, Material, _optimizers, batch_rows, fine_tune
from bench.training.finetuning_recipes import RECIPES, Chosen, choose_settings
from bench.training.linear import Standardizer
from bench.training.optimizers import LARS
from bench.training.pseudo_labels import PseudoLabels

SETTINGS = FineTuning(
    steps=200,
    batch_size=4,
    backbone_lr=0.1,
    head_lr=0.2,
    optimizer="sgd",
    weight_decay=0.0,
    schedule="cosine",
    view=ViewSpec(),
)


def chosen(recipe: str, *, fraction: float, labelled: int, epochs: int = 0, **changes: object) -> Chosen:
    return choose_settings(
        RECIPES[recipe], fraction=fraction, labelled=labelled, steps=200, epochs=epochs, changes=changes
    )


PUBLISHED = [
    # recipe, fraction, epochs, batch size, (backbone, head) rates, optimizer, schedule
    ("vicreg", 0.01, [20], 256, [(0.03, 0.08)], "sgd", "cosine"),
    ("vicreg", 0.1, [20], 256, [(0.01, 0.1)], "sgd", "cosine"),
    ("barlow_twins", 0.01, [20], 256, [(0.002, 0.5)], "sgd", "steps"),
    ("barlow_twins_repo", 0.1, [20], 256, [(0.005, 0.5)], "sgd", "cosine"),
    ("byol", 0.01, [30, 50], 1024, [(r, r) for r in (0.01, 0.02, 0.05, 0.1, 0.005)], "nesterov", "cosine"),
    ("simclr", 0.01, [60], 4096, [(0.8, 0.8)], "nesterov", "cosine"),
    ("simclr", 0.1, [30], 4096, [(0.8, 0.8)], "nesterov", "cosine"),
    ("swav", 0.01, [20], 256, [(0.02, 5.0)], "sgd", "steps"),
    ("swav", 0.1, [20], 256, [(0.01, 0.2)], "sgd", "steps"),
    ("simclr_v2", 0.01, [60], 1024, [(0.16, 0.16)], "lars", "cosine"),
]


@pytest.mark.parametrize(("recipe", "fraction", "epochs", "batch", "rates", "optimizer", "schedule"), PUBLISHED)
def test_a_recipe_on_imagenet_is_the_published_one(
    recipe: str,
    fraction: float,
    epochs: list[int],
    batch: int,
    rates: list[tuple[float, float]],
    optimizer: str,
    schedule: str,
) -> None:
    labelled = round(1_281_167 * fraction)
    found = chosen(recipe, fraction=fraction, labelled=labelled)
    assert found.departures == ()
    expected = [(round(e * labelled / batch), *pair) for e in epochs for pair in rates]
    assert [(t.steps, t.backbone_lr, t.head_lr) for t in found.trials] == expected
    for trial in found.trials:
        assert (trial.batch_size, trial.optimizer, trial.schedule, trial.weight_decay) == (
            batch,
            optimizer,
            schedule,
            0,
        )
        assert (trial.label_smoothing, trial.batch_norm, trial.order, trial.warmup) == (0.0, "batch", "passes", 0.0)
        assert (trial.view.crop_scale, trial.view.flip, trial.view.rotation) == ((0.08, 1.0), 0.5, 0.0)
        assert trial.view.jitter == trial.view.grayscale == 0.0


def test_another_batch_size_scales_the_rates_by_the_recipes_rule_and_is_a_departure() -> None:
    linear = chosen("simclr", fraction=0.01, labelled=10_000, batch_size=1024)
    assert linear.trials[0].head_lr == pytest.approx(0.05 * 1024 / 256)
    root = chosen("simclr_v2", fraction=0.01, labelled=10_000, batch_size=256)
    assert root.trials[0].head_lr == pytest.approx(0.005 * 256**0.5)
    assert linear.departures == (
        "batch_size is 1024, published 4096",
        "learning rates are 0.25 times the published ones, to suit the batch size",
    )


def test_everything_else_that_is_changed_is_a_departure_too() -> None:
    found = chosen("vicreg", fraction=0.05, labelled=1000, epochs=2, flip=0.0, head_lrs=(0.5, 1.0))
    assert [(t.backbone_lr, t.head_lr) for t in found.trials] == [(0.01, 0.5), (0.01, 1.0)]
    assert [t.steps for t in found.trials] == [round(2 * 1000 / 256)] * 2
    said = " | ".join(found.departures)
    for words in (
        "flip is 0.0",
        "learning rates are ((0.01, 0.5)",
        "published for 10% of",
        "epochs are 2, published 20",
    ):
        assert words in said
    assert chosen("common", fraction=0.05, labelled=40, flip=0.5).departures == ()
    assert chosen("vicreg", fraction=0.01, labelled=12_811, flip=0.5, batch_size=256).departures == ()


def test_steps_fall_to_a_fifth_after_12_and_16_of_20_epochs() -> None:
    (trial,) = chosen("barlow_twins", fraction=0.01, labelled=2560).trials
    assert trial.steps == 200
    rates = {epoch: trial.lr_factor(epoch * 10) for epoch in (0, 11, 12, 15, 16, 19)}
    assert rates == pytest.approx({0: 1.0, 11: 1.0, 12: 0.2, 15: 0.2, 16: 0.04, 19: 0.04})


def test_a_cosine_falls_to_zero_after_its_warm_up() -> None:
    assert [SETTINGS.lr_factor(step) for step in (0, 100, 200)] == pytest.approx([1.0, 0.5, 0.0])
    warm = replace(SETTINGS, warmup=0.1)
    assert warm.lr_factor(0) == pytest.approx(1 / 20) and warm.lr_factor(19) == pytest.approx(SETTINGS.lr_factor(19))


def test_passes_take_every_row_once_before_any_comes_again() -> None:
    batches = batch_rows(10, 4, "passes", torch.Generator().manual_seed(0))
    rows = torch.cat([next(batches) for _ in range(5)])  # 20 rows: two passes
    assert all(part.bincount(minlength=10).tolist() == [1] * 10 for part in rows.split(10))
    assert not torch.equal(rows[:10], rows[10:])


def test_choices_repeat_a_small_subset_whole_and_choose_from_a_large_one() -> None:
    generator = torch.Generator().manual_seed(0)
    assert next(batch_rows(5, 15, "choices", generator)).bincount().tolist() == [3] * 5
    counts = next(batch_rows(5, 12, "choices", generator)).bincount(minlength=5)
    assert int(counts.sum()) == 12 and set(counts.tolist()) == {2, 3}
    batches = batch_rows(50, 40, "choices", generator)
    first, second = next(batches), next(batches)
    assert len(first.unique()) == len(second.unique()) == 40  # two batches of a pass would share no row


def test_lars_leaves_the_head_to_plain_sgd_and_each_part_has_its_rate() -> None:
    classifier = Classifier(nn.Linear(3, 3), Standardizer(torch.zeros(3), torch.ones(3)), nn.Linear(3, 2))
    adapted, plain = _optimizers(classifier, replace(SETTINGS, optimizer="lars"))
    assert isinstance(adapted, LARS) and isinstance(plain, torch.optim.SGD)
    assert [group["peak"] for optimizer in (adapted, plain) for group in optimizer.param_groups] == [0.1, 0.2]
    (nesterov,) = _optimizers(classifier, replace(SETTINGS, optimizer="nesterov"))
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in nesterov.param_groups)
    assert [group["peak"] for group in nesterov.param_groups] == [0.1, 0.2]


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_step_follows_the_labelled_loss_and_the_weighted_one_of_the_unlabelled_images_alone(weight: float) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 1), dtype=np.uint8)
    labels, x = torch.tensor([0, 1, 2, 0]), torch.from_numpy(images).float().flatten(1) / 255
    standardize = Standardizer(torch.zeros(4), torch.ones(4))
    torch.manual_seed(0)
    classifier = Classifier(nn.Flatten(), standardize, nn.Linear(4, 3))
    w = classifier.head.weight.detach().clone().requires_grad_(True)
    logits = x @ w.T + classifier.head.bias.detach()
    loss = cross_entropy(logits[:4], labels) + weight * cross_entropy(logits[4:], logits[4:].detach().argmax(dim=1))
    (gradient,) = torch.autograd.grad(loss, w)
    encoder = Encoder(
        module=nn.Flatten(),
        feature_dim=4,
        channels=1,
        image_size=(2, 2),
        mean=(0.0,),
        std=(1.0,),
        origin="a test",
        identity="",
    )
    material = Material(images=images[:4], labels=labels, others=images, unlabelled=np.arange(4, 7))
    still = ViewSpec(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)
    settings = replace(SETTINGS, steps=1, head_lr=0.5, view=still)
    pseudo = PseudoLabels(weight=weight, ramp=(0.0, 0.0), batch_size=3) if weight else None
    fine_tune(classifier, encoder, material, settings, seed=0, pseudo=pseudo)
    torch.testing.assert_close(classifier.head.weight.detach(), (w - 0.5 * gradient).detach())


def test_rates_that_a_user_sets_are_applied_as_they_are() -> None:
    from bench.training.finetuning_recipes import RECIPES, choose_settings

    def chosen(**changes: object) -> list[tuple[float, float]]:
        found = choose_settings(
            RECIPES["vicreg"], fraction=0.01, labelled=32, steps=1, epochs=0, changes={"head_lrs": None, **changes}
        )
        return [(trial.backbone_lr, trial.head_lr) for trial in found.trials]

    assert chosen() == [(0.03 * 32 / 256, 0.08 * 32 / 256)]  # a batch of 32 instead of 256
    assert chosen(backbone_lrs=(0.5,)) == [(0.5, 0.08)]
