from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from bench.detection.conversion import (
    STAGES,
    Placement,
    check_features,
    converted,
    load_backbone,
    resnet_depth,
    sample_scene,
)
from bench.encoders.dense import DenseBackbone
from bench.encoders.encoder import Encoder
from bench.errors import CheckpointError, JobError, SpecError

from .residual import residual_encoder

C4 = Placement(trunk="backbone.", head="roi_heads.res5.", blocks=2)
FPN = Placement(trunk="backbone.bottom_up.", head=None, blocks=2)


def detector_of(names: Mapping[str, Tensor]) -> nn.Module:
    """A module with tensors of these names and shapes, all zero."""
    root = nn.Module()
    for name, tensor in names.items():
        *path, last = name.split(".")
        owner = root
        for step in path:
            if not hasattr(owner, step):
                owner.add_module(step, nn.Module())
            owner = owner.get_submodule(step)
        owner.register_buffer(last, torch.zeros_like(tensor))
    return root


def c4_detector(tensors: Mapping[str, Tensor]) -> nn.Module:
    own = {C4.target(name): tensor for name, tensor in tensors.items()}
    heads = {"roi_heads.res5.norm.weight": torch.zeros(3), "proposal_generator.conv.weight": torch.zeros(3)}
    return detector_of({**own, **heads})


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return converted(residual_encoder().module.state_dict())


def test_every_tensor_lands_under_detectron2s_name(tensors: dict[str, Tensor]) -> None:
    state = residual_encoder().module.state_dict()
    model = c4_detector(tensors)
    report = load_backbone(model, tensors, C4)
    found = model.state_dict()
    for ours, theirs in {
        "conv1.weight": "backbone.stem.conv1.weight",
        "bn1.running_var": "backbone.stem.conv1.norm.running_var",
        "layer1.0.conv2.weight": "backbone.res2.0.conv2.weight",
        "layer2.0.downsample.0.weight": "backbone.res3.0.shortcut.weight",
        "layer2.0.downsample.1.running_mean": "backbone.res3.0.shortcut.norm.running_mean",
        "layer3.1.bn2.bias": "backbone.res4.1.conv2.norm.bias",
        "layer4.1.bn1.running_mean": "roi_heads.res5.1.conv1.norm.running_mean",
    }.items():
        assert torch.equal(found[theirs], state[ours]), ours
    given = [name for name in state if not name.endswith("num_batches_tracked")]
    assert report["tensors"] == len(given) == 100
    assert report["values"] == sum(state[name].numel() for name in given)
    assert report["left_out"].startswith("20 counters")
    assert not found["roi_heads.res5.norm.weight"].any() and not found["proposal_generator.conv.weight"].any()


def test_all_stages_go_below_the_pyramid_where_there_is_one(tensors: dict[str, Tensor]) -> None:
    model = detector_of({FPN.target(name): tensor for name, tensor in tensors.items()})
    load_backbone(model, tensors, FPN)
    found = model.state_dict()["backbone.bottom_up.res5.1.conv1.weight"]
    assert torch.equal(found, residual_encoder().module.state_dict()["layer4.1.conv1.weight"])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("layer3.1.bn2.running_var", "backbone.res4.1.conv2.norm.running_var"),
        ("conv1.weight", "backbone.stem.conv1.weight"),
        ("layer2.0.downsample.1.bias", "backbone.res3.0.shortcut.norm.bias"),
        ("layer4.0.downsample.0.weight", "roi_heads.res5.0.shortcut.weight"),
    ],
)
def test_a_tensor_that_is_missing_is_named_and_nothing_is_loaded(
    tensors: dict[str, Tensor], name: str, place: str
) -> None:
    state = residual_encoder().module.state_dict()
    del state[name]
    model = c4_detector(tensors)
    with pytest.raises(CheckpointError, match=rf"lacks {place} \({name}\)\. Nothing was loaded"):
        load_backbone(model, converted(state), C4)
    assert not any(tensor.any() for tensor in model.state_dict().values())


