from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.statistics.collapse import Ranks, pair_distances, uniformity
from bench.training.diagnostics import Spread, diagnostic_terms, measured_spread

from .toys import Contrast, Momentum, make


def test_even_directions_spread_by_one_and_equal_ones_by_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    assert Spread.of(torch.randn(4096, 32, generator=generator)).std == pytest.approx(1.0, abs=0.01)
    assert Spread.of(torch.ones(64, 32)).std == pytest.approx(0.0, abs=1e-6)
    assert Spread.of(torch.zeros(64, 32)).std == 0.0


def test_the_length_of_the_vectors_does_not_count_for_their_directions() -> None:
    directions = torch.randn(64, 8)
    lengths = torch.rand(64, 1) + 0.1
    assert Spread.of(directions * lengths).std == pytest.approx(Spread.of(directions).std, rel=1e-5)
    assert Spread.of(3 * directions).scale == pytest.approx(3 * Spread.of(directions).scale, rel=1e-5)


def test_the_spread_of_two_opposite_points_is_known() -> None:
    # both dimensions of (1, 0) and (-1, 0): std 1 and 0, mean 0.5, times sqrt(2)
    spread = Spread.of(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))
    assert spread.std == pytest.approx(0.5 * 2**0.5) and spread.scale == pytest.approx(0.75)


def test_outputs_of_all_calls_are_joined_and_the_hooks_removed() -> None:
    method = make(Contrast)
    found: dict[str, Spread] = {}
    views = [torch.rand(6, 1, 8, 8), torch.rand(6, 1, 8, 8)]
    outputs = []
    handle = method.backbone.register_forward_hook(lambda _, __, output: outputs.append(output.detach()))
    with measured_spread(method, found):
        method(views)
    handle.remove()
    assert set(found) == {"representation_std", "embedding_std"}
    assert found["representation_std"] == Spread.of(torch.cat(outputs))
    assert not method.backbone._forward_hooks and not method.projector._forward_hooks


def test_a_method_without_projector_has_no_embedding_spread() -> None:
    method = nn.Module()
    method.backbone = nn.Linear(2, 2)
    found: dict[str, Spread] = {}
    with measured_spread(method, found):
        method.backbone(torch.randn(4, 2))
    assert set(found) == {"representation_std"}


# --- what an epoch keeps of it ---


class Joined(Contrast):
    """All views in one batch, in an order of its own."""

    order = (0, 1)

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        z = self.projector(self.backbone(torch.cat([views[i] for i in self.order])))
        return {"loss": z.square().mean()}


class Swapped(Joined):
    order = (1, 0)


class Augmented(Joined):
    """The backbone sees pixels that are none of the views."""

    def forward(self, views: list[Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        return super().forward([1 - view for view in views])


def terms_of(kind: type, *, views: int = 2) -> tuple[dict[str, float], list[Tensor], nn.Module]:
    method = make(kind).eval()
    images = [torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(views)]
    found: dict[str, Spread] = {}
    with measured_spread(method, found):
        method(images)
    return diagnostic_terms(found), images, method


@pytest.mark.parametrize("kind", [Contrast, Joined, Swapped])
def test_an_epoch_keeps_the_measures_of_both_views_however_the_method_passes_them(kind: type) -> None:
    terms, views, method = terms_of(kind)
    h1, h2 = (method.backbone(view) for view in views)
    ranks = Ranks.of(h1)  # every image once
    assert terms["representation_alignment"] == pytest.approx(float(pair_distances(h1, h2).mean()), rel=1e-5)
    assert terms["representation_uniformity"] == pytest.approx((uniformity(h1) + uniformity(h2)) / 2, rel=1e-5)
    assert terms["representation_rankme"] == pytest.approx(ranks.rankme, rel=1e-4)
    assert terms["representation_rankme_centered"] == pytest.approx(ranks.rankme_centered, rel=1e-4)
    assert terms["representation_participation_ratio"] == pytest.approx(ranks.participation_ratio, rel=1e-4)
    assert terms["representation_samples"] == 6 and terms["representation_images"] == 6
    assert terms["embedding_dimensions"] == 8
    z1, z2 = method.projector(h1), method.projector(h2)
    assert terms["embedding_alignment"] == pytest.approx(float(pair_distances(z1, z2).mean()), rel=1e-4)
    assert terms["embedding_scale"] == pytest.approx(Spread.of(torch.cat([z1, z2])).scale, rel=1e-5)


def test_a_method_whose_backbone_sees_one_view_has_no_alignment() -> None:
    terms, views, method = terms_of(Momentum)
    assert "embedding_alignment" not in terms and terms["embedding_samples"] == 6
    h = method.backbone(views[0])
    assert terms["representation_uniformity"] == pytest.approx(uniformity(h), rel=1e-5)


def test_views_that_cannot_be_told_give_ranks_only() -> None:
    terms, _, _ = terms_of(Augmented)
    assert terms["embedding_samples"] == 12 and terms["embedding_rankme"] > 1
    assert not {name for name in terms if name.endswith(("alignment", "uniformity", "images"))}


def test_of_more_than_two_views_the_first_two_are_compared() -> None:
    class Three(Joined):
        order = (2, 0, 1)

    terms, views, method = terms_of(Three, views=3)
    h1, h2 = (method.backbone(view) for view in views[:2])
    assert terms["representation_alignment"] == pytest.approx(float(pair_distances(h1, h2).mean()), rel=1e-5)
    assert terms["representation_samples"] == 6


def test_vectors_that_are_not_finite_have_no_measures() -> None:
    spread = Spread.of(torch.full((4, 2), torch.inf))
    assert set(diagnostic_terms({"embedding_std": spread})) == {"embedding_std", "embedding_scale"}


def test_the_numbers_of_an_earlier_look_need_no_vectors() -> None:
    found = {"embedding_std": Spread(std=0.5, scale=2.0)}
    assert diagnostic_terms(found) == {"embedding_std": 0.5, "embedding_scale": 2.0}
