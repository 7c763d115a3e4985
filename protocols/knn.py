"""Weighted k-nearest-neighbor classification of frozen features.

Wu, Xiong, Yu and Lin, Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018,
arXiv:1805.01978, section 3.4: the k training features with the highest cosine similarity s_i vote for their classes,

    w_c = Σ_{i in N_k} exp(s_i / τ) [y_i = c].

Nothing is fitted and nothing is chosen, so the validation split is not read. The paper takes k = 200 of 1.28 million
images; the default here is k = 20, for sets of thousands.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from bench.card import ProtocolCard
from bench.data.dataset import ImageDataset
from bench.encoders.encoder import Encoder
from bench.errors import DataError, DivergenceError, SpecError
from bench.metric import TOP1, TOP5
from bench.protocol import Outcome, Protocol
from bench.registry import register_protocol
from bench.statistics.classification import ranked_predictions, top_k_scores, undefined_metrics

VALUES_PER_BLOCK = 2**26  # 256 MB in float32


@register_protocol(
    "knn",
    card=ProtocolCard(
        title="k-NN",
        summary="Accuracy of a vote among the k most similar training images, weighted by their cosine similarity; "
        "k = 20 unless set, where the paper takes 200. Classes without a vote count as misses in top-5.",
        metrics=(TOP1, TOP5),
        paper="wu2018instdisc",
        chance="100/K % top-1 and at most 500/K % top-5 for K balanced classes; top-5 is not defined below 5 classes",
    ),
)
class KNN(Protocol):
    """A class without a vote is not ranked, so fewer than five voted classes leave misses among the top five.

    Args:
        k: number of neighbors; 200 in the paper.
        temperature: τ; 0.07 in the paper.
    """

    def __init__(self, *, k: int = 20, temperature: float = 0.07) -> None:
        if k < 1 or temperature <= 0:
            raise SpecError(f"knn: k must be 1 or more and temperature above 0, got k={k}, temperature={temperature}.")
        self.k = k
        self.temperature = temperature

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        train = data.split("train")
        if self.k > len(train):
            raise DataError(
                f"knn: k={self.k} neighbors were asked of {data.key}, whose training split has {len(train)} images. "
                "Choose a smaller k."
            )
        memory = encoder.features(train.images, device=device).to(device)
        test = data.split("test")
        queries = encoder.features(test.images, device=device).to(device)
        if not (memory.isfinite().all() and queries.isfinite().all()):
            raise DivergenceError(
                f"knn: the encoder ({encoder.origin}) gives features that are NaN or infinite on {data.key}. "
                "Pre-train it again with a smaller learning rate."
            )
        featured = time.perf_counter()
        labels = torch.as_tensor(train.labels, device=device)
        votes = neighbor_votes(
            memory, labels, queries, num_classes=data.num_classes, k=self.k, temperature=self.temperature
        )
        predictions = ranked_predictions(votes, test.labels, test.samples)
        finished = time.perf_counter()
        return Outcome(
            scores=top_k_scores(predictions, num_classes=data.num_classes),
            predictions=predictions,
            details={"undefined": undefined_metrics(data.num_classes)},
            seconds={"features": featured - started, "fit": 0.0, "test": finished - featured},
        )


def neighbor_votes(
    memory: Tensor, labels: Tensor, queries: Tensor, *, num_classes: int, k: int, temperature: float
) -> Tensor:
    """Logarithm of each class's share of the votes, (n, C); -inf without a vote.

    Args:
        memory: training features (N, D).
        labels: (N,) classes of the training features.
        queries: features (n, D) to classify, in blocks of which the similarities fit into 256 MB.
        num_classes: C.
        k: number of neighbors.
        temperature: τ.
    """
    memory = normalize(memory, dim=1)  # (N, D)
    block = max(1, VALUES_PER_BLOCK // max(len(memory), k * num_classes))
    votes = []
    for start in range(0, len(queries), block):
        s = normalize(queries[start : start + block], dim=1) @ memory.T  # (B, N)
        nearest, index = s.topk(k, dim=1)  # (B, k)
        shares = (nearest / temperature).softmax(dim=1)  # (B, k)
        chosen = one_hot(labels[index], num_classes).to(shares)  # (B, k, C)
        votes.append(torch.einsum("bk,bkc->bc", shares, chosen))
    return torch.cat(votes).log()
