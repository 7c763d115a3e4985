from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bench.metric import TOP1
from reports.published_rows import (
    PublishedRow,
    citations,
    epochs_notes,
    published_cell,
    published_rows,
    sampling_interval,
    short_name,
    source_line,
)

from .synthetic import published_values

LINEAR = ("linear_probe", 1.0, "top1")


@pytest.fixture(scope="module")
def rows() -> dict[str, PublishedRow]:
    return {row.title: row for row in published_rows(published_values())}


def test_the_rows_are_those_of_the_base_table_and_two_that_it_lacks(rows: dict[str, PublishedRow]) -> None:
    assert list(rows) == [
        "Supervised", "MoCo v1", "PIRL", "CPC v2", "CMC", "SimCLR", "MoCo v2", "SimSiam", "SwAV (without multi-crop)",
        "InfoMin Aug", "OBoW", "BYOL", "SwAV (multi-crop)", "Barlow Twins", "VICReg", "W-MSE 4 (4 positives)", "FNC",
    ]  # fmt: skip


def test_values_are_the_printed_ones(rows: dict[str, PublishedRow]) -> None:
    vicreg = {place: record["value"] for place, record in rows["VICReg"].values.items()}
    assert vicreg == {
        ("linear_probe", 1.0, "top1"): 73.2,
        ("linear_probe", 1.0, "top5"): 91.1,
        ("semi_supervised", 0.01, "top1"): 54.8,
        ("semi_supervised", 0.1, "top1"): 69.5,
        ("semi_supervised", 0.01, "top5"): 79.4,
        ("semi_supervised", 0.1, "top5"): 89.5,
    }
    assert rows["VICReg"].epochs == 1000
    assert rows["PIRL"].epochs is None


def test_methods_that_the_base_table_lacks_stand_with_their_comparable_values(rows: dict[str, PublishedRow]) -> None:
    fnc, wmse = rows["FNC"], rows["W-MSE 4 (4 positives)"]
    assert (fnc.method, wmse.method) == ("simclr_fnc", "wmse")
    assert {place: record["value"] for place, record in fnc.values.items()} == {
        ("linear_probe", 1.0, "top1"): 74.4,
        ("linear_probe", 1.0, "top5"): 91.8,
    }
    assert {place: record["value"] for place, record in wmse.values.items()} == {LINEAR: 72.6}
    assert wmse.values[LINEAR]["confidence"] == "secondary" and wmse.epochs == 400


def test_a_quoted_value_is_cited_from_the_methods_own_paper_when_it_prints_the_same(
    rows: dict[str, PublishedRow],
) -> None:
    record = rows["BYOL"].values[LINEAR]
    assert (record["paper"], record["quoted"], record["value"]) == ("grill2020byol", False, 74.3)
    assert record["also"] == "bardes2022vicreg, Table 1 (quoted)"
    assert source_line(rows["BYOL"]) == "Grill et al. 2020, Table 1a, Table 2a"


def test_a_quoted_value_without_an_original_keeps_its_mark(rows: dict[str, PublishedRow]) -> None:
    record = rows["OBoW"].values[LINEAR]
    assert record["quoted"]
    cell = published_cell(record, TOP1)
    assert (cell.state, cell.marks, cell.number) == ("published", ("†",), "73.8")
    assert source_line(rows["OBoW"]) == "quoted in Bardes et al. 2022, Table 1"


def test_an_original_with_another_value_does_not_replace_the_quote() -> None:
    frame = published_values()
    own = (frame["paper"] == "grill2020byol") & (frame["method"] == "byol")
    changed = frame.assign(value=frame["value"].where(~own, frame["value"] + 0.1))
    byol = next(row for row in published_rows(changed) if row.method == "byol")
    assert byol.values[LINEAR]["quoted"]
    assert byol.values[LINEAR]["value"] == 74.3


def test_a_value_from_memory_never_stands_in_the_table() -> None:
    frame = published_values()
    base = (frame["paper"] == "bardes2022vicreg") & (frame["source_table"] == "Table 1") & (frame["method"] == "byol")
    own = (frame["paper"] == "grill2020byol") & (frame["method"] == "byol")
    remembered = frame.assign(confidence=frame["confidence"].where(~own, "memory"))
    byol = next(row for row in published_rows(remembered) if row.method == "byol")
    assert base.any() and byol.values[LINEAR]["paper"] == "bardes2022vicreg"


def test_what_is_not_printed_is_blank_with_a_reason() -> None:
    cell = published_cell(None, TOP1)
    assert (cell.state, cell.value, cell.reason) == ("absent", None, "no value is printed in the sources")


def test_a_secondary_reading_is_marked() -> None:
    row = next(iter(published_rows(published_values())))
    record = dict(next(iter(row.values.values()))) | {"confidence": "secondary", "quoted": False}
    assert published_cell(record, TOP1).marks == ("‡",)


def test_the_sampling_interval_is_that_of_fifty_thousand_images() -> None:
    low, high = sampling_interval(73.2)
    # half width 1.96 sqrt(0.732 * 0.268 / 50000) = 0.388 percentage points
    assert (low, high) == (pytest.approx(72.81, abs=0.01), pytest.approx(73.59, abs=0.01))


def test_citations_name_each_source_once(rows: dict[str, PublishedRow]) -> None:
    keys = citations(tuple(rows.values()))
    assert len(keys) == len(set(keys))
    assert {"bardes2022vicreg", "grill2020byol", "zbontar2021barlow", "caron2020swav"} <= set(keys)


def test_sources_of_the_same_authors_and_year_carry_letters(rows: dict[str, PublishedRow]) -> None:
    assert short_name("chen2020mocov2") == "Chen et al. 2020a"
    assert short_name("chen2020simclr") == "Chen et al. 2020b"
    assert (short_name("bardes2022vicreg"), short_name("unknown2020")) == ("Bardes et al. 2022", "unknown2020")
    assert source_line(rows["MoCo v2"]).startswith("Chen et al. 2020a, Table 1(e)")
    assert source_line(rows["SimCLR"]).startswith("Chen et al. 2020b, Table 6")


def test_values_without_epochs_on_record_are_counted_in_a_note(rows: dict[str, PublishedRow]) -> None:
    vicreg = rows["VICReg"]
    assert epochs_notes([vicreg, rows["PIRL"]]) == ()
    values = vicreg.values | {LINEAR: {**vicreg.values[LINEAR], "pretrain_epochs": None}}  # type: ignore[operator]
    assert epochs_notes([replace(vicreg, values=values)]) == (
        "VICReg: the source of 1 of the 6 values prints no epochs; 1000 is taken from other sources.",
    )


def test_the_order_of_other_rows_does_not_matter(rows: dict[str, PublishedRow]) -> None:
    frame = published_values()
    base = (frame["paper"] == "bardes2022vicreg") & (frame["source_table"] == "Table 1")
    rearranged = pd.concat([frame[base], frame[~base].iloc[::-1]])
    again = {row.title: row for row in published_rows(rearranged)}
    assert {k: {p: r["value"] for p, r in row.values.items()} for k, row in again.items()} == {
        k: {p: r["value"] for p, r in row.values.items()} for k, row in rows.items()
    }
