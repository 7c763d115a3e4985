"""Barlow Twins against Eq. 1 and 2 of arXiv:2103.03230, written as loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from bench.spec import TrainingSpec
from bench.training.optimizers import build_optimizer
from methods.barlow_twins import BarlowTwins, cross_correlation_loss

from .embeddings import SHAPES_AND_SCALES, assert_same_value_and_gradients, correlated
from .networks import Recorder, two_views


def equation_2(z1: Tensor, z2: Tensor, *, eps: float) -> list[list[Tensor]]:
    """The cross-correlation matrix, one entry at a time; ε joins the mean of the squares."""
    n, d = z1.shape
    a, b = ([column - sum(column) / n for column in z.T] for z in (z1, z2))
    root_a, root_b = ([(column.dot(column) + n * eps) ** 0.5 for column in columns] for columns in (a, b))
    return [[a[i].dot(b[j]) / (root_a[i] * root_b[j]) for j in range(d)] for i in range(d)]


def equation_1(z1: Tensor, z2: Tensor, *, lambd: float = 0.0051, eps: float = 1e-5) -> Tensor:
    c = equation_2(z1, z2, eps=eps)
    total = z1.new_zeros(())
    for i, row in enumerate(c):
        for j, entry in enumerate(row):
            total = total + ((1 - entry) ** 2 if i == j else lambd * entry**2)
    return total


def loss(z1: Tensor, z2: Tensor, *, lambd: float = 0.0051, **settings: float | str) -> Tensor:
    terms = cross_correlation_loss(z1, z2, lambd=lambd, **settings)
    assert list(terms) == ["invariance", "redundancy"]
    return sum(terms.values(), start=z1.new_zeros(()))


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
@pytest.mark.parametrize("reduction", ["correct", "paper_exact"])
def test_loss_and_both_gradients_are_those_of_the_paper(batch: int, dim: int, scale: float, reduction: str) -> None:
    assert_same_value_and_gradients(
        lambda z1, z2: loss(z1, z2, reduction=reduction), equation_1, correlated(2, batch, dim, scale)
    )


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_without_eps_it_is_equation_2_as_printed_whatever_the_scale(scale: float) -> None:
    assert_same_value_and_gradients(
        lambda z1, z2: loss(z1, z2, lambd=5e-3, eps=0.0),
        lambda z1, z2: equation_1(z1, z2, lambd=5e-3, eps=0.0),
        correlated(2, 9, 4, scale),
    )
    z1, z2 = correlated(2, 9, 4, scale)
    torch.testing.assert_close(loss(z1, z2, eps=0.0), loss(z1 / scale, z2 / scale, eps=0.0))


def test_four_images_in_two_dimensions_worked_by_hand() -> None:
    z1 = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    z2 = torch.stack([3 * z1[:, 0] + 5, z1[:, 0]], dim=1)  # C = [[1, 1], [0, 0]]
    terms = {name: term.item() for name, term in cross_correlation_loss(z1, z2, lambd=0.25, eps=0.0).items()}
    assert terms == pytest.approx({"invariance": 1.0, "redundancy": 0.25}, abs=1e-14)


def test_the_invariance_pushes_the_diagonal_to_one_and_the_redundancy_the_rest_to_zero() -> None:
    z = torch.randn(64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    copied = z[:, :1].expand(64, 3)  # every entry of C is 1
    terms = cross_correlation_loss(copied, copied, lambd=1.0, eps=0.0)
    assert terms["invariance"].item() == pytest.approx(0.0, abs=1e-20)
    assert terms["redundancy"].item() == pytest.approx(6.0)  # 3 * 2 entries off the diagonal
    opposite = cross_correlation_loss(z, -z, lambd=1.0, eps=0.0)
    assert opposite["invariance"].item() == pytest.approx(3 * 4.0)


def test_the_variance_of_the_standardization_is_the_biased_one() -> None:
    z = torch.tensor([[0.0], [1.0]], dtype=torch.float64)  # biased variance 1/4: C = 1, an unbiased one gives 1/2
    assert loss(z, z, eps=0.0).item() == pytest.approx(0.0, abs=1e-30)
    assert loss(z, z, eps=0.25).item() == pytest.approx(0.25)  # C = 0.25 / (0.25 + 0.25)


def test_a_constant_embedding_correlates_with_nothing() -> None:
    constant = torch.full((8, 5), 0.3, dtype=torch.float64)
    assert loss(constant, constant).item() == pytest.approx(5.0)


def test_exchanging_the_views_changes_nothing() -> None:
    z1, z2 = correlated(2, 6, 5, 1.0)
    torch.testing.assert_close(loss(z1, z2), loss(z2, z1))


def test_without_the_invariance_term_redundancy_reduction_is_left_alone() -> None:
    z1, z2 = correlated(2, 6, 4, 1.0)
    whole = cross_correlation_loss(z1, z2, lambd=0.3)
    part = cross_correlation_loss(z1, z2, lambd=0.3, sim_coeff=0.0)
    assert part["invariance"].item() == 0.0 and torch.equal(part["redundancy"], whole["redundancy"])
    halved = cross_correlation_loss(z1, z2, lambd=0.3, sim_coeff=0.5)
    torch.testing.assert_close(halved["invariance"], whole["invariance"] / 2)


def test_every_setting_of_the_class_reaches_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    views = two_views()

    def terms(**settings: float | str) -> dict[str, float]:
        torch.manual_seed(0)
        method = BarlowTwins(Recorder(), projector=(8, 4), **settings)  # type: ignore[arg-type]
        return {name: term.item() for name, term in method(views).items()}

    base = terms()
    assert terms(lambd=0.0102)["redundancy"] == pytest.approx(2 * base["redundancy"], rel=1e-5)
    assert terms(lambd=0.0102)["invariance"] == base["invariance"]
    assert terms(eps=1.0)["invariance"] > base["invariance"]
    assert terms(reduction="paper_exact") == base
    monkeypatch.setattr("methods.barlow_twins.gather", lambda z, *, from_all: z * (1 if from_all else torch.nan))
    assert terms() == base
    assert terms(reduction="paper_exact") != base


def test_each_view_is_its_own_batch() -> None:
    backbone = Recorder()
    BarlowTwins(backbone, projector=(8, 4))(two_views(batch=8))
    assert backbone.batches == [8, 8]


def test_projector_is_as_published_without_any_bias() -> None:
    method = BarlowTwins(Recorder(feature_dim=6))
    linear = [module for module in method.projector if isinstance(module, nn.Linear)]
    assert [layer.weight.shape for layer in linear] == [(8192, 6), (8192, 8192), (8192, 8192)]
    assert all(layer.bias is None for layer in linear)
    assert not isinstance(method.projector[-1], nn.BatchNorm1d)  # the standardization belongs to the loss


def test_biases_and_batch_norm_learn_at_0_0048_where_weights_learn_at_0_2() -> None:
    method = BarlowTwins(Recorder(), projector=(8, 4))
    optimizer = build_optimizer(method.parameter_groups(), TrainingSpec(optimizer="lars", lr=0.2))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in optimizer.param_groups)  # none is in two groups
    assert rates == {id(p): pytest.approx(0.2 if p.ndim > 1 else 0.0048) for p in method.parameters()}
    assert {p.ndim > 1 for p in method.parameters()} == {True, False}


def test_the_share_of_the_biases_is_a_setting_and_frozen_parameters_or_empty_groups_stay_out() -> None:
    method = BarlowTwins(Recorder(), projector=(8, 4), bias_lr_scale=0.5)
    assert [group.get("lr_scale", 1.0) for group in method.parameter_groups()] == [1.0, 0.5]
    for parameter in method.parameters():
        parameter.requires_grad_(parameter.ndim > 1)
    (group,) = method.parameter_groups()
    assert {id(p) for p in group["params"]} == {id(p) for p in method.parameters() if p.ndim > 1}


def test_wrong_settings_are_refused_with_the_right_ones() -> None:
    with pytest.raises(SpecError, match=r"lambd, sim_coeff and eps must be 0 or more, got -1\.0, 1\.0 and 1e-05"):
        BarlowTwins(Recorder(), projector=(8, 4), lambd=-1.0)
    with pytest.raises(SpecError, match=r"bias_lr_scale must be above 0, got 0\.0\. The paper uses 0\.024"):
        BarlowTwins(Recorder(), projector=(8, 4), bias_lr_scale=0.0)
    with pytest.raises(SpecError, match=r"'correct' or 'paper_exact', got 'mean'"):
        BarlowTwins(Recorder(), projector=(8, 4), reduction="mean")
