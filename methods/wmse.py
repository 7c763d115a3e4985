"""W-MSE: Whitening for Self-Supervised Representation Learning.

Ermolov, Siarohin, Sangineto and Sebe, ICML 2021, arXiv:2007.06346.

    L = 2 / (N d (d-1)) Σ dist(z_i, z_j)   over all pairs of the d positives of each of N images     (section 3)
    z = W_V (v - μ_V),   W_Vᵀ W_V = Σ_V⁻¹
    dist(z_i, z_j) = || z_i/||z_i|| - z_j/||z_j|| ||²  =  2 - 2 cos(z_i, z_j)   (2 where a z is 0: a constant batch)

v is an embedding; V is a sub-batch of one view's embeddings with mean μ_V and covariance Σ_V, and W_V the inverse of
the Cholesky factor of Σ_V. One permutation of the images cuts all views into sub-batches (section 3.1, batch slicing);
the loss is averaged over several permutations (iterations).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from bench.card import Deviation, MethodCard, Term
from bench.errors import SpecError
from bench.registry import register_method
from bench.training.distributed import draw_permutations, gather
from bench.training.heads import mlp
from bench.training.method import Method
from bench.training.precision import full_precision
from bench.training.whitening import check_whitening, whiten_parts


@full_precision
def whitened_mse(
    *views: Tensor, permutations: Tensor, sub_batch: int, eps: float = 0.0, normalize: bool = True
) -> dict[str, Tensor]:
    """The distance of whitened views, averaged over pairs of views, images and permutations.

    Args:
        views: embeddings of each view, (N, D), this process's rows; the batch of all processes is whitened.
        permutations: (iterations, W N) for W processes, the same in all of them.
        sub_batch: images of a sub-batch, see :func:`bench.training.whitening.whiten_parts`.
        eps: shrinkage of the covariance towards the identity.
        normalize: bring the whitened embeddings to unit length before their squared distance is taken.
    """
    v = torch.stack([gather(view) for view in views])  # (V, W N, D)
    distances = []
    for permutation in permutations:
        z = whiten_parts(v, permutation, size=sub_batch, eps=eps)  # (V, W N, D)
        for a, b in combinations(z, 2):
            # Deviates: without unit length the squared distance is not divided by the dimension
            dist = 2 - 2 * cosine_similarity(a, b, dim=1) if normalize else (a - b).square().sum(dim=1)  # (W N,)
            distances.append(dist.mean())
    return {"distance": torch.stack(distances).mean()}


@register_method(
    "wmse",
    card=MethodCard(
        title="W-MSE",
        family="information maximization",
        paper="ermolov2021wmse",
        year=2021,
        summary="Whitens each view's embeddings over sub-batches, then pulls the views of an image together.",
        loss="L = 2/(N d (d-1)) Σ_{i<j} [ 2 - 2 cos(z_i, z_j) ], z = W (v - μ) whitened, d positives per image",
        terms=(
            Term(name="distance", acts="between the branches", role="draws the whitened views of an image together"),
        ),
        complete_collapse="whitening: what is compared has the identity as covariance; constant embeddings stay at 0",
        dimensional_collapse="the same whitening, as long as a sub-batch has more images than the embedding dimensions",
        normalization=("whitened", "unit length"),
        batch_dependence="sub-batches of at least twice as many images as the embedding has dimensions; no negatives",
        cost="a Cholesky factorization and a triangular solve per view, sub-batch and iteration, in float64",
        views="positives",
        gradient_views="all",
        deviations=(
            Deviation(
                what="without unit length the squared distance is not divided by the dimension",
                reason="the authors' code takes the mean over the dimensions there; with unit length both agree",
            ),
        ),
    ),
)
class WMSE(Method):
    """Each view is its own batch in the backbone and all share one in the projector, as in the authors' code.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector: widths of the projector's layers; the embedding has 64 dimensions on CIFAR, 128 on larger images.
        positives: d, views of each image: 2 or 4 in the paper.
        sub_batch: images of a sub-batch, more than the embedding has dimensions: 128 for 64, 256 for 128. A rest of
            the batch joins the sub-batches, and a smaller batch is one; with no more images than dimensions it is white
            in fewer, and the others get no gradient.
        iterations: permutations per step; the paper uses 4 for two positives on STL-10 and Tiny ImageNet, else 1.
        eps: shrinkage of the covariance towards the identity.
        normalize: compare directions, not whitened vectors themselves.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (1024, 64),
        positives: int = 2,
        sub_batch: int = 128,
        iterations: int = 1,
        eps: float = 0.0,
        normalize: bool = True,
    ) -> None:
        super().__init__(backbone)
        for name, value, least in (
            ("positives", positives, 2),
            ("iterations", iterations, 1),
        ):
            if value < least:
                raise SpecError(f"wmse: {name} must be {least} or more, got {value}.")
        check_whitening("wmse", width=projector[-1], sub_batch=sub_batch, eps=eps)
        self.projector = mlp((backbone.feature_dim, *projector), hidden_bias=True)
        self.iterations = iterations
        self.settings = {"sub_batch": sub_batch, "eps": eps, "normalize": normalize}

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        h = torch.cat([self.backbone(x) for x in views])  # (V N, D)
        v = self.projector(h).chunk(len(views))  # V times (N, P)
        return whitened_mse(*v, permutations=draw_permutations(v[0], count=self.iterations), **self.settings)
