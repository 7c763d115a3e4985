from __future__ import annotations

import pytest
import torch

from bench.detection.locations import locations, targets_of


def test_positions_are_the_middles_of_their_squares_finest_level_first() -> None:
    where = locations((8, 16), (4, 8))
    first = [[2, 2], [6, 2], [10, 2], [14, 2], [2, 6], [6, 6], [10, 6], [14, 6]]
    assert where.points.tolist() == [*first, [4, 4], [12, 4]]
    assert where.levels.tolist() == [0] * 8 + [1] * 2
    assert where.strides.tolist() == [4] * 8 + [8] * 2
    assert where.reach[[0, 8]].tolist() == [[0, 32], [32, float("inf")]]


def test_a_small_object_is_found_near_its_middle_on_the_finest_level() -> None:
    # Middle (8, 8): at stride 4 the positions 6 and 10 are within 1.5 strides of it, and 2 and 14 are not (6 = 1.5 4).
    where = locations((16, 16), (4, 8))
    targets = targets_of(where, torch.tensor([[3.0, 1.0, 13.0, 15.0]]), torch.tensor([7]))
    found = {tuple(where.points[row].tolist()) for row in torch.nonzero(targets.labels == 7)[:, 0]}
    assert found == {(6, 6), (10, 6), (6, 10), (10, 10)}
    assert targets.distances[5].tolist() == [3, 5, 7, 9]
    assert (targets.labels == -1).sum() == 16 + 4 - 4


def test_the_radius_is_one_and_a_half_strides() -> None:
    # Middle (12.1, 8): the positions 6.1 and 5.9 pixels away are beside it, those 2.1, 1.9 and 5.9 are within 6.
    where = locations((16, 24), (4,))
    targets = targets_of(where, torch.tensor([[0.0, 0.0, 24.2, 16.0]]), torch.tensor([0]))
    columns = {where.points[row, 0].item() for row in torch.nonzero(targets.labels == 0)[:, 0]}
    assert columns == {10, 14, 18}


@pytest.mark.parametrize(("side", "level"), [(20.0, 0), (40.0, 0), (66.0, 1), (90.0, 1)])
def test_the_size_of_an_object_chooses_its_level(side: float, level: int) -> None:
    where = locations((96, 96), (4, 8))
    middle = torch.tensor([46.0, 46.0])
    targets = targets_of(where, torch.cat([middle - side / 2, middle + side / 2])[None], torch.tensor([0]))
    assert set(where.levels[targets.labels == 0].tolist()) == {level}


def test_of_two_objects_at_one_place_the_smaller_is_learned() -> None:
    where = locations((16, 16), (4,))
    boxes, labels = torch.tensor([[4.0, 4.0, 12.0, 12.0], [2.0, 2.0, 14.0, 14.0]]), torch.tensor([1, 2])
    for order in ([0, 1], [1, 0]):
        targets = targets_of(where, boxes[order], labels[order])
        assert targets.labels[5] == 1
        assert targets.distances[5].tolist() == [2, 2, 6, 6]


def test_a_position_outside_of_a_narrow_object_learns_nothing() -> None:
    targets = targets_of(locations((16, 16), (4,)), torch.tensor([[7.0, 0.0, 9.0, 16.0]]), torch.tensor([0]))
    assert (targets.labels == -1).all() and not targets.distances.any()


def test_a_scene_without_objects_is_background() -> None:
    targets = targets_of(locations((8, 8), (4,)), torch.empty(0, 4), torch.empty(0, dtype=torch.int64))
    assert targets.labels.tolist() == [-1] * 4 and targets.distances.shape == (4, 4)
