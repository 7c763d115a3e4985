"""A linear classifier trained on random views of the images, which pass the frozen encoder in every epoch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.data.dataset import Subset
from bench.data.pixels import planes, unit
from bench.data.views import make_view
from bench.encoders.encoder import Encoder
from bench.spec import ViewSpec
from bench.training.linear import LinearCandidates, LinearTrainer, UpdateRule
from bench.training.probe_recipes import ProbeRecipe
from bench.training.randomness import stream
from bench.training.schedule import Schedule

KEPT = 224 / 256
"""Share of the shorter side that a central crop keeps: published tests resize it to 256 pixels and keep 224."""
BLOCK = 512  # images that pass the encoder at a time


def rule_of(recipe: ProbeRecipe) -> UpdateRule:
    """How the recipe makes a step."""
    return UpdateRule(
        lars=recipe.optimizer == "lars",
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        decay_bias=recipe.decay_bias,
    )


def rate_factor(recipe: ProbeRecipe) -> Callable[[int, int], float]:
    """The recipe's factor on the peak learning rates, from the step and the steps of an epoch."""

    def factor(step: int, per_epoch: int) -> float:
        schedule = Schedule(
            total_steps=recipe.epochs * per_epoch,
            milestones=tuple(milestone * per_epoch for milestone in recipe.milestones),
        )
        return schedule.factor(step if recipe.rate_changes == "step" else step // per_epoch * per_epoch)

    return factor


def first_weights(recipe: ProbeRecipe, dim: int, num_classes: int, *, seed: int) -> Tensor | None:
    """The weights (D, C) that every candidate starts from; None for zero."""
    if recipe.init_std == 0:
        return None
    return recipe.init_std * torch.randn(dim, num_classes, generator=stream("linear_probe weights", seed))


def fit_on_views(
    encoder: Encoder,
    train: Subset,
    *,
    recipe: ProbeRecipe,
    view: ViewSpec,
    grid: Tensor,
    standardize: Callable[[Tensor], Tensor],
    num_classes: int,
    seed: int,
    device: str,
) -> LinearCandidates:
    """Fit K softmax classifiers on a new view of every image in every epoch; all share the frozen forward pass.

    Args:
        encoder: frozen.
        train: images and classes.
        recipe: with its batch size at most the number of images; left over images of an epoch wait for the next.
        view: random transforms.
        grid: (K, 2) float64, peak learning rate and weight decay.
        standardize: from features (B, D) to features.
        num_classes: C.
        seed: of the order, the views and the first weights.
        device: ``cpu`` or ``cuda``.
    """
    labels = torch.as_tensor(train.labels, device=device)
    trainer = LinearTrainer(
        dim=encoder.feature_dim,
        num_classes=num_classes,
        lrs=grid[:, 0],
        weight_decays=grid[:, 1],
        like=torch.empty(0, device=device),
        rule=rule_of(recipe),
        first_weights=first_weights(recipe, encoder.feature_dim, num_classes, seed=seed),
    )
    factor = rate_factor(recipe)
    order = stream("linear_probe rows", seed)
    per_epoch = len(train) // recipe.batch_size
    for epoch in range(recipe.epochs):
        rows = torch.randperm(len(train), generator=order)
        for step in range(per_epoch):
            chosen = rows[step * recipe.batch_size :][: recipe.batch_size]
            generator = stream("linear_probe views", seed, epoch, step)
            x = view_features(encoder, train, chosen, view, generator, device=device)
            trainer.step(standardize(x), labels[chosen.to(device)], factor=factor(epoch * per_epoch + step, per_epoch))
    return trainer.candidates


def view_features(
    encoder: Encoder, subset: Subset, rows: Tensor, view: ViewSpec, generator: torch.Generator, *, device: str
) -> Tensor:
    """Features (B, D) of one random view of each of the images ``rows`` (B,), on the device."""
    pixels = unit(planes(subset.images[rows.numpy()]).to(device))  # (B, C, H, W)
    made = make_view(pixels, view, generator)
    return torch.cat([encoder.pooled(part) for part in torch.split(made, BLOCK)])


def repeated_features(
    encoder: Encoder, subset: Subset, view: ViewSpec, *, views: int, seed: int, device: str
) -> Tensor:
    """Features (views · N, D) of several random views of every image, one view of all after the other."""
    parts = [
        view_features(encoder, subset, rows, view, stream("linear_probe copies", seed, number, index), device=device)
        for number in range(views)
        for index, rows in enumerate(torch.split(torch.arange(len(subset)), BLOCK))
    ]
    return torch.cat(parts)


def central_features(encoder: Encoder, subset: Subset, *, device: str) -> Tensor:
    """Features (N, D) as published tests take them: of the images as stored where they have the encoder's size, else of
    the central crop of 7/8 of the shorter side, resized to it."""
    if tuple(subset.images.shape[1:3]) == encoder.image_size:
        return encoder.features(subset.images, device=device).to(device)
    parts = []
    for rows in torch.split(torch.arange(len(subset)), BLOCK):
        pixels = unit(planes(subset.images[rows.numpy()]).to(device))
        parts.append(encoder.pooled(central_crop(pixels, encoder.image_size)))
    return torch.cat(parts)


def central_crop(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The largest central crop of pixels (B, C, H, W) with the proportions of ``size``, less an eighth of each side."""
    height, width = pixels.shape[2:]
    scale = KEPT * min(height / size[0], width / size[1])
    h, w = max(1, round(scale * size[0])), max(1, round(scale * size[1]))
    top, left = (height - h) // 2, (width - w) // 2
    return pixels[:, :, top : top + h, left : left + w]
