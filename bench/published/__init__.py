"""Published values with their provenance, as one tidy frame, and the papers that they are cited from.

A value that nobody could check against its source has ``confidence = memory``. Such rows are left out unless they are
asked for, and whoever lists them says so (``CONFIDENCE_WORDS``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from bench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

BENCHMARKS = ("imagenet_linear_semisup", "detection_transfer", "small_scale", "medical")
"""The CSV files of this folder, by name."""

FILE_COLUMNS = (
    "method", "variant", "backbone", "pretrain_data", "pretrain_epochs", "protocol", "eval_data", "metric", "unit",
    "label_fraction", "value", "low", "high", "paper", "arxiv_id", "source_table", "confidence", "quoted", "notes",
)  # fmt: skip
"""Columns of every CSV file, in this order."""

STORE_COLUMNS = (
    "schema_version", "origin", "kind", "status", "identity", "cell", "suite", "method", "backbone", "pretrain_data",
    "pretrain_epochs", "protocol", "variant", "eval_data", "label_fraction", "seed", "metric", "value", "low", "high",
    "n", "interval", "covers",
)  # fmt: skip
"""The columns that published rows share with measured ones."""

EXTRA_COLUMNS = (
    "benchmark", "method_title", "unit", "paper", "arxiv_id", "source_table", "confidence", "quoted", "notes",
)  # fmt: skip
"""The columns that only published rows have."""

CONFIDENCE_WORDS = {
    "read": "read in the paper or in the authors' repository",
    "secondary": "read in a source that repeats it, not in the paper itself",
    "memory": "from memory, not verified",
}

UNITS = {"%": (-100.0, 100.0), "": (-1.0, 1.0), "mm": (0.0, 1e4), "s": (0.0, 1e6)}
"""Unit of a value and the range in which it must lie; AUROC and its differences have no unit."""

METHOD_KEYS = {
    "Barlow Twins": "barlow_twins",
    "BYOL": "byol",
    "CMC": "cmc",
    "CPC v2": "cpc_v2",
    "FNC": "simclr_fnc",
    "InfoMin": "infomin",
    "MoCo v1": "moco_v1",
    "MoCo v2": "moco_v2",
    "OBoW": "obow",
    "PIRL": "pirl",
    "Random init": "random_init",
    "SimCLR": "simclr",
    "SimSiam": "simsiam",
    "Supervised": "supervised",
    "SwAV": "swav",
    "VICReg": "vicreg",
    "W-MSE": "wmse",
    "MedAug": "medaug",
    "SAM": "sam",
}  # fmt: skip
"""Registry key of a method by the title that the tables print; other titles are made into keys by ``method_key``."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A source of published values.

    Attributes:
        key: citation key.
        kind: ``paper``, ``repository``, or ``unidentified`` when its title was not seen.
        authors: in BibTeX form, ``Azizi and others`` where only the first was seen; empty where none was.
        arxiv_id, doi, url: empty where there is none or it was not seen.
    """

    key: str
    kind: str
    title: str
    authors: str
    year: int | None
    venue: str
    arxiv_id: str
    doi: str
    url: str

    @property
    def short(self) -> str:
        """``Bardes et al. 2022``, or the title where the authors are not known."""
        if not self.authors:
            return self.title.split(":")[0].split(",")[0] + (f" {self.year}" if self.year else "")
        names = [name.split(",")[0] for name in self.authors.split(" and ")]
        if len(names) == 2 and names[1] != "others":  # BibTeX's word for names that are not listed
            who = " and ".join(names)
        else:
            who = names[0] if len(names) == 1 else f"{names[0]} et al."
        return f"{who} {self.year}" if self.year else who

    @property
    def link(self) -> str:
        """Where to read it; empty when unknown."""
        if self.arxiv_id:
            return f"https://arxiv.org/abs/{self.arxiv_id}"
        return f"https://doi.org/{self.doi}" if self.doi else self.url


def method_key(title: str) -> str:
    """The registry key that belongs to a method's printed title."""
    if title in METHOD_KEYS:
        return METHOD_KEYS[title]
    letters = "".join(letter.lower() if letter.isalnum() else "_" for letter in title)
    return "_".join(part for part in letters.split("_") if part)


@cache
def load_papers() -> dict[str, Paper]:
    """The papers by citation key."""
    papers = {}
    for record in _read_csv("papers").to_dict("records"):
        fields: dict[str, Any] = {str(column): value for column, value in record.items()}
        papers[fields["key"]] = Paper(**{**fields, "year": int(fields["year"]) if fields["year"] else None})
    return papers


