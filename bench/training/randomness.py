"""Random numbers: private seeding that leaves the caller's states alone, and streams that need no replay."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# Torch modules and third-party losses draw from NumPy's legacy global state, so it has to be seeded and kept too.


@contextmanager
def isolated_rng(seed: int, *, device: str = "cpu") -> Iterator[None]:
    """Seed torch, NumPy and Python for the body; afterwards the caller's states are as before.

    Args:
        seed: non-negative; NumPy uses its lower 32 bits.
        device: ``cpu`` or ``cuda``; the states of the current CUDA device are kept too.
    """
    before = rng_state(device)
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every device of the process
        if device == "cuda":
            torch.cuda.manual_seed(seed)
        yield
    finally:
        set_rng_state(before, device)


def rng_state(device: str) -> dict[str, Any]:
    """The global states of torch, NumPy and Python, made of tensors and plain values only."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    assert name == "MT19937"
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }
    if device == "cuda":
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any], device: str) -> None:
    """Restore what :func:`rng_state` returned."""
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if device == "cuda":
        torch.cuda.set_rng_state(state["cuda"])


def stream(*keys: int) -> torch.Generator:
    """A CPU generator that depends on ``keys`` alone, such as (seed, epoch, step, view).

    A resumed training makes the same one again instead of replaying all draws before it.
    """
    # The count goes first: a SeedSequence pads with zeros, so (1,) and (1, 0) would be one stream.
    seed = int(np.random.SeedSequence((len(keys), *keys)).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(seed)
