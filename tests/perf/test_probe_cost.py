"""What the cached probe costs: its whole grid against one learning rate that encodes the images in every epoch, and
against one fit of scikit-learn for each candidate."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from bench.data.dataset import ImageDataset
from bench.data.mnist5k import mnist5k
from bench.encoders.convnet import convnet
from bench.encoders.encoder import Encoder
from bench.training.linear import Standardizer, fit_linear
from bench.training.regression import fit_softmax, l2_grid
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
    epochs = protocol.recipe.epochs
    reencoding = epoch * epochs
    phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in outcome.seconds.items())
    print(
        f"\ncached probe, {len(outcome.details['grid'])} candidates, {epochs} epochs: {cached:.2f} s ({phases})"
        f"\nre-encoding for one learning rate, {epochs} epochs: {reencoding:.1f} s "
        f"({MEASURED_EPOCHS} epochs measured)"
        f"\nratio: {cached / reencoding:.4f} (target: below 0.2)"
    )


@pytest.mark.perf
def test_whole_grids_against_one_fit_of_scikit_learn_per_candidate() -> None:
    data = mnist5k()
    encoder = encoder_of(data)
    train = data.split("train")
    x, y = encoder.features(train.images).clone(), torch.as_tensor(train.labels)
    x = Standardizer.fit(x)(x)
    l2 = l2_grid(1e-6, 1e5, 45)
    started = time.perf_counter()
    fit_softmax(x, y, num_classes=CLASSES, l2=torch.tensor(l2, dtype=torch.float64))
    batched = time.perf_counter() - started
    lrs, decays = torch.cartesian_prod(torch.tensor([0.01, 0.03, 0.1, 0.3, 1.0]), torch.tensor([0, 1e-4, 1e-3, 1e-2])).T
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(0)
    fit_linear(
        x, y, num_classes=CLASSES, lrs=lrs, weight_decays=decays, epochs=100, batch_size=256, generator=generator
    )
    sgd = time.perf_counter() - started
    started = time.perf_counter()
    for value in l2:
        LogisticRegression(C=1 / (value * len(x)), max_iter=1000).fit(x.numpy(), train.labels)
    single = time.perf_counter() - started
    print(
        f"\n{len(l2)} L2 coefficients, {len(x)} features of {x.shape[1]}: batched L-BFGS {batched:.2f} s, scikit-learn "
        f"one by one {single:.2f} s, ratio {batched / single:.2f} (target: below 1)"
        f"\n{len(lrs)} candidates by SGD, 100 epochs: {sgd:.2f} s, ratio to {len(lrs)} fits of scikit-learn "
        f"{sgd / (single * len(lrs) / len(l2)):.2f}"
    )
    assert batched < single
