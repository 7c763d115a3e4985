"""Collapse diagnostics: how far vectors spread, how many dimensions they fill, how close positive pairs are.

Everything is computed in float64 on the device of the input, without a gradient, and decompositions on the smaller
side: the cost of N vectors of D dimensions is that of a symmetric matrix of size min(N, D). N bounds every rank and
pulls it down well before it does, so nothing here means much without it: print it beside each value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

RANKME_EPS = 1e-7
PAIRS_PER_BLOCK = 2**24  # 128 MB of distances in float64
ROUNDING = 8
"""Vectors that differ by less than this many roundings of their own type count as equal."""


def direction_std(x: Tensor) -> float:
    """Spread of the directions: sqrt(D) times the mean over dimensions of the std of the l2-normalized vectors.

    1 when they cover the sphere evenly, 0 when all point the same way. It does not see dimensional collapse: vectors of
    rank r in general position, that is rotated, reach 1 as well.

    Args:
        x: (N, D).

    Source: Chen and He, SimSiam, arXiv:2011.10566, section 4.1.
    """
    u = _directions(x)  # (N, D)
    return float(u.std(dim=0, correction=0).mean()) * math.sqrt(x.shape[1])


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """How many dimensions N vectors fill, by three measures that agree only for even spectra.

    Attributes:
        n, d: vectors and dimensions behind the values; N <= D caps every value at N.
        rankme: as published, uncentered: it counts the mean direction as one more dimension, and a large mean hides
            the others. A constant gives 1, and so does a constant plus little noise.
        rankme_centered: of the vectors less their mean: the dimensions in which they vary. A constant gives 0.
        participation_ratio: of the covariance, see :func:`participation_ratio`. A constant gives 0.
    """

    n: int
    d: int
    rankme: float
    rankme_centered: float
    participation_ratio: float

    @classmethod
    def of(cls, x: Tensor) -> Ranks:
        """The ranks of vectors x (N, D)."""
        plain, centered = (singular_values(x, centered=centered) for centered in (False, True))
        return cls(
            n=x.shape[0],
            d=x.shape[1],
            rankme=rankme(plain),
            rankme_centered=rankme(centered),
            participation_ratio=participation_ratio(centered.square()),
        )

    def __str__(self) -> str:
        return (
            f"RankMe {self.rankme:.1f}, centered {self.rankme_centered:.1f}, participation ratio "
            f"{self.participation_ratio:.1f} of {self.d} dimensions (N = {self.n})"
        )


def rankme(sigma: Tensor) -> float:
    """RankMe, exp(-Σ p_k log p_k) with p_k = σ_k / Σ σ + ε, ε = 1e-7 added after the division; 0 for zero vectors.

    Args:
        sigma: (min(N, D),) singular values of the vectors, as :func:`singular_values` returns them.

    Source: Garrido et al., RankMe, arXiv:2210.02885, equation 1.
    """
    total = sigma.sum()
    if total == 0:
        return 0.0
    p = sigma / total + RANKME_EPS
    return float(torch.exp(-(p * p.log()).sum()))


def singular_values(x: Tensor, *, centered: bool) -> Tensor:
    """Singular values (min(N, D),) float64 of vectors x (N, D), or of the vectors less their mean; largest first."""
    values: Tensor = _gram_eigenvalues(_centered(x) if centered else x.detach().double()).sqrt()
    return values


def covariance_spectrum(x: Tensor, *, directions: bool = True) -> Tensor:
    """Eigenvalues of the covariance, largest first; those of dimensional collapse fall to zero.

    Args:
        x: (N, D).
        directions: of the l2-normalized vectors, as published; else of the vectors as they are.

    Returns:
        (min(N, D),) float64. With N <= D the remaining D - N are zero, and one of these is too.

    Source: Jing et al., DirectCLR, arXiv:2110.09348, section 3 (their figures show the logarithm).
    """
    deviations = _centered(_directions(x), kind=x.dtype) if directions else _centered(x)
    return _gram_eigenvalues(deviations) / max(1, len(x) - 1)


def participation_ratio(spectrum: Tensor) -> float:
    """(Σ λ)² / Σ λ² of covariance eigenvalues: how many dimensions share the variance; 0 where there is none.

    D for an even spectrum, r when r equal eigenvalues are left. Finite N pulls it down: to D / (1 + D/N) for an
    isotropic Gaussian. A common factor cancels.

    Args:
        spectrum: (K,) eigenvalues, as :func:`covariance_spectrum` returns them.
    """
    largest = spectrum.max()
    if largest <= 0:
        return 0.0
    shares = spectrum / largest  # squares of small eigenvalues underflow
    return float(shares.sum() ** 2 / shares.square().sum())


def pair_distances(x: Tensor, y: Tensor, *, alpha: float = 2.0) -> Tensor:
    """‖u - v‖^α of l2-normalized positive pairs, (N,) float64: its mean is the alignment, 0 for equal directions.

    Args:
        x, y: (N, D), row i of both from one image.
        alpha: exponent.

    Source: Wang and Isola, arXiv:2005.10242, section 4.
    """
    distances: Tensor = torch.linalg.vector_norm(_directions(x) - _directions(y), dim=1)  # (N,)
    return distances.pow(alpha)


def uniformity(x: Tensor, *, t: float = 2.0) -> float:
    """log of the mean over pairs i < j of exp(-t ‖u_i - u_j‖²), u the l2-normalized vectors.

    0 for a constant, -4 + 8/D to first order for an isotropic Gaussian and t = 2; the best is near -4, not minus
    infinity. A vector is never paired with itself.

    Args:
        x: (N, D) with N >= 2; pairs are taken in blocks.
        t: temperature.

    Source: Wang and Isola, arXiv:2005.10242, section 4.
    """
    n = len(x)
    if n < 2:
        return math.nan
    u = _directions(x)
    squares = u.square().sum(dim=1)  # (N,): 1, or 0 for a zero vector
    rows = max(1, PAIRS_PER_BLOCK // n)
    parts = []
    for start in range(0, n, rows):
        block = u[start : start + rows]
        distances = squares[start : start + rows, None] + squares[start:] - 2 * block @ u[start:].T
        exponents = distances.clamp_(min=0).mul_(-t)
        later = torch.ones_like(exponents, dtype=torch.bool).triu_(diagonal=1)  # j > i
        parts.append(exponents.masked_fill_(~later, -torch.inf).flatten().logsumexp(dim=0))
    return min(0.0, float(torch.stack(parts).logsumexp(dim=0)) - math.log(n * (n - 1) / 2))


def _directions(x: Tensor) -> Tensor:
    return normalize(x.detach().double(), dim=1, eps=1e-150)  # the default takes short vectors for zero vectors


def _centered(x: Tensor, *, kind: torch.dtype | None = None) -> Tensor:
    """The vectors less their mean, in float64; exactly zero where they differ by the rounding of ``kind`` alone."""
    wide = x.detach().double()
    deviations = wide - wide.mean(dim=0)
    rounding = ROUNDING * torch.finfo(kind or x.dtype).eps
    return torch.zeros_like(deviations) if deviations.norm() <= rounding * wide.norm() else deviations


def _gram_eigenvalues(x: Tensor) -> Tensor:
    """Squared singular values of x (N, D), (min(N, D),), largest first; zero where rounding could have made them."""
    n, d = x.shape
    largest = x.abs().max() if x.numel() else x.new_zeros(())
    if largest == 0:
        return x.new_zeros(min(n, d))
    scaled = x / largest  # the products of small vectors would underflow
    gram = scaled.T @ scaled if d <= n else scaled @ scaled.T
    values = torch.linalg.eigvalsh(gram).flip(0)
    noise = max(n, d) * torch.finfo(torch.float64).eps * values[0]
    real: Tensor = values.where(values > noise, 0.0)
    return real * largest.square()
