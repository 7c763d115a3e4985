"""Detections drawn on scenes: what counts as found, and how it is told apart without color."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from reports.detection_matches import judged, true_boxes
from reports.detection_pictures import CROWDED, Picture, count_words, pictured, scene_row, sheet, surest, symbols

from .detected import CLASSES, detections, png, scene


def kinds(**changes: Any) -> list[str]:
    return [box.kind for box in judged(scene(**changes), threshold=0.3)]


def found(boxes: list[float], scores: list[float], labels: list[int], **changes: Any) -> list[str]:
    return kinds(found_boxes=boxes, found_scores=scores, found_labels=labels, **changes)


def drawn(**changes: Any) -> Picture:
    return scene_row([scene(**changes)], {"SimCLR": 0.3}, CLASSES).pictures[1]


def test_a_box_of_the_right_class_that_overlaps_by_half_finds_the_object() -> None:
    cat = [10.0, 10.0, 40.0, 50.0]
    assert found(cat, [0.9], [0]) == ["true", "missed", "right"]
    assert found(cat, [0.9], [1]) == ["missed", "missed", "wrong"]
    assert found([10.0, 10.0, 40.0, 30.0], [0.9], [0])[2] == "right"  # 600 of 1200: exactly half
    assert found([10.0, 10.0, 40.0, 29.0], [0.9], [0])[2] == "wrong"


def test_the_second_box_on_an_object_is_wrong_and_it_is_the_one_with_the_lower_score() -> None:
    boxes = [12.0, 10.0, 40.0, 50.0, 10.0, 10.0, 40.0, 50.0]
    row = scene(found_boxes=boxes, found_scores=[0.5, 0.8], found_labels=[0, 0])
    assert [(box.kind, box.score) for box in judged(row, threshold=0.3)[2:]] == [("right", 0.8), ("wrong", 0.5)]


def test_boxes_below_the_threshold_are_neither_drawn_nor_found() -> None:
    assert found([10.0, 10.0, 40.0, 50.0], [0.29], [0]) == ["missed", "missed"]


def test_difficult_objects_and_boxes_on_them_do_not_count_nor_do_parts_of_a_crowd() -> None:
    cat = [10.0, 10.0, 40.0, 50.0]
    assert found(cat, [0.9], [0], true_difficult=[True, False]) == ["aside", "missed", "aside"]
    part = [10.0, 10.0, 20.0, 20.0]  # a small part of the region, wholly inside it
    assert found(part, [0.9], [0], true_crowd=[True, False])[2] == "aside"
    assert found(part, [0.9], [0])[2] == "wrong"


def test_a_box_prefers_an_object_that_counts_to_a_difficult_one_that_it_overlaps_more() -> None:
    changes = {"true_boxes": [10.0, 10.0, 40.0, 50.0, 12.0, 10.0, 40.0, 50.0], "true_labels": [0, 0]}
    assert found([10.0, 10.0, 40.0, 50.0], [0.9], [0], true_difficult=[True, False], **changes)[1:] == ["true", "right"]


def test_a_scene_without_objects_and_one_where_nothing_was_found_are_drawn() -> None:
    nothing = {name: [] for name in ("true_boxes", "true_labels", "true_crowd", "true_difficult", "true_areas")}
    assert kinds(**nothing) == []
    assert drawn(**nothing).counts == "nothing to find, 0 wrong"
    assert drawn().counts == "0 of 2 found, 0 wrong"
    assert [box.kind for box in true_boxes(scene())] == ["missed", "missed"]


def test_the_picture_says_in_words_what_it_shows() -> None:
    boxes = [10.0, 10.0, 40.0, 50.0, 0.0, 60.0, 20.0, 80.0]
    picture = drawn(found_boxes=boxes, found_scores=[0.91, 0.4], found_labels=[0, 1])
    label = ElementTree.fromstring(picture.svg).get("aria-label")
    assert label == "SimCLR on a.png: 1 of 2 found, 1 wrong. found: cat 0.91. wrong: dog 0.40. missed: dog."
    truth = scene_row([scene()], {"SimCLR": 0.3}, CLASSES).pictures[0]
    assert 'aria-label="Objects of a.png: cat and dog."' in truth.svg and truth.counts == "2 objects"


def test_lines_are_told_apart_by_class_and_sign_and_carry_no_style() -> None:
    boxes = [10.0, 10.0, 40.0, 50.0, 0.0, 60.0, 20.0, 80.0]
    root = ElementTree.fromstring(drawn(found_boxes=boxes, found_scores=[0.9, 0.4], found_labels=[0, 1]).svg)
    css = [node.get("class") for node in root.iter() if node.tag.endswith("rect")]
    assert css == ["casing", "true", "casing", "missed", "casing", "wrong", "casing", "right"]
    texts = {node.get("class"): node.text for node in root.iter() if node.tag.endswith("text")}
    assert texts == {"right": "cat 0.90", "wrong": "✕ dog 0.40", "missed": "? dog"}
    assert not any("style" in node.attrib or "fill" in node.attrib for node in root.iter())


def test_boxes_are_scaled_from_pixels_of_the_scene_and_tall_scenes_are_not_higher_than_allowed() -> None:
    root = ElementTree.fromstring(drawn().svg)
    assert root.get("viewBox") == "0 0 160 128"
    cat = next(node for node in root.iter() if node.get("class") == "missed")
    assert [cat.get(name) for name in ("x", "y", "width", "height")] == ["16", "16", "48", "64"]
    assert ElementTree.fromstring(drawn(height=400).svg).get("viewBox") == "0 0 50 200"


def test_names_stay_inside_the_scene() -> None:
    corner = drawn(true_boxes=[95.0, 0.0, 100.0, 10.0], true_labels=[1], true_crowd=[False], true_difficult=[False])
    (text,) = [node for node in ElementTree.fromstring(corner.svg).iter() if node.tag.endswith("text")]
    assert float(str(text.get("x"))) < 140 and 5 < float(str(text.get("y"))) < 128


def test_names_of_boxes_on_the_same_object_do_not_cover_each_other() -> None:
    box = [10.0, 20.0, 40.0, 50.0]
    twice = drawn(true_boxes=box, true_labels=[0], true_crowd=[False], true_difficult=[False],
                  found_boxes=[*box, 11.0, 20.0, 41.0, 50.0], found_scores=[0.9, 0.6], found_labels=[0, 0])  # fmt: skip
    texts = [node for node in ElementTree.fromstring(twice.svg).iter() if node.tag.endswith("text")]
    assert {text.text for text in texts} == {"cat 0.90", "✕ cat 0.60"}
    first, second = (float(str(text.get("y"))) for text in texts)
    assert abs(first - second) >= 9 and max(first, second) <= 128
    same = drawn(true_boxes=[], true_labels=[], true_crowd=[], true_difficult=[],
                 found_boxes=box * 6, found_scores=[0.9] * 6, found_labels=[0] * 6)  # fmt: skip
    assert same.svg.count("<text") == 4 and same.svg.count("<title>wrong: cat 0.90</title>") == 6


def test_where_boxes_crowd_only_what_is_wrong_or_missed_has_its_name() -> None:
    count = CROWDED + 1
    boxes = [float(value) for index in range(count) for value in (9 * index, 0, 9 * index + 8, 8)]
    many = {
        "true_boxes": boxes,
        "true_labels": [0] * count,
        "true_crowd": [False] * count,
        "true_difficult": [False] * count,
    }
    svg = drawn(**many, found_boxes=boxes[4:], found_scores=[0.9] * (count - 1), found_labels=[0] * (count - 1)).svg
    assert svg.count("<text") == 1 and ">? cat</text>" in svg
    assert svg.count("<title>found: cat 0.90</title>") == count - 1


def test_a_picture_is_embedded_once_and_used_by_every_method() -> None:
    rows = [scene(), scene(sample=1, picture=png(1)), scene(sample=2)]
    found = symbols(rows)
    page = sheet(found)
    assert len(found) == 2 and page.count("data:image/png;base64,") == 2
    row = scene_row([scene(), scene()], {"SimCLR": 0.3, "BYOL": 0.3}, CLASSES)
    used = {re.search(r'href="#([\w-]+)"', picture.svg)[1] for picture in row.pictures}  # type: ignore[index]
    assert used == {next(iter(found))} and all(f'id="{key}"' in page for key in found)
    assert "data:" not in "".join(picture.svg for picture in row.pictures)
    assert sheet({}) == ""


def test_only_scenes_with_a_picture_are_shown_in_the_order_of_the_samples() -> None:
    frame = detections("simclr", pictures=2).sample(frac=1, random_state=3)
    assert [row["name"] for row in pictured(frame)] == ["scene 0", "scene 1"]
    assert pictured(frame.drop(columns="picture")) == []


def test_names_from_the_data_cannot_become_markup() -> None:
    svg = scene_row([scene(name="<b>&.png")], {"A<B": 0.3}, ("<i>", "d&g")).pictures[1].svg
    root = ElementTree.fromstring(svg)
    assert "A<B on <b>&.png" in str(root.get("aria-label"))
    assert "<i>" not in svg and "<b>" not in svg


@pytest.mark.parametrize("label", [-1, 7])
def test_a_class_without_a_name_is_shown_by_its_number(label: int) -> None:
    svg = drawn(found_boxes=[0.0, 60.0, 20.0, 80.0], found_scores=[0.9], found_labels=[label]).svg
    assert f"class {label} 0.90" in svg


def test_counts_are_of_what_counts() -> None:
    row = scene(true_difficult=[True, False])
    assert count_words(judged(row, threshold=0.3)) == "0 of 1 found, 0 wrong"
    assert scene_row([row], {"SimCLR": 0.3}, CLASSES).pictures[0].counts == "1 object, 1 not counted"


def test_a_detector_shows_as_many_boxes_in_all_scenes_as_there_are_objects_that_count() -> None:
    scores = [0.9, 0.5, 0.4, 0.3, 0.2]
    two = pd.DataFrame([scene(found_scores=scores[:2]), scene(found_scores=scores[2:])])
    assert surest(two) == 0.3  # four objects, the fourth best box
    assert surest(two.assign(true_difficult=[[True, False], [True, True]])) == 0.9
    assert surest(pd.DataFrame([scene(found_scores=[0.1])])) == 0.1  # fewer boxes than objects: all
    assert surest(pd.DataFrame([scene()])) == math.inf
    assert surest(two.assign(true_crowd=[[True, True], [True, True]])) == math.inf


def test_each_method_has_a_least_score_of_its_own() -> None:
    row = scene(found_boxes=[10.0, 10.0, 40.0, 50.0], found_scores=[0.4], found_labels=[0])
    pictures = scene_row([row, row], {"SimCLR": 0.4, "BYOL": 0.5}, CLASSES).pictures
    assert [picture.counts for picture in pictures[1:]] == ["1 of 2 found, 0 wrong", "0 of 2 found, 0 wrong"]
