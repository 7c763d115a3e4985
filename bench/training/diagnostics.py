"""How far the embeddings spread: the numbers that fall to zero when they collapse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

EMBEDDING = "embedding_std"
REPRESENTATION = "representation_std"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far a batch of vectors (B, D) spreads.

    Attributes:
        std: sqrt(D) times the mean over dimensions of the std over the batch of the l2-normalized vectors: 1 when
            their directions cover the sphere evenly, 0 when all point the same way (SimSiam, arXiv:2011.10566, 4.1).
        scale: the mean over dimensions of the std over the batch, not normalized.
    """

    std: float
    scale: float

    @classmethod
    @torch.no_grad()
    def of(cls, vectors: Tensor) -> Spread:
        vectors = vectors.flatten(1).float()  # (B, D)
        directions = nn.functional.normalize(vectors, dim=1)  # (B, D)
        std, scale = (x.std(dim=0, correction=0).mean() for x in (directions, vectors))
        return cls(std=float(std * vectors.shape[1] ** 0.5), scale=float(scale))


@contextmanager
def measured_spread(method: nn.Module, found: dict[str, Spread]) -> Iterator[None]:
    """Fill ``found`` with the spread of what ``method.backbone`` and ``method.projector`` return inside the body.

    Outputs of several calls (one per view) are joined. A method without projector, or one that bypasses a module's
    ``forward``, has no such entry.
    """
    outputs: dict[str, list[Tensor]] = {}
    handles = []
    for name, attribute in ((REPRESENTATION, "backbone"), (EMBEDDING, "projector")):
        module = getattr(method, attribute, None)
        if isinstance(module, nn.Module):

            def keep(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                if isinstance(output, Tensor):
                    outputs.setdefault(name, []).append(output.detach())

            handles.append(module.register_forward_hook(keep))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    found.update({name: Spread.of(torch.cat(parts)) for name, parts in outputs.items()})
