"""The contract of a method: views in, named loss terms out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from bench.card import MethodCard


class Method(nn.Module):
    """Base class of every pre-training method.

    A subclass takes ``backbone`` (a module from images (B, C, H, W) to representations (B, D), with the attribute
    ``feature_dim`` = D) and keyword-only hyper-parameters with literal defaults, and implements ``forward``. It knows
    nothing about files, optimizers or evaluation. All of its state lives in parameters and buffers, so that a
    checkpoint holds it.
    """

    key: ClassVar[str]
    card: ClassVar[MethodCard]

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the named, weighted loss terms, in the paper's order; their sum is the loss.

        Args:
            views: ``card.views`` tensors, each (B, C, H, W), normalized; row i of each shows image i.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement forward(self, views)")

    def after_step(self, step: int, total_steps: int) -> None:
        """Update what the optimizer does not: momentum encoders, queues.

        Args:
            step: optimizer steps taken so far, 1 … total_steps.
            total_steps: optimizer steps of the whole training.
        """

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups of trained parameters, each ``{"params": [...]}``.

        A group may carry ``"lr_scale"`` (factor on the learning rate) and ``"constant_lr": True`` (the group keeps the
        base learning rate and follows no schedule).
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad]}]
