from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models

from bench.encoders.resnet import resnet18, resnet34, resnet50
from bench.errors import SpecError


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def map_sizes(network: nn.Module, size: int) -> dict[str, tuple[int, int]]:
    """Height and width after the stem and after each stage."""
    sizes: dict[str, tuple[int, int]] = {}
    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: sizes.update({name: tuple(output.shape[2:])})
        )
        for name in ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    ]
    with torch.no_grad():
        network.eval()(torch.rand(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return sizes


@pytest.mark.parametrize(
    ("ours", "theirs", "dimension"),
    [(resnet18, models.resnet18, 512), (resnet34, models.resnet34, 512), (resnet50, models.resnet50, 2048)],
)
def test_it_is_torchvisions_network_without_the_classifier(
    ours: Callable[..., nn.Module], theirs: Callable[..., nn.Module], dimension: int
) -> None:
    network, reference = ours(3), theirs()
    assert network.feature_dim == dimension
    assert count(network) == count(reference) - count(reference.fc)  # type: ignore[arg-type]
    assert not any(name.startswith("fc") for name in network.state_dict())
    reference.fc = nn.Identity()
    network.load_state_dict(reference.state_dict())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), reference.eval()(images))


def test_the_imagenet_stem_divides_by_four() -> None:
    assert map_sizes(resnet18(3), 224) == {
        "conv1": (112, 112),
        "maxpool": (56, 56),
        "layer1": (56, 56),
        "layer2": (28, 28),
        "layer3": (14, 14),
        "layer4": (7, 7),
    }


def test_the_cifar_stem_keeps_the_resolution() -> None:
    assert map_sizes(resnet18(3, stem="cifar"), 32) == {
        "conv1": (32, 32),
        "maxpool": (32, 32),
        "layer1": (32, 32),
        "layer2": (16, 16),
        "layer3": (8, 8),
        "layer4": (4, 4),
    }


@pytest.mark.parametrize(("stem", "kernel"), [("imagenet", 7), ("cifar", 3)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_channel_count_changes_the_first_layer_only(stem: str, kernel: int, channels: int) -> None:
    network = resnet18(channels, stem=stem)
    base = 11_689_512 - 513_000 - 64 * 3 * 49
    assert count(network) == base + 64 * channels * kernel**2
    assert network.eval()(torch.rand(1, channels, 32, 32)).shape == (1, 512)


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_a_new_stem_is_initialized_as_torchvisions(stem: str) -> None:
    torch.manual_seed(0)
    weight = resnet18(4, stem=stem).get_parameter("conv1.weight")
    expected = (2 / (64 * weight.shape[2] ** 2)) ** 0.5  # He, fan out
    assert weight.std().item() == pytest.approx(expected, rel=0.1)


def test_zero_init_residual_silences_every_branch() -> None:
    loud, silent = resnet18(3), resnet18(3, zero_init_residual=True)
    assert (loud.get_parameter("layer1.0.bn2.weight") == 1).all()
    last = [name for name, _ in silent.named_parameters() if name.endswith("bn2.weight")]
    assert len(last) == 8 and all((silent.get_parameter(name) == 0).all() for name in last)


def test_an_unknown_stem_is_refused() -> None:
    with pytest.raises(SpecError, match=r"Unknown stem 'tiny' of a ResNet\. Choose imagenet, cifar or solo-learn"):
        resnet18(3, stem="tiny")
