"""Losses keep float32 inside a mixed-precision step."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.training.precision import full_precision, true_float32


@full_precision
def product(a: Tensor, b: Tensor, *, factor: float) -> dict[str, Tensor]:
    """A matrix product, which autocast would run in bfloat16."""
    return {"sum": factor * (a @ b).sum()}


def test_matrix_products_stay_in_float32_under_autocast() -> None:
    a = torch.full((1, 3), 1.001)
    b = torch.full((3, 1), 1.001)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = (a @ b).sum()
        exact = product(a, b, factor=2.0)["sum"]
    assert rounded.dtype == torch.bfloat16
    assert exact.dtype == torch.float32
    torch.testing.assert_close(exact, 2 * (a @ b).sum(), rtol=1e-6, atol=0.0)


def test_half_embeddings_are_widened_and_their_gradient_flows_back() -> None:
    z = torch.full((2, 2), 0.5, dtype=torch.bfloat16, requires_grad=True)
    value = product(z, torch.eye(2), factor=3.0)["sum"]
    assert value.dtype == torch.float32
    value.backward()
    assert z.grad is not None and torch.equal(z.grad, torch.full_like(z, 3.0))


def test_float64_stays_float64() -> None:
    z = torch.eye(2, dtype=torch.float64)
    assert product(z, z, factor=1.0)["sum"].dtype == torch.float64


def test_the_function_keeps_its_name_and_docstring() -> None:
    assert product.__name__ == "product"
    assert "matrix product" in (product.__doc__ or "")


def test_tf32_is_off_inside_and_as_before_after_an_error() -> None:
    for before in (True, False):
        torch.backends.cudnn.allow_tf32 = before
        try:
            with true_float32():
                assert not torch.backends.cudnn.allow_tf32
                raise RuntimeError
        except RuntimeError:
            assert torch.backends.cudnn.allow_tf32 is before
    torch.backends.cudnn.allow_tf32 = True
