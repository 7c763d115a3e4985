"""The loop in two processes: the same training as in one, with the same checkpoints, checks and errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from bench.errors import JointbenchError
from bench.spec import PretrainSpec
from bench.training.batches import Batches
from bench.training.checkpoint import CheckpointFile
from bench.training.distributed import process_rank
from bench.training.history import TrainingResult
from bench.training.method import Method
from methods.byol import BYOL

from .ranks import in_group
from .toys import make, toy_images, toy_spec, train


def toy(seed: int = 0) -> Method:
    """BYOL on the toys' network: batch statistics, a predictor, a momentum network."""
    method: Method = make(byol, seed=seed)
    return method


def recipe(**training: Any) -> PretrainSpec:
    """In float64: AdamW makes a whole step of the rounding errors of a gradient that is 0."""
    return toy_spec(precision="64-true", **training)


def byol(backbone: torch.nn.Module) -> Method:
    return BYOL(backbone, projector=(16, 8), predictor=(16, 8))


class KilledError(Exception):
    pass


def checkpoint(folder: Path) -> CheckpointFile:
    return CheckpointFile(path=folder / "training.ckpt", identity="this", every_seconds=0.0)


def weights(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def stopped(folder: Path, after: int) -> None:
    """Train some epochs and leave the checkpoint."""

    def kill(record: Any) -> None:
        if record.epoch == after:
            raise KilledError

    with pytest.raises(KilledError):
        train(toy(), recipe(), checkpoint=checkpoint(folder), progress=kill)


def loop_scenarios(folder: Path) -> dict[str, Any]:
    """In each process: trainings of every kind, one after the other."""
    found: dict[str, Any] = {}
    method = toy()
    found["history"] = train(method, recipe(clip_grad_norm=0.5), checkpoint=checkpoint(folder / "group")).history
    found["weights"] = weights(method)
    resumed = toy(seed=process_rank())  # what it starts with does not matter
    found["resumed"] = train(resumed, recipe(), checkpoint=checkpoint(folder / "stopped")).history
    found["resumed weights"] = weights(resumed)
    found |= {name: refusal(name) for name in ("diverges", "differs", "does not divide")}
    return found


def refusal(name: str) -> str:
    spec = toy_spec(batch_size=15) if name == "does not divide" else toy_spec()
    method = toy(seed=process_rank() if name == "differs" else 0)
    if name == "diverges" and process_rank() == 1:
        method.backbone.register_forward_hook(lambda _, __, output: output * float("nan"))
    try:
        train(method, spec)
    except JointbenchError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


@dataclass
class LoopOutcome:
    found: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> LoopOutcome:
    folder = tmp_path_factory.mktemp("loop")
    stopped(folder / "stopped", after=2)
    return LoopOutcome(in_group(2, loop_scenarios, folder), folder)


def assert_equal_histories(found: list[Any], result: TrainingResult) -> None:
    rows = [(row.epoch, row.kind, row.term) for row in result.history]
    assert [(row.epoch, row.kind, row.term) for row in found] == rows
    assert [row.value for row in found] == pytest.approx([row.value for row in result.history], rel=1e-6, abs=1e-9)


def test_a_training_by_two_processes_is_that_of_one(loop: LoopOutcome) -> None:
    method = toy()
    result = train(method, recipe(clip_grad_norm=0.5))
    assert_equal_histories(loop.found["history"], result)
    assert_close(loop.found["weights"], weights(method), rtol=1e-6, atol=1e-9)


def test_only_the_first_process_saves_and_what_it_saves_fits_one_process(loop: LoopOutcome) -> None:
    assert [file.name for file in (loop.folder / "group").iterdir()] == ["training.ckpt"]
    again = toy(seed=5)
    train(again, recipe(clip_grad_norm=0.5), checkpoint=checkpoint(loop.folder / "group"))
    for name, value in weights(again).items():
        assert torch.equal(value, loop.found["weights"][name])


def test_two_processes_continue_what_one_has_begun(loop: LoopOutcome) -> None:
    method = toy()
    result = train(method, recipe())
    assert_equal_histories(loop.found["resumed"], result)
    assert_close(loop.found["resumed weights"], weights(method), rtol=1e-6, atol=1e-9)


def test_a_loss_that_breaks_in_one_process_ends_all_with_the_reason(loop: LoopOutcome) -> None:
    assert loop.found["diverges"].startswith("DivergenceError: Training diverged: loss term 'view1_predicts_view2'")


def test_processes_that_start_from_other_weights_are_refused(loop: LoopOutcome) -> None:
    assert "JobError: The 2 processes of this training do not start from the same weights" in loop.found["differs"]


def test_a_batch_that_cannot_be_divided_is_refused(loop: LoopOutcome) -> None:
    assert "SpecError: training.batch_size 15 cannot be divided over 2 devices" in loop.found["does not divide"]


def test_the_parts_of_a_batch_are_made_as_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(rank: int, count: int) -> tuple[list[Tensor], Tensor]:
        monkeypatch.setattr("bench.training.batches.process_count", lambda: count)
        monkeypatch.setattr("bench.training.batches.process_rank", lambda: rank)
        labels = torch.arange(50).numpy()
        device = torch.device("cpu")
        batches = Batches(toy_spec(), toy_images(), labels, views=2, mean=(0.5,), std=(0.25,), device=device)
        batches.start_epoch(1)
        views, own = batches.load(1, 2)
        assert own is not None
        return views, own

    views, labels = load(0, 1)
    parts = [load(rank, 4) for rank in range(4)]
    for number, view in enumerate(views):
        assert torch.equal(torch.cat([part[number] for part, _ in parts]), view)
    assert torch.equal(torch.cat([own for _, own in parts]), labels)
