"""Cards: what a method, protocol, dataset or backbone says about itself, as data.

Cards are written as literals inside a ``@register_…`` decorator, so that the registry reads them from the source
without importing the file (and with it torch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

from bench.errors import SpecError
from bench.metric import Metric

Family = Literal["information maximization", "contrastive", "asymmetric", "medical", "baseline"]
Branches = Literal["shared", "shared or separate", "separate", "momentum", "single"]
Where = Literal["between the branches", "on each branch", "against negatives", "on the labels"]
Normalization = Literal["standardized", "whitened", "unit length"]
Negatives = Literal["none", "batch", "queue"]
Capability = Literal["labels", "multilabel", "boxes", "masks", "landmarks", "metadata", "volumes"]


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One departure from the paper, and why."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term of the loss.

    Attributes:
        name: the key that ``forward`` returns it under.
        acts: what it compares or shapes, which is where a figure draws it.
        role: what it does to the embeddings, in a few words.
    """

    name: str
    acts: Where
    role: str


@dataclass(frozen=True, kw_only=True)
class MethodCard:
    """A method's identity card: tables, comparisons and the figure of the architecture are made from it alone.

    Attributes:
        title: name as printed in tables; the name that published rows use.
        family: how the method is classed.
        paper: citation key, resolved in ``bench/published/papers.csv``; empty for a baseline.
        year: year of the paper.
        summary: one sentence for a reader who does not know the method.
        loss: the loss as an equation in plain text.
        terms: the terms that ``forward`` returns, in its order; a figure draws each where it acts.
        complete_collapse: what keeps the embeddings from becoming one constant vector.
        dimensional_collapse: what keeps them from filling only a subspace.
        branches: how the two branches' weights relate.
        predictor: a predictor follows one branch's projector.
        stop_gradient: one branch's output is treated as a constant.
        symmetric: both views take both roles, so that an asymmetric loss is summed over both directions.
        negatives: where negative samples come from.
        support_views: further views of the image serve only to find its false negatives.
        normalization: what happens to the embeddings before the loss, in this order.
        before_predictor: those first steps of ``normalization`` that come before the predictor; the others follow it.
        batch_dependence: what the method needs from the batch, in words.
        cost: what a step takes beyond two forward passes and one backward pass, in words.
        views: number of views per image that ``forward`` expects: a number, the name of the whole-number parameter
            that gives it, or a sum of both such as ``"2 + support_views"``.
        gradient_views: the views whose pixels receive a gradient: their indices, or ``"all"``.
        pairing: the rule by which its views show different images of a patient, see
            :class:`bench.spec.PairingSpec`; empty where all views show one image.
        uses_labels: ``forward`` receives the class labels (supervised baselines only).
        uses_laterality: ``forward`` receives the laterality of the image that each view shows, (B, views) int64; equal
            numbers are equal lateralities and -1 is unknown.
        trains: False when there is nothing to train (random initialization).
        imported: its weights come from a file of the user's; suites of all methods leave it out.
        protocols: the only protocols that evaluate it, each with the parameters that make it this method there; empty
            where every protocol does.
        deviations: departures from the paper.
    """

    title: str
    family: Family
    summary: str
    paper: str = ""
    year: int | None = None
    loss: str = ""
    terms: tuple[Term, ...] = ()
    complete_collapse: str = ""
    dimensional_collapse: str = ""
    branches: Branches = "shared"
    predictor: bool = False
    stop_gradient: bool = False
    symmetric: bool = True
    negatives: Negatives = "none"
    support_views: bool = False
    normalization: tuple[Normalization, ...] = ()
    before_predictor: tuple[Normalization, ...] = ()
    batch_dependence: str = ""
    cost: str = ""
    views: int | str = 2
    gradient_views: tuple[int, ...] | Literal["all"] = (0, 1)
    pairing: Mapping[str, Any] = field(default_factory=dict)
    uses_labels: bool = False
    uses_laterality: bool = False
    trains: bool = True
    imported: bool = False
    protocols: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    deviations: tuple[Deviation, ...] = ()

    def view_count(self, params: Mapping[str, Any]) -> int:
        """Number of views that the method takes with these parameters.

        Raises:
            SpecError: ``views`` names a parameter that does not exist or is not a whole number above 0.
        """
        count = 0
        for part in str(self.views).split("+"):
            word = part.strip()
            value = int(word) if word.isdecimal() else params.get(word)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise SpecError(
                    f"{self.title}: views {self.views!r} needs a whole number in {word!r}, got {value!r}. "
                    f"Give the method's parameter {word!r} a value of 0 or more."
                )
            count += value
        return count


@dataclass(frozen=True, kw_only=True)
class Need:
    """A module that one value of a parameter needs and that does not come with this package.

    Attributes:
        parameter, value: of the protocol.
        module: what Python must be able to import.
        advice: how to get it, or do without.
    """

    parameter: str
    value: str
    module: str
    advice: str

    def lacking(self, params: Mapping[str, Any]) -> str:
        """What to tell where these parameters need the module and it is not installed; else nothing."""
        if params.get(self.parameter) != self.value or find_spec(self.module) is not None:
            return ""
        return f"{self.parameter}: {self.value} needs {self.module}, which is not installed. {self.advice}"


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
        needs: modules that some of its settings need; a run that lacks one is refused before anything is computed.
        compares_images: test images are compared with each other, so that the scores and predictions are those of a
            set of images and change with the set; otherwise each image is judged alone, which the battery checks.
    """

    title: str
    summary: str
    metrics: tuple[Metric, ...]
    requires: tuple[Capability, ...] = ("labels",)
    paper: str = ""
    chance: str = ""
    needs: tuple[Need, ...] = ()
    compares_images: bool = False

    def lacking(self, params: Mapping[str, Any]) -> str:
        """The first need that is not met with these parameters, in words; empty where all are."""
        return next(filter(None, (need.lacking(params) for need in self.needs)), "")


@dataclass(frozen=True, kw_only=True)
class PublishedSizes:
    """How much a published dataset holds, as its loader splits it by default: from this a plan tells the price where
    the files are not.

    Attributes:
        train, validation, test, unlabelled: images of each split; the loader's parameter ``validation``, if it has one,
            says which share of the first two is for validation.
        classes: classes or findings.
        image_size: side of the images in pixels, unless the loader's parameter ``image_size`` says another.
        channels: of the images.
    """

    train: int
    validation: int
    test: int
    classes: int
    image_size: int
    unlabelled: int = 0
    channels: int = 3


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
        checked: images, labels and splits are the user's own, so that the set is refused where its splits share
            images or patients; published benchmarks are taken as they are. Such a loader has the parameter
            ``allow_leakage``.
        published: sizes of a set that everybody has alike; None for one of the user's own.
    """

    title: str
    summary: str
    license: str
    source: str
    capabilities: tuple[Capability, ...] = ("labels",)
    embedded: bool = False
    checked: bool = False
    published: PublishedSizes | None = None


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """A backbone's identity card."""

    title: str
    summary: str
    paper: str = ""


Card = MethodCard | ProtocolCard | DatasetCard | BackboneCard
