"""Linear probe: how well a linear classifier reads the classes from frozen features.

Two forms. *Cached*: the features of every image are computed once, if asked for with several augmented views, and the
whole grid is trained on them as one batched problem. *Augmented*, as papers do it: in every epoch a random crop of
every image passes the frozen encoder; all learning rates are trained on the same forward pass. Either way the
validation split chooses one candidate; then the test split is read, once.

What the classifier is trained with is a recipe (:mod:`bench.training.probe_recipes`): ``common`` for all methods, or
that of a paper. Published tests resize an image's shorter side to 256 pixels and keep the central 224: images that are
stored in the encoder's size are taken as they are, others by this rule in the augmented form; the cached form resizes
whole images, like every other protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.card import ProtocolCard
from bench.data.dataset import ImageDataset, Subset
from bench.encoders.encoder import Encoder
from bench.errors import DataError, SpecError
from bench.metric import AUROC, BALANCED_ACCURACY, TOP1, TOP5
from bench.protocol import Outcome, Protocol, Work
from bench.registry import register_protocol
from bench.spec import ViewSpec
from bench.statistics.classification import judge
from bench.training.linear import LinearCandidates, Standardizer, fit_linear
from bench.training.probe import (
    central_features,
    first_weights,
    fit_on_views,
    rate_factor,
    repeated_features,
    rule_of,
)
from bench.training.probe_recipes import ProbeRecipe, find_recipe
from bench.training.randomness import stream
from bench.training.regression import TOLERANCE, fit_softmax, l2_grid

MODES = ("cached", "augmented")
LBFGS_PASSES = 75
"""Evaluations of the loss that a candidate of the L2 grid takes on average, for estimates of the cost."""

Standardize = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Candidates that the validation split has still to choose among.

    Attributes:
        grid: the settings of each.
        notes: further facts on each, known after the fit.
        features: from a subset to its features (N, D), as the classifiers take them.
    """

    candidates: LinearCandidates
    grid: list[dict[str, float]]
    notes: list[dict[str, Any]]
    features: Callable[[Subset], Tensor]


