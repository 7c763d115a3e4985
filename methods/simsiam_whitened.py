"""SimSiam on whitened embeddings: an asymmetric architecture combined with W-MSE's whitening.

Chen and He, CVPR 2021, arXiv:2011.10566 (the architecture); Ermolov et al., ICML 2021, arXiv:2007.06346 (the whitening,
and the outlook on such combinations). Neither defines the method; this is its plainest form.

    w_i = W_V (z_i - μ_V)                                                                   (2007.06346, section 3)
    L   = D(h(w1), stopgrad(w2)) / 2 + D(h(w2), stopgrad(w1)) / 2,   D = - cos              (2011.10566, Eq. 4)

Each view is whitened over random sub-batches V, the same images in both views. Whitening alone prevents a collapse, so
predictor and stop-gradient can go. Without both, L = L_W-MSE / 2 - 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from bench.card import Deviation, MethodCard, Term
from bench.registry import register_method
from bench.training.whitening import check_whitening, whiten_views
from methods.simsiam import SimSiam, negative_cosines


@register_method(
    "simsiam_whitened",
    card=MethodCard(
        title="SimSiam + whitening",
        family="asymmetric",
        paper="ermolov2021wmse",
        summary="SimSiam whose embeddings are whitened over sub-batches before the predictor: the outlook of W-MSE.",
        loss="L = -cos(h(w1), sg(w2)) / 2 - cos(h(w2), sg(w1)) / 2, w = W (z - μ) whitened",
        terms=(
            Term(name="view1_predicts_view2", acts="between the branches", role="prediction of view 2 from view 1"),
            Term(name="view2_predicts_view1", acts="between the branches", role="the same with the views exchanged"),
        ),
        complete_collapse="whitening: the targets' covariance is the identity; also predictor and stopped gradient",
        dimensional_collapse="the same whitening, as long as a sub-batch has more images than the embedding dimensions",
        branches="shared",
        predictor=True,
        stop_gradient=True,
        normalization=("whitened", "unit length"),
        before_predictor=("whitened",),
        batch_dependence="sub-batches of at least twice as many images as the embedding has dimensions; no negatives",
        cost="a small predictor; a Cholesky factorization per view and sub-batch, in float64",
        deviations=(
            Deviation(
                what="no paper defines this method",
                reason="W-MSE's authors suggest the combination; here the predictor acts on the whitened embedding",
            ),
            Deviation(
                what="the embedding has 64 dimensions and the predictor no bottleneck",
                reason="a sub-batch of 128 cannot whiten SimSiam's 2048; white dimensions leave nothing to compress",
            ),
        ),
    ),
)
class SimSiamWhitened(SimSiam):
    """As :class:`methods.simsiam.SimSiam`; whitening makes the batch norm of the projector's output redundant.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector, predictor, stop_gradient, fix_predictor_lr: as of :class:`methods.simsiam.SimSiam`.
        sub_batch: images that are whitened together, see :func:`bench.training.whitening.whiten_parts`.
        eps: shrinkage of the covariance towards the identity.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        # Deviates: the embedding has 64 dimensions and the predictor no bottleneck
        projector: tuple[int, ...] = (2048, 2048, 64),
        predictor: tuple[int, ...] = (512, 64),
        stop_gradient: bool = True,
        fix_predictor_lr: bool = True,
        sub_batch: int = 128,
        eps: float = 0.0,
    ) -> None:
        super().__init__(
            backbone,
            projector=projector,
            predictor=predictor,
            stop_gradient=stop_gradient,
            fix_predictor_lr=fix_predictor_lr,
        )
        check_whitening("simsiam_whitened", width=projector[-1], sub_batch=sub_batch, eps=eps)
        self.sub_batch, self.eps = sub_batch, eps

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        z1, z2 = (self.projector(self.backbone(x)) for x in views)  # (B, P), (B, P)
        # Deviates: no paper defines this method
        w1, w2 = whiten_views(z1, z2, size=self.sub_batch, eps=self.eps)  # (B, P), (B, P)
        return negative_cosines(self.predictor(w1), self.predictor(w2), w1, w2, stop_gradient=self.stop_gradient)
