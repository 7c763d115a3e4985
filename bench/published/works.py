"""Table 3 as data: what a review of medical imaging lists by kind of pretext task, and what its pretext methods do.

``table3.csv`` holds the works that Shurrab and Duwairi 2022 list, with a confidence for each cell. A cell from memory
is left out (``Told.shown`` is empty) and counted by whoever shows the table. ``table3_families.csv`` groups the
pretext methods; what is registered here has its properties in its card, anything else in the file, with a source.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from bench.errors import DataError
from bench.published import CONFIDENCE_WORDS, load_papers

REVIEW = "shurrab2022survey"
"""Citation key of the review that lists the works."""

CATEGORIES = {
    "predictive": "Predictive",
    "generative": "Generative",
    "contrastive": "Contrastive",
    "multi-self-supervised": "Several tasks at once",
}
"""The review's categories, in its order, with their printed names."""

WORK_COLUMNS = (
    "category", "pretext_method", "family", "work", "paper", "downstream_tasks", "task_type", "modality",
    "conf_listing", "conf_work", "conf_pretext", "conf_downstream", "conf_modality", "source", "notes",
)  # fmt: skip
FAMILY_COLUMNS = (
    "family", "title", "method", "negatives", "teacher", "decorrelation", "paper", "place", "confidence", "notes",
)  # fmt: skip
"""Columns of the two files, in this order."""

ANSWERS = ("yes", "no")


@dataclass(frozen=True, kw_only=True)
class Told:
    """One cell with how it was checked.

    Attributes:
        text: what the file says; empty where it says nothing.
        confidence: key of ``bench.published.CONFIDENCE_WORDS``.
    """

    text: str
    confidence: str

    @property
    def shown(self) -> str:
        """What may be shown as fact: nothing that is known from memory only."""
        return "" if self.confidence == "memory" else self.text


@dataclass(frozen=True, kw_only=True)
class Work:
    """One work that the review lists.

    Attributes:
        category: key of ``CATEGORIES``.
        family: of its pretext method, key of ``load_families``; empty where the review's table was not seen.
        paper: citation key; title, year and venue stand in ``papers.csv``.
        listing: confidence of title, venue and category.
        authors, pretext, tasks, task_type, modality: the cells.
        source: where they were read.
    """

    category: str
    family: str
    paper: str
    listing: str
    authors: Told
    pretext: Told
    tasks: Told
    task_type: Told
    modality: Told
    source: str
    notes: str

    @property
    def cells(self) -> tuple[Told, ...]:
        return self.authors, self.pretext, self.tasks, self.task_type, self.modality


@dataclass(frozen=True, kw_only=True)
class PretextFamily:
    """Pretext methods that share a loss.

    Attributes:
        key: as in ``Work.family``.
        method: registry key of the method whose card tells its properties; empty where none is registered.
        negatives, teacher, decorrelation: ``yes`` or ``no``, with their confidence; empty where the card tells.
        paper, place: where that was read.
    """

    key: str
    title: str
    method: str
    negatives: Told
    teacher: Told
    decorrelation: Told
    paper: str
    place: str
    notes: str


@cache
def load_works() -> tuple[Work, ...]:
    """All works in the order of the file, with the cells from memory, which must not be shown.

    Raises:
        DataError: the file breaks its schema; the message names the line.
    """
    return read_works(_lines("table3"))


@cache
def load_families() -> Mapping[str, PretextFamily]:
    """The families by key, in the order of the file; those that no listed work belongs to as well.

    Raises:
        DataError: the file breaks its schema; the message names the line.
    """
    return read_families(_lines("table3_families"))


def read_works(lines: Iterable[Mapping[str, str]]) -> tuple[Work, ...]:
    """Works from the file's lines, checked; raises as :func:`load_works`."""
    found: dict[str, Work] = {}
    for number, line in enumerate(lines, start=2):
        where = f"bench/published/table3.csv, line {number}"
        _check_columns(line, WORK_COLUMNS, where)
        problem = _work_problem(line) or (f"paper {line['paper']!r} is listed twice." if line["paper"] in found else "")
        if problem:
            raise DataError(f"{where}: {problem} Correct the line.")
        found[line["paper"]] = _work(line)
    return tuple(found.values())


