"""How far the embeddings spread: the number that falls to zero when they collapse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

EMBEDDING = "embedding_std"
REPRESENTATION = "representation_std"


@torch.no_grad()
def spread(vectors: Tensor) -> float:
    """sqrt(D) times the mean over dimensions of the std over the batch of l2-normalized vectors (B, D).

    1 for directions spread evenly over the sphere, 0 when all vectors point the same way (SimSiam, arXiv:2011.10566,
    section 4.1).
    """
    directions = nn.functional.normalize(vectors.flatten(1).float(), dim=1)  # (B, D)
    return float(directions.std(dim=0, correction=0).mean() * directions.shape[1] ** 0.5)


@contextmanager
def measured_spread(method: nn.Module, found: dict[str, float]) -> Iterator[None]:
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
    found.update({name: spread(torch.cat(parts)) for name, parts in outputs.items()})
