"""FNC on SimCLR and MoCo against the paper's equations (arXiv:2011.11765) and the authors' released loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from bench.errors import SpecError
from methods.moco_fnc import MoCoFNC, info_nce_fnc
from methods.moco_v2 import MoCoV2
from methods.simclr import SimCLR, nt_xent
from methods.simclr_fnc import SimCLRFNC, nt_xent_fnc

from .embeddings import SHAPES_AND_SCALES, assert_same_value_and_gradients, correlated
from .networks import Recorder
from .test_moco import random_queue

DETECTION = {"aggregation": "max", "top_k": 3, "threshold": 0.4}
NOTHING = {"aggregation": "max", "top_k": 10, "threshold": 1.5}
Name = tuple[int, int]  # view, image


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return a.dot(b) / (a.dot(a).sqrt() * b.dot(b).sqrt())


def false_negatives(
    scoring: Sequence[Tensor], candidates: dict[Name, Tensor], *, aggregation: str, top_k: int, threshold: float
) -> list[Name]:
    """F_i, from the anchor's scoring views and the embeddings of other images, by name."""
    scores = {}
    for name, z in candidates.items():
        cosines = [cosine(z, s).item() for s in scoring]
        scores[name] = max(cosines) if aggregation == "max" else sum(cosines) / len(cosines)
    best = sorted(scores, key=lambda name: -scores[name])[: top_k or None]
    return [name for name in best if scores[name] > threshold]


def paper(
    z1: Tensor, z2: Tensor, support: Sequence[Tensor], *, temperature: float, strategy: str, **detection: object
) -> Tensor:
    """The mean over the 2N anchors of the attraction or elimination loss."""
    n, z = len(z1), {(v, i): row for v, view in enumerate((z1, z2)) for i, row in enumerate(view)}
    total = z1.new_zeros(())
    for (v, i), anchor in z.items():
        others = {name: other for name, other in z.items() if name[1] != i}
        found = false_negatives([view[i] for view in support], others, **detection) if len(support) else []
        kept = [k for k in z if k != (v, i) and (strategy == "attraction" or k not in found)]
        denominator = sum(torch.exp(cosine(anchor, z[k]) / temperature) for k in kept)

        def log_p(name: Name, anchor: Tensor = anchor, denominator: Tensor = denominator) -> Tensor:
            return cosine(anchor, z[name]) / temperature - torch.log(denominator)

        if strategy == "attraction":
            total = total - (log_p((1 - v, i)) + sum(log_p(f) for f in found)) / (1 + len(found))
        else:
            total = total - log_p((1 - v, i))
    return total / (2 * n)


def authors(*views: Tensor, temperature: float, **detection: object) -> Tensor:
    """The released loss: every view is an anchor, all views score, own views and F_i are the positives."""
    count, n = len(views), len(views[0])
    z = {(v, i): row for v, view in enumerate(views) for i, row in enumerate(view)}
    total = views[0].new_zeros(())
    for v in range(count):
        of_view = views[0].new_zeros(())
        for i in range(n):
            others = {name: other for name, other in z.items() if name[1] != i}
            found = false_negatives([view[i] for view in views], others, **detection)
            positives = [(u, i) for u in range(count) if u != v] + found
            numerator = sum(cosine(z[v, i], z[k]) for k in positives) / temperature
            logits = [cosine(z[v, i], z[k]) / temperature for k in z if k != (v, i)]
            of_view = of_view - numerator / (count - 1 + len(found)) + torch.stack(logits).logsumexp(0)
        total = total + of_view / n
    return total * 2 / count


def moco_paper(
    q: Tensor, k: Tensor, queue: Tensor, support: Tensor, *, temperature: float, strategy: str, **detection: object
) -> Tensor:
    total = q.new_zeros(())
    for i, (query, key) in enumerate(zip(q, k, strict=True)):
        keys = {(0, m): row for m, row in enumerate(queue)}
        found = false_negatives(list(support[:, i]), keys, **detection)
        kept = [row for name, row in keys.items() if strategy == "attraction" or name not in found]
        denominator = sum(torch.exp(cosine(query, other) / temperature) for other in (key, *kept))
        attracted = [key] + ([keys[f] for f in found] if strategy == "attraction" else [])
        logs = [cosine(query, other) / temperature - torch.log(denominator) for other in attracted]
        total = total - sum(logs) / len(logs)
    return total / len(q)


