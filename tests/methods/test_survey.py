"""What the survey says about the methods against what they do; ``bench/published/errata.csv`` names these tests."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.training.false_negatives import detect
from bench.training.whitening import whiten
from methods.barlow_twins import cross_correlation_loss
from methods.moco_v1 import MoCo
from methods.simclr import nt_xent
from methods.simsiam import SimSiam, negative_cosines
from methods.wmse import whitened_mse

from ..bench.training.toys import make, toy_spec, train
from .embeddings import correlated
from .networks import Recorder, two_views

A, B = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]], dtype=torch.float64)
"""Two dimensions over four images: zero mean, unit variance, uncorrelated."""


def barlow(z1: Tensor, z2: Tensor, eps: float = 0.0) -> dict[str, float]:
    terms = cross_correlation_loss(z1, z2, lambd=1.0, eps=eps)
    return {name: term.item() for name, term in terms.items()}


def test_barlows_invariance_draws_the_diagonal_to_one_and_its_redundancy_the_rest_to_zero() -> None:
    twins, swapped = torch.stack([A, B], dim=1), torch.stack([B, A], dim=1)
    assert barlow(twins, twins) == pytest.approx({"invariance": 0.0, "redundancy": 0.0})  # C is the identity
    assert barlow(twins, swapped) == pytest.approx({"invariance": 2.0, "redundancy": 2.0})  # C has ones beside it
    copied = torch.stack([A, A], dim=1)
    assert barlow(copied, copied) == pytest.approx({"invariance": 0.0, "redundancy": 2.0})  # C is one everywhere


def test_the_gradient_of_barlows_invariance_raises_the_diagonal() -> None:
    z1, z2 = correlated(2, 16, 4, 1.0)
    invariance = cross_correlation_loss(z1, z2, lambd=1.0)["invariance"]
    (gradient,) = torch.autograd.grad(invariance, z2)

    def diagonal(z: Tensor) -> Tensor:
        both = torch.corrcoef(torch.cat([z1, z], dim=1).T)
        return both[:4, 4:].diagonal()

    assert (diagonal(z2 - 1e-3 * gradient) > diagonal(z2)).all()


def test_standardization_keeps_a_constant_embedding_from_pleasing_barlows_invariance_alone() -> None:
    z1, z2 = correlated(2, 16, 4, 1.0)
    spread = barlow(z1.detach(), z2.detach())["invariance"]
    nearly_constant = barlow(1 + 1e-6 * z1.detach(), 1 + 1e-6 * z2.detach())["invariance"]
    assert nearly_constant == pytest.approx(spread, rel=1e-6)
    constant = torch.full((16, 4), 0.7, dtype=torch.float64)
    assert barlow(constant, constant, eps=1e-5)["invariance"] == pytest.approx(4.0)  # as far from 1 as it can be


def test_a_false_negative_resembles_the_support_views_of_the_anchor() -> None:
    candidates = torch.eye(4)
    support = torch.stack([torch.eye(4)[2], torch.eye(4)[0]])[None]  # one view each: anchor 0 looks like image 2
    none = torch.zeros(2, 4, dtype=torch.bool)
    found = detect(candidates, support, excluded=none, aggregation="max", top_k=1, threshold=0.5)
    assert found.nonzero().tolist() == [[0, 2], [1, 0]]
    other = support.clone()
    other[0, 1] = torch.eye(4)[3]  # the views of another anchor decide about that anchor only
    found = detect(candidates, other, excluded=none, aggregation="max", top_k=1, threshold=0.5)
    assert found.nonzero().tolist() == [[0, 2], [1, 3]]


def test_mocos_positive_key_comes_from_the_momentum_encoder() -> None:
    torch.manual_seed(0)
    method, views = MoCo(Recorder(), projector=(4,), queue_size=16, bn_groups=1), two_views()
    query, key = method.query_and_key(views)
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1.0)
    changed_query, same_key = method.query_and_key(views)
    assert torch.allclose(key, same_key) and not torch.allclose(query, changed_query)
    with torch.no_grad():
        for parameter in method.target.parameters():
            parameter.add_(1.0)
    assert not torch.allclose(method.query_and_key(views)[1], key)
    assert not key.requires_grad and query.requires_grad


@pytest.mark.parametrize(
    ("predictor", "stop_gradient", "collapses"), [((8, 32), True, False), ((8, 32), False, True), ((), True, True)]
)
def test_simsiam_needs_both_its_predictor_and_its_stopped_gradient(
    predictor: tuple[int, ...],
    stop_gradient: bool,
    collapses: bool,
) -> None:
    method = make(
        lambda backbone: SimSiam(
            backbone, projector=(32, 32), predictor=predictor, stop_gradient=stop_gradient, output_norm="none"
        )
    )
    result = train(method, toy_spec(epochs=60, lr=1e-2, on_collapse="record"))
    std = [row.value for row in result.history if row.term == "embedding_std"][-1]
    assert (
        (std < 0.05 and "point the same way" in result.collapse) if collapses else (std > 0.4 and not result.collapse)
    )


def test_without_a_predictor_the_stopped_gradient_only_halves_the_gradient() -> None:
    z1, z2 = correlated(2, 7, 4, 1.0)
    stopped = sum(negative_cosines(z1, z2, z1, z2, stop_gradient=True).values(), start=z1.new_zeros(()))
    plain = sum(negative_cosines(z1, z2, z1, z2, stop_gradient=False).values(), start=z1.new_zeros(()))
    halves = torch.autograd.grad(stopped, [z1, z2])
    wholes = torch.autograd.grad(plain, [z1, z2])
    for half, whole in zip(halves, wholes, strict=True):
        torch.testing.assert_close(2 * half, whole, rtol=1e-12, atol=1e-15)


def test_whitening_multiplies_by_an_inverse_square_root_not_by_the_inverse() -> None:
    (z,) = correlated(1, 32, 4, 1.0)
    identity = torch.eye(4, dtype=z.dtype)
    torch.testing.assert_close(torch.cov(whiten(z).T), identity, rtol=0, atol=1e-9)
    inverse = torch.linalg.inv(torch.cov(z.T))
    by_the_inverse = torch.cov(((z - z.mean(dim=0)) @ inverse).T)
    assert (by_the_inverse - identity).abs().max() > 0.1


def test_unit_length_after_whitening_is_a_choice() -> None:
    z1, z2 = correlated(2, 16, 4, 1.0)
    order = torch.arange(16)[None]
    lengths = [
        whitened_mse(z1, z2, permutations=order, sub_batch=16, normalize=normalize)["distance"].item()
        for normalize in (True, False)
    ]
    w1, w2 = whiten(z1), whiten(z2)
    cosine = torch.cosine_similarity(w1, w2, dim=1)
    expected = [(2 - 2 * cosine).mean().item(), (w1 - w2).square().sum(dim=1).mean().item()]
    assert lengths == pytest.approx(expected, rel=1e-9)


def test_the_contrastive_loss_sees_whole_vectors_not_components() -> None:
    z1, z2 = correlated(2, 6, 5, 1.0)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    before = nt_xent(z1, z2, temperature=0.5, definition="paper")
    after = nt_xent(z1 @ rotation, z2 @ rotation, temperature=0.5, definition="paper")
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=1e-12, atol=0)