def read_families(lines: Iterable[Mapping[str, str]]) -> Mapping[str, PretextFamily]:
    """Families from the file's lines, checked; raises as :func:`load_families`."""
    found: dict[str, PretextFamily] = {}
    for number, line in enumerate(lines, start=2):
        where = f"bench/published/table3_families.csv, line {number}"
        _check_columns(line, FAMILY_COLUMNS, where)
        problem = _family_problem(line) or (
            f"family {line['family']!r} is listed twice." if line["family"] in found else ""
        )
        if problem:
            raise DataError(f"{where}: {problem} Correct the line.")
        found[line["family"]] = _family(line)
    return found


def _lines(name: str) -> Iterable[Mapping[str, str]]:
    text = resources.files("bench.published").joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())


def _check_columns(line: Mapping[str, str], columns: tuple[str, ...], where: str) -> None:
    if tuple(line) != columns or None in line.values():
        raise DataError(f"{where}: the columns are {', '.join(map(str, line))}. Expected: {', '.join(columns)}.")


def _work_problem(line: Mapping[str, str]) -> str:
    if line["category"] not in CATEGORIES:
        return f"category {line['category']!r} is none of {', '.join(CATEGORIES)}."
    for column in (name for name in WORK_COLUMNS if name.startswith("conf_")):
        if line[column] not in CONFIDENCE_WORDS:
            return f"{column} {line[column]!r} is none of {', '.join(CONFIDENCE_WORDS)}."
    if line["paper"] not in load_papers():
        return f"paper {line['paper']!r} is not in papers.csv."
    if line["conf_listing"] == "memory":
        return "its listing is from memory: a work that was not read to be listed has no row."
    if line["family"] and line["family"] not in load_families():
        return f"family {line['family']!r} is not in table3_families.csv."
    if bool(line["family"]) != (line["category"] == "contrastive"):
        return f"family {line['family']!r}: the works of category contrastive have one, and no others."
    for column in ("pretext_method", "source"):
        if not line[column]:
            return f"{column} is empty."
    return ""


def _work(line: Mapping[str, str]) -> Work:
    return Work(
        category=line["category"],
        family=line["family"],
        paper=line["paper"],
        listing=line["conf_listing"],
        authors=Told(text=line["work"], confidence=line["conf_work"]),
        pretext=Told(text=line["pretext_method"], confidence=line["conf_pretext"]),
        tasks=Told(text=line["downstream_tasks"], confidence=line["conf_downstream"]),
        task_type=Told(text=line["task_type"], confidence=line["conf_downstream"]),  # follows from the tasks
        modality=Told(text=line["modality"], confidence=line["conf_modality"]),
        source=line["source"],
        notes=line["notes"],
    )


def _family_problem(line: Mapping[str, str]) -> str:
    properties = [line[name] for name in ("negatives", "teacher", "decorrelation")]
    if not line["family"] or not line["title"]:
        return "family or title is empty."
    if line["method"]:
        return "its card tells what the line repeats." if any(properties) or line["paper"] else ""
    if any(answer not in ANSWERS for answer in properties):
        return f"negatives, teacher and decorrelation are {', '.join(map(repr, properties))}, expected yes or no."
    if line["confidence"] not in CONFIDENCE_WORDS:
        return f"confidence {line['confidence']!r} is none of {', '.join(CONFIDENCE_WORDS)}."
    if line["paper"] not in load_papers():
        return f"paper {line['paper']!r} is not in papers.csv."
    return "" if line["place"] else "place is empty."


def _family(line: Mapping[str, str]) -> PretextFamily:
    told = {name: Told(text=line[name], confidence=line["confidence"] or "read") for name in (
        "negatives", "teacher", "decorrelation"
    )}  # fmt: skip
    return PretextFamily(
        key=line["family"],
        title=line["title"],
        method=line["method"],
        paper=line["paper"],
        place=line["place"],
        notes=line["notes"],
        **told,
    )
