from __future__ import annotations

from pathlib import Path

import pytest

from bench.detection.recipes import find_recipe, resolved
from bench.errors import SpecError
from bench.registry import discover
from bench.spec import RunSpec
from bench.suite import expand, find_suite, load_suite


def cells(key: str) -> dict[tuple[str, str], RunSpec]:
    catalog = discover()
    specs = expand(find_suite(key, catalog)[1], catalog)
    found = {(spec.pretrain.name, spec.variant): spec for spec in specs}
    assert len(found) == len(specs)
    return found


@pytest.mark.parametrize("key", ["voc_detection", "coco_detection"])
def test_encoders_are_those_of_the_imagenet_suite(key: str) -> None:
    catalog = discover()
    known = {spec.pretrain.name: spec.pretrain for spec in expand(find_suite("imagenet", catalog)[1], catalog)}
    found = {spec.pretrain.name: spec.pretrain for spec in cells(key).values()}
    assert set(found) == set(known) - {"pseudo_label"}
    assert all(known[name] == spec for name, spec in found.items())


def test_voc_trains_on_all_of_trainval_and_follows_each_papers_rate() -> None:
    found = cells("voc_detection")
    assert {variant for _, variant in found} == {"VOC07+12", "VOC07"}
    for (name, variant), spec in found.items():
        params = spec.protocol_params
        assert spec.data.key == "voc" and spec.data.params["validation"] == 0
        assert list(spec.data.params["years"]) == ([2007] if variant == "VOC07" else [2007, 2012])
        assert (spec.protocol, params["engine"]) == ("detection", "detectron2")
        recipe, rates, departures = resolved(recipe=params["recipe"], lrs=params["lrs"])
        assert (recipe.experiment or params["recipe"]) == variant.lower(), name
        published = {"barlow_twins": 0.1, "vicreg": 0.1} if variant == "VOC07+12" else {}
        assert rates == (published.get(name, 0.02),)
        # What a paper changes in this experiment is a recipe of its own, not a departure.
        assert departures == ()
        assert (recipe.warmup, recipe.warmup_factor) == ((1000, 0.333) if name in published else (100, 0.001))
        assert recipe.rpn_loss_weight == (0.2 if (name, variant) == ("vicreg", "VOC07+12") else 1)


def test_coco_has_four_columns_that_are_not_mixed() -> None:
    found = cells("coco_detection")
    assert {variant for _, variant in found} == {"C4 1x", "C4 2x", "FPN 1x", "FPN 2x"}
    for (name, variant), spec in found.items():
        params = spec.protocol_params
        recipe, rates, departures = resolved(recipe=params["recipe"], lrs=params["lrs"])
        assert departures == ()
        architecture, schedule = variant.lower().split()
        assert recipe.architecture == f"mask_rcnn_{architecture}"
        assert recipe.iterations == {"1x": 90_000, "2x": 180_000}[schedule]
        assert (recipe.experiment or params["recipe"]) == f"coco_{architecture}_{schedule}"
        published = {("barlow_twins", "C4 1x"): 0.03, ("vicreg", "FPN 1x"): 0.04}
        assert rates == (published.get((name, variant), 0.02),)
        assert (spec.data.key, spec.data.params["year"], spec.data.params["validation"]) == ("coco", 2017, 0)


def test_an_own_value_comes_before_the_inherited_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = "title: Mine\npretraining: imagenet\nmethods: [byol]\nprotocols: [{protocol: knn}]\n"
    file.write_text(text + "backbone: {key: resnet18}\n")
    mine, imagenet = load_suite(file), find_suite("imagenet", discover())[1]
    assert [item.method for item in mine.methods] == ["byol"]  # type: ignore[union-attr]
    assert mine.backbone.key == "resnet18"
    assert (mine.data, mine.training, mine.views, mine.overrides) == (
        imagenet.data,
        imagenet.training,
        imagenet.views,
        imagenet.overrides,
    )
    assert (mine.title, mine.summary, len(mine.protocols)) == ("Mine", "", 1)
    file.write_text(text.replace("imagenet", "imagenet21k"))
    with pytest.raises(SpecError, match=r"no built-in suite 'imagenet21k'. Choose of .*imagenet,"):
        load_suite(file)


def test_recipes_of_one_experiment_differ_in_nothing_that_names_the_column() -> None:
    own, base = find_recipe("voc07+12_vicreg"), find_recipe("voc07+12")
    assert (own.batch_size, own.sides, own.milestones) == (base.batch_size, base.sides, base.milestones)
