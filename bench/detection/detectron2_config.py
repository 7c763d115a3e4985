"""Detectron2's configuration of a recipe, in code: every key with its value and where the value is from.

It needs neither torch nor Detectron2, so that plans and reports can show it. Keys are those of Detectron2's
``get_cfg()``; what is not listed keeps its default there. No configuration file is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bench.detection.recipes import DetectionRecipe
from bench.errors import SpecError

ChannelOrder = Literal["RGB", "BGR"]
Depth = Literal[18, 34, 50, 101, 152]

MOCO = "facebookresearch/moco at 7397dfe, detection/configs/Base-RCNN-C4-BN.yaml"
MOCO_HEAD = "facebookresearch/moco at 7397dfe, detection/train_net.py: batch normalization after res5"
C4 = "Detectron2 at 02b5c4e, configs/Base-RCNN-C4.yaml"
FPN = "Detectron2 at 02b5c4e, configs/Base-RCNN-FPN.yaml"
DEFAULT = "Detectron2 at 02b5c4e, detectron2/config/defaults.py"
ENCODER = "the encoder"
DATA = "the data"
TORCHVISION = "torchvision's ResNet, which encoders are: the 3x3 convolution has the stride"
NORM = "facebookresearch/moco at 7397dfe trains and synchronizes batch normalization (Base-RCNN-C4-BN.yaml)"
FPN_NORM = (
    "as in the backbone: He et al. 2020 (MoCo, arXiv:1911.05722), section 4.2, from memory, and salesforce/MoPro at "
    "1ddea47, detection/configs/Base-RCNN-FPN-BN.yaml"
)

ALL_STAGES = 5
"""Detectron2's ``FREEZE_AT`` for the stem and the stages res2 to res5."""


@dataclass(frozen=True)
class Setting:
    """One key of the configuration.

    Attributes:
        key: as Detectron2 names it, such as ``SOLVER.MAX_ITER``.
        value: JSON-serializable.
        source: where it is from, in words.
    """

    key: str
    value: Any
    source: str

    def record(self) -> dict[str, Any]:
        return {"key": self.key, "value": self.value, "source": self.source}


def detectron2_config(
    recipe: DetectionRecipe,
    *,
    depth: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    frozen: bool,
    order: ChannelOrder = "RGB",
    processes: int = 1,
    device: str = "cpu",
) -> tuple[Setting, ...]:
    """What a recipe sets in Detectron2, as keys, values and sources.

    Args:
        recipe: of an architecture that Detectron2 has.
        depth: of the ResNet.
        num_classes: of the data.
        mean, std: of the encoder's images, per channel (one or three, red first), on the [0, 1] scale.
        frozen: the backbone keeps its weights and statistics.
        order: in which the model takes three channels; its stem must be in the same order.
        processes: that train together; only several need synchronized batch normalization.
        device: ``cpu`` or ``cuda``.

    Raises:
        SpecError: a depth, an order or an architecture that Detectron2 does not have.
    """
    if depth not in get_args(Depth) or order not in get_args(ChannelOrder):
        raise SpecError(
            f"detection: Detectron2 has ResNets of depth {', '.join(map(str, get_args(Depth)))} that take RGB or BGR, "
            f"not depth {depth} and {order}. Choose another backbone."
        )
    if recipe.architecture not in ("faster_rcnn_c4", "mask_rcnn_c4", "faster_rcnn_fpn", "mask_rcnn_fpn"):
        raise SpecError(f"detection: Detectron2 has no {recipe.architecture}. Choose another architecture.")
    norm = normalization(recipe, processes=processes)
    parts = (
        _input(recipe, mean, std, order),
        _backbone(recipe, depth, norm, {"frozen": frozen, "device": device}),
        _fpn_heads(recipe, norm) if recipe.architecture.endswith("fpn") else _c4_heads(recipe),
        _heads(recipe, num_classes),
        _solver(recipe),
        _test(recipe),
    )
    return tuple(setting for part in parts for setting in part)


def normalization(recipe: DetectionRecipe, *, processes: int) -> str:
    """Detectron2's name of the backbone's normalization.

    In one process the whole batch is at one place, so that plain batch normalization is the synchronized one.
    """
    if recipe.batch_norm == "frozen":
        return "FrozenBN"
    return "naiveSyncBN" if recipe.batch_norm == "synchronized" and processes > 1 else "BN"


