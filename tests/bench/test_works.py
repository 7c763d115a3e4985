from __future__ import annotations

import csv
from collections import Counter
from importlib import resources

import pytest

from bench.errors import DataError
from bench.published import load_papers
from bench.published.works import (
    CATEGORIES,
    FAMILY_COLUMNS,
    REVIEW,
    WORK_COLUMNS,
    load_families,
    load_works,
    read_families,
    read_works,
)
from bench.registry import discover
from bench.table import Cell

GOOD_WORK = dict(zip(WORK_COLUMNS, (
    "contrastive", "MoCo", "moco", "Vu et al.", "vu2021medaug", "pleural effusion classification", "classification",
    "X-ray", "read", "read", "read", "secondary", "memory", "Table 5", "",
), strict=True))  # fmt: skip
GOOD_FAMILY = dict(zip(FAMILY_COLUMNS, (
    "cpc", "CPC", "", "yes", "no", "no", "oord2018cpc", "abstract", "read", "",
), strict=True))  # fmt: skip


def test_all_works_of_the_review_are_there_by_category() -> None:
    works = load_works()
    assert len(works) == 43
    assert Counter(work.category for work in works) == {
        "predictive": 8, "generative": 12, "contrastive": 11, "multi-self-supervised": 12
    }  # fmt: skip
    papers = load_papers()
    assert all(papers[work.paper].title and papers[work.paper].year for work in works)
    assert papers[REVIEW].short == "Shurrab and Duwairi 2022"


def test_the_contrastive_works_count_as_in_the_review_by_pretext_method() -> None:
    families = Counter(work.family for work in load_works() if work.family)
    assert families == {"moco": 4, "simclr": 2, "cpc": 2, "byol": 1, "longitudinal": 1, "softmax_embedding": 1}


def test_a_cell_from_memory_keeps_its_text_in_the_file_and_shows_nothing() -> None:
    slices = next(work for work in load_works() if work.paper == "body_part_recognition2017")
    assert slices.pretext.text == "slice ordering" and slices.pretext.shown == ""
    assert slices.authors.shown == slices.modality.shown == slices.task_type.shown == ""
    medaug = next(work for work in load_works() if work.paper == "vu2021medaug")
    assert [told.shown for told in medaug.cells] == [
        "Vu et al.", "MoCo", "pleural effusion classification", "classification", "X-ray"
    ]  # fmt: skip


def test_what_was_not_read_of_a_work_follows_from_its_category() -> None:
    """Outside the contrastive table only titles were read; what is shown of those works has a source in its notes."""
    for work in load_works():
        shown = [told for told in work.cells if told.shown]
        if work.category == "contrastive":
            assert all(told.shown for told in work.cells[:-1]), work.paper
        elif work.paper != "taleb2020volumes":
            assert all(told.confidence == "secondary" for told in shown), work.paper
            assert bool(shown) == bool(work.notes), work.paper


def test_authors_of_whom_only_the_first_was_seen_are_named_so() -> None:
    assert load_papers()["azizi2021big"].short == "Azizi et al. 2021"
    assert load_papers()["chen2021simsiam"].short == "Chen and He 2021"


def test_every_family_has_a_card_or_an_answer_with_a_source() -> None:
    registered = {entry.key for entry in discover().methods}
    for family in load_families().values():
        if family.method:
            assert family.method in registered
        else:
            answers = {family.negatives.shown, family.teacher.shown, family.decorrelation.shown}
            assert answers <= {"yes", "no"} and family.paper in load_papers() and family.notes


def test_a_good_line_is_read_with_a_confidence_for_each_cell() -> None:
    (work,) = read_works([GOOD_WORK])
    assert (work.tasks.confidence, work.task_type.confidence, work.modality.confidence) == (
        "secondary", "secondary", "memory"
    )  # fmt: skip
    assert (work.authors.shown, work.modality.text, work.modality.shown) == ("Vu et al.", "X-ray", "")
    assert set(CATEGORIES) > {work.category}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": "other"}, "line 2: category 'other' is none of predictive, generative, contrastive, multi"),
        ({"conf_modality": "sure"}, "conf_modality 'sure' is none of read, secondary, memory"),
        ({"conf_listing": "memory"}, "its listing is from memory"),
        ({"paper": "nobody1999"}, "paper 'nobody1999' is not in papers.csv"),
        ({"family": "mocco"}, "family 'mocco' is not in table3_families.csv"),
        ({"family": ""}, "the works of category contrastive have one"),
        ({"category": "generative"}, "the works of category contrastive have one"),
        ({"pretext_method": ""}, "pretext_method is empty"),
        ({"source": ""}, "source is empty"),
    ],
)
def test_a_broken_work_is_named_with_what_is_wrong(change: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_works([GOOD_WORK | change])


def test_a_work_stands_once_and_in_the_columns_of_the_file() -> None:
    with pytest.raises(DataError, match="line 3: paper 'vu2021medaug' is listed twice"):
        read_works([GOOD_WORK, GOOD_WORK])
    with pytest.raises(DataError, match="Expected: category, pretext_method"):
        read_works([{"category": "contrastive"}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": ""}, "line 2: family or title is empty"),
        ({"negatives": "maybe"}, "'maybe', 'no', 'no', expected yes or no"),
        ({"confidence": "sure"}, "confidence 'sure' is none of"),
        ({"paper": "nobody1999"}, "paper 'nobody1999' is not in papers.csv"),
        ({"place": ""}, "place is empty"),
        ({"method": "moco_v2"}, "its card tells what the line repeats"),
    ],
)
def test_a_broken_family_is_named_with_what_is_wrong(change: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_families([GOOD_FAMILY | change])


def test_a_family_stands_once_and_from_memory_shows_nothing() -> None:
    with pytest.raises(DataError, match="line 3: family 'cpc' is listed twice"):
        read_families([GOOD_FAMILY, GOOD_FAMILY])
    (family,) = read_families([GOOD_FAMILY | {"confidence": "memory"}]).values()
    assert family.negatives.shown == "" and family.negatives.text == "yes"


def test_no_citation_key_stands_twice_in_the_file_of_papers() -> None:
    text = resources.files("bench.published").joinpath("papers.csv").read_text(encoding="utf-8")
    keys = [line["key"] for line in csv.DictReader(text.splitlines())]
    assert len(set(keys)) == len(keys)


def test_a_cell_that_is_left_out_shows_a_question_mark_and_no_value() -> None:
    assert Cell(state="unverified").plain == "?"
