from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from bench.errors import DivergenceError
from bench.spec import TrainingSpec
from bench.training.diagnostics import Spread
from bench.training.health import CollapseWatch, check_parameters, check_terms

NAMES = ("invariance", "variance", "total")
TRAINING = TrainingSpec(lr=0.5, warmup_epochs=2.0)


def collapse_epoch(
    stds: list[float], *, scales: list[float] | None = None, losses: list[float] | None = None, epochs: int = 10
) -> int | None:
    """The epoch at which a watch reports a collapse, given what it sees at 0, 1, 2 …; None if it never does."""
    watch = CollapseWatch(epochs=epochs, remedy="negatives")
    for epoch, std in enumerate(stds):
        scale = scales[epoch] if scales else 1.0
        loss = losses[epoch] if losses else 1.0
        if watch.observe({"embedding_std": Spread(std=std, scale=scale)}, epoch=epoch, loss=loss):
            return epoch
    return None


def test_finite_losses_pass() -> None:
    check_terms(torch.ones(3, 3), NAMES, epoch=1, first_step=1, training=TRAINING)


def test_the_first_step_that_diverged_is_named_with_its_terms_and_advice() -> None:
    values = torch.ones(4, 3)
    values[2, 1:] = float("inf")
    values[3, :] = float("nan")
    message = (
        r"loss term 'variance' is inf at epoch 3, step 13 of the epoch\. Lower training\.lr \(now 0\.5\), "
        r"set training\.clip_grad_norm \(for example to 1\.0\) or a longer warm-up than 2 epochs\."
    )
    with pytest.raises(DivergenceError, match=message):
        check_terms(values, NAMES, epoch=3, first_step=11, training=TRAINING)


def test_a_sum_that_overflows_is_named_itself() -> None:
    values = torch.tensor([[1e38, 1e38, float("inf")]])
    with pytest.raises(DivergenceError, match="loss term 'total' is inf"):
        check_terms(values, NAMES, epoch=1, first_step=1, training=TRAINING)


