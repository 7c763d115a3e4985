"""Detection of false negatives: candidates that look like an anchor's image.

Huynh, Kornblith, Walter, Maire and Khademi, Boosting Contrastive Self-Supervised Learning with False Negative
Cancellation, WACV 2022, arXiv:2011.11765. Further views of the *anchor's* image, its support set S_i, score every
candidate m,

    score(i, m) = max or mean over s in S_i of cos(z_m, z_s),

and F_i holds the candidates that are among the k highest scores and above a threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.modules.batchnorm import _BatchNorm

from bench.errors import SpecError


@torch.no_grad()
def detect(
    candidates: Tensor, support: Tensor, *, excluded: Tensor, aggregation: str, top_k: int, threshold: float
) -> Tensor:
    """The false negatives F_i of every anchor, (B, M) bool: :func:`support_scores`, then :func:`highest`.

    Args:
        candidates: embeddings (M, D).
        support: embeddings of S views of every anchor's image, (S, B, D); without any, nothing is detected.
        excluded: (B, M) bool, the candidates that show the anchor's own image.
        aggregation: ``max`` or ``mean`` over the support.
        top_k: largest number of false negatives of an anchor; 0 is no limit.
        threshold: cosine similarity that a false negative exceeds.
    """
    if len(support) == 0:
        return torch.zeros_like(excluded)
    scores = support_scores(candidates, support, aggregation=aggregation)
    return highest(scores, excluded=excluded, top_k=top_k, threshold=threshold)


@torch.no_grad()
def support_scores(candidates: Tensor, support: Tensor, *, aggregation: str) -> Tensor:
    """Cosine similarity of candidates (M, D) with the support (S, B, D), aggregated over its S views: (B, M).

    One view at a time, so that memory holds B x M scores and not S times as many.
    """
    with torch.autocast(candidates.device.type, enabled=False):
        reference = normalize(_full(candidates), dim=1)  # (M, D)
        scores = torch.tensor([])
        for number, view in enumerate(support):
            cosines = normalize(_full(view), dim=1) @ reference.T  # (B, M)
            if number == 0:
                scores = cosines
            elif aggregation == "max":
                torch.maximum(scores, cosines, out=scores)
            else:
                scores += cosines
        return scores if aggregation == "max" else scores / len(support)


@torch.no_grad()
def highest(scores: Tensor, *, excluded: Tensor, top_k: int, threshold: float) -> Tensor:
    """The scores (B, M) that are above the threshold and among the ``top_k`` highest of their row, (B, M) bool.

    What is ``excluded``, (B, M) bool, does not count. Of equal scores the candidates with the lower index come first,
    on every device.
    """
    scores = scores.masked_fill(excluded, -torch.inf)
    found = scores > threshold
    if 0 < top_k < scores.shape[1]:
        last = scores.topk(top_k, dim=1).values[:, -1:]  # (B, 1), the k-th highest
        above, ties = scores > last, scores == last
        vacant = top_k - above.sum(dim=1, keepdim=True)  # (B, 1), places left for ties
        found &= above | (ties & (ties.cumsum(dim=1) <= vacant))
    return found


def check_detection(key: str, *, support_views: int, top_k: int, aggregation: str) -> None:
    """Refuse settings without meaning.

    Raises:
        SpecError: naming the method or protocol ``key``, the value and what to do.
    """
    if aggregation not in ("max", "mean"):
        raise SpecError(f"{key}: aggregation must be 'max' or 'mean', got {aggregation!r}.")
    if support_views < 0 or top_k < 0:
        raise SpecError(
            f"{key}: support_views and top_k must be 0 or more, got {support_views} and {top_k}. The paper uses 8 and "
            "10; top_k=0 sets no limit, support_views=0 turns the detection off."
        )


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms of ``module`` in training mode use batch statistics but leave the running ones as they are.

    Views that only score others then change nothing of what is evaluated later.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if (count := norm.num_batches_tracked) is None else count.clone() for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)


def _full(z: Tensor) -> Tensor:
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
