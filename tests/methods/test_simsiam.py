"""SimSiam against Eq. 1 and 4 of arXiv:2011.10566, written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from bench.training.optimizers import build_optimizer
from bench.training.schedule import set_learning_rates
from methods.simsiam import SimSiam, negative_cosines

from ..bench.training.toys import toy_images, toy_spec, train
from .embeddings import SHAPES_AND_SCALES, assert_same_value_and_gradients, correlated
from .networks import Recorder, two_views


def equation_1(p: Tensor, z: Tensor) -> Tensor:
    total = p.new_zeros(())
    for prediction, projection in zip(p, z, strict=True):
        total = total - prediction.dot(projection) / (prediction.dot(prediction) * projection.dot(projection)) ** 0.5
    return total / len(p)


def loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, *, stop_gradient: bool = True) -> Tensor:
    terms = negative_cosines(p1, p2, z1, z2, stop_gradient=stop_gradient)
    assert list(terms) == ["view1_predicts_view2", "view2_predicts_view1"]
    return sum(terms.values(), start=p1.new_zeros(()))


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
def test_loss_and_both_gradients_are_those_of_the_paper(batch: int, dim: int, scale: float) -> None:
    p1, p2, z1, z2 = correlated(4, batch, dim, scale)
    assert_same_value_and_gradients(
        lambda p1, p2: loss(p1, p2, z1, z2),
        lambda p1, p2: equation_1(p1, z2.detach()) / 2 + equation_1(p2, z1.detach()) / 2,
        [p1, p2],
    )


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
def test_without_the_stopped_gradient_the_projections_get_theirs_too(batch: int, dim: int, scale: float) -> None:
    assert_same_value_and_gradients(
        lambda *embeddings: loss(*embeddings, stop_gradient=False),
        lambda p1, p2, z1, z2: equation_1(p1, z2) / 2 + equation_1(p2, z1) / 2,
        correlated(4, batch, dim, scale),
    )


def test_two_directions_worked_by_hand() -> None:
    p1, z2 = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])  # cosine 24/25
    p2, z1 = torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 0.0]])  # cosine -1
    terms = {name: term.item() for name, term in negative_cosines(p1, p2, z1, z2).items()}
    assert terms == pytest.approx({"view1_predicts_view2": -0.48, "view2_predicts_view1": 0.5}, abs=1e-6)


def test_projections_get_no_gradient_even_if_the_caller_forgets_to_detach() -> None:
    inputs = correlated(4, 5, 6, 1.0)
    p1, p2, z1, z2 = torch.autograd.grad(loss(*inputs), inputs, allow_unused=True)
    assert p1 is not None and p2 is not None
    assert z1 is None and z2 is None


def tiny(**settings: object) -> SimSiam:
    torch.manual_seed(0)
    options: dict[str, object] = {"projector": (8, 8, 4), "predictor": (2, 4)} | settings
    return SimSiam(Recorder(), **options)  # type: ignore[arg-type]


def gradient_of_projector(method: SimSiam) -> Tensor:
    sum(method(two_views()).values(), start=torch.zeros(())).backward()
    gradient = method.projector[0].weight.grad
    assert gradient is not None
    return gradient


def test_the_network_learns_through_the_predictor_alone() -> None:
    method = tiny()
    nn.init.zeros_(method.predictor[-1].weight)  # nothing passes back through the predictor, nor around it
    assert not gradient_of_projector(method).any()
    open_method = tiny(stop_gradient=False)
    nn.init.zeros_(open_method.predictor[-1].weight)
    assert gradient_of_projector(open_method).any()


def test_without_predictor_the_projections_are_compared_themselves() -> None:
    method, views = tiny(predictor=()), two_views()
    z1, z2 = (method.projector(method.backbone(view)) for view in views)
    expected = (equation_1(z1, z2.detach()) + equation_1(z2, z1.detach())) / 2
    torch.testing.assert_close(sum(method(views).values()), expected, rtol=1e-5, atol=1e-6)
    assert not list(method.predictor.parameters())
    (group,) = method.parameter_groups()
    assert len(group["params"]) == len(list(method.parameters()))


def test_without_predictor_the_stopped_gradient_only_halves_the_gradient() -> None:
    # D is symmetric: each half of the loss gives one half of what both views would get
    stopped = gradient_of_projector(tiny(predictor=()))
    torch.testing.assert_close(gradient_of_projector(tiny(predictor=(), stop_gradient=False)), 2 * stopped)


def test_each_view_is_its_own_batch() -> None:
    method = tiny()
    method(two_views(batch=8))
    assert method.backbone.batches == [8, 8]


def test_heads_are_those_of_the_authors() -> None:
    method = SimSiam(Recorder(feature_dim=6))
    projector, predictor = (
        [m for m in head if isinstance(m, nn.Linear)] for head in (method.projector, method.predictor)
    )
    assert [layer.weight.shape for layer in projector] == [(2048, 6), (2048, 2048), (2048, 2048)]
    assert all(layer.bias is None for layer in projector)
    output = method.projector[-1]
    assert isinstance(output, nn.BatchNorm1d) and not output.affine
    assert [layer.weight.shape for layer in predictor] == [(512, 2048), (2048, 512)]
    assert [layer.bias is None for layer in predictor] == [True, False]
    assert [type(module) for module in method.predictor] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]


@pytest.mark.parametrize(("output_norm", "affine"), [("plain", False), ("affine", True), ("none", None)])
def test_the_outputs_batch_norm_is_a_choice(output_norm: str, affine: bool | None) -> None:
    output = tiny(output_norm=output_norm).projector[-1]
    assert (output.affine if isinstance(output, nn.BatchNorm1d) else None) is affine
    with pytest.raises(SpecError, match="output_norm must be 'plain', 'affine' or 'none', got 'batch'"):
        tiny(output_norm="batch")


def rates(method: SimSiam, *, factor: float) -> dict[str, set[float]]:
    """Learning rates of the predictor's parameters and of all others, at a point of the schedule."""
    optimizer = build_optimizer(method.parameter_groups(), toy_spec(optimizer="sgd", lr=0.5).training)  # type: ignore[arg-type]
    set_learning_rates(optimizer, peak=0.5, factor=factor)
    predictor = {id(parameter) for parameter in method.predictor.parameters()}
    found: dict[str, set[float]] = {"predictor": set(), "rest": set()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            found["predictor" if id(parameter) in predictor else "rest"].add(group["lr"])
    return found


def test_the_predictor_keeps_its_learning_rate_unless_told_otherwise() -> None:
    assert rates(tiny(), factor=0.1) == {"predictor": {0.5}, "rest": {0.05}}
    assert rates(tiny(fix_predictor_lr=False), factor=0.1) == {"predictor": {0.05}, "rest": {0.05}}
    assert rates(tiny(predictor=()), factor=0.1) == {"predictor": set(), "rest": {0.05}}


def test_every_parameter_is_in_one_group() -> None:
    method = tiny()
    grouped = [id(parameter) for group in method.parameter_groups() for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in method.parameters())


def test_in_the_loop_the_predictor_moves_at_the_base_rate_while_the_rest_follows_the_schedule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[bool, float]] = []
    step = torch.optim.SGD.step

    def noting(self: torch.optim.SGD, *args: object, **kwargs: object) -> object:
        seen.append({group["constant_lr"]: group["lr"] for group in self.param_groups})
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", noting)
    torch.manual_seed(0)
    method = SimSiam(Recorder(pixels=64), projector=(8, 8, 4), predictor=(4, 4))
    train(method, toy_spec(epochs=2, batch_size=24, optimizer="sgd", lr=0.5, warmup_epochs=0.0))
    steps = 2 * (len(toy_images()) // 24)
    assert [rate[True] for rate in seen] == [0.5] * steps
    expected = [0.5 * (1 + math.cos(math.pi * k / steps)) / 2 for k in range(steps)]
    assert [rate[False] for rate in seen] == pytest.approx(expected)


def test_widths_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(SpecError, match=r"simsiam: the predictor ends with width 3, the projector with 4"):
        tiny(predictor=(2, 3))
