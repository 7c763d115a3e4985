from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from bench.training.distributed import (
    average_gradients,
    averaged,
    equal_everywhere,
    gather,
    own_rows,
    process_count,
    process_rank,
    summed,
)

from .ranks import in_group

W, ROWS = 3, 2


def whole_batch() -> Tensor:
    return torch.randn(W * ROWS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def a_loss(z: Tensor) -> Tensor:
    """Of all rows together, and of every row's place."""
    return ((z.T @ z).sin() * torch.arange(1, 5)).sum() + (z.exp().T @ torch.arange(len(z)).to(z)).square().sum()


def gradient(rows: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    rows = rows.clone().requires_grad_()
    torch.autograd.backward(loss(rows))
    assert rows.grad is not None
    return rows.grad


def work() -> dict[str, Any]:
    whole, rank = whole_batch(), process_rank()
    mine = own_rows(whole)
    layer = torch.nn.Linear(4, 2)
    half = torch.nn.Linear(2, 2).to(torch.bfloat16)
    layer.weight.grad = torch.full((2, 4), float(rank)).T.contiguous().T  # another layout in memory
    layer.bias.grad = None
    half.weight.grad = torch.full((2, 2), 3.0 * rank, dtype=torch.bfloat16)
    average_gradients([*layer.parameters(), *half.parameters()])
    return {
        "processes": (process_count(), rank),
        "mine": mine,
        "gathered": gather(mine),
        "summed": summed(mine),
        "averaged": averaged(mine),
        # divided by W as the average over processes does
        "exact": gather(gradient(mine, lambda z: a_loss(gather(z))) / W),
        "own loss alone": gather(gradient(mine, lambda z: a_loss(gather(z, from_all=False))) / W),
        "unequal losses": gather(gradient(mine, lambda z: (rank + 1) * a_loss(gather(z))) / W),
        "sum": gather(gradient(mine, lambda z: (rank + 1) * summed(z).square().sum()) / W),
        "means": (layer.weight.grad, layer.bias.grad, half.weight.grad),
        "equal": [
            equal_everywhere(tensors)
            for tensors in (
                [whole, torch.empty(0), torch.tensor(True)],
                [whole, mine],
                [torch.tensor([1.0, -1.0]) * (rank + 1)],  # the sums agree
                [torch.full((2,), float("nan"))],
            )
        ],
    }


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    result: dict[str, Any] = in_group(W, work)
    return result


def test_rows_of_all_processes_are_joined_by_rank_and_taken_apart_again(found: dict[str, Any]) -> None:
    assert found["processes"] == (W, 0)
    assert torch.equal(found["mine"], whole_batch()[:ROWS])
    assert torch.equal(found["gathered"], whole_batch())


def test_sums_and_means_go_over_the_processes(found: dict[str, Any]) -> None:
    parts = whole_batch().unflatten(0, (W, ROWS))
    assert_close(found["summed"], parts.sum(0))
    assert_close(found["averaged"], parts.mean(0))


def test_the_averaged_gradient_of_a_loss_of_gathered_rows_is_that_of_one_process(found: dict[str, Any]) -> None:
    expected = gradient(whole_batch(), a_loss)
    assert_close(found["exact"], expected, rtol=1e-12, atol=1e-12)
    assert_close(found["unequal losses"], expected * (1 + 2 + 3) / W, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_the_own_loss_alone_is_smaller_by_the_number_of_processes(found: dict[str, Any]) -> None:
    assert_close(found["own loss alone"], found["exact"] / W, rtol=1e-12, atol=1e-12)


def test_the_gradient_of_a_sum_is_that_of_all_losses(found: dict[str, Any]) -> None:
    total = whole_batch().unflatten(0, (W, ROWS)).sum(0)
    assert_close(found["sum"], ((1 + 2 + 3) * 2 * total / W).repeat(W, 1), rtol=1e-12, atol=1e-12)


def test_gradients_are_averaged_in_every_type_and_layout(found: dict[str, Any]) -> None:
    weight, bias, half = found["means"]
    assert torch.equal(weight, torch.full((2, 4), 1.0)) and bias is None
    assert half.dtype == torch.bfloat16 and torch.equal(half, torch.full((2, 2), 3.0, dtype=torch.bfloat16))


def test_different_values_are_noticed(found: dict[str, Any]) -> None:
    assert found["equal"] == [True, False, False, True]


def test_one_process_gets_its_input_back() -> None:
    whole = whole_batch()
    layer = torch.nn.Linear(4, 2)
    layer.weight.grad = whole[:2].float()
    average_gradients(layer.parameters())
    assert gather(whole) is whole and summed(whole) is whole and torch.equal(own_rows(whole), whole)
    assert torch.equal(layer.weight.grad, whole[:2].float())
    assert (process_count(), process_rank()) == (1, 0) and equal_everywhere([whole])