def summed(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(tuple(terms.values())).sum()


def ours(
    *z: Tensor, support: Tensor, definition: str = "paper", strategy: str = "attraction", **settings: object
) -> Tensor:
    return summed(nt_xent_fnc(torch.stack(z), support, definition=definition, strategy=strategy, **settings))  # type: ignore[arg-type]


def found_count(z: Sequence[Tensor], support: Tensor, **detection: object) -> int:
    rows = {(v, i): row for v, view in enumerate(z) for i, row in enumerate(view)}
    return sum(
        len(false_negatives(list(support[:, i]), {k: r for k, r in rows.items() if k[1] != i}, **detection))
        for i in range(len(z[0]))
    )


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
@pytest.mark.parametrize("strategy", ["attraction", "elimination"])
@pytest.mark.parametrize("aggregation", ["max", "mean"])
def test_loss_and_both_gradients_are_those_of_the_paper(
    batch: int, dim: int, scale: float, strategy: str, aggregation: str
) -> None:
    z1, z2, *others = correlated(5, batch, dim, scale)
    support = torch.stack([view.detach() for view in others])
    detection = {**DETECTION, "aggregation": aggregation, "threshold": 0.2 if dim == 32 else 0.4}
    assert batch == 2 or found_count([z1, z2], support, **detection) > 0
    assert_same_value_and_gradients(
        lambda z1, z2: ours(z1, z2, support=support, strategy=strategy, temperature=0.2, **detection),
        lambda z1, z2: paper(z1, z2, support, strategy=strategy, temperature=0.2, **detection),
        [z1, z2],
    )


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
def test_code_agrees_with_the_released_loss_in_the_gradient_of_every_view(batch: int, dim: int, scale: float) -> None:
    views = correlated(4, batch, dim, scale)
    detection = {**DETECTION, "threshold": 0.2 if dim == 32 else 0.4}
    assert_same_value_and_gradients(
        lambda *z: ours(*z, support=torch.stack(z).detach(), definition="code", temperature=0.1, **detection),
        lambda *z: authors(*z, temperature=0.1, **detection),
        views,
    )


@pytest.mark.parametrize(("batch", "dim", "scale"), SHAPES_AND_SCALES)
@pytest.mark.parametrize("strategy", ["attraction", "elimination"])
@pytest.mark.parametrize("aggregation", ["max", "mean"])
def test_loss_and_the_querys_gradient_with_a_queue_are_those_of_the_paper(
    batch: int, dim: int, scale: float, strategy: str, aggregation: str
) -> None:
    q, k, *others = correlated(5, batch, dim, scale)
    queue, support = random_queue(40, dim), torch.stack([view.detach() for view in others])
    settings = {"strategy": strategy, "temperature": 0.2, "aggregation": aggregation, "top_k": 3, "threshold": 0.1}
    plain = moco_paper(q, k, queue, support, **{**settings, "threshold": 2.0})  # type: ignore[arg-type]
    assert plain.item() != pytest.approx(moco_paper(q, k, queue, support, **settings).item(), rel=1e-6)  # type: ignore[arg-type]
    assert_same_value_and_gradients(
        lambda q: summed(info_nce_fnc(q, k, queue, support, **settings)),  # type: ignore[arg-type]
        lambda q: moco_paper(q, k.detach(), queue, support, **settings),  # type: ignore[arg-type]
        [q],
    )


def test_two_images_of_one_kind_and_one_of_another_worked_by_hand() -> None:
    east, north = [1.0, 0.0], [0.0, 1.0]
    z = torch.tensor([east, east, north], dtype=torch.float64)
    settings = {"temperature": 1.0, "aggregation": "max", "top_k": 10, "threshold": 0.7, "definition": "paper"}
    attraction = nt_xent_fnc(torch.stack([z, z]), z[None], strategy="attraction", **settings)  # type: ignore[arg-type]
    elimination = nt_xent_fnc(torch.stack([z, z]), z[None], strategy="elimination", **settings)  # type: ignore[arg-type]
    # All positives have similarity 1. An east has three easts and two norths beside it, two of the easts false
    # negatives; a north has one north and four easts.
    assert attraction["attraction"].item() == elimination["attraction"].item() == pytest.approx(-1.0, abs=1e-14)
    in_all = (2 * math.log(3 * math.e + 2) + math.log(math.e + 4)) / 3
    without = (2 * math.log(math.e + 2) + math.log(math.e + 4)) / 3
    assert attraction["repulsion"].item() == pytest.approx(in_all, abs=1e-14)
    assert elimination["repulsion"].item() == pytest.approx(without, abs=1e-14)


def test_top_k_counts_embeddings_so_both_views_of_an_image_may_be_found() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    settings = {"temperature": 1.0, "strategy": "elimination", "aggregation": "max", "threshold": 0.7}
    one, two = (ours(z, z, support=z[None], top_k=k, **settings) for k in (1, 2))
    without_both = (2 * math.log(math.e + 2) + math.log(math.e + 4)) / 3 - 1
    without_one = (2 * math.log(2 * math.e + 2) + math.log(math.e + 4)) / 3 - 1
    assert two.item() == pytest.approx(without_both, abs=1e-14)
    assert one.item() == pytest.approx(without_one, abs=1e-14)


def test_no_false_negatives_is_simclr_in_value_and_gradient() -> None:
    z1, z2, s1, s2 = correlated(4, 9, 6, 1.0)
    support = torch.stack([s1, s2]).detach()
    for strategy in ("attraction", "elimination"):
        assert_same_value_and_gradients(
            lambda z1, z2, strategy=strategy: ours(
                z1, z2, support=support, strategy=strategy, temperature=0.1, **NOTHING
            ),
            lambda z1, z2: summed(nt_xent(z1, z2, temperature=0.1, definition="paper")),
            [z1, z2],
            rtol=1e-12,
        )


def test_code_with_two_views_and_no_false_negatives_is_the_code_of_simclr() -> None:
    assert_same_value_and_gradients(
        lambda *z: ours(*z, support=torch.stack(z).detach(), definition="code", temperature=0.1, **NOTHING),
        lambda z1, z2: summed(nt_xent(z1, z2, temperature=0.1, definition="code")),
        correlated(2, 9, 6, 1.0),
        rtol=1e-12,
    )


def test_eliminating_every_negative_leaves_no_loss_and_finite_gradients() -> None:
    z1, z2 = correlated(2, 5, 4, 1.0)
    everything = {"aggregation": "max", "top_k": 0, "threshold": -2.0, "strategy": "elimination", "temperature": 0.1}
    in_batch = ours(z1, z2, support=z1[None].detach(), **everything)
    with_queue = summed(info_nce_fnc(z1, z2, random_queue(7, 4), z1[None].detach(), **everything))  # type: ignore[arg-type]
    for value in (in_batch, with_queue):
        assert value.item() == pytest.approx(0.0, abs=1e-12)
        (gradient,) = torch.autograd.grad(value, z1)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


def test_attraction_keeps_false_negatives_in_the_denominator() -> None:
    z1, z2 = correlated(2, 6, 5, 1.0)
    settings = {"temperature": 0.2, "definition": "paper", "aggregation": "max", "top_k": 0, "threshold": -2.0}
    terms = nt_xent_fnc(torch.stack([z1, z2]), z1[None].detach(), strategy="attraction", **settings)  # type: ignore[arg-type]
    plain = nt_xent(z1, z2, temperature=0.2, definition="paper")
    torch.testing.assert_close(terms["repulsion"], plain["repulsion"])
    assert terms["attraction"] > plain["attraction"]


class Net(nn.Module):
    """A convolution with batch norm that notes the size of every batch and whether it is differentiated."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 6
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6))
        self.batches: list[tuple[int, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append((len(images), torch.is_grad_enabled()))
        features: Tensor = self.layers(images)
        return features


def views_of(count: int, batch: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 1, 4, 4, generator=generator) for _ in range(count)]


def built(kind: type, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    method: nn.Module = kind(Net(), projector=(8, 4), **settings)
    return method.double()


def trained(method: nn.Module, views: Sequence[Tensor], *, steps: int = 3) -> dict[str, Tensor]:
    """The state after some steps of gradient descent."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    for step in range(1, steps + 1):
        torch.manual_seed(step)
        optimizer.zero_grad()
        summed(method([view.double() + step for view in views])).backward()
        optimizer.step()
        method.after_step(step, steps)
    return method.state_dict()


@pytest.mark.parametrize("settings", [{"threshold": 1.5, "support_views": 3}, {"support_views": 0}])
def test_without_false_negatives_a_training_is_that_of_simclr_with_its_running_statistics(
    settings: dict[str, object],
) -> None:
    plain = trained(built(SimCLR, temperature=0.2), views_of(2))
    fnc = trained(built(SimCLRFNC, temperature=0.2, **settings), views_of(5)[: 2 + settings["support_views"]])  # type: ignore[operator]
    assert plain.keys() == fnc.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(fnc[name], tensor, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", [{"threshold": 1.5, "support_views": 3}, {"support_views": 0}])
def test_without_false_negatives_a_training_is_that_of_moco(settings: dict[str, object]) -> None:
    shared = {"temperature": 0.2, "queue_size": 11, "bn_groups": 2, "momentum": 0.9}
    plain = trained(built(MoCoV2, **shared), views_of(2))
    fnc = trained(built(MoCoFNC, **shared, **settings), views_of(5)[: 2 + settings["support_views"]])  # type: ignore[operator]
    assert plain.keys() == fnc.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(fnc[name], tensor, rtol=1e-10, atol=1e-12)


def test_support_views_are_one_batch_without_gradient_unless_they_are_anchors() -> None:
    views = views_of(5)
    paper, code = (built(SimCLRFNC, support_views=3, definition=d) for d in ("paper", "code"))
    for method in (paper, code):
        method([view.double() for view in views])
    assert paper.backbone.batches == [(16, True), (24, False)]
    assert code.backbone.batches == [(40, True)]
    for method, reached in ((paper, 2), (code, 5)):
        pixels = [view.double().requires_grad_() for view in views]
        summed(method(pixels)).backward()
        assert [view.grad is not None for view in pixels] == [True] * reached + [False] * (5 - reached)


def test_support_views_decide_which_keys_of_the_queue_are_attracted() -> None:
    views = [view.double() for view in views_of(4)]
    method = built(MoCoFNC, queue_size=30, bn_groups=2, support_views=2, threshold=0.1, top_k=4)
    torch.manual_seed(5)
    q, k = method.query_and_key(views[:2])
    support = torch.stack([_keys(method, view) for view in views[2:]])
    torch.manual_seed(5)
    terms = method(views)
    settings = {"temperature": 0.2, "strategy": "attraction", "aggregation": "max", "top_k": 4, "threshold": 0.1}
    expected = moco_paper(q, k, method.queue, support, **settings)  # type: ignore[arg-type]
    torch.testing.assert_close(summed(terms), expected)
    method.after_step(1, 2)
    assert method.pointer == 8  # support views do not enter the queue


def _keys(method: nn.Module, images: Tensor) -> Tensor:
    """The momentum encoder's embeddings in two shuffled parts."""
    order = torch.randperm(len(images))
    with torch.no_grad():
        keys = torch.cat([method.target(images[rows]) for rows in order.split(4)])
    return keys[order.argsort()]


def test_settings_reach_the_loss() -> None:
    views = [view.double() for view in views_of(5)]
    base = {"support_views": 3, "threshold": 0.0, "top_k": 2}
    changes = [{}, {"threshold": 0.9}, {"top_k": 0}, {"aggregation": "mean"}, {"strategy": "elimination"}]
    for kind, extra in ((SimCLRFNC, {}), (MoCoFNC, {"queue_size": 30, "bn_groups": 1})):
        values = set()
        for change in changes:
            torch.manual_seed(1)
            values.add(round(summed(built(kind, **{**base, **extra, **change})(views)).item(), 9))
        assert len(values) == len(changes)


def test_defaults_are_the_papers() -> None:
    method = SimCLRFNC(Recorder(feature_dim=6))
    shapes = [m.weight.shape for m in method.projector if isinstance(m, nn.Linear)]
    assert shapes == [(2048, 6), (2048, 2048), (128, 2048)]
    assert method.settings == {
        "temperature": 0.1,
        "strategy": "attraction",
        "definition": "paper",
        "aggregation": "max",
        "top_k": 10,
        "threshold": 0.7,
    }
    assert method.card.view_count({"support_views": 8}) == MoCoFNC.card.view_count({"support_views": 8}) == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, r"temperature must be above 0, got -1\.0.*0\.1"),
        ({"strategy": "both"}, "strategy must be 'attraction' or 'elimination'.*got 'both'"),
        ({"definition": "text"}, "definition 'paper'.*'attraction' with 'text'"),
        ({"strategy": "elimination", "definition": "code"}, "released; got 'elimination' with 'code'"),
        ({"aggregation": "sum"}, "simclr_fnc: aggregation must be"),
        ({"support_views": -1}, "simclr_fnc: support_views and top_k"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        built(SimCLRFNC, **settings)


def test_wrong_settings_of_the_one_with_a_queue_are_refused() -> None:
    with pytest.raises(SpecError, match=r"moco_fnc: strategy must be .* got 'both'"):
        built(MoCoFNC, strategy="both", queue_size=5)
    with pytest.raises(SpecError, match="moco_fnc: support_views and top_k must be 0 or more, got 8 and -3"):
        built(MoCoFNC, top_k=-3, queue_size=5)
    with pytest.raises(SpecError, match="moco_fnc: temperature must be above 0"):
        built(MoCoFNC, temperature=0.0, queue_size=5)
