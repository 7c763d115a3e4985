"""FNC: Boosting Contrastive Self-Supervised Learning with False Negative Cancellation, on SimCLR.

Huynh, Kornblith, Walter, Maire and Khademi, WACV 2022, arXiv:2011.11765.

    p_ik      = exp(sim(z_i, z_k) / τ) / Σ_{m ≠ i} exp(sim(z_i, z_m) / τ),      j the other view of the image of i
    attraction:   l(i) = -1/(1 + |F_i|) [ log p_ij + Σ_{f in F_i} log p_if ]
    elimination:  l(i) = -log [ exp(sim(z_i, z_j)/τ) / Σ_{m ≠ i, m not in F_i} exp(sim(z_i, z_m)/τ) ]
    F_i       = the top_k highest max_{s in S_i} sim(z_m, z_s) above the threshold,   L = 1/(2N) Σ_i l(i)

S_i are support views of the anchor's image, which only score: its false negatives F_i look like one of them. Attraction
leaves F_i in the denominator. Each l splits into the mean of -sim/τ over positives, the attraction, and log Σ exp, the
repulsion. Where F_i is empty, l is SimCLR's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from bench.card import Deviation, MethodCard, Term
from bench.errors import SpecError
from bench.registry import register_method
from bench.training.distributed import gather
from bench.training.false_negatives import check_detection, detect, statistics_kept
from bench.training.heads import mlp
from bench.training.method import Method
from bench.training.precision import full_precision


@full_precision
def nt_xent_fnc(
    z: Tensor, support: Tensor, *, temperature: float, strategy: str, definition: str, **detection: str | float
) -> dict[str, Tensor]:
    """The mean of l over all anchors, or twice that if ``definition`` is ``code``.

    Args:
        z: embeddings of the V views that are anchors, (V, N, D), of this process; column n shows image n.
        support: embeddings of the S views that score, (S, N, D); constants.
        temperature: τ.
        strategy: ``attraction`` or ``elimination``.
        definition: ``paper`` or ``code``.
        detection: aggregation, top_k and threshold of :func:`bench.training.false_negatives.detect`.
    """
    z, support = (torch.stack([gather(view) for view in x]) if len(x) else x for x in (z, support))
    v, n, _ = z.shape
    z = normalize(z.flatten(0, 1), dim=1)  # (V N, D)
    itself = torch.eye(v * n, dtype=torch.bool, device=z.device)  # (V N, V N)
    own = torch.eye(n, dtype=torch.bool, device=z.device).repeat(1, v)  # (N, V N)
    # Deviates: false negatives are sought in the batch, by the trained encoder
    false = detect(z, support, excluded=own, **detection).repeat(v, 1)  # (V N, V N)
    positives = own.repeat(v, 1) & ~itself
    if strategy == "attraction":
        positives |= false
    s = z @ z.T / temperature  # (V N, V N)
    positive = (s * positives).sum(dim=1) / positives.sum(dim=1)  # (V N,)
    removed = itself | false if strategy == "elimination" else itself
    partition = s.masked_fill(removed, -torch.inf).logsumexp(dim=1)  # (V N,)
    # Deviates: all views are anchors and score for each other, and the loss is doubled, if definition='code'
    count = v * n / (1 if definition == "paper" else 2)
    return {"attraction": -positive.sum() / count, "repulsion": partition.sum() / count}


@register_method(
    "simclr_fnc",
    card=MethodCard(
        title="SimCLR + FNC",
        family="contrastive",
        paper="huynh2022fnc",
        year=2022,
        summary="SimCLR that attracts, or leaves out, the negatives that look like the anchor's image.",
        loss="L = 1/(2N) Σ_i [ -(sim_ij + Σ_{f in F_i} sim_if) / ((1 + |F_i|) τ) + log Σ_{k≠i} exp(sim_ik/τ) ]",
        terms=(
            Term(
                name="attraction",
                acts="between the branches",
                role="draws views together, and with attraction false negatives",
            ),
            Term(name="repulsion", acts="against negatives", role="pushes every other embedding of the batch away"),
        ),
        complete_collapse="negatives: the rest of the batch is pushed away; false negatives found too freely undo it",
        dimensional_collapse="the same repulsion spreads the embeddings over the sphere; no explicit term",
        negatives="batch",
        support_views=True,
        normalization=("unit length",),
        batch_dependence="large batches: negatives and false negatives of an image are found among the others",
        cost="a forward pass without gradient for every support view",
        views="2 + support_views",
        deviations=(
            Deviation(
                what="false negatives are sought in the batch, by the trained encoder",
                reason="the authors' code keeps a memory of 16 batches by a momentum encoder; the batch needs neither",
            ),
            Deviation(
                what="all views are anchors and score for each other, and the loss is doubled, if definition='code'",
                reason="the authors' code does so (2/V times the sum over V anchors); the default is the paper's",
            ),
            Deviation(
                what="the projector has a batch norm after its hidden layers only",
                reason="the authors' code has one at the end too; without it, no false negatives is SimCLR exactly",
            ),
        ),
    ),
)
class SimCLRFNC(Method):
    """The anchors' views share one batch for the batch statistics, as in SimCLR; the support views have one of their
    own, without gradient and without a trace in the running statistics.

    Args:
        backbone, projector, temperature: as in SimCLR.
        support_views: S; 0 finds no false negatives, unless the anchors score.
        top_k: largest number of false negatives among the 2(N-1) embeddings of other images; 0 sets no limit.
        threshold: cosine similarity that a false negative exceeds.
        aggregation: ``max`` or ``mean`` over the support views.
        strategy: ``attraction`` or ``elimination``.
        definition: ``paper``, or ``code``: all V = 2 + S views are anchors with a gradient and score, candidates are
            the V(N-1) embeddings of other images, and the V-1 other views of the image are positives; attraction only.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (2048, 2048, 128),
        temperature: float = 0.1,
        support_views: int = 8,
        top_k: int = 10,
        threshold: float = 0.7,
        aggregation: str = "max",
        strategy: str = "attraction",
        definition: str = "paper",
    ) -> None:
        super().__init__(backbone)
        if temperature <= 0:
            raise SpecError(f"simclr_fnc: temperature must be above 0, got {temperature}. The paper uses 0.1.")
        if (strategy, definition) not in (("attraction", "paper"), ("elimination", "paper"), ("attraction", "code")):
            raise SpecError(
                f"simclr_fnc: strategy must be 'attraction' or 'elimination', and definition 'paper', or 'code' with "
                f"attraction, which alone the authors released; got {strategy!r} with {definition!r}."
            )
        check_detection("simclr_fnc", support_views=support_views, top_k=top_k, aggregation=aggregation)
        # Deviates: the projector has a batch norm after its hidden layers only
        self.projector = mlp((backbone.feature_dim, *projector))
        self.definition = definition
        self.settings = {"temperature": temperature, "strategy": strategy, "definition": definition}
        self.settings |= {"aggregation": aggregation, "top_k": top_k, "threshold": threshold}

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        anchors = 2 if self.definition == "paper" else len(views)
        z = self.encode(views[:anchors])  # (V, N, P)
        support = z.detach()  # (V, N, P)
        if self.definition == "paper":
            with torch.no_grad(), statistics_kept(self):
                support = self.encode(views[2:]) if len(views) > 2 else z[:0]  # (S, N, P)
        return nt_xent_fnc(z, support, **self.settings)

    def encode(self, views: Sequence[Tensor]) -> Tensor:
        """Embeddings (V, N, P) of V views, which go through the network as one batch."""
        z: Tensor = self.projector(self.backbone(torch.cat(tuple(views))))  # (V N, P)
        return z.unflatten(0, (len(views), -1))
