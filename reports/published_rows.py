"""The published half of Table 1: which printed values stand in it, and from which source.

The rows are those of Bardes et al. 2022, Table 1, the one table that prints all six columns for ImageNet-1k with
ResNet-50, and two methods that it lacks, from their own sources. A value that they quote is traced to the method's own
paper or repository: where that source prints the same value for the same epochs, it is cited instead, and the value
counts as original. A quoted value that could not be traced keeps its mark. No value is replaced, converted or averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from bench.metric import Metric
from bench.published import load_papers
from bench.statistics.proportion import wilson_interval
from bench.table import QUOTED, SECONDARY, Cell
from reports.results import number, whole

if TYPE_CHECKING:
    import pandas as pd

BASE_PAPER, BASE_TABLE = "bardes2022vicreg", "Table 1"
DATA, BACKBONE = "ImageNet-1k", "ResNet-50"
VALIDATION_IMAGES = 50_000

OWN_PAPER = {
    "barlow_twins": "zbontar2021barlow",
    "byol": "grill2020byol",
    "infomin": "tian2020infomin",
    "moco_v1": "he2020moco",
    "moco_v2": "chen2020mocov2",
    "simclr": "chen2020simclr",
    "simsiam": "chen2021simsiam",
    "swav": "caron2020swav",
    "vicreg": "bardes2022vicreg",
}
"""The paper that introduced each method."""

ADDED = (
    ("simclr_fnc", "", "huynh2022fnc", "README", "linear probe"),
    ("wmse", "W-MSE 4 (4 positives)", "ermolov2021wmse", "Table 3 (via MSR Table 4)", "linear"),
)
"""Methods that the base table lacks: key, variant, paper, place and printed protocol of their comparable values. FNC's
semi-supervised values start from a layer of the projector, unlike all others, and are left out."""

PLACES = {
    "linear": "linear_probe",
    "linear probe": "linear_probe",
    "supervised": "linear_probe",
    "finetune_semisup": "semi_supervised",
    "supervised_from_scratch_subset": "semi_supervised",
}
"""Where a printed protocol stands in Table 1; the supervised rows are trained end to end, which a note says."""

Place = tuple[str, float, str]
"""Protocol, label fraction, metric."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One method with one configuration, as printed.

    Attributes:
        method: registry key.
        title: printed name, with the variant.
        epochs: pre-training epochs where a source gives them; not all of the values' sources need to.
        values: the record of each printed value.
    """

    method: str
    title: str
    variant: str
    epochs: int | None
    values: Mapping[Place, Mapping[str, Any]]


def published_rows(published: pd.DataFrame) -> tuple[PublishedRow, ...]:
    """The rows of published Table 1, in the order of their source, then those that it lacks."""
    comparable = published[(published["eval_data"] == DATA) & (published["backbone"] == BACKBONE)]
    here = comparable[comparable["benchmark"] == "imagenet_linear_semisup"]
    base = (here["paper"] == BASE_PAPER) & (here["source_table"] == BASE_TABLE) & here["protocol"].isin(PLACES)
    origin = comparable[["method", "variant", "paper", "source_table", "protocol"]].apply(tuple, axis=1).isin(ADDED)
    added = origin & comparable["confidence"].isin(["read", "secondary"])
    chosen = comparable[added | base.reindex(comparable.index, fill_value=False)]
    rows = []
    for (title, variant), part in chosen.groupby(["method_title", "variant"], sort=False):
        records = [_traced(_plain(record), here) for record in part.to_dict("records")]
        epochs = {int(record["pretrain_epochs"]) for record in records if record["pretrain_epochs"] is not None}
        rows.append(
            PublishedRow(
                method=str(records[0]["method"]),
                title=_title(str(title), str(variant)),
                variant=str(variant),
                epochs=epochs.pop() if len(epochs) == 1 else None,
                values={_place(record): record for record in records},
            )
        )
    return tuple(rows)


def lacks_epochs(record: Mapping[str, Any]) -> bool:
    """Whether the value's own source gives no epochs: none are on record, or the base table, without any, quotes it."""
    return record["pretrain_epochs"] is None or (bool(record["quoted"]) and record["paper"] == BASE_PAPER)


def epochs_notes(rows: Iterable[PublishedRow]) -> tuple[str, ...]:
    """One sentence for each row whose epochs are not printed with all of its values."""
    counted = [(row, sum(map(lacks_epochs, row.values.values()))) for row in rows if row.epochs]
    return tuple(
        f"{row.title}: the source of {lacking} of the {len(row.values)} values prints no epochs; "
        f"{row.epochs} is taken from other sources."
        for row, lacking in counted
        if lacking
    )


