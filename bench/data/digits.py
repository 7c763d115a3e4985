"""scikit-learn's handwritten digits: 1797 images of 8×8 pixels, saturated, for smoke tests."""

from __future__ import annotations

import numpy as np

from bench.card import DatasetCard
from bench.data.dataset import ImageDataset
from bench.data.files import depends_on
from bench.data.splits import stratified_splits
from bench.registry import register_dataset

LEVELS = 16
"""Gray levels are 0 … 16."""


@register_dataset(
    "digits",
    card=DatasetCard(
        title="Digits",
        summary="1797 handwritten digits of 8×8 pixels; stratified splits of 1257 / 180 / 360 images.",
        license="CC BY 4.0 (UCI Machine Learning Repository)",
        source="scikit-learn, sklearn.datasets.load_digits",
        embedded=True,
    ),
)
@depends_on(packages=("scikit-learn",))
def digits() -> ImageDataset:
    """Load the digits, scaled to 0 … 255."""
    from sklearn.datasets import load_digits  # lazily: takes a second, and a warm cache does not need it

    loaded = load_digits()
    labels = np.asarray(loaded.target, dtype=np.int64)
    return ImageDataset(
        key="digits",
        title="Digits",
        images=np.rint(loaded.images * (255 / LEVELS)).astype(np.uint8)[..., None],
        labels=labels,
        class_names=tuple("0123456789"),
        splits=stratified_splits(labels, validation=180, test=360),
    )
