from __future__ import annotations

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from bench.encoders.build import another_backbone, build_backbone, load_weights, make_encoder, weights_to_bytes
from bench.encoders.convnet import convnet
from bench.errors import CorruptPartError, RegistrationError, SpecError, StoreError, UnknownNameError
from bench.registry import Entry, discover


@pytest.fixture(scope="module")
def entry() -> Entry:
    return discover().registry("backbone")["convnet"]


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def trained() -> nn.Module:
    """A backbone whose buffers have moved, in the layout of the training loop."""
    network = convnet(1, width=4).to(memory_format=torch.channels_last)
    network(torch.rand(8, 1, 8, 8))
    return network


def test_all_backbones_are_registered_with_their_parameters() -> None:
    backbones = discover().registry("backbone")
    assert {"convnet", "resnet18", "resnet34", "resnet50"} <= {entry.key for entry in backbones}
    assert dict(backbones["convnet"].parameters) == {"width": 32}
    assert dict(backbones["resnet50"].parameters) == {"stem": "imagenet", "zero_init_residual": False}


def test_the_seed_alone_decides_the_initial_weights(entry: Entry) -> None:
    torch.manual_seed(1)
    first = build_backbone(entry, {"width": 4}, channels=1, seed=5)
    torch.manual_seed(2)
    assert same(first, build_backbone(entry, {"width": 4}, channels=1, seed=5))
    assert not same(first, build_backbone(entry, {"width": 4}, channels=1, seed=6))


def test_building_leaves_the_global_state_alone(entry: Entry) -> None:
    before = torch.get_rng_state()
    build_backbone(entry, {}, channels=1, seed=5)
    assert torch.equal(before, torch.get_rng_state())


def test_parameters_reach_the_backbone_and_unknown_ones_are_named(entry: Entry) -> None:
    assert build_backbone(entry, {"width": 6}, channels=2, seed=0).feature_dim == 24
    with pytest.raises(
        UnknownNameError, match=r"Unknown parameter of backbone 'convnet' 'widht'\. Did you mean 'width'"
    ):
        build_backbone(entry, {"widht": 6}, channels=2, seed=0)


def test_a_backbone_without_feature_dim_is_refused_with_its_place(tmp_path: Path) -> None:
    plugin = tmp_path / "flat.py"
    plugin.write_text(
        "from torch import nn\n"
        "from bench.card import BackboneCard\n"
        "from bench.registry import register_backbone\n"
        '@register_backbone("flat", card=BackboneCard(title="Flat", summary="no feature_dim"))\n'
        "def flat(channels: int) -> nn.Module:\n"
        "    return nn.Flatten()\n"
    )
    found = discover([plugin]).registry("backbone")["flat"]
    with pytest.raises(
        RegistrationError, match=r"flat\.py:\d+: backbone 'flat' must return a torch module with .+ Flatten"
    ):
        build_backbone(found, {}, channels=1, seed=0)


def test_another_backbone_has_the_same_architecture_and_draws_its_weights_from_the_global_generator(
    entry: Entry,
) -> None:
    first = build_backbone(entry, {"width": 6}, channels=2, seed=5)
    torch.manual_seed(1)
    second = another_backbone(copy.deepcopy(first))
    assert [p.shape for p in second.parameters()] == [p.shape for p in first.parameters()]
    assert not same(first, second)
    torch.manual_seed(1)
    assert same(second, another_backbone(first))


def test_another_architecture_takes_the_parameters_and_channels_that_it_knows() -> None:
    backbones = discover().backbones
    first = build_backbone(backbones["resnet34"], {"stem": "cifar"}, channels=1, seed=0)
    other = another_backbone(first, "resnet18")
    assert other.conv1.weight.shape == (64, 1, 3, 3)  # type: ignore[union-attr]
    assert another_backbone(first, "convnet").feature_dim == 128
    with pytest.raises(UnknownNameError, match=r"second backbone 'resnet81'\. Did you mean 'resnet18'.*plug-in file"):
        another_backbone(first, "resnet81")
    with pytest.raises(SpecError, match=r"ConvNet does not say how it was built.*Use a registered backbone"):
        another_backbone(convnet(1, width=4))


def test_a_second_backbone_may_come_from_the_plug_in_file_of_the_first(tmp_path: Path) -> None:
    plugin = tmp_path / "narrow.py"
    body = (
        '@register_backbone("{0}", card=BackboneCard(title="{0}", summary="narrow"))\n'
        "def {0}(channels: int, *, width: int = 2) -> nn.Module:\n"
        "    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(width * {1}))\n"
        "    network.feature_dim = width * {1}\n"
        "    return network\n"
    )
    imports = (
        "from torch import nn\nfrom bench.card import BackboneCard\nfrom bench.registry import register_backbone\n"
    )
    plugin.write_text(imports + body.format("one", 1) + body.format("two", 2))
    first = build_backbone(discover([plugin]).backbones["one"], {"width": 3}, channels=1, seed=0)
    assert another_backbone(first, "two").feature_dim == 6
    assert another_backbone(first, "convnet").feature_dim == 12  # its width is 3, as of the first


def test_an_encoder_carries_the_input_contract() -> None:
    encoder = make_encoder(
        convnet(1, width=4), channels=1, image_size=(8, 8), mean=[0.5], std=[0.25], origin="test", identity="abc"
    )
    assert (encoder.feature_dim, encoder.mean, encoder.std, encoder.origin) == (16, (0.5,), (0.25,), "test")


def test_weights_come_back_bit_for_bit_with_their_buffers() -> None:
    source, target = trained(), convnet(1, width=4)
    load_weights(target, weights_to_bytes(source))
    assert same(source, target)
    assert target.get_buffer("blocks.1.num_batches_tracked") == 1


def test_equal_weights_give_equal_bytes_whatever_their_layout() -> None:
    network = trained()
    data = weights_to_bytes(network, metadata={"b": "2", "a": "1"})
    assert weights_to_bytes(network.to(memory_format=torch.contiguous_format), metadata={"a": "1", "b": "2"}) == data
    assert weights_to_bytes(network) != data


def without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in convnet(1, width=4).state_dict().items() if key != name}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (without("blocks.1.running_var"), r"missing: blocks\.1\.running_var\. Choose the backbone"),
        (without("") | {"fc.weight": torch.ones(2)}, r"unexpected: fc\.weight\."),
        (
            without("") | {"blocks.0.weight": torch.ones(4, 3, 3, 3)},
            r"shapes: blocks\.0\.weight is \(4, 3, 3, 3\), expected \(2, 1, 3, 3\)\.",
        ),
    ],
)
def test_every_tensor_must_fit_and_nothing_is_loaded_otherwise(tensors: dict[str, Tensor], message: str) -> None:
    target = convnet(1, width=4)
    before = weights_to_bytes(target)
    with pytest.raises(StoreError, match=f"weights of vicreg do not fit ConvNet: {message}"):
        load_weights(target, safetensors.torch.save(tensors), where="weights of vicreg")
    assert weights_to_bytes(target) == before


def test_bytes_that_are_not_weights_are_named() -> None:
    with pytest.raises(CorruptPartError, match=r"weights of byol: not readable as safetensors .+ Compute or download"):
        load_weights(convnet(1), b"no weights", where="weights of byol")
