from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.detection import single_stage
from bench.detection.detector import Scene, Task
from bench.detection.engines import build
from bench.detection.locations import Targets, locations
from bench.detection.recipes import DetectionRecipe, find_recipe
from bench.detection.single_stage import SingleStage, build_single_stage, centerness_of, losses_of
from bench.encoders.convnet import ConvNet
from bench.encoders.dense import Stage
from bench.encoders.encoder import Encoder
from bench.encoders.resnet import resnet18
from bench.errors import SpecError

from .squares import as_scenes, squares


def encoder(*, channels: int = 3, module: torch.nn.Module | None = None) -> Encoder:
    torch.manual_seed(0)
    made = ConvNet(channels, 8) if module is None else module
    return Encoder(
        module=made,
        feature_dim=made.feature_dim,  # type: ignore[arg-type]
        channels=channels,
        image_size=(28, 28),
        mean=(0.3,) * channels,
        std=(0.2,) * channels,
        origin="test",
        identity="test",
    )


def task(given: Encoder, *, frozen: bool = False, **changes: object) -> Task:
    recipe = replace(find_recipe("small"), **changes)  # type: ignore[arg-type]
    return Task(encoder=given, class_names=("red", "blue"), recipe=recipe, frozen=frozen, device="cpu")


def detector(given: Encoder | None = None, *, frozen: bool = False, **changes: object) -> SingleStage:
    torch.manual_seed(1)
    built = build("torchvision", task(given or encoder(), frozen=frozen, **changes))
    assert isinstance(built.detector, SingleStage)
    return built.detector


def fit(model: SingleStage, scenes: Sequence[Scene], *, steps: int, lr: float = 4e-3) -> None:
    optimizer = torch.optim.AdamW(model.parameter_groups(model.recipe), lr=lr)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack(list(model.losses(scenes).values())).sum().backward()
        optimizer.step()


# --- losses -----------------------------------------------------------------------------------------------------------


def test_centerness_is_that_of_the_paper() -> None:
    found = centerness_of(torch.tensor([[1.0, 2.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0], [1.0, 9.0, 4.0, 4.0]]))
    assert found.tolist() == pytest.approx([math.sqrt(1 / 3), 1.0, math.sqrt(1 / 4 * 4 / 9)])


def one_position(distances: list[float]) -> dict[str, Tensor]:
    """Class 1 of two, in the middle of a box of 4 by 4 pixels; logits of 0; a second position is empty."""
    targets = Targets(
        labels=torch.tensor([1, -1]), distances=torch.tensor([[2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    )
    predicted = torch.tensor([[distances, [1.0, 1.0, 1.0, 1.0]]])
    points = torch.tensor([[10.0, 10.0], [14.0, 10.0]])
    return losses_of(torch.zeros(1, 2, 2), predicted, torch.zeros(1, 2), points, [targets])


def test_losses_of_one_object_worked_by_hand() -> None:
    # Focal loss at p = 1/2: 1/4 (1/2)^2 ln 2 for the class, 3/4 (1/2)^2 ln 2 for each of the three others.
    losses = one_position([2.0, 2.0, 2.0, 2.0])
    assert losses["class"].item() == pytest.approx((0.25 + 3 * 0.75) * 0.25 * math.log(2))
    assert losses["box"].item() == pytest.approx(0.0, abs=1e-6)
    assert losses["center"].item() == pytest.approx(math.log(2))
    # Predicted [8, 8, 10, 10] in [8, 8, 12, 12]: IoU 4 / 16, the hull is the union.
    assert one_position([2.0, 2.0, 0.0, 0.0])["box"].item() == pytest.approx(0.75)
    # [10, 8, 14, 12]: IoU 8 / 24, hull 24, union 24.
    assert one_position([0.0, 2.0, 4.0, 2.0])["box"].item() == pytest.approx(2 / 3, abs=1e-6)
    # [6, 6, 10, 10]: IoU 4 / 28, hull 36: 1 - 1/7 + 8/36.
    assert one_position([4.0, 4.0, 0.0, 0.0])["box"].item() == pytest.approx(1 - 1 / 7 + 8 / 36, abs=1e-6)


def random_case(seed: int = 0) -> tuple[list[Tensor], Tensor, list[Targets]]:
    generator = torch.Generator().manual_seed(seed)
    logits, distances, centers = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 5, 3), (2, 5, 4), (2, 5))
    )
    points = 20 * torch.rand(5, 2, generator=generator, dtype=torch.float64)
    targets = [
        Targets(
            labels=torch.tensor(labels),
            distances=0.5 + 4 * torch.rand(5, 4, generator=generator, dtype=torch.float64),
        )
        for labels in ([2, -1, 0, -1, 1], [-1, -1, 1, 1, -1])
    ]
    return [logits, distances.exp(), centers], points, targets


