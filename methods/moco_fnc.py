"""FNC: Boosting Contrastive Self-Supervised Learning with False Negative Cancellation, on MoCo v2.

Huynh, Kornblith, Walter, Maire and Khademi, WACV 2022, arXiv:2011.11765; MoCo v2 arXiv:2003.04297.

    p_k       = exp(q·k / τ) / [ exp(q·k₊ / τ) + Σ_{m in queue} exp(q·m / τ) ]
    attraction:   L_q = -1/(1 + |F|) [ log p_{k₊} + Σ_{f in F} log p_f ]
    elimination:  L_q = -log [ exp(q·k₊/τ) / ( exp(q·k₊/τ) + Σ_{m in queue, m not in F} exp(q·m/τ) ) ]
    F         = the top_k keys of the queue with the highest max_{s in S} s·m above the threshold

S are support views of the query's image through the momentum encoder, like the keys they score. Attraction leaves F in
the denominator. L_q splits into the mean of -q·k/τ over k₊ and F, the attraction, and the logarithm of the denominator,
the repulsion. Where F is empty, L_q is MoCo's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench.card import Deviation, MethodCard, Term
from bench.errors import SpecError
from bench.registry import register_method
from bench.training.distributed import own_rows
from bench.training.false_negatives import check_detection, detect, statistics_kept
from bench.training.keys import encode_shuffled
from bench.training.precision import full_precision
from methods.moco_v2 import MoCoV2


@full_precision
def info_nce_fnc(
    q: Tensor, k: Tensor, queue: Tensor, support: Tensor, *, temperature: float, strategy: str, **detection: str | float
) -> dict[str, Tensor]:
    """L_q averaged over the batch, split into attraction and repulsion.

    Args:
        q, k: embeddings of views 1 and 2, (B, D) each; k is a constant.
        queue: keys of earlier steps, (K, D), of unit length.
        support: embeddings of the S views that score, (S, B, D); constants.
        temperature: τ.
        strategy: ``attraction`` or ``elimination``.
        detection: aggregation, top_k and threshold of :func:`bench.training.false_negatives.detect`.
    """
    q, k = normalize(q, dim=1), normalize(k.detach(), dim=1)
    positive = (q * k).sum(dim=1) / temperature  # (B,)
    s = q @ queue.T / temperature  # (B, K)
    # Deviates: false negatives are sought in MoCo's queue
    false = detect(queue, support, excluded=torch.zeros_like(s, dtype=torch.bool), **detection)  # (B, K)
    attracted = positive
    if strategy == "attraction":
        attracted = (positive + (s * false).sum(dim=1)) / (1 + false.sum(dim=1))  # (B,)
    else:
        s = s.masked_fill(false, -torch.inf)
    partition = torch.logaddexp(positive, s.logsumexp(dim=1))  # (B,)
    return {"attraction": -attracted.mean(), "repulsion": partition.mean()}


@register_method(
    "moco_fnc",
    card=MethodCard(
        title="MoCo v2 + FNC",
        family="contrastive",
        paper="huynh2022fnc",
        year=2022,
        summary="MoCo v2 that attracts, or leaves out, the queue's keys that look like the query's image.",
        loss="L = -(q·k₊ + Σ_{f in F} q·f) / ((1 + |F|) τ) + log [ exp(q·k₊/τ) + Σ_{k in queue} exp(q·k/τ) ]",
        terms=(
            Term(
                name="attraction",
                acts="between the branches",
                role="draws the query to its key, with attraction to more",
            ),
            Term(name="repulsion", acts="against negatives", role="pushes the query away from the queue's keys"),
        ),
        complete_collapse="negatives: the queue's keys are pushed away; false negatives found too freely undo it",
        dimensional_collapse="the same repulsion spreads the embeddings over the sphere; no explicit term",
        branches="momentum",
        stop_gradient=True,
        symmetric=False,
        negatives="queue",
        support_views=True,
        normalization=("unit length",),
        batch_dependence="small batches do: negatives come from the queue; batch norm sees parts of the batch",
        cost="1 + support_views passes through the momentum encoder, a second copy of the weights, and the queue",
        views="2 + support_views",
        gradient_views=(0,),
        deviations=(
            Deviation(
                what="false negatives are sought in MoCo's queue",
                reason="the authors keep a memory of 16 batches beside SimCLR's loss; the queue is such a memory",
            ),
            Deviation(
                what="batch norm is shuffled among parts of the batch, not among GPUs",
                reason="as in moco_v1: as many parts as the authors' GPUs give the same on any machine",
            ),
        ),
    ),
)
class MoCoFNC(MoCoV2):
    """MoCo v2 whose support views are encoded like keys, but leave no trace in running statistics or in the queue.

    The queue does not tell whose keys it holds: one of the query's own image, from an earlier epoch, may be found too,
    and rightly so.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector, temperature, momentum, queue_size, bn_groups: those of MoCo v2.
        support_views: S; 0 finds no false negatives.
        top_k: largest number of false negatives among the K keys of the queue; 0 sets no limit.
        threshold: cosine similarity that a false negative exceeds.
        aggregation: ``max`` or ``mean`` over the support views.
        strategy: ``attraction`` or ``elimination``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (2048, 128),
        temperature: float = 0.2,
        momentum: float = 0.999,
        queue_size: int = 65536,
        bn_groups: int = 8,
        support_views: int = 8,
        top_k: int = 10,
        threshold: float = 0.7,
        aggregation: str = "max",
        strategy: str = "attraction",
    ) -> None:
        # Deviates: batch norm is shuffled among parts of the batch, not among GPUs
        super().__init__(
            backbone,
            projector=projector,
            temperature=temperature,
            momentum=momentum,
            queue_size=queue_size,
            bn_groups=bn_groups,
        )
        if strategy not in ("attraction", "elimination"):
            raise SpecError(f"moco_fnc: strategy must be 'attraction' or 'elimination', got {strategy!r}.")
        check_detection("moco_fnc", support_views=support_views, top_k=top_k, aggregation=aggregation)
        self.strategy = strategy
        self.detection = {"aggregation": aggregation, "top_k": top_k, "threshold": threshold}

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        q, k = self.query_and_key(views)  # (B, P), (B, P)
        with statistics_kept(self.target):
            keys = [own_rows(encode_shuffled(self.target, view, groups=self.bn_groups)) for view in views[2:]]
        support = torch.stack(keys) if keys else k[None][:0]  # (S, B, P)
        return info_nce_fnc(
            q, k, self.queue, support, temperature=self.temperature, strategy=self.strategy, **self.detection
        )
