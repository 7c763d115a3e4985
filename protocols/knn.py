"""k-nearest-neighbor classification of frozen features.

Wu, Xiong, Yu and Lin, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018,
arXiv:1805.01978, section 3.4: the k training features with the highest cosine similarity s_i vote for their classes,

    w_c = Σ_{i in N_k} exp(s_i / τ) [y_i = c].

The authors of W-MSE (arXiv:2007.06346) let the k = 5 nearest by Euclidean distance vote with one vote each.

Nothing is fitted and nothing is chosen, so the validation split is not read. The paper takes k = 200 of 1.28
million images; the default here is k = 20, for sets of thousands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bench.card import ProtocolCard
from bench.data.dataset import ImageDataset
from bench.encoders.encoder import Encoder
from bench.errors import DataError, DivergenceError, SpecError
from bench.metric import TOP1, TOP5
from bench.protocol import Outcome, Protocol, Work
from bench.registry import register_protocol
from bench.statistics.classification import ranked_predictions, top_k_scores, undefined_metrics
from bench.training.precision import true_float32

VALUES_PER_BLOCK = 2**25  # of similarities or distances: 256 MB in float64
QUERIES_PER_BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class Neighbors:
    """Which neighbors vote, and how.

    Attributes:
        k: number of neighbors.
        vote: ``weighted`` by exp(s / τ) of the cosine similarity s, or ``majority`` with one vote each.
        distance: ``cosine`` or ``euclidean``.
        temperature: τ.
    """

    k: int
    vote: Literal["weighted", "majority"]
    distance: Literal["cosine", "euclidean"]
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.k < 1 or self.temperature <= 0:
            raise SpecError(
                f"knn: k must be 1 or more and temperature above 0, got k={self.k}, temperature={self.temperature}."
            )
        if self.vote not in ("weighted", "majority") or self.distance not in ("cosine", "euclidean"):
            raise SpecError(
                f"knn: vote is weighted or majority and distance cosine or euclidean; got {self.vote!r} and "
                f"{self.distance!r}."
            )
        if (self.vote, self.distance) == ("weighted", "euclidean"):
            raise SpecError("knn: a weighted vote needs similarities. Take distance cosine, or vote majority.")


RECIPES: dict[str, Neighbors] = {
    "common": Neighbors(k=20, vote="weighted", distance="cosine", temperature=0.07),
    # Wu et al. 2018, section 3.4: k = 200, τ = 0.07.
    "instdisc": Neighbors(k=200, vote="weighted", distance="cosine", temperature=0.07),
    # htdt/self-supervised, eval/knn.py: k = 5, Euclidean, on the backbone's features as they are, one vote each; of
    # classes with as many votes the first.
    "wmse": Neighbors(k=5, vote="majority", distance="euclidean"),
}


@register_protocol(
    "knn",
    card=ProtocolCard(
        title="k-NN",
        summary="Accuracy of a vote among the k nearest training images, weighted by their cosine similarity unless "
        "set; k = 20 unless set, where the paper takes 200. Classes without a vote count as misses in top-5.",
        metrics=(TOP1, TOP5),
        paper="wu2018instdisc",
        chance="100/K % top-1 and at most 500/K % top-5 for K balanced classes; top-5 is not defined below 5 classes",
    ),
)
class KNN(Protocol):
    """A class without a vote is not ranked, so fewer than five voted classes leave misses among the top five.

    A setting of None is the recipe's own.

    Args:
        recipe: ``common`` (k = 20, weighted, cosine, τ = 0.07), ``instdisc`` (k = 200, as the paper) or ``wmse``
            (k = 5, majority, Euclidean).
        k: number of neighbors.
        temperature: τ of a weighted vote.
        vote: ``weighted`` or ``majority``; with as many votes, the class with the lower index comes first.
        distance: ``cosine`` or ``euclidean``; of equally near images the first of the training split come first.
    """

    def __init__(
        self,
        *,
        recipe: str = "common",
        k: int | None = None,
        temperature: float | None = None,
        vote: str | None = None,
        distance: str | None = None,
    ) -> None:
        if recipe not in RECIPES:
            raise SpecError(f"knn: there is no recipe {recipe!r}. Choose one of {', '.join(RECIPES)}.")
        changes = {"k": k, "temperature": temperature, "vote": vote, "distance": distance}
        given = {name: value for name, value in changes.items() if value is not None}
        self.recipe = recipe
        self.neighbors = replace(RECIPES[recipe], **given)  # type: ignore[arg-type]

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        train = data.split("train")
        if self.neighbors.k > len(train):
            raise DataError(
                f"knn: k={self.neighbors.k} neighbors were asked of {data.key}, whose training split has {len(train)} "
                "images. Choose a smaller k."
            )
        memory = encoder.features(train.images, device=device)
        test = data.split("test")
        queries = encoder.features(test.images, device=device)
        if not (memory.isfinite().all() and queries.isfinite().all()):
            raise DivergenceError(
                f"knn: the encoder ({encoder.origin}) gives features that are NaN or infinite on {data.key}. "
                "Pre-train it again with a smaller learning rate."
            )
        featured = time.perf_counter()
        labels = torch.as_tensor(train.labels)
        votes = neighbor_votes(
            memory, labels, queries, num_classes=data.num_classes, neighbors=self.neighbors, device=device
        )
        predictions = ranked_predictions(votes, test.labels, test.samples)
        finished = time.perf_counter()
        return Outcome(
            scores=top_k_scores(predictions, num_classes=data.num_classes, patients=test.metadata.get("patient")),
            predictions=predictions,
            details={
                "recipe": self.recipe,
                "neighbors": asdict(self.neighbors),
                "undefined": undefined_metrics(data.num_classes),
            },
            seconds={"features": featured - started, "fit": 0.0, "test": finished - featured},
        )

    def work(self, sizes: Mapping[str, int], *, num_classes: int, feature_dim: int) -> Work:
        train, test = sizes["train"], sizes["test"]
        return Work(forward=train + test, products=train * test * feature_dim / 1e9)


@true_float32()
def neighbor_votes(
    memory: Tensor, labels: Tensor, queries: Tensor, *, num_classes: int, neighbors: Neighbors, device: str = "cpu"
) -> Tensor:
    """Logarithm of each class's share of the votes, (n, C) on the CPU; -inf without a vote.

    Args:
        memory: training features (N, D).
        labels: (N,) classes of the training features.
        queries: features (n, D) to classify.
        num_classes: C.
        neighbors: who votes, and how.
        device: computes the distances; the features stay where they are and visit it in blocks.
    """
    closeness, index = nearest(memory, queries, k=neighbors.k, distance=neighbors.distance, device=device)  # (n, k)
    if neighbors.vote == "weighted":
        shares = (closeness / neighbors.temperature).softmax(dim=1)  # (n, k)
    else:
        shares = torch.full_like(closeness, 1 / neighbors.k)
    votes = shares.new_zeros(len(queries), num_classes)
    for place in range(neighbors.k):  # one neighbor at a time: the sums are in the same order on every machine
        votes[torch.arange(len(votes)), labels[index[:, place]]] += shares[:, place]
    return votes.log()


def nearest(memory: Tensor, queries: Tensor, *, k: int, distance: str, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """The k nearest of N vectors to each of n, exact, in blocks of both.

    Args:
        memory: (N, D).
        queries: (n, D).
        k: at most N.
        distance: ``cosine`` or ``euclidean``.
        device: where distances are computed, a block at a time.

    Returns:
        Closeness (n, k), higher is nearer: the cosine, or minus the squared Euclidean distance; and positions (n, k) in
        ``memory``, ascending. Of equally near vectors those that come first are taken.
    """
    center = memory.mean(dim=0, dtype=torch.float64) if distance == "euclidean" else None

    def block(vectors: Tensor) -> Tensor:
        """On the device, in the form in which an inner product tells how close two are."""
        if center is None:
            return normalize(vectors.to(device), dim=1)
        # |q - m|² as a sum of squares and a product: harmless in float64, where float32 would lose near neighbors.
        return vectors.to(device, torch.float64) - center.to(device)

    rows = max(1, min(QUERIES_PER_BLOCK, VALUES_PER_BLOCK // (2 * k)))
    columns = max(k, VALUES_PER_BLOCK // rows - k)
    found = []
    for asked in queries.split(rows):
        q = block(asked)  # (B, D)
        best = q.new_empty(len(q), 0)
        index = torch.empty(len(q), 0, dtype=torch.int64, device=q.device)
        for start in range(0, len(memory), columns):
            m = block(memory[start : start + columns])  # (M, D)
            s = q @ m.T  # (B, M)
            if center is not None:
                s = 2 * s - q.square().sum(dim=1, keepdim=True) - m.square().sum(dim=1)
            positions = torch.arange(start, start + len(m), device=q.device).expand(len(q), -1)
            best, index = _merge(torch.cat([best, s], dim=1), torch.cat([index, positions], dim=1), k)
        found.append((best.to("cpu", queries.dtype), index.cpu()))
    return torch.cat([best for best, _ in found]), torch.cat([index for _, index in found])


def _merge(closeness: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k closest of each row, in the order of the columns; the first columns win a tie.

    ``topk`` may take any of several equal values, so its choice is kept only in rows that have no tie at the border.
    """
    if closeness.shape[1] <= k:
        return closeness, index
    values, columns = closeness.topk(k, dim=1)  # (B, k)
    border = values[:, -1:]
    tied = ((closeness >= border).sum(dim=1) > k).nonzero()[:, 0]
    if len(tied):
        s, level = closeness[tied], border[tied]
        above, at = s > level, s == level
        chosen = above | (at & (at.cumsum(dim=1) <= k - above.sum(dim=1, keepdim=True)))
        columns[tied] = chosen.nonzero()[:, 1].view(-1, k)
    columns = columns.sort(dim=1).values
    return closeness.gather(1, columns), index.gather(1, columns)
