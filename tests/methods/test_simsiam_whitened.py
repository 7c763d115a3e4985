"""SimSiam on whitened embeddings: its two parents, and where it is one of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from bench.training.whitening import whiten
from methods.simsiam import SimSiam
from methods.simsiam_whitened import SimSiamWhitened
from methods.wmse import whitened_mse

from .embeddings import assert_same_value_and_gradients, correlated
from .networks import Recorder, two_views
from .whitening import distance, sub_batches_whitened


class Flat(nn.Module):
    """A backbone that returns its input: the views are the embeddings."""

    feature_dim = 3

    def forward(self, images: Tensor) -> Tensor:
        return images


def bare(kind: type[SimSiam] = SimSiamWhitened, **settings: object) -> SimSiam:
    """The method on embeddings of 3 dimensions: no projector, float64."""
    torch.manual_seed(0)
    method = kind(Flat(), **{"projector": (4, 3), "predictor": (5, 3)} | settings).double()  # type: ignore[arg-type]
    method.projector = nn.Identity()
    return method


def total(method: SimSiam, *views: Tensor, seed: int = 4) -> Tensor:
    torch.manual_seed(seed)
    return sum(method(views).values(), start=views[0].new_zeros(()))


def permutation(count: int, *, seed: int = 4) -> Tensor:
    torch.manual_seed(seed)
    return torch.randperm(count)


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-3])
@pytest.mark.parametrize("batch", [8, 24])
def test_loss_and_both_gradients_are_half_the_distance_of_prediction_and_white_embedding(
    batch: int, scale: float
) -> None:
    method, order = bare(sub_batch=8), permutation(batch)

    def equation(z1: Tensor, z2: Tensor) -> Tensor:
        w1, w2 = (sub_batches_whitened(z, order, 8) for z in (z1, z2))
        q1, q2 = method.predictor(w1), method.predictor(w2)
        return (distance(q1, w2.detach()) + distance(q2, w1.detach())) / 4 - 1  # -cos = dist/2 - 1

    assert_same_value_and_gradients(
        lambda *views: total(method, *views), equation, correlated(2, batch, 3, scale), rtol=1e-9
    )


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_without_predictor_and_stopped_gradient_it_is_w_mse(scale: float) -> None:
    method = bare(predictor=(), stop_gradient=False, sub_batch=8)
    order = permutation(24)[None]
    assert_same_value_and_gradients(
        lambda *views: 2 * total(method, *views) + 2,
        lambda *views: whitened_mse(*views, permutations=order, sub_batch=8)["distance"],
        correlated(2, 24, 3, scale),
    )


def test_on_white_embeddings_it_is_simsiam() -> None:
    z1, z2 = (whiten(z.detach()) for z in correlated(2, 24, 3, 1.0))
    whitened, plain = bare(sub_batch=24), bare(SimSiam)
    plain.load_state_dict(whitened.state_dict())
    for name, term in whitened((z1, z2)).items():
        torch.testing.assert_close(term, plain((z1, z2))[name], rtol=1e-10, atol=1e-12)
    z1, z2 = correlated(2, 24, 3, 1.0)  # elsewhere it is not
    assert total(whitened, z1, z2).item() != pytest.approx(total(plain, z1, z2).item(), rel=1e-3)


def test_the_batch_norm_of_the_projectors_output_makes_no_difference() -> None:
    torch.manual_seed(0)
    method = SimSiamWhitened(Recorder(), projector=(8, 3), predictor=(5, 3)).double()
    views = [view.double() for view in two_views(24)]
    with_norm = total(method, *views)
    method.projector = method.projector[:-1]
    torch.testing.assert_close(total(method, *views), with_norm, rtol=1e-3, atol=0)  # ε of the batch norm


def test_the_target_is_the_white_embedding_as_a_constant() -> None:
    method = bare()
    nn.init.zeros_(method.predictor[-1].weight)
    views = correlated(2, 24, 3, 1.0)
    assert not any(gradient.any() for gradient in torch.autograd.grad(total(method, *views), views))


def test_settings_reach_the_whitening() -> None:
    views = [z.detach() for z in correlated(2, 24, 3, 1.0)]
    base = total(bare(sub_batch=8), *views).item()
    assert total(bare(sub_batch=24), *views).item() != pytest.approx(base, rel=1e-4)
    assert total(bare(sub_batch=8, eps=0.5), *views).item() != pytest.approx(base, rel=1e-4)
    assert total(bare(sub_batch=8, stop_gradient=False), *views).item() == pytest.approx(base, rel=1e-10)


def test_the_embedding_fits_the_sub_batch_and_the_predictor_keeps_its_rate() -> None:
    method = SimSiamWhitened(Recorder())
    assert method.projector[-1].num_features * 2 <= method.sub_batch
    assert [group.get("constant_lr", False) for group in method.parameter_groups()] == [False, True]
    assert len(SimSiamWhitened(Recorder(), fix_predictor_lr=False).parameter_groups()) == 1


def test_wrong_settings_are_refused_in_its_own_name() -> None:
    with pytest.raises(
        SpecError, match=r"simsiam_whitened: sub_batch must be larger than the embedding's width .* got 1\."
    ):
        bare(sub_batch=1)
    with pytest.raises(SpecError, match=r"eps must lie in \[0, 1\], got 2\.0"):
        bare(eps=2.0)
    with pytest.raises(SpecError, match=r"simsiam_whitened: the predictor ends with width 2, the projector with 3"):
        bare(predictor=(5, 2))
