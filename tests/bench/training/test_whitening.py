"""Whitening over every rank, data type and size of batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.training.distributed import draw_permutations
from bench.training.whitening import whiten, whiten_parts, whiten_views

D = 8


def of_rank(rank: int, *, n: int = 40, d: int = D, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Vectors (n, d) in a subspace of ``rank`` dimensions, off the origin; all columns depend on all directions."""
    generator = torch.Generator().manual_seed(seed)
    inside = torch.randn(n, rank, generator=generator, dtype=torch.float64)
    frame, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    return (inside @ frame[:rank] + 0.5).to(dtype)


def covariance(white: Tensor) -> Tensor:
    """(n, d) to (d, d), by a loop over the vectors."""
    white = white.double()
    mean = sum(white) / len(white)
    return sum(torch.outer(row - mean, row - mean) for row in white) / (len(white) - 1)  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", range(1, D + 1))
def test_every_rank_is_white_in_as_many_dimensions_and_zero_in_the_rest(rank: int, dtype: torch.dtype) -> None:
    z = of_rank(rank, dtype=dtype).requires_grad_()
    white = whiten(z)
    assert white.dtype == dtype and white.shape == z.shape
    found = covariance(white.detach())
    expected = torch.diag((torch.arange(D) < rank).double())  # the first dimensions are the independent ones
    assert float((found - expected).abs().max()) < 1e-5
    assert float(white.detach().double().mean(dim=0).abs().max()) < 1e-5
    (gradient,) = torch.autograd.grad((white * torch.randn_like(white)).sum(), z)
    assert gradient.dtype == dtype and bool(gradient.isfinite().all())
    assert 0 < float(gradient.abs().max()) < 1e3  # rounding is not scaled up
    torch.testing.assert_close(gradient[:, rank:], torch.zeros_like(gradient[:, rank:]))


