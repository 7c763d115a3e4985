"""Training on views: the cached fit where the view changes nothing, the published schedules, the central crop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.data.dataset import Subset
from bench.encoders.encoder import Encoder
from bench.spec import ViewSpec
from bench.training.linear import LinearCandidates, fit_linear
from bench.training.probe import (
    central_crop,
    central_features,
    first_weights,
    fit_on_views,
    rate_factor,
    repeated_features,
    rule_of,
)
from bench.training.probe_recipes import ProbeRecipe, find_recipe
from bench.training.randomness import stream

WHOLE = ViewSpec(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)
CROPS = ViewSpec(crop_scale=(0.3, 1.0), flip=0.5, jitter=0.0, grayscale=0.0)


class Flat(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


def encoder(size: int = 8) -> Encoder:
    return Encoder(
        module=Flat(),
        feature_dim=size * size,
        channels=1,
        image_size=(size, size),
        mean=(0.5,),
        std=(0.25,),
        origin="a test",
        identity="",
    )


def subset(n: int = 70, size: int = 8) -> Subset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, size, size, 1), dtype=np.uint8)
    return Subset(images=images, labels=np.arange(n, dtype=np.int64) % 3, samples=np.arange(n))


def fit(recipe: ProbeRecipe, grid: list[tuple[float, float]], *, view: ViewSpec, seed: int = 0) -> LinearCandidates:
    return fit_on_views(
        encoder(),
        subset(),
        recipe=recipe,
        view=view,
        grid=torch.tensor(grid, dtype=torch.float64),
        standardize=nn.Identity(),
        num_classes=3,
        seed=seed,
        device="cpu",
    )


SHORT = replace(find_recipe("moco"), epochs=5, batch_size=20, milestones=(3, 4))
GRID = [(0.01, 0.0), (0.1, 1e-3)]


@pytest.mark.parametrize("recipe", [SHORT, replace(find_recipe("simsiam"), epochs=5, batch_size=20)])
def test_views_that_change_nothing_give_the_cached_fit(recipe: ProbeRecipe) -> None:
    found = fit(recipe, GRID, view=WHOLE)
    lrs, weight_decays = torch.tensor(GRID, dtype=torch.float64).T
    cached = fit_linear(
        encoder().features(subset().images),
        torch.as_tensor(subset().labels),
        num_classes=3,
        lrs=lrs,
        weight_decays=weight_decays,
        epochs=5,
        batch_size=20,
        generator=stream("linear_probe rows", 0),
        rule=rule_of(recipe),
        factor=rate_factor(recipe),
        first_weights=first_weights(recipe, 64, 3, seed=0),
    )
    torch.testing.assert_close(found.weight, cached.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.bias, cached.bias, rtol=1e-4, atol=1e-6)


def test_all_rates_together_give_what_each_gives_alone_on_views() -> None:
    together = fit(SHORT, GRID, view=CROPS)
    for k, settings in enumerate(GRID):
        torch.testing.assert_close(together.weight[:, [k]], fit(SHORT, [settings], view=CROPS).weight)
    assert not torch.allclose(together.weight, fit(SHORT, GRID, view=WHOLE).weight)


def test_the_seed_decides_views_order_and_first_weights() -> None:
    assert torch.equal(fit(SHORT, GRID, view=CROPS).weight, fit(SHORT, GRID, view=CROPS).weight)
    assert not torch.allclose(fit(SHORT, GRID, view=CROPS).weight, fit(SHORT, GRID, view=CROPS, seed=1).weight)
    one, other = (first_weights(SHORT, 4, 3, seed=seed) for seed in (0, 1))
    assert one is not None and other is not None and not torch.equal(one, other)
    assert first_weights(SHORT, 2000, 10, seed=0).std().item() == pytest.approx(0.01, rel=0.02)  # type: ignore[union-attr]
    assert first_weights(find_recipe("common"), 4, 3, seed=0) is None


def test_rates_fall_as_published() -> None:
    steps = rate_factor(SHORT)
    assert [steps(step, 10) for step in (0, 29, 30, 40, 49)] == pytest.approx([1.0, 1.0, 0.1, 0.01, 0.01])
    by_epoch = rate_factor(replace(find_recipe("vicreg"), epochs=4))
    assert [by_epoch(step, 10) for step in (0, 9, 10, 20)] == pytest.approx([1.0, 1.0, 0.5 + 0.125**0.5, 0.5])
    by_step = rate_factor(replace(find_recipe("byol"), epochs=4))
    assert by_step(9, 10) < 1.0 and by_step(20, 10) == pytest.approx(0.5)


def test_several_views_of_every_image_differ_and_keep_the_order() -> None:
    same = repeated_features(encoder(), subset(), WHOLE, views=2, seed=0, device="cpu")
    plain = encoder().features(subset().images)
    torch.testing.assert_close(same, plain.repeat(2, 1))
    crops = repeated_features(encoder(), subset(), CROPS, views=2, seed=0, device="cpu")
    assert crops.shape == (140, 64) and not torch.allclose(crops[:70], crops[70:])


def test_images_of_the_encoders_size_are_tested_as_they_are_and_others_by_their_center() -> None:
    plain = central_features(encoder(), subset(), device="cpu")
    assert torch.equal(plain, encoder().features(subset().images))
    wide = central_features(encoder(14), subset(size=16), device="cpu")  # 14 of 16 is the kept share
    center = encoder(14).features(subset(size=16).images[:, 1:15, 1:15])
    torch.testing.assert_close(wide, center)


def test_the_central_crop_keeps_seven_eighths_of_the_shorter_side_in_the_encoders_proportions() -> None:
    assert central_crop(torch.zeros(1, 1, 256, 320), (224, 224)).shape[2:] == (224, 224)
    assert central_crop(torch.zeros(1, 1, 64, 32), (8, 8)).shape[2:] == (28, 28)
    assert central_crop(torch.zeros(1, 1, 64, 64), (8, 16)).shape[2:] == (28, 56)
    pixels = torch.arange(16.0).expand(1, 1, 16, 16)
    assert central_crop(pixels, (8, 8))[0, 0, 0].tolist() == [float(value) for value in range(1, 15)]
