"""Where the survey that this harness began with is wrong, imprecise or silent, and what settles each point."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from importlib import resources

from bench.errors import DataError

COLUMNS = ("number", "severity", "statement", "correction", "settled_by", "kind", "methods", "test")
"""Columns of ``errata.csv``, in this order."""

SEVERITIES = {
    "error": "contradicts what the papers or the authors' code say",
    "imprecise": "true only in part, or easily misunderstood",
    "omission": "leaves out what a reader needs in order to judge it",
}
CHECKS = {
    "test": "unit test",
    "data": "published values",
    "source": "reading the source",
}
"""How an item can be checked: by a test of this harness, by its published values, or only by reading."""


@dataclass(frozen=True, kw_only=True)
class Erratum:
    """One item.

    Attributes:
        number: position in the list, from 1.
        severity: a key of ``SEVERITIES``.
        statement: what the survey says, in our words.
        correction: what is correct.
        settled_by: paper, table or repository with its commit.
        kind: a key of ``CHECKS``.
        methods: registry keys of the methods concerned.
        test: node id of the test that demonstrates it, relative to the folder of the tests; empty where there is none.
    """

    number: int
    severity: str
    statement: str
    correction: str
    settled_by: str
    kind: str
    methods: tuple[str, ...]
    test: str


def load_errata() -> tuple[Erratum, ...]:
    """All items in their order.

    Raises:
        DataError: the file breaks its schema; the message names the line.
    """
    text = resources.files("bench.published").joinpath("errata.csv").read_text(encoding="utf-8")
    return read_errata(csv.DictReader(io.StringIO(text)))


def read_errata(lines: Iterable[Mapping[str, str]]) -> tuple[Erratum, ...]:
    """Items from the file's lines, checked."""
    items: list[Erratum] = []
    for place, line in enumerate(lines, start=1):
        problem = _problem(line, place)
        if problem:
            raise DataError(f"bench/published/errata.csv, item {place}: {problem} Correct the line.")
        fields = {name: line[name] for name in COLUMNS if name not in ("number", "methods")}
        items.append(Erratum(number=place, methods=tuple(line["methods"].split()), **fields))
    return tuple(items)


def errata_csv(items: Iterable[Erratum]) -> str:
    """The items as comma-separated values in the columns of the file."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in items:
        writer.writerow([" ".join(value) if isinstance(value, tuple) else value for value in astuple(item)])
    return stream.getvalue()


def _problem(line: Mapping[str, str], place: int) -> str:
    if tuple(line) != COLUMNS or None in line.values():
        return f"the columns are {', '.join(map(str, line))}, expected {', '.join(COLUMNS)}."
    if line["number"] != str(place):
        return f"its number is {line['number']!r}; items are numbered from 1 without gaps."
    for column in ("statement", "correction", "settled_by"):
        if not line[column].strip():
            return f"{column} is empty."
    if line["severity"] not in SEVERITIES:
        return f"severity {line['severity']!r} is none of {', '.join(SEVERITIES)}."
    if line["kind"] not in CHECKS:
        return f"kind {line['kind']!r} is none of {', '.join(CHECKS)}."
    if line["test"] and "::" not in line["test"]:
        return f"test {line['test']!r} is no node id such as methods/test_byol.py::test_name."
    return ""
