"""Batches of a pre-training: all images on the device, views made from them by (seed, epoch, step, view)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.dataset import Images
from bench.data.pixels import planes, unit
from bench.data.views import make_view
from bench.errors import SpecError
from bench.spec import PretrainSpec
from bench.training.distributed import process_count, process_rank
from bench.training.layout import channels_last
from bench.training.randomness import stream


class Batches:
    """The training images, as steps of normalized views.

    Every draw depends on the spec's seed, the epoch, the step and the view alone. Images left over after the last
    full batch of an epoch are dropped; the next epoch's order brings others. Each of several processes draws for the
    whole batch and makes the views of its own part.

    Args:
        spec: with one view for all, or one per view of the method.
        images: (n, H, W, C) uint8 or uint16.
        labels: (n,) int64, or None.
        views: views that the method expects.
        mean, std: per channel, on the [0, 1] scale.
        device: holds the images.

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
    ) -> None:
        assert spec.training is not None
        if len(spec.views) not in (1, views):
            raise SpecError(
                f"Method {spec.method!r} takes {views} views of an image; the spec has {len(spec.views)} view specs. "
                f"Give one for all views, or {views}."
            )
        self.size = spec.training.batch_size
        if self.size > len(images):
            raise SpecError(
                f"Pre-training {spec.method!r} on {spec.data.key!r}: batch_size {self.size} is larger than the "
                f"training split of {len(images)} images. Set training.batch_size to at most {len(images)}."
            )
        self.own = spec.training.own_batch_size(process_count())
        self.seed = spec.seed
        self.views = spec.views * views if len(spec.views) == 1 else spec.views
        self.images = planes(np.asarray(images)).to(device)  # (n, C, H, W)
        self.labels = None if labels is None else torch.from_numpy(labels).to(device)
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).view(-1, 1, 1)
        self.order = torch.empty(0, dtype=torch.int64)

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self.images) // self.size

    def start_epoch(self, epoch: int) -> None:
        """Shuffle for ``epoch``, counted from 0."""
        order = torch.randperm(len(self.images), generator=stream("order", self.seed, epoch))
        self.order = order.to(self.images.device)

    def load(self, epoch: int, step: int) -> tuple[list[Tensor], Tensor | None]:
        """The views, each (B, C, H, W) normalized, and the labels (B,) of one step, counted from 0 in the epoch.

        B is this process's part of the batch.
        """
        first = process_rank() * self.own
        index = self.order[step * self.size :][first : first + self.own]
        pixels = unit(self.images[index])  # (B, C, H, W)
        views = []
        for number, view in enumerate(self.views):
            generator = stream("views", self.seed, epoch, step, number)  # on the CPU: the same draws on every device
            made = make_view(pixels, view, generator, first=first, batch=self.size)
            views.append(channels_last((made - self.mean).div_(self.std)))
        return views, None if self.labels is None else self.labels[index]
