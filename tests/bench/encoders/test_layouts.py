from __future__ import annotations

import pytest

from bench.encoders.layouts import LAYOUTS, find_roots, looks_like_backbone, recognize, torchvision_names
from bench.errors import CheckpointError, UnknownNameError

BLOCKS = {f"layer{stage}.{block}.conv1.weight": (64, 64, 3, 3) for stage in (1, 2, 3, 4) for block in (0, 1)}
WIDE_STEM = {"conv1.weight": (64, 3, 7, 7), **BLOCKS}
SMALL_STEM = {"conv1.weight": (64, 3, 3, 3), **BLOCKS}
INDEXED = {f"{index}.{block}.conv1.weight": (64, 64, 3, 3) for index in (4, 5, 6, 7) for block in (0, 1)}


def under(prefix: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def test_every_backbone_of_a_file_is_found_with_its_prefix() -> None:
    keys = under("state_dict.module.encoder_q.", WIDE_STEM) | under("state_dict.module.encoder_k.", WIDE_STEM)
    roots = find_roots(keys | {"state_dict.module.queue": (128, 9)})
    assert [(root.prefix, root.place) for root in roots] == [
        ("state_dict.module.encoder_k.", "encoder_k."),
        ("state_dict.module.encoder_q.", "encoder_q."),
    ]


def test_a_head_with_one_numbered_layer_is_no_backbone() -> None:
    head = {"projector.0.0.conv1.weight": (3, 3), "projector.1.0.bn1.weight": (3,)}
    assert [root.prefix for root in find_roots(WIDE_STEM | head)] == [""]


@pytest.mark.parametrize(
    ("network", "prefix"), [("online", "query_backbone."), ("momentum", "backbone.")], ids=["online", "momentum"]
)
def test_the_network_that_is_trained_by_gradients_is_not_the_one_called_backbone(network: str, prefix: str) -> None:
    keys = under("backbone.", WIDE_STEM) | under("query_backbone.", WIDE_STEM) | {"projection_head.0.weight": (3, 3)}
    found = recognize(keys, network=network)  # type: ignore[arg-type]
    assert (found.layout.key, found.root.prefix) == ("lightly", prefix)
    assert found.why.startswith(f"{network} network, '{prefix}'")


def test_a_file_without_a_momentum_network_says_so() -> None:
    with pytest.raises(CheckpointError, match="no known layout keeps a momentum network where this file has a ResNet"):
        recognize(WIDE_STEM, network="momentum")
    with pytest.raises(CheckpointError, match="no known layout keeps a momentum network"):  # the online one is not it
        recognize(under("backbone.", WIDE_STEM) | {"projection_head.0.weight": (3, 3)}, network="momentum")


def test_layouts_that_give_the_same_encoder_may_be_confused() -> None:
    found = recognize(under("backbone.", WIDE_STEM))
    assert found.name == "vicreg or barlow_twins or solo-learn or lightly or mmselfsup"


def test_layouts_that_give_different_encoders_may_not() -> None:
    keys = under("backbone.", SMALL_STEM)
    with pytest.raises(CheckpointError, match=r"\(vicreg, barlow_twins, solo-learn, lightly, mmselfsup\).*--layout"):
        recognize(keys)
    assert recognize(keys, layout="solo-learn").layout.cifar_stem == "solo-learn"
    assert recognize(keys | {"classifier.weight": (10, 512)}).layout.key == "solo-learn"


def test_a_layout_that_does_not_fit_names_what_was_found() -> None:
    with pytest.raises(CheckpointError, match=r"moco keeps the online.*'encoder_q\.'.*under 'backbone\.' \(named\)"):
        recognize(under("backbone.", WIDE_STEM), layout="moco")
    with pytest.raises(UnknownNameError, match="Unknown layout 'mocov2'"):
        recognize(WIDE_STEM, layout="mocov2")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("blocks.0.attn.qkv.weight", "vision transformer"),
        ("res2_0_branch2a_w", "Caffe2"),
        ("resnet/~/initial_conv.w", "JAX"),
        ("features.0.weight", "ResNet-18, 34 and 50"),
    ],
)
def test_a_file_without_a_resnet_is_told_what_it_seems_to_be(key: str, hint: str) -> None:
    with pytest.raises(CheckpointError, match=f"none of its 1 tensors is a block of a ResNet.*{hint}"):
        recognize({key: (3, 3)})


def test_numbered_layers_are_told_by_their_tensors() -> None:
    keys = {"0.weight": (64, 3, 7, 7), "1.weight": (64,), "1.running_mean": (64,), "9.weight": (10, 512), **INDEXED}
    (root,) = find_roots(keys)
    names = torchvision_names(keys, root)
    assert (names["conv1.weight"], names["bn1.weight"]) == ("0.weight", "1.weight")
    assert names["layer1.0.conv1.weight"] == "4.0.conv1.weight" and names["layer4.1.conv1.weight"] == "7.1.conv1.weight"
    assert names["head9.weight"] == "9.weight" and not looks_like_backbone("head9.weight")


def test_two_keys_for_one_tensor_are_an_error() -> None:
    keys = WIDE_STEM | {"layer1.0.downsample.0.weight": (3, 3, 1, 1), "layer1.0.shortcut.0.weight": (3, 3, 1, 1)}
    with pytest.raises(CheckpointError, match=r"both stand for layer1\.0\.downsample\.0\.weight"):
        torchvision_names(keys, find_roots(keys)[0])


def test_the_command_line_offers_exactly_these_layouts() -> None:
    from typing import get_args

    from bench.cli_weights import LayoutName

    assert get_args(LayoutName) == ("auto", *LAYOUTS)
