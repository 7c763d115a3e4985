"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations.

Chen, Kornblith, Norouzi and Hinton, ICML 2020, arXiv:2002.05709.

    l(i, j) = -log [ exp(sim(z_i, z_j) / τ) / Σ_{k ≠ i} exp(sim(z_i, z_k) / τ) ]                      (Eq. 1)
    L       = 1/(2N) Σ_{k=1}^{N} [ l(2k-1, 2k) + l(2k, 2k-1) ]                                        (Algorithm 1)

sim is the cosine similarity; i and k run over the 2N embeddings of both views, j is the other view of the image of i.
The logarithm of the quotient splits each l into -sim(z_i, z_j)/τ, the attraction, and log Σ exp, the repulsion.
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
from bench.training.heads import mlp
from bench.training.method import Method
from bench.training.precision import full_precision


@full_precision
def nt_xent(z1: Tensor, z2: Tensor, *, temperature: float, definition: str) -> dict[str, Tensor]:
    """Eq. 1 for both directions of every pair, split into attraction and repulsion.

    Args:
        z1, z2: embeddings of the two views, (N, D) each, of this process; row i of both shows image i.
        temperature: τ.
        definition: ``paper``, the mean over the 2N embeddings (Algorithm 1), or ``code``, the sum of the two
            directions' means, twice the mean.
    """
    z1, z2 = gather(z1), gather(z2)  # the batch of all processes
    n = len(z1)
    z = normalize(torch.cat([z1, z2]), dim=1)  # (2N, D)
    s = z @ z.T / temperature  # (2N, 2N)
    positive = torch.cat([s.diagonal(n), s.diagonal(-n)])  # (2N,)
    itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)  # (2N, 2N)
    partition = s.masked_fill(itself, -torch.inf).logsumexp(dim=1)  # (2N,)
    # Deviates: the loss is the sum of both directions, not their mean, if definition='code'
    count = 2 * n if definition == "paper" else n
    return {"attraction": -positive.sum() / count, "repulsion": partition.sum() / count}


@register_method(
    "simclr",
    card=MethodCard(
        title="SimCLR",
        family="contrastive",
        paper="chen2020simclr",
        year=2020,
        summary="Tells the other view of an image apart from every other image in the batch.",
        loss="L = 1/(2N) Σ_i [ -sim(z_i, z_j)/τ + log Σ_{k≠i} exp(sim(z_i, z_k)/τ) ], j the other view of i",
        terms=(
            Term(name="attraction", acts="between the branches", role="draws the two views of an image together"),
            Term(name="repulsion", acts="against negatives", role="pushes every other embedding of the batch away"),
        ),
        complete_collapse="negatives: every other embedding of the batch is pushed away",
        dimensional_collapse="the same repulsion spreads the embeddings over the sphere; no explicit term",
        negatives="batch",
        normalization=("unit length",),
        batch_dependence="large batches: the 2(N-1) negatives of an image are the other images of its batch",
        deviations=(
            Deviation(
                what="the projector ends with a linear layer",
                reason="that of the paper; in the authors' code a batch norm without shift follows it",
            ),
            Deviation(
                what="the loss is the sum of both directions, not their mean, if definition='code'",
                reason="the authors' code adds them; the default is Algorithm 1 of the paper",
            ),
            Deviation(
                what="the projector's hidden layer has a batch norm",
                reason="the authors' code has it; the formula of g in the paper, W2 σ(W1 h), does not show it",
            ),
        ),
    ),
)
class SimCLR(Method):
    """Both views go through the network as one batch of 2N, so they share their batch statistics.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        projector: widths of the projector's layers; the last is the embedding's.
        temperature: τ; 0.1 is best on ImageNet (Table 5), 0.5 on CIFAR-10 (appendix B.9).
        definition: ``paper`` (mean of both directions) or ``code`` (their sum: twice the loss and the gradient).
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        projector: tuple[int, ...] = (2048, 128),
        temperature: float = 0.1,
        definition: str = "paper",
    ) -> None:
        super().__init__(backbone)
        if temperature <= 0:
            raise SpecError(f"simclr: temperature must be above 0, got {temperature}. The paper uses 0.1.")
        if definition not in ("paper", "code"):
            raise SpecError(f"simclr: definition must be 'paper' (mean) or 'code' (sum), got {definition!r}.")
        # Deviates: the projector's hidden layer has a batch norm
        # Deviates: the projector ends with a linear layer
        self.projector = mlp((backbone.feature_dim, *projector))
        self.temperature = temperature
        self.definition = definition

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        h = self.backbone(torch.cat(tuple(views)))  # (2N, D)
        z1, z2 = self.projector(h).chunk(2)  # (N, P), (N, P)
        return nt_xent(z1, z2, temperature=self.temperature, definition=self.definition)
