"""Pre-training of an encoder: which images, which labels, which random draws."""

from __future__ import annotations

from collections.abc import Callable

from bench.data.dataset import ImageDataset
from bench.encoders.encoder import Encoder
from bench.spec import PretrainSpec
from bench.training.checkpoint import CheckpointFile
from bench.training.history import EpochRecord, TrainingResult
from bench.training.loop import pretrain
from bench.training.method import Method
from bench.training.randomness import isolated_rng


def train_encoder(
    encoder: Encoder,
    method: type[Method],
    spec: PretrainSpec,
    data: ImageDataset,
    *,
    device: str,
    checkpoint: CheckpointFile | None = None,
    progress: Callable[[EpochRecord], None] | None = None,
) -> TrainingResult:
    """Train ``encoder.module`` in place on the training split of ``data``.

    The validation and test splits are not read, and labels reach the method only if its card says ``uses_labels``.

    Args:
        encoder: with initial weights.
        method: class of the spec's method.
        checkpoint, progress: as in :func:`bench.training.loop.pretrain`.

    Raises:
        SpecError, DivergenceError, CollapseError: as in :func:`bench.training.loop.pretrain`.
    """
    classes = {"num_classes": data.num_classes} if method.card.uses_labels else {}
    with isolated_rng(spec.seed, "heads"):
        model = method(encoder.module, **spec.method_params, **classes)
    train = data.split("train")
    return pretrain(
        model,
        spec,
        train.images,
        train.labels if method.card.uses_labels else None,
        mean=encoder.mean,
        std=encoder.std,
        device=device,
        checkpoint=checkpoint,
        progress=progress,
    )
