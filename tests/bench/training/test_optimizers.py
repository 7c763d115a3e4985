from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from bench.spec import TrainingSpec
from bench.training.optimizers import LARS, build_optimizer, scaled_lr

CLOSE = {"rtol": 1e-6, "atol": 1e-8}


def parameter(values: list[float] | list[list[float]], gradient: list[float] | list[list[float]]) -> nn.Parameter:
    p = nn.Parameter(torch.tensor(values))
    p.grad = torch.tensor(gradient)
    return p


def step(optimizer: torch.optim.Optimizer, p: nn.Parameter, gradient: Tensor | None = None) -> Tensor:
    if gradient is not None:
        p.grad = gradient
    optimizer.step()
    return p.detach()


def recipe(**changes: Any) -> TrainingSpec:
    return TrainingSpec(**{"lr": 0.1, "weight_decay": 0.1, "momentum": 0.9, "optimizer": "sgd", **changes})


def test_lars_follows_its_equations_for_two_steps() -> None:
    # |p| = 5; d = g + 0.1 p = (0.3, 1.4); q = 0.001 * 5 / |d|
    p = parameter([[3.0, 4.0]], [[0.0, 1.0]])
    lars = LARS([p], lr=2.0, momentum=0.9, weight_decay=0.1, eta=1e-3)
    first = 0.005 / (0.3**2 + 1.4**2) ** 0.5 * torch.tensor([[0.3, 1.4]])
    p1 = torch.tensor([[3.0, 4.0]]) - 2.0 * first
    torch.testing.assert_close(step(lars, p).clone(), p1, **CLOSE)
    g = torch.tensor([[1.0, 0.0]])
    d = g + 0.1 * p1
    second = 0.9 * first + 1e-3 * p1.norm() / d.norm() * d
    torch.testing.assert_close(step(lars, p, g), p1 - 2.0 * second, **CLOSE)


def test_lars_uses_the_norm_of_the_decayed_gradient_not_the_sum_of_norms() -> None:
    # g is orthogonal to p, so |g + wd p| = sqrt(5) * |p| / 2 and |g| + wd |p| = 1.5 |p| differ
    p = parameter([[1.0, 0.0]], [[0.0, 1.0]])
    moved = step(LARS([p], lr=1.0, momentum=0.0, weight_decay=0.5, eta=1e-3), p)
    q = 1e-3 / (0.5**2 + 1.0**2) ** 0.5
    torch.testing.assert_close(moved, torch.tensor([[1.0 - 0.5 * q, -q]]), **CLOSE)


def test_lars_adapts_even_when_the_decay_is_zero() -> None:
    p = parameter([[3.0, 4.0]], [[0.0, 100.0]])
    moved = step(LARS([p], lr=1.0, weight_decay=0.0, eta=1e-3), p)
    torch.testing.assert_close(moved, torch.tensor([[3.0, 4.0 - 0.005]]), **CLOSE)


def test_lars_leaves_one_dimensional_parameters_without_decay_and_adaptation() -> None:
    p = parameter([3.0, 4.0], [0.0, 1.0])
    moved = step(LARS([p], lr=0.5, weight_decay=0.1), p)
    torch.testing.assert_close(moved, torch.tensor([3.0, 3.5]), **CLOSE)


def test_lars_adapts_one_dimensional_parameters_when_asked_to() -> None:
    p = parameter([3.0, 4.0], [0.0, 1.0])
    moved = step(LARS([p], lr=1.0, eta=1e-3, exclude_1d=False), p)
    torch.testing.assert_close(moved, torch.tensor([3.0, 4.0 - 0.005]), **CLOSE)


@pytest.mark.parametrize(("values", "expected"), [([[0.0, 0.0]], [[-1.0, 0.0]]), ([[1.0, 0.0]], [[0.999, 0.0]])])
def test_lars_does_not_scale_when_the_weights_are_zero(values: list[list[float]], expected: list[list[float]]) -> None:
    p = parameter(values, [[1.0, 0.0]])
    torch.testing.assert_close(step(LARS([p], lr=1.0, eta=1e-3), p), torch.tensor(expected), **CLOSE)


def test_lars_survives_a_gradient_of_zero() -> None:
    p = parameter([[1.0, 2.0]], [[0.0, 0.0]])
    torch.testing.assert_close(step(LARS([p], lr=1.0), p), torch.tensor([[1.0, 2.0]]))


def test_lars_skips_parameters_without_a_gradient() -> None:
    p, q = parameter([[3.0, 4.0]], [[0.0, 1.0]]), nn.Parameter(torch.ones(2, 2))
    lars = LARS([p, q], lr=1.0)
    lars.step()
    assert torch.equal(q.detach(), torch.ones(2, 2)) and q not in lars.state


def test_lars_continues_from_its_state_dict() -> None:
    def run(*, interrupted: bool) -> Tensor:
        p = parameter([[3.0, 4.0]], [[0.0, 1.0]])
        lars = LARS([p], lr=1.0)
        lars.step()
        if interrupted:
            state = lars.state_dict()
            lars = LARS([p], lr=1.0)
            lars.load_state_dict(state)
        return step(lars, p, torch.tensor([[1.0, 1.0]]))

    assert torch.equal(run(interrupted=True), run(interrupted=False))


