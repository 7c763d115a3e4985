"""A small convolutional network for images of 8 to 64 pixels, made to train on a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from bench.card import BackboneCard
from bench.errors import SpecError
from bench.registry import register_backbone


class ConvNet(nn.Module):
    """Four convolutions 3x3, each with batch normalization and ReLU, then the mean over positions.

    Max-pooling after the first two leaves most of the work for a sixteenth of the positions. The layout was chosen
    among eight by the accuracy that runs of one seed reached in equal time on a CPU: a sensible choice, not a ranking.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.feature_dim = 4 * width
        self.blocks = nn.Sequential(
            *_block(channels, width // 2),
            nn.MaxPool2d(2),
            *_block(width // 2, 3 * width // 2),
            nn.MaxPool2d(2),
            *_block(3 * width // 2, 4 * width),
            *_block(4 * width, 4 * width),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, ``feature_dim``)."""
        maps: Tensor = self.blocks(images)  # (B, 4 width, H/4, W/4)
        return maps.mean(dim=(2, 3))  # (B, 4 width)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, W) to maps of strides 1, 2 and 4 with width/2, 3/2 width and 4 width channels."""
        maps, x = [], images
        for block in self.blocks:
            if isinstance(block, nn.MaxPool2d):
                maps.append(x)
            x = block(x)
        return [*maps, x]


def _block(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
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
    """A network with ``feature_dim`` = 4 * width; 0.21 M parameters at the default width.

    Args:
        channels: of the input images.
        width: the convolutions have a half, one and a half, four and four times as many channels.

    Raises:
        SpecError: ``width`` is under 2.
    """
    if width < 2:
        raise SpecError(f"convnet: width must be 2 or more, got {width}.")
    return ConvNet(channels, width)
