"""Cards: what a method, protocol, dataset or backbone says about itself, as data.

Cards are written as literals inside a ``@register_…`` decorator, so that the registry reads them from the source
without importing the file (and with it torch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.metric import Metric

Family = Literal["information maximization", "contrastive", "asymmetric", "medical", "baseline"]
Branches = Literal["shared", "separate", "momentum", "single"]
Negatives = Literal["none", "batch", "queue"]
Capability = Literal["labels", "multilabel", "boxes", "masks", "landmarks", "metadata", "volumes"]


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One departure from the paper, and why."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class MethodCard:
    """A method's identity card.

    Attributes:
        title: name as printed in tables; the name that published rows use.
        family: how the method is classed.
        paper: citation key, resolved in ``bench/published/papers.csv``; empty for a baseline.
        year: year of the paper.
        summary: one sentence for a reader who does not know the method.
        loss: the loss as an equation in plain text.
        complete_collapse: what keeps the embeddings from becoming one constant vector.
        dimensional_collapse: what keeps them from filling only a subspace.
        branches: how the two branches' weights relate.
        predictor: a predictor follows one branch's projector.
        stop_gradient: one branch's output is treated as a constant.
        negatives: where negative samples come from.
        whitening: embeddings are whitened before the loss.
        batch_dependence: what the method needs from the batch, in words.
        views: number of views per image that ``forward`` expects.
        gradient_views: the views whose pixels receive a gradient.
        uses_labels: ``forward`` receives the class labels (supervised baselines only).
        trains: False when there is nothing to train (random initialization).
        deviations: departures from the paper.
    """

    title: str
    family: Family
    summary: str
    paper: str = ""
    year: int | None = None
    loss: str = ""
    complete_collapse: str = ""
    dimensional_collapse: str = ""
    branches: Branches = "shared"
    predictor: bool = False
    stop_gradient: bool = False
    negatives: Negatives = "none"
    whitening: bool = False
    batch_dependence: str = ""
    views: int = 2
    gradient_views: tuple[int, ...] = (0, 1)
    uses_labels: bool = False
    trains: bool = True
    deviations: tuple[Deviation, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ProtocolCard:
    """A protocol's identity card.

    Attributes:
        title: name as printed in tables.
        summary: one sentence: what is measured, and how.
        metrics: the metrics that ``evaluate`` returns, in order.
        requires: capabilities that the evaluation dataset must declare.
        paper: citation key of the protocol's source, if it has one.
        chance: what the metric's chance level is, in words.
    """

    title: str
    summary: str
    metrics: tuple[Metric, ...]
    requires: tuple[Capability, ...] = ("labels",)
    paper: str = ""
    chance: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """A dataset's identity card.

    Attributes:
        title: name as printed in tables.
        summary: one sentence: what the images are and how the splits were made.
        license: licence of the images as stated by their source.
        source: where the images come from.
        capabilities: what it offers to protocols.
        embedded: True when the images arrive with an installed package, False when the user provides them.
    """

    title: str
    summary: str
    license: str
    source: str
    capabilities: tuple[Capability, ...] = ("labels",)
    embedded: bool = False


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """A backbone's identity card."""

    title: str
    summary: str
    paper: str = ""


Card = MethodCard | ProtocolCard | DatasetCard | BackboneCard