def test_sgd_has_coupled_decay_and_momentum() -> None:
    p = parameter([[2.0]], [[1.0]])
    sgd = build_optimizer([{"params": [p]}], recipe())
    assert step(sgd, p).item() == pytest.approx(2.0 - 0.1 * 1.2)  # d = 1 + 0.1 * 2
    d = 1.0 + 0.1 * 1.88
    assert step(sgd, p, torch.tensor([[1.0]])).item() == pytest.approx(1.88 - 0.1 * (0.9 * 1.2 + d))


def test_adamw_has_decoupled_decay() -> None:
    p = parameter([[2.0]], [[0.5]])
    adamw = build_optimizer([{"params": [p]}], recipe(optimizer="adamw"))
    # the first step of Adam has length lr; the decay multiplies the weight by 1 - lr * wd
    assert step(adamw, p).item() == pytest.approx(2.0 * (1 - 0.1 * 0.1) - 0.1, abs=1e-6)


def test_adam_has_its_decay_in_the_gradient() -> None:
    p = parameter([[2.0]], [[0.5]])
    adam = build_optimizer([{"params": [p]}], recipe(optimizer="adam"))
    assert type(adam) is torch.optim.Adam
    assert step(adam, p).item() == pytest.approx(2.0 - 0.1, abs=1e-6)  # the first step has length lr, whatever decays
    d1, d2 = 0.5 + 0.1 * 2.0, -0.1 + 0.1 * 1.9
    m = (0.9 * 0.1 * d1 + 0.1 * d2) / (1 - 0.9**2)
    v = (0.999 * 0.001 * d1**2 + 0.001 * d2**2) / (1 - 0.999**2)
    assert step(adam, p, torch.tensor([[-0.1]])).item() == pytest.approx(1.9 - 0.1 * m / v**0.5, abs=1e-6)


def test_lars_from_a_recipe_has_its_trust_coefficient() -> None:
    p = parameter([[3.0, 4.0]], [[0.0, 1.0]])
    build_optimizer([{"params": [p]}], recipe(optimizer="lars", lars_eta=0.02, weight_decay=0.0)).step()
    torch.testing.assert_close(p.detach(), torch.tensor([[3.0, 4.0 - 0.1 * 0.02 * 5]]), **CLOSE)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_exclude_1d_takes_the_decay_from_vectors_only(optimizer: str) -> None:
    matrix, vector = parameter([[2.0]], [[0.0]]), parameter([2.0], [0.0])
    build_optimizer([{"params": [matrix, vector]}], recipe(optimizer=optimizer)).step()
    assert matrix.item() < 2.0 and vector.item() == 2.0
    matrix, vector = parameter([[2.0]], [[0.0]]), parameter([2.0], [0.0])
    build_optimizer([{"params": [matrix, vector]}], recipe(optimizer=optimizer, exclude_1d=False)).step()
    assert matrix.item() == vector.item() < 2.0


def test_lars_from_a_recipe_excludes_vectors_as_the_recipe_says() -> None:
    vector = parameter([3.0, 4.0], [0.0, 1.0])
    build_optimizer([{"params": [vector]}], recipe(optimizer="lars")).step()
    torch.testing.assert_close(vector.detach(), torch.tensor([3.0, 3.9]), **CLOSE)
    vector = parameter([3.0, 4.0], [0.0, 1.0])
    build_optimizer([{"params": [vector]}], recipe(optimizer="lars", exclude_1d=False, weight_decay=0.0)).step()
    torch.testing.assert_close(vector.detach(), torch.tensor([3.0, 4.0 - 0.1 * 0.005]), **CLOSE)


@pytest.mark.parametrize(("scaling", "expected"), [("none", 0.1), ("linear", 0.4), ("sqrt", 0.2)])
def test_the_learning_rate_scales_with_the_batch(scaling: str, expected: float) -> None:
    training = recipe(lr_scaling=scaling, batch_size=1024)
    assert scaled_lr(training) == pytest.approx(expected)
    optimizer = build_optimizer([{"params": [parameter([[1.0]], [[0.0]])]}], training)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_a_group_with_an_lr_scale_starts_at_its_own_rate() -> None:
    p, q = parameter([[1.0]], [[1.0]]), parameter([[1.0]], [[1.0]])
    groups = [{"params": [p]}, {"params": [q], "lr_scale": 10.0}]
    build_optimizer(groups, recipe(weight_decay=0.0)).step()
    assert p.item() == pytest.approx(0.9) and q.item() == pytest.approx(0.0, abs=1e-7)


def test_frozen_parameters_are_left_out() -> None:
    frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    optimizer = build_optimizer([{"params": [parameter([[1.0]], [[0.0]]), frozen]}], recipe())
    assert [p.shape for group in optimizer.param_groups for p in group["params"]] == [(1, 1)]


def test_a_misspelt_group_entry_is_named() -> None:
    with pytest.raises(SpecError, match=r"group 0: unknown entries \['learning_rate'\]\. Known: constant_lr, lr_scale"):
        build_optimizer([{"params": [parameter([1.0], [1.0])], "learning_rate": 1.0}], recipe())


def test_an_empty_group_is_an_error() -> None:
    with pytest.raises(SpecError, match="group 1: has no parameter that is trained"):
        build_optimizer([{"params": [parameter([1.0], [1.0])]}, {"params": []}], recipe())
