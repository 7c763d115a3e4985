"""Detectors of Detectron2 on an encoder: built from configuration in code, their backbone verified."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.detection.conversion import (
    STAGES,
    TOLERANCE,
    Placement,
    check_features,
    converted,
    load_backbone,
    resnet_depth,
)
from bench.detection.detector import Built, Detector, Found, Scene, Task
from bench.detection.detectron2_config import ChannelOrder, Setting, detectron2_config, resolved
from bench.detection.recipes import DetectionRecipe
from bench.errors import DataError
from bench.training.distributed import process_count

with warnings.catch_warnings():
    # What Detectron2 and fvcore use of torch at their import is deprecated; nobody here can change it.
    warnings.simplefilter("ignore")
    import detectron2
    from detectron2.config import CfgNode, get_cfg
    from detectron2.modeling import build_model
    from detectron2.solver.build import get_default_optimizer_params
    from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
    from detectron2.structures.masks import polygons_to_bitmask
    from detectron2.utils.events import EventStorage
    from fvcore.nn.precise_bn import update_bn_stats

    import bench.detection.detectron2_heads  # noqa: F401 (registers the head)

KNOWN_WARNINGS = ("torch.meshgrid", "__array__ implementation doesn.t accept a copy keyword")
"""Beginnings of warnings about calls inside Detectron2 and pycocotools, as regular expressions."""

RES5_BLOCKS = {18: 2, 34: 3}
"""Residual blocks of res5 by depth; 3 in deeper ones."""


def build_detectron2(task: Task, *, order: ChannelOrder = "RGB") -> Built:
    """A detector of Detectron2 whose backbone is a verified copy of the encoder.

    Args:
        task: what to build.
        order: in which the model takes the channels of color images; what it computes is the same.

    Raises:
        SpecError: Detectron2 cannot have this backbone or architecture.
        CheckpointError: a tensor of the backbone found no place, or a place no tensor; the message lists all.
        JobError: the features of the converted backbone are not the encoder's; the message lists the stages.
    """
    depth, encoder = resnet_depth(task.encoder), task.encoder
    settings = detectron2_config(
        task.recipe,
        depth=depth,
        num_classes=len(task.class_names),
        mean=encoder.mean,
        std=encoder.std,
        frozen=task.frozen,
        order=order,
        processes=process_count(),
        device=task.device,
    )
    configuration = merged(settings)
    model = build_model(configuration).cpu()
    pyramid = task.recipe.architecture.endswith("fpn")
    place = Placement(
        trunk="backbone.bottom_up." if pyramid else "backbone.",
        head=None if pyramid else "roi_heads.res5.",
        blocks=RES5_BLOCKS.get(depth, 3),
    )
    if task.frozen and not pyramid:
        for block in list(model.roi_heads.res5)[: place.blocks]:
            block.freeze()
    report = load_backbone(model, converted(encoder.module.state_dict(), order=order), place)
    detector = Detectron2Detector(model, channels=encoder.channels, order=order, recipe=task.recipe)
    differences = check_features(encoder, lambda pixels: detector.stages(pixels, place))
    detector.to(task.device)
    return Built(
        detector=detector,
        details={
            "engine_version": f"Detectron2 {detectron2.__version__}",
            "configuration": resolved(settings, configuration),
            "conversion": {
                **report,
                "depth": depth,
                "channel_order": order if encoder.channels == 3 else "gray",
                "tolerance": TOLERANCE,
                "differences": differences,
            },
            "engine_notes": _notes(task),
        },
    )


def merged(settings: Sequence[Setting]) -> CfgNode:
    """Detectron2's default configuration with the settings."""
    configuration = get_cfg()
    for setting in settings:
        configuration.merge_from_list([setting.key, setting.value])
    configuration.freeze()
    return configuration


def _notes(task: Task) -> list[str]:
    """What differs from the published experiment by this machine."""
    notes = []
    if task.recipe.batch_size > 2:
        notes.append(
            "all scenes of a batch are of one orientation as far as possible; Detectron2 groups those of each GPU"
        )
    if task.recipe.batch_norm == "synchronized" and process_count() == 1:
        notes.append(
            "batch normalization is not synchronized: one process has the whole batch, whose statistics are the same"
        )
    if task.frozen:
        notes.append("the backbone is frozen, res5 included; the published experiments train it")
    return notes


