"""Pre-training of an encoder: which images, which labels, which random draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

from torch import nn

from bench.data.dataset import ImageDataset
from bench.encoders.encoder import Encoder
from bench.spec import PretrainSpec
from bench.training.checkpoint import CheckpointFile
from bench.training.history import EpochRecord, TrainingResult
from bench.training.loop import pretrain
from bench.training.method import Method
from bench.training.pairing import Pairing, laterality_codes
from bench.training.randomness import isolated_rng


def build_method(
    encoder: Encoder, method: type[Method], spec: PretrainSpec, data: ImageDataset
) -> tuple[Method, Encoder]:
    """The spec's method on the encoder's module, with initial heads; and the encoder with the method's projector.

    Args:
        encoder: with initial weights.
        method: class of the spec's method.
        data: gives the number of classes to a method whose card says ``uses_labels``.
    """
    classes = {"num_classes": data.num_classes} if method.card.uses_labels else {}
    with isolated_rng(spec.seed, "heads"):
        model = method(encoder.module, **spec.method_params, **classes)
    projector = getattr(model, "projector", None)
    return model, replace(encoder, projector=projector if isinstance(projector, nn.Module) else None)


def train_encoder(
    encoder: Encoder,
    model: Method,
    spec: PretrainSpec,
    data: ImageDataset,
    *,
    device: str,
    checkpoint: CheckpointFile | None = None,
    progress: Callable[[EpochRecord], None] | None = None,
) -> TrainingResult:
    """Train ``model``, and with it ``encoder.module`` and ``encoder.projector``, on ``data.pretraining``.

    The validation and test splits are not read. Labels reach the method only if its card says ``uses_labels``; then it
    sees the training split alone, without the unlabelled images.

    Args:
        encoder, model: as :func:`build_method` returns them.
        checkpoint, progress: as in :func:`bench.training.loop.pretrain`.

    Raises:
        SpecError, DivergenceError, CollapseError: as in :func:`bench.training.loop.pretrain`.
    """
    seen = data.split("train") if model.card.uses_labels else data.pretraining
    pairing = None if spec.pairing is None else Pairing(spec.pairing, seen.metadata)
    result = pretrain(
        model,
        spec,
        seen.images,
        seen.labels if model.card.uses_labels else None,
        mean=encoder.mean,
        std=encoder.std,
        device=device,
        checkpoint=checkpoint,
        progress=progress,
        pairing=pairing,
        sides=laterality_codes(seen.metadata, len(seen.images)) if model.card.uses_laterality else None,
    )
    return result if pairing is None else replace(result, pairing=asdict(pairing.facts(seen.labels)))
