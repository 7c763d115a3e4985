"""The cost of the training loop over a bare PyTorch loop on the same model, data, views and optimizer."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from statistics import median

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from bench.card import MethodCard
from bench.data.views import make_view
from bench.encoders.convnet import ConvNet
from bench.spec import DataSpec, PretrainSpec, TrainingSpec, ViewSpec
from bench.training.heads import mlp
from bench.training.loop import pretrain
from bench.training.method import Method
from bench.training.randomness import isolated_rng, stream
from bench.training.schedule import Schedule

REPETITIONS = 5
MEAN, STD = 0.13, 0.31
VIEW = ViewSpec(crop_scale=(0.3, 1.0), rotation=10.0, saturation=0.0, hue=0.0, grayscale=0.0)
SPEC = PretrainSpec(
    method="contrast",
    backbone="convnet",
    data=DataSpec(key="noise"),
    views=(VIEW,),
    training=TrainingSpec(epochs=2, batch_size=128, lr=1e-3, weight_decay=1e-4),
)


class Contrast(Method):
    """NT-Xent on both views in one batch."""

    card = MethodCard(title="Contrast", family="contrastive", summary="benchmark", complete_collapse="negatives")

    def __init__(self, backbone: nn.Module, *, hidden: int = 512) -> None:
        super().__init__(backbone)
        self.projector = mlp((backbone.feature_dim, hidden, 128))

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        z = normalize(self.projector(self.backbone(torch.cat(tuple(views)))), dim=1)
        similarity = (z @ z.T / 0.2).fill_diagonal_(-torch.inf)
        half = torch.arange(len(z) // 2)
        return {"nt_xent": cross_entropy(similarity, torch.cat([half + len(half), half]))}


def bare_loop(method: Method, images: NDArray[np.uint8]) -> list[float]:
    """The same training in the plainest PyTorch: mean loss of each epoch."""
    training = SPEC.training
    assert training is not None
    method.train().to(memory_format=torch.channels_last)
    matrices = [p for p in method.parameters() if p.ndim > 1]
    vectors = [p for p in method.parameters() if p.ndim <= 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=training.lr, weight_decay=training.weight_decay, fused=True)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    steps = len(images) // training.batch_size
    schedule = Schedule.of(training, steps_per_epoch=steps)
    means = []
    for epoch in range(training.epochs):
        order = torch.randperm(len(images), generator=stream("order", SPEC.seed, epoch))
        total = torch.zeros((), dtype=torch.float64)
        for step in range(steps):
            batch = pixels[order[step * training.batch_size : (step + 1) * training.batch_size]].float() / 255
            draws = [stream("views", SPEC.seed, epoch, step, view) for view in (0, 1)]
            views = [(make_view(batch, VIEW, draw) - MEAN) / STD for draw in draws]
            for group in optimizer.param_groups:
                group["lr"] = training.lr * schedule.factor(epoch * steps + step)
            loss = method([view.contiguous(memory_format=torch.channels_last) for view in views])["nt_xent"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += loss.detach()
        means.append(float(total) / steps)
    return means


def our_loop(method: Method, images: NDArray[np.uint8]) -> list[float]:
    result = pretrain(method, SPEC, images, None, mean=(MEAN,), std=(STD,))
    return [row.value for row in result.history if row.term == "total"]


@pytest.mark.perf
@pytest.mark.parametrize(("count", "width", "hidden", "size"), [(768, 32, 512, 28), (2048, 8, 64, 8)])
def test_the_loop_trains_as_a_bare_loop_does_and_costs_little(
    count: int, width: int, hidden: int, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(count, size, size, 1), dtype=np.uint8)
    with isolated_rng(0, "backbone"):
        fresh = Contrast(ConvNet(1, width), hidden=hidden)
    losses: dict[str, list[float]] = {}
    wall: dict[str, list[float]] = {"bare": [], "ours": []}
    cpu: dict[str, list[float]] = {"bare": [], "ours": []}  # other processes do not count
    for repetition in range(REPETITIONS + 1):  # interleaved, so that other load hits both; the first one warms up
        for name, loop in (("bare", bare_loop), ("ours", our_loop)):
            method = copy.deepcopy(fresh)
            started, worked = time.perf_counter(), time.process_time()
            losses[name] = loop(method, images)
            if repetition:
                wall[name].append(time.perf_counter() - started)
                cpu[name].append(time.process_time() - worked)
    with capsys.disabled():
        print(
            f"\ntraining loop, {size} px, width {width}: {median(wall['ours']):.2f} s, bare PyTorch "
            f"{median(wall['bare']):.2f} s; ratio of medians {median(wall['ours']) / median(wall['bare']):.3f} "
            f"(wall), {median(cpu['ours']) / median(cpu['bare']):.3f} (processor time)"
        )
    assert losses["ours"] == pytest.approx(losses["bare"], rel=1e-6)
    assert losses["ours"][-1] < losses["ours"][0]
