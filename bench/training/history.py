"""What a pre-training tells: a tidy history of every epoch, a record for progress bars, a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["term", "diagnostic", "schedule"]


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One value of one epoch.

    Attributes:
        epoch: 1 for the first.
        kind: ``term`` for the weighted loss terms and their sum ``total``, averaged over the epoch's steps;
            ``diagnostic`` for ``embedding_std``, ``embedding_rankme`` and the like, measured on its last batch, see
            :func:`bench.training.diagnostics.diagnostic_terms`;
            ``schedule`` for ``lr``, the scheduled learning rate of its last step.
        term: name of the value.
    """

    epoch: int
    kind: Kind
    term: str
    value: float


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What a progress callback gets after each epoch.

    Attributes:
        epoch: epochs done, 1 … ``epochs``.
        epochs: epochs of the whole training.
        terms: loss terms averaged over the epoch.
        total: their sum.
        seconds: wall time of the epoch.
    """

    epoch: int
    epochs: int
    terms: dict[str, float]
    total: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished pre-training returns.

    Attributes:
        history: rows of all epochs, in order.
        seconds: wall time by phase over all sittings of a resumed training. ``data_wait``: picking images and making
            views; ``compute``: forward, backward, optimizer; ``checkpoint``: saving. On CUDA the host only enqueues
            views, so their kernels count as compute.
        images_per_second: images (not views) through data and compute.
        steps: optimizer steps of the whole training.
        collapse: the evidence that the embeddings ended as one vector; empty when they did not.
        pairing: of a training with pairs of images, see :class:`bench.training.pairing.PairingFacts`.
    """

    history: list[HistoryRow]
    seconds: dict[str, float]
    images_per_second: float
    steps: int
    collapse: str = ""
    pairing: Mapping[str, Any] | None = None

    @property
    def final_loss(self) -> float:
        """The last epoch's ``total``."""
        return next(row.value for row in reversed(self.history) if row.term == "total")
