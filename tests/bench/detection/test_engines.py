from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.errors import JobError, RequestError
from bench.request import Request
from protocols.detection import Detection

from ..tiny import compute, write_suite
from .residual import residual_encoder
from .squares import squares


@pytest.fixture
def without_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)


@pytest.mark.usefixtures("without_detectron2")
def test_an_engine_that_is_not_installed_says_how_to_get_it() -> None:
    protocol = Detection(engine="detectron2", recipe="voc07+12")
    with pytest.raises(JobError, match=r"not installed.*pip install.*facebookresearch/detectron2.*engine: torchvision"):
        protocol.evaluate(residual_encoder(), squares(2), seed=0, device="cpu")


@pytest.mark.usefixtures("without_detectron2")
def test_a_run_that_needs_it_is_refused_before_anything_is_trained(tmp_path: Path, shared_cache: Path) -> None:
    scenes = {"key": "digit_scenes", "params": {"scenes_train": 2, "scenes_validation": 1, "scenes_test": 1}}
    needy = {"protocol": "detection", "data": scenes, "params": {"engine": "detectron2", "recipe": "voc07+12"}}
    suite = write_suite(tmp_path, protocols=[{"protocol": "knn"}, needy])
    request = Request(suite=str(suite), store=str(tmp_path / "store"))
    with pytest.raises(RequestError, match=r"byol/detection/.* cannot run here: .*not installed\. Install it"):
        compute(request, shared_cache)
    assert request.results.frame().empty
    compute(replace(request, protocols=("knn",)), shared_cache)
    assert set(request.results.frame()["status"]) == {"ok"}


@pytest.mark.usefixtures("without_detectron2")
def test_its_settings_can_be_planned_without_it() -> None:
    protocol = Detection(engine="detectron2", recipe="coco_fpn_1x")
    work = protocol.work({"train": 100, "validation": 0, "test": 10}, num_classes=80, feature_dim=2048)
    assert work is not None and work.trained == 90000 * 16


def test_the_protocol_is_loaded_without_detectron2() -> None:
    code = "import sys, protocols.detection; print('detectron2' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
