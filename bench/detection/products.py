"""How much the parts of a detector behind the backbone compute, for estimates of cost; no torch.

Counted are multiplications and additions of a forward pass on one scene, in units of 1e9, from the sizes that the
architectures have: the towers of ``single_stage`` from stride 4 on (behind a ResNet they begin at 8 and hardly count);
the pyramid, the proposals and the regions of torchvision's and Detectron2's R-CNNs at their defaults (512 regions of a
scene in training, 1000 in evaluation, masks for a quarter of the former and for the 100 detections of the latter).
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.detection.recipes import DetectionRecipe

REGIONS = (512, 1000)
MASKS = (128, 100)
"""Regions with a mask, at most: a quarter of those in training, and what is detected."""
LEVELS = 4 / 3
"""Positions of all levels of a pyramid, in units of those of its finest."""
SINGLE_WIDTH, SINGLE_DEPTH = 64, 1
PYRAMID = 256
HIDDEN = 1024
"""Width of the two layers behind a region of a pyramid, 7 × 7 positions in size."""
LAST_STAGE = (0.81, 0.41)
"""1e9 of a ResNet's last stage on a region of 14 × 14 positions: with bottlenecks (ResNet-50), and without."""


@dataclass(frozen=True, kw_only=True)
class HeadProducts:
    """1e9 products on one scene.

    Attributes:
        by_pixel: for each pixel of the scene.
        trained, tested: for the regions of a scene in training and in evaluation, whatever its size.
    """

    by_pixel: float
    trained: float = 0.0
    tested: float = 0.0


def head_products(recipe: DetectionRecipe, *, classes: int, feature_dim: int) -> HeadProducts:
    """Of the recipe's architecture on a backbone with this width."""
    if recipe.architecture == "single_stage":
        convolutions = (2 * SINGLE_DEPTH + 1) * SINGLE_WIDTH + classes + 5
        return HeadProducts(by_pixel=LEVELS * 9 * SINGLE_WIDTH * convolutions / 4**2 / 1e9)
    if recipe.architecture.endswith("c4"):
        bottlenecks = feature_dim >= 1024
        channels = feature_dim // 2
        region, mask = LAST_STAGE[0 if bottlenecks else 1], 49 * 4 * feature_dim * PYRAMID / 1e9
        by_pixel = 9 * channels**2 / 16**2 / 1e9
    else:
        region = (PYRAMID * 49 * HIDDEN + HIDDEN**2) / 1e9
        mask = (4 * 9 * 196 + 4 * 196) * PYRAMID**2 / 1e9
        by_pixel = LEVELS * 2 * 9 * PYRAMID**2 / 4**2 / 1e9  # a convolution of the pyramid, one of the proposals
    trained, tested = (
        count * region + (masks * mask if recipe.masks else 0.0) for count, masks in zip(REGIONS, MASKS, strict=True)
    )
    return HeadProducts(by_pixel=by_pixel, trained=trained, tested=tested)
