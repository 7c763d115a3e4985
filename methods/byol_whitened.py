"""BYOL on whitened embeddings: an asymmetric architecture combined with W-MSE's whitening.

Grill et al., NeurIPS 2020, arXiv:2006.07733 (the architecture); Ermolov et al., ICML 2021, arXiv:2007.06346 (the
whitening, and the outlook on such combinations). Neither defines the method; this is its plainest form.

    w  = W_V (z_θ - μ_V),   w' = W_V' (z'_ξ - μ_V')                                        (2007.06346, section 3)
    L  = 2 - 2 cos(q(w1), sg(w'2)) + 2 - 2 cos(q(w2), sg(w'1))                              (2006.07733, Eq. 2)
    ξ <- τ ξ + (1 - τ) θ                                                                    (2006.07733, Eq. 1)

Each network's embeddings of each view are whitened on their own, over random sub-batches of the same images. Whitening
alone prevents a collapse, so predictor and stop-gradient can go.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bench.card import Deviation, MethodCard, Term
from bench.registry import register_method
from bench.training.whitening import check_whitening, whiten_views
from methods.byol import BYOL, regression_loss


@register_method(
    "byol_whitened",
    card=MethodCard(
        title="BYOL + whitening",
        family="asymmetric",
        paper="ermolov2021wmse",
        summary="BYOL whose embeddings are whitened over sub-batches before the predictor: the outlook of W-MSE.",
        loss="L = 2 - 2 cos(q(w1), sg(w'2)) + 2 - 2 cos(q(w2), sg(w'1)), w = W (z - μ) whitened",
        terms=(
            Term(name="view1_predicts_view2", acts="between the branches", role="prediction of the target's view 2"),
            Term(name="view2_predicts_view1", acts="between the branches", role="the same with the views exchanged"),
        ),
        complete_collapse="whitening: the targets' covariance is the identity; also predictor and stopped gradient",
        dimensional_collapse="the same whitening, as long as a sub-batch has more images than the embedding dimensions",
        branches="momentum",
        predictor=True,
        stop_gradient=True,
        normalization=("whitened", "unit length"),
        before_predictor=("whitened",),
        batch_dependence="sub-batches of at least twice as many images as the embedding has dimensions; no negatives",
        cost="BYOL's, and a Cholesky factorization per network, view and sub-batch, in float64",
        deviations=(
            Deviation(
                what="no paper defines this method",
                reason="W-MSE's authors suggest the combination; here the predictor acts on the whitened embedding",
            ),
            Deviation(
                what="the embedding has 64 dimensions",
                reason="BYOL's 256 would need sub-batches of 512 images; W-MSE uses 64 with sub-batches of 128",
            ),
        ),
    ),
)
class BYOLWhitened(BYOL):
    """As :class:`methods.byol.BYOL`, with whitening of the projections of both networks.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector, predictor, tau_base, stop_gradient: as of :class:`methods.byol.BYOL`.
        sub_batch: images that are whitened together, see :func:`bench.training.whitening.whiten_parts`.
        eps: shrinkage of the covariance towards the identity.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        # Deviates: the embedding has 64 dimensions
        projector: tuple[int, ...] = (4096, 64),
        predictor: tuple[int, ...] = (4096, 64),
        tau_base: float = 0.996,
        stop_gradient: bool = True,
        sub_batch: int = 128,
        eps: float = 0.0,
    ) -> None:
        super().__init__(
            backbone, projector=projector, predictor=predictor, tau_base=tau_base, stop_gradient=stop_gradient
        )
        check_whitening("byol_whitened", width=projector[-1], sub_batch=sub_batch, eps=eps)
        self.sub_batch, self.eps = sub_batch, eps

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        # Deviates: no paper defines this method
        w1, w2, t1, t2 = whiten_views(*self.projections(views), size=self.sub_batch, eps=self.eps)  # (B, P) each
        return regression_loss(self.predictor(w1), self.predictor(w2), t1, t2, stop_gradient=self.stop_gradient)
