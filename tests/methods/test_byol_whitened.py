"""BYOL on whitened embeddings: its two parents, and where it is one of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from bench.training.whitening import whiten
from methods.byol import BYOL
from methods.byol_whitened import BYOLWhitened
from methods.wmse import whitened_mse

from .embeddings import assert_same_value_and_gradients, correlated
from .whitening import distance, sub_batches_whitened


class Linear(nn.Module):
    """A backbone of three features."""

    feature_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, images: Tensor) -> Tensor:
        return images @ self.weight.T


def bare(kind: type[BYOL] = BYOLWhitened, *, target: float | None = None, **settings: object) -> BYOL:
    """The method without projector, in float64; ``target`` scales the target network and turns it."""
    torch.manual_seed(0)
    method = kind(Linear(), **{"projector": (4, 3), "predictor": (5, 3)} | settings).double()  # type: ignore[arg-type]
    method.projector = nn.Identity()
    if method.target is not None:
        method.target = method.target[:1]
        if target is not None:
            with torch.no_grad():
                method.target[0].weight.copy_(target * torch.eye(3).roll(1, dims=0))
    return method


def total(method: BYOL, *views: Tensor, seed: int = 4) -> Tensor:
    torch.manual_seed(seed)
    return sum(method(views).values(), start=views[0].new_zeros(()))


def permutation(count: int, *, seed: int = 4) -> Tensor:
    torch.manual_seed(seed)
    return torch.randperm(count)


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-3])
@pytest.mark.parametrize("batch", [8, 24])
def test_loss_and_both_gradients_are_the_distances_of_prediction_and_white_target(batch: int, scale: float) -> None:
    method, order = bare(sub_batch=8, target=2.0), permutation(batch)

    def equation(x1: Tensor, x2: Tensor) -> Tensor:
        w1, w2 = (sub_batches_whitened(x, order, 8) for x in (x1, x2))
        t1, t2 = (sub_batches_whitened(2 * x.detach().roll(1, dims=1), order, 8) for x in (x1, x2))
        return distance(method.predictor(w1), t2) + distance(method.predictor(w2), t1)

    assert_same_value_and_gradients(
        lambda *views: total(method, *views), equation, correlated(2, batch, 3, scale), rtol=1e-9
    )


def test_without_predictor_and_stopped_gradient_it_is_twice_w_mse() -> None:
    method = bare(predictor=(), stop_gradient=False, sub_batch=8)
    order = permutation(24)[None]
    assert_same_value_and_gradients(
        lambda *views: total(method, *views) / 2,
        lambda *views: whitened_mse(*views, permutations=order, sub_batch=8)["distance"],
        correlated(2, 24, 3, 1.0),
    )


def test_on_white_embeddings_it_is_byol() -> None:
    views = [whiten(z.detach()) for z in correlated(2, 24, 3, 1.0)]
    whitened, plain = bare(sub_batch=24), bare(BYOL)
    plain.load_state_dict(whitened.state_dict())
    for name, term in whitened(views).items():
        torch.testing.assert_close(term, plain(views)[name], rtol=1e-10, atol=1e-12)
    views = [z.detach() for z in correlated(2, 24, 3, 1.0)]  # elsewhere it is not
    assert total(whitened, *views).item() != pytest.approx(total(plain, *views).item(), rel=1e-3)


def test_the_target_network_is_the_moving_average_of_byol() -> None:
    torch.manual_seed(0)
    method = BYOLWhitened(Linear(), projector=(4, 3), predictor=(5, 3), tau_base=0.5)
    assert method.target is not None
    with torch.no_grad():
        method.backbone.weight.add_(1.0)
    method.after_step(1, 4)
    torch.testing.assert_close(method.target[0].weight, torch.eye(3) + 0.5)


def test_settings_reach_the_whitening() -> None:
    views = [z.detach() for z in correlated(2, 24, 3, 1.0)]
    base = total(bare(sub_batch=8), *views).item()
    assert total(bare(sub_batch=24), *views).item() != pytest.approx(base, rel=1e-4)
    assert total(bare(sub_batch=8, eps=0.5), *views).item() != pytest.approx(base, rel=1e-4)


def test_the_embedding_fits_the_sub_batch() -> None:
    method = BYOLWhitened(Linear())
    assert method.projector[-1].out_features * 2 <= method.sub_batch


def test_wrong_settings_are_refused_in_its_own_name() -> None:
    with pytest.raises(
        SpecError, match=r"byol_whitened: sub_batch must be larger than the embedding's width .* got 1\."
    ):
        bare(sub_batch=1)
    with pytest.raises(SpecError, match=r"byol_whitened: tau_base must lie in \[0, 1\], got 3"):
        bare(tau_base=3.0)
