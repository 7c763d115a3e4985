"""Detectors of Detectron2; without it these tests are skipped."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.detection.detector import Built, Detector, Found, Scene, Task
from bench.detection.detectron2_config import Setting
from bench.detection.recipes import DetectionRecipe, changed, find_recipe
from bench.detection.resizing import decoded
from bench.detection.training import Trained, train_detector
from bench.encoders.encoder import Encoder
from bench.errors import CheckpointError, DataError, JobError, SpecError
from bench.protocol import Workspace
from bench.training.checkpoint import CheckpointFile
from protocols.detection import Detection

from .residual import residual_encoder
from .squares import as_scenes, squares

pytestmark = [
    pytest.mark.skipif(find_spec("detectron2") is None, reason="Detectron2 is not installed"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
]

FEW = {
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 32,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 16,
}
"""Fewer regions than published, which one core computes in a second."""


@pytest.fixture(scope="module")
def engine() -> Any:
    return importlib.import_module("bench.detection.detectron2_engine")


@pytest.fixture
def altered(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets further keys of the configuration: ``altered(key=value)``."""
    original = engine.detectron2_config

    def alter(settings: dict[str, Any]) -> None:
        def config(*arguments: Any, **given: Any) -> tuple[Setting, ...]:
            kept = (setting for setting in original(*arguments, **given) if setting.key not in settings)
            return (*kept, *(Setting(key, value, "this test") for key, value in settings.items()))

        monkeypatch.setattr(engine, "detectron2_config", config)

    return alter


def task(encoder: Encoder, recipe: str = "voc07+12", **changes: Any) -> Task:
    frozen = changes.pop("frozen", False)
    own = replace(find_recipe(recipe), **changes)
    return Task(encoder=encoder, class_names=("red", "blue"), recipe=own, frozen=frozen, device="cpu")


# --- conversion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("recipe", ["voc07+12", "coco_c4_1x", "coco_fpn_1x"])
@pytest.mark.parametrize("key", ["resnet18", "resnet34", "resnet50"])
def test_converted_features_equal_the_encoders(engine: Any, key: str, recipe: str, order: str) -> None:
    encoder = residual_encoder(key)
    report = engine.build_detectron2(task(encoder, recipe), order=order).details["conversion"]
    assert list(report["differences"]) == ["res2", "res3", "res4", "res5"]
    assert max(report["differences"].values()) < 1e-5
    assert report["tensors"] == {"resnet18": 100, "resnet34": 180, "resnet50": 265}[key]
    assert report["channel_order"] == order


@pytest.mark.parametrize("recipe", ["voc07+12", "coco_fpn_1x"])
def test_gray_encoders_keep_their_one_channel(engine: Any, recipe: str) -> None:
    built = engine.build_detectron2(task(residual_encoder(channels=1), recipe))
    assert max(built.details["conversion"]["differences"].values()) < 1e-5
    assert built.details["conversion"]["channel_order"] == "gray"
    scene = replace(as_scenes(squares(1, channels=1))[0])
    built.detector.train()
    assert all(torch.isfinite(loss) for loss in built.detector.losses([scene, scene]).values())
    with pytest.raises(DataError, match="scenes have 3 channels, and the encoder takes 1"):
        built.detector.losses(as_scenes(squares(1)))


def test_gray_scenes_are_spread_over_the_channels_of_a_color_encoder(engine: Any) -> None:
    encoder = residual_encoder()
    detector = engine.build_detectron2(task(encoder)).detector
    gray = as_scenes(squares(1, channels=1))[0].pixels
    found = detector.model.preprocess_image([{"image": detector._image(gray)}]).tensor
    assert torch.allclose(found, encoder.standardize(gray[None]), atol=1e-5)


@pytest.mark.parametrize("recipe", ["voc07+12", "coco_fpn_1x"])
@pytest.mark.parametrize("name", ["layer2.0.downsample.0.weight", "layer4.1.bn2.weight"])
def test_an_encoder_without_one_tensor_fails_with_its_name(engine: Any, recipe: str, name: str) -> None:
    encoder = residual_encoder()
    owner, last = name.rsplit(".", 1)
    delattr(encoder.module.get_submodule(owner), last)
    with pytest.raises(CheckpointError, match=rf"lacks .*\({name}\)"):
        engine.build_detectron2(task(encoder, recipe))


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"MODEL.RESNETS.STRIDE_IN_1X1": True}, "res2 by [0-9.]+e-0[78], res3 by 0"),
        ({"MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675]}, "res2 by 0"),
        ({"MODEL.PIXEL_STD": [1.0, 1.0, 1.0]}, "res2 by [0-9]"),
    ],
)
def test_a_model_that_computes_something_else_fails(
    engine: Any, altered: Any, settings: dict[str, Any], first: str
) -> None:
    altered(settings)
    with pytest.raises(JobError, match=f"differ in {first}"):
        engine.build_detectron2(task(residual_encoder("resnet50"), "coco_fpn_1x"))