def test_a_tensor_without_a_place_and_one_of_another_shape_are_named(tensors: dict[str, Tensor]) -> None:
    model = c4_detector(tensors)
    further = {**tensors, "res4.7.conv1.weight": torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"no place for backbone\.res4\.7\.conv1\.weight"):
        load_backbone(model, further, C4)
    gray = {**tensors, "stem.conv1.weight": torch.ones(64, 1, 7, 7)}
    with pytest.raises(CheckpointError, match=r"conv1\.weight is \(64, 1, 7, 7\), the detector's \(64, 3, 7, 7\)"):
        load_backbone(model, gray, C4)


def test_counters_of_batches_are_neither_asked_for_nor_copied(tensors: dict[str, Tensor]) -> None:
    kept = {name: tensor for name, tensor in tensors.items() if "num_batches_tracked" not in name}
    model = c4_detector(tensors)  # has counters, as a trained batch normalization does; a frozen one has none
    assert load_backbone(model, kept, C4)["tensors"] == 100
    assert load_backbone(c4_detector(kept), tensors, C4)["tensors"] == 100


def test_the_stem_alone_is_turned_for_blue_first(tensors: dict[str, Tensor]) -> None:
    turned = converted(residual_encoder().module.state_dict(), order="BGR")
    assert torch.equal(turned["stem.conv1.weight"], tensors["stem.conv1.weight"][:, [2, 1, 0]])
    assert all(torch.equal(turned[name], tensors[name]) for name in tensors if name != "stem.conv1.weight")


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_the_depth_is_read_from_the_blocks(depth: int) -> None:
    assert resnet_depth(residual_encoder(f"resnet{depth}")) == depth


def test_what_detectron2_cannot_have_is_refused_with_the_reason() -> None:
    with pytest.raises(SpecError, match="needs a ResNet, and this encoder is a ConvNet"):
        resnet_depth(residual_encoder("convnet"))
    for stem in ("cifar", "solo-learn"):
        with pytest.raises(SpecError, match="Detectron2 has no such stem"):
            resnet_depth(residual_encoder(stem=stem))
    wide = replace(residual_encoder(), module=models.wide_resnet50_2())
    with pytest.raises(SpecError, match="no ResNet of this encoder's widths"):
        resnet_depth(wide)


def maps_of(encoder: Encoder, pixels: Tensor) -> dict[str, Tensor]:
    module = encoder.module.eval()
    with torch.no_grad():
        found = DenseBackbone(module, channels=encoder.channels)(encoder.standardize(pixels))
    return dict(zip(STAGES, found, strict=True))


def test_equal_features_pass_and_their_differences_are_reported() -> None:
    encoder = residual_encoder()
    encoder.module.train()
    assert check_features(encoder, lambda pixels: maps_of(encoder, pixels)) == dict.fromkeys(STAGES, 0.0)


def test_the_sample_scene_tells_channels_and_sides_apart() -> None:
    scene = sample_scene(3)
    assert scene.shape == (1, 3, 96, 160)
    assert not torch.equal(scene, scene.flip(1)) and not torch.equal(scene, scene.flip(3))
    assert torch.equal(scene, sample_scene(3))


def test_other_features_fail_with_the_stages_and_the_differences() -> None:
    encoder = residual_encoder()
    with pytest.raises(JobError, match=r"differ in res2 by .*, res3 by .*, res4 by .*, res5 by .* of the largest"):
        check_features(encoder, lambda pixels: maps_of(encoder, pixels.flip(1)))

    def slightly(pixels: Tensor) -> dict[str, Tensor]:
        maps = maps_of(encoder, pixels)
        return {**maps, "res4": maps["res4"] + 2e-5 * maps["res4"].abs().max()}

    with pytest.raises(JobError, match=r"res3 by 0, res4 by 2e-05, res5 by 0"):
        check_features(encoder, slightly)
    with pytest.raises(JobError, match="res5 by nan"):
        check_features(encoder, lambda pixels: {"res5": maps_of(encoder, pixels)["res5"] * float("nan")})
    with pytest.raises(JobError, match="res5 by inf"):
        check_features(encoder, lambda pixels: {"res5": maps_of(encoder, pixels)["res5"][..., :-1]})
    with pytest.raises(JobError, match="all stages"):
        check_features(encoder, lambda _: {})
