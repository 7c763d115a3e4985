from __future__ import annotations

import numpy as np

from bench.data.dataset import ImageDataset


def test_mnist5k_holds_500_images_of_each_digit(mnist5k: ImageDataset) -> None:
    assert mnist5k.images.shape == (5000, 28, 28, 1)
    assert np.bincount(mnist5k.labels).tolist() == [500] * 10
    assert (int(mnist5k.images.min()), int(mnist5k.images.max())) == (0, 255)


def test_images_and_labels_belong_together(mnist5k: ImageDataset) -> None:
    """The nearest class mean finds most labels; shuffled labels would leave one in ten."""
    train, test = mnist5k.split("train"), mnist5k.split("test")
    flat = train.images.reshape(len(train), -1).astype(np.float64)
    means = np.stack([flat[train.labels == digit].mean(0) for digit in range(10)])
    points = test.images.reshape(len(test), -1).astype(np.float64)
    distances = (points**2).sum(1)[:, None] - 2 * points @ means.T + (means**2).sum(1)
    assert (distances.argmin(1) == test.labels).mean() > 0.7
