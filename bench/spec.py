"""Specs: the frozen, JSON-round-trip question that a result answers.

A spec holds only what decides the answer. Absolute paths, host names, devices, threads and the order in which things
were typed never enter, so the same question has the same digest on every machine.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.errors import SpecError

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Parameters = dict[str, Any]

IMPORTED = "imported"
"""Key of the method whose weights come from a file; its parameters say which."""


class Frozen(BaseModel):
    """A frozen model with a canonical JSON form and a digest of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical_json(self) -> str:
        """JSON with sorted keys and no blanks; equal specs give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls.model_validate_json(text)


class ViewSpec(Frozen):
    """One view's random transforms, applied in the order of the fields.

    Attributes:
        crop_scale: share of the image's area that a crop covers, (low, high).
        crop_ratio: aspect ratio of the crop, (low, high).
        flip: probability of a horizontal flip.
        rotation: largest rotation in degrees, to either side; 0 turns it off.
        brightness, contrast, saturation, hue: jitter strengths as in torchvision's ``ColorJitter``.
        jitter: probability that the colour jitter is applied.
        grayscale: probability of conversion to gray.
        blur: probability of a Gaussian blur.
        blur_sigma: standard deviation of the blur in pixels, (low, high).
        solarize: probability that values at or above ``solarize_threshold`` are inverted.
        solarize_threshold: threshold in [0, 1].
    """

    crop_scale: tuple[Positive, Positive] = (0.08, 1.0)
    crop_ratio: tuple[Positive, Positive] = (0.75, 4 / 3)
    flip: Probability = 0.5
    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    brightness: NonNegative = 0.4
    contrast: NonNegative = 0.4
    saturation: NonNegative = 0.2
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    jitter: Probability = 0.8
    grayscale: Probability = 0.2
    blur: Probability = 0.0
    blur_sigma: tuple[Positive, Positive] = (0.1, 2.0)
    solarize: Probability = 0.0
    solarize_threshold: Probability = 0.5

    @model_validator(mode="after")
    def _ranges_ascend(self) -> Self:
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} must be (low, high) with low <= high, got ({low}, {high})")
        if self.crop_scale[1] > 1:
            raise ValueError(f"crop_scale is a share of the area and ends at 1, got {self.crop_scale}")
        return self


class PairingSpec(Frozen):
    """Which other images of the same patient may stand for a view (MedAug, arXiv:2102.10663, section 3.2).

    Attributes:
        study: the partner is of the ``same`` study, a ``distinct`` one, or of ``all``.
        laterality: likewise of its laterality: frontal or lateral.
        other_image: an image is no candidate for itself, where another one is.
        most_per_patient: images of one patient in an epoch, others in every epoch; 0 takes all of them.
    """

    study: Literal["all", "same", "distinct"] = "same"
    laterality: Literal["all", "same", "distinct"] = "all"
    other_image: bool = False
    most_per_patient: Annotated[int, Field(ge=0)] = 0


class TrainingSpec(Frozen):
    """How a backbone is trained.

    Attributes:
        epochs: passes over the training split.
        batch_size: images per step, over all processes.
        optimizer: ``sgd``, ``adam``, ``adamw`` or ``lars``.
        lr: base learning rate, before ``lr_scaling``.
        lr_scaling: ``linear`` multiplies by batch/256, ``sqrt`` by sqrt(batch/256), ``none`` leaves it.
        momentum: of SGD and LARS; Adam and AdamW use (0.9, 0.999).
        lars_eta: trust coefficient of LARS; the other optimizers have none.
        weight_decay: coefficient of the L2 penalty (in the gradient, decoupled in AdamW).
        exclude_1d: biases and normalization parameters get no weight decay (LARS: nor adaptation).
        warmup_epochs: linear warm-up, may be a fraction of an epoch.
        schedule: what follows the warm-up: ``cosine``, or ``steps``, which multiplies the learning rate by ``decay`` at
            each of ``milestones``.
        milestones: epochs, counted from 0, whose first step is the first with the smaller rate; ``steps`` only.
        decay: factor at each milestone; the other schedule does not use it.
        final_lr_fraction: the cosine ends at this share of the peak.
        clip_grad_norm: largest gradient norm; 0 turns clipping off.
        precision: arithmetic of the forward and backward pass.
        on_collapse: ``stop`` ends a training whose embeddings became one vector as a failure; ``record`` keeps the
            evidence with the result and goes on, for studies of collapse.
    """

    epochs: Annotated[int, Field(ge=1)] = 20
    batch_size: Annotated[int, Field(ge=2)] = 256
    optimizer: Literal["sgd", "adam", "adamw", "lars"] = "adamw"
    lr: Positive = 1e-3
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    lars_eta: Positive = 1e-3
    weight_decay: NonNegative = 1e-4
    exclude_1d: bool = True
    warmup_epochs: NonNegative = 1.0
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    final_lr_fraction: Probability = 0.0
    clip_grad_norm: NonNegative = 0.0
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = "32-true"
    on_collapse: Literal["stop", "record"] = "stop"

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs}) must be smaller than epochs ({self.epochs}). Lower it too"
            )
        return self

    @model_validator(mode="after")
    def _milestones_belong_to_steps(self) -> Self:
        if self.schedule == "cosine":
            if self.milestones:
                raise ValueError("milestones belong to schedule: steps. Set it, or leave them out")
            return self
        ends = (*self.milestones, self.epochs)
        if not self.milestones or any(after <= before for before, after in pairwise(ends)):
            raise ValueError(
                f"schedule: steps needs milestones that ascend and are smaller than epochs ({self.epochs}), "
                f"got {list(self.milestones)}"
            )
        if self.milestones[0] < self.warmup_epochs:
            raise ValueError(f"milestone {self.milestones[0]} lies in the warm-up of {self.warmup_epochs:g} epochs")
        if self.final_lr_fraction:
            raise ValueError("final_lr_fraction belongs to schedule: cosine; steps end where decay leads")
        return self

    def own_batch_size(self, processes: int) -> int:
        """Images per step of each of several processes, which share the batch equally.

        Raises:
            SpecError: they cannot.
        """
        if self.batch_size % processes:
            raise SpecError(
                f"training.batch_size {self.batch_size} cannot be divided over {processes} devices. Choose a batch "
                "size that is a multiple of the devices, or another number of --devices."
            )
        return self.batch_size // processes


class DataSpec(Frozen):
    """Which dataset, by key, with the parameters that change its content."""

    key: str
    params: Parameters = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """What addresses and tables call it: the user's name for the images where there is one, else the key."""
        return str(self.params.get("name") or self.key)


