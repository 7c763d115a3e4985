"""BYOL against Eq. 2 and section 3.3 of arXiv:2006.07733."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from bench.training.checkpoint import CheckpointFile
from bench.training.history import EpochRecord
from methods.byol import BYOL, regression_loss

from ..bench.training.toys import toy_spec, train
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


class KilledError(Exception):
    """Stands for a kill signal."""


def test_tau_follows_the_closed_form_through_the_loop_and_continues_exactly_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taus: list[float] = []
    update = BYOL.after_step.__globals__["update_momentum"]

    def noting(target: nn.Module, online: nn.Module, tau: float) -> None:
        taus.append(tau)
        update(target, online, tau)

    def kill_after_two_epochs(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KilledError

    def seeded() -> BYOL:
        torch.manual_seed(1)
        return tiny(backbone=Recorder(pixels=64))

    monkeypatch.setattr("methods.byol.update_momentum", noting)
    spec, checkpoint = toy_spec(), CheckpointFile(path=tmp_path / "a", identity="toy", every_seconds=0.0)  # 4 * 3 steps
    whole = seeded()
    train(whole, spec)
    closed_form = [1 - (1 - 0.9) * (math.cos(math.pi * k / 12) + 1) / 2 for k in range(12)]
    assert taus == pytest.approx(closed_form, rel=1e-14)
    assert taus[0] == pytest.approx(0.9) and taus[-1] < 1
    taus.clear()
    with pytest.raises(KilledError):
        train(seeded(), spec, checkpoint=checkpoint, progress=kill_after_two_epochs)
    assert len(taus) == 6
    resumed = seeded()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()  # everything comes from the checkpoint
    train(resumed, spec, checkpoint=checkpoint)
    assert taus == pytest.approx(closed_form, rel=1e-14)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


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


def gradients(method: BYOL) -> dict[str, Tensor]:
    torch.autograd.backward(list(method(two_views()).values()))
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


def knocked_out(*, predictor: tuple[int, ...] = (8, 4), stop_gradient: bool = True) -> BYOL:
    torch.manual_seed(0)
    return BYOL(Recorder(), projector=(8, 4), predictor=predictor, tau_base=0.9, stop_gradient=stop_gradient)


def test_the_default_is_predictor_target_network_and_stopped_gradient_to_the_last_bit() -> None:
    method, views = tiny(), two_views()
    q = [method.predictor(method.projector(method.backbone(view))) for view in views]
    with torch.no_grad():
        t = [method.target(view) for view in views]
    expected = [(2 - 2 * nn.functional.cosine_similarity(q[i], t[1 - i], dim=1)).mean() for i in (0, 1)]
    assert [torch.equal(term, e) for term, e in zip(method(views).values(), expected, strict=True)] == [True, True]


def test_without_predictor_the_online_projection_meets_the_target() -> None:
    method, views = knocked_out(predictor=()), two_views()
    z = [method.projector(method.backbone(view)) for view in views]
    t = [method.target(view) for view in views]
    expected = equation_2(z[0], t[1]) + equation_2(z[1], t[0])
    torch.testing.assert_close(sum(method(views).values()), expected, rtol=1e-5, atol=1e-6)
    assert not list(method.predictor.parameters())
    assert {name.split(".")[0] for name in gradients(method)} == {"backbone", "projector"}


def test_without_the_stopped_gradient_the_online_network_is_its_own_target() -> None:
    method, views = knocked_out(stop_gradient=False).double(), [view.double() for view in two_views()]
    z = [method.projector(method.backbone(view)) for view in views]
    expected = equation_2(method.predictor(z[0]), z[1]) + equation_2(method.predictor(z[1]), z[0])
    found = sum(method(views).values(), start=expected.new_zeros(()))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    parameters = list(method.parameters())
    wanted = torch.autograd.grad(expected, parameters)
    for gradient, expected_gradient in zip(torch.autograd.grad(found, parameters), wanted, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-14)
    assert method.target is None and all(parameter.requires_grad for parameter in method.parameters())
    before = [parameter.clone() for parameter in method.parameters()]
    method.after_step(1, 10)
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))


def test_the_gradient_passes_the_target_only_where_it_is_not_stopped() -> None:
    for stop_gradient, passes in ((True, False), (False, True)):
        method = knocked_out(stop_gradient=stop_gradient)
        nn.init.zeros_(method.predictor[-1].weight)  # nothing comes back through the predictor
        method.predictor[-1].register_forward_hook(lambda _, __, output: output + 1)
        assert bool(gradients(method)["projector.0.weight"].any()) is passes


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
def test_without_the_stopped_gradient_all_four_embeddings_get_theirs(batch: int, dim: int, scale: float) -> None:
    assert_same_value_and_gradients(
        lambda *z: sum(regression_loss(*z, stop_gradient=False).values(), start=z[0].new_zeros(())),
        lambda q1, q2, t1, t2: equation_2(q1, t2) + equation_2(q2, t1),
        correlated(4, batch, dim, scale),
    )


def test_widths_and_tau_that_cannot_work_are_refused() -> None:
    with pytest.raises(SpecError, match="predictor ends with width 3, the projector with 4"):
        BYOL(Recorder(), projector=(8, 4), predictor=(8, 3))
    with pytest.raises(SpecError, match=r"tau_base must lie in \[0, 1\], got 1.5"):
        BYOL(Recorder(), projector=(8, 4), predictor=(8, 4), tau_base=1.5)
