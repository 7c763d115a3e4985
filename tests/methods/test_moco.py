"""MoCo v1 and v2 against Eq. 1, Eq. 2, Algorithm 1 and section 3.3 of arXiv:1911.05722."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench.errors import SpecError
from bench.training.keys import encode_shuffled, enqueue
from bench.training.norm import grouped_batch_norm
from methods.moco_v1 import MoCo, info_nce
from methods.moco_v2 import MoCoV2

from .embeddings import SHAPES_AND_SCALES, assert_same_value_and_gradients, correlated
from .networks import Recorder, two_views


def equation_1(q: Tensor, k: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Query by query: the positive is key 0 of K + 1."""
    total = q.new_zeros(())
    for query, key in zip(q, k, strict=True):
        query, key = query / query.dot(query).sqrt(), key / key.dot(key).sqrt()
        scores = [torch.exp(query.dot(other) / temperature) for other in (key, *queue)]
        total = total - torch.log(scores[0] / sum(scores))
    return total / len(q)


def random_queue(size: int, dim: int) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    return normalize(torch.randn(size, dim, generator=generator, dtype=torch.float64), dim=1)


def loss(q: Tensor, k: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    return sum(info_nce(q, k, queue, temperature=temperature).values(), start=q.new_zeros(()))


def tiny(kind: type[MoCo] = MoCo, **settings: object) -> MoCo:
    torch.manual_seed(0)
    return kind(Recorder(), **{"projector": (8, 4), "queue_size": 10, "bn_groups": 1, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_loss_and_the_querys_gradient_are_those_of_the_paper(
    batch: int, dim: int, scale: float, temperature: float
) -> None:
    q, k = correlated(2, batch, dim, scale)
    queue = random_queue(11, dim)
    assert_same_value_and_gradients(
        lambda q: loss(q, k, queue, temperature=temperature),
        lambda q: equation_1(q, k.detach(), queue, temperature=temperature),
        [q],
    )


def test_keys_get_no_gradient() -> None:
    q, k = correlated(2, 5, 4, 1.0)
    of_query, of_key = torch.autograd.grad(loss(q, k, random_queue(6, 4), temperature=0.2), (q, k), allow_unused=True)
    assert of_query is not None and of_key is None


def test_two_negatives_worked_by_hand() -> None:
    e = torch.eye(3, dtype=torch.float64)
    terms = info_nce(2 * e[:1], 5 * e[:1], e[1:], temperature=1.0)
    assert terms["attraction"].item() == pytest.approx(-1.0, abs=1e-14)
    assert terms["repulsion"].item() == pytest.approx(math.log(math.e + 2), abs=1e-14)


def test_a_key_is_no_negative_in_its_own_step_and_the_oldest_leave_first() -> None:
    method, start = tiny(queue_size=5, projector=(3,)), tiny(queue_size=5, projector=(3,)).queue
    made = []
    for step, (batch, pointer) in enumerate([(2, 2), (2, 4), (2, 1), (3, 4)], start=1):
        before = method.queue.clone()
        views = [torch.randn(batch, 1, 4, 4) for _ in range(2)]
        with torch.no_grad():
            made.append(normalize(method.target(views[1]), dim=1))
        terms = method(views)
        assert torch.equal(method.queue, before)
        q = normalize(method.projector(method.backbone(views[0])), dim=1)
        torch.testing.assert_close(sum(terms.values()), equation_1(q, made[-1], before, temperature=0.07))
        method.after_step(step, 4)
        assert int(method.pointer) == pointer
    a, b, c, d = made
    # Steps 1 to 4 write rows 01, 23, 40, 123; nothing of the random start is left.
    torch.testing.assert_close(method.queue, torch.stack([c[1], d[0], d[1], d[2], c[0]]))
    assert not torch.isclose(method.queue, start).all(dim=1).any()
    assert not any(torch.isclose(method.queue, row).all(dim=1).any() for row in (*a, *b))


def test_the_first_steps_fill_the_queue_from_its_start() -> None:
    queue, pointer = torch.zeros(5, 2), torch.zeros((), dtype=torch.int64)
    east, north = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    enqueue(queue, pointer, torch.cat([east, north]))
    assert queue.tolist() == [[1, 0], [0, 1], [0, 0], [0, 0], [0, 0]] and pointer == 2
    enqueue(queue, pointer, north.repeat(4, 1))
    assert queue.tolist() == [[0, 1], [0, 1], [0, 1], [0, 1], [0, 1]] and pointer == 1
    enqueue(queue, pointer, east)
    assert queue.tolist() == [[0, 1], [1, 0], [0, 1], [0, 1], [0, 1]] and pointer == 2


def test_a_batch_larger_than_the_queue_leaves_its_newest_keys() -> None:
    queue, pointer = torch.zeros(3, 2), torch.ones((), dtype=torch.int64)
    keys = normalize(torch.arange(14.0).view(7, 2) + 1, dim=1)
    enqueue(queue, pointer, keys)
    torch.testing.assert_close(queue, keys[[6, 4, 5]])
    assert pointer == 1


def test_the_queue_starts_with_random_directions_of_unit_length() -> None:
    queue = tiny(queue_size=500, projector=(16,)).queue
    torch.testing.assert_close(queue.norm(dim=1), torch.ones(500))
    assert queue.mean(dim=0).abs().max() < 0.05
    assert torch.equal(queue, tiny(queue_size=500, projector=(16,)).queue)


class AuthorsOrder:
    """Algorithm 1 as the authors run it: average, encode keys, logits, enqueue, then the optimizer."""

    def __init__(self, online: nn.Module, queue: Tensor, *, m: float, temperature: float, lr: float) -> None:
        self.online, self.target = online, copy.deepcopy(online)
        self.queue, self.m, self.temperature, self.lr = list(queue.clone()), m, temperature, lr

    def step(self, views: list[Tensor]) -> float:
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                slow.copy_(self.m * slow + (1 - self.m) * fast)
            keys = self.target(views[1])
        value = equation_1(self.online(views[0]), keys, torch.stack(self.queue), temperature=self.temperature)
        # The order of the keys does not matter to the loss, so a list that drops its oldest is a queue.
        self.queue = [*self.queue, *normalize(keys, dim=1)][len(keys) :]
        gradients = torch.autograd.grad(value, list(self.online.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(self.online.parameters(), gradients, strict=True):
                parameter.sub_(self.lr * gradient)
        return value.item()


def test_a_training_is_that_of_the_authors_order() -> None:
    method = tiny(momentum=0.7, queue_size=7).double()
    online = copy.deepcopy(nn.Sequential(method.backbone, method.projector))
    reference = AuthorsOrder(online, method.queue, m=0.7, temperature=0.07, lr=0.05)
    optimizer = torch.optim.SGD(method.parameter_groups()[0]["params"], lr=0.05)
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 7):
        views = [torch.randn(3, 1, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
        value = torch.stack(tuple(method(views).values())).sum()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        method.after_step(step, 6)
        assert value.item() == pytest.approx(reference.step(views), rel=1e-10)


def test_momentum_is_the_same_in_every_step() -> None:
    method = tiny(momentum=0.9)
    before = [p.detach().clone() for p in method.target.parameters()]
    online = list(nn.Sequential(method.backbone, method.projector).parameters())
    for step in (1, 50, 99):
        with torch.no_grad():
            for parameter in online:
                parameter.add_(1.0)
        method.after_step(step, 100)
        before = [0.9 * slow + 0.1 * fast.detach() for slow, fast in zip(before, online, strict=True)]
        for slow, expected in zip(method.target.parameters(), before, strict=True):
            torch.testing.assert_close(slow.detach(), expected)


def test_the_momentum_encoder_starts_as_a_copy_that_is_not_trained() -> None:
    method = tiny()
    online = nn.Sequential(method.backbone, method.projector).state_dict()
    assert all(torch.equal(tensor, online[name]) for name, tensor in method.target.state_dict().items())
    trained = {id(p) for group in method.parameter_groups() for p in group["params"]}
    assert trained == {id(p) for p in (*method.backbone.parameters(), *method.projector.parameters())}


def test_queue_pointer_and_momentum_encoder_survive_a_checkpoint() -> None:
    def run(method: MoCo, steps: range) -> list[float]:
        values = []
        for step in steps:
            torch.manual_seed(step)
            terms = method([torch.randn(4, 1, 4, 4) for _ in range(2)])
            with torch.no_grad():
                for parameter in method.backbone.parameters():
                    parameter.add_(0.01 * step)
            method.after_step(step, 10)
            values.append(torch.stack(tuple(terms.values())).sum().item())
        return values

    method = tiny(momentum=0.5)
    run(method, range(3))
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    resumed = tiny(momentum=0.5)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert {"queue", "pointer"} <= set(resumed.state_dict()) and resumed.pointer == 2
    assert run(resumed, range(3, 8)) == run(method, range(3, 8))
    assert torch.equal(resumed.queue, method.queue) and resumed.pointer == method.pointer == 2


class Normed(nn.Module):
    """Batch norm of the pixels: its output shows with which images one was normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 16
        self.norm = nn.BatchNorm1d(16)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.norm(images.flatten(1))
        return out


def normalized_by_parts(x: Tensor, parts: list[list[int]]) -> Tensor:
    out = torch.empty_like(x)
    for rows in parts:
        part = x[rows]
        out[rows] = (part - part.mean(dim=0)) / (part.var(dim=0, correction=0) + 1e-5).sqrt()
    return out


def test_keys_are_normalized_in_shuffled_parts_and_come_back_in_order() -> None:
    x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    torch.manual_seed(7)
    order = torch.randperm(8).tolist()
    torch.manual_seed(7)
    keys = encode_shuffled(Normed(), x, groups=2)
    parts = [order[:4], order[4:]]
    assert parts != [sorted(part) for part in parts]  # not the order of the images
    torch.testing.assert_close(keys, normalized_by_parts(x.flatten(1), parts))
    in_order = normalized_by_parts(x.flatten(1), [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert not torch.isclose(keys, in_order).all(dim=1).any()


def test_without_batch_norm_shuffling_changes_nothing() -> None:
    method, (x, _) = tiny(), two_views()
    torch.testing.assert_close(encode_shuffled(method.target, x, groups=4), method.target(x))


def test_queries_are_normalized_in_parts_too_but_in_order() -> None:
    torch.manual_seed(0)
    method = MoCo(Normed(), projector=(4,), queue_size=10, bn_groups=4)
    x1, x2 = two_views(8)
    q, k = method.query_and_key([x1, x2])
    parts = [[0, 1], [2, 3], [4, 5], [6, 7]]
    torch.testing.assert_close(q, method.projector(normalized_by_parts(x1.flatten(1), parts)))
    in_order = method.target[1](normalized_by_parts(x2.flatten(1), parts))
    assert not torch.isclose(k, in_order).all(dim=1)[2:].any()  # chance left the first part together


def test_one_group_turns_shuffled_batch_norm_off() -> None:
    torch.manual_seed(0)
    method = MoCo(Normed(), projector=(4,), queue_size=10, bn_groups=1)
    views = two_views(8)
    q, k = method.query_and_key(views)
    torch.testing.assert_close(q, method.projector(method.backbone(views[0])))
    torch.testing.assert_close(k, method.target(views[1]))


def test_running_statistics_move_once_in_each_encoder() -> None:
    torch.manual_seed(0)
    method = MoCo(Normed(), projector=(4,), queue_size=10, bn_groups=4)
    method(two_views(8))
    assert int(method.backbone.norm.num_batches_tracked) == int(method.target[0].norm.num_batches_tracked) == 1
    assert not torch.equal(method.backbone.norm.running_mean, method.target[0].norm.running_mean)


def test_more_parts_than_images_are_refused() -> None:
    method = MoCo(Normed(), projector=(4,), queue_size=10, bn_groups=8)
    with pytest.raises(SpecError, match="cannot be divided into 8"):
        method(two_views(4))
    with grouped_batch_norm(method.backbone, 4):  # the patched forward is gone
        method.backbone(torch.randn(8, 1, 4, 4))


def test_heads_and_temperatures_are_those_of_the_two_papers() -> None:
    first, second = MoCo(Recorder(feature_dim=6)), MoCoV2(Recorder(feature_dim=6))
    assert [type(layer) for layer in first.projector] == [nn.Linear]
    assert [type(layer) for layer in second.projector] == [nn.Linear, nn.ReLU, nn.Linear]
    shapes = [[p.shape for p in method.projector.parameters()] for method in (first, second)]
    assert shapes == [[(128, 6), (128,)], [(2048, 6), (2048,), (128, 2048), (128,)]]
    assert (first.temperature, second.temperature) == (0.07, 0.2)
    for method in (first, second):
        assert (method.momentum, method.bn_groups, method.queue.shape) == (0.999, 8, (65536, 128))


@pytest.mark.parametrize("kind", [MoCo, MoCoV2])
def test_settings_reach_the_loss(kind: type[MoCo]) -> None:
    views = two_views()
    values = {}
    for temperature in (0.1, 0.5):
        method = tiny(kind, temperature=temperature)
        values[temperature] = torch.stack(tuple(method(views).values())).sum()
        q, k = method.query_and_key(views)
        torch.testing.assert_close(values[temperature], equation_1(q, k, method.queue, temperature=temperature))
    assert values[0.1] != values[0.5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, r"temperature must be above 0, got 0\.0.*0\.07"),
        ({"momentum": 1.5}, r"momentum must lie in \[0, 1\], got 1\.5.*0\.999"),
        ({"queue_size": 0}, "queue_size and bn_groups must be 1 or more, got 0 and 1.*65536"),
        ({"bn_groups": 0}, "got 10 and 0"),
    ],
)
@pytest.mark.parametrize("kind", [MoCo, MoCoV2])
def test_wrong_settings_are_refused(kind: type[MoCo], settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=f"{kind.key}: .*{message}|{kind.key}: {message}"):
        tiny(kind, **settings)
