"""Faster R-CNN with a feature pyramid, of torchvision's parts, on any encoder.

Sources: Ren et al. 2015, Faster R-CNN (arXiv:1506.01497); Lin et al. 2017, feature pyramid networks (arXiv:1612.03144),
sections 3 and 4: on every level anchors of one size and three shapes, a coarser level for proposals alone, regions
pooled from the level that fits their size.

Where the backbone's strides are those of ImageNet (4, 8, 16, 32), everything is torchvision's usual detector. A
backbone with a finer stem is made for small images, whose objects are small too: anchors follow the strides, and maps
with a position for every pixel are left out, which would cost more than all others together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from bench.detection.detector import Built, Detector, Found, Scene, Task
from bench.detection.precise_norm import recompute_statistics
from bench.detection.recipes import DetectionRecipe
from bench.encoders.dense import DenseBackbone, Stage
from bench.encoders.encoder import Encoder
from bench.errors import SpecError
from bench.training.layout import channels_last, to_channels_last

ANCHOR_STRIDES = 8
"""Side of a level's anchors in strides: 32 pixels at stride 4, as in section 4.1 of the pyramid's paper."""
RATIOS = (0.5, 1.0, 2.0)
MOST_WIDTH = 256
"""Channels of the pyramid; less where the backbone has less."""
POOLED = 7


class FasterRCNNDetector(Detector):
    """See the module.

    Args:
        encoder: its module becomes part of the detector; give a copy.
        classes: K.
        recipe: its thresholds decide what counts as found, ``batch_norm`` what the backbone's normalization does.
        frozen: the backbone keeps its weights and statistics.
        regions: of each scene that the classifier of regions learns from; 512 in the pyramid's paper.
    """

    def __init__(
        self, encoder: Encoder, classes: int, recipe: DetectionRecipe, *, frozen: bool, regions: int = 512
    ) -> None:
        super().__init__()
        self.encoder, self.recipe, self.frozen = encoder, recipe, frozen
        self.pyramid = _Pyramid(DenseBackbone(encoder.module, channels=encoder.channels), frozen=frozen)
        self.anchor_sides = tuple(ANCHOR_STRIDES * stride for stride in self.pyramid.strides)
        if recipe.batch_norm == "frozen":
            for norm in self.backbone_norms():
                norm.requires_grad_(False)
        width = self.pyramid.out_channels
        self.parts = FasterRCNN(
            self.pyramid,
            rpn_anchor_generator=AnchorGenerator(
                tuple((side,) for side in self.anchor_sides), (RATIOS,) * len(self.anchor_sides)
            ),
            box_roi_pool=_pool(self.pyramid.stages),
            box_head=TwoMLPHead(width * POOLED**2, 4 * width),
            box_predictor=FastRCNNPredictor(4 * width, classes + 1),  # 0: background
            box_score_thresh=recipe.score_threshold,
            box_nms_thresh=recipe.nms_threshold,
            box_detections_per_img=recipe.detections,
            box_batch_size_per_image=regions,
        )
        del self.parts.transform  # scenes come resized and are normalized by the encoder

    def backbone_norms(self) -> Iterator[nn.Module]:
        """Batch norms of the backbone."""
        return (part for part in self.pyramid.backbone.modules() if isinstance(part, _BatchNorm))

    def train(self, mode: bool = True) -> FasterRCNNDetector:  # noqa: FBT001, FBT002 (torch's own signature)
        super().train(mode)
        if self.frozen:
            self.pyramid.backbone.eval()
        elif self.recipe.batch_norm == "frozen":
            for norm in self.backbone_norms():
                norm.eval()
        return self

    def losses(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        images = self._images(scenes)
        # Class 0 is the background.
        targets = [{"boxes": scene.boxes, "labels": scene.labels + 1} for scene in scenes]
        maps = self.pyramid(images.tensors)
        proposals, proposing = self.parts.rpn(images, maps, targets)
        _, classifying = self.parts.roi_heads(maps, proposals, images.image_sizes, targets)
        return {
            "objectness": self.recipe.rpn_loss_weight * proposing["loss_objectness"],
            "proposal": self.recipe.rpn_loss_weight * proposing["loss_rpn_box_reg"],
            "class": classifying["loss_classifier"],
            "box": classifying["loss_box_reg"],
        }

    @torch.no_grad()
    def detect(self, scenes: Sequence[Scene]) -> list[Found]:
        return [self._detect(scene) for scene in scenes]  # one by one: what is found depends on no other scene

    def _detect(self, scene: Scene) -> Found:
        images = self._images([scene])
        maps = self.pyramid(images.tensors)
        proposals, _ = self.parts.rpn(images, maps)
        ((found,), _) = self.parts.roi_heads(maps, proposals, images.image_sizes)
        boxes, scores, labels = (found[name].cpu().numpy() for name in ("boxes", "scores", "labels"))
        return Found(boxes=boxes, scores=scores, labels=labels - 1)

    def finish(self, batches: Callable[[int], Iterable[Sequence[Scene]]]) -> None:
        """Running statistics as means over ``precise_bn`` batches under the final weights (arXiv:2105.07576)."""
        if self.recipe.precise_bn:
            self.train()
            recompute_statistics(
                self, batches(self.recipe.precise_bn), lambda scenes: self.pyramid(self._images(scenes).tensors)
            )

    def _images(self, scenes: Sequence[Scene]) -> ImageList:
        """Normalized scenes with 0, the mean color, at the right and below, up to multiples of the coarsest stride."""
        normal = [self.encoder.standardize(scene.pixels[None])[0] for scene in scenes]
        unit = self.pyramid.stages[-1].stride
        height, width = (-(-max(x.shape[side] for x in normal) // unit) * unit for side in (1, 2))
        batch = torch.stack([pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in normal])
        return ImageList(channels_last(batch), [(x.shape[1], x.shape[2]) for x in normal])


class _Pyramid(nn.Module):
    """Maps of the backbone, joined from coarse to fine, and a coarser one for proposals.

    Attributes:
        stages: those of the backbone that are used.
        strides: of all levels.
        out_channels: of every level.
    """

    def __init__(self, backbone: DenseBackbone, *, frozen: bool) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(not frozen)
        self.frozen = frozen
        self.stages = chosen_stages(backbone.stages)
        self.strides = (*(stage.stride for stage in self.stages), 2 * self.stages[-1].stride)
        self.out_channels = min(MOST_WIDTH, self.stages[-1].channels)
        self.joined = FeaturePyramidNetwork(
            [stage.channels for stage in self.stages], self.out_channels, LastLevelMaxPool()
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalized images (B, C, H, W) to maps (B, ``out_channels``, H', W') by the name of their level."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.backbone(images)[-len(self.stages) :]
        found: dict[str, Tensor] = self.joined(OrderedDict((str(level), x) for level, x in enumerate(maps)))
        return found


def _pool(stages: Sequence[Stage]) -> MultiScaleRoIAlign:
    """Pooling that knows the strides; torchvision guesses them from sizes, wrongly where small scenes are padded."""
    pool = MultiScaleRoIAlign([str(level) for level in range(len(stages))], output_size=POOLED, sampling_ratio=2)
    pool.scales = [1 / stage.stride for stage in stages]
    finest, coarsest = (stages[at].stride.bit_length() - 1 for at in (0, -1))
    pool.map_levels = initLevelMapper(finest, coarsest)
    return pool


def chosen_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Those whose stride is above 1, or the last one where none is.

    Raises:
        SpecError: a stride is not twice the one before, as a pyramid needs it.
    """
    chosen = tuple(stage for stage in stages if stage.stride > 1) or (stages[-1],)
    strides = [stage.stride for stage in chosen]
    if any(after != 2 * before for before, after in pairwise(strides)):
        raise SpecError(
            f"faster_rcnn_fpn needs feature maps whose strides double, the backbone has {strides}. Return one map of "
            "each resolution in feature_maps, or choose architecture: single_stage."
        )
    return chosen


def build_faster_rcnn(task: Task) -> Built:
    """A new detector on a copy of the encoder.

    Raises:
        SpecError: the recipe is of another architecture, or the encoder has no feature maps that fit.
    """
    if task.recipe.architecture != "faster_rcnn_fpn":
        raise SpecError(
            f"detection: faster_rcnn_fpn was asked to build {task.recipe.architecture}. Name its own architecture."
        )
    detector = FasterRCNNDetector(task.encoder.clone(), len(task.class_names), task.recipe, frozen=task.frozen)
    to_channels_last(detector)
    return Built(
        detector=detector.to(task.device),
        details={
            "strides": list(detector.pyramid.strides),
            "stages": [{"channels": stage.channels, "stride": stage.stride} for stage in detector.pyramid.stages],
            "anchor_sides": list(detector.anchor_sides),
            "width": detector.pyramid.out_channels,
            "parameters": sum(p.numel() for p in detector.parameters()),
        },
    )
