"""Features of images that are read ahead, and features that several processes share: those of one process in memory."""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.data.dataset import ImageDataset
from bench.data.reading import Streamed
from bench.encoders.convnet import convnet
from bench.encoders.encoder import Encoder
from bench.encoders.resnet import resnet18
from bench.errors import DataError
from bench.spec import DataSpec, PretrainSpec, TrainingSpec, ViewSpec
from bench.training.distributed import process_rank
from bench.training.loop import pretrain
from bench.training.randomness import isolated_rng
from methods.simclr import SimCLR
from protocols.diagnostics import Diagnostics
from protocols.false_negative_audit import FalseNegativeAudit
from protocols.knn import KNN
from protocols.linear_probe import LinearProbe
from protocols.semi_supervised import SemiSupervised

from ...protocols.images import digits, small_encoder
from ..data.lazy import lazily, noise, write_images
from ..training.ranks import in_group

PROTOCOLS: dict[str, Any] = {
    "linear_probe": partial(LinearProbe, epochs=10),
    "knn": KNN,
    "diagnostics": Diagnostics,
    "false_negative_audit": partial(FalseNegativeAudit, support_views=2),
    "semi_supervised": partial(SemiSupervised, fraction=0.1, steps=3),
}


def small_digits() -> ImageDataset:
    return digits(train=260, validation=80, test=90)


def random_resnet(data: ImageDataset) -> Encoder:
    """Torchvision's network with the weights that it starts from."""
    with isolated_rng(0, "backbone"):
        return encoder_of(resnet18(1), data)


def trained_convnet(data: ImageDataset) -> Encoder:
    with isolated_rng(0, "backbone"):
        method = SimCLR(convnet(1, width=4), projector=(16, 8))
    training = TrainingSpec(epochs=2, batch_size=64, lr=1e-2)
    view = ViewSpec(jitter=0.0, grayscale=0.0)
    spec = PretrainSpec(method="simclr", backbone="convnet", data=DataSpec(key="d"), views=(view,), training=training)
    images = np.asarray(data.split("train").images)
    pretrain(method, spec, images, None, mean=(0.3,), std=(0.3,))
    return encoder_of(method.backbone, data)


def encoder_of(module: nn.Module, data: ImageDataset) -> Encoder:
    mean, std = data.channel_statistics
    return Encoder(
        module=module,
        feature_dim=int(module.feature_dim),
        channels=1,
        image_size=data.image_size,
        mean=mean,
        std=std,
        origin="a test",
        identity="",
    )


def evaluated(protocol: Any, encoder: Encoder, data: ImageDataset) -> dict[str, Any]:
    outcome = protocol.evaluate(encoder, data, seed=0, device="cpu")
    scores = {score.metric.key: (score.value, score.low, score.high) for score in outcome.scores}
    return {"scores": repr(scores), "predictions": outcome.predictions}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["scores"] == expected["scores"]
    assert found["predictions"].equals(expected["predictions"])


def test_features_of_streamed_images_have_the_bits_of_those_in_memory(tmp_path: Path) -> None:
    data = small_digits()
    encoder, pixels = small_encoder(data), np.asarray(data.images)
    images = write_images(tmp_path, pixels)
    found = encoder.features(Streamed(images, 2), batch_size=100)
    assert torch.equal(found, encoder.features(pixels, batch_size=100))
    assert os.getpid() not in images.readers() and set(images.reads().values()) == {1}


def test_an_image_that_cannot_be_read_is_named_and_no_process_is_left(tmp_path: Path) -> None:
    images = write_images(tmp_path, noise(90, channels=1), broken=60)
    with pytest.raises(DataError, match=r"^scan 60"):
        small_encoder(small_digits()).features(Streamed(images, 2), batch_size=32)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_finds_the_same_on_streamed_images(tmp_path: Path, name: str) -> None:
    data = small_digits()
    encoder = small_encoder(data)
    protocol = PROTOCOLS[name]()
    assert_same(evaluated(protocol, encoder, lazily(data, tmp_path)), evaluated(protocol, encoder, data))


def test_the_batch_size_of_the_features_changes_no_prediction_of_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_digits()
    for encoder in (random_resnet(data), trained_convnet(data)):
        results, features = [], []
        for size in (512, 64, 17):
            real = Encoder.features
            with monkeypatch.context() as patch:
                patch.setattr(Encoder, "features", lambda *a, real=real, size=size, **k: real(*a, batch_size=size, **k))
                results.append(evaluated(LinearProbe(epochs=10), encoder, data))
                features.append(encoder.features(data.images))
        for found, x in zip(results[1:], features[1:], strict=True):
            torch.testing.assert_close(x, features[0], rtol=1e-5, atol=1e-5)
            ranked, expected = (each["predictions"].select_dtypes("integer") for each in (found, results[0]))
            assert "top1" in ranked and ranked.equals(expected)


# --- several processes ---


def shared_scenarios() -> dict[str, Any]:
    """In each process: features and probes; only the first one's weights and images must matter to the features."""
    data = small_digits()
    encoder = small_encoder(data)
    images = np.asarray(data.images[:430])
    seen: list[int] = []
    encoder.module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found: dict[str, Any] = {
        f"features {size}": encoder.features(images, batch_size=size) for size in (100, 215, len(images))
    }
    found["seen"] = list(seen)
    for name, make in (("resnet", random_resnet), ("convnet", random_convnet)):
        found[name] = evaluated(LinearProbe(epochs=10), make(data), data)
    found["semi_supervised"] = evaluated(PROTOCOLS["semi_supervised"](), encoder, data)
    strange = small_encoder(data)
    with torch.no_grad():
        next(strange.module.parameters()).add_(process_rank())
    found["of the first"] = strange.features(images, batch_size=100)
    return found


def random_convnet(data: ImageDataset) -> Encoder:
    with isolated_rng(0, "backbone"):
        return encoder_of(convnet(1, width=4), data)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return shared_scenarios()


@pytest.fixture(scope="module")
def together() -> dict[str, Any]:
    found: dict[str, Any] = in_group(2, shared_scenarios)
    return found


def test_two_processes_share_the_blocks_and_get_the_bits_of_one(
    alone: dict[str, Any], together: dict[str, Any]
) -> None:
    for name, value in alone.items():
        if isinstance(value, Tensor):
            assert torch.equal(together[name], value), name
    assert alone["seen"] == [100, 100, 100, 100, 30, 215, 215, 430]
    assert together["seen"] == [100, 100, 30, 215, 430]  # the first of two takes every other block


@pytest.mark.parametrize("name", ["resnet", "convnet", "semi_supervised"])
def test_two_processes_find_what_one_finds(name: str, alone: dict[str, Any], together: dict[str, Any]) -> None:
    assert_same(together[name], alone[name])
