"""Random embeddings and the comparison of a loss with an independent formula, in value and gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

SHAPES_AND_SCALES = [
    pytest.param(batch, dim, scale, id=f"B{batch}-D{dim}-scale{scale:g}")
    for batch, dim in ((2, 3), (7, 4), (16, 32))
    for scale in (1.0, 1e-2, 1e-3)
]


def correlated(count: int, batch: int, dim: int, scale: float) -> list[Tensor]:
    """``count`` float64 embeddings (batch, dim) of the same images, with gradients and a mean that is not zero."""
    generator = torch.Generator().manual_seed(batch * 1000 + dim)
    base = torch.randn(batch, dim, generator=generator, dtype=torch.float64) + 0.3
    noise = [torch.randn(batch, dim, generator=generator, dtype=torch.float64) for _ in range(count)]
    return [(scale * (base + 0.4 * z)).requires_grad_() for z in noise]


def assert_same_value_and_gradients(
    loss: Callable[..., Tensor], reference: Callable[..., Tensor], inputs: list[Tensor], *, rtol: float = 1e-10
) -> None:
    """Both functions agree in value and in the gradient with respect to every input."""
    value, expected = loss(*inputs), reference(*inputs)
    torch.testing.assert_close(value, expected, rtol=rtol, atol=0.0)
    gradients = torch.autograd.grad(value, inputs)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, inputs), strict=True):
        largest = float(wanted.abs().max())
        assert largest > 0
        torch.testing.assert_close(gradient, wanted, rtol=rtol, atol=rtol * largest)
