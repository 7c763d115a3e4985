from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.spec import TrainingSpec
from bench.training.optimizers import build_optimizer
from bench.training.schedule import Schedule, set_learning_rates


def test_warm_up_and_cosine_have_the_documented_values() -> None:
    schedule = Schedule(total_steps=12, warmup_steps=4, final_fraction=0.1)
    factors = [schedule.factor(step) for step in range(12)]
    assert factors[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert factors[8] == pytest.approx(0.1 + 0.9 * 0.5)  # half of the cosine
    assert factors[11] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 7 / 8)) / 2)
    assert schedule.factor(12) == pytest.approx(0.1)


def test_no_step_is_wasted_with_a_rate_of_zero() -> None:
    schedule = Schedule(total_steps=100, warmup_steps=10)
    factors = [schedule.factor(step) for step in range(100)]
    assert min(factors) > 0 and max(factors) == 1.0 == factors[10]
    assert factors == sorted(factors[:10]) + sorted(factors[10:], reverse=True)


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert Schedule(total_steps=5).factor(0) == 1.0


def test_a_recipe_gives_steps_and_rounds_a_part_of_an_epoch() -> None:
    training = TrainingSpec(epochs=10, warmup_epochs=1.5, final_lr_fraction=0.25)
    schedule = Schedule.of(training, steps_per_epoch=7)
    assert schedule == Schedule(total_steps=70, warmup_steps=10, final_fraction=0.25)


def test_steps_follow_the_warm_up_and_multiply_at_the_first_step_of_their_epoch() -> None:
    training = TrainingSpec(epochs=6, warmup_epochs=1.0, schedule="steps", milestones=(3, 5), decay=0.2)
    schedule = Schedule.of(training, steps_per_epoch=2)
    factors = [schedule.factor(step) for step in range(12)]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 0.2, 0.2, 0.2, 0.2, 0.04, 0.04])


def test_a_milestone_right_after_the_warm_up_takes_effect_there() -> None:
    schedule = Schedule.of(
        TrainingSpec(epochs=3, warmup_epochs=1.0, schedule="steps", milestones=(1,)), steps_per_epoch=1
    )
    assert [schedule.factor(step) for step in range(3)] == pytest.approx([0.5, 0.1, 0.1])


def test_a_warm_up_never_fills_the_whole_training() -> None:
    schedule = Schedule.of(TrainingSpec(epochs=1, warmup_epochs=0.9), steps_per_epoch=1)
    assert schedule.warmup_steps == 0 and schedule.factor(0) == 1.0


def test_constant_groups_keep_the_base_rate_and_scaled_ones_their_factor() -> None:
    groups = [
        {"params": [nn.Parameter(torch.ones(1, 1))]},
        {"params": [nn.Parameter(torch.ones(1, 1))], "lr_scale": 2.0},
        {"params": [nn.Parameter(torch.ones(1, 1))], "lr_scale": 3.0, "constant_lr": True},
    ]
    optimizer = build_optimizer(groups, TrainingSpec(lr=0.5))
    set_learning_rates(optimizer, peak=0.5, factor=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.1, 1.5])
