"""Diagnostics of collapse during a training: from what backbone and projector return on one of its batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bench.statistics.collapse import Ranks, direction_std, pair_distances, uniformity
from bench.training.distributed import gather

EMBEDDING = "embedding_std"
REPRESENTATION = "representation_std"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far a batch of vectors (N, D) spreads.

    Attributes:
        std: of their directions, see :func:`bench.statistics.collapse.direction_std`.
        scale: the mean over dimensions of the std over the batch, not normalized.
        vectors: (N, D), the vectors themselves; absent where only the numbers are known.
        views: those of each view apart, (B, D) each with image i in row i; empty where the views cannot be told.
    """

    std: float
    scale: float
    vectors: Tensor | None = field(default=None, repr=False, compare=False)
    views: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    @torch.no_grad()
    def of(cls, vectors: Tensor, *, views: tuple[Tensor, ...] = ()) -> Spread:
        vectors = vectors.flatten(1).float()  # (N, D)
        scale = float(vectors.std(dim=0, correction=0).mean())
        views = tuple(view.flatten(1).float() for view in views)
        return cls(std=direction_std(vectors), scale=scale, vectors=vectors, views=views)

    @cached_property
    def ranks(self) -> Ranks | None:
        """Of the first view where it is known, so that every image counts once; None without finite vectors."""
        vectors = self.views[0] if self.views else self.vectors
        return Ranks.of(vectors) if vectors is not None and bool(vectors.isfinite().all()) else None


@torch.no_grad()
def diagnostic_terms(spreads: Mapping[str, Spread]) -> dict[str, float]:
    """What the history keeps of an epoch's last batch, by names such as ``embedding_std`` and ``embedding_rankme``.

    Beside ``std`` and ``scale``: ``rankme``, ``rankme_centered``, ``participation_ratio`` of one view, with the number
    of ``samples`` and of ``dimensions``. Where the views are known, ``uniformity`` within a view (mean over the first
    two) with the ``images`` behind it; where there are two, ``alignment`` between them. They are the measures of
    :mod:`bench.statistics.collapse`.

    Args:
        spreads: as :func:`measured_spread` fills them.
    """
    terms: dict[str, float] = {}
    for name, spread in spreads.items():
        what = name.removesuffix("_std")
        terms |= {name: spread.std, f"{what}_scale": spread.scale}
        terms |= {f"{what}_{quantity}": value for quantity, value in _measures(spread).items()}
    return terms


def _measures(spread: Spread) -> dict[str, float]:
    ranks, views = spread.ranks, spread.views[:2]
    if ranks is None:
        return {}
    found: dict[str, float] = {
        "rankme": ranks.rankme,
        "rankme_centered": ranks.rankme_centered,
        "participation_ratio": ranks.participation_ratio,
        "samples": ranks.n,
        "dimensions": ranks.d,
    }
    if views and len(views[0]) > 1:
        found["uniformity"] = sum(map(uniformity, views)) / len(views)
        found["images"] = len(views[0])
    if len(views) == 2:
        found["alignment"] = float(pair_distances(*views).mean())
    return found


@contextmanager
def measured_spread(method: nn.Module, found: dict[str, Spread]) -> Iterator[None]:
    """Fill ``found`` with the spread of what ``method.backbone`` and ``method.projector`` return inside the body.

    Outputs of several calls (one per view) and of all processes are joined. A method without projector, or one that
    bypasses a module's ``forward``, has no such entry.
    """
    outputs: dict[str, list[Tensor]] = {}
    views: list[Tensor] = []
    order: list[int | None] = []  # the view in each batch-sized part of the backbone's inputs

    def note_views(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        views[:] = inputs[0]

    def note_order(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        order.extend(_views_in(inputs[0], views) if inputs and isinstance(inputs[0], Tensor) else [None])

    handles = [method.register_forward_pre_hook(note_views)]
    for name, attribute in ((REPRESENTATION, "backbone"), (EMBEDDING, "projector")):
        module = getattr(method, attribute, None)
        if isinstance(module, nn.Module):

            def keep(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                if isinstance(output, Tensor):
                    outputs.setdefault(name, []).append(output.detach())

            handles.append(module.register_forward_hook(keep))
            if attribute == "backbone":
                handles.append(module.register_forward_pre_hook(note_order))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for name, parts in outputs.items():
        found[name] = _spread(torch.cat(parts), order)


def _views_in(images: Tensor, views: Sequence[Tensor]) -> list[int | None]:
    """Which view each batch-sized part of the images is; None for a part that is none of them."""
    if not views:
        return [None]
    found: list[int | None] = []
    for start in range(0, len(images), len(views[0])):
        part = images[start : start + len(views[0])]
        same = [i for i, view in enumerate(views) if view.shape == part.shape and torch.equal(view, part)]
        found.append(next((i for i in same if i not in found), None))
    return found


def _spread(local: Tensor, order: Sequence[int | None]) -> Spread:
    """The spread over all processes of this one's outputs, whose equal parts show the views ``order``."""
    parts = local.chunk(len(order)) if order and len(local) % len(order) == 0 else (local,)
    whole = [gather(part) for part in parts]
    known = [view for view in order if view is not None]
    views = dict(zip(known, whole, strict=True)) if len(known) == len(order) == len(parts) else {}
    return Spread.of(torch.cat(whole), views=tuple(views[view] for view in sorted(views)))
