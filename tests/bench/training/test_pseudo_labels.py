"""Pseudo-labels: the loss by hand, the ramp, and where no gradient passes."""

from __future__ import annotations

import math

import pytest
import torch

from bench.errors import SpecError
from bench.training.pseudo_labels import PseudoLabels, pseudo_label_loss


def test_the_loss_is_the_cross_entropy_of_the_likeliest_class_worked_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]], dtype=torch.float64)  # p = 3/4 and 4/5
    assert float(pseudo_label_loss(logits)) == pytest.approx(-(math.log(3 / 4) + math.log(4 / 5)) / 2, rel=1e-12)


def test_the_gradient_is_that_for_fixed_labels() -> None:
    logits = torch.tensor([[0.5, 2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    pseudo_label_loss(logits).backward()
    expected = logits.detach().softmax(dim=1) - torch.tensor([[0.0, 1.0, 0.0]])
    torch.testing.assert_close(logits.grad, expected, rtol=1e-12, atol=0)


def test_alpha_is_zero_then_rises_then_stays_as_in_the_paper() -> None:
    pseudo = PseudoLabels(weight=3.0, ramp=(0.1, 0.6), batch_size=256)
    at = {step: pseudo.alpha(step, 1000) for step in (0, 99, 100, 350, 599, 600, 999)}
    assert at == pytest.approx({0: 0.0, 99: 0.0, 100: 0.0, 350: 1.5, 599: 3 * 499 / 500, 600: 3.0, 999: 3.0})
    assert PseudoLabels(weight=3.0, ramp=(0.5, 0.5), batch_size=1).alpha(5, 10) == 3.0
    assert PseudoLabels(weight=3.0, ramp=(1.0, 1.0), batch_size=1).alpha(9, 10) == 0.0


@pytest.mark.parametrize("change", [{"weight": -1.0}, {"ramp": (0.6, 0.1)}, {"ramp": (0.0, 1.5)}, {"batch_size": 0}])
def test_settings_without_meaning_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(SpecError, match="the weight must be positive, the ramp two ascending shares"):
        PseudoLabels(**{"weight": 3.0, "ramp": (0.1, 0.6), "batch_size": 4, **change})  # type: ignore[arg-type]
