"""Feature maps of backbones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.encoders.convnet import convnet
from bench.encoders.dense import DenseBackbone, Stage
from bench.encoders.resnet import resnet18, resnet50
from bench.errors import SpecError


def test_a_convnet_has_a_map_of_each_resolution() -> None:
    dense = DenseBackbone(convnet(1, width=8), channels=1)
    assert dense.stages == (Stage(channels=4, stride=1), Stage(channels=12, stride=2), Stage(channels=32, stride=4))
    maps = dense(torch.rand(2, 1, 40, 24))
    assert [tuple(m.shape) for m in maps] == [(2, 4, 40, 24), (2, 12, 20, 12), (2, 32, 10, 6)]


@pytest.mark.parametrize(
    ("stem", "strides"), [("imagenet", [4, 8, 16, 32]), ("cifar", [1, 2, 4, 8]), ("solo-learn", [1, 2, 4, 8])]
)
def test_the_stem_of_a_resnet_decides_its_strides(stem: str, strides: list[int]) -> None:
    dense = DenseBackbone(resnet18(3, stem=stem), channels=3)
    assert [stage.stride for stage in dense.stages] == strides
    assert [stage.channels for stage in dense.stages] == [64, 128, 256, 512]


@pytest.mark.parametrize("make", [lambda: convnet(3, width=8), lambda: resnet50(3)])
def test_the_mean_of_the_last_map_is_the_representation(make: object) -> None:
    backbone = make().eval()  # type: ignore[operator]
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps = DenseBackbone(backbone, channels=3)(images)
        torch.testing.assert_close(maps[-1].mean(dim=(2, 3)), backbone(images))


def test_asking_for_the_stages_changes_neither_statistics_nor_modes() -> None:
    backbone = resnet18(3).train()
    backbone.layer1.eval()  # type: ignore[union-attr]
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    DenseBackbone(backbone, channels=3)
    assert backbone.training and not backbone.layer1.training  # type: ignore[union-attr]
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


class NoMaps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.layer(images)
        return maps.mean(dim=(2, 3))


class WrongMaps(NoMaps):
    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return [self.layer(images).relu()]


def test_a_backbone_without_maps_is_told_what_to_add() -> None:
    with pytest.raises(SpecError, match=r"NoMaps does not tell its feature maps.*feature_maps\(images\)"):
        DenseBackbone(NoMaps(), channels=1)


def test_maps_whose_mean_is_not_the_representation_are_refused() -> None:
    with pytest.raises(SpecError, match="WrongMaps: the mean of the last feature map is not the backbone's output"):
        DenseBackbone(WrongMaps(), channels=1)


class Coarse(nn.Module):
    """Means over squares of 128 pixels, without a parameter."""

    def forward(self, images: Tensor) -> Tensor:
        return self.feature_maps(images)[0].mean(dim=(2, 3))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        return [nn.functional.avg_pool2d(images, 128, ceil_mode=True)]


def test_a_stride_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(SpecError, match="Coarse: its last feature map has a stride above 64 pixels"):
        DenseBackbone(Coarse(), channels=1)
