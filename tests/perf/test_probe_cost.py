"""What the cached probe costs: its whole grid against one learning rate that encodes the images in every epoch."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from bench.data.dataset import ImageDataset
from bench.encoders.convnet import convnet
from bench.encoders.encoder import Encoder
from protocols.linear_probe import LinearProbe

TRAIN, CLASSES = 3500, 10
MEASURED_EPOCHS = 2


def random_images() -> ImageDataset:
    """Sizes of MNIST-5k; the content does not change the cost."""
    rng = np.random.default_rng(0)
    ends = np.cumsum([0, TRAIN, 500, 1000])
    return ImageDataset(
        key="random",
        title="Random images",
        images=rng.integers(0, 256, (ends[-1], 28, 28, 1), dtype=np.uint8),
        labels=np.arange(ends[-1], dtype=np.int64) % CLASSES,
        class_names=tuple("0123456789"),
        splits={name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(("train", "validation", "test"))},
    )


def encoder_of(data: ImageDataset) -> Encoder:
    torch.manual_seed(0)
    module = convnet(1)
    mean, std = data.channel_statistics
    return Encoder(
        module=module,
        feature_dim=module.feature_dim,
        channels=1,
        image_size=data.image_size,
        mean=mean,
        std=std,
        origin="random weights",
        identity="",
    )


def seconds_of_reencoding_epochs(encoder: Encoder, data: ImageDataset, *, epochs: int) -> float:
    """SGD of one linear classifier on frozen features that are computed anew in every epoch."""
    train = data.split("train")
    labels = torch.as_tensor(train.labels)
    layer = torch.nn.Linear(encoder.feature_dim, CLASSES)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    started = time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(TRAIN).split(256):
            features = encoder.features(train.images[rows.numpy()]).clone()
            loss = torch.nn.functional.cross_entropy(layer(features), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - started


@pytest.mark.perf
def test_cached_probe_with_its_grid_against_reencoding_for_one_learning_rate() -> None:
    data = random_images()
    encoder = encoder_of(data)
    protocol = LinearProbe()
    encoder.features(data.images[:512])  # warm-up
    started = time.perf_counter()
    outcome = protocol.evaluate(encoder, data, seed=0, device="cpu")
    cached = time.perf_counter() - started
    epoch = seconds_of_reencoding_epochs(encoder, data, epochs=MEASURED_EPOCHS) / MEASURED_EPOCHS
    reencoding = epoch * protocol.epochs
    phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in outcome.seconds.items())
    print(
        f"\ncached probe, {len(protocol.grid)} candidates, {protocol.epochs} epochs: {cached:.2f} s ({phases})"
        f"\nre-encoding for one learning rate, {protocol.epochs} epochs: {reencoding:.1f} s "
        f"({MEASURED_EPOCHS} epochs measured)"
        f"\nratio: {cached / reencoding:.4f} (target: below 0.2)"
    )
