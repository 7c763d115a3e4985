"""MedAug's negatives by laterality, against sums written out in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.errors import SpecError
from bench.training.randomness import isolated_rng
from methods.medaug import MedAug, medaug_loss
from methods.moco_v1 import info_nce

from .networks import Recorder, two_views

SAME = torch.tensor([[True, True, False, False, False], [False] * 5, [True] * 5])
T = 0.2


def embeddings() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    q, k, queue = (torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in (3, 3, 5))
    return q, k, normalize(queue, dim=1)


def loss(negatives: str, q: Tensor, k: Tensor, queue: Tensor, *, share: float = 0.4, hard: float = 0.9) -> Tensor:
    terms = medaug_loss(q, k, queue, SAME, temperature=T, negatives=negatives, share=share, hard=hard)
    assert list(terms) == ["attraction", "repulsion"]
    return sum(terms.values(), start=torch.zeros(()))


def written_out(weights: list[list[float]], q: Tensor, k: Tensor, queue: Tensor) -> Tensor:
    """-log [ e₊ / (e₊ + Σ w e) ], one query and one key at a time."""
    losses = []
    for i in range(len(q)):
        query = q[i] / q[i].norm()
        positive = torch.exp(query @ k[i] / k[i].norm() / T)
        total = positive
        for weight, key in zip(weights[i], queue, strict=True):
            total = total + weight * torch.exp(query @ key / T)
        losses.append(-torch.log(positive / total))
    return torch.stack(losses).mean()


EXPECTED = {
    "default": [[1.0] * 5] * 3,
    # The second query has no key of its laterality and keeps all.
    "same_laterality": [[1.0, 1.0, 0.0, 0.0, 0.0], [1.0] * 5, [1.0] * 5],
    # r = 2/5: 0.9 / 0.4 and 0.1 / 0.6; where all keys are of one kind there is nothing to weigh.
    "reweighted": [[2.25, 2.25, 1 / 6, 1 / 6, 1 / 6], [1.0] * 5, [1.0] * 5],
}


@pytest.mark.parametrize("negatives", EXPECTED)
def test_values_and_gradients_are_those_of_the_sums_written_out(negatives: str) -> None:
    q, k, queue = embeddings()
    gradients = []
    for function in (
        lambda x: loss(negatives, x, k, queue),
        lambda x: written_out(EXPECTED[negatives], x, k, queue),
    ):
        x = q.clone().requires_grad_()
        value = function(x)
        value.backward()
        gradients.append((value.item(), x.grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-12)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-10, atol=1e-12)


def test_the_default_is_moco_s_loss() -> None:
    q, k, queue = embeddings()
    expected = info_nce(q, k, queue, temperature=T)
    found = medaug_loss(q, k, queue, SAME, temperature=T, negatives="default", share=0.1, hard=0.9)
    assert {name: value.item() for name, value in found.items()} == {n: v.item() for n, v in expected.items()}


def test_appended_keys_are_further_ones_of_the_same_laterality() -> None:
    q, k, queue = embeddings()
    queue[0] = queue[1]  # the first query can only draw this key
    with isolated_rng(0, "test"):
        found = loss("appended", q[:1].expand(3, -1), k[:1].expand(3, -1), queue)
    weights = [[3.0, 1.0, 1.0, 1.0, 1.0], [1.0] * 5]  # two more of it, and none for the query without any
    first = written_out(weights[:1], q[:1], k[:1], queue)
    second = written_out(weights[1:], q[:1], k[:1], queue)
    third = 3 * found - first - second  # two keys of the whole queue
    plain = second.item()
    least, most = (math.log(math.exp(plain) + 2 * math.exp(s / T) / positive(q, k)) for s in extremes(q, queue))
    assert least - 1e-6 <= third.item() <= most + 1e-6


def positive(q: Tensor, k: Tensor) -> float:
    return math.exp(float(normalize(q, dim=1)[0] @ normalize(k, dim=1)[0]) / T)


def extremes(q: Tensor, queue: Tensor) -> tuple[float, float]:
    similarities = queue @ normalize(q, dim=1)[0]
    return float(similarities.min()), float(similarities.max())


def test_synthetic_keys_have_unit_length_and_lie_between_keys_of_the_same_laterality() -> None:
    q, k, queue = embeddings()
    queue[0] = queue[1]  # a mixture of a key with itself is that key
    only = torch.tensor([[True, True, False, False, False]])
    arguments = {"temperature": T, "share": 0.4, "hard": 0.9}
    with isolated_rng(0, "test"):
        mixed = medaug_loss(q[:1], k[:1], queue, only, negatives="synthetic", **arguments)  # type: ignore[arg-type]
        drawn = medaug_loss(q[:1], k[:1], queue, only, negatives="appended", **arguments)  # type: ignore[arg-type]
    assert mixed["repulsion"].item() == pytest.approx(drawn["repulsion"].item(), rel=1e-6)
    with isolated_rng(0, "test"):
        further = loss("synthetic", q, k, normalize(torch.randn(5, 4, dtype=torch.float64), dim=1))
    assert further.isfinite()


def method(**params: object) -> MedAug:
    with isolated_rng(0, "heads"):
        return MedAug(Recorder(), projector=(8, 4), queue_size=6, bn_groups=1, **params)  # type: ignore[arg-type]


def test_the_queue_remembers_the_laterality_of_the_image_that_a_key_shows() -> None:
    own = method(negatives="same_laterality")
    views = two_views(4)
    sides = torch.tensor([[0, 1], [0, 0], [1, 1], [1, -1]])  # of the query's image, and of its partner
    own(views, sides)
    own.after_step(1, 2)
    assert own.queue_sides.flatten().tolist() == [1, 0, 1, -1, -1, -1]
    own(views, sides)
    own.after_step(2, 2)
    assert own.queue_sides.flatten().tolist() == [1, -1, 1, -1, 1, 0]
    torch.testing.assert_close(own.queue[4:], normalize(own.queue[4:], dim=1))


def test_unknown_lateralities_are_no_kind_of_their_own() -> None:
    own = method(negatives="same_laterality")
    own.queue_sides[:3] = 0
    views = two_views(4)
    default = method()
    unknown = torch.tensor([[-1, 0]] * 3 + [[0, 0]])
    one = own(views, unknown)["repulsion"].item()
    own.queue_sides[3:] = -1
    assert own(views, unknown)["repulsion"].item() == pytest.approx(one)
    assert default(views, unknown)["repulsion"].item() != pytest.approx(one)


def test_negatives_by_laterality_without_any_laterality_are_refused() -> None:
    views = two_views(4)
    nothing = torch.full((4, 2), -1)
    method()(views, nothing)
    with pytest.raises(SpecError, match=r"negatives 'appended' need lateralities.*Map a column"):
        method(negatives="appended")(views, nothing)


@pytest.mark.parametrize("params", [{"negatives": "hard"}, {"share": 0.0}, {"hard_share": 1.0}])
def test_settings_out_of_range_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="medaug"):
        method(**params)
