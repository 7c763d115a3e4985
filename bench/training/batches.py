"""Batches of a pre-training: images from the device or read ahead, views made by (seed, epoch, step, view)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.dataset import COPIED_BYTES, Images, in_memory
from bench.data.pixels import planes, unit
from bench.data.reading import Reader, as_planes
from bench.data.views import make_view
from bench.errors import SpecError
from bench.spec import PretrainSpec
from bench.training.distributed import process_count, process_rank
from bench.training.layout import channels_last
from bench.training.pairing import Pairing, partners_of_views
from bench.training.randomness import stream

STEPS_AHEAD = 2


class Batches:
    """The training images, as steps of normalized views.

    Every draw depends on the spec's seed, the epoch, the step and the view alone. Images left over after the last
    full batch of an epoch are dropped; the next epoch's order brings others. Each of several processes draws for the
    whole batch, and reads its own part and makes its views.

    Images in memory that fit are kept on the device. Others are read ahead, decoded by worker processes where they are
    not in memory, and the views are made of the whole decoded images: the same bits. Close the batches, or use them as
    a context, to end the workers.

    Args:
        spec: with one view for all, or one per view of the method.
        images: (n, H, W, C) uint8 or uint16.
        labels: (n,) int64, or None; :meth:`load` gives them for the image of each batch row.
        sides: (n,) int64 lateralities, or None; :meth:`load` gives them for the image of each view.
        views: views that the method expects.
        mean, std: per channel, on the [0, 1] scale.
        device: makes the views.
        pairing: of these images; every view but the first then shows a partner of the image.

    Raises:
        SpecError: the number of view specs does not fit, or the batch is larger than the training split or cannot be
            divided over the processes.
    """

    def __init__(
        self,
        spec: PretrainSpec,
        images: Images,
        labels: NDArray[np.int64] | None,
        *,
        views: int,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        pairing: Pairing | None = None,
        sides: NDArray[np.int64] | None = None,
    ) -> None:
        assert spec.training is not None
        if len(spec.views) not in (1, views):
            raise SpecError(
                f"Method {spec.method!r} takes {views} views of an image; the spec has {len(spec.views)} view specs. "
                f"Give one for all views, or {views}."
            )
        self.size = spec.training.batch_size
        self.pairing = pairing
        self.count = len(images) if pairing is None else pairing.per_epoch
        if self.size > self.count:
            raise SpecError(
                f"Pre-training {spec.method!r} on {spec.data.key!r}: batch_size {self.size} is larger than the "
                f"{self.count} images of an epoch. Set training.batch_size to at most {self.count}."
            )
        self.own = spec.training.own_batch_size(process_count())
        self.seed = spec.seed
        self.views = spec.views * views if len(spec.views) == 1 else spec.views
        self.epochs = spec.training.epochs
        self.images, self.device = images, device
        self.resident: Tensor | None = None
        if in_memory(images) and _planes_bytes(images) <= _room(device):
            self.resident = planes(np.asarray(images)).to(device)  # (n, C, H, W)
        self.reader: Reader[Tensor] | None = None
        self.upcoming = (-1, -1)  # epoch and step that the reader gives next
        self.labels = None if labels is None else torch.from_numpy(labels).to(device)
        self.sides = None if sides is None else torch.from_numpy(sides).to(device)
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.order = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        """Steps per epoch."""
        return self.count // self.size

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the workers that read ahead."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None
            self.upcoming = (-1, -1)

    def start_epoch(self, epoch: int) -> None:
        """Shuffle for ``epoch``, counted from 0."""
        self.order = self._order(epoch).to(self.device)

    def load(self, epoch: int, step: int) -> tuple[list[Tensor], Tensor | None]:
        """The views, each (B, C, H, W) normalized, of one step, counted from 0 in the epoch, and what the method gets
        with them: the labels (B,), the lateralities (B, views) of the images that are shown, or None.

        B is this process's part of the batch.

        Raises:
            DataError: an image cannot be read; the message names the file.
        """
        first = process_rank() * self.own
        index = self._part(self.order, step)
        shown = self._shown(self.order, epoch, step)
        read = self._read(epoch, step, sources=len(shown)) if self.resident is None else None
        sources = [
            unit(self.resident[rows] if self.resident is not None else read[number])  # type: ignore[index]
            for number, rows in enumerate(shown)
        ]  # (B, C, H, W) each
        views = []
        for number, view in enumerate(self.views):
            pixels = sources[min(number, len(sources) - 1)]
            generator = stream("views", self.seed, epoch, step, number)  # on the CPU: the same draws on every device
            made = make_view(pixels, view, generator, first=first, batch=self.size)
            views.append(channels_last((made - self.mean).div_(self.std)))
        if self.sides is not None:
            return views, torch.stack([self.sides[shown[min(n, len(shown) - 1)]] for n in range(len(views))], dim=1)
        return views, None if self.labels is None else self.labels[index]

    def _order(self, epoch: int) -> Tensor:
        if self.pairing is not None:
            return self.pairing.order(epoch, self.seed)
        return torch.randperm(len(self.images), generator=stream("order", self.seed, epoch))

    def _part(self, order: Tensor, step: int) -> Tensor:
        """This process's images of a step."""
        return self._own(order[step * self.size :][: self.size])

    def _own(self, whole: Tensor) -> Tensor:
        """This process's part of what belongs to a whole batch."""
        return whole[process_rank() * self.own :][: self.own]

    def _shown(self, order: Tensor, epoch: int, step: int) -> list[Tensor]:
        """This process's images of a step, once for all views, or with pairs of images for each view."""
        if self.pairing is None:
            return [self._part(order, step)]
        whole = order[step * self.size :][: self.size]  # all processes draw for the whole batch
        shown = partners_of_views(self.pairing, whole, views=len(self.views), seed=self.seed, epoch=epoch, step=step)
        return [self._own(rows) for rows in shown]

    def _parts_from(self, epoch: int, step: int) -> Iterator[NDArray[np.int64]]:
        """This process's images of all steps that are to come."""
        for later in range(epoch, max(self.epochs, epoch + 1)):
            order = self._order(later)
            for number in range(step if later == epoch else 0, len(self)):
                yield torch.cat(self._shown(order, later, number)).numpy()

    def _read(self, epoch: int, step: int, *, sources: int) -> tuple[Tensor, ...]:
        """The stored pixels (B, C, H, W) of this process's part of a step, on the device, for each of the sources."""
        if self.reader is None or self.upcoming != (epoch, step):
            self.close()
            ahead, pin = STEPS_AHEAD * self.own, self.device.type == "cuda"
            self.reader = Reader(self.images, self._parts_from(epoch, step), as_planes, ahead=ahead, pin=pin)
        self.upcoming = (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)
        pieces = [piece.to(self.device, non_blocking=True) for piece in self.reader.take(sources * self.own)]
        return tuple(torch.cat(pieces).view(sources, self.own, *pieces[0].shape[1:]))


def _planes_bytes(images: Images) -> int:
    """What the images take as :func:`planes`, where 16 bits become 32."""
    return math.prod(images.shape) * (1 if images.dtype == np.uint8 else 4)


def _room(device: torch.device) -> int:
    """Bytes that resident images may take: on a CUDA device half of what is free, the network needs the rest; on a CPU
    only a copy that does not matter."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else COPIED_BYTES
