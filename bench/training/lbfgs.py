"""L-BFGS for many problems at once: every step is one batched operation, and a problem that has converged drops out.

Limited-memory BFGS with the two-loop recursion and backtracking by quadratic interpolation until the decrease is
sufficient (Armijo). For convex problems, which the linear probes are. Nothing passes from one problem to another.

Source: Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 7.5, section 3.5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From points (A, P) and the numbers (A,) of their problems to the values (A,) float64 and the gradients (A, P)."""

SUFFICIENT = 1e-4  # share of the linear decrease that a step has to reach
BACKTRACKS = 25
ROUNDING = 8
"""A rise by less than this many roundings of the points' type counts as none: values are sums of rounded terms."""


@dataclass(frozen=True, kw_only=True)
class Minima:
    """Where K problems ended.

    Attributes:
        points: (K, P).
        values: (K,) float64.
        slopes: (K,) largest absolute entry of the gradient.
        iterations: (K,) int64.
    """

    points: Tensor
    values: Tensor
    slopes: Tensor
    iterations: Tensor

    def converged(self, tolerance: float) -> Tensor:
        """(K,) bool: the gradient is within the tolerance."""
        return self.slopes <= tolerance


@dataclass(frozen=True)
class _Pair:
    """A step s and the change y of the gradient along it, (A, P); ρ = 1 / s·y, (A, 1), 0 where it teaches nothing."""

    s: Tensor
    y: Tensor
    rho: Tensor


@torch.no_grad()
def minimize(
    objective: Objective, start: Tensor, *, tolerance: float, max_iterations: int = 1000, history: int = 10
) -> Minima:
    """Minimize K convex functions of P variables.

    Args:
        objective: values and gradients of some of the problems.
        start: (K, P).
        tolerance: a problem is done when no entry of its gradient is larger.
        max_iterations: of each problem; one that is not done by then keeps its last point.
        history: pairs of steps and gradient changes that describe the curvature.
    """
    points = start.clone()
    active = torch.arange(len(start), device=start.device)  # numbers of the problems at work
    values, gradients = objective(points, active)
    slopes = gradients.abs().amax(dim=1)
    iterations = torch.zeros_like(active)
    x, f, g = points.clone(), values.clone(), gradients
    pairs: deque[_Pair] = deque(maxlen=history)
    stuck = torch.zeros_like(active, dtype=torch.bool)
    for _ in range(max_iterations):
        working = (g.abs().amax(dim=1) > tolerance) & ~stuck
        if not bool(working.all()):
            active, x, f, g = active[working], x[working], f[working], g[working]
            pairs = deque((_Pair(p.s[working], p.y[working], p.rho[working]) for p in pairs), maxlen=history)
        if not len(active):
            break
        direction = _direction(g, pairs)
        new_x, new_f, new_g, stuck = _search(objective, active, x, f, g, direction, first=not pairs)
        pairs.append(_pair(new_x - x, new_g - g))
        x, f, g = new_x, new_f, new_g
        points[active], values[active], slopes[active] = x, f, g.abs().amax(dim=1)
        iterations[active] += 1
    return Minima(points=points, values=values, slopes=slopes, iterations=iterations)


def _pair(s: Tensor, y: Tensor) -> _Pair:
    curvature = _dot(s, y)
    teaches = curvature > torch.finfo(s.dtype).eps * _dot(y, y)
    return _Pair(s, y, torch.where(teaches, 1 / curvature, 0.0))


def _direction(g: Tensor, pairs: deque[_Pair]) -> Tensor:
    """Minus the approximate inverse Hessian times the gradient, (A, P), by the two-loop recursion."""
    q = g.clone()
    weights = []
    for pair in reversed(pairs):
        weight = pair.rho * _dot(pair.s, q)
        q -= weight * pair.y
        weights.append(weight)
    if pairs:
        last = pairs[-1]
        q *= torch.where(last.rho > 0, 1 / (last.rho * _dot(last.y, last.y)), 1.0)
    for pair, weight in zip(pairs, reversed(weights), strict=True):
        q += (weight - pair.rho * _dot(pair.y, q)) * pair.s
    return -q


def _search(
    objective: Objective, active: Tensor, x: Tensor, f: Tensor, g: Tensor, direction: Tensor, *, first: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The next point of every problem with its value and gradient, and which problems found no decrease (they stay)."""
    slope = _dot(g, direction)[:, 0].double()  # (A,)
    uphill = slope >= 0  # rounding
    direction = torch.where(uphill[:, None], -g, direction)
    slope = torch.where(uphill, -_dot(g, g)[:, 0].double(), slope)
    step = torch.ones_like(slope)
    if first:
        step = (1 / g.abs().sum(dim=1).double()).clamp(max=1.0)
    slack = ROUNDING * torch.finfo(x.dtype).eps * f.abs()
    new_x, new_f, new_g = x.clone(), f.clone(), g.clone()
    open_ = torch.arange(len(active), device=x.device)
    for _ in range(BACKTRACKS):
        trial = x[open_] + step[open_, None].to(x.dtype) * direction[open_]
        value, gradient = objective(trial, active[open_])
        bound = f[open_] + SUFFICIENT * step[open_] * slope[open_] + slack[open_]
        enough = value <= bound  # False for NaN
        done = open_[enough]
        new_x[done], new_f[done], new_g[done] = trial[enough], value[enough], gradient[enough]
        open_, value = open_[~enough], value[~enough]
        if not len(open_):
            break
        t = step[open_]
        parabola = -slope[open_] * t**2 / (2 * (value - f[open_] - slope[open_] * t))
        step[open_] = torch.where(parabola.isfinite(), parabola, 0.0).clamp(0.1 * t, 0.5 * t)
    stuck = torch.zeros_like(uphill)
    stuck[open_] = True
    return new_x, new_f, new_g, stuck


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Row by row, (A, 1)."""
    return (a * b).sum(dim=1, keepdim=True)
