from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.data.annotations import NO_MASK, Annotation, Complaints, settle
from bench.data.detection import Dropped, Objects
from bench.errors import DataError, SpecError

SIZES = np.array([[20, 30], [40, 50]])


def thing(box: tuple[float, float, float, float], scene: int = 0, **more: Any) -> Annotation:
    return Annotation(scene=scene, where=f"a.xml, object {scene + 1}", box=box, label=0, **more)


def settled(
    *things: Annotation, flawed: str = "drop", slack: tuple[float, float] = (1, 0)
) -> tuple[Objects, tuple[Dropped, ...]]:
    return settle(things, ("x/a.png", "b.png"), SIZES, Complaints("set"), flawed=flawed, slack=slack)


def test_sound_boxes_stay_as_they_are_in_the_order_of_their_scenes() -> None:
    objects, dropped = settled(thing((1, 2, 49, 39), 1, crowd=True), thing((0, 0, 30, 20), difficult=True))
    assert objects.boxes.tolist() == [[0, 0, 30, 20], [1, 2, 49, 39]] and not dropped
    assert objects.difficult.tolist() == [True, False] and objects.crowd.tolist() == [False, True]
    assert objects.areas.tolist() == [600, 48 * 37]


def test_an_area_that_is_told_wins_over_that_of_the_box() -> None:
    assert settled(thing((0, 0, 10, 10), area=7.5))[0].areas.tolist() == [7.5]


def test_what_the_format_explains_is_cut_off_and_what_it_does_not_explain_refused() -> None:
    assert settled(thing((-1, -1, 5, 5)))[0].boxes.tolist() == [[0, 0, 5, 5]]
    assert settled(thing((-1, 0, 31, 21)), slack=(1, 1))[0].boxes.tolist() == [[0, 0, 30, 20]]
    for box in ((-1.5, 0, 5, 5), (0, 0, 30.5, 5), (0, 0, 5, 20.5)):
        with pytest.raises(
            DataError, match=r"set: boxes that reach beyond .* \(1\): a.xml, object 1: .*a.png, 30×20 p"
        ):
            settled(thing(box))
        objects, dropped = settled(thing(box), flawed="clip")
        assert objects.boxes.tolist() == [np.clip(box, 0, [30, 20, 30, 20]).tolist()] and not dropped


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((5, 5, 5, 9), "without area"),
        ((5, 5, 9, 5), "without area"),
        ((30, 0, 35, 5), "outside the image"),
        ((0, 20, 5, 25), "outside the image"),
        ((-9, 0, 0, 5), "outside the image"),
        ((0, -9, 5, 0), "outside the image"),
    ],
)
def test_what_teaches_nothing_is_left_out_and_listed_or_refused(
    box: tuple[float, float, float, float], reason: str
) -> None:
    good = thing((0, 0, 4, 4), 1)
    for flawed in ("drop", "clip"):
        objects, dropped = settled(thing(box), good, flawed=flawed)
        assert objects.scene.tolist() == [1] and dropped[0].scene == 0
        assert dropped[0].text.startswith("a.xml, object 1: (") and dropped[0].text.endswith(f"30×20 pixels: {reason}")
    with pytest.raises(DataError, match=r"objects (without area|outside their image) \(1\): a.xml, object 1"):
        settled(thing(box), good, flawed="refuse")


def test_a_mask_without_area_is_left_out_like_a_box_without() -> None:
    objects, dropped = settled(thing((0, 0, 4, 4), mask="[[0,0,4,0,4,4]]"), thing((0, 0, 4, 4), mask=NO_MASK))
    assert objects.masks == ("[[0,0,4,0,4,4]]",) and len(dropped) == 1


def test_ends_in_the_wrong_order_are_always_an_error() -> None:
    for box in ((9, 0, 5, 5), (0, 9, 5, 5)):
        with pytest.raises(DataError, match=r"right or lower end comes before .*Exchange the ends"):
            settled(thing(box), flawed="clip")


def test_one_message_tells_all_kinds_of_errors_and_how_many_there_are() -> None:
    wrong = [thing((0, 0, 99, 5)) for _ in range(5)]
    with pytest.raises(DataError) as caught:
        settled(*wrong, thing((5, 5, 5, 5)), thing((9, 0, 5, 5)), flawed="refuse")
    text = str(caught.value)
    assert "(5): " in text and "and 2 more" in text and "without area (1)" in text and "before the other (1)" in text


def test_an_unknown_word_for_flawed_objects_is_refused() -> None:
    with pytest.raises(SpecError, match="drop, clip, refuse, got 'keep'"):
        settled(flawed="keep")


def test_a_set_without_objects_has_empty_arrays() -> None:
    objects, dropped = settled()
    assert objects.boxes.shape == (0, 4) and not dropped and not objects.masks
