"""Regularized linear classifiers at their optimum: the whole grid of L2 coefficients solved as one batched problem.

Both minimize the mean loss plus λ/2 ‖w‖², without a penalty on the bias; scikit-learn's C is 1 / (λ N).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from bench.training.lbfgs import Minima, minimize
from bench.training.linear import LinearCandidates

VALUES_PER_BLOCK = 2**24  # 64 MB of float32 logits
TOLERANCE = 1e-4
"""Largest entry of the gradient at the end, as scikit-learn's; features of deviation 1 are meant."""


def l2_grid(low: float, high: float, count: int) -> tuple[float, ...]:
    """``count`` values from ``low`` to ``high``, evenly spaced in the logarithm."""
    if count == 1:
        return (low,)
    return tuple(low * (high / low) ** (index / (count - 1)) for index in range(count))


@dataclass(frozen=True)
class _Softmax:
    """Cross entropy of K softmax regressions; a point is (D + 1, C) flattened, the bias last.

    Attributes:
        x: (N, D).
        y: (N,) classes.
        l2: (K,) float64.
        num_classes: C.
    """

    x: Tensor
    y: Tensor
    l2: Tensor
    num_classes: int

    def __call__(self, points: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        n, dim = self.x.shape
        count = len(points)
        theta = points.view(count, dim + 1, self.num_classes)
        w = theta[:, :dim].transpose(0, 1).flatten(1)  # (D, A·C)
        loss = self.l2.new_zeros(count)
        slope_w, slope_b = torch.zeros_like(w), torch.zeros_like(theta[:, dim])
        block = max(1, VALUES_PER_BLOCK // w.shape[1])
        for start in range(0, n, block):
            x, y = self.x[start : start + block], self.y[start : start + block, None, None].expand(-1, count, 1)
            z = (x @ w).view(-1, count, self.num_classes) + theta[:, dim]  # (B, A, C)
            top = z.amax(dim=2, keepdim=True)
            own = z.gather(2, y) - top
            p = z.sub_(top).exp_()
            total = p.sum(dim=2, keepdim=True)
            loss += (total.log() - own)[..., 0].sum(dim=0, dtype=torch.float64)
            p = p.div_(total).scatter_add_(2, y, -torch.ones_like(own))  # softmax minus one-hot
            slope_w += x.T @ p.flatten(1)
            slope_b += p.sum(dim=0)
        l2 = self.l2[problems]
        values = loss / n + 0.5 * l2 * theta[:, :dim].double().square().sum(dim=(1, 2))
        slopes = torch.cat([slope_w.view(dim, count, -1).transpose(0, 1), slope_b[:, None]], dim=1) / n
        slopes[:, :dim] += l2.to(slopes)[:, None, None] * theta[:, :dim]
        return values, slopes.flatten(1)


def fit_softmax(
    x: Tensor, y: Tensor, *, num_classes: int, l2: Tensor, max_iterations: int = 1000, tolerance: float = TOLERANCE
) -> tuple[LinearCandidates, Minima]:
    """Fit K softmax regressions to the optimum.

    Args:
        x: features (N, D), of mean 0 and deviation 1 for few iterations.
        y: labels (N,).
        num_classes: C.
        l2: (K,) coefficients λ.
        max_iterations: of L-BFGS.
        tolerance: largest entry of the gradient at the end.

    Returns:
        The classifiers, and where and how each ended.
    """
    dim = x.shape[1]
    objective = _Softmax(x, y, l2.to(x.device, torch.float64), num_classes)
    start = x.new_zeros(len(l2), (dim + 1) * num_classes)
    found = minimize(objective, start, tolerance=tolerance, max_iterations=max_iterations)
    theta = found.points.view(len(l2), dim + 1, num_classes)
    return LinearCandidates(theta[:, :dim].transpose(0, 1).contiguous(), theta[:, dim].contiguous()), found


@dataclass(frozen=True)
class FindingCandidates:
    """K logistic regressions for each of F findings.

    Attributes:
        weight: (D, K, F).
        bias: (K, F).
    """

    weight: Tensor
    bias: Tensor

    def logits(self, x: Tensor) -> Tensor:
        """Log-odds (N, K, F) of features x (N, D)."""
        return (x @ self.weight.flatten(1)).view(len(x), *self.bias.shape) + self.bias


@dataclass(frozen=True)
class _Logistic:
    """Binary cross entropy over the known entries of each finding; a point is (D + 1,), the bias last.

    Attributes:
        x: (N, D).
        target: (N, F) 1 or 0.
        known: (N, F) 1 where the target counts, else 0.
        count: (F,) known entries, at least 1.
        l2: (K,) float64; problem k·F + f is finding f under coefficient k.
    """

    x: Tensor
    target: Tensor
    known: Tensor
    count: Tensor
    l2: Tensor

    def __call__(self, points: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        n, dim = self.x.shape
        finding = problems % self.target.shape[1]
        w, b = points[:, :dim].T, points[:, dim]  # (D, A), (A,)
        loss = self.l2.new_zeros(len(points))
        slope_w, slope_b = torch.zeros_like(w), torch.zeros_like(b)
        block = max(1, VALUES_PER_BLOCK // max(1, len(points)))
        for start in range(0, n, block):
            rows = slice(start, start + block)
            t, known = self.target[rows][:, finding], self.known[rows][:, finding]  # (B, A)
            z = self.x[rows] @ w + b
            loss += ((softplus(z) - t * z) * known).sum(dim=0, dtype=torch.float64)
            residual = (z.sigmoid() - t) * known
            slope_w += self.x[rows].T @ residual
            slope_b += residual.sum(dim=0)
        count, l2 = self.count[finding], self.l2[problems // self.target.shape[1]]
        values = loss / count + 0.5 * l2 * w.double().square().sum(dim=0)
        slopes = torch.cat([slope_w / count.to(w) + l2.to(w) * w, (slope_b / count.to(w))[None]])
        return values, slopes.T.contiguous()


def fit_findings(
    x: Tensor,
    labels: Tensor,
    *,
    l2: Tensor,
    max_iterations: int = 1000,
    tolerance: float = TOLERANCE,
) -> tuple[FindingCandidates, Minima]:
    """Fit a logistic regression for each finding and L2 coefficient to the optimum.

    Args:
        x: features (N, D), of mean 0 and deviation 1 for few iterations.
        labels: (N, F) 1 present, 0 absent; any other value does not count. A finding without any label that counts
            keeps zero weights.
        l2: (K,) coefficients λ.
        max_iterations: of L-BFGS.
        tolerance: largest entry of the gradient at the end.

    Returns:
        The classifiers, and where each problem k·F + f ended.
    """
    dim, findings = x.shape[1], labels.shape[1]
    known = ((labels == 0) | (labels == 1)).to(x)
    objective = _Logistic(
        x=x,
        target=(labels == 1).to(x),
        known=known,
        count=known.sum(dim=0, dtype=torch.float64).clamp(min=1),
        l2=l2.to(x.device, torch.float64),
    )
    start = x.new_zeros(len(l2) * findings, dim + 1)
    found = minimize(objective, start, tolerance=tolerance, max_iterations=max_iterations)
    theta = found.points.view(len(l2), findings, dim + 1)
    return FindingCandidates(theta[..., :dim].permute(2, 0, 1).contiguous(), theta[..., dim].contiguous()), found