@register_protocol(
    "linear_probe",
    card=ProtocolCard(
        title="Linear probe",
        summary="Accuracy of a linear classifier on frozen features, its learning rate and weight decay chosen on the "
        "validation split.",
        metrics=(TOP1, TOP5, BALANCED_ACCURACY, AUROC),
        chance="100/K % top-1 and balanced accuracy and 500/K % top-5 for K balanced classes, 50 % AUROC; top-5 is not "
        "defined below 5 classes, AUROC not above 20",
    ),
)
class LinearProbe(Protocol):
    """A softmax classifier on frozen features. None takes the recipe's value; another value is recorded as a departure.

    Args:
        mode: ``cached`` or ``augmented``.
        recipe: ``common``, ``vicreg``, ``barlow_twins``, ``byol``, ``moco``, ``simsiam`` or ``simclr``.
        optimizer: ``recipe``, or ``lbfgs`` on cached features: full-batch softmax regression at its optimum, for
            ``l2_count`` coefficients from ``l2_range`` (BYOL's transfer tasks: 45 from 1e-6 to 1e5).
        views: augmented views of each training image beside the image itself; cached form only.
        lrs, weight_decays: the grid.
        epochs, batch_size: of the training.
        standardize: shift and scale each feature by the training split's mean and standard deviation.
        crop_scale: share of the image's area that a random crop covers, (low, high).
        flip: probability of a horizontal flip.
        rotation: largest rotation in degrees; no recipe rotates.
        l2_range, l2_count: the L2 grid of L-BFGS, λ/2 ‖w‖² beside the mean loss.
    """

    def __init__(
        self,
        *,
        mode: str = "cached",
        recipe: str = "common",
        optimizer: str = "recipe",
        views: int = 0,
        lrs: tuple[float, ...] | None = None,
        weight_decays: tuple[float, ...] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        standardize: bool | None = None,
        crop_scale: tuple[float, float] | None = None,
        flip: float | None = None,
        rotation: float = 0.0,
        l2_range: tuple[float, float] = (1e-6, 1e5),
        l2_count: int = 45,
    ) -> None:
        if mode not in MODES or optimizer not in ("recipe", "lbfgs"):
            raise SpecError(
                f"linear_probe: mode is 'cached' or 'augmented' and optimizer 'recipe' or 'lbfgs', got {mode!r} and "
                f"{optimizer!r}."
            )
        if mode == "augmented" and (optimizer == "lbfgs" or views):
            raise SpecError("linear_probe: optimizer 'lbfgs' and views need features that stay: set mode to 'cached'.")
        if optimizer == "lbfgs" and (lrs, weight_decays, epochs, batch_size) != (None,) * 4:
            raise SpecError(
                "linear_probe: optimizer 'lbfgs' has no lrs, weight_decays, epochs or batch_size: its grid is l2_range "
                "and l2_count. Leave the others out."
            )
        if views < 0 or l2_count < 1 or not 0 < l2_range[0] <= l2_range[1]:
            raise SpecError("linear_probe: views is 0 or more, l2_count 1 or more, and l2_range ascends from above 0.")
        self.mode = mode
        self.lbfgs = optimizer == "lbfgs"
        self.recipe, self.departures = find_recipe(recipe).changed(
            lrs=lrs,
            weight_decays=weight_decays,
            epochs=epochs,
            batch_size=batch_size,
            standardize=standardize,
            crop_scale=crop_scale,
            flip=flip,
        )
        self.departures += (f"rotation up to {rotation:g} degrees",) if rotation else ()
        self.views = views
        self.view = ViewSpec(
            crop_scale=self.recipe.crop_scale, flip=self.recipe.flip, rotation=rotation, jitter=0.0, grayscale=0.0
        )
        self.l2 = l2_grid(l2_range[0], l2_range[1], l2_count)

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        train, validation = data.split("train"), data.split("validation")
        if not len(train) or not len(validation):
            raise DataError(f"linear_probe: {data.key} has no training or no validation images. Make the splits anew.")
        fit = self._augmented if self.mode == "augmented" else self._cached
        fitted, featured = fit(encoder, train, num_classes=data.num_classes, seed=seed, device=device)
        x_val, y_val = fitted.features(validation), torch.as_tensor(validation.labels, device=device)
        best, accuracies = fitted.candidates.choose(x_val, y_val)
        chosen = time.perf_counter()
        test = data.split("test")
        log_p = fitted.candidates.select(best).log_probabilities(fitted.features(test))[:, 0]  # (n, C)
        verdict = judge(
            log_p,
            test.labels,
            test.samples,
            class_names=data.class_names,
            patients=test.metadata.get("patient"),
            generator=np.random.default_rng(stream("linear_probe resamples", seed).initial_seed()),
        )
        finished = time.perf_counter()
        rows = [
            {**settings, "validation_top1": accuracy, **notes}
            for settings, accuracy, notes in zip(fitted.grid, accuracies, fitted.notes, strict=True)
        ]
        return Outcome(
            scores=verdict.scores,
            predictions=verdict.predictions,
            details={
                "mode": self.mode,
                "recipe": self.recipe.key,
                "departures": self._departures(train, encoder),
                "settings": self._settings(),
                **rows[best],
                "grid": rows,
                **verdict.details(),
            },
            seconds={"features": featured - started, "fit": chosen - featured, "test": finished - chosen},
        )

    def _cached(
        self, encoder: Encoder, train: Subset, *, num_classes: int, seed: int, device: str
    ) -> tuple[Fitted, float]:
        """Candidates fitted on features that are computed once, and when the features were there."""
        x, y = _features(encoder, train, device), torch.as_tensor(train.labels, device=device)
        if self.views:
            x = torch.cat([x, repeated_features(encoder, train, self.view, views=self.views, seed=seed, device=device)])
            y = y.repeat(1 + self.views)
        featured = time.perf_counter()
        standardize = self._standardizer(x)
        x = standardize(x)

        def features(subset: Subset) -> Tensor:
            return standardize(_features(encoder, subset, device))

        if self.lbfgs:
            l2 = torch.tensor(self.l2, dtype=torch.float64)
            candidates, ends = fit_softmax(x, y, num_classes=num_classes, l2=l2)
            notes = [
                {"largest_gradient": slope, "iterations": count, "converged": slope <= TOLERANCE}
                for slope, count in zip(ends.slopes.tolist(), ends.iterations.tolist(), strict=True)
            ]
            coefficients = [{"l2": value} for value in self.l2]
            return Fitted(candidates=candidates, grid=coefficients, notes=notes, features=features), featured
        recipe = self._fitting(len(x))
        grid = _grid(recipe)
        candidates = fit_linear(
            x,
            y,
            num_classes=num_classes,
            lrs=grid[:, 0],
            weight_decays=grid[:, 1],
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            generator=stream("linear_probe rows", seed),
            rule=rule_of(recipe),
            factor=rate_factor(recipe),
            first_weights=first_weights(recipe, x.shape[1], num_classes, seed=seed),
        )
        rows = [{"lr": lr, "weight_decay": decay} for lr, decay in grid.tolist()]
        return Fitted(candidates=candidates, grid=rows, notes=[{} for _ in rows], features=features), featured

    def _augmented(
        self, encoder: Encoder, train: Subset, *, num_classes: int, seed: int, device: str
    ) -> tuple[Fitted, float]:
        """Candidates fitted on a new view of every image in every epoch, and when the statistics were there."""
        recipe = self._fitting(len(train))
        plain = central_features(encoder, train, device=device) if recipe.standardize else torch.empty(0)
        standardize = self._standardizer(plain)
        featured = time.perf_counter()
        grid = _grid(recipe)
        candidates = fit_on_views(
            encoder,
            train,
            recipe=recipe,
            view=self.view,
            grid=grid,
            standardize=standardize,
            num_classes=num_classes,
            seed=seed,
            device=device,
        )

        def features(subset: Subset) -> Tensor:
            return standardize(central_features(encoder, subset, device=device))

        rows = [{"lr": lr, "weight_decay": decay} for lr, decay in grid.tolist()]
        return Fitted(candidates=candidates, grid=rows, notes=[{} for _ in rows], features=features), featured

    def _standardizer(self, x: Tensor) -> Standardize:
        return Standardizer.fit(x) if self.recipe.standardize else torch.nn.Identity()

    def _fitting(self, images: int) -> ProbeRecipe:
        """The recipe for that many images: a batch is at most all of them."""
        return replace(self.recipe, batch_size=min(self.recipe.batch_size, images))

    def _departures(self, train: Subset, encoder: Encoder) -> list[str]:
        """What is not as in the recipe, in words; with L-BFGS only what shapes the features counts."""
        images = len(train) * (1 + self.views)
        small = images < self.recipe.batch_size and not self.lbfgs
        capped = (f"batch_size {images}, all training images, instead of {self.recipe.batch_size}",) if small else ()
        published, cached = self.recipe.key != "common", self.mode == "cached"
        whole = published and (cached or tuple(train.images.shape[1:3]) == encoder.image_size)
        uncut = ("test images whole instead of the central 224 of 256 pixels",) if whole else ()
        once = (f"features of the image and {self.views} views of it, instead of a new crop in every epoch",)
        return [*self.departures, *(once if published and cached else ()), *uncut, *capped]

    def _settings(self) -> dict[str, Any]:
        if self.lbfgs:
            used = {name: self.recipe.settings()[name] for name in ("standardize", "crop_scale", "flip")}
            return {"optimizer": "lbfgs", "tolerance": TOLERANCE, "views": self.views, **used}
        return {**self.recipe.settings(), "views": self.views}

    def work(self, sizes: Mapping[str, int], *, num_classes: int, feature_dim: int) -> Work:
        """Every image once, and in the augmented form each training image once more in every epoch.

        Cutting the views out of the images is left out.
        """
        train, others = sizes["train"], sizes["validation"] + sizes["test"]
        augmented = self.mode == "augmented"
        plain = train if self.recipe.standardize or not augmented else 0
        passes = self.recipe.epochs if augmented else self.views
        size = len(self.recipe.lrs) * len(self.recipe.weight_decays)
        seen = self.recipe.epochs * train * (1 if augmented else 1 + self.views)
        if self.lbfgs:
            size, seen = len(self.l2), LBFGS_PASSES * train * (1 + self.views)
        # Two products of (B, D) and (D, K·C) in every step: scores and gradient.
        return Work(forward=plain + passes * train + others, products=2e-9 * seen * feature_dim * size * num_classes)


def _grid(recipe: ProbeRecipe) -> Tensor:
    """(K, 2) float64: every peak learning rate with every weight decay."""
    return torch.tensor(list(product(recipe.rates(recipe.batch_size), recipe.weight_decays)), dtype=torch.float64)


def _features(encoder: Encoder, subset: Subset, device: str) -> Tensor:
    """Features (N, D) of a split, on the device."""
    return encoder.features(subset.images, device=device).to(device)