def _title(title: str, variant: str) -> str:
    """``SwAV (multi-crop)``; a variant that repeats the name, such as ``InfoMin Aug``, stands alone."""
    if not variant or variant.startswith(title):
        return variant or title
    return f"{title} ({variant})"


def _plain(record: Mapping[Any, Any]) -> dict[str, Any]:
    """The record with None for every missing number."""
    plain: dict[str, Any] = {str(name): value for name, value in record.items()}
    numbers = {name: number(plain[name]) for name in ("value", "low", "high", "label_fraction")}
    return plain | numbers | {"pretrain_epochs": whole(plain["pretrain_epochs"])}


def _place(record: Mapping[str, Any]) -> Place:
    return PLACES[str(record["protocol"])], float(record["label_fraction"]), str(record["metric"])


def _traced(record: dict[str, Any], here: pd.DataFrame) -> dict[str, Any]:
    """The same value from the method's own paper, when that paper prints it for the same epochs."""
    own = OWN_PAPER.get(record["method"])
    if not record["quoted"] or own is None or record["pretrain_epochs"] is None:
        return record
    same = here[
        (here["paper"] == own)
        & (here["method"] == record["method"])
        & (here["protocol"] == record["protocol"])
        & (here["metric"] == record["metric"])
        & (here["label_fraction"] == record["label_fraction"])
        & (here["value"] == record["value"])
        & (here["pretrain_epochs"] == record["pretrain_epochs"])
        & ~here["quoted"]
        & here["confidence"].isin(["read", "secondary"])
    ]
    if same.empty:
        return record
    read = same[same["confidence"] == "read"]
    found = _plain((read if len(read) else same).iloc[0].to_dict())
    return found | {"also": f"{record['paper']}, {record['source_table']} (quoted)"}


def published_cell(record: Mapping[str, Any] | None, metric: Metric) -> Cell:
    """The table cell of one printed value; blank where nothing is printed."""
    if record is None:
        return Cell(state="absent", metric=metric, reason="no value is printed in the sources")
    marks = tuple(
        mark for mark, holds in ((QUOTED, record["quoted"]), (SECONDARY, record["confidence"] == "secondary")) if holds
    )
    return Cell(
        state="published",
        metric=metric,
        value=float(record["value"]),
        low=record["low"],
        high=record["high"],
        interval=str(record["interval"]),
        marks=marks,
        anchor=published_panel_id(record),
    )


def published_panel_id(record: Mapping[str, Any]) -> str:
    return f"pub-{str(record['identity'])[:12]}"


def sampling_interval(value: float) -> tuple[float, float]:
    """Wilson interval of a printed ImageNet accuracy in percent, from its 50 000 validation images.

    Papers print no spread, so this is a lower bound of the uncertainty. It serves the comparison within a column only
    and is never shown as the paper's own interval.
    """
    return wilson_interval(round(value / 100 * VALIDATION_IMAGES), VALIDATION_IMAGES)


def source_line(row: PublishedRow) -> str:
    """The sources of a row in short: ``Grill et al. 2020, Tables 1a and 2a; quoted in Bardes et al. 2022, Table 1``."""
    places: dict[tuple[bool, str], dict[str, None]] = {}
    for record in row.values.values():
        entry = places.setdefault((bool(record["quoted"]), str(record["paper"])), {})
        entry[str(record["source_table"])] = None
    parts = []
    for (quoted, key), tables in places.items():
        where = ", ".join(tables)
        parts.append(f"{'quoted in ' if quoted else ''}{short_name(key)}, {where}")
    return "; ".join(parts)


def short_name(key: str) -> str:
    """``Chen et al. 2020b``: authors and year, with a letter where several sources of Table 1 share them.

    The letters follow the citation keys, so they are the same in every report.
    """
    papers = load_papers()
    if key not in papers:
        return key
    short = papers[key].short
    equal = sorted(other for other in {BASE_PAPER, *OWN_PAPER.values()} if papers[other].short == short)
    return short + ascii_lowercase[equal.index(key)] if key in equal and len(equal) > 1 else short


def citations(rows: tuple[PublishedRow, ...]) -> tuple[str, ...]:
    """Citation keys of everything shown, each once, in order."""
    keys: dict[str, None] = {}
    for row in rows:
        for record in row.values.values():
            keys[str(record["paper"])] = None
    return tuple(keys)
