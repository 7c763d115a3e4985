"""Training of a detector: schedule, tries, curve, divergence, and going on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.data.detection import objects_of
from bench.detection import training
from bench.detection.detector import Found, Scene
from bench.detection.training import Trained, detect_all, train_detector
from bench.errors import DataError, SpecError
from bench.protocol import Workspace
from bench.training.checkpoint import CheckpointFile

from .rectangles import Toy, built, dataset, encoder_of, recipe, task


class KilledError(Exception):
    pass


def train(
    detector: Toy, given: Any = None, *, data: Any = None, workspace: Workspace | None = None, **how: Any
) -> Trained:
    own, data = task(given), data or dataset()
    return train_detector(
        built(detector),
        own,
        data.split("train"),
        data.split("validation"),
        **{"seed": 1, "trials": 2, "workspace": workspace or Workspace(), **how},
    )


def checkpoint(folder: Path, *, every_seconds: float = 0.0) -> CheckpointFile:
    return CheckpointFile(path=folder / "detection.ckpt", identity="this", every_seconds=every_seconds)


def killing(after: int) -> Callable[[int, int, str], None]:
    def report(done: int, total: int, text: str) -> None:
        if done == after:
            raise KilledError

    return report


def weights(detector: Toy) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in detector.state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def plain(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what a clock and the memory say."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "memory_mb")} for row in curve]


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "schedule": "steps", "milestones": (6, 9)}])
@pytest.mark.parametrize("after", [5, 24])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, changes: dict[str, Any], after: int) -> None:
    given = recipe(iterations=40, sides=(48, 64), flip=0.5, **changes)
    straight = train(whole := Toy(), given)
    with pytest.raises(KilledError):
        train(Toy(), given, workspace=Workspace(checkpoint=checkpoint(tmp_path), report=killing(after)))
    again = Toy(seed=7)  # what it starts with does not matter
    resumed = train(again, given, workspace=Workspace(checkpoint=checkpoint(tmp_path)))
    assert_same(weights(again), weights(whole))
    assert plain(resumed.curve) == plain(straight.curve)
    assert resumed.details["resumed_at"] == [after - 1] and straight.details["resumed_at"] == []
    assert again.steps == 40 - (after - 1)


def test_losses_since_the_last_row_of_the_curve_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are far apart here, and the checkpoint is written between two of them."""
    monkeypatch.setattr(training, "CURVE_ROWS", 2)
    given = recipe(iterations=40)
    straight = train(Toy(), given)
    dying = Toy()

    def die(scenes: Any) -> None:
        if dying.steps == 36:
            raise KilledError

    dying.watch = die
    with pytest.raises(KilledError):
        train(dying, given, workspace=Workspace(checkpoint=checkpoint(tmp_path)))
    resumed = train(Toy(), given, workspace=Workspace(checkpoint=checkpoint(tmp_path)))
    assert resumed.details["resumed_at"] == [30] and len(straight.curve) == 2
    assert plain(resumed.curve) == plain(straight.curve)


def test_finished_trainings_of_other_rates_are_taken_from_the_checkpoint(tmp_path: Path) -> None:
    first, second = recipe(), replace(recipe(), lr=0.001)
    file = checkpoint(tmp_path)
    one = train(one_detector := Toy(), first, workspace=Workspace(checkpoint=file), run=(0, 2))
    straight = train(two_detector := Toy(), second, run=(1, 2))
    with pytest.raises(KilledError):
        train(Toy(), second, workspace=Workspace(checkpoint=file, report=killing(12 + 6)), run=(1, 2))
    again, other = Toy(seed=5), Toy(seed=6)
    found = train(again, first, workspace=Workspace(checkpoint=file), run=(0, 2))
    assert again.steps == 0 and found.validation_ap == one.validation_ap and found.curve == one.curve
    assert_same(weights(again), weights(one_detector))
    resumed = train(other, second, workspace=Workspace(checkpoint=file), run=(1, 2))
    assert other.steps == 12 - 5
    assert_same(weights(other), weights(two_detector))
    assert plain(resumed.curve) == plain(straight.curve)


def test_a_checkpoint_waits_its_seconds_and_is_written_at_the_end(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, every_seconds=1e6)
    with pytest.raises(KilledError):
        train(Toy(), workspace=Workspace(checkpoint=file, report=killing(11)))
    assert file.load() is None
    train(Toy(), workspace=Workspace(checkpoint=file))
    state = file.load()
    assert state is not None and len(state["finished"]) == 1 and state["unfinished"] is None


