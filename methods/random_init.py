"""Random initialization: a backbone as its constructor leaves it, the floor that every method has to clear.

There is no loss and no training; the protocols evaluate the random weights themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bench.card import MethodCard
from bench.errors import JobError
from bench.registry import register_method
from bench.training.method import Method


@register_method(
    "random_init",
    card=MethodCard(
        title="Random init",
        family="baseline",
        summary="The untrained backbone: what the architecture and the protocol achieve without any pre-training.",
        branches="single",
        views=0,
        gradient_views=(),
        trains=False,
    ),
)
class RandomInit(Method):
    """Holds the backbone; never trained."""

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        raise JobError(
            "random_init has no loss, because it is never trained (its card says trains=False). "
            "Take its backbone as it is, or pre-train another method."
        )
