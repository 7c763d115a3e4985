"""Regularized regressions at their optimum: against scipy, scikit-learn and the definition of the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipy_minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from bench.training import regression
from bench.training.linear import Standardizer
from bench.training.regression import fit_findings, fit_softmax, l2_grid


def blobs(n: int = 90, dim: int = 4, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % classes
    centers = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    return centers[y] + torch.randn(n, dim, generator=generator, dtype=torch.float64), y


def findings(n: int = 120, dim: int = 4, count: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    odds = x @ torch.randn(dim, count, generator=generator, dtype=torch.float64)
    labels = (torch.rand(n, count, generator=generator, dtype=torch.float64) < odds.sigmoid()).long()
    labels[torch.rand(n, count, generator=generator) < 0.1] = -1
    labels[torch.rand(n, count, generator=generator) < 0.1] = -2
    return x, labels


def test_the_grid_is_even_in_the_logarithm_and_keeps_its_ends() -> None:
    grid = l2_grid(1e-6, 1e5, 45)
    assert len(grid) == 45 and (grid[0], grid[-1]) == pytest.approx((1e-6, 1e5))
    ratios = np.diff(np.log10(grid))
    np.testing.assert_allclose(ratios, 11 / 44)
    assert l2_grid(0.1, 10.0, 1) == (0.1,)


def test_softmax_regression_ends_where_scipy_ends() -> None:
    x, y = blobs()
    l2 = torch.tensor([1e-2, 1.0], dtype=torch.float64)
    found, ends = fit_softmax(x, y, num_classes=3, l2=l2, tolerance=1e-9)
    for k, value in enumerate(l2.tolist()):

        def loss(flat: np.ndarray[tuple[int], np.dtype[np.float64]], value: float = value) -> tuple[float, object]:
            theta = torch.tensor(flat.reshape(5, 3), requires_grad=True)
            total = cross_entropy(x @ theta[:4] + theta[4], y) + 0.5 * value * theta[:4].square().sum()
            (slope,) = torch.autograd.grad(total, theta)
            return total.item(), slope.numpy().ravel()

        reference = scipy_minimize(loss, np.zeros(15), jac=True, method="BFGS", options={"gtol": 1e-9})
        assert ends.values[k].item() == pytest.approx(reference.fun, rel=1e-12)
        np.testing.assert_allclose(found.weight[:, k], reference.x.reshape(5, 3)[:4], atol=1e-6)


def test_blocks_of_rows_do_not_change_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs()
    _, labels = findings(n=90)
    l2 = torch.tensor([1e-2, 1.0], dtype=torch.float64)
    whole, _ = fit_softmax(x, y, num_classes=3, l2=l2, tolerance=1e-9)
    whole_findings, _ = fit_findings(x, labels, l2=l2, tolerance=1e-9)
    monkeypatch.setattr(regression, "VALUES_PER_BLOCK", 50)
    blocks, _ = fit_softmax(x, y, num_classes=3, l2=l2, tolerance=1e-9)
    torch.testing.assert_close(blocks.weight, whole.weight, rtol=0, atol=1e-8)
    block_findings, _ = fit_findings(x, labels, l2=l2, tolerance=1e-9)
    torch.testing.assert_close(block_findings.weight, whole_findings.weight, rtol=0, atol=1e-7)


def test_the_whole_grid_on_digits_is_as_accurate_as_scikit_learn_on_the_same_features() -> None:
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32), torch.tensor(labels)
    train, held_out = slice(0, 1200), slice(1200, None)
    standardize = Standardizer.fit(x[train])
    a, b = standardize(x[train]), standardize(x[held_out])
    l2 = (1e-4, 1e-3, 1e-2, 1e-1)
    found, ends = fit_softmax(a, y[train], num_classes=10, l2=torch.tensor(l2, dtype=torch.float64))
    assert bool(ends.converged(regression.TOLERANCE).all())
    ours = found.validate(b, y[held_out])[0].tolist()
    for accuracy, value in zip(ours, l2, strict=True):
        reference = LogisticRegression(C=1 / (value * 1200), max_iter=3000).fit(a.numpy(), labels[train])
        assert accuracy == pytest.approx(100 * reference.score(b.numpy(), labels[held_out]), abs=0.35)  # two images


def test_every_finding_ends_where_it_ends_alone_on_its_known_labels() -> None:
    x, labels = findings()
    l2 = torch.tensor([1e-2, 1.0], dtype=torch.float64)
    found, ends = fit_findings(x, labels, l2=l2, tolerance=1e-9)
    for k, value in enumerate(l2.tolist()):
        for f in range(3):
            known = labels[:, f] >= 0
            count = int(known.sum())
            reference = LogisticRegression(C=1 / (value * count), tol=1e-10, max_iter=5000)
            reference.fit(x[known].numpy(), labels[known, f].numpy())
            np.testing.assert_allclose(found.weight[:, k, f], reference.coef_[0], atol=1e-6)
            np.testing.assert_allclose(found.bias[k, f], reference.intercept_[0], atol=1e-6)
            z, t = found.logits(x)[known, k, f], labels[known, f].double()
            loss = binary_cross_entropy_with_logits(z, t) + 0.5 * value * found.weight[:, k, f].square().sum()
            assert ends.values[3 * k + f].item() == pytest.approx(loss.item(), rel=1e-12)


def test_a_finding_without_known_labels_keeps_zero_weights() -> None:
    x, labels = findings()
    labels[:, 1] = -1
    found, ends = fit_findings(x, labels, l2=torch.tensor([1e-2], dtype=torch.float64))
    assert torch.equal(found.weight[:, 0, 1], torch.zeros(4, dtype=torch.float64)) and found.bias[0, 1] == 0
    assert found.weight[:, 0, 0].abs().max() > 0.1 and ends.iterations[1] == 0
