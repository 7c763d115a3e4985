"""A small convolutional network for images of 8 to 64 pixels, made to train on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from bench.card import BackboneCard
from bench.registry import register_backbone


class ConvNet(nn.Module):
    """Four convolutions 3x3, each with batch normalization and ReLU, then the mean over positions.

    The first two halve the resolution each, so that most of the work happens on a sixteenth of the pixels: of the
    layouts that were timed on a CPU, this one learns most in a given time.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.feature_dim = 4 * width
        self.blocks = nn.Sequential(
            *_block(channels, width, stride=2),
            *_block(width, 2 * width, stride=2),
            *_block(2 * width, 4 * width, stride=1),
            *_block(4 * width, 4 * width, stride=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, ``feature_dim``)."""
        maps: Tensor = self.blocks(images)  # (B, 4 width, H/4, W/4)
        return maps.mean(dim=(2, 3))  # (B, 4 width)


def _block(channels_in: int, channels_out: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]


@register_backbone(
    "convnet",
    card=BackboneCard(
        title="ConvNet-4",
        summary="Four 3x3 convolutions with batch normalization and global average pooling, for 8 to 64 pixels.",
    ),
)
def convnet(channels: int, *, width: int = 32) -> ConvNet:
    """A network with ``feature_dim`` = 4 * width; 0.24 M parameters at the default width.

    Args:
        channels: of the input images.
        width: channels after the first convolution; the later ones have 2, 4 and 4 times as many.
    """
    return ConvNet(channels, width)
