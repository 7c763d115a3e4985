"""VICReg against Eq. 1 to 6 of arXiv:2105.04906, written as loops, and against the scales of the authors' code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.encoders.build import build_backbone
from bench.errors import SpecError, UnknownNameError
from bench.registry import discover
from bench.training.randomness import isolated_rng
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


@pytest.mark.parametrize("definition", ["code", "paper"])
@pytest.mark.parametrize("kept", range(3))
def test_with_the_other_two_weights_at_zero_only_one_term_and_its_gradient_remain(kept: int, definition: str) -> None:
    weights = [3.0 if index == kept else 0.0 for index in range(3)]
    settings = dict(zip(PUBLISHED, weights, strict=True)) | {"definition": definition}
    d = 4

    def alone(z1: Tensor, z2: Tensor) -> Tensor:
        code = definition == "code"
        return [
            lambda: 3 * invariance(z1, z2) / (d if code else 1),
            lambda: 3 * (variance(z1) + variance(z2)) / (2 if code else 1),
            lambda: 3 * (covariance(z1) + covariance(z2)),
        ][kept]()

    inputs = correlated(2, 7, d, 0.5)
    assert_same_value_and_gradients(
        lambda z1, z2: torch.stack([*vicreg_loss(z1, z2, **settings).values()]).sum(), alone, inputs
    )
    terms = vicreg_loss(*inputs, **settings)
    assert [term.item() == 0.0 for term in terms.values()] == [index != kept for index in range(3)]


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


# --- branches with weights, and with architectures, of their own ---


def backbone(key: str = "convnet", **params: int | str) -> nn.Module:
    return build_backbone(discover().backbones[key], params or {"width": 4}, channels=1, seed=0)


def separate(first: nn.Module, **settings: object) -> VICReg:
    with isolated_rng(0, "heads"):
        return VICReg(first, projector=(8, 4), branches="separate", **settings)  # type: ignore[arg-type]


def images(size: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(8, 1, size, size, generator=generator) for _ in range(2)]


def test_a_separate_branch_has_the_same_architecture_and_weights_of_its_own() -> None:
    first = backbone()
    before = [parameter.clone() for parameter in first.parameters()]
    method = separate(first)
    assert method.second is not None and method.backbone is first
    assert all(torch.equal(a, b) for a, b in zip(before, first.parameters(), strict=True))
    ours, theirs = nn.Sequential(method.backbone, method.projector).state_dict(), method.second.state_dict()
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.items()}
    matrices = [name for name, tensor in ours.items() if tensor.ndim > 1]
    assert matrices and not any(torch.equal(ours[name], theirs[name]) for name in matrices)
    again = separate(backbone())
    assert all(torch.equal(a, b) for a, b in zip(method.parameters(), again.parameters(), strict=True))


def test_each_view_goes_through_its_own_branch() -> None:
    method, (x1, x2) = separate(backbone()), images()
    z1, z2 = method.projector(method.backbone(x1)), method.second[1](method.second[0](x2))  # type: ignore[index]
    expected = vicreg_loss(z1, z2, **PUBLISHED)
    for name, term in method((x1, x2)).items():
        torch.testing.assert_close(term, expected[name], rtol=1e-5, atol=1e-6)
    torch.autograd.backward(list(method((x1, x2)).values()))
    silent = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent
    shared = VICReg(backbone(), projector=(8, 4))
    assert shared.second is None and "second" not in "".join(shared.state_dict())


def test_the_second_branch_may_be_another_backbone_with_another_projector() -> None:
    method = separate(backbone(), second_backbone="resnet18", second_projector=(6, 5, 4))
    assert method.second is not None
    assert type(method.second[0]).__name__ == "ResNet" and method.second[0].conv1.in_channels == 1
    widths = [layer.weight.shape for layer in method.second[1] if isinstance(layer, nn.Linear)]
    assert widths == [(6, 512), (5, 6), (4, 5)]
    assert all(term.isfinite() for term in method(images(32)).values())


def test_a_branch_needs_a_backbone_that_can_be_built_and_widths_that_can_be_compared() -> None:
    with pytest.raises(SpecError, match=r"Recorder does not say how it was built"):
        separate(Recorder())
    with pytest.raises(UnknownNameError, match=r"Unknown second backbone 'convnte'.*'convnet'"):
        separate(backbone(), second_backbone="convnte")
    with pytest.raises(SpecError, match=r"second projector ends with width 5, the first with 4"):
        separate(backbone(), second_projector=(8, 5))
    with pytest.raises(SpecError, match=r"need branches='separate'"):
        VICReg(backbone(), projector=(8, 4), second_backbone="convnet")
    with pytest.raises(SpecError, match=r"'shared' or 'separate', got 'both'"):
        VICReg(backbone(), projector=(8, 4), branches="both")


def test_an_unknown_definition_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'code' .*'paper', got 'solo'"):
        VICReg(Recorder(), projector=(8, 4), definition="solo")
