"""Training and judging in two processes: what one process does, with the scenes shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.testing import assert_close

from bench.detection.training import Trained, detect_all, train_detector
from bench.errors import SpecError
from bench.protocol import Workspace
from bench.training.checkpoint import CheckpointFile
from bench.training.distributed import equal_everywhere, process_rank

from ..training.ranks import in_group
from .rectangles import Toy, built, dataset, recipe, task

HOW: dict[str, dict[str, Any]] = {
    "no norm": {},
    "synchronized": {"batch_norm": "synchronized"},
    "own": {"batch_norm": "batch"},
}


def trained(name: str, folder: Path | None = None, **changes: Any) -> tuple[Toy, Trained, list[Any]]:
    """Plain gradient descent in float64 for a few steps, so that only rounding differs."""
    torch.set_num_threads(1)
    data, told = dataset(), []
    detector = Toy(norm=name != "no norm", dropout=0.0).double()
    how = {"optimizer": "sgd", "iterations": 6, "sides": (48, 64), "flip": 0.5, **HOW[name], **changes}
    checkpoint = folder and CheckpointFile(path=folder / f"{process_rank()}.ckpt", identity="x", every_seconds=0.0)
    result = train_detector(
        built(detector),
        task(recipe(**how)),
        data.split("train"),
        data.split("validation"),
        seed=0,
        trials=2,
        workspace=Workspace(checkpoint=checkpoint, report=lambda *words: told.append(words)),
    )
    return detector, result, told


def scenarios(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in HOW:
        detector, result, told = trained(name, folder / name)
        found[name] = {
            "weights": {key: value.clone() for key, value in detector.state_dict().items()},
            "gradients": [p.grad.clone() for p in detector.parameters() if p.grad is not None],
            "curve": [(row["total"], row.get("ap")) for row in result.curve],
            "details": result.details,
            "alike": equal_everywhere(detector.state_dict().values()),
            "told": len(told),
        }
    data = dataset((0, 0, 5))
    judged = detect_all(Toy(), data.split("test"), recipe(), device="cpu")
    found["scores"] = np.concatenate([item.scores for item in judged])
    try:
        trained("no norm", batch_size=3)
    except SpecError as error:
        found["refusal"] = str(error)
    others = torch.tensor([found[name]["told"] for name in HOW], dtype=torch.float64)
    torch.distributed.broadcast(others, src=1)
    found["told by the second"] = others.tolist()
    return found


def test_two_processes_train_as_one_does_and_stay_alike(tmp_path: Path) -> None:
    for name in HOW:
        (tmp_path / name).mkdir()
    found = in_group(2, scenarios, tmp_path)
    for name in ("no norm", "synchronized"):
        detector, result, _ = trained(name)
        check(found[name]["weights"], detector.state_dict())
        expected = [p.grad for p in detector.parameters() if p.grad is not None]
        assert_close(found[name]["gradients"], expected, rtol=1e-5, atol=1e-7)
        assert_close(
            [total for total, _ in found[name]["curve"]], [row["total"] for row in result.curve], rtol=1e-5, atol=0
        )
        assert [ap for _, ap in found[name]["curve"]] == [row.get("ap") for row in result.curve]
    for name in HOW:
        assert found[name]["alike"], name
        assert found[name]["details"]["processes"] == 2 and found[name]["details"]["scenes_per_process"] == 2
        assert found[name]["told"] == 6
    assert found["told by the second"] == [0, 0, 0]
    assert sorted(path.name for path in tmp_path.rglob("*.ckpt")) == ["0.ckpt"] * 3
    assert "2 processes cannot share batches of 3 scenes" in found["refusal"]
    alone = detect_all(Toy(), dataset((0, 0, 5)).split("test"), recipe(), device="cpu")
    assert np.array_equal(found["scores"], np.concatenate([item.scores for item in alone]))


def check(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=lambda text, name=name: f"{name}: {text}")
