"""Residual networks of torchvision (arXiv:1512.03385), without their classifier and with a choice of stem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torchvision import models

from bench.card import BackboneCard
from bench.errors import SpecError
from bench.registry import register_backbone


@register_backbone(
    "resnet18",
    card=BackboneCard(title="ResNet-18", summary="Residual network of 18 layers, 512 features (arXiv:1512.03385)."),
)
def resnet18(channels: int, *, stem: str = "imagenet", zero_init_residual: bool = False) -> nn.Module:
    """ResNet-18 with 512 features; see :func:`_headless` for the arguments."""
    return _headless(models.resnet18, channels, stem=stem, zero_init_residual=zero_init_residual)


@register_backbone(
    "resnet34",
    card=BackboneCard(title="ResNet-34", summary="Residual network of 34 layers, 512 features (arXiv:1512.03385)."),
)
def resnet34(channels: int, *, stem: str = "imagenet", zero_init_residual: bool = False) -> nn.Module:
    """ResNet-34 with 512 features; see :func:`_headless` for the arguments."""
    return _headless(models.resnet34, channels, stem=stem, zero_init_residual=zero_init_residual)


@register_backbone(
    "resnet50",
    card=BackboneCard(title="ResNet-50", summary="Residual network of 50 layers, 2048 features (arXiv:1512.03385)."),
)
def resnet50(channels: int, *, stem: str = "imagenet", zero_init_residual: bool = False) -> nn.Module:
    """ResNet-50 with 2048 features; see :func:`_headless` for the arguments."""
    return _headless(models.resnet50, channels, stem=stem, zero_init_residual=zero_init_residual)


def _headless(make: Callable[..., Any], channels: int, *, stem: str, zero_init_residual: bool) -> nn.Module:
    """A torchvision ResNet that maps (B, C, H, W) to pooled features (B, ``feature_dim``).

    Args:
        make: torchvision's constructor.
        channels: of the input images.
        stem: ``imagenet`` is torchvision's (7x7, stride 2, then max-pooling); ``cifar`` is a 3x3 convolution with
            stride 1 and padding 1 and no max-pooling, for small images (SimCLR, arXiv:2002.05709, appendix B.9);
            ``solo-learn`` is the same with padding 2, as that library builds it.
        zero_init_residual: start each residual branch at zero, as the authors of VICReg and SimSiam do.

    Raises:
        SpecError: an unknown ``stem``.
    """
    if stem not in ("imagenet", "cifar", "solo-learn"):
        raise SpecError(f"Unknown stem {stem!r} of a ResNet. Choose imagenet, cifar or solo-learn.")
    network: nn.Module = make(weights=None, zero_init_residual=zero_init_residual)
    network.feature_dim = network.fc.in_features  # type: ignore[union-attr]
    network.fc = nn.Identity()
    if stem != "imagenet":
        network.conv1 = _convolution(channels, kernel=3, stride=1, padding=2 if stem == "solo-learn" else 1)
        network.maxpool = nn.Identity()
    elif channels != 3:
        network.conv1 = _convolution(channels, kernel=7, stride=2, padding=3)
    return network


def _convolution(channels: int, *, kernel: int, stride: int, padding: int) -> nn.Conv2d:
    """A first layer, initialized as torchvision's."""
    layer = nn.Conv2d(channels, 64, kernel, stride=stride, padding=padding, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
