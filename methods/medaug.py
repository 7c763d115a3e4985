"""MedAug: contrastive learning that leverages patient metadata improves chest X-ray representations.

Vu, Wang, Balachandar, Liu, Ng and Rajpurkar, MLHC 2021, arXiv:2102.10663.

    L_q = -log [ exp(q·k₊ / τ) / (exp(q·k₊ / τ) + Σ_{k in N} exp(q·k / τ)) ],   τ = 0.2                  (Eq. 1)

q shows an image x, and k₊ another image of the same patient and study where there is one (section 3.2; the rule is the
card's ``pairing``, which a suite may change). The negatives N are the queue Q of MoCo v2, or what section 3.3 tries
with the keys S of x's laterality, r = |S| / |Q|:

    same_laterality   N = S
    reweighted        a key of S counts h/r times, any other (1 - h)/(1 - r) times, with the share h on S
    appended          N = Q and a share of |Q| more keys, drawn from S
    synthetic         N = Q and a share of |Q| more keys, u s + (1 - u) s' of unit length with s, s' from S, u uniform

The paper finds no gain in any of the four.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench.card import Deviation, MethodCard, Term
from bench.errors import SpecError
from bench.registry import register_method
from bench.training.distributed import gather, own_rows, process_count
from bench.training.precision import full_precision
from methods.moco_v1 import MoCo

NEGATIVES = ("default", "same_laterality", "reweighted", "appended", "synthetic")


@full_precision
def medaug_loss(
    q: Tensor, k: Tensor, queue: Tensor, same: Tensor, *, temperature: float, negatives: str, share: float, hard: float
) -> dict[str, Tensor]:
    """Eq. 1 averaged over the batch, split into attraction and repulsion.

    A query without any key of its laterality in the queue has the default negatives.

    Args:
        q, k: embeddings of the query and its positive, (B, D) each; k is a constant.
        queue: keys of earlier steps, (K, D), of unit length.
        same: (B, K) bool: keys of the query's laterality.
        temperature: τ.
        negatives: one of ``NEGATIVES``.
        share: appended or synthetic keys, as a share of K.
        hard: h, share of the weight on keys of the same laterality.
    """
    q, k = normalize(q, dim=1), normalize(k.detach(), dim=1)
    positive = (q * k).sum(dim=1) / temperature  # (B,)
    logits = q @ queue.T / temperature  # (B, K)
    found = same.any(dim=1)  # (B,)
    if negatives == "same_laterality":
        logits = logits.masked_fill(~same & found[:, None], -torch.inf)
    elif negatives == "reweighted":
        logits = logits + _log_weights(same, hard).to(logits)
    elif negatives in ("appended", "synthetic"):
        more = _further(q, queue, same, round(share * len(queue)), mix=negatives == "synthetic") / temperature
        logits = torch.cat([logits, more.masked_fill(~found[:, None], -torch.inf)], dim=1)
    partition = torch.logaddexp(positive, logits.logsumexp(dim=1))  # (B,)
    return {"attraction": -positive.mean(), "repulsion": partition.mean()}


def _log_weights(same: Tensor, hard: float) -> Tensor:
    """(B, K) logarithms of the weights h/r and (1 - h)/(1 - r); 0 where all keys are of one kind."""
    r = same.double().mean(dim=1, keepdim=True)  # (B, 1)
    mixed = (r > 0) & (r < 1)
    r = torch.where(mixed, r, 0.5)
    weights = torch.where(same, hard / r, (1 - hard) / (1 - r))
    return torch.where(mixed, weights, 1.0).log()


def _further(q: Tensor, queue: Tensor, same: Tensor, count: int, *, mix: bool) -> Tensor:
    """Similarities (B, count) of the queries with keys drawn from those of their laterality, or mixtures of two."""
    keys = queue[_draw(same, count)]  # (B, count, D)
    if mix:
        second = queue[_draw(same, count)]
        u = _uniform(same, count)[..., None].to(queue)
        keys = normalize(u * keys + (1 - u) * second, dim=2)
    return torch.einsum("bd,bcd->bc", q, keys)


def _draw(same: Tensor, count: int) -> Tensor:
    """(B, count) rows of the queue of each query's laterality, with replacement; any rows for a query without such."""
    allowed = torch.where(same.any(dim=1, keepdim=True), same, True).cumsum(dim=1)  # (B, K): how many up to there
    number = (_uniform(same, count) * allowed[:, -1:]).long()  # (B, count): of the drawn one among the allowed
    return torch.searchsorted(allowed, number + 1)


