"""What the protocols say that they compute, against what they really forward and train."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from bench.protocol import Protocol
from protocols.diagnostics import Diagnostics
from protocols.false_negative_audit import FalseNegativeAudit
from protocols.knn import KNN
from protocols.semi_supervised import SemiSupervised

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
