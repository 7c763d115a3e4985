"""Published ablations: what became of a method when its paper took one term or trick away.

A row is addressed by the registry key of the method and the name that a suite gives the variant; the method as it
stands has the empty name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, cast, get_args

from bench.errors import DataError
from bench.published import CONFIDENCE_WORDS, load_papers

PublishedOutcome = Literal["collapse", "no collapse", "chance"]
COLUMNS = (
    "method", "variant", "setting", "outcome", "value", "pretrain_epochs", "paper", "source_table", "confidence",
    "quoted", "notes",
)  # fmt: skip
"""Columns of ``ablations.csv``, in this order."""


@dataclass(frozen=True, kw_only=True)
class PublishedAblation:
    """One printed outcome, for a ResNet-50 on ImageNet-1k.

    Attributes:
        method, variant: what it is compared with.
        setting: the source's own setting, which need not be exactly the variant's.
        outcome: ``collapse`` where the source says so; ``chance`` where it prints an accuracy at chance and does not
            say whether the embeddings are constant; else ``no collapse``.
        value: linear top-1 in percent; absent where none is printed.
        epochs: of the pre-training.
        paper: citation key.
        confidence: key of ``bench.published.CONFIDENCE_WORDS``.
        quoted: the source took it from elsewhere.
    """

    method: str
    variant: str
    setting: str
    outcome: PublishedOutcome
    value: float | None
    epochs: int
    paper: str
    source_table: str
    confidence: str
    quoted: bool
    notes: str


@cache
def load_ablations() -> Mapping[tuple[str, str], PublishedAblation]:
    """The published ablations by method and variant, without those from memory.

    Raises:
        DataError: the file breaks its schema; the message names the line.
    """
    text = resources.files("bench.published").joinpath("ablations.csv").read_text(encoding="utf-8")
    return parse_ablations(csv.DictReader(text.splitlines()))


def parse_ablations(lines: Iterable[Mapping[str, str]]) -> Mapping[tuple[str, str], PublishedAblation]:
    """The lines of the file as records; raises as :func:`load_ablations`."""
    found: dict[tuple[str, str], PublishedAblation] = {}
    for number, line in enumerate(lines, start=2):
        where = f"bench/published/ablations.csv, line {number}"
        if tuple(line) != COLUMNS:
            raise DataError(f"{where}: the columns are {', '.join(line)}. Expected: {', '.join(COLUMNS)}.")
        problem = _problem(line)
        if problem:
            raise DataError(f"{where}: {problem} Correct the line.")
        key = (line["method"], line["variant"])
        if key in found:
            raise DataError(f"{where}: {line['method']}[{line['variant']}] is listed twice. Remove one of the lines.")
        found[key] = _record(line)
    return {key: record for key, record in found.items() if record.confidence != "memory"}


def _problem(line: Mapping[str, str]) -> str:
    for column in ("method", "setting", "source_table"):
        if not line[column]:
            return f"{column} is empty."
    if line["outcome"] not in get_args(PublishedOutcome):
        return f"outcome {line['outcome']!r} is none of {', '.join(get_args(PublishedOutcome))}."
    if line["paper"] not in load_papers():
        return f"paper {line['paper']!r} is not in papers.csv."
    if line["confidence"] not in CONFIDENCE_WORDS:
        return f"confidence {line['confidence']!r} is none of {', '.join(CONFIDENCE_WORDS)}."
    if line["quoted"] not in ("yes", "no"):
        return f"quoted {line['quoted']!r} is neither yes nor no."
    try:
        value, epochs = float(line["value"] or 0), int(line["pretrain_epochs"])
    except ValueError as error:
        return f"a number cannot be read: {error}."
    if not 0 <= value <= 100 or epochs < 1:
        return f"value {line['value']!r} or pretrain_epochs {line['pretrain_epochs']!r} is out of range."
    if not line["value"] and line["outcome"] != "collapse":
        return f"outcome {line['outcome']!r} needs the printed value."
    return ""


def _record(line: Mapping[str, str]) -> PublishedAblation:
    return PublishedAblation(
        method=line["method"],
        variant=line["variant"],
        setting=line["setting"],
        outcome=cast(PublishedOutcome, line["outcome"]),
        value=float(line["value"]) if line["value"] else None,
        epochs=int(line["pretrain_epochs"]),
        paper=line["paper"],
        source_table=line["source_table"],
        confidence=line["confidence"],
        quoted=line["quoted"] == "yes",
        notes=line["notes"],
    )