def _uniform(same: Tensor, count: int) -> Tensor:
    """(B, count) in [0, 1); every process draws for the whole batch and takes its own rows."""
    return own_rows(torch.rand(process_count() * len(same), count, dtype=torch.float64)).to(same.device)


@register_method(
    "medaug",
    card=MethodCard(
        title="MedAug",
        family="medical",
        paper="vu2021medaug",
        year=2021,
        summary="MoCo v2 whose positive pair is two images of one study of a patient.",
        loss="L = -q·k₊/τ + log [ exp(q·k₊/τ) + Σ_{k in N} exp(q·k/τ) ]",
        terms=(
            Term(name="attraction", acts="between the branches", role="draws the query to an image of its study"),
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
        pairing={"study": "same", "laterality": "all"},
        uses_laterality=True,
        deviations=(
            Deviation(
                what="batch norm is shuffled among parts of the batch, not among GPUs",
                reason="the authors' GPUs each normalize their part; as many parts give the same on any machine",
            ),
            Deviation(
                what="keys of the query's own study stay among the negatives by laterality",
                reason="the paper does not say otherwise; the authors' code leaves them out in these four modes only",
            ),
            Deviation(
                what="the share of the weight on keys of the same laterality is 0.9 where the paper prints t = 0.1",
                reason="the paper's words, 90 % on the hard negatives, and its formula agree only so",
            ),
        ),
    ),
)
class MedAug(MoCo):
    """MoCo v2 with pairs by metadata and a choice of negatives.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector: widths of the projector's layers, without batch norm; the last is the embedding's.
        temperature: τ.
        momentum: m, share of the momentum encoder that a step keeps.
        queue_size: K.
        bn_groups: parts of the whole batch with batch statistics of their own; 1 turns shuffled batch norm off.
        negatives: ``default``, ``same_laterality``, ``reweighted``, ``appended`` or ``synthetic``.
        share: appended or synthetic keys, as a share of K.
        hard_share: h, share of the weight on keys of the same laterality.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (512, 128),
        temperature: float = 0.2,
        momentum: float = 0.999,
        queue_size: int = 24576,
        bn_groups: int = 8,
        negatives: str = "default",
        share: float = 0.1,
        hard_share: float = 0.9,
    ) -> None:
        if negatives not in NEGATIVES:
            raise SpecError(f"medaug: negatives {negatives!r} are unknown. Choose one of {', '.join(NEGATIVES)}.")
        if not (0 < share <= 1 and 0 < hard_share < 1):
            raise SpecError(f"medaug: share and hard_share lie between 0 and 1, got {share} and {hard_share}.")
        # Deviates: batch norm is shuffled among parts of the batch, not among GPUs
        super().__init__(
            backbone,
            projector=projector,
            temperature=temperature,
            momentum=momentum,
            queue_size=queue_size,
            bn_groups=bn_groups,
        )
        # Deviates: the share of the weight on keys of the same laterality is 0.9 where the paper prints t = 0.1
        self.negatives, self.share, self.hard_share = negatives, share, hard_share
        self.register_buffer("queue_sides", torch.full((queue_size, 1), -1))  # (K, 1): the initial keys have none
        self.new_sides = torch.empty(0, 1, dtype=torch.int64)  # from forward to after_step only

    def forward(self, views: Sequence[Tensor], laterality: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        if self.negatives != "default" and bool((laterality < 0).all()):
            raise SpecError(
                f"medaug: negatives {self.negatives!r} need lateralities, and the images have none. Map a column of "
                "your table to `laterality` or `view`, or take negatives: default."
            )
        q, k = self.query_and_key(views)  # (B, P), (B, P)
        self.new_sides = gather(laterality[:, 1:])  # (W B, 1): of the images that the keys show
        side = laterality[:, :1]  # (B, 1)
        # Deviates: keys of the query's own study stay among the negatives by laterality
        same = (side == self.queue_sides.T) & (side >= 0)  # (B, K)
        return medaug_loss(
            q,
            k,
            self.queue,
            same,
            temperature=self.temperature,
            negatives=self.negatives,
            share=self.share,
            hard=self.hard_share,
        )

    def after_step(self, step: int, total_steps: int) -> None:
        place = self.pointer.clone()
        super().after_step(step, total_steps)
        newest = self.new_sides[-len(self.queue_sides) :]  # into the rows that their keys took
        self.queue_sides[(place + torch.arange(len(newest), device=place.device)) % len(self.queue_sides)] = newest
        self.new_sides = self.new_sides[:0]
