from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.data.dataset import ImageDataset
from bench.encoders.build import initial_encoder
from bench.registry import discover
from bench.spec import DataSpec, PretrainSpec
from bench.training import pretraining
from bench.training.pretraining import build_method, train_encoder

SPLITS = {"train": [0, 3, 6], "validation": [1], "test": [2], "unlabelled": [4, 5]}


def dataset() -> ImageDataset:
    """Seven images; image i is filled with i."""
    return ImageDataset(
        key="d",
        title="D",
        images=np.arange(7, dtype=np.uint8).repeat(64).reshape(7, 8, 8, 1),
        labels=np.array([0, 1, 0, 1, -2, -2, 1]),
        class_names=("a", "b"),
        splits={name: np.array(rows) for name, rows in SPLITS.items()},
    )


@pytest.mark.parametrize(
    ("method", "images", "labels"), [("simclr", [0, 3, 4, 5, 6], None), ("supervised", [0, 3, 6], [0, 1, 1])]
)
def test_self_supervised_methods_see_unlabelled_images_and_supervised_ones_only_labelled_ones(
    method: str, images: list[int], labels: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, data = discover(), dataset()
    seen: list[Any] = []
    monkeypatch.setattr(pretraining, "pretrain", lambda _, __, images, labels, **___: seen.extend((images, labels)))
    spec = PretrainSpec(method=method, backbone="convnet", backbone_params={"width": 4}, data=DataSpec(key="d"))
    encoder = initial_encoder(catalog.backbones["convnet"], spec, data, identity="")
    model, encoder = build_method(encoder, catalog.methods[method].load(), spec, data)
    train_encoder(encoder, model, spec, data, device="cpu")
    assert seen[0][:, 0, 0, 0].tolist() == images
    assert (None if seen[1] is None else seen[1].tolist()) == labels
