"""Supervised baseline: the backbone is trained with all labels of the training split.

    L = -1/B Σ_i log softmax(W h_i + b)[y_i]

Images with findings in place of one class have a sigmoid σ for each finding f, and the mean is over the set M of known
labels: L = -1/|M| Σ_{(i, f) ∈ M} log(y_if σ_if + (1 - y_if)(1 - σ_if)), as CheXNet (arXiv:1711.05225) without weights.

One augmented view per image, one linear layer on the representation; the layer is thrown away afterwards, so every
protocol evaluates this backbone as it evaluates the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from bench.card import MethodCard, Term
from bench.registry import register_method
from bench.training.method import Method
from bench.training.precision import full_precision


@full_precision
def label_loss(logits: Tensor, *, labels: Tensor) -> dict[str, Tensor]:
    """Cross entropy of logits (B, K) against classes (B,), or against findings (B, K) as far as they are known."""
    if labels.ndim == 2:
        known = labels >= 0  # uncertain and unknown ones are negative
        error = binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits), reduction="none")  # (B, K)
        return {"cross_entropy": (error * known).sum() / known.sum().clamp(min=1)}
    return {"cross_entropy": cross_entropy(logits, labels)}


@register_method(
    "supervised",
    card=MethodCard(
        title="Supervised",
        family="baseline",
        summary="Learns the labels of the whole training split: what the self-supervised methods try to do without.",
        loss="L = -1/B Σ_i log softmax(W h_i + b)[y_i]",
        terms=(Term(name="cross_entropy", acts="on the labels", role="the classification error"),),
        complete_collapse="the labels differ, so a constant representation cannot lower the loss",
        branches="single",
        batch_dependence="batch statistics of the backbone only",
        views=1,
        gradient_views=(0,),
        uses_labels=True,
    ),
)
class Supervised(Method):
    """Cross entropy on one view.

    Args:
        backbone: images (B, C, H, W) to representations (B, D).
        num_classes: number of classes K.
    """

    def __init__(self, backbone: nn.Module, *, num_classes: int) -> None:
        super().__init__(backbone)
        self.classifier = nn.Linear(backbone.feature_dim, num_classes)

    def forward(self, views: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
        (x,) = views
        return label_loss(self.classifier(self.backbone(x)), labels=labels)