class Detectron2Detector(Detector):
    """A model of Detectron2 in the terms of this package.

    Attributes:
        model: takes pixels between 0 and 255.
    """

    synchronized = True

    def __init__(self, model: nn.Module, *, channels: int, order: ChannelOrder, recipe: DetectionRecipe) -> None:
        super().__init__()
        self.model: Any = model
        self.channels = channels
        self.order = order
        self.masks = recipe.masks
        self.precise_bn = recipe.precise_bn

    def losses(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        with _recorded():
            found: dict[str, Tensor] = self.model([self._labelled(scene) for scene in scenes])
        return found

    @torch.no_grad()
    def detect(self, scenes: Sequence[Scene]) -> list[Found]:
        with _recorded():
            outputs = self.model.inference([{"image": self._image(scene.pixels)} for scene in scenes])
        return [_found(output["instances"]) for output in outputs]

    @torch.no_grad()
    def detect_at(self, scene: Scene, original: tuple[int, int]) -> Found:
        """As Detectron2 does: masks of 28 pixels are pasted at the original size, not pasted and then shrunk."""
        height, width = original
        with _recorded():
            (output,) = self.model.inference([{"image": self._image(scene.pixels), "height": height, "width": width}])
        return _found(output["instances"])

    def parameter_groups(self, recipe: DetectionRecipe) -> list[dict[str, Any]]:
        groups: list[dict[str, Any]] = get_default_optimizer_params(
            self.model,
            base_lr=recipe.applied_lr,
            weight_decay=recipe.weight_decay,
            weight_decay_norm=None if recipe.decay_norm else 0.0,
        )
        return groups

    def finish(self, batches: Callable[[int], Iterable[Sequence[Scene]]]) -> None:
        """Running statistics as means over ``precise_bn`` batches under the final weights (arXiv:2105.07576)."""
        if self.precise_bn:
            self.train()
            with _recorded():
                inputs = ([self._labelled(scene) for scene in scenes] for scenes in batches(self.precise_bn))
                update_bn_stats(self.model, inputs, self.precise_bn)

    @torch.no_grad()
    def stages(self, pixels: Tensor, place: Placement) -> dict[str, Tensor]:
        """Feature maps of res2 to res5 of pixels (1, C, H, W) in [0, 1], in evaluation mode."""
        trained = self.training
        self.eval()
        maps = {}
        trunk = self.model.get_submodule(place.trunk.removesuffix("."))
        x = trunk.stem(self.model.preprocess_image([{"image": self._image(pixels[0])}]).tensor)
        for name in STAGES:
            blocks = getattr(trunk, name, None)
            if blocks is None:
                blocks = list(self.model.get_submodule(str(place.head).removesuffix(".")))[: place.blocks]
            for block in blocks:
                x = block(x)
            maps[name] = x
        self.train(trained)
        return maps

    def _image(self, pixels: Tensor) -> Tensor:
        """Pixels (C', H, W) in [0, 1] as the model takes them: 0 to 255, in its order of channels."""
        if pixels.shape[0] not in (1, self.channels):
            raise DataError(
                f"detection: the scenes have {pixels.shape[0]} channels, and the encoder takes {self.channels}. "
                "Choose an encoder for color, or load the scenes in gray."
            )
        scaled = 255 * pixels.expand(self.channels, -1, -1)
        return scaled.flip(0) if self.order == "BGR" and self.channels == 3 else scaled

    def _labelled(self, scene: Scene) -> dict[str, Any]:
        size = (int(scene.pixels.shape[1]), int(scene.pixels.shape[2]))
        objects = Instances(size, gt_boxes=Boxes(scene.boxes.cpu()), gt_classes=scene.labels.cpu())
        keep = objects.gt_boxes.nonempty(threshold=1e-5)
        if self.masks:
            if len(scene.masks) != len(scene.labels):
                raise DataError(
                    "detection: the recipe trains masks, and a scene has boxes without masks. Choose a Faster R-CNN "
                    "(recipe or `architecture`), or data with masks."
                )
            objects.gt_masks = _masks(scene, size)
            keep &= objects.gt_masks.nonempty()
        return {"image": self._image(scene.pixels), "instances": objects[keep]}


@contextmanager
def _recorded() -> Iterator[None]:
    """What a call of a model needs around it: a place for its counts of regions, which are dropped, and silence about
    deprecated calls that are not ours."""
    with EventStorage(), warnings.catch_warnings():
        for beginning in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=beginning)
        yield


def _masks(scene: Scene, size: tuple[int, int]) -> PolygonMasks | BitMasks:
    """Polygons where all masks of the scene are, which Detectron2 crops without rounding; else bit masks."""
    # Two points enclose nothing.
    cleaned = [[p for p in m if len(p) >= 6] if isinstance(m, list) else m for m in scene.masks]
    if all(isinstance(mask, list) for mask in cleaned):
        return PolygonMasks(cleaned)
    bits = [polygons_to_bitmask(mask, *size) if isinstance(mask, list) else mask for mask in cleaned]
    return BitMasks(torch.from_numpy(np.stack(bits)))


def _found(instances: Instances) -> Found:
    instances = instances.to("cpu")
    order = torch.argsort(instances.scores, descending=True, stable=True)
    masks: tuple[str, ...] = ()
    if instances.has("pred_masks"):
        masks = tuple(_run_lengths(mask) for mask in instances.pred_masks[order].numpy())
    return Found(
        boxes=instances.pred_boxes.tensor[order].numpy().astype(np.float32),
        scores=instances.scores[order].numpy().astype(np.float32),
        labels=instances.pred_classes[order].numpy().astype(np.int64),
        masks=masks,
    )


def _run_lengths(mask: np.ndarray[Any, Any]) -> str:
    from pycocotools.mask import encode  # comes with Detectron2

    coded = encode(np.asfortranarray(mask.astype(np.uint8)))
    return json.dumps({"size": [int(side) for side in coded["size"]], "counts": coded["counts"].decode()})
