"""Evaluations, by one process or by several that share the images.

With several processes each runs the same protocol with the same draws. What costs most, the features of whole splits,
they share block by block (:meth:`bench.encoders.encoder.Encoder.features`); everything else, such as the fitting of
heads or a fine-tuning, all compute alike. Only the first process keeps the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.sources import DataSource
from bench.errors import JobError
from bench.identity import evaluation_identity
from bench.job import Bundle, Workshop, check_code, check_data, untrained
from bench.plan import PlannedCell
from bench.processes import process_group
from bench.registry import Catalog, discover

if TYPE_CHECKING:
    import pandas as pd

    from bench.data.dataset import ImageDataset
    from bench.encoders.encoder import Encoder
    from bench.protocol import Outcome
    from bench.training.checkpoint import CheckpointFile


Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Evaluator:
    """What turns a cell into an outcome, in each of the processes.

    Attributes:
        bundle: its cells do not matter.
        encoder: with the weights of the first process.
        unfinished: folder in which a long evaluation saves itself.
        save_seconds: least time between two saves.
    """

    bundle: Bundle
    encoder: Encoder
    catalog: Catalog
    source: DataSource
    device: str
    unfinished: Path
    save_seconds: float

    def data(self, cell: PlannedCell) -> ImageDataset:
        """The images that the cell evaluates on.

        Raises:
            JobError: they changed, or the encoder cannot take them.
        """
        data = self.source.load(cell.spec.data)
        if data.channels not in (1, self.encoder.channels):  # an encoder of color images sees gray ones as gray
            raise JobError(
                f"The encoder takes {self.encoder.channels} channel(s), {data.title} has {data.channels}. "
                "Pre-train on images with the same channels, or choose another evaluation dataset."
            )
        check_data(cell.spec.data.label, data, cell.fingerprint)
        return data

    def checkpoint(self, cell: PlannedCell) -> CheckpointFile:
        """Where an evaluation saves itself until its outcome is stored."""
        from bench.training.checkpoint import CheckpointFile

        name = cell.identity.digest
        path = self.unfinished / f"{name}-{self.device}.ckpt"  # random states of one device mean nothing to another
        return CheckpointFile(path=path, identity=name, every_seconds=self.save_seconds)

    def outcome(self, cell: PlannedCell, report: Report | None = None) -> Outcome:
        """What the protocol finds; all processes return at the same time.

        Args:
            report: told how many of how many steps are done, with words.

        Raises:
            JobError: code or data are no longer those that were planned.
        """
        from bench.protocol import Workspace
        from bench.training.distributed import wait_for_all

        data = self.data(cell)
        protocol = self.catalog.protocols[cell.spec.protocol].load()(**cell.spec.protocol_params)
        present = evaluation_identity(cell.spec, self.catalog, self.bundle.identity, fingerprint=cell.fingerprint)
        check_code(cell.identity, present)
        protocol.workspace = Workspace(checkpoint=self.checkpoint(cell), **({"report": report} if report else {}))
        outcome: Outcome = protocol.evaluate(self.encoder, data, seed=cell.spec.pretrain.seed, device=self.device)
        wait_for_all(self.device)
        return outcome


@contextmanager
def evaluator(bundle: Bundle, cells: Sequence[PlannedCell], encoder: Encoder, shop: Workshop) -> Iterator[Evaluator]:
    """Inside, this process is the first of all that evaluate these cells, in their order.

    Raises:
        JobError: another process failed; the message says which and why.
    """
    saving = (shop.unfinished, shop.save_seconds)
    own = Evaluator(bundle, encoder, shop.catalog, shop.source, shop.device, *saving)
    source = shop.source
    settings = (source.root, source.cache, source.loaders, source.sharers, shop.device, shop.threads, *saving)
    arguments = (replace(bundle, cells=tuple(cells)), shop.catalog.plugins, *settings)
    with process_group(shop.devices, shop.device, prepare_evaluations, arguments):
        _share_weights(own)
        yield own


def prepare_evaluations(
    bundle: Bundle,
    plugins: tuple[Path, ...],
    root: Path | None,
    cache: Path,
    loaders: int,
    sharers: int,
    device: str,
    threads: int,
    unfinished: Path,
    save_seconds: float,
) -> Callable[[], None]:
    """What another process needs to evaluate the bundle's cells; see :func:`bench.processes.process_group`.

    Args:
        bundle: with the cells that the first process evaluates.
        plugins, root, cache, loaders, sharers, device, threads, unfinished, save_seconds: as of the first process.
    """
    import torch

    torch.set_num_threads(threads)
    catalog = discover(plugins)
    source = DataSource(catalog.datasets, root=root, cache=cache, loaders=loaders, sharers=sharers)
    _, encoder = untrained(bundle, catalog, source.load(bundle.spec.data))
    own = Evaluator(bundle, encoder, catalog, source, device, unfinished, save_seconds)

    def evaluate() -> None:
        _share_weights(own)
        for cell in bundle.cells:
            own.outcome(cell)

    return evaluate


def _share_weights(own: Evaluator) -> None:
    """Give all processes the encoder of the first, which has it from the store."""
    from bench.training.distributed import process_count, take_from_first

    if process_count() > 1:
        take_from_first(own.encoder.networks.to(own.device).state_dict().values())


def with_patients(predictions: pd.DataFrame, data: ImageDataset) -> pd.DataFrame:
    """With the patient of each test image where the data know it: images of one patient are no independent tests."""
    if "patient" not in data.metadata or "sample" not in predictions or "patient" in predictions:
        return predictions
    return predictions.assign(patient=data.metadata["patient"][predictions["sample"].to_numpy()].astype(object))
