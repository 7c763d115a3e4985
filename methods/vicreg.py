"""VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning.

Bardes, Ponce and LeCun, ICLR 2022, arXiv:2105.04906.

    l(Z, Z') = λ s(Z, Z') + μ [v(Z) + v(Z')] + ν [c(Z) + c(Z')]                                       (Eq. 6)
    s(Z, Z') = 1/n Σ_i || z_i - z'_i ||²                                                              (Eq. 5)
    v(Z)     = 1/d Σ_j max(0, γ - S(z^j, ε)),   S(x, ε) = sqrt(Var(x) + ε)                            (Eq. 1, 2)
    c(Z)     = 1/d Σ_{i≠j} [C(Z)]²_ij,   C(Z) = 1/(n-1) Σ_i (z_i - z̄)(z_i - z̄)ᵀ                       (Eq. 3, 4)

The authors' code divides s by d as well and averages the two v instead of adding them. The coefficients λ = μ = 25,
ν = 1 belong to that code, so ``definition="code"`` is the default here and ``"paper"`` gives the equations above.
No term needs the branches to share weights or architecture (section 3; Table 5).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from bench.card import Deviation, MethodCard, Term
from bench.encoders.build import another_backbone
from bench.errors import SpecError
from bench.registry import register_method
from bench.training.distributed import gather
from bench.training.heads import mlp
from bench.training.method import Method
from bench.training.precision import full_precision


def variance(z: Tensor, *, gamma: float, eps: float) -> Tensor:
    """v(Z), the hinge on each dimension's standard deviation; z (N, D)."""
    std = torch.sqrt(z.var(dim=0) + eps)  # (D,)
    return relu(gamma - std).mean()


def covariance(z: Tensor) -> Tensor:
    """c(Z), the squared off-diagonal covariances, summed and divided by D; z (N, D)."""
    z = z - z.mean(dim=0)  # (N, D)
    cov = z.T @ z / (len(z) - 1)  # (D, D)
    return (cov - torch.diag(cov.diagonal())).square().sum() / z.shape[1]


@full_precision
def vicreg_loss(
    z1: Tensor,
    z2: Tensor,
    *,
    sim_coeff: float,
    std_coeff: float,
    cov_coeff: float,
    gamma: float = 1.0,
    eps: float = 1e-4,
    definition: str = "code",
) -> dict[str, Tensor]:
    """The three weighted terms of Eq. 6, for embeddings z1, z2 (N, D) of the two views.

    With several processes s is the mean over this one's images; v and c are those of the whole batch.
    """
    d = z1.shape[1]
    s = (z1 - z2).square().sum(dim=1).mean()
    z1, z2 = gather(z1), gather(z2)
    v = variance(z1, gamma=gamma, eps=eps) + variance(z2, gamma=gamma, eps=eps)
    c = covariance(z1) + covariance(z2)
    # Deviates: the invariance is divided by d and the two variances are averaged, unless definition='paper'
    if definition == "code":
        s, v = s / d, v / 2
    return {"invariance": sim_coeff * s, "variance": std_coeff * v, "covariance": cov_coeff * c}


@register_method(
    "vicreg",
    card=MethodCard(
        title="VICReg",
        family="information maximization",
        paper="bardes2022vicreg",
        year=2022,
        summary="Pulls two views together while every embedding dimension keeps its spread and stays uncorrelated.",
        loss="l = λ s(Z, Z') + μ [v(Z) + v(Z')] + ν [c(Z) + c(Z')]",
        terms=(
            Term(name="invariance", acts="between the branches", role="mean squared distance of the two views"),
            Term(name="variance", acts="on each branch", role="keeps the spread of every dimension above γ"),
            Term(name="covariance", acts="on each branch", role="decorrelates the dimensions"),
        ),
        complete_collapse="the variance term keeps each dimension's standard deviation above γ = 1",
        dimensional_collapse="the covariance term decorrelates the dimensions",
        branches="shared or separate",
        batch_dependence="variance and covariance are estimated over the batch; no negatives",
        deviations=(
            Deviation(
                what="the invariance is divided by d and the two variances are averaged, unless definition='paper'",
                reason="the authors' code does so, and the published coefficients 25, 25, 1 belong to it",
            ),
        ),
    ),
)
class VICReg(Method):
    """Each view is its own batch for the batch statistics, as in the authors' code.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector: widths of the expander's layers; the last layer has no bias.
        sim_coeff, std_coeff, cov_coeff: λ, μ, ν.
        gamma: γ, the standard deviation that the hinge asks for.
        eps: ε, inside the square root.
        definition: ``code`` (the authors' code) or ``paper`` (the equations as printed).
        branches: ``shared``, or ``separate``: view 2 has a backbone and a projector with weights of their own. The
            encoder that is evaluated is that of view 1.
        second_backbone: key of the backbone of view 2; empty for the architecture of the first.
        second_projector: widths of the projector of view 2; empty for those of the first. The embeddings are equally
            wide.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (8192, 8192, 8192),
        sim_coeff: float = 25.0,
        std_coeff: float = 25.0,
        cov_coeff: float = 1.0,
        gamma: float = 1.0,
        eps: float = 1e-4,
        definition: str = "code",
        branches: str = "shared",
        second_backbone: str = "",
        second_projector: tuple[int, ...] = (),
    ) -> None:
        super().__init__(backbone)
        if definition not in ("code", "paper"):
            raise SpecError(f"vicreg: definition must be 'code' (authors' code) or 'paper', got {definition!r}.")
        if branches not in ("shared", "separate"):
            raise SpecError(f"vicreg: branches must be 'shared' or 'separate', got {branches!r}.")
        if branches == "shared" and (second_backbone or second_projector):
            raise SpecError("vicreg: second_backbone and second_projector need branches='separate'.")
        if second_projector and second_projector[-1] != projector[-1]:
            raise SpecError(
                f"vicreg: the second projector ends with width {second_projector[-1]}, the first with {projector[-1]}; "
                "their embeddings are compared, so make them equal."
            )
        self.projector = mlp((backbone.feature_dim, *projector), hidden_bias=True, last_bias=False)
        self.second: nn.Module | None = None
        if branches == "separate":
            other = another_backbone(backbone, second_backbone)
            widths = (other.feature_dim, *(second_projector or projector))
            self.second = nn.Sequential(other, mlp(widths, hidden_bias=True, last_bias=False))
        self.settings = {"sim_coeff": sim_coeff, "std_coeff": std_coeff, "cov_coeff": cov_coeff}
        self.settings |= {"gamma": gamma, "eps": eps, "definition": definition}

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        x1, x2 = views
        z1 = self.projector(self.backbone(x1))  # (N, P)
        z2 = self.projector(self.backbone(x2)) if self.second is None else self.second(x2)  # (N, P)
        return vicreg_loss(z1, z2, **self.settings)