@pytest.mark.parametrize("name", ["head.weight", "backbone.1.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(name: str, value: float) -> None:
    method = nn.Module()
    method.backbone = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    method.head = nn.Linear(2, 2)
    check_parameters(method, epoch=1, training=TRAINING)
    method.state_dict()[name][0] = value
    with pytest.raises(DivergenceError, match=f"'{name}' is not finite after epoch 4"):
        check_parameters(method, epoch=4, training=TRAINING)


def test_embeddings_of_one_direction_are_a_collapse_after_three_epochs() -> None:
    assert collapse_epoch([0.9, 0.5, 0.04, 0.04, 0.04, 0.04]) == 4
    assert collapse_epoch([0.9, 0.5, 0.04, 0.06, 0.04, 0.04, 0.06]) is None


def test_the_first_tenth_of_the_training_is_not_judged() -> None:
    assert collapse_epoch([0.9] + [0.01] * 3 + [0.5] * 30, epochs=30) is None
    assert collapse_epoch([0.9] + [0.01] * 30, epochs=30) == 6


def test_the_last_epoch_alone_is_enough() -> None:
    assert collapse_epoch([0.9, 0.01], epochs=1) == 1
    assert collapse_epoch([0.9, 0.5, 0.01], epochs=2) == 2


def test_a_network_that_starts_with_narrow_embeddings_is_not_called_collapsed() -> None:
    assert collapse_epoch([0.04, 0.03, 0.03, 0.04], epochs=3) is None
    assert collapse_epoch([0.04, 0.03, 0.01], epochs=2) == 2


def test_embeddings_that_are_constant_from_the_start_are_a_collapse() -> None:
    assert collapse_epoch([0.0, 0.0], epochs=1) == 1


def test_embeddings_that_shrink_to_a_point_with_their_loss_are_a_collapse() -> None:
    scales, losses = [1.0, 0.5, 0.05, 0.05, 0.05], [3.0, 1.0, 0.01, 0.01, 0.01]
    assert collapse_epoch([0.5] * 5, scales=scales, losses=losses) == 4
    assert collapse_epoch([0.5] * 5, scales=scales) is None  # weight decay under a scale-free loss
    assert collapse_epoch([0.5] * 5, losses=losses) is None  # a loss that is solved


def test_the_message_shows_the_evidence_and_the_remedy() -> None:
    watch = CollapseWatch(epochs=1, remedy="variance term")
    watch.observe({"embedding_std": Spread(std=0.5, scale=1.0)}, epoch=0, loss=2.0)
    message = (
        r"at epoch 1 of 1: the embeddings shrank to one point \(std 0\.01, before training 1\), and the loss with them "
        r"\(from 2 to 0\.001\)\. What should prevent it: variance term\."
    )
    evidence = watch.observe({"embedding_std": Spread(std=0.4, scale=0.01)}, epoch=1, loss=0.001)
    assert re.search(message, evidence)


def test_without_projector_the_representations_are_watched() -> None:
    watch = CollapseWatch(epochs=1, remedy="")
    spreads = {"representation_std": Spread(std=0.0, scale=0.0)}
    evidence = [watch.observe(spreads, epoch=epoch, loss=1.0) for epoch in (0, 1)]
    assert not evidence[0] and "the method's card names nothing" in evidence[1]


def test_embeddings_come_before_representations() -> None:
    watch = CollapseWatch(epochs=1, remedy="")
    for epoch in (0, 1):
        spreads = {"representation_std": Spread(std=0.0, scale=0.0), "embedding_std": Spread(std=0.9, scale=1.0)}
        assert not watch.observe(spreads, epoch=epoch, loss=1.0)


def test_embeddings_on_one_line_are_a_collapse_that_a_batch_norm_hides() -> None:
    generator = torch.Generator().manual_seed(0)
    healthy = torch.randn(64, 16, generator=generator)
    line = torch.randn(64, 1, generator=generator) * torch.randn(1, 16, generator=generator)
    looks = [Spread.of((x - x.mean(dim=0)) / x.std(dim=0)) for x in (healthy, line)]
    assert looks[1].std > 0.5 and looks[1].scale == pytest.approx(looks[0].scale, rel=0.1)
    watch = CollapseWatch(epochs=1, remedy="")
    assert not watch.observe({"embedding_std": looks[0]}, epoch=0, loss=1.0)
    assert re.search(
        r"lie on one line \(centered RankMe 1, before", watch.observe({"embedding_std": looks[1]}, epoch=1, loss=1.0)
    )
    narrow = CollapseWatch(epochs=1, remedy="")
    assert [narrow.observe({"embedding_std": looks[1]}, epoch=e, loss=1.0) for e in (0, 1)] == ["", ""]


def test_constant_representations_are_a_collapse_whatever_the_embeddings_show() -> None:
    embedding = Spread(std=0.9, scale=1.0)
    for last, found in ((0.0005, True), (0.002, False)):
        watch = CollapseWatch(epochs=1, remedy="")
        for epoch, std in ((0, 0.3), (1, last)):
            spreads = {"representation_std": Spread(std=std, scale=0.1), "embedding_std": embedding}
            evidence = watch.observe(spreads, epoch=epoch, loss=1.0)
        assert ("the representations of all images point the same way" in evidence) is found


def test_the_watch_goes_on_from_its_state() -> None:
    watch = CollapseWatch(epochs=9, remedy="")
    for epoch in range(4):
        watch.observe({"embedding_std": Spread(std=0.9 if epoch == 0 else 0.01, scale=1.0)}, epoch=epoch, loss=1.0)
    other = CollapseWatch(epochs=9, remedy="")
    other.restore(watch.state())
    seen = {"embedding_std": Spread(std=0.01, scale=1.0)}
    assert other.observe(seen, epoch=4, loss=1.0) == watch.observe(seen, epoch=4, loss=1.0) != ""


def test_nothing_to_watch_is_no_collapse() -> None:
    assert not CollapseWatch(epochs=1, remedy="").observe({}, epoch=1, loss=1.0)
