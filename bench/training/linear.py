"""Linear classifiers on cached features: all candidates of a grid trained together as one batched problem.

With K candidates, D features and C classes the weights are one tensor (D, K, C), so that a step costs one product of
(B, D) with (D, K·C) forward and one of (D, B) with (B, K·C) backward, however many candidates there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bench.errors import DivergenceError


@dataclass(frozen=True)
class Standardizer:
    """Shift and scale of each feature, estimated once on the training features.

    Attributes:
        mean: (D,).
        scale: (D,), one over the standard deviation; 0 for a feature that is constant over the training split.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> Standardizer:
        """Estimate from training features (N, D)."""
        mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
        alive = std > 1e-6 * std.max()
        return cls(mean=mean, scale=torch.where(alive, 1 / std.where(alive, torch.ones_like(std)), 0.0))

    def __call__(self, x: Tensor) -> Tensor:
        """Standardize features (N, D)."""
        return (x - self.mean) * self.scale


@dataclass(frozen=True)
class LinearCandidates:
    """K linear classifiers.

    Attributes:
        weight: (D, K, C).
        bias: (K, C).
    """

    weight: Tensor
    bias: Tensor

    def __len__(self) -> int:
        return len(self.bias)

    def log_probabilities(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, K, C) of features x (N, D)."""
        logits = (x @ self.weight.flatten(1)).view(len(x), *self.bias.shape) + self.bias  # (N, K, C)
        return logits.log_softmax(dim=2)

    def select(self, candidate: int) -> LinearCandidates:
        """The one candidate alone."""
        return LinearCandidates(self.weight[:, [candidate]], self.bias[[candidate]])

    def validate(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Top-1 in percent (K,) and cross entropy (K,) on features x (N, D) with labels y (N,).

        A candidate that diverged has top-1 -1 and an infinite cross entropy, so that it is never chosen.
        """
        hits = x.new_zeros(len(self), dtype=torch.float64)
        loss = x.new_zeros(len(self), dtype=torch.float64)
        block = max(1, 2**24 // self.bias.numel())
        for start in range(0, len(x), block):
            rows = slice(start, start + block)
            log_p = self.log_probabilities(x[rows])  # (B, K, C)
            hits += (log_p.argmax(dim=2) == y[rows, None]).sum(dim=0)
            loss -= log_p.gather(2, y[rows, None, None].expand(-1, len(self), 1))[..., 0].sum(dim=0)
        loss = (loss / len(x)).nan_to_num(nan=torch.inf, posinf=torch.inf)
        return torch.where(loss.isfinite(), 100 * hits / len(x), -1.0), loss

    def choose(self, x: Tensor, y: Tensor) -> tuple[int, list[float]]:
        """The best candidate on validation features, and every candidate's top-1 in percent.

        The highest top-1 wins; a tie goes to the lower cross entropy, then to the earlier candidate.

        Raises:
            DivergenceError: every candidate diverged.
        """
        accuracies, losses = (values.tolist() for values in self.validate(x, y))
        best = min(range(len(self)), key=lambda k: (-accuracies[k], losses[k], k))
        if accuracies[best] < 0:
            raise DivergenceError(
                f"All {len(self)} linear candidates diverged. The features are not finite or very large: check the "
                "encoder, standardize the features, or offer smaller learning rates."
            )
        return best, accuracies


@torch.no_grad()
def fit_linear(
    x: Tensor,
    y: Tensor,
    *,
    num_classes: int,
    lrs: Tensor,
    weight_decays: Tensor,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    momentum: float = 0.9,
) -> LinearCandidates:
    """Fit K softmax classifiers by minibatch SGD with momentum and a cosine schedule, from zero weights.

    All candidates see the same minibatches and none sees another's weights: the result for one candidate does not
    depend on which others are in the grid. The gradient is written out (softmax minus one-hot), so nothing is kept for
    a backward pass; ImageNet's 2048 x 20 x 1000 weights take 0.2 GB.

    Args:
        x: features (N, D).
        y: labels (N,).
        num_classes: C.
        lrs: (K,) peak learning rates.
        weight_decays: (K,) L2 coefficients; the bias has none.
        epochs: passes over the features.
        batch_size: rows of a step.
        generator: CPU generator that draws the order of the rows.
        momentum: of SGD.
    """
    n, dim, count = len(x), x.shape[1], len(lrs)
    w = x.new_zeros(dim, count, num_classes)
    b = x.new_zeros(count, num_classes)
    step_w, step_b = torch.zeros_like(w), torch.zeros_like(b)
    lr, decay = lrs.to(x)[:, None], weight_decays.to(x)[:, None]  # (K, 1)
    batch_size = min(batch_size, n)
    steps_per_epoch = n // batch_size
    total = epochs * steps_per_epoch
    for step in range(total):
        if step % steps_per_epoch == 0:
            order = torch.randperm(n, generator=generator).to(x.device)
        place = (step % steps_per_epoch) * batch_size
        rows = order[place : place + batch_size]
        xb, yb = x[rows], y[rows]  # (B, D), (B,)
        g = ((xb @ w.flatten(1)).view(-1, *b.shape) + b).softmax(dim=2)  # (B, K, C)
        g = (g - one_hot(yb, num_classes)[:, None]) / len(rows)
        step_w.mul_(momentum).add_((xb.T @ g.flatten(1)).view_as(w)).add_(decay * w)
        step_b.mul_(momentum).add_(g.sum(dim=0))
        factor = 0.5 * (1 + math.cos(math.pi * step / total))
        w -= factor * lr * step_w
        b -= factor * lr * step_b
    return LinearCandidates(w, b)
