"""The learning rate by step: linear warm-up, then half a cosine or steps down."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from bench.spec import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Factor on the peak learning rate for the steps s = 0 … ``total_steps`` - 1.

    With W = ``warmup_steps``, T = ``total_steps`` and f = ``final_fraction``::

        s <  W:  (s + 1) / (W + 1)                                1/(W+1) at step 0, W/(W+1) at step W - 1
        s >= W:  f + (1 - f) (1 + cos(pi (s - W) / (T - W))) / 2   1 at step W, f would be reached at step T

    or, where there are ``milestones`` (steps, all of them at W or later), with d = ``decay``::

        s >= W:  d ** k                                           k milestones are at s or before

    Neither end has a step with a rate of 0: the ramp would be 0 at step -1, and the last step T - 1 stands one short
    of f. (The authors' VICReg code has the same cosine; its ramp s / W wastes step 0.)
    """

    total_steps: int
    warmup_steps: int = 0
    final_fraction: float = 0.0
    milestones: tuple[int, ...] = ()
    decay: float = 0.1

    @classmethod
    def of(cls, training: TrainingSpec, *, steps_per_epoch: int) -> Schedule:
        """The schedule of a recipe; a warm-up of a part of an epoch is rounded to whole steps.

        A milestone at epoch e, counted from 0, is the first step of that epoch: e epochs have passed before it.
        """
        total = training.epochs * steps_per_epoch
        warmup = min(round(training.warmup_epochs * steps_per_epoch), total - 1)
        return cls(
            total_steps=total,
            warmup_steps=warmup,
            final_fraction=training.final_lr_fraction,
            milestones=tuple(epoch * steps_per_epoch for epoch in training.milestones),
            decay=training.decay,
        )

    def factor(self, step: int) -> float:
        """Factor on the peak learning rate at ``step``, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.milestones:
            passed: int = sum(step >= milestone for milestone in self.milestones)
            return float(self.decay**passed)
        progress = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.final_fraction + (1.0 - self.final_fraction) * (1.0 + math.cos(math.pi * progress)) / 2.0


def set_learning_rates(optimizer: torch.optim.Optimizer, *, peak: float, factor: float) -> None:
    """Give each group peak * ``lr_scale`` * factor; a group with ``constant_lr`` keeps peak * ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = peak * group["lr_scale"] * (1.0 if group["constant_lr"] else factor)
