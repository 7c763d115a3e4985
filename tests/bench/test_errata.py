from __future__ import annotations

import ast
import csv
import io
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import pytest

from bench.card import MethodCard
from bench.data.detection import objects_of
from bench.errors import DataError
from bench.published import load_published
from bench.published.ablations import load_ablations
from bench.published.errata import CHECKS, COLUMNS, SEVERITIES, errata_csv, load_errata, read_errata
from bench.registry import discover
from bench.statistics.coco_precision import OVERLAPS, coco_evaluation
from bench.statistics.detection_frames import Detections
from bench.suite import expand, find_suite

TESTS = Path(__file__).parents[1]
GOOD = {
    "number": "1",
    "severity": "error",
    "statement": "A.",
    "correction": "B.",
    "settled_by": "C, Table 1",
    "kind": "test",
    "methods": "byol simsiam",
    "test": "",
}


@cache
def published() -> pd.DataFrame:
    return load_published()


def value(**wanted: object) -> float:
    """The one published value with these columns."""
    frame = published()
    for column, content in wanted.items():
        frame = frame[frame[column] == content]
    assert len(frame) == 1, wanted
    return float(frame["value"].iloc[0])


def card(key: str) -> MethodCard:
    (found,) = [entry.card for entry in discover().methods if entry.key == key]
    assert isinstance(found, MethodCard)
    return found


def test_every_item_is_there_once_and_complete() -> None:
    items = load_errata()
    assert [item.number for item in items] == list(range(1, 37))
    for item in items:
        assert item.statement.endswith(".") and item.correction.endswith(".")
        assert len(item.settled_by) > 5 and item.severity in SEVERITIES and item.kind in CHECKS
    assert {item.severity for item in items} == set(SEVERITIES)


def test_every_named_test_exists() -> None:
    named = [item.test for item in load_errata() if item.test]
    assert len(named) > 15
    for node in named:
        file, _, function = node.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        found = {part.name for part in tree.body if isinstance(part, ast.FunctionDef)}
        assert function in found and function.startswith("test_"), node


def test_an_item_that_only_the_source_settles_names_no_test() -> None:
    for item in load_errata():
        assert not (item.kind == "source" and item.test), item.number


def test_the_methods_of_the_items_are_those_of_the_catalog_or_announced() -> None:
    keys = {entry.key for entry in discover().methods} | {"sam", "pgl"}
    for item in load_errata():
        assert set(item.methods) <= keys, item.number


def test_the_download_holds_what_the_file_holds() -> None:
    items = load_errata()
    assert read_errata(csv.DictReader(io.StringIO(errata_csv(items)))) == items
    assert errata_csv(items).splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": "2"}, "item 1: its number is '2'"),
        ({"severity": "E"}, "severity 'E' is none of error, imprecise, omission"),
        ({"kind": "guess"}, "kind 'guess' is none of test, data, source"),
        ({"settled_by": " "}, "settled_by is empty"),
        ({"test": "methods/test_byol.py"}, "is no node id"),
    ],
)
def test_a_broken_item_is_named_with_what_is_wrong(change: dict[str, str], message: str) -> None:
    assert read_errata([GOOD])[0].methods == ("byol", "simsiam")
    with pytest.raises(DataError, match=message):
        read_errata([GOOD | change])


# --- demonstrations -----------------------------------------------------------------------------------------------


def test_wmse_has_no_negatives_and_maximizes_information() -> None:
    wmse = card("wmse")
    assert wmse.negatives == "none" and wmse.family == "information maximization" and "whitened" in wmse.normalization
    contrastive = [entry.card for entry in discover().methods if entry.card.family == "contrastive"]  # type: ignore[union-attr]
    assert contrastive and all(method.negatives != "none" for method in contrastive)  # type: ignore[union-attr]


def test_byol_and_simsiam_are_asymmetric_and_have_no_term_on_each_branch() -> None:
    for key in ("byol", "simsiam"):
        method = card(key)
        assert method.family == "asymmetric" and method.predictor and method.stop_gradient
        assert {term.acts for term in method.terms} == {"between the branches"}
    assert card("byol").branches == "momentum" and card("simsiam").branches == "shared"


def test_label_shares_of_one_method_start_from_one_pretraining() -> None:
    catalog = discover()
    _, suite = find_suite("smoke", catalog)
    specs = expand(suite, catalog, methods=["vicreg"], protocols=["semi_supervised"])
    assert {spec.protocol_params["fraction"] for spec in specs} == {0.01, 0.1}
    assert len({spec.pretrain.canonical_json() for spec in specs}) == 1
    assert "fraction" not in specs[0].pretrain.data.params


def test_several_methods_run_with_branches_that_differ() -> None:
    table = published()
    table = table[(table["paper"] == "bardes2022vicreg") & (table["source_table"] == "Table 5")]
    differing = table[table["variant"] != "shared weights"].groupby("method")["value"].agg(list)
    assert {key: len(values) for key, values in differing.items()} == {"barlow_twins": 3, "simclr": 3, "vicreg": 3}
    for rank in range(3):
        others = [differing[key][rank] for key in ("barlow_twins", "simclr")]
        assert differing["vicreg"][rank] > max(others) > 60


