"""What an engine provides: a detector that learns from scenes and finds objects in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.detection.recipes import DetectionRecipe
from bench.encoders.encoder import Encoder

NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)
"""Normalization layers."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene as a detector gets it, resized and perhaps flipped.

    Attributes:
        pixels: (C, H, W) float32 in [0, 1]; C is that of the file, 1 or 3 (RGB).
        boxes: (n, 4) float32: left, top, right, bottom in pixels of ``pixels``.
        labels: (n,) int64 classes 0 … K - 1.
        masks: n segmentations in the same pixels, each a list of polygons (2 m,) or one array (H, W) of bool; empty
            where there are none.
    """

    pixels: Tensor
    boxes: Tensor
    labels: Tensor
    masks: tuple[list[NDArray[np.float64]] | NDArray[np.bool_], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a detector found in one scene, the best first.

    Attributes:
        boxes: (n, 4) float32 in pixels of the scene as it was given.
        scores: (n,) float32.
        labels: (n,) int64.
        masks: n run lengths in the form of COCO, as JSON, or empty.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: tuple[str, ...] = ()


class Detector(nn.Module):
    """A detector on a backbone.

    ``train()`` and ``eval()`` mean what they always do; a frozen backbone stays in evaluation mode without a gradient.
    """

    synchronized: bool = False
    """Whether its engine synchronizes batch normalization over processes; otherwise the training does."""

    def losses(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """Named loss terms of a batch, whose sum is minimized; in training mode."""
        raise NotImplementedError

    def detect(self, scenes: Sequence[Scene]) -> list[Found]:
        """What is in each scene, in the pixels of the given scene; in evaluation mode, without gradients."""
        raise NotImplementedError

    def detect_at(self, scene: Scene, original: tuple[int, int]) -> Found:
        """What is in a scene, in the pixels that it had before it was resized: ``original``, height and width.

        An engine whose masks are finer than the pixels of the given scene makes them at this size itself.
        """
        from bench.detection.resizing import found_at  # late: it knows what a detector finds

        height, width = scene.pixels.shape[1:]
        return found_at(self.detect([scene])[0], (height, width), original)

    def parameter_groups(self, recipe: DetectionRecipe) -> list[dict[str, Any]]:
        """Groups for the optimizer: ``params``, ``lr`` (peak) and, where it differs, ``weight_decay``.

        All that is trained, at one rate; normalization layers without decay where the recipe says so.
        """
        norms = {id(p) for part in self.modules() if isinstance(part, NORMS) for p in part.parameters(recurse=False)}
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        plain = [p for p in trained if recipe.decay_norm or id(p) not in norms]
        bare = [p for p in trained if not recipe.decay_norm and id(p) in norms]
        return [
            {"params": params, "lr": recipe.applied_lr, "weight_decay": decay}
            for params, decay in ((plain, recipe.weight_decay), (bare, 0.0))
            if params
        ]

    def finish(self, batches: Callable[[int], Iterable[Sequence[Scene]]]) -> None:
        """Called once after training, for example to compute running statistics from ``batches(count)``."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a detector is to be built for.

    Attributes:
        encoder: its backbone is copied, never changed.
        class_names: K names.
        recipe: how it will be trained.
        frozen: the backbone keeps its weights and statistics.
        device: ``cpu`` or ``cuda``.
    """

    encoder: Encoder
    class_names: tuple[str, ...]
    recipe: DetectionRecipe
    frozen: bool
    device: str


@dataclass(frozen=True, kw_only=True)
class Built:
    """A detector with what its building recorded, JSON-serializable: versions, the resolved configuration, the report
    of the conversion."""

    detector: Detector
    details: dict[str, Any]
