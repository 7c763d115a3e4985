from __future__ import annotations

import pytest

from bench.published import load_published
from bench.table import Table
from reports.medical_gain import Effusion, gain_sentences, gain_table
from reports.medical_layouts import LAYOUTS
from reports.medical_other import oct_table, tracking_table
from reports.medical_tables import (
    SPREAD,
    medical_values,
    printed_tables,
    records_of,
    remarks,
    source_panels,
    spread_of,
)

from .synthetic import published_values

VALUES = medical_values(published_values())
TABLES = {table.key.removeprefix("medical-"): table for table in printed_tables(VALUES)}
EFFUSION = Effusion.of(VALUES)


def line(table: Table, title: str) -> dict[str, str]:
    row = next(row for row in table.rows if row.title == title)
    return {" · ".join((*c.groups, c.title)): cell.plain for c, cell in zip(table.columns, row.cells, strict=True)}


def numbers(table: Table) -> list[tuple[float, float | None, float | None]]:
    return [
        (cell.value, cell.low, cell.high)
        for _, column, cell in table.cells()
        if cell.value is not None and column.metric is not SPREAD
    ]


def test_every_printed_value_of_medaug_and_moco_cxr_stands_in_exactly_one_table() -> None:
    shown = [id(record) for layout in LAYOUTS for record in records_of(layout, VALUES)]
    wanted = [id(r) for r in VALUES if r["paper"] in ("vu2021medaug", "sowrirajan2021mococxr")]
    assert sorted(shown) == sorted(wanted) and len(wanted) == 269


def test_no_value_is_lost_or_moved_between_file_and_table() -> None:
    for layout in LAYOUTS:
        records = records_of(layout, VALUES)
        expected = sorted((r["value"], r["low"] or 0, r["high"] or 0) for r in records)
        found = sorted((v, low or 0, high or 0) for v, low, high in numbers(TABLES[layout.key]))
        assert found == expected, layout.key


def test_a_standard_deviation_over_draws_never_stands_as_an_interval() -> None:
    first = line(TABLES["medaug-1"], "same study (all lateralities)")
    assert first == {
        "linear · AUROC": "0.876", "linear · std": "0.013", "end to end · AUROC": "0.902", "end to end · std": "0.007"
    }  # fmt: skip
    for key, table in TABLES.items():
        spread = any(column.metric is SPREAD for column in table.columns)
        assert spread == key.startswith(("medaug-1", "medaug-2", "medaug-6")), key
        if key.startswith("medaug"):
            assert not any(cell.span for _, _, cell in table.cells())
        words = " ".join(table.notes)
        assert ("five random draws" in words) == spread
        assert ("500 resamples of the test set" in words) == key.startswith("mococxr")


def test_known_values_stand_where_their_source_prints_them() -> None:
    effusion = line(TABLES["mococxr-effusion"], "ResNet-18: MoCo-CXR")
    assert effusion["linear · 1 % of labels"] == "0.838 [0.797–0.873]"
    assert list(effusion)[3:5] == ["linear · all labels", "end to end · 0.1 % of labels"]
    linear = line(TABLES["mococxr-effusion-differences"], "ResNet-18: MoCo-CXR linear − ImageNet end to end")
    assert linear["1 % of labels"] == "-0.022 [-0.051 to 0.009]"
    findings = line(TABLES["mococxr-findings-fine-tuned"], "atelectasis: difference")
    assert findings["all labels"] == "-0.021 [-0.037 to -0.004]"
    assert line(TABLES["medaug-6"], "same laterality reweighted")["linear · AUROC"] == "0.864"
    other = line(TABLES["medaug-7"], "all studies")
    assert other["consolidation"] == "0.805"
    assert (
        line(TABLES["medaug-2-to-5"], "Table 2: all studies, same disease label (oracle)")["linear · AUROC"] == "0.893"
    )
    rates = line(TABLES["mococxr-learning-rates"], "MoCo-CXR (pre-train lr 1e-4)")
    assert rates["linear"] == "0.944 [0.907–0.972]"


def test_differences_of_one_backbone_stand_together_linear_first() -> None:
    titles = [row.title for row in TABLES["mococxr-effusion-differences"].rows]
    assert [title.split(":")[0] for title in titles] == ["ResNet-18"] * 3 + ["DenseNet-121"] * 3
    assert titles[0].endswith("ImageNet, linear") and titles[1].endswith("ImageNet, end to end")


def test_quoted_values_are_marked_and_nothing_is_marked_as_best() -> None:
    quoted = {(row.title.split(" (")[0], "†" in cell.plain) for row, _, cell in TABLES["medaug-7"].cells()}
    assert ("ImageNet baseline", True) in quoted and ("MoCo v2", True) in quoted
    assert ("all studies", True) not in quoted
    assert not any(cell.best for table in TABLES.values() for _, _, cell in table.cells())


