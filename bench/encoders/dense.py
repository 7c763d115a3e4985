"""Feature maps of a backbone: what it computes before it averages over positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from bench.errors import SpecError

TRIAL_SIDE = 64
"""Height in pixels of the images that tell channels and strides; a power of 2, as the strides of backbones are."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One resolution of a backbone: its channels, and how many pixels of the image lie between two of its positions."""

    channels: int
    stride: int


class DenseBackbone(nn.Module):
    """A backbone that returns its feature maps, with the same weights.

    Backbones of this package and torchvision's ResNets are known; another one has a method
    ``feature_maps(images (B, C, H, W)) -> sequence of (B, C', H', W')``: one map for each resolution, finest first, the
    last being that whose mean over positions is the backbone's output.

    Attributes:
        backbone: the module, unchanged.
        stages: channels and stride of each map.
    """

    def __init__(self, backbone: nn.Module, *, channels: int) -> None:
        """See the class.

        Raises:
            SpecError: the backbone has no feature maps, or their last is not what it averages.
        """
        super().__init__()
        if not isinstance(backbone, ResNet) and not callable(getattr(backbone, "feature_maps", None)):
            raise SpecError(
                f"{type(backbone).__name__} does not tell its feature maps, which this protocol needs. Give it a "
                "method feature_maps(images) that returns one map for each resolution, the finest first, or choose a "
                "ResNet."
            )
        self.backbone = backbone
        self.stages = self._stages(channels)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Normalized images (B, C, H, W) to one map (B, C', H', W') for each stage, the finest first."""
        if not isinstance(self.backbone, ResNet):
            maps: Sequence[Tensor] = self.backbone.feature_maps(images)  # type: ignore[operator]
            return list(maps)
        net = self.backbone
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        found = []
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
            found.append(x)
        return found

    @torch.no_grad()
    def _stages(self, channels: int) -> tuple[Stage, ...]:
        """From two images, of which one is twice as wide: padding adds positions to both alike."""
        given = next(self.backbone.parameters(), torch.empty(0))
        trial = torch.linspace(-1, 1, 2 * channels * TRIAL_SIDE**2, device=given.device, dtype=given.dtype)
        wide = trial.view(1, channels, TRIAL_SIDE, 2 * TRIAL_SIDE)
        modes = {module: module.training for module in self.backbone.modules()}
        self.backbone.eval()
        try:
            maps, narrow, pooled = self(wide), self(wide[..., :TRIAL_SIDE]), self.backbone(wide)
        finally:
            for module, mode in modes.items():
                module.training = mode
        if not torch.allclose(maps[-1].mean(dim=(2, 3)), pooled, rtol=1e-4, atol=1e-5):
            raise SpecError(
                f"{type(self.backbone).__name__}: the mean of the last feature map is not the backbone's output. "
                "feature_maps must return the map that is averaged last."
            )
        if maps[-1].shape[3] == narrow[-1].shape[3]:
            raise SpecError(
                f"{type(self.backbone).__name__}: its last feature map has a stride above {TRIAL_SIDE} pixels, too "
                "coarse to find objects in. Choose a backbone that keeps more of the resolution."
            )
        further = [m.shape[3] - n.shape[3] for m, n in zip(maps, narrow, strict=True)]
        return tuple(
            Stage(channels=m.shape[1], stride=TRIAL_SIDE // more) for m, more in zip(maps, further, strict=True)
        )
