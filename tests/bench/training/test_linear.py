"""Batched linear classifiers: one of many equals one alone, and both equal the textbook."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from bench.errors import DivergenceError
from bench.training.linear import LinearCandidates, LinearTrainer, Standardizer, UpdateRule, fit_linear

GRID = [(0.01, 0.0), (0.1, 0.0), (0.1, 1e-2), (1.0, 1e-3)]


def blobs(n: int = 120, dim: int = 5, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % classes
    centers = 3 * torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    return centers[y] + torch.randn(n, dim, generator=generator, dtype=torch.float64), y


def fit(x: Tensor, y: Tensor, grid: list[tuple[float, float]], *, epochs: int = 20, seed: int = 0) -> LinearCandidates:
    lrs, weight_decays = torch.tensor(grid, dtype=torch.float64).T
    return fit_linear(
        x,
        y,
        num_classes=int(y.max()) + 1,
        lrs=lrs,
        weight_decays=weight_decays,
        epochs=epochs,
        batch_size=32,
        generator=torch.Generator().manual_seed(seed),
    )


def test_all_candidates_together_equal_each_candidate_alone() -> None:
    x, y = blobs()
    together = fit(x, y, GRID)
    for k, settings in enumerate(GRID):
        alone = fit(x, y, [settings])
        torch.testing.assert_close(together.weight[:, [k]], alone.weight, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(together.bias[[k]], alone.bias, rtol=1e-9, atol=1e-12)


def test_one_candidate_equals_torch_sgd_on_the_same_batches() -> None:
    x, y = blobs()
    lr, weight_decay, epochs, batch = 0.1, 1e-2, 4, 32
    layer = torch.nn.Linear(5, 3, dtype=torch.float64)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    groups = [{"params": [layer.weight], "weight_decay": weight_decay}, {"params": [layer.bias]}]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    generator, total = torch.Generator().manual_seed(0), epochs * (len(x) // batch)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for step in range(len(x) // batch):
            rows = order[step * batch : (step + 1) * batch]
            done = epoch * (len(x) // batch) + step
            for group in optimizer.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * done / total))
            loss = torch.nn.functional.cross_entropy(layer(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = fit(x, y, [(lr, weight_decay)], epochs=epochs)
    torch.testing.assert_close(found.weight[:, 0], layer.weight.T.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.bias[0], layer.bias.detach(), rtol=1e-9, atol=1e-12)


def test_separable_classes_are_separated() -> None:
    x, y = blobs()
    accuracies, _ = fit(x, y, GRID, epochs=50).validate(x, y)
    assert accuracies.max().item() == 100.0


def test_accuracy_on_digits_is_that_of_logistic_regression() -> None:
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels), torch.tensor(labels)
    train, held_out = slice(0, 1200), slice(1200, None)
    standardize = Standardizer.fit(x[train])
    candidates = fit(standardize(x[train]), y[train], [(0.1, 1e-3)], epochs=100)
    ours, _ = candidates.validate(standardize(x[held_out]), y[held_out])
    # sklearn minimizes C Σ loss + ||w||²/2, so weight decay λ on the mean loss is C = 1 / (λ N).
    reference = LogisticRegression(C=1 / (1e-3 * 1200), max_iter=2000)
    reference.fit(standardize(x[train]).numpy(), labels[train])
    theirs = 100 * reference.score(standardize(x[held_out]).numpy(), labels[held_out])
    assert ours.item() == pytest.approx(theirs, abs=0.7)


def test_weights_converge_to_the_minimum_of_logistic_regression() -> None:
    x, y = blobs(n=96)
    found = fit(x, y, [(0.3, 1e-1)], epochs=400)
    w = found.weight[:, 0].clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ w + found.bias[0], y) + 0.05 * w.square().sum()
    (gradient,) = torch.autograd.grad(loss, w)
    assert gradient.abs().max().item() < 1e-3


def test_the_seed_decides_the_order_of_the_batches() -> None:
    x, y = blobs()
    assert torch.equal(fit(x, y, GRID, seed=1).weight, fit(x, y, GRID, seed=1).weight)
    assert not torch.allclose(fit(x, y, GRID, seed=1).weight, fit(x, y, GRID, seed=2).weight)


def test_fewer_rows_than_a_batch_are_one_full_batch() -> None:
    x, y = blobs(n=9)
    accuracies, _ = fit(x, y, [(0.1, 0.0)], epochs=100).validate(x, y)
    assert accuracies.item() == 100.0


def with_logits(*logits: list[list[float]]) -> LinearCandidates:
    """Candidates whose logits on the unit vectors are the given rows, (K, n, C) as lists."""
    weight = torch.tensor(logits, dtype=torch.float64).transpose(0, 1)  # (n, K, C)
    return LinearCandidates(weight, torch.zeros(weight.shape[1:], dtype=torch.float64))


def test_validation_counts_hits_and_averages_the_cross_entropy() -> None:
    candidates = with_logits([[0.0, math.log(3.0)], [0.0, math.log(3.0)]])
    accuracies, losses = candidates.validate(torch.eye(2, dtype=torch.float64), torch.tensor([1, 0]))
    assert accuracies.tolist() == [50.0]
    assert losses.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_the_highest_top1_wins_then_the_lower_loss_then_the_earlier() -> None:
    x, y = torch.eye(2, dtype=torch.float64), torch.tensor([1, 0])
    wrong = [[0.0, 1.0], [0.0, 1.0]]
    unsure, sure = [[0.0, 1.0], [1.0, 0.0]], [[0.0, 5.0], [5.0, 0.0]]
    assert with_logits(wrong, unsure, sure).choose(x, y) == (2, [50.0, 100.0, 100.0])
    assert with_logits(sure, unsure, sure).choose(x, y)[0] == 0


def test_a_diverged_candidate_is_never_chosen_and_all_diverged_is_an_error() -> None:
    x, y = torch.eye(2, dtype=torch.float64), torch.tensor([1, 0])
    broken, fine = [[math.nan, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    assert with_logits(broken, fine).choose(x, y) == (1, [-1.0, 0.0])
    with pytest.raises(DivergenceError, match=r"All 2 linear candidates diverged.*smaller learning rates"):
        with_logits(broken, broken).choose(x, y)


def test_standardization_uses_the_training_statistics_and_silences_constant_features() -> None:
    x = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    standardize = Standardizer.fit(x)
    assert torch.equal(standardize(x), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    assert torch.equal(standardize(torch.tensor([[4.0, 9.0]])), torch.tensor([[2.0, 0.0]]))


def test_collapsed_features_standardize_to_zero() -> None:
    x = torch.full((4, 3), 2.5)
    assert torch.equal(Standardizer.fit(x)(x), torch.zeros(4, 3))


def test_selecting_a_candidate_keeps_its_probabilities() -> None:
    x, y = blobs()
    candidates = fit(x, y, GRID)
    every = candidates.log_probabilities(x)
    assert every.shape == (120, 4, 3)
    torch.testing.assert_close(candidates.select(2).log_probabilities(x)[:, 0], every[:, 2])
    torch.testing.assert_close(every.exp().sum(dim=2), torch.ones(120, 4, dtype=torch.float64))


def trainer(x: Tensor, rule: UpdateRule, grid: list[tuple[float, float]], first: Tensor | None = None) -> LinearTrainer:
    lrs, weight_decays = torch.tensor(grid, dtype=torch.float64).T
    return LinearTrainer(
        dim=x.shape[1], num_classes=3, lrs=lrs, weight_decays=weight_decays, like=x, rule=rule, first_weights=first
    )


def first_weights() -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay_bias", [False, True])
def test_every_rule_of_sgd_equals_torch_from_the_same_first_weights(nesterov: bool, decay_bias: bool) -> None:
    x, y = blobs()
    layer = torch.nn.Linear(5, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(first_weights().T)
        layer.bias.zero_()
    groups = [
        {"params": [layer.weight], "weight_decay": 0.05},
        {"params": [layer.bias], "weight_decay": 0.05 * decay_bias},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.2, momentum=0.8, nesterov=nesterov)
    rule = UpdateRule(momentum=0.8, nesterov=nesterov, decay_bias=decay_bias)
    ours = trainer(x, rule, [(0.01, 0.0), (0.2, 0.05)], first_weights())
    for start in range(0, 120, 30):
        xb, yb = x[start : start + 30], y[start : start + 30]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(xb), yb).backward()
        optimizer.step()
        ours.step(xb, yb, factor=1.0)
    torch.testing.assert_close(ours.candidates.weight[:, 1], layer.weight.T.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.candidates.bias[1], layer.bias.detach(), rtol=1e-9, atol=1e-12)


def test_a_lars_step_is_that_of_the_formula() -> None:
    x, y = blobs()
    grid = [(2.0, 0.0), (0.5, 0.1)]
    ours = trainer(x, UpdateRule(lars=True, momentum=0.9, eta=0.01), grid, first_weights())
    states = []
    for lr, decay in grid:
        w, b = first_weights(), torch.zeros(3, dtype=torch.float64)
        m_w, m_b = torch.zeros_like(w), torch.zeros_like(b)
        for factor in (1.0, 0.5, 0.25):
            g = (x @ w + b).softmax(dim=1)
            g[torch.arange(len(y)), y] -= 1
            g_w, g_b = x.T @ g / len(x), g.sum(dim=0) / len(x)
            m_w = 0.9 * m_w + 0.01 * w.norm() / (g_w.norm() + decay * w.norm()) * (g_w + decay * w)
            m_b = 0.9 * m_b + (0.01 * b.norm() / g_b.norm() if b.norm() > 0 else 1.0) * g_b
            w, b = w - lr * factor * m_w, b - lr * factor * m_b
        states.append((w, b))
    for factor in (1.0, 0.5, 0.25):
        ours.step(x, y, factor=factor)
    for k, (w, b) in enumerate(states):
        torch.testing.assert_close(ours.candidates.weight[:, k], w, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(ours.candidates.bias[k], b, rtol=1e-9, atol=1e-12)


def test_lars_without_weights_takes_a_plain_step() -> None:
    x, y = blobs()
    adapted, plain = (trainer(x, UpdateRule(lars=lars), [(0.3, 0.0)]) for lars in (True, False))
    for each in (adapted, plain):
        each.step(x, y, factor=1.0)
    torch.testing.assert_close(adapted.candidates.weight, plain.candidates.weight)
    assert adapted.candidates.weight.abs().max() > 0


def test_a_factor_of_the_caller_replaces_the_cosine() -> None:
    x, y = blobs()
    seen: list[tuple[int, int]] = []

    def none_after_the_first_step(step: int, per_epoch: int) -> float:
        seen.append((step, per_epoch))
        return 1.0 if step == 0 else 0.0

    lrs, weight_decays = torch.tensor([(0.1, 0.0)], dtype=torch.float64).T
    settings = {"num_classes": 3, "lrs": lrs, "weight_decays": weight_decays, "batch_size": 60}
    generator = torch.Generator().manual_seed(0)
    found = fit_linear(x, y, epochs=2, generator=generator, factor=none_after_the_first_step, **settings)  # type: ignore[arg-type]
    rows = torch.randperm(120, generator=torch.Generator().manual_seed(0))[:60]
    once = trainer(x, UpdateRule(), [(0.1, 0.0)])
    once.step(x[rows], y[rows], factor=1.0)
    torch.testing.assert_close(found.weight, once.candidates.weight)
    assert seen == [(0, 2), (1, 2), (2, 2), (3, 2)]
