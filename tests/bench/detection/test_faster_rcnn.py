"""Faster R-CNN with a feature pyramid on small encoders: it learns, and keeps what it must not touch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from bench.detection.batches import SceneBatches
from bench.detection.detector import Scene
from bench.detection.engines import build
from bench.detection.faster_rcnn import FasterRCNNDetector, build_faster_rcnn, chosen_stages
from bench.detection.recipes import check_engine
from bench.detection.training import Trained, train_detector
from bench.encoders.dense import Stage
from bench.encoders.encoder import Encoder
from bench.encoders.resnet import resnet18
from bench.errors import SpecError
from bench.protocol import Workspace

from .rectangles import built, dataset, encoder_of, recipe, task

ARCHITECTURE: Any = {"architecture": "faster_rcnn_fpn", "batch_size": 2, "reference_batch": 2}


def detector_of(*, frozen: bool = False, encoder: Encoder | None = None, **changes: Any) -> FasterRCNNDetector:
    torch.manual_seed(0)
    own = task(recipe(**ARCHITECTURE | changes), frozen=frozen, encoder=encoder)
    detector = build("torchvision", own).detector
    assert isinstance(detector, FasterRCNNDetector)
    return detector


def scenes(count: int = 2, **how: Any) -> list[Scene]:
    given = recipe(batch_size=count)
    return next(SceneBatches(dataset(**how).split("train"), given, seed=0, device="cpu").starting_at(0))


def trained(*, frozen: bool = False, encoder: Encoder | None = None, data: Any = None, **changes: Any) -> Trained:
    """With 32 regions of a scene, which is much faster."""
    torch.manual_seed(0)
    own = task(recipe(**ARCHITECTURE | changes), frozen=frozen, encoder=encoder)
    detector = FasterRCNNDetector(own.encoder.clone(), 3, own.recipe, frozen=frozen, regions=32)
    data = data or dataset()
    return train_detector(
        built(detector),
        own,
        data.split("train"),
        data.split("validation"),
        seed=0,
        trials=1,
        workspace=Workspace(),
    )


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_it_learns_colored_rectangles() -> None:
    encoder = encoder_of()
    before = copies(encoder.module)
    data, how = dataset((48, 16, 0), side=48), {"batch_size": 4, "reference_batch": 4, "lr": 3e-3, "warmup": 3}
    result = trained(encoder=encoder, data=data, optimizer="adamw", iterations=120, precise_bn=4, **how)
    # 88 to 95 and 50 to 58 over seeds.
    assert result.curve[-1]["ap50"] > 70, result.curve[-1]
    assert result.validation_ap is not None and result.validation_ap > 35
    assert not changed(encoder.module, before) and not encoder.module.training
    assert changed(result.detector.pyramid.backbone.backbone, before) >= set(dict(encoder.module.named_parameters()))  # type: ignore[union-attr]


def test_a_frozen_backbone_keeps_its_weights_and_statistics_while_the_rest_trains() -> None:
    encoder = encoder_of()
    before = copies(encoder.module)
    result = trained(encoder=encoder, frozen=True, iterations=2, precise_bn=1)
    backbone = result.detector.pyramid.backbone  # type: ignore[union-attr]
    assert not changed(backbone.backbone, before)  # type: ignore[union-attr]
    fresh = copies(detector_of(frozen=True))
    moved = changed(result.detector, fresh)
    assert moved == {name for name in fresh if not name.startswith(("pyramid.backbone.", "parts.backbone.backbone."))}
    assert not result.detector.train().pyramid.backbone.training  # type: ignore[union-attr]
    assert sum(p.numel() for g in result.detector.parameter_groups(result.recipe) for p in g["params"]) < sum(
        p.numel() for p in result.detector.parameters()
    )


def test_frozen_batch_norms_stay_while_the_convolutions_train() -> None:
    encoder = encoder_of()
    before = copies(encoder.module)
    result = trained(encoder=encoder, batch_norm="frozen", iterations=2)
    backbone = result.detector.pyramid.backbone.backbone  # type: ignore[union-attr]
    norms = {name for name, part in backbone.named_modules() if isinstance(part, nn.BatchNorm2d)}  # type: ignore[union-attr]
    moved = changed(backbone, before)  # type: ignore[arg-type]
    assert moved and not {name.rpartition(".")[0] for name in moved} & norms


def test_precise_statistics_are_the_mean_over_the_given_batches() -> None:
    detector = detector_of(precise_bn=2)
    first = next(part for part in detector.modules() if isinstance(part, nn.BatchNorm2d))
    batches = [scenes(seed=1), scenes(seed=2)]
    detector.train().losses(scenes(seed=3))  # a training went before, which is forgotten
    inputs: list[Tensor] = []
    handle = first.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    detector.finish(lambda count: batches[:count])
    handle.remove()
    assert len(inputs) == 2 and first.momentum == 0.1
    assert first.running_mean is not None and first.running_var is not None
    torch.testing.assert_close(first.running_mean, torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs]).mean(dim=0))
    torch.testing.assert_close(first.running_var, torch.stack([x.var(dim=(0, 2, 3)) for x in inputs]).mean(dim=0))


def test_the_first_class_is_no_background() -> None:
    """A head that is certain of output 1 finds class 0; output 0 is the background and finds nothing."""
    detector = detector_of().eval()
    for output, labels in ((1, {0}), (3, {2}), (0, set())):
        score = detector.parts.roi_heads.box_predictor.cls_score
        nn.init.zeros_(score.weight)
        with torch.no_grad():
            score.bias.copy_(20.0 * (torch.arange(4) == output))
        (found,) = detector.detect(scenes(1))
        assert set(found.labels.tolist()) == labels


def test_what_is_found_does_not_depend_on_the_other_scenes() -> None:
    detector = detector_of(score_threshold=0.0, detections=7).eval()
    small, large = scenes(2, side=33)[0], scenes(2, side=64)[1]
    together = detector.detect([small, large])
    for found, (alone,) in zip(together, (detector.detect([small]), detector.detect([large])), strict=True):
        assert np.array_equal(found.boxes, alone.boxes) and np.array_equal(found.scores, alone.scores)
        assert len(found.scores) == 7 and (np.diff(found.scores) <= 0).all()
        assert found.boxes.dtype == found.scores.dtype == np.float32 and found.labels.dtype == np.int64
    assert together[0].boxes.max() <= 33


def test_the_least_score_counts() -> None:
    assert len(detector_of(score_threshold=0.99).eval().detect(scenes(1))[0].scores) == 0


def test_regions_of_a_class_overlap_at_most_as_the_recipe_says() -> None:
    """At a threshold of 0 for the score, what is found would overlap ever more without suppression."""
    most = {}
    for threshold in (0.2, 0.5, 0.8):
        detector = detector_of(score_threshold=0.0, nms_threshold=threshold).eval()
        (found,) = detector.detect(scenes(1))
        boxes, labels = torch.from_numpy(found.boxes), torch.from_numpy(found.labels)
        overlaps = box_iou(boxes, boxes).fill_diagonal_(0)[labels[:, None] == labels]
        most[threshold] = float(overlaps.max())
        assert most[threshold] <= threshold + 1e-6
    assert most[0.5] > 0.2 and most[0.8] > 0.5


def test_scenes_keep_their_size_and_are_normalized_once_by_the_encoder() -> None:
    detector = detector_of()
    given = [scenes(1, side=33)[0], scenes(1, side=61)[0]]
    images = detector._images(given)
    assert images.image_sizes == [(33, 33), (61, 61)] and tuple(images.tensors.shape) == (2, 3, 64, 64)
    torch.testing.assert_close(images.tensors[0, :, :33, :33], (given[0].pixels - 0.45) / 0.25)
    assert not images.tensors[0, :, 33:].any() and not images.tensors[0, :, :, 33:].any()


def test_anchors_and_pooling_follow_the_strides_of_the_backbone() -> None:
    small = detector_of()
    assert small.pyramid.strides == (2, 4, 8) and small.anchor_sides == (16, 32, 64)
    usual = detector_of(encoder=encoder_of(resnet18(3, stem="imagenet"), width=512))
    assert usual.pyramid.strides == (4, 8, 16, 32, 64) and usual.anchor_sides == (32, 64, 128, 256, 512)
    assert usual.pyramid.out_channels == 256
    usual.eval().detect(scenes(1, side=33))  # one position on the coarsest map: sizes do not tell the strides
    assert usual.parts.roi_heads.box_roi_pool.scales == [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    assert usual.parts.roi_heads.fg_bg_sampler.batch_size_per_image == 512
    assert usual.parts.rpn.anchor_generator.num_anchors_per_location() == [3] * 5
    fine = detector_of(encoder=encoder_of(resnet18(3, stem="cifar"), width=512))
    assert fine.pyramid.strides == (2, 4, 8, 16)


def test_maps_with_a_position_for_every_pixel_are_left_out_unless_there_are_no_others() -> None:
    one, two, six = Stage(channels=4, stride=1), Stage(channels=4, stride=2), Stage(channels=4, stride=6)
    assert chosen_stages([one, two]) == (two,) and chosen_stages([one]) == (one,)
    with pytest.raises(SpecError, match=r"strides double, the backbone has \[2, 6\].*single_stage"):
        chosen_stages([one, two, six])


def test_the_losses_of_proposals_have_their_weight() -> None:
    def losses(**changes: Any) -> dict[str, float]:
        detector = detector_of(**changes).train()
        torch.manual_seed(1)
        return {name: value.item() for name, value in detector.losses(scenes()).items()}

    usual, light = losses(), losses(rpn_loss_weight=0.25)
    assert list(usual) == ["objectness", "proposal", "class", "box"]
    for name, factor in (("objectness", 0.25), ("proposal", 0.25), ("class", 1), ("box", 1)):
        assert light[name] == pytest.approx(factor * usual[name], rel=1e-5) and usual[name] > 0


def test_gray_scenes_enter_an_encoder_of_color_and_one_of_gray() -> None:
    given = [replace(scene, pixels=scene.pixels[:1]) for scene in scenes()]
    for channels in (1, 3):
        detector = detector_of(encoder=encoder_of(channels=channels)).train()
        assert all(term.isfinite() for term in detector.losses(given).values())
        assert detector._images(given).tensors.shape[1] == channels


def test_it_builds_nothing_else() -> None:
    with pytest.raises(SpecError, match="asked to build single_stage"):
        build_faster_rcnn(task(recipe(architecture="single_stage")))
    with pytest.raises(SpecError, match="engine torchvision has no architecture 'mask_rcnn_fpn'"):
        check_engine("torchvision", "mask_rcnn_fpn")
    details = build_faster_rcnn(task(recipe(**ARCHITECTURE))).details
    assert details["anchor_sides"] == [16, 32, 64] and details["width"] == 32 and details["parameters"] > 10_000
