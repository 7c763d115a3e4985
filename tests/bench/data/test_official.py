from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.data.official import Portion, with_validation
from bench.errors import DataError


def portion(labels: list[int], *, name: str = "file") -> Portion:
    images = np.zeros((len(labels), 2, 2, 1), dtype=np.uint8)
    images[:, 0, 0, 0] = labels
    return Portion(images=images, labels=np.array(labels, dtype=np.int64), file=Path(name))


def test_portions_are_joined_in_order_and_the_test_images_come_last() -> None:
    train = [portion([0, 1] * 10), portion([1, 0] * 10)]
    joined = with_validation("k", "T", train=train, test=portion([1, 1, 0]), class_names=("a", "b"))
    assert joined.labels.tolist() == [0, 1] * 10 + [1, 0] * 10 + [1, 1, 0]
    assert joined.images[:, 0, 0, 0].tolist() == joined.labels.tolist()
    assert joined.splits["test"].tolist() == [40, 41, 42]
    assert {name: len(index) for name, index in joined.splits.items()} == {"train": 36, "validation": 4, "test": 3}


def test_validation_has_an_image_of_each_class_although_a_tenth_would_not_do() -> None:
    joined = with_validation("k", "T", train=[portion([0, 1, 2] * 3)], test=portion([0]), class_names=("a", "b", "c"))
    assert sorted(joined.labels[joined.splits["validation"]].tolist()) == [0, 1, 2]


def test_an_empty_portion_is_an_error() -> None:
    with pytest.raises(DataError, match=r"empty: it holds no image"):
        with_validation("k", "T", train=[portion([0, 1])], test=portion([], name="empty"), class_names=("a", "b"))
