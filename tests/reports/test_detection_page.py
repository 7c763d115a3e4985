"""The page of detection: its settings, tables and configuration, before anything ran and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.card import ProtocolCard
from bench.detection.recipes import RECIPES, resolved
from bench.errors import SpecError
from bench.plan import Plan
from bench.published.errata import load_errata
from bench.registry import discover
from reports.contest import Loader
from reports.detection_configuration import Configuration, configuration
from reports.detection_page import Setting, sentences, settings
from reports.detection_tables import class_table, size_table
from reports.glossary import GLOSSARY
from reports.measured import Measured
from reports.method_page import results_table
from reports.site import build_site

from .detected import (
    CLASSES,
    PROTOCOLS_WITH_DETECTION,
    PUBLISHED,
    SKILL,
    detection_request,
    measured_detection,
)
from .synthetic import METHODS, TITLES, make_history, published_values
from .test_site import Page


def setting_of(**options: Any) -> tuple[Measured, Setting]:
    plan, rows, _ = detection_request(**options)
    measured = measured_detection(plan, rows)
    (setting,) = settings(measured)
    return measured, setting


def planned(*, backbone: str = "resnet50", overrides: Any = None, **params: Any) -> Configuration:
    """Of a suite that never ran."""
    states = {(method, 0): "missing" for method in SKILL}
    options: dict[str, Any] = {"states": states, "backbone": backbone, "overrides": overrides}
    return configuration(setting_of(params={**PUBLISHED, **params}, **options)[1])


def values(found: Configuration) -> dict[str, tuple[str, str]]:
    return {row.title: (row.cells[0].text, row.cells[1].text) for row in found.table.rows}


# --- settings and tables ----------------------------------------------------------------------------------------


def test_each_variant_on_each_dataset_is_a_setting_of_its_own() -> None:
    plan, rows, _ = detection_request(variants=("", "frozen"))
    found = settings(measured_detection(plan, rows))
    assert [setting.title for setting in found] == ["Object detection", "Object detection, frozen"]
    assert [entry.title for entry in found[0].entries] == ["SimCLR", "BYOL", "VICReg", "Supervised", "Random init"]
    assert found[0].classes == CLASSES and len({setting.key for setting in found}) == 2


def test_numbers_of_scenes_objects_and_classes_stand_in_words() -> None:
    _, setting = setting_of()
    assert list(sentences(setting)) == ["40 test scenes, 11 of them empty, with 62 objects of 2 classes."]
    _, lacking = setting_of(states={("byol", 0): "missing"})
    assert "Without a value: BYOL. The overview says why." in list(sentences(lacking))


def test_ap_by_class_has_counts_and_the_mean_over_seeds() -> None:
    measured, setting = setting_of(seeds=2)
    table = class_table(measured, setting)
    assert table is not None and [row.title for row in table.rows] == ["cat", "dog"]
    assert [row.cells[0].text for row in table.rows] == ["28", "34"]
    own = [details["measured"]["classes"][0]["ap"] for details in setting.entries[1].details]
    assert own[0] != own[1] and table.rows[0].cells[2].value == pytest.approx(sum(own) / 2)
    sizes = size_table(measured, setting)
    assert sizes is not None and [row.title.partition(",")[0] for row in sizes.rows] == ["small", "medium", "large"]
    assert [row.cells[0].text for row in sizes.rows] == ["62", "0", "0"]
    assert sizes.rows[1].cells[1].state == "undefined"


def test_a_method_that_lacks_a_seed_has_no_value_by_class() -> None:
    measured, setting = setting_of(seeds=2, states={("byol", 1): "missing"})
    table = class_table(measured, setting)
    assert table is not None
    assert [cell.state for cell in table.rows[0].cells[1:4]] == ["measured", "missing", "measured"]
    assert table.rows[0].cells[2].value is None


def test_objects_that_do_not_count_are_counted_apart_and_few_are_warned_of() -> None:
    rare = {"name": "cat", "objects": 3, "difficult": 2, "crowd": 1, "ap": 50.0}
    measured, setting = setting_of(details={"measured": {"classes": [rare], "sizes": []}})
    table = class_table(measured, setting)
    assert table is not None and table.rows[0].cells[0].text == "3 and 3 that do not count"
    assert "cat (3)" in table.notes[0]


# --- configuration ----------------------------------------------------------------------------------------------


def test_a_planned_published_recipe_shows_detectron2s_configuration_with_sources() -> None:
    found = planned()
    shown = values(found)
    assert shown["SOLVER.MAX_ITER"][0] == "24000" and shown["SOLVER.STEPS"][0] == "18000, 22000"
    assert shown["SOLVER.BASE_LR"][0] == "0.02" and shown["INPUT.MIN_SIZE_TEST"][0] == "800"
    assert all(source for _, source in shown.values())
    assert "moco" in shown["SOLVER.MAX_ITER"][1]
    assert (
        "It has not run yet" in found.sentences[0]
        and "Engine Detectron2; recipe voc07+12; Faster R-CNN, C4; the backbone fine-tuned" in found.sentences[0]
    )
    assert "Departures from the recipe: none." in found.sentences
    assert shown["MODEL.RESNETS.NORM"][0].startswith("naiveSyncBN in several processes")


def test_what_a_plan_does_not_know_is_said_and_not_invented() -> None:
    shown = values(planned())
    assert shown["MODEL.PIXEL_MEAN"][0] == "255 times the encoder's"
    assert shown["MODEL.ROI_HEADS.NUM_CLASSES"][0] == "as many as the data have"


def test_departures_are_said_and_are_the_source_of_their_values() -> None:
    found = planned(iterations=2400, batch_size=8)
    shown = values(found)
    assert shown["SOLVER.MAX_ITER"] == ("2400", "this evaluation; the recipe has 24000")
    assert shown["SOLVER.STEPS"][0] == "1800, 2200" and shown["SOLVER.BASE_LR"][0] == "0.01"
    words = " ".join(found.sentences)
    assert "iterations 2400; the recipe has 24000" in words
    assert "0.02 for batches of 16 scenes, scaled in proportion to 0.01 for batches of 8." in words


def test_methods_with_settings_of_their_own_are_named_beside_them() -> None:
    found = planned(overrides={"vicreg": {"recipe": "voc07+12_vicreg"}})
    value, source = values(found)["SOLVER.BASE_LR"]
    assert value == "0.02 (the others); 0.1 (VICReg)" and "VICReg" in source and "moco" in source
    assert values(found)["SOLVER.MAX_ITER"][0] == "24000"
    assert "recipe voc07+12_vicreg (VICReg)" in found.sentences[0]
    assert "0.1 for batches of 16 scenes, not scaled (VICReg)" in found.sentences[1]


def test_a_backbone_that_detectron2_lacks_shows_why_there_is_no_configuration() -> None:
    (row,) = planned(backbone="convnet").table.rows
    assert row.cells[0].text == "none" and "ResNets of depth" in row.cells[1].text


def test_a_run_shows_the_configuration_that_it_recorded_and_where_it_ran() -> None:
    recorded = {
        "configuration": [{"key": "SOLVER.MAX_ITER", "value": 24000, "source": "a file"}],
        "engine_version": "Detectron2 0.6",
        "engine_notes": ["one process has the whole batch"],
        "conversion": {"tensors": 265, "differences": {"res2": 1e-7, "res5": 3e-6}},
        "processes": 2,
        "scenes_per_process": 8,
    }
    _, setting = setting_of(params=PUBLISHED, details=recorded, backbone="resnet50")
    found = configuration(setting)
    assert values(found) == {"SOLVER.MAX_ITER": ("24000", "a file")}
    words = " ".join(found.sentences)
    assert "Detectron2 0.6." in words and words.count("One process has the whole batch.") == 1
    assert "All 265 tensors" in words and "differ by 3e-06" in words
    assert "It ran on cpu in 2 processes, 8 scenes of a step each." in words and "not run yet" not in words


def test_a_recipe_of_torchvision_shows_every_value_with_its_source() -> None:
    _, setting = setting_of(params={"lrs": [0.001, 0.004]})
    shown = values(configuration(setting))
    assert shown["iterations"][0] == str(RECIPES["small"].iterations)
    assert shown["learning rates"] == ("0.001, 0.004", "this evaluation; the validation scenes choose one")
    assert shown["frozen"] == ("false", "this evaluation") and "sources" not in shown
    assert all(source for _, source in shown.values())


def test_the_protocols_parameters_come_to_a_recipe_its_rates_and_its_departures() -> None:
    recipe, rates, departures = resolved(recipe="small")
    assert (recipe.lr,) == rates and departures == ()
    recipe, rates, departures = resolved(recipe="small", lrs=[0.01, 0.02], sides=[64, 96])
    assert rates == (0.01, 0.02) and recipe.lr == 0.01 and recipe.test_side == 96
    assert [words.partition(" ")[0] for words in departures] == ["sides", "test_side", "lr"]
    assert recipe.sources["lr"].startswith("this evaluation; the recipe has")
    with pytest.raises(SpecError, match="no recipe 'large'"):
        resolved(recipe="large")


# --- the page ---------------------------------------------------------------------------------------------------


def build(out: Path, request: tuple[Plan, pd.DataFrame, Loader]) -> Mapping[str, str]:
    plan, rows, predictions = request
    build_site(
        out,
        plan=plan,
        rows=rows,
        history=make_history(plan),
        published=published_values(),
        methods=METHODS,
        protocols=PROTOCOLS_WITH_DETECTION,
        suite="synthetic",
        titles=TITLES,
        predictions=predictions,
    )
    return {path.relative_to(out).as_posix(): path.read_text(encoding="utf-8") for path in out.rglob("*.html")}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return build(tmp_path_factory.mktemp("report"), detection_request(variants=("", "frozen")))


def test_the_page_is_linked_and_shows_pictures_curves_tables_and_settings(pages: Mapping[str, str]) -> None:
    assert 'href="detection.html"' in pages["index.html"]
    text = pages["detection.html"]
    for words in ("Found on test scenes", "Precision against recall", "AP against iterations", "AP by class"):
        assert text.count(words) >= 2, words
    assert text.count("<summary>Every setting with its source</summary>") == 2
    assert "Losses of the detector" in pages["methods/simclr.html"]


def test_pictures_are_embedded_once_for_all_settings_and_the_policy_allows_them(pages: Mapping[str, str]) -> None:
    text = pages["detection.html"]
    assert text.count("data:image/png;base64,") == 3
    assert text.count('<svg class="scene" ') == 2 * 3 * 6
    assert "img-src data:" in text.split('content="', 1)[1].split('"', 1)[0]


def test_the_page_nests_has_unique_ids_no_inline_style_and_stays_small(pages: Mapping[str, str]) -> None:
    page = Page(pages["detection.html"])
    assert page.loads == [] and len(page.ids) == len(set(page.ids))
    assert page.tables == page.captions and page.unscoped == 0
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(pages["detection.html"]) < 400_000


def test_the_erratum_about_ap50_is_the_one_that_the_pages_name(pages: Mapping[str, str]) -> None:
    (number,) = [item.number for item in load_errata() if item.statement.startswith("AP50")]
    assert f'<a href="errata.html#item-{number}">erratum {number}</a>' in pages["table2.html"]
    assert f"erratum {number}.)" in dict(GLOSSARY)["AP50, AP75"]


def test_the_page_of_a_method_has_columns_only_for_what_is_defined() -> None:
    (card,) = [entry.card for entry in discover().protocols if entry.key == "detection"]
    assert isinstance(card, ProtocolCard) and len(card.metrics) == 9

    def columns(*, undefined: bool, **options: Any) -> list[str]:
        plan, rows, _ = detection_request(**options)
        if undefined:
            rows = pd.concat([rows, rows.assign(metric="mask_ap", value=None), rows.assign(metric="voc_ap")])
        measured = Measured.of(plan, rows, methods=METHODS, protocols={"detection": card}, titles=TITLES)
        return [column.title for column in results_table(measured, "simclr").columns][4:-1]

    boxes = ["AP, %", "AP50, %", "AP75, %"]
    assert columns(undefined=False) == boxes
    assert columns(undefined=True) == [*boxes, "VOC AP, %", "VOC AP50, %", "VOC AP75, %"]


def test_a_suite_without_detection_has_no_page(tmp_path: Path) -> None:
    plan, rows, predictions = detection_request()
    none = Plan(suite=plan.suite, content=plan.content, cells=())
    found = build(tmp_path, (none, rows, predictions))
    assert "detection.html" not in found and "detection.html" not in found["index.html"]


def test_a_suite_that_never_ran_shows_its_configuration_open(tmp_path: Path) -> None:
    states = {(method, 0): "missing" for method in SKILL}
    request = detection_request(states=states, params=PUBLISHED, backbone="resnet50")
    text = build(tmp_path, request)["detection.html"]
    assert "No detector has a value yet." in text and "How it would be run" in text
    assert 'class="pairs configuration" open' in text and "SOLVER.MAX_ITER" in text
    assert "Found on test scenes" not in text and "Precision against recall" not in text
