"""The contract of a protocol: an encoder and a dataset in, scores with per-sample predictions out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from bench.card import ProtocolCard
from bench.metric import Metric

if TYPE_CHECKING:
    import pandas as pd

    from bench.data.dataset import ImageDataset
    from bench.encoders.encoder import Encoder
    from bench.training.checkpoint import CheckpointFile


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric's value with its interval.

    Attributes:
        metric: what was measured.
        value: in the metric's unit.
        low, high: ends of the interval, or None where there is none.
        n: number of test samples behind the value.
        covers: the source of variance that the interval covers, for example ``test images``.
        method: how the interval was computed, for example ``Wilson 95%``.
    """

    metric: Metric
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    covers: str = ""
    method: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an evaluation returns.

    Attributes:
        scores: one per metric of the protocol's card, in its order.
        predictions: one row per test sample, with a column ``sample`` (index into the dataset); enough to recompute
            the scores without rerunning.
        details: what was chosen on the validation split and which samples were labelled, JSON-serializable; under
            ``measured`` further measurements on the test split, the only entry that its labels may change; under
            ``undefined`` the reason for each metric whose value is NaN.
        seconds: wall time by phase (``features``, ``fit``, ``test`` …).
    """

    scores: tuple[Score, ...]
    predictions: pd.DataFrame
    details: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much an evaluation computes, for estimates of its cost.

    Attributes:
        forward: images that pass the backbone without a gradient.
        trained: images that pass it forward and backward.
        products: multiplications and additions of everything else, such as linear heads, in units of 1e9.
        pixels: of one image, where they are not the ``image_size`` of the dataset; the cost grows with them.
        products_by_pixel: what of ``products`` grows with the pixels: it is multiplied by those of one image.
    """

    forward: float = 0.0
    trained: float = 0.0
    products: float = 0.0
    pixels: float | None = None
    products_by_pixel: float = 0.0


def _unheard(done: int, total: int, text: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a long evaluation may use besides its arguments; none of it decides a result.

    Attributes:
        checkpoint: where it saves itself, to go on there after it was interrupted; None where nothing is kept.
        report: told how many of how many steps are done, and in words what they show.
    """

    checkpoint: CheckpointFile | None = None
    report: Callable[[int, int, str], None] = _unheard


class Protocol:
    """Base class of every protocol.

    A subclass takes keyword-only settings with literal defaults and implements ``evaluate``. It fits on ``train``,
    chooses every hyper-parameter on ``validation`` and reads ``test`` once.
    """

    key: ClassVar[str]
    card: ClassVar[ProtocolCard]
    workspace: Workspace = Workspace()

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        """Evaluate ``encoder`` on ``data``.

        Args:
            encoder: frozen here; a protocol that fine-tunes works on ``encoder.clone()``.
            data: dataset with splits ``train``, ``validation``, ``test``.
            seed: seeds every draw of the protocol.
            device: ``cpu`` or ``cuda``.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must implement evaluate(self, encoder, data, *, seed, device)"
        )

    def work(self, sizes: Mapping[str, int], *, num_classes: int, feature_dim: int) -> Work | None:
        """What :meth:`evaluate` computes; None where nobody has said, which leaves the cell without an estimate.

        Args:
            sizes: images of each split.
            num_classes: classes or findings.
            feature_dim: width of the encoder's features.
        """
        return None