def written_out(parts: list[Tensor], points: Tensor, targets: list[Targets]) -> Tensor:
    """The sum of the terms, position by position."""
    logits, distances, centers = parts
    focal = box = center = torch.zeros((), dtype=torch.float64)
    weights, count = 0.0, 0
    for scene, target in enumerate(targets):
        for at, label in enumerate(target.labels.tolist()):
            for k in range(logits.shape[2]):
                p = 1 / (1 + torch.exp(-logits[scene, at, k]))
                term = -0.25 * (1 - p) ** 2 * p.log() if k == label else -0.75 * p**2 * (1 - p).log()
                focal = focal + term
            if label < 0:
                continue
            left, top, right, bottom = target.distances[at].tolist()
            weight = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
            (x, y), own = points[at], distances[scene, at]
            a = (x - own[0], y - own[1], x + own[2], y + own[3])
            b = (x - left, y - top, x + right, y + bottom)
            inter = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])) * (
                torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])
            )
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
            hull = (torch.maximum(a[2], b[2]) - torch.minimum(a[0], b[0])) * (
                torch.maximum(a[3], b[3]) - torch.minimum(a[1], b[1])
            )
            box = box + weight * (1 - inter / union + (hull - union) / hull)
            p = 1 / (1 + torch.exp(-centers[scene, at]))
            center = center - weight * p.log() - (1 - weight) * (1 - p).log()
            weights, count = weights + weight, count + 1
    return focal / count + box / max(weights, 1) + center / count


