"""The two baselines: all labels, and no training at all."""

from __future__ import annotations

import math

import pytest
import torch

from bench.errors import JobError
from methods.random_init import RandomInit
from methods.supervised import Supervised, label_loss

from .embeddings import assert_same_value_and_gradients, correlated
from .networks import Recorder, two_views


def test_cross_entropy_worked_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]], dtype=torch.float64)
    terms = label_loss(logits, labels=torch.tensor([1, 0]))
    assert terms["cross_entropy"].item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-14)


def test_findings_are_learned_one_by_one_as_far_as_they_are_known() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 5.0]], dtype=torch.float64, requires_grad=True)
    terms = label_loss(logits, labels=torch.tensor([[1, 0], [-1, -2]]))  # the second image is uncertain and unknown
    assert terms["cross_entropy"].item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, abs=1e-14)
    terms["cross_entropy"].backward()
    assert logits.grad is not None and logits.grad[1].eq(0).all() and logits.grad[0].ne(0).all()
    assert label_loss(logits, labels=torch.full((2, 2), -2))["cross_entropy"].item() == 0.0


def test_cross_entropy_and_its_gradient_are_those_of_the_equation() -> None:
    (logits,) = correlated(1, 6, 4, 1.0)
    labels = torch.tensor([0, 3, 2, 1, 1, 0])

    def equation(logits: torch.Tensor) -> torch.Tensor:
        losses = [-(row.exp() / row.exp().sum()).log()[y] for row, y in zip(logits, labels, strict=True)]
        return torch.stack(losses).sum() / 6

    assert_same_value_and_gradients(lambda z: label_loss(z, labels=labels)["cross_entropy"], equation, [logits])


def test_supervised_training_learns_the_labels_it_is_given() -> None:
    torch.manual_seed(0)
    (view, _), labels = two_views(batch=12), torch.arange(12) % 3
    method = Supervised(Recorder(), num_classes=3)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    for _ in range(100):
        loss = method([view], labels)["cross_entropy"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert method.classifier(method.backbone(view)).argmax(dim=1).eq(labels).all()


def test_random_init_says_that_it_is_never_trained() -> None:
    with pytest.raises(JobError, match=r"never trained.*Take its backbone as it is"):
        RandomInit(Recorder())(two_views())


def test_random_init_keeps_the_backbone_as_it_is_and_adds_nothing() -> None:
    backbone = Recorder()
    assert [id(p) for p in RandomInit(backbone).parameters()] == [id(p) for p in backbone.parameters()]
