from __future__ import annotations

import json

import numpy as np
import pytest

from bench.data.dataset import UNCERTAIN, UNKNOWN, ImageDataset
from bench.data.facts import MOST_CLASSES, facts_of

SPLITS = {"train": np.array([0, 1, 2]), "validation": np.array([3]), "test": np.array([4, 5])}


def dataset(
    labels: list[int] | list[list[int]], *, patients: list[str] | None = None, classes: int = 2
) -> ImageDataset:
    return ImageDataset(
        key="own",
        title="Own",
        images=np.zeros((6, 4, 5, 3), dtype=np.uint16),
        labels=np.array(labels, dtype=np.int64),
        class_names=tuple(f"c{index}" for index in range(classes)),
        splits=SPLITS,
        metadata={} if patients is None else {"patient": np.array(patients)},
    )


def test_the_facts_of_one_class_per_image() -> None:
    facts = facts_of(dataset([0, 0, 1, 1, 0, UNKNOWN]))
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["image_size"], facts["channels"], facts["bits"], facts["multilabel"]) == ([4, 5], 3, 16, False)
    assert facts["classes"] == ["c0", "c1"]
    assert facts["splits"]["train"] == {
        "images": 3, "patients": None, "without_patient": None, "counts": [2, 1], "known": [3, 3],
    }  # fmt: skip
    assert facts["splits"]["test"]["counts"] == [1, 0]
    assert facts["splits"]["test"]["known"] == [1, 1]
    assert facts["shared_patients"] is None


def test_the_facts_of_findings_count_what_is_known_of_each() -> None:
    facts = facts_of(dataset([[1, 0], [1, UNCERTAIN], [0, 1], [0, 0], [UNKNOWN, 1], [1, 1]]))
    assert facts["multilabel"]
    assert facts["splits"]["train"]["counts"] == [2, 1]
    assert facts["splits"]["train"]["known"] == [3, 2]
    assert facts["splits"]["test"]["counts"] == [1, 2]
    assert facts["splits"]["test"]["known"] == [1, 2]


@pytest.mark.parametrize(
    ("patients", "counts", "lacking", "shared"),
    [
        (["a", "a", "b", "c", "d", "d"], (2, 1, 1), (0, 0, 0), 0),
        (["a", "", "b", "a", "b", "a"], (2, 1, 2), (1, 0, 0), 2),
        (["", "", "", "", "", ""], (None, None, None), (None, None, None), 0),
    ],
)
def test_patients_are_counted_in_each_split_and_across_them(
    patients: list[str], counts: tuple[int | None, ...], lacking: tuple[int | None, ...], shared: int
) -> None:
    facts = facts_of(dataset([0, 0, 1, 1, 0, 1], patients=patients))
    assert tuple(split["patients"] for split in facts["splits"].values()) == counts
    assert tuple(split["without_patient"] for split in facts["splits"].values()) == lacking
    assert facts["shared_patients"] == shared


def test_hundreds_of_classes_are_counted_and_not_listed() -> None:
    facts = facts_of(dataset([0, 0, 1, 1, 0, 1], classes=MOST_CLASSES + 1))
    assert facts["classes"] == [] and facts["class_count"] == MOST_CLASSES + 1
    assert "counts" not in facts["splits"]["train"]
