"""Encoders with a ResNet whose running statistics are no defaults, so that no tensor can be left out unnoticed."""

from __future__ import annotations

from typing import Any

import torch

from bench.encoders.build import build_backbone, make_encoder
from bench.encoders.encoder import Encoder
from bench.registry import discover

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def residual_encoder(key: str = "resnet18", *, channels: int = 3, **params: Any) -> Encoder:
    """A registered backbone with drawn weights and statistics; red, green and blue are normalized differently."""
    module = build_backbone(discover([]).backbones[key], params, channels=channels, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.named_buffers():
        if tensor.is_floating_point():
            drawn = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(drawn - 0.5 if name.endswith("mean") else drawn + 0.5)
    return make_encoder(
        module,
        channels=channels,
        image_size=(64, 64),
        mean=MEAN[:channels],
        std=STD[:channels],
        origin="a test",
        identity="none",
    )
