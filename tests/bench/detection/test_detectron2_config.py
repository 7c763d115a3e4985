from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bench.detection.detectron2_config import Setting, detectron2_config, resolved
from bench.detection.recipes import RECIPES, changed, find_recipe
from bench.errors import SpecError

from .residual import MEAN, STD

PUBLISHED = [name for name, recipe in RECIPES.items() if recipe.architecture != "single_stage"]
needs_detectron2 = pytest.mark.skipif(find_spec("detectron2") is None, reason="Detectron2 is not installed")


def settings(name: str, **changes: Any) -> tuple[Setting, ...]:
    given = {"depth": 50, "num_classes": 20, "mean": MEAN, "std": STD, "frozen": False, **changes}
    return detectron2_config(find_recipe(name), **given)


def values(name: str, **changes: Any) -> dict[str, Any]:
    return {setting.key: setting.value for setting in settings(name, **changes)}


def test_it_needs_neither_torch_nor_detectron2() -> None:
    code = "import sys, bench.detection.detectron2_config; print({'torch', 'detectron2'} & set(sys.modules) or 'none')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "none"


def test_voc_is_what_mocos_files_say() -> None:
    found = values("voc07+12", processes=8)
    expected = {
        "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
        "MODEL.MASK_ON": False,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
        "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
        "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
        "MODEL.ROI_HEADS.NUM_CLASSES": 20,
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.NORM": "naiveSyncBN",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
        "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
        "INPUT.FORMAT": "RGB",
        "INPUT.MIN_SIZE_TRAIN": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
        "INPUT.MIN_SIZE_TEST": 800,
        "TEST.PRECISE_BN.ENABLED": True,
        "SOLVER.IMS_PER_BATCH": 16,
        "SOLVER.BASE_LR": 0.02,
        "SOLVER.STEPS": [18000, 22000],
        "SOLVER.MAX_ITER": 24000,
        "SOLVER.WARMUP_ITERS": 100,
        "SOLVER.WEIGHT_DECAY": 1e-4,
        "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    }
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("name", "iterations", "steps", "masks"),
    [
        ("voc07", 9000, [6750, 8250], False),
        ("coco_c4_1x", 90000, [60000, 80000], True),
        ("coco_c4_2x", 180000, [120000, 160000], True),
        ("coco_fpn_1x", 90000, [60000, 80000], True),
        ("coco_fpn_2x", 180000, [120000, 160000], True),
    ],
)
def test_schedules_are_told_apart(name: str, iterations: int, steps: list[int], masks: bool) -> None:
    found = values(name)
    assert (found["SOLVER.MAX_ITER"], found["SOLVER.STEPS"], found["MODEL.MASK_ON"]) == (iterations, steps, masks)
    pyramid = "fpn" in name
    assert (found["MODEL.BACKBONE.NAME"] == "build_resnet_fpn_backbone") == pyramid
    assert found["MODEL.ROI_HEADS.NAME"] == ("StandardROIHeads" if pyramid else "Res5ROIHeadsExtraNorm")
    assert found["SOLVER.WARMUP_ITERS"] == (100 if name == "voc07" else 1000)


