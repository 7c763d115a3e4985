"""Random numbers: private seeding that leaves the caller's states alone, and streams that need no replay.

Every use names its purpose, which is hashed into the seed: the same seed in two places would draw the same numbers
twice, and the weights of a head would then correlate with those of the backbone below it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from bench.errors import JobError

# Torch modules and third-party losses draw from NumPy's legacy global state, so it has to be seeded and kept too.


@contextmanager
def isolated_rng(seed: int, purpose: str, *, device: str = "cpu") -> Iterator[None]:
    """Seed torch, NumPy and Python for the body; afterwards the caller's states are as before.

    Args:
        seed: of the job.
        purpose: what is drawn, such as ``heads``; another purpose gives unrelated numbers from the same seed.
        device: ``cpu`` or ``cuda``; the states of the current CUDA device are kept too.
    """
    before = rng_state(device)
    own = _derived(purpose, seed)
    try:
        random.seed(own)
        np.random.seed(own % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(own)  # torch.manual_seed would reseed every device of the process
        if device == "cuda":
            torch.cuda.manual_seed(own)
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
    """Restore what :func:`rng_state` returned.

    Raises:
        JobError: ``device`` is ``cuda`` and the state was taken without it. Nothing is restored.
    """
    if device == "cuda" and "cuda" not in state:
        raise JobError(
            "The saved random states have none of a CUDA device: they were saved on a CPU. Continue on the device "
            "that saved them, or delete the checkpoint and start again."
        )
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if device == "cuda":
        torch.cuda.set_rng_state(state["cuda"])


def stream(purpose: str, *keys: int) -> torch.Generator:
    """A CPU generator that depends on ``purpose`` and ``keys`` alone, such as "views", seed, epoch, step, view.

    A resumed training makes the same one again instead of replaying all draws before it.
    """
    return torch.Generator().manual_seed(_derived(purpose, *keys))


def _derived(purpose: str, *keys: int) -> int:
    """64 bits of a hash over the purpose and the keys."""
    digest = hashlib.sha256("/".join((purpose, *map(str, keys))).encode()).digest()
    return int.from_bytes(digest[:8], "big")
