"""SimSiam: Exploring Simple Siamese Representation Learning.

Chen and He, CVPR 2021, arXiv:2011.10566.

    D(p1, z2) = - <p1, z2> / ( ||p1|| ||z2|| )                                                        (Eq. 1)
    L         = D(p1, stopgrad(z2)) / 2 + D(p2, stopgrad(z1)) / 2                                     (Eq. 4)

z1 and z2 are the projections of the two views, p1 = h(z1) and p2 = h(z2) the predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from bench.card import Deviation, MethodCard, Term
from bench.errors import SpecError
from bench.registry import register_method
from bench.training.heads import mlp
from bench.training.method import Method
from bench.training.precision import full_precision


@full_precision
def negative_cosines(
    p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor, *, stop_gradient: bool = True
) -> dict[str, Tensor]:
    """The two halves of Eq. 4, averaged over the batch.

    Args:
        p1, p2: predictions from views 1 and 2, (B, D) each.
        z1, z2: projections of views 1 and 2, (B, D) each.
        stop_gradient: treat the projections as constants, as the paper does.
    """
    if stop_gradient:
        z1, z2 = z1.detach(), z2.detach()  # stopgrad(z)
    return {
        "view1_predicts_view2": -cosine_similarity(p1, z2, dim=1).mean() / 2,
        "view2_predicts_view1": -cosine_similarity(p2, z1, dim=1).mean() / 2,
    }


@register_method(
    "simsiam",
    card=MethodCard(
        title="SimSiam",
        family="asymmetric",
        paper="chen2021simsiam",
        year=2021,
        summary="Predicts, from one view, the same network's projection of the other view, taken as a constant.",
        loss="L = -cos(h(z1), sg(z2)) / 2 - cos(h(z2), sg(z1)) / 2",
        terms=(
            Term(name="view1_predicts_view2", acts="between the branches", role="prediction of view 2 from view 1"),
            Term(name="view2_predicts_view1", acts="between the branches", role="the same with the views exchanged"),
        ),
        complete_collapse="the predictor together with the stopped gradient",
        dimensional_collapse="no term against it; the batch norm on the projector's output evens out the scales",
        branches="shared",
        predictor=True,
        stop_gradient=True,
        normalization=("unit length",),
        batch_dependence="batch statistics in the heads; no negatives, so small batches cost little",
        cost="a small predictor; neither negatives nor a second network",
        deviations=(
            Deviation(
                what="the batch norm of the projector's output has no scale and shift",
                reason="as in the authors' code; in the paper's section 4.4 that gives 68.2 % against 68.1 %",
            ),
        ),
    ),
)
class SimSiam(Method):
    """Each view is its own batch for the batch statistics, as in the authors' code.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector: widths of the projector's layers; the hidden ones have a batch norm, and none a bias.
        predictor: widths of the predictor's layers; the last equals the projector's. Empty: no predictor, h(z) = z.
        stop_gradient: treat the projection that is predicted as a constant. The paper's collapses without.
        output_norm: batch norm of the projector's output: ``plain`` (without scale and shift), ``affine`` or ``none``;
            68.2, 68.1 and 67.4 % in the paper's section 4.4. It keeps every dimension's spread, and with it a collapse
            away for a while.
        fix_predictor_lr: the predictor keeps the base learning rate, while that of the rest follows the schedule.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (2048, 2048, 2048),
        predictor: tuple[int, ...] = (512, 2048),
        stop_gradient: bool = True,
        output_norm: str = "plain",
        fix_predictor_lr: bool = True,
    ) -> None:
        super().__init__(backbone)
        if predictor and projector[-1] != predictor[-1]:
            raise SpecError(
                f"{self.key}: the predictor ends with width {predictor[-1]}, the projector with {projector[-1]}; "
                "the prediction is compared with a projection, so make them equal."
            )
        if output_norm not in ("plain", "affine", "none"):
            raise SpecError(f"{self.key}: output_norm must be 'plain', 'affine' or 'none', got {output_norm!r}.")
        # Deviates: the batch norm of the projector's output has no scale and shift
        self.projector = mlp((backbone.feature_dim, *projector), last_bias=False, last_norm=output_norm)
        self.predictor = mlp((projector[-1], *predictor)) if predictor else nn.Identity()
        self.stop_gradient, self.fix_predictor_lr = stop_gradient, fix_predictor_lr

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        z1, z2 = (self.projector(self.backbone(x)) for x in views)  # (B, P), (B, P)
        p1, p2 = self.predictor(z1), self.predictor(z2)  # (B, P), (B, P)
        return negative_cosines(p1, p2, z1, z2, stop_gradient=self.stop_gradient)

    def parameter_groups(self) -> list[dict[str, Any]]:
        predictor = set(self.predictor.parameters())
        if not predictor or not self.fix_predictor_lr:
            return super().parameter_groups()
        rest = [p for p in self.parameters() if p not in predictor]
        return [{"params": rest}, {"params": list(self.predictor.parameters()), "constant_lr": True}]
