"""BYOL against Eq. 2 and section 3.3 of arXiv:2006.07733."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from methods.byol import BYOL, regression_loss

from .embeddings import SHAPES_AND_SCALES, assert_same_value_and_gradients, correlated
from .networks import Recorder, two_views


def equation_2(q: Tensor, z: Tensor) -> Tensor:
    """The squared distance of the normalized vectors, averaged over the batch by a loop."""
    total = q.new_zeros(())
    for prediction, target in zip(q, z, strict=True):
        difference = prediction / prediction.dot(prediction).sqrt() - target / target.dot(target).sqrt()
        total = total + difference.dot(difference)
    return total / len(q)


def loss(q1: Tensor, q2: Tensor, t1: Tensor, t2: Tensor) -> Tensor:
    return sum(regression_loss(q1, q2, t1, t2).values(), start=q1.new_zeros(()))


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
def test_loss_and_both_gradients_are_those_of_the_paper(batch: int, dim: int, scale: float) -> None:
    q1, q2, t1, t2 = correlated(4, batch, dim, scale)
    assert_same_value_and_gradients(
        lambda q1, q2: loss(q1, q2, t1, t2),
        lambda q1, q2: equation_2(q1, t2.detach()) + equation_2(q2, t1.detach()),
        [q1, q2],
    )


def test_two_directions_worked_by_hand() -> None:
    q1, t2 = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])  # cosine 24/25
    q2, t1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])  # cosine 0
    terms = {name: term.item() for name, term in regression_loss(q1, q2, t1, t2).items()}
    assert terms == pytest.approx({"view1_predicts_view2": 0.08, "view2_predicts_view1": 2.0}, abs=1e-6)


def test_value_is_four_minus_two_cosines_without_an_offset() -> None:
    q1, q2, t1, t2 = correlated(4, 5, 6, 1.0)
    cosines = nn.functional.cosine_similarity(q1, t2).mean() + nn.functional.cosine_similarity(q2, t1).mean()
    torch.testing.assert_close(loss(q1, q2, t1, t2), 4 - 2 * cosines)
    assert loss(q1, q2, q2, q1).item() == pytest.approx(0.0, abs=1e-14)
    assert loss(q1, q2, -q2, -q1).item() == pytest.approx(8.0, abs=1e-14)


def test_target_gets_no_gradient_even_if_the_caller_forgets_to_detach() -> None:
    inputs = correlated(4, 5, 6, 1.0)
    q1, q2, t1, t2 = torch.autograd.grad(loss(*inputs), inputs, allow_unused=True)
    assert q1 is not None and q2 is not None
    assert t1 is None and t2 is None


def tiny(tau_base: float = 0.9, backbone: nn.Module | None = None) -> BYOL:
    torch.manual_seed(0)
    return BYOL(backbone or Recorder(), projector=(8, 4), predictor=(8, 4), tau_base=tau_base)


def test_target_starts_as_a_copy_that_is_not_trained() -> None:
    method = tiny()
    online = nn.Sequential(method.backbone, method.projector).state_dict()
    for name, tensor in method.target.state_dict().items():
        torch.testing.assert_close(tensor, online[name])
    assert not any(parameter.requires_grad for parameter in method.target.parameters())
    trained = {id(parameter) for group in method.parameter_groups() for parameter in group["params"]}
    assert not trained & {id(parameter) for parameter in method.target.parameters()}
    assert {id(parameter) for parameter in method.predictor.parameters()} <= trained


def test_tau_follows_the_cosine_per_step_from_tau_base() -> None:
    method, tau_base, total = tiny(tau_base=0.6), 0.6, 3
    online = dict(nn.Sequential(method.backbone, method.projector).named_parameters())
    expected = {name: p.detach().clone().double() for name, p in method.target.named_parameters()}
    for step in (1, 2, 3):
        with torch.no_grad():
            for parameter in online.values():
                parameter.add_(torch.randn(parameter.shape))
        method.after_step(step, total)
        tau = 1 - (1 - tau_base) * (math.cos(math.pi * (step - 1) / total) + 1) / 2
        for name, parameter in method.target.named_parameters():
            expected[name] = tau * expected[name] + (1 - tau) * online[name].detach().double()
            torch.testing.assert_close(parameter.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_target_never_moves_when_tau_is_one() -> None:
    method = tiny(tau_base=1.0)
    before = [parameter.clone() for parameter in method.target.parameters()]
    with torch.no_grad():
        for parameter in method.backbone.parameters():
            parameter.add_(1.0)
    method.after_step(1, 10)
    assert all(torch.equal(a, b) for a, b in zip(before, method.target.parameters(), strict=True))


def test_each_view_is_its_own_batch_online_and_in_the_target() -> None:
    method = tiny()
    method(two_views(batch=8))
    assert method.backbone.batches == [8, 8]
    assert method.target[0].batches == [8, 8]


def test_target_keeps_batch_statistics_of_its_own() -> None:
    method = tiny()
    method(two_views())
    norms = [module for module in method.target.modules() if isinstance(module, nn.BatchNorm1d)]
    assert norms and all(norm.training and int(norm.num_batches_tracked) == 2 for norm in norms)
    method.after_step(1, 10)
    assert all(int(norm.num_batches_tracked) == 2 for norm in norms)


def test_prediction_depends_on_the_predictor() -> None:
    method, views = tiny(), two_views()
    before = sum(term.item() for term in method(views).values())
    method.predictor = nn.Identity()
    assert sum(term.item() for term in method(views).values()) != pytest.approx(before, rel=1e-3)


def test_heads_have_the_sizes_of_the_paper_and_no_bias_at_the_end() -> None:
    method = BYOL(Recorder(feature_dim=6))
    sizes = [
        [m.weight.shape for m in head if isinstance(m, nn.Linear)] for head in (method.projector, method.predictor)
    ]
    assert sizes == [[(4096, 6), (256, 4096)], [(4096, 256), (256, 4096)]]
    assert method.projector[-1].bias is None and method.predictor[-1].bias is None


def test_widths_and_tau_that_cannot_work_are_refused() -> None:
    with pytest.raises(SpecError, match="predictor ends with width 3, the projector with 4"):
        BYOL(Recorder(), projector=(8, 4), predictor=(8, 3))
    with pytest.raises(SpecError, match=r"tau_base must lie in \[0, 1\], got 1.5"):
        BYOL(Recorder(), projector=(8, 4), predictor=(8, 4), tau_base=1.5)
