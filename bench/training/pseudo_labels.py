"""Pseudo-labels: the network's own predictions serve as labels of the images that have none.

Lee, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks, ICML 2013 Workshop
on Challenges in Representation Learning, equations 15 and 16: with a batch of n labelled and n' unlabelled images

    L = 1/n Σ CE(f(x), y) + α(t) 1/n' Σ CE(f(x'), y'),    y' = argmax f(x'), made anew at every step

    α(t) = 0 before T1, then α_f (t - T1) / (T2 - T1), and α_f from T2 on.

The paper takes α_f = 3, T1 = 100 and T2 = 600 epochs; here T1 and T2 are shares of the steps, so that a training of any
length has the whole ramp.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from bench.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """How much the pseudo-labelled images count, and when.

    Attributes:
        weight: α_f.
        ramp: T1 and T2 as shares of all steps.
        batch_size: n', unlabelled images of a step.
    """

    weight: float
    ramp: tuple[float, float]
    batch_size: int

    def __post_init__(self) -> None:
        start, end = self.ramp
        if not (self.weight > 0 and 0 <= start <= end <= 1 and self.batch_size >= 1):
            raise SpecError(
                f"pseudo-labels: the weight must be positive, the ramp two ascending shares of the steps and the batch "
                f"at least one image; got {self.weight:g}, {self.ramp} and {self.batch_size}."
            )

    def alpha(self, step: int, steps: int) -> float:
        """α at ``step``, counted from 0, of ``steps``."""
        start, end = self.ramp
        passed = step / steps
        if passed < start:
            return 0.0
        if passed >= end:
            return self.weight
        return self.weight * (passed - start) / (end - start)


def pseudo_label_loss(logits: Tensor) -> Tensor:
    """Cross entropy of logits (B, K) against their own arg max; no gradient passes through the labels."""
    return cross_entropy(logits, logits.detach().argmax(dim=1))
