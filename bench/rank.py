"""What another process of the same training does: the data, weights and loop of the first, and nobody to tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.sources import DataSource
from bench.job import Bundle, check_data, check_training_code, untrained
from bench.registry import discover

if TYPE_CHECKING:
    from bench.training.checkpoint import CheckpointFile
    from bench.training.history import TrainingResult


def prepare_rank(
    bundle: Bundle,
    plugins: tuple[Path, ...],
    root: Path | None,
    cache: Path,
    loaders: int,
    sharers: int,
    device: str,
    threads: int,
    checkpoint: CheckpointFile,
) -> Callable[[], TrainingResult]:
    """Make everything that the loop needs, from the bundle alone; see :func:`bench.processes.process_group`.

    Args:
        bundle: its cells do not matter.
        plugins, root, cache, loaders, sharers, device, threads: as of the first process.
        checkpoint: where all resume from; only the first process writes it.

    Raises:
        JobError: code or data are no longer those that were planned.
    """
    import torch

    from bench.training.pretraining import train_encoder

    torch.set_num_threads(threads)
    catalog = discover(plugins)
    source = DataSource(catalog.datasets, root=root, cache=cache, loaders=loaders, sharers=sharers)
    data = source.load(bundle.spec.data)
    check_data(bundle.spec.data.label, data, bundle.fingerprint)
    model, encoder = untrained(bundle, catalog, data)
    check_training_code(bundle, catalog)
    return lambda: train_encoder(encoder, model, bundle.spec, data, device=device, checkpoint=checkpoint)