def test_values_of_natural_images_and_from_memory_are_left_out() -> None:
    assert "huynh2022fnc" not in {record["paper"] for record in VALUES}
    everything = load_published(include_memory=True)
    shifted = everything.assign(confidence=everything["confidence"].where(everything["metric"] != "MED", "memory"))
    assert {"MED"} == {r["metric"] for r in VALUES} - {r["metric"] for r in medical_values(shifted)}


# --- the 14 % ---------------------------------------------------------------------------------------------------


def test_the_fourteen_percent_are_relative_and_taken_apart() -> None:
    table = gain_table(EFFUSION)
    headline = line(table, "MedAug, same study (all lateralities)")
    assert (headline["linear · gain"], headline["linear · gain, %"], headline["linear · share, %"]) == (
        "0.110", "14.4", "100"
    )  # fmt: skip
    plain = line(table, "MoCo v2 (MoCo-CXR baseline, no metadata)")
    assert (plain["linear · gain"], plain["linear · share, %"]) == ("0.081", "74")
    best = line(table, "MedAug, same study + random crop scale")
    assert (best["linear · gain, %"], best["end to end · gain, %"]) == ("15.3", "5.6")


def test_the_sentences_say_how_much_of_it_is_metadata() -> None:
    setting, most, matched, width, whole = gain_sentences(EFFUSION)
    assert "0.766 becomes 0.876 (+0.110, or 14.4 %)" in setting and "no mean over findings" in setting
    assert "MoCo v2 alone gains 0.081, 74 % of it" in most
    assert "add 0.029 (3.4 %) with a linear probe and 0.021 (2.4 %) end to end" in most
    assert "add 0.019 and, end to end, 0.016" in matched and "standard deviation of 0.026" in matched
    assert "0.076 wide, 4 times" in width
    assert "0.858 to 0.906 (+5.6 %)" in whole


# --- tracking, OCT, panels --------------------------------------------------------------------------------------


def test_each_rule_of_a_hit_has_a_row_of_its_own_and_no_value_is_lost() -> None:
    table = tracking_table(VALUES)
    papers = ("cai2021dlt", "bai2023uae", "tang2022tlt", "yan2022sam")
    wanted = sorted(float(record["value"]) for record in VALUES if record["paper"] in papers)
    found = sorted(cell.value for row, _, cell in table.cells() if cell.value is not None and ", std" not in row.title)
    assert found == wanted
    official = line(table, "CPM@10mm official (d<=min(r,10)), %")
    assert (official["DLT"], official["affine initialization"], official["UAE-S"]) == (
        "78.85§ [73.80–83.30]", "48.33§", "–"
    )  # fmt: skip
    assert line(table, "CPM@10mm plain (d<=10), %")["UAE-S"] == "88.33"
    assert line(table, "MED, std, mm") == {
        "affine initialization": "9.88§", "DLT": "8.95§", "UAE-S": "5.88", "TLT": "–", "SAM": "–"
    }  # fmt: skip
    assert line(table, "MED, mm")["TLT"] == "6"


def test_what_no_source_prints_is_marked_as_computed_here() -> None:
    legend = dict(tracking_table(VALUES).legend())
    assert "no source prints it" in legend["§"]
    for row, _, cell in tracking_table(VALUES).cells():
        if cell.value is not None:
            assert ("§" in cell.marks) == ("DLTMix" in cell.anchor), row.title


def test_pairs_without_negatives_are_shown_with_what_the_comparison_mixes() -> None:
    table = oct_table(VALUES)
    assert {row.title: row.cells[1].plain for row in table.rows} == {
        "binary OCT": "87.52", "severity grading": "80.53", "multi-disease": "80.94"
    }  # fmt: skip
    assert "mixes the choice of pairs with the strength of the augmentations" in table.notes[1]


def test_every_cell_leads_to_the_printed_table_that_it_comes_from() -> None:
    panels = {panel.id: panel for panel in source_panels(VALUES)}
    tables = (*TABLES.values(), gain_table(EFFUSION), tracking_table(VALUES), oct_table(VALUES))
    anchors = {cell.anchor for table in tables for _, _, cell in table.cells() if cell.value is not None}
    assert anchors == set(panels)
    facts = {fact.label: fact.value for fact in panels["printed-vu2021medaug-Table-7-App-A"].runs[0].sections[0].facts}
    assert facts["origin"] == "8 of 36 values are quoted from elsewhere (†), the others the source's own"
    assert facts["confidence"] == "read: read in the paper or in the authors' repository"


@pytest.mark.parametrize(
    ("notes", "std", "rest"),
    [
        ("std=0.009 over 5 random 1% splits; not a CI; remark", 0.009, ["remark"]),
        ("recomputed; std 6.06", 6.06, ["recomputed"]),
        ("no spread printed in this table", None, ["no spread printed in this table"]),
    ],
)
def test_the_spread_is_read_from_the_notes_and_the_rest_kept(notes: str, std: float | None, rest: list[str]) -> None:
    assert spread_of({"notes": notes}) == std
    assert remarks([{"notes": notes}]) == rest
