"""MoCo: Momentum Contrast for Unsupervised Visual Representation Learning.

He, Fan, Wu, Xie and Girshick, CVPR 2020, arXiv:1911.05722.

    L_q = -log [ exp(q·k₊ / τ) / Σ_{i=0}^{K} exp(q·k_i / τ) ]                                          (Eq. 1)
    θ_k <- m θ_k + (1 - m) θ_q  after every step                                                       (Eq. 2)

q is the query, view 1 through the trained encoder θ_q; k₊ is view 2 through its momentum encoder θ_k; all are of unit
length. The sum runs over k₊ and the K keys of a queue that holds those of the last steps. The logarithm splits into
-q·k₊/τ, the attraction, and log Σ exp, the repulsion.
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
from bench.training.heads import mlp
from bench.training.keys import encode_shuffled, enqueue
from bench.training.method import Method
from bench.training.momentum import momentum_copy, update_momentum
from bench.training.norm import grouped_batch_norm
from bench.training.precision import full_precision


@full_precision
def info_nce(q: Tensor, k: Tensor, queue: Tensor, *, temperature: float) -> dict[str, Tensor]:
    """Eq. 1 averaged over the batch, split into attraction and repulsion.

    Args:
        q, k: embeddings of views 1 and 2, (B, D) each; k is a constant.
        queue: keys of earlier steps, (K, D), of unit length.
        temperature: τ.
    """
    q, k = normalize(q, dim=1), normalize(k.detach(), dim=1)
    positive = (q * k).sum(dim=1) / temperature  # (B,)
    negatives = q @ queue.T / temperature  # (B, K)
    partition = torch.logaddexp(positive, negatives.logsumexp(dim=1))  # (B,)
    return {"attraction": -positive.mean(), "repulsion": partition.mean()}


@register_method(
    "moco_v1",
    card=MethodCard(
        title="MoCo v1",
        family="contrastive",
        paper="he2020moco",
        year=2020,
        summary="Tells the other view of an image apart from a queue of the images of earlier steps.",
        loss="L = -q·k₊/τ + log [ exp(q·k₊/τ) + Σ_{k in queue} exp(q·k/τ) ]",
        terms=(
            Term(name="attraction", acts="between the branches", role="draws the query to the key of its image"),
            Term(name="repulsion", acts="against negatives", role="pushes the query away from the queue's keys"),
        ),
        complete_collapse="negatives: the query is pushed away from every key of the queue",
        dimensional_collapse="the same repulsion spreads the embeddings over the sphere; no explicit term",
        branches="momentum",
        stop_gradient=True,
        symmetric=False,
        negatives="queue",
        normalization=("unit length",),
        batch_dependence="small batches do: negatives come from the queue; batch norm sees parts of the batch",
        cost="one further forward pass, through the momentum encoder, a second copy of the weights, and the queue",
        gradient_views=(0,),
        deviations=(
            Deviation(
                what="batch norm is shuffled among parts of the batch, not among GPUs",
                reason="the authors' GPUs each normalize their part; as many parts give the same on any machine",
            ),
        ),
    ),
)
class MoCo(Method):
    """Query encoder, momentum encoder and queue; each view is its own batch for the batch statistics.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector: widths of the projector's layers, without batch norm; the last is the embedding's.
        temperature: τ.
        momentum: m, share of the momentum encoder that a step keeps.
        queue_size: K; the oldest keys are overwritten, also where the batch does not divide K.
        bn_groups: parts of the whole batch with batch statistics of their own, as on 8 GPUs in the paper; the keys'
            images are shuffled, so that a query and its key are normalized beside other images. 1 turns it off.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (128,),
        temperature: float = 0.07,
        momentum: float = 0.999,
        queue_size: int = 65536,
        bn_groups: int = 8,
    ) -> None:
        super().__init__(backbone)
        if temperature <= 0:
            raise SpecError(f"{self.key}: temperature must be above 0, got {temperature}. The paper uses 0.07 or 0.2.")
        if not 0 <= momentum <= 1:
            raise SpecError(f"{self.key}: momentum must lie in [0, 1], got {momentum}. The paper uses 0.999.")
        if queue_size < 1 or bn_groups < 1:
            raise SpecError(
                f"{self.key}: queue_size and bn_groups must be 1 or more, got {queue_size} and {bn_groups}. "
                "The paper uses 65536 and 8."
            )
        self.projector = mlp((backbone.feature_dim, *projector), hidden_bias=True, hidden_norm=False)
        self.target = momentum_copy(nn.Sequential(self.backbone, self.projector))
        self.temperature, self.momentum, self.bn_groups = temperature, momentum, bn_groups
        self.register_buffer("queue", normalize(torch.randn(queue_size, projector[-1]), dim=1))  # (K, P)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))  # row that is overwritten next
        self.new_keys = torch.empty(0, projector[-1])  # from forward to after_step only

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        q, k = self.query_and_key(views)  # (B, P), (B, P)
        return info_nce(q, k, self.queue, temperature=self.temperature)

    def query_and_key(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Embeddings of views 1 and 2, (B, P) each; the keys of all processes wait for the end of the step."""
        online = nn.Sequential(self.backbone, self.projector)
        # Deviates: batch norm is shuffled among parts of the batch, not among GPUs
        with grouped_batch_norm(online, self.bn_groups):
            q = online(views[0])  # (B, P)
        self.new_keys = encode_shuffled(self.target, views[1], groups=self.bn_groups)  # (W B, P)
        return q, own_rows(self.new_keys)

    def after_step(self, step: int, total_steps: int) -> None:
        # The authors average before a step's keys are made, from weights that the step before left: the same sequence.
        # Their queue, too, takes a step's keys after its logits, and no key is a negative in the step that made it.
        update_momentum(self.target, nn.Sequential(self.backbone, self.projector), self.momentum)
        enqueue(self.queue, self.pointer, self.new_keys)
        self.new_keys = self.new_keys[:0]
