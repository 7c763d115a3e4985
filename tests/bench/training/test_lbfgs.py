"""Batched L-BFGS: the minima of known problems, each found as if it were alone."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import minimize as scipy_minimize
from torch import Tensor

from bench.training.lbfgs import minimize


class Quadratics:
    """½ (x - c)ᵀ diag(h) (x - c), with the number of evaluated points of each problem."""

    def __init__(self, curvatures: Tensor, centers: Tensor) -> None:
        self.h, self.c = curvatures, centers
        self.evaluated = torch.zeros(len(centers), dtype=torch.int64)

    def __call__(self, x: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        self.evaluated[problems] += 1
        off, h = x - self.c[problems], self.h[problems]
        return 0.5 * (h * off.square()).sum(dim=1).double(), h * off


def quadratics(count: int = 4, size: int = 6) -> Quadratics:
    generator = torch.Generator().manual_seed(0)
    curvatures = 10 ** (3 * torch.rand(count, size, generator=generator, dtype=torch.float64))
    return Quadratics(curvatures, torch.randn(count, size, generator=generator, dtype=torch.float64))


def test_quadratic_problems_end_at_their_centers() -> None:
    problem = quadratics()
    found = minimize(problem, torch.zeros(4, 6, dtype=torch.float64), tolerance=1e-9)
    torch.testing.assert_close(found.points, problem.c, rtol=0, atol=1e-9)
    assert bool(found.converged(1e-9).all()) and found.slopes.max() <= 1e-9


def test_each_problem_takes_the_path_that_it_takes_alone() -> None:
    problem = quadratics()
    together = minimize(problem, torch.zeros(4, 6, dtype=torch.float64), tolerance=1e-6)
    for k in range(4):
        own = Quadratics(problem.h[[k]], problem.c[[k]])
        alone = minimize(own, torch.zeros(1, 6, dtype=torch.float64), tolerance=1e-6)
        assert alone.iterations.item() == together.iterations[k].item()
        torch.testing.assert_close(alone.points[0], together.points[k], rtol=1e-12, atol=1e-12)


def test_a_problem_that_is_solved_is_not_evaluated_again() -> None:
    problem = quadratics(count=2)
    start = torch.zeros(2, 6, dtype=torch.float64)
    start[1] = problem.c[1]
    minimize(problem, start, tolerance=1e-6)
    assert problem.evaluated[1].item() == 1 < 5 < problem.evaluated[0].item()


def test_the_first_step_backs_off_from_a_cliff() -> None:
    def cliff(x: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        wide = x.double()
        return (wide.exp() - wide).sum(dim=1), (wide.exp() - 1).to(x.dtype)  # minimum at 0

    found = minimize(cliff, torch.tensor([[-30.0], [20.0]], dtype=torch.float64), tolerance=1e-8)
    torch.testing.assert_close(found.points, torch.zeros(2, 1, dtype=torch.float64), rtol=0, atol=1e-7)


def test_values_that_are_not_finite_are_stepped_back_from() -> None:
    def barrier(x: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        return (x - x.log()).sum(dim=1).double(), 1 - 1 / x  # NaN below 0, minimum at 1

    found = minimize(barrier, torch.tensor([[3.0], [0.01]], dtype=torch.float64), tolerance=1e-8)
    torch.testing.assert_close(found.points, torch.ones(2, 1, dtype=torch.float64), rtol=0, atol=1e-7)


def test_the_limit_of_iterations_is_kept_and_told() -> None:
    found = minimize(quadratics(), torch.zeros(4, 6, dtype=torch.float64), tolerance=1e-12, max_iterations=2)
    assert found.iterations.tolist() == [2, 2, 2, 2]
    assert not bool(found.converged(1e-12).any())


def test_the_rosenbrock_valley_is_followed_to_its_end_as_by_scipy() -> None:
    def valley(x: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x[:, 0], x[:, 1]
        value = (1 - a).square() + 100 * (b - a.square()).square()
        slope = torch.stack([-2 * (1 - a) - 400 * a * (b - a.square()), 200 * (b - a.square())], dim=1)
        return value.double(), slope

    start = torch.tensor([[-1.2, 1.0]], dtype=torch.float64)
    found = minimize(valley, start, tolerance=1e-9)

    def scalar(x: object) -> tuple[float, object]:
        value, slope = valley(torch.as_tensor(x)[None], torch.zeros(1, dtype=torch.int64))
        return value.item(), slope[0].numpy()

    reference = scipy_minimize(scalar, start[0].numpy(), jac=True, method="L-BFGS-B", options={"gtol": 1e-9})
    assert found.points[0].tolist() == pytest.approx(reference.x.tolist(), abs=1e-4)
    assert found.iterations.item() < 3 * reference.nit
