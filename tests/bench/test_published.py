from __future__ import annotations

import pandas as pd
import pytest

from bench import published
from bench.card import MethodCard, ProtocolCard
from bench.errors import DataError
from bench.published import (
    BENCHMARKS,
    CONFIDENCE_WORDS,
    EXTRA_COLUMNS,
    FILE_COLUMNS,
    STORE_COLUMNS,
    check_file,
    load_papers,
    load_published,
    method_key,
)
from bench.published.ablations import load_ablations, parse_ablations
from bench.registry import discover

ROWS = {"imagenet_linear_semisup": 733, "detection_transfer": 497, "small_scale": 228, "medical": 356}
UNVERIFIED = 42
QUOTED = {"imagenet_linear_semisup": 194, "detection_transfer": 158, "small_scale": 8, "medical": 28}


def value(frame: pd.DataFrame, **wanted: object) -> list[float]:
    for column, content in wanted.items():
        frame = frame[frame[column] == content]
    return frame["value"].tolist()


def good_line() -> dict[str, str]:
    line = dict.fromkeys(FILE_COLUMNS, "")
    return line | {
        "method": "BYOL",
        "protocol": "linear",
        "eval_data": "ImageNet-1k",
        "metric": "top1",
        "unit": "%",
        "value": "74.3",
        "paper": "grill2020byol",
        "source_table": "Table 1",
        "confidence": "read",
        "quoted": "no",
    }


def test_every_file_has_its_rows_in_the_columns_of_the_store() -> None:
    frame = load_published(include_memory=True)
    assert tuple(frame.columns) == (*STORE_COLUMNS, *EXTRA_COLUMNS)
    assert frame["benchmark"].value_counts().to_dict() == ROWS
    assert set(frame["origin"]) == {"published"}
    assert frame["identity"].is_unique


def test_values_from_memory_are_left_out_unless_asked_for() -> None:
    everything, verified = load_published(include_memory=True), load_published()
    assert "memory" not in set(verified["confidence"])
    assert len(everything) - len(verified) == UNVERIFIED
    assert CONFIDENCE_WORDS["memory"] == "from memory, not verified"


def test_quoted_values_are_told_apart_from_original_ones() -> None:
    frame = load_published(include_memory=True)
    assert frame[frame["quoted"]]["benchmark"].value_counts().to_dict() == QUOTED
    own = frame[(frame["method"] == "vicreg") & (frame["paper"] == "bardes2022vicreg")]
    assert not own["quoted"].any()


def test_known_values_are_read_with_their_context() -> None:
    frame = load_published()
    vicreg = {"method": "vicreg", "paper": "bardes2022vicreg", "source_table": "Table 1", "metric": "top1"}
    assert value(frame, **vicreg, protocol="linear") == [73.2]
    assert value(frame, **vicreg, protocol="finetune_semisup", label_fraction=0.01) == [54.8]
    assert value(frame, **vicreg, protocol="finetune_semisup", label_fraction=0.1) == [69.5]
    plain = frame[~frame["variant"].str.contains("regularization")]
    byol = {"method": "byol", "backbone": "ResNet-50", "eval_data": "ImageNet-1k", "metric": "top1"}
    spread = value(plain, **byol, protocol="linear", pretrain_epochs=100)
    assert (min(spread), max(spread)) == (62.5, 69.3)


def test_units_keep_percent_fractions_and_millimeters_apart() -> None:
    frame = load_published(include_memory=True)
    auroc = frame[frame["metric"].str.startswith("AUROC")]
    assert set(auroc["unit"]) == {""} and auroc["value"].between(0.4, 1).all()
    assert set(frame[frame["metric"] == "MED"]["unit"]) == {"mm"}
    accuracy = frame[frame["metric"].isin(["top1", "top5"])]
    assert set(accuracy["unit"]) == {"%"} and accuracy["value"].max() > 90


def test_published_intervals_contain_their_value() -> None:
    frame = load_published(include_memory=True)
    known = frame[frame["low"].notna()]
    assert len(known) == 202
    assert (known["low"] <= known["value"]).all() and (known["value"] <= known["high"]).all()
    assert set(known["benchmark"]) == {"medical"}


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("VICReg", "vicreg"),
        ("W-MSE", "wmse"),
        ("MoCo v2", "moco_v2"),
        ("Random init", "random_init"),
        ("A-B c", "a_b_c"),
    ],
)
def test_printed_titles_map_to_registry_keys(title: str, key: str) -> None:
    assert method_key(title) == key


def test_every_paper_of_a_card_and_of_a_value_is_known() -> None:
    papers = load_papers()
    catalog = discover()
    entries = [*catalog.methods, *catalog.protocols]
    cited = {entry.card.paper for entry in entries if isinstance(entry.card, MethodCard | ProtocolCard)}
    assert cited - {""} <= set(papers)
    assert set(load_published(include_memory=True)["paper"]) <= set(papers)


def test_papers_have_a_short_name_and_a_link() -> None:
    papers = load_papers()
    assert papers["bardes2022vicreg"].short == "Bardes et al. 2022"
    assert papers["chen2021simsiam"].short == "Chen and He 2021"
    assert papers["bardes2022vicreg"].link == "https://arxiv.org/abs/2105.04906"
    assert papers["sololearn_repository"].short == "solo-learn"
    unseen = [paper.key for paper in papers.values() if paper.kind == "paper" and not (paper.title and paper.year)]
    assert unseen == []


