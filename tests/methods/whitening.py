"""Whitening written as loops: the Cholesky factor entry by entry, and forward substitution for every vector."""

from __future__ import annotations

import torch
from torch import Tensor


def cholesky_whitened(v: Tensor) -> Tensor:
    """W_V (v - μ_V) for the rows of v (n, d), with the unbiased covariance (arXiv:2007.06346, section 3)."""
    n, d = v.shape
    centered = [row - sum(v) / n for row in v]
    sigma = [[sum(row[i] * row[j] for row in centered) / (n - 1) for j in range(d)] for i in range(d)]
    factor: list[list[Tensor]] = [[] for _ in range(d)]
    for i in range(d):
        for j in range(i + 1):
            left = sigma[i][j] - sum(factor[i][k] * factor[j][k] for k in range(j))
            factor[i].append(left**0.5 if i == j else left / factor[j][j])
    rows = []
    for row in centered:
        white: list[Tensor] = []
        for i in range(d):
            white.append((row[i] - sum(factor[i][k] * white[k] for k in range(i))) / factor[i][i])
        rows.append(torch.stack(white))
    return torch.stack(rows)


def sub_batches_whitened(v: Tensor, permutation: Tensor, size: int) -> Tensor:
    """Every ``size`` images in the order of the permutation are whitened together; n is a multiple of ``size``."""
    rows: list[Tensor | None] = [None] * len(v)
    for start in range(0, len(v), size):
        chosen = permutation[start : start + size].tolist()
        for index, row in zip(chosen, cholesky_whitened(v[chosen]), strict=True):
            rows[index] = row
    return torch.stack([row for row in rows if row is not None])


def distance(z1: Tensor, z2: Tensor) -> Tensor:
    """|| z1/||z1|| - z2/||z2|| ||², averaged over the images by a loop."""
    total = z1.new_zeros(())
    for a, b in zip(z1, z2, strict=True):
        difference = a / a.dot(a).sqrt() - b / b.dot(b).sqrt()
        total = total + difference.dot(difference)
    return total / len(z1)
