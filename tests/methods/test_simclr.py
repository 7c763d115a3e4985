"""NT-Xent against Eq. 1 and Algorithm 1 of arXiv:2002.05709, written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.errors import SpecError
from methods.simclr import SimCLR, nt_xent

from .embeddings import SHAPES_AND_SCALES, assert_same_value_and_gradients, correlated
from .networks import Recorder, two_views


def algorithm_1(z1: Tensor, z2: Tensor, *, temperature: float) -> Tensor:
    """Views of one image stand next to each other, as in the paper: 2k-1 and 2k (counted from 1)."""
    z = [row for pair in zip(z1, z2, strict=True) for row in pair]
    count = len(z)

    def sim(i: int, j: int) -> Tensor:
        return z[i].dot(z[j]) / (z[i].dot(z[i]).sqrt() * z[j].dot(z[j]).sqrt())

    def pair_loss(i: int, j: int) -> Tensor:
        others = [torch.exp(sim(i, k) / temperature) for k in range(count) if k != i]
        return -torch.log(torch.exp(sim(i, j) / temperature) / sum(others))

    total = sum(pair_loss(k, k + 1) + pair_loss(k + 1, k) for k in range(0, count, 2))
    assert isinstance(total, Tensor)
    return total / count


def loss(z1: Tensor, z2: Tensor, *, temperature: float, definition: str = "paper") -> Tensor:
    return sum(nt_xent(z1, z2, temperature=temperature, definition=definition).values(), start=z1.new_zeros(()))


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_loss_and_both_gradients_are_those_of_the_paper(batch: int, dim: int, scale: float, temperature: float) -> None:
    assert_same_value_and_gradients(
        lambda z1, z2: loss(z1, z2, temperature=temperature),
        lambda z1, z2: algorithm_1(z1, z2, temperature=temperature),
        correlated(2, batch, dim, scale),
    )


def test_two_orthogonal_images_worked_by_hand() -> None:
    z = torch.eye(2, dtype=torch.float64)
    terms = nt_xent(z, 3 * z, temperature=1.0, definition="paper")
    # Every embedding has its positive at similarity 1 and two negatives at similarity 0.
    assert terms["attraction"].item() == pytest.approx(-1.0, abs=1e-14)
    assert terms["repulsion"].item() == pytest.approx(math.log(math.e + 2), abs=1e-14)


def test_one_image_has_no_negatives_and_no_loss() -> None:
    z1, z2 = correlated(2, 1, 5, 1.0)
    assert loss(z1, z2, temperature=0.1).item() == pytest.approx(0.0, abs=1e-12)


def test_code_is_twice_the_mean_in_value_and_gradient() -> None:
    assert_same_value_and_gradients(
        lambda z1, z2: loss(z1, z2, temperature=0.2, definition="code"),
        lambda z1, z2: 2 * algorithm_1(z1, z2, temperature=0.2),
        correlated(2, 6, 5, 1.0),
    )


def test_exchanging_the_views_changes_nothing() -> None:
    z1, z2 = correlated(2, 6, 5, 1.0)
    torch.testing.assert_close(loss(z1, z2, temperature=0.1), loss(z2, z1, temperature=0.1))


def test_without_repulsion_equal_embeddings_are_the_best_and_with_it_they_are_not() -> None:
    spread = torch.eye(4, dtype=torch.float64)
    collapsed = torch.ones(4, 4, dtype=torch.float64)
    of_spread = nt_xent(spread, spread, temperature=0.1, definition="paper")
    of_collapsed = nt_xent(collapsed, collapsed, temperature=0.1, definition="paper")
    assert of_collapsed["attraction"].item() == pytest.approx(of_spread["attraction"].item())
    assert of_collapsed["repulsion"] > of_spread["repulsion"] + 1


def test_both_views_share_one_batch_of_batch_norm() -> None:
    backbone = Recorder()
    SimCLR(backbone, projector=(8, 4))(two_views(batch=8))
    assert backbone.batches == [16]


def test_temperature_and_definition_reach_the_loss() -> None:
    torch.manual_seed(0)
    backbone, views = Recorder(), two_views()
    by_setting = {}
    for temperature, definition in ((0.1, "paper"), (0.1, "code"), (0.5, "paper")):
        torch.manual_seed(1)
        method = SimCLR(backbone, projector=(8, 4), temperature=temperature, definition=definition)
        by_setting[temperature, definition] = sum(term.item() for term in method(views).values())
    assert by_setting[0.1, "code"] == pytest.approx(2 * by_setting[0.1, "paper"], rel=1e-6)
    assert by_setting[0.5, "paper"] != pytest.approx(by_setting[0.1, "paper"], rel=1e-2)


def test_wrong_settings_are_refused_with_the_right_ones() -> None:
    with pytest.raises(SpecError, match=r"temperature must be above 0, got 0.*0\.1"):
        SimCLR(Recorder(), temperature=0.0)
    with pytest.raises(SpecError, match=r"'paper' .*'code' .*got 'none'"):
        SimCLR(Recorder(), definition="none")