def load_published(*, include_memory: bool = False) -> pd.DataFrame:
    """All published values as a tidy frame, one row per value, in the store's columns and units.

    Args:
        include_memory: also return the rows that were never verified; a caller that shows them must mark them.

    Returns:
        Columns ``STORE_COLUMNS`` followed by ``EXTRA_COLUMNS``. ``identity`` is unique, and the order is that of the
        files.

    Raises:
        DataError: a file breaks its schema.
    """
    import pandas as pd

    parts = [_prepare(name) for name in BENCHMARKS]
    frame = pd.concat(parts, ignore_index=True)
    repeated = frame["identity"].duplicated()
    if repeated.any():
        first = frame.loc[repeated, "cell"].iloc[0]
        raise DataError(f"bench/published: the value {first} is listed twice. Remove one of the two lines.")
    if not include_memory:
        frame = frame[frame["confidence"] != "memory"].reset_index(drop=True)
    return frame


def _read_csv(name: str) -> pd.DataFrame:
    import pandas as pd

    with resources.files(__name__).joinpath(f"{name}.csv").open(encoding="utf-8") as stream:
        return pd.read_csv(stream, dtype=str, keep_default_na=False)


def _prepare(benchmark: str) -> pd.DataFrame:
    """One file in the columns of the frame."""
    import pandas as pd

    raw = _read_csv(benchmark)
    check_file(raw, benchmark)
    frame = raw.assign(
        benchmark=benchmark,
        schema_version=1,
        origin="published",
        kind="evaluation",
        status="ok",
        suite="",
        method_title=raw["method"],
        method=raw["method"].map(method_key),
        pretrain_epochs=pd.to_numeric(raw["pretrain_epochs"].replace("", None)).astype("Int64"),
        seed=pd.array([pd.NA] * len(raw), dtype="Int64"),
        n=pd.array([pd.NA] * len(raw), dtype="Int64"),
        quoted=raw["quoted"] == "yes",
        interval=raw["low"].map(lambda low: "as published, see the notes" if low else ""),
        covers="",
        **{name: pd.to_numeric(raw[name].replace("", None)) for name in ("label_fraction", "value", "low", "high")},
    )
    frame["identity"] = [_identity(row) for row in raw.drop(columns=["notes", "confidence"]).itertuples(index=False)]
    frame["cell"] = [
        f"published/{row.paper}/{row.source_table}/{row.method}/{row.protocol}/{row.eval_data}/{row.metric}"
        for row in frame.itertuples(index=False)
    ]
    return frame[[*STORE_COLUMNS, *EXTRA_COLUMNS]]


def _identity(row: tuple[str, ...]) -> str:
    return hashlib.sha256("\0".join(row).encode()).hexdigest()


def check_file(raw: pd.DataFrame, name: str) -> None:
    """Raise ``DataError`` when the text columns of one file break the schema; the message names the line."""
    if tuple(raw.columns) != FILE_COLUMNS:
        raise DataError(
            f"bench/published/{name}.csv: the columns are {', '.join(raw.columns)}. "
            f"Expected: {', '.join(FILE_COLUMNS)}."
        )
    papers = load_papers()
    for line, record in enumerate(raw.to_dict("records"), start=2):
        problem = _problem({str(column): str(value) for column, value in record.items()}, papers)
        if problem:
            raise DataError(f"bench/published/{name}.csv, line {line}: {problem} Correct the line.")


def _problem(row: dict[str, str], papers: dict[str, Paper]) -> str:
    for column in ("method", "protocol", "eval_data", "metric", "source_table"):
        if not row[column]:
            return f"{column} is empty."
    if row["paper"] not in papers:
        return f"paper {row['paper']!r} is not in papers.csv."
    if row["confidence"] not in CONFIDENCE_WORDS:
        return f"confidence {row['confidence']!r} is none of {', '.join(CONFIDENCE_WORDS)}."
    if row["quoted"] not in ("yes", "no"):
        return f"quoted {row['quoted']!r} is neither yes nor no."
    if row["unit"] not in UNITS:
        return f"unit {row['unit']!r} is none of {', '.join(repr(unit) for unit in UNITS)}."
    return _number_problem(row)


def _number_problem(row: dict[str, str]) -> str:
    try:
        value = float(row["value"])
        low, high = (float(row[end]) if row[end] else value for end in ("low", "high"))
        fraction = float(row["label_fraction"] or 1)
        epochs = int(row["pretrain_epochs"] or 1)
    except ValueError as error:
        return f"a number cannot be read: {error}."
    smallest, largest = UNITS[row["unit"]]
    if not smallest <= value <= largest:
        return f"value {value} lies outside [{smallest:g}, {largest:g}] for unit {row['unit']!r}."
    if not low <= value <= high:
        return f"the interval [{low}, {high}] does not contain the value {value}."
    if not 0 < fraction <= 1 or epochs < 1:
        return (
            f"label_fraction {row['label_fraction']!r} or pretrain_epochs {row['pretrain_epochs']!r} is out of range."
        )
    return ""