def test_backbones_that_detectron2_lacks_are_refused(engine: Any) -> None:
    with pytest.raises(SpecError, match="needs a ResNet"):
        engine.build_detectron2(task(residual_encoder("convnet")))
    with pytest.raises(SpecError, match="no such stem"):
        engine.build_detectron2(task(residual_encoder(stem="cifar")))


def test_the_encoder_itself_is_not_touched(engine: Any) -> None:
    encoder = residual_encoder()
    before = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    built = engine.build_detectron2(task(encoder))
    built.detector.train()
    sum(built.detector.losses(as_scenes(squares(2))).values()).backward()
    with torch.no_grad():
        for parameter in built.detector.parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.module.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.module.parameters())


# --- training ---------------------------------------------------------------------------------------------------


def trained_once(detector: Detector, recipe: DetectionRecipe, scenes: list[Scene]) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(detector.parameter_groups(recipe), lr=recipe.applied_lr)
    detector.train()
    losses = detector.losses(scenes)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    return losses


@pytest.mark.parametrize(
    ("recipe", "encoders", "new"),
    [
        ("voc07+12", ("model.backbone.", "model.roi_heads.res5."), "model.roi_heads.res5.norm."),
        ("coco_fpn_1x", ("model.backbone.bottom_up.",), "model.backbone.fpn_lateral2.weight"),
    ],
)
def test_a_frozen_backbone_keeps_its_weights_and_statistics(
    engine: Any, altered: Any, recipe: str, encoders: tuple[str, ...], new: str
) -> None:
    altered(FEW)
    own = task(residual_encoder(), recipe, frozen=True)
    built: Built = engine.build_detectron2(own)
    before = {name: tensor.clone() for name, tensor in built.detector.state_dict().items()}
    trained_once(built.detector, own.recipe, as_scenes(squares(2)))
    after = built.detector.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name for name in moved if name.startswith(encoders) and not name.startswith(new)} == set()
    assert any(name.startswith(new) for name in moved)
    assert any("res5 included" in note for note in built.details["engine_notes"])


def test_a_trained_backbone_moves_from_the_stem_on(engine: Any, altered: Any) -> None:
    altered(FEW)
    own = task(residual_encoder())
    detector = engine.build_detectron2(own).detector
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    losses = trained_once(detector, own.recipe, as_scenes(squares(2)))
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    for name in (
        "backbone.stem.conv1.weight",
        "backbone.stem.conv1.norm.weight",
        "backbone.stem.conv1.norm.running_mean",
        "roi_heads.res5.1.conv2.weight",
        "roi_heads.res5.norm.running_var",
    ):
        assert not torch.equal(before[f"model.{name}"], detector.state_dict()[f"model.{name}"]), name


def test_groups_decay_all_but_normalization_at_the_scaled_rate(engine: Any) -> None:
    own = task(residual_encoder(), batch_size=4, weight_decay=3e-4)
    detector = engine.build_detectron2(own).detector
    names = {id(parameter): name for name, parameter in detector.named_parameters()}
    decays = {}
    for group in detector.parameter_groups(own.recipe):
        assert group["lr"] == pytest.approx(0.02 * 4 / 16)
        decays |= {names[id(parameter)]: group["weight_decay"] for parameter in group["params"]}
    assert set(decays) == set(names.values())
    assert {name for name, decay in decays.items() if decay == 0} == {name for name in decays if ".norm." in name}
    assert set(decays.values()) == {0.0, 3e-4}
    everything = detector.parameter_groups(replace(own.recipe, decay_norm=True))
    assert {group["weight_decay"] for group in everything} == {3e-4}


