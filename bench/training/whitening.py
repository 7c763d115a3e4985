"""Whitening of embeddings: zero mean and the identity as covariance (W-MSE, arXiv:2007.06346, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.training.distributed import gather, own_rows, process_count

RANK_TOLERANCE = 1e-10
"""A dimension of which those before it leave less than this share of the variance adds nothing to the rank: what is
left, 1e-5 of its standard deviation, is rounding in float32. Scaled up to 1 it would multiply gradients by millions."""


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
        centered = z.double() - z.double().mean(dim=-2, keepdim=True)  # (…, n, d)
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


def draw_permutations(z: Tensor, *, count: int) -> Tensor:
    """Random orders of the batch of all processes, (count, W B), from torch's global generator on the CPU.

    Every process draws and the first one's draw counts, so that all cut the batch alike.

    Args:
        z: (B, …), this process's rows.
        count: how many.
    """
    drawn = torch.stack([torch.randperm(process_count() * len(z)) for _ in range(count)])  # (count, W B)
    return gather(drawn.to(z.device))[:count]


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
