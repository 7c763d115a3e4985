"""An encoder that somebody else trained, as ``jointbench evaluate --weights FILE`` puts it into the store.

There is no loss and no training; the parameters say exactly what is evaluated: which file, read as which layout, and
how images reach the network. The weights come from the store, by the digest of their bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bench.card import MethodCard
from bench.errors import JobError
from bench.registry import register_method
from bench.training.method import Method


@register_method(
    "imported",
    card=MethodCard(
        title="Imported checkpoint",
        family="baseline",
        summary="A backbone from a file of weights: evaluated as it is, trained elsewhere on unknown images.",
        branches="single",
        views=0,
        gradient_views=(),
        trains=False,
        imported=True,
    ),
)
class Imported(Method):
    """Holds the backbone; never trained.

    Args:
        backbone: of the file's architecture.
        file: SHA-256 of the file that was given.
        weights: SHA-256 of the converted weights, by which the store keeps them.
        layout: what the file's names were read as.
        network: ``online`` or ``momentum``.
        channels: that the backbone takes.
        mean, std: per channel, on the [0, 1] scale.
        image_size: side in pixels that images are resized to; 0 leaves them as they are.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        file: str = "",
        weights: str = "",
        layout: str = "torchvision",
        network: str = "online",
        channels: int = 3,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        image_size: int = 0,
    ) -> None:
        super().__init__(backbone)

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        raise JobError(
            "imported has no loss, because its weights come from a file (its card says imported=True). "
            "Give the file with `jointbench evaluate --weights FILE`, or pre-train another method."
        )
