"""A small single-stage detector without anchors: every position of a feature map says whether an object is there, of
which class, and how far its four sides are.

Source: Tian et al. 2019, FCOS (arXiv:1904.01355), sections 3.1 to 3.3: targets (equations 1 and 3), centerness, levels
by the size of the object. Losses: focal loss (Lin et al. 2017, arXiv:1708.02002, equation 5) for the classes, one minus
generalized IoU (Rezatofighi et al. 2019, arXiv:1902.09630, algorithm 1) for the boxes.

The levels are the last three stages of the backbone whose stride is 4 or more (C3, C4 and C5 of a ResNet, the last one
of the small convolutional network), joined from coarse to fine as in a feature pyramid, and one more level of twice the
coarsest stride. Classes and boxes have a tower of their own, which all levels share. It has one convolution where FCOS
has four: with the few steps of a CPU that found more (on the validation scenes of ``digit_scenes``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, pad, relu
from torchvision.ops import batched_nms, clip_boxes_to_image, generalized_box_iou_loss, sigmoid_focal_loss

from bench.detection.detector import Built, Detector, Found, Scene, Task
from bench.detection.locations import Targets, locations, targets_of
from bench.detection.precise_norm import batch_norms, recompute_statistics
from bench.detection.recipes import DetectionRecipe
from bench.encoders.dense import DenseBackbone, Stage
from bench.encoders.encoder import Encoder
from bench.errors import SpecError
from bench.training.distributed import averaged

FINEST_STRIDE = 4
MOST_STAGES = 3
PRIOR = 0.01
"""Probability of an object that a new detector gives everywhere (focal loss, section 3.3)."""
CANDIDATES = 1000
"""Positions of a level that can become detections, the best ones (FCOS, section 4)."""


class SingleStage(Detector):
    """See the module.

    Args:
        encoder: its module becomes part of the detector; give a copy.
        classes: K.
        recipe: its thresholds decide what counts as found, ``batch_norm`` what the backbone's normalization does.
        frozen: the backbone keeps its weights and statistics.
        width: channels of the levels and of the towers.
        depth: convolutions of each tower.
    """

    def __init__(
        self,
        encoder: Encoder,
        classes: int,
        recipe: DetectionRecipe,
        *,
        frozen: bool,
        width: int = 64,
        depth: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.recipe = recipe
        self.frozen = frozen
        self.backbone = DenseBackbone(encoder.module, channels=encoder.channels).requires_grad_(not frozen)
        if recipe.batch_norm == "frozen":
            for norm in batch_norms(self.backbone):
                norm.requires_grad_(False)
        self.stages = chosen_stages(self.backbone.stages)
        self.strides = (*(stage.stride for stage in self.stages), 2 * self.stages[-1].stride)
        self.lateral = nn.ModuleList(nn.Conv2d(stage.channels, width, 1) for stage in self.stages)
        # The coarsest stage is joined with nothing, so there is nothing to smooth.
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.stages[1:])
        self.coarser = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.class_tower, self.box_tower = _tower(width, depth), _tower(width, depth)
        self.class_logits = nn.Conv2d(width, classes, 3, padding=1)
        self.box_distances = nn.Conv2d(width, 4, 3, padding=1)
        self.center_logits = nn.Conv2d(width, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(self.strides)))
        self._initialize()

    def _initialize(self) -> None:
        # The towers feed the last layers normalized values, of which small weights make nearly equal predictions.
        for layer in (self.class_logits, self.box_distances, self.center_logits):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.class_logits.bias, float(torch.logit(torch.tensor(PRIOR))))  # type: ignore[arg-type]
        nn.init.ones_(self.box_distances.bias)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> SingleStage:  # noqa: FBT001, FBT002 (torch's own signature)
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        elif self.recipe.batch_norm == "frozen":
            for norm in batch_norms(self.backbone):
                norm.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalized images (B, C, H, W), H and W multiples of the coarsest stride, to predictions at all P positions.

        Returns:
            Class logits (B, P, K), distances to the sides in pixels (B, P, 4), logits of the centerness (B, P).
        """
        logits, distances, centers = [], [], []
        for level, (x, stride) in enumerate(zip(self._pyramid(images), self.strides, strict=True)):
            classes, boxes = self.class_tower(x), self.box_tower(x)
            logits.append(_flat(self.class_logits(classes)))
            distances.append(stride * torch.exp(_flat(self.box_distances(boxes)) * self.scales[level]))
            centers.append(_flat(self.center_logits(boxes))[..., 0])
        return torch.cat(logits, dim=1), torch.cat(distances, dim=1), torch.cat(centers, dim=1)

    def _pyramid(self, images: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.backbone(images)[-len(self.stages) :]
        joined = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for finer in range(len(joined) - 2, -1, -1):
            joined[finer] = joined[finer] + interpolate(joined[finer + 1], size=joined[finer].shape[2:], mode="nearest")
        smoothed = [layer(x) for layer, x in zip(self.smooth, joined[:-1], strict=True)]
        return [*smoothed, joined[-1], self.coarser(relu(joined[-1]))]

    def losses(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        images = self._batch(scenes)
        logits, distances, centers = self(images)
        where = locations(tuple(images.shape[2:]), self.strides, device=images.device)
        targets = [targets_of(where, s.boxes.to(images.device), s.labels.to(images.device)) for s in scenes]
        return losses_of(logits, distances, centers, where.points, targets)

    @torch.no_grad()
    def detect(self, scenes: Sequence[Scene]) -> list[Found]:
        return [self._detect(scene) for scene in scenes]  # one by one: what is found depends on no other scene

    def _detect(self, scene: Scene) -> Found:
        images = self._batch([scene])
        height, width = scene.pixels.shape[1:]
        logits, distances, centers = (part[0] for part in self(images))
        where = locations(tuple(images.shape[2:]), self.strides, device=images.device)
        inside = (where.points < where.points.new_tensor([width, height])).all(dim=1)
        # FCOS, section 3.2, multiplies; its code takes the root, which orders alike and is a better probability.
        scores = (logits.sigmoid() * centers.sigmoid()[:, None]).sqrt() * inside[:, None]
        rows, labels = self._candidates(scores, where.levels)
        boxes = clip_boxes_to_image(corners(where.points[rows], distances[rows]), (height, width))
        confidence = scores[rows, labels]
        real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes, confidence, labels = boxes[real], confidence[real], labels[real]
        kept = batched_nms(boxes, confidence, labels, self.recipe.nms_threshold)[: self.recipe.detections]
        return Found(
            boxes=boxes[kept].float().cpu().numpy(),
            scores=confidence[kept].float().cpu().numpy(),
            labels=labels[kept].cpu().numpy(),
        )

    def _candidates(self, scores: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and classes of the best scores of each level that are high enough."""
        found = []
        for level in range(len(self.strides)):
            at, labels = torch.nonzero(
                (scores > self.recipe.score_threshold) & (levels == level)[:, None], as_tuple=True
            )
            best = scores[at, labels].argsort(descending=True, stable=True)[:CANDIDATES]
            found.append(torch.stack([at[best], labels[best]]))
        rows, classes = torch.cat(found, dim=1)
        return rows, classes

    def finish(self, batches: Callable[[int], Iterable[Sequence[Scene]]]) -> None:
        if self.recipe.precise_bn:
            self.train()
            recompute_statistics(self, batches(self.recipe.precise_bn), lambda scenes: self(self._batch(scenes)))

    def _batch(self, scenes: Sequence[Scene]) -> Tensor:
        """Normalized scenes with 0, the mean gray, at the right and below, up to multiples of the coarsest stride."""
        device = self.scales.device
        normal = [self.encoder.standardize(scene.pixels.to(device)[None])[0] for scene in scenes]
        unit = self.strides[-1]
        height, width = (-(-max(x.shape[side] for x in normal) // unit) * unit for side in (1, 2))
        return torch.stack([pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in normal])


def losses_of(
    logits: Tensor, distances: Tensor, centers: Tensor, points: Tensor, targets: Sequence[Targets]
) -> dict[str, Tensor]:
    """The three terms of FCOS for a batch (equation 2, with generalized IoU and centerness as the weight of a box).

    Args:
        logits, distances, centers: what the detector predicts: (B, P, K), (B, P, 4), (B, P).
        points: (P, 2).
        targets: of the B scenes.
    """
    labels = torch.stack([target.labels for target in targets])  # (B, P)
    wanted = torch.stack([target.distances for target in targets])  # (B, P, 4)
    positive = labels >= 0
    classes = torch.zeros_like(logits)
    classes[positive, labels[positive]] = 1
    centerness = centerness_of(wanted[positive])
    # Averaged over processes, so that their averaged gradient is that of one process with the whole batch.
    count, weight = averaged(torch.stack([positive.sum().to(logits.dtype), centerness.sum()])).clamp(min=1.0)
    at = points.expand(len(targets), -1, -1)[positive]
    overlap = generalized_box_iou_loss(corners(at, distances[positive]), corners(at, wanted[positive]))
    return {
        "class": sigmoid_focal_loss(logits, classes, alpha=0.25, gamma=2.0, reduction="sum") / count,
        "box": (overlap * centerness).sum() / weight,
        "center": binary_cross_entropy_with_logits(centers[positive], centerness, reduction="sum") / count,
    }


def centerness_of(distances: Tensor) -> Tensor:
    """FCOS, equation 3: distances (n, 4) to left, top, right, bottom give (n,), 1 in the middle and 0 at the sides."""
    left, top, right, bottom = distances.unbind(dim=1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()


def corners(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes (n, 4) around points (n, 2) by the distances (n, 4) to their sides."""
    return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)


def chosen_stages(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The last stages of stride 4 or more, three at most; the last one if none is as coarse."""
    return tuple(stage for stage in stages if stage.stride >= FINEST_STRIDE)[-MOST_STAGES:] or (stages[-1],)


def build_single_stage(task: Task) -> Built:
    """A new detector on a copy of the encoder.

    Raises:
        SpecError: the recipe is of another architecture, or the encoder has no feature maps.
    """
    if task.recipe.architecture != "single_stage":
        raise SpecError(f"single_stage cannot build {task.recipe.architecture}. Name its own architecture.")
    detector = SingleStage(task.encoder.clone(), len(task.class_names), task.recipe, frozen=task.frozen)
    return Built(
        detector=detector.to(task.device),
        details={
            "strides": list(detector.strides),
            "stages": [{"channels": stage.channels, "stride": stage.stride} for stage in detector.stages],
            "parameters": sum(p.numel() for p in detector.parameters()),
        },
    )


def _tower(width: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        # Groups, not the batch: batches of scenes are small. 16 channels each, as the 32 groups of FCOS' 256 had 8.
        layers += [
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(width // 8, width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def _flat(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H W, C)."""
    return x.flatten(2).transpose(1, 2)