def test_every_value_of_a_recipe_reaches_its_key() -> None:
    recipe, _ = changed(
        find_recipe("voc07+12"),
        momentum=0.8,
        weight_decay=3e-4,
        decay_norm=True,
        decay=0.2,
        warmup_factor=0.25,
        longest=1000,
        test_side=700,
        test_longest=900,
        flip=0.0,
        precise_bn=7,
        score_threshold=0.15,
        nms_threshold=0.35,
        detections=50,
        rpn_loss_weight=0.75,
        side_sampling="range",
        schedule="cosine",
    )
    given = detectron2_config(recipe, depth=50, num_classes=2, mean=MEAN, std=STD, frozen=False)
    found, usual = {s.key: s.value for s in given}, values("voc07+12", num_classes=2)
    assert {key: value for key, value in found.items() if usual[key] != value} == {
        "SOLVER.MOMENTUM": 0.8,
        "SOLVER.WEIGHT_DECAY": 3e-4,
        "SOLVER.WEIGHT_DECAY_NORM": 3e-4,
        "SOLVER.GAMMA": 0.2,
        "SOLVER.WARMUP_FACTOR": 0.25,
        "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
        "INPUT.MAX_SIZE_TRAIN": 1000,
        "INPUT.MIN_SIZE_TEST": 700,
        "INPUT.MAX_SIZE_TEST": 900,
        "INPUT.RANDOM_FLIP": "none",
        "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range",
        "TEST.PRECISE_BN.NUM_ITER": 7,
        "TEST.DETECTIONS_PER_IMAGE": 50,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.15,
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.35,
        "MODEL.RPN.LOSS_WEIGHT": 0.75,
    }
    thresholds = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.ROI_HEADS.NMS_THRESH_TEST", "TEST.DETECTIONS_PER_IMAGE")
    assert [usual[key] for key in (*thresholds, "SOLVER.MOMENTUM")] == [0.05, 0.5, 100, 0.9]


def test_barlow_twins_has_its_own_values_in_the_same_experiments() -> None:
    for name, expected in (
        (
            "voc07+12",
            {"SOLVER.BASE_LR": 0.1, "SOLVER.WARMUP_ITERS": 1000, "SOLVER.WARMUP_FACTOR": 0.333},
        ),
        ("coco_c4_1x", {"SOLVER.BASE_LR": 0.03}),
    ):
        own, base = values(f"{name}_barlow_twins"), values(name)
        assert {key: value for key, value in own.items() if base[key] != value} == expected
        assert find_recipe(f"{name}_barlow_twins").experiment == name


def test_vicreg_has_its_own_values_in_the_same_experiment() -> None:
    found = values("voc07+12_vicreg")
    changes = {k: v for k, v in found.items() if v != values("voc07+12")[k]}
    assert changes == {
        "SOLVER.BASE_LR": 0.1,
        "SOLVER.WARMUP_ITERS": 1000,
        "SOLVER.WARMUP_FACTOR": 0.333,
        "MODEL.RPN.LOSS_WEIGHT": 0.2,
    }
    assert find_recipe("voc07+12_vicreg").experiment == "voc07+12"
    assert values("coco_fpn_1x_vicreg")["SOLVER.BASE_LR"] == 0.04
    for recipe in RECIPES.values():
        base = RECIPES[recipe.experiment] if recipe.experiment else recipe
        assert (base.iterations, base.architecture) == (recipe.iterations, recipe.architecture)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_key_stands_once_with_a_source_and_a_value_that_json_has(name: str) -> None:
    found = settings(name)
    assert len({setting.key for setting in found}) == len(found) > 35
    for setting in found:
        assert len(setting.source) > 5
        assert json.loads(json.dumps(setting.record())) == setting.record()
    unread = [setting.key for setting in found if "memory" in setting.source]
    assert ("SOLVER.MAX_ITER" in unread) == (name == "voc07")


def test_a_value_of_the_evaluation_is_not_said_to_be_published() -> None:
    recipe, _ = changed(find_recipe("voc07+12"), lr=0.1, iterations=2400, batch_size=8)
    found = {s.key: s for s in detectron2_config(recipe, depth=50, num_classes=2, mean=MEAN, std=STD, frozen=False)}
    assert found["SOLVER.BASE_LR"].value == 0.05
    assert found["SOLVER.BASE_LR"].source == "this evaluation; the recipe has 0.02; 0.1 at 16"
    assert found["SOLVER.STEPS"].value == [1800, 2200]
    for key in ("SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.WARMUP_ITERS", "SOLVER.IMS_PER_BATCH"):
        assert found[key].source.startswith("this evaluation; the recipe has "), key
    assert "moco" in found["INPUT.MIN_SIZE_TRAIN"].source


