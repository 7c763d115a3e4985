"""Who takes part in the contest, by which metric, and with which intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.metric import AUROC, BALANCED_ACCURACY, TOP1
from bench.statistics.proportion import wilson_interval
from reports.contest import Loader, contests, span_words

from .predicted import FACTS, IMAGES, contest_of_classes, findings_request, measured_of, predictions_of
from .synthetic import make_plan, make_rows


def test_the_linear_probe_decides_and_values_are_those_of_the_predictions() -> None:
    contest = contest_of_classes()
    assert (contest.protocol_key, contest.metric) == ("linear_probe", TOP1)
    assert [entrant.name for entrant in contest.entrants] == ["simclr", "byol", "vicreg", "supervised", "random_init"]
    frame = predictions_of(plan := make_plan(states={}))(plan.cells[0].identity.digest)
    assert frame is not None
    assert contest.entrants[0].value == pytest.approx(100 * (frame["label"] == frame["top1"]).mean())
    assert [contest.entrants[index].name for index in contest.methods] == ["simclr", "byol", "vicreg"]
    assert contest.images == IMAGES and contest.absent == ()
    assert contest.command == "jointbench run synthetic"


def test_intervals_are_those_of_the_tables_for_one_seed_and_none_of_images_where_patients_are_known() -> None:
    plan = make_plan(states={})
    rows, predictions = make_rows(plan), predictions_of(plan)
    frame = predictions(plan.cells[0].identity.digest)
    assert frame is not None
    hits = int((frame["label"] == frame["top1"]).sum())
    low, high = wilson_interval(hits, IMAGES)
    mine = (rows["identity"] == plan.cells[0].identity.digest) & (rows["metric"] == "top1")
    rows.loc[mine, ["value", "low", "high"]] = [100 * hits / IMAGES, low, high]
    (contest,) = contests(measured_of(plan, rows), predictions)
    assert (contest.entrants[0].low, contest.entrants[0].high) == (low, high)
    other = contest.entrants[1]  # the store holds another value than these predictions: its interval is not theirs
    assert other.low is not None and other.high is not None and other.low < other.value < other.high
    patients = [f"p{index // 10}" for index in range(IMAGES)]
    clustered = contest_of_classes(patients=patients)
    assert clustered.clustered and clustered.patient_count == 40
    assert clustered.entrants[0].low != pytest.approx(low, abs=0.01)
    assert clustered.comparison is not None and clustered.comparison.differences[0].test == "paired bootstrap"


@pytest.mark.parametrize(("state", "words"), [("failed", "it failed"), ("missing", "not run"), ("stale", "stale")])
def test_a_method_without_fresh_values_of_every_seed_takes_no_part(state: str, words: str) -> None:
    contest = contest_of_classes(seeds=2, states={("vicreg", "linear_probe", 1): state})
    assert "vicreg" not in [entrant.name for entrant in contest.entrants]
    (absent,) = contest.absent
    assert absent[0] == "VICReg" and words in absent[1] and "some seeds" in absent[1]


def test_a_method_without_predictions_or_with_other_images_takes_no_part() -> None:
    plan = make_plan(states={})
    whole = predictions_of(plan)
    gone, other = (next(c for c in plan.cells if c.spec.pretrain.method == name) for name in ("byol", "vicreg"))

    def partly(identity: str) -> pd.DataFrame | None:
        frame = whole(identity)
        if identity == gone.identity.digest or frame is None:
            return None
        return frame.assign(sample=frame["sample"] + 1) if identity == other.identity.digest else frame

    (contest,) = contests(measured_of(plan, make_rows(plan)), partly)
    assert dict(contest.absent).keys() == {"BYOL", "VICReg"}
    assert "no predictions" in dict(contest.absent)["BYOL"]
    assert "other test images" in dict(contest.absent)["VICReg"]


def test_nothing_is_compared_without_predictions() -> None:
    plan = make_plan(states={})
    nothing: Loader = {}.get
    assert contests(measured_of(plan, make_rows(plan)), nothing) == ()


def test_classes_count_alike_where_they_differ_more_than_threefold() -> None:
    skewed = np.where(np.arange(IMAGES) < 90, 1, 0)
    assert contest_of_classes(labels=skewed, facts=None).metric == BALANCED_ACCURACY
    assert contest_of_classes(labels=np.where(np.arange(IMAGES) < 110, 1, 0), facts=None).metric == TOP1
    train = {**FACTS["splits"]["train"], "counts": [650, 50]}
    facts = {**FACTS, "splits": {**FACTS["splits"], "train": train}}
    assert contest_of_classes(facts=facts).metric == BALANCED_ACCURACY


def test_the_order_of_the_rows_of_predictions_does_not_matter() -> None:
    plan = make_plan(states={})
    whole = predictions_of(plan)

    def shuffled(identity: str) -> pd.DataFrame | None:
        frame = whole(identity)
        return None if frame is None else frame.sample(frac=1, random_state=len(identity))

    measured = measured_of(plan, make_rows(plan))
    (one,), (other,) = contests(measured, whole), contests(measured, shuffled)
    assert one.comparison == other.comparison


def test_findings_are_compared_by_the_mean_area_under_their_roc_curves() -> None:
    plan, rows, predictions = findings_request()
    (contest,) = contests(measured_of(plan, rows), predictions)
    assert (contest.metric, contest.names) == (AUROC, ("Effusion", "Hernia"))
    values = {entrant.name: entrant.value for entrant in contest.entrants}
    assert values["simclr"] > 90 and 40 < values["random_init"] < 75
    assert contest.labels.shape == (IMAGES, 2)


def test_findings_that_no_test_image_shows_leave_nothing_to_compare() -> None:
    plan, rows, predictions = findings_request()

    def healthy(identity: str) -> pd.DataFrame | None:
        frame = predictions(identity)
        return None if frame is None else frame.assign(**{"label Effusion": 0, "label Hernia": 0})

    assert contests(measured_of(plan, rows), healthy) == ()


def test_negative_ends_have_a_true_minus_sign() -> None:
    assert span_words(TOP1, -1.25, 3.0) == " (−1.2 to 3.0)"
    assert span_words(TOP1, None, 3.0) == ""