@pytest.mark.parametrize("name", ["voc07+12", "coco_fpn_2x", "voc07+12_vicreg"])
def test_the_rate_follows_detectron2s_schedule(engine: Any, name: str) -> None:
    from detectron2.solver import build_lr_scheduler

    recipe, _ = changed(find_recipe(name), iterations=600)
    recipe = replace(recipe, warmup=90)
    configuration = engine.merged(
        engine.detectron2_config(recipe, depth=50, num_classes=2, mean=(0.5,), std=(0.2,), frozen=False)
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.applied_lr)
    scheduler = build_lr_scheduler(configuration, optimizer)
    for iteration in range(600):
        rate = optimizer.param_groups[0]["lr"]
        assert rate == pytest.approx(recipe.applied_lr * recipe.factor(iteration), rel=1e-6), iteration
        optimizer.step()
        scheduler.step()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_come_as_polygons_or_as_bits_and_boxes_of_no_width_are_left_out(engine: Any, altered: Any) -> None:
    altered(FEW)
    detector = engine.build_detectron2(task(residual_encoder(), "coco_fpn_1x")).detector.train()
    first, second = as_scenes(squares(2))
    bits = np.zeros((64, 64), dtype=bool)
    left, top, right, bottom = (int(value) for value in second.boxes[0])
    bits[top:bottom, left:right] = True
    mixed = replace(second, masks=(bits, second.masks[1]))
    assert type(detector._labelled(first)["instances"].gt_masks).__name__ == "PolygonMasks"
    found = detector._labelled(mixed)["instances"].gt_masks
    assert type(found).__name__ == "BitMasks"
    # Polygons are drawn by pycocotools here, which covers the same pixels of a square on whole pixels.
    assert found.tensor.sum(dim=(1, 2)).tolist() == [24 * 24, 24 * 24]
    assert "loss_mask" in detector.losses([first, mixed])
    thin = replace(first, boxes=first.boxes.clone())
    thin.boxes[1, 2] = thin.boxes[1, 0]
    assert detector._labelled(thin)["instances"].gt_classes.tolist() == [0]
    pointless = replace(first, masks=([np.array([1.0, 1.0, 2.0, 2.0])], first.masks[1]))
    assert detector._labelled(pointless)["instances"].gt_classes.tolist() == [1]
    with pytest.raises(DataError, match="boxes without masks"):
        detector.losses([replace(first, masks=())])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_are_pasted_at_the_original_size_and_not_shrunk_to_it(engine: Any, altered: Any) -> None:
    altered({**FEW, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0})
    detector = engine.build_detectron2(task(residual_encoder(), "coco_fpn_1x")).detector.eval()
    scene = as_scenes(squares(1))[0]  # of 64 pixels
    found, original = detector.detect([scene])[0], detector.detect_at(scene, (16, 24))
    assert len(original.masks) and {tuple(json.loads(mask)["size"]) for mask in original.masks} == {(16, 24)}
    assert found.scores[: len(original.scores)] == pytest.approx(original.scores)
    assert original.boxes[:, [0, 2]].max() <= 24 and original.boxes[:, [1, 3]].max() <= 16
    instances = detector.model.inference([{"image": detector._image(scene.pixels), "height": 16, "width": 24}])
    pasted = instances[0]["instances"].pred_masks.sum(dim=(1, 2)).tolist()
    assert [int(decoded(json.loads(mask)).sum()) for mask in original.masks] == pasted


def test_precise_statistics_are_means_over_the_batches(engine: Any, altered: Any) -> None:
    altered(FEW)
    built = engine.build_detectron2(task(residual_encoder(), precise_bn=3))
    detector = built.detector
    scenes = as_scenes(squares(6))
    batches = [scenes[start : start + 2] for start in (0, 2, 4)]
    asked: list[int] = []

    def some(count: int) -> list[list[Scene]]:
        asked.append(count)
        return batches

    detector.finish(some)
    assert asked == [3]
    stem = detector.model.backbone.stem.conv1
    images = [detector.model.preprocess_image([{"image": detector._image(scene.pixels)}]).tensor for scene in scenes]
    with torch.no_grad():
        convolved = torch.nn.functional.conv2d(torch.cat(images), stem.weight, stride=2, padding=3)
    assert torch.allclose(stem.norm.running_mean, convolved.mean(dim=(0, 2, 3)), atol=1e-5)
    # The variance over all batches: within a batch and between their means.
    assert torch.allclose(stem.norm.running_var, convolved.var(dim=(0, 2, 3), unbiased=False), rtol=1e-4)
    untouched = engine.build_detectron2(task(residual_encoder(), precise_bn=0)).detector
    untouched.finish(some)
    assert asked == [3]


