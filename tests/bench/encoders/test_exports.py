from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision import models

from bench.encoders.convnet import convnet
from bench.encoders.exports import Export, write_export
from bench.encoders.imports import Wish, import_encoder
from bench.encoders.resnet import resnet18
from bench.errors import CheckpointError, RequestError
from bench.registry import discover

from .published_keys import hollow, random_network

PIXELS = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def export() -> Export:
    """A ResNet-18 with its own normalization."""
    return Export(
        module=random_network(resnet18(3)),
        backbone="resnet18",
        backbone_params={"stem": "imagenet", "zero_init_residual": False},
        channels=3,
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.2, 0.15),
        image_size=40,
        origin="simclr on some images, seed 0",
    )


def features(module: nn.Module, pixels: Tensor = PIXELS) -> Tensor:
    with torch.inference_mode():
        result: Tensor = module.eval()(pixels)
    return result


def test_torchvision_loads_the_file_strictly_and_gives_the_same_features(export: Export, tmp_path: Path) -> None:
    words = write_export(export, "torchvision", tmp_path / "r18.pth")
    network = models.resnet18()
    network.fc = nn.Identity()
    network.load_state_dict(torch.load(tmp_path / "r18.pth"), strict=True)
    assert torch.equal(features(network), features(export.module))
    assert "torchvision.models.resnet18()" in words and "resized to 40 pixels, minus (0.5, 0.4, 0.3)" in words


def test_the_printed_lines_for_torchvision_build_the_stem_for_small_images(tmp_path: Path) -> None:
    network = random_network(resnet18(1, stem="solo-learn"))
    small = Export(
        **{"module": network, "backbone": "resnet18", "backbone_params": {"stem": "solo-learn"}, "channels": 1},
        **{"mean": (0.5,), "std": (0.2,), "image_size": 0, "origin": "a test"},
    )
    words = write_export(small, "torchvision", tmp_path / "r18.pth")
    place: dict[str, Any] = {"torch": torch, "torchvision": __import__("torchvision")}
    exec("\n".join(words.splitlines()[:-1]), place)
    assert torch.equal(features(place["net"], PIXELS[:, :1]), features(network, PIXELS[:, :1]))


@pytest.mark.filterwarnings("ignore")  # of a library that is not ours
def test_timm_loads_the_file_and_gives_the_same_features(export: Export, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    write_export(export, "timm", tmp_path / "r18.pth")
    network = timm.create_model("resnet18", num_classes=0, checkpoint_path=str(tmp_path / "r18.pth"))
    assert torch.allclose(features(network), features(export.module), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bgr", [False, True], ids=["rgb", "bgr"])
def test_a_file_for_detectron2_comes_back_as_the_same_encoder(export: Export, tmp_path: Path, bgr: bool) -> None:
    file = tmp_path / "r18.pkl"
    words = write_export(export, "detectron2", file, bgr=bgr)
    found = import_encoder(file, discover().backbones)
    assert torch.equal(features(found.module), features(export.module))
    assert (found.layout, found.mean, found.std, found.image_size) == ("jointbench", export.mean, export.std, 40)
    mean = "[76.5, 102.0, 127.5]" if bgr else "[127.5, 102.0, 76.5]"
    assert f"MODEL.PIXEL_MEAN: {mean}" in words and f"INPUT.FORMAT: {'BGR' if bgr else 'RGB'}" in words


def test_a_file_for_detectron2_has_its_names_and_its_flag(export: Export, tmp_path: Path) -> None:
    write_export(export, "detectron2", tmp_path / "r18.pkl", bgr=True)
    content = pickle.loads((tmp_path / "r18.pkl").read_bytes())
    assert content["matching_heuristics"] is True and content["__author__"] == "jointbench"
    named: Mapping[str, Any] = content["model"]
    assert len(named) == len(export.module.state_dict())
    own = export.module.state_dict()
    for name, source in {
        "stem.conv1.norm.running_mean": "bn1.running_mean",
        "res2.0.conv1.norm.weight": "layer1.0.bn1.weight",
        "res3.0.shortcut.weight": "layer2.0.downsample.0.weight",
        "res3.0.shortcut.norm.bias": "layer2.0.downsample.1.bias",
        "res5.1.conv2.weight": "layer4.1.conv2.weight",
    }.items():
        assert torch.equal(torch.from_numpy(named[name]), own[source]), name
    assert torch.equal(torch.from_numpy(named["stem.conv1.weight"]), own["conv1.weight"].flip(1))


def test_detectron2s_names_are_read_without_our_description(export: Export, tmp_path: Path) -> None:
    file = tmp_path / "r18.pkl"
    write_export(export, "detectron2", file, bgr=True)
    content = pickle.loads(file.read_bytes())
    del content["jointbench"]
    file.write_bytes(pickle.dumps(content))
    found = import_encoder(file, discover().backbones, Wish(channel_order="bgr"))
    assert found.layout == "detectron2" and torch.equal(features(found.module), features(export.module))


def test_safetensors_describe_themselves_whatever_the_backbone(tmp_path: Path) -> None:
    network = random_network(convnet(1, width=8))
    small = Export(
        **{"module": network, "backbone": "convnet", "backbone_params": {"width": 8}, "channels": 1},
        **{"mean": (0.13,), "std": (0.31,), "image_size": 28, "origin": "vicreg on mnist5k, seed 0"},
    )
    file = tmp_path / "c.safetensors"
    write_export(small, "safetensors", file)
    found = import_encoder(file, discover().backbones)
    assert (found.backbone, found.backbone_params, found.channels) == ("convnet", {"width": 8}, 1)
    assert (found.mean, found.std, found.image_size) == ((0.13,), (0.31,), 28)
    assert torch.equal(features(found.module, PIXELS[:, :1]), features(network, PIXELS[:, :1]))
    assert "vicreg on mnist5k, seed 0" in found.notes[0]


def test_our_own_file_without_a_tensor_is_refused_too(export: Export, tmp_path: Path) -> None:
    file = tmp_path / "r18.safetensors"
    write_export(export, "safetensors", file)
    with safetensors.safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    state = {name: tensor.clone() for name, tensor in hollow(export.module.state_dict()).items()}
    del state["layer1.0.bn1.bias"]
    safetensors.torch.save_file(state | {"extra": torch.zeros(1)}, file, metadata)
    with pytest.raises(CheckpointError, match=r"1 missing: layer1\.0\.bn1\.bias; 1 unexpected: extra"):
        import_encoder(file, discover().backbones)


def test_what_a_format_cannot_express_is_an_error(export: Export, tmp_path: Path) -> None:
    other = replace(export, backbone="convnet", backbone_params={})
    for format in ("torchvision", "timm", "detectron2"):
        with pytest.raises(CheckpointError, match=f"convnet is no ResNet, and {format} has.*--format safetensors"):
            write_export(other, format, tmp_path / "out")
    small = replace(export, backbone_params={"stem": "cifar"})
    for format in ("timm", "detectron2"):
        with pytest.raises(CheckpointError, match=f"{format} has no ResNet with the stem for small images"):
            write_export(small, format, tmp_path / "out")
    with pytest.raises(RequestError, match="BGR"):
        write_export(export, "torchvision", tmp_path / "out", bgr=True)
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(RequestError, match="exists"):
        write_export(export, "torchvision", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"mine"