def resolved(settings: Sequence[Setting], configuration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings with the values that ``configuration`` (a ``CfgNode``) holds under their keys."""
    found = []
    for setting in settings:
        value: Any = configuration
        for step in setting.key.split("."):
            value = value[step]
        found.append({**setting.record(), "value": _plain(value)})
    return found


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _from(recipe: DetectionRecipe, name: str) -> str:
    return recipe.sources.get(name) or recipe.sources.get("", "the recipe")


# --- parts ------------------------------------------------------------------------------------------------------


def _input(
    recipe: DetectionRecipe, mean: Sequence[float], std: Sequence[float], order: ChannelOrder
) -> Iterator[Setting]:
    source = f"{ENCODER}: 255 times its normalization"
    turn = -1 if order == "BGR" else 1
    yield Setting("MODEL.PIXEL_MEAN", [round(255 * value, 6) for value in mean][::turn], source)
    yield Setting("MODEL.PIXEL_STD", [round(255 * value, 6) for value in std][::turn], source)
    yield Setting("INPUT.FORMAT", order if len(mean) == 3 else "L", f"{ENCODER}: it takes {len(mean)} channels")
    sides = list(recipe.sides or (recipe.test_side,))
    yield Setting("INPUT.MIN_SIZE_TRAIN", sides, _from(recipe, "sides"))
    yield Setting("INPUT.MIN_SIZE_TRAIN_SAMPLING", recipe.side_sampling, _from(recipe, "side_sampling"))
    yield Setting("INPUT.MAX_SIZE_TRAIN", recipe.longest, _from(recipe, "longest"))
    yield Setting("INPUT.MIN_SIZE_TEST", recipe.test_side, _from(recipe, "test_side"))
    yield Setting("INPUT.MAX_SIZE_TEST", recipe.test_longest, _from(recipe, "test_longest"))
    yield Setting("INPUT.RANDOM_FLIP", "horizontal" if recipe.flip else "none", _from(recipe, "flip"))


def _backbone(recipe: DetectionRecipe, depth: int, norm: str, where: Mapping[str, Any]) -> Iterator[Setting]:
    yield Setting("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", _from(recipe, "architecture"))
    yield Setting("MODEL.DEVICE", where["device"], "this machine")
    yield Setting("MODEL.WEIGHTS", "", f"{ENCODER}: its tensors are copied, no file is loaded")
    frozen = "the evaluation: stem and res2 to res5 keep their weights"
    yield Setting("MODEL.BACKBONE.FREEZE_AT", ALL_STAGES if where["frozen"] else 0, frozen if where["frozen"] else MOCO)
    yield Setting("MODEL.RESNETS.DEPTH", depth, ENCODER)
    width = 256 if depth >= 50 else 64
    yield Setting("MODEL.RESNETS.RES2_OUT_CHANNELS", width, f"{ENCODER}: ResNet-{depth}")
    yield Setting("MODEL.RESNETS.STRIDE_IN_1X1", False, TORCHVISION)
    alone = f"{NORM}; over the batch of one process, plain batch normalization is the same"
    naive = f"{NORM}, as SyncBN, which is Detectron2's name of this one up to PyTorch 1.5"
    sources = {"naiveSyncBN": naive, "FrozenBN": _from(recipe, "batch_norm")}
    plain = alone if recipe.batch_norm == "synchronized" else _from(recipe, "batch_norm")
    yield Setting("MODEL.RESNETS.NORM", norm, sources.get(norm, plain))


def _c4_heads(recipe: DetectionRecipe) -> Iterator[Setting]:
    yield Setting("MODEL.BACKBONE.NAME", "build_resnet_backbone", DEFAULT)
    yield Setting("MODEL.RESNETS.OUT_FEATURES", ["res4"], DEFAULT)
    yield Setting("MODEL.RPN.PRE_NMS_TOPK_TEST", 6000, MOCO)
    yield Setting("MODEL.RPN.POST_NMS_TOPK_TEST", 1000, MOCO)
    yield Setting("MODEL.ROI_HEADS.NAME", "Res5ROIHeadsExtraNorm", MOCO_HEAD)


def _fpn_heads(recipe: DetectionRecipe, norm: str) -> Iterator[Setting]:
    stages, levels = ["res2", "res3", "res4", "res5"], ["p2", "p3", "p4", "p5"]
    yield Setting("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", FPN)
    yield Setting("MODEL.RESNETS.OUT_FEATURES", stages, FPN)
    yield Setting("MODEL.FPN.IN_FEATURES", stages, FPN)
    new = "" if norm == "FrozenBN" else norm
    yield Setting("MODEL.FPN.NORM", new, DEFAULT if not new else FPN_NORM)
    yield Setting("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [512]], FPN)
    yield Setting("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5, 1.0, 2.0]], FPN)
    yield Setting("MODEL.RPN.IN_FEATURES", [*levels, "p6"], FPN)
    yield Setting("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 2000, FPN)
    yield Setting("MODEL.RPN.PRE_NMS_TOPK_TEST", 1000, FPN)
    yield Setting("MODEL.RPN.POST_NMS_TOPK_TRAIN", 1000, FPN)
    yield Setting("MODEL.RPN.POST_NMS_TOPK_TEST", 1000, FPN)
    yield Setting("MODEL.ROI_HEADS.NAME", "StandardROIHeads", FPN)
    yield Setting("MODEL.ROI_HEADS.IN_FEATURES", levels, FPN)
    yield Setting("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", FPN)
    yield Setting("MODEL.ROI_BOX_HEAD.NUM_FC", 2, FPN)
    yield Setting("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7, FPN)
    yield Setting("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead", FPN)
    yield Setting("MODEL.ROI_MASK_HEAD.NUM_CONV", 4, FPN)
    yield Setting("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 14, FPN)


def _heads(recipe: DetectionRecipe, num_classes: int) -> Iterator[Setting]:
    yield Setting("MODEL.MASK_ON", recipe.masks, _from(recipe, "architecture"))
    yield Setting("INPUT.MASK_FORMAT", "polygon", f"{DEFAULT}; scenes whose masks are run lengths come as bit masks")
    yield Setting("MODEL.RPN.LOSS_WEIGHT", recipe.rpn_loss_weight, _from(recipe, "rpn_loss_weight"))
    yield Setting("MODEL.ROI_HEADS.NUM_CLASSES", num_classes, DATA)
    yield Setting("MODEL.ROI_HEADS.SCORE_THRESH_TEST", recipe.score_threshold, _from(recipe, "score_threshold"))
    yield Setting("MODEL.ROI_HEADS.NMS_THRESH_TEST", recipe.nms_threshold, _from(recipe, "nms_threshold"))


def _solver(recipe: DetectionRecipe) -> Iterator[Setting]:
    scaled = "" if recipe.batch_size == recipe.reference_batch else f"; {recipe.lr:g} at {recipe.reference_batch}"
    schedule = {"steps": "WarmupMultiStepLR", "cosine": "WarmupCosineLR"}[recipe.schedule]
    yield Setting("SOLVER.LR_SCHEDULER_NAME", schedule, _from(recipe, "schedule"))
    yield Setting("SOLVER.IMS_PER_BATCH", recipe.batch_size, _from(recipe, "batch_size"))
    yield Setting("SOLVER.BASE_LR", recipe.applied_lr, f"{_from(recipe, 'lr')}{scaled}")
    yield Setting("SOLVER.MAX_ITER", recipe.iterations, _from(recipe, "iterations"))
    yield Setting("SOLVER.STEPS", list(recipe.milestones), _from(recipe, "milestones"))
    yield Setting("SOLVER.GAMMA", recipe.decay, _from(recipe, "decay"))
    yield Setting("SOLVER.WARMUP_ITERS", recipe.warmup, _from(recipe, "warmup"))
    yield Setting("SOLVER.WARMUP_FACTOR", recipe.warmup_factor, _from(recipe, "warmup_factor"))
    yield Setting("SOLVER.MOMENTUM", recipe.momentum, _from(recipe, "momentum"))
    yield Setting("SOLVER.WEIGHT_DECAY", recipe.weight_decay, _from(recipe, "weight_decay"))
    decay = recipe.weight_decay if recipe.decay_norm else 0.0
    yield Setting("SOLVER.WEIGHT_DECAY_NORM", decay, _from(recipe, "decay_norm"))


def _test(recipe: DetectionRecipe) -> Iterator[Setting]:
    yield Setting("TEST.DETECTIONS_PER_IMAGE", recipe.detections, _from(recipe, "detections"))
    yield Setting("TEST.PRECISE_BN.ENABLED", recipe.precise_bn > 0, _from(recipe, "precise_bn"))
    if recipe.precise_bn:
        yield Setting("TEST.PRECISE_BN.NUM_ITER", recipe.precise_bn, _from(recipe, "precise_bn"))
