from __future__ import annotations

import subprocess
import sys

import pytest

from bench.detection.detector import Task
from bench.detection.engines import build
from bench.detection.recipes import find_recipe
from bench.errors import JobError
from protocols.detection import Detection

from .residual import residual_encoder


@pytest.fixture
def without_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)


@pytest.mark.usefixtures("without_detectron2")
def test_an_engine_that_is_not_installed_says_how_to_get_it() -> None:
    task = Task(
        encoder=residual_encoder(),
        class_names=("cat",),
        recipe=find_recipe("voc07+12"),
        frozen=False,
        device="cpu",
    )
    with pytest.raises(JobError, match=r"not installed.*pip install.*facebookresearch/detectron2.*engine: torchvision"):
        build("detectron2", task)


@pytest.mark.usefixtures("without_detectron2")
def test_its_settings_can_be_planned_without_it() -> None:
    protocol = Detection(engine="detectron2", recipe="coco_fpn_1x")
    work = protocol.work({"train": 100, "validation": 0, "test": 10}, num_classes=80, feature_dim=2048)
    assert work is not None and work.trained == 90000 * 16


def test_the_protocol_is_loaded_without_detectron2() -> None:
    code = "import sys, protocols.detection; print('detectron2' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
