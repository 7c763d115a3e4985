"""What the protocols say that they compute, against what they really forward and train."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from bench.encoders.convnet import convnet
from bench.encoders.dense import TRIAL_SIDE
from bench.protocol import Protocol
from protocols.detection import Detection
from protocols.diagnostics import Diagnostics
from protocols.false_negative_audit import FalseNegativeAudit
from protocols.knn import KNN
from protocols.semi_supervised import SemiSupervised

from ..bench.detection.rectangles import dataset as scenes_of
from ..bench.detection.rectangles import encoder_of as color_encoder
from .images import SmallNet, digits, encoder_of

PSEUDO = {"pseudo_weight": 1.0, "pseudo_ramp": (0.5, 0.5), "pseudo_batch": 20}
CASES: dict[str, Protocol] = {
    "knn": KNN(k=5),
    "diagnostics": Diagnostics(),
    "some diagnostics": Diagnostics(max_samples=100),
    "audit": FalseNegativeAudit(support_views=3),
    "common": SemiSupervised(fraction=0.1, steps=10, copies=2),
    "published": SemiSupervised(fraction=0.1, recipe="byol", epochs=3, batch_size=32),
    "pseudo-labels": SemiSupervised(fraction=0.1, steps=10, copies=2, **PSEUDO),  # type: ignore[arg-type]
}


class Counting(nn.Module):
    """Counts the images that it sees with and without a gradient."""

    seen: ClassVar[dict[bool, int]] = {True: 0, False: 0}

    def __init__(self) -> None:
        super().__init__()
        self.inner = SmallNet()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        Counting.seen[self.training] += len(images)
        features: torch.Tensor = self.inner(images)
        return features


class CountingMaps(nn.Module):
    """Counts the scenes whose feature maps are asked for with and without a gradient."""

    seen: ClassVar[dict[bool, int]] = {True: 0, False: 0}

    def __init__(self) -> None:
        super().__init__()
        self.inner = convnet(3, width=8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.inner(images)
        return features

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        if images.shape[2] != TRIAL_SIDE:  # which tells the strides, once for each rate
            CountingMaps.seen[self.training] += len(images)
        maps: list[torch.Tensor] = self.inner.feature_maps(images)
        return maps


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("trials", [3, 9])
def test_the_scenes_that_pass_the_backbone_of_a_detector_are_those_announced(
    frozen: bool,
    trials: int,
) -> None:
    data = scenes_of((12, 5, 7), side=32)
    protocol = Detection(iterations=4, batch_size=3, lrs=(1e-3, 2e-3), trials=trials, frozen=frozen)
    CountingMaps.seen = {True: 0, False: 0}
    protocol.evaluate(color_encoder(CountingMaps()), data, seed=0, device="cpu")
    sizes = {name: len(rows) for name, rows in data.splits.items()}
    work = protocol.work(sizes, num_classes=3, feature_dim=32)
    assert (work.forward, work.trained) == (CountingMaps.seen[False], CountingMaps.seen[True])
    assert work.trained == (0 if frozen else 2 * 4 * 3)


def test_the_pixels_of_scenes_follow_their_sides() -> None:
    sizes = {"train": 10, "validation": 0, "test": 5}
    own, resized = (Detection(sides=s).work(sizes, num_classes=3, feature_dim=32) for s in (None, (300, 600)))
    assert own.pixels is None and resized.pixels == pytest.approx((300**2 + 600**2) / 2 * 4 / 3)


@pytest.mark.parametrize("case", CASES)
def test_the_images_that_pass_the_backbone_are_those_announced(case: str) -> None:
    data = digits()
    encoder = encoder_of(Counting(), data, feature_dim=32)
    Counting.seen = {True: 0, False: 0}
    CASES[case].evaluate(encoder, data, seed=0, device="cpu")
    sizes = {name: len(rows) for name, rows in data.splits.items()}
    work = CASES[case].work(sizes, num_classes=10, feature_dim=32)
    assert work is not None
    assert (work.forward, work.trained) == pytest.approx((Counting.seen[False], Counting.seen[True]))


def test_products_follow_the_sizes() -> None:
    sizes = {"train": 1000, "validation": 100, "test": 500}
    knn, audit = (p.work(sizes, num_classes=10, feature_dim=32) for p in (KNN(), FalseNegativeAudit(batch_size=100)))
    assert knn is not None and knn.products == pytest.approx(1000 * 500 * 32 / 1e9)
    assert audit is not None and audit.products == pytest.approx((8 + 2 * (1 + 2 + 4 + 8)) * 500 * 100 * 32 / 1e9)
    wide, narrow = (Diagnostics().work(sizes, num_classes=10, feature_dim=d) for d in (64, 32))
    assert wide is not None and narrow is not None and wide.products > 2 * narrow.products
