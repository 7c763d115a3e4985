from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models

from bench.encoders.imports import ImportedEncoder, Wish, import_encoder
from bench.encoders.layouts import CIFAR10, IMAGENET
from bench.encoders.resnet import resnet18, resnet50
from bench.errors import CheckpointError
from bench.registry import Registry, discover

from . import published_keys as keys

PIXELS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def backbones() -> Registry:
    return discover().backbones


@pytest.fixture(scope="module")
def source() -> nn.Module:
    """torchvision's ResNet-18 without its classifier: what every file is made from."""
    network = models.resnet18()
    network.fc = nn.Identity()
    return keys.random_network(network)


@pytest.fixture
def load(tmp_path: Path, backbones: Registry) -> Callable[..., ImportedEncoder]:
    def save_and_import(content: Any, **wish: Any) -> ImportedEncoder:
        torch.save(content, tmp_path / "weights.pth")
        return import_encoder(tmp_path / "weights.pth", backbones, Wish(**wish))

    return save_and_import


def features(module: nn.Module, pixels: Tensor = PIXELS) -> Tensor:
    with torch.inference_mode():
        result: Tensor = module(pixels)
    return result


@pytest.mark.parametrize("name", keys.LAYOUTS)
def test_a_file_of_each_layout_gives_the_features_of_its_source(
    name: str, source: nn.Module, load: Callable[..., ImportedEncoder]
) -> None:
    expected, make = keys.LAYOUTS[name]
    found = load(make(source.state_dict()))
    assert (found.layout, found.network, found.backbone, found.channels) == (expected, "online", "resnet18", 3)
    assert found.backbone_params == {"stem": "imagenet"} and (found.mean, found.std) == IMAGENET
    assert torch.equal(features(found.module), features(source))


@pytest.mark.parametrize("name", ["moco v2", "moco v3", "byol of lightning-bolts", "solo-learn", "mmselfsup"])
def test_the_momentum_network_is_there_on_request(
    name: str, source: nn.Module, load: Callable[..., ImportedEncoder]
) -> None:
    found = load(keys.LAYOUTS[name][1](source.state_dict()), network="momentum")
    assert found.network == "momentum"
    assert bool((found.module.state_dict()["conv1.weight"] == 1).all())


@pytest.mark.parametrize("name", keys.LAYOUTS)
def test_a_broken_file_is_refused_with_the_list_of_keys(
    name: str, source: nn.Module, load: Callable[..., ImportedEncoder]
) -> None:
    state = keys.hollow(source.state_dict())
    del state["bn1.running_var"], state["layer2.0.bn1.bias"]
    state["layer3.1.conv9.weight"] = state.pop("layer3.1.conv2.weight")
    state["layer4.1.conv2.weight"] = torch.zeros(512, 512, 1, 1)
    with pytest.raises(CheckpointError) as caught:
        load(keys.LAYOUTS[name][1](state))
    said = str(caught.value)
    assert "3 missing: bn1.running_var, layer2.0.bn1.bias, layer3.1.conv2.weight;" in said
    assert re.search(r"; 1 unexpected: [\w.]*conv9\.weight; 1 of another shape: ", said)
    assert "conv2.weight is (512, 512, 1, 1), expected (512, 512, 3, 3). Nothing was loaded." in said


def test_all_missing_tensors_are_counted_and_the_first_of_them_listed(
    source: nn.Module, load: Callable[..., ImportedEncoder]
) -> None:
    convolutions = {k: v for k, v in keys.hollow(source.state_dict()).items() if "conv" in k}
    with pytest.raises(CheckpointError) as caught:
        load(convolutions)
    listed = re.search(r"(\d+) missing: (.*) and (\d+) more", str(caught.value))
    assert listed and int(listed[1]) == 20 * 4 + 3 and len(listed[2].split(", ")) == 40 and int(listed[3]) == 43


