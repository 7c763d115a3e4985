"""Linear classifiers on cached features: all candidates of a grid trained together as one batched problem.

With K candidates, D features and C classes the weights are one tensor (D, K, C), so that a step costs one product of
(B, D) with (D, K·C) forward and one of (D, B) with (B, K·C) backward, however many candidates there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from bench.errors import DivergenceError
from bench.training.schedule import Schedule


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


@dataclass(frozen=True, kw_only=True)
class UpdateRule:
    """How a step is made from a gradient g and weight decay λ: SGD with momentum, or LARS.

    With m the running sum, SGD adds g + λ w to it; LARS adds q (g + λ w) with q = η ‖w‖ / (‖g‖ + λ ‖w‖) for each
    candidate's weights and for its bias (1 where a norm is 0), arXiv:1708.03888, in the form that SimSiam's linear
    evaluation uses. Nesterov steps by g + momentum * m instead of m.

    Attributes:
        lars: adapt the step.
        momentum: coefficient of the running sum.
        nesterov: look ahead along it.
        decay_bias: the bias has weight decay, too.
        eta: trust coefficient η.
    """

    lars: bool = False
    momentum: float = 0.9
    nesterov: bool = False
    decay_bias: bool = False
    eta: float = 1e-3

    def direction(self, w: Tensor, g: Tensor, m: Tensor, decay: Tensor | None) -> Tensor:
        """What the learning rate multiplies.

        Args:
            w: weights (D, K, C), or biases (1, K, C).
            g: their gradient; overwritten.
            m: running sum; updated.
            decay: weight decay (K, 1), or None.
        """
        decayed = g if decay is None else g.addcmul(decay, w)
        if self.lars:
            size, slope = (torch.linalg.vector_norm(t, dim=(0, 2)) for t in (w, g))  # (K,)
            pull = slope if decay is None else slope + decay[:, 0] * size
            q = torch.where((size > 0) & (slope > 0), self.eta * size / pull, 1.0)
            decayed = decayed * q[:, None]
        m.mul_(self.momentum).add_(decayed)
        return decayed.add(m, alpha=self.momentum) if self.nesterov else m


class LinearTrainer:
    """K softmax classifiers in training: all take the same batches and none sees another's weights.

    The gradient is written out (softmax minus one-hot), so nothing is kept for a backward pass; ImageNet's
    2048 x 20 x 1000 weights take 0.2 GB.

    Args:
        dim: D.
        num_classes: C.
        lrs: (K,) peak learning rates.
        weight_decays: (K,) L2 coefficients.
        like: a tensor of the type and on the device of the features.
        rule: how a step is made.
        first_weights: (D, C) weights that every candidate starts from; zero without.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_classes: int,
        lrs: Tensor,
        weight_decays: Tensor,
        like: Tensor,
        rule: UpdateRule,
        first_weights: Tensor | None = None,
    ) -> None:
        self.rule = rule
        self.w = like.new_zeros(dim, len(lrs), num_classes)
        if first_weights is not None:
            self.w += first_weights.to(self.w)[:, None]
        self.b = like.new_zeros(1, len(lrs), num_classes)
        self.step_w, self.step_b = torch.zeros_like(self.w), torch.zeros_like(self.b)
        self.lr, self.decay = lrs.to(like)[:, None], weight_decays.to(like)[:, None]  # (K, 1)

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor, *, factor: float) -> None:
        """One step on features x (B, D) with labels y (B,), at ``factor`` times the peak learning rates."""
        g = ((x @ self.w.flatten(1)).view(-1, *self.b.shape[1:]) + self.b).softmax(dim=2)  # (B, K, C)
        g = (g - one_hot(y, g.shape[2])[:, None]) / len(x)
        slope_w = (x.T @ g.flatten(1)).view_as(self.w)
        slope_b = g.sum(dim=0, keepdim=True)
        along_w = self.rule.direction(self.w, slope_w, self.step_w, self.decay)
        along_b = self.rule.direction(self.b, slope_b, self.step_b, self.decay if self.rule.decay_bias else None)
        self.w -= factor * self.lr * along_w
        self.b -= factor * self.lr * along_b

    @property
    def candidates(self) -> LinearCandidates:
        """The classifiers as they are."""
        return LinearCandidates(self.w, self.b[0])


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
    rule: UpdateRule | None = None,
    factor: Callable[[int, int], float] | None = None,
    first_weights: Tensor | None = None,
) -> LinearCandidates:
    """Fit K softmax classifiers by minibatch SGD on features that are all there.

    The result for one candidate does not depend on which others are in the grid.

    Args:
        x: features (N, D).
        y: labels (N,).
        num_classes: C.
        lrs: (K,) peak learning rates.
        weight_decays: (K,) L2 coefficients.
        epochs: passes over the features.
        batch_size: rows of a step.
        generator: CPU generator that draws the order of the rows.
        rule: how a step is made; SGD with momentum 0.9 and no decay of the bias without.
        factor: on the peak learning rates, from the step and the steps of an epoch; a cosine to 0 without.
        first_weights: (D, C), zero without.
    """
    n = len(x)
    trainer = LinearTrainer(
        dim=x.shape[1],
        num_classes=num_classes,
        lrs=lrs,
        weight_decays=weight_decays,
        like=x,
        rule=rule or UpdateRule(),
        first_weights=first_weights,
    )
    batch_size = min(batch_size, n)
    per_epoch = n // batch_size
    cosine = Schedule(total_steps=epochs * per_epoch)
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            order = torch.randperm(n, generator=generator).to(x.device)
        place = (step % per_epoch) * batch_size
        rows = order[place : place + batch_size]
        trainer.step(x[rows], y[rows], factor=factor(step, per_epoch) if factor else cosine.factor(step))
    return trainer.candidates