class PretrainSpec(Frozen):
    """What is trained: method, backbone, data, views, recipe, seed.

    ``views`` and ``training`` are absent when the method does not train: they cannot change its answer. ``variant``
    tells two settings of one method apart. Without ``pairing`` all views show the same image.
    """

    method: str
    variant: str = ""
    method_params: Parameters = Field(default_factory=dict)
    backbone: str
    backbone_params: Parameters = Field(default_factory=dict)
    data: DataSpec
    views: tuple[ViewSpec, ...] = ()
    pairing: PairingSpec | None = Field(default=None, exclude_if=lambda value: value is None)
    training: TrainingSpec | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def name(self) -> str:
        """The method's key, with the variant in brackets where there is one."""
        return named(self.method, self.variant)

    @property
    def imported(self) -> bool:
        """Whether the weights come from a file: then ``data`` are only the images of the evaluation."""
        return self.method == IMPORTED

    @property
    def trained_on(self) -> str:
        """What addresses and tables say the encoder has seen."""
        return IMPORTED if self.imported else self.data.label


class RunSpec(Frozen):
    """One cell's question: this encoder, under this protocol, on this evaluation data."""

    pretrain: PretrainSpec
    protocol: str
    variant: str = ""
    protocol_params: Parameters = Field(default_factory=dict)
    data: DataSpec

    @property
    def protocol_name(self) -> str:
        """The protocol's key, with the variant in brackets where there is one."""
        return named(self.protocol, self.variant)


def named(key: str, variant: str) -> str:
    """``key``, or ``key[variant]``: what addresses, the command line and the report call one setting."""
    return f"{key}[{variant}]" if variant else key
