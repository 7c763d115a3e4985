"""Linear probe: how well a linear classifier reads the classes from frozen features.

The features of all splits are computed once, without augmentation. Every learning rate x weight decay candidate is
trained on the training split, all together as one batched problem; the validation split chooses one; then the test
split is read, once.
"""

from __future__ import annotations

import time
from itertools import product

import torch
from torch import Tensor

from bench.card import ProtocolCard
from bench.data.dataset import ImageDataset, Subset
from bench.encoders.encoder import Encoder
from bench.errors import SpecError
from bench.metric import TOP1, TOP5
from bench.protocol import Outcome, Protocol
from bench.registry import register_protocol
from bench.statistics.classification import ranked_predictions, top_k_scores, undefined_metrics
from bench.training.linear import Standardizer, fit_linear
from bench.training.randomness import stream


@register_protocol(
    "linear_probe",
    card=ProtocolCard(
        title="Linear probe",
        summary="Accuracy of a linear classifier on frozen features, its learning rate and weight decay chosen on the "
        "validation split.",
        metrics=(TOP1, TOP5),
        chance="100/K % top-1 and 500/K % top-5 for K balanced classes; top-5 is not defined below 5 classes",
    ),
)
class LinearProbe(Protocol):
    """SGD with momentum and a cosine schedule on cached features.

    Args:
        lrs: peak learning rates of the grid.
        weight_decays: L2 coefficients of the grid.
        epochs: passes over the training features.
        batch_size: features of a step.
        standardize: shift and scale each feature by the training split's mean and standard deviation.
    """

    def __init__(
        self,
        *,
        lrs: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0),
        weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2),
        epochs: int = 100,
        batch_size: int = 256,
        standardize: bool = True,
    ) -> None:
        if not lrs or not weight_decays:
            raise SpecError("linear_probe: lrs and weight_decays need one value each at least.")
        self.grid = list(product(lrs, weight_decays))
        self.epochs = epochs
        self.batch_size = batch_size
        self.standardize = standardize

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        train, validation = data.split("train"), data.split("validation")
        x, y = _features(encoder, train, device)  # (N, D), (N,)
        x_val, y_val = _features(encoder, validation, device)
        featured = time.perf_counter()
        standardize = Standardizer.fit(x) if self.standardize else torch.nn.Identity()
        lrs, weight_decays = torch.tensor(self.grid, dtype=torch.float64).T  # (K,), (K,)
        candidates = fit_linear(
            standardize(x),
            y,
            num_classes=data.num_classes,
            lrs=lrs,
            weight_decays=weight_decays,
            epochs=self.epochs,
            batch_size=self.batch_size,
            generator=stream("linear_probe rows", seed),
        )
        best, accuracies = candidates.choose(standardize(x_val), y_val)
        fitted = time.perf_counter()
        test = data.split("test")
        x_test, _ = _features(encoder, test, device)
        scores = candidates.select(best).log_probabilities(standardize(x_test))[:, 0]  # (n, C)
        predictions = ranked_predictions(scores, test.labels, test.samples)
        finished = time.perf_counter()
        return Outcome(
            scores=top_k_scores(predictions, num_classes=data.num_classes),
            predictions=predictions,
            details={
                "lr": self.grid[best][0],
                "weight_decay": self.grid[best][1],
                "validation_top1": accuracies[best],
                "grid": [
                    {"lr": lr, "weight_decay": decay, "validation_top1": accuracy}
                    for (lr, decay), accuracy in zip(self.grid, accuracies, strict=True)
                ],
                "undefined": undefined_metrics(data.num_classes),
            },
            seconds={"features": featured - started, "fit": fitted - featured, "test": finished - fitted},
        )


def _features(encoder: Encoder, subset: Subset, device: str) -> tuple[Tensor, Tensor]:
    """Features (N, D) and labels (N,) of a split, on the device."""
    x = encoder.features(subset.images, device=device)
    return x.to(device), torch.as_tensor(subset.labels, device=device)
