"""Detection against its definition, written as loops over anchors, candidates and support views."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from bench.training.false_negatives import check_detection, detect, highest, statistics_kept


def detected_by_loops(
    candidates: Tensor, support: Tensor, *, excluded: Tensor, aggregation: str, top_k: int, threshold: float
) -> list[list[bool]]:
    found = []
    for anchor in range(support.shape[1]):
        scores = {}
        for m, z in enumerate(candidates):
            cosines = [float(z.dot(s) / z.norm() / s.norm()) for s in support[:, anchor]]
            if not excluded[anchor, m]:
                scores[m] = max(cosines) if aggregation == "max" else sum(cosines) / len(cosines)
        best = sorted(scores, key=lambda m: (-scores[m], m))[: top_k or None]
        found.append([m in best and scores[m] > threshold for m in range(len(candidates))])
    return found


def random_case(anchors: int = 6, candidates: int = 20, views: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(candidates, 5, generator=generator, dtype=torch.float64)
    support = torch.randn(views, anchors, 5, generator=generator, dtype=torch.float64)
    excluded = torch.rand(anchors, candidates, generator=generator) < 0.2
    return z, support, excluded


@pytest.mark.parametrize("aggregation", ["max", "mean"])
@pytest.mark.parametrize("top_k", [0, 1, 4, 19, 20, 500])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.4, 2.0])
def test_detection_is_that_of_the_paper(aggregation: str, top_k: int, threshold: float) -> None:
    z, support, excluded = random_case()
    settings = {"excluded": excluded, "aggregation": aggregation, "top_k": top_k, "threshold": threshold}
    found = detect(z, support, **settings)
    assert found.dtype == torch.bool
    assert found.tolist() == detected_by_loops(z, support, **settings)


def test_support_views_belong_to_the_anchor_not_to_the_candidate() -> None:
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    candidates = torch.stack([east, north])
    support = torch.stack([north, north])[None]  # both anchors' further views look like candidate 1
    found = detect(
        candidates, support, excluded=torch.eye(2, dtype=torch.bool), aggregation="max", top_k=0, threshold=0.7
    )
    assert found.tolist() == [[False, True], [False, False]]


def test_one_view_in_eight_is_enough_for_the_maximum_and_not_for_the_mean() -> None:
    candidate = torch.tensor([[1.0, 0.0]])
    support = torch.tensor([[[0.0, 1.0]]] * 7 + [[[1.0, 0.0]]])  # (8, 1, 2)
    free = torch.zeros(1, 1, dtype=torch.bool)
    by_max, by_mean = (
        detect(candidate, support, excluded=free, aggregation=kind, top_k=1, threshold=0.7) for kind in ("max", "mean")
    )
    assert by_max.item() and not by_mean.item()


def test_a_score_at_the_threshold_is_below_it_and_length_does_not_count() -> None:
    candidates = torch.tensor([[100.0, 0.0], [3.0, 4.0]])
    support = torch.tensor([[[0.01, 0.0]]])
    free = torch.zeros(1, 2, dtype=torch.bool)
    cosine = float(torch.tensor([3.0, 4.0]).div(5.0)[0])
    found = detect(candidates, support, excluded=free, aggregation="max", top_k=0, threshold=cosine)
    assert found.tolist() == [[True, False]]


def test_equal_scores_are_taken_in_the_order_of_the_candidates() -> None:
    scores = torch.tensor([[0.5, 0.9, 0.9, 0.9, 0.5, 0.9], [0.3, 0.3, 0.3, 0.3, 0.3, 0.9]])
    excluded = torch.zeros(2, 6, dtype=torch.bool)
    excluded[0, 1] = True
    assert highest(scores, excluded=excluded, top_k=2, threshold=0.0).int().tolist() == [
        [0, 0, 1, 1, 0, 0],
        [1, 0, 0, 0, 0, 1],
    ]


def test_what_is_excluded_takes_no_place_and_is_never_found() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.7]])
    excluded = torch.tensor([[True, False, False]])
    assert highest(scores, excluded=excluded, top_k=2, threshold=-5.0).tolist() == [[False, True, True]]
    everything = torch.ones(1, 3, dtype=torch.bool)
    assert not highest(scores, excluded=everything, top_k=2, threshold=-float("inf")).any()


def test_no_support_views_find_nothing() -> None:
    z, support, excluded = random_case()
    assert not detect(z, support[:0], excluded=excluded, aggregation="max", top_k=0, threshold=-2.0).any()


def test_inputs_stay_and_nothing_is_differentiated() -> None:
    z, support, excluded = random_case()
    z.requires_grad_()
    copies = [x.detach().clone() for x in (z, support, excluded)]
    found = detect(z, support, excluded=excluded, aggregation="mean", top_k=3, threshold=0.0)
    assert not found.requires_grad
    assert all(torch.equal(x, copy) for x, copy in zip((z, support, excluded), copies, strict=True))


def test_autocast_does_not_round_the_scores() -> None:
    z, support, excluded = (x.float() if x.is_floating_point() else x for x in random_case(40, 400))
    settings = {"excluded": excluded, "aggregation": "max", "top_k": 7, "threshold": 0.3}
    outside = detect(z, support, **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(detect(z, support, **settings), outside)


def test_halves_are_scored_in_float32() -> None:
    z, support, excluded = random_case()
    settings = {"excluded": excluded, "aggregation": "max", "top_k": 3, "threshold": 0.2}
    rounded = [x.bfloat16() for x in (z, support)]
    assert torch.equal(detect(*rounded, **settings), detect(*(x.float() for x in rounded), **settings))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_batch_statistics_are_used_and_leave_no_trace(momentum: float | None) -> None:
    norm = nn.BatchNorm1d(3, momentum=momentum)
    norm(torch.randn(5, 3))
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    x = 5 + torch.randn(8, 3)
    with statistics_kept(nn.Sequential(norm)):
        inside = norm(x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
    assert norm.momentum == momentum
    torch.testing.assert_close(inside.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm(x), inside)
    assert not torch.equal(norm.running_mean, before["running_mean"])


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(SpecError, match="mine: aggregation must be 'max' or 'mean', got 'median'"):
        check_detection("mine", support_views=8, top_k=10, aggregation="median")
    with pytest.raises(SpecError, match=r"mine: support_views and top_k must be 0 or more, got 8 and -1.*no limit"):
        check_detection("mine", support_views=8, top_k=-1, aggregation="max")
    with pytest.raises(SpecError, match="got -2 and 0"):
        check_detection("mine", support_views=-2, top_k=0, aggregation="max")
