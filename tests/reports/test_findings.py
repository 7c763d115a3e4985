"""The table of single findings."""

from __future__ import annotations

import pytest

from reports.findings import finding_tables

from .predicted import findings_request, measured_of
from .synthetic import make_plan, make_rows


def test_each_finding_has_its_value_interval_and_number_of_images_for_every_method() -> None:
    plan, rows, _ = findings_request(few=True)
    table, few = finding_tables(measured_of(plan, rows))
    assert [column.title for column in table.columns] == ["test images with it", "SimCLR", "BYOL", "Random init"]
    assert [row.title for row in table.rows] == ["Effusion", "Hernia"]
    count, value = table.rows[0].cells[:2]
    assert count.text == "100 of 400"
    assert (value.value, value.low, value.high, value.state) == (80.0, 75.0, 85.0, "measured")
    assert table.rows[1].cells[1].state == "undefined"
    assert few.title == "Probe for findings, 10%" and few.key != table.key
    assert "Effusion,100 of 400,80.0,75.0,85.0" in table.render("csv")


def test_seeds_are_averaged_and_a_missing_one_leaves_no_mean() -> None:
    plan, rows, _ = findings_request(seeds=2)
    (table,) = finding_tables(measured_of(plan, rows))
    assert table.rows[0].cells[1].value == pytest.approx(80.5)
    lost = rows[~((rows["method"] == "byol") & (rows["seed"] == 1))]
    (table,) = finding_tables(measured_of(plan, lost))
    assert [cell.state for cell in table.rows[0].cells[1:]] == ["measured", "missing", "measured"]


def test_a_suite_without_findings_has_no_table() -> None:
    plan = make_plan(states={})
    assert finding_tables(measured_of(plan, make_rows(plan))) == ()


def test_rows_that_say_little_or_nothing_are_named_below_the_table() -> None:
    plan, rows, _ = findings_request(few=True, not_learned=("Effusion",))
    table, few = finding_tables(measured_of(plan, rows))
    assert [note for note in table.notes if "Fewer than 10 test images show Hernia (4)" in note] == list(table.notes)
    assert table.rows[0].cells[1].state == "measured"
    assert [cell.state for cell in few.rows[0].cells[1:]] == ["undefined"] * 3
    assert any(note.startswith("Not learned") and "Effusion" in note for note in few.notes)