def test_the_seed_decides_and_the_callers_random_states_stay() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for toy, seed in ((one := Toy(), 1), (same := Toy(), 1), (other := Toy(), 2)):
        train(toy, seed=seed)
        torch.rand(1)
    torch.set_rng_state(before)
    assert_same(weights(same), weights(one))
    assert not torch.equal(other.head.weight, one.head.weight)
    torch.manual_seed(3)
    train(Toy())
    assert torch.equal(torch.get_rng_state(), before)


class Counts(Toy):
    """Its loss at step i is i, or what ``at`` says."""

    def __init__(self, at: dict[int, float] | None = None) -> None:
        super().__init__()
        self.at = at or {}

    def losses(self, scenes: Any) -> dict[str, Tensor]:
        terms = super().losses(scenes)
        zero = 0 * sum(terms.values())
        return {"own": zero + self.at.get(self.steps, float(self.steps)), "other": zero + 1.0}


def test_a_row_of_the_curve_has_the_mean_losses_since_the_one_before() -> None:
    trained = train(Counts(), recipe(iterations=250), data=dataset((12, 0, 4)))
    assert len(trained.curve) == 100
    before = 0
    for row in trained.curve:
        mean = np.mean(range(before + 1, row["iteration"] + 1))
        assert row["losses"] == {"own": pytest.approx(mean), "other": 1.0}
        assert row["total"] == pytest.approx(mean + 1)
        assert row["memory_mb"] > 10 and row["seconds"] >= 0
        before = row["iteration"]
    assert before == 250


