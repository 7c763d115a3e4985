"""Whitening of embeddings: zero mean and the identity as covariance (W-MSE, arXiv:2007.06346, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

JITTERS = (1e-12, 1e-10, 1e-8, 1e-6, 1e-4)
"""Added to the diagonal of a covariance without full rank, as shares of its mean variance, until it factorizes."""

FLOOR = 1e-12
"""Added with the jitter: the mean variance of equal vectors is 0."""


def whiten(z: Tensor, *, eps: float = 0.0) -> Tensor:
    """W (z - mean), with W = L⁻¹ and L Lᵀ = (1 - eps) Σ + eps I, the Cholesky factorization of the covariance.

    Σ is the unbiased covariance over the n vectors. Computed in float64: in float32 features that nearly lie in a
    subspace do not factorize, and an ε large enough to let them pass does not whiten. Vectors that lie in a subspace
    exactly are white within it and 0 outside.

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
        root = _cholesky(covariance, identity)  # (…, d, d)
        white = torch.linalg.solve_triangular(root, centered.mT, upper=False).mT  # (…, n, d)
        embeddings: Tensor = white.to(z.dtype)
    return embeddings


def _cholesky(covariance: Tensor, identity: Tensor) -> Tensor:
    """The lower factor of each covariance; a singular one gets the smallest jitter with which it factorizes."""
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(covariance)
    variance = covariance.detach().diagonal(dim1=-2, dim2=-1).mean(dim=-1)  # (…)
    for share in JITTERS:
        if not failed.any():  # one wait for the device
            break
        jitter = torch.where(failed > 0, share * variance + FLOOR, 0.0)  # (…)
        root, failed = torch.linalg.cholesky_ex(covariance + jitter[..., None, None] * identity)
    return root
