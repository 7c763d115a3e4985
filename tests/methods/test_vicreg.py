"""VICReg against Eq. 1 to 6 of arXiv:2105.04906, written as loops, and against the scales of the authors' code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from methods.vicreg import VICReg, vicreg_loss

from .embeddings import SHAPES_AND_SCALES, assert_same_value_and_gradients, correlated
from .networks import Recorder, two_views

PUBLISHED = {"sim_coeff": 25.0, "std_coeff": 25.0, "cov_coeff": 1.0}


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum() / len(values)


def invariance(z1: Tensor, z2: Tensor) -> Tensor:
    """Eq. 5."""
    return mean([(a - b).dot(a - b) for a, b in zip(z1, z2, strict=True)])


def variance(z: Tensor) -> Tensor:
    """Eq. 1 and 2, one dimension at a time; γ = 1, ε = 1e-4 inside the root."""
    hinges = []
    for column in z.T:
        deviations = column - mean(list(column))
        std = (deviations.dot(deviations) / (len(z) - 1) + 1e-4) ** 0.5
        hinges.append((1 - std) if std < 1 else 0 * std)
    return mean(hinges)


def covariance(z: Tensor) -> Tensor:
    """Eq. 3 and 4, one pair of dimensions at a time."""
    n, d = z.shape
    center = [mean(list(column)) for column in z.T]
    total = z.new_zeros(())
    for i in range(d):
        for j in range(d):
            if i != j:
                entry = (z[:, i] - center[i]).dot(z[:, j] - center[j]) / (n - 1)
                total = total + entry**2
    return total / d


def equation_6(z1: Tensor, z2: Tensor, *, lam: float = 25.0, mu: float = 25.0, nu: float = 1.0) -> Tensor:
    return lam * invariance(z1, z2) + mu * (variance(z1) + variance(z2)) + nu * (covariance(z1) + covariance(z2))


def loss(z1: Tensor, z2: Tensor, *, definition: str) -> Tensor:
    terms = vicreg_loss(z1, z2, **PUBLISHED, definition=definition)
    assert list(terms) == ["invariance", "variance", "covariance"]
    return sum(terms.values(), start=z1.new_zeros(()))


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
def test_paper_definition_is_equation_6(batch: int, dim: int, scale: float) -> None:
    assert_same_value_and_gradients(
        lambda z1, z2: loss(z1, z2, definition="paper"), equation_6, correlated(2, batch, dim, scale)
    )


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
def test_code_definition_divides_the_invariance_by_d_and_halves_the_variance(
    batch: int, dim: int, scale: float
) -> None:
    assert_same_value_and_gradients(
        lambda z1, z2: loss(z1, z2, definition="code"),
        lambda z1, z2: equation_6(z1, z2, lam=25.0 / dim, mu=12.5),
        correlated(2, batch, dim, scale),
    )


def test_two_images_in_two_dimensions_worked_by_hand() -> None:
    z1 = torch.tensor([[0.0, 0.0], [2.0, 2.0]], dtype=torch.float64)  # variances 2, 2; covariance 2
    z2 = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64)  # variances 0, 2; covariance 0
    code = {name: term.item() for name, term in vicreg_loss(z1, z2, **PUBLISHED).items()}
    # mean square 4/4; hinge (1 - sqrt(1e-4))/2 on one branch, averaged over two; off-diagonals (4 + 4)/2
    assert code == pytest.approx({"invariance": 25.0, "variance": 25 * 0.99 / 4, "covariance": 4.0}, rel=1e-12)
    paper = {name: term.item() for name, term in vicreg_loss(z1, z2, **PUBLISHED, definition="paper").items()}
    assert paper == pytest.approx({"invariance": 50.0, "variance": 25 * 0.99 / 2, "covariance": 4.0}, rel=1e-12)


def test_gamma_and_eps_have_the_published_defaults_and_reach_the_hinge() -> None:
    constant = torch.zeros(3, 2, dtype=torch.float64)
    settings = {"sim_coeff": 0.0, "std_coeff": 1.0, "cov_coeff": 0.0}
    assert vicreg_loss(constant, constant, **settings)["variance"].item() == pytest.approx(0.99)
    wider = vicreg_loss(constant, constant, **settings, gamma=2.0, eps=0.25)
    assert wider["variance"].item() == pytest.approx(1.5)


def test_only_the_variance_term_punishes_a_constant_embedding() -> None:
    constant = torch.full((6, 4), 0.7, dtype=torch.float64)
    terms = vicreg_loss(constant, constant, **PUBLISHED)
    assert terms["invariance"].item() == 0.0
    assert terms["covariance"].item() == pytest.approx(0.0, abs=1e-30)
    assert terms["variance"].item() == pytest.approx(25 * 0.99)


def test_only_the_covariance_term_punishes_copied_dimensions() -> None:
    column = torch.tensor([[-3.0], [-1.0], [1.0], [3.0]], dtype=torch.float64)
    copied = column.expand(4, 3)
    terms = vicreg_loss(copied, copied, **PUBLISHED)
    assert terms["invariance"].item() == 0.0 and terms["variance"].item() == 0.0
    assert terms["covariance"].item() > 10


@pytest.mark.parametrize(
    ("coefficient", "term"), [("sim_coeff", "invariance"), ("std_coeff", "variance"), ("cov_coeff", "covariance")]
)
def test_each_coefficient_scales_its_own_term_alone(coefficient: str, term: str) -> None:
    z1, z2 = correlated(2, 5, 4, 0.1)
    base = vicreg_loss(z1, z2, **PUBLISHED)
    scaled = vicreg_loss(z1, z2, **{**PUBLISHED, coefficient: 3 * PUBLISHED[coefficient]})
    for name in base:
        assert scaled[name].item() == pytest.approx(base[name].item() * (3 if name == term else 1), rel=1e-12)


def test_every_setting_of_the_class_reaches_the_loss() -> None:
    views = two_views()

    def total(**settings: float | str) -> float:
        torch.manual_seed(0)
        method = VICReg(Recorder(), projector=(8, 4), **settings)  # type: ignore[arg-type]
        return sum(term.item() for term in method(views).values())

    base = total()
    for changed in ({"sim_coeff": 1.0}, {"std_coeff": 1.0}, {"cov_coeff": 9.0}, {"gamma": 3.0}, {"eps": 0.5}):
        assert total(**changed) != pytest.approx(base, rel=1e-4), changed  # type: ignore[arg-type]
    assert total(definition="paper") > base


def test_each_view_is_its_own_batch() -> None:
    backbone = Recorder()
    VICReg(backbone, projector=(8, 4))(two_views(batch=8))
    assert backbone.batches == [8, 8]


def test_expander_has_the_published_depth_and_no_bias_at_the_end() -> None:
    method = VICReg(Recorder(feature_dim=6), projector=(9, 8, 7))
    linear = [module for module in method.projector if isinstance(module, nn.Linear)]
    assert [layer.weight.shape for layer in linear] == [(9, 6), (8, 9), (7, 8)]
    assert [layer.bias is None for layer in linear] == [False, False, True]


def test_an_unknown_definition_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'code' .*'paper', got 'solo'"):
        VICReg(Recorder(), projector=(8, 4), definition="solo")
