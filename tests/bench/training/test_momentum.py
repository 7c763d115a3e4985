from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.training.momentum import cosine_tau, momentum_copy, update_momentum


def test_a_momentum_copy_is_equal_frozen_and_its_own() -> None:
    online = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    target = momentum_copy(online)
    assert not any(p.requires_grad for p in target.parameters()) and target.training
    assert all(p.requires_grad for p in online.parameters())
    torch.testing.assert_close(target.state_dict(), online.state_dict())
    with torch.no_grad():
        online[0].weight.zero_()
    assert target[0].weight.abs().sum() > 0


def test_the_update_is_an_exponential_moving_average() -> None:
    online, target = nn.Linear(1, 1), nn.Linear(1, 1)
    values = [1.0, 3.0, -2.0]
    nn.init.constant_(target.weight, 5.0)
    expected = 5.0
    for value in values:
        nn.init.constant_(online.weight, value)
        update_momentum(target, online, 0.9)
        expected = 0.9 * expected + 0.1 * value
    assert target.weight.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_the_ends_of_tau_are_exact(tau: float) -> None:
    online, target = nn.Linear(3, 3), nn.Linear(3, 3)
    expected = (target if tau else online).weight.detach().clone()
    update_momentum(target, online, tau)
    assert torch.equal(target.weight, expected)


def test_buffers_are_not_averaged() -> None:
    online = nn.BatchNorm1d(2)
    target = momentum_copy(online)
    online(torch.randn(8, 2) + 5.0)
    update_momentum(target, online, 0.5)
    assert torch.equal(target.running_mean, torch.zeros(2)) and target.num_batches_tracked == 0


def test_the_target_keeps_batch_statistics_of_its_own() -> None:
    target = momentum_copy(nn.BatchNorm1d(2))
    target(torch.randn(8, 2) + 5.0)
    assert (target.running_mean > 0).all()


def test_tau_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tau must be in \[0, 1\], got 1\.5"):
        update_momentum(nn.Linear(1, 1), nn.Linear(1, 1), 1.5)


def test_different_networks_are_refused_with_the_parameters_in_question() -> None:
    with pytest.raises(ValueError, match=r"\['bias'\]"):
        update_momentum(nn.Linear(1, 1), nn.Linear(1, 1, bias=False), 0.5)


def test_tau_follows_the_cosine_of_byol() -> None:
    assert cosine_tau(0.9, 0, 4) == pytest.approx(0.9)
    assert cosine_tau(0.9, 1, 4) == pytest.approx(1 - 0.1 * (math.sqrt(0.5) + 1) / 2)
    assert cosine_tau(0.9, 2, 4) == pytest.approx(0.95)
    assert cosine_tau(0.9, 4, 4) == 1.0
