"""Pseudo-label: semi-supervised learning from scratch, in which the network labels the unlabelled images itself.

Lee, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks, ICML 2013 Workshop
on Challenges in Representation Learning:

    L = 1/n Σ CE(f(x), y) + α(t) 1/n' Σ CE(f(x'), argmax f(x'))

Labelled and unlabelled images are learned together, so there is no pre-training: the fraction of labels, and with it
the training, belong to the protocol. This method hands it random weights and asks for the second term, which stands in
``bench/training/pseudo_labels.py``; every other protocol would see random weights alone, and leaves it out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bench.card import MethodCard
from bench.errors import JobError
from bench.registry import register_method
from bench.training.method import Method


@register_method(
    "pseudo_label",
    card=MethodCard(
        title="Pseudo-label",
        family="baseline",
        paper="lee2013pseudolabel",
        year=2013,
        summary="No pre-training: a network learns from the few labels and, weighted, from its own predictions on all "
        "other training images.",
        loss="L = 1/n Σ CE(f(x), y) + α(t) 1/n' Σ CE(f(x'), argmax f(x'))",
        branches="single",
        views=0,
        gradient_views=(),
        trains=False,
        protocols={"semi_supervised": {"pseudo_weight": 3.0}},
    ),
)
class PseudoLabel(Method):
    """Holds the backbone with its initial weights; the protocol trains it."""

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        raise JobError(
            "pseudo_label has no pre-training (its card says trains=False): the protocol semi_supervised trains it. "
            "Evaluate it with that, or pre-train another method."
        )
