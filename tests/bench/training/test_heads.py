from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.errors import SpecError
from bench.training.heads import mlp


def test_hidden_layers_are_linear_norm_relu_and_the_last_is_linear() -> None:
    head = mlp((4, 8, 6, 3))
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert [type(layer) for layer in head] == kinds
    assert [layer.bias is not None for layer in head if isinstance(layer, nn.Linear)] == [False, False, True]
    assert head(torch.randn(5, 4)).shape == (5, 3)


def test_biases_are_chosen_for_hidden_and_last_layers() -> None:
    head = mlp((4, 8, 3), hidden_bias=True, last_bias=False)
    assert [layer.bias is not None for layer in head if isinstance(layer, nn.Linear)] == [True, False]


@pytest.mark.parametrize("norm", ["affine", "plain"])
def test_the_output_can_be_normalized(norm: str) -> None:
    head = mlp((4, 8, 3), last_norm=norm)  # type: ignore[arg-type]
    assert isinstance(head[-1], nn.BatchNorm1d) and head[-1].affine == (norm == "affine")
    out = head(torch.randn(64, 4))
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(3), atol=1e-6, rtol=0)


def test_hidden_layers_can_do_without_a_norm() -> None:
    head = mlp((4, 8, 3), hidden_bias=True, hidden_norm=False)
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.Linear]


def test_two_sizes_make_one_linear_layer() -> None:
    assert [type(layer) for layer in mlp((4, 3))] == [nn.Linear]


def test_one_size_is_not_enough() -> None:
    with pytest.raises(SpecError, match=r"network of width \[4\] there is none.*projector"):
        mlp((4,))


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'layer'"):
        mlp((4, 3), last_norm="layer")  # type: ignore[arg-type]
