"""The suite for images of the user's own: what it asks of classes and of findings, and that it runs on few images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.card import MethodCard
from bench.data.dataset import ImageDataset
from bench.evaluation import with_patients
from bench.registry import discover
from bench.spec import DataSpec
from bench.suite import expand, find_suite

CATALOG = discover()


def cells(*offers: str) -> dict[str, set[str]]:
    """Protocols of each method for data that offer this."""
    _, suite = find_suite("own", CATALOG)
    found: dict[str, set[str]] = {}
    for spec in expand(suite, CATALOG, offers=lambda _: offers):  # type: ignore[arg-type, return-value]
        found.setdefault(spec.pretrain.method, set()).add(spec.protocol_name)
    return found


def test_classes_and_findings_are_each_measured_by_what_fits_them() -> None:
    classes, findings = cells("labels"), cells("multilabel", "metadata")
    assert set(classes["simclr"]) >= {"linear_probe", "knn", "semi_supervised[10%]", "label_efficiency"}
    assert findings["simclr"] == {"multilabel_probe", "multilabel_probe[10%]", "diagnostics"}
    assert set(classes) == set(findings) and {"supervised", "random_init"} < set(classes)


def test_scenes_with_boxes_are_measured_by_a_detector_that_a_laptop_can_train() -> None:
    scenes = cells("boxes", "multilabel")
    assert {frozenset(protocols) for protocols in scenes.values()} == {
        frozenset(("detection", "multilabel_probe", "multilabel_probe[10%]", "diagnostics"))
    }
    assert "multilabel_probe" not in cells("boxes")["simclr"]  # every class is in every scene
    _, suite = find_suite("own", CATALOG)
    chosen = expand(suite, CATALOG, offers=lambda _: ("boxes",), protocols=["detection"])
    protocol = CATALOG.protocols["detection"].load()(**chosen[0].protocol_params)
    assert (protocol.engine, protocol.recipe.architecture) == ("torchvision", "single_stage")
    assert protocol.recipe.iterations * protocol.recipe.batch_size <= 2400 and max(protocol.recipe.sides) <= 192
    assert protocol.recipe.test_side == protocol.recipe.sides[-1]


def test_the_methods_are_of_every_family() -> None:
    cards = [CATALOG.methods[name].card for name in cells("labels")]
    assert {card.family for card in cards if isinstance(card, MethodCard)} >= {
        "contrastive", "asymmetric", "information maximization", "baseline",
    }  # fmt: skip


def test_all_methods_have_settings_that_fit_its_batch() -> None:
    _, suite = find_suite("own", CATALOG)
    every = suite.model_copy(update={"methods": "all"})
    specs = expand(every, CATALOG, data=DataSpec(key="digits"), protocols=["diagnostics"])
    for spec in specs:
        sub_batch = spec.pretrain.method_params.get("sub_batch", 2)
        assert spec.pretrain.training is None or spec.pretrain.training.batch_size % sub_batch == 0
    assert len(specs) >= 14


def dataset(**metadata: np.ndarray) -> ImageDataset:
    return ImageDataset(
        key="own",
        title="Own",
        images=np.zeros((4, 2, 2, 1), dtype=np.uint8),
        labels=np.zeros(4, dtype=np.int64),
        class_names=("a",),
        splits={"train": np.array([0]), "validation": np.array([1]), "test": np.array([2, 3])},
        metadata=metadata,
    )


def test_predictions_are_kept_with_the_patient_of_each_image() -> None:
    predictions = pd.DataFrame({"sample": [3, 2], "top1": [0, 0]})
    known = with_patients(predictions, dataset(patient=np.array(["p", "q", "r", "s"])))
    assert known["patient"].tolist() == ["s", "r"]
    assert "patient" not in predictions
    assert with_patients(predictions, dataset(view=np.array(["PA"] * 4))) is predictions
    of_pairs = predictions.rename(columns={"sample": "pair"})
    assert with_patients(of_pairs, dataset(patient=np.array(["p", "q", "r", "s"]))) is of_pairs