def test_no_line_keeps_the_wording_of_working_notes() -> None:
    frame = load_published(include_memory=True)
    for column in ("paper", "notes", "source_table", "variant"):
        assert not frame[column].str.contains("full-text copy|store \\(|recomputed here", case=False).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": ""}, "line 2: metric is empty"),
        ({"paper": "nobody1999"}, "line 2: paper 'nobody1999' is not in papers.csv"),
        ({"confidence": "sure"}, "confidence 'sure' is none of read, secondary, memory"),
        ({"quoted": "maybe"}, "quoted 'maybe' is neither yes nor no"),
        ({"unit": "points"}, "unit 'points' is none of"),
        ({"value": "seventy"}, "a number cannot be read"),
        ({"value": "174.3"}, r"value 174.3 lies outside \[-100, 100\]"),
        ({"unit": "", "value": "74.3"}, r"value 74.3 lies outside \[-1, 1\]"),
        ({"low": "75", "high": "76"}, r"the interval \[75.0, 76.0\] does not contain the value 74.3"),
        ({"label_fraction": "10"}, "label_fraction '10' or pretrain_epochs '' is out of range"),
    ],
)
def test_a_broken_line_is_named_with_what_is_wrong(change: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_file(pd.DataFrame([good_line() | change]), "small_scale")


def test_a_good_line_passes_and_wrong_columns_do_not() -> None:
    frame = pd.DataFrame([good_line()])
    check_file(frame, "small_scale")
    with pytest.raises(DataError, match="Expected: method, variant"):
        check_file(frame.rename(columns={"value": "score"}), "small_scale")


def test_a_value_listed_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = pd.DataFrame([good_line(), good_line()])
    papers = published._read_csv("papers")
    monkeypatch.setattr(published, "_read_csv", lambda name: papers if name == "papers" else lines)
    monkeypatch.setattr(published, "BENCHMARKS", BENCHMARKS[:1])
    with pytest.raises(DataError, match="is listed twice"):
        load_published()


def test_the_published_ablations_hold_the_known_outcomes() -> None:
    found = load_ablations()
    outcomes = {key: (record.outcome, record.value) for key, record in found.items()}
    assert outcomes["vicreg", "no variance"] == ("collapse", None)
    assert outcomes["vicreg", "no covariance"] == ("no collapse", 57.5)
    assert outcomes["barlow_twins", "no redundancy reduction"] == ("no collapse", 57.3)
    assert outcomes["byol", "no predictor"] == ("collapse", 0.2)
    assert outcomes["simsiam", "no stop-gradient"] == ("collapse", 0.1)
    assert outcomes["simclr_fnc", "attraction"] == ("no collapse", 68.16)
    assert found["simclr_fnc", "loose attraction"].confidence == "secondary"
    assert {record.paper for record in found.values()} <= set(load_papers())


def test_published_ablations_repeat_the_values_of_the_benchmarks() -> None:
    """A number that both files print is the same in both."""
    frame = load_published()
    linear = frame[frame["protocol"].str.startswith("linear") & (frame["metric"] == "top1")]
    printed = {(row.paper, row.value) for row in linear.itertuples(index=False)}
    shared = [record for record in load_ablations().values() if record.paper.startswith(("zbontar", "huynh"))]
    shared += [record for record in load_ablations().values() if record.method == "vicreg"]
    assert len([record for record in shared if record.value]) == 8
    assert all(record.value is None or (record.paper, record.value) in printed for record in shared)


def good_ablation() -> dict[str, str]:
    return {
        "method": "byol",
        "variant": "no predictor",
        "setting": "target network alone",
        "outcome": "no collapse",
        "value": "60.5",
        "pretrain_epochs": "300",
        "paper": "grill2020byol",
        "source_table": "Table 5b",
        "confidence": "read",
        "quoted": "no",
        "notes": "",
    }


def test_a_published_ablation_is_read_and_one_from_memory_is_left_out() -> None:
    (record,) = parse_ablations([good_ablation()]).values()
    assert (record.value, record.epochs, record.quoted) == (60.5, 300, False)
    assert parse_ablations([good_ablation() | {"confidence": "memory"}]) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"setting": ""}, "line 2: setting is empty"),
        ({"outcome": "bad"}, "outcome 'bad' is none of collapse, no collapse, chance"),
        ({"value": ""}, "outcome 'no collapse' needs the printed value"),
        ({"value": "much"}, "a number cannot be read"),
        ({"value": "170"}, "value '170' or pretrain_epochs '300' is out of range"),
        ({"paper": "nobody1999"}, "paper 'nobody1999' is not in papers.csv"),
        ({"confidence": "sure"}, "confidence 'sure' is none of"),
        ({"quoted": "maybe"}, "quoted 'maybe' is neither yes nor no"),
    ],
)
def test_a_broken_published_ablation_is_named_with_what_is_wrong(change: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_ablations([good_ablation() | change])


def test_a_published_ablation_is_listed_once_under_its_columns() -> None:
    with pytest.raises(DataError, match=r"line 3: byol\[no predictor\] is listed twice"):
        parse_ablations([good_ablation(), good_ablation()])
    with pytest.raises(DataError, match="Expected: method, variant, setting"):
        parse_ablations([{"method": "byol"}])