def test_progress_is_told_about_a_hundred_times_over_all_rates() -> None:
    told: list[tuple[int, int, str]] = []
    workspace = Workspace(report=lambda *words: told.append(words))
    train(Counts(), recipe(iterations=250), workspace=workspace, run=(1, 2))
    assert 100 <= len(told) <= 102
    assert told[0][:2] == (253, 500) and told[-1][:2] == (500, 500)
    assert told[0][2] == "lr 0.01: loss 3" and told[-1][2].startswith("lr 0.01: loss 250, AP ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training(value: float) -> None:
    detector = Counts({13: value})
    trained = train(detector, recipe(iterations=400))
    assert not trained.finite and trained.validation_ap is None
    assert 13 <= detector.steps < 13 + 10
    assert all(row["iteration"] < 13 for row in trained.curve)
    assert detector.finished_with == []


class Breaks(Toy):
    def losses(self, scenes: Any) -> dict[str, Tensor]:
        if self.steps == 5:
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")
        return super().losses(scenes)


def test_a_detector_that_says_that_it_diverged_ends_the_training() -> None:
    trained = train(Breaks(), recipe(iterations=400))
    assert not trained.finite and json.loads(json.dumps(trained.record()))["finite"] is False


class BadStep(Toy):
    """The gradient, not the loss, is infinite at the last step."""

    def losses(self, scenes: Any) -> dict[str, Tensor]:
        terms = super().losses(scenes)
        if self.steps == 12:
            terms["size"] = terms["size"] + (self.head.weight.abs() * 0).sqrt().sum()
        return terms


def test_weights_that_are_no_numbers_after_the_last_step_are_not_tried() -> None:
    trained = train(detector := BadStep())
    assert not trained.finite and trained.validation_ap is None and detector.finished_with == []


def test_tries_are_evenly_spread_and_the_last_one_counts() -> None:
    trained = train(Toy(), recipe(iterations=30), trials=4)
    tried = [row for row in trained.curve if "ap" in row]
    assert [row["iteration"] for row in tried] == [8, 15, 23, 30]
    assert trained.validation_ap == tried[-1]["ap"] is not None
    assert trained.record()["tries"] == [[row["iteration"], row["ap"], row["ap50"]] for row in tried]
    assert trained.record()["iterations"] == 30


class Perfect(Toy):
    """Finds every rectangle but the corners of a class that it is told to miss."""

    truth: Any = None

    def detect(self, scenes: Any) -> list[Found]:
        (scene,) = scenes
        red = (scene.pixels * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
        for index in range(len(self.truth.scenes)):
            if np.array_equal(self.truth.scenes[index], red):
                own = self.truth.objects.of(index)
                return [
                    Found(boxes=own.boxes.astype(np.float32), scores=np.ones(len(own), np.float32), labels=own.labels)
                ]
        raise AssertionError("the scene was changed")


def test_a_perfect_detector_has_an_average_precision_of_100_on_validation() -> None:
    data = dataset()
    detector = Perfect()
    detector.truth = data.split("validation")
    assert train(detector, data=data).validation_ap == pytest.approx(100)


def test_without_validation_scenes_nothing_is_tried() -> None:
    trained = train(Toy(), data=dataset((12, 0, 4)))
    assert trained.validation_ap is None and not any("ap" in row for row in trained.curve) and trained.finite


def test_validation_scenes_without_objects_have_no_average_precision() -> None:
    data = dataset()
    trained = train(Toy(), data=replace(data, objects=data.objects[data.objects.scene < 12]))
    assert trained.validation_ap is None and trained.curve[-1]["ap"] is None
    assert json.loads(json.dumps(trained.curve)) == trained.curve


def test_the_rate_follows_the_schedule_and_the_batch() -> None:
    given = recipe(batch_size=2, schedule="steps", milestones=(6, 9), warmup=2, warmup_factor=0.5)
    trained = train(Toy(), given)
    rates = [0.0025, 0.00375, *[0.005] * 4, *[0.0005] * 3, *[0.00005] * 3]
    assert [row["lr"] for row in trained.curve] == pytest.approx(rates)
    assert trained.details["lr_scaling"] == "lr 0.01 for batches of 4; batch 2 -> 0.005"
    assert trained.record()["applied_lr"] == 0.005 and trained.record()["lr"] == 0.01
    whole = train(Toy()).details
    assert whole["lr_scaling"] == "lr 0.01 for batches of 4, as they are"
    assert (whole["processes"], whole["scenes_per_process"], whole["device"]) == (1, 4, "cpu")
    assert whole["made_by"] == "a test"


def test_the_rate_of_the_schedule_moves_the_weights() -> None:
    """Plain gradient descent, followed by hand: weights move by the rate times the gradient."""
    given = recipe(optimizer="sgd", momentum=0.0, weight_decay=0.0, schedule="steps", milestones=(1,), iterations=2)
    detector, moves, seen = Toy(norm=False, dropout=0.0), [], []
    detector.watch = lambda scenes: (
        seen.append(detector.head.bias.detach().clone()),
        moves.append(None if detector.head.bias.grad is None else detector.head.bias.grad.clone()),
    )
    train(detector, given)
    torch.testing.assert_close(seen[1] - seen[0], -0.01 * moves[1])
    torch.testing.assert_close(detector.head.bias - seen[1], -0.001 * detector.head.bias.grad)


def followed(**changes: Any) -> list[tuple[Tensor, Tensor]]:
    """Values of a weight and its gradient at four steps at a rate of 0.01."""
    given = recipe(**{"schedule": "steps", "iterations": 4, "weight_decay": 0.0, **changes})
    detector, values = Toy(norm=False, dropout=0.0), []
    gradients: list[Tensor | None] = []

    def watch(scenes: Any) -> None:
        weight = detector.head.weight
        values.append(weight.detach().clone())
        gradients.append(None if weight.grad is None else weight.grad.clone())

    detector.watch = watch
    train(detector, given)
    watch(())
    return [(value, gradient) for value, gradient in zip(values, [*gradients[1:], None], strict=True)]  # type: ignore[misc]


def test_momentum_and_weight_decay_move_the_weights() -> None:
    """Sutskever et al. 2013's momentum in torch's form, with L2 decay in the gradient, followed by hand."""
    steps, speed = followed(optimizer="sgd", momentum=0.9, weight_decay=0.3), torch.zeros(3, 6)
    for (value, gradient), (after, _) in pairwise(steps):
        speed = 0.9 * speed + gradient + 0.3 * value
        torch.testing.assert_close(after, value - 0.01 * speed)


def test_adamw_decays_apart_from_its_moments() -> None:
    """Loshchilov and Hutter 2019 (arXiv:1711.05101), algorithm 2, followed by hand."""
    first, second = torch.zeros(3, 6), torch.zeros(3, 6)
    for t, ((value, gradient), (after, _)) in enumerate(pairwise(followed(optimizer="adamw", weight_decay=0.3)), 1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        move = (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        torch.testing.assert_close(after, value - 0.01 * (move + 0.3 * value))


def test_what_takes_long_to_save_is_saved_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only saving moves by 2 seconds, and every step by 1."""
    now, saves = [0.0], []
    monkeypatch.setattr(training.time, "perf_counter", lambda: now[0])
    file = checkpoint(tmp_path, every_seconds=10.0)

    def save(state: dict[str, Any]) -> None:
        if state["unfinished"]:
            saves.append(state["unfinished"]["iteration"])
            now[0] += 2

    object.__setattr__(file, "save", save)
    detector = Toy()
    detector.watch = lambda scenes: now.__setitem__(0, now[0] + 1)
    train(detector, recipe(iterations=100), workspace=Workspace(checkpoint=file))
    assert saves == [10, 50, 90]


def test_a_detector_is_finished_with_batches_that_come_after_those_of_the_training() -> None:
    seen: list[Any] = []
    detector = Toy()
    detector.watch = lambda scenes: seen.append([scene.boxes for scene in scenes])
    train(detector, recipe(iterations=6))
    longer: list[Any] = []
    other = Toy()
    other.watch = lambda scenes: longer.append([scene.boxes for scene in scenes])
    train(other, recipe(iterations=8))
    assert len(seen) == 6
    for batch, expected in zip([*seen, *([s.boxes for s in b] for b in detector.finished_with)], longer, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch, expected, strict=True))


def test_a_weight_that_no_group_holds_is_refused() -> None:
    detector = Toy()
    detector.parameter_groups = lambda given: [{"params": detector.head.parameters(), "lr": 0.1}]  # type: ignore[method-assign]
    with pytest.raises(SpecError, match=r"leaves out \['layers\.0\.weight'.*untrained"):
        train(detector)


def test_normalization_is_not_decayed_where_the_recipe_says_so() -> None:
    detector = Toy()
    (every,) = detector.parameter_groups(recipe(weight_decay=0.3))
    assert len(every["params"]) == 6 and every["weight_decay"] == 0.3 and every["lr"] == 0.01
    plain_group, norms = detector.parameter_groups(recipe(weight_decay=0.3, decay_norm=False))
    assert norms["weight_decay"] == 0 and {id(p) for p in norms["params"]} == {
        id(p) for p in detector.layers[1].parameters()
    }
    assert len(plain_group["params"]) == 4


def test_terms_that_change_their_names_are_refused() -> None:
    class Changing(Toy):
        def losses(self, scenes: Any) -> dict[str, Tensor]:
            terms = super().losses(scenes)
            return terms if self.steps < 3 else {"presence": terms["presence"]}

    with pytest.raises(TypeError, match=r"Changing\.losses must return the same named terms.*\['presence'\]"):
        train(Changing())


def test_color_scenes_need_an_encoder_for_color() -> None:
    data = dataset()
    gray = task(encoder=encoder_of(channels=1))
    with pytest.raises(DataError, match=r"3 channels, the encoder takes 1\. Choose scenes with 1 channels, or an enc"):
        train_detector(
            built(Toy()), gray, data.split("train"), data.split("validation"), seed=0, trials=1, workspace=Workspace()
        )


class Bright(Toy):
    """Finds what is brighter than half in red, in the pixels that it gets."""

    sizes: list[tuple[int, ...]]

    def detect(self, scenes: Any) -> list[Found]:
        (scene,) = scenes
        self.sizes.append(tuple(scene.pixels.shape[1:]))
        rows, columns = torch.nonzero(scene.pixels[0] > 0.5, as_tuple=True)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return [Found(boxes=np.array([box], np.float32), scores=np.ones(1, np.float32), labels=np.zeros(1, np.int64))]


def test_found_boxes_come_in_the_pixels_of_the_original_scene() -> None:
    data = dataset((0, 0, 3))
    images = np.zeros((3, 40, 100, 3), dtype=np.uint8)
    boxes = [[10, 5, 30, 25], [0, 0, 10, 40], [90, 35, 100, 40]]
    for image, (left, top, right, bottom) in zip(images, boxes, strict=True):
        image[top:bottom, left:right] = 255
    scenes = replace(
        data.split("test"), scenes=type(data.scenes)(images), objects=objects_of([0, 1, 2], boxes, [0] * 3)
    )
    detector = Bright().train()
    detector.sizes = []
    found = detect_all(detector, scenes, recipe(test_side=120, test_longest=0), device="cpu")
    assert detector.sizes == [(120, 300)] * 3 and detector.training
    assert [item.boxes.tolist() for item in found] == [[pytest.approx(box)] for box in boxes]
    detect_all(detector, scenes, recipe(test_side=120, test_longest=200), device="cpu")
    detect_all(detector, scenes, recipe(test_side=0, test_longest=0), device="cpu")
    assert detector.sizes[3:] == [(80, 200)] * 3 + [(40, 100)] * 3


def test_scenes_to_judge_come_alone_and_without_their_objects() -> None:
    seen: list[Scene] = []

    class Looks(Toy):
        def detect(self, scenes: Any) -> list[Found]:
            seen.extend(scenes)
            assert len(scenes) == 1
            return super().detect(scenes)

    data = dataset()
    found = detect_all(Looks(), data.split("test"), recipe(), device="cpu")
    assert len(found) == len(seen) == 4
    assert all(len(scene.boxes) == len(scene.labels) == len(scene.masks) == 0 for scene in seen)
