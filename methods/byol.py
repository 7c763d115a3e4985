"""BYOL: Bootstrap Your Own Latent, a New Approach to Self-Supervised Learning.

Grill, Strub, Altché, Tallec, Richemond et al., NeurIPS 2020, arXiv:2006.07733.

    L_θ,ξ = || q̄_θ(z_θ) - z̄'_ξ ||²  =  2 - 2 <q_θ(z_θ), z'_ξ> / ( ||q_θ(z_θ)|| ||z'_ξ|| )             (Eq. 2)
    L     = L_θ,ξ + L̃_θ,ξ,   L̃ with the two views exchanged                                           (sec. 3.1)
    ξ    <- τ ξ + (1 - τ) θ  after every step,   τ = 1 - (1 - τ_base) (cos(πk/K) + 1) / 2              (Eq. 1, sec. 3.3)

θ is the online network (backbone, projector, predictor q), ξ the target network (backbone, projector), which is the
moving average of the online one and receives no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from bench.card import Deviation, MethodCard, Term
from bench.errors import SpecError
from bench.registry import register_method
from bench.training.heads import mlp
from bench.training.method import Method
from bench.training.momentum import cosine_tau, momentum_copy, update_momentum
from bench.training.precision import full_precision


@full_precision
def regression_loss(q1: Tensor, q2: Tensor, t1: Tensor, t2: Tensor, *, stop_gradient: bool = True) -> dict[str, Tensor]:
    """Eq. 2 in both directions, averaged over the batch; their sum is L.

    Args:
        q1, q2: the online network's predictions from views 1 and 2, (B, D) each.
        t1, t2: the target network's projections of views 1 and 2, (B, D) each.
        stop_gradient: treat the projections as constants, as the paper does.
    """
    if stop_gradient:
        t1, t2 = t1.detach(), t2.detach()  # sg(z'_ξ)
    return {
        "view1_predicts_view2": (2 - 2 * cosine_similarity(q1, t2, dim=1)).mean(),
        "view2_predicts_view1": (2 - 2 * cosine_similarity(q2, t1, dim=1)).mean(),
    }


@register_method(
    "byol",
    card=MethodCard(
        title="BYOL",
        family="asymmetric",
        paper="grill2020byol",
        year=2020,
        summary="Predicts, from one view, what a slowly moving average of the network makes of the other view.",
        loss="L = 2 - 2 cos(q(z1), sg(z'2)) + 2 - 2 cos(q(z2), sg(z'1))",
        terms=(
            Term(name="view1_predicts_view2", acts="between the branches", role="prediction of the target's view 2"),
            Term(name="view2_predicts_view1", acts="between the branches", role="the same with the views exchanged"),
        ),
        complete_collapse="the predictor together with the stopped gradient of the target; batch norm helps",
        dimensional_collapse="no term against it",
        branches="momentum",
        predictor=True,
        stop_gradient=True,
        normalization=("unit length",),
        batch_dependence="batch statistics in the heads; no negatives, so small batches cost little",
        cost="two further forward passes, through the target network, and a second copy of the weights",
        deviations=(
            Deviation(
                what="the target network starts as a copy of the online network",
                reason="the authors' code initializes it independently; with τ below 1 the start is soon forgotten",
            ),
        ),
    ),
)
class BYOL(Method):
    """Online and target network; each view is its own batch for the batch statistics.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector: widths of the projector's layers, online and target.
        predictor: widths of the predictor's layers; the last equals the projector's. Empty: no predictor, q(z) = z.
        tau_base: τ of the first update; it rises to 1 along a cosine. 0.996 for 1000 epochs, 0.99 for 100 to 300.
        stop_gradient: False takes the online network's own projections as targets, with their gradient: there is no
            target network then, and ``tau_base`` plays no part.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (4096, 256),
        predictor: tuple[int, ...] = (4096, 256),
        tau_base: float = 0.996,
        stop_gradient: bool = True,
    ) -> None:
        super().__init__(backbone)
        if predictor and projector[-1] != predictor[-1]:
            raise SpecError(
                f"{self.key}: the predictor ends with width {predictor[-1]}, the projector with {projector[-1]}; "
                "the prediction is compared with a projection, so make them equal."
            )
        if not 0 <= tau_base <= 1:
            raise SpecError(f"{self.key}: tau_base must lie in [0, 1], got {tau_base}. The paper uses 0.996.")
        self.projector = mlp((backbone.feature_dim, *projector), hidden_bias=True, last_bias=False)
        predict = mlp((projector[-1], *predictor), hidden_bias=True, last_bias=False) if predictor else nn.Identity()
        self.predictor = predict
        # Deviates: the target network starts as a copy of the online network
        self.target = momentum_copy(nn.Sequential(self.backbone, self.projector)) if stop_gradient else None
        self.tau_base, self.stop_gradient = tau_base, stop_gradient

    def projections(self, views: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z_θ of both views, then z'_ξ of both views, (B, P) each."""
        z1, z2 = (self.projector(self.backbone(x)) for x in views)  # (B, P), (B, P)
        if self.target is None:
            return z1, z2, z1, z2
        with torch.no_grad():
            t1, t2 = (self.target(x) for x in views)  # (B, P), (B, P)
        return z1, z2, t1, t2

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        z1, z2, t1, t2 = self.projections(views)
        return regression_loss(self.predictor(z1), self.predictor(z2), t1, t2, stop_gradient=self.stop_gradient)

    def after_step(self, step: int, total_steps: int) -> None:
        if self.target is None:
            return
        # The paper's k counts from 0, so the first update uses τ_base itself.
        tau = cosine_tau(self.tau_base, step - 1, total_steps)
        update_momentum(self.target, nn.Sequential(self.backbone, self.projector), tau)
