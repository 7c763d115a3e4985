from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.training.diagnostics import Spread, measured_spread

from .toys import Contrast, make


def test_even_directions_spread_by_one_and_equal_ones_by_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    assert Spread.of(torch.randn(4096, 32, generator=generator)).std == pytest.approx(1.0, abs=0.01)
    assert Spread.of(torch.ones(64, 32)).std == pytest.approx(0.0, abs=1e-6)
    assert Spread.of(torch.zeros(64, 32)).std == 0.0


def test_the_length_of_the_vectors_does_not_count_for_their_directions() -> None:
    directions = torch.randn(64, 8)
    lengths = torch.rand(64, 1) + 0.1
    assert Spread.of(directions * lengths).std == pytest.approx(Spread.of(directions).std, rel=1e-5)
    assert Spread.of(3 * directions).scale == pytest.approx(3 * Spread.of(directions).scale, rel=1e-5)


def test_the_spread_of_two_opposite_points_is_known() -> None:
    # both dimensions of (1, 0) and (-1, 0): std 1 and 0, mean 0.5, times sqrt(2)
    spread = Spread.of(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))
    assert spread.std == pytest.approx(0.5 * 2**0.5) and spread.scale == pytest.approx(0.75)


def test_outputs_of_all_calls_are_joined_and_the_hooks_removed() -> None:
    method = make(Contrast)
    found: dict[str, Spread] = {}
    views = [torch.rand(6, 1, 8, 8), torch.rand(6, 1, 8, 8)]
    outputs = []
    handle = method.backbone.register_forward_hook(lambda _, __, output: outputs.append(output.detach()))
    with measured_spread(method, found):
        method(views)
    handle.remove()
    assert set(found) == {"representation_std", "embedding_std"}
    assert found["representation_std"] == Spread.of(torch.cat(outputs))
    assert not method.backbone._forward_hooks and not method.projector._forward_hooks


def test_a_method_without_projector_has_no_embedding_spread() -> None:
    method = nn.Module()
    method.backbone = nn.Linear(2, 2)
    found: dict[str, Spread] = {}
    with measured_spread(method, found):
        method.backbone(torch.randn(4, 2))
    assert set(found) == {"representation_std"}
