"""Barlow Twins: Self-Supervised Learning via Redundancy Reduction.

Zbontar, Jing, Misra, LeCun and Deny, ICML 2021, arXiv:2103.03230.

    L    = Σ_i (1 - C_ii)² + λ Σ_i Σ_{j≠i} C_ij²                                                      (Eq. 1)
    C_ij = Σ_b z^A_{b,i} z^B_{b,j} / ( sqrt(Σ_b (z^A_{b,i})²) sqrt(Σ_b (z^B_{b,j})²) )                (Eq. 2)

z^A and z^B are the embeddings of the two views, centered over the batch; C is their cross-correlation matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.card import Deviation, MethodCard, Term
from bench.errors import SpecError
from bench.registry import register_method
from bench.training.distributed import gather
from bench.training.heads import mlp
from bench.training.method import Method
from bench.training.precision import full_precision


def standardize(z: Tensor, *, eps: float) -> Tensor:
    """Zero mean and unit variance of each dimension over the batch; z (N, D)."""
    z = z - z.mean(dim=0)  # (N, D)
    # Deviates: the standardization adds ε to the variance
    return z / torch.sqrt(z.square().mean(dim=0) + eps)  # (N, D)


@full_precision
def cross_correlation_loss(
    z1: Tensor, z2: Tensor, *, lambd: float, sim_coeff: float = 1.0, eps: float = 1e-5, reduction: str = "correct"
) -> dict[str, Tensor]:
    """The two terms of Eq. 1, for embeddings z1, z2 (N, D) of the two views.

    Args:
        z1, z2: this process's rows; C is that of the batch of all processes.
        lambd: λ.
        sim_coeff: weight of the invariance term; 0 leaves redundancy reduction alone.
        eps: ε, added to the variance; 0 gives Eq. 2.
        reduction: ``correct``, or ``paper_exact`` for the authors' gradient in W processes: 1/W of the correct one.
    """
    # Deviates: the gradient of W processes is not divided by W, unless reduction='paper_exact'
    z1, z2 = (standardize(gather(z, from_all=reduction == "correct"), eps=eps) for z in (z1, z2))  # (W N, D) twice
    c = z1.T @ z2 / len(z1)  # (D, D)
    on_diagonal = c.diagonal()  # (D,)
    off_diagonal = c - torch.diag(on_diagonal)  # (D, D)
    return {
        "invariance": sim_coeff * (1 - on_diagonal).square().sum(),
        "redundancy": lambd * off_diagonal.square().sum(),
    }


@register_method(
    "barlow_twins",
    card=MethodCard(
        title="Barlow Twins",
        family="information maximization",
        paper="zbontar2021barlow",
        year=2021,
        summary="Makes each embedding dimension agree between two views and say nothing that another dimension says.",
        loss="L = Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij², C the cross-correlation of the two views' embeddings",
        terms=(
            Term(name="invariance", acts="between the branches", role="correlates each dimension with its twin"),
            Term(name="redundancy", acts="between the branches", role="decorrelates different dimensions"),
        ),
        complete_collapse="the standardization over the batch: a dimension that is constant correlates with nothing",
        dimensional_collapse="the redundancy term decorrelates the dimensions",
        branches="shared",
        normalization=("standardized",),
        batch_dependence="the correlations are estimated over the batch; no negatives",
        cost="a D x D correlation matrix; the embedding is wide (8192)",
        deviations=(
            Deviation(
                what="λ is 0.0051 by default",
                reason="that of the authors' code; the paper says 0.005",
            ),
            Deviation(
                what="the standardization adds ε to the variance",
                reason="the authors' code uses a batch norm with ε = 1e-5; eps=0 gives the paper's Eq. 2",
            ),
            Deviation(
                what="the gradient of W processes is not divided by W, unless reduction='paper_exact'",
                reason="the authors sum C over the processes without a gradient: theirs is 1/W of one process's",
            ),
        ),
    ),
)
class BarlowTwins(Method):
    """Each view is its own batch for the batch statistics, as in the authors' code.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector: widths of the projector's layers, all without bias.
        lambd: λ, the weight of the redundancy term.
        sim_coeff: weight of the invariance term, 1 in the paper; 0 leaves redundancy reduction alone.
        eps: ε of the standardization.
        reduction: ``correct`` or ``paper_exact``, see :func:`cross_correlation_loss`. They agree in one process.
        bias_lr_scale: learning rate of biases and batch norm parameters, as a share of that of the weights: 0.0048 of
            0.2 in the paper (section 2.2) and in the authors' code, for LARS, which does not adapt these. 1: no share.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (8192, 8192, 8192),
        # Deviates: λ is 0.0051 by default
        lambd: float = 0.0051,
        sim_coeff: float = 1.0,
        eps: float = 1e-5,
        reduction: str = "correct",
        bias_lr_scale: float = 0.024,
    ) -> None:
        super().__init__(backbone)
        if min(lambd, sim_coeff, eps) < 0:
            raise SpecError(
                f"barlow_twins: lambd, sim_coeff and eps must be 0 or more, got {lambd}, {sim_coeff} and {eps}."
            )
        if reduction not in ("correct", "paper_exact"):
            raise SpecError(f"barlow_twins: reduction must be 'correct' or 'paper_exact', got {reduction!r}.")
        if bias_lr_scale <= 0:
            raise SpecError(f"barlow_twins: bias_lr_scale must be above 0, got {bias_lr_scale}. The paper uses 0.024.")
        self.projector = mlp((backbone.feature_dim, *projector), last_bias=False)
        self.settings = {"lambd": lambd, "sim_coeff": sim_coeff, "eps": eps, "reduction": reduction}
        self.bias_lr_scale = bias_lr_scale

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        z1, z2 = (self.projector(self.backbone(x)) for x in views)  # (N, P), (N, P)
        return cross_correlation_loss(z1, z2, **self.settings)

    def parameter_groups(self) -> list[dict[str, Any]]:
        (everything,) = super().parameter_groups()
        weights = [p for p in everything["params"] if p.ndim > 1]
        biases = [p for p in everything["params"] if p.ndim <= 1]
        groups = [{"params": weights}, {"params": biases, "lr_scale": self.bias_lr_scale}]
        return [group for group in groups if group["params"]]
