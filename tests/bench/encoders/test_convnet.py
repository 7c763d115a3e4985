from __future__ import annotations

import pytest
import torch

from bench.encoders.convnet import convnet
from bench.errors import SpecError


@pytest.mark.parametrize("size", [8, 28, 33, 64])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_small_images_of_any_channel_count_give_pooled_features(size: int, channels: int) -> None:
    features = convnet(channels)(torch.rand(2, channels, size, size))
    assert features.shape == (2, 128) and (features > 0).any()


def test_the_default_has_between_a_tenth_and_a_third_of_a_million_parameters() -> None:
    assert 100_000 < sum(p.numel() for p in convnet(1).parameters()) < 300_000


@pytest.mark.parametrize("width", [4, 16])
def test_the_feature_dimension_follows_the_width(width: int) -> None:
    network = convnet(1, width=width)
    assert network.feature_dim == 4 * width == network(torch.rand(2, 1, 16, 16)).shape[1]


def test_every_parameter_receives_a_gradient() -> None:
    network = convnet(2, width=4)
    network(torch.rand(8, 2, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_width_without_channels_is_refused() -> None:
    with pytest.raises(SpecError, match="width must be 2 or more, got 1"):
        convnet(1, width=1)