def test_other_networks_are_refused_by_what_they_are(load: Callable[..., ImportedEncoder]) -> None:
    with torch.device("meta"):
        made = {
            make: make().state_dict() for make in (models.resnet101, models.wide_resnet50_2, models.resnext50_32x4d)
        }
    small = {make: keys.hollow(state) for make, state in made.items()}
    with pytest.raises(CheckpointError, match="3-4-23-3 bottleneck blocks in 4 stages"):
        load(small[models.resnet101])
    for make in (models.wide_resnet50_2, models.resnext50_32x4d):
        with pytest.raises(CheckpointError, match="wide or grouped"):
            load(small[make])


def test_a_stem_of_several_convolutions_is_refused(source: nn.Module, load: Callable[..., ImportedEncoder]) -> None:
    state = keys.hollow(source.state_dict())
    state["conv1.0.weight"] = state.pop("conv1.weight")
    with pytest.raises(CheckpointError, match=r"several convolutions \(conv1\.0\.weight"):
        load(state)


def test_a_resnet_50_is_told_by_its_blocks(load: Callable[..., ImportedEncoder]) -> None:
    with torch.device("meta"):
        network = resnet50(3)
    assert load(keys.vicreg(keys.hollow(network.state_dict()))).backbone == "resnet50"


def test_solo_learns_stem_for_cifar_pads_by_two(load: Callable[..., ImportedEncoder]) -> None:
    network = resnet18(3, stem="cifar")
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=2, bias=False)
    keys.random_network(network)
    found = load(keys.solo_learn(network.state_dict()))
    assert found.backbone_params == {"stem": "solo-learn"} and (found.mean, found.std) == CIFAR10
    assert torch.equal(features(found.module), features(network))


def test_lightlys_own_resnet_and_mocos_demo_are_read_by_index(load: Callable[..., ImportedEncoder]) -> None:
    network = keys.random_network(resnet18(3, stem="cifar"))
    for make, mean, std in (
        (keys.lightly_cifar, *IMAGENET),
        (keys.moco_demo, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ):
        found = load(make(network.state_dict()))
        assert found.backbone_params == {"stem": "cifar"} and (found.mean, found.std) == (mean, std)
        assert torch.equal(features(found.module), features(network))


def test_unknown_normalization_has_to_be_given(load: Callable[..., ImportedEncoder]) -> None:
    with torch.device("meta"):
        network = resnet18(1, stem="cifar")
    state = keys.hollow(network.state_dict())
    with pytest.raises(CheckpointError, match=r"Give --mean and --std, 1 value\(s\) each"):
        load(state)
    with pytest.raises(CheckpointError, match=r"--mean has 3 value\(s\), but the network takes 1"):
        load(state, mean=(0.5, 0.5, 0.5), std=(0.2,))
    with pytest.raises(CheckpointError, match="--std must be finite and above 0"):
        load(state, mean=(0.5,), std=(0.0,))
    found = load(state, mean=(0.5,), std=(0.2,))
    assert (found.channels, found.mean, found.std) == (1, (0.5,), (0.2,))
    assert any("as given" in note for note in found.notes)


def test_a_network_of_bgr_images_takes_rgb_ones_afterwards(
    source: nn.Module, load: Callable[..., ImportedEncoder]
) -> None:
    found = load(keys.detectron2_backbone(source.state_dict()), channel_order="bgr")
    assert torch.allclose(features(found.module, PIXELS), features(source, PIXELS.flip(1)), atol=1e-4)
    assert found.mean == IMAGENET[0] and found.std == (1 / 255,) * 3


def test_a_whole_detector_needs_the_channel_order(source: nn.Module, load: Callable[..., ImportedEncoder]) -> None:
    detector = keys.under("backbone.bottom_up.", keys.detectron2(source.state_dict()))
    content = {"model": {**detector, **keys.heads("roi_heads.box_head.fc1.weight")}}
    with pytest.raises(CheckpointError, match=r"whole detector.*--channel-order"):
        load(content)
    assert torch.equal(features(load(content, channel_order="rgb").module), features(source))


def test_detectron2s_pickle_of_arrays_is_read(source: nn.Module, tmp_path: Path, backbones: Registry) -> None:
    arrays = {name: tensor.numpy() for name, tensor in keys.detectron2(source.state_dict()).items()}
    content = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
    file = tmp_path / "r18.pkl"
    file.write_bytes(pickle.dumps(content))
    found = import_encoder(file, backbones)
    assert found.layout == "detectron2" and torch.equal(features(found.module), features(source))
    assert any("20 of 20 counters num_batches_tracked are absent" in note for note in found.notes)


def test_safetensors_are_read(source: nn.Module, tmp_path: Path, backbones: Registry) -> None:
    safetensors.torch.save_file(source.state_dict(), tmp_path / "model.safetensors", {"format": "pt"})
    found = import_encoder(tmp_path / "model.safetensors", backbones)
    assert torch.equal(features(found.module), features(source))


def test_half_precision_becomes_single_and_heads_are_listed(
    source: nn.Module, load: Callable[..., ImportedEncoder]
) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in source.state_dict().items()}
    found = load({**half, **keys.FC})
    assert found.module.state_dict()["conv1.weight"].dtype == torch.float32
    assert found.notes[-1] == "ignored, because they are not of this backbone: fc (2)"


