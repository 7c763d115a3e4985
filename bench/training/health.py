"""Divergence and collapse: when a training has to end, and what its user can do."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bench.errors import CollapseError, DivergenceError
from bench.spec import TrainingSpec
from bench.training.diagnostics import EMBEDDING, REPRESENTATION
from bench.training.history import HistoryRow

COLLAPSED_SPREAD = 0.02
COLLAPSED_EPOCHS = 3
GRACE_SHARE = 0.1


def check_terms(values: Tensor, names: Sequence[str], *, epoch: int, first_step: int, training: TrainingSpec) -> None:
    """End the training if a loss is NaN or infinite.

    Args:
        values: (steps, terms) on the CPU, in the order of ``names``; the last column is the sum of the others.
        epoch: counted from 1.
        first_step: step in the epoch of the first row, counted from 1.

    Raises:
        DivergenceError: names the first step that went wrong and the terms in it.
    """
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return
    row = int((~finite).any(dim=1).nonzero()[0])
    bad = [name for name, good in zip(names, finite[row].tolist(), strict=True) if not good]
    culprits = [name for name in bad if name != "total"] or bad
    said = ", ".join(f"{name!r} is {float(values[row, list(names).index(name)])}" for name in culprits)
    raise DivergenceError(
        f"Training diverged: loss term {said} at epoch {epoch}, step {first_step + row} of the epoch. "
        f"{_advice(training)}"
    )


def check_parameters(method: nn.Module, *, epoch: int, training: TrainingSpec) -> None:
    """End the training if a parameter, or a running statistic of the backbone, is NaN or infinite.

    A gradient that is not finite makes the parameters so in the same step, which is how it is noticed.

    Raises:
        DivergenceError: names the first of them.
    """
    statistics = method.get_submodule("backbone").named_buffers(prefix="backbone")
    tensors = {name: t.detach() for name, t in (*method.named_parameters(), *statistics) if t.is_floating_point()}
    largest = torch.stack(torch._foreach_norm(list(tensors.values()), torch.inf)).cpu()
    for name, value in zip(tensors, largest.tolist(), strict=True):
        if not math.isfinite(value):
            raise DivergenceError(
                f"Training diverged: {name!r} is not finite after epoch {epoch}, while the losses before were. "
                f"{_advice(training)}"
            )


def _advice(training: TrainingSpec) -> str:
    clipping = "" if training.clip_grad_norm else ", set training.clip_grad_norm (for example to 1.0)"
    warmup = f" or a longer warm-up than {training.warmup_epochs:g} epochs"
    arithmetic = "" if training.precision in ("32-true", "64-true") else ", train with precision 32-true"
    return f"Lower training.lr (now {training.lr:g}){clipping}{arithmetic}{warmup}."


def check_collapse(history: Sequence[HistoryRow], *, epochs: int, remedy: str) -> None:
    """End the training if the embeddings have become one vector.

    It is called after each epoch. The spread (see :mod:`bench.training.diagnostics`) of the embeddings, or of the
    representations when there is no projector, must be under 0.02 in three consecutive epochs, all after the first
    tenth of the training; or in the last epoch, whatever its number. Spreads of untrained networks and of working
    methods lie far above.

    Args:
        history: rows of all epochs so far.
        epochs: epochs of the whole training.
        remedy: what the method's card says prevents complete collapse.

    Raises:
        CollapseError: shows the last spreads and the threshold.
    """
    diagnostics = {row.term for row in history if row.kind == "diagnostic"}
    watched = EMBEDDING if EMBEDDING in diagnostics else REPRESENTATION
    spreads = [(row.epoch, row.value) for row in history if row.term == watched]
    if not spreads:
        return
    latest = spreads[-1][0]
    recent = spreads[-COLLAPSED_EPOCHS:]
    settled = len(recent) == COLLAPSED_EPOCHS and recent[0][0] > math.ceil(GRACE_SHARE * epochs)
    evidence = recent if settled and latest < epochs else spreads[-1:]
    if (latest < epochs and not settled) or any(value >= COLLAPSED_SPREAD for _, value in evidence):
        return
    shown = ", ".join(f"{value:.2g} (epoch {epoch})" for epoch, value in recent)
    raise CollapseError(
        f"Training collapsed at epoch {latest} of {epochs}: {watched} is {shown}, where 1 is an even spread and under "
        f"{COLLAPSED_SPREAD:g} means that all images get the same vector. What should prevent it: "
        f"{remedy or 'the card names nothing'}. Check that part of the loss, the stop-gradients and the learning rate."
    )