def test_normalization_is_synchronized_where_there_are_several_processes() -> None:
    assert values("coco_fpn_1x", processes=1)["MODEL.RESNETS.NORM"] == "BN"
    found = values("coco_fpn_1x", processes=2)
    assert found["MODEL.RESNETS.NORM"] == found["MODEL.FPN.NORM"] == "naiveSyncBN"
    recipe, _ = changed(find_recipe("coco_fpn_1x"), batch_norm="frozen")
    frozen = detectron2_config(recipe, depth=50, num_classes=2, mean=MEAN, std=STD, frozen=False, processes=2)
    assert {s.key: s.value for s in frozen}["MODEL.RESNETS.NORM"] == "FrozenBN"
    assert {s.key: s.value for s in frozen}["MODEL.FPN.NORM"] == ""


def test_frozen_shallow_gray_and_blue_first() -> None:
    assert values("voc07+12", frozen=True)["MODEL.BACKBONE.FREEZE_AT"] == 5
    assert values("voc07+12", depth=18)["MODEL.RESNETS.RES2_OUT_CHANNELS"] == 64
    gray = values("voc07+12", mean=(0.5,), std=(0.25,))
    assert (gray["MODEL.PIXEL_MEAN"], gray["MODEL.PIXEL_STD"], gray["INPUT.FORMAT"]) == ([127.5], [63.75], "L")
    blue = values("voc07+12", order="BGR")
    assert (blue["MODEL.PIXEL_MEAN"], blue["INPUT.FORMAT"]) == ([103.53, 116.28, 123.675], "BGR")
    assert blue["MODEL.PIXEL_STD"] == [57.375, 57.12, 58.395]


def test_what_detectron2_does_not_have_is_refused() -> None:
    with pytest.raises(SpecError, match="not depth 20"):
        values("voc07+12", depth=20)
    with pytest.raises(SpecError, match="has no single_stage"):
        values("small")


def test_resolved_values_are_those_of_the_configuration() -> None:
    own = (Setting("A.B", [1, 2], "here"), Setting("C", 1, "there"))
    assert resolved(own, {"A": {"B": (3, (4,)), "X": 0}, "C": 2.0}) == [
        {"key": "A.B", "value": [3, [4]], "source": "here"},
        {"key": "C", "value": 2.0, "source": "there"},
    ]


# --- beside Detectron2's own files ------------------------------------------------------------------------------

OURS = {
    "MODEL.WEIGHTS",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.BACKBONE.FREEZE_AT",
    "MODEL.RESNETS.NORM",
    "MODEL.RESNETS.STRIDE_IN_1X1",
    "INPUT.FORMAT",
    "DATASETS.TRAIN",
    "DATASETS.TEST",
    "TEST.PRECISE_BN.ENABLED",
}
"""Where MoCo's transfer differs from Detectron2's own experiments, and what is no matter of configuration here."""


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = tuple(value) if isinstance(value, list) else value
    return found


@needs_detectron2
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "file", "further"),
    [
        ("coco_c4_1x", "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", {"MODEL.ROI_HEADS.NAME"}),
        ("coco_fpn_1x", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", {"MODEL.FPN.NORM"}),
        (
            "voc07+12",
            "PascalVOC-Detection/faster_rcnn_R_50_C4.yaml",
            {"MODEL.ROI_HEADS.NAME", "SOLVER.STEPS", "SOLVER.MAX_ITER"},
        ),
    ],
)
def test_only_what_the_transfer_changes_differs_from_detectron2s_own_files(
    name: str, file: str, further: set[str]
) -> None:
    import detectron2
    from detectron2.config import get_cfg

    from bench.detection.detectron2_engine import merged

    path = Path(detectron2.__file__).parent / "model_zoo" / "configs" / file
    if not path.exists():
        pytest.skip("this installation of Detectron2 came without its configuration files")
    theirs = get_cfg()
    theirs.merge_from_file(str(path))
    classes = 20 if name.startswith("voc") else 80
    ours = flat(merged(settings(name, num_classes=classes, device="cuda", processes=8)))
    assert {key for key, value in flat(theirs).items() if ours[key] != value} == OURS | further