class KilledError(Exception):
    pass


def test_a_killed_training_goes_on_to_the_same_weights(engine: Any, altered: Any, tmp_path: Path) -> None:
    altered(FEW)
    own = task(residual_encoder(), iterations=4, batch_size=2, sides=(64,), warmup=0, precise_bn=1)
    own = replace(own, recipe=replace(own.recipe, test_side=64))
    data = squares()

    def train(seed: int, *, kill: bool = False, file: CheckpointFile | None = None) -> tuple[Detector, Trained]:
        def report(done: int, total: int, text: str) -> None:
            if kill and done == 3:
                raise KilledError

        torch.manual_seed(seed)  # of the parts that are new
        built = engine.build_detectron2(own)
        trained = train_detector(
            built,
            own,
            data.split("train"),
            data.split("validation"),
            seed=3,
            trials=1,
            workspace=Workspace(checkpoint=file, report=report),
        )
        return built.detector, trained

    straight, whole = train(0)
    file = CheckpointFile(path=tmp_path / "detection.ckpt", identity="this", every_seconds=0.0)
    with pytest.raises(KilledError):
        train(0, kill=True, file=file)
    again, resumed = train(1, file=file)
    assert resumed.details["resumed_at"] == [2]
    found = again.state_dict()
    assert all(torch.equal(found[name], value) for name, value in straight.state_dict().items())
    assert [row["total"] for row in resumed.curve] == [row["total"] for row in whole.curve]
    assert resumed.validation_ap == whole.validation_ap


# --- detection --------------------------------------------------------------------------------------------------


def test_what_is_found_is_in_the_given_pixels_best_first(engine: Any, altered: Any) -> None:
    altered({**FEW, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0})
    detector = engine.build_detectron2(task(residual_encoder(), "coco_fpn_1x")).detector.eval()
    scenes = as_scenes(squares(2))
    small = replace(scenes[0], pixels=scenes[0].pixels[:, :40, :56])
    together = detector.detect([scenes[0], scenes[1]])
    found: Found = detector.detect([small])[0]
    assert len(found.boxes) > 3
    assert (np.diff(found.scores) <= 0).all() and found.labels.dtype == np.int64
    assert (found.boxes >= 0).all() and found.boxes[:, [0, 2]].max() <= 56 and found.boxes[:, [1, 3]].max() <= 40
    assert len(found.masks) == len(found.boxes)
    assert json.loads(found.masks[0])["size"] == [40, 56]
    for one, both in zip((detector.detect([scene])[0] for scene in scenes), together, strict=True):
        assert np.allclose(one.boxes, both.boxes, atol=1e-3) and np.allclose(one.scores, both.scores, atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "metrics"),
    [("voc07+12", {"ap", "ap50", "ap75"}), ("coco_fpn_1x", {"ap", "ap50", "ap75", "mask_ap", "mask_ap50"})],
)
def test_a_whole_run_converts_trains_and_evaluates(
    altered: Any, monkeypatch: pytest.MonkeyPatch, recipe: str, metrics: set[str]
) -> None:
    from bench.detection.recipes import RECIPES

    altered(FEW)
    monkeypatch.setitem(RECIPES, "brief", replace(find_recipe(recipe), precise_bn=4, lr=0.05))
    protocol = Detection(
        engine="detectron2", recipe="brief", iterations=20, batch_size=2, sides=(64,), trials=1, pictures=1
    )
    outcome = protocol.evaluate(residual_encoder("resnet50"), squares(), seed=0, device="cpu")
    values = {score.metric.key: score.value for score in outcome.scores}
    assert all(0 <= values[key] <= 100 for key in metrics)
    assert len(outcome.predictions) == 4
    details = outcome.details
    assert details["engine_version"].startswith("Detectron2 ")
    assert max(details["conversion"]["differences"].values()) < 1e-5
    configuration = {item["key"]: item["value"] for item in details["configuration"]}
    assert configuration["SOLVER.MAX_ITER"] == 20 and configuration["MODEL.ROI_HEADS.NUM_CLASSES"] == 2
    curve = details["curve"]
    assert curve[-1]["iteration"] == 20 and "ap" in curve[-1]
    assert curve[-1]["total"] < curve[0]["total"]
    json.dumps(details)
