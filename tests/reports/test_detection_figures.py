"""Curves of detection: what they show, which lines stand in front, and that they are those of the metrics."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from bench.statistics.detection import average_precision_statistic, precision_recall
from bench.statistics.detection_curves import mean_precision
from reports.detection_figures import iteration_figure, loss_figures, recall_figure
from reports.detection_page import Setting, settings
from reports.detection_seen import MOST_METHODS, Seen, seen
from reports.plots import draw

from .detected import CLASSES, SCENES, detection_request, detections, measured_detection


@cache
def shown(seeds: int = 1) -> tuple[Setting, Seen]:
    plan, rows, predictions = detection_request(seeds=seeds)
    (setting,) = settings(measured_detection(plan, rows))
    return setting, seen(setting, predictions)


def test_the_mean_over_classes_is_that_of_their_own_curves_and_its_mean_is_the_ap() -> None:
    frame = detections("vicreg")
    lines = mean_precision(frame, len(CLASSES), (0.5, 0.75))
    own = [precision_recall(frame, label=label, iou=0.75).interpolated for label in range(len(CLASSES))]
    np.testing.assert_allclose(lines[1], np.mean(own, axis=0))
    ap50 = average_precision_statistic(frame, len(CLASSES), metric_key="ap50")(np.ones((1, SCENES)))[0]
    assert lines[0].mean() == pytest.approx(ap50, abs=1e-6)


def test_a_class_without_objects_is_left_out_of_the_mean_and_none_at_all_is_no_curve() -> None:
    frame = detections("vicreg")
    np.testing.assert_allclose(mean_precision(frame, 3, (0.5,)), mean_precision(frame, 2, (0.5,)))
    empty = frame.assign(true_crowd=[[True] * len(item) for item in frame["true_labels"]])
    assert np.isnan(mean_precision(empty, 2, (0.5,))).all()


def test_names_stand_in_the_order_of_the_ap_with_their_value() -> None:
    setting, found = shown()
    figure = recall_figure(setting, found.curves[0])
    assert [curves.iou for curves in found.curves] == [0.5, 0.75]
    heights = {item.name.rsplit(" ", 1)[0]: item.named_at for item in figure.series}
    values = {item.name.rsplit(" ", 1)[0]: float(item.name.rsplit(" ", 1)[1]) for item in figure.series}
    assert set(values) == {entry.title for entry in setting.entries}
    for title, height in heights.items():
        assert height == pytest.approx(values[title], abs=0.051)
    assert values["Supervised"] > values["SimCLR"] > values["VICReg"] > values["Random init"]
    assert f"Supervised {values['Supervised']}" in figure.summary
    assert "50 %" in figure.title and figure.series[0].epochs[-1] == 100


def test_the_best_three_methods_and_the_baselines_stand_in_front_and_others_are_gray() -> None:
    setting, found = shown()
    fourth = replace(setting.entries[2], title="Fourth", ap=1.0)
    more = replace(setting, entries=(fourth, *setting.entries))
    assert [entry.title for entry in more.front] == ["SimCLR", "BYOL", "VICReg", "Supervised", "Random init"]
    curves = replace(found.curves[0], precision={"Fourth": (1.0,) * 101, **found.curves[0].precision})
    figure = recall_figure(more, curves)
    forms = {item.name.rsplit(" ", 1)[0]: item.form for item in figure.series}
    assert forms.pop("Fourth") == "faint" and set(forms.values()) == {"line"}
    assert figure.summary.endswith("Gray: Fourth.")
    assert len({item.slot for item in figure.series}) == len(figure.series)
    svg = draw(figure)
    assert svg.count("faint-stroke") > draw(recall_figure(setting, found.curves[0])).count("faint-stroke")


def test_ap_against_iterations_is_of_the_validation_scenes_at_every_trial() -> None:
    setting, _ = shown()
    figure = iteration_figure(setting)
    assert figure is not None and "validation" in figure.y_label and "not the test scenes" in figure.summary
    line = next(item for item in figure.series if item.name == "SimCLR")
    assert line.epochs == (100.0, 200.0, 300.0) and line.low == ()
    assert line.values[0] == pytest.approx(line.values[2] / 3)
    assert "after 300 iterations" in figure.summary


def test_several_seeds_show_their_mean_and_range() -> None:
    setting, _ = shown(2)
    figure = iteration_figure(setting)
    assert figure is not None
    line = next(item for item in figure.series if item.name == "BYOL")
    assert line.low[2] < line.values[2] < line.high[2] and line.values[2] == pytest.approx(
        (line.low[2] + line.high[2]) / 2
    )
    assert "means of 2 seeds" in figure.summary


def test_no_trial_on_the_way_is_no_figure() -> None:
    plan, rows, _ = detection_request(details={"curve": [{"iteration": 10, "losses": {"boxes": 1.0}, "total": 1.0}]})
    (setting,) = settings(measured_detection(plan, rows))
    assert iteration_figure(setting) is None


def test_losses_stand_by_term_with_their_total() -> None:
    plan, rows, _ = detection_request(variants=("", "frozen"))
    figures = loss_figures(measured_detection(plan, rows), "simclr")
    assert [figure.title for figure in figures] == [
        "Losses of the detector, Object detection on MNIST-5k",
        "Losses of the detector, Object detection, frozen on MNIST-5k",
    ]
    assert len({figure.key for figure in figures}) == 2
    assert [(item.name, item.form) for item in figures[0].series] == [
        ("classes", "line"),
        ("boxes", "line"),
        ("total", "total"),
    ]
    assert figures[0].series[2].values[0] == pytest.approx(3.0) and "total from 3 to 0.5" in figures[0].summary
    assert loss_figures(measured_detection(plan, rows), "moco_v1") == ()


def test_pictures_are_of_the_first_seed_and_scenes_that_all_methods_have() -> None:
    plan, rows, predictions = detection_request(seeds=2)
    (setting,) = settings(measured_detection(plan, rows))
    found = seen(setting, predictions)
    assert [row.name for row in found.scenes] == ["scene 0", "scene 1", "scene 2"]
    assert list(found.methods) == ["SimCLR", "BYOL", "VICReg", "Supervised", "Random init"]
    assert all(len(row.pictures) == 6 for row in found.scenes) and len(found.symbols) == 3
    first = plan.cells[0].identity.digest

    def partly(identity: str) -> object:
        frame = predictions(identity)
        return frame.iloc[1:] if identity == first and frame is not None else frame

    assert [row.name for row in seen(setting, partly).scenes] == ["scene 1", "scene 2"]  # type: ignore[arg-type]


def test_without_predictions_there_are_neither_pictures_nor_curves() -> None:
    setting, _ = shown()
    assert seen(setting, None) == Seen() and seen(setting, {}.get) == Seen()


def test_where_there_is_no_room_the_baselines_and_the_best_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.detection_seen.MOST_METHODS", 3)
    plan, rows, predictions = detection_request()
    (setting,) = settings(measured_detection(plan, rows))
    found = seen(setting, predictions)
    assert MOST_METHODS > 3 and list(found.methods) == ["SimCLR", "Supervised", "Random init"]
    assert found.left_out == ("BYOL", "VICReg")
    assert set(found.curves[0].precision) == {entry.title for entry in setting.entries}


def test_a_method_whose_seeds_did_not_all_run_has_no_curve() -> None:
    plan, rows, predictions = detection_request(seeds=2, states={("byol", 1): "failed"})
    (setting,) = settings(measured_detection(plan, rows))
    found = seen(setting, predictions)
    assert "BYOL" not in found.curves[0].precision and "BYOL" not in found.methods
