"""Whitening of embeddings: zero mean and the identity as covariance (W-MSE, arXiv:2007.06346, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.errors import SpecError
from bench.training.distributed import draw_permutations, gather, own_rows

RANK_TOLERANCE = 1e-10
"""A dimension of which those before it leave less than this share of the variance adds nothing to the rank: what is
left, 1e-5 of its standard deviation, is rounding in float32. Scaled up to 1 it would multiply gradients by millions."""

ROUNDING = 8
"""A dimension is constant when its standard deviation is within as many roundings of its mean, in the input's type."""


def whiten(z: Tensor, *, eps: float = 0.0) -> Tensor:
    """W (z - mean), with W = L⁻¹ and L Lᵀ = (1 - eps) Σ + eps I, the Cholesky factorization of the covariance.

    Σ is the unbiased covariance over the n vectors. Computed in float64: in float32 features that nearly lie in a
    subspace do not factorize, and an ε large enough to let them pass does not whiten. Vectors of rank r < d, such as
    any n <= d vectors, cannot be white in d dimensions: they become white in r of them, the first that are independent,
    and are 0, without a gradient, in the rest.

    Args:
        z: (…, n, d); each (n, d) is whitened by its own statistics.
        eps: ε, shrinkage towards the identity; 0 in the authors' code.

    Returns:
        (…, n, d) in the type of ``z``. Not finite where ``z`` is not.
    """
    n, d = z.shape[-2:]
    with torch.autocast(z.device.type, enabled=False):
        mean = z.double().mean(dim=-2, keepdim=True)  # (…, 1, d)
        centered = z.double() - mean  # (…, n, d)
        least = ROUNDING * torch.finfo(z.dtype).eps * mean.detach().abs()  # (…, 1, d)
        constant = centered.detach().square().mean(dim=-2, keepdim=True) <= least.square()  # (…, 1, d)
        centered = centered * ~constant  # a product, so that NaN stays NaN
        identity = torch.eye(d, dtype=torch.float64, device=z.device)  # (d, d)
        covariance = (1 - eps) * (centered.mT @ centered) / max(n - 1, 1) + eps * identity  # (…, d, d)
        root, independent = _cholesky(covariance, identity)  # (…, d, d), (…, d)
        centered = centered * independent[..., None, :]  # (…, n, d); a product, so that NaN stays NaN
        white = torch.linalg.solve_triangular(root, centered.mT, upper=False).mT  # (…, n, d)
        embeddings: Tensor = white.to(z.dtype)
    return embeddings


def whiten_parts(z: Tensor, permutation: Tensor, *, size: int, eps: float = 0.0) -> Tensor:
    """Whiten sub-batches, each by its own statistics (W-MSE's batch slicing, section 3.1).

    Args:
        z: (…, n, d), for example the embeddings of all views, (V, n, d).
        permutation: (n,), the order in which the rows are dealt to the sub-batches: row i of every view to the same.
        size: rows of a sub-batch. There are n // ``size`` of them, and rows that are left over join the first, one
            each: none has fewer than ``size``, unless the batch has. That one is whitened as a whole.
        eps: as in :func:`whiten`.

    Returns:
        (…, n, d), the rows in the order of ``z``.
    """
    n = z.shape[-2]
    parts = max(1, n // size)
    rows, longer = divmod(n, parts)
    dealt = z[..., permutation, :]  # (…, n, d)
    blocks = ((dealt[..., : longer * (rows + 1), :], rows + 1), (dealt[..., longer * (rows + 1) :, :], rows))
    white = [
        whiten(block.reshape(*z.shape[:-2], -1, length, z.shape[-1]), eps=eps).flatten(-3, -2)  # one length at once
        for block, length in blocks
        if block.shape[-2]
    ]
    return torch.cat(white, dim=-2)[..., permutation.argsort(), :]


def whiten_views(*views: Tensor, size: int, eps: float = 0.0) -> tuple[Tensor, ...]:
    """Whiten each view's embeddings (B, D) on common random sub-batches of the batch of all processes.

    Args:
        views: (B, D) each, this process's rows.
        size, eps: as in :func:`whiten_parts`.

    Returns:
        (B, D) each, this process's rows.
    """
    (permutation,) = draw_permutations(views[0], count=1)
    whole = torch.stack([gather(z) for z in views])  # (V, W B, D)
    return tuple(own_rows(z) for z in whiten_parts(whole, permutation, size=size, eps=eps))


def check_whitening(method: str, *, width: int, sub_batch: int, eps: float) -> None:
    """Refuse settings under which embeddings cannot become white.

    Raises:
        SpecError: a sub-batch has no more images than the embedding dimensions, or ``eps`` is no share.
    """
    if sub_batch <= width:
        raise SpecError(
            f"{method}: sub_batch must be larger than the embedding's width {width}, or not all of its dimensions can "
            f"be whitened; got {sub_batch}. The authors take twice the width."
        )
    if not 0 <= eps <= 1:
        raise SpecError(f"{method}: eps must lie in [0, 1], got {eps}. The authors use 0.")


def _cholesky(covariance: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
    """The lower factor of each covariance, with those of the identity for dimensions that depend on earlier ones.

    Returns:
        The factors (…, d, d), and which dimensions are independent, (…, d).
    """
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(covariance)
    left = root.detach().diagonal(dim1=-2, dim2=-1).square()  # (…, d)
    independent = left > RANK_TOLERANCE * covariance.detach().diagonal(dim1=-2, dim2=-1)  # (…, d)
    if bool(failed.any() | ~independent.all()):  # one wait for the device
        independent = _independent(covariance.detach())
        both = independent[..., :, None] & independent[..., None, :]  # (…, d, d)
        root, _ = torch.linalg.cholesky_ex(torch.where(both, covariance, identity))
    return root, independent


def _independent(covariance: Tensor) -> Tensor:
    """Which dimensions have variance of their own beside the independent ones before them, (…, d, d) to (…, d)."""
    variances, left = covariance.diagonal(dim1=-2, dim2=-1), covariance  # (…, d), (…, d, d)
    found = []
    for k in range(covariance.shape[-1]):
        own = left[..., k, k] > RANK_TOLERANCE * variances[..., k]  # (…)
        column = torch.where(own[..., None], left[..., k] / left[..., k, k, None].sqrt(), 0.0)  # (…, d)
        left = left - column[..., :, None] * column[..., None, :]
        found.append(own)
    return torch.stack(found, dim=-1)
