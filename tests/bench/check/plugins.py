"""Plug-in files with one breach each, made from one sound method and one sound protocol."""

from __future__ import annotations

from pathlib import Path

from bench.check import CheckResult, check_method, check_protocol
from bench.registry import discover

METHOD = """
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.card import Deviation, MethodCard
from bench.registry import register_method
from bench.training.heads import mlp
from bench.training.method import Method
from bench.training.momentum import momentum_copy, update_momentum
from bench.training.precision import full_precision


@full_precision
def spread_and_pull(z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
    # Deviates: the spread is not normalized
    return {"pull": (z1 - z2).square().mean(), "spread": -(z1.std(dim=0) + z2.std(dim=0)).clamp(max=1).mean()}


@register_method(
    "sound",
    card=MethodCard(
        title="Sound",
        family="information maximization",
        summary="Pulls views together and keeps a spread.",
        loss="L = |z1 - z2|² - std",
        complete_collapse="the spread",
        branches="momentum",
        deviations=(Deviation(what="the spread is not normalized", reason="it is a test"),),
    ),
)
class Sound(Method):
    def __init__(self, backbone: nn.Module, *, projector: tuple[int, ...] = (4096, 32), tau: float = 0.9) -> None:
        super().__init__(backbone)
        self.projector = mlp((backbone.feature_dim, *projector))
        self.target = momentum_copy(self.projector)
        self.tau = tau
        self.register_buffer("queue", torch.zeros(5))

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        h1, h2 = (self.backbone(view) for view in views)
        terms = spread_and_pull(self.projector(h1), self.projector(h2))
        with torch.no_grad():
            anchor = self.target(h1)
        terms["anchor"] = (self.projector(h1).float() - anchor.float()).square().mean() + 0 * self.queue.sum()
        return terms

    def after_step(self, step: int, total_steps: int) -> None:
        update_momentum(self.target, self.projector, self.tau)
        self.queue.copy_(self.queue.roll(1) + step)
"""

PROTOCOL = """
import time

import torch

from bench.card import ProtocolCard
from bench.metric import TOP1, TOP5
from bench.protocol import Outcome, Protocol
from bench.registry import register_protocol
from bench.statistics.classification import ranked_predictions, top_k_scores


@register_protocol(
    "sound", card=ProtocolCard(title="Sound", summary="Nearest class mean.", metrics=(TOP1, TOP5))
)
class Sound(Protocol):
    def __init__(self, *, shrinkage: float = 0.1) -> None:
        self.shrinkage = shrinkage

    def evaluate(self, encoder, data, *, seed, device):
        started = time.perf_counter()
        train, validation = data.split("train"), data.split("validation")
        x, y = encoder.features(train.images), torch.as_tensor(train.labels)
        means = torch.stack([x[y == label].mean(dim=0) for label in range(data.num_classes)])
        means = torch.lerp(means, x.mean(dim=0), self.shrinkage)
        test = data.split("test")
        distances = torch.cdist(encoder.features(test.images), means)
        predictions = ranked_predictions(-distances, test.labels, test.samples)
        scores = top_k_scores(predictions, num_classes=data.num_classes)
        details = {"validation_images": len(validation)}
        seconds = {"all": time.perf_counter() - started}
        return Outcome(scores=scores, predictions=predictions, details=details, seconds=seconds)
"""

SCENES = """
import time

import numpy as np
import torch

from bench.card import ProtocolCard
from bench.detection.detector import Found
from bench.metric import AP, AP50, MASK_AP
from bench.protocol import Outcome, Protocol
from bench.registry import register_protocol
from bench.statistics.detection import breakdown, detection_frame, detection_scores


@register_protocol(
    "sound",
    card=ProtocolCard(
        title="Sound", summary="A box around what is bright.", metrics=(AP, AP50, MASK_AP), requires=("boxes",)
    ),
)
class Sound(Protocol):
    def __init__(self, *, iterations: int = 0, pictures: int = 3) -> None:
        if not 0 < iterations <= 20:
            raise ValueError(f"{iterations} iterations are too many for a check")
        self.pictures = pictures

    def evaluate(self, encoder, data, *, seed, device):
        started = time.perf_counter()
        train, validation = data.split("train"), data.split("validation")
        level, label = brightness(train), int(np.bincount(train.objects.labels).argmax())
        test = data.split("test")
        found = [around(test.scenes[index], level, label) for index in range(len(test))]
        frame = detection_frame(test, found, pictures=self.pictures)
        scores, undefined = detection_scores(frame, data.class_names, layout=data.layout, seed=seed)
        keys = [metric.key for metric in (AP, AP50, MASK_AP)]
        scores = tuple(score for score in scores if score.metric.key in keys)
        details = {
            "level": level,
            "undefined": {key: undefined[key] for key in keys if key in undefined},
            "curve": [{"iteration": 1, "seconds": time.perf_counter() - started}],
            "measured": breakdown(frame, data.class_names),
        }
        seconds = {"all": time.perf_counter() - started}
        return Outcome(scores=scores, predictions=frame, details=details, seconds=seconds)


def brightness(subset):
    return float(np.mean([subset.scenes[index].mean() for index in range(len(subset))])) + 60


def around(pixels, level, label):
    rows, columns = np.nonzero(pixels[:, :, 0] > level)
    if not len(rows):
        return Found(boxes=np.empty((0, 4), dtype=np.float32), scores=np.empty(0), labels=np.empty(0, dtype=int))
    box = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    score = [len(rows) / pixels.size]
    return Found(boxes=np.array(box, dtype=np.float32), scores=np.array(score), labels=np.array([label]))
"""


def broken_source(source: str, old: str, new: str) -> str:
    """``source`` with one passage replaced; a passage that is not there is a mistake in the test."""
    assert source.count(old) >= 1, old
    return source.replace(old, new)


def method_results(tmp_path: Path, source: str) -> list[CheckResult]:
    file = tmp_path / f"{tmp_path.name}_method.py"
    file.write_text(source, encoding="utf-8")
    return check_method(discover([file]).methods["sound"])


def protocol_results(tmp_path: Path, source: str) -> list[CheckResult]:
    file = tmp_path / f"{tmp_path.name}_protocol.py"
    file.write_text(source, encoding="utf-8")
    return check_protocol(discover([file]).protocols["sound"])


def only_failure(results: list[CheckResult]) -> CheckResult:
    failures = [result for result in results if not result.ok]
    assert len(failures) == 1, failures
    return failures[0]
