"""MoCo v2: Improved Baselines with Momentum Contrastive Learning.

Chen, Fan, Girshick and He, 2020, arXiv:2003.04297.

    L_q = -log [ exp(q·k₊ / τ) / Σ_{i=0}^{K} exp(q·k_i / τ) ],   τ = 0.2                     (MoCo's Eq. 1)
    q   = W2 relu(W1 h),   W1 of 2048 rows, W2 of 128, scaled to unit length                   (section 3)

Loss, queue and momentum encoder are those of MoCo (arXiv:1911.05722); the head has a hidden layer and τ is larger.
The note's other changes, stronger augmentation and a cosine schedule, belong to the views and the training recipe.
"""

from __future__ import annotations

from torch import nn

from bench.card import Deviation, MethodCard, Term
from bench.registry import register_method
from methods.moco_v1 import MoCo


@register_method(
    "moco_v2",
    card=MethodCard(
        title="MoCo v2",
        family="contrastive",
        paper="chen2020mocov2",
        year=2020,
        summary="MoCo with SimCLR's projection head: tells the other view apart from a queue of earlier images.",
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
class MoCoV2(MoCo):
    """MoCo with other defaults.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector: widths of the projector's layers, without batch norm; the last is the embedding's.
        temperature: τ.
        momentum: m, share of the momentum encoder that a step keeps.
        queue_size: K; the oldest keys are overwritten, also where the batch does not divide K.
        bn_groups: parts of the whole batch with batch statistics of their own; 1 turns shuffled batch norm off.
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
