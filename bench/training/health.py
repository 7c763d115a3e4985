"""Divergence and collapse: when a training has to end, and what its user can do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import DivergenceError
from bench.spec import TrainingSpec
from bench.training.diagnostics import EMBEDDING, REPRESENTATION, Spread

ONE_DIRECTION_STD = 0.05
ONE_LINE_RANK = 1.5
CONSTANT_STD = 1e-3
NO_LENGTH_SCALE = 0.1
NO_LENGTH_LOSS = 0.02
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


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the watch remembers of one batch; ``rank`` is the centered RankMe, NaN where it is not known."""

    epoch: int
    loss: float
    std: float
    scale: float
    rank: float
    representation_std: float


class CollapseWatch:
    """Tells a training whose embeddings have become one vector.

    It watches the embeddings, or the representations of a method without projector, on the first batch of the training
    and on the last of every epoch. They are collapsed when they have

    - *one direction*: their ``std`` (see :class:`bench.training.diagnostics.Spread`) is under 0.05, an average cosine
      of 0.9975 between two images, and under half of what it was before training; or it is under 0.001 anyway; or
    - *one line*: the centered RankMe is under 1.5 and was above 3 before training: what a collapse leaves behind a
      batch norm, which keeps the spread of every dimension; or
    - *no length*: their ``scale`` is under a tenth of what it was before training, and with it the loss under 2 % of
      its first value. (The scale alone does not tell: weight decay shrinks the embeddings of scale-free losses.)

    Representations below a projector are collapsed when their ``std`` is under 0.001 and under a tenth of what it was.
    One look is not enough: it takes three epochs in a row after the first tenth of the training, or the last epoch.

    Args:
        epochs: of the whole training.
        remedy: what the method's card says prevents complete collapse.
    """

    def __init__(self, *, epochs: int, remedy: str) -> None:
        self.epochs = epochs
        self.remedy = remedy or "the method's card names nothing"
        self.looks: list[Look] = []

    def observe(self, spreads: Mapping[str, Spread], *, epoch: int, loss: float) -> str:
        """Look at the embeddings after ``epoch`` epochs; the first call, at 0, is the untrained network.

        Returns:
            The evidence of a collapse and what should prevent it, or an empty text.
        """
        found = spreads.get(EMBEDDING) or spreads.get(REPRESENTATION)
        if found is None:
            return ""
        self.looks.append(
            Look(
                epoch=epoch,
                loss=loss,
                std=found.std,
                scale=found.scale,
                rank=found.ranks.rankme_centered if found.ranks else math.nan,
                representation_std=spreads.get(REPRESENTATION, found).std,
            )
        )
        recent = self.looks[-COLLAPSED_EPOCHS:]
        settled = len(recent) == COLLAPSED_EPOCHS and recent[0].epoch > math.ceil(GRACE_SHARE * self.epochs)
        if epoch == self.epochs:
            recent = recent[-1:]
        elif not settled:
            return ""
        reasons = [_reason(look, self.looks[0]) for look in recent]
        if not all(reasons):
            return ""
        return (
            f"Training collapsed at epoch {epoch} of {self.epochs}: {reasons[-1]}. What should prevent it: "
            f"{self.remedy}. Check that part of the method, its stopped gradients and the learning rate."
        )

    def state(self) -> list[dict[str, float]]:
        """Everything seen, in plain values."""
        return [asdict(look) for look in self.looks]

    def restore(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Go on from what :meth:`state` returned."""
        self.looks = [Look(**look) for look in state]


def _reason(look: Look, first: Look) -> str:
    """Why the embeddings count as collapsed; empty when they do not."""
    if look.std < max(CONSTANT_STD, min(ONE_DIRECTION_STD, first.std / 2)):
        return (
            f"the embeddings of all images point the same way (std of their directions {look.std:.2g}, before training "
            f"{first.std:.2g}; even directions have 1)"
        )
    if look.rank < ONE_LINE_RANK and first.rank > 2 * ONE_LINE_RANK:
        return (
            f"the embeddings of all images lie on one line (centered RankMe {look.rank:.2g}, before training "
            f"{first.rank:.3g})"
        )
    if look.scale < NO_LENGTH_SCALE * first.scale and abs(look.loss) < NO_LENGTH_LOSS * abs(first.loss):
        return (
            f"the embeddings shrank to one point (std {look.scale:.2g}, before training {first.scale:.2g}), and the "
            f"loss with them (from {first.loss:.2g} to {look.loss:.2g})"
        )
    if look.representation_std < min(CONSTANT_STD, first.representation_std / 10):
        return (
            f"the representations of all images point the same way (std of their directions "
            f"{look.representation_std:.2g}, before training {first.representation_std:.2g})"
        )
    return ""