def test_weights_that_diverged_or_are_quantized_are_refused(
    source: nn.Module, load: Callable[..., ImportedEncoder]
) -> None:
    state = keys.hollow(source.state_dict())
    with pytest.raises(CheckpointError, match=r"bn1\.bias holds NaN"):
        load(state | {"bn1.bias": torch.full((64,), float("nan"))})
    with pytest.raises(CheckpointError, match=r"bn1\.bias is of type torch\.int8"):
        load(state | {"bn1.bias": torch.zeros(64, dtype=torch.int8)})


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_arguments_and_numbers_beside_the_weights_do_no_harm(
    old: bool, source: nn.Module, tmp_path: Path, backbones: Registry
) -> None:
    more = {"args": argparse.Namespace(lr=0.1, arch="resnet18"), "best": np.float64(71.2), "log": np.zeros(3)}
    torch.save({"state_dict": source.state_dict(), **more}, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    assert torch.equal(features(import_encoder(tmp_path / "w.pth", backbones).module), features(source))


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("form", ["zip", "before 1.6", "pickle"])
def test_a_pickle_that_wants_to_run_code_is_refused_and_not_executed(
    form: str, source: nn.Module, tmp_path: Path, backbones: Registry
) -> None:
    content = {"state_dict": keys.hollow(source.state_dict()), "callback": Malicious(tmp_path / "executed")}
    file = tmp_path / "weights.pth"
    if form == "pickle":
        file.write_bytes(pickle.dumps({"model": {}, "callback": content["callback"]}))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(
        CheckpointError, match=r"its pickle asks for [\w.]+, and rebuilding that runs code.*weights_only"
    ):
        import_encoder(file, backbones)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither safetensors nor a file of PyTorch"),
        (b"not weights at all", "neither safetensors nor a file of PyTorch"),
        (b"\x10\0\0\0\0\0\0\0{broken", "not readable as safetensors"),
        (b"\x80\x04broken", "damaged"),
        (b"\x80\x04cjax._src.array\n_reconstruct_array\n)R.", "a pickle of JAX"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_words(
    content: bytes, message: str, tmp_path: Path, backbones: Registry
) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        import_encoder(file, backbones)


def test_a_truncated_file_and_a_missing_one_are_refused(source: nn.Module, tmp_path: Path, backbones: Registry) -> None:
    file = tmp_path / "w.pth"
    torch.save(source.state_dict(), file)
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"truncated|damaged"):
        import_encoder(file, backbones)
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_encoder(tmp_path / "absent.pth", backbones)
    torch.save({"epoch": 3}, file)
    with pytest.raises(CheckpointError, match="holds no tensors"):
        import_encoder(file, backbones)


def test_equal_weights_have_one_digest_whatever_the_file(
    source: nn.Module, load: Callable[..., ImportedEncoder]
) -> None:
    first, second = (load(keys.LAYOUTS[name][1](source.state_dict())) for name in ("simsiam", "swav"))
    assert first.method_params()["weights"] == second.method_params()["weights"] and first.file != second.file
    assert first.method_params(image_size=96)["image_size"] == 96
