from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bench.detection.detector import Scene, Task
from bench.detection.engines import build
from bench.detection.products import head_products
from bench.detection.recipes import changed, find_recipe
from bench.encoders.build import build_backbone, make_encoder
from bench.registry import discover

SIDE = 128


def counted(architecture: str, backbone: str, **params: object) -> tuple[float, float, int]:
    """1e9 products behind the backbone on one scene, in training and in evaluation, and the backbone's width."""
    entry = discover().backbones[backbone]
    module = build_backbone(entry, entry.complete(params), channels=3, seed=0)
    encoder = make_encoder(
        module, channels=3, image_size=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.3,) * 3, origin="", identity=""
    )
    recipe, _ = changed(find_recipe("small"), architecture=architecture)
    task = Task(encoder=encoder, class_names=("a", "b", "c"), recipe=recipe, frozen=False, device="cpu")
    detector = build("torchvision", task).detector
    inside = {id(part) for name, part in detector.named_modules() if ".layer" in name or "blocks" in name}
    inside |= {id(part) for part in detector.modules() if isinstance(part, nn.Conv2d) and part.in_channels == 3}
    products = 0.0

    def count(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal products
        shape = part.weight.shape
        places = output.numel() // shape[0]
        products += places * math.prod(shape) / 1e9

    for part in detector.modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and id(part) not in inside:
            part.register_forward_hook(count)
    boxes = torch.tensor([[10.0, 10.0, 60.0, 60.0], [50.0, 50.0, 100.0, 110.0]])
    scene = Scene(pixels=torch.rand(3, SIDE, SIDE), boxes=boxes, labels=torch.tensor([0, 2]))
    with torch.no_grad():
        detector.train().losses([scene])
        trained, products = products, 0.0
        detector.eval().detect([scene])
    return trained, products, int(module.feature_dim)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [("single_stage", "convnet"), ("faster_rcnn_fpn", "resnet18")],
)
def test_the_products_of_the_heads_are_those_that_are_computed(architecture: str, backbone: str) -> None:
    recipe, _ = changed(find_recipe("small"), architecture=architecture)
    trained, tested, width = counted(architecture, backbone)
    found = head_products(recipe, classes=3, feature_dim=width)
    assert found.by_pixel * SIDE**2 + found.trained == pytest.approx(trained, rel=0.4)
    # at most 1000 regions are looked at: a small scene has fewer
    assert 0.6 * tested < found.by_pixel * SIDE**2 + found.tested < 6 * tested


def test_regions_cost_a_last_stage_each_with_c4_and_masks_come_on_top() -> None:
    c4, mask = (find_recipe(key) for key in ("voc07+12", "coco_c4_1x"))
    products = head_products(c4, classes=20, feature_dim=2048)
    assert products.trained == pytest.approx(512 * 0.81) and products.tested == pytest.approx(1000 * 0.81)
    assert head_products(mask, classes=80, feature_dim=2048).trained > products.trained
    pyramid = head_products(find_recipe("coco_fpn_1x"), classes=80, feature_dim=2048)
    assert pyramid.trained == pytest.approx(512 * 0.0138936 + 128 * 0.51380, rel=1e-3)
