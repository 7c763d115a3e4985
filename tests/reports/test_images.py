"""The page about the images, from facts that results recorded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.spec import DataSpec
from reports.images import ImageSet, image_sets

from .predicted import FACTS, measured_of, with_facts
from .synthetic import make_plan, make_rows


def images_of(facts: dict[str, Any]) -> ImageSet:
    plan = make_plan(states={})
    (found,) = image_sets(measured_of(plan, with_facts(make_rows(plan), facts)))
    return found


def texts(found: ImageSet, row: int) -> list[str]:
    return [found.splits.rows[row].title, *(cell.text for cell in found.splits.rows[row].cells)]


def test_size_splits_patients_and_balance_stand_in_words_and_tables() -> None:
    found = images_of(FACTS)
    words = " ".join(found.sentences)
    assert "1200 images, as the networks see them 48 × 64 pixels (gray, 8 bits), with 2 classes" in words
    assert "No patient has images in more than one split." in words
    assert "Every class has the same number of training images." in words
    assert texts(found, 0)[:3] == ["train", "700", "90"]
    assert texts(found, 2)[:3] == ["test", "400", "40"]
    assert found.classes is not None
    assert [cell.text for cell in found.classes.rows[1].cells] == ["350", "50", "200", "50.0 %"]


def test_patients_that_are_unknown_partly_known_or_shared_are_told() -> None:
    splits = {name: {**split, "patients": None, "without_patient": None} for name, split in FACTS["splits"].items()}
    unknown = images_of({**FACTS, "splits": splits, "shared_patients": None})
    assert any("Patients are not known" in text for text in unknown.sentences)
    assert [column.title for column in unknown.splits.columns] == ["images", "serves"]
    shared = images_of({**FACTS, "shared_patients": 1})
    assert "1 patient have images in more than one split." not in shared.sentences
    assert "1 patient has images in more than one split." in shared.sentences
    train = {**FACTS["splits"]["train"], "without_patient": 3}
    partly = images_of({**FACTS, "splits": {**FACTS["splits"], "train": train}})
    assert texts(partly, 0)[2] == "90 and 3 images without"


def test_findings_show_how_many_images_are_known() -> None:
    test = {**FACTS["splits"]["test"], "counts": [30, 0], "known": [380, 0]}
    found = images_of({**FACTS, "multilabel": True, "splits": {**FACTS["splits"], "test": test}})
    assert found.classes is not None and found.classes.stub == "Finding"
    assert found.classes.rows[0].cells[2].text == "30 (of 380 known)"
    assert [row.cells[3].text for row in found.classes.rows] == ["7.9 %", "unknown"]


def test_unequal_classes_are_named_and_hundreds_are_not_listed() -> None:
    train = {**FACTS["splits"]["train"], "counts": [600, 100]}
    words = " ".join(images_of({**FACTS, "splits": {**FACTS["splits"], "train": train}}).sentences)
    assert "The largest class, normal, has 600 training images, the smallest, pneumonia, 100" in words
    bare = {
        name: {key: value for key, value in split.items() if key not in ("counts", "known")}
        for name, split in FACTS["splits"].items()
    }
    many = images_of({**FACTS, "classes": [], "class_count": 1000, "splits": bare})
    assert many.classes is None and "1000 classes" in many.sentences[0]


def test_boxes_are_counted_by_class_and_split() -> None:
    counts = {"train": [900, 80], "validation": [100, 9], "test": [200, 21]}
    kinds = {"difficult": 2, "crowd": 0, "dropped": 1, "empty": 4}
    splits = {
        name: {**split, "objects": counts[name], "object_kinds": kinds} for name, split in FACTS["splits"].items()
    }
    found = images_of({**FACTS, "multilabel": True, "splits": splits})
    words = " ".join(found.sentences)
    assert "with 2 classes of objects, any number in an image" in words
    assert "boxes around 1310 objects: 980 in the train split, 109 in the validation split and 221 in the test" in words
    assert "Of further boxes 6 are difficult" in words and "; 3 were left out" in words and "regions" not in words
    assert "12 images without any object" in words
    assert found.objects is not None and found.objects.columns[0].groups == ("objects",)
    assert [cell.text for cell in found.objects.rows[1].cells] == ["80", "9", "21"]
    assert found.classes is not None and (found.classes.title, found.classes.stub) == ("Images by class", "Class")
    assert images_of(FACTS).objects is None


def test_images_that_no_encoder_was_pre_trained_on_do_not_serve_pre_training() -> None:
    plan = make_plan(states={})
    others = (
        replace(cell, spec=cell.spec.model_copy(update={"data": DataSpec(key="digit_scenes")})) for cell in plan.cells
    )
    (found,) = image_sets(measured_of(replace(plan, cells=tuple(others)), with_facts(make_rows(plan), FACTS)))
    assert texts(found, 0)[-1] == "what the evaluation learns from"
    assert texts(images_of(FACTS), 0)[-1] == "pre-training; with its labels, what the evaluation learns from"


def test_results_without_facts_have_no_page() -> None:
    plan = make_plan(states={})
    assert image_sets(measured_of(plan, make_rows(plan))) == ()
