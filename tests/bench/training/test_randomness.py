from __future__ import annotations

import random
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.errors import JobError
from bench.request import Request
from bench.training.randomness import isolated_rng, rng_state, set_rng_state, stream

from ..tiny import compute, write_suite


def draws() -> list[Any]:
    return [torch.rand(1).item(), np.random.random(), random.random()]  # noqa: NPY002


def test_the_body_is_seeded_and_the_caller_undisturbed() -> None:
    with isolated_rng(1, "test"):
        first = draws()
    before = rng_state("cpu")
    expected = draws()
    set_rng_state(before, "cpu")
    with isolated_rng(1, "test"):
        assert draws() == first
    assert draws() == expected


def test_the_caller_is_undisturbed_by_an_error_in_the_body() -> None:
    before = rng_state("cpu")
    expected = draws()
    set_rng_state(before, "cpu")
    try:
        with isolated_rng(3, "test"):
            draws()
            raise RuntimeError
    except RuntimeError:
        assert draws() == expected


def test_different_seeds_give_different_draws() -> None:
    with isolated_rng(1, "test"):
        first = draws()
    with isolated_rng(2, "test"):
        assert all(a != b for a, b in zip(first, draws(), strict=True))


def test_a_stream_depends_on_all_its_keys_and_nothing_else() -> None:
    keys = [(1,), (1, 0), (1, 0, 0), (0, 1), (1, 1), (2**40, 1)]
    numbers = [torch.rand(1, generator=stream("test", *key)).item() for key in keys]
    assert len(set(numbers)) == len(keys)
    torch.rand(10)
    assert numbers == [torch.rand(1, generator=stream("test", *key)).item() for key in keys]


def test_streams_and_seeds_of_different_purposes_differ() -> None:
    streams = [torch.rand(1, generator=stream(purpose, 0, 1)).item() for purpose in ("order", "views", "copies")]
    with isolated_rng(0, "backbone"):
        first = draws()
    with isolated_rng(0, "heads"):
        second = draws()
    assert len({*streams, *first, *second}) == 9


def flat(module: nn.Module) -> dict[str, Tensor]:
    """The large weights by name, each as a vector."""
    return {name: p.detach().flatten() for name, p in module.named_parameters() if p.ndim > 1 and p.numel() > 1000}


def strongest_correlation(a: Tensor, b: Tensor) -> float:
    """The largest correlation of two vectors over all shifts against each other, in standard deviations."""
    size = len(a) + len(b)
    one, other = (torch.fft.rfft((x.double() - x.mean()) / x.std(), size) for x in (a, b))
    return float(torch.fft.irfft(one.conj() * other, size).abs().max()) / min(len(a), len(b)) ** 0.5


def test_heads_do_not_correlate_with_the_backbone_of_the_same_seed(
    tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(
        "bench.training.pretraining.pretrain", lambda method, *_, **__: made.append(method)
    )  # a job's start
    suite = write_suite(tmp_path, backbone={"key": "convnet"}, methods=["simclr"], overrides={})
    compute(Request(suite=str(suite), store=str(tmp_path / "store")), shared_cache)
    (method,) = made
    for below, head in product(flat(method.backbone).values(), flat(method.projector).values()):
        assert strongest_correlation(below, head) < 7


def test_a_state_without_cuda_is_refused_on_cuda_before_anything_changes() -> None:
    saved = rng_state("cpu")
    torch.rand(1)
    before = torch.get_rng_state()
    with pytest.raises(JobError, match=r"none of a CUDA device: they were saved on a CPU\. Continue on the device"):
        set_rng_state(saved, "cuda")
    assert torch.equal(torch.get_rng_state(), before)
