"""Semi-supervised classification: fine-tuning the whole network with the labels of a few training images.

The labelled images are those of a list, such as the official 1 % and 10 % of ImageNet, or a stratified subset drawn by
seed, patient by patient where patients are known. No other training image is used, unless pseudo-labels are asked for.
The ``common`` recipe, for small sets:

1. A linear head is fitted on frozen features of the labelled images and of ``copies`` light augmentations of each; all
   learning rate x weight decay candidates are trained together and the validation split chooses one. With three or
   four labels per class, starting from a head that fits is worth more to a pre-trained network than any setting of
   the fine-tuning. A random network is better off with a fresh head: both are tried.
2. Backbone and head are fine-tuned together, each with its own learning rate, on lightly augmented batches with
   smoothed labels. AdamW, warm-up and cosine: the rates of SGD that suit a pre-trained backbone diverge on a random
   one, and one recipe has to serve both. Batch norm uses the batch's statistics: with frozen ones it diverges.
3. The validation split chooses among heads and learning rates; then the test split is read, once.

The other recipes are published ones (``bench/training/finetuning_recipes.py``): a fresh head, and no first fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, get_args

import numpy as np
import torch

from bench.card import ProtocolCard
from bench.data.dataset import ImageDataset, Subset
from bench.data.label_lists import listed_rows
from bench.data.splits import stratified_subset
from bench.encoders.encoder import Encoder
from bench.errors import DataError, DivergenceError, SpecError
from bench.metric import TOP1, TOP5
from bench.protocol import Outcome, Protocol, Work
from bench.registry import register_protocol
from bench.statistics.classification import ranked_predictions, top_k_scores, undefined_metrics
from bench.training.finetuning import FineTuning, Material, fine_tune, held, validated
from bench.training.finetuning_recipes import Chosen, Head, choose_settings, find_recipe
from bench.training.precision import true_float32
from bench.training.pseudo_labels import PseudoLabels
from bench.training.randomness import isolated_rng
from bench.training.starts import Start, first_fit_products, prepare_start

STEPS = 200
WHOLE_IMAGES = "test images whole; published: the central 224 of 256 pixels"


@dataclass(frozen=True)
class Trial:
    """A fine-tuned classifier (an encoder whose features are logits) and how it did on the validation split."""

    start: str
    settings: FineTuning
    validation_top1: float
    validation_loss: float
    classifier: Encoder

    def record(self) -> dict[str, Any]:
        chosen = {name: getattr(self.settings, name) for name in ("backbone_lr", "head_lr", "steps", "batch_size")}
        return {"start": self.start, **chosen, "validation_top1": self.validation_top1}


@register_protocol(
    "semi_supervised",
    card=ProtocolCard(
        title="Semi-supervised",
        summary="Accuracy after fine-tuning with a few labels per class, by the common recipe or a published one; the "
        "head that it starts from and the learning rates are chosen with all labels of the validation split.",
        metrics=(TOP1, TOP5),
        chance="100/K % top-1 and 500/K % top-5 for K balanced classes; top-5 is not defined below 5 classes",
    ),
)
class SemiSupervised(Protocol):
    """Fine-tuning on a subset of the labels.

    A setting of None is the recipe's own; a value that a published recipe does not have is recorded as a departure.

    Args:
        fraction: share of the training split that keeps its labels.
        recipe: ``common``, or one of the published ``vicreg``, ``barlow_twins``, ``barlow_twins_repo``, ``byol``,
            ``simclr``, ``swav``, ``simclr_v2``.
        label_list: file name of a list of labelled images among the dataset's ``label_lists``; empty draws a
            stratified subset by seed.
        steps: optimizer steps of the common recipe, whatever the size of the subset.
        epochs: passes over the subset in a published recipe; 0 takes the recipe's own.
        batch_size: images of a step. In the common recipe (64) a smaller subset is repeated within the batch, each
            time in another view; in the published ones it makes the batch smaller and scales the rates.
        backbone_lrs: learning rates of the backbone; the validation split chooses. Common: 1e-3, 3e-3.
        head_lrs: learning rates of the head; the validation split chooses. Common: 1e-3.
        label_smoothing: share of the target that is spread evenly over the classes. Common: 0.1.
        starts: heads to start from: ``fitted``, ``fresh``, ``projector``; the validation split chooses. Common: fitted
            and fresh, published: fresh, except for ``simclr_v2``.
        copies: augmented copies of each labelled image for the fit of a fitted head. Common: 10.
        batch_norm: ``batch`` (statistics of the batch; the running ones follow) or ``frozen``.
        crop_scale: share of the image's area that a crop covers, (low, high). Common: 0.6 to 1, published: 0.08 to 1.
        rotation: largest rotation in degrees. Common: 15, published: 0.
        flip: probability of a horizontal flip. Common: 0, published: 0.5.
        pseudo_weight: largest weight of the loss on pseudo-labelled images, the α_f of Lee 2013 (3 there); 0 uses none.
        pseudo_ramp: shares of the steps at which that weight begins to rise, and at which it is reached.
        pseudo_batch: pseudo-labelled images of a step (256 in Lee 2013).
    """

    def __init__(
        self,
        *,
        fraction: float = 0.01,
        recipe: str = "common",
        label_list: str = "",
        steps: int = STEPS,
        epochs: int = 0,
        batch_size: int | None = None,
        backbone_lrs: tuple[float, ...] | None = None,
        head_lrs: tuple[float, ...] | None = None,
        label_smoothing: float | None = None,
        starts: tuple[str, ...] | None = None,
        copies: int | None = None,
        batch_norm: str | None = None,
        crop_scale: tuple[float, float] | None = None,
        rotation: float | None = None,
        flip: float | None = None,
        pseudo_weight: float = 0.0,
        pseudo_ramp: tuple[float, float] = (0.1, 0.6),
        pseudo_batch: int = 256,
    ) -> None:
        if batch_norm not in (None, "batch", "frozen"):
            raise SpecError(f"semi_supervised: batch_norm must be 'batch' or 'frozen', got {batch_norm!r}.")
        if () in (backbone_lrs, head_lrs) or steps < 1 or epochs < 0 or (batch_size or 2) < 2:
            raise SpecError("semi_supervised: needs a learning rate of each kind, a step, and two images in a batch.")
        self.fraction = fraction
        self.recipe = find_recipe(recipe)
        self.name = recipe
        if epochs if recipe == "common" else steps != STEPS or copies is not None:
            raise SpecError(
                f"semi_supervised: recipe {recipe!r} got steps={steps}, epochs={epochs}, copies={copies}. The common "
                "recipe counts steps and has copies, the published ones count epochs. Leave the others out."
            )
        if starts is not None and (not starts or not set(starts) <= set(get_args(Head))):
            raise SpecError(f"semi_supervised: starts are of {', '.join(get_args(Head))}, got {list(starts)}.")
        self.label_list = label_list
        self.steps, self.epochs = steps, epochs
        self.changes = {
            "batch_size": batch_size,
            "backbone_lrs": backbone_lrs,
            "head_lrs": head_lrs,
            "label_smoothing": label_smoothing,
            "starts": starts if starts is None else tuple(starts),
            "copies": copies,
            "batch_norm": batch_norm,
            "crop_scale": crop_scale,
            "rotation": rotation,
            "flip": flip,
        }
        self.pseudo = (
            PseudoLabels(weight=pseudo_weight, ramp=pseudo_ramp, batch_size=pseudo_batch) if pseudo_weight else None
        )

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        labelled = self._labelled(data, seed)
        validation = data.split("validation")
        chosen = self._settings(len(labelled))
        with isolated_rng(seed, "semi_supervised", device=device), true_float32():
            material = self._material(data, labelled, device)
            recipe, num_classes = chosen.recipe, data.num_classes
            starts = [
                prepare_start(name, encoder, recipe, material, validation, num_classes=num_classes, seed=seed)
                for name in recipe.starts
            ]
            fitted_first = time.perf_counter()
            trials = []
            for start, settings in product(starts, chosen.trials):
                classifier = start.classifier(device)
                fine_tune(classifier, encoder, material, settings, seed=seed, pseudo=self.pseudo)
                tuned = replace(encoder, module=classifier, feature_dim=data.num_classes)
                trials.append(Trial(start.name, settings, *validated(tuned, validation, device), tuned))
        best = _choose(trials)
        finished_tuning = time.perf_counter()
        test = data.split("test")
        log_p = best.classifier.features(test.images, device=device).log_softmax(dim=1)  # (n, K)
        predictions = ranked_predictions(log_p, test.labels, test.samples)
        return Outcome(
            scores=top_k_scores(predictions, num_classes=data.num_classes, patients=test.metadata.get("patient")),
            predictions=predictions,
            details={
                **best.record(),
                "grid": [trial.record() for trial in trials],
                **{name: value for start in starts for name, value in start.details.items()},
                **self._recipe_details(chosen, starts),
                **self._subset_details(data, labelled, material),
                "validation_images": len(validation),
                "undefined": undefined_metrics(data.num_classes),
            },
            seconds={
                "features": fitted_first - started,
                "fit": finished_tuning - fitted_first,
                "test": time.perf_counter() - finished_tuning,
            },
        )

    def work(self, sizes: Mapping[str, int], *, num_classes: int, feature_dim: int) -> Work:
        labelled = max(num_classes, round(self.fraction * sizes["train"]))
        chosen = self._settings(labelled)
        starts = chosen.recipe.starts
        seen = labelled * (1 + chosen.recipe.copies) if "fitted" in starts else 0
        evaluated = (len(starts) * len(chosen.trials) + bool(seen)) * sizes["validation"] + sizes["test"]
        late = (1 - self.pseudo.ramp[0]) * self.pseudo.batch_size if self.pseudo else 0.0
        trained = float(sum(settings.steps * (settings.batch_size + late) for settings in chosen.trials) * len(starts))
        products = first_fit_products(seen, feature_dim=feature_dim, num_classes=num_classes) if seen else 0.0
        return Work(forward=seen + evaluated, trained=trained, products=products)

    def _labelled(self, data: ImageDataset, seed: int) -> Subset:
        """The training images that keep their labels."""
        train = data.split("train")
        if not self.label_list:
            patients = train.metadata.get("patient")
            groups = None if patients is None else patients.tolist()
            classes = data.num_classes
            return train[stratified_subset(train.labels, self.fraction, seed, num_classes=classes, groups=groups)]
        rows = listed_rows(data, train, self.label_list)
        share = len(rows) / len(train)
        if not self.fraction / 2 <= share <= 2 * self.fraction:
            raise DataError(
                f"semi_supervised: {self.label_list} names {len(rows)} of the {len(train)} training images of "
                f"{data.key}, {share:.3g} of them, where fraction says {self.fraction:g}. Correct one of both."
            )
        return train[rows]

    def _settings(self, labelled: int) -> Chosen:
        return choose_settings(
            self.recipe,
            fraction=self.fraction,
            labelled=labelled,
            steps=self.steps,
            epochs=self.epochs,
            changes=self.changes,
        )

    def _material(self, data: ImageDataset, labelled: Subset, device: str) -> Material:
        """The labelled images, and for pseudo-labels the images of all others that pre-training may see."""
        images, labels = held(labelled.images), torch.as_tensor(labelled.labels, device=device)
        if not self.pseudo:
            return Material(images=images, labels=labels)
        pool = data.pretraining
        others = np.flatnonzero(~np.isin(pool.samples, labelled.samples))
        if not len(others):
            raise DataError(
                f"semi_supervised: pseudo-labels need training images without a label, and {data.key} has none besides "
                f"the {len(labelled)} labelled ones. Take a smaller fraction, or pseudo_weight 0."
            )
        return Material(images=images, labels=labels, others=held(pool.images), unlabelled=others)

    def _recipe_details(self, chosen: Chosen, starts: Sequence[Start]) -> dict[str, Any]:
        """Which recipe, from where, and how this run departs from it."""
        if not self.recipe.source:
            return {"recipe": self.name}
        heads = (departure for start in starts for departure in start.departures)
        departures = [WHOLE_IMAGES, *chosen.departures, *heads]
        return {"recipe": self.name, "source": self.recipe.source, "departures": departures}

    def _subset_details(self, data: ImageDataset, labelled: Subset, material: Material) -> dict[str, Any]:
        """Which images kept their labels, and how many served without."""
        details: dict[str, Any] = {"labelled": len(labelled), "labelled_samples": labelled.samples.tolist()}
        if self.label_list:
            held_out = listed_rows(data, data.split("validation"), self.label_list)
            details |= {"label_list": self.label_list, "listed_but_in_validation": len(held_out)}
        if self.pseudo is not None and material.unlabelled is not None:
            details["pseudo_labels"] = {**vars(self.pseudo), "images": len(material.unlabelled)}
        return details


def _choose(trials: list[Trial]) -> Trial:
    """Highest validation top-1; a tie goes to the lower cross entropy, then to the earlier in the grid."""
    finite = [trial for trial in trials if math.isfinite(trial.validation_loss)]
    if not finite:
        tried = ", ".join(f"({trial.settings.backbone_lr:g}, {trial.settings.head_lr:g})" for trial in trials)
        raise DivergenceError(
            f"semi_supervised: fine-tuning diverged at every (backbone, head) learning rate: {tried}. "
            "Offer smaller backbone_lrs."
        )
    return min(finite, key=lambda trial: (-trial.validation_top1, trial.validation_loss))
