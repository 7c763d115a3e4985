"""The detection protocol: chosen on validation, tested once, resumed, and blind to the test objects."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import Tensor

from bench.data.detection import DetectionDataset, DetectionSubset
from bench.detection.recipes import RECIPES
from bench.encoders.resnet import resnet18
from bench.errors import DataError, DivergenceError, SpecError
from bench.protocol import Outcome, Workspace
from bench.training.checkpoint import CheckpointFile
from protocols import detection
from protocols.detection import Detection

from ..bench.detection.rectangles import Toy, built, dataset, encoder_of
from .images import digits

SHORT: dict[str, Any] = {"iterations": 6, "batch_size": 4, "trials": 2}


@dataclass(frozen=True, kw_only=True)
class Read(DetectionDataset):
    """Notes which splits are read, in order."""

    reads: list[str] = field(default_factory=list)

    def split(self, name: str) -> DetectionSubset:
        self.reads.append(name)
        return super().split(name)


def scenes(sizes: tuple[int, int, int] = (12, 4, 5), **how: Any) -> Read:
    data = dataset(sizes, side=32, **how)
    return Read(**{name: getattr(data, name) for name in data.__dataclass_fields__})


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> list[Toy]:
    """Every detector that is built is a toy whose first weights are drawn; the list has them all."""
    made: list[Toy] = []

    def build(engine: str, task: Any) -> Any:
        made.append(Toy(seed=int(torch.randint(1000, ()))))
        return built(made[-1])

    monkeypatch.setattr(detection, "build", build)
    return made


def evaluated(data: Any = None, *, workspace: Workspace | None = None, seed: int = 0, **how: Any) -> Outcome:
    protocol = Detection(**SHORT | how)
    protocol.workspace = workspace or Workspace()
    return protocol.evaluate(encoder_of(), data or scenes(), seed=seed, device="cpu")


@pytest.mark.parametrize("architecture", ["single_stage", "faster_rcnn_fpn"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_detector_is_trained_and_tested(architecture: str, *, frozen: bool) -> None:
    data, encoder = scenes(), encoder_of()
    before = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    protocol = Detection(architecture=architecture, frozen=frozen, pictures=2, **SHORT | {"iterations": 2})
    outcome = protocol.evaluate(encoder, data, seed=0, device="cpu")
    assert tuple(score.metric for score in outcome.scores) == Detection.card.metrics
    assert all(torch.equal(value, before[name]) for name, value in encoder.module.state_dict().items())
    assert outcome.predictions["sample"].tolist() == data.splits["test"].tolist()
    assert outcome.predictions["picture"].notna().tolist() == [True, True, False, False, False]
    details = json.loads(json.dumps(outcome.details))
    assert (details["architecture"], details["frozen"], details["engine"]) == (architecture, frozen, "torchvision")
    assert details["settings"]["iterations"] == 2 and details["strides"] and details["curve"][-1]["iteration"] == 2
    assert f"iterations 2; the recipe has {RECIPES['small'].iterations}" in details["departures"]
    assert set(outcome.seconds) == {"fit", "test"}
    assert math.isnan(outcome.scores[3].value) and "mask_ap" in details["undefined"]


@pytest.mark.parametrize(("stem", "architecture"), [("cifar", "single_stage"), ("imagenet", "faster_rcnn_fpn")])
def test_a_residual_network_is_a_backbone_too(stem: str, architecture: str) -> None:
    encoder = encoder_of(resnet18(3, stem=stem), width=512)
    how = {**SHORT, "iterations": 1, "batch_size": 2, "trials": 1}
    outcome = Detection(architecture=architecture, **how).evaluate(encoder, scenes((2, 1, 1)), seed=0, device="cpu")
    assert len(outcome.predictions) == 1


@pytest.mark.parametrize("architecture", ["single_stage", "faster_rcnn_fpn"])
def test_gray_scenes_need_no_gray_encoder_and_scenes_in_color_no_gray_one(architecture: str) -> None:
    data = scenes((4, 2, 2))
    gray = replace(data, images=data.images[..., :1], scenes=type(data.scenes)(data.images[..., :1]))  # type: ignore[call-arg]
    assert len(evaluated(gray, architecture=architecture, iterations=1).predictions) == 2
    with pytest.raises(DataError, match="scenes have 3 channels, the encoder takes 1"):
        Detection(architecture=architecture).evaluate(encoder_of(channels=1), data, seed=0, device="cpu")


@pytest.mark.usefixtures("toys")
def test_the_test_split_is_read_once_after_the_choice() -> None:
    data = scenes()
    evaluated(data, lrs=(1e-3, 1e-2))
    assert data.reads == ["train", "validation", "test"]


@pytest.mark.usefixtures("toys")
def test_the_rate_with_the_best_validation_is_chosen_and_all_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = iter((30.0, 70.0, 50.0))
    real = detection.train_detector
    monkeypatch.setattr(detection, "train_detector", lambda *a, **k: replace(real(*a, **k), validation_ap=next(tried)))
    details = evaluated(lrs=(1e-3, 1e-2, 1e-4)).details
    assert [(row["lr"], row["validation_ap"]) for row in details["grid"]] == [(1e-3, 30.0), (1e-2, 70.0), (1e-4, 50.0)]
    assert details["lr"] == details["settings"]["lr"] == 1e-2
    assert details["applied_lr"] == pytest.approx(1e-2 * 4 / 16)
    assert details["lr_scaling"] == "lr 0.01 for batches of 16; batch 4 -> 0.0025"
    assert f"lr 0.001, 0.01, 0.0001; the recipe has {RECIPES['small'].lr:g}" in details["departures"]


def test_every_rate_begins_with_the_same_weights_and_sees_the_same_scenes(toys: list[Toy]) -> None:
    both = evaluated(lrs=(1e-3, 1e-2))
    alone = evaluated(lrs=(1e-2,))
    assert torch.equal(toys[1].head.weight, toys[2].head.weight) and not torch.equal(
        toys[0].head.weight, toys[1].head.weight
    )
    assert both.details["grid"][1]["tries"] == alone.details["grid"][0]["tries"]
    other = evaluated(lrs=(1e-2,), seed=1)
    assert not torch.equal(toys[3].head.weight, toys[2].head.weight)
    assert other.details["curve"][0]["total"] != alone.details["curve"][0]["total"]


@pytest.mark.usefixtures("toys")
def test_test_objects_change_neither_the_choice_nor_what_is_found() -> None:
    data = scenes()
    labels = np.where(data.objects.scene >= 16, (data.objects.labels + 1) % 3, data.objects.labels)
    honest, other = (
        evaluated(d, lrs=(1e-3, 1e-2)) for d in (data, replace(data, objects=replace(data.objects, labels=labels)))
    )
    found = ["found_boxes", "found_scores", "found_labels"]
    assert_frame_equal(honest.predictions[found], other.predictions[found])
    assert timeless(honest.details) == timeless(other.details)
    assert honest.details["measured"] != other.details["measured"]


def timeless(details: dict[str, Any]) -> dict[str, Any]:
    """Without what the test split, clocks and the memory decide."""

    def cleaned(value: Any) -> Any:
        if isinstance(value, list):
            return [cleaned(item) for item in value]
        if isinstance(value, dict):
            return {k: cleaned(v) for k, v in value.items() if k not in ("seconds", "memory_mb", "measured")}
        return value

    found: dict[str, Any] = cleaned(details)
    return found


@pytest.mark.usefixtures("toys")
def test_the_callers_random_states_stay() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = evaluated(lrs=(1e-3, 1e-2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert_frame_equal(evaluated(lrs=(1e-3, 1e-2)).predictions, one.predictions)


@pytest.mark.usefixtures("toys")
def test_one_rate_needs_no_validation_and_several_do() -> None:
    data = scenes((12, 0, 5))
    details = evaluated(data).details
    assert details["grid"][0]["validation_ap"] is None and not any("ap" in row for row in details["curve"])
    with pytest.raises(DataError, match="Rectangles has no validation scenes to choose a learning rate"):
        evaluated(data, lrs=(1e-3, 1e-2))


def test_images_without_boxes_are_refused() -> None:
    with pytest.raises(DataError, match=r"Digits has no boxes\. Choose scenes in VOC's or COCO's layout"):
        Detection().evaluate(encoder_of(), digits(), seed=0, device="cpu")


class Explodes(Toy):
    """Diverges where the rate is high."""

    def losses(self, scenes: Any) -> dict[str, Tensor]:
        terms = super().losses(scenes)
        if self.head.weight.abs().max() > 100:
            terms["size"] = terms["size"] * math.nan
        return terms


def test_a_rate_that_diverges_is_not_chosen_and_one_must_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "build", lambda engine, task: built(Explodes()))
    details = evaluated(lrs=(1e6, 1e-3)).details
    assert [row["finite"] for row in details["grid"]] == [False, True] and details["lr"] == 1e-3
    with pytest.raises(DivergenceError, match=r"NaN or infinite\. Take smaller learning rates"):
        evaluated(lrs=(1e6, 1e7))


class KilledError(Exception):
    pass


def killing(after: int) -> Callable[[int, int, str], None]:
    def report(done: int, total: int, text: str) -> None:
        assert total == 12
        if done == after:
            raise KilledError

    return report


@pytest.mark.parametrize("after", [4, 6, 10])
def test_a_killed_evaluation_goes_on_to_the_same_outcome(tmp_path: Path, toys: list[Toy], after: int) -> None:
    straight = evaluated(lrs=(1e-3, 1e-2))
    file = CheckpointFile(path=tmp_path / "x.ckpt", identity="this", every_seconds=0.0)
    with pytest.raises(KilledError):
        evaluated(lrs=(1e-3, 1e-2), workspace=Workspace(checkpoint=file, report=killing(after)))
    toys.clear()
    resumed = evaluated(lrs=(1e-3, 1e-2), workspace=Workspace(checkpoint=file))
    assert sum(toy.steps for toy in toys) == 12 - after + 1  # the step whose report was killed is done again
    assert_frame_equal(resumed.predictions, straight.predictions)
    assert [row["tries"] for row in resumed.details["grid"]] == [row["tries"] for row in straight.details["grid"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "large"}, "there is no recipe 'large'. Choose one of "),
        ({"engine": "mmdetection"}, "there is no engine 'mmdetection'. Choose one of torchvision, detectron2"),
        ({"architecture": "mask_rcnn_fpn"}, "engine torchvision has no architecture 'mask_rcnn_fpn'"),
        ({"recipe": "voc07+12"}, "engine torchvision has no architecture 'faster_rcnn_c4'"),
        ({"lrs": ()}, "needs a learning rate above 0"),
        ({"lrs": (0.1, 0.0)}, "needs a learning rate above 0"),
        ({"trials": 0}, "and a trial"),
        ({"iterations": -1}, "no setting may be negative"),
        ({"batch_size": -1}, "no setting may be negative"),
        ({"pictures": -1}, "no setting may be negative"),
        ({"sides": (300, 0)}, "lengths in pixels above 0"),
        ({"sides": (-300,), "test_side": 300}, "lengths in pixels above 0"),
        ({"test_side": -1}, "test_side 0 keeps test scenes as they are"),
        ({"flip": 1.5}, "and a probability"),
        ({"flip": -0.5}, "and a probability"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        Detection(**settings)
    assert message in str(error.value)


def test_settings_are_the_recipes_own_unless_they_are_given() -> None:
    own = Detection()
    assert own.recipe == RECIPES["small"] and own.departures == () and own.lrs == (RECIPES["small"].lr,)
    other = Detection(sides=(200, 300), flip=0.25)
    assert other.recipe.sides == (200, 300) and other.recipe.test_side == 300 and other.recipe.flip == 0.25
    assert Detection(sides=(200, 300), test_side=250).recipe.test_side == 250
    assert len(other.departures) == 3
