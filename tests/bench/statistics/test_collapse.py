"""Collapse diagnostics against reference values, closed forms and values worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import bench.statistics.collapse as collapse
from bench.statistics.collapse import (
    Ranks,
    covariance_spectrum,
    direction_std,
    pair_distances,
    participation_ratio,
    rankme,
    singular_values,
    uniformity,
)


def gaussian(n: int, d: int, *, rank: int | None = None, seed: int = 0) -> Tensor:
    """(n, d) float64; with ``rank`` in a random subspace of that many dimensions, evenly."""
    generator = torch.Generator().manual_seed(seed)
    if rank is None:
        return torch.randn(n, d, generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(d, rank, generator=generator, dtype=torch.float64)).Q  # (d, rank)
    return torch.randn(n, rank, generator=generator, dtype=torch.float64) @ basis.T


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(gaussian(d, d, seed=9)).Q


# --- reference values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1.0, -0.37, 1e-6])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_a_constant_vector_has_no_spread_and_no_dimension(value: float, kind: torch.dtype) -> None:
    x = (value * torch.linspace(0.1, 1.3, 128)).to(kind).expand(3000, 128)
    ranks = Ranks.of(x)
    assert direction_std(x) == pytest.approx(0.0, abs=1e-6) and uniformity(x) == pytest.approx(0.0, abs=1e-12)
    assert ranks.rankme == pytest.approx(1.0, abs=1e-3)
    assert ranks.rankme_centered == 0.0 and ranks.participation_ratio == 0.0
    assert not covariance_spectrum(x).any()


def test_zero_vectors_have_neither() -> None:
    ranks = Ranks.of(torch.zeros(20, 4))
    assert (ranks.rankme, ranks.rankme_centered, ranks.participation_ratio) == (0.0, 0.0, 0.0)
    assert direction_std(torch.zeros(20, 4)) == 0.0 and uniformity(torch.zeros(20, 4)) == 0.0


def test_an_isotropic_gaussian_of_128_dimensions_has_the_reference_values() -> None:
    x = gaussian(3000, 128)
    ranks = Ranks.of(x)
    assert direction_std(x) == pytest.approx(1.0, abs=2e-3)
    assert ranks.rankme == pytest.approx(127.3, abs=0.05)
    assert ranks.rankme_centered == pytest.approx(127.3, abs=0.05)
    assert ranks.participation_ratio == pytest.approx(122.7, abs=0.3)
    assert ranks.participation_ratio == pytest.approx(128 / (1 + 128 / 3000), rel=3e-3)
    assert uniformity(x) == pytest.approx(-3.938, abs=2e-3)
    assert uniformity(x) == pytest.approx(-4 + 8 / 128, abs=2e-3)


def test_finite_n_pulls_the_ranks_of_2048_dimensions_far_down() -> None:
    x = gaussian(3000, 2048).float()
    ranks = Ranks.of(x)
    assert ranks.rankme == pytest.approx(1824, abs=4)
    assert ranks.participation_ratio == pytest.approx(1216, abs=3)
    assert direction_std(x) == pytest.approx(1.0, abs=2e-3) and uniformity(x) == pytest.approx(-3.996, abs=2e-3)


def test_balanced_one_hot_vectors_have_closed_forms() -> None:
    d, copies = 128, 80  # N = 10 240: many blocks of pairs
    x = torch.eye(d).repeat(copies, 1)
    n = len(x)
    ranks = Ranks.of(x)
    assert direction_std(x) == pytest.approx(math.sqrt(1 - 1 / d), rel=1e-6) == pytest.approx(0.996, abs=1e-3)
    assert ranks.rankme == pytest.approx(128, abs=0.01) and ranks.participation_ratio == pytest.approx(127, rel=1e-6)
    same = (copies - 1) / (n - 1)
    value = uniformity(x)
    assert value == pytest.approx(math.log(same + (1 - same) * math.exp(-4)), rel=1e-9)
    assert value == pytest.approx(-3.650, abs=5e-3)


@pytest.mark.parametrize("rank", [2, 8, 32])
def test_a_gaussian_of_lower_rank_is_seen_by_the_ranks_and_not_by_the_std(rank: int) -> None:
    x = gaussian(3000, 128, rank=rank)
    ranks = Ranks.of(x)
    assert 0.75 < direction_std(x) <= 1.001  # the trap: SimSiam's std calls this healthy
    for value in (ranks.rankme, ranks.rankme_centered, ranks.participation_ratio):
        assert value == pytest.approx(rank, rel=0.02)
    spectrum = covariance_spectrum(x)
    assert int((spectrum > 1e-12 * spectrum[0]).sum()) == rank
    assert -4 + 8 / 128 < uniformity(x) < 0


# --- worked by hand ---------------------------------------------------------------------------------------------


def test_rankme_adds_epsilon_after_the_division() -> None:
    p = [3 / 4 + 1e-7, 1 / 4 + 1e-7]
    expected = math.exp(-sum(value * math.log(value) for value in p))
    assert rankme(torch.tensor([3.0, 1.0], dtype=torch.float64)) == pytest.approx(expected, rel=1e-12)
    x = torch.diag(torch.tensor([3.0, 1.0]))
    assert rankme(singular_values(x, centered=False)) == pytest.approx(expected, rel=1e-12)


def test_the_participation_ratio_of_three_eigenvalues() -> None:
    values = torch.tensor([4.0, 2.0, 2.0], dtype=torch.float64)
    assert participation_ratio(values) == pytest.approx(64 / 24)
    assert participation_ratio(values * 1e-200) == pytest.approx(64 / 24)  # squares underflow
    assert participation_ratio(torch.zeros(3)) == 0.0


def test_distances_and_uniformity_of_four_directions() -> None:
    x = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-5.0, 0.0]])
    y = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert pair_distances(x, y).tolist() == pytest.approx([0.0, 2.0, 4.0], abs=1e-12)
    assert pair_distances(x, y, alpha=1.0).tolist() == pytest.approx([0.0, 2**0.5, 2.0], abs=1e-12)
    # squared distances 2, 4, 2; no pair of a vector with itself
    assert uniformity(x) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3), rel=1e-12)
    assert uniformity(x, t=1.0) == pytest.approx(math.log((2 * math.exp(-2) + math.exp(-4)) / 3), rel=1e-12)
    assert uniformity(x[[0, 2]], t=400.0) == pytest.approx(-1600.0, rel=1e-12)  # the exponential itself underflows
    assert math.isnan(uniformity(x[:1]))


def test_the_spectrum_is_that_of_the_covariance_of_the_directions() -> None:
    x = 5 * gaussian(50, 7) + 1
    u = x / x.norm(dim=1, keepdim=True)
    expected = torch.linalg.eigvalsh(torch.cov(u.T)).flip(0)
    torch.testing.assert_close(covariance_spectrum(x), expected, rtol=1e-10, atol=0)
    plain = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    torch.testing.assert_close(covariance_spectrum(x, directions=False), plain, rtol=1e-10, atol=0)


# --- invariances and traps --------------------------------------------------------------------------------------


def measures(x: Tensor) -> list[float]:
    ranks = Ranks.of(x)
    return [
        ranks.rankme,
        ranks.rankme_centered,
        ranks.participation_ratio,
        uniformity(x),
        *covariance_spectrum(x).tolist(),
    ]


@pytest.mark.parametrize("shape", [(200, 12), (12, 40)])
def test_a_rotation_changes_nothing_but_the_std(shape: tuple[int, int]) -> None:
    x = gaussian(*shape) * torch.linspace(0.1, 2, shape[1], dtype=torch.float64)
    assert measures(x @ rotation(shape[1])) == pytest.approx(measures(x), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 7.0, 1e30])
def test_a_common_scale_changes_nothing(scale: float) -> None:
    x = gaussian(60, 9) + 0.5
    assert measures(scale * x) == pytest.approx(measures(x), rel=1e-9)
    assert direction_std(scale * x) == pytest.approx(direction_std(x), rel=1e-9)


def test_the_std_sees_one_filled_dimension_until_it_is_rotated_and_the_ranks_see_both() -> None:
    x = torch.zeros(400, 64, dtype=torch.float64)
    x[:, 0] = gaussian(400, 1)[:, 0]
    rotated = x @ rotation(64)
    assert direction_std(x) == pytest.approx(1 / 8, rel=0.01)
    assert direction_std(rotated) > 0.6
    assert Ranks.of(x).rankme == pytest.approx(1, abs=0.01) == pytest.approx(Ranks.of(rotated).rankme, abs=0.01)


def test_a_large_mean_hides_the_other_dimensions_unless_it_is_subtracted() -> None:
    x = 10 + 0.01 * gaussian(3000, 128)
    ranks = Ranks.of(x)
    assert ranks.rankme < 1.3 and ranks.rankme_centered == pytest.approx(127.3, abs=0.1)
    assert direction_std(x) < 2e-3


def test_rounding_of_a_constant_is_no_variance_but_small_noise_is() -> None:
    constant = torch.full((100, 16), 0.1) * torch.linspace(1, 2, 16)
    rounded = constant * (1 + 1e-7 * gaussian(100, 16).float())
    assert Ranks.of(rounded).rankme_centered == 0.0
    assert Ranks.of(constant + 1e-4 * gaussian(100, 16).float()).rankme_centered > 10


@pytest.mark.parametrize("n", [3, 20])
def test_n_caps_every_rank_and_stands_beside_it(n: int) -> None:
    ranks = Ranks.of(gaussian(n, 500))
    assert max(ranks.rankme, ranks.rankme_centered, ranks.participation_ratio) <= n + 0.01
    assert ranks.rankme_centered <= n - 1 + 0.01
    assert len(covariance_spectrum(gaussian(n, 500))) == n
    assert str(ranks).endswith(f"of 500 dimensions (N = {n})")


def test_singular_values_are_those_of_the_matrix_on_either_side() -> None:
    for shape in ((40, 11), (11, 40)):
        x = gaussian(*shape)
        expected = torch.linalg.svdvals(x)
        torch.testing.assert_close(singular_values(x, centered=False), expected, rtol=1e-9, atol=1e-9)
        centered = torch.linalg.svdvals(x - x.mean(dim=0))
        torch.testing.assert_close(singular_values(x, centered=True), centered, rtol=1e-6, atol=1e-6)


def test_blocks_of_pairs_do_not_change_the_uniformity(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gaussian(101, 6)
    whole = uniformity(x)
    direct = torch.pdist(x / x.norm(dim=1, keepdim=True)).square().mul(-2).exp().mean().log()
    monkeypatch.setattr(collapse, "PAIRS_PER_BLOCK", 101 * 7)
    assert uniformity(x) == pytest.approx(whole, rel=1e-12) == pytest.approx(float(direct), rel=1e-9)