def test_attraction_gained_more_than_elimination_and_collapses_with_a_loose_filter() -> None:
    rows = {variant: row for (method, variant), row in load_ablations().items() if method == "simclr_fnc"}
    top1 = {variant: row.value for variant, row in rows.items()}
    plain = top1["no false negatives"]
    assert plain and top1["attraction"] and top1["elimination"]
    assert top1["attraction"] - plain == pytest.approx(1.75) and top1["elimination"] - plain == pytest.approx(1.02)
    assert rows["loose attraction"].outcome == "collapse"


def test_fourteen_percent_is_relative_and_most_of_it_needs_no_metadata() -> None:
    base = {"paper": "vu2021medaug", "source_table": "Table 1", "protocol": "linear probe", "label_fraction": 0.01}
    imagenet = value(**base, method_title="ImageNet baseline")
    moco = value(**base, variant="MoCo-CXR baseline, no metadata")
    medaug = value(**base, variant="same patient, same study (all lateralities)")
    assert medaug / imagenet - 1 == pytest.approx(0.144, abs=5e-4)
    assert [moco - imagenet, medaug - moco] == pytest.approx([0.081, 0.029])
    cropped = [
        value(**base, variant=variant)
        for variant in ("no metadata + random crop scale .95-1", "same patient, same study + random crop scale")
    ]
    assert cropped[1] - cropped[0] == pytest.approx(0.019)
    assert value(**base, variant="same patient, distinct studies") == pytest.approx(medaug - 0.028)


def test_pairs_across_studies_of_a_patient_hurt() -> None:
    base = {"paper": "vu2021medaug", "source_table": "Table 1", "protocol": "linear probe", "label_fraction": 0.01}
    same = value(**base, variant="same patient, same study (all lateralities)")
    assert value(**base, variant="same patient, distinct studies") < same
    variants = published()[(published()["paper"] == "vu2021medaug") & (published()["method"] == "medaug")]["variant"]
    assert variants[variants.str.contains("patient")].str.startswith("same patient").all()


TABLE_1 = {"paper": "bardes2022vicreg", "source_table": "Table 1", "metric": "top1"}


def test_methods_differ_by_points_with_few_labels() -> None:
    few = TABLE_1 | {"protocol": "finetune_semisup", "label_fraction": 0.01}
    assert value(**few, method="barlow_twins") - value(**few, method="simclr") == pytest.approx(6.7)
    linear = TABLE_1 | {"protocol": "linear"}
    assert value(**linear, method="byol") - value(**linear, method="simclr") == pytest.approx(5.0)


def test_swav_leads_with_ten_percent_of_the_labels() -> None:
    best = {}
    for fraction in (0.01, 0.1):
        frame = published()
        for column, content in (TABLE_1 | {"protocol": "finetune_semisup", "label_fraction": fraction}).items():
            frame = frame[frame[column] == content]
        best[fraction] = frame.sort_values("value")["method"].iloc[-1]
    assert best == {0.01: "barlow_twins", 0.1: "swav"}


def test_transfer_differs_by_more_than_ten_points_on_inaturalist() -> None:
    table = {"paper": "bardes2022vicreg", "source_table": "Table 2"}
    inat = table | {"eval_data": "iNat18"}
    assert value(**inat, method="byol") - value(**inat, method="simclr") == pytest.approx(10.4)
    coco = published()
    for column, content in (table | {"eval_data": "COCO 2017 det", "metric": "AP"}).items():
        coco = coco[coco[column] == content]
    boxes = coco[coco["method"] != "supervised"].set_index("method")["value"]
    assert (boxes.min(), boxes.max()) == (39.4, 41.6) and boxes.idxmax() == "swav" and boxes.idxmin() == "vicreg"


def test_ap50_is_the_precision_at_one_overlap_and_no_median() -> None:
    truth = objects_of([0], [[0, 0, 100, 100]], [0])
    found = Detections(  # covers 62 % of the object and nothing else
        scene=np.zeros(1, dtype=np.int64),
        boxes=np.array([[0.0, 0.0, 100.0, 62.0]]),
        scores=np.ones(1),
        labels=np.zeros(1, dtype=np.int64),
    )
    evaluation = coco_evaluation(truth, found, np.array([[200, 200]]), classes=1, kind="box")
    at = [evaluation.average_precision(overlap=overlap) for overlap in OVERLAPS]
    assert at == pytest.approx([100.0] * 3 + [0.0] * 7)  # overlaps 0.5, 0.55 and 0.6 are reached
    assert evaluation.average_precision(overlap=0.5) == pytest.approx(100.0)
    assert evaluation.average_precision() == pytest.approx(30.0)  # AP is the mean over the ten overlaps
    assert median(at) == 0.0
    detection = published()
    pairs = detection[(detection["benchmark"] == "detection_transfer") & detection["metric"].isin(["AP", "AP50"])]
    keys = ["method_title", "variant", "eval_data", "protocol", "paper", "source_table", "pretrain_epochs"]
    both = pairs.drop_duplicates([*keys, "metric"]).pivot_table(index=keys, columns="metric", values="value").dropna()
    assert len(both) > 10 and (both["AP50"] > both["AP"] + 10).all()  # published AP50 is no average of the same values
