"""The verdict on images with boxes: it rests on average precision, in words about finding objects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from bench.metric import AP
from bench.plan import Plan
from reports.cautions import warnings
from reports.contest import Contest, Loader, contests, resamples_for
from reports.verdict import Verdict, verdicts

from .detected import SCENES, detection_request, measured_detection
from .synthetic import make_plan, make_rows

PATIENTS = [f"p{index // 2}" for index in range(SCENES)]


def contest_of_objects(**options: Any) -> Contest:
    plan, rows, predictions = detection_request(**options)
    (found,) = contests(measured_detection(plan, rows), predictions)
    return found


def verdict(**options: Any) -> Verdict:
    plan, rows, predictions = detection_request(**options)
    (found,) = verdicts(measured_detection(plan, rows), predictions)
    return found


def changed(request: tuple[Plan, pd.DataFrame, Loader], **columns: Any) -> tuple[Contest, ...]:
    """The contests where every method's predictions have other columns."""
    plan, rows, predictions = request

    def other(identity: str) -> pd.DataFrame | None:
        frame = predictions(identity)
        return None if frame is None else frame.assign(**columns)

    return contests(measured_detection(plan, rows), other)


def test_average_precision_decides_with_the_stored_values_and_intervals() -> None:
    plan, rows, _ = detection_request()
    contest = contest_of_objects()
    assert (contest.protocol_key, contest.metric, contest.objects) == ("detection", AP, 62)
    stored = rows[(rows["identity"] == plan.cells[0].identity.digest) & (rows["metric"] == "ap")].iloc[0]
    first = contest.entrants[0]
    assert first.value == pytest.approx(stored["value"], abs=1e-6)
    assert (first.low, first.high) == (stored["low"], stored["high"])
    assert contest.names == ("cat", "dog") and contest.labels.shape == (SCENES, 2)


def test_boxes_decide_before_labels_on_the_same_images() -> None:
    plan, rows, predictions = detection_request()
    labelled = make_plan(states={})
    both = replace(plan, cells=(*labelled.cells, *plan.cells))
    (found,) = contests(measured_detection(both, pd.concat([make_rows(labelled), rows])), predictions)
    assert found.protocol_key == "detection"


def test_scenes_of_one_patient_are_resampled_together() -> None:
    contest = contest_of_objects(patients=PATIENTS)
    assert contest.clustered and contest.patient_count == SCENES // 2
    plain = contest_of_objects()
    assert contest.comparison is not None and plain.comparison is not None
    assert contest.comparison.differences[0].image_variance != plain.comparison.differences[0].image_variance


def test_pairs_are_compared_on_the_same_resamples_and_the_best_share_the_lead() -> None:
    found = verdict()
    assert found.headline == "SimCLR and BYOL lead in finding objects and cannot be told apart."
    assert found.pairs is not None and "average precision (AP)" in found.pairs.caption
    rests = " ".join(answer for item in found.answers if "rest on" in item.question for answer in item.sentences)
    assert "40 test images with 62 objects" in rests and "paired bootstrap of images" in rests
    assert "frames them tightly" in rests and "page “Detection”" in rests
    worth = next(item for item in found.answers if "worth it at all" in item.question)
    assert worth.sentences[0] == "Yes."


def test_a_single_leader_finds_objects_better() -> None:
    states = {("byol", 0): "missing"}
    assert verdict(states=states).headline == (
        "SimCLR leads: detectors built on it find objects better than those of every other self-supervised method."
    )


def test_few_scenes_few_objects_and_one_seed_are_cautioned_of() -> None:
    found = verdict()
    words = " ".join(found.warnings)
    assert "The test split is small: 40 images" in words and "only 62 objects" in words
    assert any(item.command.endswith("--seeds 3") for item in found.advice)
    assert not any("largest class" in text or "guessing" in text for text in found.warnings)


def test_detectors_that_find_next_to_nothing_are_told() -> None:
    plan, rows, predictions = detection_request()

    def blind(identity: str) -> pd.DataFrame | None:
        frame = predictions(identity)
        return (
            None
            if frame is None
            else frame.assign(found_boxes=[[0.0, 0.0, 1.0, 1.0] * len(s) for s in frame["found_scores"]])
        )

    (contest,) = contests(measured_detection(plan, rows), blind)
    assert any("finds next to nothing" in text for text in warnings(contest, ()))
    assert not any("finds next to nothing" in text for text in warnings(contest_of_objects(), ()))


def test_scenes_without_an_object_that_counts_leave_nothing_to_compare() -> None:
    request = detection_request()
    frame = request[2](request[0].cells[0].identity.digest)
    assert frame is not None
    aside = [[True] * len(own) for own in frame["true_labels"]]
    assert changed(request, true_difficult=aside) == ()


def test_predictions_whose_classes_nobody_recorded_take_no_part() -> None:
    plan, rows, predictions = detection_request(details={"classes": []})
    assert contests(measured_detection(plan, rows), predictions) == ()


def test_other_objects_are_other_test_images() -> None:
    plan, rows, predictions = detection_request()
    second = plan.cells[1].identity.digest

    def other(identity: str) -> pd.DataFrame | None:
        frame = predictions(identity)
        if identity != second or frame is None:
            return frame
        return frame.assign(true_labels=[[0] * len(own) for own in frame["true_labels"]])

    (contest,) = contests(measured_detection(plan, rows), other)
    assert dict(contest.absent) == {"BYOL": "its stored predictions are for other test images"}


def test_large_sets_have_fewer_resamples_but_never_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _, predictions = detection_request()
    frame = predictions(plan.cells[0].identity.digest)
    assert frame is not None
    found = sum(map(len, frame["found_scores"]))
    assert resamples_for([frame]) == 2000
    monkeypatch.setattr("reports.contest.MOST_WORK", 1000 * found)
    assert resamples_for([frame]) == 1000
    monkeypatch.setattr("reports.contest.MOST_WORK", 1)
    assert resamples_for([frame]) == 200
