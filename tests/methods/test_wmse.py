"""W-MSE against the loss of arXiv:2007.06346, section 3, written as loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from methods.wmse import WMSE, whitened_mse

from .embeddings import assert_same_value_and_gradients, correlated
from .networks import Recorder, two_views
from .whitening import cholesky_whitened, distance, sub_batches_whitened

SHAPES_AND_SCALES = [
    pytest.param(batch, size, dim, scale, id=f"B{batch}-part{size}-D{dim}-scale{scale:g}")
    for batch, size, dim in ((6, 6, 2), (16, 8, 4), (30, 15, 5))
    for scale in (1.0, 1e-2, 1e-3)
]


def permutations(count: int, batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.stack([torch.randperm(batch, generator=generator) for _ in range(count)])


def loss(*views: Tensor, permutations: Tensor, size: int, **settings: bool | float) -> Tensor:
    terms = whitened_mse(*views, permutations=permutations, sub_batch=size, **settings)  # type: ignore[arg-type]
    assert list(terms) == ["distance"]
    return terms["distance"]


def equation(*views: Tensor, permutations: Tensor, size: int) -> Tensor:
    """2 / (N d (d-1)) Σ dist: the mean over all pairs of positives of all images, and over the permutations."""
    total, pairs = views[0].new_zeros(()), len(views) * (len(views) - 1) / 2
    for permutation in permutations:
        white = [sub_batches_whitened(view, permutation, size) for view in views]
        for i in range(len(views)):
            for j in range(i):
                total = total + distance(white[i], white[j])
    return total / pairs / len(permutations)


@pytest.mark.parametrize(("batch", "size", "dim", "scale"), SHAPES_AND_SCALES)
def test_two_positives_have_the_value_and_both_gradients_of_the_paper(
    batch: int, size: int, dim: int, scale: float
) -> None:
    chosen = permutations(1, batch)
    assert_same_value_and_gradients(
        lambda *views: loss(*views, permutations=chosen, size=size),
        lambda *views: equation(*views, permutations=chosen, size=size),
        correlated(2, batch, dim, scale),
    )


@pytest.mark.parametrize(("positives", "iterations"), [(3, 1), (4, 1), (2, 4), (4, 2)])
def test_several_positives_and_iterations_are_averaged_over_all_pairs(positives: int, iterations: int) -> None:
    chosen = permutations(iterations, 12)
    assert_same_value_and_gradients(
        lambda *views: loss(*views, permutations=chosen, size=6),
        lambda *views: equation(*views, permutations=chosen, size=6),
        correlated(positives, 12, 3, 1.0),
    )


def test_without_unit_length_it_is_the_squared_distance_of_whitened_vectors_summed_over_dimensions() -> None:
    def squared(z1: Tensor, z2: Tensor) -> Tensor:
        pairs = zip(cholesky_whitened(z1), cholesky_whitened(z2), strict=True)
        return sum(((a - b).dot(a - b) for a, b in pairs), start=z1.new_zeros(())) / len(z1)

    chosen = permutations(1, 10)
    assert_same_value_and_gradients(
        lambda *views: loss(*views, permutations=chosen, size=10, normalize=False), squared, correlated(2, 10, 3, 1.0)
    )


def test_the_gradient_reaches_both_views_alike() -> None:
    z1, z2 = correlated(2, 16, 4, 1.0)
    chosen = permutations(1, 16)
    one = torch.autograd.grad(loss(z1, z2, permutations=chosen, size=8), (z1, z2))
    other = torch.autograd.grad(loss(z2, z1, permutations=chosen, size=8), (z1, z2))
    for gradient, exchanged in zip(one, other, strict=True):
        assert float(gradient.abs().max()) > 0
        torch.testing.assert_close(gradient, exchanged)


def test_white_views_are_compared_as_they_are_worked_by_hand() -> None:
    square = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64) * 0.75**0.5
    mirrored = square * torch.tensor([1.0, -1.0], dtype=torch.float64)  # every angle is a right one
    identity = torch.arange(4)[None]
    assert loss(square, mirrored, permutations=identity, size=4).item() == pytest.approx(2.0)
    assert loss(square, -square, permutations=identity, size=4).item() == pytest.approx(4.0)
    assert loss(square, square, permutations=identity, size=4).item() == pytest.approx(0.0, abs=1e-14)
    assert loss(square, -square, permutations=identity, size=4, normalize=False).item() == pytest.approx(6.0)


def test_no_linear_map_of_the_embeddings_that_keeps_the_order_of_dimensions_changes_the_loss() -> None:
    z1, z2 = correlated(2, 16, 4, 1.0)
    triangular = torch.tril(torch.rand(4, 4, dtype=torch.float64)) + torch.eye(4)
    chosen = permutations(1, 16)
    expected = loss(z1, z2, permutations=chosen, size=16)
    torch.testing.assert_close(loss(z1 @ triangular.T + 9, z2, permutations=chosen, size=16), expected)


@pytest.mark.parametrize(("batch", "size"), [(10, 4), (7, 128), (5, 5), (13, 2)])
def test_every_batch_works_with_every_sub_batch(batch: int, size: int) -> None:
    views = correlated(2, batch, 4, 1.0)
    found = loss(*views, permutations=permutations(2, batch), size=size)
    assert bool(found.isfinite())
    assert all(bool(gradient.isfinite().all()) for gradient in torch.autograd.grad(found, views))


def tiny(**settings: object) -> WMSE:
    torch.manual_seed(0)
    return WMSE(Recorder(), projector=(8, 2), **settings)  # type: ignore[arg-type]


def four_views() -> list[Tensor]:
    return [*two_views(16), *(view + 0.3 * torch.randn_like(view) for view in two_views(16))]


def test_the_backbone_sees_each_view_alone_and_the_projector_all_together() -> None:
    method, seen = tiny(positives=4), []
    method.projector.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    method(four_views())
    assert method.backbone.batches == [16, 16, 16, 16]
    assert seen == [64]


def test_the_permutations_follow_the_global_generator_and_every_setting_reaches_the_loss() -> None:
    views = two_views(16)

    def value(seed: int = 1, **settings: object) -> float:
        method = tiny(**{"sub_batch": 4, **settings})
        torch.manual_seed(seed)
        return float(method(views)["distance"].item())

    base = value()
    assert value() == base
    assert value(seed=2) != pytest.approx(base, rel=1e-4)
    for changed in ({"sub_batch": 16}, {"iterations": 3}, {"eps": 0.5}, {"normalize": False}):
        assert value(**changed) != pytest.approx(base, rel=1e-4), changed
    assert value(seed=1, sub_batch=16) == pytest.approx(value(seed=2, sub_batch=16), rel=1e-4)  # one part: no matter


def test_views_of_the_card_follow_the_positives() -> None:
    assert WMSE.card.view_count({"positives": 4}) == 4
    assert WMSE.card.gradient_views == "all"


def test_projector_has_the_published_widths_and_nothing_after_its_last_layer() -> None:
    method = WMSE(Recorder(feature_dim=6))
    assert [type(module) for module in method.projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [m.weight.shape for m in method.projector if isinstance(m, nn.Linear)] == [(1024, 6), (64, 1024)]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"positives": 1}, "positives must be 2 or more, got 1"),
        ({"sub_batch": 2}, "sub_batch must be larger than the embedding's width 2.* got 2"),
        ({"iterations": 0}, "iterations must be 1 or more, got 0"),
        ({"eps": 1.5}, r"eps must lie in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_settings_are_refused_with_the_right_ones(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        tiny(**wrong)


def test_a_constant_batch_is_no_minimum_of_the_loss() -> None:
    constant = torch.ones(16, 4, dtype=torch.float64)
    found = whitened_mse(constant, constant, permutations=torch.arange(16)[None], sub_batch=16)
    assert found["distance"].item() == 2.0  # the cosine of vectors without a length is 0
