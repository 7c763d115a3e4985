"""Projection and prediction heads: multi-layer perceptrons with batch normalization."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from bench.errors import SpecError

LastNorm = Literal["none", "affine", "plain"]


def mlp(
    sizes: Sequence[int],
    *,
    hidden_bias: bool = False,
    hidden_norm: bool = True,
    last_bias: bool = True,
    last_norm: LastNorm = "none",
) -> nn.Sequential:
    """Blocks of Linear, BatchNorm, ReLU, closed by one Linear: (B, sizes[0]) to (B, sizes[-1]).

    Args:
        sizes: width of the input, of each hidden layer, of the output.
        hidden_bias: bias of the hidden Linear layers; their batch normalization has one already.
        hidden_norm: batch normalization of the hidden layers.
        last_bias: bias of the last Linear layer.
        last_norm: batch normalization of the output: ``none``, ``affine`` (scale and shift are trained) or ``plain``.

    Raises:
        SpecError: fewer than two sizes: a head without a layer.
        ValueError: an unknown ``last_norm``.
    """
    if len(sizes) < 2:
        raise SpecError(
            f"A head needs the width of one layer at least; on a network of width {list(sizes)} there is none. "
            "Give its parameter (projector, predictor) one or more widths."
        )
    if last_norm not in ("none", "affine", "plain"):
        raise ValueError(f"last_norm must be 'none', 'affine' or 'plain', got {last_norm!r}")
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(sizes[:-1]):
        layers.append(nn.Linear(width_in, width_out, bias=hidden_bias))
        if hidden_norm:
            layers.append(nn.BatchNorm1d(width_out))
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(sizes[-2], sizes[-1], bias=last_bias))
    if last_norm != "none":
        layers.append(nn.BatchNorm1d(sizes[-1], affine=last_norm == "affine"))
    return nn.Sequential(*layers)