@pytest.mark.parametrize("noise", [1e-3, 1e-4])
def test_float32_features_that_nearly_lie_in_a_subspace_are_white_in_all_dimensions(noise: float) -> None:
    z = of_rank(3, n=200) + noise * torch.randn(200, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert float((covariance(whiten(z.float())) - torch.eye(D)).abs().max()) < 1e-5


@pytest.mark.parametrize("scale", [1e3, 1e-3, 1e-6])
def test_the_scale_of_the_features_does_not_matter(scale: float) -> None:
    z = of_rank(D)
    torch.testing.assert_close(whiten(scale * z), whiten(z), rtol=1e-8, atol=1e-10)


def test_whitening_is_the_inverse_cholesky_factor_and_not_another_root() -> None:
    z = of_rank(3, d=3)
    factor = torch.linalg.inv(torch.linalg.cholesky(covariance(z)))
    expected = torch.stack([factor @ (row - z.mean(dim=0)) for row in z])
    torch.testing.assert_close(whiten(z), expected, rtol=1e-10, atol=1e-12)


def test_two_dimensions_worked_by_hand() -> None:
    # means 0; covariance [[4, 2], [2, 5]] = L Lᵀ with L = [[2, 0], [1, 2]]
    corners = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64) * 0.75**0.5
    factor = torch.tensor([[2.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(whiten(corners @ factor.T + 7), corners)


def test_white_vectors_stay_as_they_are() -> None:
    white = whiten(of_rank(D))
    torch.testing.assert_close(whiten(white), white, rtol=1e-10, atol=1e-12)


def test_the_gradient_is_that_of_finite_differences_at_full_and_at_lower_rank() -> None:
    full = of_rank(4, n=9, d=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: whiten(z), [full])
    few = of_rank(4, n=3, d=4).requires_grad_()  # rank 2, whatever the values
    assert torch.autograd.gradcheck(lambda z: whiten(z), [few])
    assert torch.autograd.gradcheck(lambda z: whiten(z, eps=0.3), [few])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 5, D, D + 1])
def test_few_vectors_are_white_in_one_dimension_less_than_they_are(n: int, dtype: torch.dtype) -> None:
    white = whiten(of_rank(D, n=n, dtype=dtype))
    rank = min(n - 1, D)
    if n > 1:
        expected = torch.diag((torch.arange(D) < rank).double())
        assert float((covariance(white) - expected).abs().max()) < 1e-5
    else:
        assert not white.any()


def test_equal_and_constant_dimensions_become_zero() -> None:
    z = of_rank(3, d=3)
    doubled = torch.stack([z[:, 0], z[:, 0], torch.full_like(z[:, 0], 5.0), z[:, 1]], dim=1)
    white = whiten(doubled)
    assert not white[:, 1].any() and not white[:, 2].any()
    torch.testing.assert_close(white[:, [0, 3]], whiten(z[:, :2]))
    assert not whiten(torch.full((6, 4), 0.1)).any()


def test_eps_shrinks_towards_the_identity() -> None:
    z = of_rank(3, d=3)
    root = torch.linalg.cholesky(0.75 * covariance(z) + 0.25 * torch.eye(3))
    torch.testing.assert_close(whiten(z, eps=0.25), (z - z.mean(dim=0)) @ torch.linalg.inv(root).T)
    torch.testing.assert_close(whiten(z, eps=1.0), z - z.mean(dim=0))


def test_many_at_once_are_what_each_is_alone_also_when_one_has_no_full_rank() -> None:
    z = torch.stack([of_rank(rank, seed=rank) for rank in (D, 3, D, 1)]).unflatten(0, (2, 2))
    together = whiten(z)
    for i in range(2):
        for j in range(2):
            torch.testing.assert_close(together[i, j], whiten(z[i, j]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_and_leaves_the_other_batches_alone(bad: float) -> None:
    z = torch.stack([of_rank(D), of_rank(D, seed=1)])
    z[0, 3, 2] = bad
    white = whiten(z)
    assert bool(white[0, :, -1].isnan().all())
    torch.testing.assert_close(white[1], whiten(z[1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_was_and_autocast_changes_nothing(dtype: torch.dtype) -> None:
    z = of_rank(4, n=64, d=4)
    half = whiten(z.to(dtype))
    assert half.dtype == dtype
    assert float((covariance(half) - torch.eye(4)).abs().max()) < 0.02
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = whiten(z.float())
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, whiten(z.float()), rtol=0, atol=0)


# --- sub-batches ---


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [(12, 4, [4, 4, 4]), (14, 4, [5, 5, 4]), (7, 4, [7]), (3, 4, [3]), (4, 4, [4]), (9, 2, [3, 2, 2, 2])],
)
def test_sub_batches_take_the_rows_in_the_order_of_the_permutation(n: int, size: int, sizes: list[int]) -> None:
    z, permutation = of_rank(2, n=n, d=2), torch.randperm(n, generator=torch.Generator().manual_seed(n))
    white, start = whiten_parts(z, permutation, size=size), 0
    for rows in (permutation[start : (start := start + length)] for length in sizes):
        torch.testing.assert_close(white[rows], whiten(z[rows]), rtol=1e-10, atol=1e-12)
    assert start == n


def test_every_view_is_cut_alike_and_whitened_apart() -> None:
    views = torch.stack([of_rank(3, n=22, d=3, seed=seed) for seed in range(3)])
    permutation = torch.randperm(22)
    white = whiten_parts(views, permutation, size=8, eps=0.1)
    for view, found in zip(views, white, strict=True):
        torch.testing.assert_close(found, whiten_parts(view, permutation, size=8, eps=0.1))


def test_permutations_come_from_the_global_generator() -> None:
    z = of_rank(2)
    torch.manual_seed(3)
    drawn = draw_permutations(z, count=3)
    torch.manual_seed(3)
    assert torch.equal(drawn, draw_permutations(z, count=3))
    assert drawn.shape == (3, 40) and not torch.equal(drawn[0], drawn[1])
    assert all(torch.equal(row.sort().values, torch.arange(40)) for row in drawn)


def test_views_share_one_random_permutation() -> None:
    z1, z2 = of_rank(3, n=24, d=3), of_rank(3, n=24, d=3, seed=1)
    torch.manual_seed(5)
    found = whiten_views(z1, z2, size=8)
    torch.manual_seed(5)
    permutation = torch.randperm(24)
    for view, white in zip((z1, z2), found, strict=True):
        torch.testing.assert_close(white, whiten_parts(view, permutation, size=8))


def test_the_first_process_decides_how_all_cut_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    other = torch.stack([torch.arange(8), torch.arange(8).flip(0)])
    monkeypatch.setattr("bench.training.distributed.process_count", lambda: 2)
    monkeypatch.setattr("bench.training.distributed.gather", lambda local: torch.cat([other, local]))
    assert torch.equal(draw_permutations(of_rank(2, n=4), count=2), other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [50, 96])
def test_a_constant_dimension_is_zero_although_its_mean_is_rounded(dtype: torch.dtype, rows: int) -> None:
    z = torch.full((rows, 4), 0.1, dtype=dtype)
    assert not whiten(z).any()
    beside = of_rank(4, n=rows, d=4, dtype=dtype)
    beside[:, 0] = 0.1
    assert not whiten(beside)[:, 0].any()
    torch.testing.assert_close(whiten(beside)[:, 1:], whiten(beside[:, 1:]))