def test_losses_and_gradients_are_those_of_the_formulas_written_out() -> None:
    parts, points, targets = random_case()
    leaves = [part.requires_grad_() for part in parts]
    own, expected = (
        torch.stack(list(losses_of(*leaves, points, targets).values())).sum(),
        written_out(leaves, points, targets),
    )
    assert own.item() == pytest.approx(expected.item(), rel=1e-6)
    for found, wanted in zip(torch.autograd.grad(own, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_processes_that_share_a_batch_get_its_loss_as_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, points, targets = random_case()
    whole = losses_of(*parts, points, targets)
    sums: list[Tensor] = []
    monkeypatch.setattr(single_stage, "averaged", lambda x: sums.append(x) or x)
    for scene in range(2):
        losses_of(*(part[scene, None] for part in parts), points, targets[scene : scene + 1])
    mean = (sums[0] + sums[1]) / 2
    monkeypatch.setattr(single_stage, "averaged", lambda _: mean)
    halves = [losses_of(*(part[scene, None] for part in parts), points, targets[scene : scene + 1]) for scene in (0, 1)]
    for name, value in whole.items():
        assert ((halves[0][name] + halves[1][name]) / 2).item() == pytest.approx(value.item())


def test_scenes_without_objects_have_a_finite_loss() -> None:
    scene = Scene(pixels=torch.rand(3, 32, 32), boxes=torch.empty(0, 4), labels=torch.empty(0, dtype=torch.int64))
    losses = detector().train().losses([scene])
    assert losses["class"] > 0 and losses["box"] == 0 and losses["center"] == 0
    torch.stack(list(losses.values())).sum().backward()


# --- what is found ----------------------------------------------------------------------------------------------------


def predicting(
    monkeypatch: pytest.MonkeyPatch, model: SingleStage, given: dict[int, tuple[list[float], int, float]]
) -> None:
    """Let the model predict a box (distances), class and probability at some positions, and nothing elsewhere."""

    def forward(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        positions = sum((images.shape[2] // stride) * (images.shape[3] // stride) for stride in model.strides)
        logits, distances = torch.full((1, positions, 2), -20.0), torch.ones(1, positions, 4)
        for row, (sides, label, probability) in given.items():
            logits[0, row, label] = math.log(probability / (1 - probability))
            distances[0, row] = torch.tensor(sides)
        return logits, distances, torch.full((1, positions), 20.0)

    monkeypatch.setattr(model, "forward", forward)


def scene(height: int = 16, width: int = 16) -> Scene:
    return Scene(pixels=torch.rand(3, height, width), boxes=torch.empty(0, 4), labels=torch.empty(0, dtype=torch.int64))


def test_boxes_of_one_class_that_overlap_leave_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    model = detector().eval()
    # Positions 5 and 6 of stride 4 lie at (6, 6) and (10, 6); both say [2, 2, 14, 10], position 6 of class 1 as well.
    predicting(monkeypatch, model, {5: ([4, 4, 8, 4], 0, 0.49), 6: ([8, 4, 4, 4], 0, 0.64), 9: ([4, 8, 8, 0], 1, 0.36)})
    found = model.detect([scene()])[0]
    assert found.boxes.tolist() == [[2, 2, 14, 10], [2, 2, 14, 10]]
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.8, 0.6], abs=1e-5)
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


def test_the_overlap_at_which_the_weaker_of_two_goes_is_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Positions 7 and 8 of stride 4 lie at (6, 6) and (10, 6): [2, 2, 14, 10] and [6, 2, 18, 10], IoU 64 / 128.
    given = {7: ([4.0, 4.0, 8.0, 4.0], 0, 0.49), 8: ([4.0, 4.0, 8.0, 4.0], 0, 0.64)}
    for threshold, count in ((0.45, 1), (0.55, 2)):
        model = detector(nms_threshold=threshold).eval()
        predicting(monkeypatch, model, given)
        assert len(model.detect([scene(16, 24)])[0].scores) == count
    assert find_recipe("small").nms_threshold == 0.5


def test_the_threshold_and_the_most_detections_are_the_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {0: ([1.0] * 4, 0, 0.81), 3: ([1.0] * 4, 0, 0.64), 12: ([1.0] * 4, 0, 0.49), 15: ([1.0] * 4, 1, 0.25)}
    for changes, count in (({}, 4), ({"score_threshold": 0.55}, 3), ({"detections": 2}, 2)):
        model = detector(**changes).eval()
        predicting(monkeypatch, model, given)
        assert model.detect([scene()])[0].scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.5][:count], abs=1e-5)


def test_nothing_is_found_outside_of_the_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scene of 10 by 13 pixels is padded to 16 by 16: position 3 lies at (14, 2), position 13 at (6, 14)."""
    model = detector().eval()
    predicting(monkeypatch, model, {3: ([9.0] * 4, 0, 0.9), 13: ([9.0] * 4, 0, 0.9), 5: ([9.0] * 4, 1, 0.9)})
    found = model.detect([scene(10, 13)])[0]
    assert found.boxes.tolist() == [[0, 0, 13, 10]] and found.labels.tolist() == [1]


def test_what_is_found_in_a_scene_does_not_depend_on_its_neighbors() -> None:
    model = detector(score_threshold=0.0)
    scenes = [scene(24, 40), scene(33, 17)]
    model.eval()
    together, alone = model.detect(scenes), [model.detect([one])[0] for one in scenes]
    for a, b in zip(together, alone, strict=True):
        assert len(a.scores) > 0
        assert (a.boxes == b.boxes).all() and (a.scores == b.scores).all() and (a.labels == b.labels).all()


def test_it_learns_to_find_squares_of_two_colors() -> None:
    scenes = as_scenes(squares())
    model = detector()
    fit(model, scenes, steps=60)
    model.eval()
    for given, found in zip(scenes, model.detect(scenes), strict=True):
        for box, label in zip(given.boxes.numpy(), given.labels.tolist(), strict=True):
            best = found.boxes[found.labels == label][0]
            shared = np.prod(np.maximum(0, np.minimum(best[2:], box[2:]) - np.maximum(best[:2], box[:2])))
            assert shared / (2 * 24**2 - shared) > 0.5


def test_a_new_detector_hardly_sees_an_object_anywhere() -> None:
    with torch.no_grad():
        logits, _, centers = detector().eval()(torch.randn(1, 3, 32, 32))
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)
    assert centers.sigmoid().mean().item() == pytest.approx(0.5, abs=0.1)


# --- the backbone -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_new_detector_expects_objects_in_proportion_to_the_stride_of_a_level() -> None:
    model = detector().eval()
    _, distances, _ = model(torch.zeros(1, 3, 32, 32))
    where = locations((32, 32), model.strides, device=torch.device("cpu"))
    for level, stride in enumerate(model.strides):
        own = distances[0, where.levels == level]
        assert own.log().mean().item() == pytest.approx(math.log(stride) + 1, abs=0.3)


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_frozen_backbone_keeps_weights_and_statistics() -> None:
    model = detector(frozen=True)
    before = state(model)
    fit(model, as_scenes(squares(4)), steps=2)
    changed = moved(before, state(model))
    assert changed and not any(name.startswith("backbone.") for name in changed)
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


def test_fine_tuning_moves_all_of_the_backbone_and_leaves_the_encoder_alone() -> None:
    given = encoder()
    before = state(given.module)
    model = detector(given)
    inside = state(model.backbone)
    fit(model, as_scenes(squares(4)), steps=2)
    assert moved(inside, state(model.backbone)) == set(inside)
    assert not moved(before, state(given.module))


def test_frozen_batch_norm_keeps_its_statistics_and_weights_while_convolutions_learn() -> None:
    model = detector(batch_norm="frozen")
    before = state(model.backbone)
    fit(model, as_scenes(squares(4)), steps=2)
    assert moved(before, state(model.backbone)) == {name for name, tensor in before.items() if tensor.ndim == 4}


def test_precise_statistics_are_those_of_the_given_batches() -> None:
    model = detector(precise_bn=1)
    scenes = as_scenes(squares(4))
    model.finish(lambda count: [scenes] * count)
    first = model.backbone.backbone.blocks[0](  # type: ignore[operator, index, union-attr]
        torch.stack([model.encoder.standardize(one.pixels[None])[0] for one in scenes])
    )
    running = model.backbone.backbone.blocks[1].running_mean  # type: ignore[index, union-attr]
    torch.testing.assert_close(running, first.mean(dim=(0, 2, 3)))


def test_gray_scenes_of_any_size_train_an_encoder_of_color_images() -> None:
    model = detector(encoder(module=resnet18(3))).train()
    assert model.strides == (8, 16, 32, 64)
    scenes = [
        Scene(pixels=torch.rand(1, *size), boxes=torch.tensor([[4.0, 4.0, 30.0, 40.0]]), labels=torch.tensor([1]))
        for size in ((70, 50), (48, 90))
    ]
    losses = model.losses(scenes)
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("strides", "used"),
    [((1, 2, 4), (4,)), ((4, 8, 16, 32), (8, 16, 32)), ((1, 2, 4, 8), (4, 8)), ((1, 2), (2,))],
)
def test_levels_are_the_last_stages_that_are_coarse_enough(strides: tuple[int, ...], used: tuple[int, ...]) -> None:
    found = single_stage.chosen_stages([Stage(channels=8, stride=stride) for stride in strides])
    assert tuple(stage.stride for stage in found) == used


def test_a_recipe_of_another_architecture_is_refused() -> None:
    with pytest.raises(SpecError, match="single_stage cannot build faster_rcnn_fpn"):
        build_single_stage(task(encoder(), architecture="faster_rcnn_fpn"))


def test_what_was_built_is_on_record() -> None:
    built = build_single_stage(task(encoder()))
    assert built.details["strides"] == [4, 8]
    assert built.details["stages"] == [{"channels": 32, "stride": 4}]
    assert isinstance(find_recipe("small"), DetectionRecipe)
