from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from bench.data.dataset import ImageDataset


def test_digits_are_scikit_learns_on_the_scale_of_bytes(digits: ImageDataset) -> None:
    original = load_digits()
    assert digits.images.shape == (1797, 8, 8, 1)
    assert digits.images.dtype == np.uint8
    assert np.abs(digits.images[..., 0] / 255 - original.images / 16).max() <= 0.5 / 255
    assert (digits.images.min(), digits.images.max()) == (0, 255)
    assert digits.labels.tolist() == original.target.tolist()
    assert digits.class_names == tuple("0123456789")


def test_digits_state_their_channel_statistics(digits: ImageDataset) -> None:
    (mean,), (std,) = digits.channel_statistics
    pixels = digits.split("train").images / 255
    assert mean == pytest.approx(pixels.mean())
    assert std == pytest.approx(pixels.std())
